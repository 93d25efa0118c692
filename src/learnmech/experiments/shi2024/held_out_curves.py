"""Figure S4: load curves of training and test samples."""

from typing import TYPE_CHECKING

import xarray as xr

from learnmech.experiments.drawing import draw_curves, new_figure
from learnmech.experiments.networks import without_readout
from learnmech.experiments.shi2024.network_claims import (
    check_held_out,
)
from learnmech.experiments.shi2024.phase_diagrams import PAPER, PAPER_SLOPES, SMOKE, Diagram

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _draw_held_out(history: xr.Dataset) -> "Figure":
    hidden = without_readout(history)
    slopes, rates = history["slope"].values, history["lr"].values
    figure = new_figure(len(slopes), len(rates), width=3 * len(rates), height=2.5 * len(slopes) + 0.2, squeeze=False)
    panels = iter(figure.axes)
    for slope in slopes:
        for rate in rates:
            at = hidden.sel(slope=slope, lr=rate).mean("seed")
            draw_curves(
                next(panels),
                [at["load"].values, at["load_held_out"].values],
                ["training", "test"],
                colours=["#1b6ca8", "#d1495b"],
                dashed=[False, True],
                title=f"slope {slope:g}, learning rate {rate:g}",
            )
    return figure


FIGS4 = Diagram(
    name="shi2024/figS4",
    title="load curves of training (solid) and test samples (dashed)",
    caption="Mean over seeds; the chord of each training curve is drawn thin. Rows: nonlinearity; columns: learning rate.",
    axis="lr",
    values={"smoke": (1e-3, 1e-2), "reduced": (1e-4, 1e-3, 1e-2), "paper": (1e-4, 1e-3, 1e-2)},
    check=check_held_out,
    fixed={"smoke": SMOKE, "reduced": {**PAPER, "epochs": 200}, "paper": {**PAPER, "epochs": 200}},
    slopes={"smoke": (0.0, 1.0), "reduced": (0.0, 0.4, 1.0), "paper": PAPER_SLOPES},
).declare(_draw_held_out)
