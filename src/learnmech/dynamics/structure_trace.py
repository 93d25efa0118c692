"""One forward pass, seen operation by operation, whatever Python made it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from learnmech.dynamics.structure_attention import PRODUCT_RULES
from learnmech.dynamics.structure_flow import Flow
from learnmech.dynamics.structure_linear import LINEAR_RULES, writer_of
from learnmech.dynamics.structure_names import LINEAR, SAME, STRUCTURAL
from learnmech.dynamics.structure_norms import NORM_RULES
from learnmech.dynamics.structure_records import Part, Step
from learnmech.dynamics.structure_rules import BASIC_RULES, Rule, elementwise
from learnmech.errors import InputError
from learnmech.monitor.layers import device_of
from learnmech.monitor.tensors import describe_tensors, tensors_in
from learnmech.monitor.untouched import untouched

RULES: dict[str, Rule] = {**BASIC_RULES, **LINEAR_RULES, **PRODUCT_RULES, **NORM_RULES}
_READERS = frozenset(
    [
        "item",
        "tolist",
        "numpy",
        "__array__",
        "__bool__",
        "__float__",
        "__int__",
        "__index__",
        "is_nonzero",
        "equal",
        "allclose",
        "__contains__",
        "data",
        "detach",
    ]
)
_WRITERS = frozenset(["__setitem__"])


class _Recorder(TorchFunctionMode):
    """Passes every call of a torch function on, and tells the flow."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        keywords = dict(kwargs or {})
        given = [tensor for _, tensor in tensors_in((args, keywords))]
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = getattr(func.__self__, "__name__", "")
        in_place = name in _WRITERS or bool(keywords.get("inplace")) or keywords.get("out") is not None
        if name.endswith("_") and not name.endswith("__"):
            name, in_place = name[:-1], True
        elif name.startswith("__i") and name not in ("__invert__", "__index__", "__int__", "__iter__"):
            in_place = True
        step = Step(name, args, keywords, [key for tensor in given if (key := self.flow.key(tensor)) is not None])
        result = func(*args, **keywords)
        made = [tensor for _, tensor in tensors_in(result)]
        if given and (made or name in _READERS or name in _WRITERS):
            self._follow(step, func, given, result, made, in_place=in_place)
        return result

    def _follow(
        self, step: Step, function: Any, given: list[Tensor], result: Any, made: list[Tensor], *, in_place: bool
    ) -> None:
        flow = self.flow
        if step.name in _WRITERS:
            made = [given[0]]
        part = self._part(step, made)
        if part is not None and not in_place:
            for tensor, piece in zip(made, part, strict=True):
                flow.record(tensor, None, part=piece)
            return
        in_place = in_place or any(tensor is other for tensor in made for other in given)
        writer = writer_of(flow, step)
        forms = self._forms(step, function, given, result, made)
        keys = [
            flow.record(tensor, ids, in_place=in_place and any(tensor is other for other in given))
            for tensor, ids in zip(made, forms, strict=True)
        ]
        step.results = keys
        step.shape = tuple(made[0].shape) if made else ()
        flow.steps.append(step)
        if writer is not None:
            flow.writers[keys[0]] = writer

    def _forms(
        self, step: Step, function: Any, given: list[Tensor], result: Any, made: list[Tensor]
    ) -> list[Tensor | None]:
        flow = self.flow
        known = step.name not in _READERS | _WRITERS and step.keywords.get("out") is None
        if known and torch.is_grad_enabled():
            try:
                found = RULES.get(step.name, elementwise)(flow, step, function, result)
            except Exception:
                found = None
            if found is not None:
                forms = [found] if isinstance(found, Tensor) else list(found)
                return [*forms, *[None] * (len(made) - len(forms))]
        for tensor in given:
            if tensor.is_floating_point() or tensor.is_complex():
                flow.forms.zero(flow.ids(tensor))
        return [None] * len(made)

    def _part(self, step: Step, made: list[Tensor]) -> list[Part] | None:
        """Follow a parameter as long as it is only sliced, transposed or multiplied by a number."""
        part = self.flow.part(step.arguments[0]) if step.arguments else None
        if part is None or not made:
            return None
        if step.name in STRUCTURAL and step.name not in ("contiguous", "clone"):
            found = [self.flow.part_of_view(part, tensor) for tensor in made]
            return None if any(piece is None for piece in found) else [piece for piece in found if piece is not None]
        scaled = step.name in ("mul", "div", "__truediv__") and isinstance(step.argument(1, "other"), float | int)
        if len(part.shape) > 1 and (scaled or step.name in SAME | LINEAR | {"contiguous", "clone"}):
            return [part]
        return None


def trace(model: nn.Module, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[Flow, list[Tensor], set[int]]:
    """Run a model once, as it is (its train/eval flags matter), and follow scalings through every operation.

    Args:
        model: the eager model; left as it was.
        arguments: positional and keyword arguments of its call.

    Returns:
        The flow; the outputs; their keys.

    Raises:
        InputError: if the model cannot run on the inputs, or returns no tensor.
    """
    flow = Flow(model)
    with untouched(model, device_of(model), evaluate=False), torch.enable_grad():
        try:
            with _Recorder(flow):
                result = model(*arguments[0], **arguments[1])
        except Exception as error:
            raise InputError(
                f"{type(model).__name__} cannot run on the inputs ({describe_tensors(arguments)}): "
                f"{type(error).__name__}: {error}"
            ) from error
        outputs = [tensor for _, tensor in tensors_in(result)]
        if not outputs:
            raise InputError(f"{type(model).__name__} returned no tensor but {type(result).__name__}.")
        keys = flow.close(outputs)
    return flow, outputs, keys
