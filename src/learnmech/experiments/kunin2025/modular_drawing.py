"""The picture of modular addition: staircases, spectra, neurons and phases."""

import math
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.experiments.kunin2025.modular_cells import BEST_FRACTIONS, ONE_HOT
from learnmech.experiments.kunin2025.modular_claims import leading_part, template_names, time_errors
from learnmech.experiments.kunin2025.staircases import draw_measured, draw_predicted
from learnmech.figures import ACCENT, FAINT, INK, SECOND, THIRD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FREQUENCIES = (ACCENT, "#d98e04", THIRD, "#7b5ea7", "#c2577f")
"""Colours of the frequencies of a template, in increasing order."""
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_FIRST = 0.4
_SHOWN = 0.05
_BAND = 0.1
_GROWN = 0.5


def draw(history: xr.Dataset) -> "Figure":
    """Draw losses, errors, spectra, neurons, phases and fractions.

    Args:
        history: what the figure's run gave.

    Returns:
        The figure.
    """
    figure = new_figure(3, 3, width=12.6, height=10.6)
    first, second, errors, spectra, hot, leading, matrix, phases, few = figure.axes
    names = template_names(history)
    for axes, name, letter, text in zip(
        (first, second), names, "ab", ("the paper's template", "without resonance"), strict=True
    ):
        _losses(axes, history.sel(encoding=name), f"({letter}) {text}: loss")
    _errors(errors, history.sel(encoding=names))
    one = history.sel(encoding=names[0]).isel(seed=0)
    _spectra(spectra, one)
    _hot(hot, history.sel(encoding=ONE_HOT).isel(seed=0))
    _leading(leading, history)
    _matrix(matrix, one)
    _phases(phases, one, history["six"].values)
    _few(few, history)
    return figure


def template_frequencies(run: xr.Dataset) -> np.ndarray:
    """Give the frequencies of a template.

    Args:
        run: of one encoding and seed.

    Returns:
        Increasing frequencies.
    """
    return np.asarray(run["frequency"].values[np.isfinite(run["part"].values)])


def frequency_colours(run: xr.Dataset) -> dict[int, str]:
    """Give each frequency of a template its colour.

    Args:
        run: of one encoding and seed.

    Returns:
        Colour by frequency.
    """
    return {int(k): FREQUENCIES[place % len(FREQUENCIES)] for place, k in enumerate(template_frequencies(run))}


