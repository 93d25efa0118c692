"""Errors from correlated residuals against formulas and repeated draws; intervals by profile against the linear case."""

import numpy as np
import pytest
from scipy import stats

from learnmech.springs.twin_profile import profile
from learnmech.springs.twin_uncertainty import correlation_in_time, estimate_noise

MOMENTS, LAYERS = 40, 3
TREND = np.stack([np.ones((MOMENTS, LAYERS)), np.repeat(np.linspace(-1, 1, MOMENTS)[:, None], LAYERS, 1)], axis=-1)
SLOPES = TREND.reshape(-1, 2)


def draw(generator: np.random.Generator, correlation: float, count: int = 1) -> np.ndarray:
    """First-order autoregressions over moments, independent between layers."""
    steps = generator.normal(size=(count, MOMENTS, LAYERS))
    noise = np.empty_like(steps)
    noise[:, 0] = steps[:, 0]
    for moment in range(1, MOMENTS):
        noise[:, moment] = correlation * noise[:, moment - 1] + np.sqrt(1 - correlation**2) * steps[:, moment]
    return noise


def fit(noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = np.linalg.lstsq(SLOPES, noise.ravel(), rcond=None)[0]
    return found, (SLOPES @ found - noise.ravel()).reshape(noise.shape)


@pytest.mark.parametrize("correlation", [0.0, 0.7, 0.9])
def test_intervals_cover_under_correlation(correlation):
    """Of 100 fits, 95 % intervals cover the truth at least 82 % of the time: the correlation is estimated, too."""
    generator = np.random.default_rng(1)
    covered = np.zeros((100, 2), dtype=bool)
    for index in range(len(covered)):
        found, residuals = fit(draw(generator, correlation)[0])
        noise = estimate_noise(residuals, SLOPES, None)
        covered[index] = np.abs(found) <= stats.t.ppf(0.975, noise.freedom) * np.sqrt(np.diag(noise.covariance))
    assert (covered.mean(axis=0) > 0.82).all()
    assert (covered.mean(axis=0) < 0.995).all()


def test_independent_residuals_give_the_textbook_covariance():
    _, residuals = fit(np.random.default_rng(0).normal(size=(MOMENTS, LAYERS)))
    noise = estimate_noise(residuals, SLOPES, None)
    textbook = np.sum(residuals**2) / (residuals.size - 2) * np.linalg.inv(SLOPES.T @ SLOPES)
    np.testing.assert_allclose(np.diag(noise.covariance), np.diag(textbook), rtol=0.5)
    assert noise.effective > 100


def test_chains_are_the_observations_when_there_are_enough():
    generator = np.random.default_rng(2)
    covered = np.zeros((200, 2), dtype=bool)
    for index in range(len(covered)):
        chains = draw(generator, 0.95, 16)
        found, residuals = fit(chains.mean(axis=0))
        noise = estimate_noise(residuals, SLOPES, chains)
        assert noise.freedom == 15
        covered[index] = np.abs(found) <= stats.t.ppf(0.975, noise.freedom) * np.sqrt(np.diag(noise.covariance))
    assert (covered.mean(axis=0) > 0.90).all()


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.9])
def test_correlation_is_that_of_the_errors_not_of_the_residuals(correlation):
    generator = np.random.default_rng(3)
    residuals = [fit(noise)[1] for noise in draw(generator, correlation, 40)]
    seen = [correlation_in_time(each, SLOPES)[0, 1] for each in residuals]
    assert np.mean(seen) == pytest.approx(correlation, abs=0.05)
    matrix = correlation_in_time(residuals[0], SLOPES)
    assert matrix[0, 0] == 1
    assert matrix[3, 5] == pytest.approx(matrix[0, 1] ** 2)
    assert (correlation_in_time(np.zeros((4, 2)), np.zeros((8, 1))) == np.eye(4)).all()


def test_profile_of_a_linear_model_is_the_usual_interval():
    data = np.random.default_rng(4).normal(size=(MOMENTS, LAYERS)) + 0.5

    def residuals(rows, _):
        return rows @ SLOPES.T - data.ravel()

    best = np.linalg.lstsq(SLOPES, data.ravel(), rcond=None)[0]
    noise = estimate_noise((SLOPES @ best - data.ravel()).reshape(data.shape), SLOPES, None)
    quantities = {
        "constant": lambda rows: rows[:, 0],
        "trend": lambda rows: rows[:, 1],
        "sum": lambda rows: rows.sum(axis=1),
    }
    bounds = (np.full(2, -9.0), np.full(2, 9.0))
    ends, champion, square = profile(residuals, best, bounds, quantities, noise)
    np.testing.assert_allclose(champion, best, atol=1e-3)
    assert square == pytest.approx(np.sum(residuals(best[None], None) ** 2), rel=1e-6)
    gradients = {"constant": np.array([1.0, 0.0]), "trend": np.array([0.0, 1.0]), "sum": np.array([1.0, 1.0])}
    for name, gradient in gradients.items():
        reach = stats.t.ppf(0.975, noise.freedom) * np.sqrt(gradient @ noise.covariance @ gradient)
        assert not ends[name].open_below
        assert not ends[name].open_above
        assert ends[name].low == pytest.approx(gradient @ best - reach, abs=0.15 * reach)
        assert ends[name].high == pytest.approx(gradient @ best + reach, abs=0.15 * reach)


def test_profile_is_open_where_nothing_depends_on_a_parameter():
    data = np.random.default_rng(5).normal(size=(MOMENTS, LAYERS)) + 0.5

    def residuals(rows, _):
        return rows[:, :1] - data.ravel()

    best = np.array([data.mean(), 1.0])
    slopes = np.stack([np.ones(data.size), np.zeros(data.size)], axis=1)
    noise = estimate_noise(best[0] - data, slopes, None)
    quantities = {"mean": lambda rows: rows[:, 0], "idle": lambda rows: rows[:, 1]}
    ends, _, _ = profile(residuals, best, (np.full(2, -9.0), np.full(2, 9.0)), quantities, noise)
    assert ends["idle"].open_below
    assert ends["idle"].open_above
    assert (ends["idle"].low, ends["idle"].high) == (-9.0, 9.0)
    assert not ends["mean"].open_below
    assert not ends["mean"].open_above
