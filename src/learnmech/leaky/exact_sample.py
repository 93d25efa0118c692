"""The geodesic of one neuron with a bias on one sample: the textbook bottleneck."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from learnmech.errors import InputError
from learnmech.leaky.exact_checks import require_depth, require_positive_number

_SCAN = 4001


@dataclass(frozen=True)
class SampleGeodesic:
    """The geodesic of one positive neuron with a bias on one sample.

    Attributes:
        start: representation a_0.
        end: representation a_1.
        effective_depth: the leak.
        effective_dimension: -2 H over the effective depth, below 1; negative for a path too fast to turn.
        hamiltonian: the energy H.
        action: the integral of the Lagrangian.
        minimum: the smallest representation along the path.
        curvature: kappa, which bends the path: its second derivative is kappa squared times the representation.
        other_actions: actions of the further geodesics between the same ends, increasing; empty if there is only one.
    """

    start: float
    end: float
    effective_depth: float
    effective_dimension: float
    hamiltonian: float
    action: float
    minimum: float
    curvature: float
    other_actions: tuple[float, ...]

    def position(self, depth: float) -> float:
        """Give the representation at a depth.

        Args:
            depth: p in [0, 1].

        Returns:
            The representation.
        """
        p = require_depth(depth)
        left, right = _ends_share(self.curvature, p)
        return self.start * left + self.end * right

    def momentum(self, depth: float) -> float:
        """Give the momentum at a depth.

        Args:
            depth: p in [0, 1].

        Returns:
            The momentum.
        """
        p = require_depth(depth)
        speed = _speed(self.start, self.end, self.curvature, p) / self.effective_depth
        return _momentum(self.position(p), speed, -self.effective_dimension)

    def weights(self, depth: float) -> tuple[float, float]:
        """Give weight and bias at a depth.

        Args:
            depth: p in [0, 1].

        Returns:
            Weight and bias: the effective depth times the momentum, times the representation or 1.
        """
        bias = self.effective_depth * self.momentum(depth)
        return bias * self.position(depth), bias


def one_sample(a0: float, a1: float, effective_depth: float) -> SampleGeodesic:
    r"""Compute the geodesic of least action between two positive numbers: one neuron with a bias, one sample.

    The energy :math:`E = 2H/\tilde L` gives :math:`(\dot a/\tilde L)^2 = (1+E)a^2 + E`, thus
    :math:`\ddot a = \kappa^2 a` with :math:`\kappa = \tilde L\sqrt{1+E}` and

    .. math::
        a_p = \frac{a_0 \sinh\kappa(1-p) + a_1\sinh\kappa p}{\sinh\kappa}, \qquad
        \tilde L^2 = \kappa^2\Big(1 + \frac{a_0a_1}{\cosh^2(\kappa/2)}\Big) - (a_1 - a_0)^2\Big(\frac{\kappa}{\sinh\kappa}\Big)^2.

    All cases are in it: E in (-1, 0) is a cosh, with its turning point on the path or beyond its ends; E = 0 an exponential,
    down for free (W = 0) or up; E > 0 a sinh, too fast to turn; E at or below -1 cannot be. With :math:`v = \dot a/\tilde L`

    .. math::
        B = \frac{a + v}{1 + a^2}, \qquad [V, b] = \tilde L B\,[a, 1], \qquad
        \int\!\mathcal L\,dp = \tilde L\Big(1 + \frac E2\Big) + \log\frac{a_1 - v_1}{a_0 - v_0}.

    The equation for :math:`\kappa` can have several solutions: between large ends one geodesic stays up, at an identity cost
    near 1, and one falls towards 0 and climbs back for :math:`\log(1 + a_1^2)`. The least action wins; where the two cross,
    near :math:`\tilde L = 2\log(1+a^2)`, the effective dimension jumps from near 1 to near 0 as the effective depth grows.
    Along the least action :math:`d(\mathrm{action})/d\tilde L = -H/\tilde L`. Derived here.

    Args:
        a0: representation at the input, positive.
        a1: representation at the output, positive.
        effective_depth: the leak, positive.

    Returns:
        The geodesic of least action; the actions of others are listed in it.

    Raises:
        InputError: if a number is not positive, or so large or small that the solution leaves the range of floats. Ends at or
            below 0 are not covered: the activation has its kink there.

    Example:
        >>> path = one_sample(1.0, 1.0, 10.0)
        >>> print(f"{path.effective_dimension:.9e} {path.minimum:.10f} {path.action:.10f}")
        1.817152542e-04 0.0134814050 0.6930563498
        >>> one_sample(10.0, 10.0, 9.0).effective_dimension > 0.98, one_sample(10.0, 10.0, 9.4).effective_dimension < 0.04
        (True, True)
    """
    a0, a1 = require_positive_number(a0, "a0"), require_positive_number(a1, "a1")
    leak = require_positive_number(effective_depth, "effective_depth")
    if max(a0, a1, leak) > 1e100 or min(a0, a1, leak) < 1e-100:
        raise InputError(
            f"a0, a1 and effective_depth must lie between 1e-100 and 1e100, but {a0!r}, {a1!r} and {leak!r} came."
        )
    found = sorted((_geodesic(a0, a1, leak, kappa) for kappa in _curvatures(a0, a1, leak)), key=lambda one: one.action)
    best = found[0]
    return SampleGeodesic(**{**vars(best), "other_actions": tuple(one.action for one in found[1:])})


def _curvatures(a0: float, a1: float, leak: float) -> list[float]:
    """Give all curvatures whose path takes the effective depth, by bounds, a scan between them and bisection."""
    difference, product = a1 - a0, a0 * a1

    def excess(kappa: float, share: float | None = None) -> float:
        decay = math.exp(-min(kappa, 700.0))
        dip = 4 * decay / (1 + decay) ** 2 if share is None else share
        return kappa * (kappa * (1 + product * dip)) - (difference * _over_sinh(kappa)) ** 2 - leak * leak

    # The share of the product lies in [0, 1]; with either bound the excess increases, so that its zero encloses all.
    least, most = _zero(lambda kappa: excess(kappa, 1.0), leak), _zero(lambda kappa: excess(kappa, 0.0), leak)
    grid = np.geomspace(least * (1 - 1e-9), most * (1 + 1e-9), _SCAN).tolist()
    values = [excess(kappa) for kappa in grid]
    return [
        float(brentq(excess, grid[k], grid[k + 1], xtol=1e-300, rtol=8.9e-16, maxiter=500))
        for k in range(_SCAN - 1)
        if values[k] <= 0 < values[k + 1] or values[k] > 0 >= values[k + 1]
    ]


def _zero(function: Callable[[float], float], guess: float) -> float:
    low = high = guess
    while function(low) > 0:
        low /= 2
    while function(high) < 0:
        high *= 2
    return low if low == high else float(brentq(function, low, high, xtol=1e-300, rtol=8.9e-16, maxiter=500))


def _over_sinh(kappa: float) -> float:
    return kappa / math.sinh(kappa) if kappa < 20 else 2 * kappa * math.exp(-min(kappa, 740.0))


def _ends_share(kappa: float, p: float) -> tuple[float, float]:
    """Give sinh(kappa (1 - p)) / sinh(kappa) and sinh(kappa p) / sinh(kappa) without overflow."""
    scale = -math.expm1(-2 * kappa)
    return (
        math.exp(-kappa * p) * -math.expm1(-2 * kappa * (1 - p)) / scale,
        math.exp(-kappa * (1 - p)) * -math.expm1(-2 * kappa * p) / scale,
    )


def _speed(a0: float, a1: float, kappa: float, p: float) -> float:
    """Give the derivative of the path; written by the difference of the ends, which does not cancel for small curvature."""
    scale = -math.expm1(-2 * kappa)
    up = math.exp(-kappa * (1 - p)) * (1 + math.exp(-2 * kappa * p)) / scale  # cosh(kappa p) / sinh(kappa)
    # cosh(kappa p) - cosh(kappa (1 - p)) = 2 sinh(kappa / 2) sinh(kappa (p - 1/2)), over sinh(kappa) = 2 sinh cosh of the half
    offset = p - 0.5
    turn = math.exp(kappa * (abs(offset) - 0.5)) * -math.expm1(-2 * kappa * abs(offset)) / (1 + math.exp(-kappa))
    return kappa * ((a1 - a0) * up + a0 * math.copysign(turn, offset))


def _momentum(a: float, v: float, energy: float) -> float:
    """Give (a + v) / (1 + a^2), by (a + v)(a - v) = -E (1 + a^2) where a + v cancels."""
    return (a + v) / (1 + a * a) if v >= 0 else -energy / (a - v)


def _geodesic(a0: float, a1: float, leak: float, kappa: float) -> SampleGeodesic:
    dimension = _dimension(a0, a1, leak, kappa)
    v0, v1 = (_speed(a0, a1, kappa, p) / leak for p in (0.0, 1.0))
    b0, b1 = _momentum(a0, v0, -dimension), _momentum(a1, v1, -dimension)
    if v0 >= 0:  # up all the way
        logarithm = math.log(b0) - math.log(b1)
        minimum = a0
    elif v1 <= 0:  # down all the way
        logarithm = math.log(a1 - v1) - math.log(a0 - v0)
        minimum = a1
    else:  # down and up: a_1 - v_1 is the dimension over B_1
        logarithm = math.log(dimension) - math.log(b1) - math.log(a0 - v0)
        minimum = math.sqrt(dimension) * leak / kappa
    action = leak * (1 - dimension / 2) + logarithm
    if not all(map(math.isfinite, (dimension, action, minimum))):
        raise InputError(f"the geodesic from {a0!r} to {a1!r} at effective depth {leak!r} leaves the range of floats.")
    return SampleGeodesic(
        start=a0,
        end=a1,
        effective_depth=leak,
        effective_dimension=dimension,
        hamiltonian=-leak / 2 * dimension,
        action=max(action, 0.0),
        minimum=minimum,
        curvature=kappa,
        other_actions=(),
    )


def _dimension(a0: float, a1: float, leak: float, kappa: float) -> float:
    """Give -E = (kappa / Lt)^2 (2 a0 a1 cosh(kappa) - a0^2 - a1^2) / sinh(kappa)^2, which 1 - (kappa / Lt)^2 would cancel."""
    decay = math.exp(-min(kappa, 700.0))
    dip = 4 * decay / (1 + decay) ** 2
    return (kappa / leak) ** 2 * a0 * a1 * dip - ((a1 - a0) * _over_sinh(kappa) / leak) ** 2
