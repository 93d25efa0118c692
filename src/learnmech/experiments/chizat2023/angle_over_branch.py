"""F3 and F4: the angle at the last block against the scale of the branch, for nets of several depths."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from learnmech.experiments.chizat2023.shared import (
    ANGLE,
    DASHED,
    EXACT,
    Cells,
    angle,
    draw_band,
    mean_angle,
    numbers,
    setting,
    slope,
)
from learnmech.experiments.chizat2023.starting_nets import measure_last
from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.experiments.reproduction import Claim, Reproduction, Scale, judge, untested
from learnmech.figures import ACCENT, INK, SECOND, THIRD

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _branches(least: float, count: int) -> list[float]:
    return [float(value) for value in np.geomspace(least, 1.0, count).round(6)]


_BASE = {"inputs": 10, "target": "random", "step": 1e-3, "dtype": "float32"}
OVER_DEPTHS = Cells(
    measure_last,
    ("layers", "branch"),
    {
        "smoke": {**_BASE, "width": 100, "layers": [20, 50], "branch": _branches(1e-3, 8), "draws": 2},
        "reduced": {**_BASE, "width": 200, "layers": [30, 100, 200], "branch": _branches(1e-3, 14), "draws": 8},
        "paper": {**_BASE, "width": 500, "layers": [30, 100, 500], "branch": _branches(1e-3, 20), "draws": 5},
    },
)
DEEPEST = Cells(
    measure_last,
    ("branch",),
    {
        "smoke": {**_BASE, "width": 100, "layers": 50, "branch": _branches(1e-2, 10), "draws": 2},
        "reduced": {**_BASE, "width": 500, "layers": 500, "branch": _branches(1e-2, 14), "draws": 2},
        "paper": {**_BASE, "width": 500, "layers": 500, "branch": _branches(1e-3, 20), "draws": 5},
    },
)


def check_collapse(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check F3: the curves of all depths lie on one.

    Args:
        history: the collected sweep.
        scale: the scale of the run.

    Returns:
        The claims F3a to F3c.
    """
    del scale  # what can be tested depends on the nets that were measured
    texts = {
        "F3a": "the angle depends on branch and depth through sqrt(L) times the branch only",
        "F3b": "it is 0.45 right angles where that product is 1",
        "F3c": "the large-width recursion gives the angle (ours, not the paper's)",
    }
    depths = history["layers"].values
    if setting(history, "width") < 200 or len(depths) < 2 or depths.min() < 30:
        return [
            untested(key, text, "two depths of at least 30, at a width of at least 200") for key, text in texts.items()
        ]
    measured, predicted = mean_angle(history), mean_angle(history, "cosine_predicted")
    common = np.geomspace(0.05, 5.0, 41)
    curves = np.array([_read_at(measured.sel(layers=depth), int(depth), common) for depth in depths])
    spread = float((curves.max(axis=0) - curves.min(axis=0)).max())
    at_one = np.array([float(_read_at(measured.sel(layers=depth), int(depth), np.ones(1))[0]) for depth in depths])
    gap = float(np.abs(measured - predicted).max())
    return [
        judge(
            "F3a",
            texts["F3a"],
            "θ of the depths, read off between points, differs by less than 0.06 from sqrt(L) β = 0.05 to 5",
            f"differs by at most {spread:.3f}",
            spread < 0.06,
        ),
        judge(
            "F3b",
            texts["F3b"],
            "θ within 0.05 of 0.45 at sqrt(L) β = 1 for every depth",
            f"θ = {numbers(at_one, 3)} for L = {', '.join(map(str, depths))}",
            bool((np.abs(at_one - 0.45) < 0.05).all()),
        ),
        judge(
            "F3c",
            texts["F3c"],
            "mean θ within 0.05 of it at every depth and branch scale",
            f"off by at most {gap:.3f}",
            gap <= 0.05,
        ),
    ]


