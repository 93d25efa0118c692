"""What really happens in one forward pass: the tree of module calls."""

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from learnmech.errors import InputError
from learnmech.monitor.probe import Probe, call_model
from learnmech.monitor.tensors import describe_tensors, first_floating, tensors_in
from learnmech.monitor.untouched import untouched
from learnmech.monitor.unwrap import eager_modules

TRACED_SAMPLES = 7
"""How many samples the recording pass uses: few, and a number that widths and lengths seldom have."""


CHECKPOINT_WARNING = "None of the inputs have requires_grad=True"
"""What a re-entrant checkpoint warns of when it is given nothing to differentiate, as in a pass without gradients."""


@dataclass
class Call:
    """One call of one module during a forward pass.

    Attributes:
        name: the module's name in the model; empty for the model itself.
        index: which call of this module it is, from 0.
        module: the module.
        children: the calls made inside this one, in order.
        inputs: shape of the first floating input, or None.
        output: shape of the first floating output, or None.
        source: identity of the memory of the first floating input, to follow the flow of data through views.
        result: the same of the first floating output; ``results`` of all of them.
    """

    name: str
    index: int
    module: nn.Module
    children: list["Call"] = field(default_factory=list)
    inputs: tuple[int, ...] | None = None
    output: tuple[int, ...] | None = None
    source: tuple[int, int] | None = None
    result: tuple[int, int] | None = None
    results: tuple[tuple[int, int], ...] = ()

    @property
    def label(self) -> str:
        """The module's name, with the number of the call if it is not the first."""
        name = self.name or "model"
        return name if self.index == 0 else f"{name}#{self.index + 1}"

    @property
    def kind(self) -> str:
        """The module's class."""
        return type(self.module).__name__

    @property
    def leaf(self) -> bool:
        """Whether the module has no sub-modules."""
        return next(self.module.children(), None) is None

    @property
    def sequential(self) -> bool:
        """Whether the call did nothing but run its children one after the other."""
        return isinstance(self.module, nn.Sequential) and type(self.module).forward is nn.Sequential.forward


def walk(call: Call) -> Iterator[Call]:
    """Go through a call and all calls inside it, outermost first.

    Args:
        call: where to begin.

    Yields:
        Calls.
    """
    yield call
    for child in call.children:
        yield from walk(child)


def _identity(tensor: Tensor) -> tuple[int, int]:
    """Name the memory of a tensor, so that a view of all of it (a reshape, a transpose) counts as the same."""
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        return id(tensor), 0
    return tensor.untyped_storage().data_ptr(), tensor.numel()


def record_calls(model: nn.Module, probe: Probe, device: torch.device) -> tuple[Call, bool]:
    """Run the model once on the first samples of the probe and record the tree of calls.

    Args:
        model: the eager model.
        probe: the probe; a few samples of it are used.
        device: where the model lives.

    Returns:
        The call of the model, with all calls inside; and whether parts of it run under re-entrant activation checkpoints.

    Raises:
        InputError: if the model cannot run on the probe.
    """
    names = {module: name for name, module in eager_modules(model).items()}
    counts: Counter[nn.Module] = Counter()
    root = Call("", 0, model)
    stack: list[Call] = []
    kept: list[Tensor] = []  # tensors must live until the pass is over, or identities could be reused

    def remember(value: Any) -> tuple[tuple[int, ...] | None, tuple[int, int] | None]:
        found = first_floating(value)
        if found is None:
            return None, None
        kept.append(found[1])
        return tuple(found[1].shape), _identity(found[1])

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        if module is model and not stack:
            call = root
        else:
            call = Call(names[module], counts[module], module)
            stack[-1].children.append(call)
        counts[module] += 1
        call.inputs, call.source = remember((args, kwargs))
        stack.append(call)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        call = stack.pop()
        call.output, call.result = remember(output)
        call.results = tuple(_identity(tensor) for _, tensor in tensors_in(output) if tensor.is_floating_point())

    with untouched(model, device), torch.no_grad(), contextlib.ExitStack() as hooks:
        inputs, _, _ = probe.chunk(0, min(TRACED_SAMPLES, probe.samples), device)
        for module in names:
            hooks.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        seen = hooks.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        try:
            call_model(model, inputs)
        except Exception as error:
            raise InputError(
                f"{type(model).__name__} cannot run on the probe's inputs ({describe_tensors(inputs)}): "
                f"{type(error).__name__}: {error}"
            ) from error
    return root, any(CHECKPOINT_WARNING in str(warning.message) for warning in seen)


def input_is_floating(probe: Probe) -> bool:
    """Tell whether the model's input can itself be read as features.

    Args:
        probe: the probe.

    Returns:
        Whether its first tensor holds real numbers.
    """
    first = next((tensor for _, tensor in tensors_in(probe.inputs)), None)
    return first is not None and first.is_floating_point()
