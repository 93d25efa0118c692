"""The claims about lazy and rich students, each with its condition."""

from typing import Any

import numpy as np
import xarray as xr

from learnmech.experiments.reproduction import Claim, Scale, judge, untested

LEAST_SEEDS = 5
LEAST_STEPS = 2000
T_LIMIT = 2.78
"""Two-sided 5 % point of Student's t with 4 degrees of freedom: five seeds, compared in pairs."""
TEXTS = {
    "R1": "a student of large overall scale is lazy, a balanced one of small scale is rich",
    "R2": "activation patterns change most upstream, least downstream",
    "R3": "among students of small scale the upstream one moves its weights least",
    "R4": "the error falls fastest upstream",
    "R5": "students of small scale generalise better than the lazy one of large scale",
    "R6": "a^2 - |w|^2 is kept up to the order of the learning rate",
    "R7": "downstream is delayed rich: lazy early, rich late",
}
SMALL = ("downstream", "balanced", "upstream")


def check(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check the orderings of the corner cases seed by seed.

    Args:
        history: the collected sweeps.
        scale: the scale of the run.

    Returns:
        The claims R1 to R7.
    """
    steps = history["step"].values
    if scale == "smoke" or history.sizes["seed"] < LEAST_SEEDS or steps[-1] < LEAST_STEPS:
        reason = f"{LEAST_SEEDS} seeds, {LEAST_STEPS} steps, and more than scale smoke"
        return [untested(key, text, reason) for key, text in TEXTS.items()]
    return [
        _judge("R1", *_check_scale(history)),
        _judge("R2", *_check_patterns(history)),
        _judge("R3", *_check_distance(history)),
        _judge("R4", *_check_speed(history)),
        _judge("R5", *_check_test_error(history)),
        _judge("R6", *_check_drift(history)),
        _judge("R7", *_check_delay(history)),
    ]


def _judge(key: str, expected: str, measured: str, holds: Any) -> Claim:
    return judge(key, TEXTS[key], expected, measured, bool(holds))


def _at_end(history: xr.Dataset, name: str, case: str) -> np.ndarray:
    values: np.ndarray = history[name].sel(case=case).isel(step=-1).values
    return values


def _check_scale(history: xr.Dataset) -> tuple[str, str, Any]:
    large, balanced = (_at_end(history, "kernel_distance", case) for case in ("large", "balanced"))
    return (
        "kernel distance at scale 2 below a tenth of that at scale 0.1 (balanced), for every seed",
        f"means {large.mean():.3g} and {balanced.mean():.3g}; largest ratio {_number((large / balanced).max())}",
        (large < 0.1 * balanced).all(),
    )


def _check_patterns(history: xr.Dataset) -> tuple[str, str, Any]:
    changes = [_at_end(history, "pattern_change", case) for case in SMALL]
    return (
        "share of changed activations at the end: upstream > balanced > downstream, for every seed",
        f"{_row(changes)} (downstream, balanced, upstream)",
        (changes[2] > changes[1]).all() and (changes[1] > changes[0]).all(),
    )


def _check_distance(history: xr.Dataset) -> tuple[str, str, Any]:
    moved = [_at_end(history, "parameter_distance", case) for case in SMALL]
    return (
        "distance of the weights from their start, at the end: upstream below balanced and downstream, for every seed",
        f"{_row(moved)} (downstream, balanced, upstream)",
        (moved[2] < np.minimum(moved[0], moved[1])).all(),
    )


def _check_speed(history: xr.Dataset) -> tuple[str, str, Any]:
    steps = [np.array([first_below(history, case, seed) for seed in history["seed"].values]) for case in SMALL]
    return (
        "steps until the training error is a tenth of that at the start: upstream below balanced and downstream, at the same rate, "
        "for every seed",
        f"{_row(steps)} (downstream, balanced, upstream)",
        (steps[2] < np.minimum(steps[0], steps[1])).all(),
    )


def first_below(history: xr.Dataset, case: str, seed: Any, share: float = 0.1) -> float:
    """Find when the training error of a student has dropped, between checkpoints by a line in logarithms.

    Args:
        history: the collected sweeps.
        case: the case.
        seed: the seed.
        share: of the error at the start.

    Returns:
        The step; infinite if it never does.
    """
    errors = history["train_error"].sel(case=case, seed=seed).transpose("step").values
    steps = history["step"].values.astype(float)
    below = np.flatnonzero(errors < share * errors[0])
    if not len(below):
        return float("inf")
    after = int(below[0])
    if after <= 1:  # from step 0 on there is no logarithm of the step
        return float(steps[after])
    ends = np.log(errors[after - 1 : after + 1])
    part = (ends[0] - np.log(share * errors[0])) / (ends[0] - ends[1])
    return float(np.exp(np.log(steps[after - 1]) + part * np.log(steps[after] / steps[after - 1])))


def _check_test_error(history: xr.Dataset) -> tuple[str, str, Any]:
    large = np.log(_at_end(history, "test_error", "large"))
    statistics = {}
    for case in SMALL:
        gains = large - np.log(_at_end(history, "test_error", case))
        with np.errstate(divide="ignore", invalid="ignore"):
            statistics[case] = float(gains.mean() / (gains.std(ddof=1) / np.sqrt(len(gains))))
    errors = ", ".join(f"{case} {_at_end(history, 'test_error', case).mean():.2e}" for case in ("large", *SMALL))
    return (
        f"paired over seeds, the logarithm of the test error is lower than at scale 2 with t above {T_LIMIT}, for each delta",
        f"mean test errors: {errors}; t = {', '.join(f'{value:.1f} ({case})' for case, value in statistics.items())}",
        all(value > T_LIMIT for value in statistics.values()),
    )


def _check_drift(history: xr.Dataset) -> tuple[str, str, Any]:
    drift = history["plane_charge_drift"].isel(plane_step=-1).sel(plane_case=list(SMALL))
    ratio = (drift.sel(rate_factor=1.0) / drift.sel(rate_factor=0.5)).median("plane_seed").values
    return (
        "in the plane, at half the rate and twice the steps the largest drift is half as large: ratio 1.6 to 2.5, median over seeds, "
        "for each delta",
        f"ratios {_row([np.array([value]) for value in ratio])}; drift at most {float(drift.max()):.1e}",
        ((ratio > 1.6) & (ratio < 2.5)).all(),
    )


def _check_delay(history: xr.Dataset) -> tuple[str, str, Any]:
    last = int(history["step"].values[-1])
    distance = history["kernel_distance"].sel(case="downstream")
    early, late = distance.sel(step=last // 100).values, distance.sel(step=last).values
    return (
        "kernel distance downstream at most 0.05 after 1 % of the steps, and at the end at least 0.1 and five times as large, for "
        "every seed",
        f"means {early.mean():.3f} and {late.mean():.3f}; largest early {early.max():.3f}, least late {late.min():.3f}",
        ((early <= 0.05) & (late >= 0.1) & (late >= 5 * early)).all(),
    )


def _row(values: list[np.ndarray]) -> str:
    return ", ".join(_number(value.mean()) for value in values)


def _number(value: Any) -> str:
    return f"{float(value):.3g}"
