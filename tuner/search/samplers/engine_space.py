"""A space as hpbandster can take it: no ordinals, no constants, categories by index."""

from collections.abc import Mapping
from copy import copy
from typing import Any

from ConfigSpace import (
    AndConjunction,
    CategoricalHyperparameter,
    Configuration,
    ConfigurationSpace,
    Constant,
    EqualsCondition,
    GreaterThanCondition,
    InCondition,
    LessThanCondition,
    NotEqualsCondition,
    OrConjunction,
    OrdinalHyperparameter,
    UniformIntegerHyperparameter,
)
from ConfigSpace.util import deactivate_inactive_hyperparameters


class EngineSpace:
    """The encoded ``space``, and the way there and back for configurations.

    Hyperparameters with a single value are left out, for a density over one category is infinite.
    Ordinals become integers, categories their index. Conditions are carried over; forbidden clauses
    are not, so a decoded configuration may be refused.
    """

    def __init__(self, original: ConfigurationSpace) -> None:
        self.space = ConfigurationSpace()
        self._original = original
        self._conditions = {c.child.name: c for c in _merged(original)}
        self._levels: dict[str, list[Any]] = {}
        """Name -> the values that are told to the engine by their index."""
        self._fixed: dict[str, Any] = {}
        self._never: set[str] = set()
        for name in original:  # parents come before their children
            self._add(original[name])

    def encode(self, configuration: Configuration) -> dict[str, Any]:
        """The engine's values for what is active in ``configuration``."""
        values = dict(configuration)
        return {
            name: self._levels[name].index(values[name]) if name in self._levels else values[name]
            for name in self.space
            if name in values
        }

    def decode(self, values: Mapping[str, Any]) -> Configuration:
        """The original space's configuration.

        Raises:
            ForbiddenValueError: a forbidden clause refuses it.

        """
        decoded = {
            name: self._levels[name][int(value)] if name in self._levels else value
            for name, value in values.items()
        }
        return deactivate_inactive_hyperparameters(self._fixed | decoded, self._original)

    def _add(self, hyperparameter: Any) -> None:
        name, levels = hyperparameter.name, _levels(hyperparameter)
        encoded = _encoded(hyperparameter, levels)
        condition = self._rewrite(self._conditions.get(name), encoded)
        if condition is False:
            self._never.add(name)
        elif encoded is None:
            self._fixed[name] = hyperparameter.default_value
        else:
            if levels:
                self._levels[name] = levels
            self.space.add(encoded)
            if condition is not True:
                self.space.add(condition)

    def _rewrite(self, condition: Any, child: Any) -> Any:
        """``condition`` in the engine's terms: a condition, or True or False where it always is."""
        if condition is None:
            return True
        if isinstance(condition, AndConjunction | OrConjunction):
            return self._rewrite_conjunction(condition, child)
        parent = condition.parent.name
        if parent in self._never:
            return False
        if parent in self._fixed:
            if not condition.satisfied_by_value({parent: self._fixed[parent]}):
                return False
            return self._rewrite(self._conditions.get(parent), child)
        if child is None:  # left out of the engine: active wherever its condition holds
            return True
        return self._rewrite_leaf(condition, child)

    def _rewrite_conjunction(self, condition: Any, child: Any) -> Any:
        decisive = isinstance(condition, OrConjunction)
        parts = [self._rewrite(part, child) for part in condition.components]
        if any(part is decisive for part in parts):
            return decisive
        parts = [part for part in parts if not isinstance(part, bool)]
        if not parts:
            return not decisive
        return parts[0] if len(parts) == 1 else type(condition)(*parts)

    def _rewrite_leaf(self, condition: Any, child: Any) -> Any:
        name = condition.parent.name
        parent, levels = self.space[name], self._levels.get(name)
        if isinstance(condition, InCondition):
            values = [levels.index(v) if levels else v for v in condition.values]
            return InCondition(child, parent, values)
        value = levels.index(condition.value) if levels else condition.value
        kinds = (EqualsCondition, NotEqualsCondition, LessThanCondition, GreaterThanCondition)
        kind = next(kind for kind in kinds if isinstance(condition, kind))
        return kind(child, parent, value)


def _levels(hyperparameter: Any) -> list[Any]:
    if isinstance(hyperparameter, CategoricalHyperparameter):
        return list(hyperparameter.choices)
    if isinstance(hyperparameter, OrdinalHyperparameter):
        return list(hyperparameter.sequence)
    return []


def _encoded(hyperparameter: Any, levels: list[Any]) -> Any:
    """The engine's form of a hyperparameter; None where there is nothing to choose."""
    if isinstance(hyperparameter, Constant) or len(levels) == 1:
        return None
    name = hyperparameter.name
    if isinstance(hyperparameter, OrdinalHyperparameter):
        default = levels.index(hyperparameter.default_value)
        return UniformIntegerHyperparameter(name, 0, len(levels) - 1, default_value=default)
    if levels:
        default = levels.index(hyperparameter.default_value)
        weights = hyperparameter.weights
        return CategoricalHyperparameter(
            name, list(range(len(levels))), default_value=default, weights=weights
        )
    return copy(hyperparameter)


def _merged(space: ConfigurationSpace) -> list[Any]:
    """One condition a child: several that were added one by one hold together."""
    merged: dict[str, Any] = {}
    for condition in space.conditions:
        for child in {c.name: c for c in _children(condition)}.values():
            before = merged.get(child.name)
            merged[child.name] = AndConjunction(before, condition) if before else condition
    return list(merged.values())


def _children(condition: Any) -> list[Any]:
    if isinstance(condition, AndConjunction | OrConjunction):
        return [child for part in condition.components for child in _children(part)]
    return [condition.child]
