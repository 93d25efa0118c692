"""The drawing of ReLU nets: utility over the circle, neurons that gather, staircase, errors."""

import math
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.experiments.kunin2025.relu_cells import six_points
from learnmech.experiments.kunin2025.staircases import draw_predicted
from learnmech.figures import ACCENT, FAINT, INK, PAPER, SECOND, THIRD, depth_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEAST = 1e-8
_SHOWN = 20.0
_CORE = 0.3


def draw(history: xr.Dataset) -> "Figure":
    """Draw utility, neurons, staircase, and errors.

    Args:
        history: what :func:`learnmech.experiments.kunin2025.relu.run` gave.

    Returns:
        The figure.
    """
    figure = new_figure(2, 3, width=12.5, height=7.6)
    axes = figure.axes
    logs = history["log"].values
    log = float(logs[logs <= _SHOWN][-1]) if (logs <= _SHOWN).any() else float(logs[0])
    one = history.sel(log=log).isel(draw=0)
    _draw_utility(axes[0], history)
    _draw_angles(axes[1], one, history, log)
    _draw_plane(axes[2], one, history, log)
    _draw_losses(axes[3], history)
    _draw_errors(axes[4], history)
    _draw_distances(axes[5], history)
    return figure


def _colour(sign: float) -> str:
    return ACCENT if sign > 0 else SECOND


def _draw_utility(axes: "Axes", history: xr.Dataset) -> None:
    inputs, _ = six_points()
    heading = np.degrees(np.arctan2(inputs[:, 1], inputs[:, 0]))
    for kink in np.concatenate([heading - 90, heading + 90]) % 360:
        axes.axvline(kink, color=FAINT, linewidth=0.7, alpha=0.6)
    axes.plot(np.degrees(history["angle"]), history["utility"], color=INK, linewidth=1.6)
    axes.axhline(0, color=FAINT, linewidth=0.8)
    for angle, sign, utility in zip(*_candidates(history), strict=True):
        axes.plot(math.degrees(angle), sign * utility, "o", color=_colour(sign), markersize=8)
        axes.annotate(
            f"attracts a {'>' if sign > 0 else '<'} 0\n{math.degrees(angle):.1f}°",
            (math.degrees(angle), sign * utility),
            xytext=(12, 2 * sign),
            textcoords="offset points",
            fontsize=8.5,
            color=_colour(sign),
            va="bottom" if sign > 0 else "top",
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1, "alpha": 0.85},
        )
    _angle_ticks(axes.set_xlim, axes.set_xticks)
    axes.margins(y=0.16)
    label_axes(axes, "angle of w (degrees)", "utility for a > 0", title="(a) utility over the circle, and its extrema")


def _draw_angles(axes: "Axes", one: xr.Dataset, history: xr.Dataset, log: float) -> None:
    times, angles = one["moment"].values / log, np.degrees(one["neuron_angle"].values)
    for number, sign in enumerate(one["sign"].values):
        path = angles[:, number].copy()
        path[1:][np.abs(np.diff(angles[:, number])) > 180] = np.nan
        axes.plot(times, path, color=_colour(sign), linewidth=0.9, alpha=0.75)
    for angle, sign, _ in zip(*_candidates(history), strict=True):
        axes.axhline(math.degrees(angle), color=_colour(sign), linewidth=1.2, linestyle=(0, (4, 2)), zorder=0)
    for number, crossing in enumerate(one["crossing"].values, 1):
        axes.axvline(crossing / log, color=INK, linewidth=1, linestyle=":")
        axes.text(crossing / log, 345, f" jump {number}", fontsize=8, color=INK, ha="left", va="center")
    for sign in (1, -1):
        axes.plot([], [], color=_colour(sign), label=f"a {'>' if sign > 0 else '<'} 0")
    axes.legend(fontsize=8, frameon=True, framealpha=0.9, edgecolor="none", loc="center right")
    axes.set_xlim(0, min(float(times[-1]), 1.25 * float(one["crossing"].values[-1]) / log))
    _angle_ticks(axes.set_ylim, axes.set_yticks)
    title = f"(b) {one.sizes['neuron']} random neurons, scale e$^{{-{log:g}}}$"
    label_axes(axes, "time / |log scale|", "angle of w (degrees)", title=title)


def _draw_plane(axes: "Axes", one: xr.Dataset, history: xr.Dataset, log: float) -> None:
    radius = np.maximum(1 + (1 - _CORE) * np.log(one["neuron_norm"].values) / log, 0.0)
    angles = one["neuron_angle"].values
    x, y = radius * np.cos(angles), radius * np.sin(angles)
    turn = np.linspace(0, 2 * np.pi, 200)
    for ring in (_CORE, 1.0):
        axes.plot(ring * np.cos(turn), ring * np.sin(turn), color=FAINT, linewidth=0.7)
    for ring, text in ((_CORE, "start"), (1.0, "size 1")):
        axes.text(0.74 * ring, -0.74 * ring, text, fontsize=8, color=INK, ha="left", va="top")
    for angle, sign, _ in zip(*_candidates(history), strict=True):
        axes.plot(
            [_CORE * math.cos(angle), 1.3 * math.cos(angle)], [_CORE * math.sin(angle), 1.3 * math.sin(angle)],
            color=_colour(sign), linewidth=1.2, linestyle=(0, (4, 2)), zorder=0,
        )  # fmt: skip
    for number, sign in enumerate(one["sign"].values):
        axes.plot(x[:, number], y[:, number], color=_colour(sign), linewidth=0.8, alpha=0.7)
        axes.plot(x[-1, number], y[-1, number], "o", color=_colour(sign), markersize=3.5)
    axes.set_aspect("equal")
    axes.set_xlim(-1.4, 1.4)
    axes.set_ylim(-1.4, 1.4)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    label_axes(axes, "", "", title="(c) the same neurons in the plane of w")
    axes.grid(visible=False)


