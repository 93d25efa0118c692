"""A net of one positive neuron without a bias, trained to the least cost, in closed form."""

import math
from dataclasses import dataclass

from scipy.optimize import brentq

from learnmech.leaky.exact_checks import require_number, require_positive_number
from learnmech.leaky.exact_linear import ScalarGeodesic, scalar


@dataclass(frozen=True)
class TrainedScalar:
    """The least of the regularised cost of one positive neuron.

    Attributes:
        geodesic: the path of the trained net.
        target: what the output should be.
        penalty: the weight of the action.
        cost: regularised cost, the data cost plus the penalty times the action.
        data_cost: squared error.
        minima: ends of all local minima, increasing; two if the net can also be trained to a collapsed path.
    """

    geodesic: ScalarGeodesic
    target: float
    penalty: float
    cost: float
    data_cost: float
    minima: tuple[float, ...]


def scalar_trained(a0: float, target: float, effective_depth: float, penalty: float) -> TrainedScalar:
    r"""Minimise :math:`(y - a_1)^2 + \frac{\lambda}{2\tilde L}\int W_p^2\,dp` for one neuron, one sample, no bias.

    The path is :func:`scalar`, and its end meets :math:`B_1 = \frac2\lambda (y - a_1) = (1 + r/\tilde L)/a_1`,
    :math:`r = \log(a_1/a_0)`. In :math:`u = \log a_1` the slope of the cost is
    :math:`2e^{2u} - 2ye^u + \lambda(1 + (u - \log a_0)/\tilde L)`, and the slope of that is a quadratic in :math:`e^u`: there
    are one or three stationary ends, all are found, and the least is taken. With a large penalty or effective depth the least
    is the path that only leaks, :math:`a_1 \approx a_0 e^{-\tilde L}`. Derived here.

    Args:
        a0: representation at the input, positive.
        target: y, any number.
        effective_depth: the leak, positive.
        penalty: :math:`\lambda`, positive.

    Returns:
        The trained net.

    Raises:
        InputError: if a number is not finite, or one that must be positive is not.

    Example:
        >>> net = scalar_trained(0.5, 3.0, 4.0, 0.02)
        >>> path = net.geodesic
        >>> abs(path.momentum_end - 2 / 0.02 * (3.0 - path.end)) < 1e-9
        True
    """
    a0, penalty = require_positive_number(a0, "a0"), require_positive_number(penalty, "penalty")
    leak = require_positive_number(effective_depth, "effective_depth")
    y = require_number(target, "target")
    start = math.log(a0)

    def slope(u: float) -> float:
        return 2 * math.exp(u) * (math.exp(u) - y) + penalty * (1 + (u - start) / leak)

    # For u below ``low`` the slope is negative: its first term is at most 2 max(-y, 0) e^u + 2 e^2u, small there.
    low = start - leak * (1 + (y * y / 2 + 1) / penalty) - 1
    while slope(low) >= 0:
        low = low - abs(low) - 1
    high = max(start, math.log(max(y, 0) + 1)) + 1
    while slope(high) <= 0:
        high += 1
    turns = [low, *(u for u in _turning_points(y, penalty / leak) if low < u < high), high]
    values = [slope(u) for u in turns]
    minima = [
        float(brentq(slope, before, after, xtol=1e-15, rtol=8.9e-16, maxiter=500))
        for before, after, left, right in zip(turns, turns[1:], values, values[1:], strict=False)
        if left < 0 <= right
    ]

    def cost(u: float) -> float:
        return (y - math.exp(u)) ** 2 + penalty * leak / 2 * (1 + (u - start) / leak) ** 2

    best = min(minima, key=cost)
    end = math.exp(best)
    return TrainedScalar(
        geodesic=scalar(a0, end, leak),
        target=y,
        penalty=penalty,
        cost=cost(best),
        data_cost=(y - end) ** 2,
        minima=tuple(math.exp(u) for u in minima),
    )


def _turning_points(y: float, stiffness: float) -> list[float]:
    """Give the increasing u at which 4 e^2u - 2 y e^u + stiffness vanishes: the slope of the cost turns there."""
    discriminant = y * y - 4 * stiffness
    if y <= 0 or discriminant <= 0:
        return []
    larger = (y + math.sqrt(discriminant)) / 4
    return [math.log(stiffness / (4 * larger)), math.log(larger)]
