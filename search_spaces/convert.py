"""From the YAML form to ConfigSpace's objects and back."""

from collections.abc import Hashable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

import ConfigSpace as cs  # noqa: N813 - as its own documentation has it
import numpy as np
from ConfigSpace.conditions import Conjunction
from ConfigSpace.hyperparameters import Hyperparameter, NumericalHyperparameter
from ConfigSpace.types import NotSet

from search_spaces import schema
from search_spaces.errors import SpaceError, near
from search_spaces.schema import dotted, equal, number, scalar


class NotEquals(cs.NotEqualsCondition):
    """As ConfigSpace's own, save that it does not hold where the parent is inactive.

    There the parent's vector is NaN, which differs from every value.
    """

    def satisfied_by_vector(self, vector: Any) -> bool:
        """Whether the parent is active and differs."""
        return bool(self.satisfied_by_vector_array(vector))

    def satisfied_by_vector_array(self, arr: Any) -> Any:
        """Whether the parent is active and differs, for each column."""
        return np.isfinite(arr[self.parent_vector_id]) & super().satisfied_by_vector_array(arr)


class _Ungrouped:
    """Keeps ConfigSpace from taking two conjunctions for one.

    It groups children whose conjunctions have like parts, were they one AND and one OR.
    """

    def equivalent_condition_on_parent(self, other: Any) -> bool:  # noqa: ARG002
        """Never."""
        return False


class AllOf(_Ungrouped, cs.AndConjunction):
    """All of its parts hold."""


class AnyOf(_Ungrouped, cs.OrConjunction):
    """Any of its parts holds."""


_CONDITIONS: dict[str, type[Any]] = {
    "equals": cs.EqualsCondition,
    "not_equals": cs.NotEqualsCondition,
    "in": cs.InCondition,
    "less_than": cs.LessThanCondition,
    "greater_than": cs.GreaterThanCondition,
    "all": cs.AndConjunction,
    "any": cs.OrConjunction,
}
_BUILT = _CONDITIONS | {"not_equals": NotEquals, "all": AllOf, "any": AnyOf}
_CLAUSES: dict[str, type[Any]] = {
    "equals": cs.ForbiddenEqualsClause,
    "in": cs.ForbiddenInClause,
    "less_than": cs.ForbiddenLessThanClause,
    "greater_than": cs.ForbiddenGreaterThanClause,
}


def choices(hyperparameter: Any) -> tuple[Any, ...] | None:
    """The values of a hyperparameter that lists them, as they were given; None for a range."""
    match hyperparameter:
        case cs.CategoricalHyperparameter():
            return tuple(hyperparameter.choices)
        case cs.OrdinalHyperparameter():
            return tuple(hyperparameter.sequence)
        case cs.Constant():
            return (hyperparameter.value,)
    return None


def grid_count(hyperparameter: Any) -> int | None:
    """How many points a grid takes of the hyperparameter, where the space says so."""
    count: int | None = (hyperparameter.meta or {}).get("grid")
    return count


def build_space(spec: schema.Space, seed: int = 0) -> cs.ConfigurationSpace:
    """Build the ConfigSpace object.

    Raises:
        SpaceError: a condition or a forbidden clause names what is not there, or cannot be.

    """
    space = cs.ConfigurationSpace(seed=seed)
    space.add([_hyperparameter(name, kind) for name, kind in spec.hyperparameters.items()])
    _check_order(spec.conditions)
    space.add([_condition(space, i, c) for i, c in enumerate(spec.conditions)])
    space.add([_forbidden(space, i, clauses) for i, clauses in enumerate(spec.forbidden)])
    return space


def _hyperparameter(name: str, spec: schema.Hyperparameter) -> Hyperparameter[Any, Any]:
    match spec:
        case schema.Constant():
            return cs.Constant(name, spec.value)
        case schema.Categorical():
            default = spec.given.get("default", NotSet)
            return cs.CategoricalHyperparameter(name, spec.choices, default, weights=spec.weights)
        case schema.Ordinal():
            return cs.OrdinalHyperparameter(name, spec.sequence, spec.given.get("default", NotSet))
    kind = (
        cs.UniformFloatHyperparameter
        if isinstance(spec, schema.Float)
        else cs.UniformIntegerHyperparameter
    )
    meta: dict[Hashable, Any] | None = {"grid": spec.grid} if spec.grid else None
    return kind(name, spec.lower, spec.upper, spec.default, log=spec.log, meta=meta)


