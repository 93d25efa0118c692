"""The regime of a load curve: which layers do the work, with thresholds that are stated."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from learnmech.springs.load_curve import curvature, linearity

Regime = Literal["lazy/concave", "balanced", "active/convex", "uneven", "under-trained", "collapsed", "not measurable"]

STRAIGHT_CURVATURE = 0.3
"""Up to this |q| a curve counts as straight: it leaves the chord by at most q/4 = 7.5 % of the total drop."""
STRAIGHT_LINEARITY = 0.95
"""Below this R^2 a curve with small |q| is not straight but uneven: single layers do most of the work."""
LEAST_GAIN = 0.2
"""Total drop, in natural-log units, below which no separation has been learned: a factor of 1.2 in the scatter ratio."""


@dataclass(frozen=True)
class Shape:
    """A load curve and what is known of its noise.

    Attributes:
        load: from the input to the last hidden layer.
        gain_error: standard error of the total drop, NaN if unknown.
        curvature_error: standard error of q, NaN if unknown.
        accuracy: on the probe, NaN if unknown.
        classes: number of classes in the probe.
        samples: number of probe samples.
        logarithmic: whether the load is a logarithm (separation) or an error (regression).
    """

    load: np.ndarray
    gain_error: float = np.nan
    curvature_error: float = np.nan
    accuracy: float = np.nan
    classes: int = 0
    samples: int = 0
    logarithmic: bool = True

    @property
    def gain(self) -> float:
        """Total drop of the load, from the input to the last hidden layer."""
        return float(self.load[0] - self.load[-1])


@dataclass(frozen=True)
class Reading:
    """A regime and how it was found.

    Attributes:
        regime: the name.
        reason: the numbers behind it.
        sure: whether the numbers are clear of the thresholds by two standard errors.
    """

    regime: Regime
    reason: str
    sure: bool


def classify(shape: Shape) -> Reading:
    """Name the regime of a load curve.

    In this order: *not measurable* (fewer than three layers, or no numbers at all), *collapsed* (some layer's features do
    not vary, or all class means coincide), *under-trained* (no gain beyond noise or 0.2 natural-log units, or accuracy at
    chance), then by the parabola coefficient q and R squared: *balanced* (abs(q) <= 0.3, R^2 >= 0.95), *uneven* (abs(q) <= 0.3
    but not straight), *lazy/concave* (q < -0.3), *active/convex* (q > 0.3). The signs follow Shi, Pan, Dokmanić 2024; the
    thresholds are learnmech's.

    Args:
        shape: the curve.

    Returns:
        The regime, its evidence, and whether it is clear of the thresholds.
    """
    load = shape.load
    if len(load) < 3:
        return Reading("not measurable", f"the curve has {len(load)} points; its shape needs at least 3", True)
    if not np.isfinite(load).any():
        return Reading("not measurable", "no layer has a finite load", True)
    if not np.isfinite(load).all():
        bad = int((~np.isfinite(load)).sum())
        return Reading("collapsed", f"the load of {bad} of {len(load)} layers is not finite", True)
    least = LEAST_GAIN if shape.logarithmic else 0.05 * abs(float(load[0]))
    noise = 2 * shape.gain_error if np.isfinite(shape.gain_error) else 0.0
    gain = f"the load falls by {shape.gain:.2f} from {load[0]:.2f} to {load[-1]:.2f}"
    if shape.gain <= max(least, noise):
        return Reading(
            "under-trained", f"{gain}; at least {max(least, noise):.2f} is needed", shape.gain < least - noise
        )
    if np.isfinite(shape.accuracy) and shape.classes > 1 and shape.samples > 0:
        chance = 1 / shape.classes
        margin = 3 * np.sqrt(chance * (1 - chance) / shape.samples)
        if shape.accuracy <= chance + margin:
            return Reading("under-trained", f"accuracy {shape.accuracy:.2f} is chance ({chance:.2f})", True)
    q, straightness = float(curvature(load)), float(linearity(load))
    error = shape.curvature_error
    reason = f"curvature q = {q:+.2f}" + (f" ± {error:.2f}" if np.isfinite(error) else "")
    reason += f", R² = {straightness:.3f}; {gain}"
    sure = np.isfinite(error) and abs(abs(q) - STRAIGHT_CURVATURE) > 2 * error
    if abs(q) <= STRAIGHT_CURVATURE:
        straight = straightness >= STRAIGHT_LINEARITY
        return Reading("balanced" if straight else "uneven", reason, bool(sure))
    return Reading("lazy/concave" if q < 0 else "active/convex", reason, bool(sure))
