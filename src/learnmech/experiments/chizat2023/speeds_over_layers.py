"""F5: how fast features change block by block, how much of it lowers the loss, and how sensitive they are."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from learnmech.experiments.chizat2023.shared import EXACT, Cells, draw_band, setting
from learnmech.experiments.chizat2023.starting_nets import measure_layers
from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.experiments.reproduction import Claim, Reproduction, Scale, judge, untested
from learnmech.figures import ACCENT, SECOND, THIRD

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESIDUAL = "1/sqrt(L)"
_BASE = {"inputs": 10, "branch": ["1", RESIDUAL], "target": "random", "step": 1e-3, "dtype": "float64"}
CELLS = Cells(
    measure_layers,
    ("branch",),
    {
        "smoke": {**_BASE, "width": 100, "layers": 50, "draws": 2},
        "reduced": {**_BASE, "width": 200, "layers": 200, "draws": 5},
        "paper": {**_BASE, "width": 200, "layers": 200, "draws": 5},
    },
)


def relative(history: xr.Dataset) -> xr.Dataset:
    """Divide the curves of every draw by its own scale, which depends on the error of its output.

    Args:
        history: the collected sweep.

    Returns:
        ``aligned_rms`` and ``speed_rms`` over the aligned speed at the last block; ``aligned_sensitivity`` over its mean.
    """
    unit = history["aligned_rms"].isel(layer=-1)
    return xr.Dataset(
        {
            "aligned_rms": history["aligned_rms"] / unit,
            "speed_rms": history["speed_rms"] / unit,
            "aligned_sensitivity": history["aligned_sensitivity"] / history["aligned_sensitivity"].mean("layer"),
        }
    )


def check(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check what the figure shows.

    Args:
        history: the collected sweep.
        scale: the scale of the run.

    Returns:
        The claims F5a to F5d.
    """
    del scale  # what can be tested depends on the nets that were measured
    exact = float(history["identity_error"].max())
    claims = [
        judge(
            "F5d",
            "the feature speed formula: speed times ||b|| times cosine is the loss decay of the blocks so far",
            "relative error below 1e-6 at every block",
            f"largest {exact:.1e}",
            exact < 1e-6,
        )
    ]
    texts = {
        "F5a": "in the MLP the aligned part is far below the whole speed from block 20 on",
        "F5b": "with a branch of 1/sqrt(L) both grow linearly with the block",
        "F5c": "with a branch of 1/sqrt(L) the aligned sensitivity is flat",
    }
    if setting(history, "layers") < 200 or setting(history, "width") < 200:
        return [untested(key, text, "L = 200 at a width of at least 200") for key, text in texts.items()] + claims
    share = history["cosine"].sel(branch="1").mean("draw").isel(layer=slice(19, None))
    curves = relative(history).sel(branch=RESIDUAL).mean("draw")
    blocks = np.arange(1, curves.sizes["layer"] + 1)
    straight = {name: float(np.corrcoef(blocks, curves[name])[0, 1] ** 2) for name in ("aligned_rms", "speed_rms")}
    flat = float(curves["aligned_sensitivity"].max() / curves["aligned_sensitivity"].min())
    return [
        judge(
            "F5a",
            texts["F5a"],
            "aligned part below a third of the speed at every block from 20 on",
            f"at most {float(share.max()):.3f}, {float(share[-1]):.3f} at the last block",
            bool((share < 1 / 3).all()),
        ),
        judge(
            "F5b",
            texts["F5b"],
            "R^2 of a straight line above 0.98 for both",
            f"R^2 = {straight['aligned_rms']:.4f} aligned, {straight['speed_rms']:.4f} whole",
            min(straight.values()) > 0.98,
        ),
        judge(
            "F5c",
            texts["F5c"],
            "largest over smallest mean below 1.5",
            f"{flat:.2f}",
            flat < 1.5,
        ),
        *claims,
    ]


def draw(history: xr.Dataset) -> "Figure":
    """Draw speeds and sensitivities over the blocks.

    Args:
        history: the collected sweep.

    Returns:
        The figure.
    """
    figure = new_figure(1, 3, width=10.2, height=3.4)
    curves = relative(history)
    blocks = np.arange(1, history.sizes["layer"] + 1)
    titles = {"1": "β = 1 (MLP)", RESIDUAL: "β = 1/√L"}
    for axes, (name, title) in zip(figure.axes, titles.items(), strict=False):
        part = curves.sel(branch=name)
        draw_band(axes, blocks, part["speed_rms"], label="whole", colour=SECOND)
        draw_band(axes, blocks, part["aligned_rms"], label="aligned with descent", colour=ACCENT)
        label_axes(axes, "block l", "speed / aligned speed at the last block", title=title)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8, frameon=False, loc="upper left")
    axes = figure.axes[2]
    for (name, title), colour in zip(titles.items(), (SECOND, THIRD), strict=True):
        draw_band(axes, blocks, curves["aligned_sensitivity"].sel(branch=name), label=title, colour=colour)
    label_axes(axes, "block l", "aligned sensitivity / its mean", title="sensitivity")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    return figure


F5 = Reproduction(
    name="chizat2023/F5",
    title="speed of the features, aligned part, and sensitivity over the blocks",
    caption="Aligned: the part of the features' change along the direction in which the loss falls fastest. The aligned sensitivity is "
    "1 / (sqrt(features) ||b||). Every draw is divided by its own scale, which depends on the error of its output. Lines are means "
    "over draws, bands one standard deviation. " + EXACT,
    settings=CELLS.settings,
    run=CELLS.run,
    check=check,
    draw=draw,
    citations=("chizat2023",),
)
