from typing import Any

import numpy as np
import pytest

from search_spaces import SpaceError, dump_space, load_space

HYPERPARAMETERS = {
    "lr": {"type": "float", "lower": 1e-4, "upper": 1e-1, "log": True, "default": 1e-2, "grid": 3},
    "layers": {"type": "integer", "lower": 1, "upper": 4, "default": 2},
    "optimizer": {
        "type": "categorical",
        "choices": ["sgd", "adamw"],
        "weights": [0.3, 0.7],
        "default": "adamw",
    },
    "size": {"type": "ordinal", "sequence": [32, 64, 96], "default": 64},
    "momentum": {"type": "float", "lower": 0.5, "upper": 0.99, "default": 0.9},
    "warmup": {"type": "constant", "value": 1},
}
CONDITIONS = [{"child": "momentum", "parent": "optimizer", "equals": "sgd"}]
FORBIDDEN = [{"optimizer": "sgd", "lr": {"greater_than": 0.05}}]


def document(**changes: Any):
    return {"hyperparameters": HYPERPARAMETERS} | changes


def message(doc: dict[Any, Any]):
    with pytest.raises(SpaceError) as caught:
        load_space(doc)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_key_of_a_document_survives_the_way_there_and_back():
    """The document above states every default, so that nothing is added on the way."""
    doc = document(conditions=CONDITIONS, forbidden=FORBIDDEN)
    assert dump_space(load_space(doc)) == doc


def test_every_kind_becomes_its_configspace_class():
    space = load_space(document())
    assert {name: type(space[name]).__name__ for name in space} == {
        "layers": "UniformIntegerHyperparameter",
        "lr": "UniformFloatHyperparameter",
        "momentum": "UniformFloatHyperparameter",
        "optimizer": "CategoricalHyperparameter",
        "size": "OrdinalHyperparameter",
        "warmup": "Constant",
    }
    assert (space["lr"].lower, space["lr"].upper, space["lr"].log) == (1e-4, 1e-1, True)
    assert space["lr"].meta == {"grid": 3}
    assert list(space["optimizer"].probabilities) == [0.3, 0.7]


def test_numbers_that_yaml_leaves_as_text_are_numbers():
    lr = {"type": "float", "lower": "1e-4", "upper": "1e-1"}
    space = load_space(
        {"hyperparameters": {"lr": lr, "n": HYPERPARAMETERS["layers"] | {"upper": "1e1"}}}
    )
    assert (space["lr"].lower, space["lr"].upper, space["n"].upper) == (1e-4, 0.1, 10)


def test_numpy_numbers_in_a_dict_are_numbers():
    hp = {"type": "ordinal", "sequence": [np.int64(3), np.str_("a"), np.float64(0.5)]}
    written = dump_space(load_space({"hyperparameters": {"x": hp}}))["hyperparameters"]["x"]
    assert [type(v) for v in written["sequence"]] == [int, str, float]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lower": 1, "lowr": 2}, "x.lowr is unknown: did you mean 'lower'?"),
        ({"upper": None}, "x.upper is None: it must be a number; write it as in 1.0e-3"),
        ({"lower": True}, "x.lower is True: it must be a number; write it as in 1.0e-3"),
        ({"lower": "low"}, "x.lower is 'low': it must be a number; write it as in 1.0e-3"),
        ({"upper": float("inf")}, "x.upper is inf: it must lie between -1e+30 and 1e+30"),
        (
            {"lower": 2},
            "x.upper is 1: it must be above lower, 2.0; a single value is type: constant",
        ),
        (
            {"lower": 1},
            "x.upper is 1: it must be above lower, 1.0; a single value is type: constant",
        ),
        (
            {"lower": 0, "log": True},
            (
                "x.log is True: a log scale needs a lower above 0 (13 decimals are kept), not 0.0; "
                "raise lower or drop log"
            ),
        ),
        ({"log": "yes"}, "x.log is 'yes': it must be true or false"),
        ({"default": 3}, "x.default is 3: it must lie between lower, 0.1, and upper, 1.0"),
        ({"grid": 0}, "x.grid is 0: it must be greater than or equal to 1"),
        ({"grid": 2.5}, "x.grid is 2.5: it must be a whole number; write it as in 3"),
        ({"type": "flaot"}, "x.type is 'flaot': no such type; did you mean 'float'?"),
    ],
)
def test_a_faulty_range_is_named(changes: dict[str, Any], expected: str):
    hp = {"type": "float", "lower": 0.1, "upper": 1} | changes
    assert message({"hyperparameters": {"x": hp}}) == f"hyperparameters.{expected}"


