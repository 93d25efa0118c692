"""A predicted staircase held against a run: times, levels and order, jump by jump."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.agf.comparing_curves import measured_curve
from learnmech.dynamics.agf.comparing_judgement import Status, judge
from learnmech.dynamics.agf.comparing_order import Learned, OrderAgreement, learned_by, order_agreement
from learnmech.dynamics.agf.comparing_predictions import as_prediction, predicted_times, require_same_unit
from learnmech.dynamics.agf.predictions import Prediction
from learnmech.dynamics.saddle import Clock, Jumps
from learnmech.errors import InputError

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, kw_only=True)
class Comparison:
    r"""How a run kept to a prediction.

    Two times are measured at each jump: when the loss crosses the mean of two successive *predicted* levels (``crossings``), and
    that of the two *measured* levels (``midpoints``), which needs no level to be predicted well. Errors are measured over predicted minus 1.

    Attributes:
        prediction: what was to happen.
        predicted: times that were compared, in the unit of the run.
        time_field: which field of the prediction they are.
        status: of each jump: "seen"; "merged", if the run does not rest between it and a neighbour; "missing", if the loss never falls to its
            middle; "passed", if the loss starts below it; "no drop", if none is predicted.
        reasons: a sentence for each jump that is not seen, or has no error, empty for others.
        crossings: times by predicted levels; not a number where ``reasons`` says why.
        crossing_noise: their standard errors, 0 where the run has a ``speed``.
        midpoints: times by measured levels.
        levels: measured, one more than there are jumps.
        level_noise: their standard errors, 0 without noise.
        rests: when each level was read.
        time_errors: relative, of ``crossings``.
        midpoint_errors: relative, of ``midpoints``.
        level_errors: measured minus predicted level, as a share of the first predicted level.
        jumps: what :func:`~learnmech.dynamics.saddle.find_jumps` sees in the run without a prediction.
        order: agreement of what was learned; None if not asked for.
        noisy: whether the run goes up and down, and was smoothed.
        end: last time of the run.
    """

    prediction: Prediction
    predicted: Float[np.ndarray, " jumps"]
    time_field: str
    status: tuple[Status, ...]
    reasons: tuple[str, ...]
    crossings: Float[np.ndarray, " jumps"]
    crossing_noise: Float[np.ndarray, " jumps"]
    midpoints: Float[np.ndarray, " jumps"]
    levels: Float[np.ndarray, " plateaus"]
    level_noise: Float[np.ndarray, " plateaus"]
    rests: Float[np.ndarray, " plateaus"]
    time_errors: Float[np.ndarray, " jumps"]
    midpoint_errors: Float[np.ndarray, " jumps"]
    level_errors: Float[np.ndarray, " plateaus"]
    jumps: Jumps
    order: OrderAgreement | None
    noisy: bool
    end: float
    history: Any
    losses: Any
    variable: str | None

    def __len__(self) -> int:
        return len(self.status)

    @property
    def complete(self) -> bool:
        """Whether every predicted jump is in the run, by itself."""
        return all(status == "seen" for status in self.status)

    @property
    def relative_level_errors(self) -> Float[np.ndarray, " plateaus"]:
        """Measured over predicted level minus 1; infinite where a level of 0 is predicted and another measured."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((self.levels - self.prediction.levels) / self.prediction.levels)

    @property
    def verdict(self) -> str:
        """One sentence."""
        count = self.status.count("seen")
        parts = [f"{count} of {len(self)} predicted jump{'' if len(self) == 1 else 's'} seen"]
        merged, missing = self.status.count("merged"), self.status.count("missing")
        parts += [f"{merged} merged"] if merged else []
        parts += [f"{missing} missing"] if missing else []
        times = np.abs(self.time_errors[np.isfinite(self.time_errors)])
        parts += [f"times within {_percent(float(times.max()))}"] if len(times) else []
        levels = np.abs(self.level_errors[np.isfinite(self.level_errors)])
        parts += [f"levels within {_percent(float(levels.max()))}"] if len(levels) else []
        if self.order is not None:
            parts.append("order as predicted" if self.order.share == 1 else f"order agrees at {self.order.share:.0%}")
        others = len(self.jumps)
        if others != len(self):
            parts.append(f"without the prediction {others} would be seen")
        return ", ".join(parts) + "."

    def __str__(self) -> str:
        head = [
            "learns",
            "predicted",
            "crosses",
            "+-",
            "error",
            "by measured levels",
            "error",
            "level",
            "measured",
            "error",
        ]
        rows = [[*[""] * 7, *self._level_cells(0)], *(self._row(jump) for jump in range(len(self)))]
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
        lines = [f"{self.prediction.model}: {self.verdict}"]
        lines += [
            "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in [head, *rows]
        ]
        lines += [f"  jump {number}: {reason}" for number, reason in enumerate(self.reasons, 1) if reason]
        if self.noisy:
            lines.append("  the run is noisy: crossings are those of the smoothed curve, levels are means")
        return "\n".join(lines)

    def _row(self, jump: int) -> list[str]:
        return [
            str(self.prediction.order[jump]),
            _number(self.predicted[jump]),
            _number(self.crossings[jump]),
            _number(self.crossing_noise[jump], 2),
            _signed(self.time_errors[jump]),
            _number(self.midpoints[jump]),
            _signed(self.midpoint_errors[jump]),
            *self._level_cells(jump + 1),
        ]

    def _level_cells(self, plateau: int) -> list[str]:
        return [
            _number(self.prediction.levels[plateau]),
            _number(self.levels[plateau]),
            _signed(self.level_errors[plateau]),
        ]

    def draw(self, *, log_time: bool = False) -> "go.Figure":
        """Draw the run with the staircase and the measured jumps.

        Args:
            log_time: whether time is on a logarithmic axis.

        Returns:
            A plotly figure.
        """
        from learnmech.dynamics.agf.staircase_drawing import draw_staircase

        figure = draw_staircase(
            self.prediction,
            self.history,
            self.losses,
            variable=self.variable,
            times=self.predicted,
            log_time=log_time,
        )
        middles = (self.prediction.levels[:-1] + self.prediction.levels[1:]) / 2
        found = np.isfinite(self.crossings)
        figure.add_scatter(x=self.crossings[found], y=middles[found], mode="markers", name="measured jumps")
        return figure


