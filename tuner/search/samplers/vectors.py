"""A space as arrays: what models of our own draw from, compare and measure."""

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np
from ConfigSpace import (
    AndConjunction,
    CategoricalHyperparameter,
    Configuration,
    ConfigurationSpace,
    OrConjunction,
    OrdinalHyperparameter,
)
from ConfigSpace.hyperparameters import Hyperparameter
from numpy.typing import NDArray

from search_spaces import plain, to_configuration

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

STEP = 0.2
"""Standard deviation of a mutation, as a share of a range."""


class VectorSpace:
    """Configurations as rows, one column a hyperparameter, in ConfigSpace's own vector form.

    There a range is [0, 1] in its own scale, a category or a level its index, and what is inactive
    NaN. Conditions and forbidden clauses are applied to whole arrays.
    """

    def __init__(self, space: ConfigurationSpace) -> None:
        self._space = space
        self._all: list[Hyperparameter[Any, Any]] = [space[name] for name in space.at]
        self._defaults = np.array([hp.to_vector(hp.default_value) for hp in self._all])
        self.levels = np.array([_levels(hp) for hp in self._all])
        """Values of each category or ordinal, 0 for a range, 1 for what cannot vary."""
        self.ordered = np.array([not isinstance(hp, CategoricalHyperparameter) for hp in self._all])
        self.free = np.flatnonzero(self.levels != 1)
        """The columns that can vary."""

    def encode(self, config: Mapping[str, Any]) -> Array:
        """The row of a configuration."""
        return np.asarray(to_configuration(self._space, config).get_array(), dtype=np.float64)

    def decode(self, row: Array) -> dict[str, Any]:
        """The configuration of a row."""
        return plain(Configuration(self._space, vector=row))

    def draw(self, count: int, random: np.random.Generator) -> Array:
        """Independent draws, (at most ``count``, columns): forbidden ones are left out."""
        return self.legal(self.draw_all(count, random))

    def draw_all(self, count: int, random: np.random.Generator) -> Array:
        """Independent draws, (count, columns), as if everything were active and allowed."""
        state = np.random.RandomState(random.bit_generator)  # the one kind that ConfigSpace takes
        columns = [hp.sample_vector(count, seed=state) for hp in self._all]
        return np.stack(columns, axis=1).astype(np.float64)

    def mutate(self, rows: Array, random: np.random.Generator) -> Array:
        """Neighbours of ``rows``, less what is forbidden: one value differs, or two.

        A range takes a normal step, an ordinal a step up or down, a category any other value.
        """
        filled = np.where(np.isnan(rows), self.draw_all(len(rows), random), rows)
        filled = self._step(filled, self._active_column(rows, random), random)
        twice = random.random(len(rows)) < 0.5
        columns = self._active_column(rows, random)
        filled[twice] = self._step(filled[twice], columns[twice], random)
        return self.legal(filled)

    def legal(self, rows: Array) -> Array:
        """The rows with what is inactive as NaN, without those that are forbidden."""
        rows = self._quantised(rows)
        for index, hp in enumerate(self._all):
            for condition in self._space.parent_conditions_of[hp.name]:
                rows[~_satisfied(condition, rows.T), index] = np.nan
        clauses = self._space.forbidden_clauses
        forbidden = [clause.is_forbidden_vector_array(rows.T) for clause in clauses]
        return rows[~reduce(np.logical_or, forbidden, np.zeros(len(rows), dtype=bool))]

    def filled(self, rows: Array) -> Array:
        """The rows with what is inactive at its default: the same place for all of them."""
        return np.where(np.isnan(rows), self._defaults, rows)

    def squared_distances(self, a: Array, b: Array) -> Array:
        """(free columns, rows of ``a``, rows of ``b``): in [0, 1]; 1 between any two categories."""
        a, b = self.filled(a)[:, self.free], self.filled(b)[:, self.free]
        difference = a.T[:, :, None] - b.T[:, None, :]
        levels, ordered = self.levels[self.free], self.ordered[self.free]
        scale = np.where(levels > 0, levels - 1, 1)[:, None, None]
        return np.where(ordered[:, None, None], (difference / scale) ** 2, difference != 0)

    def _quantised(self, rows: Array) -> Array:
        """Integers to where they have a value."""
        columns = [
            column if levels else hp.to_vector(hp.to_value(column))
            for hp, levels, column in zip(self._all, self.levels, rows.T, strict=True)
        ]
        return np.stack(columns, axis=1).astype(np.float64)

    def _active_column(self, rows: Array, random: np.random.Generator) -> NDArray[np.intp]:
        """For each row, one of its active columns that can vary."""
        weights = random.random((len(rows), len(self.free)))
        weights[np.isnan(rows[:, self.free])] = -1.0
        return np.asarray(self.free[weights.argmax(axis=1)])

    def _step(self, rows: Array, columns: NDArray[np.intp], random: np.random.Generator) -> Array:
        """The rows with another value in the column that is named for each."""
        count = np.arange(len(rows))
        value, levels = rows[count, columns], self.levels[columns]
        step = np.clip(value + STEP * random.standard_normal(len(rows)), 0.0, 1.0)
        up = np.where(random.random(len(rows)) < 0.5, 1.0, -1.0)
        up = np.where((value + up < 0) | (value + up > levels - 1), -up, up)
        other = (value + 1 + random.integers(0, np.maximum(levels - 1, 1))) % np.maximum(levels, 1)
        changed = rows.copy()
        discrete = np.where(self.ordered[columns], value + up, other)
        changed[count, columns] = np.where(levels > 0, discrete, step)
        return changed


def keys(rows: Array) -> list[bytes]:
    """What is equal for equal rows, inactive values included."""
    return [row.tobytes() for row in np.round(np.nan_to_num(rows, nan=-1.0), 9)]


def _levels(hp: Hyperparameter[Any, Any]) -> int:
    if isinstance(hp, CategoricalHyperparameter):
        return len(hp.choices)
    if isinstance(hp, OrdinalHyperparameter):
        return len(hp.sequence)
    return int(hp.size == 1)


def _satisfied(condition: Any, columns: Array) -> Mask:
    """Where a condition holds; no part of it does on a parent that is itself inactive."""
    if isinstance(condition, AndConjunction):
        return reduce(np.logical_and, [_satisfied(c, columns) for c in condition.components])
    if isinstance(condition, OrConjunction):
        return reduce(np.logical_or, [_satisfied(c, columns) for c in condition.components])
    active = np.isfinite(columns[condition.parent_vector_id])
    holds: Mask = active & condition.satisfied_by_vector_array(columns)
    return holds
