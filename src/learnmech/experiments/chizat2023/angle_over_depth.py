"""F2: the angle at the last block against the depth of the net, for five scales of the branch."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from learnmech.experiments.chizat2023.shared import (
    ANGLE,
    DASHED,
    EXACT,
    Cells,
    angle,
    branch_colours,
    branch_label,
    draw_band,
    has,
    mean_angle,
    numbers,
    setting,
    slope,
)
from learnmech.experiments.chizat2023.starting_nets import BRANCHES, measure_last
from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.experiments.reproduction import Claim, Reproduction, Scale, judge, untested

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BASE = {"inputs": 10, "branch": list(BRANCHES), "target": "random", "step": 1e-3, "dtype": "float64"}
CELLS = Cells(
    measure_last,
    ("branch", "layers"),
    {
        "smoke": {**_BASE, "width": 100, "layers": [10, 20, 50], "draws": 2},
        "reduced": {**_BASE, "width": 200, "layers": [10, 20, 50, 100, 200], "draws": 5},
        "paper": {**_BASE, "width": 200, "layers": list(range(10, 201)), "draws": 5},
    },
)
LEVELS = {"0.5/sqrt(L)": 0.25, "1/sqrt(L)": 0.45, "2/sqrt(L)": 0.68}
"""Angles that the authors' figure shows for branches of order 1/sqrt(L)."""


def check(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check what the figure shows.

    Args:
        history: the collected sweep.
        scale: the scale of the run.

    Returns:
        The claims F2a to F2d.
    """
    del scale  # what can be tested depends on the nets that were measured
    texts = {
        "F2a": "a branch of order 1/sqrt(L) makes the angle at the last block independent of the depth",
        "F2b": "that angle lies between 0 and a right angle, at a level that the factor sets",
        "F2c": "a branch of 1/L makes it fall to zero with the depth",
        "F2d": "without skip (the MLP) it rises to a right angle",
    }
    if not has(history["layers"], 10, 50, 200) or setting(history, "width") < 200:
        return [untested(key, text, "L = 10, 50 and 200 at a width of at least 200") for key, text in texts.items()]
    measured = mean_angle(history)
    middle, deep = measured.sel(layers=50), measured.sel(layers=200)
    names = list(LEVELS)
    change = np.abs((deep - middle).sel(branch=names).values)
    gaps = np.abs(deep.sel(branch=names).values - np.array(list(LEVELS.values())))
    thin = measured.sel(branch="1/L", layers=history["layers"].values[history["layers"].values >= 20])
    exponent = slope(thin["layers"], thin)
    plain = measured.sel(branch="1", layers=[10, 50, 200])
    return [
        judge(
            "F2a",
            texts["F2a"],
            "θ at L = 50 and L = 200 differ by less than 0.05 for factors 0.5, 1 and 2",
            f"differ by {numbers(change)}",
            bool((change < 0.05).all()),
        ),
        judge(
            "F2b",
            texts["F2b"],
            "θ at L = 200 within 0.05 of 0.25, 0.45 and 0.68 for factors 0.5, 1 and 2",
            f"θ = {numbers(deep.sel(branch=names), 3)}",
            bool((gaps < 0.05).all()),
        ),
        judge(
            "F2c",
            texts["F2c"],
            "θ < 0.06 at L = 200, and falls from L = 20 with an exponent within 0.1 of -0.5",
            f"θ = {float(deep.sel(branch='1/L')):.3f}, exponent {exponent:.2f}",
            float(deep.sel(branch="1/L")) < 0.06 and abs(exponent + 0.5) < 0.1,
        ),
        judge(
            "F2d",
            texts["F2d"],
            "θ rises over L = 10, 50, 200 and ends above 0.85",
            f"θ = {numbers(plain, 3)}",
            bool((plain.diff("layers") > 0).all()) and float(plain[-1]) > 0.85,
        ),
    ]


def draw(history: xr.Dataset) -> "Figure":
    """Draw the angle at the last block over depth.

    Args:
        history: the collected sweep.

    Returns:
        The figure.
    """
    figure = new_figure(width=6.4, height=4.2)
    axes = figure.axes[0]
    predicted = mean_angle(history, "cosine_predicted")
    layers = history["layers"].values
    for name, colour in branch_colours([str(name) for name in history["branch"].values]).items():
        draw_band(
            axes,
            layers,
            angle(history["cosine"].sel(branch=name)),
            label=branch_label(name),
            colour=colour,
            marker=len(layers) < 30,
            predicted=predicted.sel(branch=name),
        )
    axes.set_ylim(0, 1)
    label_axes(axes, "depth L, with embedding and read-out", f"{ANGLE}, at the last block")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], fontsize=8, frameon=False, loc="outside right center")
    return figure


F2 = Reproduction(
    name="chizat2023/F2",
    title="angle of the last features' change over depth",
    caption="Each point is a net of its own depth L. Lines are means over draws, bands one standard deviation. "
    + DASHED
    + EXACT,
    settings=CELLS.settings,
    run=CELLS.run,
    check=check,
    draw=draw,
    citations=("chizat2023",),
)