def compare(
    prediction: Any,
    history: Any,
    losses: Any = None,
    *,
    variable: str | None = None,
    times: str | None = None,
    learned: Learned | None = None,
    clock: Clock = "linear",
) -> Comparison:
    r"""Hold a predicted staircase against a run.

    A jump happens when the loss crosses the mean of two successive levels :math:`\ell_k, \ell_{k+1}`, of the predicted and of the measured
    ones. Where the history has a ``speed``, as that of :func:`~learnmech.dynamics.agf.gradient_flow`, the crossing is that of the cubic
    through two points and their slopes, accurate to 1e-8 or so of the time; elsewhere that of a monotone cubic. A level is the loss
    where the curve is flattest between two crossings. A noisy curve (all rises together above 1 % of the range) is smoothed
    for the crossings, and a level is the mean over the middle third between them; both then have standard errors.

    Source: time and level of a jump as in Kunin et al. 2025 (arXiv 2506.06489); the treatment of noise and of merged jumps is ours.

    How to read it: ``print`` it. Nothing is left out in silence: a jump that is missing, merged with its neighbour or invisible says why.
    Two jumps are merged if the loss never falls at less than half the speed it has at the slower of their two crossings: then both
    have their crossings, but no level lies between. Predictions that count levels from the least possible loss must be compared with
    losses that do so too.

    Args:
        prediction: of an instance; or stages of :func:`~learnmech.dynamics.agf.run`; or a prediction saved by ``to_history``.
        history: of :func:`~learnmech.dynamics.agf.gradient_flow`, :func:`~learnmech.watch` or any with a loss over ``time`` or ``step``,
            in the unit of the prediction (see :meth:`~learnmech.dynamics.agf.Prediction.convert`); or times (points,).
        losses: (points,), if ``history`` is times.
        variable: name of the loss in a history; ``loss`` or ``train_loss`` if not given.
        times: which field of the prediction to compare, such as ``"plain_times"``. Without, its ``crossing_times``.
        learned: what the run learned at each jump, in order of time; or a function (history, before, after) that says so from the moments of
            the plateaus before and after.
        clock: "linear", or "log" to let ``find_jumps`` judge speeds per decade of time.

    Returns:
        The comparison.

    Raises:
        InputError: if the prediction has no jumps or another unit of time than the run, or the run is no loss curve.

    Example:
        >>> times = np.linspace(0, 30, 301)
        >>> losses = 0.75 / (1 + np.exp(4 * (times - 10))) + 0.25 / (1 + np.exp(4 * (times - 20)))
        >>> expected = Prediction(times=np.array([10.1, 20.0]), levels=np.array([1.0, 0.25, 0.0]), order=("first", "second"))
        >>> found = compare(expected, times, losses)
        >>> found.verdict
        '2 of 2 predicted jumps seen, times within 0.99 %, levels within 2.7e-08 %.'
        >>> found.crossings.round(6).tolist()
        [10.0, 20.0]
    """
    expected = as_prediction(prediction)
    if clock not in get_args(Clock):
        raise InputError(f"clock must be one of {', '.join(get_args(Clock))}, got {clock!r}.")
    if not len(expected):
        raise InputError("the prediction has no jumps: there is nothing to compare.")
    curve = measured_curve(history, losses, variable, clock)
    require_same_unit(expected, curve.dimension)
    predicted, field = predicted_times(expected, times)
    found = judge(curve, expected, predicted)
    moments, noise = np.array([(math.nan, math.nan) if one is None else one for one in found.crossings]).T
    levels, level_noise, rests = np.array(
        [(math.nan,) * 3 if one is None else (one.level, one.error, one.moment) for one in found.plateaus]
    ).T
    agreement = None
    if learned is not None:
        around = [
            (before.moment, after.moment)
            for before, after, moment in zip(found.plateaus[:-1], found.plateaus[1:], found.crossings, strict=True)
            if before is not None and after is not None and moment is not None
        ]
        agreement = order_agreement(expected.order, learned_by(learned, history, around))
    known = np.where(np.isfinite(predicted) & (predicted > 0), predicted, math.nan)
    return Comparison(
        prediction=expected,
        predicted=predicted,
        time_field=field,
        status=found.status,
        reasons=found.reasons,
        crossings=moments,
        crossing_noise=noise,
        midpoints=found.midpoints,
        levels=levels,
        level_noise=level_noise,
        rests=rests,
        time_errors=moments / known - 1,
        midpoint_errors=found.midpoints / known - 1,
        level_errors=(levels - expected.levels) / max(abs(float(expected.levels[0])), 1e-300),
        jumps=curve.jumps,
        order=agreement,
        noisy=curve.noisy,
        end=curve.end,
        history=history,
        losses=losses,
        variable=variable,
    )


def _number(value: float, digits: int = 5) -> str:
    return f"{value:.{digits}g}" if math.isfinite(value) else "-"


def _signed(value: float) -> str:
    return f"{100 * value:+.2g} %" if math.isfinite(value) else "-"


def _percent(value: float) -> str:
    return f"{100 * value:.2g} %"
