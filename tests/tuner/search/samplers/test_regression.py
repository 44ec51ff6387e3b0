import numpy as np
from scipy.optimize import check_grad
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from tuner.search.samplers import regression
from tuner.search.samplers.regression import GaussianProcess, Scales


def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a.T[:, :, None] - b.T[:, None, :]) ** 2


def data(count: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    points = random.random((count, 2))
    heights = random.integers(0, 3, count).astype(float)
    return points, heights, np.sin(6 * points[:, 0]) + 0.1 * heights


def gaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a[:, None] - b[None, :])


def test_the_gradient_is_that_of_the_posterior() -> None:
    points, heights, values = data()
    mode, width = regression._prior(2)
    rest = (squared(points, points), gaps(heights, heights), values, (mode, width))
    for shift in (-0.5, 0.0, 0.7):
        error = check_grad(
            lambda log: regression._negative_log_posterior(log, *rest)[0],
            lambda log: regression._negative_log_posterior(log, *rest)[1],
            mode + shift,
        )
        assert error < 1e-3


def test_on_one_rung_it_predicts_what_scikit_learn_predicts() -> None:
    points, _, values = data()
    new = np.random.default_rng(1).random((10, 2))
    scales = Scales(np.log([0.3, 0.6, 1.0, 1.4, 0.05]))
    ours = GaussianProcess(scales, squared(points, points), np.zeros((30, 30)), values)
    kernel = ConstantKernel(1.4) * Matern([0.3, 0.6], nu=2.5) + WhiteKernel(0.05 + 1e-6)
    theirs = GaussianProcessRegressor(kernel, alpha=0.0, optimizer=None).fit(points, values)
    mean, deviation = ours.predict(squared(points, new), np.zeros((30, 10)))
    expected, with_noise = theirs.predict(new, return_std=True)
    np.testing.assert_allclose(mean, expected, atol=1e-6)
    np.testing.assert_allclose(deviation**2, with_noise**2 - 0.05 - 1e-6, atol=1e-6)


def test_fitting_finds_which_column_matters() -> None:
    points, heights, values = data(60)
    scales = Scales.fitted(squared(points, points), gaps(heights, heights), values)
    matters, does_not = scales.log[:2]
    assert does_not > matters + 1.0


def test_what_is_far_from_all_rungs_is_less_certain() -> None:
    points, heights, values = data()
    scales = Scales.prior(2)
    process = GaussianProcess(scales, squared(points, points), gaps(heights, heights), values)
    near = process.predict(squared(points, points), gaps(heights, np.ones(30)))[1]
    far = process.predict(squared(points, points), gaps(heights, np.full(30, 9.0)))[1]
    assert (far > near).all()
