"""The batched least squares against scipy's, and at bounds."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from learnmech.springs.twin_least_squares import linearise, minimise

TIMES = np.linspace(0, 3, 20)


def curve(rows: np.ndarray) -> np.ndarray:
    """A sum of a constant and a decay, with logarithms as parameters."""
    amount, rate, floor = np.exp(rows).T[:, :, None]
    return amount * np.exp(-rate * TIMES) + floor


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_scipy(seed):
    generator = np.random.default_rng(seed)
    data = curve(np.log([[2.0, 1.5, 0.3]]))[0] + 0.05 * generator.normal(size=len(TIMES))
    lower, upper = np.full(3, -5.0), np.full(3, 3.0)
    found, cost = minimise(
        lambda rows, _: curve(rows) - data, np.array([[0.0, 0.0, 0.0], [1.0, 1.0, -2.0]]), lower, upper
    )
    other = least_squares(lambda row: curve(row[None])[0] - data, np.zeros(3), bounds=(lower, upper))
    np.testing.assert_allclose(found, [other.x, other.x], atol=2e-3)
    np.testing.assert_allclose(cost, 2 * other.cost, rtol=1e-4)


def test_stops_at_a_bound_like_scipy():
    data = curve(np.log([[2.0, 1.5, 0.3]]))[0]
    lower, upper = np.full(3, -0.9), np.full(3, 3.0)  # the floor of 0.3 lies below exp(-0.9)
    found, cost = minimise(lambda rows, _: curve(rows) - data, np.zeros((1, 3)), lower, upper)
    other = least_squares(lambda row: curve(row[None])[0] - data, np.zeros(3), bounds=(lower, upper))
    assert found[0, 2] == lower[2]
    np.testing.assert_allclose(found[0], other.x, atol=2e-3)
    np.testing.assert_allclose(cost[0], 2 * other.cost, rtol=1e-4)


def test_problems_of_one_call_stay_apart():
    wanted = np.array([[1.0, 2.0], [-1.0, 0.5], [3.0, 3.0]])
    found, cost = minimise(
        lambda rows, problems: rows - wanted[problems], np.zeros((3, 2)), np.full(2, -5.0), np.full(2, 5.0)
    )
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert (cost < 1e-10).all()


def test_derivatives_also_at_the_upper_bound():
    place = np.array([[0.3, 1.0]])
    value, slopes = linearise(lambda rows, _: rows**2, place, np.zeros(1, dtype=int), np.array([5.0, 1.0]))
    np.testing.assert_allclose(value, [[0.09, 1.0]])
    np.testing.assert_allclose(slopes[0], [[0.6, 0.0], [0.0, 2.0]], atol=2e-3)
