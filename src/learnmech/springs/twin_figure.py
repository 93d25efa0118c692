"""Picture of a twin: what was measured and what the chain makes of it."""

import numpy as np
import xarray as xr

from learnmech.figures import FAINT, depth_colours, escape, make_figure
from learnmech.monitor.instrument import Figure

_CURVES = 5


def draw_twin(curves: xr.Dataset) -> Figure:
    """Draw load curves at several moments (left) and contributions over time (right), measured and fitted.

    Args:
        curves: a history with ``load``, ``load_measured``, ``contribution`` and ``contribution_measured``.

    Returns:
        The figure.
    """
    axis = "time" if "time" in curves.dims else "step"
    figure = make_figure("layer", "load D (lower: better separated)", height=470)
    moments = curves[axis].values
    names = [escape(name) for name in curves["layer"].values]
    chosen = np.unique(np.linspace(0, len(moments) - 1, _CURVES).round().astype(int))
    for colour, place in zip(depth_colours(len(chosen)), chosen, strict=True):
        label = f"{axis} {moments[place]:g}"
        figure.add_scatter(
            x=names,
            y=curves["load_measured"].values[place].tolist(),
            name=f"{label}, measured",
            legendgroup=label,
            mode="markers",
            marker={"color": colour, "size": 8},
            showlegend=False,
        )
        figure.add_scatter(
            x=names,
            y=curves["load"].values[place].tolist(),
            name=label,
            legendgroup=label,
            mode="lines",
            line={"color": colour, "width": 2},
        )
    contributing = np.isfinite(curves["contribution_measured"].values).any(axis=0)
    for colour, place in zip(depth_colours(int(contributing.sum())), np.flatnonzero(contributing), strict=True):
        for variable, mode in (("contribution_measured", "markers"), ("contribution", "lines")):
            figure.add_scatter(
                x=moments.tolist(),
                y=curves[variable].values[:, place].tolist(),
                name=f"{names[place]}, {'measured' if mode == 'markers' else 'chain'}",
                mode=mode,
                line={"color": colour, "width": 2},
                marker={"color": colour, "size": 5},
                xaxis="x2",
                yaxis="y2",
                showlegend=False,
            )
    panel = {"showline": True, "linecolor": FAINT, "gridcolor": "#e9edf1", "zeroline": False, "ticks": "outside"}
    figure.update_layout(
        xaxis={"domain": [0.0, 0.44], "categoryorder": "array", "categoryarray": names},
        xaxis2={
            **panel,
            "domain": [0.56, 1.0],
            "anchor": "y2",
            "title": {"text": "optimizer step" if axis == "step" else "time"},
        },
        yaxis2={**panel, "anchor": "x2", "title": {"text": "contribution d of each layer"}},
    )
    return Figure(
        "twin",
        "The twin: a spring chain fitted to the load curves",
        "Points are measured, lines are the chain. Left: load curves, light early and dark late. Right: contribution of each "
        "layer over training, light near the input and dark deep. Where the lines miss the points in a systematic way, "
        "the chain does not explain the network.",
        figure,
    )
