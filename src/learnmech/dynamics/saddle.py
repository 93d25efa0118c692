"""Saddles in a measured run: plateaus of a loss curve and the jumps between them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.jumps_curve import read_curve
from learnmech.dynamics.jumps_peaks import Split, confidence, split
from learnmech.dynamics.jumps_scales import Smoothed, scales
from learnmech.errors import InputError
from learnmech.figures import ACCENT, FAINT, SECOND, make_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go

Clock = Literal["linear", "log"]


@dataclass(frozen=True)
class Jumps:
    """Plateaus and jumps of a loss curve.

    Attributes:
        levels: loss on each plateau, the first plateau first; one more than there are jumps.
        level_errors: their standard errors; 0 where the curve has no noise.
        times: when the loss crosses the mean of two successive levels, in the curve's own time or steps.
        time_errors: their standard errors: noise over the slope there, and the sampling where a jump has fewer than 3 points.
        widths: how long the middle half of the drop takes (from 3/4 to 1/4 of it).
        confidence: from 0 (barely a jump) to 1 (the loss stands still on both sides).
        rests: the times at which the curve was flattest, one a plateau.
        falls_at_start: whether the loss falls fast from the first point on: what it does before the first level is no jump.
        falls_at_end: whether it still falls fast at the last point: that fall is not counted.
        smoothing: standard deviation of the smoothing, in points; 0 for none.
        left_out: points that were not finite.
    """

    levels: Float[np.ndarray, " plateaus"]
    level_errors: Float[np.ndarray, " plateaus"]
    times: Float[np.ndarray, " jumps"]
    time_errors: Float[np.ndarray, " jumps"]
    widths: Float[np.ndarray, " jumps"]
    confidence: Float[np.ndarray, " jumps"]
    rests: Float[np.ndarray, " plateaus"]
    falls_at_start: bool
    falls_at_end: bool
    smoothing: float
    left_out: int

    def __len__(self) -> int:
        return len(self.times)

    def __str__(self) -> str:
        lines = [f"{len(self.times)} jump{'' if len(self.times) == 1 else 's'}, from level {self.levels[0]:.4g}"]
        lines += [
            f"  at {time:.5g} ± {error:.2g} (middle half takes {width:.3g}) to level {level:.4g}, confidence {sure:.2f}"
            for time, error, width, level, sure in zip(
                self.times, self.time_errors, self.widths, self.levels[1:], self.confidence, strict=True
            )
        ]
        if self.falls_at_start:
            lines.append("  the loss falls from the first point on: what comes before the first level is no jump")
        if self.falls_at_end:
            lines.append("  the loss still falls fast at the last point: that fall is not counted; train longer")
        if self.left_out:
            lines.append(f"  {self.left_out} points were not finite and were left out")
        return "\n".join(lines)


def find_jumps(
    curve: Any,
    losses: Any = None,
    *,
    variable: str | None = None,
    least: float = 0.02,
    contrast: float = 0.5,
    clock: Clock = "linear",
    smoothing: float | None = None,
) -> Jumps:
    r"""Find the plateaus and jumps of a loss curve.

    A jump is a peak of the speed :math:`v = -dL/dt` between two places where the loss rests. With :math:`v_p` at the peak
    and :math:`v_r` at the flattest point on either side, it counts if :math:`v_r \le c\, v_p` on both sides, where c is
    ``contrast``; if the two levels differ by ``least`` times the range of the curve; and if both differences exceed four
    standard errors of the noise. A level is the loss at the flattest point; with noise, its mean over the plateau around. A
    jump happens when the loss crosses the mean of two successive levels. The noise is estimated from the curve itself. A
    noisy curve is smoothed by local straight lines at many scales; the scale that shows most jumps counts, the finest of
    equals. More than 2000 points are first averaged in blocks.

    Source: the definition of level and time follows the use in Kunin et al., "Alternating gradient flows" (arXiv 2506.06489);
    judging slopes by their significance over scales follows SiZer (Chaudhuri and Marron 1999). The rule as a whole is ours.

    How to read it: times and levels can be held against predicted ones. A confidence near 1 means that the loss stands still
    between the jumps; jumps that overlap have little, or count as one. A smooth decay, exponential or power law, has no jump:
    it is fastest at the start, so no plateau lies before it. A fall from the first point on is not a jump either; then the
    first level lies below the first loss. Drops are judged on the linear scale: a step from 1e-10 to 1e-12 does not count
    after one from 1 to 1e-10. Not valid for correlated noise (a running mean of losses): give ``smoothing``, in points, at
    about its memory.

    Args:
        curve: a history with a loss over ``step`` or ``time``, a DataArray over one dimension, or times (points,).
        losses: losses (points,) if ``curve`` is times. Points may lie unevenly.
        variable: name of the loss in a history; ``loss`` or ``train_loss`` if not given.
        least: smallest drop, as a share of the range of the curve.
        contrast: largest ratio of the speed on a plateau to that at the jump beside it.
        clock: "linear", or "log" to judge speeds per decade of time; every decay looks like a step on that clock. Points at
            or before 0 are left out there.
        smoothing: fix the scale of smoothing, in points; 0 for none.

    Returns:
        The jumps, possibly none, then with one level: the loss where the curve is flattest. What is wrong with the curve
        raises InputError.

    Raises:
        InputError: if an argument is out of range.

    Example:
        >>> times = np.linspace(0, 30, 301)
        >>> losses = 0.75 / (1 + np.exp(4 * (times - 10))) + 0.25 / (1 + np.exp(4 * (times - 20)))
        >>> print(find_jumps(times, losses))
        2 jumps, from level 1
          at 10 ± 0.0012 (middle half takes 0.558) to level 0.25, confidence 1.00
          at 20 ± 0.0012 (middle half takes 0.558) to level ... confidence 1.00
    """
    _require(least, contrast, clock, smoothing)
    read = read_curve(curve, losses, variable)
    times, values, left_out = read.times, read.losses, read.left_out
    if clock == "log":
        positive = times > 0
        if positive.sum() < 8:
            raise InputError("clock='log' needs at least 8 points at positive times; use clock='linear'.")
        times, values = np.log(times[positive]), values[positive]
    best: tuple[Smoothed, Split, float] | None = None
    for smoothed in scales(times, values, smoothing):
        smallest = least * float(np.ptp(smoothed.values))
        found = split(smoothed, values, smallest, contrast)
        if best is None or len(found.peaks) > len(best[1].peaks):
            best = (smoothed, found, smallest)
    assert best is not None
    return _describe(*best, contrast, clock, left_out)


def _require(least: float, contrast: float, clock: str, smoothing: float | None) -> None:
    if not 0 < least < 1:
        raise InputError(f"least must lie between 0 and 1, a share of the range of the losses, got {least!r}.")
    if not 0 < contrast < 1:
        raise InputError(f"contrast must lie between 0 and 1, a ratio of speeds, got {contrast!r}.")
    if clock not in get_args(Clock):
        raise InputError(f"clock must be one of {', '.join(get_args(Clock))}, got {clock!r}.")
    if smoothing is not None and not (np.isfinite(smoothing) and smoothing >= 0):
        raise InputError(f"smoothing must be a number of points, at least 0, got {smoothing!r}.")


def _describe(curve: Smoothed, found: Split, least: float, contrast: float, clock: str, left_out: int) -> Jumps:
    moments, errors, widths = [], [], []
    for number, peak in enumerate(found.peaks):
        high, low = found.levels[number], found.levels[number + 1]
        part = slice(found.rests[number], found.rests[number + 1] + 1)
        moment, early, late = (_crossing(curve, part, peak, high - share * (high - low)) for share in (0.5, 0.25, 0.75))
        gap = float(np.diff(curve.times[max(peak - 1, 0) : peak + 2]).max())
        noise = np.hypot(curve.value_errors[peak], np.hypot(*found.level_errors[number : number + 2]) / 2)
        sampling = gap / np.sqrt(12) if late - early < 2 * gap else 0.0
        moments.append(moment)
        errors.append(float(np.hypot(noise / curve.speeds[peak], sampling)))
        widths.append((early, late))
    rests = curve.times[found.rests]
    time, edges = np.array(moments), np.array(widths).reshape(-1, 2)
    error = np.array(errors)
    if clock == "log":
        time, edges, rests = np.exp(time), np.exp(edges), np.exp(rests)
        error = error * time
    speeds = curve.speeds
    fast = contrast * speeds[found.peaks].min(initial=np.inf)
    if not found.peaks:  # nothing to compare with: does the curve fall, and is it fastest at an end?
        falling = speeds.max() > 4 * curve.speed_errors[speeds.argmax()] and least > 0
        fast = contrast * speeds.max() if falling else np.inf
    return Jumps(
        found.levels,
        found.level_errors,
        time,
        error,
        edges[:, 1] - edges[:, 0],
        confidence(found, least, contrast),
        rests,
        bool(speeds[0] > fast),
        bool(speeds[-1] > fast),
        curve.bandwidth,
        left_out,
    )


def _crossing(curve: Smoothed, part: slice, peak: int, level: float) -> float:
    """The time at which the curve falls through a level, by straight lines; of several, the one nearest to the peak."""
    times, above = curve.times[part], curve.values[part] > level
    places = np.flatnonzero(above[:-1] & ~above[1:])
    if len(places) == 0:
        return float(curve.times[peak])
    place = int(places[np.abs(times[places] - curve.times[peak]).argmin()])
    first, second = curve.values[part][place : place + 2]
    share = (first - level) / (first - second)
    return float(times[place] + share * (times[place + 1] - times[place]))


def draw_jumps(jumps: Jumps, curve: Any, losses: Any = None, *, variable: str | None = None) -> "go.Figure":
    """Draw a loss curve with its plateaus and jumps.

    Args:
        jumps: what :func:`find_jumps` gave for it.
        curve: as for :func:`find_jumps`.
        losses: as for :func:`find_jumps`.
        variable: as for :func:`find_jumps`.

    Returns:
        A plotly figure: the curve, a line at each level, and a mark at each jump that is the fainter, the less its confidence.
    """
    read = read_curve(curve, losses, variable)
    figure = make_figure("time or step", "loss")
    figure.add_scatter(x=read.times, y=read.losses, mode="lines", name="loss", line={"color": ACCENT})
    edges = np.concatenate([read.times[:1], jumps.times, read.times[-1:]])
    for number, level in enumerate(jumps.levels):
        ends = edges[number : number + 2]
        figure.add_scatter(
            x=ends,
            y=[level, level],
            mode="lines",
            showlegend=number == 0,
            name="levels",
            line={"color": FAINT, "dash": "dot"},
        )
    if len(jumps):
        figure.add_scatter(
            x=jumps.times,
            y=(jumps.levels[:-1] + jumps.levels[1:]) / 2,
            mode="markers",
            name="jumps",
            marker={"color": SECOND, "size": 9, "opacity": (0.3 + 0.7 * jumps.confidence).tolist()},
            text=[f"confidence {sure:.2f}" for sure in jumps.confidence],
        )
    return figure