def _check_order(conditions: tuple[schema.Condition, ...]) -> None:
    """Refuse a child with two conditions, and children that wait for each other."""
    parents: dict[str, list[str]] = {}
    for index, condition in enumerate(conditions):
        if condition.child in parents:
            raise SpaceError(
                f"conditions[{index}].child is {condition.child!r}: it has a condition already; "
                "join them in one with all or any"
            )
        parents[condition.child] = list(_parents(condition))
    try:
        TopologicalSorter(parents).prepare()
    except CycleError as error:
        raise SpaceError(
            f"conditions make a circle, {' -> '.join(error.args[1])}: "
            "a parent must not depend on its child; drop one of them"
        ) from None


def _parents(requirement: schema.Requirement) -> Iterator[str]:
    if requirement.parent is not None:
        yield requirement.parent
    for part in (*requirement.all, *requirement.any):
        yield from _parents(part)


def _condition(space: cs.ConfigurationSpace, index: int, condition: schema.Condition) -> Any:
    child = _find(space, condition.child, "conditions", index, "child")
    return _requirement(space, child, condition, "conditions", index)


def _requirement(
    space: cs.ConfigurationSpace, child: Any, requirement: schema.Requirement, *path: object
) -> Any:
    key, value = requirement.test
    if key in ("all", "any"):
        parts = [_requirement(space, child, part, *path, key, i) for i, part in enumerate(value)]
        return _BUILT[key](*parts)
    parent = _find(space, str(requirement.parent), *path, "parent")
    return _BUILT[key](child, parent, _operand(parent, key, value, *path, key))


def _forbidden(
    space: cs.ConfigurationSpace, index: int, clauses: Mapping[str, schema.Clause]
) -> Any:
    parts = []
    for name, clause in clauses.items():
        path = ("forbidden", index, name)
        hyperparameter = _find(space, name, *path)
        for key, value in clause.given.items():
            where = path if key == "equals" else (*path, key)
            operand = _operand(hyperparameter, key, value, *where)
            parts.append(_CLAUSES[key](hyperparameter, operand))
    forbidden = parts[0] if len(parts) == 1 else cs.ForbiddenAndConjunction(*parts)
    default = dict(space.get_default_configuration())
    if forbidden.is_forbidden_value(default):
        meant = ", ".join(f"{name}: {default[name]!r}" for name in clauses)
        raise SpaceError(
            f"forbidden[{index}] forbids the default configuration, {meant}: "
            "it is the first trial; change a default or the clause"
        )
    return forbidden


def _find(space: cs.ConfigurationSpace, name: str, *path: object) -> Any:
    if name not in space:
        raise SpaceError(f"{dotted(*path)} names no hyperparameter, {name!r}: {near(name, space)}")
    return space[name]


def _operand(hyperparameter: Any, key: str, value: Any, *path: object) -> Any:
    """What a test compares with, in the hyperparameter's own type."""
    if key == "in":
        return [_legal(hyperparameter, item, *path, i) for i, item in enumerate(value)]
    legal = _legal(hyperparameter, value, *path)
    if key in ("less_than", "greater_than"):
        lowest, highest = _ends(hyperparameter, *path)
        if legal == (lowest if key == "less_than" else highest):
            raise SpaceError(
                f"{dotted(*path)} is {value!r}: {hyperparameter.name} is never that; "
                f"it goes from {lowest!r} to {highest!r}"
            )
    if key == "not_equals" and hyperparameter.size == 1:
        raise SpaceError(
            f"{dotted(*path)} is {value!r}: {hyperparameter.name} has no other value; "
            "drop the child or add a value"
        )
    return legal


def _legal(hyperparameter: Any, value: Any, *path: object) -> Any:
    listed = choices(hyperparameter)
    if listed is None:
        value = number(value)
        whole = isinstance(hyperparameter, cs.UniformIntegerHyperparameter)
        if not isinstance(value, bool) and hyperparameter.legal_value(value):
            return int(value) if whole else float(value)
        lower, upper = hyperparameter.lower, hyperparameter.upper
        rule = f"a {'whole ' * whole}number from {lower} to {upper}"
    else:
        for choice in listed:
            if equal(choice, value):
                return choice
        rule = f"one of {', '.join(map(repr, listed))}"
    raise SpaceError(
        f"{dotted(*path)} is {value!r}: {hyperparameter.name} is never that; it is {rule}"
    )


