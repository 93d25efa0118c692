"""A whole whitened two-layer linear network in closed form: how its modes wait for and disturb each other."""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

_SATURATED = 230.0
_ROUNDS = 60
_ACCURATE = 1e-10
LOSS_HALF = math.log(math.sqrt(2) - 1)
"""Log odds of a mode that has taken half of its part of the loss."""


def missing_shares(
    times: Float[np.ndarray, " times"],
    hidden: Float[np.ndarray, "hidden modes"],
    growth: Float[np.ndarray, " modes"],
    strengths: Float[np.ndarray, " modes"],
) -> Float[np.ndarray, "times modes modes"]:
    r"""Give what a whitened network has not yet learned of its modes.

    A balanced network, :math:`A^TA = c\,WW^T` for inputs of covariance cI, which a small start is up to its square, follows a
    matrix Riccati equation. With the hidden vectors :math:`z_k` of its modes at the start,

    .. math::
        u_j^TA(t)W(t)v_k = \sqrt{s_js_k}\,(I - N)_{jk}, \qquad
        I - N = g\,(I - (I + M)^{-1})\,g, \qquad M_{jk} = e_j\,e_k\,z_j\cdot z_k, \qquad
        e_k^2 = \frac{e^{2\sigma_kt}-1}{2s_k}, \qquad g_k^{-2} = 1 - e^{-2\sigma_kt} ,

    and the excess loss is :math:`\frac12\sum_{jk}\sqrt{\sigma_js_j\sigma_ks_k}\,N_{jk}^2`. Derived here, from the solution of
    balanced networks (Fukumizu 1998). Not valid for a start that is not small. At times so early that g exceeds the root of 2
    that is put in its place, where all there is is of the order of the start squared.

    Args:
        times: not negative.
        hidden: :math:`z_k = (A_0^Tu_k + W_0v_k)/\sqrt2` in columns.
        growth: :math:`\sigma_k`.
        strengths: :math:`s_k`.

    Returns:
        N at each time, 1 at the start and 0 at the end.
    """
    lengths = np.linalg.norm(hidden, axis=0)
    seen = lengths > 0
    units = hidden / np.where(seen, lengths, 1.0)
    with np.errstate(divide="ignore"):
        grown = np.log(-np.expm1(-2 * growth * times[:, None])) / 2 + growth * times[:, None]
        logs = np.where(seen, grown + np.log(lengths) - np.log(2 * strengths) / 2, -math.inf)
    sizes = np.exp(np.minimum(logs, _SATURATED))
    # rows (x_1 z_1, ..., 1) have I + M for Gram matrix; columns of length 1 keep the digits of a QR decomposition
    scales = 1 / np.sqrt(1 + sizes**2)
    count = len(growth)
    tall = np.concatenate([units * (sizes * scales)[:, None, :], np.eye(count) * scales[:, None, :]], axis=1)
    triangle = np.linalg.qr(tall, mode="r")
    part = scales[:, :, None] * np.linalg.inv(triangle)
    gains = 1 / np.sqrt(1 - np.minimum(np.exp(-2 * growth * times[:, None]), 0.5))
    learned = np.eye(count) - part @ part.transpose(0, 2, 1)
    return np.asarray(np.eye(count) - learned * gains[:, :, None] * gains[:, None, :])


def half_times(
    guess: Float[np.ndarray, " jumps"],
    hidden: Float[np.ndarray, "hidden modes"],
    growth: Float[np.ndarray, " modes"],
    strengths: Float[np.ndarray, " modes"],
) -> Float[np.ndarray, " jumps"]:
    """Give when modes have half of their strength.

    Args:
        guess: of each mode; those that are not finite are given back.
        hidden: of all modes, as in :func:`missing_shares`.
        growth: of all modes.
        strengths: of all modes.

    Returns:
        The times; the guess where the iteration does not end.
    """
    modes = np.flatnonzero(np.isfinite(guess))

    def log_odds(times: np.ndarray) -> np.ndarray:
        missing = missing_shares(times, hidden, growth, strengths)[np.arange(len(modes)), modes, modes]
        learned = np.clip(1 - missing, 1e-300, 1.0)
        return np.asarray(np.log(learned) - np.log(np.maximum(missing, 1e-300)))

    return _solve(guess, modes, growth, log_odds)


def loss_times(
    guess: Float[np.ndarray, " jumps"],
    levels: Float[np.ndarray, " plateaus"],
    hidden: Float[np.ndarray, "hidden modes"],
    growth: Float[np.ndarray, " modes"],
    strengths: Float[np.ndarray, " modes"],
) -> Float[np.ndarray, " jumps"]:
    """Give when the loss crosses the mean of two levels.

    Args:
        guess: of each crossing; those that are not finite are given back.
        levels: above the floor, one more.
        hidden: of all modes, as in :func:`missing_shares`.
        growth: of all modes, those of the jumps first.
        strengths: of all modes.

    Returns:
        The times; the guess where the iteration does not end.
    """
    jumps = np.flatnonzero(np.isfinite(guess))
    drops = np.sqrt(growth * strengths)

    def log_odds(times: np.ndarray) -> np.ndarray:
        missing = missing_shares(times, hidden, growth, strengths)
        losses = np.einsum("j,tjk,k->t", drops, missing**2, drops) / 2
        share = np.clip((losses - levels[jumps + 1]) / (levels[jumps] - levels[jumps + 1]), 1e-3, 1 - 1e-3)
        return np.asarray(np.log(1 - np.sqrt(share)) - np.log(share) / 2 - LOSS_HALF)

    return _solve(guess, jumps, growth, log_odds)


def _solve(
    guess: np.ndarray, places: np.ndarray, growth: np.ndarray, log_odds: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Roots of log odds that rise at nearly twice the growth: the secant method inside what is known to hold the root."""
    result = guess.copy()
    if not len(places):
        return result
    times, rates = guess[places], 2 * growth[places]
    low, high = np.zeros_like(times), np.full_like(times, math.inf)
    last, before = times, log_odds(times)
    values, slopes = before, rates
    for _ in range(_ROUNDS):
        low, high = np.where(values < 0, times, low), np.where(values > 0, times, high)
        moved = times - values / slopes
        inside = (moved >= low) & (moved <= high)
        moved = np.where(inside, moved, (low + np.where(np.isinf(high), 3 * times + low, high)) / 2)
        last, before, times = times, values, moved
        ended = np.abs(times - last) <= _ACCURATE * times
        if ended.all():
            break
        values = log_odds(times)
        with np.errstate(divide="ignore", invalid="ignore"):
            secant = (values - before) / (times - last)
        slopes = np.where((secant > rates / 10) & (secant < 10 * rates), secant, rates)
    result[places] = np.where(ended, times, guess[places])
    return result
