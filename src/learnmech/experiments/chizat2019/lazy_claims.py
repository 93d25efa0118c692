"""The claims about output scales, each with its condition."""

from typing import Any

import numpy as np
import xarray as xr

from learnmech.experiments.chizat2019.lazy_cells import REGIMES
from learnmech.experiments.reproduction import Claim, Scale, judge, untested

T_LIMITS = {3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57}
"""Two-sided 5 % points of Student's t, by the number of seeds."""
LEAST_ACCURACY = 0.97
TEXTS = {
    "Z1": "the instrument regime says rich at output scale 1 and lazy at 100",
    "Z2": "both fit their training samples",
    "Z3": "the larger the output scale, the less the kernel turns",
    "Z4": "weights move in inverse proportion to a large output scale",
    "Z5": "features that are learned generalise better",
    "Z6": "the rich net separates the classes layer by layer, the lazy net leaves that to its read-out",
}


def check(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check what the output scale does.

    Args:
        history: the collected sweep.
        scale: the scale of the run.

    Returns:
        The claims Z1 to Z6.
    """
    factors, seeds = history["output_scale"].values, history.sizes["seed"]
    if scale == "smoke" or not {1.0, 10.0, 100.0} <= set(factors.tolist()) or seeds not in T_LIMITS:
        reason = "output scales 1, 10 and 100, 3 to 6 seeds, and more training than scale smoke"
        return [untested(key, text, reason) for key, text in TEXTS.items()]
    rich, lazy = history.sel(output_scale=1.0), history.sel(output_scale=100.0)
    return [
        _judge("Z1", *_check_regime(rich, lazy)),
        _judge("Z2", *_check_fit(rich, lazy)),
        _judge("Z3", *_check_distance(history.sortby("output_scale"))),
        _judge("Z4", *_check_movement(history)),
        _judge("Z5", *_check_test(rich, lazy, T_LIMITS[seeds])),
        _judge("Z6", *_check_load(rich, lazy)),
    ]


def _judge(key: str, expected: str, measured: str, holds: Any) -> Claim:
    return judge(key, TEXTS[key], expected, measured, bool(holds))


def _check_regime(rich: xr.Dataset, lazy: xr.Dataset) -> tuple[str, str, Any]:
    said = [[REGIMES[int(code)] for code in end["regime"].values] for end in (rich, lazy)]
    distances = [end["centred_kernel_distance"].isel(step=-1).mean("seed") for end in (rich, lazy)]
    return (
        "regime.rich at 1 and regime.lazy at 100, for every seed",
        f"{', '.join(said[0])} at 1; {', '.join(said[1])} at 100; centred kernel distances {_row(distances)}",
        set(said[0]) == {"rich"} and set(said[1]) == {"lazy"},
    )


def _check_fit(rich: xr.Dataset, lazy: xr.Dataset) -> tuple[str, str, Any]:
    accuracy = [end["train_accuracy"].mean("seed") for end in (rich, lazy)]
    losses = [end["train_loss"].mean("seed") for end in (rich, lazy)]
    worst = min(float(end["train_accuracy"].min()) for end in (rich, lazy))
    return (
        f"training accuracy at least {LEAST_ACCURACY:g} at 1 and at 100, for every seed",
        f"means {_row(accuracy)}, losses {_row(losses)}",
        worst >= LEAST_ACCURACY,
    )


def _check_distance(history: xr.Dataset) -> tuple[str, str, Any]:
    distance = history["centred_kernel_distance"].isel(step=-1)
    ends = distance.sel(output_scale=100.0) / distance.sel(output_scale=1.0)
    return (
        "centred kernel distance at the end falls strictly with the scale, and at 100 is below a tenth of that at 1, for every seed",
        f"means {_row(distance.mean('seed').values)} at {_row(history['output_scale'].values)}; largest ratio {float(ends.max()):.2g}",
        (distance.diff("output_scale") < 0).all() and (ends < 0.1).all(),
    )


def _check_movement(history: xr.Dataset) -> tuple[str, str, Any]:
    moved = history["parameter_distance"].isel(step=-1)
    ratio = (moved.sel(output_scale=10.0) / moved.sel(output_scale=100.0)).values
    return (
        "relative distance of the weights from their start, scale 10 over scale 100, between 8 and 12.5, for every seed",
        _row(ratio),
        ((ratio > 8) & (ratio < 12.5)).all(),
    )


def _check_test(rich: xr.Dataset, lazy: xr.Dataset, limit: float) -> tuple[str, str, Any]:
    gains = (rich["test_accuracy"] - lazy["test_accuracy"]).values
    with np.errstate(divide="ignore", invalid="ignore"):  # seeds may agree to the last sample
        statistic = float(gains.mean() / (gains.std(ddof=1) / np.sqrt(len(gains))))
    means = [end["test_accuracy"].mean("seed") for end in (rich, lazy)]
    return (
        f"test accuracy at 1 higher than at 100, paired over seeds, t above {limit}",
        f"means {_row(means)}; t = {statistic:.1f}",
        statistic > limit,
    )


def hidden(history: xr.Dataset) -> np.ndarray:
    """Find the layers of a load curve: from the input to the last hidden layer.

    Args:
        history: over ``layer``, with ``role``.

    Returns:
        Their positions.
    """
    found: np.ndarray = np.flatnonzero(history["role"].values != "readout")
    return found


def _check_load(rich: xr.Dataset, lazy: xr.Dataset) -> tuple[str, str, Any]:
    falls, later = [], []
    for end in (rich, lazy):
        curve = end["load"].isel(step=-1, layer=hidden(end)).transpose("seed", "layer").values
        falls.append(curve[:, 0] - curve[:, -1])
        later.append((np.diff(curve, axis=1) < 0).all(axis=1))
    return (
        "from the input to the last hidden layer the load falls at every layer of the rich net, and in the lazy one by less than "
        "half as much in all, for every seed",
        f"falls {_row([fall.mean() for fall in falls])} at 1 and 100; mean curvature {_row([rich['curvature'].mean(), lazy['curvature'].mean()])}",
        later[0].all() and (falls[1] < 0.5 * falls[0]).all(),
    )


def _row(values: Any) -> str:
    return ", ".join(f"{float(value):.3g}" for value in np.asarray(values).ravel())
