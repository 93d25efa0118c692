"""Modular addition as an animation: neurons choose a frequency and turn their phases, and the loss falls."""

import math
from typing import Any

import numpy as np
import xarray as xr

from learnmech.experiments import moving
from learnmech.experiments.kunin2025.modular_claims import template_names
from learnmech.experiments.kunin2025.modular_drawing import (
    TICKS,
    frequency_colours,
    neuron_frequencies,
    template_frequencies,
)
from learnmech.figures import FAINT, INK, SECOND

FRAMES = 80
_FIRST = 0.4
_LARGEST_DOT, _SMALLEST_DOT = 20.0, 3.0


def animate(history: xr.Dataset) -> str:
    """Make the animation as HTML that needs no network.

    Args:
        history: what the figure's run gave.

    Returns:
        An HTML fragment.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    run = shown_run(history)
    records = frame_records(run)
    figure = make_subplots(
        rows=2,
        cols=2,
        column_widths=[0.55, 0.45],
        horizontal_spacing=0.1,
        vertical_spacing=0.2,
        subplot_titles=(
            "each neuron: amplitude by frequency",
            "phases: s<sub>u</sub> + s<sub>v</sub> = s<sub>w</sub> + s<sub>x</sub> on the line",
            "loss and predicted staircase",
            "power of the output (rings: target)",
        ),
    )
    for trace, (row, column) in frame_traces(run, records[-1]):
        figure.add_trace(trace, row=row, col=column)
    _fixed(figure, run, go)
    amplitude = float(np.sqrt(run["power"].max()))
    count = int(np.isfinite(run["output_power"].isel(record=0)).sum())
    figure.update_xaxes(title={"text": "frequency k"}, range=[0.6, count + 0.4], dtick=1, row=1, col=1)
    figure.update_yaxes(title={"text": "amplitude"}, range=[-0.03 * amplitude, 1.08 * amplitude], row=1, col=1)
    turns = {"tickvals": [-math.pi, 0, math.pi], "ticktext": ["-π", "0", "π"], "range": [-3.5, 3.5]}
    figure.update_xaxes(title={"text": "phases: w"}, **turns, row=1, col=2)
    figure.update_yaxes(title={"text": "u + v − template"}, **turns, row=1, col=2)
    start, end = _FIRST * float(run["predicted_time"][0]), float(run["moment"].max())
    marks = {"tickvals": [mark for mark in TICKS if start <= mark <= end]}
    figure.update_xaxes(
        title={"text": "time"}, type="log", range=[math.log10(start), math.log10(end)], **marks, row=2, col=1
    )
    top = float(run["level"][0])
    figure.update_yaxes(title={"text": "loss"}, range=[-0.04 * top, 1.1 * top], row=2, col=1)
    target = 2 * float(run["part"].max())
    figure.update_xaxes(title={"text": "frequency k"}, range=[0.6, count + 0.4], dtick=1, row=2, col=2)
    figure.update_yaxes(title={"text": "power"}, range=[-0.04 * target, 1.12 * target], row=2, col=2)
    figure.update_xaxes(zeroline=False, gridcolor="#e9edf1")
    figure.update_yaxes(zeroline=False, gridcolor="#e9edf1")
    figure.update_layout(showlegend=False)
    names = frame_names(run, records)
    return moving.animate(
        figure,
        names,
        lambda frame: [trace for trace, _ in frame_traces(run, records[frame])],
        name="modular",
        height=620,
        duration=90,
    )


def shown_run(history: xr.Dataset) -> xr.Dataset:
    """Choose the run that is shown: the paper's template from seed 0.

    Args:
        history: what the figure's run gave.

    Returns:
        Its part.
    """
    return history.sel(encoding=template_names(history)[0]).isel(seed=0)


def frame_records(run: xr.Dataset) -> np.ndarray:
    """Choose the records of the frames: even in the logarithm of time and in the way that the loss went.

    Args:
        run: what is shown.

    Returns:
        Increasing indices, whose times have different names.
    """
    moments, losses = run["moment"].values, run["loss"].values
    inside = np.flatnonzero(moments >= _FIRST * float(run["predicted_time"][0]))
    clock = np.log(moments[inside])
    way = np.concatenate([[0.0], np.abs(np.diff(losses[inside])).cumsum()])
    place = (clock - clock[0]) / (clock[-1] - clock[0]) + way / way[-1]
    picked = inside[np.searchsorted(place, np.linspace(0, place[-1], FRAMES)).clip(max=len(inside) - 1)]
    names = frame_names(run, picked)
    return np.asarray(picked[[names.index(name) for name in dict.fromkeys(names)]])


def frame_names(run: xr.Dataset, records: np.ndarray) -> list[str]:
    """Write times as they stand at the slider.

    Args:
        run: what is shown.
        records: of the frames.

    Returns:
        One text each.
    """
    return [f"{moment:.2f}" for moment in run["moment"].values[records]]


def frame_traces(run: xr.Dataset, record: int) -> list[tuple[Any, tuple[int, int]]]:
    """Give what moves: amplitudes and phases of the neurons, the loss up to a time, and the spectrum of the output.

    Args:
        run: what is shown.
        record: the moment.

    Returns:
        Traces, with row and column.
    """
    import plotly.graph_objects as go

    colours = frequency_colours(run)
    frequencies, sizes = neuron_frequencies(run)
    count = sizes.shape[1]
    here = run.isel(record=record)
    amplitudes = np.sqrt(here["power"].values[:count])
    kept = np.isfinite(amplitudes[0])
    at = run["frequency"].values[kept].tolist()
    shades = [colours[int(k)] for k in frequencies[record]]
    traces: list[tuple[Any, tuple[int, int]]] = []
    for frequency, colour in colours.items():  # one trace for all neurons of a frequency, with gaps between them
        lines = amplitudes[frequencies[record] == frequency][:, kept].round(4).tolist()
        heights = [value for line in lines for value in (*line, None)]
        places = [value for _ in lines for value in (*at, None)]
        line = {"color": colour, "width": 1.8}
        traces.append((go.Scatter(x=places, y=heights, mode="lines", line=line, hoverinfo="skip"), (1, 1)))
    norms = np.sqrt(sizes[record] / sizes.max())
    traces.append(
        (
            go.Scatter(
                x=here["phase_last"].values[:count].round(3).tolist(),
                y=here["phase_sum"].values[:count].round(3).tolist(),
                mode="markers",
                marker={
                    "color": shades,
                    "size": (_SMALLEST_DOT + (_LARGEST_DOT - _SMALLEST_DOT) * norms).round(1).tolist(),
                    "opacity": 0.8,
                },
                hoverinfo="skip",
            ),
            (1, 2),
        )
    )
    until = slice(0, record + 1)
    traces.append(
        (
            go.Scatter(
                x=run["moment"].values[until][1:].round(3).tolist(),
                y=run["loss"].values[until][1:].round(4).tolist(),
                mode="lines",
                line={"color": SECOND, "width": 2.8},
                hoverinfo="skip",
            ),
            (2, 1),
        )
    )
    power = here["output_power"].values[kept]
    stems_x = [value for k in at for value in (k, k, None)]
    stems_y = [value for height in power.round(4).tolist() for value in (0.0, height, None)]
    traces.append(
        (go.Scatter(x=stems_x, y=stems_y, mode="lines", line={"color": INK, "width": 7}, hoverinfo="skip"), (2, 2))
    )
    return traces


def _fixed(figure: Any, run: xr.Dataset, go: Any) -> None:
    for turn in (-1, 0, 1):
        figure.add_trace(
            go.Scatter(
                x=[-math.pi, math.pi],
                y=[(2 * turn - 1) * math.pi, (2 * turn + 1) * math.pi],
                mode="lines",
                line={"color": FAINT, "width": 1},
                hoverinfo="skip",
            ),
            row=1,
            col=2,
        )
    times = run["predicted_time"].values
    times = times[np.isfinite(times)]
    levels = run["level"].values[: len(times) + 1]
    edges = [_FIRST * float(times[0]), *times.tolist(), float(run["moment"].max())]
    figure.add_trace(
        go.Scatter(
            x=edges,
            y=[*levels.tolist(), float(levels[-1])],
            mode="lines",
            line={"color": INK, "width": 1.3, "dash": "dash", "shape": "hv"},
            hoverinfo="skip",
        ),
        row=2,
        col=1,
    )
    colours = frequency_colours(run)
    at = template_frequencies(run)
    figure.add_trace(
        go.Scatter(
            x=at.tolist(),
            y=(2 * run["part"].sel(frequency=at).values).round(4).tolist(),
            mode="markers",
            marker={"symbol": "circle-open", "size": 15, "color": list(colours.values()), "line": {"width": 2.5}},
            hovertemplate="target %{y} at k = %{x}<extra></extra>",
        ),
        row=2,
        col=2,
    )
