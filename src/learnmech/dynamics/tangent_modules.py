"""From modules, their inputs and the gradients at their outputs to their parts of a tangent kernel."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from learnmech.dynamics.tangent_layers import AffinePart, GradientPart, LayerPart, LookupPart

HANDLED = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Embedding,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
)
"""Kinds of layer with a formula."""


def has_formula(module: nn.Module) -> bool:
    """Tell whether there is a formula for a module: exactly one of the known kinds, with plain parameters.

    Args:
        module: any module.

    Returns:
        Whether there is.
    """
    kind = type(module)
    if kind not in HANDLED or module._parameters.get("weight") is None:
        return False
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        return module.running_mean is not None
    return not (isinstance(module, nn.Embedding) and module.scale_grad_by_freq)


def layer_part(
    module: nn.Module, inputs: Tensor, gradients: Tensor, samples: int, rates: Mapping[str, float]
) -> LayerPart:
    """Make the part of a layer.

    Args:
        module: one that has a formula.
        inputs: what went into it; its first dimension holds the samples, or samples times positions.
        gradients: those with respect to what it gave out, (samples or samples times positions, outputs, ...).
        samples: how many.
        rates: learning rates of ``weight`` and ``bias``; one that is missing leaves the parameter out.

    Returns:
        The part.
    """
    precise = torch.promote_types(gradients.dtype, torch.float32)
    gradients = gradients.to(precise)
    if len(gradients) != samples:  # (samples * positions, outputs, ...) to (samples, outputs, positions, ...)
        gradients = gradients.reshape(samples, -1, *gradients.shape[1:]).transpose(1, 2)
    if isinstance(module, nn.Embedding):
        return _lookup(module, inputs, gradients, rates)
    inputs = inputs.to(precise)
    weight, bias = rates.get("weight", 0.0), rates.get("bias", 0.0)
    if isinstance(module, nn.Linear):
        columns = inputs.reshape(samples, 1, -1, inputs.shape[-1])
        signals = gradients.reshape(samples, gradients.shape[1], 1, -1, gradients.shape[-1])
        return AffinePart(columns, signals, weight, bias)
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return AffinePart(*_unfolded(module, inputs, gradients, samples), weight, bias)
    normalised, channel = _normalised(module, inputs)
    normalised = normalised.reshape(samples, 1, *(() if len(inputs) == samples else (-1,)), *inputs.shape[1:])
    kept = tuple(range(gradients.ndim)[-channel:]) if channel > 0 else ()
    if channel < 0:  # one scale a channel, which stands behind the samples (and positions)
        kept = (2 if len(inputs) == samples else 3,)
    summed = tuple(axis for axis in range(2, gradients.ndim) if axis not in kept)

    def reduced(tensor: Tensor) -> Tensor:
        return (tensor.sum(summed) if summed else tensor).flatten(2)

    pieces = []
    if weight:
        pieces.append((reduced(gradients * normalised), weight))
    if bias:
        pieces.append((reduced(gradients), bias))
    return GradientPart(tuple(pieces))


def _lookup(module: nn.Embedding, ids: Tensor, gradients: Tensor, rates: Mapping[str, float]) -> LookupPart:
    samples = len(gradients)
    flat = ids.reshape(samples, -1)
    signals = gradients.reshape(samples, gradients.shape[1], -1, gradients.shape[-1])
    if module.padding_idx is not None:
        signals = signals * (flat != module.padding_idx)[:, None, :, None].to(signals.dtype)
    return LookupPart(flat, signals, rates.get("weight", 0.0))


def _unfolded(module: nn.Conv1d | nn.Conv2d, inputs: Tensor, gradients: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Cut the patches that a convolution sees: (n, groups, positions, channels * kernel) and its signals likewise."""
    if module.padding_mode != "zeros":
        inputs = functional.pad(inputs, module._reversed_padding_repeated_twice, mode=module.padding_mode)
    elif isinstance(module.padding, str) and module.padding == "same":
        inputs = functional.pad(inputs, module._reversed_padding_repeated_twice)
    elif not isinstance(module.padding, str):
        inputs = functional.pad(inputs, [size for size in reversed(module.padding) for _ in range(2)])
    kernel, dilation, stride = module.kernel_size, module.dilation, module.stride
    if isinstance(module, nn.Conv1d):
        inputs = inputs.unsqueeze(-2)
        kernel, dilation, stride = (1, *kernel), (1, *dilation), (1, *stride)
    groups = module.groups
    patches = functional.unfold(inputs, kernel, dilation=dilation, stride=stride)  # (n k, channels * kernel, positions)
    patches = patches.reshape(samples, -1, groups, patches.shape[1] // groups, patches.shape[2])
    columns = patches.permute(0, 2, 1, 4, 3).flatten(2, 3)
    outputs, out = gradients.shape[1], module.out_channels
    places = gradients.shape[-1] if isinstance(module, nn.Conv1d) else gradients.shape[-1] * gradients.shape[-2]
    signals = gradients.reshape(samples, outputs, -1, groups, out // groups, places)
    return columns, signals.permute(0, 1, 3, 2, 5, 4).flatten(3, 4)


def _normalised(module: nn.Module, inputs: Tensor) -> tuple[Tensor, int]:
    """Repeat what a norm does before its scale and shift; and how many trailing dimensions these have (-1: a channel)."""
    if isinstance(module, nn.LayerNorm):
        return functional.layer_norm(inputs, module.normalized_shape, eps=module.eps), len(module.normalized_shape)
    if isinstance(module, nn.RMSNorm):
        shape = list(module.normalized_shape)
        return functional.rms_norm(inputs, shape, eps=module.eps), len(shape)
    if isinstance(module, nn.GroupNorm):
        return functional.group_norm(inputs, module.num_groups, eps=module.eps), -1
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    mean, variance = module.running_mean, module.running_var
    assert mean is not None
    assert variance is not None
    shape = [1, -1, *([1] * (inputs.ndim - 2))]
    scale = (variance.to(inputs.dtype) + module.eps).rsqrt().reshape(shape)
    return (inputs - mean.to(inputs.dtype).reshape(shape)) * scale, -1
