"""A Gaussian process over all rungs, asked for the expected improvement at the top one."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from ConfigSpace import ConfigurationSpace
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata
from threadpoolctl import ThreadpoolController

from search_spaces import sample
from tuner.search.samplers.regression import GaussianProcess, Scales
from tuner.search.samplers.sampler import SpaceSampler
from tuner.search.samplers.vectors import VectorSpace, keys

Array = NDArray[np.float64]

RANDOM_FIRST = 5
MOST = 100
"""Results that the model rests on, so that a suggestion's cost is bounded."""
REFIT = 4
"""Results after which the kernel is fitted again."""
DRAWN, MUTATED = 200, 100


class GaussianProcessSampler(SpaceSampler):
    """Proposes what promises most at the highest rung, by what is known of all rungs.

    After a few random draws, a Gaussian process is fitted to the ranks of the losses. Of random
    configurations and mutations of good ones, the one with the highest expected improvement (Jones
    et al. 1998) at the highest budget heard of is proposed. Configurations that run and were not
    heard of yet count as if they had reached what the model predicts for them (Ginsbourger et al.
    2010, "kriging believer"), so that parallel slots do not pick the same.
    """

    def __init__(self, space: ConfigurationSpace, seed: int) -> None:
        super().__init__(space, seed)
        self._vectors = VectorSpace(space)
        self._seen: set[bytes] = set()
        self._pending: dict[bytes, Array] = {}
        self._heard: set[bytes] = set()
        self._rows: list[Array] = []
        self._budgets: list[int] = []
        self._losses: list[float] = []
        self._fitted: tuple[int, Scales] | None = None

    def started(self, config: Mapping[str, Any]) -> None:
        """Hear that ``config`` is tried, and not known yet."""
        super().started(config)
        row = self._vectors.encode(config)
        (key,) = keys(row[None])
        self._seen.add(key)
        self._pending[key] = row

    def learn(self, config: Mapping[str, Any], budget: int, loss: float) -> None:
        """Keep the result, at its rung."""
        row = self._vectors.encode(config)
        (key,) = keys(row[None])
        self._pending.pop(key, None)
        self._heard.add(key)
        self._rows.append(row)
        self._budgets.append(budget)
        self._losses.append(loss)

    def _pick(self, seed: int) -> tuple[dict[str, Any], str]:
        if len(self._heard) < RANDOM_FIRST:
            return sample(self.space, seed), "random"
        candidates = self._candidates(np.random.default_rng(seed))
        if not len(candidates):
            return sample(self.space, seed), "random"
        with _blas().limit(limits=1, user_api="blas"):  # or threads wait for cores that trials use
            promise = self._expected_improvement(candidates)
        return self._vectors.decode(candidates[int(promise.argmax())]), "model"

    def _candidates(self, random: np.random.Generator) -> Array:
        """Rows that were not tried: random ones, and mutations of the best."""
        good = self._good()
        parents = good[random.integers(0, len(good), MUTATED)]
        rows = np.concatenate(
            [self._vectors.draw(DRAWN, random), self._vectors.mutate(parents, random)]
        )
        fresh = [i for i, key in enumerate(keys(rows)) if key not in self._seen]
        return rows[fresh]

    def _good(self) -> Array:
        """The rows of the ten best results."""
        best = _best_first(np.array(self._budgets), np.array(self._losses))[:10]
        return np.array([self._rows[i] for i in best])

    def _expected_improvement(self, candidates: Array) -> Array:
        process = self._posterior()
        best = process.at_top(process.rows)[0].min()
        mean, deviation = process.at_top(candidates)
        standard = (best - mean) / deviation
        density = np.exp(-0.5 * standard**2) / np.sqrt(2 * np.pi)
        return np.asarray((best - mean) * ndtr(standard) + deviation * density)

    def _posterior(self) -> "_Posterior":
        """What is known, and what is believed of the configurations that are under way."""
        rows, heights, losses = self._selected(len(self._rows))
        known = _Posterior(self._vectors, self._scales(), rows, heights, _scores(losses))
        pending = np.array(list(self._pending.values())[-MOST:])
        if not len(pending):
            return known
        believed, _ = known.at_top(pending)
        top = np.full(len(pending), known.top)
        return _Posterior(
            self._vectors,
            known.scales,
            np.concatenate([rows, pending]),
            np.concatenate([heights, top]),
            np.concatenate([known.scores, believed]),
        )

    def _scales(self) -> Scales:
        """Fitted to the results up to the last multiple of REFIT: the same after a replay."""
        count = len(self._rows) // REFIT * REFIT
        if self._fitted is None or self._fitted[0] != count:
            rows, heights, losses = self._selected(count)
            distances = self._vectors.squared_distances(rows, rows)
            scales = Scales.fitted(distances, _gaps(heights, heights), _scores(losses))
            self._fitted = count, scales
        return self._fitted[1]

    def _selected(self, count: int) -> tuple[Array, Array, Array]:
        """Rows, heights, losses of the first ``count`` results; of many, the best and latest."""
        heights, losses = np.log(self._budgets[:count]), np.array(self._losses[:count])
        chosen = np.arange(count)
        if count > MOST:
            best = _best_first(heights, losses)[: MOST // 2]
            latest = np.setdiff1d(chosen, best)[-MOST // 2 :]
            chosen = np.sort(np.concatenate([best, latest]))
        return np.array([self._rows[i] for i in chosen]), heights[chosen], losses[chosen]


class _Posterior:
    """A Gaussian process of rows at heights, asked about other rows at the top."""

    def __init__(
        self, vectors: VectorSpace, scales: Scales, rows: Array, heights: Array, scores: Array
    ) -> None:
        self.vectors, self.scales = vectors, scales
        self.rows, self.heights, self.scores = rows, heights, scores
        self.top = float(heights.max())
        distances = vectors.squared_distances(rows, rows)
        self._process = GaussianProcess(scales, distances, _gaps(heights, heights), scores)

    def at_top(self, rows: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the scores of ``rows`` at the highest budget."""
        distances = self.vectors.squared_distances(self.rows, rows)
        gaps = _gaps(self.heights, np.full(len(rows), self.top))
        return self._process.predict(distances, gaps)


@cache
def _blas() -> ThreadpoolController:
    """The BLAS libraries that are loaded; finding them takes some milliseconds."""
    return ThreadpoolController()


def _best_first(heights: Array, losses: Array) -> NDArray[np.intp]:
    """Indices: higher rungs first, lower losses within one, failures last."""
    return np.lexsort((losses, -heights, np.isinf(losses)))


def _gaps(a: Array, b: Array) -> Array:
    return np.abs(a[:, None] - b[None, :])


def _scores(losses: Array) -> Array:
    """Losses as normal scores of their ranks, so that neither scale nor outliers matter."""
    return np.asarray(ndtri((rankdata(losses) - 0.5) / len(losses)))
