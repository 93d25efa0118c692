"""Telling jumps from noise and from plain decay: peaks of the speed between places where the curve rests."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from learnmech.dynamics.jumps_scales import Smoothed

SIGNIFICANT = 4.0
"""Standard errors by which a level must lie above the next."""
_MARGIN = 0.75
_NEAR = 0.02  # a plateau reaches as far as the curve stays within this share of the smaller neighbouring drop


@dataclass(frozen=True)
class Split:
    """Plateaus and jumps at one scale of smoothing.

    Attributes:
        rests: where the curve falls least: before the first peak, between peaks, after the last; one more than peaks.
        peaks: where it falls fastest.
        levels: the curve on each plateau.
        level_errors: standard errors.
        ratios: speed on the worse of the two neighbouring plateaus over the speed at the peak.
    """

    rests: list[int]
    peaks: list[int]
    levels: Float[np.ndarray, " plateaus"]
    level_errors: Float[np.ndarray, " plateaus"]
    ratios: Float[np.ndarray, " jumps"]


def split(curve: Smoothed, losses: Float[np.ndarray, " points"], least: float, contrast: float) -> Split:
    """Find the peaks of the speed that stand for jumps.

    All local peaks are there at first. The one that breaks the conditions most is taken away, and what is left is judged
    anew, until all conditions hold: the curve falls at least ``1 / contrast`` times slower on both neighbouring plateaus; it
    does so by z standard errors; and the levels on both sides differ by ``least`` and by 4 standard errors. Peak and plateau
    are the largest and the smallest of m = points / bandwidth nearly independent speeds, which noise alone sets about
    2 sqrt(2 log m) standard deviations apart; so z = 2 sqrt(log m) + 0.75, in standard errors of a difference.

    Args:
        curve: at one scale.
        losses: the curve as measured.
        least: the smallest drop, in units of the loss.
        contrast: the largest ratio of speeds.

    Returns:
        The split.
    """
    speeds, errors = curve.speeds, curve.speed_errors
    independent = max(len(speeds) / max(curve.bandwidth, 1.0), math.e)
    distance = 2 * np.sqrt(np.log(independent)) + _MARGIN
    peaks = [peak for peak in _local_peaks(speeds) if speeds[peak] > distance * errors[peak]]
    while True:
        rests = _resting_places(speeds, peaks)
        calm = np.maximum(speeds[rests], 0.0)
        levels, level_errors = _levels(curve, losses, rests)
        if not peaks:
            return Split(rests, peaks, levels, level_errors, np.zeros(0))
        high = speeds[peaks]
        worse = np.maximum(calm[:-1], calm[1:])
        ratios = worse / high
        doubt = np.maximum(
            *(
                np.hypot(errors[peaks], errors[side]) / np.maximum(high - speeds[side], 1e-300)
                for side in (rests[:-1], rests[1:])
            )
        )
        drops = np.maximum(levels[:-1] - levels[1:], 1e-300)
        drop_errors = np.hypot(level_errors[:-1], level_errors[1:])
        faults = np.stack([ratios / contrast, distance * doubt, least / drops, SIGNIFICANT * drop_errors / drops]).max(
            0
        )
        worst = int(faults.argmax())
        if faults[worst] <= 1:
            return Split(rests, peaks, levels, level_errors, ratios)
        del peaks[worst]


def confidence(found: Split, least: float, contrast: float) -> Float[np.ndarray, " jumps"]:
    """Say how clear each jump is, from 0 to 1.

    Args:
        found: the split.
        least: the smallest drop, in units of the loss.
        contrast: the largest ratio of speeds.

    Returns:
        (1 - ratio / contrast) times the probability, under normal noise, that the drop is at least ``least``.
    """
    drops = found.levels[:-1] - found.levels[1:]
    errors = np.hypot(found.level_errors[:-1], found.level_errors[1:])
    with np.errstate(divide="ignore", invalid="ignore"):
        sure = np.where(errors > 0, norm.cdf((drops - least) / errors), 1.0)
    return np.asarray((1 - found.ratios / contrast) * sure)


def _local_peaks(speeds: np.ndarray) -> list[int]:
    padded = np.concatenate([[-np.inf], speeds, [-np.inf]])
    return np.flatnonzero((padded[1:-1] > padded[:-2]) & (padded[1:-1] >= padded[2:])).tolist()


def _resting_places(speeds: np.ndarray, peaks: list[int]) -> list[int]:
    edges = [0, *peaks, len(speeds) - 1]
    return [low + int(np.abs(speeds[low : high + 1]).argmin()) for low, high in pairwise(edges)]


def _levels(curve: Smoothed, losses: np.ndarray, rests: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The curve where it rests; with noise, the mean over the plateau around."""
    levels, errors = curve.values[rests].copy(), curve.value_errors[rests].copy()
    if curve.bandwidth == 0 or not curve.value_errors.any():
        return levels, errors
    gaps = np.abs(np.diff(levels))
    for number, rest in enumerate(rests):
        beside = gaps[max(number - 1, 0) : number + 1]
        band = max(_NEAR * float(beside.min()) if len(beside) else np.inf, 2 * float(errors[number]))
        outside = np.abs(curve.values - curve.values[rest]) > band
        before, after = np.flatnonzero(outside[:rest]), np.flatnonzero(outside[rest:])
        low = int(before[-1]) + 1 if len(before) else 0
        high = rest + int(after[0]) if len(after) else len(losses)
        noise = curve.value_errors[rest] * np.sqrt(2 * np.sqrt(np.pi) * curve.bandwidth)  # of a single point
        error = noise / np.sqrt(high - low)
        if error < errors[number]:
            levels[number], errors[number] = losses[low:high].mean(), error
    return levels, errors
