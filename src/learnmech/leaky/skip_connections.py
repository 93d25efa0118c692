"""Which blocks are residual: their output is their input plus something that weights made of it, read from the graph of a pass."""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from learnmech.monitor.calls import CHECKPOINT_WARNING
from learnmech.monitor.layers import device_of
from learnmech.monitor.probe import Probe
from learnmech.monitor.snapshot import ProbePass
from learnmech.monitor.tensors import first_floating
from learnmech.monitor.untouched import untouched
from learnmech.monitor.unwrap import eager_modules

TRACED_SAMPLES = 4
_WEIGHTS = re.compile(
    r"^(Mm|Addmm|Bmm|Addbmm|Baddbmm|Mv|Addmv|Addr|Dot|Linear|MkldnnLinear|Embedding|Trilinear)Back"
    r"|Convolution|Attention|Rnn|Lstm|Gru|Matmul"
)
"""Operations that mix features: a path through one of them is no skip connection."""
_SUMS = re.compile(r"^(Add|Sub|Rsub|Lerp|Addcmul)Back")

Vertex = Any
"""A function of the graph."""


def residual_layers(source: ProbePass, probe: Probe) -> frozenset[str]:
    """Find the layers that are residual blocks, by one forward pass over a few samples of the probe.

    A block is residual if its output has the shape of its input, and a sum in it joins a path from the input without weights
    (nothing but sums, scalings, reshapes, activations, normalisations) with another one through weights (matrix products,
    convolutions, attention), where the sum reaches the output without weights in turn. So ``relu(x + f(x))`` is residual, and
    ``norm(x + f(x))``; a plain chain, a layer that only gates its input, and a block with a projection for its skip connection
    that changes the shape are not.

    Args:
        source: passes of the model.
        probe: the batch.

    Returns:
        Names of the layers. A layer that holds several modules one after the other, such as a convolution with its activation,
        is no block and never among them.
    """
    candidates = [layer for layer in source.layers.layers if layer.is_module]
    if not candidates:
        return frozenset()
    modules = eager_modules(source.model)
    trace = _Trace()
    device = device_of(source.model)
    with untouched(source.model, device, evaluate=source.evaluate), torch.enable_grad(), ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=CHECKPOINT_WARNING)
        aliases = source.aliases(differentiable=False)  # so that only what depends on a block's input has a graph
        inputs, _, _ = probe.chunk(0, min(TRACED_SAMPLES, probe.samples), device)
        by_module: dict[nn.Module, dict[int, str]] = {}
        for layer in candidates:
            by_module.setdefault(modules[layer.module], {})[layer.call] = layer.name
        for module, calls in by_module.items():
            enter, leave = trace.hooks(calls)
            stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        source.call(aliases, inputs)
    return frozenset(trace.found)


class _Trace:
    """Marks the input of each block in the graph, and looks for the mark from its output."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self._counts: Counter[int] = Counter()
        self._open: dict[str, tuple[Vertex, torch.Size, bool]] = {}

    def hooks(self, calls: Mapping[int, str]) -> tuple[Callable[..., Any], Callable[..., None]]:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            name = calls.get(self._counts[id(module)])
            self._counts[id(module)] += 1
            given = first_floating((args, kwargs))
            if name is None or given is None:
                return None
            tensor, mode = given[1], torch.is_grad_enabled()
            torch.set_grad_enabled(True)  # checkpoints switch it off
            marked = (tensor if tensor.requires_grad else tensor.detach().requires_grad_()).clone()
            self._open[name] = marked.grad_fn, tensor.shape, mode
            return (
                tuple(marked if item is tensor else item for item in args),
                {key: marked if item is tensor else item for key, item in kwargs.items()},
            )

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            name = calls.get(self._counts[id(module)] - 1)
            if name is None or name not in self._open:
                return
            mark, shape, mode = self._open.pop(name)
            torch.set_grad_enabled(mode)
            result = first_floating(output)
            if result is not None and result[1].shape == shape and has_skip(result[1], mark):
                self.found.add(name)

        return enter, leave


def has_skip(output: Tensor, mark: Vertex) -> bool:
    """Tell whether a tensor is a sum of an earlier one, passed on without weights, and of something that weights made of it.

    Args:
        output: a tensor with its graph.
        mark: the function of the graph that gave the earlier one.

    Returns:
        Whether it is.
    """
    reached: dict[Vertex, tuple[bool, bool]] = {}  # the mark is reached without weights, with weights
    for vertex in _inputs_first(output.grad_fn, mark):
        if vertex is mark:
            reached[vertex] = (True, False)
            continue
        behind = [reached.get(child, (False, False)) for child, _ in vertex.next_functions]
        plain, weighted = any(one for one, _ in behind), any(two for _, two in behind)
        reached[vertex] = (False, plain or weighted) if _mixes(vertex) else (plain, weighted)
    seen, waiting = set(), [output.grad_fn]
    while waiting:
        vertex = waiting.pop()
        if vertex in seen or vertex is mark or vertex is None or not reached[vertex][0]:
            continue
        seen.add(vertex)
        behind = [reached.get(child, (False, False)) for child, _ in vertex.next_functions]
        if _SUMS.search(vertex.name()) and any(
            plain and weighted
            for i, (plain, _) in enumerate(behind)
            for j, (_, weighted) in enumerate(behind)
            if i != j
        ):
            return True
        waiting += [child for child, _ in vertex.next_functions]
    return False


def _mixes(vertex: Vertex) -> bool:
    return isinstance(vertex, BackwardCFunction) or _WEIGHTS.search(vertex.name()) is not None


def _inputs_first(root: Vertex, mark: Vertex) -> Iterator[Vertex]:
    """Go through the graph up to the mark, every function after those that it takes from."""
    expanded: set[Vertex] = set()
    stack = [(root, False)]
    while stack:
        vertex, done = stack.pop()
        if done:
            yield vertex
        elif vertex is not None and vertex not in expanded:
            expanded.add(vertex)
            stack.append((vertex, True))
            if vertex is not mark:
                stack += [(child, False) for child, _ in vertex.next_functions]
