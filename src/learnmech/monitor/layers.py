"""Which layers are read: automatic blocks, or the user's choice; every other module is listed with the reason."""

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from learnmech.errors import InputError
from learnmech.monitor.calls import TRACED_SAMPLES, Call, input_is_floating, record_calls
from learnmech.monitor.probe import Probe
from learnmech.monitor.unwrap import eager_modules

LayerSpec = str | Sequence[str] | Callable[[str, nn.Module], bool]
Role = Literal["input", "block", "readout"]

_NORMS = (
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm", "LayerNorm", "GroupNorm", "RMSNorm",
    "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "LocalResponseNorm",
)  # fmt: skip
_RESHAPES = ("Flatten", "Unflatten", "Identity", "PixelShuffle", "PixelUnshuffle", "ChannelShuffle")


@dataclass(frozen=True)
class Layer:
    """One point of the network where features are read.

    Attributes:
        name: what tables and histories call it; unique.
        module: name of the module that is read; empty for the model itself.
        call: which call of that module in one forward pass, from 0.
        side: whether its output or its input is read.
        role: ``input`` (what the first block gets), ``block``, or ``readout`` (gives the model's output).
        members: names of the modules counted to this layer: their parameters are the layer's parameters.
        kinds: classes of those modules, for people.
    """

    name: str
    module: str
    call: int = 0
    side: Literal["output", "input"] = "output"
    role: Role = "block"
    members: tuple[str, ...] = ()
    kinds: str = ""


@dataclass(frozen=True)
class Skipped:
    """A module that is not read, and why.

    Attributes:
        name: the module's name.
        kind: its class.
        reason: why it is not read on its own.
    """

    name: str
    kind: str
    reason: str


@dataclass(frozen=True)
class LayerChoice:
    """The layers that are read, in order of depth, and the modules that are not.

    Attributes:
        layers: at least one.
        skipped: every other module of the model.
        checkpointed: whether parts of the model run under re-entrant activation checkpoints.
    """

    layers: tuple[Layer, ...]
    skipped: tuple[Skipped, ...]
    checkpointed: bool = False

    @property
    def names(self) -> list[str]:
        """Names of the layers in order."""
        return [layer.name for layer in self.layers]

    @property
    def depths(self) -> list[float]:
        """Position of each layer from 0 (first) to 1 (last)."""
        last = max(len(self.layers) - 1, 1)
        return [position / last for position in range(len(self.layers))]

    def parameters(self, model: nn.Module) -> dict[str, list[str]]:
        """Assign parameters to layers.

        Args:
            model: the eager model.

        Returns:
            Layer name to parameter names. A parameter shared by several layers (tied, reused) is listed at each of them.
        """
        shared = {
            id(parameter): name for name, parameter in model.named_parameters()
        }  # the first name of each tensor, as named_parameters gives it
        modules = eager_modules(model)
        return {
            layer.name: list(
                dict.fromkeys(
                    shared[id(parameter)] for member in layer.members for parameter in modules[member].parameters()
                )
            )
            for layer in self.layers
        }

    def __str__(self) -> str:
        rows = [("layer", "role", "read at", "holds")]
        for layer in self.layers:
            at = f"{layer.side} of {layer.module or 'the model'}" + (f", call {layer.call + 1}" if layer.call else "")
            rows.append((layer.name, layer.role, at, layer.kinds))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        if self.skipped:
            lines += ["", "not read on their own:"]
            lines += [f"  {skipped.name} ({skipped.kind}): {skipped.reason}" for skipped in self.skipped]
        return "\n".join(lines)


@dataclass
class _Group:
    """Leaf calls that make one layer: weights, then normalisation, activation, pooling."""

    first: Call
    last: Call
    members: list[Call] = field(default_factory=list)


def choose_layers(
    model: nn.Module, probe: Probe, layers: LayerSpec = "auto", device: torch.device | None = None
) -> LayerChoice:
    """Choose the layers to read by running the model once and following its calls.

    ``auto`` reads the input, then every block, then the read-out. A block is a composite module of a chain (the elements of
    a ModuleList or Sequential that follow one another: transformer, residual and other custom blocks), or a weight layer
    together with the normalisation, activation and pooling behind it, read before dropout. A module called several times is
    read at each call (``name``, ``name#2``, ...).

    Args:
        model: the eager model, see :func:`learnmech.monitor.unwrap.unwrap`.
        probe: a batch to run it on.
        layers: ``auto``; a module name or glob or several (``*`` stays within one level, so that ``blocks.*`` are the blocks
            and not their parts; ``**`` goes across); or a callable ``(name, module) -> bool``.
        device: where the model lives.

    Returns:
        The chosen layers and the skipped modules.

    Raises:
        InputError: if a name matches nothing, or no layer can be read; the message lists the reasons.
    """
    root, checkpointed = record_calls(model, probe, device or device_of(model))
    labels = probe.samples * probe.labels_per_sample
    scale = labels // probe.samples
    finder = _AutomaticChoice(root, probe) if layers == "auto" else _ExplicitChoice(root, layers)
    chosen = finder.choose()
    reasons = finder.reasons
    readable: list[Layer] = []
    shapes = {(call.name, call.index): call for call in _walk(root)}
    traced = min(TRACED_SAMPLES, probe.samples)
    for layer in chosen:
        call = shapes[layer.module, layer.call]
        shape = call.output if layer.side == "output" else call.inputs
        if shape is None:
            reasons[layer.module] = f"its {layer.side} holds no tensor of real numbers"
        elif not _holds_samples(shape, traced * scale):
            reasons[layer.module] = (
                f"its {layer.side} has shape {shape}, which does not begin with the {traced * scale} "
                + ("samples it was given" if scale == 1 else f"labels of the {traced} samples it was given")
            )
        else:
            readable.append(layer)
    skipped = tuple(
        Skipped(name, type(module).__name__, reasons.get(name) or _fallback_reason(name, module, root))
        for name, module in eager_modules(model).items()
        if name and name not in {layer.module for layer in readable}
    )
    if all(layer.role == "input" for layer in readable):
        listing = (
            "\n".join(f"  {skip.name} ({skip.kind}): {skip.reason}" for skip in skipped) or "  it has no sub-modules"
        )
        raise InputError(
            f"no layer of {type(model).__name__} can be read:\n{listing}\nName the layers yourself, "
            "layers=['name', ...], or give labels of another shape, labels=... (one a sample, or one a token)."
        )
    return LayerChoice(tuple(_with_unique_names(readable)), skipped, checkpointed)


