"""Drawings of Fig. 1 and Fig. 3: dimensions against effective depth, spectra and energies over depth, path lengths."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.experiments.jacot2024.depth_claims import largest_momentum
from learnmech.experiments.jacot2024.shared import (
    alive,
    median_over_depth,
    node_depths,
    readable,
    ridge_colours,
    setting,
    task_rank,
    write_ridge,
)
from learnmech.experiments.jacot2024.trained_nets import stack_values
from learnmech.figures import ACCENT, FAINT, INK, SECOND, THIRD
from learnmech.leaky.depth_expansion import fit_depth_expansion
from learnmech.leaky.training_result import RESIDUAL_LIMIT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN_RIDGE = 1e-3
_LEGEND: Mapping[str, Any] = {"fontsize": 7.5, "frameon": False}


def draw_bottleneck(history: xr.Dataset) -> "Figure":
    """Draw Fig. 1.

    Args:
        history: the collected sweep.

    Returns:
        The figure.
    """
    figure = new_figure(3, 3, width=11.0, height=9.6)
    panels = figure.axes
    specification = panels[0].get_subplotspec()
    assert specification is not None
    figure.delaxes(panels[1])
    panels[0].set_subplotspec(specification.get_gridspec()[0, :2])
    _draw_dimensions(panels[0], history)
    _draw_costs(panels[2], history)
    count = history.sizes["effective_depth"]
    trusted = np.flatnonzero(readable(history))
    chosen = sorted({0, count // 2, int(trusted[-1]) if len(trusted) else count - 1})
    for column, row in enumerate(chosen):
        net = history.isel(effective_depth=row)
        place = node_depths(history)[row]
        _draw_spectrum(panels[3 + column], net, place, "bcd"[column], task_rank(history))
        _draw_energies(panels[6 + column], net, place, legend=column == 0)
    for axes in (*panels[3 + len(chosen) : 6], *panels[6 + len(chosen) :]):
        axes.set_visible(False)
    return figure


def _draw_dimensions(axes: "Axes", history: xr.Dataset) -> None:
    depths = history["effective_depth"].values
    ridges = history["ridge"].values
    costs = stack_values(history, "identity_cost", "ridge", "effective_depth", "layer").min(-1)
    damped = median_over_depth(history, "ridge_effective_dimension", "ridge", "effective_depth")
    for ridge, colour, cost, dimension in zip(ridges, ridge_colours(ridges), costs, damped, strict=True):
        axes.plot(
            depths,
            cost,
            "o-",
            color=colour,
            markersize=4,
            linewidth=1.5,
            label=f"least identity cost, {write_ridge(ridge)}",
        )
        axes.plot(
            depths, dimension, "--", color=colour, linewidth=1.1, label=f"with ridge: -2H/L̃, {write_ridge(ridge)}"
        )
    trusted = readable(history)
    for name, label, colour, style in (
        ("effective_dimension", "effective dimension -2H/L̃", SECOND, "-"),
        ("pre_effective_dimension", "the same at the net's own weights (pre-Hamiltonian)", THIRD, "-"),
    ):
        values = stack_values(history, name, "effective_depth", "layer")[:, :-1]
        middle = np.median(values, axis=1)
        axes.plot(depths, middle, style, color=colour, linewidth=1.5, label=label)
        axes.fill_between(depths, *np.quantile(values, [0.25, 0.75], axis=1), color=colour, alpha=0.15, linewidth=0)
        for fine, filling in ((True, colour), (False, "white")):
            kept = trusted == fine
            axes.plot(depths[kept], middle[kept], "s", color=colour, markerfacecolor=filling, markersize=4.5)
    rank = task_rank(history)
    axes.axhline(rank, color=INK, linewidth=0.8, linestyle=":")
    axes.annotate(
        f"k* = {rank}",
        (0, rank),
        xycoords=("axes fraction", "data"),
        xytext=(4, 3),
        textcoords="offset points",
        fontsize=8,
    )
    axes.set_yscale("symlog", linthresh=10)
    axes.set_yticks([-100, -10, 0, rank, 10, 100, 1000], ["-100", "-10", "0", f"{rank}", "10", "100", "1000"])
    label_axes(
        axes,
        "effective depth L̃",
        "dimensions (linear between -10 and 10)",
        title="(a) Identity cost falls, effective dimension rises, to the number of directions that are kept",
    )
    axes.legend(**_LEGEND, ncols=2)
    residual = history["residual"].values
    ticks = [f"{depth:g}\n({value:.2f})" for depth, value in zip(depths, residual, strict=True)]
    axes.set_xticks(depths, ticks)
    axes.set_xlabel("effective depth L̃ (median stationarity residual)", color=INK, fontsize=9)


def _draw_costs(axes: "Axes", history: xr.Dataset) -> None:
    nets = history.isel(effective_depth=alive(history))
    depths, penalty = nets["effective_depth"].values, float(setting(history, "penalty"))
    axes.plot(depths, 2 / penalty * nets["cost"].values, "o", color=ACCENT, markersize=5, label="trained nets")
    title = "Optimal cost against effective depth"
    if len(depths) >= 3:
        fit = fit_depth_expansion(depths, nets["cost"].values, penalty=penalty)
        fine = np.linspace(depths[0], depths[-1], 100)
        axes.plot(fine, fit.cost(fine), color=INK, linewidth=1.2, label="k L̃ + R₁ + R₂/L̃")
        axes.text(
            0.5,
            0.72,
            f"k = {fit.k:.2f}\nR₁ = {fit.R1:.0f}, R₂ = {fit.R2:.0f}",
            transform=axes.transAxes,
            fontsize=9,
            color=INK,
        )
        title = "Its slope counts the directions kept"
    label_axes(axes, "effective depth L̃", "cost (2/λ) J", title=title)
    axes.legend(**_LEGEND)


def _draw_spectrum(axes: "Axes", net: xr.Dataset, place: np.ndarray, letter: str, rank: int) -> None:
    spectrum = stack_values(net, "weight_spectrum", "layer", "direction")[:-1]
    for number in range(spectrum.shape[1]):
        leading = number < rank
        axes.plot(
            place[:-1],
            spectrum[:, number],
            color=ACCENT if leading else SECOND if number == rank else FAINT,
            linewidth=1.5 if leading else 1.2,
            label={0: f"the {rank} largest", rank: "the next", rank + 1: "the rest"}.get(number),
        )
    depth = float(net["effective_depth"])
    axes.axhline(depth, color=INK, linewidth=0.9, linestyle=":")
    axes.annotate(
        "L̃", (1, depth), xycoords=("axes fraction", "data"), xytext=(2, -3), textcoords="offset points", fontsize=8
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, None)
    label_axes(
        axes, "depth p", "singular values of the weights", title=f"({letter}) Weights at effective depth {depth:g}"
    )
    axes.legend(**_LEGEND)


def _draw_energies(axes: "Axes", net: xr.Dataset, place: np.ndarray, *, legend: bool) -> None:
    depth = float(net["effective_depth"])
    shown = net.sel(ridge=_SHOWN_RIDGE, method="nearest")
    ridge = write_ridge(float(shown["ridge"]))
    lines: Sequence[tuple[np.ndarray, str, str]] = (
        (shown["identity_cost"].values, f"identity cost, {ridge}", ACCENT),
        (2 / depth * shown["kinetic_energy"].values, f"(2/L̃) kinetic energy, {ridge}", "#7fb3dd"),
        (shown["ridge_effective_dimension"].values, f"their difference, {ridge}", FAINT),
        (net["effective_dimension"].values, "effective dimension -2H/L̃", SECOND),
        (net["pre_effective_dimension"].values, "the same, pre-Hamiltonian", THIRD),
    )
    for values, label, colour in lines:
        axes.plot(place, values, color=colour, linewidth=1.5, label=label)
    axes.set_xlim(0, 1)
    axes.set_yscale("symlog", linthresh=10)
    residuals = net["stationarity"].values
    axes.fill_between(
        place,
        0,
        np.minimum(residuals, 1) * 0.25,
        transform=axes.get_xaxis_transform(),
        color=SECOND,
        alpha=0.12,
        linewidth=0,
        label="residual of each layer (quarter of the height: 1)",
    )
    median = float(net["residual"])
    verdict = "" if median < RESIDUAL_LIMIT else " (too large)"
    label_axes(axes, "depth p", "dimensions", title=f"Energies at L̃ = {depth:g}, residual {median:.2f}{verdict}")
    if legend:
        axes.legend(**_LEGEND)


def draw_sizes(history: xr.Dataset) -> "Figure":
    """Draw Fig. 3.

    Args:
        history: the collected sweep.

    Returns:
        The figure.
    """
    figure = new_figure(1, 3, width=10.5, height=3.6)
    from matplotlib.ticker import LogLocator

    nets = history.isel(effective_depth=alive(history))
    depths = nets["effective_depth"].values
    ridges = nets["ridge"].values
    first, second, third = figure.axes
    lengths = stack_values(nets, "path_length", "ridge", "effective_depth")
    for ridge, colour, row in zip(ridges, ridge_colours(ridges), lengths, strict=True):
        _draw_size(first, depths, row, colour, write_ridge(ridge))
    label_axes(first, "effective depth L̃", "length of the path", title="(a) Path length in the metric of each ridge")
    largest = largest_momentum(nets)
    _draw_size(second, depths, largest, SECOND, "max ‖B‖")
    label_axes(second, "effective depth L̃", "largest norm over depth", title="(b) Momenta")
    products = stack_values(nets, "activation_norm", "effective_depth", "layer") * stack_values(
        nets, "momentum_norm", "effective_depth", "layer"
    )
    _draw_size(third, depths, products.max(-1), THIRD, "max ‖σ(A)‖ ‖B‖")
    label_axes(third, "effective depth L̃", "largest product over depth", title="(c) Momenta times activations")
    for axes in figure.axes:
        axes.set_yscale("log")
        axes.set_xscale("log")
        axes.set_xticks(depths, [f"{depth:g}" for depth in depths])
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.legend(**_LEGEND)
    return figure


def _draw_size(axes: "Axes", depths: np.ndarray, values: np.ndarray, colour: str, label: str) -> None:
    axes.plot(depths, values, "o-", color=colour, markersize=4, linewidth=1.5, label=label)
    if len(depths):
        axes.plot(depths, values[0] * depths / depths[0], color=colour, linewidth=0.9, linestyle=(0, (4, 3)))