def neuron_frequencies(run: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Give the frequency of the template at which each neuron is largest, and its squared norm.

    Args:
        run: of one encoding and seed.

    Returns:
        Both (record, neuron), of the neurons that there are.
    """
    power = run["power"].values
    power = power[:, np.isfinite(power[0]).any(axis=1)]
    at = template_frequencies(run)
    return at[power[..., at - 1].argmax(axis=-1)], np.nansum(power, axis=-1)


def time_axis(axes: "Axes", run: xr.Dataset) -> None:
    """Set a logarithmic axis of time from before the first jump.

    Args:
        axes: where.
        run: of one encoding and seed.
    """
    start, end = _FIRST * float(run["predicted_time"][0]), float(run["moment"].max())
    axes.set_xscale("log")
    axes.set_xlim(start, end)
    marks = [mark for mark in TICKS if start <= mark <= end]
    axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
    axes.minorticks_off()


def _losses(axes: "Axes", runs: xr.Dataset, title: str) -> None:
    for seed in range(runs.sizes["seed"] - 1, -1, -1):
        run = runs.isel(seed=seed)
        labels = {0: "gradient flow, seed 0", 1: "other seeds"}
        draw_measured(axes, run["moment"].values, run["loss"].values, label=labels.get(seed, ""), faint=seed > 0)
    run = runs.isel(seed=0)
    times = run["predicted_time"].values
    names = [f"k = {frequency:.0f}" for frequency in run["predicted_frequency"].values]
    time_axis(axes, run)
    start, end = axes.get_xlim()
    draw_predicted(axes, times[np.isfinite(times)], run["level"].values, end, start=start, names=names)
    stages = run["stage_time"].values < end
    moments, losses = run["stage_time"].values[stages], run["stage_loss"].values[stages]
    edges = np.concatenate([[start], moments, [end]])
    heights = np.concatenate([run["level"].values[:1], losses])
    axes.stairs(heights, edges, baseline=None, color=ACCENT, linewidth=0.9, label="predicted, neuron by neuron")
    axes.set_ylim(-0.03 * float(run["level"][0]), 1.08 * float(run["level"][0]))
    axes.legend(fontsize=7, frameon=False, loc="lower left")
    label_axes(axes, "time", "loss", title=title)


def _errors(axes: "Axes", history: xr.Dataset) -> None:
    errors = 100 * time_errors(history)
    count = errors.shape[-1]
    axes.axhspan(-100 * _BAND, 100 * _BAND, color=FAINT, alpha=0.25, linewidth=0)
    axes.axhline(0, color=FAINT, linewidth=0.8)
    ticks, names = [], []
    for place, text in enumerate(("paper's", "without\nresonance")):
        for jump in range(count):
            x = place * (count + 0.7) + jump
            found = errors[place, :, jump]
            shift = np.linspace(-0.22, 0.22, len(found)) if len(found) > 1 else np.zeros(1)
            axes.plot(x + shift, found, "o", color=(SECOND, ACCENT)[place], markersize=5, alpha=0.85)
            lost = int(np.isnan(found).sum())
            if lost:
                axes.annotate(
                    f"{lost} not seen", (x, 0.97), xycoords=("data", "axes fraction"), fontsize=7, ha="center"
                )
            ticks.append(x)
            names.append(f"jump {jump + 1}" + (f"\n{text}" if jump == 0 else ""))
    axes.set_xticks(ticks, names)
    axes.set_xlim(ticks[0] - 0.6, ticks[-1] + 0.6)
    largest = float(np.nanmax(np.abs(errors))) if np.isfinite(errors).any() else 0.0
    axes.set_ylim(-max(20.0, 1.15 * largest), max(20.0, 1.15 * largest))
    label_axes(axes, "", "measured over predicted, minus 1, %", title="(c) errors of the times, all seeds")


def _spectra(axes: "Axes", run: xr.Dataset) -> None:
    colours = frequency_colours(run)
    time_axis(axes, run)
    target = 0.0
    for frequency in run["frequency"].values:
        curve = run["output_power"].sel(frequency=frequency).values
        if not np.isfinite(curve).any():
            continue
        colour = colours.get(int(frequency))
        axes.plot(
            run["moment"],
            np.maximum(curve, 1e-12),
            color=colour or FAINT,
            linewidth=1.8 if colour else 0.8,
            label=f"k = {frequency}" if colour else "",
            zorder=3 if colour else 2,
        )
        if colour:
            aim = 2 * float(run["part"].sel(frequency=frequency))
            target = max(target, aim)
            axes.axhline(aim, color=colour, linewidth=0.9, linestyle=":")
    axes.plot([], [], color=FAINT, linewidth=0.8, label="not in the template")
    axes.set_yscale("log")
    axes.set_ylim(1e-6 * target, 4 * target)
    axes.minorticks_off()
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    label_axes(axes, "time", "mean squared output", title="(d) paper's template: spectrum of the output")


def _hot(axes: "Axes", run: xr.Dataset) -> None:
    colours = frequency_colours(run)
    moments, losses = run["moment"].values, run["loss"].values
    for frequency, colour in colours.items():
        axes.plot(
            moments,
            run["share"].sel(frequency=frequency),
            color=colour,
            linewidth=1.4,
            label=f"k = {frequency} learned",
        )
    axes.plot(moments, losses / losses[0], color=INK, linewidth=2.0, label="loss / first loss")
    begin = moments[int((losses < 0.999 * losses[0]).argmax())]
    axes.set_xlim(begin - 0.05 * (moments[-1] - begin), moments[-1])
    axes.set_ylim(-0.05, 1.08)
    axes.legend(fontsize=7, frameon=False, loc="center left")
    label_axes(axes, "time", "share", title="(e) one-hot numbers: no staircase")


def _leading(axes: "Axes", history: xr.Dataset) -> None:
    names = [template_names(history)[0], ONE_HOT]
    for name, colour, text in zip(names, (SECOND, ACCENT), ("paper's template", "one-hot"), strict=True):
        for seed in range(history.sizes["seed"]):
            gone, part = leading_part(history.sel(encoding=name).isel(seed=seed))
            kept = np.isfinite(part)
            axes.plot(gone[kept], part[kept], color=colour, linewidth=1.2, alpha=0.8, label=text if seed == 0 else "")
    axes.axvline(0.5, color=INK, linewidth=0.9, linestyle=":")
    for value in (0.5, 0.9):
        axes.plot([0.47, 0.53], [value, value], color=INK, linewidth=1.6)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.05)
    axes.legend(fontsize=7, frameon=False, loc="lower left")
    label_axes(
        axes, "share of the loss that is gone", "part of what is learned", title="(f) of the frequency that leads"
    )


def _matrix(axes: "Axes", run: xr.Dataset) -> None:
    power = run["power"].isel(record=-1).values
    power = power[np.isfinite(power).any(axis=1)][:, np.isfinite(power).any(axis=0)]
    order = np.lexsort((-power.max(axis=1), power.argmax(axis=1), power.max(axis=1) < _SHOWN * power.max()))
    image = axes.imshow(power[order], cmap="Blues", aspect="auto", interpolation="none", vmin=0)
    axes.set_xticks(np.arange(power.shape[1]), [str(k) for k in range(1, power.shape[1] + 1)])
    axes.set_yticks([])
    label_axes(axes, "frequency k", f"{len(power)} neurons, sorted", title="(g) paper's template: neurons at the end")
    axes.grid(False)
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02, aspect=30)
    bar.ax.tick_params(labelsize=7, colors=INK)
    bar.outline.set_visible(False)
    bar.set_label("squared norm", color=INK, fontsize=8)


def _phases(axes: "Axes", run: xr.Dataset, six: np.ndarray) -> None:
    from matplotlib.lines import Line2D

    colours = frequency_colours(run)
    frequencies, sizes = neuron_frequencies(run)
    count = sizes.shape[1]
    grown = np.flatnonzero((sizes >= _GROWN**2).any(axis=0))
    when = (sizes >= _GROWN**2)[:, grown].argmax(axis=0)
    there = frequencies[when, grown]
    sums, lasts = run["phase_sum"].values[:, :count], run["phase_last"].values[:, :count]
    for turn in (-1, 0, 1):
        axes.plot(
            [-math.pi, math.pi], [-math.pi + 2 * math.pi * turn, math.pi + 2 * math.pi * turn], color=FAINT, lw=0.9
        )
    axes.scatter(lasts[0], sums[0], facecolors="none", edgecolors=FAINT, s=26, zorder=2)
    axes.scatter(lasts[when, grown], sums[when, grown], c=[colours[int(k)] for k in there], s=44, zorder=3)
    first = int(template_frequencies(run)[0])
    angles = np.angle(np.fft.fft(six.reshape(len(six), 3, -1), axis=-1)[..., first])
    axes.scatter(_wrap(angles[:, 2]), _wrap(angles[:, 0] + angles[:, 1]), marker="*", c=INK, s=22, zorder=4)
    marks = [(FAINT, "o", "none", "start"), (INK, "*", INK, "six in closed form")]
    marks += [(colour, "o", colour, f"norm 1/2, k = {k}") for k, colour in colours.items() if k in there]
    handles = [
        Line2D([], [], color=edge, marker=marker, linestyle="none", markerfacecolor=face, markersize=6, label=text)
        for edge, marker, face, text in marks
    ]
    axes.legend(handles=handles, fontsize=7, frameon=True, framealpha=0.85, edgecolor="none", loc="lower right")
    ticks, names = [-math.pi, 0, math.pi], ["-π", "0", "π"]
    axes.set_xticks(ticks, names)
    axes.set_yticks(ticks, names)
    axes.set_xlim(-3.4, 3.4)
    axes.set_ylim(-3.4, 3.4)
    label_axes(axes, "phase of w", "phases of u + v − template", title="(h) paper's template: phases, as neurons grow")


def _wrap(angles: np.ndarray) -> np.ndarray:
    return np.asarray((angles + math.pi) % (2 * math.pi) - math.pi)


def _few(axes: "Axes", history: xr.Dataset) -> None:
    found = history["few_fraction"].values
    counts = np.arange(1, len(found) + 1)
    axes.bar(counts, BEST_FRACTIONS[: len(found)], color=FAINT, alpha=0.45, width=0.62, label="expected")
    axes.plot(counts, found, "o", color=SECOND, markersize=6, label="best of a search")
    for count, value in zip(counts, found, strict=True):
        axes.annotate(
            f"{value:.3f}", (count, value), xytext=(0, 6), textcoords="offset points", fontsize=8, ha="center"
        )
    axes.plot(
        [5],
        [0],
        "o",
        color=INK,
        markerfacecolor="white",
        markersize=7,
        label="as small as one likes, unbounded weights",
    )
    loss = float(history["six_loss"].isel(encoding=0))
    axes.plot([6], [loss], "o", color=INK, markersize=7, label=f"closed form, {loss:.0e}")
    axes.set_xticks(range(1, 7))
    axes.set_ylim(-0.05, 1.05)
    axes.legend(fontsize=7, frameon=False, loc="upper right")
    label_axes(axes, "neurons", "share of the loss left", title="(i) one frequency: six neurons are needed")
