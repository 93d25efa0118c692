"""Pictures of feature speed: who moves how fast, at which angle, for which share of the loss decay, with which rates."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from learnmech.figures import ACCENT, FAINT, INK, SECOND, depth_colours, escape, figure_over_steps, make_figure
from learnmech.monitor.instrument import Figure

if TYPE_CHECKING:
    import plotly.graph_objects as go


def draw_all(history: xr.Dataset) -> list[Figure]:
    """Draw what a history of the instrument holds.

    Args:
        history: the history.

    Returns:
        Figures; none if no step was watched.
    """
    if not np.isfinite(history["relative_speed"].values).any():
        return []
    figures = [_draw_speeds(history)]
    if "cosine" in history and np.isfinite(history["cosine"].values).any():
        figures += [_draw_angles(history), _draw_shares(history), _draw_rates(history)]
    return figures


def _draw_speeds(history: xr.Dataset) -> Figure:
    return Figure(
        "relative_speed",
        "How fast features move",
        "First-order change of each layer's features in one optimizer step, relative to their size. Layers far below the others "
        "do not learn features of their own.",
        figure_over_steps(history, "relative_speed", "|df| / |f| a step", logarithmic=True),
    )


def _draw_angles(history: xr.Dataset) -> Figure:
    figure = make_figure("layer", "cosine")
    measured = history["cosine"].transpose("step", "layer").values
    rows = np.flatnonzero(np.isfinite(measured).any(axis=1))
    chosen = sorted({int(rows[k]) for k in np.linspace(0, len(rows) - 1, min(4, len(rows))).round().astype(int)})
    names = [escape(name) for name in history["layer"].values]
    kept = np.isfinite(measured).any(axis=0)
    for row, colour in zip(chosen, depth_colours(len(chosen) + 1)[1:], strict=True):
        figure.add_scatter(
            x=[name for name, keep in zip(names, kept, strict=True) if keep],
            y=_plain(measured[row][kept]),
            name=f"step {int(history['step'].values[row])}",
            mode="lines+markers",
            line={"color": colour},
        )
    expected = history["cosine_expected"].transpose("step", "layer").values[chosen[-1]]
    if np.isfinite(expected).any():
        figure.add_scatter(
            x=[name for name, keep in zip(names, kept, strict=True) if keep],
            y=_plain(expected[kept]),
            name="expected for random weights",
            mode="lines",
            line={"color": SECOND, "dash": "dash"},
        )
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(type="category")
    return Figure(
        "cosine",
        "At which angle features move",
        "Cosine between the feature update and the direction in which the loss falls fastest. Batches make it small at every "
        "layer; the dashed line is the profile to expect for random weights with the same shares. What counts is the shape.",
        figure,
    )


def _draw_shares(history: xr.Dataset) -> Figure:
    figure = make_figure("optimizer step", "share of the loss decay")
    share = history["share"].transpose("step", "layer").values
    rows = np.isfinite(share).any(axis=1)
    for name, colour, values in zip(
        history["layer"].values, depth_colours(history.sizes["layer"]), share[rows].T, strict=True
    ):
        if np.isfinite(values).any() and (values != 0).any():
            figure.add_bar(
                x=[str(step) for step in history["step"].values[rows]],
                y=_plain(values),
                name=escape(name),
                marker_color=colour,
            )
    figure.update_layout(barmode="relative")
    figure.update_xaxes(type="category")
    return Figure(
        "share",
        "Who brings the loss decay",
        "Share of the first-order loss decay of a step that each layer's parameters bring. Equal shares are balanced; below "
        "zero a layer climbed.",
        figure,
    )


def _draw_rates(history: xr.Dataset) -> Figure:
    measured = np.isfinite(history["effective_learning_rate"].transpose("step", "parameter").values).any(axis=1)
    position = int(np.flatnonzero(measured)[-1]) if measured.any() else -1
    last = history.isel(step=position)
    return Figure(
        "effective_learning_rate",
        f"Learning rates in effect at step {int(last['step'])}",
        "Effective rate: the learning rate with which plain gradient descent would bring the same loss decay. It makes "
        "optimizers and parameter groups comparable.",
        _table(last),
    )


def _table(last: xr.Dataset) -> "go.Figure":
    import plotly.graph_objects as go

    names = [escape(name) for name in last["parameter"].values]
    columns = [
        ("effective rate", last["effective_learning_rate"].values),
        ("share of decay", last["parameter_share"].values),
        ("update / weights", last["relative_update"].values),
    ]
    table = go.Figure(
        go.Table(
            columnwidth=[3, 1, 1, 1],
            header={
                "values": ["parameter", *(title for title, _ in columns)],
                "align": ["left", "right"],
                "fill_color": "#e9edf1",
                "font": {"color": INK, "size": 12},
                "line_color": FAINT,
            },
            cells={
                "values": [names, *([_number(value) for value in values] for _, values in columns)],
                "align": ["left", "right"],
                "fill_color": "#ffffff",
                "font": {"color": [ACCENT, INK], "size": 12},
                "line_color": "#e9edf1",
                "height": 24,
            },
        )
    )
    table.update_layout(
        height=min(620, 90 + 24 * len(names)), margin={"l": 10, "r": 10, "t": 10, "b": 10}, font={"color": INK}
    )
    return table


def _number(value: float) -> str:
    return "-" if not np.isfinite(value) else f"{value:.3g}"


def _plain(values: Sequence[float] | np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in np.asarray(values)]
