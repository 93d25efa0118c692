"""The drawing of the idea of alternating gradient flow."""

import itertools
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.experiments.kunin2025.staircases import draw_measured, draw_predicted
from learnmech.figures import ACCENT, FAINT, INK, SECOND, THIRD

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = (ACCENT, "#b7791f", THIRD, "#7b5ea7")
_SHADE = "#eaf1f7"


def draw(history: xr.Dataset) -> "Figure":
    """Draw the loss with its phases, utilities and norms over one time axis.

    Args:
        history: what :func:`learnmech.experiments.kunin2025.framework.run` gave.

    Returns:
        The figure.
    """
    figure = new_figure(3, 1, width=9.4, height=8.6, sharex=True, gridspec_kw={"height_ratios": [1.25, 1, 1]})
    loss, utility, norm = figure.axes
    times, jumps = history["time"].values, history["moment"].values[1:]
    end, top = float(times[-1]), float(history["level"][0])
    edges = np.concatenate([[0.0], jumps])
    for axes in figure.axes:
        for start, stop in itertools.pairwise(edges):
            axes.axvspan(start, stop, color=_SHADE, zorder=0, linewidth=0)
        for jump in jumps:
            axes.axvline(jump, color=SECOND, linewidth=1.1, zorder=1)
    draw_measured(loss, times, history["loss"].values, colour=INK, label="gradient flow")
    draw_predicted(
        loss,
        history["jump_time"].values,
        history["jump_level"].values,
        end,
        colour=SECOND,
        label="alternating gradient flow",
    )
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        loss.text(
            (start + stop) / 2,
            1.2 * top,
            "utility maximisation\n(dormant neurons)",
            ha="center",
            va="center",
            fontsize=8,
            color=ACCENT,
        )
        loss.annotate(
            "cost minimisation\n(active neurons)",
            (stop, 0.72 * float(history["level"][number]) + 0.28 * float(history["level"][number + 1])),
            xytext=(34, 12),
            textcoords="offset points",
            fontsize=8,
            color=SECOND,
            va="center",
            arrowprops={"arrowstyle": "->", "color": SECOND, "linewidth": 0.9},
        )
    loss.set_ylim(-0.03 * top, 1.36 * top)
    loss.legend(fontsize=8, frameon=False, loc="center right")
    label_axes(loss, "", "loss", title="the loss: plateaus and jumps")
    active, wakes = history["active"].values, {}
    for neuron in range(history.sizes["neuron"]):
        stages = np.flatnonzero(active[:, neuron])
        wakes[neuron] = float(history["moment"][int(stages[0])]) if len(stages) else np.inf
    utility.axhline(1.0, color=INK, linewidth=1, linestyle=":")
    utility.text(0.004 * end, 1.03, "threshold: the neuron wakes", fontsize=8, color=INK, va="bottom")
    colours, sleepers = iter(_COLOURS), []
    for neuron, moment in sorted(wakes.items(), key=lambda pair: pair[1]):
        colour = next(colours) if np.isfinite(moment) else FAINT
        share = history["utility"][:, neuron].values / float(history["threshold"][neuron])
        size = history["norm"][:, neuron].values
        wake = int(np.searchsorted(times, moment))
        for axes, curve in ((utility, share), (norm, size)):
            axes.plot(times[: wake + 1], curve[: wake + 1], color=FAINT, linewidth=1.8)
        if np.isfinite(moment):
            utility.plot([moment, end], [1.0, 1.0], color=colour, linewidth=2.4)
            utility.plot(moment, 1.0, "o", color=colour, markersize=7, markeredgecolor="white", zorder=5)
            norm.plot(times[wake:], size[wake:], color=colour, linewidth=2.2, label=f"neuron {neuron + 1}")
        else:
            sleepers.append(str(neuron + 1))
    if sleepers:
        norm.plot([], [], color=FAINT, linewidth=1.8, label=f"never wake in the engine: {', '.join(sleepers)}")
    utility.set_ylim(-0.04, 1.25)
    label_axes(
        utility,
        "",
        "accumulated utility / threshold",
        title="dormant neurons (grey) gather utility, each up to its threshold",
    )
    norm.set_xlim(0, end)
    norm.set_ylim(bottom=0)
    label_axes(
        norm, "time", "norm of a neuron", title="in gradient flow from the same start they wake one after the other"
    )
    norm.legend(fontsize=8, frameon=False, loc="upper left")
    return figure
