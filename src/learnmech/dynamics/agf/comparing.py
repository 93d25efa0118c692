"""A predicted staircase held against a run: times, levels and order, jump by jump."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import xarray as xr
from jaxtyping import Float

from learnmech.dynamics.agf.comparing_curves import LossCurve, Plateau, loss_curve
from learnmech.dynamics.agf.comparing_order import Learned, OrderAgreement, learned_by, order_agreement
from learnmech.dynamics.agf.predictions import FLOW_TIME, Prediction
from learnmech.dynamics.saddle import Clock, Jumps
from learnmech.errors import InputError

if TYPE_CHECKING:
    import plotly.graph_objects as go

Status = Literal["seen", "merged", "missing", "passed", "no drop"]
_VISIBLE = 1e-9
_SAME_TIME = 1e-9
_STILL = 0.5
_TIME_FIELDS = ("crossing_times", "refined_times")


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
        crossing_errors: their standard errors (sampling and noise).
        midpoints: times by measured levels.
        levels: measured, one more than there are jumps.
        level_errors: their standard errors, 0 without noise.
        rests: when each level was read.
        time_errors: relative, of ``crossings``.
        midpoint_errors: relative, of ``midpoints``.
        plateau_errors: of the measured levels, over the predicted ones; over the first level where one of 0 is predicted.
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
    crossing_errors: Float[np.ndarray, " jumps"]
    midpoints: Float[np.ndarray, " jumps"]
    levels: Float[np.ndarray, " plateaus"]
    level_errors: Float[np.ndarray, " plateaus"]
    rests: Float[np.ndarray, " plateaus"]
    time_errors: Float[np.ndarray, " jumps"]
    midpoint_errors: Float[np.ndarray, " jumps"]
    plateau_errors: Float[np.ndarray, " plateaus"]
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
    def verdict(self) -> str:
        """One sentence."""
        count = self.status.count("seen")
        parts = [f"{count} of {len(self)} predicted jump{'' if len(self) == 1 else 's'} seen"]
        merged, missing = self.status.count("merged"), self.status.count("missing")
        parts += [f"{merged} merged"] if merged else []
        parts += [f"{missing} missing"] if missing else []
        times = np.abs(self.time_errors[np.isfinite(self.time_errors)])
        parts += [f"times within {_percent(float(times.max()))}"] if len(times) else []
        levels = np.abs(self.plateau_errors[np.isfinite(self.plateau_errors)])
        parts += [f"levels within {_percent(float(levels.max()))}"] if len(levels) else []
        if self.order is not None:
            parts.append("order as predicted" if self.order.share == 1 else f"order agrees at {self.order.share:.0%}")
        others = len(self.jumps)
        if others != len(self):
            parts.append(f"without the prediction {others} would be seen")
        return ", ".join(parts) + "."

    def __str__(self) -> str:
        head = ["learns", "predicted", "crosses", "+-", "error", "by measured levels", "error", "level", "measured", "error"]
        rows = [["", "", "", "", "", "", "", *self._level_cells(0)]]
        for jump in range(len(self)):
            rows.append(
                [
                    str(self.prediction.order[jump]),
                    _number(self.predicted[jump]),
                    _number(self.crossings[jump]),
                    _number(self.crossing_errors[jump], 2),
                    _signed(self.time_errors[jump]),
                    _number(self.midpoints[jump]),
                    _signed(self.midpoint_errors[jump]),
                    *self._level_cells(jump + 1),
                ]
            )
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
        lines = [f"{self.prediction.model}: {self.verdict}"]
        lines += ["  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
        lines += [f"  jump {number}: {reason}" for number, reason in enumerate(self.reasons, 1) if reason]
        if self.noisy:
            lines.append("  the run is noisy: crossings are those of the smoothed curve, levels are means")
        return "\n".join(lines)

    def _level_cells(self, plateau: int) -> list[str]:
        return [
            _number(self.prediction.levels[plateau]),
            _number(self.levels[plateau]),
            _signed(self.plateau_errors[plateau]),
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

    Source: section "measuring" of our specification after Kunin et al. 2025 (arXiv 2506.06489); the treatment of noise is ours.

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
        times: which field of the prediction to compare, such as ``"plain_times"``. Without, ``crossing_times`` or
            ``refined_times`` where the prediction is in the unit of the flow and has them (``times`` for those that aren't numbers), else ``times``.
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
        '2 of 2 predicted jumps seen, times within 0.99 %, levels within 2e-07 %.'
        >>> found.crossings.round(6).tolist()
        [10.0, 20.0]
    """
    expected = as_prediction(prediction)
    if clock not in get_args(Clock):
        raise InputError(f"clock must be one of {', '.join(get_args(Clock))}, got {clock!r}.")
    if not len(expected):
        raise InputError("the prediction has no jumps: there is nothing to compare.")
    curve = loss_curve(history, losses, variable, clock)
    _require_unit(expected, curve.dimension)
    predicted, field = predicted_times(expected, times)
    first = float(expected.levels[0])
    drops = expected.levels[:-1] - expected.levels[1:]
    middles = (expected.levels[:-1] + expected.levels[1:]) / 2
    crossed = [
        curve.crossing(float(middle)) if drop > _VISIBLE * abs(first) else None
        for middle, drop in zip(middles, drops, strict=True)
    ]
    plateaus = _plateaus(curve, crossed, drops > _VISIBLE * abs(first))
    status, reasons = _judge(curve, expected, predicted, crossed, plateaus, middles)
    missed = (math.nan, math.nan)
    found, errors = np.array([missed if moment is None else moment for moment in crossed]).T
    levels = np.array([math.nan if plateau is None else plateau.level for plateau in plateaus])
    midpoints = np.full(len(expected), math.nan)
    for jump, moment in enumerate(crossed):
        before, after = plateaus[jump], plateaus[jump + 1]
        if moment is not None and before is not None and after is not None:
            again = curve.crossing((before.level + after.level) / 2)
            midpoints[jump] = math.nan if again is None else again[0]
    scales = np.where(np.abs(expected.levels) > _VISIBLE * abs(first), expected.levels, first)
    agreement = None
    if learned is not None:
        moments = [
            (before.moment, after.moment)
            for before, after, moment in zip(plateaus[:-1], plateaus[1:], crossed, strict=True)
            if before is not None and after is not None and moment is not None
        ]
        agreement = order_agreement(expected.order, learned_by(learned, history, moments))
    known = np.where(np.isfinite(predicted) & (predicted > 0), predicted, math.nan)
    return Comparison(
        prediction=expected,
        predicted=predicted,
        time_field=field,
        status=status,
        reasons=reasons,
        crossings=found,
        crossing_errors=errors,
        midpoints=midpoints,
        levels=levels,
        level_errors=np.array([math.nan if plateau is None else plateau.error for plateau in plateaus]),
        rests=np.array([math.nan if plateau is None else plateau.moment for plateau in plateaus]),
        time_errors=found / known - 1,
        midpoint_errors=midpoints / known - 1,
        plateau_errors=(levels - expected.levels) / scales,
        jumps=curve.jumps,
        order=agreement,
        noisy=curve.noisy,
        end=curve.end,
        history=history,
        losses=losses,
        variable=variable,
    )


