"""Where a spring chain comes to rest, in closed form, and the elastic energy stored there."""

from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from learnmech.errors import InputError

Regime = Literal["noiseless", "high_noise", "bounded"]


def resting_chain(
    blocks: int, stiffness: ArrayLike, target: ArrayLike, residual_force: ArrayLike
) -> Float[np.ndarray, "*cells springs"]:
    r"""Compute the elongations of a chain in which every block carries the same residual force f.

    .. math:: d_i = \frac{y}{L+1} + \frac{f}{k}\Big(i - \frac{L+2}{2}\Big), \qquad i = 1, \dots, L+1

    The elongations are an arithmetic sequence: they grow towards the wall for f > 0 (concave load curve: the deep layers
    do the work), are equal for f = 0 and fall for f < 0 (convex). Source: Shi, Pan, Dokmanić 2024 (arXiv 2407.19353),
    Eq. 7 with :math:`f = \mu_+` and Eq. 8 with :math:`f = (\mu_+ - \mu_-)/2`.

    Args:
        blocks: number L of blocks.
        stiffness: spring constant k.
        target: position y of the wall.
        residual_force: elastic force f left on each block.

    Returns:
        Elongations, in units of the target. Negative ones mean that a spring is compressed.

    Example:
        >>> resting_chain(3, 1.0, 1.0, 0.1).round(6).tolist()
        [0.1, 0.2, 0.3, 0.4]
    """
    stiffness, target, residual_force = (
        np.asarray(value, dtype=np.float64)[..., None] for value in (stiffness, target, residual_force)
    )
    spring = np.arange(1, blocks + 2) - (blocks + 2) / 2
    elongations: Float[np.ndarray, "*cells springs"] = target / (blocks + 1) + residual_force / stiffness * spring
    return elongations


def resting_chain_from_start(
    blocks: int, stiffness: ArrayLike, target: ArrayLike, residual_force: ArrayLike
) -> Float[np.ndarray, "*cells springs"]:
    r"""Compute where a chain rests that started with all blocks at 0 and moves each block until f is left on it.

    Only the last j blocks move, where j is the largest number with :math:`j(j+1)/2 < ky/f`: those behind carry less than
    f and stay at 0. If j reaches L, or f <= 0, this is :func:`resting_chain`; otherwise

    .. math:: d_i = 0 \;(i \le L-j), \qquad d_{L-j+1+s} = \frac{y}{j+1} + \frac fk \Big(s - \frac j2\Big), \; s = 0..j.

    Derived as the least solution of :math:`x \ge 0`, :math:`f - f_i(x) \ge 0`, one of them zero for each block. Eq. 7 of
    Shi, Pan, Dokmanić 2024 (arXiv 2407.19353) is the case that all blocks move; the settings of their notebook lie outside.

    Args:
        blocks: number L of blocks.
        stiffness: spring constant k.
        target: position y >= 0 of the wall.
        residual_force: force f at which a block stops.

    Returns:
        Elongations; those of springs between blocks that never moved are 0.

    Example:
        The setting of the paper's notebook, where three of seven blocks move:

        >>> resting_chain_from_start(7, 1.0, 1.0, 0.1).round(6).tolist()
        [0.0, 0.0, 0.0, 0.0, 0.1, 0.2, 0.3, 0.4]
    """
    stiffness, target, residual_force = np.broadcast_arrays(
        *(np.asarray(value, dtype=np.float64) for value in (stiffness, target, residual_force))
    )
    load = (stiffness * target)[..., None]
    counts = np.arange(1, blocks + 1)
    moves = residual_force[..., None] * (counts * (counts + 1) / 2) < load
    moving = np.where(residual_force > 0, moves.sum(axis=-1), blocks)[..., None]
    place = np.arange(1, blocks + 2) - (blocks - moving + 1)  # s of the last formula, negative for blocks at rest
    line = target[..., None] / (moving + 1) + (residual_force / stiffness)[..., None] * (place - moving / 2)
    return np.where(place >= 0, line, 0.0)


