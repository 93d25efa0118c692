"""What operations do to scalings: structural, elementwise, sums, pools."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from learnmech.dynamics.structure_flow import Flow
from learnmech.dynamics.structure_names import (
    ADDITIONS,
    CONSTANT,
    DIVISIONS,
    LINEAR,
    POOLS,
    PRODUCTS,
    SAME,
    STRUCTURAL,
)
from learnmech.dynamics.structure_records import Step

LARGEST_EPSILON = 1e-3
"""A number up to this that is added, as in a normalisation written by hand, breaks a symmetry only slightly."""

Rule = Callable[[Flow, Step, Any, Any], Tensor | list[Tensor] | None]
"""rule(flow, step, function, result): forms of the result(s); None if no result may change (inputs are then forbidden to)."""


def structural(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | list[Tensor] | None:
    """Move forms as the operation moves numbers."""
    first = result if isinstance(result, Tensor) else result[0]
    if not first.is_floating_point():
        return None
    if any(isinstance(item, torch.dtype) for item in (*step.arguments, *step.keywords.values())):
        return None
    arguments = flow.map_ids(step.arguments, flow.ids)
    keywords = {name: flow.map_ids(value, flow.ids) for name, value in step.keywords.items()}
    moved = function(*arguments, **keywords)
    return moved if isinstance(moved, Tensor) else list(moved)


def same(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """Hand forms on."""
    return flow.ids(step.arguments[0])


def constant(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """Give a result that nothing changes."""
    return torch.zeros(result.shape, dtype=torch.int64)


def dropout(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """Dropout sets each unit to zero by itself; outside training it does nothing."""
    ids = flow.ids(step.argument(0, "input"))
    if step.argument(2, "training", True) and step.argument(1, "p", 0.5) > 0:
        flow.forms.separate(ids)
    return ids


def elementwise(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """A function of each number by itself: it must be homogeneous, which is tried on random numbers."""
    given = [value for value in (*step.arguments, *step.keywords.values()) if isinstance(value, Tensor)]
    if len(given) != 1 or not isinstance(result, Tensor) or result.shape != given[0].shape:
        return None
    ids = flow.ids(given[0])
    if not bool(ids.any()):
        return ids
    degree = degree_of(functools.partial(_apply, function, step, given[0]))
    if degree is None:
        return None
    flow.forms.separate(ids)
    return flow.forms.scale(ids, degree)


def prelu(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """A leaky ReLU with trained slopes, which stay as they are."""
    ids = flow.ids(step.argument(0, "input"))
    slope = step.argument(1, "weight")
    if flow.part(slope) is not None:
        flow.forms.zero(flow.ids(slope))
    flow.forms.separate(ids)
    return ids


def add(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """A sum or difference: what is added must grow alike."""
    one, other = step.argument(0, "input"), step.argument(1, "other")
    tensors = [value for value in (one, other) if isinstance(value, Tensor)]
    if len(tensors) == 2:
        left, right = flow.ids(one), flow.ids(other)
        flow.forms.equate(left, right)
        return flow.forms.reduced(torch.broadcast_to(left, result.shape))
    number = other if isinstance(one, Tensor) else one
    ids = flow.ids(tensors[0])
    if number != 0:
        if not isinstance(number, float) or abs(number) > LARGEST_EPSILON or step.keywords.get("alpha", 1) != 1:
            return None
        flow.forms.tag(ids, f"eps={number:g}")
    return ids


def multiply(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """A product or quotient: exponents add."""
    one, other = step.argument(0, "input"), step.argument(1, "other")
    division = step.name in DIVISIONS
    if step.keywords.get("rounding_mode") is not None or step.name == "__rtruediv__":
        return None
    if not isinstance(other, Tensor):
        return flow.ids(one)
    if not isinstance(one, Tensor):  # scalar / tensor, scalar * tensor
        return flow.forms.scale(flow.ids(other), -1.0 if division else 1.0)
    left, right = flow.ids(one), flow.ids(other)
    right = flow.forms.scale(right, -1.0) if division else right
    for ids, factor in ((left, other), (right, one)):
        if bool(ids.any()) and _differs_along(ids, factor):
            flow.forms.separate(ids)
            if factor.requires_grad and flow.part(one) is None and flow.part(other) is None:
                flow.forms.tag(ids, "gate")
    if bool(left.any()) and bool(right.any()):
        flow.forms.separate(left)
        flow.forms.separate(right)
    product = flow.forms.combine(left, right)
    flow.forms.tag(torch.where(product == 0, left.expand(product.shape), 0), "norm")
    return product


def choose(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """A choice between two values: both must grow alike."""
    places = (1, 2) if step.name == "where" else (0, 1)
    values = [step.argument(place, name) for place, name in zip(places, ("input", "other"), strict=True)]
    if not all(isinstance(value, Tensor) for value in values):
        return None
    left, right = (flow.ids(value) for value in values)
    if step.name == "where":
        flow.forms.zero(flow.ids(step.argument(0, "condition")))
    flow.forms.equate(left, right)
    flow.forms.separate(left)
    flow.forms.separate(right)
    return flow.forms.reduced(torch.broadcast_to(left, result.shape))


def masked_fill(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """Setting some numbers to zero."""
    ids = flow.ids(step.arguments[0])
    if step.argument(2, "value") != 0:
        return None
    flow.forms.separate(ids)
    return ids.expand(result.shape)


def add_up(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | None:
    """A sum, mean, spread or largest number along axes."""
    value = step.argument(0, "input")
    ids = flow.ids(value)
    axes = step.argument(1, "dim")
    if step.keywords.get("axis") is not None or not isinstance(result, Tensor):
        return None
    chosen = range(ids.ndim) if axes is None else [axes] if isinstance(axes, int) else axes
    if step.name in ("amax", "amin"):
        flow.forms.separate(ids)
    for axis in sorted({axis % max(ids.ndim, 1) for axis in chosen}, reverse=True):
        ids = level(flow, ids, [axis])
    if step.name in ("var", "std"):
        flow.forms.separate(ids)
        ids = flow.forms.scale(ids, 2.0 if step.name == "var" else 1.0)
    return ids.reshape(result.shape)


def pool(flow: Flow, step: Step, function: Any, result: Any) -> Tensor | list[Tensor] | None:
    """Pooling, padding with zeros or resizing of the last axes, each channel by itself."""
    value = step.argument(0, "input")
    first = result[0] if isinstance(result, tuple) else result
    ids = flow.ids(value)
    if step.name == "pad":
        mode, fill = step.argument(2, "mode", "constant"), step.argument(3, "value", None)
        if mode == "constant" and fill not in (None, 0, 0.0):
            return None
        axes = len(step.argument(1, "pad")) // 2
    elif step.name == "interpolate":
        axes = ids.ndim - 2
    else:
        axes = next(int(letter) for letter in step.name if letter.isdigit())
    if "max" in step.name:
        flow.forms.separate(ids)
    level_ids = level(flow, ids, list(range(ids.ndim - axes, ids.ndim)))
    spread = level_ids.expand(first.shape)
    return [spread, torch.zeros_like(spread)] if isinstance(result, tuple) else spread


def level(flow: Flow, ids: Tensor, axes: list[int]) -> Tensor:
    """Demand that forms are the same along axes, and keep one entry of each.

    Args:
        flow: the pass.
        ids: identities of forms.
        axes: the axes.

    Returns:
        The forms with length 1 along the axes.
    """
    first = ids
    for axis in axes:
        first = first.narrow(axis, 0, 1)
    flow.forms.equate(ids, first)
    return flow.forms.reduced(first)


def degree_of(function: Callable[[Tensor], Tensor]) -> float | None:
    r"""Find the degree q of a function with :math:`\sigma(cz) = c^q \sigma(z)` for c > 0, on random numbers.

    Args:
        function: of a tensor; it must act on each number by itself.

    Returns:
        The degree; None if there is none, or the function mixes numbers or is random.
    """
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(64, dtype=torch.float64, generator=generator) * torch.logspace(-2, 2, 64).double()
    try:
        numbers = numbers if bool(function(numbers).isfinite().all()) else numbers.abs()  # roots
    except Exception:
        return None
    other = torch.cat([numbers[:32], numbers[32:].flip(0) + 1])
    try:
        values = function(numbers)
        steady = torch.equal(values, function(numbers)) and torch.equal(values[:32], function(other)[:32])
        scaled = {factor: function(factor * numbers) for factor in (0.5, 1.7, 3.0)}
    except Exception:
        return None
    if values.shape != numbers.shape or values.dtype != numbers.dtype or not steady:
        return None
    alive = values != 0
    if not bool(alive.any()) or not bool(values.isfinite().all()):
        return None
    degrees = []
    for factor, result in scaled.items():
        if bool((result[~alive] != 0).any()) or not bool((result[alive] / values[alive] > 0).all()):
            return None
        degrees.append((result[alive] / values[alive]).log() / math.log(factor))
    all_degrees = torch.cat(degrees)
    degree = round(float(all_degrees.median()), 9)
    return degree if bool((all_degrees - degree).abs().max() < 1e-8) else None


def _apply(function: Any, step: Step, value: Tensor, numbers: Tensor) -> Tensor:
    numbers = numbers.clone()
    arguments = [numbers if item is value else item for item in step.arguments]
    keywords = {name: numbers if item is value else item for name, item in step.keywords.items()}
    result: Tensor = function(*arguments, **keywords)
    return result


def _differs_along(ids: Tensor, factor: Tensor) -> bool:
    """Tell whether a factor can differ along an axis along which the forms differ."""
    for back in range(1, min(ids.ndim, factor.ndim) + 1):
        if factor.shape[-back] > 1 and bool((ids != ids.narrow(-back, 0, 1)).any()):
            return True
    return False


BASIC_RULES: dict[str, Rule] = {
    **dict.fromkeys(STRUCTURAL, structural),
    **dict.fromkeys([*SAME, *LINEAR], same),
    **dict.fromkeys(CONSTANT, constant),
    **dict.fromkeys(["dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout"], dropout),
    **dict.fromkeys(ADDITIONS, add),
    **dict.fromkeys([*PRODUCTS, *DIVISIONS], multiply),
    **dict.fromkeys(["where", "maximum", "minimum"], choose),
    **dict.fromkeys(["sum", "mean", "amax", "amin", "var", "std"], add_up),
    **dict.fromkeys(POOLS, pool),
    "prelu": prelu,
    "masked_fill": masked_fill,
}
"""Rules by name of function; names that are in no table are tried as elementwise functions."""
