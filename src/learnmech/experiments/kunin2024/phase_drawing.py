"""The drawing of lazy and rich students: neurons in the plane, curves over steps, maps over both scales."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.figures import ACCENT, FAINT, INK, SECOND, THIRD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {
    "large": "τ 2, δ 0",
    "downstream": "τ 0.1, δ -1 (downstream)",
    "balanced": "τ 0.1, δ 0 (balanced)",
    "upstream": "τ 0.1, δ +1 (upstream)",
}
_COLOURS = {"large": "#5b6770", "downstream": SECOND, "balanced": ACCENT, "upstream": THIRD}
_CURVES = (
    ("train_error", "training error", True),
    ("kernel_distance", "kernel distance S", False),
    ("pattern_change", "changed activations", False),
    ("test_error", "test error", True),
)
_NEGATIVE = "#e08214"


def draw(history: xr.Dataset) -> "Figure":
    """Draw the three rows of the figure.

    Args:
        history: the collected sweeps.

    Returns:
        The figure.
    """
    figure = new_figure(3, 4, width=13.0, height=9.6)
    axes = np.array(figure.axes).reshape(3, 4)
    for panel, case in zip(axes[0], map(str, history["plane_case"].values), strict=True):
        _draw_plane(panel, history, case)
    for panel, (name, title, logarithmic) in zip(axes[1], _CURVES, strict=True):
        _draw_curves(panel, history, name, title, logarithmic)
    last = history.sizes["map_step"] - 1
    steps = history["map_step"].values
    for panel, name, when, title, logarithmic in (
        (axes[2, 0], "map_kernel_distance", 0, f"S after {steps[0]} steps", False),
        (axes[2, 1], "map_kernel_distance", last, f"S after {steps[last]} steps", False),
        (axes[2, 2], "map_train_error", 0, f"log10 training error, {steps[0]} steps", True),
        (axes[2, 3], "map_test_error", last, f"log10 test error, {steps[last]} steps", True),
    ):
        _draw_map(figure, panel, history[name].isel(map_step=when).mean("seed"), title, logarithmic)
    return figure


def _draw_plane(axes: "Axes", history: xr.Dataset, case: str) -> None:
    shown = history.sel(plane_case=case, rate_factor=1.0).isel(plane_seed=0)
    paths = shown["plane_effective_vector"].transpose("neuron", "plane_step", "input").values
    signs = shown["plane_neuron_sign"].values
    for path, sign in zip(paths, signs, strict=True):
        colour = ACCENT if sign > 0 else _NEGATIVE
        axes.plot(path[:, 0], path[:, 1], color=colour, linewidth=0.7, alpha=0.6)
        axes.plot(*path[-1], marker="o", color=colour, markersize=2.5, linestyle="none")
    limit = 1.15 * float(np.nanmax(np.abs(paths)))
    for vector, sign in zip(shown["plane_teacher_vector"].values, shown["plane_teacher_sign"].values, strict=True):
        _draw_teacher(axes, 0.9 * limit * vector, ACCENT if sign > 0 else _NEGATIVE)
    axes.set_xlim(-limit, limit)
    axes.set_ylim(-limit, limit)
    axes.set_aspect("equal")
    label_axes(axes, "|a| w, first input", "|a| w, second input" if case == "large" else "", title=_LABELS[case])
    if case == "upstream":
        axes.text(0.03, 0.12, "output weight a > 0", color=ACCENT, fontsize=8, transform=axes.transAxes, va="bottom")
        axes.text(0.03, 0.04, "output weight a < 0", color=_NEGATIVE, fontsize=8, transform=axes.transAxes, va="bottom")


def _draw_teacher(axes: "Axes", vector: np.ndarray, colour: str) -> None:
    arrow = {"arrowstyle": "-|>", "edgecolor": INK, "linewidth": 1.4, "facecolor": colour, "mutation_scale": 14}
    axes.annotate("", xy=(vector[0], vector[1]), xytext=(0, 0), arrowprops=arrow)


def _draw_curves(axes: "Axes", history: xr.Dataset, name: str, title: str, logarithmic: bool) -> None:
    steps = history["step"].values.astype(float)
    kept = steps > 0
    for case in map(str, history["case"].values):
        values = history[name].sel(case=case).transpose("seed", "step").values[:, kept]
        colour = _COLOURS[case]
        axes.fill_between(steps[kept], values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
        axes.plot(steps[kept], values.mean(0), color=colour, linewidth=1.6, label=_LABELS[case])
    axes.set_xscale("log")
    if logarithmic:
        axes.set_yscale("log")
    axes.minorticks_off()  # their labels cost more time than all lines
    label_axes(axes, "step of gradient descent", "", title=title)
    if name == "kernel_distance":
        axes.legend(fontsize=7.5, frameon=False, loc="upper left")
        axes.axhline(0, color=FAINT, linewidth=0.6)


def _draw_map(figure: "Figure", axes: "Axes", values: xr.DataArray, title: str, logarithmic: bool) -> None:
    overall, relative = values["overall_scale"].values, values["relative_scale"].values
    shown = values.transpose("relative_scale", "overall_scale").values
    image: Any = axes.pcolormesh(
        np.log10(overall),
        relative,
        np.log10(shown) if logarithmic else shown,
        cmap="viridis_r" if logarithmic else "magma",
        shading="nearest",
    )
    points = np.array([(x, y) for x in np.log10(overall) for y in relative])
    axes.plot(points[:, 0], points[:, 1], ".", color="#ffffff", markersize=1.5, alpha=0.7)
    axes.set_xticks(np.log10(overall), [f"{value:.2g}" for value in overall])
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.ax.tick_params(labelsize=7, colors=INK)
    bar.outline.set_visible(False)
    label_axes(axes, "overall scale τ", "relative scale δ", title=title)
