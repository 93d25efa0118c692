"""Choosing layers: automatic blocks, or the user's names, globs or callable; every other module is listed with the reason."""

import dataclasses
import difflib
import re
from collections.abc import Sequence

from torch import nn

from learnmech.errors import InputError
from learnmech.monitor.automatic import AutomaticChoice
from learnmech.monitor.calls import TRACED_SAMPLES, Call, record_calls, walk
from learnmech.monitor.layers import Layer, LayerChoice, LayerSpec, Skipped, device_of
from learnmech.monitor.probe import Probe
from learnmech.monitor.tensors import begins_with
from learnmech.monitor.unwrap import eager_modules


def choose_layers(model: nn.Module, probe: Probe, layers: LayerSpec = "auto") -> LayerChoice:
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

    Returns:
        The chosen layers and the skipped modules.

    Raises:
        InputError: if a name matches nothing, or no layer can be read; the message lists the reasons.
    """
    root, checkpointed = record_calls(model, probe, device_of(model))
    scale = probe.labels_per_sample
    finder = AutomaticChoice(root, probe) if layers == "auto" else _ExplicitChoice(root, layers)
    chosen = finder.choose()
    reasons = finder.reasons
    readable: list[Layer] = []
    shapes = {(call.name, call.index): call for call in walk(root)}
    traced = min(TRACED_SAMPLES, probe.samples)
    for layer in chosen:
        call = shapes[layer.module, layer.call]
        shape = call.output if layer.side == "output" else call.inputs
        if shape is None:
            reasons[layer.module] = f"its {layer.side} holds no tensor of real numbers"
        elif not begins_with(shape, traced * scale):
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


def _fallback_reason(name: str, module: nn.Module, root: Call) -> str:
    if all(call.name != name for call in walk(root)):
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
        calls = [call for call in walk(self.root) if call is not self.root]
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
