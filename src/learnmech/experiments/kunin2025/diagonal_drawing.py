"""The picture of diagonal networks: paths over the contours of the loss, staircases, accumulated utilities and the table of jumps."""

import math
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float

from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.experiments.kunin2025.diagonal_claims import time_errors
from learnmech.experiments.kunin2025.diagonal_measuring import two_coordinates
from learnmech.experiments.kunin2025.staircases import draw_predicted
from learnmech.figures import ACCENT, FAINT, INK, SECOND, THIRD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COORDINATES = (ACCENT, SECOND, THIRD, "#b7791f", "#7b5ea7")
_TIME = "time / -log α"
_FIRST = 0.1


def draw(history: xr.Dataset) -> "Figure":
    """Draw the plane, losses, utilities, errors and the table.

    Args:
        history: what the figure's run gave.

    Returns:
        The figure.
    """
    figure = new_figure(3, 3, width=12.6, height=10.6)
    plane, loss, utilities, loss_of_five, utilities_of_five, beta_of_five, errors, routes, table = figure.axes
    logs = history["scale"].values
    colours = scale_colours(logs)
    draw_contours(plane, history)
    for position, colour in enumerate(colours):
        run = history.isel(scale=position)
        width = 3.0 - 1.8 * position / max(len(logs) - 1, 1)  # paths that lie on each other stay visible
        plane.plot(run["beta"][:, 0], run["beta"][:, 1], color=colour, linewidth=width, zorder=3)
        loss.plot(
            run["moment"],
            run["loss"],
            color=colour,
            linewidth=1.8,
            label=f"α = {scale_name(logs[position])}",
            zorder=0.9,
        )
    draw_saddles(plane, history)
    label_axes(plane, "β₁", "β₂", title="coefficients over contours of the loss")
    _staircase(loss, history, "")
    loss.legend(fontsize=7, frameon=False, loc="lower left")
    _staircase(loss_of_five, history, "five_")
    logs_of_five = history["five_scale"].values
    for position, colour in enumerate(scale_colours(logs_of_five, least=-math.log(0.01))):
        run = history.isel(five_scale=position)
        name = scale_name(logs_of_five[position])
        loss_of_five.plot(
            run["five_moment"], run["five_loss"], color=colour, linewidth=1.8, label=f"α = {name}", zorder=0.9
        )
    loss_of_five.legend(fontsize=7, frameon=False, loc="lower left")
    for axes, name in ((loss, "two"), (loss_of_five, "five")):
        label_axes(axes, _TIME, "loss", title=f"{name} coordinates: loss and predicted staircase")
    draw_utilities(utilities, history, "", int(np.argmin(np.abs(logs + 36.8))))
    smallest = int(np.argmin(logs_of_five))
    draw_utilities(utilities_of_five, history, "five_", smallest)
    _coefficients(beta_of_five, history, smallest)
    _errors(errors, history)
    _routes(routes, history)
    _table(table, history)
    for axes in figure.axes:
        axes.minorticks_off()
    return figure


def scale_colours(logs: Float[np.ndarray, " scales"], *, least: float = 0.0) -> list[str]:
    """Give a colour for each scale, light for large and dark for small starts.

    Args:
        logs: of the scales.
        least: size of the log that has the lightest colour.

    Returns:
        Colours.
    """
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    shades = LinearSegmentedColormap.from_list("starts", ["#f2c14e", "#e07a3f", "#c9405e", "#8e3a8c", "#5b3fa0"])
    place = np.log(1 + np.abs(logs)) - math.log(1 + least)
    return [to_hex(shades(value)) for value in place / max(float(place.max()), 1e-9)]


def scale_name(log_scale: float, power: str = "$e^{{{}}}$") -> str:
    """Write a scale.

    Args:
        log_scale: its log.
        power: how to write a power of e.

    Returns:
        As a number where it is a round one, else as a power of e.
    """
    text = f"{math.exp(log_scale):.6g}".replace("e-0", "e-")
    return text if len(text) <= 6 else power.format(f"{log_scale:g}")


