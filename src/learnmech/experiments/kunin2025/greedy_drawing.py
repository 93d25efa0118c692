"""The drawing of greedy training beside Adam."""

import json
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.figures import ACCENT, INK, SECOND, THIRD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AMBER = "#b7791f"
_LOOKS = {
    "greedy": (ACCENT, "o", "greedy"),
    "adam": (SECOND, "s", "Adam, {epochs} epochs"),
    "adam_short": (_AMBER, "D", "Adam, {short} epochs"),
    "random_start": (THIRD, "^", "random start, same minimiser"),
}


def draw(history: xr.Dataset) -> "Figure":
    """Draw test error over neurons and over time.

    Args:
        history: what :func:`learnmech.experiments.kunin2025.greedy.run` gave.

    Returns:
        The figure.
    """
    figure = new_figure(1, 2, width=10.5, height=4.6, sharey=True)
    neurons, seconds = figure.axes
    labels = _labels(history)
    _draw_neurons(neurons, history, labels)
    _draw_seconds(seconds, history, labels)
    for axes in figure.axes:
        axes.set_xscale("log")
        axes.minorticks_off()
    widths = history["neurons"].values
    neurons.set_xticks(widths, [f"{width}" for width in widths])
    neurons.legend(fontsize=8, frameon=False)
    return figure


def _labels(history: xr.Dataset) -> dict[str, str]:
    epochs = json.loads(history.attrs["config"])["epochs"]
    return {name: text.format(epochs=epochs, short=-(-epochs // 4)) for name, (_, _, text) in _LOOKS.items()}


def _draw_neurons(axes: "Axes", history: xr.Dataset, labels: dict[str, str]) -> None:
    for name, (colour, marker, _) in _LOOKS.items():
        errors = history["test_rmse"].sel(training=name).transpose("seed", "neurons").values
        seen = np.isfinite(errors).all(axis=0)
        middle = np.median(errors[:, seen], axis=0)
        bars = np.abs(np.stack([errors[:, seen].min(axis=0), errors[:, seen].max(axis=0)]) - middle)
        axes.errorbar(
            history["neurons"].values[seen], middle, yerr=bars if len(errors) > 1 else None, color=colour, marker=marker,
            markersize=5, linewidth=1.6 if name == "greedy" else 1.0, capsize=2, label=labels[name],
        )  # fmt: skip
    count = history.sizes["seed"]
    label_axes(
        axes,
        "neurons",
        "test RMSE (standard deviations)",
        title=f"(a) {history.attrs['data']}, {count} seed{'' if count == 1 else 's'}",
    )


def _draw_seconds(axes: "Axes", history: xr.Dataset, labels: dict[str, str]) -> None:
    middle = history.median("seed", skipna=False)
    axes.plot(middle["curve_seconds"], middle["curve_rmse"], color=ACCENT, linewidth=1.6)
    least = int(history["neurons"].values.min())
    for name, (colour, marker, _) in _LOOKS.items():
        one = middle.sel(training=name)
        axes.plot(
            one["seconds"],
            one["test_rmse"],
            color=colour,
            marker=marker,
            markersize=5,
            linestyle="",
            label=labels[name],
        )
        for width, time, search, error in zip(
            history["neurons"].values, one["seconds"].values, one["search_seconds"].values, one["test_rmse"].values, strict=True
        ):  # fmt: skip
            if not np.isfinite(error):
                continue
            if search > 0:
                axes.plot([time, time + search], [error, error], color=colour, linewidth=0.8)
                axes.plot(time + search, error, "|", color=colour, markersize=7)
            side = 1 if name == "greedy" else -1
            axes.annotate(
                str(width),
                (time, error),
                xytext=(5 * side, 4),
                textcoords="offset points",
                fontsize=7.5,
                color=colour if name == "greedy" else INK,
                ha="left" if name == "greedy" else "right",
            )
    high = float(np.nanmax(middle["test_rmse"]))
    low = float(min(np.nanmin(middle["test_rmse"]), np.nanmin(middle["curve_rmse"][least - 1 :])))
    axes.set_ylim(low - 0.08 * (high - low), high + 0.12 * (high - low))
    label_axes(axes, "CPU time (s)", "", title="(b) over time; numbers are neurons, thin lines the search for a rate")