def check_decay(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check F4: how the cosine falls with the branch.

    Args:
        history: the collected sweep.
        scale: the scale of the run.

    Returns:
        The claims F4a and F4b.
    """
    del scale  # what can be tested depends on the nets that were measured
    layers = setting(history, "layers")
    texts = {
        "F4a": "for large c the cosine falls as 1/c (drawn in the authors' notebook as a conjecture)",
        "F4b": "the cosine falls as the large-width recursion says (ours, not the paper's)",
    }
    if layers < 300 or setting(history, "width") < 300:
        return [untested(key, text, "L and width of at least 300") for key, text in texts.items()]
    factors = np.sqrt(layers) * history["branch"].values
    kept = (factors >= 3) & (factors <= 22.5)
    cosines = {name: history[name].mean("draw").values[kept] for name in ("cosine", "cosine_predicted")}
    exponent, expected = (slope(factors[kept], values) for values in cosines.values())
    return [
        judge(
            "F4a",
            texts["F4a"],
            "exponent within 0.1 of -1 over c from 3 to sqrt(500) = 22.4",
            f"exponent {exponent:.3f} over {int(kept.sum())} values of c",
            abs(exponent + 1) <= 0.1,
        ),
        judge(
            "F4b",
            texts["F4b"],
            "exponent within 0.1 of the recursion's over the same values of c",
            f"exponent {exponent:.3f}, recursion {expected:.3f}",
            abs(exponent - expected) <= 0.1,
        ),
    ]


def _read_at(curve: xr.DataArray, layers: int, places: np.ndarray) -> np.ndarray:
    """Read a curve over branch at places in sqrt(L) times branch, on straight lines over the logarithm."""
    return np.asarray(np.interp(np.log(places), np.log(np.sqrt(layers) * curve["branch"].values), curve.values))


def draw_collapse(history: xr.Dataset) -> "Figure":
    """Draw the angle over sqrt(L) times the branch.

    Args:
        history: the collected sweep.

    Returns:
        The figure.
    """
    figure = new_figure(width=6.4, height=4.2)
    axes = figure.axes[0]
    predicted = mean_angle(history, "cosine_predicted")
    shades = [THIRD, ACCENT, SECOND, INK]
    for position, depth in enumerate(history["layers"].values):
        draw_band(
            axes,
            np.sqrt(float(depth)) * history["branch"].values,
            angle(history["cosine"].sel(layers=depth)),
            label=f"L = {depth}",
            colour=shades[position % len(shades)],
            marker=True,
            predicted=predicted.sel(layers=depth),
        )
    axes.set_xscale("log")
    axes.set_ylim(0, 1)
    label_axes(axes, "c = √L β", f"{ANGLE}, at the last block")
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def draw_decay(history: xr.Dataset) -> "Figure":
    """Draw the cosine over c, on logarithmic axes.

    Args:
        history: the collected sweep.

    Returns:
        The figure.
    """
    figure = new_figure(width=6.0, height=4.2)
    axes = figure.axes[0]
    layers = setting(history, "layers")
    factors = np.sqrt(layers) * history["branch"].values
    cosines = history["cosine"]
    for draw in range(history.sizes["draw"]):
        axes.plot(factors, cosines.isel(draw=draw), ".", color=ACCENT, alpha=0.45, markersize=4)
    axes.plot(factors, cosines.mean("draw"), color=ACCENT, linewidth=1.6, label="measured, mean over draws")
    axes.plot(
        factors,
        history["cosine_predicted"].mean("draw"),
        color=INK,
        linewidth=1.1,
        linestyle=(0, (4, 2.5)),
        label="large-width recursion",
    )
    large = factors[factors >= 1]
    axes.plot(large, 1 / large, color=SECOND, linewidth=1.1, linestyle=(0, (1, 1.5)), label="1/c")
    axes.set_xscale("log")
    axes.set_yscale("log")
    label_axes(axes, f"c = √L β, L = {layers}", "cos θ, at the last block")
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    return figure


F3 = Reproduction(
    name="chizat2023/F3",
    title="angle of the last features' change over the scale of the branch",
    caption="Nets of several depths L. Lines are means over draws, bands one standard deviation; the last point of each is the MLP. "
    + DASHED
    + EXACT,
    settings=OVER_DEPTHS.settings,
    run=OVER_DEPTHS.run,
    check=check_collapse,
    draw=draw_collapse,
    citations=("chizat2023",),
)
F4 = Reproduction(
    name="chizat2023/F4",
    title="cosine of the last features' change over the scale of the branch",
    caption="Dots are draws. The rightmost point is the MLP, where the recursion is above 1/c. " + DASHED + EXACT,
    settings=DEEPEST.settings,
    run=DEEPEST.run,
    check=check_decay,
    draw=draw_decay,
    citations=("chizat2023",),
)
