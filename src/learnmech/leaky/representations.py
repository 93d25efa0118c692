"""What the energies share: checked representations, ridges and effective depths, and the activations sigma(A)."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from learnmech.errors import InputError

Ridges = float | Sequence[float] | Tensor
"""One ridge, or several along one dimension."""


def require_representations(name: str, values: Tensor) -> Float[Tensor, "*batch width samples"]:
    """Check matrices whose columns are samples, and convert them to float64; gradients pass.

    Args:
        name: what the message calls them.
        values: real numbers (..., width, samples). Integers are converted, too.

    Returns:
        The same in float64, on the same device (on the CPU where the device has no float64).

    Raises:
        InputError: for anything but a tensor, fewer than two dimensions, no entries, complex, boolean, NaN or infinite
            ones.
    """
    if not isinstance(values, Tensor):
        raise InputError(f"{name} must be a tensor (..., width, samples), but is a {type(values).__name__}.")
    if values.ndim < 2 or values.numel() == 0:
        raise InputError(
            f"{name} must have the shape (..., width, samples), columns being samples, with at least one entry, but has the "
            f"shape {tuple(values.shape)}." + (" Give one neuron as (1, samples)." if values.ndim == 1 else "")
        )
    if values.is_complex() or values.dtype == torch.bool:
        raise InputError(f"{name} must hold real numbers, but is {values.dtype}.")
    if values.device.type == "mps":
        values = values.cpu()
    values = values.to(torch.float64)
    if not bool(torch.isfinite(values).all()):
        raise InputError(f"{name} holds {int((~torch.isfinite(values)).sum())} NaN or infinite entries.")
    return values


def require_like(name: str, values: Tensor, representation: Tensor) -> Float[Tensor, "*batch width samples"]:
    """Check velocities or momenta that belong to a representation.

    Args:
        name: what the message calls them.
        values: real numbers.
        representation: what :func:`require_representations` gave.

    Returns:
        The values in float64, on the device of the representation.

    Raises:
        InputError: if the shape is another, or :func:`require_representations` refuses them.
    """
    checked = require_representations(name, values)
    if checked.shape != representation.shape:
        raise InputError(
            f"{name} must have the shape of the representation, {tuple(representation.shape)}, but has {tuple(values.shape)}."
        )
    return checked.to(representation.device)


def require_effective_depth(effective_depth: float) -> float:
    """Check an effective depth.

    Args:
        effective_depth: the number.

    Returns:
        It.

    Raises:
        InputError: if it is not a positive finite number.
    """
    try:
        depth = float(effective_depth)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"effective_depth must be one number, but is {effective_depth!r}.") from error
    if not (math.isfinite(depth) and depth > 0):
        raise InputError(f"effective_depth must be positive and finite, but is {depth!r}.")
    return depth


def require_ridges(ridge: Ridges) -> tuple[Float[Tensor, " ridges"], bool]:
    """Check one ridge or several.

    Args:
        ridge: a number, or numbers in one dimension.

    Returns:
        All ridges in float64, and whether one number was given.

    Raises:
        InputError: if there is none, or one is negative, NaN or infinite.
    """
    try:
        ridges = torch.as_tensor(ridge, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"ridge must be a number or a sequence of numbers, but is {ridge!r}.") from error
    if ridges.ndim > 1 or ridges.numel() == 0:
        raise InputError(f"ridge must be a number or a sequence of numbers, but has the shape {tuple(ridges.shape)}.")
    if not bool(((ridges >= 0) & ridges.isfinite()).all()):
        raise InputError(f"ridges must be finite and at least 0, but {ridges.tolist()} came.")
    return ridges.reshape(-1), ridges.ndim == 0


def require_steps(steps: Tensor, layers: int) -> Float[Tensor, " layers"]:
    """Check step sizes.

    Args:
        steps: positive numbers that add up to 1.
        layers: how many there must be.

    Returns:
        The steps in float64.

    Raises:
        InputError: if they are not.
    """
    if not isinstance(steps, Tensor) or tuple(steps.shape) != (layers,) or steps.is_complex():
        came = tuple(steps.shape) if isinstance(steps, Tensor) else type(steps).__name__
        raise InputError(f"steps must be a tensor of {layers} step sizes, one a layer, but {came} came.")
    sizes = steps.detach().to(torch.float64)
    total = float(sizes.sum())
    if not bool((sizes > 0).all()) or not abs(total - 1) <= 1e-6:
        raise InputError(
            f"step sizes must be positive and add up to 1, but the least is {float(sizes.min()):g} and the sum {total:g}."
        )
    return sizes


def activated(
    representation: Float[Tensor, "*batch width samples"], *, bias: bool
) -> Float[Tensor, "*batch rows samples"]:
    r"""Compute :math:`\sigma(A) = [\max(A, 0); 1^T]`, or :math:`\max(A, 0)` without bias.

    Args:
        representation: A, checked.
        bias: whether a row of ones is appended.

    Returns:
        The activations, with width + bias rows.
    """
    active = representation.clamp(min=0)
    return torch.cat([active, torch.ones_like(active[..., :1, :])], dim=-2) if bias else active


def times_kernel(
    values: Float[Tensor, "*batch rows samples"],
    left: Float[Tensor, "*batch neurons samples"],
    right: Float[Tensor, "*batch neurons samples"] | None = None,
) -> Float[Tensor, "*batch rows samples"]:
    r"""Compute :math:`M\,S^T S'` in the cheaper order: no samples x samples matrix appears where samples outnumber rows.

    Args:
        values: M.
        left: S.
        right: S', S by default.

    Returns:
        The product.
    """
    right = left if right is None else right
    if values.shape[-1] >= values.shape[-2]:
        return (values @ left.mT) @ right
    return values @ (left.mT @ right)


def same_shape(name: str, values: Shaped[Tensor, "..."], shape: tuple[int, ...]) -> None:
    """Refuse a tensor of another shape.

    Args:
        name: what the message calls it.
        values: the tensor.
        shape: what it must have.

    Raises:
        InputError: if the shape is another.
    """
    if tuple(values.shape) != shape:
        raise InputError(f"{name} must have the shape {shape}, but has {tuple(values.shape)}.")
