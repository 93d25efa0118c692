"""Inputs for a pass over a model: those given, a few samples of them, or random ones that fit its first layer."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from learnmech.errors import InputError
from learnmech.monitor.layers import device_of
from learnmech.monitor.probe import arguments_of
from learnmech.monitor.tensors import cut, tensors_in
from learnmech.monitor.untouched import untouched

SAMPLES = 4
"""How many samples a pass uses when the first dimension is that of samples."""
_IMAGE_SIZES = (8, 16, 28, 32, 64, 96, 224)


def prepare_inputs(model: nn.Module, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Make the arguments of a model's call.

    Args:
        model: the eager model.
        inputs: a tensor, a tuple of positional arguments, a mapping of keyword arguments, or None to make some.

    Returns:
        Positional and keyword arguments; detached copies, on the model's device. Of a single tensor the first few samples.

    Raises:
        InputError: if inputs are empty or not finite, or none is given and none can be guessed.
    """
    if inputs is None:
        return (_guess(model),), {}
    arguments, keywords = arguments_of(inputs)
    tensors = [tensor for _, tensor in tensors_in((arguments, keywords))]
    if not tensors or any(tensor.numel() == 0 for tensor in tensors):
        raise InputError(
            "inputs should hold at least one tensor, and none that is empty: give a batch of a few samples."
        )
    if any(tensor.is_floating_point() and not bool(tensor.isfinite().all()) for tensor in tensors):
        raise InputError("inputs hold NaN or infinite numbers: give a finite batch, such as one that you train on.")
    device = device_of(model)
    copied: tuple[tuple[Any, ...], dict[str, Any]] = cut((arguments, keywords), 0, 0, -1, device)
    if len(tensors) == 1 and isinstance(inputs, Tensor) and inputs.ndim > 1 and len(inputs) > SAMPLES:
        shortened = (copied[0][0][:SAMPLES],)
        if _runs(model, shortened[0]):
            return shortened, {}
    return copied


def _guess(model: nn.Module) -> Tensor:
    for candidate in _candidates(model):
        if _runs(model, candidate):
            return candidate
    raise InputError(
        f"no inputs came, and none could be guessed for a {type(model).__name__}: give find_symmetries(model, inputs) a "
        "small batch that the model can run on."
    )


def _candidates(model: nn.Module) -> Iterator[Tensor]:
    parameter = next((tensor for tensor in model.parameters() if tensor.is_floating_point()), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(parameter)

    shape = getattr(model, "input_shape", None)
    if isinstance(shape, tuple | torch.Size) and all(isinstance(size, int) for size in shape):
        yield draw(SAMPLES, *shape)
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            for size in _IMAGE_SIZES:
                yield draw(SAMPLES, module.in_channels, *[size] * len(module.kernel_size))
            return
        if isinstance(module, nn.Embedding):
            yield torch.randint(
                module.num_embeddings, (SAMPLES, min(8, module.num_embeddings)), generator=generator, device="cpu"
            ).to(parameter.device)
            return
        if isinstance(module, nn.MultiheadAttention):
            yield draw(SAMPLES, 5, module.embed_dim)
            return
        if isinstance(module, nn.Linear):
            yield draw(SAMPLES, module.in_features)
            yield draw(SAMPLES, 5, module.in_features)
            return
        if isinstance(module, nn.BatchNorm1d):
            yield draw(SAMPLES, module.num_features)
        if isinstance(module, nn.LayerNorm):
            yield draw(SAMPLES, *module.normalized_shape)
            yield draw(SAMPLES, 5, *module.normalized_shape)


def _runs(model: nn.Module, inputs: Tensor) -> bool:
    with untouched(model, device_of(model), evaluate=False), torch.no_grad():
        try:
            model(inputs)
        except Exception:
            return False
    return True
