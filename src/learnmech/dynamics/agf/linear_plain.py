"""Jump times of alternating gradient flow itself for a two-layer linear network, in closed form up to one root a neuron."""

import math

import numpy as np
from jaxtyping import Float

_ROUNDS = 60


def neuron_times(
    first: Float[np.ndarray, "outputs hidden"],
    second: Float[np.ndarray, "hidden inputs"],
    left: Float[np.ndarray, "outputs modes"],
    right: Float[np.ndarray, "inputs modes"],
    growth: Float[np.ndarray, " modes"],
) -> Float[np.ndarray, " modes"]:
    r"""Give when the first dormant neuron reaches norm 1, for each mode.

    A neuron (a, w) has shares :math:`p_k = (a\cdot u_k + w\cdot v_k)/\sqrt2` and :math:`m_k = (a\cdot u_k - w\cdot v_k)/\sqrt2` of
    mode k, which grow and decay as :math:`e^{\pm\sigma_kT_k}` with the time :math:`T_k` that the mode has been unlearned, so that

    .. math::
        |\theta|^2 = \rho^2 + \sum_k \big(p_k^2e^{2\sigma_kT_k} + m_k^2e^{-2\sigma_kT_k}\big) .

    The first to have norm 1 learns the unlearned mode of which it has the most. These are the times of
    :func:`~learnmech.dynamics.agf.run`, one neuron a mode; all other neurons are counted by
    :func:`~learnmech.dynamics.agf.linear`'s refined times, which is why they are better. Derived here.

    Args:
        first: read-out weights at the start.
        second: input weights at the start.
        left: output directions of the modes.
        right: their input directions.
        growth: their rates.

    Returns:
        The times, infinity for modes that no neuron learns; 0 for neurons that start with norm 1 or more.
    """
    out, inside = first.T @ left, second @ right
    up, down = np.square(out + inside) / 2, np.square(out - inside) / 2
    whole = np.square(first).sum(axis=0) + np.square(second).sum(axis=1)
    rest = np.maximum(whole - (up + down).sum(axis=1), 0.0)
    times, elapsed = np.full(len(growth), math.inf), 0.0
    rates, dormant = growth.astype(float), np.ones(len(whole), dtype=bool)
    while dormant.any() and rates.any():
        number, wait = _first(np.where(dormant, rest, -1.0), up, down, rates)
        if not math.isfinite(wait):
            break
        dormant[number] = False
        elapsed += wait
        up, down = up * np.exp(2 * rates * wait), down * np.exp(-2 * rates * wait)
        mode = int(np.where(rates > 0, up[number], -1.0).argmax())
        times[mode] = elapsed
        rates = np.where(np.arange(len(rates)) == mode, 0.0, rates)
    return times


def _first(rest: np.ndarray, up: np.ndarray, down: np.ndarray, rates: np.ndarray) -> tuple[int, float]:
    """The neuron that is first to reach norm 1, and when; a negative rest is that of neurons that are out."""
    out = rest < 0
    now = np.where(out, 0.0, rest + up.sum(axis=1) + down.sum(axis=1))
    if now.max() >= 1:
        return int(now.argmax()), 0.0
    grows = (up > 0) & (rates > 0) & ~out[:, None]
    if not grows.any():
        return 0, math.inf
    # each growing share alone needs so long, and all together no longer; the largest log-norm is convex, so Newton's method
    # from the right stays there
    with np.errstate(divide="ignore", invalid="ignore"):
        time = float(np.where(grows, -np.log(up) / (2 * rates), math.inf).min())
    for _ in range(_ROUNDS):
        raised, lowered = up * np.exp(2 * rates * time), down * np.exp(-2 * rates * time)
        squares = np.where(out, 0.0, rest + raised.sum(axis=1) + lowered.sum(axis=1))
        number = int(squares.argmax())
        square = float(squares[number])
        step = math.log(square) * square / (2 * float((raised[number] - lowered[number]) @ rates))
        time -= step
        if step <= 1e-15 * time:
            break
    return number, time
