"""Forward-mode passes: how every layer's features move, to first order, when the parameters move.

One pass gives the exact directional derivative of all layers; no graph is kept.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import checkpoint

from learnmech.monitor.layers import Layer, device_of
from learnmech.monitor.probe import Probe
from learnmech.monitor.reader import LayerReader
from learnmech.monitor.snapshot import ProbePass
from learnmech.monitor.untouched import untouched
from learnmech.monitor.unwrap import eager_modules

TakeTangent = Callable[[Layer, Tensor, Tensor | None], None]
"""Gets a layer, its features, and their tangent: None if they do not depend on what moves."""


def read_tangents(
    source: ProbePass,
    probe: Probe,
    bounds: tuple[int, int],
    values: Mapping[str, Tensor],
    displacements: Mapping[str, Tensor],
    take: TakeTangent,
    *,
    plain_kernels: bool = False,
) -> None:
    r"""Run one chunk in forward mode, :math:`df_l = \sum_k (\partial f_l / \partial w_k)[dw_k]` at every layer.

    Args:
        source: the passes of the model.
        probe: the batch.
        bounds: first sample, and one past the last.
        values: parameters in the place of the model's own; those not named are the model's.
        displacements: parameter name to dw; what is not named does not move.
        take: who gets layer, features and tangent, valid only during the call.
        plain_kernels: whether attention and recurrent layers run as plain matrix products. Their fused kernels have no
            forward mode.

    Raises what the model raises, and what torch raises where an operation has no forward mode.
    """
    load_rules()
    device = device_of(source.model)
    layers = source.layers.layers

    def unpack(layer: Layer, tensor: Tensor) -> None:
        primal, tangent = forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]
        take(layer, primal, tangent)

    with (
        untouched(source.model, device, evaluate=source.evaluate),
        torch.no_grad(),
        forward_ad.dual_level(),
        plain_kernels_only() if plain_kernels else contextlib.nullcontext(),
        no_checkpoints() if source.reentrant else contextlib.nullcontext(),
    ):
        inputs, _, _ = probe.chunk(*bounds, device)
        parameters = source.aliases(values, differentiable=False)
        for name, displacement in displacements.items():
            parameters[name] = forward_ad.make_dual(parameters[name], displacement)  # type: ignore[no-untyped-call]
        reader = LayerReader(layers, eager_modules(source.model), unpack)
        with reader.attached():
            source.call(parameters, inputs)


@functools.cache
def load_rules() -> None:
    """Let torch load its rules of forward mode, which it does at first use, with a warning of its own."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=DeprecationWarning)
        forward_ad.make_dual(torch.zeros(()), torch.zeros(()))  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def plain_kernels_only() -> Iterator[None]:
    """Run attention and recurrent layers as plain matrix products: their fused kernels have no forward mode.

    Yields:
        Nothing.
    """
    libraries: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    enabled = [library.enabled for library in libraries]
    try:
        for library in libraries:
            library.enabled = False
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for library, before in zip(libraries, enabled, strict=True):
            library.enabled = before


@contextlib.contextmanager
def no_checkpoints() -> Iterator[None]:
    """Run the parts under re-entrant checkpoints plainly: they hide their graph and have no forward mode.

    Yields:
        Nothing.
    """

    def run(function: Callable[..., Any], _: bool, *arguments: Any) -> Any:
        return function(*arguments)

    inherited: Any = checkpoint.CheckpointFunction
    inherited.apply = staticmethod(run)
    try:
        yield
    finally:
        del inherited.apply