def as_prediction(value: Any) -> Prediction:
    """Read a prediction from what holds one.

    Args:
        value: a prediction, stages of the engine, or what ``to_history`` made.

    Returns:
        The prediction.

    Raises:
        InputError: if it is none of these.
    """
    if isinstance(value, Prediction):
        return value
    if isinstance(value, xr.Dataset) and "active" in value.data_vars:
        from learnmech.dynamics.agf.engine_reading import read_run

        return read_run(value)
    if isinstance(value, xr.Dataset) and {"loss", "moment"} <= set(value.data_vars) and "order" in value.attrs:
        import json

        order = value.attrs["order"]
        return Prediction(
            times=np.asarray(value["moment"].values[1:], dtype=np.float64),
            levels=np.asarray(value["loss"].values, dtype=np.float64),
            order=tuple(json.loads(order) if isinstance(order, str) else order),
            time_unit=str(value["moment"].attrs.get("units", FLOW_TIME)),
        )
    raise InputError(
        "prediction must be one that agf.linear, agf.diagonal and the like return, or the stages of agf.run, got "
        f"{type(value).__name__}."
    )


def predicted_times(prediction: Prediction, field: str | None) -> tuple[Float[np.ndarray, " jumps"], str]:
    """Give the times at which a prediction has the loss cross the mean of two levels.

    Args:
        prediction: of any instance.
        field: which of its times; None for the best.

    Returns:
        Times, and the name of the field.

    Raises:
        InputError: if it has no such field.
    """
    if field is not None:
        values = getattr(prediction, field, None)
        if not isinstance(values, np.ndarray) or values.shape != prediction.times.shape:
            raise InputError(f"the prediction has no times called {field!r}, one a jump.")
        return values, field
    for name in _TIME_FIELDS:
        values = getattr(prediction, name, None)
        in_unit = prediction.time_unit == FLOW_TIME or getattr(prediction, "converted", False)
        if in_unit and isinstance(values, np.ndarray) and values.shape == prediction.times.shape and len(values):
            return np.where(np.isnan(values), prediction.times, values), name
    return prediction.times, "times"


