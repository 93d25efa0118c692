"""What an optimizer's next step would do, found on a copy of its state; optimizer and model stay as they are."""

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from learnmech.errors import InputError
from learnmech.speed.products import any_nonzero

_HOOKS = (
    "_optimizer_step_pre_hooks",
    "_optimizer_step_post_hooks",
    "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
)

_PART = 1 << 20
"""Entries of parameters whose step is made at a time."""


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
    moved: dict[str, Tensor] = {}
    scratch = _Scratch()
    used = {name: gradients[name] for name in names if name in gradients and name not in unused}
    for part in _parts(optimizer, {name: parameters[name] for name in names}):
        moved |= _preview_part(optimizer, part, used, scratch)
    return {name: displacement for name, displacement in moved.items() if any_nonzero(displacement)}


def _is_plain(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer is one of torch's, which treat every parameter alone."""
    return type(optimizer).__module__.startswith("torch.optim.")


def _parts(optimizer: Optimizer, parameters: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Cut the parameters into parts, to need less memory, where they do not act on one another."""
    if not _is_plain(optimizer):
        return [dict(parameters)]
    parts: list[dict[str, Tensor]] = [{}]
    entries = 0
    for name, parameter in parameters.items():
        if entries > _PART:
            parts.append({})
            entries = 0
        parts[-1][name] = parameter
        entries += parameter.numel()
    return parts


class _Scratch:
    """Memory for copies that live until the next part: to touch fresh memory would cost more than to compute in it."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self._used: dict[tuple[torch.device, torch.dtype], int] = {}

    def restart(self) -> None:
        self._used.clear()

    def copy(self, tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        if tensor.layout != torch.strided or not tensor.is_contiguous():
            return tensor.clone()
        key = tensor.device, tensor.dtype
        block, start = self._blocks.get(key), self._used.get(key, 0)
        if block is None or start + tensor.numel() > block.numel():  # copies in the block before keep it alive
            size = max(tensor.numel(), _PART if block is None else 2 * block.numel())
            block, start = tensor.new_empty(size), 0
            self._blocks[key] = block
        self._used[key] = start + -(-tensor.numel() // 64) * 64
        return block[start : start + tensor.numel()].view(tensor.shape).copy_(tensor)


def _preview_part(
    optimizer: Optimizer, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor], scratch: _Scratch
) -> dict[str, Tensor]:
    scratch.restart()
    twins: dict[str, Tensor] = {}
    memo: dict[int, Any] = {}
    for name, parameter in parameters.items():
        twin = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
        if twin.requires_grad and name in gradients:
            gradient = scratch.copy(gradients[name]).to(twin.dtype)
            # This one takes no others; in zeros of a dense gradient it would decay moments that it leaves alone.
            twin.grad = gradient.to_sparse(1) if isinstance(optimizer, torch.optim.SparseAdam) else gradient
        memo[id(parameter)] = twins[name] = twin
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor):
                memo[id(value)] = scratch.copy(value)
    if _is_plain(optimizer):
        optimizer = _restricted(optimizer, set(memo))
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            memo.setdefault(id(parameter), parameter.detach().clone())  # of another model: it has no gradient here
    _step(copy_optimizer(optimizer, memo))
    return {name: twin.detach().sub_(parameters[name].detach()) for name, twin in twins.items()}


def _restricted(optimizer: Optimizer, kept: Collection[int]) -> Optimizer:
    """Make a view of an optimizer that holds fewer parameters, given by identity."""
    view: Optimizer = object.__new__(type(optimizer))
    view.__dict__.update(vars(optimizer))
    groups = [
        {**group, "params": [parameter for parameter in group["params"] if id(parameter) in kept]}
        for group in optimizer.param_groups
    ]
    view.param_groups = [group for group in groups if group["params"]]
    view.state = defaultdict(dict, {key: value for key, value in optimizer.state.items() if id(key) in kept})
    return view


def copy_optimizer(optimizer: Optimizer, memo: dict[int, Any]) -> Optimizer:
    """Copy everything an optimizer holds but its hooks, and a ``step`` that a scheduler has wrapped.

    Args:
        optimizer: the optimizer.
        memo: of ``copy.deepcopy``: identity of each parameter to the tensor that the copy shall hold.

    Returns:
        The copy.
    """
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
