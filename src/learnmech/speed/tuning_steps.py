"""The step of an optimizer per unit of learning rate, parameter by parameter."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from learnmech.errors import InputError
from learnmech.speed.preview import preview_step

OptimizerChoice = str | Optimizer | Callable[..., Optimizer]
_NAMES: dict[str, type[Optimizer]] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
_NONLINEAR = 0.01


def optimizer_builder(choice: OptimizerChoice) -> Callable[..., Optimizer] | None:
    """Find what builds the optimizer.

    Args:
        choice: ``sgd``, ``adam``, ``adamw``, a class of optimizers or another callable ``(parameters, lr=...)``, or an
            optimizer.

    Returns:
        The builder; None for an optimizer.

    Raises:
        InputError: for anything else.
    """
    if isinstance(choice, Optimizer):
        return None
    if isinstance(choice, str) and choice.lower() in _NAMES:
        return _NAMES[choice.lower()]
    if isinstance(choice, str) or not callable(choice):
        raise InputError(
            f"optimizer must be one of {', '.join(map(repr, _NAMES))}, a class such as torch.optim.SGD, or the optimizer of "
            f"this model, but {choice!r} came."
        )
    return choice


def describe_builder(builder: Callable[..., Optimizer]) -> str:
    """Name an optimizer's class.

    Args:
        builder: the class, or a partial of it.

    Returns:
        The name.
    """
    while isinstance(builder, functools.partial):
        builder = builder.func
    return getattr(builder, "__name__", repr(builder))


def build_with(builder: Callable[..., Optimizer], groups: Sequence[Any]) -> Optimizer:
    """Build an optimizer.

    Args:
        builder: its class.
        groups: parameters, or groups of them with learning rates.

    Returns:
        The optimizer.

    Raises:
        InputError: if that fails.
    """
    try:
        optimizer = builder(groups, lr=1.0)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{describe_builder(builder)} could not be built from parameters and lr: {error}. Give the optimizer itself."
        ) from error
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"optimizer built a {type(optimizer).__name__}, which is no torch.optim.Optimizer.")
    return optimizer


class UnitSteps:
    r"""Finds :math:`-u_k`, the step of every parameter for a learning rate of one, of an optimizer in its present state.

    The step must be proportional to the learning rate, as it is for gradient descent, momentum, Adam and their decoupled or
    coupled weight decay. It is previewed with learning rates so large that each parameter moves by its own size, because
    rounding would spoil a small step, and once with others, to see whether it is proportional.

    Args:
        optimizer: the optimizer; it is not changed.
        parameters: the model's parameters by name.

    Raises:
        InputError: if it holds none of them, or no learning rate.
    """

    def __init__(self, optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> None:
        names = {id(parameter): name for name, parameter in parameters.items()}
        self._optimizer, self._parameters = optimizer, parameters
        self._groups = {
            names[id(parameter)]: group
            for group in optimizer.param_groups
            for parameter in group["params"]
            if id(parameter) in names
        }
        if not self._groups:
            raise InputError(
                f"{type(optimizer).__name__} holds none of the model's {len(parameters)} parameters: give the optimizer that "
                "was made from this model's parameters (after moving the model to its device)."
            )
        if any("lr" not in group for group in self._groups.values()):
            raise InputError(f"{type(optimizer).__name__} has no learning rate 'lr' that could be tuned.")
        self._rates: dict[str, float] = {}

    @property
    def names(self) -> list[str]:
        """Names of the parameters that the optimizer holds and that are trained, in the order of the model."""
        return [name for name, p in self._parameters.items() if name in self._groups and p.requires_grad]

    def find(self, gradients: Mapping[str, Tensor], unused: Collection[str] = ()) -> dict[str, Tensor]:
        """Find the steps.

        Args:
            gradients: dL/dw by name.
            unused: parameters that the loss does not depend on.

        Returns:
            Parameter name to step per unit of learning rate, for those that move.

        Raises:
            InputError: if the step cannot be previewed, or is not proportional to the learning rate.
        """
        sizes = {name: _norm(self._parameters[name]) or 1.0 for name in self.names}
        if not self._rates:
            first = {
                name: sizes[name] / (_norm(gradients[name]) or sizes[name]) for name in self.names if name in gradients
            }
            steps = self._preview(first, gradients, unused)
            self._rates = {
                name: rate * sizes[name] / _norm(steps[name]) if name in steps else rate for name, rate in first.items()
            }
            found = self._preview(self._rates, gradients, unused)
            self._require_proportional(first, steps, found, sizes)
        else:
            found = self._preview(self._rates, gradients, unused)
        return {name: step / self._rates[name] for name, step in found.items()}

    def _preview(
        self, rates: Mapping[str, float], gradients: Mapping[str, Tensor], unused: Collection[str]
    ) -> dict[str, Tensor]:
        twin: Optimizer = object.__new__(type(self._optimizer))
        twin.__dict__.update(vars(self._optimizer))
        twin.param_groups = [
            {**options_of(self._groups[name]), "params": [self._parameters[name]], "lr": rate_like(group["lr"], rate)}
            for name, rate in rates.items()
            for group in [self._groups[name]]
        ]
        return preview_step(twin, self._parameters, gradients, unused)

    def _require_proportional(
        self,
        rates: Mapping[str, float],
        steps: Mapping[str, Tensor],
        found: Mapping[str, Tensor],
        sizes: Mapping[str, float],
    ) -> None:
        for name, step in found.items():
            if name not in steps:
                continue
            expected = steps[name].double() * (self._rates[name] / rates[name])
            rounding = torch.finfo(step.dtype).eps * sizes[name] * self._rates[name] / rates[name]
            allowed = _NONLINEAR * _norm(step) + 10 * rounding
            if not _norm(expected - step.double()) <= allowed:
                raise InputError(
                    f"the step of {type(self._optimizer).__name__} is not proportional to its learning rate (seen at {name}), "
                    "so that learning rates cannot be solved for. Tune gradient descent or Adam, or give another optimizer."
                )


def options_of(group: Mapping[str, Any]) -> dict[str, Any]:
    """Give the settings of a group of an optimizer.

    Args:
        group: the group.

    Returns:
        All of it but its parameters, their names, its learning rate and its own name.
    """
    return {key: value for key, value in group.items() if key not in ("params", "param_names", "lr", "name")}


def rate_like(before: Any, rate: float) -> Any:
    """Give a learning rate in the form that a group has it.

    Args:
        before: the learning rate of the group, a number or a tensor.
        rate: the new one.

    Returns:
        The new one, a tensor if the other is.
    """
    return torch.full_like(before, rate) if isinstance(before, Tensor) else rate


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64))
