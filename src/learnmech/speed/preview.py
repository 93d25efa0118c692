"""What an optimizer's next step would do, found on a copy of its state; optimizer and model stay as they are."""

import copy
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from learnmech.errors import InputError

_HOOKS = (
    "_optimizer_step_pre_hooks",
    "_optimizer_step_post_hooks",
    "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
)


def preview_step(
    optimizer: Optimizer,
    parameters: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    unused: Collection[str] = (),
) -> dict[str, Tensor]:
    r"""Find the displacement :math:`dw_k` of an optimizer's next step, momentum, scaling and weight decay included.

    The step is made on copies of the parameters and of the optimizer's state. Gradients are given as they are: clipping, or
    anything else that a training loop does between ``backward()`` and ``step()``, is not known here.

    Args:
        optimizer: any optimizer whose ``step()`` needs no closure.
        parameters: the model's parameters by name.
        gradients: dL/dw by name.
        unused: parameters that the loss does not depend on: they get no gradient, so that the optimizer skips them.

    Returns:
        Parameter name to displacement, for those parameters that the optimizer holds and that move.

    Raises:
        InputError: if the optimizer holds none of the parameters, or its step needs a closure or fails.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    names = [name for name, parameter in parameters.items() if id(parameter) in held]
    if not names:
        raise InputError(
            f"{type(optimizer).__name__} holds none of the model's {len(parameters)} parameters: give the optimizer that "
            "was made from this model's parameters (after moving the model to its device)."
        )
    twins: dict[str, Tensor] = {}
    memo: dict[int, Any] = {}
    for name in names:
        twin = nn.Parameter(parameters[name].detach().clone(), requires_grad=parameters[name].requires_grad)
        if twin.requires_grad and name in gradients and name not in unused:
            twin.grad = gradients[name].detach().clone().to(twin.dtype)
        memo[id(parameters[name])] = twins[name] = twin
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            memo.setdefault(id(parameter), parameter.detach().clone())  # of another model: it has no gradient here
    _step(_copy(optimizer, memo))
    moved = {name: twin.detach() - parameters[name].detach() for name, twin in twins.items()}
    return {name: displacement for name, displacement in moved.items() if bool((displacement != 0).any())}


def _copy(optimizer: Optimizer, memo: dict[int, Any]) -> Optimizer:
    """Copy everything an optimizer holds but its hooks, and a ``step`` that a scheduler has wrapped."""
    twin: Optimizer = object.__new__(type(optimizer))
    for key, value in vars(optimizer).items():
        if key in _HOOKS:
            twin.__dict__[key] = OrderedDict()
        elif key != "step":
            try:
                twin.__dict__[key] = copy.deepcopy(value, memo)
            except (TypeError, RuntimeError):  # handles, process groups: shared
                twin.__dict__[key] = value
    return twin


def _step(optimizer: Optimizer) -> None:
    step: Any = type(optimizer).step
    if getattr(step, "hooked", False):
        step = step.__wrapped__  # without hooks that were registered for all optimizers
    cuda = [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=cuda):
        try:
            step(optimizer)
        except TypeError as error:
            if "closure" not in str(error):
                raise
            raise InputError(
                f"the step of {type(optimizer).__name__} needs a closure, which evaluates the loss several times: it cannot "
                "be previewed. Give the displacements instead, a mapping of parameter name to (after - before)."
            ) from error
        except Exception as error:
            raise InputError(
                f"the step of {type(optimizer).__name__} failed on a copy of its state: {type(error).__name__}: {error}"
            ) from error
