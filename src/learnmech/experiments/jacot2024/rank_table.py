"""How many dimensions a task needs: nets of a few effective depths on a task of rank 3, held against known numbers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.experiments.jacot2024.shared import (
    RESIDUAL_NOTE,
    alive,
    choose_settings,
    node_depths,
    numbers,
    readable,
    setting,
    task_rank,
)
from learnmech.experiments.jacot2024.trained_nets import least_cost_layer, stack_values, train_net
from learnmech.experiments.reproduction import Claim, Context, Reproduction, Scale, judge, untested
from learnmech.figures import ACCENT, FAINT, INK, SECOND, THIRD
from learnmech.leaky.depth_expansion import DepthExpansion, fit_depth_expansion
from learnmech.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COMMON: Mapping[str, Any] = {
    "widths": [10, 3, 10],
    "teacher": "fully_connected",
    "task_seed": 0,
    "scheme": "uniform",
    "init": "identity",
    "penalty": 0.02,
    "learning_rate": 3e-3,
    "ridges": [1e-2, 1e-3],
    "seed": 0,
}
SETTINGS: Mapping[Scale, Mapping[str, Any]] = {
    "smoke": {
        **_COMMON,
        "widths": [5, 2, 5],
        "samples": 40,
        "width": 12,
        "layers": 9,
        "effective_depth": [2.0, 4.0, 8.0],
        "adam_steps": 300,
        "polish_iterations": 100,
    },
    "reduced": {
        **_COMMON,
        "samples": 300,
        "width": 40,
        "layers": 24,
        "effective_depth": [2.0, 3.0, 4.0, 6.0, 8.0, 12.0],
        "adam_steps": 6000,
        "polish_iterations": 1500,
    },
    "paper": {
        **_COMMON,
        "samples": 1000,
        "width": 100,
        "layers": 48,
        "effective_depth": [2.0, 3.0, 4.0, 6.0, 8.0, 12.0],
        "adam_steps": 20_000,
        "polish_iterations": 5000,
    },
}
# Another draw of the same kind of task, with these settings: least identity cost at ridge 1e-2, effective dimension, and singular
# values of the weights at mid-depth less the effective depth.
KNOWN: Mapping[float, tuple[float, float, tuple[float, float, float]]] = {
    2.0: (469.0, -16.44, (5.7, 4.5, 3.4)),
    4.0: (49.0, -1.77, (5.6, 4.4, 3.8)),
    8.0: (6.7, 1.83, (5.3, 4.6, 4.2)),
}
_EXPANSION_FROM = 3.0  # below it, the terms that the expansion leaves out are not small
TEXTS = {
    "K1": "the least identity cost is that of another draw of the task",
    "K2": "and so is the effective dimension",
    "K3": "large singular values of the weights, less the effective depth, too; they do not depend on it",
    "K4": "the cost grows with the effective depth as the directions kept by the weights",
    "K5": "the cost grows with the effective depth as the directions in which the narrowest representation varies",
}


def run_table(context: Context) -> xr.Dataset:
    """Train a net for every effective depth.

    Args:
        context: where and how to run.

    Returns:
        The collected sweep.
    """
    settings = choose_settings(context, SETTINGS[context.scale], ("effective_depth",))
    depths = settings.pop("effective_depth")
    return context.run(Sweep(train_net, {"effective_depth": depths}, fixed=settings))


def check_table(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check the claims K1 to K5.

    Args:
        history: the collected sweep.
        scale: the scale of the run.

    Returns:
        The claims; without a verdict at scale ``smoke``, and where nets are missing.
    """
    nets = history.isel(effective_depth=alive(history))
    depths = nets["effective_depth"].values
    shared = [depth for depth in depths if float(depth) in KNOWN]
    if len(shared) < len(KNOWN) or scale == "smoke":
        return [
            untested(key, text, f"trained nets of effective depths {numbers(list(KNOWN))}")
            for key, text in TEXTS.items()
        ]
    known = nets.sel(effective_depth=shared)
    costs = stack_values(known.sel(ridge=1e-2, method="nearest"), "identity_cost", "effective_depth", "layer").min(-1)
    wanted = np.array([KNOWN[float(depth)][0] for depth in shared])
    middle = nets.sizes["layer"] // 2
    spectrum = stack_values(known, "weight_spectrum", "effective_depth", "layer", "direction")[:, middle, :3]
    rates = spectrum - np.array(shared)[:, None]
    other = np.array([KNOWN[float(depth)][2] for depth in shared])
    return [
        judge(
            "K1",
            TEXTS["K1"],
            f"within a factor of 2 of {numbers(wanted)} at ridge 1e-2 and effective depths {numbers(shared)} (ours)",
            numbers(costs),
            bool((np.abs(np.log2(costs / wanted)) <= 1).all()),
        ),
        _check_dimension(known),
        judge(
            "K3",
            TEXTS["K3"],
            "each of the three largest within 1 of that of the other draw, and within 0.75 over effective depths (ours)",
            "; ".join(f"{numbers(row)} at {depth:g}" for row, depth in zip(rates, shared, strict=True)),
            bool((np.abs(rates - other) <= 1).all() and (np.ptp(rates, axis=0) <= 0.75).all()),
        ),
        *_check_expansion(nets),
    ]


