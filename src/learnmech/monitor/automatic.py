"""The automatic choice of layers: the main chain of calls, cut into blocks."""

import dataclasses
from dataclasses import dataclass, field

from torch import nn

from learnmech.monitor.calls import Call, input_is_floating, walk
from learnmech.monitor.layers import Layer
from learnmech.monitor.probe import Probe

_NORMS = (
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm", "LayerNorm", "GroupNorm", "RMSNorm",
    "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "LocalResponseNorm",
)  # fmt: skip
_RESHAPES = ("Flatten", "Unflatten", "Identity", "PixelShuffle", "PixelUnshuffle", "ChannelShuffle")


@dataclass
class _Group:
    """Leaf calls that make one layer: weights, then normalisation, activation, pooling."""

    first: Call
    last: Call
    members: list[Call] = field(default_factory=list)


class AutomaticChoice:
    """The automatic blocks: units of the main chain, leaf calls gathered into groups."""

    def __init__(self, root: Call, probe: Probe) -> None:
        self.root, self.probe = root, probe
        self.reasons: dict[str, str] = {}

    def choose(self) -> list[Layer]:
        """Give the layers in order; empty if nothing can be cut into blocks."""
        units = self._units(self.root)
        layers, leading = self._blocks(units)
        if not layers:
            return []
        layers = [*self._input(leading, units, layers), *layers]
        return self._with_readout(layers, units)

    def _units(self, call: Call) -> list[Call]:
        """Flatten containers into the chain of calls that they run."""
        if call.leaf:
            return [call]
        if not call.children:
            return [] if call is self.root else [call]
        if call is self.root or call.sequential or _has_chain(call):
            if call is not self.root:
                self.reasons[call.name] = "a container: its parts are read"
            return [unit for child in call.children for unit in self._units(child)]
        for inner in walk(call):
            if inner is not call:
                self.reasons.setdefault(inner.name, f"part of the block {call.label}")
        return [call]

    def _blocks(self, units: list[Call]) -> tuple[list[Layer], list[Call]]:
        layers: list[Layer] = []
        leading: list[Call] = []
        group: _Group | None = None

        def close() -> None:
            nonlocal group
            if group is not None:
                layers.append(self._layer_of_group(group))
            group = None

        for unit in units:
            kind = unit.kind
            if not unit.leaf:
                close()
                layers.append(Layer(unit.label, unit.name, unit.index, "output", "block", (unit.name,), kind))
            elif "Dropout" in kind:
                self.reasons[unit.name] = "dropout: the layer is read before it"
            elif kind in _RESHAPES:
                self.reasons[unit.name] = "only reshapes"
                if not layers and group is None:
                    leading.append(unit)
            elif _has_weights(unit.module):
                close()
                group = _Group(unit, unit, [unit])
            elif group is not None:
                group.last = unit
                group.members.append(unit)
            elif not layers:
                leading.append(unit)
            else:
                self.reasons[unit.name] = "comes after a block and has no weight matrix; name it in layers= to read it"
        close()
        return layers, leading

    def _layer_of_group(self, group: _Group) -> Layer:
        name = self._group_name(group)
        for member in group.members:
            if member is not group.last:
                self.reasons[member.name] = f"part of {name}: read at the output of {group.last.label}"
        return Layer(
            name,
            group.last.name,
            group.last.index,
            "output",
            "block",
            tuple(member.name for member in group.members),
            " + ".join(member.kind for member in group.members),
        )

    def _group_name(self, group: _Group) -> str:
        """Name a group after the Sequential that holds nothing but this group, or after its weight layer."""
        parent = group.first.name.rpartition(".")[0]
        holders = [
            call for call in walk(self.root) if call.name == parent and call.sequential and call is not self.root
        ]
        for holder in holders:
            weights = [child for child in holder.children if child.leaf and _has_weights(child.module)]
            inside = {(child.name, child.index) for child in holder.children}
            if weights == [group.first] and all((m.name, m.index) in inside for m in group.members):
                return holder.label
        return group.first.label

    def _input(self, leading: list[Call], units: list[Call], layers: list[Layer]) -> list[Layer]:
        """Say where the first block takes up its input."""
        blocks = [unit for unit in units if not unit.leaf]
        if input_is_floating(self.probe):
            norms = [unit for unit in leading if unit.kind not in _RESHAPES]
            for unit in norms[:-1]:
                self.reasons[unit.name] = f"part of the input: read at the output of {norms[-1].label}"
            if norms:
                members, kinds = tuple(unit.name for unit in norms), " + ".join(unit.kind for unit in norms)
                return [Layer("input", norms[-1].name, norms[-1].index, "output", "input", members, kinds)]
            return [Layer("input", "", 0, "input", "input", (), "model input")]
        for unit in leading:
            self.reasons.setdefault(unit.name, "comes before the first block and has no weight matrix")
        embeddings = [
            unit
            for unit in units
            if unit.leaf and _has_weights(unit.module) and blocks and units.index(unit) < units.index(blocks[0])
        ]
        if blocks and embeddings:
            first = blocks[0]
            for unit in embeddings:
                self.reasons[unit.name] = f"embedding: read where {first.label} takes it up"
            taken = {unit.name for unit in embeddings}
            layers[:] = [layer for layer in layers if not taken & set(layer.members)]
            members = tuple(unit.name for unit in embeddings)
            return [Layer("embedding", first.name, first.index, "input", "input", members, "Embedding")]
        return []

    def _with_readout(self, layers: list[Layer], units: list[Call]) -> list[Layer]:
        """Mark the last layer as the read-out if it is one weight layer that gives the model's output."""
        last = layers[-1]
        calls = {(call.name, call.index): call for call in units}
        call = calls.get((last.module, last.call))
        if call is None or last.role == "input" or not call.leaf:
            return layers
        if call.output != self.root.output and call.result not in self.root.results:
            return layers
        return [*layers[:-1], dataclasses.replace(last, role="readout")]


def _has_weights(module: nn.Module) -> bool:
    if type(module).__name__ in _NORMS:
        return False
    return any(parameter.ndim >= 2 for parameter in module.parameters(recurse=False)) or isinstance(module, nn.RNNBase)


def _has_chain(call: Call) -> bool:
    """Tell whether a call runs, somewhere inside, a list of composite blocks of one class one after the other."""
    lists: dict[str, list[Call]] = {}
    for child in call.children:
        parent, _, key = child.name.rpartition(".")
        if not child.leaf and not child.sequential and parent != call.name and key:
            lists.setdefault(f"{parent} {child.kind}", []).append(child)
        if child.sequential:
            for inner in child.children:
                if not inner.leaf and not inner.sequential:
                    lists.setdefault(f"{child.name} {inner.kind}", []).append(inner)
    for members in lists.values():
        if len(members) >= 2 and len({member.source for member in members}) > 1:
            return True  # not all fed the same tensor, as parallel heads are
    return any(_has_chain(child) for child in call.children if not child.leaf)
