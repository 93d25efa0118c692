"""Watching a training run: which layers to read, the probe pass, instruments, verdict and sinks."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learnmech.monitor.choice import choose_layers
    from learnmech.monitor.instrument import Figure, Finding, Instrument, Variable
    from learnmech.monitor.layers import Layer, LayerChoice, Skipped
    from learnmech.monitor.monitor import Monitor, watch
    from learnmech.monitor.probe import Probe
    from learnmech.monitor.sinks import CsvSink, JsonLinesSink
    from learnmech.monitor.snapshot import Chunk, Meter, Snapshot
    from learnmech.monitor.verdict import Verdict

_OBJECTS = {
    "Chunk": "snapshot",
    "CsvSink": "sinks",
    "Figure": "instrument",
    "Finding": "instrument",
    "Instrument": "instrument",
    "JsonLinesSink": "sinks",
    "Layer": "layers",
    "LayerChoice": "layers",
    "Meter": "snapshot",
    "Monitor": "monitor",
    "Probe": "probe",
    "Skipped": "layers",
    "Snapshot": "snapshot",
    "Variable": "instrument",
    "Verdict": "verdict",
    "choose_layers": "choice",
    "watch": "monitor",
}

__all__ = [
    "Chunk",
    "CsvSink",
    "Figure",
    "Finding",
    "Instrument",
    "JsonLinesSink",
    "Layer",
    "LayerChoice",
    "Meter",
    "Monitor",
    "Probe",
    "Skipped",
    "Snapshot",
    "Variable",
    "Verdict",
    "choose_layers",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name in _OBJECTS:
        return getattr(importlib.import_module(f"learnmech.monitor.{_OBJECTS[name]}"), name)
    raise AttributeError(f"module 'learnmech.monitor' has no attribute {name!r}")
