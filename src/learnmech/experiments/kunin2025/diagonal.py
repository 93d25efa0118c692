"""Diagonal linear networks: from saddle to saddle, on the paper's problems in two and five dimensions."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from learnmech import history as histories
from learnmech.experiments.kunin2025.diagonal_animation import animate
from learnmech.experiments.kunin2025.diagonal_claims import check
from learnmech.experiments.kunin2025.diagonal_drawing import draw
from learnmech.experiments.kunin2025.diagonal_measuring import (
    compare_ends,
    compare_routes,
    five_coordinates,
    follow,
    two_coordinates,
)
from learnmech.experiments.reproduction import Context, Reproduction, Scale

_LOGS = [-9.2, -36.8, -230.0]
SETTINGS: Mapping[Scale, Mapping[str, Any]] = {
    "smoke": {
        "scales": [0.5, 0.01],
        "log_scales": _LOGS,
        "five_log_scales": [-230.0],
        "records": 240,
        "designs": 20,
        "wide_designs": 10,
    },
    "reduced": {
        "scales": [0.5, 0.1, 0.01, 1e-4, 1e-6],
        "log_scales": _LOGS,
        "five_log_scales": [-13.8, -36.8, -230.0],
        "records": 400,
        "designs": 200,
        "wide_designs": 100,
    },
    "paper": {
        "scales": [0.5, 0.1, 0.01, 1e-4, 1e-6],
        "log_scales": _LOGS,
        "five_log_scales": [-13.8, -36.8, -230.0],
        "records": 600,
        "designs": 2000,
        "wide_designs": 1000,
    },
}
_END = 1.3


def run(context: Context) -> xr.Dataset:
    """Integrate the flows, and compare the routes to the saddles and their ends.

    Args:
        context: the scale; nothing can be replaced.

    Returns:
        A history over ``scale`` (logs of the scales) in the plane, ``five_scale`` with five coordinates, ``design`` and ``wide_design``.
    """
    context.require_overrides()
    settings = SETTINGS[context.scale]
    log_scales = sorted([math.log(scale) for scale in settings["scales"]] + settings["log_scales"], reverse=True)
    records = settings["records"]
    variables = {
        **follow(two_coordinates(), log_scales, _END, records, ""),
        **follow(five_coordinates(), settings["five_log_scales"], _END, records, "five_"),
        **compare_routes(settings["designs"]),
        **compare_ends(settings["wide_designs"]),
    }
    sizes = {
        name: size
        for names, values, _ in variables.values()
        for name, size in zip(names, np.shape(values), strict=True)
    }
    return histories.build(
        variables,
        {
            **{name: np.arange(size) for name, size in sizes.items()},
            "scale": log_scales,
            "five_scale": settings["five_log_scales"],
        },
        config=dict(settings),
        attributes={"scale_of_run": context.scale},
    )


DIAGONAL = Reproduction(
    name="kunin2025/diagonal",
    title="a diagonal linear network goes from saddle to saddle and ends at the least l1 norm",
    caption="f = (u ∘ v)·x from u = √2 α, v = 0, half the mean squared error. Top left: coefficients β in the plane over contours of the loss, light "
    "for large and dark for small starts; numbered points are the predicted saddles. A small start grows the first coefficient, gives it up "
    "when the second jumps, and takes it up again with the other sign. Beside it: the loss over time, in units of -log α, with the predicted "
    "staircase (dashed), and the accumulated utility S of each coordinate: one becomes active where S reaches 1 or -1 (dashed: "
    "predicted). Middle: the same with five coordinates. Bottom: how fast the error of the times falls with the start, the "
    "table of jumps, and random designs, where two ways to compute the saddles agree to rounding. The paper takes 1e6 gradient steps of 1e-4; here "
    "the flow is integrated in logarithms, which allows starts down to e^-230. Pesme and Flammarion 2023 found this path first.",
    settings=SETTINGS,
    run=run,
    check=check,
    draw=draw,
    page=animate,
    citations=("kunin2025", "pesme2023"),
)
