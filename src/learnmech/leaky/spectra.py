"""The spectrum of weights inside the bottleneck: the effective depth plus one rate for each direction that is kept."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.errors import InputError


def predicted_spectrum(
    rates: Float[Tensor, "..."] | list[float], effective_depth: float, layers: int | None = None
) -> Float[Tensor, "..."]:
    r"""Predict the singular values of the weights of a leaky ResNet from the growth of each direction.

    .. math::
        s_i(W) = \bigl|\tilde L + r_i\bigr|, \qquad
        \text{with } L \text{ equal steps: } s_i(W) = \bigl|\tilde L + L\,(e^{r_i / L} - 1)\bigr|, \qquad
        r_i = \log\frac{s_i(A_1)}{s_i(A_0)}

    Source: derived in learnmech, for representations that are linear or non-negative with aligned singular vectors, where
    directions decouple, :math:`s_i(A_p) = s_i(A_0)^{1-p} s_i(A_1)^p`, and the weights are the same in all layers. With
    :math:`L = \tilde L` it is a fully connected net. :math:`s_i(W) - \tilde L` is thus independent of the effective depth, as
    in Fig. 1 of Jacot and Kaiser (arXiv 2405.17573).

    For trained nets it holds in the bottleneck only (the slow layers, where representations are non-negative), for the
    directions that are kept; near the ends of the net and for the other directions it says nothing.

    Args:
        rates: r_i, any shape; 0 for a direction that keeps its size.
        effective_depth: :math:`\tilde L`, positive.
        layers: number L of equal steps; None for continuous depth.

    Returns:
        s_i in the order of the rates, float64, in the unit of the effective depth.

    Raises:
        InputError: for a rate or depth that is not finite, a depth or number of layers that is not positive.

    Example:
        >>> predicted_spectrum([math.log(3.0 / 0.5)], 4.0)
        tensor([5.7918], dtype=torch.float64)
    """
    rate = _numbers(rates, "rates")
    depth = require_depth(effective_depth)
    growth = rate if layers is None else _layers(layers) * torch.expm1(rate / layers)
    return (depth + growth).abs()


def rates_of(
    spectrum: Float[Tensor, "..."] | list[float], effective_depth: float, layers: int | None = None
) -> Float[Tensor, "..."]:
    r"""Read the growth of each direction off the singular values of weights: the inverse of :func:`predicted_spectrum`.

    .. math::
        r_i = s_i - \tilde L, \qquad \text{with } L \text{ equal steps: } r_i = L \log\bigl(1 + (s_i - \tilde L) / L\bigr)

    Source: as :func:`predicted_spectrum` (derived in learnmech); valid where that is, for directions that do not shrink by
    more than the leak alone shrinks them. Rates of directions that are not kept, with :math:`s_i \approx 0`, come out near
    :math:`-\tilde L` and mean nothing.

    Args:
        spectrum: singular values of the weights, any shape.
        effective_depth: :math:`\tilde L`, positive.
        layers: number L of equal steps; None for continuous depth.

    Returns:
        r_i in the order of the singular values, float64. With fewer layers than the effective depth, minus infinity or NaN
        for a singular value that no rate gives.

    Raises:
        InputError: for a singular value that is negative or not finite, a depth or number of layers that is not positive.

    Example:
        >>> rates_of(predicted_spectrum([2.0, 0.5], 4.0, layers=10), 4.0, layers=10)
        tensor([2.0000, 0.5000], dtype=torch.float64)
    """
    values = _numbers(spectrum, "spectrum")
    if bool((values < 0).any()):
        raise InputError(f"spectrum must hold singular values of at least 0, but holds {float(values.min())!r}.")
    growth = values - require_depth(effective_depth)
    return growth if layers is None else _layers(layers) * torch.log1p(growth / layers)


def require_depth(effective_depth: float) -> float:
    """Check an effective depth.

    Args:
        effective_depth: what came.

    Returns:
        The same number.

    Raises:
        InputError: if it is not a positive finite number.
    """
    if isinstance(effective_depth, bool) or not isinstance(effective_depth, int | float):
        raise InputError(f"effective_depth must be a positive number, got {effective_depth!r}.")
    if not (math.isfinite(effective_depth) and effective_depth > 0):
        raise InputError(f"effective_depth must be a positive finite number, got {effective_depth!r}.")
    return float(effective_depth)


def _layers(layers: int) -> int:
    if isinstance(layers, bool) or not isinstance(layers, int) or layers < 1:
        raise InputError(f"layers must be a whole number of at least 1, or None for continuous depth, got {layers!r}.")
    return layers


def _numbers(values: Tensor | list[float], name: str) -> Tensor:
    numbers = torch.as_tensor(values, dtype=torch.float64).detach()
    if not bool(torch.isfinite(numbers).all()):
        raise InputError(f"{name} must be finite numbers, but hold NaN or infinity.")
    return numbers
