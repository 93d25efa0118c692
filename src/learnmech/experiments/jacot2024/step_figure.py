"""The drawing of Fig. 2: test cost, paired differences, relative steps, spectra and paths of three step-size schemes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.experiments.jacot2024.shared import SCHEME_COLOURS, setting, task_rank
from learnmech.experiments.jacot2024.trained_nets import stack_values
from learnmech.figures import ACCENT, FAINT, INK, SECOND

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEGEND: Mapping[str, Any] = {"fontsize": 8, "frameon": False}


def draw_schemes(history: xr.Dataset) -> "Figure":
    """Draw Fig. 2.

    Args:
        history: the collected sweep.

    Returns:
        The figure.
    """
    figure = new_figure(2, 3, width=11.0, height=6.6)
    cost, gap, ratio, uniform, adaptive, path = figure.axes
    layers = history["layers"].values
    ratios = history["relative_step"].max("layer") / history["relative_step"].min("layer")
    for place, (scheme, colour) in enumerate(SCHEME_COLOURS.items()):
        nets = history.sel(scheme=scheme)
        shift = 0.08 * (place - 1)
        _draw_means(cost, layers + shift, nets["test_cost"], colour, scheme)
        _draw_means(ratio, layers + shift, ratios.sel(scheme=scheme), colour, scheme)
        if scheme != "uniform":
            _draw_means(
                gap, layers + shift, nets["test_cost"] - history["test_cost"].sel(scheme="uniform"), colour, scheme
            )
    gap.axhline(0, color=SCHEME_COLOURS["uniform"], linewidth=1.0)
    gap.annotate(
        "uniform",
        (0.72, 0),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        fontsize=8,
    )
    ratio.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    label_axes(cost, "layers L", "test cost", title="(a) Test cost")
    label_axes(gap, "layers L", "test cost less that of uniform", title="(b) Paired differences (below 0: better)")
    label_axes(ratio, "layers L", "largest relative step / smallest", title="(c) How unequal relative steps are")
    ratio.set_ylim(0.6, None)
    for axes in (cost, gap, ratio):
        axes.set_xticks(layers)
        axes.legend(**_LEGEND)
    deepest = history.isel(layers=-1, draw=0)
    rank = task_rank(history)
    for axes, scheme, letter in ((uniform, "uniform", "d"), (adaptive, "adaptive", "e")):
        _draw_spectrum(axes, deepest.sel(scheme=scheme), float(setting(history, "effective_depth")), rank)
        label_axes(
            axes,
            "depth p",
            "singular values of the weights",
            title=f"({letter}) Weights, {scheme} steps, L = {int(deepest['layers'])}",
        )
    uniform.legend(**_LEGEND, loc=(0.3, 0.2))
    _draw_paths(path, deepest)
    return figure


def _draw_means(axes: "Axes", x: np.ndarray, values: xr.DataArray, colour: str, label: str) -> None:
    count = values.notnull().sum("draw")
    errors = values.std("draw", ddof=1) / np.sqrt(count) if values.sizes["draw"] > 1 else 0 * values.mean("draw")
    axes.errorbar(
        x,
        values.mean("draw"),
        yerr=errors,
        color=colour,
        marker="o",
        markersize=4,
        linewidth=1.4,
        capsize=2.5,
        label=label,
    )


def _draw_spectrum(axes: "Axes", net: xr.Dataset, effective_depth: float, rank: int) -> None:
    spectrum = stack_values(net, "weight_spectrum", "layer", "direction")
    place = net["place"].values
    for number in range(spectrum.shape[1]):
        axes.plot(
            place,
            spectrum[:, number],
            color=ACCENT if number < rank else SECOND if number == rank else FAINT,
            marker=".",
            markersize=3.5,
            linewidth=1.3,
            label={0: f"the {rank} largest", rank: "the next", rank + 1: "the rest"}.get(number),
        )
    axes.axhline(effective_depth, color=INK, linewidth=0.9, linestyle=":")
    axes.annotate(
        "L̃",
        (1, effective_depth),
        xycoords=("axes fraction", "data"),
        xytext=(2, -3),
        textcoords="offset points",
        fontsize=8,
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, None)


def _draw_paths(axes: "Axes", nets: xr.Dataset) -> None:
    for scheme, colour in SCHEME_COLOURS.items():
        points = stack_values(nets.sel(scheme=scheme), "projection", "layer", "component")
        points = points[np.isfinite(points).all(1)]
        if len(points) == 0:
            continue
        axes.plot(*points.T, color=colour, marker="o", markersize=3.5, linewidth=1.2, label=scheme)
        for name, node in (("input", 0), ("output", -1)):
            if scheme == "uniform":
                axes.annotate(name, points[node], xytext=(8, -4), textcoords="offset points", fontsize=8, color=INK)
    label_axes(axes, "first principal component", "second", title="(f) Paths, a dot a layer")
    axes.legend(**_LEGEND)
