"""F1: the angle between features' change and descent direction, block by block, for five scales of the branch."""

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
    mean_angle,
    numbers,
    setting,
)
from learnmech.experiments.chizat2023.starting_nets import BRANCHES, measure_layers
from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.experiments.reproduction import Claim, Reproduction, Scale, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BASE = {"inputs": 10, "branch": list(BRANCHES), "target": "random", "step": 1e-3, "dtype": "float64"}
CELLS = Cells(
    measure_layers,
    ("branch",),
    {
        "smoke": {**_BASE, "width": 100, "layers": 50, "draws": 2},
        "reduced": {**_BASE, "width": 200, "layers": 200, "draws": 3},
        "paper": {**_BASE, "width": 200, "layers": 200, "draws": 5},
    },
)


def check(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check what the figure shows, and how near the recursion comes.

    Args:
        history: the collected sweep.
        scale: the scale of the run.

    Returns:
        The claims F1a to F1e.
    """
    del scale  # what can be tested depends on the nets that were measured
    measured = mean_angle(history)
    first, last = measured.isel(layer=0), measured.isel(layer=-1)
    full = setting(history, "layers") >= 200 and setting(history, "width") >= 200
    plain, thin = measured.sel(branch="1"), measured.sel(branch="1/L")
    half = float(plain.isel(layer=-1) - plain.isel(layer=plain.sizes["layer"] // 2))
    gaps = np.abs(last - mean_angle(history, "cosine_predicted").isel(layer=-1))
    return [
        judge(
            "F1a",
            "at the first trained block features move along the descent direction, whatever the branch scale",
            "θ < 0.01 at block 1 for every branch scale",
            f"largest θ = {float(first.max()):.1e}",
            bool((first < 0.01).all()),
        ),
        judge(
            "F1b",
            "in the MLP the angle saturates near a right angle",
            "0.85 < θ < 1 at the last block, and less than 0.1 gained over the second half",
            f"θ = {float(plain.isel(layer=-1)):.3f}, gained {half:.3f}",
            0.85 < float(plain.isel(layer=-1)) < 1 and half < 0.1,
            tested=full,
        ),
        judge(
            "F1c",
            "with a branch of 1/L the angle stays small",
            "θ < 0.06 at every block",
            f"largest θ = {float(thin.max()):.3f}",
            float(thin.max()) < 0.06,
            tested=full,
        ),
        judge(
            "F1d",
            "the larger the branch, the larger the angle at the last block",
            "θ rises strictly from 1/L over 0.5, 1 and 2/sqrt(L) to 1",
            f"θ = {numbers(last, 3)}",
            bool((last.diff("branch") > 0).all()),
        ),
        judge(
            "F1e",
            "the large-width recursion gives the angle at the last block (ours, not the paper's)",
            "mean θ within 0.05 of it for every branch scale",
            f"off by {numbers(gaps)}",
            bool((gaps <= 0.05).all()),
            tested=full,
        ),
    ]


def draw(history: xr.Dataset) -> "Figure":
    """Draw the angle over the blocks.

    Args:
        history: the collected sweep.

    Returns:
        The figure.
    """
    figure = new_figure(width=6.4, height=4.2)
    axes = figure.axes[0]
    measured, predicted = history["cosine"], mean_angle(history, "cosine_predicted")
    names = [str(name) for name in history["branch"].values]
    blocks = np.arange(1, history.sizes["layer"] + 1)
    for name, colour in branch_colours(names).items():
        draw_band(
            axes,
            blocks,
            angle(measured.sel(branch=name)),
            label=branch_label(name),
            colour=colour,
            predicted=predicted.sel(branch=name),
        )
    axes.set_ylim(0, 1)
    axes.set_xlim(1, blocks[-1])
    label_axes(axes, "block l", ANGLE)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], fontsize=8, frameon=False, loc="outside right center")
    return figure


F1 = Reproduction(
    name="chizat2023/F1",
    title="angle of the features' change over the blocks",
    caption="θ is the angle between the change of the features of block l and the direction in which the loss falls fastest. Lines are "
    "means over draws, bands one standard deviation. " + DASHED + EXACT,
    settings=CELLS.settings,
    run=CELLS.run,
    check=check,
    draw=draw,
    citations=("chizat2023",),
)
