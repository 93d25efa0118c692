"""A measured loss curve that can say when it falls through a level, and where it rests."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq

from learnmech.dynamics.jumps_curve import NAMES, read_curve
from learnmech.dynamics.jumps_scales import scales
from learnmech.dynamics.saddle import Clock, Jumps, find_jumps

_RISES = 0.01
_FLAT = 1e-12


@dataclass(frozen=True)
class Plateau:
    """A plateau of a curve.

    Attributes:
        level: of the loss.
        error: its standard error, 0 where there is no noise.
        moment: where it was read.
        speed: how fast the loss falls there.
    """

    level: float
    error: float
    moment: float
    speed: float


@dataclass(frozen=True)
class MeasuredCurve:
    """A loss curve with its speed, on which crossings and plateaus can be read.

    Attributes:
        times: increasing.
        losses: at each, smoothed if the curve is noisy.
        speeds: how fast the loss falls.
        errors: standard errors of the losses, 0 where there is no noise.
        exact_speeds: whether the speeds are derivatives and not differences.
        noisy: whether the curve goes up and down.
        raw_times: those of the points as measured.
        raw_losses: as measured.
        dimension: what the curve runs over: ``time``, ``step``, or empty.
        jumps: what :func:`~learnmech.dynamics.saddle.find_jumps` sees without any prediction.
    """

    times: Float[np.ndarray, " points"]
    losses: Float[np.ndarray, " points"]
    speeds: Float[np.ndarray, " points"]
    errors: Float[np.ndarray, " points"]
    exact_speeds: bool
    noisy: bool
    raw_times: Float[np.ndarray, " raw"]
    raw_losses: Float[np.ndarray, " raw"]
    dimension: str
    jumps: Jumps

    @property
    def end(self) -> float:
        """The last time."""
        return float(self.raw_times[-1])

    def crossing(self, level: float) -> tuple[float, float] | None:
        """Find when the loss falls through a level.

        On a smooth curve it is the first fall, by the cubic through two points and their speeds. On a noisy one it is halfway
        between the first and the last fall of the smoothed curve.

        Args:
            level: of the loss.

        Returns:
            Time and its standard error; None if the loss never falls through it.
        """
        above = self.losses > level
        falls = np.flatnonzero(above[:-1] & ~above[1:])
        if not len(falls) or not above[0]:
            return None
        if not self.noisy:
            return self._within(int(falls[0]), level)
        first, last = (self._line(int(place), level) for place in (falls[0], falls[-1]))
        place = int(falls[len(falls) // 2])
        steepest = float(self.speeds[max(place - 1, 0) : place + 3].max())
        noise = float(self.errors[place]) / steepest if steepest > 0 else math.inf
        return (first + last) / 2, float(np.hypot(noise, (last - first) / 2))

    def _line(self, place: int, level: float) -> float:
        (start, stop), (high, low) = self.times[place : place + 2], self.losses[place : place + 2]
        return float(start + (high - level) / (high - low) * (stop - start))

    def _within(self, place: int, level: float) -> tuple[float, float]:
        (start, stop), (high, low) = self.times[place : place + 2], self.losses[place : place + 2]
        straight = self._line(place, level)
        width = float(stop - start)
        first, last = -width * self.speeds[place : place + 2]

        def gap(share: float) -> float:
            rest = 1 - share
            ends = (1 + 2 * share) * rest**2 * (high - level) + share**2 * (3 - 2 * share) * (low - level)
            return float(ends + share * rest**2 * first - share**2 * rest * last)

        if not gap(0.0) > 0 >= gap(1.0):
            return straight, width / math.sqrt(12)
        moment = float(start + width * brentq(gap, 0.0, 1.0, xtol=1e-15, rtol=1e-14))
        return moment, 0.0 if self.exact_speeds else abs(moment - straight)

    def plateau(self, start: float, stop: float) -> Plateau | None:
        """Read a plateau: the loss where the curve is flattest; with noise, the mean over the middle third.

        Args:
            start: the crossing before, or the beginning.
            stop: the crossing after, or the end.

        Returns:
            The plateau; None if no point lies between. Of equally flat points the one farthest from both ends counts.
        """
        inside = np.flatnonzero((self.times >= start) & (self.times <= stop))
        if not len(inside):
            return None
        calm = np.abs(self.speeds[inside])
        flat = inside[calm <= calm.min() + _FLAT * calm.max()]
        edge = np.minimum(self.times[flat] - start, stop - self.times[flat])
        place = int(flat[int(edge.argmax())])
        speed, moment = float(abs(self.speeds[place])), float(self.times[place])
        if self.noisy:
            third = (stop - start) / 3
            middle = self.raw_losses[(self.raw_times >= start + third) & (self.raw_times <= stop - third)]
            if len(middle) >= 3:
                error = float(middle.std(ddof=1)) / math.sqrt(len(middle))
                return Plateau(float(middle.mean()), error, (start + stop) / 2, speed)
        return Plateau(float(self.losses[place]), float(self.errors[place]), moment, speed)

    def steepest(self, start: float, stop: float) -> float:
        """Give the largest speed between two times.

        Args:
            start: the earlier.
            stop: the later.

        Returns:
            The speed; 0 if no point lies between.
        """
        inside = (self.times >= start) & (self.times <= stop)
        return float(self.speeds[inside].max(initial=0.0))


def measured_curve(history: Any, losses: Any, variable: str | None, clock: Clock = "linear") -> MeasuredCurve:
    """Read a loss curve for a comparison.

    A curve counts as noisy if all its rises together make up more than 1 % of its range. It is then averaged to at most 2000 points
    and smoothed as much as ``find_jumps`` did.

    Args:
        history: with a loss over ``time`` or ``step``, a DataArray, or times.
        losses: losses if ``history`` is times.
        variable: name of the loss in a history.
        clock: for ``find_jumps``.

    Returns:
        The curve. What cannot be read raises InputError.
    """
    averaged = read_curve(history, losses, variable)
    jumps = find_jumps(history, losses, variable=variable, clock=clock)
    times, values, speeds, dimension = _points(history, losses, variable)
    kept = np.isfinite(values)
    times, values = times[kept], values[kept]
    rises = float(np.maximum(np.diff(values), 0).sum())
    if rises > _RISES * float(np.ptp(values)) and speeds is None:
        smoothed = next(iter(scales(averaged.times, averaged.losses, jumps.smoothing)))
        return MeasuredCurve(
            smoothed.times,
            smoothed.values,
            smoothed.speeds,
            smoothed.value_errors,
            False,
            True,
            times,
            values,
            dimension,
            jumps,
        )
    exact = speeds is not None and bool(np.isfinite(speeds[kept]).all())
    known = speeds[kept] if exact and speeds is not None else -PchipInterpolator(times, values).derivative()(times)
    return MeasuredCurve(times, values, known, np.zeros(len(times)), exact, False, times, values, dimension, jumps)


def _points(history: Any, losses: Any, variable: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, str]:
    """All points as they are, with the speed where the history has that of its ``loss``; read_curve has checked them."""
    if losses is not None:
        return np.asarray(history, dtype=np.float64), np.asarray(losses, dtype=np.float64), None, ""
    speeds, curve = None, history
    if isinstance(history, xr.Dataset):
        name = variable or next(name for name in NAMES if name in history.data_vars)
        curve = history[name]
        if name == "loss" and "speed" in history.data_vars and history["speed"].dims == curve.dims:
            speeds = np.asarray(history["speed"].values, dtype=np.float64)
    dimension = str(curve.dims[0])
    times, values = (np.asarray(array.values, dtype=np.float64) for array in (curve[dimension], curve))
    return times, values, speeds, dimension