def loss_grid(history: xr.Dataset, points: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the loss over the part of the plane that the paths visit.

    Args:
        history: what the figure's run gave.
        points: along each side.

    Returns:
        First and second coefficients, and losses (second, first).
    """
    inputs, values = two_coordinates()
    beta = history["beta"].values.reshape(-1, 2)
    low, high = beta.min(axis=0), beta.max(axis=0)
    margin = 0.18 * (high - low)
    first, second = (np.linspace(low[side] - margin[side], high[side] + margin[side], points) for side in range(2))
    grid = np.stack(np.meshgrid(first, second), axis=-1)
    return first, second, np.square(grid @ inputs.T - values).sum(axis=-1) / (2 * len(values))


def draw_contours(axes: "Axes", history: xr.Dataset) -> None:
    """Draw contours of the loss.

    Args:
        axes: where.
        history: what the figure's run gave.
    """
    first, second, losses = loss_grid(history)
    levels = np.geomspace(0.01, float(losses.max()), 14)
    axes.contour(first, second, losses, levels=levels, colors=FAINT, linewidths=0.6, alpha=0.7, zorder=1)
    axes.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
    axes.axvline(0, color=FAINT, linewidth=0.8, zorder=1)


def draw_saddles(axes: "Axes", history: xr.Dataset) -> None:
    """Draw the predicted saddles with their numbers.

    Args:
        axes: where.
        history: what the figure's run gave.
    """
    saddles = history["saddle"].values
    axes.plot(saddles[:-1, 0], saddles[:-1, 1], "o", color="white", markeredgecolor=INK, markersize=7, zorder=4)
    axes.plot(*saddles[-1], "*", color="white", markeredgecolor=INK, markersize=13, zorder=4)
    for number, saddle in enumerate(saddles):
        axes.annotate(str(number), tuple(saddle), (7, 5), textcoords="offset points", fontsize=9, color=INK, zorder=5)


def _staircase(axes: "Axes", history: xr.Dataset, prefix: str) -> None:
    times, levels = (history[f"{prefix}{name}"].values for name in ("expected_time", "expected_level"))
    end = float(history[f"{prefix}moment"].max())
    start = _FIRST * float(times[0])
    lowest = 0.1 * float(levels[-2])
    draw_predicted(axes, times, np.maximum(levels, 1e-3 * lowest), end, start=start)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(lowest, 1.6 * float(levels[0]))
    axes.set_xlim(3 * start, end)
    _plain_ticks(axes)


def _plain_ticks(axes: "Axes") -> None:
    low, high = axes.get_xlim()
    marks = [mark for mark in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100) if low <= mark <= high]
    axes.set_xticks(marks, [f"{mark:g}" for mark in marks])


def draw_utilities(axes: "Axes", history: xr.Dataset, prefix: str, position: int) -> None:
    """Draw the accumulated utility of each coordinate, as predicted and as measured in one flow.

    Args:
        axes: where.
        history: what the figure's run gave.
        prefix: of the variables.
        position: of the flow among the scales.
    """
    run = history.isel({f"{prefix}scale": position})
    times = np.concatenate([[0.0], history[f"{prefix}expected_time"].values])
    places = history[f"{prefix}expected_accumulated"].values
    for edge in (-1, 1):
        axes.axhline(edge, color=FAINT, linewidth=0.8)
    for coordinate in range(places.shape[1]):
        colour = COORDINATES[coordinate % len(COORDINATES)]
        axes.plot(
            run[f"{prefix}moment"],
            run[f"{prefix}accumulated"][:, coordinate],
            color=colour,
            linewidth=1.8,
            label=f"S of β{_subscript(coordinate + 1)}",
        )
        axes.plot(
            times, places[:, coordinate], color=INK, linewidth=1.0, linestyle=(0, (3, 2)), marker=".", markersize=4
        )
    axes.set_ylim(-1.35, 1.35)
    axes.set_xlim(0, float(run[f"{prefix}moment"].max()))
    axes.legend(fontsize=7, frameon=False, loc="center right")
    name = scale_name(float(history[f"{prefix}scale"][position]))
    label_axes(axes, _TIME, "accumulated utility S", title=f"active where S reaches 1 or -1 (α = {name})")


def _coefficients(axes: "Axes", history: xr.Dataset, position: int) -> None:
    run = history.isel(five_scale=position)
    times, saddles = history["five_expected_time"].values, history["five_saddle"].values
    end = float(run["five_moment"].max())
    for coordinate in range(saddles.shape[1]):
        colour = COORDINATES[coordinate % len(COORDINATES)]
        axes.plot(
            run["five_moment"],
            run["five_beta"][:, coordinate],
            color=colour,
            linewidth=1.8,
            label=f"β{_subscript(coordinate + 1)}",
        )
        edges = np.concatenate([[_FIRST * times[0]], times, [end]])
        axes.stairs(saddles[:, coordinate], edges, baseline=None, color=INK, linewidth=1.0, linestyle="--")
    axes.set_xscale("log")
    axes.set_xlim(3 * _FIRST * times[0], end)
    _plain_ticks(axes)
    axes.legend(fontsize=7, frameon=False, loc="lower left")
    name = scale_name(float(history["five_scale"][position]))
    label_axes(axes, _TIME, "coefficient", title=f"five coordinates: coefficients (α = {name})")


def _errors(axes: "Axes", history: xr.Dataset) -> None:
    logs, errors = time_errors(history)
    axes.plot(logs, errors, "o", color=ACCENT, markersize=5, label="two coordinates, largest error of a jump")
    guide = np.array([logs.min(), logs.max()])
    axes.plot(guide, errors[-1] * logs[-1] / guide, color=INK, linewidth=1.0, linestyle="--", label="1 / |log α|")
    axes.set_xscale("log")
    axes.set_yscale("log")
    marks = [mark for mark in (1, 3, 10, 30, 100, 300) if logs.min() <= mark <= logs.max()]
    axes.set_xticks(marks, [str(mark) for mark in marks])
    axes.legend(fontsize=7, frameon=False, loc="lower left")
    label_axes(axes, "|log α|", "error of the time / -log α", title="smaller starts keep the times better")


def _routes(axes: "Axes", history: xr.Dataset) -> None:
    floor = 1e-17
    difference = np.maximum(history["route_difference"].values, floor)
    bins = np.geomspace(floor, 1e-7, 41)
    left = history["route_left"].values > 0
    axes.hist(
        [difference[~left], difference[left]],
        bins=list(bins),
        stacked=True,
        color=[FAINT, ACCENT],
        label=[f"none leaves ({int((~left).sum())})", f"coordinates leave ({int(left.sum())})"],
    )
    axes.set_ylim(0, 1.25 * axes.get_ylim()[1])
    axes.axvline(1e-9, color=INK, linewidth=1.0, linestyle="--")
    axes.annotate("criterion", (1e-9, 0.97), (-4, 0), xycoords=("data", "axes fraction"), textcoords="offset points", ha="right", va="top", fontsize=7, color=INK)  # fmt: skip
    axes.set_xscale("log")
    axes.legend(fontsize=7, frameon=False, loc="upper left")
    label_axes(
        axes,
        "largest relative difference of the jump times",
        "designs",
        title="two routes to the saddles, random designs",
    )


def _table(axes: "Axes", history: xr.Dataset) -> None:
    axes.set_axis_off()
    axes.set_title("jumps in the plane (loss at the middle)", color=INK, fontsize=10, loc="left")
    logs = history["scale"].values
    saddles, order = history["saddle"].values, np.argsort(-logs)
    rows = [["saddle", *(f"({first:.3g}, {second:.3g})" for first, second in saddles[1:])]]
    rows.append(["level", *(f"{level:.6f}" for level in history["expected_level"].values[1:])])
    rows.append(["predicted", *(f"{time:.6f}" for time in history["expected_time"].values)])
    for position in order:
        times = history["half_time"].values[position]
        cells = [f"{time:.4f}" if math.isfinite(time) else "-" for time in times]
        rows.append([f"α = {scale_name(logs[position])}", *cells])
    drawn = axes.table(rows, loc="upper center", cellLoc="right", bbox=(0.0, 0.0, 1.0, 0.98), edges="horizontal")  # type: ignore[arg-type]
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(8)
    for (row, _), cell in drawn.get_celld().items():
        cell.set_edgecolor(FAINT)
        cell.set_linewidth(0.5)
        cell.get_text().set_color(INK)
        if row == 2:
            cell.get_text().set_fontweight("bold")


def _subscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
