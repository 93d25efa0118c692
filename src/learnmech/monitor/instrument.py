"""What an instrument is: it measures a probe, reads a history, draws figures. And the table of those there are."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import xarray as xr

from learnmech.errors import InputError
from learnmech.monitor.layers import LayerChoice
from learnmech.monitor.memory import ProbeMemory
from learnmech.monitor.probe import Probe
from learnmech.monitor.snapshot import Meter

Level = Literal["light", "standard", "full"]
Severity = Literal["good", "note", "warning", "problem", "unknown"]
Confidence = Literal["sure", "likely", "weak"]

# The only place where the monitor knows of theories, by name, imported when used. A new theory adds a line.
INSTRUMENTS: dict[str, str] = {
    "springs": "learnmech.springs.instrument:SpringInstrument",
    "speed": "learnmech.speed.instrument:SpeedInstrument",
    "leaky": "learnmech.leaky.instrument:LeakyInstrument",
    "regime": "learnmech.dynamics.regime_instrument:RegimeInstrument",
    "invariants": "learnmech.dynamics.invariants_instrument:InvariantsInstrument",
    "vitals": "learnmech.monitor.vitals:VitalsInstrument",
}
REPORT_WRITER = "learnmech.report.html:write_report"
PRESETS: dict[str, tuple[str, ...]] = {
    "light": ("springs", "vitals"),
    "standard": ("springs", "speed", "regime", "vitals"),
    "full": ("springs", "speed", "leaky", "regime", "invariants", "vitals"),
}


@dataclass(frozen=True)
class Variable:
    """What a measured quantity is.

    Attributes:
        dimensions: ``("layer",)`` for one number a layer, ``("parameter",)`` for one a parameter tensor (in the order of
            ``named_parameters``), ``()`` for one a probe; ``step`` is added in front.
        long_name: what it is, in words.
        scale: its units, or the scale on which to read it.
        source: paper and equation.
    """

    dimensions: tuple[str, ...]
    long_name: str
    scale: str
    source: str

    @property
    def attributes(self) -> dict[str, str]:
        """The attributes as a history holds them."""
        return {"long_name": self.long_name, "scale": self.scale, "source": self.source}


@dataclass(frozen=True)
class Finding:
    """One thing that an instrument reads in a history.

    Attributes:
        code: stable identifier, ``instrument.what``; its explanation stands in the docs under the same anchor.
        title: a few words.
        message: what it means, in a sentence or two.
        severity: ``good``, ``note``, ``warning``, ``problem``, or ``unknown`` if it could not be measured.
        evidence: the numbers that it rests on.
        confidence: ``sure``, ``likely`` or ``weak``.
        knobs: what to turn, most effective first; empty if nothing needs turning.
        layers: names of the layers concerned.
    """

    code: str
    title: str
    message: str
    severity: Severity
    evidence: str = ""
    confidence: Confidence = "likely"
    knobs: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """Where the docs explain this code."""
        return "verdict.html#" + self.code.replace(".", "-").replace("_", "-")


@dataclass(frozen=True)
class Figure:
    """A picture of a history.

    Attributes:
        name: stable identifier.
        title: what is shown.
        caption: how to read it.
        plot: a ``plotly.graph_objects.Figure``.
    """

    name: str
    title: str
    caption: str
    plot: Any


@runtime_checkable
class Instrument(Protocol):
    """Measures probes and reads histories; each theory brings one.

    Attributes:
        name: under which presets and histories know it.
        citations: keys of the works to cite, see :func:`learnmech.cite`.
        needs_backward: whether probes must differentiate.
        needs_updates: whether the displacement by the latest optimizer step is wanted.
        held_out: whether it can measure a held-out batch too (forward passes only).

    More is optional: ``columns``, the headings of those of its variables that tables show, by name; ``attributes``, a
    mapping of what a history should say about how it was measured; and ``memory``, see :class:`Remembering`.
    """

    name: str
    citations: tuple[str, ...]
    needs_backward: bool
    needs_updates: bool
    held_out: bool

    def variables(self) -> Mapping[str, Variable]:
        """Describe what :meth:`start`'s meters measure."""

    def start(self, probe: Probe, layers: LayerChoice) -> Meter:
        """Begin one probe."""

    def read(self, history: xr.Dataset) -> Sequence[Finding]:
        """Say what a history means."""

    def figures(self, history: xr.Dataset) -> Sequence[Figure]:
        """Draw a history."""


@runtime_checkable
class Remembering(Protocol):
    """An instrument that compares with earlier probes, and so has something to remember when a run is taken up again.

    Attributes:
        name: of the instrument.
        memory: what later probes need.
    """

    name: str
    memory: ProbeMemory[Any]


@dataclass(frozen=True)
class InstrumentSet:
    """The instruments of one monitor.

    Attributes:
        name: the preset, or the names joined.
        instruments: in the order in which they are read.
    """

    name: str
    instruments: tuple[Instrument, ...] = field(default_factory=tuple)

    @property
    def needs_backward(self) -> bool:
        """Whether any instrument needs the backward pass."""
        return any(instrument.needs_backward for instrument in self.instruments)

    @property
    def needs_updates(self) -> bool:
        """Whether any instrument needs the displacement by the latest step."""
        return any(instrument.needs_updates for instrument in self.instruments)


def load_object(path: str) -> Any:
    """Import an object by ``module:name``.

    Args:
        path: where it stands.

    Returns:
        The object.
    """
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def make_instrument(name: str, level: Level = "full") -> Instrument:
    """Make a known instrument.

    Args:
        name: one of the table.
        level: how much it shall measure; everything it can, unless a preset asks for less.

    Returns:
        The instrument.

    Raises:
        InputError: for an unknown name.
    """
    if name not in INSTRUMENTS:
        raise InputError(
            f"unknown measure {name!r}: expected a preset ({', '.join(PRESETS)}), an instrument "
            f"({', '.join(INSTRUMENTS)}) or an object with its methods."
        )
    instrument: Instrument = load_object(INSTRUMENTS[name])(level=level)
    return instrument


def make_instruments(measures: str | Sequence[str | Instrument]) -> InstrumentSet:
    """Make the instruments that the user asks for.

    Args:
        measures: a preset, an instrument's name, or several names and objects.

    Returns:
        The set.

    Raises:
        InputError: for unknown names, none at all, or two instruments that measure a variable of the same name.
    """
    if isinstance(measures, str) and measures in PRESETS:
        level: Level = measures  # type: ignore[assignment]
        chosen = [make_instrument(name, level) for name in PRESETS[measures]]
        name = measures
    else:
        wanted = [measures] if isinstance(measures, str) else list(measures)
        chosen = [make_instrument(item) if isinstance(item, str) else item for item in wanted]
        for item in chosen:
            if not isinstance(item, Instrument):
                raise InputError(
                    f"{type(item).__name__} is not an instrument: it lacks some of its attributes or methods."
                )
        name = "+".join(item.name for item in chosen)
    if not chosen:
        raise InputError(f"measures is empty: name a preset ({', '.join(PRESETS)}) or instruments.")
    owners: dict[str, str] = {}
    for instrument in chosen:
        for variable in instrument.variables():
            if variable in owners:
                raise InputError(f"both {owners[variable]!r} and {instrument.name!r} measure {variable!r}.")
            owners[variable] = instrument.name
    return InstrumentSet(name, tuple(chosen))
