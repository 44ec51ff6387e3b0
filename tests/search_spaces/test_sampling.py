import json
from typing import Any

import numpy as np
import pytest

from search_spaces import (
    SpaceError,
    complete,
    default_configuration,
    grid,
    grid_size,
    load_space,
    plain,
    sample,
    to_configuration,
)
from tests.conftest import EXAMPLES

KINDS = {
    "lr": {"type": "float", "lower": 1e-4, "upper": 1e-1, "log": True},
    "layers": {"type": "integer", "lower": 1, "upper": 4},
    "optimizer": {"type": "categorical", "choices": ["sgd", "adamw"], "default": "adamw"},
    "size": {"type": "ordinal", "sequence": [32, 64, 96]},
    "momentum": {"type": "float", "lower": 0.5, "upper": 0.9},
    "warmup": {"type": "constant", "value": 1},
}
CONDITIONS = [{"child": "momentum", "parent": "optimizer", "equals": "sgd"}]
SPACE = {"hyperparameters": KINDS, "conditions": CONDITIONS}
MIXED = [
    [None, True, 2, 2.5, "a"],
    [True, False],
    [True, 2],
    [1, 2.5],
    [0.1, None],
    ["none", "all", 1],
    [3],
]


def points(**hyperparameter: Any):
    return [c["x"] for c in grid(load_space({"hyperparameters": {"x": hyperparameter}}))]


def test_values_are_plain_python():
    space = load_space(SPACE)
    types = {
        "layers": int,
        "lr": float,
        "momentum": float,
        "optimizer": str,
        "size": int,
        "warmup": int,
    }
    for config in [
        default_configuration(space),
        *grid(space),
        *(sample(space, n) for n in range(9)),
    ]:
        assert {name: type(value) for name, value in config.items()} == {
            name: types[name] for name in config
        }
        assert json.loads(json.dumps(config)) == config
        assert ("momentum" in config) == (config["optimizer"] == "sgd")


@pytest.mark.parametrize("kind", [("categorical", "choices"), ("ordinal", "sequence")])
@pytest.mark.parametrize("values", MIXED, ids=str)
def test_choices_come_back_as_they_were_given(kind: tuple[str, str], values: list[Any]):
    """Numpy would make 1.0 of 1 beside 2.5, and 1 of True beside 2."""
    space = load_space({"hyperparameters": {"x": {"type": kind[0], kind[1]: values}}})
    expected = [(type(value), value) for value in values]
    assert [(type(c["x"]), c["x"]) for c in grid(space)] == expected
    drawn = [sample(space, seed)["x"] for seed in range(60)]
    assert {(type(v), v) for v in drawn} == set(expected)
    native = [plain(to_configuration(space, {"x": v}))["x"] for v in values]
    assert [(type(v), v) for v in native] == expected


@pytest.mark.parametrize("value", [None, False, 0, 0.5, "all"])
def test_constants_come_back_as_they_were_given(value: Any):
    space = load_space({"hyperparameters": {"x": {"type": "constant", "value": value}}})
    for config in (default_configuration(space), sample(space, 0), *grid(space)):
        assert (type(config["x"]), config["x"]) == (type(value), value)


def test_the_default_is_what_was_written_or_the_middle():
    assert default_configuration(load_space(SPACE)) == {
        "layers": 2,
        "lr": 0.0031622776602,
        "optimizer": "adamw",
        "size": 32,
        "warmup": 1,
    }


def test_the_same_seed_gives_the_same_draw():
    space = load_space(SPACE)
    assert sample(space, 7) == sample(load_space(SPACE, seed=3), 7) != sample(space, 8)
    assert sample(space, [7, 1]) == sample(space, [7, 1]) != sample(space, [7, 2])


def test_a_generator_is_drawn_from():
    space, generator = load_space(SPACE), np.random.default_rng(7)
    drawn = [sample(space, generator) for _ in range(3)]
    assert drawn[0] == sample(space, 7)
    assert len({json.dumps(config) for config in drawn}) == 3


def test_a_draw_leaves_every_other_generator_alone():
    space, other = load_space(SPACE, seed=1), load_space(SPACE, seed=1)
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    sample(space, 0)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    assert dict(space.sample_configuration()) == dict(other.sample_configuration())


def test_weights_weigh():
    hp = {"type": "categorical", "choices": ["a", "b", "c"], "weights": [0, 1, 3]}
    space = load_space({"hyperparameters": {"x": hp}})
    drawn = [sample(space, seed)["x"] for seed in range(400)]
    assert drawn.count("a") == 0
    assert 60 < drawn.count("b") < 140


def test_log_draws_are_even_in_log_space():
    space = load_space(SPACE)
    drawn = [sample(space, seed)["lr"] for seed in range(300)]
    assert 1e-4 <= min(drawn) < max(drawn) <= 1e-1
    assert 70 < sum(lr < 1e-3 for lr in drawn) < 130


def test_a_space_that_forbids_nearly_all_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("search_spaces.sampling.ATTEMPTS", 20)
    x = {"type": "float", "lower": 0, "upper": 1, "default": 0}
    space = load_space({"hyperparameters": {"x": x}, "forbidden": [{"x": {"greater_than": 0}}]})
    with pytest.raises(SpaceError) as caught:
        sample(space, 0)
    assert str(caught.value) == (
        "forbidden refuses 20 draws in a row: it must leave something; loosen a clause"
    )