def _check_dimension(known: xr.Dataset) -> Claim:
    if not readable(known).all():
        return untested("K2", TEXTS["K2"], f"stationary nets; median residuals are {numbers(known['residual'], 2)}")
    depths = known["effective_depth"].values
    found = known["mean_pre_effective_dimension"].values
    wanted = np.array([KNOWN[float(depth)][1] for depth in depths])
    return judge(
        "K2",
        TEXTS["K2"],
        f"mean over depth within 1.5, or a fifth, of {numbers(wanted)} at effective depths {numbers(depths)} (ours)",
        f"{numbers(found)} (median residuals {numbers(known['residual'], 2)})",
        bool((np.abs(found - wanted) <= np.maximum(1.5, np.abs(wanted) / 5)).all()),
    )


def _check_expansion(nets: xr.Dataset) -> list[Claim]:
    fit = _fit(nets)
    kept, varying = _count(nets, "kept_directions"), _count(nets, "varying_directions")
    wanted = (
        f"k of the fit (2/λ) J = k L̃ + R1 + R2/L̃ over effective depths of {_EXPANSION_FROM:g} and more within 0.5 of their number in the "
        "deepest net"
    )
    return [
        judge("K4", TEXTS["K4"], f"{wanted} (ours)", f"{fit}; {kept:g} directions", abs(fit.k - kept) <= 0.5),
        judge(
            "K5",
            TEXTS["K5"],
            f"{wanted} (ours; made after K4 had failed on a first draw: weights carry the mean of the features as a direction, which a bias "
            "gives back at little cost)",
            f"{fit}; {varying:g} directions, k* = {task_rank(nets)}",
            abs(fit.k - varying) <= 0.5,
        ),
    ]


def _fit(nets: xr.Dataset) -> DepthExpansion:
    deep = nets.isel(effective_depth=nets["effective_depth"].values >= _EXPANSION_FROM)
    if deep.sizes["effective_depth"] < 3:
        deep = nets
    return fit_depth_expansion(
        deep["effective_depth"].values, deep["cost"].values, penalty=float(setting(nets, "penalty"))
    )


def _count(nets: xr.Dataset, name: str) -> float:
    """Count directions at the bottleneck of the deepest net."""
    deepest = nets.isel(effective_depth=-1)
    costs = stack_values(deepest.isel(ridge=int(deepest["ridge"].values.argmax())), "identity_cost", "layer")
    return float(deepest[name].values[int(least_cost_layer(costs))])


def draw_table(history: xr.Dataset) -> "Figure":
    """Draw three nets over depth, and the cost against the effective depth.

    Args:
        history: the collected sweep.

    Returns:
        The figure.
    """
    figure = new_figure(2, 4, width=13.0, height=6.4)
    panels = np.array(figure.axes).reshape(2, 4)
    depths = history["effective_depth"].values
    chosen: Sequence[int] = [int(np.abs(depths - depth).argmin()) for depth in (2.0, 4.0, 8.0)]
    places = node_depths(history)
    for column, row in enumerate(chosen):
        net = history.isel(effective_depth=row)
        _draw_dimensions(panels[0, column], net, places[row], task_rank(history), legend=column == 0)
        _draw_rates(panels[1, column], net, places[row], task_rank(history), legend=column == 0)
    _draw_cost(panels[0, 3], history)
    _draw_slopes(panels[1, 3], history)
    return figure


