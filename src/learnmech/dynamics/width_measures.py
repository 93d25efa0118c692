"""How the start of a deep linear network scales with its width, as measured over random draws."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from learnmech import history
from learnmech.bars import terminal_bar
from learnmech.dynamics.linear_network import (
    LinearTask,
    Weights,
    draw_weights,
    make_task,
    partial_products,
    product_of,
    trace_kernel,
)
from learnmech.dynamics.width_laws import width_exponents
from learnmech.errors import InputError

_SOURCE = "Jacot et al. 2021 (arXiv 2106.15933)"
MEASURES = {
    "kernel": "trace of the tangent kernel on unit inputs",
    "output": "Frobenius norm of the product of all weights",
    "saddle": "distance to the saddle at which first and last weight are zero",
    "minimum": "distance to the nearest global minimum found; NaN where none was found, and for gamma of 1 and more",
    "minimum_per_error": "distance to the nearest global minimum found, over the error of the product at the start",
}


def measure_width_exponents(
    depth: int,
    gammas: Sequence[float],
    widths: Sequence[int],
    *,
    target: Any = None,
    draws: int = 10,
    seed: int = 0,
) -> xr.Dataset:
    r"""Measure how a deep linear network at its start scales with its width, and fit exponents.

    Every gamma, width and draw has its own random weights. An exponent is the slope of log(size) over log(width), by least
    squares over all widths and draws; its standard error is the heteroscedastic one (HC3). The distance to a minimum is
    measured, not fitted: :func:`nearest_minimum` finds the closest weights that solve the task exactly. It is taken for
    gamma below 1 only.

    Source of the predictions: :func:`width_exponents`. Beware that weights of another gamma are the same up to a factor, so
    how kernel, output and saddle depend on gamma at a given width is exact; what is tested is the width.

    Args:
        depth: number of weights L.
        gammas: exponents of the variance.
        widths: at least two.
        target: what is to be learned (outputs, inputs), for the distance to a minimum; the 3 x 3 identity if not given.
        draws: weights a point.
        seed: of all draws.

    Returns:
        A history over ``gamma``, ``width`` and ``draw`` with :data:`MEASURES`, and over ``gamma`` for each ``NAME_slope``,
        ``NAME_slope_error`` and ``NAME_predicted``. Infinite exponents or numbers that are no integers raise InputError.

    Raises:
        InputError: if an argument is out of range.

    Example:
        >>> found = measure_width_exponents(3, [1.0, 2.0], [20, 40, 80], draws=40)
        >>> bool(abs(found["saddle_slope"] - found["saddle_predicted"]).max() < 0.1)
        True
    """
    task = make_task(np.eye(3) if target is None else target)
    if len(set(widths)) < 2 or len(set(widths)) != len(widths) or len(set(gammas)) != len(gammas) or not len(gammas):
        raise InputError(
            f"give at least one gamma and two widths, all different; got {list(gammas)} and {list(widths)}."
        )
    if not isinstance(draws, int) or isinstance(draws, bool) or draws < 2:
        raise InputError(f"draws must be an integer of at least 2, got {draws!r}.")
    sizes = {name: np.full((len(gammas), len(widths), draws), np.nan) for name in MEASURES}
    predicted = [width_exponents(depth, gamma) for gamma in gammas]
    outputs, inputs = task.target.shape
    with terminal_bar("measuring networks of several widths", len(gammas) * len(widths), least=8) as advance:
        for row, gamma in enumerate(gammas):
            for column, width in enumerate(widths):
                for draw in range(draws):
                    own = int(np.random.SeedSequence([seed, row, column, draw]).generate_state(1)[0])
                    weights = draw_weights(inputs, outputs, depth, width, gamma=gamma, seed=own)
                    for name, size in _measure(weights, task, gamma).items():
                        sizes[name][row, column, draw] = size
                advance(1)
    variables: dict[str, Any] = {}
    for name, title in MEASURES.items():
        fits = np.array([fit_exponent(widths, values) for values in sizes[name]])
        meaning = {"units": "1", "source": _SOURCE}
        variables[name] = (("gamma", "width", "draw"), sizes[name], {"long_name": title, **meaning})
        variables[f"{name}_slope"] = (("gamma",), fits[:, 0], {"long_name": f"width exponent: {title}", **meaning})
        variables[f"{name}_slope_error"] = (
            ("gamma",),
            fits[:, 1],
            {"long_name": f"standard error: {title}", **meaning},
        )
        expected = [getattr(exponents, name) for exponents in predicted]
        variables[f"{name}_predicted"] = (
            ("gamma",),
            expected,
            {"long_name": f"predicted exponent: {title}", **meaning},
        )
    return history.build(
        variables,
        {"gamma": [float(gamma) for gamma in gammas], "width": list(widths), "draw": np.arange(draws)},
        config={
            "model": "measure_width_exponents",
            "depth": depth,
            "gammas": list(gammas),
            "widths": list(widths),
            "target": task.target.tolist(),
            "draws": draws,
            "seed": seed,
        },
    )


def _measure(weights: Weights, task: LinearTask, gamma: float) -> dict[str, float]:
    product = product_of(weights)
    minimum = nearest_minimum(weights, task.target)[0] if gamma < 1 else math.nan
    return {
        "kernel": float(np.trace(trace_kernel(weights))),
        "output": float(np.linalg.norm(product)),
        "saddle": math.hypot(float(np.linalg.norm(weights[0])), float(np.linalg.norm(weights[-1]))),
        "minimum": minimum,
        "minimum_per_error": minimum / float(np.linalg.norm(product - task.target)),
    }


def nearest_minimum(
    weights: Weights, target: Float[np.ndarray, "outputs inputs"], *, tolerance: float = 1e-9, most: int = 200
) -> tuple[float, Weights]:
    r"""Find the nearest weights whose product is the target.

    Each step solves the problem with the product made linear at the present weights: the point of the linear solution set
    that is closest to the start, :math:`\theta \leftarrow \theta_0 + J^T (JJ^T)^{-1} (T - P + J(\theta - \theta_0))`, where
    :math:`JJ^T` is the full tangent kernel. A fixed point solves the task exactly and meets the first-order condition of
    the nearest point, :math:`\theta - \theta_0 \in \mathrm{range}\, J^T`. A step is halved for good when it is longer than the last. It is the nearest locally: no nearer one is known, but
    none is excluded. Derived here.

    Args:
        weights: the start, first layer first.
        target: T.
        tolerance: largest move of a last step, over the distance.
        most: steps after which to give up.

    Returns:
        The distance and the weights there; NaN and the last weights if there was no convergence.
    """
    now = [weight.copy() for weight in weights]
    size, part, last = float(np.linalg.norm(target)), 1.0, math.inf
    for _ in range(most):
        below, above = partial_products(now)
        product = now[-1] @ below[-1]
        away = [weight - first for weight, first in zip(now, weights, strict=True)]
        linear = sum(over @ step @ under for over, step, under in zip(above, away, below, strict=True))
        kernel = sum(np.kron(over @ over.T, under.T @ under) for over, under in zip(above, below, strict=True))
        multiplier = np.linalg.lstsq(kernel, (target - product + linear).ravel(), rcond=1e-13)[0].reshape(target.shape)
        moved = [over.T @ multiplier @ under.T for over, under in zip(above, below, strict=True)]
        distance = math.sqrt(sum(float((step**2).sum()) for step in moved))
        change = math.sqrt(sum(float(((new - old) ** 2).sum()) for new, old in zip(moved, away, strict=True)))
        if not math.isfinite(distance):
            break
        if change <= tolerance * distance and np.linalg.norm(product - target) <= tolerance * size:
            return distance, now
        part, last = (part / 2 if change > last else part), change
        now = [weight + part * (new - old) for weight, new, old in zip(now, moved, away, strict=True)]
    return math.nan, now


def fit_exponent(widths: Sequence[int], sizes: Float[np.ndarray, "widths draws"]) -> tuple[float, float]:
    """Fit a power law of the width by least squares in logarithms.

    Args:
        widths: the widths.
        sizes: positive; NaN is left out.

    Returns:
        The exponent and its standard error (HC3); NaN if fewer than two widths or four points are left.
    """
    x = np.repeat(np.log(np.asarray(widths, dtype=np.float64)), sizes.shape[1])
    y = np.log(sizes.ravel())
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if len(y) < 4 or len(np.unique(x)) < 2:
        return math.nan, math.nan
    away = x - x.mean()
    spread = float((away**2).sum())
    slope = float((away * y).sum()) / spread
    residual = y - y.mean() - slope * away
    leverage = 1 / len(y) + away**2 / spread
    return slope, math.sqrt(float(((away * residual / (1 - leverage)) ** 2).sum())) / spread
