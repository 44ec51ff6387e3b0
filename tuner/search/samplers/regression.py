"""Gaussian-process regression over configurations and rungs (Rasmussen & Williams 2006, ch. 2, 5).

The covariance of two results is a Matern 5/2 kernel of the configurations' distance, a length scale
a hyperparameter, times an exponential one of the rungs' distance. Scales, signal and noise are
those of the highest posterior: the marginal likelihood times log-normal priors.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]

JITTER = 1e-6
ITERATIONS = 20
SQRT5 = np.sqrt(5.0)


@dataclass(frozen=True)
class Scales:
    """The kernel's parameters, as logarithms: (columns + 3,) of lengths, rung, signal and noise."""

    log: Array

    @classmethod
    def prior(cls, columns: int) -> Self:
        """Where the search for better ones starts: the modes of their priors."""
        return cls(_prior(columns)[0])

    @classmethod
    def fitted(cls, distances: Array, gaps: Array, values: Array) -> Self:
        """The parameters of the highest posterior, after a bounded search from the priors' modes.

        Args:
            distances: squared distances of the configurations, (columns, n, n).
            gaps: distances in rungs, (n, n).
            values: what was observed, about standard normal, (n,).

        """
        mode, width = _prior(len(distances))
        found = minimize(
            _negative_log_posterior,
            mode,
            args=(distances, gaps, values, (mode, width)),
            jac=True,
            method="L-BFGS-B",
            bounds=[(m - 4 * w, m + 4 * w) for m, w in zip(mode, width, strict=True)],
            options={"maxiter": ITERATIONS, "maxfun": ITERATIONS + 5},
        )
        return cls(found.x)

    @property
    def noise(self) -> float:
        """Variance of the noise."""
        return float(np.exp(self.log[-1]))

    @property
    def signal(self) -> float:
        """Variance of what is modelled."""
        return float(np.exp(self.log[-2]))

    def kernel(self, distances: Array, gaps: Array) -> Array:
        """Covariances, (n, m), of what lies at (columns, n, m) squared distances and rung gaps."""
        return self.signal * _matern(_radii(self.log, distances)) * _rung_kernel(self.log, gaps)


class GaussianProcess:
    """The posterior after ``values`` at configurations and rungs of the given distances."""

    def __init__(self, scales: Scales, distances: Array, gaps: Array, values: Array) -> None:
        self.scales = scales
        covariance = scales.kernel(distances, gaps)
        covariance[np.diag_indices_from(covariance)] += scales.noise + JITTER
        self._factor = np.linalg.cholesky(covariance)
        self._weights = cho_solve((self._factor, True), values)

    def predict(self, distances: Array, gaps: Array) -> tuple[Array, Array]:
        """Mean and deviation, (m,), at (columns, n, m) and (n, m) from what was observed."""
        cross = self.scales.kernel(distances, gaps)
        mean = cross.T @ self._weights
        explained = solve_triangular(self._factor, cross, lower=True)
        variance = self.scales.signal - np.sum(explained**2, axis=0)
        return mean, np.sqrt(np.maximum(variance, 1e-12))


def _prior(columns: int) -> tuple[Array, Array]:
    """Modes and widths of the priors of the logarithms.

    Lengths grow with the square root of the dimension (Hvarfner et al. 2024, arXiv 2402.02229).
    """
    length = np.log(0.5 * np.sqrt(max(columns, 1)))
    mode = np.array([*[length] * columns, np.log(3.0), 0.0, np.log(0.02)])
    return mode, np.array([*[1.0] * columns, 1.0, 0.5, 1.0])


def _radii(log: Array, distances: Array) -> Array:
    return np.asarray(np.sqrt(np.tensordot(np.exp(-2 * log[:-3]), distances, axes=1)))


def _matern(radii: Array) -> Array:
    return np.asarray((1 + SQRT5 * radii + 5 / 3 * radii**2) * np.exp(-SQRT5 * radii))


def _rung_kernel(log: Array, gaps: Array) -> Array:
    return np.asarray(np.exp(-gaps / np.exp(log[-3])))


def _negative_log_posterior(
    log: Array, distances: Array, gaps: Array, values: Array, prior: tuple[Array, Array]
) -> tuple[float, Array]:
    """Rasmussen & Williams 2006, equations 5.8 and 5.9, and the priors; with the gradient."""
    mode, width = prior
    radii = _radii(log, distances)
    rungs, signal, noise = _rung_kernel(log, gaps), np.exp(log[-2]), np.exp(log[-1])
    smooth = signal * _matern(radii) * rungs
    diagonal = np.eye(len(values))
    factor = np.linalg.cholesky(smooth + (noise + JITTER) * diagonal)
    inverse = cho_solve((factor, True), diagonal)
    weights = inverse @ values
    inner = np.outer(weights, weights) - inverse
    by_length = signal * rungs * 5 / 3 * (1 + SQRT5 * radii) * np.exp(-SQRT5 * radii)
    gradient = np.empty_like(log)
    gradient[:-3] = np.tensordot(distances, inner * by_length, axes=2) * np.exp(-2 * log[:-3])
    gradient[-3] = np.sum(inner * smooth * gaps) / np.exp(log[-3])
    gradient[-2] = np.sum(inner * smooth)
    gradient[-1] = noise * np.trace(inner)
    off = (log - mode) / width
    likelihood = -0.5 * values @ weights - np.sum(np.log(np.diag(factor)))
    return float(0.5 * off @ off - likelihood), off / width - 0.5 * gradient
