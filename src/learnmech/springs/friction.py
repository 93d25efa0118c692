"""Dry friction: the threshold map S, and its averages over noise (mean drift g, effective friction)."""

import math
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from learnmech.errors import InputError

NoiseKind = Literal["gaussian", "truncated", "uniform", "two_point"]
Ramp: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]

TRUNCATION = 2.0
"""Where the truncated normal noise ends, in standard deviations of the untruncated one."""

SMALLEST_NOISE = 1e-100
"""Stands for a noise of zero, so that no formula divides by zero."""


def sliding_force(
    force: ArrayLike, friction_forward: ArrayLike, friction_backward: ArrayLike
) -> Float[np.ndarray, "..."]:
    r"""Compute what dry friction leaves of a force on a block.

    .. math:: S(z) = z - \mathrm{clip}(z, -\mu_-, \mu_+)

    It is :math:`z - \mu_+` for :math:`z > \mu_+`, :math:`z + \mu_-` for :math:`z < -\mu_-`, and 0 in between: there the
    block sticks. Source: Shi, Pan, Dokmanić 2024 (arXiv 2407.19353), the friction of Eq. 5.

    Args:
        force: any force z, in units of stiffness times load.
        friction_forward: :math:`\mu_+ \ge 0`, against motion to the right.
        friction_backward: :math:`\mu_- \ge 0`, against motion to the left.

    Returns:
        The force that moves the block, broadcast over the arguments.

    Example:
        >>> sliding_force([0.5, 0.1, -0.5], 0.2, 0.3).round(12).tolist()
        [0.3, 0.0, -0.2]
    """
    force = np.asarray(force, dtype=np.float64)
    held: Float[np.ndarray, "..."] = np.clip(force, -np.asarray(friction_backward, np.float64), friction_forward)
    moving: Float[np.ndarray, "..."] = force - held
    return moving


def mean_drift(
    force: ArrayLike,
    noise: ArrayLike,
    friction_forward: ArrayLike,
    friction_backward: ArrayLike,
    noise_kind: NoiseKind = "gaussian",
) -> Float[np.ndarray, "..."]:
    r"""Compute the mean velocity of a block under a force and noise: :math:`g(f) = E\,S(f + \bar\epsilon\xi)`.

    With the ramp :math:`R(z) = E \max(z + \bar\epsilon\xi, 0)` it is :math:`g(f) = R(f - \mu_+) - R(-f - \mu_-)`. For
    Gaussian noise :math:`R(z) = z\,\Phi(z/\bar\epsilon) + \bar\epsilon\,\varphi(z/\bar\epsilon)`; the other kinds have closed
    forms as well. Source: the average of the right-hand side of Eq. 5 of Shi, Pan, Dokmanić 2024 (arXiv 2407.19353);
    the paper itself averages nothing.

    Args:
        force: elastic force f.
        noise: level :math:`\bar\epsilon \ge 0` of the noise over its correlation window, in units of force.
        friction_forward: :math:`\mu_+`.
        friction_backward: :math:`\mu_-`.
        noise_kind: distribution of :math:`\xi`: ``gaussian`` N(0, 1); ``truncated`` N(0, 1) under the condition
            :math:`|\xi| \le 2`; ``uniform`` on [-1, 1]; ``two_point`` +1 or -1.

    Returns:
        Mean velocity, broadcast over the arguments. It vanishes at :math:`f = (\mu_+ - \mu_-)/2` for any noise, and only
        there if the noise is unbounded.

    Raises:
        InputError: for an unknown kind of noise.

    Example:
        At the force that balances both frictions there is no drift:

        >>> mean_drift([0.05, 0.2, 0.1], [0.1, 0.3, 1.0], [0.1, 0.1, 0.4], [0.1, 0.05, 0.2]).round(6).tolist()
        [0.016849, 0.142279, 0.0]
    """
    force = np.asarray(force, dtype=np.float64)
    noise = np.maximum(np.asarray(noise, dtype=np.float64), SMALLEST_NOISE)
    ramp = mean_ramp(noise_kind)
    return ramp(force - friction_forward, noise) - ramp(-force - friction_backward, noise)


