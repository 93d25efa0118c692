"""Assembling the report from what the instruments say: verdict, figures, table, configuration, citations."""

import html
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from learnmech import __version__
from learnmech.citation import cite
from learnmech.figures import ACCENT, INK, SECOND, make_figure
from learnmech.files import write_atomically
from learnmech.monitor.instrument import Figure, Finding, Instrument
from learnmech.monitor.verdict import Verdict, format_number, instruments_of, read_verdict

_PLOT_SETTINGS = {"responsive": True, "displayModeBar": False}


def write_report(
    history: xr.Dataset, path: str | Path, *, instruments: Sequence[Instrument] | None = None, title: str | None = None
) -> Path:
    """Write the report of a run as one HTML file.

    Args:
        history: a history of ``watch``.
        path: where to; written in one step.
        instruments: who reads it; those that measured it if not given.
        title: heading; made from the configuration if not given.

    Returns:
        The path written.
    """
    return write_atomically(path, render_report(history, instruments=instruments, title=title))


def render_report(
    history: xr.Dataset, *, instruments: Sequence[Instrument] | None = None, title: str | None = None
) -> str:
    """Make the HTML text of a report. Every name that comes from a model or a file is escaped.

    Args:
        history: a history of ``watch``.
        instruments: who reads it; those that measured it if not given.
        title: heading; made from the configuration if not given.

    Returns:
        A complete HTML page with everything inside.
    """
    from plotly.offline import get_plotlyjs

    instruments = instruments_of(history) if instruments is None else instruments
    verdict = read_verdict(history, instruments)
    figures = [figure for instrument in instruments for figure in instrument.figures(history)]
    figures.insert(min(3, len(figures)), _draw_loss(history))
    config = json.loads(history.attrs["config"])
    style = resources.files("learnmech.report").joinpath("style.css").read_text(encoding="utf-8")
    heading = title or _heading(config)
    body = "\n".join(
        [
            f"<header><h1>{html.escape(heading)}</h1>{_summary(history, verdict)}</header>",
            _section("verdict", "Verdict", "\n".join(_finding(finding) for finding in verdict.findings)),
            *(_figure(figure) for figure in figures),
            _section("layers", "Layer by layer", _table(history, verdict)),
            _section("settings", "Settings", _settings(history, config)),
            _section("cite", "How to cite", f"<pre>{html.escape(cite(history))}</pre>"),
            f"<footer>Made by learnmech {html.escape(__version__)}. One file, no network needed.</footer>",
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(heading)}</title><style>{style}</style>"
        f"<script>{get_plotlyjs()}</script></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def _heading(config: dict[str, Any]) -> str:
    model = config.get("model", {}).get("class", "model")
    data = config.get("data")
    return f"{model} on {data}" if data else f"{model} in training"


def _section(name: str, title: str, content: str) -> str:
    return f'<section id="{name}"><h2>{html.escape(title)}</h2>\n{content}\n</section>'


def _summary(history: xr.Dataset, verdict: Verdict) -> str:
    last = history.isel(step=-1)
    regime = next((f for f in verdict.findings if f.code.startswith("springs.regime.")), None)
    facts: list[tuple[str, str, str]] = [
        ("regime of the load curve", verdict.regime, regime.severity if regime else "unknown")
    ]
    for name, label in (
        ("accuracy_held_out", "accuracy, held out"),
        ("accuracy", "accuracy, probe"),
        ("curvature", "curvature q"),
        ("linearity", "linearity R²"),
        ("loss", "loss, probe"),
    ):
        if name in last and np.isfinite(float(last[name])):
            facts.append((label, _fact(name, float(last[name])), ""))
    facts.append(("optimizer steps", str(verdict.step), ""))
    run = float(history.attrs.get("run_seconds", 0))
    if run > 0:
        facts.append(("share of time spent measuring", f"{float(history.attrs['probe_seconds']) / run:.0%}", ""))
    cells = "".join(
        f'<div class="fact {severity}"><b>{html.escape(value)}</b><span>{html.escape(label)}</span></div>'
        for label, value, severity in facts
    )
    return f'<div class="facts">{cells}</div>'


def _fact(name: str, value: float) -> str:
    if name.startswith("accuracy"):
        return f"{value:.1%}"
    return f"{value:+.2f}" if name == "curvature" else f"{value:.3g}"


def _finding(finding: Finding) -> str:
    knobs = "".join(f"<li>{html.escape(knob)}</li>" for knob in finding.knobs)
    knobs = f"<p>Knobs, most effective first:</p><ul>{knobs}</ul>" if knobs else ""
    evidence = f"<p class='evidence'>Evidence: {html.escape(finding.evidence)}</p>" if finding.evidence else ""
    return (
        f'<article class="finding {finding.severity}"><h3>{html.escape(finding.title)}'
        f" <small>{html.escape(finding.confidence)}</small></h3>"
        f"<p>{html.escape(finding.message)}</p>{evidence}{knobs}<code>{html.escape(finding.code)}</code></article>"
    )


def _figure(figure: Figure) -> str:
    plot = figure.plot.to_html(
        full_html=False, include_plotlyjs=False, config=_PLOT_SETTINGS, div_id=f"plot-{figure.name}"
    )
    return _section(
        figure.name, figure.title, f'<p class="caption">{html.escape(figure.caption)}</p><div class="plot">{plot}</div>'
    )


def _draw_loss(history: xr.Dataset) -> Figure:
    plot = make_figure("optimizer step", "loss", height=320)
    steps = history["step"].values
    positive = True
    for name, label, colour in (("loss", "probe", ACCENT), ("loss_held_out", "held out", SECOND)):
        if name in history:
            values = history[name].values
            positive = positive and bool(np.all(values[np.isfinite(values)] > 0))
            shown = [float(value) if np.isfinite(value) else None for value in values]
            plot.add_scatter(x=steps, y=shown, name=label, mode="lines+markers", line={"color": colour})
    if positive:
        plot.update_yaxes(type="log", exponentformat="power", dtick=1)
    plot.update_layout(font={"color": INK})
    return Figure("loss", "Loss", "In evaluation mode, on the fixed probe batch and on held-out data.", plot)


def _table(history: xr.Dataset, verdict: Verdict) -> str:
    hints = {
        key: f"{history[key].attrs.get('long_name', '')}. {history[key].attrs.get('scale', '')}"
        for key in verdict.columns
    }
    head = "<th>layer</th><th>holds</th>" + "".join(
        f'<th title="{html.escape(hints[key], quote=True)}">{html.escape(heading)}</th>'
        for key, heading in verdict.columns.items()
    )
    kinds = history["kinds"].values if "kinds" in history.coords else [""] * len(verdict.table)
    rows = []
    for row, kind in zip(verdict.table, kinds, strict=True):
        cells = "".join(f"<td>{html.escape(format_number(row.get(key)))}</td>" for key in verdict.columns)
        rows.append(
            f'<tr class="{html.escape(str(row["role"]), quote=True)}"><th>{html.escape(str(row["layer"]))}</th>'
            f"<td class='kind'>{html.escape(str(kind))}</td>{cells}</tr>"
        )
    skipped = json.loads(history.attrs.get("skipped", "[]"))
    listing = "".join(f"<li>{html.escape(str(item))}</li>" for item in skipped)
    note = (
        f"<details><summary>{len(skipped)} modules not read on their own, and why</summary><ul>{listing}</ul></details>"
    )
    table = f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    return f"<p class='caption'>At step {verdict.step}.</p>{table}{note if skipped else ''}"


def _settings(history: xr.Dataset, config: dict[str, Any]) -> str:
    rows = [(key, value) for key, value in config.items() if not isinstance(value, dict)]
    for key, value in config.items():
        if isinstance(value, dict):
            rows += [(f"{key}: {inner}", item) for inner, item in value.items()]
    for key in ("learnmech_version", "data_fingerprint", "config_fingerprint"):
        if key in history.attrs:
            rows.append((key.replace("_", " "), history.attrs[key]))
    for failure in json.loads(history.attrs.get("failures", "[]")):
        rows.append(("failed probe", failure))
    cells = "".join(
        f"<tr><th>{html.escape(str(key).replace('_', ' '))}</th><td>{html.escape(_value(value))}</td></tr>"
        for key, value in rows
    )
    return f"<div class='scroll'><table class='settings'><tbody>{cells}</tbody></table></div>"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value) or "none"
    return "none" if value is None or value == "" else f"{value:g}" if isinstance(value, float) else str(value)
