"""The drawing of linear attention."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.experiments.kunin2025.linear_reading import power_of_ten, relative_error
from learnmech.experiments.kunin2025.staircases import draw_measured, draw_predicted
from learnmech.figures import ACCENT, FAINT, INK, SECOND, THIRD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHADES = ("#6baed6", "#2171b5", "#08306b")
_COLOURS = (ACCENT, SECOND, "#b7791f", THIRD, "#7b5ea7", "#4a90a4")


def draw(history: xr.Dataset) -> "Figure":
    """Draw staircases, errors, strengths and heads.

    Args:
        history: what :func:`learnmech.experiments.kunin2025.attention.run` gave.

    Returns:
        The figure.
    """
    figure = new_figure(2, 6, width=12.5, height=7.4)
    for axes in list(figure.axes):
        axes.remove()
    grid = figure.add_gridspec(2, 6, height_ratios=[1.15, 1])
    top = [figure.add_subplot(grid[0, :4]), figure.add_subplot(grid[0, 4:])]
    low = [figure.add_subplot(grid[1, start : start + 2]) for start in (0, 2, 4)]
    for axes in [*top, *low]:
        axes.tick_params(colors=INK, labelsize=8)
        for name, spine in axes.spines.items():
            spine.set_color(FAINT)
            spine.set_visible(name in ("left", "bottom"))
    path = history.isel(draw=0, scale=-1)
    _draw_scales(top[0], history)
    _draw_errors(top[1], history)
    _draw_entries(low[0], path)
    _draw_norms(low[1], path)
    _draw_shares(low[2], path)
    return figure


def _draw_scales(axes: "Axes", history: xr.Dataset) -> None:
    last = 0.0
    for scale, colour in zip(history["scale"].values, _SHADES[-history.sizes["scale"] :], strict=False):
        part = history.sel(scale=scale).isel(draw=0)
        draw_measured(
            axes,
            scale * part["moment"].values,
            part["loss"].values,
            colour=colour,
            label=f"gradient flow, scale {power_of_ten(scale)}",
        )
        last = scale * float(part["moment"][-1])
    part = history.isel(draw=0, scale=-1)
    scale, levels = float(part["scale"]), part["expected_level"].values
    times = scale * part["expected_crossing"].values
    names = [f"component {component + 1}" for component in range(len(times))]
    draw_predicted(axes, times, levels, 1.06 * last, names=names, label="predicted, smallest scale")
    axes.plot(scale * part["lower_bound"], levels[1:], ">", color=SECOND, markersize=6, label="lower bounds", zorder=5)
    axes.set_xlim(0, 1.06 * last)
    label_axes(axes, "time × scale of the start", "loss", title="(a) the staircase of linear attention")
    axes.legend(fontsize=8, frameon=False)


def _draw_errors(axes: "Axes", history: xr.Dataset) -> None:
    errors = relative_error(history, "crossing").transpose("scale", "draw", "component")
    scales = history["scale"].values
    for component in range(history.sizes["component"]):
        colour = _COLOURS[component % len(_COLOURS)]
        for position in range(len(scales)):
            values = errors[position, :, component].values
            spots = np.full(len(values), position + 0.12 * (component - 1.5))
            axes.plot(spots, values, "o", color=colour, markersize=4, alpha=0.7, markeredgewidth=0)
        axes.plot([], [], "o", color=colour, markersize=4, label=f"jump {component + 1}")
    for position, scale in enumerate(scales):
        axes.plot(
            [position - 0.32, position + 0.32], 2 * [6e-2 if scale >= 1e-2 else 5 * scale], color=INK, linewidth=1.2
        )
    axes.plot([], [], color=INK, linewidth=1.2, label="bound")
    axes.set_yscale("log")
    axes.set_xticks(range(len(scales)), [power_of_ten(scale) for scale in scales])
    axes.set_xlim(-0.6, len(scales) - 0.4)
    label_axes(axes, "scale of the start", "relative error of the time", title="(b) predicted times")
    axes.legend(fontsize=7.5, frameon=False, loc="lower left")


def _draw_entries(axes: "Axes", path: xr.Dataset) -> None:
    for component in range(path.sizes["component"]):
        colour = _COLOURS[component % len(_COLOURS)]
        axes.axhline(float(path["expected_strength"][component]), color=colour, linewidth=1, linestyle="--", alpha=0.7)
        axes.plot(
            path["moment"], path["entry"][:, component], color=colour, linewidth=1.8, label=f"component {component + 1}"
        )
    axes.plot([], [], color=INK, linewidth=1, linestyle="--", label="predicted end")
    axes.set_xlim(0, float(path["moment"][-1]))
    label_axes(axes, "time", "diagonal entry of B", title="(c) strength of each component")
    axes.legend(fontsize=7.5, frameon=False, loc="upper left", ncols=2)
    axes.set_ylim(top=1.42 * float(path["expected_strength"].max()))


def _draw_norms(axes: "Axes", path: xr.Dataset) -> None:
    learned = {int(head): component for component, head in enumerate(path["head_found"].values)}
    for head in range(path.sizes["head"]):
        known = head in learned
        colour = _COLOURS[learned[head] % len(_COLOURS)] if known else FAINT
        label = f"head {head + 1}: component {learned[head] + 1}" if known else f"head {head + 1}: left over"
        axes.plot(path["moment"], path["norm"][:, head], color=colour, linewidth=1.8, label=label)
    axes.set_yscale("log")
    axes.set_ylim(bottom=float(path["norm"].min()) / 2, top=60 * float(path["norm"].max()))
    axes.set_xlim(0, float(path["moment"][-1]))
    label_axes(axes, "time", "norm of a head", title="(d) heads wake one after the other")
    axes.legend(fontsize=7, frameon=False, loc="upper left", ncols=2, columnspacing=1)


def _draw_shares(axes: "Axes", path: xr.Dataset) -> None:
    for component, head in enumerate(path["head_found"].values):
        colour = _COLOURS[component % len(_COLOURS)]
        axes.plot(
            path["moment"],
            path["share"][:, int(head), component],
            color=colour,
            linewidth=1.8,
            label=f"head {int(head) + 1}, component {component + 1}",
        )
        jump = float(path["expected_crossing"][component])
        axes.axvline(jump, color=colour, linewidth=0.9, linestyle=":")
    axes.set_ylim(-0.02, 1.06)
    axes.set_xlim(0, float(path["moment"][-1]))
    label_axes(axes, "time", "cos² of query and eigenvector", title="(e) dormant heads turn to a component")
    axes.legend(fontsize=7, frameon=False, loc="lower right")
