"""Gradients at many random parameters and inputs, in float64, many at once where the model allows it."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from learnmech.dynamics.finding_loss import call_loss
from learnmech.dynamics.finding_verification import Arguments, as_type, default_type, differentiate, random_loss
from learnmech.errors import InputError
from learnmech.monitor.layers import device_of
from learnmech.monitor.tensors import tensors_in
from learnmech.monitor.untouched import untouched

CHUNK = 64
ENOUGH = 256
"""From how many draws on they are computed together: getting ready for that takes seconds."""

Batch = dict[str, Tensor]


def random_gradients(
    model: nn.Module,
    arguments: Arguments,
    loss: str | Callable[[Tensor], Tensor] | None,
    draws: int,
    *,
    seed: int = 0,
) -> Iterator[tuple[Batch, Batch]]:
    """Draw parameters and inputs from a standard normal distribution and differentiate a random loss.

    Args:
        model: the eager model, left as it was; its train/eval flags matter. Frozen parameters keep their values.
        arguments: its arguments; floating tensors are replaced by normal numbers, whole ones by others of the same range.
        loss: as :func:`learnmech.dynamics.finding_loss.settle` gives it.
        draws: how many.
        seed: of the draws.

    Yields:
        Parameters and gradients by name, (draws of a chunk, *shape), on the CPU.

    Raises:
        InputError: if the model does not run in float64, or its outputs do not depend on its parameters.
    """
    device = device_of(model)
    generator = torch.Generator().manual_seed(seed)
    fixed = {name: p.detach().double() for name, p in model.named_parameters() if not p.requires_grad}
    free = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    buffers = {
        name: buffer.detach().double() if buffer.is_floating_point() else buffer.detach().clone()
        for name, buffer in model.named_buffers()
    }
    arguments = as_type(arguments, torch.float64)
    templates = [tensor for _, tensor in tensors_in(arguments)]
    with untouched(model, device, evaluate=False), default_type(torch.float64):
        torch.manual_seed(seed)  # dropout; the state is put back
        shapes = _output_shapes(model, fixed, free, buffers, arguments, generator)

        def scalar(outputs: Any, noise: list[Tensor]) -> Tensor:
            if callable(loss):
                return call_loss(loss, outputs)
            floating = [tensor for _, tensor in tensors_in(outputs) if tensor.is_floating_point()]
            return torch.stack([random_loss(*pair, loss) for pair in zip(floating, noise, strict=True)]).sum()

        def value(values: Batch, buffers: Batch, given: list[Tensor], noise: list[Tensor]) -> Tensor:
            positional, keywords = _insert(arguments, iter(given))
            return scalar(functional_call(model, {**values, **fixed, **buffers}, positional, keywords), noise)

        def gradient(values: Batch, buffers: Batch, given: list[Tensor], noise: list[Tensor]) -> list[Tensor]:
            point = {name: tensor.clone().requires_grad_() for name, tensor in values.items()}
            with torch.enable_grad():
                found = differentiate(
                    model,
                    {**point, **fixed, **buffers},
                    _insert(arguments, iter(given)),
                    lambda outputs: scalar(outputs, noise),
                )
            return [
                torch.zeros_like(tensor) if part is None else part
                for tensor, part in zip(point.values(), found, strict=True)
            ]

        together = draws >= ENOUGH
        for start in range(0, draws, CHUNK):
            count = min(CHUNK, draws - start)
            values = {name: _normal(generator, count, *shape).to(device) for name, shape in free.items()}
            given = [_like(tensor, count, generator) for tensor in templates]
            noise = [_normal(generator, count, 2, *shape).to(device) for shape in shapes]
            many = {name: buffer.expand(count, *buffer.shape).clone() for name, buffer in buffers.items()}
            gradients = None
            if together:
                try:
                    with warnings.catch_warnings():
                        warnings.filterwarnings("ignore", message="There is a performance drop")
                        gradients = vmap(grad(value), randomness="different")(values, many, given, noise)
                except Exception:
                    together = False
            if gradients is None:
                gradients = _one_by_one(gradient, values, many, given, noise, count)
            yield _on_cpu(values), _on_cpu(gradients)


def _one_by_one(
    gradient: Callable[..., list[Tensor]],
    values: Batch,
    buffers: Batch,
    given: list[Tensor],
    noise: list[Tensor],
    count: int,
) -> Batch:
    rows = [
        gradient(
            {name: tensor[draw] for name, tensor in values.items()},
            {name: tensor[draw] for name, tensor in buffers.items()},
            [tensor[draw] for tensor in given],
            [tensor[draw] for tensor in noise],
        )
        for draw in range(count)
    ]
    return {name: torch.stack([row[place] for row in rows]) for place, name in enumerate(values)}


def _output_shapes(
    model: nn.Module,
    fixed: Batch,
    free: dict[str, tuple[int, ...]],
    buffers: Batch,
    arguments: Arguments,
    generator: torch.Generator,
) -> list[tuple[int, ...]]:
    device = device_of(model)
    values = {name: _normal(generator, *shape).to(device).requires_grad_() for name, shape in free.items()}
    try:
        with torch.enable_grad():
            copies = {name: buffer.clone() for name, buffer in buffers.items()}
            outputs = functional_call(model, {**values, **fixed, **copies}, arguments[0], arguments[1])
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"{type(model).__name__} does not run in float64, which the numerical search needs ({error}): use "
            'method="structure", or a model without fixed precision inside.'
        ) from error
    floating = [tensor for _, tensor in tensors_in(outputs) if tensor.is_floating_point()]
    if not any(tensor.requires_grad for tensor in floating):
        raise InputError("the outputs do not depend on any parameter that is trained: there is nothing to find.")
    return [tuple(tensor.shape) for tensor in floating]


def _normal(generator: torch.Generator, *shape: int) -> Float[Tensor, "..."]:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _like(tensor: Tensor, count: int, generator: torch.Generator) -> Tensor:
    shape = (count, *tensor.shape)
    if tensor.is_floating_point():
        return _normal(generator, *shape).to(tensor.device)
    if tensor.dtype == torch.bool or tensor.is_complex():
        return tensor.expand(shape)
    low, high = int(tensor.min()), int(tensor.max())
    return torch.randint(low, high + 1, shape, generator=generator, dtype=tensor.dtype).to(tensor.device)


def _insert(value: Any, tensors: Iterator[Tensor]) -> Any:
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, dict):
        return {name: _insert(item, tensors) for name, item in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_insert(item, tensors) for item in value)
    return value


def _on_cpu(tensors: Batch) -> Batch:
    return {name: tensor.detach().cpu() for name, tensor in tensors.items()}