def test_an_integer_takes_whole_numbers_only():
    hp = {"type": "integer", "lower": 1, "upper": 2.5}
    assert message({"hyperparameters": {"x": hp}}) == (
        "hyperparameters.x.upper is 2.5: it must be a whole number; write it as in 3"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"choices": []}, "x.choices is []: it must hold 1 or more; add to it"),
        ({"choices": "sgd"}, "x.choices is 'sgd': it must be a list; write it as in [a, b]"),
        (
            {"choices": ["a", "a"]},
            "x.choices is ['a', 'a']: 'a' and 'a' are equal; drop one of them",
        ),
        ({"choices": [1, True]}, "x.choices is [1, True]: 1 and True are equal; drop one of them"),
        (
            {"choices": ["1e-3"]},
            "x.choices[0] is '1e-3': YAML reads it as text, not as a number; write it as in 1.0e-3",
        ),
        (
            {"choices": [1, [2, 3]]},
            (
                "x.choices[1] is [2, 3]: it must be text, a number, true, false or null; "
                "give a list or a mapping a name, and look the name up in the task"
            ),
        ),
        (
            {"choices": [float("nan")]},
            "x.choices[0] is nan: it must be finite; use text or null where no number fits",
        ),
        (
            {"choices": [2**60]},
            (
                "x.choices[0] is 1152921504606846976: it must lie between -9007199254740992 and "
                "9007199254740992; use text"
            ),
        ),
        ({"weights": [1]}, "x.weights is [1]: it must hold one weight a choice: 2, not 1"),
        ({"weights": [1, -1]}, "x.weights[1] is -1: it must be greater than or equal to 0"),
        ({"weights": [0, 0]}, "x.weights is [0, 0]: one weight at least must be above 0"),
        ({"default": "c"}, "x.default is 'c': it must be one of 'a', 'b'"),
        ({"grid": 2}, "x.grid is unknown: choose one of choices, default, type, weights"),
    ],
)
def test_a_faulty_categorical_is_named(changes: dict[str, Any], expected: str):
    hp = {"type": "categorical", "choices": ["a", "b"]} | changes
    assert message({"hyperparameters": {"x": hp}}) == f"hyperparameters.{expected}"


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        ({}, "hyperparameters is missing: it has no default; add it"),
        ({"hyperparameters": {}}, "hyperparameters is {}: it must hold 1 or more; add to it"),
        ({"hyperparamters": {}}, "hyperparamters is unknown: did you mean 'hyperparameters'?"),
        (
            {"hyperparameters": {"x": 3}},
            "hyperparameters.x is 3: it must be a mapping; write it as in {key: value}",
        ),
        (
            {"hyperparameters": {True: {"type": "constant", "value": 1}}},
            "hyperparameters has the key True: it must be text, not empty; quote it",
        ),
        (
            {"hyperparameters": {"x": {"lower": 1}}},
            (
                "hyperparameters.x.type is missing: "
                "choose one of categorical, constant, float, integer, ordinal"
            ),
        ),
        (
            {"hyperparameters": {"x": {"type": "constant"}}},
            "hyperparameters.x.value is missing: it has no default; add it",
        ),
        (
            {"hyperparameters": {"x": {"type": "ordinal", "sequence": [3, 3]}}},
            "hyperparameters.x.sequence is [3, 3]: 3 and 3 are equal; drop one of them",
        ),
    ],
)
def test_a_faulty_document_is_named(doc: dict[Any, Any], expected: str):
    assert message(doc) == expected


