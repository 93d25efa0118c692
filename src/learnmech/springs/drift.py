"""The mean motion of a spring chain at any time, without sampling."""

import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from learnmech.errors import InputError
from learnmech.springs.friction import SMALLEST_NOISE, NoiseKind, mean_ramp

Wall: TypeAlias = ArrayLike | Callable[[float], Any] | tuple[ArrayLike, ArrayLike]
"""Position of the wall: a number or array, a function of time, or a table (times, values) to interpolate linearly."""


def mean_positions(
    times: ArrayLike,
    *,
    blocks: int,
    stiffness: ArrayLike = 1.0,
    target: Wall = 1.0,
    friction_forward: ArrayLike = 0.0,
    friction_backward: ArrayLike = 0.0,
    noise: ArrayLike = 0.0,
    noise_kind: NoiseKind = "gaussian",
    noise_decay: ArrayLike = 0.0,
    initial: ArrayLike | None = None,
    start: float = 0.0,
    tolerance: float = 3e-7,
) -> Float[np.ndarray, "*cells time blocks"]:
    r"""Solve the drift model :math:`dx_i/dt = g(f_i)`, :math:`f_i = k(x_{i+1} - 2x_i + x_{i-1})`, from rest.

    :math:`g(f) = E\,S(f + \bar\epsilon\xi)` is :func:`~learnmech.springs.friction.mean_drift`. Derived from Eq. 5 of Shi,
    Pan, Dokmanić 2024 (arXiv 2407.19353) in the limit of small steps at a fixed level of noise; the reference code
    samples instead. It predicts the mean over chains of the simulation at every time, with an error of the order of the
    simulation's step. Not valid for dynamics with inertia.

    All cells are solved together by LSODA, which chooses between stiff and non-stiff formulas. The Jacobian is tridiagonal.

    Args:
        times: increasing times, none before ``start``.
        blocks: number L of blocks.
        stiffness: spring constant k.
        target: position y of the wall: a number, an array over cells, a function of time that gives either, or a table
            (times, values) with values of shape (..., times), interpolated linearly and constant outside.
        friction_forward: :math:`\mu_+`.
        friction_backward: :math:`\mu_-`.
        noise: level :math:`\bar\epsilon` of the noise.
        noise_kind: distribution of the noise.
        noise_decay: rate :math:`\lambda`; the level at time t is :math:`\bar\epsilon e^{-\lambda t}`.
        initial: positions of the blocks at the start, shape (..., blocks); zero if not given.
        start: time of the start.
        tolerance: relative error allowed in one step; at 3e-7 positions are good to about 1e-6 of the target.

    Returns:
        Mean positions of the blocks, shape (cells..., time, blocks); the cells are what the parameters broadcast to.

    Raises:
        InputError: for times that do not increase, shapes that do not fit, or values that the solver cannot follow.

    Example:
        Without friction the chain relaxes to equal elongations, the slowest mode at the rate 2k(1 - cos(pi/(L+1))):

        >>> mean_positions([0.0, 200.0], blocks=3, target=1.0).round(6).tolist()
        [[0.0, 0.0, 0.0], [0.25, 0.5, 0.75]]
        >>> one = mean_positions([0.0, 3.0], blocks=1, stiffness=0.5, target=2.0)  # x = 1 - exp(-2kt)
        >>> bool(abs(one[1, 0] - (1 - np.exp(-3))) < 1e-6)
        True
    """
    from scipy.integrate import ODEintWarning, odeint

    moments = _check_times(times, start)
    ramp = mean_ramp(noise_kind)
    wall, wall_shape, kinks = _wall(target)
    numbers = [
        np.asarray(value, dtype=np.float64)
        for value in (stiffness, friction_forward, friction_backward, noise, noise_decay)
    ]
    origin = np.zeros(blocks) if initial is None else np.asarray(initial, dtype=np.float64)
    if blocks < 1 or origin.ndim == 0 or origin.shape[-1] != blocks:
        raise InputError(
            f"a chain of {blocks} blocks needs initial positions of shape (..., {blocks}), but they are {origin.shape}."
        )
    try:
        cells = np.broadcast_shapes(wall_shape, origin.shape[:-1], *(number.shape for number in numbers))
    except ValueError as error:
        raise InputError(f"the parameters do not broadcast: {error}.") from error
    k, forward, backward, level, decay = (
        number if number.ndim == 0 else np.ascontiguousarray(np.broadcast_to(number, cells)).reshape(-1, 1)
        for number in numbers
    )
    if not all(np.isfinite(number).all() for number in (*numbers, origin, wall(start))):
        raise InputError("the parameters, initial positions and wall of a chain must be finite, but some are not.")
    decays = bool(np.any(decay != 0))
    count = int(np.prod(cells))
    chain = np.zeros((count, blocks + 2))
    inner, before, after, end = chain[:, 1:-1], chain[:, :-2], chain[:, 2:], chain[:, -1]
    moves = callable(target) or isinstance(target, tuple)
    end[...] = np.broadcast_to(wall(start), cells).reshape(-1)
    level = np.maximum(level, SMALLEST_NOISE)
    # Everything below runs some hundred times on small arrays: few calls matter more than few operations.
    beyond = np.empty((2, count, blocks))
    ahead, behind = beyond

    def velocity(state: np.ndarray, time: float) -> np.ndarray:
        inner[...] = state.reshape(count, blocks)
        if moves:
            end[...] = np.broadcast_to(wall(time), cells).reshape(-1) if wall_shape else wall(time)
        force = k * (before + after - 2.0 * inner)
        np.subtract(force, forward, out=ahead)
        np.subtract(-backward, force, out=behind)
        now = np.maximum(level * np.exp(-decay * (time - start)), SMALLEST_NOISE) if decays else level
        right, left = ramp(beyond, now)
        speed: np.ndarray = (right - left).reshape(-1)
        return speed

    origin = np.broadcast_to(origin, (*cells, blocks)).reshape(count, blocks)
    # The error allowed follows the size of each cell's positions, so that cells do not spoil each other.
    reach = np.maximum(np.abs(wall(start)), np.abs(wall(moments[-1])))
    size = np.broadcast_to(reach, cells).reshape(-1, 1) + np.abs(origin).max(axis=1, keepdims=True)
    scale = np.where(size > 0, size, np.maximum((forward + backward) / k, SMALLEST_NOISE))
    early = moments[0] > start
    if early:
        moments = np.concatenate([[start], moments])
    if len(moments) == 1 or count == 0:
        path = np.broadcast_to(origin.reshape(-1), (len(moments), count * blocks))
    else:
        bandwidth = min(1, count * blocks - 1)
        corners = kinks[(kinks > start) & (kinks < moments[-1])]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ODEintWarning)  # the report says the same
            path, report = odeint(  # type: ignore[call-overload]  # the stubs know no error bound for each entry
                velocity,
                np.ravel(origin),
                moments,
                rtol=tolerance,
                atol=0.1 * tolerance * np.repeat(scale, blocks),
                ml=bandwidth,
                mu=bandwidth,
                mxstep=20_000,
                tcrit=corners if len(corners) else None,
                full_output=True,
            )
        if not np.isfinite(path).all() or report["message"] != "Integration successful.":
            raise InputError(
                f"the drift model could not be solved ({report['message']}); check the sizes of the parameters: noise "
                f"{np.max(level):g}, stiffness {np.max(k):g}, wall at {np.max(reach):g}, and the last time {moments[-1]:g}."
            )
    positions = path.reshape(len(moments), count, blocks)[1 if early else 0 :]
    return np.ascontiguousarray(positions.transpose(1, 0, 2)).reshape(*cells, -1, blocks)


