"""Finding and cutting tensors inside what models take and give: tensors, tuples, lists, mappings, objects with fields."""

import dataclasses
import itertools
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def tensors_in(value: Any) -> Iterator[tuple[str, Tensor]]:
    """Walk through nested tuples, lists, mappings and dataclasses.

    Args:
        value: what a module takes or returns.

    Yields:
        (path, tensor) in order; the path of a bare tensor is empty, others read like ``[0]['logits']``.
    """
    if isinstance(value, Tensor):
        yield "", value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            for path, tensor in tensors_in(item):
                yield f"[{key!r}]{path}", tensor
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            for path, tensor in tensors_in(item):
                yield f"[{index}]{path}", tensor
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            for path, tensor in tensors_in(getattr(value, field.name)):
                yield f".{field.name}{path}", tensor


def describe_tensors(value: Any) -> str:
    """Describe the tensors inside a value for an error message.

    Args:
        value: what a module takes or returns.

    Returns:
        Path, shape and dtype of each tensor; the type's name if there is none.
    """
    found = [f"{path or 'tensor'} {tuple(tensor.shape)} {tensor.dtype}" for path, tensor in tensors_in(value)]
    return ", ".join(found) or type(value).__name__


def first_floating(value: Any) -> tuple[str, Tensor] | None:
    """Find the tensor that a layer's features are read from: the first one that holds real numbers.

    Args:
        value: what a module takes or returns.

    Returns:
        (path, tensor), or None if there is none.
    """
    for path, tensor in tensors_in(value):
        if tensor.is_floating_point():
            return path, tensor
    return None


def samples_in(value: Any) -> int | None:
    """Count the samples of a batch: the length that its tensors have along their first dimension.

    Args:
        value: a batch of inputs or targets.

    Returns:
        The length of the first tensor with a dimension, or None if there is none.
    """
    for _, tensor in tensors_in(value):
        if tensor.ndim > 0:
            return len(tensor)
    return None


def cut(value: Any, start: int, stop: int, samples: int, device: torch.device | None) -> Any:
    """Take samples ``start`` to ``stop`` of a batch and bring them to a device.

    Tensors whose first dimension is not ``samples`` long (a shared mask, a scalar) are taken whole.

    Args:
        value: a batch: tensors, nested tuples, lists and mappings of them; anything else is passed through.
        start: first sample.
        stop: one past the last sample.
        samples: how many samples the whole batch has.
        device: where to, or None to leave it.

    Returns:
        The same structure with tensors cut. Tensors are copies, so that a model that writes to its input does no harm, and
        leaves that require a gradient if the given ones do.
    """
    if isinstance(value, Tensor):
        part = value.detach()
        if part.ndim > 0 and len(part) == samples:
            part = part[start:stop]
        part = part.to(device, copy=True) if device is not None else part.clone()
        return part.requires_grad_(value.requires_grad)
    if isinstance(value, Mapping):
        items = {key: cut(item, start, stop, samples, device) for key, item in value.items()}
        return items if type(value) is dict else _rebuild(value, items)
    if isinstance(value, list | tuple):
        parts = [cut(item, start, stop, samples, device) for item in value]
        if hasattr(value, "_fields"):  # a named tuple
            return type(value)(*parts)
        return type(value)(parts)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        return dataclasses.replace(
            value, **{name: cut(getattr(value, name), start, stop, samples, device) for name in fields}
        )
    return value


def _rebuild(value: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    try:
        return type(value)(items)  # type: ignore[call-arg]
    except TypeError:
        return items


def begins_with(shape: Sequence[int], samples: int) -> bool:
    """Tell whether some leading dimensions of a shape hold a number of samples together.

    Args:
        shape: the shape of a layer's output.
        samples: how many samples (or tokens) there are.

    Returns:
        Whether the product of the first one, two, ... lengths is that number.
    """
    return samples in itertools.accumulate(shape, operator.mul)


def rows_of(features: Tensor, samples: int) -> Tensor | None:
    """Flatten features to one row a sample, where a sample may be a token or a pixel.

    Leading dimensions are united until they hold ``samples`` entries: (batch, tokens, width) becomes (batch, tokens * width)
    for one label a sequence and (batch * tokens, width) for one label a token.

    Args:
        features: the output of a layer.
        samples: how many labels there are.

    Returns:
        Shape (samples, features), or None if no leading part of the shape holds that many entries.
    """
    if not begins_with(features.shape, samples):
        return None
    return features.reshape(samples, features.numel() // samples if samples else 0)