def effective_friction(
    force: ArrayLike,
    noise: ArrayLike,
    friction_forward: ArrayLike,
    friction_backward: ArrayLike,
    noise_kind: NoiseKind = "gaussian",
) -> Float[np.ndarray, "..."]:
    r"""Compute the friction that a block feels on average: :math:`\mu_{\mathrm{eff}}(f) = f - E\,S(f + \bar\epsilon\xi)`.

    Own definition, consistent with what Shi, Pan, Dokmanić 2024 (arXiv 2407.19353) say in words: it is :math:`\mu_+` for
    a moving block without noise, falls with noise, and tends to :math:`m = (\mu_+ - \mu_-)/2` for strong noise.

    Args:
        force: elastic force f.
        noise: level of the noise.
        friction_forward: :math:`\mu_+`.
        friction_backward: :math:`\mu_-`.
        noise_kind: as for :func:`mean_drift`.

    Returns:
        Effective friction, in units of force. Negative: noise pushes the block forward on average.

    Raises:
        InputError: for an unknown kind of noise.

    Example:
        No noise leaves the sliding friction; strong noise leaves half the difference of both frictions:

        >>> effective_friction(0.5, [0.0, 1e6], 0.1, 0.04).round(6).tolist()
        [0.1, 0.03]
    """
    force = np.asarray(force, dtype=np.float64)
    felt: Float[np.ndarray, "..."] = force - mean_drift(force, noise, friction_forward, friction_backward, noise_kind)
    return felt


def noise_bound(noise_kind: NoiseKind) -> float:
    """Give the largest size of one draw of the noise.

    Args:
        noise_kind: distribution of the noise.

    Returns:
        The bound in units of the noise level; infinite for Gaussian noise.

    Raises:
        InputError: for an unknown kind of noise.

    Example:
        >>> noise_bound("truncated")
        2.0
    """
    check_noise_kind(noise_kind)
    return {"gaussian": math.inf, "truncated": TRUNCATION, "uniform": 1.0, "two_point": 1.0}[noise_kind]


def check_noise_kind(noise_kind: str) -> None:
    """Refuse an unknown kind of noise.

    Args:
        noise_kind: what came.

    Raises:
        InputError: naming the kinds.
    """
    if noise_kind not in get_args(NoiseKind):
        kinds = ", ".join(map(repr, get_args(NoiseKind)))
        raise InputError(f"noise_kind must be one of {kinds}, but is {noise_kind!r}.")


def mean_ramp(noise_kind: NoiseKind) -> Ramp:
    r"""Give the function :math:`R(z, \bar\epsilon) = E \max(z + \bar\epsilon\xi, 0)` of a kind of noise.

    Args:
        noise_kind: distribution of the noise.

    Returns:
        R, for arrays; the noise must be at least ``SMALLEST_NOISE``.

    Raises:
        InputError: for an unknown kind of noise.

    Example:
        >>> float(mean_ramp("two_point")(np.array(0.5), np.array(1.0)))
        0.75
    """
    check_noise_kind(noise_kind)
    return {
        "gaussian": _gaussian_ramp,
        "truncated": _truncated_ramp,
        "uniform": _uniform_ramp,
        "two_point": _two_point_ramp,
    }[noise_kind]


def _gaussian_ramp(distance: np.ndarray, noise: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr

    scaled = distance / noise
    density = np.exp(scaled * scaled * -0.5) * (noise * (1 / math.sqrt(2 * math.pi)))
    ramp: np.ndarray = distance * ndtr(scaled) + density
    return ramp


def _truncated_ramp(distance: np.ndarray, noise: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr

    scaled = np.maximum(np.minimum(distance / noise, TRUNCATION), -TRUNCATION)
    density = (np.exp(scaled * scaled * -0.5) - math.exp(-0.5 * TRUNCATION**2)) * (1 / math.sqrt(2 * math.pi))
    inside = scaled * (float(ndtr(TRUNCATION)) - ndtr(-scaled)) + density
    beyond = np.maximum(distance - TRUNCATION * noise, 0.0)
    ramp: np.ndarray = inside * (noise / math.erf(TRUNCATION / math.sqrt(2))) + beyond
    return ramp


def _uniform_ramp(distance: np.ndarray, noise: np.ndarray) -> np.ndarray:
    above = np.maximum(np.minimum(distance / noise, 1.0), -1.0) + 1.0
    ramp: np.ndarray = 0.25 * noise * above * above + np.maximum(distance - noise, 0.0)
    return ramp


def _two_point_ramp(distance: np.ndarray, noise: np.ndarray) -> np.ndarray:
    ramp: np.ndarray = 0.5 * (np.maximum(distance + noise, 0.0) + np.maximum(distance - noise, 0.0))
    return ramp
