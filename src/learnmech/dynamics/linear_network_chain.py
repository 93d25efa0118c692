"""One mode of a balanced deep linear network: its exact path in time, and when it jumps."""

import math
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from learnmech import history
from learnmech.errors import InputError

SOURCE = "Saxe, McClelland and Ganguli 2014 (arXiv 1312.6120) for two layers; any depth in closed form: derived here"


def balanced_chain(times: Any, *, strength: float = 1.0, initial: float = 1e-3, depth: int = 2) -> xr.Dataset:
    r"""Give the exact path of one mode of a balanced deep linear network on whitened inputs.

    All L layers hold the same number u along the mode, and :math:`u' = s u^{L-1} - u^{2L-1}`; the product :math:`u^L` goes
    to the strength s, with loss :math:`\frac12 (s - u^L)^2`. With :math:`a = s^{1/L}`, :math:`x = u/a` and
    :math:`\tau = s\, a^{L-2}\, t`,

    .. math:: \tau = G(x) - G(x_0), \quad
        G(x) = \frac{x^{2-L}}{2-L} - \frac1L \sum_{\omega^L = 1} \omega^2 \log(1 - x/\omega),

    with :math:`\log x` in place of the first term for L = 2. This is inverted by bisection to rounding.

    Source: Saxe, McClelland and Ganguli 2014 (arXiv 1312.6120) for L = 2; the sum over roots of unity: derived here.

    Args:
        times: when (time,), at least 0, increasing; the clock of the loss above.
        strength: s, positive.
        initial: u at time 0, positive; above :math:`s^{1/L}` it falls.
        depth: L, at least 2.

    Returns:
        A history over ``time``: ``weight`` u, ``product`` u^L and ``loss``.

    Raises:
        InputError: if a number is out of range.

    Example:
        >>> run = balanced_chain([0.0, 4.740], strength=1.5, initial=1e-3)
        >>> print(f"{float(run['product'][-1]):.3f}")
        0.750
    """
    _require(strength, initial, depth)
    moments = np.atleast_1d(np.array(times, dtype=np.float64))
    if moments.ndim != 1 or not np.isfinite(moments).all() or (moments < 0).any() or (np.diff(moments) <= 0).any():
        raise InputError("times must be finite, at least 0, and increase strictly.")
    fixed = strength ** (1 / depth)
    x = _position(moments * strength * fixed ** (depth - 2), initial / fixed, depth)
    gap = -np.expm1(depth * np.log(x))
    meanings = {
        "weight": ("weight of each layer along the mode", x * fixed),
        "product": ("product of the layers along the mode", strength * (1 - gap)),
        "loss": ("half the squared error", 0.5 * (strength * gap) ** 2),
    }
    return history.build(
        {
            name: (("time",), values, {"long_name": title, "units": "1", "source": SOURCE})
            for name, (title, values) in meanings.items()
        },
        {"time": moments},
        config={"model": "balanced_chain", "strength": strength, "initial": initial, "depth": depth},
    )


def escape_time(initial: float, *, strength: float = 1.0, depth: int = 2, share: float | None = 0.5) -> float:
    r"""Give the time at which a mode of a balanced deep linear network jumps.

    With ``share``, the exact time at which the product reaches that share of the strength s (see :func:`balanced_chain`).
    With None, the limit for a small start, when the frozen residual lets the weight reach about 1:
    :math:`-\log(u_0)/s` for L = 2, :math:`(u_0^{2-L} - 1)/((L-2)s)` for L > 2. They differ by a bounded time.

    Source: the escape from the saddle at the origin in Jacot et al. 2021 (arXiv 2106.15933); exact time: derived here.

    Args:
        initial: weight u0 of each layer along the mode at time 0, positive.
        strength: s, positive.
        depth: L, at least 2.
        share: between 0 and 1, or None for the limit.

    Returns:
        The time in the clock of the loss :math:`\frac12(s-u^L)^2`; 0 if it is there from the start.

    Raises:
        InputError: if a number is out of range.

    Example:
        >>> print(f"{escape_time(1e-3, strength=1.5):.3f}, limit {escape_time(1e-3, strength=1.5, share=None):.3f}")
        4.740, limit 4.605
    """
    _require(strength, initial, depth)
    if share is None:
        if initial >= 1:
            return 0.0
        if depth == 2:
            return -math.log(initial) / strength
        return (initial ** (2 - depth) - 1) / ((depth - 2) * strength)
    if not 0 < share < 1:
        raise InputError(f"share must lie between 0 and 1, or be None, got {share!r}.")
    fixed = strength ** (1 / depth)
    start, end = initial / fixed, share ** (1 / depth)
    if start >= end:
        return 0.0
    ends = np.array([start, end])
    clock = np.diff(_clock(ends, 1 - ends, depth))[0]
    return float(clock / (strength * fixed ** (depth - 2)))


def _require(strength: float, initial: float, depth: int) -> None:
    for name, value in (("strength", strength), ("initial", initial)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} must be a positive number, got {value!r}.")
    if not isinstance(depth, int | np.integer) or isinstance(depth, bool) or depth < 2:
        raise InputError(f"depth must be an integer of at least 2, got {depth!r}.")


def _clock(x: Float[np.ndarray, " points"], gap: Float[np.ndarray, " points"], depth: int) -> np.ndarray:
    """G of :func:`balanced_chain`; the gap 1 - x is given apart, since it can be far below rounding."""
    roots = np.exp(2j * np.pi * np.arange(1, depth) / depth)
    total = np.log(np.abs(gap)) + (roots**2 * np.log(1 - x[:, None] * roots.conj())).sum(1).real
    first = np.log(x) if depth == 2 else x ** (2.0 - depth) / (2 - depth)
    return np.asarray(first - total / depth)


def _position(clock: Float[np.ndarray, " points"], start: float, depth: int) -> np.ndarray:
    """Solve G(x) = G(start) + clock by bisection, in log(x / (1 - x)) from below 1 and in log(x - 1) from above."""
    if start == 1.0:
        return np.ones_like(clock)
    below = start < 1

    def place(variable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if below:
            return 1 / (1 + np.exp(-variable)), 1 / (1 + np.exp(variable))
        return 1 + np.exp(-variable), -np.exp(-variable)

    first = math.log(start / (1 - start)) if below else -math.log(start - 1)
    low, high = np.full_like(clock, first), np.full_like(clock, 700.0)
    goal = clock + _clock(np.array([start]), np.array([1 - start]), depth)
    for _ in range(200):
        middle = (low + high) / 2
        early = _clock(*place(middle), depth) < goal
        low, high = np.where(early, middle, low), np.where(early, high, middle)
    return place((low + high) / 2)[0]
