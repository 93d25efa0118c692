"""The drawing of lazy training by output scale: kernel distance, accuracy and load curve side by side."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from learnmech.dynamics.regime_findings import LAZY, RICH
from learnmech.experiments.chizat2019.lazy_cells import REGIMES
from learnmech.experiments.chizat2019.lazy_claims import hidden
from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.figures import ACCENT, FAINT, INK, SECOND, THIRD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FLOOR = 1e-6


def draw(history: xr.Dataset) -> "Figure":
    """Draw kernel distance over training, regime and accuracy over scale, and load curves.

    Args:
        history: the collected sweep.

    Returns:
        The figure.
    """
    history = history.sortby("output_scale")
    colours = _colours(history.sizes["output_scale"])
    figure = new_figure(1, 4, width=16.0, height=4.3)
    _draw_course(figure.axes[0], history, colours)
    _draw_distance(figure.axes[1], history, colours)
    _draw_accuracy(figure.axes[2], history)
    _draw_load(figure.axes[3], history, colours)
    return figure


def _colours(count: int) -> list[str]:
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    scale = LinearSegmentedColormap.from_list("scale", [SECOND, "#b06ab3", ACCENT])
    return [to_hex(scale(position)) for position in np.linspace(0, 1, count)]


def _draw_course(axes: "Axes", history: xr.Dataset, colours: list[str]) -> None:
    steps = history["step"].values
    for position, factor in enumerate(history["output_scale"].values):
        values = history["centred_kernel_distance"].isel(output_scale=position).transpose("seed", "step").values
        shown = np.maximum(values[:, 1:], _FLOOR)
        axes.fill_between(steps[1:], shown.min(0), shown.max(0), color=colours[position], alpha=0.18, linewidth=0)
        axes.plot(steps[1:], shown.mean(0), color=colours[position], linewidth=1.6)
        axes.annotate(
            f"α {factor:g}",
            (steps[-1], shown.mean(0)[-1]),
            xytext=(4, 0),
            textcoords="offset points",
            color=colours[position],
            fontsize=8,
            va="center",
            annotation_clip=False,
        )
    axes.set_yscale("log")
    _mark_thresholds(axes)
    label_axes(axes, "step of SGD", "centred kernel distance", title="how far features turn")


def _mark_thresholds(axes: "Axes") -> None:
    for value, word, side in ((LAZY, "lazy below", "top"), (RICH, "rich above", "bottom")):
        axes.axhline(value, color=FAINT, linewidth=0.9, linestyle=(0, (3, 2)))
        axes.text(0.02, value, word, fontsize=7, color=INK, va=side, transform=axes.get_yaxis_transform())


def _draw_distance(axes: "Axes", history: xr.Dataset, colours: list[str]) -> None:
    factors = history["output_scale"].values
    distance = history["centred_kernel_distance"].isel(step=-1).transpose("output_scale", "seed").values
    moved = history["parameter_distance"].isel(step=-1).transpose("output_scale", "seed").values
    axes.plot(factors, moved.mean(1), color=THIRD, linewidth=1.2, marker="s", markersize=3)
    axes.annotate(
        "weights: |θ - θ0| / |θ0|",
        (factors[0], moved.mean(1)[0]),
        xytext=(6, 8),
        textcoords="offset points",
        fontsize=8,
        color=THIRD,
    )
    axes.plot(factors, np.maximum(distance.mean(1), _FLOOR), color=FAINT, linewidth=1.0)
    codes = history["regime"].transpose("output_scale", "seed").values.astype(int)
    for position, factor in enumerate(factors):
        values = np.maximum(distance[position], _FLOOR)
        axes.plot([factor] * len(values), values, "o", color=colours[position], markersize=4)
        words = " / ".join(dict.fromkeys(REGIMES[code].replace("_", " ") for code in codes[position]))
        axes.annotate(
            words,
            (factor, values.min()),
            xytext=(0, -12),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=colours[position],
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.15, y=0.15)
    label_axes(
        axes,
        "output scale α",
        "centred kernel distance, at the end",
        title="what regime says, and how far weights moved",
    )


def _draw_accuracy(axes: "Axes", history: xr.Dataset) -> None:
    factors = history["output_scale"].values
    for name, word, colour, side in (
        ("train_accuracy", "training", FAINT, (6, -12)),
        ("test_accuracy", "test", INK, (6, 7)),
    ):
        values = history[name].transpose("output_scale", "seed").values
        for column in values.T:
            axes.plot(factors, column, "o", color=colour, markersize=3)
        axes.plot(factors, values.mean(1), color=colour, linewidth=1.6)
        axes.annotate(
            word, (factors[0], values.mean(1)[0]), xytext=side, textcoords="offset points", fontsize=8, color=colour
        )
    axes.set_xscale("log")
    axes.margins(x=0.12)
    label_axes(axes, "output scale α", "accuracy", title="accuracy")


def _draw_load(axes: "Axes", history: xr.Dataset, colours: list[str]) -> None:
    layers = hidden(history)
    load = history["load"].isel(layer=layers).transpose("output_scale", "seed", "step", "layer").values
    places = np.arange(len(layers))
    axes.plot(
        places, load[:, :, 0].mean((0, 1)), color=INK, linewidth=1.2, linestyle="--", label="at the start", zorder=5
    )
    for position, factor in enumerate(history["output_scale"].values):
        values = load[position, :, -1]
        axes.fill_between(places, values.min(0), values.max(0), color=colours[position], alpha=0.18, linewidth=0)
        curve = values.mean(0)
        q = float(history["curvature"].isel(output_scale=position).mean())
        axes.plot(
            places,
            curve,
            color=colours[position],
            linewidth=1.6,
            marker="o",
            markersize=3,
            label=f"α {factor:g}, q {q:+.2f}",
        )
    axes.set_xticks(places, ["input", *(str(place) for place in places[1:])])
    axes.legend(fontsize=7.5, frameon=False)
    label_axes(
        axes, "layer, to the last hidden one", "load: ln of within- over between-class scatter", title="load curve"
    )
