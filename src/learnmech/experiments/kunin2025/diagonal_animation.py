"""Diagonal networks as an animation: the point in the plane beside its accumulated utilities and its loss."""

import math
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from learnmech.experiments import moving
from learnmech.experiments.kunin2025.diagonal_drawing import COORDINATES, loss_grid, scale_name
from learnmech.experiments.kunin2025.diagonal_measuring import two_coordinates
from learnmech.figures import FAINT, INK

FRAMES = 80
_TRAIL = 240
"""Most points of a path: every frame holds all that lie behind it."""
_SMALL, _LARGE = -36.8, -0.7
_WIDE = "#d98e04"
_LOWEST = 1e-6


def animate(history: xr.Dataset) -> str:
    """Make the animation as HTML that needs no network.

    Args:
        history: what the figure's run gave.

    Returns:
        An HTML fragment.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    moments = frame_moments(history)
    last = len(moments) - 1
    figure = make_subplots(
        rows=2,
        cols=2,
        specs=[[{"rowspan": 2}, {}], [None, {}]],
        column_widths=[0.48, 0.52],
        horizontal_spacing=0.1,
        vertical_spacing=0.16,
        subplot_titles=(
            "coefficients over contours of the loss",
            "accumulated utility S",
            "loss and predicted staircase",
        ),
    )
    for trace, (row, column) in frame_traces(history, moments[last]):
        figure.add_trace(trace, row=row, col=column)
    first, second, losses = loss_grid(history, 2)
    rings = contour_rings(np.geomspace(0.01, float(losses.max()), 14))
    figure.add_trace(
        go.Scatter(
            **_line(rings), line={"color": FAINT, "width": 0.7}, mode="lines", hoverinfo="skip", showlegend=False
        ),
        row=1,
        col=1,
    )
    saddles = history["saddle"].values
    figure.add_trace(
        go.Scatter(
            x=saddles[:, 0].round(4),
            y=saddles[:, 1].round(4),
            mode="markers+text",
            text=[str(number) for number in range(len(saddles))],
            textposition="top right",
            marker={"size": 9, "color": "#ffffff", "line": {"color": INK, "width": 1.4}},
            name="predicted saddles",
            hovertemplate="(%{x}, %{y})<extra></extra>",
        ),
        row=1,
        col=1,
    )
    _fixed(figure, history, go)
    top = float(history["moment"].isel(scale=_position(history, _SMALL)).max())
    figure.update_xaxes(
        title={"text": "β<sub>1</sub>"}, zeroline=True, zerolinecolor=FAINT, showgrid=False, row=1, col=1
    )
    figure.update_xaxes(range=[float(first[0]), float(first[-1])], row=1, col=1)
    figure.update_yaxes(
        title={"text": "β<sub>2</sub>"}, zeroline=True, zerolinecolor=FAINT, showgrid=False, row=1, col=1
    )
    figure.update_yaxes(range=[float(second[0]), float(second[-1])], row=1, col=1)
    for row in (1, 2):
        figure.update_xaxes(range=[0, top], zeroline=False, gridcolor="#e9edf1", row=row, col=2)
    figure.update_xaxes(title={"text": "time / -log α"}, row=2, col=2)
    figure.update_yaxes(range=[-1.3, 1.3], tickvals=[-1, 0, 1], zeroline=False, gridcolor="#e9edf1", row=1, col=2)
    figure.update_yaxes(type="log", range=[-2.3, 0.6], tickvals=[0.01, 0.1, 1], gridcolor="#e9edf1", row=2, col=2)
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1.16, "yanchor": "bottom"})
    return moving.animate(
        figure,
        frame_names(moments),
        lambda frame: [trace for trace, _ in frame_traces(history, moments[frame])],
        name="diagonal",
        prefix="time / -log α ",
        height=560,
        duration=90,
    )


def contour_rings(levels: Float[np.ndarray, " levels"]) -> Float[np.ndarray, "points two"]:
    """Give contours of the loss in the plane, which are ellipses.

    Args:
        levels: of the loss, positive.

    Returns:
        Points, with a gap that is not a number after each contour.
    """
    inputs, values = two_coordinates()
    angle = np.linspace(0, 2 * math.pi, 181)
    circle = np.linalg.solve(inputs, np.stack([np.cos(angle), np.sin(angle)])).T
    centre, gap = np.linalg.solve(inputs, values), np.full((1, 2), math.nan)
    return np.concatenate(
        [part for level in levels for part in (centre + math.sqrt(2 * len(values) * level) * circle, gap)]
    )


def _fixed(figure: Any, history: xr.Dataset, go: Any) -> None:
    levels = history["expected_level"].values
    dashed = {"color": INK, "width": 1.2, "dash": "dash"}
    times = np.concatenate([[0.0], history["expected_time"].values])
    for coordinate in range(history.sizes["coordinate"]):
        places = history["expected_accumulated"].values[:, coordinate]
        figure.add_trace(go.Scatter(x=times, y=places, line=dashed, mode="lines", showlegend=False), row=1, col=2)
    end = float(history["moment"].isel(scale=_position(history, _SMALL)).max())
    figure.add_trace(
        go.Scatter(
            x=np.append(times, end),
            y=np.maximum(np.append(levels, levels[-1]), _LOWEST),
            line={**dashed, "shape": "hv"},
            mode="lines",
            name="predicted",
        ),
        row=2,
        col=2,
    )


def frame_moments(history: xr.Dataset) -> np.ndarray:
    """Choose the times of the frames: as the records of the small start lie, which is denser where it moves.

    Args:
        history: what the figure's run gave.

    Returns:
        Increasing times, with different names.
    """
    moments = history["moment"].isel(scale=_position(history, _SMALL)).values
    chosen = moments[np.linspace(0, len(moments) - 1, FRAMES).round().astype(int)]
    names = frame_names(chosen)
    return np.asarray(chosen[[names.index(name) for name in dict.fromkeys(names)]])


def frame_names(moments: np.ndarray) -> list[str]:
    """Write times as they stand at the slider.

    Args:
        moments: times.

    Returns:
        One text each.
    """
    return [f"{moment:.4f}" for moment in moments]


def frame_traces(history: xr.Dataset, moment: float) -> list[tuple[Any, tuple[int, int]]]:
    """Give what moves: both paths up to a time, and the curves of the small start.

    Args:
        history: what the figure's run gave.
        moment: the time.

    Returns:
        Traces, with row and column.
    """
    import plotly.graph_objects as go

    traces: list[tuple[Any, tuple[int, int]]] = []
    for log_scale, colour, width in ((_LARGE, _WIDE, 2.0), (_SMALL, INK, 2.8)):
        run = history.isel(scale=_position(history, log_scale))
        times, beta, _, _ = _until(run, moment)
        name = f"α = {scale_name(float(run['scale']), 'e<sup>{}</sup>')}"
        line = {"color": colour, "width": width}
        traces.append((go.Scatter(**_line(beta), line=line, mode="lines", name=name), (1, 1)))
        dot = {"color": colour, "size": 12}
        traces.append((go.Scatter(**_line(beta[-1:]), marker=dot, mode="markers", showlegend=False), (1, 1)))
    run = history.isel(scale=_position(history, _SMALL))
    times, _, utilities, losses = _until(run, moment)
    for coordinate, name in enumerate(("S of β<sub>1</sub>", "S of β<sub>2</sub>")):
        line = {"color": COORDINATES[coordinate], "width": 2.6}
        traces.append(
            (
                go.Scatter(
                    **_line(np.stack([times, utilities[:, coordinate]], axis=1)), line=line, mode="lines", name=name
                ),
                (1, 2),
            )
        )
    grey = {"color": INK, "width": 2.6}
    traces.append(
        (
            go.Scatter(
                **_line(np.stack([times, np.maximum(losses, _LOWEST)], axis=1)),
                line=grey,
                mode="lines",
                showlegend=False,
            ),
            (2, 2),
        )
    )
    corner = history["saddle"].values.max(axis=0)
    clock = go.Scatter(
        x=[corner[0]],
        y=[corner[1]],
        text=[f"time / -log α = {moment:.3f}"],
        mode="text",
        textposition="middle left",
        showlegend=False,
    )
    return [*traces, (clock, (1, 1))]


def _until(run: xr.Dataset, moment: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    run = run.isel(record=slice(None, None, -(-run.sizes["record"] // _TRAIL)))
    times = run["moment"].values
    shown = np.append(times[times < moment], moment)

    def at(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.interp(shown, times, values))

    beta = np.stack([at(column) for column in run["beta"].values.T], axis=1)
    utilities = np.stack([at(column) for column in run["accumulated"].values.T], axis=1)
    return shown, beta, utilities, at(run["loss"].values)


def _line(points: Float[np.ndarray, "points two"]) -> dict[str, np.ndarray]:
    return {"x": points[:, 0].round(4).astype(np.float32), "y": points[:, 1].round(4).astype(np.float32)}


def _position(history: xr.Dataset, log_scale: float) -> int:
    return int(np.argmin(np.abs(history["scale"].values - log_scale)))
