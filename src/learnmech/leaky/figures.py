"""Pictures of what the blocks of a network keep and how far they move it."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from learnmech.figures import ACCENT, FAINT, INK, SECOND, THIRD, escape, make_figure
from learnmech.monitor.instrument import Figure

_TICKS = [digit * 10.0**power for power in range(-3, 7) for digit in (1, 2, 5)]


def draw_all(history: xr.Dataset) -> list[Figure]:
    """Draw what a history of the leaky instrument holds.

    Args:
        history: the history.

    Returns:
        Identity cost and ranks over depth, if any layer has them; relative steps, if any block is residual.
    """
    figures = []
    if np.isfinite(history["identity_cost"].values[-1]).any():
        figures.append(_draw_costs(history))
    if np.isfinite(history["relative_step"].values[-1]).any():
        figures.append(_draw_steps(history))
    return figures


def _draw_costs(history: xr.Dataset) -> Figure:
    figure = make_figure("layer, input to output", "number of dimensions")
    last, first = history.isel(step=-1), history.isel(step=0)
    names = _names(history)
    if history.sizes["step"] > 1:
        figure.add_scatter(
            x=names,
            y=_positive(first["identity_cost"].values),
            name=f"identity cost at step {int(first['step'])}",
            mode="lines",
            line={"color": FAINT, "dash": "dot"},
        )
    for variable, label, colour, symbol in (
        ("identity_cost", "identity cost", ACCENT, "circle"),
        ("bottleneck_dimension", "kept dimensions", THIRD, "square"),
        ("stable_rank", "stable rank", SECOND, "diamond"),
    ):
        figure.add_scatter(
            x=names,
            y=_positive(last[variable].values),
            name=label,
            mode="lines+markers",
            line={"color": colour},
            marker={"symbol": symbol},
        )
    classes = int(history.attrs.get("classes", 0))
    if classes > 1:
        figure.add_scatter(
            x=names, y=[classes] * len(names), name="number of classes", mode="lines", line={"color": INK, "width": 1}
        )
    figure.update_yaxes(type="log", tickvals=_TICKS)
    figure.update_xaxes(type="category")
    return Figure(
        "identity_cost",
        "How many dimensions each layer keeps",
        f"At step {int(last['step'])}. Identity cost: the least squared size of weights that would pass a layer's features on "
        "unchanged, through a ReLU. Where features are not negative it is close to the number of their dimensions; features of both "
        "signs cost more. A valley is a bottleneck. Kept dimensions: how many directions those weights pass on at least half as "
        "strongly as the strongest. Stable rank: dimensions weighed by their size.",
        figure,
    )


def _draw_steps(history: xr.Dataset) -> Figure:
    figure = make_figure("residual block", "share of the features' size")
    last, first = history.isel(step=-1), history.isel(step=0)
    measured = np.isfinite(history["relative_step"].transpose("step", "layer").values).any(axis=0)
    names = [name for name, found in zip(_names(history), measured, strict=True) if found]
    values = last["relative_step"].values[measured]
    if history.sizes["step"] > 1:
        figure.add_bar(
            x=names,
            y=_plain(first["relative_step"].values[measured]),
            name=f"step {int(first['step'])}",
            marker_color=FAINT,
        )
    figure.add_bar(x=names, y=_plain(values), name=f"step {int(last['step'])}", marker_color=ACCENT)
    finite = values[np.isfinite(values)]
    if len(finite):
        middle = [float(np.median(finite))] * len(names)
        figure.add_scatter(x=names, y=middle, name="median", mode="lines", line={"color": SECOND, "dash": "dash"})
    figure.update_layout(barmode="group")
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(type="category")
    return Figure(
        "relative_step",
        "How far each residual block moves its features",
        "Change of the features in a block, relative to their size behind it. Bars of one height use depth evenly; a block with "
        "a bar near zero could be left out.",
        figure,
    )


def _names(history: xr.Dataset) -> list[str]:
    return [escape(name) for name in history["layer"].values]


def _positive(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) and value > 0 else None for value in values]


def _plain(values: Sequence[float] | np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
