"""Figures S8 and S9: phase diagrams on CIFAR-10."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from learnmech.experiments.reproduction import Claim, Scale, judge
from learnmech.experiments.shi2024.network_claims import (
    check_best_is_straight,
    check_rising,
    nearest,
)
from learnmech.experiments.shi2024.phase_diagrams import (
    PAPER,
    PAPER_DROPOUTS,
    PAPER_RATES,
    PAPER_SLOPES,
    SMOKE,
    SMOKE_SLOPES,
    Diagram,
)

if TYPE_CHECKING:
    pass


_CIFAR: Mapping[str, Any] = {**PAPER, "data": "cifar10"}
_CIFAR_SCALES: Mapping[Scale, Mapping[str, Any]] = {"smoke": SMOKE, "reduced": _CIFAR, "paper": _CIFAR}
_CIFAR_SLOPES: Mapping[Scale, Sequence[float]] = {
    "smoke": SMOKE_SLOPES,
    "reduced": (0.0, 0.4, 1.0),
    "paper": PAPER_SLOPES,
}
_CIFAR_CAPTION = (
    "Colour images of 10 x 10 pixels, 300 inputs. The files of CIFAR-10 must be given (LEARNMECH_DATA) or reachable; at "
    "scale smoke the embedded digits stand in for them."
)


def _check_cifar_dropout(history: xr.Dataset, scale: Scale) -> list[Claim]:
    relu = {"slope": nearest(history, "slope", 0.0)}
    return [
        check_rising(
            "S8", "dropout bends the curve on CIFAR-10 too", history, scale, "dropout", (0.0, 0.12, 0.28), **relu
        ),
        *check_best_is_straight(history, scale, "dropout"),
    ]


def _check_cifar_rate(history: xr.Dataset, scale: Scale) -> list[Claim]:
    relu = history.sel(slope=nearest(history, "slope", 0.0)).mean("seed")
    best = int(np.nanargmax(relu["test_accuracy"].values))
    q = float(relu["curvature"].values[best])
    return [
        judge(
            "S9",
            "with the learning rate as knob, the best accuracy on CIFAR-10 is at slightly concave curves (an exception that "
            "the paper states)",
            "-1 < q < 0 at the best learning rate of the ReLU net",
            f"q = {q:+.2f} at learning rate {float(relu['lr'].values[best]):g}",
            -1 < q < 0,
            tested=scale != "smoke",
        )
    ]


FIGS8 = Diagram(
    name="shi2024/figS8",
    title="CIFAR-10: dropout against nonlinearity",
    caption=_CIFAR_CAPTION,
    axis="dropout",
    values={
        "smoke": (0.28, 0.12, 0.0),
        "reduced": (0.28, 0.12, 0.04, 0.0),
        "paper": PAPER_DROPOUTS,
    },
    check=_check_cifar_dropout,
    fixed=_CIFAR_SCALES,
    slopes=_CIFAR_SLOPES,
).declare()

FIGS9 = Diagram(
    name="shi2024/figS9",
    title="CIFAR-10: learning rate against nonlinearity",
    caption=_CIFAR_CAPTION,
    axis="lr",
    values={
        "smoke": (1e-1, 1e-2, 1e-3),
        "reduced": (1e-1, 1e-2, 1e-3, 1e-4),
        "paper": PAPER_RATES,
    },
    check=_check_cifar_rate,
    fixed=_CIFAR_SCALES,
    slopes=_CIFAR_SLOPES,
).declare()
