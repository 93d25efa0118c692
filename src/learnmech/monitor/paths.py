"""Which features all paths to the loss pass: cut nodes and nodes inside branches, read from the graph of one backward pass.

A tensor of the network is a *cut* if every path from the parameters before it to the loss goes through it, as in a chain of
layers or on the stream between residual blocks. Inside a branch some paths go around. The test is one of dominance: seen from
the loss, a cut dominates everything behind it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from learnmech.errors import InputError
from learnmech.monitor.layers import Layer, device_of
from learnmech.monitor.probe import Probe, call_model
from learnmech.monitor.reader import LayerReader
from learnmech.monitor.snapshot import ProbePass
from learnmech.monitor.untouched import untouched
from learnmech.monitor.unwrap import eager_modules

TRACED_SAMPLES = 4

Vertex = tuple[Any, int]
"""A tensor of the graph: the function that made it, and which of its results it is."""


@dataclass(frozen=True)
class Paths:
    """Where a layer's features lie between parameters and loss.

    Attributes:
        cut: whether every path from parameters before the features to the loss passes them.
        upstream: names of the parameters that the features depend on.
        tied: those of them that also act past the features: shared with later layers.
    """

    cut: bool
    upstream: frozenset[str]
    tied: frozenset[str]


def trace_paths(source: ProbePass, probe: Probe, values: Mapping[str, Tensor] | None = None) -> dict[str, Paths] | None:
    """Follow the graph from the loss to the parameters, on the first few samples of a batch.

    Args:
        source: the passes of the model.
        probe: the batch.
        values: parameters in the place of the model's own, see :meth:`ProbePass.aliases`.

    Returns:
        Layer name to its paths; None if parts of the graph cannot be seen (re-entrant activation checkpoints). A layer that no
        trained parameter reaches, such as the input, is a cut with nothing upstream.
    """
    if source.layers.checkpointed:
        return None
    try:
        return _trace(source, probe, min(TRACED_SAMPLES, probe.samples), values)
    except InputError:  # a loss that needs the whole batch
        return _trace(source, probe, probe.samples, values)


def _trace(
    source: ProbePass, probe: Probe, samples: int, values: Mapping[str, Tensor] | None
) -> dict[str, Paths] | None:
    device = device_of(source.model)
    leaves = source.aliases(values)
    features: dict[str, Vertex] = {}

    def note(layer: Layer, tensor: Tensor) -> None:
        if tensor.grad_fn is not None:
            features[layer.name] = (tensor.grad_fn, tensor.output_nr)

    with untouched(source.model, device, evaluate=source.evaluate), torch.enable_grad():
        inputs, targets, _ = probe.chunk(0, samples, device)
        forward = _ForwardAndLoss(source, inputs, targets)
        reader = LayerReader(source.layers.layers, eager_modules(source.model), note)
        with reader.attached():
            loss = torch.func.functional_call(forward, {f"model.{name}": leaf for name, leaf in leaves.items()}, ())
    names = {id(leaf): name for name, leaf in leaves.items() if leaf.requires_grad}
    if loss.grad_fn is None:
        return {layer.name: Paths(True, frozenset(), frozenset()) for layer in source.layers.layers}
    graph = _Graph((loss.grad_fn, loss.output_nr), names)
    nothing = Paths(True, frozenset(), frozenset())
    return {
        layer.name: graph.paths(features[layer.name]) if layer.name in features else nothing
        for layer in source.layers.layers
    }


class _ForwardAndLoss(nn.Module):
    def __init__(self, source: ProbePass, inputs: Any, targets: Any) -> None:
        super().__init__()
        self.model = source.model
        self._criterion, self._inputs, self._targets = source.criterion, inputs, targets

    def forward(self) -> Tensor:
        return self._criterion(call_model(self.model, self._inputs), self._targets)


class _Graph:
    """The graph behind a loss, reduced to what leads to parameters, with the dominance frontier of every vertex.

    A vertex dominates everything behind it exactly if its dominance frontier is empty: the frontier holds what can be reached
    through it in one way and around it in another. Algorithm: Cooper, Harvey, Kennedy 2001, "A simple, fast dominance
    algorithm".
    """

    def __init__(self, root: Vertex, names: Mapping[int, str]) -> None:
        self._names: dict[Vertex, str] = {}
        self._following: dict[Vertex, list[Vertex]] = {}
        order = self._explore(root, names)  # every vertex after those that it leads to
        self._seen = frozenset(order)
        self._bits = list(self._names.values())
        bit = {vertex: 1 << index for index, vertex in enumerate(self._names)}
        self._behind: dict[Vertex, int] = {}  # the parameters behind each vertex, one bit each
        for vertex in order:
            behind = bit.get(vertex, 0)
            for item in self._following[vertex]:
                behind |= self._behind[item]
            self._behind[vertex] = behind
        relevant = {vertex for vertex in order if self._behind[vertex]} | {root}
        self._order = [vertex for vertex in reversed(order) if vertex in relevant]
        self._following = {
            vertex: [item for item in self._following[vertex] if item in relevant] for vertex in self._order
        }
        self._frontier = self._frontiers(root)

    def _explore(self, root: Vertex, names: Mapping[int, str]) -> list[Vertex]:
        finished: list[Vertex] = []
        stack: list[tuple[Vertex, Iterator[Vertex]]] = [(root, self._successors(root, names))]
        while stack:
            vertex, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                finished.append(vertex)
                stack.pop()
            elif following not in self._following:
                stack.append((following, self._successors(following, names)))
        return finished

    def _successors(self, vertex: Vertex, names: Mapping[int, str]) -> Iterator[Vertex]:
        variable = getattr(vertex[0], "variable", None)
        if isinstance(variable, Tensor) and id(variable) in names:
            self._names[vertex] = names[id(variable)]
        self._following[vertex] = [(node, number) for node, number in vertex[0].next_functions if node is not None]
        return iter(self._following[vertex])

    def _frontiers(self, root: Vertex) -> dict[Vertex, set[Vertex]]:
        position = {vertex: index for index, vertex in enumerate(self._order)}  # in topological order from the root
        before: dict[Vertex, list[Vertex]] = {vertex: [] for vertex in self._order}
        for vertex, following in self._following.items():
            for item in following:
                before[item].append(vertex)
        dominator: dict[Vertex, Vertex] = {root: root}
        for vertex in self._order[1:]:
            common = before[vertex][0]
            for other in before[vertex][1:]:
                while common != other:  # without cycles one sweep is enough
                    if position[common] > position[other]:
                        common = dominator[common]
                    else:
                        other = dominator[other]
            dominator[vertex] = common
        frontier: dict[Vertex, set[Vertex]] = {vertex: set() for vertex in self._order}
        for vertex in self._order[1:]:
            if len(before[vertex]) > 1:
                for runner in before[vertex]:
                    while runner != dominator[vertex]:
                        frontier[runner].add(vertex)
                        runner = dominator[runner]
        return frontier

    def paths(self, vertex: Vertex) -> Paths:
        if vertex not in self._frontier:
            # Behind it is no parameter (then nothing goes around it), or it does not lead to the loss.
            return Paths(vertex in self._seen, frozenset(), frozenset())
        frontier = self._frontier[vertex]
        tied = frozenset(self._names[item] for item in frontier if item in self._names)
        upstream = frozenset(name for bit, name in enumerate(self._bits) if self._behind[vertex] >> bit & 1)
        return Paths(len(tied) == len(frontier), upstream, tied)
