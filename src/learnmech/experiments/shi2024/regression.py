"""Figure S12: load curves of regression."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from learnmech.experiments.drawing import draw_curves
from learnmech.experiments.networks import without_readout
from learnmech.experiments.reproduction import Claim, Context, Reproduction, Scale, judge
from learnmech.experiments.shi2024.network_claims import (
    mean_of,
)
from learnmech.experiments.shi2024.panels import ALL_SCALES, BASE, make_panels
from learnmech.experiments.shi2024.phase_diagrams import SEEDS
from learnmech.experiments.sweeping import train_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_KNOBS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "learning rate": {
        "lr 1e-4": {"lr": 1e-4, "epochs": 200},
        "lr 1e-3": {},
        "lr 1e-2": {"lr": 1e-2, "epochs": 200},
    },
    "dropout": {"dropout 0": {}, "dropout 0.05": {"dropout": 0.05}, "dropout 0.2": {"dropout": 0.2}},
    "noise": {"noise 0": {}, "noise 0.3": {"noise": 0.3}, "noise 0.7": {"noise": 0.7}},
}


def _run_regression(context: Context) -> xr.Dataset:
    table: dict[str, Mapping[str, Any]] = {}
    for knob in _KNOBS.values():
        table.update(knob)
    if context.scale == "smoke":
        table = {
            name: {key: value for key, value in values.items() if key != "epochs"} for name, values in table.items()
        }
    return train_settings(table, SEEDS[context.scale], {**BASE[context.scale], "regression": True}, context)


def _check_regression(history: xr.Dataset, scale: Scale) -> list[Claim]:
    claims = []
    for knob, names in _KNOBS.items():
        q = [mean_of(history, "curvature", setting=name) for name in names]
        claims.append(
            judge(
                f"N10 ({knob})",
                f"regression: more {knob} bends the load curve (mean squared error of the best linear fit) towards convex",
                f"q rises strictly over {', '.join(names)}",
                "q = " + ", ".join(f"{number:+.2f}" for number in q),
                bool(np.all(np.diff(q) > 0)),
                tested=scale != "smoke",
            )
        )
    return claims


def _draw_regression(history: xr.Dataset) -> "Figure":
    curves = without_readout(history)["load"].mean("seed")
    figure = make_panels(len(_KNOBS))
    for axes, (knob, names) in zip(figure.axes, _KNOBS.items(), strict=False):
        chosen = [curves.sel(setting=name).values for name in names]
        draw_curves(axes, chosen, list(names), title=knob, y_title="load D: squared error")
    return figure


FIGS12 = Reproduction(
    name="shi2024/figS12",
    title="regression: the value of a digit",
    caption="The load is the mean squared error of the best linear regressor from a layer to the target, without logarithm. "
    "The paper's data set is not known to us; the target here is the digit's value, standardised.",
    settings={
        scale: {
            **BASE[scale],
            "regression": True,
            "settings": {k: list(v) for k, v in _KNOBS.items()},
            "seed": SEEDS[scale],
        }
        for scale in ALL_SCALES
    },
    run=_run_regression,
    check=_check_regression,
    draw=_draw_regression,
)
