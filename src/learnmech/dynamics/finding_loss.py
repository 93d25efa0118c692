"""What a loss function does to outputs that are shifted: the classes of a cross-entropy, or tried on random numbers."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from learnmech.errors import InputError

LossChoice = str | nn.Module | Callable[..., Tensor] | None
"""``"cross_entropy"``, ``"mse"``, a loss of torch, or a function of the outputs alone that gives a scalar."""


def settle(loss: LossChoice) -> str | Callable[[Tensor], Tensor] | None:
    """Understand a loss.

    Args:
        loss: what the user gave.

    Returns:
        The word ``cross_entropy`` (classes along the last axis of the outputs); ``torch_cross_entropy`` (classes along axis 1,
        as torch has it), ``mse`` or ``other`` for the losses of torch; the function itself otherwise; None if none is given.

    Raises:
        InputError: if it is none of these.
    """
    function: Any = loss
    while isinstance(function, functools.partial):
        function = function.func
    if loss is None:
        return None
    if isinstance(loss, str) and loss in ("cross_entropy", "mse"):
        return loss
    if isinstance(function, nn.CrossEntropyLoss) or function is functional.cross_entropy:
        return "torch_cross_entropy"
    if isinstance(function, nn.MSELoss) or function is functional.mse_loss:
        return "mse"
    if isinstance(function, nn.Module) and type(function).__module__.startswith("torch.nn"):
        return "other"
    if getattr(function, "__module__", None) == functional.__name__:
        return "other"
    if not callable(loss):
        raise InputError(
            f'loss should be "cross_entropy", "mse", a loss of torch.nn, or a function of the outputs that gives a scalar, '
            f"got {loss!r}."
        )
    return loss


def call_loss(loss: Callable[[Tensor], Tensor], outputs: Any) -> Tensor:
    """Call a function of the outputs.

    Args:
        loss: the function.
        outputs: what the model returned.

    Returns:
        A scalar.

    Raises:
        InputError: if it fails or is no scalar.
    """
    try:
        value = loss(outputs)
    except Exception as error:
        raise InputError(
            f"loss(outputs) failed ({type(error).__name__}: {error}). Give a function of the outputs alone, such as lambda "
            'outputs: functional.cross_entropy(outputs, targets), or loss="cross_entropy".'
        ) from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        came = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"loss(outputs) must return a scalar tensor, but returned {came}.")
    return value.reshape(())


def ignores_shift(loss: str | Callable[[Tensor], Tensor] | None, outputs: Tensor, axis: int) -> bool:
    """Tell whether a loss is the same if all outputs along an axis are shifted alike, each sample by its own amount.

    Args:
        loss: as :func:`settle` gives it.
        outputs: the model's outputs.
        axis: the axis, from the end.

    Returns:
        Whether it is.
    """
    if loss == "cross_entropy":
        return axis == -1
    if loss == "torch_cross_entropy":
        return axis + outputs.ndim == (1 if outputs.ndim > 1 else 0)
    if loss is None or isinstance(loss, str):
        return False
    generator = torch.Generator().manual_seed(0)
    before = outputs.detach().clone()
    noise = torch.randn(before.shape, generator=generator).to(before)
    shift = torch.randn(before.shape, generator=generator).to(before).narrow(axis, 0, 1)
    with torch.no_grad():
        values = [
            (call_loss(loss, before + noise), call_loss(loss, before + noise + shift)) for noise in (0 * noise, noise)
        ]
        moved = call_loss(loss, before + 3 * noise)
    precision = 1e3 * torch.finfo(before.dtype).eps
    same = all(bool((one - other).abs() <= precision * (1 + one.abs())) for one, other in values)
    return same and bool(moved != values[0][0])
