"""Plain Python values out of a space: its default, draws, and the grid."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from ConfigSpace import Configuration, ConfigurationSpace
from ConfigSpace.hyperparameters import FloatHyperparameter
from ConfigSpace.types import NotSet

from search_spaces.convert import choices, grid_count
from search_spaces.errors import SpaceError, near
from search_spaces.schema import PLACES, scalar

ATTEMPTS = 10_000
"""Draws that forbidden clauses may refuse in a row."""


def plain(configuration: Configuration) -> dict[str, Any]:
    """The active values of ``configuration`` in plain Python, in the space's order."""
    space = configuration.config_space
    return {name: _plain(space[name], value) for name, value in configuration.items()}


def to_configuration(space: ConfigurationSpace, config: Mapping[str, Any]) -> Configuration:
    """Turn a dict as :func:`plain` returns it back.

    Raises:
        SpaceError: it is no configuration of ``space``.

    """
    for name in config:
        if name not in space:
            raise SpaceError(f"{name} is no hyperparameter of the space: {near(name, space)}")
    try:
        return Configuration(space, values=config)
    except (ValueError, TypeError) as error:
        raise SpaceError(
            f"{dict(config)} is no configuration of the space, {error}; change the value"
        ) from error


def default_configuration(space: ConfigurationSpace) -> dict[str, Any]:
    """The default of every hyperparameter that is active then."""
    return plain(space.get_default_configuration())


def complete(space: ConfigurationSpace, given: Mapping[str, Any]) -> dict[str, Any]:
    """The default configuration with the ``given`` values in place.

    What they make active has its default, what they make inactive is left out.

    Raises:
        SpaceError: a name or a value is none of the space's, or a forbidden clause refuses them.

    """
    for name, value in given.items():
        if name not in space:
            raise SpaceError(f"{name} is no hyperparameter of the space: {near(name, space)}")
        if not _is_legal(space[name], value):
            raise SpaceError(f"{name} is {value!r}: it must be {_domain(space[name])}")
    values = {name: space[name].default_value for name in space} | dict(given)
    chosen = _combinations(space, tuple(space), lambda hp: (_plain(hp, values[hp.name]),))
    if (configuration := next(chosen, None)) is None:
        raise SpaceError(
            f"{dict(given)} with the defaults for the rest is refused by a forbidden clause; "
            "change a value"
        )
    return configuration


def sample(
    space: ConfigurationSpace, seed: int | Sequence[int] | np.random.Generator
) -> dict[str, Any]:
    """Draw a configuration that depends on ``seed`` alone; a generator is drawn from.

    The draw is our own, for ConfigSpace's may return what its own check refuses: a child of
    ``any`` of two parents that lie at unequal depths.

    Raises:
        SpaceError: forbidden clauses leave next to nothing to draw.

    """
    random = np.random.RandomState(np.random.default_rng(seed).bit_generator)
    for _ in range(ATTEMPTS):
        drawn = _combinations(
            space, tuple(space), lambda hp: (_plain(hp, hp.sample_value(seed=random)),)
        )
        if (configuration := next(drawn, None)) is not None:
            return configuration
    raise SpaceError(
        f"forbidden refuses {ATTEMPTS} draws in a row: it must leave something; loosen a clause"
    )


def grid(space: ConfigurationSpace) -> list[dict[str, Any]]:
    """Every combination of the points of each hyperparameter, the last one changing fastest.

    A range gives the points that its ``grid`` says, else 3; anything else gives all its values.
    Conditions and forbidden clauses are kept, and no combination is there twice.
    """
    return list(_combinations(space, tuple(space), _points))


def grid_size(space: ConfigurationSpace) -> int:
    """The length of :func:`grid`, without building it where hyperparameters are independent."""
    tied = _tied(space)
    free = prod(len(_points(space[name])) for name in space if name not in tied)
    return free * sum(
        1 for _ in _combinations(space, tuple(n for n in space if n in tied), _points)
    )


def _is_legal(hyperparameter: Any, value: Any) -> bool:
    if isinstance(value, list | tuple | dict):  # ConfigSpace takes a list for one value each
        return False
    try:
        return bool(hyperparameter.legal_value(value))
    except (TypeError, OverflowError):  # another thing than a number or a name
        return False


def _domain(hyperparameter: Any) -> str:
    listed = choices(hyperparameter)
    if listed is not None:
        return f"one of {', '.join(map(repr, listed))}"
    kind = "a number" if isinstance(hyperparameter, FloatHyperparameter) else "an integer"
    return f"{kind} from {hyperparameter.lower:g} to {hyperparameter.upper:g}"


def _plain(hyperparameter: Any, value: Any) -> Any:
    listed = choices(hyperparameter)
    if listed is not None:  # numpy may have made 1 and True of the 1.0 and 1 that were given
        return scalar(listed[listed.index(value)])
    if isinstance(hyperparameter, FloatHyperparameter):
        return float(np.round(value, PLACES))  # as a Configuration does
    return int(value)


def _combinations(
    space: ConfigurationSpace,
    names: tuple[str, ...],
    values: Callable[[Any], Iterable[Any]],
    chosen: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """Each way to add to ``chosen`` one of the ``values`` of each hyperparameter of ``names``.

    ``names`` come in the space's order, in which parents are before their children, and leave out
    only hyperparameters that no condition and no forbidden clause is about.
    """
    chosen = dict(chosen or {})
    if not names:
        active = {name: value for name, value in chosen.items() if value is not NotSet}
        if not any(clause.is_forbidden_value(active) for clause in space.forbidden_clauses):
            yield active
        return
    name, *others = names
    conditions = space.parent_conditions_of[name]
    met = all(condition.satisfied_by_value(chosen) for condition in conditions)
    for value in values(space[name]) if met else (NotSet,):
        yield from _combinations(space, tuple(others), values, {**chosen, name: value})


def _points(hyperparameter: Any) -> list[Any]:
    """The values that a grid takes of one hyperparameter, in order, each once."""
    listed = choices(hyperparameter)
    if listed is not None:
        return [scalar(value) for value in listed]
    count = grid_count(hyperparameter) or 3
    if count == 1:
        return [_plain(hyperparameter, hyperparameter.default_value)]
    spaced = np.geomspace if hyperparameter.log else np.linspace
    points = spaced(hyperparameter.lower, hyperparameter.upper, count)
    if not isinstance(hyperparameter, FloatHyperparameter):
        points = np.rint(points)
    return list(dict.fromkeys(_plain(hyperparameter, point) for point in points))


def _tied(space: ConfigurationSpace) -> set[str]:
    """The hyperparameters that a condition or a forbidden clause is about."""
    tied = {name for name in space if space.parents_of[name] or space.children_of[name]}
    for clause in space.forbidden_clauses:
        leaves: tuple[Any, ...] = getattr(clause, "dlcs", (clause,))
        tied.update(leaf.hyperparameter.name for leaf in leaves)
    return tied
