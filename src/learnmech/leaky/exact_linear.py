"""Geodesics between positive numbers and between aligned matrices, without biases."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from learnmech.errors import InputError
from learnmech.leaky.exact_checks import require_depth, require_positive_number


@dataclass(frozen=True)
class ScalarGeodesic:
    """The geodesic of one positive neuron without a bias.

    Attributes:
        start: representation a_0.
        end: representation a_1.
        effective_depth: the leak.
        layers: number of layers of a discrete net, or None for the flow.
        weight: the weight, the same at every depth.
        momentum_start: momentum at the input; of a discrete net B_0, by the backward recursion.
        momentum_end: momentum at the output.
        effective_dimension: -2 H over the effective depth; 1 for a path that stands still. Of a discrete net on the pairing
            of each layer's input with the momentum at its output.
        hamiltonian: the energy H.
        action: the integral of the Lagrangian, half the squared weight over the effective depth.
    """

    start: float
    end: float
    effective_depth: float
    layers: int | None
    weight: float
    momentum_start: float
    momentum_end: float
    effective_dimension: float
    hamiltonian: float
    action: float

    def position(self, depth: float) -> float:
        """Give the representation at a depth.

        Args:
            depth: p in [0, 1]; for a discrete net the same curve, which passes through all its nodes.

        Returns:
            The representation.
        """
        p = require_depth(depth)
        return math.exp((1 - p) * math.log(self.start) + p * math.log(self.end))

    def momentum(self, depth: float) -> float:
        """Give the momentum at a depth: momentum times representation is the same at every depth.

        Args:
            depth: p in [0, 1].

        Returns:
            The momentum.
        """
        return self.momentum_end * self.end / self.position(depth)


def scalar(a0: float, a1: float, effective_depth: float) -> ScalarGeodesic:
    r"""Compute the geodesic between two positive numbers: one neuron, one sample, no bias.

    .. math::
        a_p = a_0^{1-p} a_1^p, \quad W = \tilde L + r, \quad B_p = \frac{1 + r/\tilde L}{a_p}, \quad
        -\frac{2H}{\tilde L} = 1 - \frac{r^2}{\tilde L^2}, \quad
        \int\!\mathcal L\,dp = \frac{(\tilde L + r)^2}{2\tilde L}, \qquad r = \log\frac{a_1}{a_0}.

    The action is the least one: without the leak the weight would have to integrate to r, with it to :math:`\tilde L + r`.
    Source: derived here from the Lagrangian of Jacot and Kaiser (arXiv 2405.17573); so are all closed forms of this module.

    Args:
        a0: representation at the input, positive.
        a1: representation at the output, positive.
        effective_depth: the leak, positive.

    Returns:
        The geodesic; numbers are in units of the representation or without a unit.

    Raises:
        InputError: if a number is not positive. A neuron without a bias keeps its sign, and a negative one only decays.

    Example:
        >>> path = scalar(0.5, 3.0, 4.0)
        >>> round(path.weight, 10), round(path.effective_dimension, 10), round(path.action, 10)
        (5.7917594692, 0.7993498753, 4.1930597187)
    """
    a0, a1 = require_positive_number(a0, "a0"), require_positive_number(a1, "a1")
    leak = require_positive_number(effective_depth, "effective_depth")
    rate = math.log(a1) - math.log(a0)
    return _scalar(a0, a1, leak, None, leak + rate, (1 - rate / leak) * (1 + rate / leak), (1 + rate / leak))


def scalar_discrete(a0: float, a1: float, effective_depth: float, layers: int) -> ScalarGeodesic:
    r"""Compute the geodesic of a net with L equal steps between two positive numbers: one neuron, one sample, no bias.

    .. math::
        W = \tilde L + L\Big(\Big(\frac{a_1}{a_0}\Big)^{1/L} - 1\Big), \qquad
        -\frac{2H}{\tilde L} = \frac{2W}{\tilde L} - \frac{W^2}{\tilde L^2}, \qquad
        \frac{1}{2\tilde L}\sum_l\rho_l W_l^2 = \frac{W^2}{2\tilde L}.

    At :math:`L = \tilde L` it is a fully connected net, whose weights are :math:`L (a_1/a_0)^{1/L}`; as L grows it tends to
    :func:`scalar` like 1/L. Equal weights are stationary always and a minimum where
    :math:`2 (a_1/a_0)^{1/L} > 1 - \tilde L/L`, thus wherever the path does not halve in one layer. Derived here.

    Args:
        a0: representation at the input, positive.
        a1: representation at the output, positive.
        effective_depth: the leak, positive; it may exceed the number of layers.
        layers: number L of equal steps.

    Returns:
        The geodesic; :meth:`ScalarGeodesic.position` at l/L is the representation at node l.

    Raises:
        InputError: if a number is not positive.

    Example:
        >>> [round(scalar_discrete(0.5, 3.0, 4.0, layers).effective_dimension, 10) for layers in (5, 20, 100, 1000)]
        [0.7097900799, 0.780397415, 0.7957168409, 0.7989899825]
    """
    a0, a1 = require_positive_number(a0, "a0"), require_positive_number(a1, "a1")
    leak = require_positive_number(effective_depth, "effective_depth")
    if isinstance(layers, bool) or not isinstance(layers, int) or layers < 1:
        raise InputError(f"layers must be a whole number of at least 1, but {layers!r} came.")
    growth = layers * math.expm1((math.log(a1) - math.log(a0)) / layers)
    weight = leak + growth
    # W = Lt B_l a_(l-1), thus B_l a_l = (W / Lt) (a_1 / a_0)^(1/L): the conserved pairing.
    pairing = weight / leak * (1 + growth / layers)
    return _scalar(a0, a1, leak, layers, weight, (1 - growth / leak) * (1 + growth / leak), pairing)


def _scalar(
    a0: float, a1: float, leak: float, layers: int | None, weight: float, dimension: float, pairing: float
) -> ScalarGeodesic:
    return ScalarGeodesic(
        start=a0,
        end=a1,
        effective_depth=leak,
        layers=layers,
        weight=weight,
        momentum_start=pairing / a0,
        momentum_end=pairing / a1,
        effective_dimension=dimension,
        hamiltonian=-leak / 2 * dimension,
        action=weight * (weight / leak) / 2,
    )


@dataclass(frozen=True)
class AlignedGeodesic:
    """The geodesic between matrices that share their singular vectors, without biases.

    Attributes:
        rates: logarithmic growth r of each singular value, in the order given.
        spectrum: singular values of the weights, the same at every depth, in the order given; negative where a direction
            falls faster than the leak makes it.
        effective_dimension: -2 H over the effective depth: the number of directions less the squared rates.
        hamiltonian: the energy H.
        action: the integral of the Lagrangian; twice it is R0 times the effective depth, plus R1, plus R2 over it.
        expansion: (R0, R1, R2).
    """

    rates: tuple[float, ...]
    spectrum: tuple[float, ...]
    effective_dimension: float
    hamiltonian: float
    action: float
    expansion: tuple[float, float, float]


def aligned(s0: ArrayLike, s1: ArrayLike, effective_depth: float) -> AlignedGeodesic:
    r"""Compute the geodesic between linear or non-negative representations with the same singular vectors, without biases.

    Singular values move independently, each as in :func:`scalar`. With :math:`r_i = \log(s_i(1)/s_i(0))`,

    .. math::
        s_i(W) = \tilde L + r_i, \qquad -\frac{2H}{\tilde L} = k - \frac{\sum_i r_i^2}{\tilde L^2}, \qquad
        \frac{1}{\tilde L}\int \lVert W_p\rVert_F^2\,dp = k\tilde L + 2\sum_i r_i + \frac{1}{\tilde L}\sum_i r_i^2,

    thus :math:`R_0 = k`, :math:`R_1 = 2\sum r_i`, :math:`R_2 = \sum r_i^2`: in a bottleneck the singular values of the weights
    less the effective depth are the rates, whatever the effective depth. Derived here; R0 and R1 have the form of the
    expansion for fully connected nets in Jacot (arXiv 2305.19008). Valid where singular vectors are shared and the
    activation is the identity along the path, as for linear nets and for diagonal matrices of positive entries.

    Args:
        s0: positive singular values at the input.
        s1: positive singular values at the output, in the same order.
        effective_depth: the leak, positive.

    Returns:
        The geodesic.

    Raises:
        InputError: if the values differ in number, are not positive or not finite.

    Example:
        >>> path = aligned([1.0, 2.0], [1.0, 2.0], 5.0)
        >>> path.spectrum, path.effective_dimension, path.action, path.expansion
        ((5.0, 5.0), 2.0, 5.0, (2.0, 0.0, 0.0))
    """
    first, last = _singular_values(s0, "s0"), _singular_values(s1, "s1")
    leak = require_positive_number(effective_depth, "effective_depth")
    if len(first) != len(last):
        raise InputError(f"s0 and s1 must be equally many, but {len(first)} and {len(last)} came.")
    rates = np.log(last) - np.log(first)
    dimension = math.fsum((1 - rates / leak) * (1 + rates / leak))
    return AlignedGeodesic(
        rates=tuple(rates.tolist()),
        spectrum=tuple((leak + rates).tolist()),
        effective_dimension=dimension,
        hamiltonian=-leak / 2 * dimension,
        action=math.fsum((leak + rates) * (1 + rates / leak)) / 2,
        expansion=(float(len(rates)), 2 * math.fsum(rates), math.fsum(rates * rates)),
    )


def _singular_values(values: ArrayLike, name: str) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a list of positive numbers, but {values!r} came.") from error
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all() or not (array > 0).all():
        raise InputError(f"{name} must be a list of positive finite numbers, but {values!r} came.")
    return array
