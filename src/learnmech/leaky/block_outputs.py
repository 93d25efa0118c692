"""What goes into and comes out of a residual block, and the same output with another length of step."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from learnmech.errors import InputError


def block_input(block: nn.Module, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Find the features that a block was called with.

    Args:
        block: the block.
        name: what messages call it.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.

    Returns:
        The first positional argument that is a tensor of real numbers; if there is none, the keyword argument that is the
        first parameter of ``forward``; failing that the first such tensor among the keyword arguments.

    Raises:
        InputError: if there is none.
    """
    candidates = list(args)
    if not any(_is_features(value) for value in candidates):
        first = next(iter(inspect.signature(block.forward).parameters), "")
        candidates = [kwargs.get(first), *kwargs.values()]
    for value in candidates:
        if _is_features(value):
            found: Tensor = value
            return found
    raise InputError(
        f"block {name} ({type(block).__name__}) was called without a tensor of real numbers among its arguments, so its step "
        "cannot be scaled; drive blocks that map features to features of the same shape."
    )


def block_output(block: nn.Module, name: str, output: Any, features: Tensor) -> Tensor:
    """Find the features that a block gave, and check that they have the shape of those that it got.

    Args:
        block: the block.
        name: what messages call it.
        output: what ``forward`` returned: a tensor, or a tuple or list that begins with one.
        features: what :func:`block_input` found.

    Returns:
        The tensor.

    Raises:
        InputError: for another kind of output, or another shape.
    """
    first = output[0] if isinstance(output, tuple | list) and output else output
    kind = type(block).__name__
    if not _is_features(first):
        raise InputError(
            f"block {name} ({kind}) returned {type(output).__name__}; a driven block must return a tensor of real numbers, or "
            "a tuple or list that begins with one."
        )
    if first.shape != features.shape:
        raise InputError(
            f"block {name} ({kind}) changed the shape of its features from {tuple(features.shape)} to {tuple(first.shape)}; "
            "only blocks x + f(x) that keep it have a step size. Leave this block out."
        )
    tensor: Tensor = first
    return tensor


def with_output(output: Any, features: Tensor) -> Any:
    """Put other features into what a block returned.

    Args:
        output: what ``forward`` returned.
        features: what to put in the place of its features.

    Returns:
        The same structure; nothing is changed in place.
    """
    if isinstance(output, Tensor):
        return features
    if isinstance(output, list):
        return [features, *output[1:]]
    if hasattr(output, "_replace"):  # a named tuple
        return type(output)(features, *output[1:])
    return (features, *output[1:])


def stretched(features: Tensor, output: Tensor, multiplier: float) -> Tensor:
    """Compute x + m (y - x), the output of a block whose step is m times as long.

    Args:
        features: x.
        output: y, of the same shape.
        multiplier: m; 1 gives y itself, bit for bit.

    Returns:
        A tensor of the shape and dtype of y; computed in the wider dtype of the two.
    """
    if multiplier == 1.0:
        return output
    wide = torch.promote_types(features.dtype, output.dtype)
    return torch.lerp(features.to(wide), output.to(wide), multiplier).to(output.dtype)


def _is_features(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
