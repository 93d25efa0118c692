"""Least squares for many small problems at once: one call of the model serves all starts, derivatives and profiles."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

Residuals = Callable[[Float[np.ndarray, "rows parameters"], Int[np.ndarray, " rows"]], Float[np.ndarray, "rows values"]]
"""Residuals of rows of parameters; the second argument says which problem each row belongs to."""

_DIFFERENCE = 1e-3
_FIRST_DAMPING, _LAST_DAMPING = 1e-2, 1e6


def minimise(
    residuals: Residuals,
    start: Float[np.ndarray, "problems parameters"],
    lower: Float[np.ndarray, " parameters"],
    upper: Float[np.ndarray, " parameters"],
    *,
    rounds: int = 40,
    enough: float = 1e-6,
    negligible: float = 0.0,
) -> tuple[Float[np.ndarray, "problems parameters"], Float[np.ndarray, " problems"]]:
    r"""Minimise the sum of squared residuals of many problems in a box, by Levenberg-Marquardt steps.

    Each step solves :math:`(J^TJ + \lambda\,\mathrm{diag}\,J^TJ)\,\delta = -J^Tr` for the parameters that are not held at
    a bound by the gradient, clips it to the box, and is taken if the sum falls. Source: Marquardt 1963; scipy's
    ``least_squares`` does the same for one problem, at one call of the model a row. It finds the minimum near the start;
    start from several places.

    Args:
        residuals: the model; rows of one call may belong to different problems.
        start: where each problem starts.
        lower: lower bounds, the same for all problems.
        upper: upper bounds.
        rounds: at most so many steps.
        enough: a problem is done when a step lowers its sum by less than this share,
        negligible: or by less than this.

    Returns:
        The parameters found and their sums of squares.

    Example:
        >>> data = np.array([1.0, 2.0])
        >>> found, cost = minimise(lambda x, problem: x**2 - data, np.ones((1, 2)), np.zeros(2), np.full(2, 9.0))
        >>> found.round(4).tolist(), bool(cost[0] < 1e-8)
        ([[1.0, 1.4142]], True)
    """
    place = np.clip(start, lower, upper)
    count = len(place)
    value, slopes = linearise(residuals, place, np.arange(count), upper)
    cost = np.sum(value**2, axis=1)
    damping = np.full(count, _FIRST_DAMPING)
    going = np.ones(count, dtype=bool)
    for _ in range(rounds):
        now = np.flatnonzero(going)
        step = _step(slopes[now], value[now], damping[now], place[now], lower, upper)
        trial = np.clip(place[now] + step, lower, upper)
        trial_value, trial_slopes = linearise(residuals, trial, now, upper)
        trial_cost = np.sum(trial_value**2, axis=1)
        better = trial_cost < cost[now]
        small = better & (cost[now] - trial_cost < np.maximum(enough * cost[now], negligible))
        taken = now[better]
        place[taken], value[taken], cost[taken] = trial[better], trial_value[better], trial_cost[better]
        slopes[taken] = trial_slopes[better]
        damping[now] = np.where(better, np.maximum(damping[now] / 8, 1e-9), damping[now] * 8)
        going[now[small | (damping[now] > _LAST_DAMPING)]] = False
        if not going.any():
            break
    return place, cost


def linearise(
    residuals: Residuals,
    place: Float[np.ndarray, "problems parameters"],
    problems: Int[np.ndarray, " problems"],
    upper: Float[np.ndarray, " parameters"],
) -> tuple[Float[np.ndarray, "problems values"], Float[np.ndarray, "problems values parameters"]]:
    """Compute residuals and their derivatives by finite differences, forwards, or backwards at the upper bound.

    All rows go into one call of the model: a solver that steps all rows alike then makes errors that cancel.

    Args:
        residuals: the model.
        place: where.
        problems: which problem each row is.
        upper: upper bounds.

    Returns:
        Residuals, and Jacobians good to about a thousandth.
    """
    count, size = place.shape
    sign = np.where(place + _DIFFERENCE > upper, -_DIFFERENCE, _DIFFERENCE)
    moved = place[:, None, :] + np.concatenate([np.zeros((count, 1, size)), sign[:, :, None] * np.eye(size)], axis=1)
    values = residuals(moved.reshape(-1, size), np.repeat(problems, size + 1)).reshape(count, size + 1, -1)
    slopes = (values[:, 1:] - values[:, :1]) / sign[:, :, None]
    return values[:, 0], np.ascontiguousarray(slopes.transpose(0, 2, 1))


def _step(
    slopes: np.ndarray,
    value: np.ndarray,
    damping: np.ndarray,
    place: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
) -> Float[np.ndarray, "problems parameters"]:
    gradient = np.einsum("bnp,bn->bp", slopes, value)
    held = ((place <= lower) & (gradient > 0)) | ((place >= upper) & (gradient < 0))
    slopes = np.where(held[:, None, :], 0.0, slopes)
    normal = np.einsum("bnp,bnq->bpq", slopes, slopes)
    diagonal = np.einsum("bpp->bp", normal)
    ridge = damping[:, None] * diagonal + 1e-10 * (diagonal.max(axis=1, keepdims=True) + 1e-30)
    size = place.shape[1]
    matrix = normal + ridge[:, :, None] * np.eye(size)
    step = -np.linalg.solve(matrix, np.where(held, 0.0, gradient)[:, :, None])[:, :, 0]
    return np.clip(step, -2.0, 2.0)  # parameters are logarithms: no more than a factor of seven at once
