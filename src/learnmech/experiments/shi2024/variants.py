"""Figures S5 to S7: nets of other depths and widths, other data, another optimizer."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from learnmech import history as histories
from learnmech.experiments.drawing import draw_curves
from learnmech.experiments.networks import without_readout
from learnmech.experiments.reproduction import Claim, Context, Reproduction, Scale, judge
from learnmech.experiments.shi2024.network_claims import (
    mean_of,
)
from learnmech.experiments.shi2024.panels import ALL_SCALES, BASE, NOISES, make_panels
from learnmech.experiments.shi2024.phase_diagrams import SEEDS
from learnmech.experiments.sweeping import train_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _draw_over_noise(history: xr.Dataset, panel: str, title: str) -> "Figure":
    """Draw one panel for each value of an axis, with the mean load curve of each level of noise."""
    curves = without_readout(history)["load"].mean("seed")
    values = history[panel].values
    figure = make_panels(len(values))
    for axes, value in zip(figure.axes, values, strict=False):
        chosen = curves.sel({panel: value}).transpose("noise", "layer").values
        labels = [f"noise {float(level):g}" for level in history["noise"].values]
        draw_curves(axes, list(chosen), labels, title=f"{title}{value}")
    return figure


def _check_over_noise(history: xr.Dataset, scale: Scale, panel: str, key: str, text: str) -> list[Claim]:
    """Check for every value of an axis that noise bends the curve from concave to convex."""
    claims = []
    for value in history[panel].values:
        q = [mean_of(history, "curvature", **{panel: value, "noise": noise}) for noise in NOISES["smoke"]]
        claims.append(
            judge(
                f"{key} ({value})",
                f"{text} {value}: noise bends the curve from concave to convex",
                "q rises strictly over noise 0, 0.2, 0.7, from below zero to above",
                "q = " + ", ".join(f"{number:+.2f}" for number in q),
                bool(np.all(np.diff(q) > 0)) and q[0] < 0 < q[-1],
                tested=scale != "smoke",
            )
        )
    return claims


_DEPTHS: Mapping[Scale, tuple[int, ...]] = {"smoke": (4, 8), "reduced": (5, 8, 12), "paper": (4, 6, 8, 10, 12)}


def join_depths(parts: Sequence[xr.Dataset], dimension: str, values: Sequence[Any]) -> xr.Dataset:
    """Join sweeps of nets of different depth along a new axis; missing layers are NaN.

    Args:
        parts: one collected sweep for each depth.
        dimension: name of the new axis.
        values: its values.

    Returns:
        One history with the layers of the deepest net.
    """
    deepest = max(parts, key=lambda part: part.sizes["layer"])
    filled = []
    for part in parts:
        wide = part.drop_vars(["role", "depth"]).reindex(layer=deepest["layer"].values)
        filled.append(wide.assign_coords(role=deepest["role"], depth=deepest["depth"]))
    return histories.concat(filled, dimension, values)


def _run_depths(context: Context) -> xr.Dataset:
    depths = _DEPTHS[context.scale]
    grid = {"noise": NOISES[context.scale], "seed": SEEDS[context.scale]}
    parts = [
        train_grid(grid, {**BASE[context.scale], "depth": depth}, context, folder=f"sweep-depth-{depth}")
        for depth in depths
    ]
    return join_depths(parts, "weight_layers", depths)


FIGS5 = Reproduction(
    name="shi2024/figS5",
    title="nets of different depth",
    caption="Mean load curves of ReLU nets under label and data noise. The paper's depths are not in its text; these are ours.",
    settings={
        scale: {**BASE[scale], "depth": _DEPTHS[scale], "noise": NOISES[scale], "seed": SEEDS[scale]}
        for scale in ALL_SCALES
    },
    run=_run_depths,
    check=lambda history, scale: _check_over_noise(history, scale, "weight_layers", "S5", "depth"),
    draw=lambda history: _draw_over_noise(history, "weight_layers", "weight layers: "),
)

_WIDTHS: Mapping[Scale, tuple[int, ...]] = {"smoke": (20, 60), "reduced": (50, 100, 200), "paper": (50, 100, 200, 400)}


def _run_widths(context: Context) -> xr.Dataset:
    grid = {"width": _WIDTHS[context.scale], "noise": NOISES[context.scale], "seed": SEEDS[context.scale]}
    return train_grid(grid, BASE[context.scale], context)


FIGS6 = Reproduction(
    name="shi2024/figS6",
    title="nets of different width",
    caption="Mean load curves of ReLU nets under label and data noise. In the published class every layer is as wide as the "
    "input; here the input keeps its 100 pixels and the hidden layers vary.",
    settings={
        scale: {**BASE[scale], "width": _WIDTHS[scale], "noise": NOISES[scale], "seed": SEEDS[scale]}
        for scale in ALL_SCALES
    },
    run=_run_widths,
    check=lambda history, scale: _check_over_noise(history, scale, "width", "S6", "width"),
    draw=lambda history: _draw_over_noise(history, "width", "width "),
)


_OTHERS: Mapping[str, Mapping[str, Any]] = {
    "Fashion-MNIST, Adam": {"data": "fashion_mnist"},
    "MNIST, SGD with momentum": {"optimizer": "sgd", "momentum": 0.9, "lr": 0.05},
}
_SMOKE_OTHERS: Mapping[str, Mapping[str, Any]] = {
    "digits, AdamW": {"optimizer": "adamw"},
    "digits, SGD with momentum": {"optimizer": "sgd", "momentum": 0.9, "lr": 0.05},
}


def _run_others(context: Context) -> xr.Dataset:
    table = _SMOKE_OTHERS if context.scale == "smoke" else _OTHERS
    grid = {"noise": NOISES[context.scale], "seed": SEEDS[context.scale]}
    parts = [
        train_grid(grid, {**BASE[context.scale], **values}, context, folder=f"sweep-{position}")
        for position, values in enumerate(table.values())
    ]
    return histories.concat(parts, "panel", list(table))


FIGS7 = Reproduction(
    name="shi2024/figS7",
    title="other data and another optimizer",
    caption="Mean load curves of ReLU nets under label and data noise. Which other optimizer the paper used is not said; here it is "
    "gradient descent with momentum 0.9 and learning rate 0.05.",
    settings={
        scale: {
            **BASE[scale],
            "panels": {name: dict(values) for name, values in (_SMOKE_OTHERS if scale == "smoke" else _OTHERS).items()},
            "noise": NOISES[scale],
            "seed": SEEDS[scale],
        }
        for scale in ALL_SCALES
    },
    run=_run_others,
    check=lambda history, scale: _check_over_noise(history, scale, "panel", "S7", "with"),
    draw=lambda history: _draw_over_noise(history, "panel", ""),
)
