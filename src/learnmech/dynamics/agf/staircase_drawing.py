"""A predicted staircase drawn over a run."""

from typing import TYPE_CHECKING, Any

import numpy as np

from learnmech.dynamics.agf.predictions import Prediction
from learnmech.dynamics.jumps_curve import read_curve
from learnmech.errors import InputError
from learnmech.figures import ACCENT, FAINT, SECOND, escape, make_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go


def draw_staircase(
    prediction: Prediction,
    history: Any = None,
    losses: Any = None,
    *,
    variable: str | None = None,
    times: Any = None,
    log_time: bool = False,
    log_loss: bool = False,
) -> "go.Figure":
    """Draw a predicted staircase, and a run below it.

    Args:
        prediction: of any instance, with at least one jump.
        history: of the run, in the unit of the prediction, or times; None for the staircase alone.
        losses: if ``history`` is times.
        variable: name of the loss in a history.
        times: of the jumps, if not those of the prediction: for instances that have several.
        log_time: whether time is on a logarithmic axis; the staircase then begins at a tenth of its first time.
        log_loss: whether the loss is; a level of 0 is then drawn at the edge of the run, or a thousandth of the level before.

    Returns:
        A plotly figure: the run, the staircase, and what is learned beside each jump.

    Raises:
        InputError: for a prediction without jumps or times, or a bad curve.

    Example:
        >>> figure = draw_staircase(Prediction(times=np.array([1.0]), levels=np.array([2.0, 0.5]), order=("all",)))
        >>> figure.data[0].x.tolist(), figure.data[0].y.tolist()
        ([0.0, 1.0, 1.0, 1.5], [2.0, 2.0, 0.5, 0.5])
    """
    moments = np.asarray(prediction.times if times is None else times, dtype=np.float64)
    finite = np.isfinite(moments)
    if moments.shape != prediction.times.shape or not finite.any():
        raise InputError("draw_staircase needs a prediction with at least one jump at a known time.")
    moments = np.maximum.accumulate(np.where(finite, moments, -np.inf))[finite]
    levels = np.concatenate([prediction.levels[:1], prediction.levels[1:][finite]])
    names = [what for what, known in zip(prediction.order, finite, strict=True) if known]
    curve = None if history is None else read_curve(history, losses, variable)
    end = 1.5 * float(moments[-1]) if curve is None else max(float(curve.times[-1]), float(moments[-1]))
    start = 0.1 * float(moments[moments > 0].min(initial=end)) if log_time else 0.0
    figure = make_figure(escape(prediction.time_unit), escape(prediction.loss_unit))
    if curve is not None:
        kept = curve.times > 0 if log_time else np.ones(len(curve.times), dtype=bool)
        figure.add_scatter(
            x=curve.times[kept], y=curve.losses[kept], mode="lines", name="run", line={"color": ACCENT, "width": 2}
        )
    shown = levels
    if log_loss:
        positive = levels[levels > 0]
        least = float(positive.min()) / 1e3 if curve is None else max(float(curve.losses.min()), 1e-300)
        shown = np.maximum(levels, least)
    corners = np.concatenate([[start], np.repeat(moments, 2), [end]])
    figure.add_scatter(
        x=corners, y=np.repeat(shown, 2), mode="lines", name="predicted", line={"color": SECOND, "dash": "dash"}
    )
    figure.add_scatter(
        x=moments,
        y=shown[:-1],
        mode="text",
        text=[escape(what) for what in names],
        textposition="top right",
        textfont={"color": FAINT},
        name="learned",
        showlegend=False,
    )
    if log_time:
        figure.update_xaxes(type="log")
    if log_loss:
        figure.update_yaxes(type="log", exponentformat="power")
    return figure
