"""A measured loss curve that can say when it crosses a level, and where it rests."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.interpolate import CubicHermiteSpline

from learnmech.dynamics.jumps_curve import read_curve

_NOISY = 0.02


@dataclass(frozen=True)
class MeasuredCurve:
    """A loss over time.

    Attributes:
        times: increasing.
        losses: at each.
        speeds: minus the derivative of the loss, where it was measured with it; else None.
        noisy: whether the curve rises so often that it counts as noisy.
    """

    times: Float[np.ndarray, " points"]
    losses: Float[np.ndarray, " points"]
    speeds: Float[np.ndarray, " points"] | None
    noisy: bool

    def crossing(self, level: float) -> tuple[float | None, float]:
        """Give the time at which the loss falls through a level.

        Args:
            level: of the loss.

        Returns:
            The median of all crossings, None if there is none or the curve begins below; and half the time between first and last.
        """
        above = self.losses > level
        places = np.flatnonzero(above[:-1] != above[1:])
        if not len(places) or not above[0]:
            return None, np.nan
        moments = np.array([self._within(int(place), level) for place in places])
        if not above[-1] or len(moments) > 1:
            return float(np.median(moments)), float(np.ptp(moments)) / 2
        return float(moments[0]), 0.0

    def rest(self, start: float, stop: float) -> tuple[float, float]:
        """Give the level on a plateau.

        Args:
            start: time of the jump before, or the first time.
            stop: time of the jump after, or the last time.

        Returns:
            Loss and time where the curve is flattest between; the mean of the middle half and its middle if it is noisy.
        """
        inside = np.flatnonzero((self.times >= start) & (self.times <= stop))
        if not len(inside):
            middle = (start + stop) / 2
            return float(np.interp(middle, self.times, self.losses)), middle
        if self.noisy:
            quarter = len(inside) // 4
            part = inside[quarter : max(len(inside) - quarter, quarter + 1)]
            return float(self.losses[part].mean()), float(self.times[part].mean())
        slopes = np.abs(self._slopes()[inside])
        # of equally flat points (a loss at rest) the one farthest from both jumps
        flat = np.flatnonzero(slopes <= slopes.min() + 1e-12 * max(float(slopes.max()), 1e-300))
        moments = self.times[inside][flat]
        edge = np.minimum(moments - start, stop - moments)
        place = inside[int(flat[int(edge.argmax())])]
        return float(self.losses[place]), float(self.times[place])

    def speed_at(self, moment: float) -> float:
        """Give how fast the loss falls.

        Args:
            moment: a time.

        Returns:
            Minus the derivative, by straight lines between points.
        """
        return float(np.interp(moment, self.times, -self._slopes()))

    def _slopes(self) -> Float[np.ndarray, " points"]:
        return np.gradient(self.losses, self.times) if self.speeds is None else -self.speeds

    def _within(self, place: int, level: float) -> float:
        times, losses = self.times[place : place + 2], self.losses[place : place + 2]
        share = (losses[0] - level) / (losses[0] - losses[1])
        straight = float(times[0] + share * (times[1] - times[0]))
        if self.speeds is None:
            return straight
        spline = CubicHermiteSpline(times, losses - level, -self.speeds[place : place + 2])
        roots = [float(root) for root in spline.roots(extrapolate=False)]
        return min(roots, key=lambda root: abs(root - straight)) if roots else straight


def measured_curve(history: Any, losses: Any, variable: str | None) -> MeasuredCurve:
    """Read a curve.

    Args:
        history: a history, or times.
        losses: losses if ``history`` is times.
        variable: name of the loss.

    Returns:
        The curve. What cannot be read raises InputError.
    """
    flow = isinstance(history, xr.Dataset) and {"loss", "speed"} <= set(history) and history["loss"].dims == ("time",)
    if flow and variable in (None, "loss"):
        values = [np.asarray(history[name].values, dtype=float) for name in ("time", "loss", "speed")]
        if all(np.isfinite(value).all() for value in values) and len(values[0]) >= 2:
            return MeasuredCurve(values[0], values[1], values[2], noisy=False)
    read = read_curve(history, losses, variable)
    steps = np.diff(read.losses)
    rises, way = float(steps[steps > 0].sum()), float(np.ptp(read.losses))
    return MeasuredCurve(read.times, read.losses, None, noisy=rises > _NOISY * max(way, 1e-300))
