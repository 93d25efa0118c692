"""The drawing of the phases of deep linear networks."""

import json
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from learnmech.dynamics.saddle import find_jumps
from learnmech.dynamics.width_laws import width_exponents
from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.figures import ACCENT, FAINT, INK, SECOND, THIRD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_REGIMES = {"exploding": "#eceff1", "kernel": "#e3eef7", "saddle": "#fbe9e7"}
_NAMES = {"exploding": "outputs explode", "kernel": "kernel", "saddle": "saddle to saddle"}


def draw(history: xr.Dataset) -> "Figure":
    """Draw exponents, silent alignment and paths.

    Args:
        history: what :func:`learnmech.experiments.jacot2022.phase.run` gave.

    Returns:
        The figure.
    """
    figure = new_figure(2, 3, width=11.5, height=7.0)
    axes = figure.axes
    _draw_exponents(
        axes[0],
        history,
        {"kernel": ("tangent kernel", ACCENT), "output": ("norm of the product", THIRD)},
        "(a) kernel and output",
    )
    _draw_exponents(
        axes[1],
        history,
        {
            "saddle": ("to the saddle", SECOND),
            "minimum": ("to a minimum", INK),
            "minimum_per_error": ("to a minimum, over the error", FAINT),
        },
        "(b) distances",
    )
    _draw_silent(axes[2], history)
    regimes = {gamma: width_exponents(_depth(history), float(gamma)).regime for gamma in history["path_gamma"].values}
    for letter, gamma, place in zip("def", history["path_gamma"].values, axes[3:], strict=False):
        name = "critical" if regimes[gamma] == "critical" else _NAMES[regimes[gamma]]
        _draw_paths(place, history.sel(path_gamma=gamma), f"({letter}) γ = {gamma:g}: {name}")
    return figure


def _depth(history: xr.Dataset) -> int:
    return int(json.loads(history.attrs["config"])["widths"]["fixed"]["depth"])


def _draw_exponents(axes: "Axes", history: xr.Dataset, names: dict[str, tuple[str, str]], title: str) -> None:
    gammas, depth = history["gamma"].values, _depth(history)
    low, high = gammas.min() - 0.08, gammas.max() + 0.08
    edges = {"exploding": (low, 1 - 1 / depth), "kernel": (1 - 1 / depth, 1.0), "saddle": (1.0, high)}
    for regime, (left, right) in edges.items():
        if right > max(left, low):
            axes.axvspan(max(left, low), right, color=_REGIMES[regime], linewidth=0)
            axes.text(
                (max(left, low) + right) / 2, 1.01, _NAMES[regime].replace("outputs ", ""), ha="center", va="bottom",
                fontsize=7, color=INK, transform=axes.get_xaxis_transform(),
            )  # fmt: skip
    line = np.linspace(low, high, 400)
    for name, (label, colour) in names.items():
        predicted = np.array([getattr(width_exponents(depth, float(gamma)), name) for gamma in line])
        if name.startswith("minimum"):
            predicted = np.where(line < 1, predicted, np.nan)
        axes.plot(line, predicted, color=colour, linewidth=1.2)
        axes.errorbar(
            gammas, history[f"{name}_slope"], yerr=history[f"{name}_slope_error"], color=colour, label=label,
            fmt="o", markersize=4, capsize=2, linewidth=1,
        )  # fmt: skip
    axes.axhline(0, color=FAINT, linewidth=0.6)
    axes.set_xlim(low, high)
    label_axes(axes, r"γ (variance of the weights is $w^{-γ}$)", "width exponent at the start")
    axes.set_title(title, color=INK, fontsize=10, loc="left", pad=16)
    axes.legend(fontsize=7.5, frameon=False, loc="upper right")


def _draw_silent(axes: "Axes", history: xr.Dataset) -> None:
    for scale, colour in zip(history["silent_scale"].values, (SECOND, THIRD, ACCENT), strict=False):
        part = history.sel(silent_scale=scale)
        for number in range(history.sizes["silent_draw"]):
            path = part.isel(silent_draw=number)
            left = path["silent_loss"] / path["silent_loss"].isel(silent_record=0)
            label = f"scale {scale:g}" if number == 0 else None
            axes.plot(left, path["silent_kernel_cosine"], color=colour, linewidth=1, alpha=0.8, label=label)
    axes.axvline(0.9, color=FAINT, linewidth=0.8, linestyle=(0, (3, 2)))
    axes.text(0.885, 0.03, "90 %", fontsize=7, color=INK, ha="right", transform=axes.get_xaxis_transform())
    axes.set_xlim(1.02, -0.02)
    label_axes(axes, "loss left (training runs to the right)", "cosine of the kernel to the last")
    axes.set_title("(c) silent alignment", color=INK, fontsize=10, loc="left", pad=16)
    axes.legend(fontsize=7.5, frameon=False, loc="lower right")


def _draw_paths(axes: "Axes", paths: xr.Dataset, title: str) -> None:
    for number in range(paths.sizes["path_draw"]):
        path = paths.isel(path_draw=number)
        axes.plot(
            path["path_moment"], path["path_loss"], color=ACCENT, linewidth=1.1, alpha=1.0 if number == 0 else 0.35
        )
    first = paths.isel(path_draw=0)
    times, kept = np.unique(first["path_moment"].values, return_index=True)
    jumps = find_jumps(times, first["path_loss"].values[kept])
    values = first["path_singular_value"].isel(path_record=-1).values
    for kept_modes in range(len(values)):
        level = 0.5 * float((values[kept_modes:] ** 2).sum())
        axes.axhline(level, color=FAINT, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.text(
            0.99, level, f"rank {kept_modes}", fontsize=6.5, color=INK, ha="right", va="bottom",
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip
    axes.scatter(jumps.times, (jumps.levels[:-1] + jumps.levels[1:]) / 2, color=SECOND, s=22, zorder=3)
    word = "no jump" if len(jumps) == 0 else f"{len(jumps)} jump{'' if len(jumps) == 1 else 's'}"
    axes.text(0.6, 0.6, word, transform=axes.transAxes, ha="center", fontsize=9, color=SECOND)
    label_axes(axes, "time of the gradient flow", "loss", title=title)
    axes.set_xlim(left=0)
