"""The verdict: what all instruments read in a history, as one text and one table."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from learnmech.history import latest
from learnmech.monitor.instrument import INSTRUMENTS, Finding, Instrument, make_instrument

_ORDER = {"problem": 0, "warning": 1, "unknown": 2, "good": 3, "note": 4}
_MARKS = {"problem": "!!", "warning": "! ", "unknown": "? ", "good": "ok", "note": "- "}


@dataclass(frozen=True)
class Verdict:
    """What a history says about a run.

    Attributes:
        findings: gravest first; within one gravity in the order of the instruments.
        table: one row a layer: name, role and the latest measured value of each per-layer variable that an instrument shows.
        columns: heading of each table column that is not ``layer`` or ``role``, by key.
        step: the step that the table belongs to.
    """

    findings: tuple[Finding, ...]
    table: tuple[dict[str, Any], ...]
    columns: dict[str, str]
    step: int

    @property
    def regime(self) -> str:
        """The regime of the load curve, or ``not measurable``."""
        for finding in self.findings:
            if finding.code.startswith("springs.regime."):
                return finding.title
        return "not measurable"

    def to_dict(self) -> dict[str, Any]:
        """Give the verdict as plain values, ready for JSON.

        Returns:
            Regime, step, findings and table.
        """
        return {
            "regime": self.regime,
            "step": self.step,
            "findings": [
                {
                    **finding.__dict__,
                    "knobs": list(finding.knobs),
                    "layers": list(finding.layers),
                    "docs": finding.anchor,
                }
                for finding in self.findings
            ],
            "table": [dict(row) for row in self.table],
        }

    def __str__(self) -> str:
        lines = [f"learnmech verdict at step {self.step}", "", *self._table_lines(), ""]
        for finding in self.findings:
            lines.append(f"{_MARKS[finding.severity]} {finding.title}  [{finding.code}, {finding.confidence}]")
            lines += _wrapped(finding.message)
            if finding.evidence:
                lines += _wrapped(f"evidence: {finding.evidence}")
            for position, knob in enumerate(finding.knobs):
                lines.append(f"   {'turn: ' if position == 0 else '      '}{knob}")
        if self.findings:
            lines += ["", "   what the codes mean, and when they mislead: docs/verdict.md"]
        return "\n".join(lines)

    def _table_lines(self) -> list[str]:
        header = ["layer", *self.columns.values()]
        rows = [[str(row["layer"]), *(format_number(row.get(key)) for key in self.columns)] for row in self.table]
        widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
        return [
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in [header, *rows]
        ]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, width=108, initial_indent="   ", subsequent_indent="   ")


def format_number(value: Any) -> str:
    """Write a table entry in few characters.

    Args:
        value: a number, text, or None.

    Returns:
        Text; a dash for what is missing or NaN.
    """
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    if isinstance(value, float):
        if value == 0 or 1e-2 <= abs(value) < 1e4:
            return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
        return f"{value:.1e}" if np.isfinite(value) else str(value)
    return str(value)


def instruments_of(history: xr.Dataset) -> list[Instrument]:
    """Find the instruments that measured a history, so that a stored one can be read again.

    Args:
        history: a history of ``watch``.

    Returns:
        Instruments in their order; those of the user's own making, unknown here, are left out.
    """
    names = json.loads(history.attrs.get("instruments", "[]"))
    return [make_instrument(name) for name in names if name in INSTRUMENTS]


def read_verdict(history: xr.Dataset, instruments: Sequence[Instrument] | None = None) -> Verdict:
    """Read a history.

    Args:
        history: a history with a ``step`` dimension.
        instruments: who reads it; those that measured it if not given.

    Returns:
        The verdict at the last step.
    """
    instruments = instruments_of(history) if instruments is None else instruments
    findings = [finding for instrument in instruments for finding in instrument.read(history)]
    findings.sort(key=lambda finding: (not finding.code.startswith("springs.regime."), _ORDER[finding.severity]))
    columns: dict[str, str] = {}
    for instrument in instruments:
        columns.update(getattr(instrument, "columns", {}))
    columns = {key: heading for key, heading in columns.items() if key in history}
    last = {key: latest(history, key).values for key in columns}
    table = []
    for position, name in enumerate(history["layer"].values):
        row: dict[str, Any] = {"layer": str(name), "role": str(history["role"].values[position])}
        row.update({key: float(last[key][position]) for key in columns})
        table.append(row)
    return Verdict(tuple(findings), tuple(table), columns, int(history["step"].values[-1]))