def _require_unit(prediction: Prediction, dimension: str) -> None:
    if dimension == "step" and prediction.time_unit == FLOW_TIME:
        raise InputError(
            "the run counts steps and the prediction time: convert it first, with prediction.convert(time_factor=(1 - momentum) / "
            "(learning_rate * c), time_unit='optimizer steps'), c the ratio of your loss to half the mean squared error."
        )
    if dimension == "time" and "over" in prediction.time_unit.split() and "log" in prediction.time_unit:
        raise InputError(
            f"the prediction's unit is {prediction.time_unit!r}: give the instance the scale of the start, or use convert."
        )


def _plateaus(
    curve: LossCurve, crossed: list[tuple[float, float] | None], visible: np.ndarray
) -> list[Plateau | None]:
    """Read each plateau between the crossings around it; None beside a jump that is not in the run."""
    found: list[Plateau | None] = []
    for number in range(len(crossed) + 1):
        before = [moment for moment, seen in zip(crossed[:number], visible[:number], strict=True) if seen]
        after = [moment for moment, seen in zip(crossed[number:], visible[number:], strict=True) if seen]
        if before and before[-1] is None:
            found.append(None)
            continue
        start = before[-1][0] if before and before[-1] is not None else float(curve.times[0])
        ends = [moment[0] for moment in after if moment is not None]
        if after and after[0] is None and ends:
            found.append(None)
            continue
        found.append(curve.plateau(start, ends[0] if ends else curve.end))
    return found


def _judge(
    curve: LossCurve,
    expected: Prediction,
    predicted: np.ndarray,
    crossed: list[tuple[float, float] | None],
    plateaus: list[Plateau | None],
    middles: np.ndarray,
) -> tuple[tuple[Status, ...], tuple[str, ...]]:
    visible = (expected.levels[:-1] - expected.levels[1:]) > _VISIBLE * abs(float(expected.levels[0]))
    status: list[Status] = []
    reasons: list[str] = []
    for jump, moment in enumerate(crossed):
        time, level = float(predicted[jump]), float(middles[jump])
        reason = "" if math.isfinite(time) and time > 0 else "no time is predicted for it."
        if not visible[jump]:
            status.append("no drop")
            reason = "the predicted drop is too small to be seen."
        elif moment is None and curve.losses[0] <= level:
            status.append("passed")
            reason = f"the loss is below {level:.4g}, the middle of the drop, from the start."
        elif moment is None:
            status.append("missing")
            early = time > curve.end
            reason = (
                f"the run ends at {curve.end:.5g}, before the predicted time {time:.5g}."
                if early
                else f"the loss never falls to {level:.4g}, the middle of the drop; it ends at {curve.losses[-1]:.4g}."
            )
        else:
            other = _merged_with(curve, expected, crossed, plateaus, jump)
            status.append("seen" if other is None else "merged")
            if other is not None:
                reason = f"merged with jump {other + 1}: the loss does not rest between the two."
        reasons.append(reason)
    return tuple(status), tuple(reasons)


def _merged_with(
    curve: LossCurve,
    expected: Prediction,
    crossed: list[tuple[float, float] | None],
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


def _number(value: float, digits: int = 5) -> str:
    return f"{value:.{digits}g}" if math.isfinite(value) else "-"


def _signed(value: float) -> str:
    return f"{100 * value:+.2g} %" if math.isfinite(value) else "-"


def _percent(value: float) -> str:
    return f"{100 * value:.2g} %"
