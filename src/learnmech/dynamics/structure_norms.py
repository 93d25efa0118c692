"""What normalisations do to scalings: they undo one factor for everything that they normalise together."""

from typing import Any

import torch
from torch import Tensor

from learnmech.dynamics.structure_flow import Flow
from learnmech.dynamics.structure_records import Step
from learnmech.dynamics.structure_rules import Rule, level


def batch_norm(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """With the statistics of the batch, each channel's factor goes; with stored statistics nothing may grow."""
    ids = flow.ids(step.argument(0, "input"))
    if step.argument(5, "training", False):
        _absorb(flow, level(flow, ids, [axis for axis in range(ids.ndim) if axis != 1]), step, 7, "BatchNorm")
    else:
        flow.forms.zero(ids)
    return _affine(flow, step, (3, 4), result, axis=1)


def instance_norm(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """Each channel of each sample by itself."""
    ids = flow.ids(step.argument(0, "input"))
    if step.argument(5, "use_input_stats", True):
        _absorb(flow, level(flow, ids, list(range(2, ids.ndim))), step, 7, "InstanceNorm")
    else:
        flow.forms.zero(ids)
    return _affine(flow, step, (3, 4), result, axis=1)


def group_norm(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """The channels of a group together."""
    ids = flow.ids(step.argument(0, "input"))
    grouped = ids.reshape(len(ids), step.argument(1, "num_groups"), -1)
    _absorb(flow, level(flow, grouped, [2]), step, 4, "GroupNorm")
    return _affine(flow, step, (2, 3), result, axis=1)


def layer_norm(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """The last axes together; RMSNorm too."""
    ids = flow.ids(step.argument(0, "input"))
    axes = len(tuple(step.argument(1, "normalized_shape")))
    place, name = (4, "LayerNorm") if step.name == "layer_norm" else (3, "RMSNorm")
    _absorb(flow, level(flow, ids, list(range(ids.ndim - axes, ids.ndim))), step, place, name)
    return _affine(flow, step, (2, 3) if step.name == "layer_norm" else (2,), result, axis=None)


def normalize(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """``functional.normalize`` along one axis."""
    ids = flow.ids(step.argument(0, "input"))
    axis = step.argument(2, "dim", 1)
    if not isinstance(axis, int):
        return None
    _absorb(flow, level(flow, ids, [axis % ids.ndim]), step, -1, "")
    return torch.zeros(result.shape, dtype=torch.int64)


def _absorb(flow: Flow, ids: Tensor, step: Step, place: int, name: str) -> None:
    flow.forms.separate(ids)
    flow.forms.tag(ids, "norm")
    if name:
        epsilon = step.argument(place, "eps", 1e-5) if place < len(step.arguments) else step.keywords.get("eps", 1e-5)
        if epsilon is None:
            epsilon = torch.finfo(torch.get_default_dtype()).eps
        if epsilon:
            flow.forms.tag(ids, f"eps={epsilon:g} of {name}")


def _affine(flow: Flow, step: Step, places: tuple[int, ...], result: Tensor, *, axis: int | None) -> Tensor:
    made = torch.zeros(result.shape, dtype=torch.int64)
    for place, name in zip(places, ("weight", "bias"), strict=False):
        tensor = step.argument(place, name)
        if tensor is None:
            continue
        ids = flow.ids(tensor)
        flow.forms.separate(ids)
        if axis is not None:
            ids = ids.reshape([-1 if place == axis else 1 for place in range(result.ndim)])
        if name == "weight":
            made = flow.forms.combine(made, ids)
        else:
            flow.forms.equate(made, ids)
            made = flow.forms.reduced(made)
    return made


NORM_RULES: dict[str, Rule] = {
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "group_norm": group_norm,
    "layer_norm": layer_norm,
    "rms_norm": layer_norm,
    "normalize": normalize,
}
"""Rules by name of function."""
