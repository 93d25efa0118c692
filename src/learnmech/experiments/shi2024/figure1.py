"""Figure 1: phase diagrams of networks, a source of noise against nonlinearity."""

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from learnmech.experiments.reproduction import Claim, Scale
from learnmech.experiments.shi2024.network_claims import (
    check_best_is_straight,
    check_lazy_start,
    check_linear_net,
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

_READ = (
    "Top row ReLU, bottom row linear; left column most noise, right column least. The colour is the mean test accuracy, "
    "white is high. Each small curve is the mean load curve from the input to the last hidden layer, scaled to its own box, "
    "with its chord dashed: above the chord lazy, below it active."
)
_SLOPES: Mapping[Scale, Sequence[float]] = {"smoke": SMOKE_SLOPES, "reduced": PAPER_SLOPES, "paper": PAPER_SLOPES}


def _settings(**named: Any) -> dict[Scale, dict[str, Any]]:
    paper = {**PAPER, **named}
    return {
        "smoke": {**SMOKE, **{key: value for key, value in named.items() if key != "epochs"}},
        "reduced": paper,
        "paper": paper,
    }


def _check_axis(history: xr.Dataset, scale: Scale, axis: str, rising: Claim, quiet: float) -> list[Claim]:
    """Check what is claimed of every axis of noise, besides how it bends the curve of a ReLU net."""
    at = {axis: nearest(history, axis, quiet)}
    return [rising, *check_linear_net(history, scale, **at), *check_best_is_straight(history, scale, axis)]


def _relu(history: xr.Dataset) -> dict[str, Any]:
    return {"slope": nearest(history, "slope", 0.0)}


def check_noise(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check N1, N2, N5 and N6 on label and data noise.

    Args:
        history: the collected sweep.
        scale: the scale of the run.

    Returns:
        The claims.
    """
    rising = check_rising(
        "N2",
        "label and data noise bends the curve of a ReLU net from concave to convex",
        history,
        scale,
        "noise",
        (0.0, 0.2, 0.4, 0.7),
        crossing=(0.2, 0.4),
        **_relu(history),
    )
    lazy = check_lazy_start(history, scale, {"noise": nearest(history, "noise", 0.0), **_relu(history)})
    return [lazy, *_check_axis(history, scale, "noise", rising, 0.0)]


def check_learning_rate(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check N4 and N6 on the learning rate.

    Args:
        history: the collected sweep.
        scale: the scale of the run.

    Returns:
        The claims.
    """
    rising = check_rising(
        "N4",
        "larger learning rates bend the curve of a ReLU net towards convex",
        history,
        scale,
        "lr",
        (1e-3, 1e-2, 1e-1),
        **_relu(history),
    )
    least = check_rising(
        "N4b",
        "at the smallest learning rate the normalised curve is the most concave (its c is not: the net is under-trained)",
        history,
        scale,
        "lr",
        (1e-4, 1e-3),
        variable="curvature",
        symbol="q",
        **_relu(history),
    )
    return [least, *_check_axis(history, scale, "lr", rising, 1e-3)]


def check_dropout(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check N1, N3, N5 and N6 on dropout.

    Args:
        history: the collected sweep.
        scale: the scale of the run.

    Returns:
        The claims.
    """
    rising = check_rising(
        "N3",
        "dropout bends the curve of a ReLU net from concave to convex",
        history,
        scale,
        "dropout",
        (0.0, 0.04, 0.12, 0.28),
        **_relu(history),
    )
    lazy = check_lazy_start(history, scale, {"dropout": nearest(history, "dropout", 0.0), **_relu(history)})
    return [lazy, *_check_axis(history, scale, "dropout", rising, 0.0)]


def check_batch(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check that small batches act as noise does, and N6.

    Args:
        history: the collected sweep.
        scale: the scale of the run.

    Returns:
        The claims.
    """
    return [
        check_rising(
            "1d",
            "smaller batches bend the curve of a ReLU net towards convex",
            history,
            scale,
            "batch",
            (1280.0, 320.0, 80.0, 20.0),
            **_relu(history),
        ),
        *check_best_is_straight(history, scale, "batch"),
    ]


FIG1A = Diagram(
    name="shi2024/fig1a",
    title="label and data noise against nonlinearity",
    caption=_READ
    + " Images are resized with antialiasing, which shifts accuracies by up to 3 points against the paper's.",
    axis="noise",
    values={
        "smoke": (0.7, 0.2, 0.0),
        "reduced": (0.7, 0.4, 0.2, 0.1, 0.0),
        "paper": (0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0),
    },
    check=check_noise,
    fixed=_settings(),
    slopes=_SLOPES,
).declare()

FIG1B = Diagram(
    name="shi2024/fig1b",
    title="learning rate against nonlinearity",
    caption=_READ + " 200 epochs, as the reference code has it; the paper's text says 100.",
    axis="lr",
    values={
        "smoke": (1e-1, 1e-2, 1e-3),
        "reduced": (1e-1, 1e-2, 1e-3, 1e-4),
        "paper": PAPER_RATES,
    },
    check=check_learning_rate,
    fixed=_settings(epochs=200),
    slopes=_SLOPES,
).declare()

FIG1C = Diagram(
    name="shi2024/fig1c",
    title="dropout against nonlinearity",
    caption=_READ,
    axis="dropout",
    values={
        "smoke": (0.28, 0.12, 0.0),
        "reduced": (0.28, 0.12, 0.08, 0.04, 0.0),
        "paper": PAPER_DROPOUTS,
    },
    check=check_dropout,
    fixed=_settings(),
    slopes=_SLOPES,
).declare()

FIG1D = Diagram(
    name="shi2024/fig1d",
    title="batch size against nonlinearity",
    caption=_READ
    + " All cells take 100 epochs, so a small batch also means more steps. BatchNorm is measured with its running averages, "
    "which lag behind at small batches and make deep layers uneven there.",
    axis="batch",
    values={
        "smoke": (100, 400, 1200),
        "reduced": (20, 80, 320, 1280),
        "paper": (10, 20, 40, 80, 160, 320, 640, 1280),
    },
    check=check_batch,
    fixed={**_settings(), "smoke": {**SMOKE, "epochs": 8}},
    slopes={**_SLOPES, "reduced": (0.0, 0.4, 1.0)},
).declare()
