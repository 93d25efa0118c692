"""F6 and F7: the sensitivity of the last features against depth, for scalings of MLPs and of residual nets."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from learnmech.experiments.chizat2023.shared import (
    EXACT,
    Cells,
    branch_label,
    draw_band,
    has,
    numbers,
    setting,
    slope,
)
from learnmech.experiments.chizat2023.starting_nets import READOUTS, measure_last
from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.experiments.reproduction import Claim, Reproduction, Scale, judge, untested
from learnmech.figures import ACCENT, SECOND, THIRD

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BASE: Mapping[str, Any] = {"inputs": 10, "target": 1.0, "step": 1e-2, "dtype": "float64"}
_MLP = {**_BASE, "branch": "1", "readout": ["NTK", "mean field", "FSC"]}
_RESIDUAL = {**_BASE, "branch": ["1/L", "1/sqrt(L)"], "readout": "mean field"}
PLAIN = Cells(
    measure_last,
    ("readout", "layers"),
    {
        "smoke": {**_MLP, "width": 100, "layers": [5, 10, 20], "draws": 3},
        "reduced": {**_MLP, "width": 400, "layers": [5, 10, 15, 20, 25, 30, 35, 40], "draws": 10},
        "paper": {**_MLP, "width": 400, "layers": list(range(5, 41)), "draws": 10},
    },
)
RESIDUAL = Cells(
    measure_last,
    ("branch", "layers"),
    {
        "smoke": {**_RESIDUAL, "width": 50, "layers": [20, 40], "draws": 4},
        "reduced": {**_RESIDUAL, "width": 50, "layers": [20, 30, 50, 70, 100], "draws": 20},
        "paper": {**_RESIDUAL, "width": 50, "layers": list(range(20, 101)), "draws": 20},
    },
)
_COLOURS = {"NTK": THIRD, "mean field": SECOND, "FSC": ACCENT}
_MEDIAN = (
    "Sensitivity: root mean square of the last features' change over the loss decay; no learning rate common to all blocks changes it. "
    "Lines are medians over draws, bands hold the middle half: the error of an NTK net's output may be near zero. "
)


def check_plain(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check F6.

    Args:
        history: the collected sweep.
        scale: the scale of the run.

    Returns:
        The claims F6a to F6c.
    """
    del scale  # what can be tested depends on the nets that were measured
    texts = {
        "F6a": "in the NTK scaling features hardly move for the loss decay",
        "F6b": "in the mean-field scaling their sensitivity grows with depth",
        "F6c": "in the feature-speed-corrected scaling it does not depend on depth",
    }
    if not has(history["layers"], 5, 40) or setting(history, "width") < 400:
        return [untested(key, text, "L = 5 and L = 40 at a width of at least 400") for key, text in texts.items()]
    middle = history["sensitivity"].median("draw")
    lazy, field, corrected = (middle.sel(readout=name) for name in ("NTK", "mean field", "FSC"))
    ends = field.sel(layers=[5, 40]).values
    exponent = slope(field["layers"], field)
    return [
        judge(
            "F6a",
            texts["F6a"],
            "S < 0.6 at every depth",
            f"largest S = {float(lazy.max()):.2f}",
            bool((lazy < 0.6).all()),
        ),
        judge(
            "F6b",
            texts["F6b"],
            "S from 1.2 to 1.9 at L = 5, from 4.5 to 7.5 at L = 40, and an exponent of at least 0.4 in L",
            f"S = {numbers(ends, 3)}, exponent {exponent:.2f}",
            1.2 <= ends[0] <= 1.9 and 4.5 <= ends[1] <= 7.5 and exponent >= 0.4,
        ),
        judge(
            "F6c",
            texts["F6c"],
            "S from 0.5 to 1.2 at every depth",
            f"S from {float(corrected.min()):.2f} to {float(corrected.max()):.2f}",
            bool(((corrected >= 0.5) & (corrected <= 1.2)).all()),
        ),
    ]


