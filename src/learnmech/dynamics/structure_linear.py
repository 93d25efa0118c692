"""What linear maps do to scalings: rows of a weight make fresh unknowns, columns undo what comes in."""

from typing import Any

import torch
from torch import Tensor

from learnmech.dynamics.structure_flow import Flow
from learnmech.dynamics.structure_records import Part, Step, Writer
from learnmech.dynamics.structure_rules import Rule, level


def apply_weight(flow: Flow, inputs: Tensor, weight: Part, bias: Tensor | None) -> Tensor:
    """Put values through a weight (outputs, inputs).

    Args:
        flow: the pass.
        inputs: forms (..., inputs).
        weight: the weight.
        bias: forms of the bias, or None.

    Returns:
        Forms (..., outputs).
    """
    columns = level(flow, inputs, list(range(inputs.ndim - 1))).reshape(-1)
    rows = flow.forms.fresh(weight.shape[0])
    flow.forms.refine(columns[None])
    flow.weigh(weight, rows, columns)
    if bias is not None:
        flow.forms.equate(bias, rows)
    return rows.expand(*inputs.shape[:-1], len(rows))


def embedding(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """Rows of a table: its columns make fresh unknowns."""
    part = flow.part(step.argument(1, "weight"))
    if part is None or part.order != (0, 1) or step.argument(3, "max_norm") is not None:
        return None
    made = flow.forms.fresh(part.shape[1])
    turned = Part(part.name, (part.shape[1], part.shape[0]), (1, 0), part.dimension, part.start, part.stop)
    flow.weigh(turned, made, torch.zeros(part.shape[0], dtype=torch.int64))
    return made.expand(result.shape)


def convolution(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """``conv1d``, ``conv2d``, ``conv3d``, also grouped: a channel is a unit."""
    weight, bias, groups = step.argument(1, "weight"), step.argument(2, "bias"), step.argument(6, "groups", 1)
    part = flow.part(weight)
    if part is None or part.order != tuple(range(len(part.shape))) or part.stop is not None:
        return None
    columns = _channels(flow, flow.ids(step.argument(0, "input")), len(part.shape) - 2)
    rows = flow.forms.fresh(part.shape[0], blocks=groups)  # units of different groups read different channels
    flow.forms.refine(columns.reshape(groups, -1))
    flow.weigh(part, rows, columns, groups=groups)
    return _finish(flow, rows, bias, result, len(part.shape) - 2)


def convolution_backwards(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """``conv_transpose1d`` and its kin, not grouped."""
    weight, bias = step.argument(1, "weight"), step.argument(2, "bias")
    part = flow.part(weight)
    if part is None or part.order != tuple(range(len(part.shape))) or step.argument(6, "groups", 1) != 1:
        return None
    columns = _channels(flow, flow.ids(step.argument(0, "input")), len(part.shape) - 2)
    rows = flow.forms.fresh(part.shape[1])
    flow.forms.refine(columns[None])
    turned = Part(part.name, (part.shape[1], part.shape[0], *part.shape[2:]), (1, 0, *part.order[2:]))
    flow.weigh(turned, rows, columns)
    return _finish(flow, rows, bias, result, len(part.shape) - 2)


def writer_of(flow: Flow, step: Step) -> Writer | None:
    """Say which linear map an operation is, if its result is the weight's rows plus the bias and nothing else.

    Args:
        flow: the pass.
        step: the operation.

    Returns:
        The linear map, or None.
    """
    places = {
        "linear": (1, 2, False, -1),
        "addmm": (2, 0, True, -1),
        "multi_head_attention_forward": (11, 12, False, -1),
        **{f"conv{size}d": (1, 2, False, -1 - size) for size in (1, 2, 3)},
    }
    if step.name == "embedding":
        table = flow.part(step.argument(1, "weight"))
        return Writer(table and transposed(table), None, -1)
    if step.name not in places:
        return None
    weight_place, bias_place, turn, axis = places[step.name]
    weight_name, bias_name = (
        ("out_proj_weight", "out_proj_bias") if weight_place == 11 else ("weight", "bias" if not turn else "input")
    )
    weight, bias = step.argument(weight_place, weight_name), step.argument(bias_place, bias_name)
    part = flow.part(weight)
    return Writer(part and (transposed(part) if turn else part), flow.part(bias), axis)


def _channels(flow: Flow, ids: Tensor, spatial: int) -> Tensor:
    axis = ids.ndim - 1 - spatial
    return level(flow, ids, [place for place in range(ids.ndim) if place != axis]).reshape(-1)


def _finish(flow: Flow, rows: Tensor, bias: Any, result: Tensor, spatial: int) -> Tensor:
    if bias is not None:
        flow.forms.equate(flow.ids(bias), rows)
    return rows.reshape(-1, *[1] * spatial).expand(result.shape)


def transposed(part: Part) -> Part:
    """Swap the two axes of a weight."""
    return Part(part.name, part.shape[::-1], part.order[::-1], part.dimension, part.start, part.stop)


LINEAR_RULES: dict[str, Rule] = {
    "embedding": embedding,
    **dict.fromkeys(["conv1d", "conv2d", "conv3d"], convolution),
    **dict.fromkeys(["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"], convolution_backwards),
}
"""Rules by name of function."""
