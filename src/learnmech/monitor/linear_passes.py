"""Products with Jacobians of a model: a quiet model, one forward-mode pass for J z, one backward pass for J^T u."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from learnmech.monitor.tangent import load_rules, plain_kernels_only
from learnmech.monitor.untouched import untouched


@contextlib.contextmanager
def quiet(network: object, device: torch.device) -> Iterator[None]:
    """Run a network for Jacobian products and leave no trace: evaluation mode, no graph, no fused kernels.

    Fused attention and recurrent layers have no forward-mode derivative, so they run as plain matrix products inside.

    Args:
        network: a module, put back afterwards as :func:`learnmech.monitor.untouched.untouched` does, or a function.
        device: where it runs.

    Yields:
        Nothing.
    """
    load_rules()
    with contextlib.ExitStack() as stack:
        if isinstance(network, nn.Module):
            stack.enter_context(untouched(network, device))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(plain_kernels_only())
        stack.enter_context(
            torch.no_grad()
        )  # torch.func differentiates all the same, only torch's own graph is not kept
        yield


def push(function: Callable[[Any], Tensor], place: Any, direction: Any) -> Tensor:
    """Multiply with a Jacobian, in one forward-mode pass: :math:`Jz`.

    Args:
        function: of a tensor, or of tensors by name.
        place: where.
        direction: z, of the form of ``place``.

    Returns:
        The product, of the form of the function's value.
    """
    product: Tensor = torch.func.jvp(function, (place,), (direction,))[1]
    return product


def pull(function: Callable[[Any], Tensor], place: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """Run a function and keep what multiplies with its transposed Jacobian, in one backward pass each: :math:`J^Tu`.

    Args:
        function: of a tensor, or of tensors by name.
        place: where.

    Returns:
        The function's value, and a function from u, of the form of that value, to the product, of the form of ``place``.
    """
    results = torch.func.vjp(function, place)
    back = results[1]
    value: Tensor = results[0]
    return value, lambda cotangent: back(cotangent)[0]
