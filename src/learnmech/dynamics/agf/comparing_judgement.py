"""Which predicted jumps are in a run, and the plateaus between them."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from learnmech.dynamics.agf.comparing_curves import MeasuredCurve, Plateau
from learnmech.dynamics.agf.predictions import Prediction

Status = Literal["seen", "merged", "missing", "passed", "no drop"]
Crossing = tuple[float, float] | None
_VISIBLE = 1e-9
_SAME_TIME = 1e-9
_STILL = 0.5


@dataclass(frozen=True)
class Judgement:
    """What a run says of predicted jumps.

    Attributes:
        crossings: time and standard error at which the loss falls through the middle of each drop.
        plateaus: between them; None beside a jump that is not in the run.
        status: of each jump.
        reasons: a sentence for each that is not seen, empty for others.
        midpoints: times at which the loss crosses the mean of two measured levels.
    """

    crossings: tuple[Crossing, ...]
    plateaus: tuple[Plateau | None, ...]
    status: tuple[Status, ...]
    reasons: tuple[str, ...]
    midpoints: Float[np.ndarray, " jumps"]


def judge(curve: MeasuredCurve, expected: Prediction, predicted: Float[np.ndarray, " jumps"]) -> Judgement:
    """Look for each predicted jump in a run.

    Args:
        curve: the run.
        expected: the prediction.
        predicted: its times in the unit of the run.

    Returns:
        What was found.
    """
    high, low = expected.levels[:-1], expected.levels[1:]
    middles = (high + low) / 2
    visible = high - low > _VISIBLE * abs(float(expected.levels[0]))
    crossed = [curve.crossing(float(middle)) if seen else None for middle, seen in zip(middles, visible, strict=True)]
    passed = visible & (curve.losses[0] <= middles)
    plateaus = _plateaus(curve, crossed, visible, passed)
    status: list[Status] = []
    reasons: list[str] = []
    midpoints = np.full(len(expected), math.nan)
    for jump, moment in enumerate(crossed):
        time, level = float(predicted[jump]), float(middles[jump])
        reason = "" if math.isfinite(time) and time > 0 else "no time is predicted for it."
        if not visible[jump]:
            status.append("no drop")
            reason = "the predicted drop is too small to be seen."
        elif passed[jump]:
            status.append("passed")
            reason = f"the loss is below {level:.4g}, the middle of the drop, from the start."
        elif moment is None:
            status.append("missing")
            reason = (
                f"the run ends at {curve.end:.5g}, before the predicted time {time:.5g}."
                if time > curve.end
                else f"the loss never falls to {level:.4g}, the middle of the drop; it ends at {curve.losses[-1]:.4g}."
            )
        else:
            other = _merged_with(curve, expected, crossed, plateaus, jump)
            status.append("seen" if other is None else "merged")
            if other is not None:
                reason = f"merged with jump {other + 1}: the loss does not rest between the two."
            before, after = plateaus[jump], plateaus[jump + 1]
            again = None
            if before is not None and after is not None:
                again = curve.crossing((before.level + after.level) / 2)
            midpoints[jump] = math.nan if again is None else again[0]
        reasons.append(reason)
    return Judgement(tuple(crossed), tuple(plateaus), tuple(status), tuple(reasons), midpoints)


def _plateaus(
    curve: MeasuredCurve,
    crossed: list[Crossing],
    visible: Bool[np.ndarray, " jumps"],
    passed: Bool[np.ndarray, " jumps"],
) -> list[Plateau | None]:
    """Read each plateau between the crossings around it."""
    found: list[Plateau | None] = []
    for number in range(len(crossed) + 1):
        before = [jump for jump in range(number) if visible[jump]][-1:]
        after = [jump for jump in range(number, len(crossed)) if visible[jump]][:1]
        start, stop = float(curve.times[0]), curve.end
        lost = any(passed[jump] for jump in after)
        for jump in before:
            moment = crossed[jump]
            lost |= moment is None and not passed[jump]
            start = start if moment is None else moment[0]
        for jump in after:
            moment = crossed[jump]
            stop = stop if moment is None else moment[0]
        found.append(None if lost else curve.plateau(start, stop))
    return found


def _merged_with(
    curve: MeasuredCurve,
    expected: Prediction,
    crossed: list[Crossing],
    plateaus: list[Plateau | None],
    jump: int,
) -> int | None:
    """The neighbour that a jump cannot be told apart from, if any."""
    here = crossed[jump]
    assert here is not None
    for other in (jump - 1, jump + 1):
        if not 0 <= other < len(crossed):
            continue
        there, between = crossed[other], plateaus[max(jump, other)]
        if there is None:
            continue
        same = abs(expected.times[jump] - expected.times[other]) <= _SAME_TIME * abs(expected.times[jump])
        if same or between is None:
            return other
        early, late = min(here[0], there[0]), max(here[0], there[0])
        reach = (late - early) / 2
        peaks = [curve.steepest(moment - reach, moment + reach) for moment in (early, late)]
        if between.speed > _STILL * min(peaks):
            return other
    return None