@pytest.mark.parametrize(
    ("hyperparameter", "expected"),
    [
        ({"type": "float", "lower": 0, "upper": 1}, [0.0, 0.5, 1.0]),
        ({"type": "float", "lower": 0, "upper": 1, "grid": 5}, [0.0, 0.25, 0.5, 0.75, 1.0]),
        ({"type": "float", "lower": 0, "upper": 1, "grid": 2}, [0.0, 1.0]),
        ({"type": "float", "lower": 0, "upper": 1, "default": 0.3, "grid": 1}, [0.3]),
        (
            {"type": "float", "lower": 1e-4, "upper": 1e-1, "log": True, "grid": 4},
            [1e-4, 1e-3, 1e-2, 1e-1],
        ),
        ({"type": "float", "lower": 3, "upper": 1000, "log": True, "grid": 2}, [3.0, 1000.0]),
        ({"type": "integer", "lower": 1, "upper": 9}, [1, 5, 9]),
        ({"type": "integer", "lower": 1, "upper": 2}, [1, 2]),
        ({"type": "integer", "lower": 1, "upper": 3, "grid": 9}, [1, 2, 3]),
        ({"type": "integer", "lower": 1, "upper": 64, "log": True, "grid": 4}, [1, 4, 16, 64]),
        ({"type": "integer", "lower": 1, "upper": 8, "log": True, "grid": 7}, [1, 2, 3, 4, 6, 8]),
        ({"type": "categorical", "choices": ["b", "a"]}, ["b", "a"]),
        ({"type": "ordinal", "sequence": [3, 1, 2]}, [3, 1, 2]),
        ({"type": "constant", "value": None}, [None]),
    ],
    ids=str,
)
def test_grid_points(hyperparameter: dict[str, Any], expected: list[Any]):
    got = points(**hyperparameter)
    assert got == expected
    assert [type(v) for v in got] == [type(v) for v in expected]


def test_the_grid_is_every_combination_in_a_stable_order():
    space = load_space(
        {
            "hyperparameters": {
                "b": {"type": "integer", "lower": 1, "upper": 2},
                "a": {"type": "categorical", "choices": ["x", "y"]},
                "c": {"type": "float", "lower": 0, "upper": 1, "grid": 2},
            },
            "conditions": [{"child": "c", "parent": "a", "equals": "y"}],
            "forbidden": [{"a": "y", "b": 2}],
        }
    )
    assert grid(space) == [
        {"a": "x", "b": 1},
        {"a": "x", "b": 2},
        {"a": "y", "b": 1, "c": 0.0},
        {"a": "y", "b": 1, "c": 1.0},
    ]
    assert grid_size(space) == 4


def test_the_size_of_a_grid_is_known_without_building_it():
    names = [f"x{n}" for n in range(40)]
    hyperparameters = {name: {"type": "float", "lower": 0, "upper": 1} for name in names}
    assert grid_size(load_space({"hyperparameters": hyperparameters})) == 3**40


def test_a_configuration_survives_the_way_there_and_back():
    space = load_space(SPACE)
    for seed in range(30):
        config = sample(space, seed)
        assert plain(to_configuration(space, json.loads(json.dumps(config)))) == config


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sise": 32}, "sise is no hyperparameter of the space: did you mean 'size'?"),
        ({"size": 33}, "Value 33: (<class 'int'>) is not allowed for hyperparameter"),
        ({"momentum": 0.6}, "Hyperparameter is inactive but has a value set as 0.6"),
        ({"optimizer": "sgd"}, "Hyperparameter is active but has no value set."),
        ({"optimizer": {}}, "unhashable type: 'dict'; change the value"),
    ],
)
def test_a_dict_that_is_no_configuration_is_refused(changes: dict[str, Any], expected: str):
    space = load_space(SPACE)
    with pytest.raises(SpaceError) as caught:
        to_configuration(space, default_configuration(space) | changes)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": "fast"}, "lr is 'fast': it must be a number from 0.001 to 0.3"),
        ({"lr": 1}, "lr is 1: it must be a number from 0.001 to 0.3"),
        ({"layers": 1.5}, "layers is 1.5: it must be an integer from 1 to 3"),
        ({"optimizer": {"a": 1}}, "optimizer is {'a': 1}: it must be one of 'sgd', 'adamw'"),
        ({"kind": "other"}, "kind is 'other': it must be one of 'toy'"),
        ({"layer": 1}, "layer is no hyperparameter of the space: did you mean 'layers'?"),
        ({"optimizer": "adamw", "size": "large"}, "is refused by a forbidden clause"),
    ],
)
def test_a_guess_that_is_no_configuration_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        complete(load_space(str(EXAMPLES / "every_kind.yaml")), given)
    assert message in str(caught.value)


def test_a_guess_is_completed_from_the_default() -> None:
    space = load_space(str(EXAMPLES / "every_kind.yaml"))
    default = default_configuration(space)
    assert complete(space, {}) == default
    assert complete(space, {"lr": 0.1}) == default | {"lr": 0.1}
    adamw = complete(space, {"optimizer": "adamw", "momentum": 0.5})
    assert "momentum" not in adamw, "what is inactive is left out"
    sampled = sample(space, 3)
    assert complete(space, sampled) == sampled