def _draw_losses(axes: "Axes", history: xr.Dataset) -> None:
    logs = history["log"].values
    colours = [_hexadecimal(colour) for colour in depth_colours(len(logs))]
    last = 0.0
    for log, colour in zip(logs, colours, strict=True):
        one = history.sel(log=log).isel(draw=0)
        axes.plot(one["moment"] / log, one["loss"], color=colour, linewidth=1.6, label=f"scale e$^{{-{log:g}}}$")
        levels = one["expected_level"].values
        axes.plot(
            one["refined"] / log, (levels[1:] + levels[:-1]) / 2, "o", color=colour, markersize=5, markeredgecolor=INK
        )
        last = max(last, float(one["plain"].max()) / log)
    smallest = history.isel(log=-1, draw=0)
    end = 1.25 * last
    draw_predicted(
        axes,
        smallest["plain"].values / logs[-1],
        smallest["expected_level"].values,
        end,
        label="theory, vanishing scale",
    )
    axes.plot([], [], "o", color="none", markeredgecolor=INK, markersize=5, label="refined times")
    axes.set_xlim(0, end)
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    label_axes(axes, "time / |log scale|", "half the mean squared error", title="(d) loss of gradient flow")


def _draw_errors(axes: "Axes", history: xr.Dataset) -> None:
    logs = history["log"].values
    for field, marker in (("plain", "o"), ("refined", "s")):
        errors = abs(history["crossing"] / history[field] - 1).transpose("jump", "draw", "log").values
        for jump, colour in enumerate((ACCENT, THIRD)):
            for draw_number in range(history.sizes["draw"]):
                axes.plot(
                    logs, np.maximum(errors[jump, draw_number], 1e-16), color=colour, marker=marker, markersize=4.5, linewidth=1.2,
                    linestyle="-" if field == "plain" else (0, (2, 2)), alpha=1.0 if draw_number == 0 else 0.4,
                    label=f"jump {jump + 1}, {field}" if draw_number == 0 else None,
                )  # fmt: skip
    top = abs(history["crossing"] / history["plain"] - 1).max().item() * 1.7
    axes.plot(logs, top * logs[0] / logs, color=INK, linewidth=0.9, linestyle="--", label="slope -1")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(logs, [f"{log:g}" for log in logs])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    axes.set_ylim(low / 3, high * 2)
    axes.legend(fontsize=8, frameon=False, loc="center right", ncols=1)
    label_axes(
        axes, "|log scale|", "relative error of the time", title="(e) refined times hold, plain ones miss by 1 / |log|"
    )


def _draw_distances(axes: "Axes", history: xr.Dataset) -> None:
    names: list[str] = []
    columns = [history["distance"].sel(log=log).values.ravel() for log in history["log"].values]
    names += [f"e$^{{-{log:g}}}$" for log in history["log"].values]
    count = len(columns)
    columns += list(history["problem_after"].transpose("problem", "problem_neuron").values)
    names += [str(number + 1) for number in range(history.sizes["problem"])]
    generator = np.random.default_rng(0)
    for place, values in enumerate(columns):
        shift = generator.uniform(-0.28, 0.28, len(values))
        seen = np.maximum(values, _LEAST)
        colour = INK if place < count else THIRD
        axes.plot(place + shift, seen, "o", color=colour, markersize=3, alpha=0.5, markeredgewidth=0)
    axes.axvline(count - 0.5, color=FAINT, linewidth=0.8)
    axes.axhline(1e-2, color=SECOND, linewidth=1, linestyle="--")
    axes.text(len(columns) - 0.5, 1.25e-2, "0.01 rad", fontsize=7.5, color=SECOND, ha="right", va="bottom")
    axes.set_yscale("log")
    axes.set_ylim(_LEAST / 3, 2e1)
    axes.set_xlim(-0.6, len(columns) - 0.4)
    step = max(1, math.ceil(history.sizes["problem"] / 8))
    kept = [place for place in range(len(columns)) if place < count or (place - count) % step == 0]
    axes.set_xticks(kept, [names[place] for place in kept])
    for middle, text in (((count - 1) / 2, "six points"), (count + (len(columns) - count - 1) / 2, "random data")):
        axes.text(middle, 8, text, fontsize=8.5, color=INK, ha="center", va="center")
    label_axes(axes, "scale, and number of the problem", "angle (rad)", title="(f) to the nearest predicted direction")


def _candidates(history: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(history[f"candidate_{name}"].values for name in ("angle", "sign", "utility"))  # type: ignore[return-value]


def _angle_ticks(limits: object, ticks: object) -> None:
    limits(0, 360)  # type: ignore[operator]
    ticks(range(0, 361, 90))  # type: ignore[operator]


def _hexadecimal(colour: str) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in colour[4:-1].split(","))
