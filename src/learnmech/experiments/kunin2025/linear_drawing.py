"""The drawing of two-layer linear networks."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.experiments.kunin2025.linear_claims import REFINED
from learnmech.experiments.kunin2025.linear_reading import power_of_ten, relative_error
from learnmech.experiments.kunin2025.staircases import draw_measured, draw_predicted
from learnmech.figures import ACCENT, FAINT, INK, SECOND, THIRD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHADES = ("#6baed6", "#2171b5", "#08306b")
_SERIES = (
    ("plain", "plain", SECOND, "s"),
    ("without_turn", "refined, not orthogonalised", "#b7791f", "^"),
    ("refined", "refined", ACCENT, "o"),
)


def draw(history: xr.Dataset) -> "Figure":
    """Draw staircases, errors, examples and the conjecture.

    Args:
        history: what :func:`learnmech.experiments.kunin2025.linear.run` gave.

    Returns:
        The figure.
    """
    figure = new_figure(2, 3, width=12.5, height=7.2)
    axes = figure.axes
    _draw_scales(axes[0], history)
    _draw_errors(axes[1], history)
    _draw_power(axes[2], history)
    _draw_order(axes[3], history)
    _draw_turn(axes[4], history)
    _draw_general(axes[5], history)
    return figure


def _draw_scales(axes: "Axes", history: xr.Dataset) -> None:
    first = history.isel(hidden=0, draw=0)
    limit = 1 / np.sqrt(2 * -np.diff(first["expected_level"].isel(scale=0).values))  # a drop is half the squared rate
    end = 1.25 * limit.max()
    for scale, colour in zip(history["scale"].values, _SHADES, strict=False):
        part = first.sel(scale=scale)
        unit = -np.log(scale)
        draw_measured(
            axes, part["moment"].values / unit, part["loss"].values, colour=colour, label=f"scale {power_of_ten(scale)}"
        )
        levels = part["expected_level"].values
        middles = (levels[:-1] + levels[1:]) / 2
        axes.plot(part["expected_crossing"] / unit, middles, "o", color=colour, markersize=4.5, markeredgecolor="white")
    draw_predicted(axes, limit, first["expected_level"].isel(scale=0).values, end, label="limit of a small start")
    axes.set_xlim(0, end)
    label_axes(axes, "time / log(1/scale)", "loss", title="(a) the staircase sharpens; dots: predicted")
    axes.legend(fontsize=7.5, frameon=False)


def _draw_errors(axes: "Axes", history: xr.Dataset) -> None:
    scales = history["scale"].values
    for position, scale in enumerate(scales):
        for offset, (name, _, colour, marker) in zip((-0.22, 0.0, 0.22), _SERIES, strict=True):
            part = history.sel(scale=scale)
            errors = relative_error(part, "half", name).values.ravel()
            spots = position + offset + 0.12 * (np.arange(len(errors)) / max(len(errors) - 1, 1) - 0.5)
            axes.plot(
                spots, np.maximum(errors, 1e-11), marker, color=colour, markersize=3, alpha=0.55, markeredgewidth=0
            )
        if scale in REFINED:
            axes.plot([position + 0.08, position + 0.36], 2 * [REFINED[scale]], color=INK, linewidth=1.2)
    for _, label, colour, marker in _SERIES:
        axes.plot([], [], marker, color=colour, markersize=5, label=label)
    axes.plot([], [], color=INK, linewidth=1.2, label="bound for refined")
    axes.set_yscale("log")
    axes.set_xticks(range(len(scales)), [power_of_ten(scale) for scale in scales])
    axes.set_xlim(-0.5, len(scales) - 0.5)
    label_axes(axes, "scale of the start", "relative error of the time", title="(b) plain and refined times")
    axes.legend(fontsize=7.5, frameon=False, loc="lower left")


def _draw_power(axes: "Axes", history: xr.Dataset) -> None:
    part = history.isel(power_draw=0)
    end = min(1.15 * float(part["power_expected_crossing"].max()), float(part["power_moment"].max()))
    draw_measured(axes, part["power_moment"].values, part["power_loss"].values)
    levels = part["power_expected_level"].values
    draw_predicted(axes, part["power_plain"].values, levels, end, colour=FAINT, label="plain prediction")
    draw_predicted(axes, part["power_expected_crossing"].values, levels, end, label="refined prediction")
    axes.set_yscale("log")
    axes.set_ylim(0.4 * levels[-2], 1.6 * levels[0])
    axes.set_xlim(0, end)
    label_axes(axes, "time", "loss", title="(c) singular values 1/k from a start of 1e-15")
    axes.legend(fontsize=7.5, frameon=False)


def _draw_order(axes: "Axes", history: xr.Dataset) -> None:
    for jump, colour in enumerate((ACCENT, SECOND, THIRD)):
        growth, final = float(history["order_growth"][jump]), float(history["order_final"][jump])
        label = f"σ = {growth:g}, drop {growth * final / 2:g}"
        axes.plot(history["order_moment"], history["order_strength"][:, jump], color=colour, linewidth=1.8, label=label)
        axes.plot(history["order_refined"][jump], final / 2, "o", color=colour, markersize=5.5, markeredgecolor="white")
    axes.set_xlim(0, float(history["order_moment"][-1]))
    label_axes(axes, "time", "strength of the mode", title="(d) the order is that of σ; dots: predicted")
    axes.legend(fontsize=7.5, frameon=False, loc="upper left", bbox_to_anchor=(0.42, 0.72))


def _draw_turn(axes: "Axes", history: xr.Dataset) -> None:
    for jump, colour in enumerate((ACCENT, SECOND)):
        final = float(history["turn_final"][jump])
        axes.plot(
            history["turn_moment"],
            history["turn_strength"][:, jump],
            color=colour,
            linewidth=1.8,
            label=f"mode {jump + 1}",
        )
        axes.plot(history["turn_refined"][jump], final / 2, "o", color=colour, markersize=5.5, markeredgecolor="white")
        axes.axvline(float(history["turn_plain"][jump]), color=colour, linewidth=1, linestyle=":")
        axes.annotate(
            f"{float(history['turn_refined'][jump]):.4f}",
            (float(history["turn_refined"][jump]), final / 2),
            xytext=(7, -3),
            textcoords="offset points",
            fontsize=8,
            color=colour,
        )
    axes.plot([], [], color=INK, linewidth=1, linestyle=":", label="plain prediction")
    axes.set_xlim(0, float(history["turn_moment"][-1]))
    label_axes(axes, "time", "strength of the mode", title="(e) an example by hand; dots: predicted")
    axes.legend(fontsize=7.5, frameon=False, loc="upper left")


def _draw_general(axes: "Axes", history: xr.Dataset) -> None:
    errors = relative_error(history, "general_crossing", "general_expected_crossing")
    logs = -np.log10(history["general_scale"].values)
    for mode, (colour, marker) in enumerate(((ACCENT, "o"), (SECOND, "s"), (THIRD, "^"))):
        part = errors.isel(general_mode=mode).transpose("general_scale", "general_draw").values
        spots = np.repeat(logs, part.shape[1]) * (1 + 0.03 * (mode - 1))
        axes.plot(spots, part.ravel(), marker, color=colour, markersize=4, alpha=0.7, label=f"jump {mode + 1}")
    middle = float(np.exp(np.log(errors.max("general_mode").mean("general_draw").values * logs).mean()))
    line = np.array([0.8 * logs.min(), 1.25 * logs.max()])
    axes.plot(line, middle / line, color=INK, linewidth=1, linestyle="--", label="∝ 1 / log(1/scale)")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(logs, [power_of_ten(scale) for scale in history["general_scale"].values])
    axes.minorticks_off()
    label_axes(
        axes, "scale of the start", "relative error of the time", title="(f) any input covariance (a conjecture)"
    )
    axes.legend(fontsize=7.5, frameon=False, loc="lower left")
