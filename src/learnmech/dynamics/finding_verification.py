"""Trying symmetries on gradients: what does not hold on random parameters is left out."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from learnmech.dynamics.finding_loss import call_loss
from learnmech.dynamics.symmetries import Symmetry
from learnmech.errors import InputError, LearnmechWarning
from learnmech.monitor.layers import device_of
from learnmech.monitor.tensors import tensors_in
from learnmech.monitor.untouched import untouched

LossFunction = Callable[[Tensor], Tensor]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]

EXACT, ROUNDED, BROKEN = 1e-7, 1e-3, 0.1
"""Largest violations: of an exact symmetry in float64, in the model's own precision, of one that an epsilon breaks."""

NOISE = 1e-10
"""Parts of a law smaller than this times the whole gradient are rounding."""


def verify(
    symmetries: Sequence[Symmetry],
    model: nn.Module,
    arguments: Arguments,
    loss: str | LossFunction | None = None,
    *,
    points: int = 2,
) -> list[Symmetry]:
    r"""Keep the symmetries that gradients obey: :math:`\langle g, T\theta\rangle = 0`.

    The gradient is taken in float64 at the model's parameters plus noise, so that zeros and ones from the initialisation prove
    nothing, of the user's loss or of a random smooth function of the outputs.

    Args:
        symmetries: to be tried.
        model: the eager model, left as it was; its train/eval flags matter.
        arguments: positional and keyword arguments of its call.
        loss: as :func:`learnmech.dynamics.finding_loss.settle` gives it.
        points: how many random parameters.

    Returns:
        Those that hold. The others are named in a :class:`learnmech.errors.LearnmechWarning`.

    Raises:
        InputError: if the loss fails, or nothing trained reaches the outputs.
    """
    if not symmetries:
        return []
    worst = [0.0] * len(symmetries)
    double = True
    for point in range(points):
        try:
            values, gradients = _gradients(model, arguments, loss, seed=point, double=double)
        except InputError:
            raise
        except Exception:
            if not double:
                raise
            double = False  # something inside insists on another precision
            values, gradients = _gradients(model, arguments, loss, seed=point, double=False)
        whole = torch.stack([gradient.double().norm() for gradient in gradients.values()]).norm()
        for index, symmetry in enumerate(symmetries):
            worst[index] = max(worst[index], _violation(symmetry, values, gradients, float(whole)))
    kept: list[Symmetry] = []
    failed: list[str] = []
    for symmetry, violation in zip(symmetries, worst, strict=True):
        limit = BROKEN if symmetry.broken_by else EXACT if double else ROUNDED
        if violation < limit:
            kept.append(symmetry)
        else:
            failed.append(f"{symmetry.kind} of {', '.join(symmetry.parameters)} ({violation:.1e})")
    if failed:
        warnings.warn(
            f"left out, because gradients on random parameters do not obey them (relative violation): {'; '.join(failed)}. "
            "Something in the forward or backward pass is not what it seems, such as a custom function or a hook.",
            LearnmechWarning,
            stacklevel=3,
        )
    return kept


def _violation(symmetry: Symmetry, values: dict[str, Tensor], gradients: dict[str, Tensor], whole: float) -> float:
    if symmetry.is_linear:  # a bias whose gradient is zero obeys its law, but has no size of its own to compare with
        absolute = {name: gradients[name].abs() for name in symmetry.parameters}
        scale = max(float(symmetry.charge(absolute).norm()), whole)
        return float(symmetry.charge(gradients).norm()) / scale if scale > 0 else 0.0
    parts = float(symmetry.terms(gradients, values).norm())
    sizes = float(torch.stack([values[name].double().norm() for name in symmetry.parameters]).norm())
    if parts <= NOISE * whole * sizes:
        return 0.0
    return symmetry.violation(values, gradients)