def _ends(hyperparameter: Any, *path: object) -> tuple[Any, Any]:
    """The lowest and the highest value of a hyperparameter that has an order."""
    if isinstance(hyperparameter, cs.OrdinalHyperparameter):
        return hyperparameter.sequence[0], hyperparameter.sequence[-1]
    if isinstance(hyperparameter, NumericalHyperparameter):
        return hyperparameter.lower, hyperparameter.upper
    raise SpaceError(
        f"{dotted(*path)} compares {hyperparameter.name}, whose values have no order: "
        "it must be a float, an integer or an ordinal; use equals or in"
    )


def dump_space(space: cs.ConfigurationSpace) -> dict[str, Any]:
    """Write ``space`` in the form of a YAML file, in plain Python; loading it gives an equal space.

    Raises:
        SpaceError: the form has no words for a part of it: a normal or beta distribution, a
            relation between two hyperparameters, a forbidden clause other than a conjunction.

    """
    document: dict[str, Any] = {
        "hyperparameters": {name: _dump_hyperparameter(space[name]) for name in space}
    }
    if space.conditions:
        document["conditions"] = [
            {"child": condition.child.name} | _dump_requirement(condition)
            for condition in space.conditions
        ]
    if space.forbidden_clauses:
        document["forbidden"] = [_dump_forbidden(clause) for clause in space.forbidden_clauses]
    return document


def _dump_hyperparameter(hyperparameter: Any) -> dict[str, Any]:
    match hyperparameter:
        case cs.Constant():
            return {"type": "constant", "value": scalar(hyperparameter.value)}
        case cs.CategoricalHyperparameter():
            written = {"type": "categorical", "choices": _scalars(hyperparameter.choices)}
            if hyperparameter.weights:
                written["weights"] = _scalars(hyperparameter.weights)
        case cs.OrdinalHyperparameter():
            written = {"type": "ordinal", "sequence": _scalars(hyperparameter.sequence)}
        case cs.UniformFloatHyperparameter() | cs.UniformIntegerHyperparameter():
            written = _dump_range(hyperparameter)
        case _:
            raise SpaceError(
                f"hyperparameters.{hyperparameter.name} is a {type(hyperparameter).__name__}: "
                "it must be a uniform float or integer, a categorical, an ordinal or a constant"
            )
    return written | {"default": scalar(hyperparameter.default_value)}


def _dump_range(hyperparameter: Any) -> dict[str, Any]:
    whole = isinstance(hyperparameter, cs.UniformIntegerHyperparameter)
    written = {
        "type": "integer" if whole else "float",
        "lower": hyperparameter.lower,
        "upper": hyperparameter.upper,
    }
    if hyperparameter.log:
        written["log"] = True
    if count := grid_count(hyperparameter):
        written["grid"] = count
    return written


def _dump_requirement(condition: Any) -> dict[str, Any]:
    key = _key(condition, _CONDITIONS)
    if isinstance(condition, Conjunction):
        return {key: [_dump_requirement(part) for part in condition.components]}
    return {"parent": condition.parent.name, key: _dump_operand(condition)}


def _dump_forbidden(clause: Any) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for leaf in _leaves(clause):
        key, tests = _key(leaf, _CLAUSES), written.setdefault(leaf.hyperparameter.name, {})
        if key in tests:
            raise SpaceError(f"forbidden: {clause} has two clauses {key} on one hyperparameter")
        tests[key] = _dump_operand(leaf)
    return {
        name: tests["equals"] if tests.keys() == {"equals"} else tests
        for name, tests in written.items()
    }


def _leaves(clause: Any) -> list[Any]:
    if isinstance(clause, cs.ForbiddenAndConjunction):
        return [leaf for part in clause.components for leaf in _leaves(part)]
    return [clause]


def _dump_operand(test: Any) -> Any:
    return _scalars(test.values) if hasattr(test, "values") else scalar(test.value)


def _scalars(values: Any) -> list[Any]:
    return [scalar(value) for value in values]


def _key(test: Any, kinds: Mapping[str, type[Any]]) -> str:
    for key, kind in kinds.items():
        if isinstance(test, kind):
            return key
    raise SpaceError(
        f"{test} is a {type(test).__name__}: a search space has no such test; "
        f"it must be one of {', '.join(kind.__name__ for kind in kinds.values())}"
    )