def _check_times(times: ArrayLike, start: float) -> Float[np.ndarray, " time"]:
    moments = np.atleast_1d(np.asarray(times, dtype=np.float64))
    if moments.ndim != 1 or len(moments) == 0 or not np.isfinite(moments).all() or (np.diff(moments) <= 0).any():
        raise InputError(f"times must be a list of finite numbers that increase, but are {times!r}.")
    if moments[0] < start:
        raise InputError(f"times must not lie before the start at {start:g}, but the first is {moments[0]:g}.")
    return moments


def _wall(target: Wall) -> tuple[Callable[[float], Any], tuple[int, ...], Float[np.ndarray, " kinks"]]:
    """Turn any kind of wall into a function of time, with the shape of its cells and the times where its speed jumps."""
    if callable(target):
        return target, np.shape(target(0.0)), np.empty(0)
    if not isinstance(target, tuple):
        fixed = np.asarray(target, dtype=np.float64)
        return lambda time: fixed, fixed.shape, np.empty(0)
    if len(target) != 2:
        raise InputError(f"a wall given as a table must be (times, values), but has {len(target)} parts.")
    moments, values = (np.asarray(part, dtype=np.float64) for part in target)
    if moments.ndim != 1 or values.ndim == 0 or len(moments) != values.shape[-1] or (np.diff(moments) <= 0).any():
        raise InputError(
            f"a wall given as a table needs increasing times and one value for each along the last dimension, but times "
            f"have the shape {moments.shape} and values {values.shape}."
        )
    if values.ndim == 1:
        return lambda time: np.interp(time, moments, values), (), moments
    slopes = np.diff(values, axis=-1) / np.diff(moments)

    def interpolate(time: float) -> Any:
        place = int(np.searchsorted(moments, time, side="right")) - 1
        if place < 0 or place >= len(moments) - 1:
            return values[..., 0 if place < 0 else -1]
        return values[..., place] + slopes[..., place] * (time - moments[place])

    return interpolate, values.shape[:-1], moments
