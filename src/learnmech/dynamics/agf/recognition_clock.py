"""From the time of a gradient flow to steps of an optimizer, and from half the mean squared error to the user's loss."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from learnmech.errors import InputError

_SAME = 1e-6


@dataclass(frozen=True)
class Clock:
    r"""How training counts time and loss.

    Attributes:
        loss_factor: the user's loss over half the mean squared error: 2 / c for ``MSELoss`` with c outputs.
        rate: time of the flow of half the mean squared error in one step, :math:`\eta f (1-d)/(1-b)` with learning rate, loss factor,
            dampening d and momentum b; NaN if no optimizer is known, or one for which there is no such number.
        optimizer: in words.
        exact: whether steps are those of a gradient flow up to their size: no weight decay, one rate, no preconditioner; None if not known.
    """

    loss_factor: float
    rate: float
    optimizer: str
    exact: bool | None


def read_loss(loss: Callable[[Tensor, Tensor], Tensor] | None, shape: tuple[int, ...]) -> float:
    """Measure how a loss compares with half the mean squared error.

    Args:
        loss: of outputs and targets; ``torch.nn.MSELoss()`` if None.
        shape: of the targets, samples first.

    Returns:
        The factor.

    Raises:
        InputError: if the loss is not a multiple of it.
    """
    loss = torch.nn.MSELoss() if loss is None else loss
    draws = torch.Generator().manual_seed(0)
    factors = []
    for size in (1.0, 3.0, 0.2):
        outputs, targets = (size * torch.randn(shape, generator=draws, dtype=torch.float64) for _ in range(2))
        half = (outputs - targets).square().sum() / (2 * shape[0])
        try:
            value = loss(outputs, targets)
        except Exception as error:
            raise InputError(
                f"the loss does not take outputs and targets of shape {shape}: {type(error).__name__}: {error}."
            ) from error
        factors.append(float(value) / float(half))
    middle = factors[0]
    if not (math.isfinite(middle) and middle > 0 and all(abs(one / middle - 1) < _SAME for one in factors)):
        raise InputError(
            "the theory is for squared losses: the loss must be a multiple of the squared error, such as torch.nn.MSELoss(); "
            "this one is not."
        )
    return middle


def read_optimizer(
    optimizer: Any, learning_rate: float | None, momentum: float, loss_factor: float
) -> tuple[float, str, bool | None]:
    """Read how far one step goes along the flow.

    Args:
        optimizer: of torch, or None.
        learning_rate: if there is no optimizer; None if it is not known.
        momentum: likewise.
        loss_factor: of the loss.

    Returns:
        Rate, words, and whether it is a gradient flow.

    Raises:
        InputError: for numbers out of range, or both ways of giving them.
    """
    if optimizer is None:
        if learning_rate is None:
            return math.nan, "not given: times are those of the flow", None
        if not (math.isfinite(learning_rate) and learning_rate > 0 and 0 <= momentum < 1):
            raise InputError(
                f"learning_rate must be positive and momentum in [0, 1), got {learning_rate!r} and {momentum!r}."
            )
        return learning_rate * loss_factor / (1 - momentum), f"SGD, lr {learning_rate:g}, momentum {momentum:g}", True
    if learning_rate is not None:
        raise InputError("give the optimizer or a learning rate, not both.")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}.")
    kind = type(optimizer).__name__
    if not isinstance(optimizer, torch.optim.SGD):
        return math.nan, f"{kind}: its steps follow no gradient flow, so only order and levels are predicted", False
    groups = optimizer.param_groups
    rates = {
        float(group["lr"])
        * (1 - (float(group["dampening"]) if group["momentum"] else 0.0))
        / (1 - float(group["momentum"]))
        for group in groups
    }
    decay = max(float(group["weight_decay"]) for group in groups)
    first = groups[0]
    words = f"SGD, lr {float(first['lr']):g}, momentum {float(first['momentum']):g}"
    if len(rates) > 1:
        return math.nan, f"{words} and other groups: rates differ, so no common clock", False
    words += f", weight decay {decay:g}" if decay else ""
    return rates.pop() * loss_factor, words, decay == 0 and not any(group["maximize"] for group in groups)
