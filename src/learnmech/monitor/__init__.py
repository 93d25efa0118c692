"""Watching a training run: which layers to read, the probe pass, instruments, verdict and sinks."""

from typing import TYPE_CHECKING

from learnmech.lazy import lazy_names

if TYPE_CHECKING:
    from learnmech.monitor.choice import choose_layers
    from learnmech.monitor.instrument import Figure, Finding, Instrument, Variable
    from learnmech.monitor.layers import Layer, LayerChoice, Skipped
    from learnmech.monitor.monitor import Monitor, watch
    from learnmech.monitor.probe import Probe
    from learnmech.monitor.sinks import CsvSink, JsonLinesSink
    from learnmech.monitor.snapshot import Chunk, Meter, Snapshot
    from learnmech.monitor.verdict import Verdict

__getattr__, __dir__ = lazy_names(
    __name__,
    {
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
    },
)

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