FORM = (
    "it must hold a parent and one of equals, not_equals, in, less_than and greater_than, "
    "or else one list of such tests, all or any"
)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (
            {"child": "momentum", "parent": "optimiser", "equals": "sgd"},
            "conditions[0].parent names no hyperparameter, 'optimiser': did you mean 'optimizer'?",
        ),
        (
            {"child": "momentun", "parent": "optimizer", "equals": "sgd"},
            "conditions[0].child names no hyperparameter, 'momentun': did you mean 'momentum'?",
        ),
        (
            {"child": "momentum", "parent": "optimizer", "equals": "adam"},
            "conditions[0].equals is 'adam': optimizer is never that; it is one of 'sgd', 'adamw'",
        ),
        (
            {"child": "momentum", "parent": "optimizer", "in": ["sgd", 1]},
            "conditions[0].in[1] is 1: optimizer is never that; it is one of 'sgd', 'adamw'",
        ),
        (
            {"child": "momentum", "parent": "optimizer", "less_than": "sgd"},
            (
                "conditions[0].less_than compares optimizer, whose values have no order: "
                "it must be a float, an integer or an ordinal; use equals or in"
            ),
        ),
        (
            {"child": "momentum", "parent": "layers", "greater_than": 9},
            (
                "conditions[0].greater_than is 9: "
                "layers is never that; it is a whole number from 1 to 4"
            ),
        ),
        (
            {"child": "momentum", "parent": "size", "less_than": 32},
            "conditions[0].less_than is 32: size is never that; it goes from 32 to 96",
        ),
        (
            {"child": "momentum", "parent": "warmup", "not_equals": 1},
            (
                "conditions[0].not_equals is 1: "
                "warmup has no other value; drop the child or add a value"
            ),
        ),
        (
            {"child": "momentum", "parent": "optimizer"},
            f"conditions[0] is {{'child': 'momentum', 'parent': 'optimizer'}}: {FORM}",
        ),
        (
            {"child": "momentum", "parent": "optimizer", "eqals": "sgd"},
            "conditions[0].eqals is unknown: did you mean 'equals'?",
        ),
        (
            {
                "child": "momentum",
                "all": [{"parent": "layers", "equals": 1}, {"parent": "siz", "equals": 32}],
            },
            "conditions[0].all[1].parent names no hyperparameter, 'siz': did you mean 'size'?",
        ),
        (
            {"child": "momentum", "parent": "momentum", "equals": 0.5},
            (
                "conditions make a circle, momentum -> momentum: "
                "a parent must not depend on its child; drop one of them"
            ),
        ),
    ],
)
def test_a_faulty_condition_is_named(condition: dict[str, Any], expected: str):
    assert message(document(conditions=[condition])) == expected


def test_a_circle_of_conditions_is_named():
    conditions = [
        {"child": "momentum", "parent": "layers", "equals": 1},
        {"child": "layers", "parent": "momentum", "less_than": 0.8},
    ]
    assert message(document(conditions=conditions)).startswith("conditions make a circle, ")


def test_a_second_condition_on_a_child_is_refused():
    twice = [*CONDITIONS, {"child": "momentum", "parent": "layers", "equals": 1}]
    assert message(document(conditions=twice)) == (
        "conditions[1].child is 'momentum': it has a condition already; "
        "join them in one with all or any"
    )


@pytest.mark.parametrize(
    ("clause", "expected"),
    [
        ({}, "forbidden[0] is {}: it must hold 1 or more; add to it"),
        (
            {"optimizer": {}},
            (
                "forbidden[0].optimizer is {}: "
                "it must hold a value, or equals, in, less_than or greater_than"
            ),
        ),
        (
            {"layrs": 1},
            "forbidden[0].layrs names no hyperparameter, 'layrs': did you mean 'layers'?",
        ),
        (
            {"layers": {"grater_than": 1}},
            "forbidden[0].layers.grater_than is unknown: did you mean 'greater_than'?",
        ),
        (
            {"layers": 7},
            "forbidden[0].layers is 7: layers is never that; it is a whole number from 1 to 4",
        ),
        (
            {"optimizer": "adamw", "layers": {"in": [1, 2]}},
            (
                "forbidden[0] forbids the default configuration, optimizer: 'adamw', layers: 2: "
                "it is the first trial; change a default or the clause"
            ),
        ),
    ],
)
def test_a_faulty_forbidden_clause_is_named(clause: dict[str, Any], expected: str):
    assert message(document(forbidden=[clause])) == expected
