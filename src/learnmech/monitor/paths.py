"""Which features all paths to the loss pass: cut nodes and nodes inside branches, read from the graph of one backward pass.

A tensor of the network is a *cut* if every path from the parameters before it to the loss goes through it, as in a chain of
layers or on the stream between residual blocks. Inside a branch some paths go around. The test is one of dominance: seen from
the loss, a cut dominates everything behind it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from learnmech.errors import InputError
from learnmech.monitor.layers import Layer, device_of
from learnmech.monitor.probe import Probe
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


class PathTracer:
    """Reads the paths from the graph of a backward pass that is made anyway, see :meth:`ProbePass.run`.

    Args:
        layers: the layers.

    Attributes:
        paths: layer name to its paths, over all chunks of the pass. A layer that no trained parameter reaches, such as the
            input, is a cut with nothing upstream.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        self.paths = {layer.name: _NOTHING for layer in layers}
        self._features: dict[str, Vertex] = {}

    def note(self, layer: Layer, tensor: Tensor) -> None:
        """Remember where in the graph a layer's output is."""
        if tensor.grad_fn is not None:
            self._features[layer.name] = (tensor.grad_fn, tensor.output_nr)

    def finish(self, loss: Tensor, leaves: Mapping[str, Tensor]) -> None:
        """Follow the graph of one chunk from its loss, and let go of it."""
        features, self._features = self._features, {}
        if loss.grad_fn is None:
            return
        graph = _Graph((loss.grad_fn, loss.output_nr), {id(leaf): name for name, leaf in leaves.items()})
        for name, vertex in features.items():
            self.paths[name] = _united(self.paths[name], graph.paths(vertex))


_NOTHING = Paths(True, frozenset(), frozenset())


def _united(first: Paths, second: Paths) -> Paths:
    """Unite what two chunks show: experts and branches may be taken by some samples only."""
    return Paths(first.cut and second.cut, first.upstream | second.upstream, first.tied | second.tied)


def trace_paths(source: ProbePass, probe: Probe, values: Mapping[str, Tensor] | None = None) -> dict[str, Paths] | None:
    """Follow the graph from the loss to the parameters, on the first few samples of a batch.

    Where a model sends samples along different ways (experts), a :class:`PathTracer` over the whole batch sees them all.

    Args:
        source: the passes of the model.
        probe: the batch.
        values: parameters in the place of the model's own, see :meth:`ProbePass.aliases`.

    Returns:
        Layer name to its paths; None if parts of the graph cannot be seen (re-entrant activation checkpoints). A layer that no
        trained parameter reaches, such as the input, is a cut with nothing upstream.
    """
    if source.reentrant:
        return None
    try:
        return _trace(source, probe, min(TRACED_SAMPLES, probe.samples), values)
    except InputError:  # a loss that needs the whole batch
        return _trace(source, probe, probe.samples, values)


def _trace(source: ProbePass, probe: Probe, samples: int, values: Mapping[str, Tensor] | None) -> dict[str, Paths]:
    device = device_of(source.model)
    leaves = source.aliases(values)
    tracer = PathTracer(source.layers.layers)
    with untouched(source.model, device, evaluate=source.evaluate), torch.enable_grad():
        inputs, targets, _ = probe.chunk(0, samples, device)
        reader = LayerReader(source.layers.layers, eager_modules(source.model), tracer.note)
        with reader.attached():
            loss = source.criterion(source.call(leaves, inputs), targets)
    tracer.finish(loss, {name: leaf for name, leaf in leaves.items() if leaf.requires_grad})
    return tracer.paths


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
