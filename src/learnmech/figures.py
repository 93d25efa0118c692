"""The look that all figures share, and the plots that several instruments draw."""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    import plotly.graph_objects as go

INK, FAINT, PAPER = "#1f2933", "#9aa5b1", "#ffffff"
ACCENT, SECOND, THIRD = "#1b6ca8", "#d1495b", "#3a7d44"
DEPTH_SCALE = ("#c6dbef", "#6baed6", "#2171b5", "#08306b")
"""Colours from the first layer (light) to the last (dark)."""
DIVERGING_SCALE = ((0.0, "#b2182b"), (0.5, "#f7f7f7"), (1.0, "#2166ac"))
"""Red below zero, white at zero, blue above; readable without colour vision of red and green."""


def escape(text: Any) -> str:
    """Make text safe and literal in plot labels, which read a subset of HTML.

    Args:
        text: a name from a model or a file.

    Returns:
        Text with markup escaped.

    Example:
        >>> escape("<b>layer</b>")
        '&lt;b&gt;layer&lt;/b&gt;'
    """
    return html.escape(str(text), quote=True)


def make_figure(x_title: str, y_title: str, *, height: int = 380) -> "go.Figure":
    """Make an empty figure in the common style.

    Args:
        x_title: what is along the horizontal axis, with its unit.
        y_title: what is along the vertical axis, with its unit.
        height: in pixels.

    Returns:
        The figure.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    axis = {"showline": True, "linecolor": FAINT, "gridcolor": "#e9edf1", "zeroline": False, "ticks": "outside"}
    figure.update_layout(
        height=height,
        margin={"l": 60, "r": 20, "t": 20, "b": 55},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        font={"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13, "color": INK},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0, "font": {"size": 12}},
        hovermode="closest",
        xaxis={**axis, "title": {"text": x_title}, "automargin": True},
        yaxis={**axis, "title": {"text": y_title}, "automargin": True},
    )
    return figure


def depth_colours(count: int) -> list[str]:
    """Give one colour a layer, light to dark with depth.

    Args:
        count: how many.

    Returns:
        Colours as ``rgb(...)``.
    """
    anchors = np.array([[int(colour[k : k + 2], 16) for k in (1, 3, 5)] for colour in DEPTH_SCALE])
    positions = np.linspace(0, len(anchors) - 1, max(count, 2))[:count]
    channels = [np.interp(positions, range(len(anchors)), anchors[:, k]) for k in range(3)]
    return [f"rgb({r:.0f},{g:.0f},{b:.0f})" for r, g, b in zip(*channels, strict=True)]


def figure_over_steps(history: xr.Dataset, variable: str, y_title: str, *, logarithmic: bool) -> "go.Figure":
    """Draw a per-layer quantity over training, one line a layer.

    Args:
        history: the history.
        variable: which variable, over (step, layer).
        y_title: label of the vertical axis.
        logarithmic: whether the vertical axis is logarithmic.

    Returns:
        The figure.
    """
    figure = make_figure("optimizer step", y_title)
    steps = history["step"].values
    for name, colour, values in zip(
        history["layer"].values, depth_colours(history.sizes["layer"]), history[variable].values.T, strict=True
    ):
        if np.isfinite(values).any():
            figure.add_scatter(
                x=steps,
                y=_drawable(values, logarithmic=logarithmic),
                name=escape(name),
                mode="lines+markers" if len(steps) < 30 else "lines",
                line={"color": colour},
            )
    if logarithmic:
        figure.update_yaxes(type="log", exponentformat="power", dtick=1)
    return figure


def _drawable(values: Sequence[float] | np.ndarray, *, logarithmic: bool) -> list[float | None]:
    return [
        float(value) if np.isfinite(value) and (value > 0 or not logarithmic) else None for value in np.asarray(values)
    ]
