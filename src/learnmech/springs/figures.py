"""Pictures of the load curve in training."""

import numpy as np
import xarray as xr

from learnmech.figures import ACCENT, DIVERGING_SCALE, FAINT, INK, SECOND, THIRD, escape, make_figure
from learnmech.monitor.instrument import Figure
from learnmech.springs.regime import STRAIGHT_CURVATURE


def draw_load_curves(history: xr.Dataset) -> Figure:
    """Draw the load over depth with a slider over training steps.

    Args:
        history: a history with ``load``.

    Returns:
        The figure.
    """
    names = [escape(name) for name in history["layer"].values]
    steps = history["step"].values
    figure = make_figure("", "load D (lower: better separated)", height=470)
    ghost = history["load"].values
    finite = ghost[np.isfinite(ghost)]
    if "load_held_out" in history:
        other = history["load_held_out"].values
        finite = np.concatenate([finite, other[np.isfinite(other)]])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    margin = 0.06 * max(high - low, 1e-3)
    frames = [_curves_at(history, position, names) for position in range(len(steps))]
    per_step = len(frames[0])
    figure.add_traces(  # all at once: one by one takes several times longer
        [
            {"type": "scatter", "visible": position == len(steps) - 1, **trace}
            for position, traces in enumerate(frames)
            for trace in traces
        ]
    )
    figure.add_scatter(
        x=names,
        y=_drawable(ghost[0]),
        name=f"step {steps[0]}",
        mode="lines",
        line={"color": FAINT, "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
    )
    slider_steps = []
    for position, step in enumerate(steps):
        visible = [index // per_step == position for index in range(per_step * len(steps))] + [True]
        slider_steps.append({"method": "update", "label": str(step), "args": [{"visible": visible}]})
    if len(steps) > 1:
        figure.update_layout(
            sliders=[
                {
                    "active": len(steps) - 1,
                    "currentvalue": {"prefix": "optimizer step ", "font": {"size": 13, "color": INK}},
                    "pad": {"t": 70, "b": 5},
                    "steps": slider_steps,
                    "ticklen": 0,
                    "minorticklen": 0,
                    "font": {"size": 1, "color": "rgba(0,0,0,0)"},
                }
            ]
        )
    figure.update_yaxes(range=[low - margin, high + margin])
    figure.update_xaxes(categoryorder="array", categoryarray=names)
    return Figure(
        "load_curve",
        "Load curve: what is left to separate after each layer",
        "Each point is a layer; a steep piece is a layer that works. Bent above the dashed chord: the deep layers do the work "
        "(lazy). Along it: balanced. Below it: the early layers do (active). The read-out is drawn but not counted in "
        "the shape. Move the slider to see training.",
        figure,
    )


def _curves_at(history: xr.Dataset, position: int, names: list[str]) -> list[dict[str, object]]:
    at = history.isel(step=position)
    load = at["load"].values
    counted = at["role"].values != "readout"
    last = int(np.flatnonzero(counted)[-1]) if counted.any() else len(load) - 1
    chord = np.full(len(load), np.nan)
    chord[: last + 1] = np.linspace(load[0], load[last], last + 1)
    traces: list[dict[str, object]] = [
        {
            "x": names,
            "y": _drawable(chord),
            "name": "chord (perfect balance)",
            "mode": "lines",
            "line": {"color": FAINT, "dash": "dash", "width": 1.5},
            "hoverinfo": "skip",
        },
        {
            "x": names,
            "y": _drawable(load),
            "name": "probe",
            "mode": "lines+markers",
            "line": {"color": ACCENT, "width": 3},
            "marker": {"size": 8, "symbol": ["circle" if flag else "circle-open" for flag in counted]},
        },
    ]
    if "load_held_out" in history:
        traces.append(
            {
                "x": names,
                "y": _drawable(at["load_held_out"].values),
                "name": "held out",
                "mode": "lines+markers",
                "line": {"color": SECOND, "width": 2},
                "marker": {"size": 6},
            }
        )
    return traces


def draw_contributions(history: xr.Dataset) -> Figure:
    """Draw who contributed when, as a heat map of layers over steps.

    Args:
        history: a history with ``contribution``.

    Returns:
        The figure.
    """
    values = history["contribution"].values.T[1:]
    names = [escape(name) for name in history["layer"].values[1:]]
    steps = [str(step) for step in history["step"].values]
    finite = np.abs(values[np.isfinite(values)])
    limit = float(np.quantile(finite, 0.98)) if len(finite) else 1.0
    figure = make_figure("optimizer step", "layer", height=max(260, 120 + 28 * len(names)))
    figure.add_heatmap(
        x=steps,
        y=names,
        z=[_drawable(row) for row in values],
        zmin=-max(limit, 1e-9),
        zmax=max(limit, 1e-9),
        colorscale=[list(stop) for stop in DIVERGING_SCALE],
        colorbar={"title": {"text": "d", "side": "top"}, "thickness": 12},
        hovertemplate="step %{x}<br>%{y}<br>contribution %{z:.3f}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    figure.update_yaxes(autorange="reversed", showline=False, ticks="")
    figure.update_xaxes(type="category", nticks=12)
    return Figure(
        "contributions",
        "Who does the work, and when",
        "Contribution of each layer (input side on top) to the separation of the classes. Blue separates, red undoes, white "
        "does nothing. Even blue columns are balanced training.",
        figure,
    )


def draw_shape(history: xr.Dataset) -> Figure:
    """Draw curvature and linearity of the load curve, with accuracy, over training.

    Args:
        history: a history with the shape numbers.

    Returns:
        The figure.
    """
    steps = history["step"].values
    figure = make_figure("optimizer step", "curvature q", height=400)
    figure.add_hrect(y0=-STRAIGHT_CURVATURE, y1=STRAIGHT_CURVATURE, fillcolor=THIRD, opacity=0.10, line_width=0)
    error = history["curvature_error"].values
    q = history["curvature"].values
    figure.add_scatter(
        x=steps,
        y=_drawable(q),
        name="curvature q",
        mode="lines+markers",
        line={"color": ACCENT, "width": 2.5},
        error_y={"type": "data", "array": [value if np.isfinite(value) else 0 for value in error], "color": FAINT},
    )
    for variable, label, colour in (
        ("linearity", "linearity R²", THIRD),
        ("accuracy", "accuracy, probe", INK),
        ("accuracy_held_out", "accuracy, held out", SECOND),
    ):
        if variable in history and np.isfinite(history[variable]).any():
            figure.add_scatter(
                x=steps,
                y=_drawable(history[variable].values),
                name=label,
                mode="lines",
                yaxis="y2",
                line={"color": colour, "width": 2},
            )
    finite = q[np.isfinite(q)]
    reach = float(np.clip(np.abs(finite[len(finite) // 4 :]).max() * 1.15, 1.0, 4.0)) if len(finite) else 1.0
    figure.update_layout(
        yaxis2={
            "overlaying": "y",
            "side": "right",
            "range": [0, 1.02],
            "tickmode": "linear",
            "dtick": 0.25,
            "title": {"text": "R², accuracy"},
            "showgrid": False,
        },
        margin={"r": 60},
    )
    figure.layout.yaxis.range = [-reach, reach]
    return Figure(
        "shape",
        "Shape of the load curve against accuracy",
        "Curvature q below the green band: concave (lazy); inside: balanced; above: convex (active). Accuracy tends to be "
        "best where R² is highest. Early values of q are wild because little has been separated yet.",
        figure,
    )


def _drawable(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