def _draw_dimensions(axes: "Axes", net: xr.Dataset, place: np.ndarray, rank: int, *, legend: bool) -> None:
    for number, (ridge, colour) in enumerate(zip(net["ridge"].values, (ACCENT, "#7fb3dd"), strict=False)):
        axes.plot(place, net["identity_cost"].isel(ridge=number), color=colour, label=f"identity cost, γ = {ridge:g}")
    values = net["pre_effective_dimension"].values
    axes.plot(place, np.where(values > 0, values, np.nan), color=SECOND, label="effective dimension, where positive")
    axes.plot(place, net["varying_directions"], ".", color=THIRD, markersize=4, label="directions that vary")
    axes.axhline(rank, color=INK, linewidth=0.8, linestyle=":")
    axes.set_yscale("log")
    axes.set_ylim(0.8, 1e7)  # room for the legend
    axes.text(0.02, rank, f"k* = {rank}", transform=axes.get_yaxis_transform(), va="top", fontsize=8, color=INK)
    label_axes(axes, "depth p", "dimensions", title=f"Effective depth {float(net['effective_depth']):g}")
    if legend:
        axes.legend(fontsize=7.5, frameon=False, loc="upper right")


def _draw_rates(axes: "Axes", net: xr.Dataset, place: np.ndarray, rank: int, *, legend: bool) -> None:
    depth = float(net["effective_depth"])
    spectrum = stack_values(net, "weight_spectrum", "layer", "direction")[:-1] - depth
    for number in range(spectrum.shape[1]):
        colour = ACCENT if number < rank else SECOND if number == rank else FAINT
        label = {0: f"the {rank} largest", rank: "the next", rank + 1: "the rest"}.get(number)
        axes.plot(place[:-1], spectrum[:, number], color=colour, linewidth=1.3, label=label)
    axes.axhline(0, color=INK, linewidth=0.8, linestyle=":")
    label_axes(axes, "depth p", "singular value of W less L̃", title="above 0: carried through and amplified")
    if legend:
        axes.legend(fontsize=7.5, frameon=False)


def _draw_cost(axes: "Axes", history: xr.Dataset) -> None:
    nets = history.isel(effective_depth=alive(history))
    depths, penalty = nets["effective_depth"].values, float(setting(history, "penalty"))
    axes.plot(depths, 2 / penalty * nets["cost"].values, "o", color=ACCENT, markersize=5)
    if len(depths) >= 3:
        fit = _fit(nets)
        fine = np.linspace(depths[0], depths[-1], 100)
        axes.plot(fine, fit.cost(fine), color=INK, linewidth=1.2)
        axes.text(0.35, 0.8, f"k = {fit.k:.2f}", transform=axes.transAxes, fontsize=10, color=INK)
    label_axes(axes, "effective depth L̃", "cost (2/λ) J", title="The cost rises by k a unit of depth")


def _draw_slopes(axes: "Axes", history: xr.Dataset) -> None:
    nets = history.isel(effective_depth=alive(history))
    depths = nets["effective_depth"].values
    axes.plot(
        depths, nets["mean_pre_effective_dimension"], "s", color=SECOND, markersize=5, label="measured in each net"
    )
    if len(depths) >= 3:
        fine = np.linspace(depths[0], depths[-1], 100)
        axes.plot(fine, _fit(nets).slope(fine), color=INK, linewidth=1.2, label="slope of the fitted cost")
    axes.axhline(task_rank(history), color=INK, linewidth=0.8, linestyle=":")
    label_axes(axes, "effective depth L̃", "effective dimension", title="Its slope is the effective dimension")
    axes.legend(fontsize=7.5, frameon=False)


RANK = Reproduction(
    name="jacot2024/rank",
    title="how many dimensions a task needs, from a few nets",
    caption="Leaky ResNets of three effective depths learn y = g(h(x)), where h maps 10 numbers to 3 and g maps 3 to 10. Top: the identity cost "
    "counts the dimensions of the representation at each depth; in the deep net it comes down to about 3 (dotted). Bottom: singular "
    "values of the weights less the effective depth; three or four are carried through, at rates that do not depend on the effective "
    "depth, and all others are dropped. Right: the same number from costs alone. The task is ours, the mechanics those of the paper. "
    + RESIDUAL_NOTE,
    settings=SETTINGS,
    run=run_table,
    check=check_table,
    draw=draw_table,
    citations=("jacot2024", "jacot2023bottleneck"),
)