def _gradients(
    model: nn.Module, arguments: Arguments, loss: str | LossFunction | None, *, seed: int, double: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    kind = torch.float64 if double else None
    values: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.device)
        start = parameter.detach().double()
        size = float(start.square().mean().sqrt()) if start.numel() else 0.0
        moved = start + (0.3 * size if size > 0 else 0.1) * noise if parameter.is_floating_point() else start
        values[name] = moved.to(kind or parameter.dtype).requires_grad_(parameter.requires_grad)
    buffers = {
        name: (buffer.detach().to(kind) if kind and buffer.is_floating_point() else buffer.detach().clone())
        for name, buffer in model.named_buffers()
    }
    positional, keywords = as_type(arguments, kind)
    device = device_of(model)
    with untouched(model, device, evaluate=False), torch.enable_grad(), default_type(kind):
        torch.manual_seed(seed)  # dropout; the state is put back
        found = differentiate(
            model, {**values, **buffers}, (positional, keywords), lambda outputs: evaluate(outputs, loss, generator)
        )
    names = [name for name, tensor in values.items() if tensor.requires_grad]
    gradients = {
        name: torch.zeros_like(values[name]) if gradient is None else gradient
        for name, gradient in zip(names, found, strict=True)
    }
    return {name: tensor.detach() for name, tensor in values.items()}, gradients


def differentiate(
    model: nn.Module, values: dict[str, Tensor], arguments: Arguments, loss: Callable[[Any], Tensor]
) -> tuple[Tensor | None, ...]:
    """Differentiate a loss with other parameters in a model's place, also while activation checkpoints run it again.

    Args:
        model: the eager model.
        values: parameters and buffers by name.
        arguments: positional and keyword arguments of its call.
        loss: of the outputs, to a scalar.

    Returns:
        Gradients for those of the values that require one, in order; None where the loss does not depend on it.
    """
    prefixed = {f"model.{name}": tensor for name, tensor in values.items()}
    found: tuple[Tensor | None, ...] = functional_call(_Differentiated(model, loss), prefixed, (arguments, values))
    return found


class _Differentiated(nn.Module):
    """Runs the model and goes back through it before its parameters are put back."""

    def __init__(self, model: nn.Module, loss: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, arguments: Arguments, values: dict[str, Tensor]) -> tuple[Tensor | None, ...]:
        value = self.loss(self.model(*arguments[0], **arguments[1]))
        trained = [tensor for tensor in values.values() if tensor.requires_grad]
        return torch.autograd.grad(value, trained, allow_unused=True)


def evaluate(outputs: Any, loss: str | LossFunction | None, generator: torch.Generator) -> Tensor:
    """Give a scalar that depends on the outputs: the user's loss, or a random one of its sort.

    Args:
        outputs: what the model returned.
        loss: as :func:`learnmech.dynamics.finding_loss.settle` gives it.
        generator: source of the random targets.

    Returns:
        A scalar.

    Raises:
        InputError: if the outputs do not depend on any parameter.
    """
    if callable(loss):
        return call_loss(loss, outputs)
    total: Tensor | None = None
    for _, tensor in tensors_in(outputs):
        if not tensor.is_floating_point() or not tensor.requires_grad:
            continue
        draws = torch.randn((2, *tensor.shape), generator=generator, dtype=torch.float64).to(tensor)
        part = random_loss(tensor, draws, loss)
        total = part if total is None else total + part
    if total is None:
        raise InputError("the outputs do not depend on any parameter that is trained: there is nothing to find.")
    return total


def random_loss(outputs: Tensor, draws: Tensor, loss: str | None) -> Tensor:
    """Give a random smooth function of outputs, or their cross-entropy with random targets.

    Args:
        outputs: of any shape.
        draws: standard normal numbers, (2, *shape of outputs).
        loss: ``cross_entropy``, ``torch_cross_entropy``, or anything else.

    Returns:
        A scalar.
    """
    if loss in ("cross_entropy", "torch_cross_entropy"):
        axis = -1 if loss == "cross_entropy" or outputs.ndim == 1 else 1
        return -(functional.log_softmax(outputs, axis) * functional.softmax(draws[0], axis)).sum()
    return (draws[0] * outputs + torch.sin(outputs + draws[1])).sum()


def as_type(value: Any, kind: torch.dtype | None) -> Any:
    """Bring floating tensors in nested arguments to a type; None leaves them."""
    if isinstance(value, Tensor):
        return value.to(kind) if kind and value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: as_type(item, kind) for name, item in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(as_type(item, kind) for item in value)
    return value


def default_type(kind: torch.dtype | None) -> Any:
    """Make new tensors of a type, as long as the context lasts."""
    return _Default(kind) if kind else nullcontext()


class _Default:
    def __init__(self, kind: torch.dtype) -> None:
        self._kind = kind

    def __enter__(self) -> None:
        self._before = torch.get_default_dtype()
        torch.set_default_dtype(self._kind)

    def __exit__(self, *error: object) -> None:
        torch.set_default_dtype(self._before)