def _with_unique_names(layers: Sequence[Layer]) -> list[Layer]:
    """Rename the input where a module of the model has that name too."""
    blocks = {layer.name for layer in layers if layer.role != "input"}
    renamed = []
    for layer in layers:
        name = layer.name
        while layer.role == "input" and name in blocks:
            name = f"({name})"
        renamed.append(dataclasses.replace(layer, name=name))
    return renamed


def device_of(model: nn.Module) -> torch.device:
    """Find where a model lives.

    Args:
        model: any module.

    Returns:
        The device of its first parameter or buffer; the CPU if it has none.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def _holds_samples(shape: tuple[int, ...], samples: int) -> bool:
    count = 1
    for length in shape:
        count *= length
        if count == samples:
            return True
    return False


def _walk(call: Call) -> Iterable[Call]:
    yield call
    for child in call.children:
        yield from _walk(child)


def _fallback_reason(name: str, module: nn.Module, root: Call) -> str:
    if all(call.name != name for call in _walk(root)):
        if isinstance(module, nn.ModuleList | nn.ModuleDict | nn.ParameterList | nn.ParameterDict):
            return "a container that is not called itself"
        return "not called in the forward pass"
    return "not chosen"


class _ExplicitChoice:
    """The layers that the user names."""

    def __init__(self, root: Call, spec: LayerSpec) -> None:
        self.root, self.spec = root, spec
        self.reasons: dict[str, str] = {}

    def choose(self) -> list[Layer]:
        calls = [call for call in _walk(self.root) if call is not self.root]
        names = {call.name for call in calls}
        wanted = self._wanted(calls, names)
        chosen = _in_order_of_completion(self.root, wanted)
        layers = []
        for call in chosen:
            last = call is chosen[-1] and call.result in self.root.results
            layers.append(
                Layer(
                    call.label, call.name, call.index, "output", "readout" if last else "block", (call.name,), call.kind
                )
            )
        for name in names - wanted:
            self.reasons[name] = "not among the layers asked for"
        return layers

    def _wanted(self, calls: list[Call], names: set[str]) -> set[str]:
        if callable(self.spec):
            wanted = {call.name for call in calls if self.spec(call.name, call.module)}
            if not wanted:
                raise InputError("the callable given as layers= chose none of: " + ", ".join(sorted(names)))
            return wanted
        wanted = set()
        for pattern in [self.spec] if isinstance(self.spec, str) else self.spec:
            glob = _glob(pattern)
            matched = {name for name in names if name == pattern or glob.fullmatch(name)}
            if not matched:
                near = difflib.get_close_matches(pattern, names, n=5, cutoff=0.3) or sorted(names)[:10]
                raise InputError(
                    f"layers={pattern!r} matches no module called in the forward pass; similar names: {', '.join(near)}."
                )
            wanted |= matched
        return wanted


def _glob(pattern: str) -> re.Pattern[str]:
    """Translate a glob in which ``*`` and ``?`` stay within one level of names and ``**`` goes across levels."""
    parts = {"**": r".*", "*": r"[^.]*", "?": r"[^.]"}
    return re.compile("".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*|\?)", pattern)))


def _in_order_of_completion(root: Call, names: set[str]) -> list[Call]:
    done: list[Call] = []

    def visit(call: Call) -> None:
        for child in call.children:
            visit(child)
        if call.name in names and call is not root:
            done.append(call)

    visit(root)
    return done


class _AutomaticChoice:
    """The automatic blocks: units of the main chain, leaf calls gathered into groups."""

    def __init__(self, root: Call, probe: Probe) -> None:
        self.root, self.probe = root, probe
        self.reasons: dict[str, str] = {}

    def choose(self) -> list[Layer]:
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
        for inner in _walk(call):
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
            call for call in _walk(self.root) if call.name == parent and call.sequential and call is not self.root
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