def check_residual(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check F7.

    Args:
        history: the collected sweep.
        scale: the scale of the run.

    Returns:
        The claims F7a and F7b.
    """
    del scale  # what can be tested depends on the nets that were measured
    texts = {
        "F7a": "in residual nets the sensitivity of the last features does not depend on depth",
        "F7b": "it is 1.3 times as large for a branch of 1/sqrt(L) as for 1/L",
    }
    layers = history["layers"].values
    if layers.max() < 4 * layers.min() or history.sizes["draw"] < 10:
        return [untested(key, text, "depths over a factor of 4, and 10 draws") for key, text in texts.items()]
    middle = history["sensitivity"].median("draw")
    exponents = {str(name): slope(layers, middle.sel(branch=name)) for name in middle["branch"].values}
    ratio = float((middle.sel(branch="1/sqrt(L)") / middle.sel(branch="1/L")).mean())
    return [
        judge(
            "F7a",
            texts["F7a"],
            "exponent in L within 0.1 of 0 for both",
            ", ".join(f"{value:+.3f} for {name}" for name, value in exponents.items()),
            bool(np.all(np.abs(list(exponents.values())) < 0.1)),
        ),
        judge("F7b", texts["F7b"], "mean ratio over depths from 1.15 to 1.45", f"{ratio:.2f}", 1.15 <= ratio <= 1.45),
    ]


def draw_plain(history: xr.Dataset) -> "Figure":
    """Draw the sensitivity of MLPs over depth.

    Args:
        history: the collected sweep.

    Returns:
        The figure.
    """
    figure = new_figure(width=5.6, height=4.0)
    axes = figure.axes[0]
    for name in history["readout"].values:
        draw_band(
            axes,
            history["layers"].values,
            history["sensitivity"].sel(readout=name),
            label=str(name),
            colour=_COLOURS[str(name)],
            marker=history.sizes["layers"] < 30,
            predicted=_predict(history, str(name)),
            centre="median",
        )
    axes.set_ylim(bottom=0)
    label_axes(axes, "depth L, with embedding and read-out", "sensitivity S of the last features")
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def _predict(history: xr.Dataset, name: str) -> np.ndarray:
    """1 / (width sigma cos) at an output error of 1, with the cosine of the recursion and the read-out's deviation sigma."""
    factor, power_of_width, power_of_layers = READOUTS[name]
    width, layers = setting(history, "width"), history["layers"].values.astype(float)
    deviation = factor * width**power_of_width * layers**power_of_layers
    cosine = history["cosine_predicted"].sel(readout=name).isel(draw=0).values
    return np.asarray(1.0 / (width * deviation * cosine))


def draw_residual(history: xr.Dataset) -> "Figure":
    """Draw the sensitivity of residual nets over depth.

    Args:
        history: the collected sweep.

    Returns:
        The figure.
    """
    figure = new_figure(width=5.6, height=4.0)
    axes = figure.axes[0]
    for name, colour in zip(history["branch"].values, (THIRD, ACCENT), strict=True):
        draw_band(
            axes,
            history["layers"].values,
            history["sensitivity"].sel(branch=name),
            label=branch_label(str(name)),
            colour=colour,
            marker=history.sizes["layers"] < 30,
            predicted=1.0 / history["cosine_predicted"].sel(branch=name).isel(draw=0).values,
            centre="median",
        )
    axes.set_ylim(bottom=0)
    label_axes(axes, "depth L, with embedding and read-out", "sensitivity S of the last features")
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    return figure


F6 = Reproduction(
    name="chizat2023/F6",
    title="sensitivity of the last features of MLPs over depth",
    caption="Standard deviation of the read-out's weights: 1/sqrt(width) (NTK), 1/width (mean field), sqrt(L)/width (FSC). "
    + _MEDIAN
    + "Dashed: the large-width recursion at an output error of 1 (ours, not the paper's). "
    + EXACT,
    settings=PLAIN.settings,
    run=PLAIN.run,
    check=check_plain,
    draw=draw_plain,
    citations=("chizat2023",),
)
F7 = Reproduction(
    name="chizat2023/F7",
    title="sensitivity of the last features of residual nets over depth",
    caption="Standard deviation of the read-out's weights: 1/width. The published figure has another scale on its vertical axis. "
    + _MEDIAN
    + "Dashed: the large-width recursion at an output error of 1 (ours, not the paper's). "
    + EXACT,
    settings=RESIDUAL.settings,
    run=RESIDUAL.run,
    check=check_residual,
    draw=draw_residual,
    citations=("chizat2023",),
)
