"""How the start of a deep linear network scales with its width, as predicted."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from learnmech.errors import InputError

Regime = Literal["exploding", "kernel", "critical", "saddle"]


@dataclass(frozen=True)
class WidthExponents:
    """Exponents of the width in the size of each quantity at the start.

    Attributes:
        kernel: of the tangent kernel.
        output: of the norm of the product of all weights.
        saddle: of the distance to the saddle at which first and last weight are zero.
        minimum: of the distance to the nearest global minimum.
        minimum_per_error: of that distance over the error of the output at the start.
        regime: "exploding" (outputs grow with the width), "kernel", "critical" or "saddle" (saddle to saddle).
    """

    kernel: float
    output: float
    saddle: float
    minimum: float
    minimum_per_error: float
    regime: Regime


def width_exponents(depth: int, gamma: float) -> WidthExponents:
    r"""Predict how a deep linear network at its start scales with its width w.

    With L weights and entries of variance :math:`w^{-\gamma}`: the tangent kernel goes as :math:`w^{(1-\gamma)(L-1)}`, the
    product of the weights as :math:`w^{(L-1-\gamma L)/2}`, the distance to the saddle with :math:`W_1 = W_L = 0` as
    :math:`w^{(1-\gamma)/2}`, and the distance to a global minimum as :math:`w^{-(1-\gamma)(L-1)/2}` for
    :math:`1-1/L \le \gamma < 1`. So for gamma below 1 a minimum is near and the saddle far: the kernel regime. Above 1 it is
    the other way round: training goes from saddle to saddle.

    Source: Jacot, Ged, Simsek, Hongler and Gabriel 2021 (arXiv 2106.15933). Derived here: the minimum's exponent 0 for gamma
    of 1 and more (the weights have to move by order 1 to make a product of order 1), and :math:`-\gamma/2` below
    :math:`1 - 1/L`, where the error is the output itself; and that the distance over the error at the start goes as
    :math:`w^{-(1-\gamma)(L-1)/2}` for every gamma below 1. That one is seen at moderate widths, where the output still adds
    to the error.

    Args:
        depth: number of weights L, at least 2.
        gamma: exponent of the variance.

    Returns:
        The exponents. They hold for large widths at a fixed number of inputs, outputs and weights.

    Raises:
        InputError: if an argument is out of range.

    Example:
        >>> width_exponents(4, 1.5)
        WidthExponents(kernel=-1.5, output=-1.5, saddle=-0.25, minimum=0.0, minimum_per_error=0.0, regime='saddle')
    """
    if not isinstance(depth, int | np.integer) or isinstance(depth, bool) or depth < 2:
        raise InputError(f"depth must be an integer of at least 2, got {depth!r}.")
    if not math.isfinite(gamma):
        raise InputError(f"gamma must be a finite number, got {gamma!r}.")
    least = 1 - 1 / depth
    regime: Regime = "exploding" if gamma < least else "kernel" if gamma < 1 else "critical" if gamma == 1 else "saddle"
    kernel = (1 - gamma) * (depth - 1)
    minimum = -gamma / 2 if gamma < least else -kernel / 2 if gamma < 1 else 0.0
    return WidthExponents(
        kernel, (depth - 1 - gamma * depth) / 2, (1 - gamma) / 2, minimum, min(-kernel / 2, 0.0), regime
    )
