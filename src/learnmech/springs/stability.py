"""Which time steps and dampings are safe for the simulation of a chain."""

import math
import warnings
from typing import Literal

import numpy as np
from jaxtyping import Float

from learnmech.errors import InputError, LearnmechWarning

Dynamics = Literal["overdamped", "stick_slip", "langevin"]


def fastest_mode(blocks: int) -> float:
    r"""Compute the largest eigenvalue :math:`2(1 - \cos(\pi L/(L+1)))` of the chain's matrix tridiag(-1, 2, -1).

    Args:
        blocks: number L of blocks.

    Returns:
        The eigenvalue, between 2 and 4.

    Example:
        >>> round(fastest_mode(1), 12)
        2.0
    """
    return 2 * (1 - math.cos(math.pi * blocks / (blocks + 1)))


def critical_damping(stiffness: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    r"""Compute the damping :math:`4\sqrt k`, above which no mode of any chain oscillates.

    Args:
        stiffness: spring constant k; the blocks have unit mass.

    Returns:
        Damping, at least :math:`2\sqrt{k\lambda_{max}}` as :math:`\lambda_{max} < 4`.

    Example:
        >>> float(critical_damping(np.array(0.25)))
        2.0
    """
    damping: Float[np.ndarray, "..."] = 4 * np.sqrt(stiffness)
    return damping


def check_step(
    dynamics: Dynamics,
    blocks: int,
    stiffness: Float[np.ndarray, "..."],
    damping: Float[np.ndarray, "..."],
    dt: float,
) -> None:
    r"""Refuse time steps at which a frictionless chain explodes; warn of those at which it oscillates.

    With :math:`\lambda` of :func:`fastest_mode`, first order is stable for :math:`\Delta t\,k\lambda < 2` and monotone for
    :math:`\Delta t\,k \le 1/2`. Second order is stable for :math:`k\lambda\Delta t^2 + 2\gamma\Delta t < 4`, does not
    oscillate for :math:`\gamma \ge 2\sqrt{k\lambda}`, and its steps do not alternate for :math:`\gamma\Delta t \le 1`.
    Derived from the characteristic polynomial of one step.

    Args:
        dynamics: equation of motion.
        blocks: number of blocks.
        stiffness: spring constant.
        damping: damping, used by second order.
        dt: time step.

    Raises:
        InputError: for an unstable step; the message gives the largest safe one.
    """
    rate = stiffness * fastest_mode(blocks)
    if dynamics == "overdamped":
        largest, smooth = float((2 / rate).min()), float((0.5 / stiffness).min())
    else:
        largest = float(((np.sqrt(damping**2 + 4 * rate) - damping) / rate).min())
        smooth = 1 / float(damping.max()) if damping.max() > 0 else math.inf
        slack = damping**2 - 4 * rate
        if slack.min() < -1e-12 * rate.max():
            where = np.unravel_index(slack.argmin(), slack.shape)
            warnings.warn(
                f"damping {damping[where]:g} lets a chain of stiffness {stiffness[where]:g} oscillate and overshoot its "
                f"rest; {2 * math.sqrt(rate[where]):.4g} or more is safe.",
                LearnmechWarning,
                stacklevel=3,
            )
    if dt >= largest:
        raise InputError(
            f"dt = {dt:g} is unstable for these chains, which need less than {largest:.4g}; take {min(smooth, largest / 2):.3g} "
            "or less."
        )
    if dt > smooth * (1 + 1e-9):
        warnings.warn(
            f"dt = {dt:g} makes blocks overshoot in single steps; up to {min(smooth, largest):.4g} their motion is smooth.",
            LearnmechWarning,
            stacklevel=3,
        )