def bounded_noise_chain(
    blocks: int,
    stiffness: ArrayLike,
    target: ArrayLike,
    friction_forward: ArrayLike,
    friction_backward: ArrayLike,
    bound: ArrayLike,
) -> Float[np.ndarray, "*cells springs"]:
    r"""Compute where a chain rests on average under noise of size at most B, from all blocks at 0.

    Blocks stop where the strongest kick no longer moves them: at the residual force :math:`f^* = \mu_+ - B`, unless noise
    can move them both ways there; then the mean force is :math:`m = (\mu_+ - \mu_-)/2` for good. With
    :math:`M = (\mu_+ + \mu_-)/2`:

    - :math:`B \ge M`: :func:`resting_chain` with m, for any symmetric noise and any load.
    - :math:`B < M`, :math:`B \le \mu_-`: :func:`resting_chain_from_start` with :math:`f^*`. No kick moves a block left.
    - :math:`B < M`, :math:`B > \mu_-`: :func:`resting_chain` with :math:`f^*` if the load reaches all blocks,
      :math:`f^* L(L+1)/2 < ky`. Otherwise kicks to the left push blocks that carry no load below 0, how far depends on
      the path, and there is no closed form.

    Derived; Shi, Pan, Dokmanić 2024 (arXiv 2407.19353) say in words that bounded noise ends between their Eqs. 7 and 8.
    Two-point noise gets there exponentially fast; a bounded density that vanishes at its edge only like 1/t.

    Args:
        blocks: number L of blocks.
        stiffness: spring constant k.
        target: position y >= 0 of the wall.
        friction_forward: :math:`\mu_+`.
        friction_backward: :math:`\mu_-`.
        bound: largest size B of the random force.

    Returns:
        Mean elongations; NaN where there is no closed form.

    Example:
        >>> bounded_noise_chain(3, 1.0, 1.0, 0.1, 0.3, [0.0, 0.1, 9.0]).round(6).tolist()
        [[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25], [0.4, 0.3, 0.2, 0.1]]
    """
    stiffness, target, forward, backward, bound = np.broadcast_arrays(
        *(np.asarray(value, np.float64) for value in (stiffness, target, friction_forward, friction_backward, bound))
    )
    saturated = bound >= (forward + backward) / 2
    residual = np.where(saturated, (forward - backward) / 2, forward - bound)
    reaches_all = residual * (blocks * (blocks + 1) / 2) < stiffness * target
    whole = resting_chain(blocks, stiffness, target, residual)
    part = resting_chain_from_start(blocks, stiffness, target, residual)
    pushed = np.where(reaches_all[..., None], whole, np.nan)
    return np.where(saturated[..., None], whole, np.where((bound <= backward)[..., None], part, pushed))


def elastic_energy(
    elongations: Float[np.ndarray, "*cells springs"], stiffness: ArrayLike = 1.0, *, above_uniform: bool = False
) -> Float[np.ndarray, "*cells"]:
    r"""Compute the elastic energy :math:`\tfrac k2 \sum_i d_i^2`, or how much of it exceeds that of equal elongations.

    The excess :math:`\tfrac k2 \sum_i (d_i - \bar d)^2` is :math:`k\,\Delta^2 L(L+1)(L+2)/24` for elongations that grow
    by :math:`\Delta` a spring. Source: Shi, Pan, Dokmanić 2024 (arXiv 2407.19353), the elastic potential energy that they
    compare chains by; of all chains between the same ends the uniform one has the least.

    Args:
        elongations: elongations, springs last.
        stiffness: spring constant k, of the shape of the cells.
        above_uniform: subtract the energy of the chain of equal elongations with the same ends.

    Returns:
        Energy, in units of stiffness times load squared.

    Raises:
        InputError: if there is no axis of springs.

    Example:
        >>> float(elastic_energy(np.array([1.0, 3.0]), 2.0)), float(elastic_energy([1.0, 3.0], 2.0, above_uniform=True))
        (10.0, 2.0)
    """
    elongations = np.asarray(elongations, dtype=np.float64)
    if elongations.ndim == 0:
        raise InputError("the energy needs elongations with the springs along the last axis, but a single number came.")
    if above_uniform:
        elongations = elongations - elongations.mean(axis=-1, keepdims=True)
    energy: Float[np.ndarray, "*cells"] = 0.5 * np.asarray(stiffness, np.float64) * np.square(elongations).sum(axis=-1)
    return energy
