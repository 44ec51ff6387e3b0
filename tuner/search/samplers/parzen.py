"""Multivariate tree of Parzen estimators (Bergstra et al. 2011; Watanabe, arXiv 2304.11127)."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ConfigSpace import ConfigurationSpace
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtr, ndtri

from search_spaces import sample
from tuner.search.samplers.sampler import SpaceSampler
from tuner.search.samplers.vectors import VectorSpace, keys

Array = NDArray[np.float64]

RANDOM_FIRST = 10
CANDIDATES = 64
PENDING, FAILED = (1.0, 0.0), (1.0, 1.0)
"""Where those without a result, and those that failed, stand: behind all that have one."""


class ParzenSampler(SpaceSampler):
    """Proposes what is likely under the good configurations and unlikely under the others.

    Each configuration counts once, at the highest rung it has reached; higher rungs come first,
    lower losses within one, failures last. The first tenth is good. Those that run and were not
    heard of yet count among the others, so that parallel slots spread out.
    """

    def __init__(self, space: ConfigurationSpace, seed: int) -> None:
        super().__init__(space, seed)
        self._vectors = VectorSpace(space)
        self._rows: dict[bytes, Array] = {}
        self._standing: dict[bytes, tuple[float, float]] = {}

    def started(self, config: Mapping[str, Any]) -> None:
        """Hear that ``config`` is tried, and not known yet."""
        super().started(config)
        row = self._vectors.encode(config)
        self._rows[keys(row[None])[0]] = row

    def learn(self, config: Mapping[str, Any], budget: int, loss: float) -> None:
        """Keep the result, at its rung."""
        row = self._vectors.encode(config)
        (key,) = keys(row[None])
        self._rows[key] = row
        best = min((-float(budget), loss), self._standing.get(key, (0.0, 0.0)))
        self._standing[key] = best if math.isfinite(loss) else FAILED

    def _pick(self, seed: int) -> tuple[dict[str, Any], str]:
        if len(self._standing) < RANDOM_FIRST:
            return sample(self.space, seed), "random"
        order = sorted(self._rows, key=lambda key: self._standing.get(key, PENDING))
        rows = np.array([self._rows[key] for key in order])
        count = min(int(np.ceil(0.1 * len(rows))), 25)
        good, others = _Density(self._vectors, rows[:count]), _Density(self._vectors, rows[count:])
        drawn = good.draw(CANDIDATES, np.random.default_rng(seed))
        fresh = drawn[[key not in self._rows for key in keys(drawn)]]
        if not len(fresh):
            return sample(self.space, seed), "random"
        ratio = good.log_density(fresh) - others.log_density(fresh)
        return self._vectors.decode(fresh[int(ratio.argmax())]), "model"


class _Density:
    """A mixture: a kernel around each of ``rows``, and the prior as one more, all weighted alike.

    A kernel is a product over hyperparameters: of normal densities cut off at the bounds for
    ranges, and of those at the levels for ordinals, of Aitchison and Aitken's for categories. What
    is inactive in a row says nothing of its value, so the prior stands there too.
    """

    def __init__(self, vectors: VectorSpace, rows: Array) -> None:
        self._vectors, self._rows = vectors, rows
        self._width = 0.2 * max(len(rows), 1) ** (-1 / (len(vectors.free) + 4))
        self._tables = {
            j: _table(int(vectors.levels[j]), self._width, ordered=bool(vectors.ordered[j]))
            for j in vectors.free.tolist()
            if vectors.levels[j]
        }

    def draw(self, count: int, random: np.random.Generator) -> Array:
        """Rows drawn from the mixture, (at most ``count``, columns), without forbidden ones."""
        drawn = self._vectors.draw_all(count, random)
        picks = random.integers(0, len(self._rows) + 1, count)
        from_kernel = np.flatnonzero(picks < len(self._rows))
        centres = self._rows[picks[from_kernel]]
        for j in self._vectors.free.tolist():
            active = np.isfinite(centres[:, j])
            at, centre = from_kernel[active], centres[active, j]
            drawn[at, j] = self._draw_column(j, centre, random.random(len(at)))
        return self._vectors.legal(drawn)

    def log_density(self, rows: Array) -> Array:
        """Logarithm of the density at ``rows``, up to a constant of its own for the inactive."""
        kernels = np.zeros((len(rows), len(self._rows) + 1))  # the last one is the prior
        for j in self._vectors.free.tolist():
            kernels[:, :-1] += self._log_column(j, rows[:, j, None], self._rows[None, :, j])
        return np.asarray(logsumexp(kernels, axis=1) - np.log(kernels.shape[1]))

    def _draw_column(self, j: int, centre: Array, uniform: Array) -> Array:
        if j in self._tables:
            cumulated = self._tables[j][centre.astype(int)].cumsum(axis=1)
            below = (uniform[:, None] > cumulated).sum(axis=1)
            levels: Array = np.minimum(below, len(self._tables[j]) - 1.0)
            return levels
        low, high = ndtr(-centre / self._width), ndtr((1 - centre) / self._width)
        drawn = centre + self._width * ndtri(low + uniform * (high - low))
        return np.asarray(np.clip(drawn, 0.0, 1.0))

    def _log_column(self, j: int, values: Array, centres: Array) -> Array:
        """Each kernel's logarithm over the prior's, (rows, kernels); 0 where either is inactive."""
        known = np.isfinite(values) & np.isfinite(centres)
        if j in self._tables:
            table = np.log(self._tables[j] * len(self._tables[j]))
            indices = np.nan_to_num(centres).astype(int), np.nan_to_num(values).astype(int)
            return np.where(known, table[indices], 0.0)
        mass = ndtr((1 - centres) / self._width) - ndtr(-centres / self._width)
        scale = np.log(mass * self._width * np.sqrt(2 * np.pi))
        return np.where(known, -0.5 * ((values - centres) / self._width) ** 2 - scale, 0.0)


def _table(levels: int, width: float, *, ordered: bool) -> Array:
    """Probabilities of each level (columns) in the kernel around each level (rows)."""
    if ordered:
        at = np.linspace(0, 1, levels)
        table = np.exp(-0.5 * ((at[:, None] - at[None, :]) / width) ** 2)
        return np.asarray(table / table.sum(axis=1, keepdims=True))
    return (1 - width) * np.eye(levels) + width / levels
