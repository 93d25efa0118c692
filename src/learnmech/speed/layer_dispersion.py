"""Dispersions in closed form: how unevenly an activation, or a matrix of Gaussian weights, stretches directions."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from learnmech.errors import InputError

NAMED_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
    "elu": nn.functional.elu,
    "softplus": nn.functional.softplus,
}

REACH, CELLS = 12.0, 200_000
"""The normal average is a sum over the middles of so many cells, up to so many standard deviations; 0 is a cell's edge."""


def activation_dispersion(activation: str | Callable[[Tensor], Tensor], *, scale: float = 1.0) -> float:
    r"""Compute the dispersion of an activation: :math:`v_\phi = E[\phi'^4]/E[\phi'^2]^2 - 1` over a normal pre-activation.

    0 for a linear one, 1 for ReLU, :math:`(1 - s^2)^2/(1 + s^2)^2` for LeakyReLU with slope s. Behind independent weights,
    dispersions add: a layer has v = :func:`weight_dispersion` + :math:`v_\phi`, 2 for a square Gaussian ReLU layer. Source:
    derived here (product of free matrices), for :func:`predict_cosine`.

    Args:
        activation: ``linear``, ``relu``, ``tanh``, ``sigmoid``, ``gelu``, ``silu``, ``elu``, ``softplus``, or a function or
            module that works entry by entry on a tensor.
        scale: standard deviation of the pre-activation (mean 0). Plays no part for ReLU, LeakyReLU and linear ones.

    Returns:
        The dispersion, at least 0, to about six digits.

    Raises:
        InputError: for an unknown name, a scale that is not positive, an activation that cannot be differentiated, changes
            the shape, or whose derivative vanishes everywhere or is not finite.

    Example:
        >>> activation_dispersion("linear"), round(activation_dispersion("relu"), 9)
        (0.0, 1.0)
        >>> round(activation_dispersion(nn.LeakyReLU(0.5)), 6)
        0.36
    """
    if isinstance(activation, str):
        if activation not in NAMED_ACTIVATIONS:
            raise InputError(
                f"unknown activation {activation!r}: give one of {', '.join(NAMED_ACTIVATIONS)}, or a function."
            )
        activation = NAMED_ACTIVATIONS[activation]
    if not callable(activation):
        raise InputError(f"activation must be a name or a function, but is a {type(activation).__name__}.")
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"scale is a standard deviation and must be positive and finite, but is {scale!r}.")
    cell = 2 * REACH / CELLS
    normal = -REACH + cell * (torch.arange(CELLS, dtype=torch.float64) + 0.5)
    slope = _slope(activation, normal * scale)
    weight = torch.exp(-(normal**2) / 2)
    weight /= weight.sum()
    second, fourth = float((weight * slope**2).sum()), float((weight * slope**4).sum())
    if not (np.isfinite(fourth) and second > 0):
        raise InputError("the activation's derivative is zero everywhere or not finite: no gradient passes it.")
    return max(fourth / second**2 - 1.0, 0.0)


def _slope(activation: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        place = points.clone().requires_grad_()
        value = activation(place.clone())  # a copy, since some activations write to their input
        if not isinstance(value, Tensor) or value.shape != place.shape:
            raise InputError("the activation must give a tensor of the shape of its input, one entry for each.")
        if not value.requires_grad:
            raise InputError(
                "the activation cannot be differentiated: its output does not depend on its input for autograd."
            )
        return torch.autograd.grad(value.sum(), place)[0].detach()


def weight_dispersion(inputs: int, outputs: int) -> float:
    r"""Compute the dispersion of a matrix of independent Gaussian weights: :math:`v_W = N_{in}/N_{out}`.

    1 for a square one. Orthogonal square weights have 0. Source: second moment of the Marchenko-Pastur law for
    :math:`W^TW`, exact for wide layers up to order 1/width.

    Args:
        inputs: columns of the matrix, :math:`N_{in}`.
        outputs: rows, :math:`N_{out}`.

    Returns:
        The dispersion on the side of the layer's input.

    Raises:
        InputError: if a size is not positive.

    Example:
        >>> weight_dispersion(64, 256)
        0.25
    """
    if not (inputs > 0 and outputs > 0):
        raise InputError(f"a weight matrix needs at least one input and one output, but {inputs} and {outputs} came.")
    return inputs / outputs
