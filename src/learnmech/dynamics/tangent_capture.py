"""Catching what a layer gets in and where its output stands in the graph, and telling which layers have an exact formula."""

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from learnmech.dynamics.tangent_layers import LayerPart
from learnmech.dynamics.tangent_modules import has_formula, layer_part
from learnmech.dynamics.tangent_network import Network

_BATCHED_FROM = 6
"""Number of outputs from which one backward pass for all of them is tried: it was 1.6 times faster for 10, slower for 3."""


@dataclass(frozen=True)
class Caught:
    """One call of a layer.

    Attributes:
        inputs: what it was given.
        version: of that tensor, which tells whether it was written to afterwards.
        edge: where its output stands in the graph.
        length: of the output's first dimension.
    """

    inputs: Tensor
    version: int
    edge: GradientEdge
    length: int


@contextlib.contextmanager
def catching(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Caught]]]:
    """Catch the calls of some modules in the forward pass inside.

    Args:
        modules: by name.

    Yields:
        The calls of each, filled during the pass; recomputations by checkpoints come later and are not caught.
    """
    calls: dict[str, list[Caught]] = {name: [] for name in modules}

    def take(name: str, args: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, Tensor) or not output.requires_grad or not torch.is_grad_enabled():
            return
        if len(args) != 1 or not isinstance(args[0], Tensor) or args[0].ndim == 0:
            calls[name] += [Caught(output.detach(), -1, get_gradient_edge(output), 0)] * 2  # no formula for such a call
            return
        calls[name].append(Caught(args[0].detach(), args[0]._version, get_gradient_edge(output), len(output)))

    def hook(name: str) -> Any:
        def fire(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            take(name, args, output)

        return fire

    with contextlib.ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(hook(name), prepend=True).remove)
        yield calls


@dataclass(frozen=True)
class Cover:
    """How the moving parameters of a network are covered.

    Attributes:
        layers: modules with an exact formula.
        rest: parameters that need a Jacobian; those that the outputs do not depend on are in neither.
    """

    layers: tuple[str, ...]
    rest: tuple[str, ...]


def cover(network: Network, inputs: Any, samples: int, *, formulas: bool = True) -> Cover:
    """Tell which layers have an exact formula and which parameters need a Jacobian, from a pass over two samples.

    Args:
        network: the network, which must be running.
        inputs: a batch.
        samples: how many it has.
        formulas: whether to use formulas at all.

    Returns:
        Both.
    """
    layers, used = _layers_with_formula(network, inputs, samples)
    layers = layers if formulas else ()
    covered = {full for name in layers for full in network.parameters_of(name).values()}
    return Cover(layers, tuple(name for name in network.rates if name in used and name not in covered))


def _layers_with_formula(network: Network, inputs: Any, samples: int) -> tuple[tuple[str, ...], set[str]]:
    """Find the layers with an exact formula, and the parameters that the outputs depend on."""
    # A formula holds for a known kind of layer that is called once, whose parameters enter the graph there and nowhere else
    # (so not for tied weights, or those used outside of the layer), whose input stays as it was, and whose output holds the
    # two samples one behind the other.
    own = {name: network.parameters_of(name) for name, module in network.modules.items() if has_formula(module)}
    modules = {
        name: network.modules[name]
        for name, names in own.items()
        if any(full in network.rates for full in names.values())
    }
    few, leaves = min(samples, 2), network.leaves()
    with catching(modules) as calls:
        rows = network.outputs(leaves, network.batch(inputs, 0, few, samples), few)
    if not rows.requires_grad:
        return (), set()
    uses, visited = _uses(rows.grad_fn)
    used = {name for name, leaf in leaves.items() if uses[id(leaf)] > 0}
    found = []
    for name in modules:
        moving = [full for full in own[name].values() if full in network.rates]
        if len(calls[name]) == 1 and all(uses[id(leaves.get(full))] == 1 for full in moving):
            call = calls[name][0]
            ordered = call.length % few == 0 and len(call.inputs) == call.length
            if call.edge.node in visited and ordered and call.inputs._version == call.version:
                found.append(name)
    if few == 2 and found:
        apart = [True] * len(found)
        for sample in range(2):
            gradients = torch.autograd.grad(
                rows[sample].sum(), [calls[name][0].edge for name in found], retain_graph=True, allow_unused=True
            )
            for position, gradient in enumerate(gradients):
                if gradient is not None and bool(gradient.reshape(2, -1)[1 - sample].any()):
                    apart[position] = False
        found = [name for name, fine in zip(found, apart, strict=True) if fine]
    return tuple(found), used


def _uses(root: Any) -> tuple[Counter[int], set[Any]]:
    """Count in how many places each leaf enters a graph; and list the nodes of the graph."""
    uses: Counter[int] = Counter()
    visited: set[Any] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if node in visited:
            continue
        visited.add(node)
        for following, _ in node.next_functions:
            if following is None:
                continue
            leaf = getattr(following, "variable", None)
            if leaf is not None:
                uses[id(leaf)] += 1
            stack.append(following)
    return uses, visited


def layer_parts(
    network: Network,
    layers: Sequence[str],
    inputs: Any,
    bounds: tuple[int, int, int],
    combined: Tensor,
) -> dict[str, LayerPart]:
    """Run some samples forward, and backward once for each combination of outputs.

    Args:
        network: the network, which must be running.
        layers: names of layers with a formula.
        inputs: the batch.
        bounds: first sample, one past the last, and how many the batch has.
        combined: (combinations, outputs), one backward pass each.

    Returns:
        The part of each layer.
    """
    start, stop, samples = bounds
    modules = {name: network.modules[name] for name in layers}
    with catching(modules) as calls:
        rows = network.outputs(network.leaves(), network.batch(inputs, start, stop, samples), stop - start)
    edges = [calls[name][0].edge for name in layers]
    gradients = _gradients(rows, combined.to(rows.dtype), edges)
    parts: dict[str, LayerPart] = {}
    for name, gradient in zip(layers, gradients, strict=True):
        rates = {own: network.rates[full] for own, full in network.parameters_of(name).items() if full in network.rates}
        parts[name] = layer_part(modules[name], calls[name][0].inputs, gradient, stop - start, rates)
    return parts


def _gradients(rows: Tensor, combined: Tensor, edges: Sequence[GradientEdge]) -> list[Tensor]:
    """Differentiate every combination, summed over samples, with respect to layers' outputs: (.., combinations, ..)."""
    if len(combined) >= _BATCHED_FROM:
        every = combined[:, None, :].expand(len(combined), *rows.shape)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a kernel without a batched form is slower than one pass an output
                found = torch.autograd.grad(rows, edges, every, retain_graph=True, is_grads_batched=True)
                return [tensor.transpose(0, 1) for tensor in found]
        except (RuntimeError, UserWarning):
            pass
    each = [
        torch.autograd.grad(rows, edges, row.expand_as(rows), retain_graph=index + 1 < len(combined))
        for index, row in enumerate(combined)
    ]
    return [torch.stack(tensors, dim=1) for tensors in zip(*each, strict=True)]
