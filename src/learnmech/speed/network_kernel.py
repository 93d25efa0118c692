"""Making the backward-to-feature kernel of one layer of a network on a batch."""

import contextlib
import difflib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from learnmech.errors import InputError
from learnmech.monitor.linear_passes import quiet
from learnmech.monitor.probe import arguments_of
from learnmech.monitor.tensors import cut, describe_tensors, samples_in, tensors_in
from learnmech.monitor.unwrap import eager_modules, unwrap
from learnmech.speed.kernel import BackwardFeatureKernel


def backward_feature_kernel(
    network: nn.Module,
    inputs: Any,
    *,
    learning_rates: float | Mapping[str, float] = 1.0,
    node: str | None = None,
) -> BackwardFeatureKernel:
    r"""Make the backward-to-feature kernel of a layer on a batch.

    .. math:: K = \sum_k \eta_k \frac{\partial f}{\partial w_k}\Big(\frac{\partial f}{\partial w_k}\Big)^T
        \in \mathbb R^{N\times N}, \qquad df = -K b

    for the layer's output f, all samples stacked to N numbers, its backward pass b, and gradient descent with the rates
    :math:`\eta_k`. At the net's output it is the neural tangent kernel. Its spectrum says how aligned features and backward
    pass can be: :math:`\cos\theta = b^TKb/(\|Kb\|\,\|b\|)`. Source: the notion is in the abstract of Chizat and Netrapalli
    (arXiv 2311.18718); the formulas for its cosine are derived here. Momentum, Adam and sign updates have no such kernel.

    Args:
        network: a module; it runs in evaluation mode and is left as it is.
        inputs: what it takes: a tensor, a tuple of positional or a mapping of keyword arguments.
        learning_rates: :math:`\eta`, one for every parameter that requires a gradient, or by name of parameter; those not
            named do not move.
        node: name of the module whose output is f, as in ``network.named_modules()``; None for the network's output.

    Returns:
        The kernel.

    Raises:
        InputError: for something other than a module, inputs without a sample, NaN or infinite inputs or outputs, rates
            that are negative, not finite or for unknown parameters, an unknown node, one that is not called exactly once, or
            an output that is not one floating-point tensor.

    Example:
        One linear layer without bias has :math:`K = \|x\|^2 I` for one sample:

        >>> layer = nn.Linear(3, 2, bias=False)
        >>> backward_feature_kernel(layer, torch.tensor([[0.0, 1.0, 2.0]])).dense().tolist()
        [[5.0, 0.0], [0.0, 5.0]]
    """
    if not isinstance(network, nn.Module):
        raise InputError(f"a kernel needs a torch.nn.Module, but a {type(network).__name__} came.")
    model = unwrap(network)
    samples = samples_in(inputs)
    if not samples:
        raise InputError(f"inputs must hold a tensor with at least one sample, but are {describe_tensors(inputs)}.")
    for path, tensor in tensors_in(inputs):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"inputs{path} hold {int((~torch.isfinite(tensor)).sum())} NaN or infinite entries.")
    rates = _rates_by_name(model, learning_rates)
    with torch.inference_mode(False):
        parameters = {name: tensor.detach().clone() for name, tensor in model.named_parameters() if name in rates}
        fixed = {name: tensor.detach().clone() for name, tensor in model.named_parameters() if name not in rates}
        buffers = {name: tensor.detach().clone() for name, tensor in model.named_buffers()}
        device = next(iter(parameters.values())).device
        batch = cut(inputs, 0, samples, samples, device)
    target = _find(model, node)

    def features(moving: dict[str, Tensor]) -> Tensor:
        own = {name: tensor.clone() for name, tensor in buffers.items()}  # a forward pass may write to them
        args, kwargs = arguments_of(batch)
        with _reading(target) as outputs:
            torch.func.functional_call(model, {**moving, **fixed, **own}, args, kwargs)
        return _single(outputs, node)

    return BackwardFeatureKernel(features, parameters, rates, lambda: quiet(model, device))


def _rates_by_name(model: nn.Module, learning_rates: float | Mapping[str, float]) -> dict[str, float]:
    known = dict(model.named_parameters())
    if isinstance(learning_rates, Mapping):
        rates = {name: float(rate) for name, rate in learning_rates.items()}
    else:
        rates = {name: float(learning_rates) for name, tensor in known.items() if tensor.requires_grad}
    for name, rate in rates.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or list(known)[:5]
            raise InputError(f"learning_rates names {name!r}, which is no parameter; similar names: {', '.join(near)}.")
        if not (math.isfinite(rate) and rate >= 0):
            raise InputError(f"learning rates must be finite and not negative, but that of {name!r} is {rate!r}.")
        if not known[name].is_floating_point():
            raise InputError(f"parameter {name!r} holds {known[name].dtype}, which a gradient step cannot move.")
    if not rates:
        raise InputError("no parameter has a learning rate; name some, or let parameters require gradients.")
    return rates


def _find(model: nn.Module, node: str | None) -> nn.Module:
    if node is None:
        return model
    modules = eager_modules(model)
    if node not in modules:
        near = difflib.get_close_matches(node, modules, n=3, cutoff=0.3) or list(modules)[1:6]
        raise InputError(f"node {node!r} is no module of the network; similar names: {', '.join(near)}.")
    return modules[node]


@contextlib.contextmanager
def _reading(module: nn.Module) -> Iterator[list[Any]]:
    outputs: list[Any] = []

    def take(_: nn.Module, args: Any, output: Any) -> None:
        # A copy, since a later layer may write to the tensor in place.
        outputs.append(output.clone() if isinstance(output, Tensor) else output)

    handle = module.register_forward_hook(take)
    try:
        yield outputs
    finally:
        handle.remove()


def _single(outputs: list[Any], node: str | None) -> Tensor:
    name = "the network's output" if node is None else f"the output of {node!r}"
    if len(outputs) != 1:
        raise InputError(f"{name} must be made exactly once in a forward pass, but was made {len(outputs)} times.")
    (output,) = outputs
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.numel() == 0:
        raise InputError(f"{name} must be one floating-point tensor, but is {describe_tensors(output)}.")
    return output
