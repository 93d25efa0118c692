"""Intervals of fitted parameters by profile: which values still fit, if all others adapt."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from learnmech.springs.twin_least_squares import Residuals, minimise
from learnmech.springs.twin_uncertainty import Noise

Quantity = Callable[[Float[np.ndarray, "rows parameters"]], Float[np.ndarray, " rows"]]

_AT_BOUND = 0.05  # nearer than this to the end of the range an end is open
_STIFF = 1e2  # how hard a profile holds its quantity, in units of the size of the residuals


@dataclass(frozen=True)
class Interval:
    """An interval by profile.

    Attributes:
        low: lower end; the bound of the search if ``open_below``.
        high: upper end.
        open_below: whether everything down to the bound fits.
        open_above: whether everything up to the bound fits.
    """

    low: float
    high: float
    open_below: bool
    open_above: bool


def profile(
    residuals: Residuals,
    best: Float[np.ndarray, " parameters"],
    bounds: tuple[Float[np.ndarray, " parameters"], Float[np.ndarray, " parameters"]],
    quantities: Mapping[str, Quantity],
    noise: Noise,
    others: Float[np.ndarray, "others parameters"] | None = None,
    *,
    level: float = 0.95,
    rounds: int = 6,
) -> tuple[dict[str, Interval], Float[np.ndarray, " parameters"], float]:
    r"""Find the intervals of quantities outside which no parameters fit.

    For a value :math:`q_0` the parameters are fitted anew with :math:`q = q_0` held. With the change :math:`\delta` of the
    prediction and the rise :math:`\Delta` of the sum of squares against the best fit, the value is kept if

    .. math:: \frac{\Delta + |\delta|^2}{2\sqrt{\delta^T\Sigma\,\delta}} \le t,

    the quantile of Student's distribution. If the held fit were true, the left side would be a standard normal number: the
    rise is then :math:`-2\delta\cdot r - |\delta|^2` for residuals r of covariance :math:`\Sigma`. For independent residuals
    it is the profile likelihood (Venzon and Moolgavkar 1988). An interval that is open up to the bounds of the search says
    that the data do not identify the quantity (Raue et al. 2009). All ends are searched together, by steps that grow until
    a value is rejected, then between the last kept and the first rejected one; islands beyond are not found.

    Args:
        residuals: the model; the second argument is not used.
        best: the optimum.
        bounds: lower and upper bounds of the parameters.
        quantities: name to function of the parameters.
        noise: errors of the fit.
        others: further minima to search from.
        level: probability of the interval.
        rounds: steps of the search.

    Returns:
        The intervals; and the best parameters met on the way with their sum of squares, which lies below that of ``best``
        if the fit had ended in a local minimum.
    """
    lower, upper = bounds
    here = residuals(best[None], np.zeros(1, dtype=int))[0]
    least = float(np.sum(here**2))
    quantile = float(stats.t.ppf(0.5 + level / 2, noise.freedom))
    names = [name for name in quantities for _ in range(2)]
    functions = [quantities[name] for name in names]
    sides = np.tile([-1.0, 1.0], len(quantities))
    gradients = np.array([_gradient(function, best) for function in functions])
    errors = np.sqrt(np.einsum("ip,pq,iq->i", gradients, noise.covariance, gradients))
    spread = np.sqrt(least / max(len(here) - len(best), 1)) + noise.resolution + 1e-150
    weights = _STIFF * spread / np.clip(errors, 1e-3, 1.0)

    def away(rows: np.ndarray) -> Float[np.ndarray, "rows ends"]:
        return np.asarray(sides * (np.stack([function(rows) for function in functions], axis=1) - centre))

    centre = np.array([float(function(best[None])[0]) for function in functions])
    limits = np.array([_limit(function, side, lower, upper) for function, side in zip(functions, sides, strict=True)])
    brackets = _Brackets(np.abs(limits - centre), np.tile(best, (len(names), 1)))
    extra = np.empty((0, len(best))) if others is None else others
    if len(extra):
        there = residuals(extra, np.zeros(len(extra), dtype=int))
        brackets.keep(extra, away(extra), _roots(there, here, noise) / quantile)
    copies = 1 + len(extra)
    champion, record = best, least
    trial = np.minimum(brackets.inside + np.clip(quantile * errors, 1e-3, 1.0), np.maximum(brackets.reach, 1e-9))
    for _ in range(rounds):
        wanted = np.tile(centre + sides * trial, copies)

        def held(rows: np.ndarray, problems: np.ndarray, wanted: np.ndarray = wanted) -> np.ndarray:
            now = np.empty(len(rows))
            for index in np.unique(problems):
                chosen = problems == index
                now[chosen] = functions[index % len(names)](rows[chosen])
            pull = weights[problems % len(names)] * (now - wanted[problems])
            return np.concatenate([residuals(rows, problems), pull[:, None]], axis=1)

        starts = np.concatenate([brackets.place, *[np.tile(other, (len(names), 1)) for other in extra]])
        for index, gradient in enumerate(np.tile(gradients, (copies, 1))):
            if np.count_nonzero(np.abs(gradient) > 1e-6) == 1 and abs(gradient.sum() - 1) < 1e-6:  # a parameter itself
                starts[index, int(np.argmax(gradient))] = wanted[index]
        negligible = 0.01 * noise.resolution**2 * len(here)
        found, total = minimise(held, starts, lower, upper, rounds=10, enough=1e-3, negligible=negligible)
        chosen = np.argmin(total.reshape(copies, -1), axis=0) * len(names) + np.arange(len(names))
        found = found[chosen]
        there = residuals(found, np.zeros(len(found), dtype=int))
        square = np.sum(there**2, axis=1)
        if square.min() < record:
            champion, record = found[int(square.argmin())], float(square.min())
        roots = _roots(there, here, noise) / quantile
        gone = away(found)
        brackets.judge(trial, found, np.where(np.diagonal(gone) < 0.9 * trial - 1e-3, np.inf, roots))  # inf: not held
        brackets.keep(found, gone, roots)
        trial = brackets.next_trial(trial)
    distance, opened = brackets.ends()
    ends = {}
    for index, name in enumerate(quantities):
        low, high = 2 * index, 2 * index + 1
        ends[name] = Interval(
            float(centre[low] - distance[low]),
            float(centre[high] + distance[high]),
            bool(opened[low]),
            bool(opened[high]),
        )
    return ends, champion, record


class _Brackets:
    """For each end of an interval, in distance from the centre: the furthest value kept, and the first one rejected."""

    def __init__(self, reach: Float[np.ndarray, " ends"], place: Float[np.ndarray, "ends parameters"]) -> None:
        self.reach, self.place = reach, place
        self.inside, self.outside = np.zeros(len(reach)), np.full(len(reach), np.inf)
        self.depth, self.height = np.zeros(len(reach)), np.full(len(reach), np.inf)  # shares of the threshold there

    def judge(self, trial: np.ndarray, found: np.ndarray, roots: np.ndarray) -> None:
        """Keep or reject the value that each end tried."""
        within = roots < 1
        self.inside, self.depth = np.where(within, trial, self.inside), np.where(within, roots, self.depth)
        self.outside, self.height = np.where(within, self.outside, trial), np.where(within, self.height, roots)
        self.place = np.where(within[:, None], found, self.place)

    def keep(self, rows: np.ndarray, away: np.ndarray, roots: np.ndarray) -> None:
        """Let any parameters that are kept push all ends out, past values that were rejected for want of a better search."""
        for row, distance, root in zip(rows, away, roots, strict=True):
            further = (root < 1) & (distance > self.inside + 1e-9)
            self.inside, self.depth = np.where(further, distance, self.inside), np.where(further, root, self.depth)
            self.place = np.where(further[:, None], row, self.place)
        overtaken = self.inside >= self.outside
        self.outside, self.height = np.where(overtaken, np.inf, self.outside), np.where(overtaken, np.inf, self.height)

    def next_trial(self, trial: np.ndarray) -> Float[np.ndarray, " ends"]:
        """Go on outwards until a value is rejected, then between the two."""
        with np.errstate(invalid="ignore"):
            fraction = np.clip((1 - self.depth) / (self.height - self.depth), 0.1, 0.9)
            between = self.inside + np.where(np.isfinite(fraction), fraction, 0.5) * (self.outside - self.inside)
        outwards = np.minimum(np.maximum(3 * np.maximum(trial, self.inside), 0.1), self.reach)
        return np.where(np.isinf(self.outside), outwards, between)

    def ends(self) -> tuple[Float[np.ndarray, " ends"], np.ndarray]:
        """Where the ends are, and which of them are open."""
        unlimited = np.isinf(self.outside)  # a bracket that was overtaken late ends at what was kept
        opened = (unlimited & (self.inside >= 0.5 * self.reach)) | (self.reach < _AT_BOUND)
        with np.errstate(invalid="ignore"):
            share = np.where(unlimited, 0.0, (1 - self.depth) / (self.height - self.depth))
            gap = np.where(unlimited, 0.0, self.outside - self.inside)
        return np.where(opened, self.reach, self.inside + share * gap), opened


def _roots(
    there: Float[np.ndarray, "rows values"], here: Float[np.ndarray, " values"], noise: Noise
) -> Float[np.ndarray, " rows"]:
    """By how many standard deviations the best fit (here) is better than others (there)."""
    change = there - here
    negligible = 0.1 * noise.resolution**2 * len(here)  # what the search does not care for either
    rise = np.maximum(np.sum(there**2, axis=1) - np.sum(here**2) - negligible, 0.0) + np.sum(change**2, axis=1)
    return np.asarray(rise / np.maximum(2 * noise.deviation(change), 1e-300))


def _gradient(function: Quantity, place: np.ndarray) -> Float[np.ndarray, " parameters"]:
    step = 1e-4
    moved = np.concatenate([place + step * np.eye(len(place)), place - step * np.eye(len(place))])
    values = function(moved)
    return np.asarray((values[: len(place)] - values[len(place) :]) / (2 * step))


def _limit(function: Quantity, side: float, lower: np.ndarray, upper: np.ndarray) -> float:
    """The largest (side 1) or smallest (side -1) value in the corners of the box."""
    size = len(lower)
    corners = np.array([[(lower, upper)[(code >> k) & 1][k] for k in range(size)] for code in range(2**size)])
    values = function(corners)
    return float(values.max() if side > 0 else values.min())
