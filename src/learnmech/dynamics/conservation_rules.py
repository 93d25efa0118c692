"""How an optimizer steps each parameter, read from its groups at every step, and for which optimizers the laws hold."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from learnmech.errors import InputError

Coverage = Literal["exact", "decoupled", "measured"]


@dataclass(frozen=True)
class Rule:
    """The settings with which one parameter is stepped.

    Attributes:
        rate: learning rate.
        momentum: b of SGD.
        weight_decay: coupled for SGD, decoupled for AdamW.
        dampening: of SGD's velocity.
        nesterov: whether SGD's momentum is Nesterov's.
        maximize: whether the gradient is climbed.
    """

    rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    maximize: bool = False

    @property
    def pull(self) -> float:
        """By which factor the gradient enters the step, after the first one."""
        if self.nesterov:
            return 1 + self.momentum
        return 1 - self.dampening if self.momentum != 0 else 1.0


def coverage_of(optimizer: Optimizer) -> Coverage:
    """Say which laws hold for an optimizer.

    Args:
        optimizer: the optimizer.

    Returns:
        ``exact`` for ``torch.optim.SGD`` and subclasses with the same ``step``; ``decoupled`` where weight decay shrinks the
        parameters beside the step (AdamW); ``measured`` for all others: nothing is predicted.
    """
    own = inspect.unwrap(type(optimizer).step)
    if isinstance(optimizer, torch.optim.SGD) and own is inspect.unwrap(torch.optim.SGD.step):
        return "exact"
    if isinstance(optimizer, torch.optim.AdamW):
        return "decoupled"
    groups = optimizer.param_groups
    return (
        "decoupled" if groups and all(group.get("decoupled_weight_decay") is True for group in groups) else "measured"
    )


def require_hooks(optimizer: Any) -> Optimizer:
    """Check that an optimizer can be followed.

    Args:
        optimizer: what came.

    Returns:
        The same.

    Raises:
        InputError: if it has no hooks for its steps.
    """
    if not hasattr(optimizer, "register_step_post_hook") or not hasattr(optimizer, "param_groups"):
        raise InputError(
            f"{type(optimizer).__name__} cannot be followed: a torch.optim.Optimizer with register_step_post_hook was expected. "
            "Give the optimizer itself, not a wrapper, a scheduler or the name of one."
        )
    found: Optimizer = optimizer
    return found


def rule_of(group: Mapping[str, Any]) -> Rule:
    """Read the settings of a parameter group as they are now.

    Args:
        group: one of ``optimizer.param_groups``.

    Returns:
        The rule.
    """

    def number(name: str, default: float) -> float:
        value = group.get(name, default)
        return float(value) if isinstance(value, int | float | Tensor) else default

    return Rule(
        rate=number("lr", 1.0),
        momentum=number("momentum", 0.0),
        weight_decay=number("weight_decay", 0.0),
        dampening=number("dampening", 0.0),
        nesterov=bool(group.get("nesterov", False)),
        maximize=bool(group.get("maximize", False)),
    )
