from collections.abc import Sequence
from typing import Any

import ConfigSpace
import pytest

from search_spaces import SpaceError, dump_space, grid, load_space, sample, to_configuration

ABC = {name: {"type": "categorical", "choices": ["x", "y"]} for name in "abcde"}


def space_of(
    *conditions: dict[str, Any], forbidden: Sequence[dict[str, Any]] = (), **hyperparameters: Any
):
    return load_space(
        {
            "hyperparameters": ABC | hyperparameters,
            "conditions": list(conditions),
            "forbidden": list(forbidden),
        }
    )


def test_nested_conditions_survive_the_way_there_and_back():
    condition = {
        "child": "e",
        "any": [
            {"parent": "a", "not_equals": "x"},
            {"all": [{"parent": "b", "equals": "y"}, {"parent": "c", "in": ["x", "y"]}]},
        ],
    }
    assert dump_space(space_of(condition))["conditions"] == [condition]


def test_nested_conditions_decide_who_is_active():
    condition = {
        "child": "e",
        "any": [
            {"parent": "a", "equals": "y"},
            {"all": [{"parent": "b", "equals": "y"}, {"parent": "c", "equals": "y"}]},
        ],
    }
    configurations = grid(space_of(condition))
    for c in configurations:
        assert ("e" in c) == (c["a"] == "y" or (c["b"] == "y" and c["c"] == "y"))
    assert len(configurations) == (8 + 2) * 2 + 6


def test_not_equals_does_not_hold_where_the_parent_is_inactive():
    """ConfigSpace's own holds there, for the parent's NaN differs from every value."""
    space = space_of(
        {"child": "b", "parent": "a", "equals": "x"},
        {"child": "c", "parent": "b", "not_equals": "x"},
    )
    configuration = {"a": "y", "d": "x", "e": "x"}
    assert configuration in grid(space)
    assert dict(to_configuration(space, configuration)) == configuration


def test_all_and_any_of_the_same_tests_stay_two_conditions():
    """ConfigSpace's own would give both children the condition of the first."""
    tests = [{"parent": "a", "equals": "x"}, {"parent": "b", "equals": "x"}]
    space = space_of({"child": "c", "all": tests}, {"child": "d", "any": tests})
    configuration = {"a": "x", "b": "y", "d": "x", "e": "x"}
    assert dict(to_configuration(space, configuration)) == configuration


def test_draws_keep_a_condition_on_parents_of_unequal_depth():
    """ConfigSpace's own draws do not: each sixth here would be refused by its own check."""
    space = space_of(
        {"child": "b", "parent": "a", "equals": "x"},
        {"child": "d", "parent": "b", "equals": "x"},
        {"child": "e", "any": [{"parent": "c", "equals": "x"}, {"parent": "d", "equals": "x"}]},
    )
    for seed in range(60):
        to_configuration(space, sample(space, seed))


def test_order_of_an_ordinal_is_that_of_its_sequence():
    size = {"type": "ordinal", "sequence": [96, 32, 64]}
    space = space_of({"child": "a", "parent": "size", "greater_than": 32}, size=size)
    assert {c["size"] for c in grid(space) if "a" in c} == {64}


@pytest.mark.parametrize(
    ("clause", "left"),
    [
        ({"a": "y"}, 16),
        ({"a": "y", "b": "y"}, 24),
        ({"a": {"in": ["y"]}, "b": {"equals": "y"}, "c": "y"}, 28),
    ],
)
def test_a_forbidden_clause_is_a_conjunction(clause: dict[str, Any], left: int):
    assert len(grid(space_of(forbidden=[clause]))) == left


def test_a_forbidden_range_lies_between_its_ends():
    n = {"type": "integer", "lower": 1, "upper": 9, "default": 1, "grid": 9}
    clause = {"n": {"less_than": 7, "greater_than": 3}}
    space = load_space({"hyperparameters": {"n": n}, "forbidden": [clause]})
    assert [c["n"] for c in grid(space)] == [1, 2, 3, 7, 8, 9]
    assert {sample(space, seed)["n"] for seed in range(100)} == {1, 2, 3, 7, 8, 9}
    assert dump_space(space)["forbidden"] == [clause]


def test_a_forbidden_clause_does_not_mean_the_inactive():
    space = space_of(
        {"child": "b", "parent": "a", "equals": "x"}, forbidden=[{"b": "y"}, {"a": "y", "c": "y"}]
    )
    assert {(c["a"], c.get("b")) for c in grid(space)} == {("x", "x"), ("y", None)}


def test_a_space_made_in_python_is_written_in_plain_values():
    space = ConfigSpace.ConfigurationSpace({"n": (1, 4), "x": (0.0, 1.0), "c": ["a", "b"]})
    space.add(ConfigSpace.NotEqualsCondition(space["x"], space["c"], "a"))
    assert dump_space(space) == {
        "hyperparameters": {
            "c": {"type": "categorical", "choices": ["a", "b"], "default": "a"},
            "n": {"type": "integer", "lower": 1, "upper": 4, "default": 2},
            "x": {"type": "float", "lower": 0.0, "upper": 1.0, "default": 0.5},
        },
        "conditions": [{"child": "x", "parent": "c", "not_equals": "a"}],
    }


def test_a_distribution_without_words_is_refused():
    space = ConfigSpace.ConfigurationSpace()
    space.add(ConfigSpace.NormalFloatHyperparameter("lr", mu=0.5, sigma=1, lower=0, upper=1))
    with pytest.raises(SpaceError) as caught:
        dump_space(space)
    assert str(caught.value) == (
        "hyperparameters.lr is a NormalFloatHyperparameter: "
        "it must be a uniform float or integer, a categorical, an ordinal or a constant"
    )


def test_a_relation_without_words_is_refused():
    space = ConfigSpace.ConfigurationSpace({"a": (0.0, 1.0), "b": (1.0, 2.0)})
    space.add(ConfigSpace.ForbiddenGreaterThanRelation(space["a"], space["b"]))
    with pytest.raises(SpaceError, match=r"^Forbidden: a > b is a ForbiddenGreaterThanRelation: "):
        dump_space(space)
