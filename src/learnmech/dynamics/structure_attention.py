"""What products of values do to scalings: attention, and linear maps written as matrix products."""

from typing import Any

import torch
from torch import Tensor

from learnmech.dynamics.structure_flow import Flow
from learnmech.dynamics.structure_linear import apply_weight, transposed
from learnmech.dynamics.structure_records import Part, Step
from learnmech.dynamics.structure_rules import Rule, level


def linear(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """``linear(x, W, b)``."""
    inputs, weight, bias = (step.argument(place, name) for place, name in enumerate(("input", "weight", "bias")))
    part = flow.part(weight)
    if part is None or len(part.shape) != 2:
        if bias is not None:
            return None
        return contract(flow, flow.ids(inputs), flow.ids(weight).mT, weight)
    return apply_weight(flow, flow.ids(inputs), part, None if bias is None else flow.ids(bias))


def matmul(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """``a @ b``, where one may be a parameter."""
    left, right = step.argument(0, "input"), step.argument(1, "other", step.keywords.get("mat2"))
    if step.name == "__rmatmul__":
        left, right = right, left
    weight = flow.part(right)
    if weight is not None and len(weight.shape) == 2 and flow.part(left) is None:
        return apply_weight(flow, flow.ids(left), transposed(weight), None)
    weight = flow.part(left)
    if weight is not None and len(weight.shape) == 2 and right.ndim >= 2 and flow.part(right) is None:
        return apply_weight(flow, flow.ids(right).mT, weight, None).mT
    if left.ndim < 2 or right.ndim < 2:
        return None
    return contract(flow, flow.ids(left), flow.ids(right), left)


def addmm(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """``addmm(b, x, W)``."""
    bias, inputs, weight = step.argument(0, "input"), step.argument(1, "mat1"), step.argument(2, "mat2")
    part = flow.part(weight)
    if part is None or step.keywords.get("beta", 1) != 1 or step.keywords.get("alpha", 1) != 1:
        return None
    return apply_weight(flow, flow.ids(inputs), transposed(part), flow.ids(bias))


def einsum(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """``einsum`` of two operands, each letter at most once in each: a product of matrices, or a linear map."""
    equation, operands = step.arguments[0], step.arguments[1:]
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or len(operands) != 2 or "->" not in equation or "." in equation:
        return None
    inputs, output = equation.replace(" ", "").split("->")
    one, other = inputs.split(",")
    left, right = operands
    if flow.part(left) is not None:
        one, other, left, right = other, one, right, left
    both = [letter for letter in one if letter in other]
    batch = [letter for letter in both if letter in output]
    inner = [letter for letter in both if letter not in output]
    first = [letter for letter in one if letter not in both]
    last = [letter for letter in other if letter not in both]
    if (
        not set(first + last) <= set(output)
        or not inner
        or any(len(set(word)) < len(word) for word in (one, other, output))
    ):
        return None
    ids = flow.ids(left).permute([one.index(letter) for letter in [*batch, *first, *inner]])
    lengths = dict(zip(one, left.shape, strict=True)) | dict(zip(other, right.shape, strict=True))
    part = flow.part(right)
    if part is not None and not batch and len(inner) == len(last) == 1:
        weight = part if other[0] == last[0] else transposed(part)
        made = apply_weight(flow, ids, weight, None)
    else:
        values = flow.ids(right).permute([other.index(letter) for letter in [*batch, *inner, *last]])
        outer = [lengths[letter] for letter in batch]
        made = contract(flow, _flat(ids, len(batch), len(first)), _flat(values, len(batch), len(inner)), left).reshape(
            *outer, *[lengths[letter] for letter in [*first, *last]]
        )
    order = [*batch, *first, *last]
    return made.permute([order.index(letter) for letter in output])


def contract(flow: Flow, left: Tensor, right: Tensor, gate: Tensor) -> Tensor:
    """Multiply matrices of values.

    Args:
        flow: the pass.
        left: forms (..., i, k).
        right: forms (..., k, j).
        gate: what ``left`` are the forms of, or its other name: values that depend on parameters make an attention.

    Returns:
        Forms (..., i, j).
    """
    outer_left, inner_left = _split(flow, left, along=-1)
    outer_right, inner_right = _split(flow, right, along=-2)
    if bool(inner_left.any()) or bool(inner_right.any()):
        flow.forms.equate(flow.forms.combine(inner_left, inner_right), torch.zeros((), dtype=torch.int64))
        for inner in (inner_left, inner_right):
            flow.forms.refine(inner.reshape(-1, inner.shape[-1]))
            flow.forms.tag(inner, "qk")
    for outer in (outer_left, outer_right):
        if bool(outer.any()):
            flow.forms.refine(outer.reshape(-1, outer.shape[-1]))
    if bool(outer_left.any()) and bool(outer_right.any()):
        flow.forms.separate(outer_left)
        flow.forms.separate(outer_right)
    elif bool(outer_right.any()) and gate.requires_grad and flow.part(gate) is None:
        flow.forms.tag(outer_right, "vo")
    return flow.forms.combine(outer_left[..., :, None], outer_right[..., None, :])


def attend(flow: Flow, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Softmax attention: queries meet keys, values pass.

    Args:
        flow: the pass.
        queries: forms (..., tokens, width).
        keys: forms (..., others, width).
        values: forms (..., others, width of values).

    Returns:
        Forms (..., tokens, width of values).
    """
    query_rows, key_rows = (level(flow, ids, [ids.ndim - 2]) for ids in (queries, keys))
    if bool(query_rows.any()) or bool(key_rows.any()):
        flow.forms.equate(flow.forms.combine(query_rows, key_rows), torch.zeros((), dtype=torch.int64))
    for rows in (query_rows, key_rows):
        flow.forms.refine(rows.reshape(-1, rows.shape[-1]))
        flow.forms.tag(rows, "qk")
    passed = level(flow, values, [values.ndim - 2])
    flow.forms.refine(passed.reshape(-1, passed.shape[-1]))
    flow.forms.tag(passed, "vo")
    return passed.expand(*passed.shape[:-2], queries.shape[-2], passed.shape[-1])


def scaled_attention(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """``scaled_dot_product_attention``, also with grouped queries."""
    queries, keys, values = (
        flow.ids(step.argument(place, name)) for place, name in enumerate(("query", "key", "value"))
    )
    if step.keywords.get("enable_gqa"):
        keys = keys.repeat_interleave(queries.shape[-3] // keys.shape[-3], -3)
        values = values.repeat_interleave(queries.shape[-3] // values.shape[-3], -3)
    return attend(flow, queries, keys, values).expand(result.shape)


def multi_head(flow: Flow, step: Step, function: Any, result: Any) -> list[Tensor] | None:
    """The whole of ``nn.MultiheadAttention``."""
    streams = [step.argument(place, name) for place, name in enumerate(("query", "key", "value"))]
    heads, packed, packed_bias = (
        step.argument(*at) for at in ((4, "num_heads"), (5, "in_proj_weight"), (6, "in_proj_bias"))
    )
    if step.argument(7, "bias_k") is not None or step.argument(9, "add_zero_attn"):
        return None
    out_weight, out_bias = step.argument(11, "out_proj_weight"), step.argument(12, "out_proj_bias")
    if step.argument(17, "use_separate_proj_weight"):
        weights = [flow.part(step.keywords.get(f"{letter}_proj_weight")) for letter in "qkv"]
    else:
        whole = flow.part(packed)
        width = packed.shape[0] // 3
        weights = [
            None
            if whole is None
            else Part(whole.name, (width, packed.shape[1]), (0, 1), 0, width * place, width * (place + 1))
            for place in range(3)
        ]
    out_part = flow.part(out_weight)
    if out_part is None or any(weight is None for weight in weights):
        return None
    biases = [None] * 3 if packed_bias is None else flow.ids(packed_bias).chunk(3)
    made = []
    for stream, weight, bias in zip(streams, weights, biases, strict=True):
        assert weight is not None
        ids = apply_weight(flow, flow.ids(stream), weight, bias)
        ids = ids if ids.ndim == 3 else ids[:, None]
        made.append(ids.reshape(*ids.shape[:2], heads, -1).permute(1, 2, 0, 3))
    mixed = attend(flow, *made)
    mixed = mixed.permute(2, 0, 1, 3).flatten(2).reshape(streams[0].shape)
    outputs = apply_weight(flow, mixed, out_part, None if out_bias is None else flow.ids(out_bias))
    return [outputs, *(torch.zeros(item.shape, dtype=torch.int64) for item in result[1:] if isinstance(item, Tensor))]


def _split(flow: Flow, ids: Tensor, *, along: int) -> tuple[Tensor, Tensor]:
    """Write forms as what does not depend on the contracted axis, or else as what depends on it alone."""
    other = -3 - along
    inner = ids.select(along, 0)
    if bool((ids == ids.narrow(along, 0, 1)).all()):
        return inner, torch.zeros_like(ids.select(other, 0))
    alone = level(flow, ids, [ids.ndim + other]).select(other, 0)
    return torch.zeros_like(inner), alone


def _flat(ids: Tensor, batch: int, rows: int) -> Tensor:
    """Unite the axes of rows and those of columns, behind those of the batch."""
    shape = ids.shape
    return ids.reshape(*shape[:batch], shape[batch : batch + rows].numel(), shape[batch + rows :].numel())


PRODUCT_RULES: dict[str, Rule] = {
    "linear": linear,
    **dict.fromkeys(["matmul", "__matmul__", "__rmatmul__", "mm", "bmm"], matmul),
    "addmm": addmm,
    "einsum": einsum,
    "scaled_dot_product_attention": scaled_attention,
    "multi_head_attention_forward": multi_head,
}
"""Rules by name of function."""
