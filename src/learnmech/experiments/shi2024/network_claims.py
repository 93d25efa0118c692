"""The claims about networks, N1 to N10, as checks of a history over slope, a noise axis and seed.

Bounds stand here as they were written down before the runs (from an independent set of runs of the same networks); a check that
fails is reported as failed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from learnmech.experiments.networks import without_readout
from learnmech.experiments.reproduction import Claim, Scale, judge, untested

PEAK_TOLERANCE = 0.003
"""Accuracies closer than this count as equal: two seeds differ by as much."""
_TOO_SMALL = "the figure at scale reduced or paper; the bounds are those of the paper's networks on MNIST"


def mean_of(history: xr.Dataset, variable: str, **at: Any) -> float:
    """Average a variable over seeds at one point of the grid.

    Args:
        history: the collected sweep.
        variable: which variable.
        **at: the point, axis to value.

    Returns:
        The mean over the seeds that ran.
    """
    return float(history[variable].sel(at).mean())


def has(history: xr.Dataset, **at: Sequence[Any]) -> bool:
    """Say whether the grid holds some values.

    Args:
        history: the collected sweep.
        **at: axis to the values that are needed.

    Returns:
        Whether all are there.
    """
    return all(
        axis in history.dims and any(np.isclose(float(value), float(found)) for found in history[axis].values)
        for axis, values in at.items()
        for value in values
    )


def nearest(history: xr.Dataset, axis: str, value: float) -> Any:
    """Give the coordinate of an axis that equals a number up to rounding.

    Args:
        history: the collected sweep.
        axis: the axis.
        value: the number.

    Returns:
        The coordinate as it is stored.
    """
    values = history[axis].values
    return values[int(np.argmin(np.abs(values.astype(float) - value)))]


def check_lazy_start(history: xr.Dataset, scale: Scale, at: Mapping[str, Any]) -> Claim:
    """Check N1: a ReLU net without noise has a concave load curve.

    Args:
        history: the collected sweep.
        scale: the scale of the run.
        at: the point of the grid that is a ReLU net without noise.

    Returns:
        The claim.
    """
    text = "a ReLU net without noise has a concave load curve: the deep layers do the work"
    c, q, straight = (mean_of(history, name, **at) for name in ("end_difference", "curvature", "linearity"))
    return judge(
        "N1",
        text,
        "c < -0.8, q < -0.6, R^2 < 0.95",
        f"c = {c:.2f}, q = {q:.2f}, R^2 = {straight:.3f}",
        c < -0.8 and q < -0.6 and straight < 0.95,
        tested=scale != "smoke",
    )


def check_rising(
    key: str,
    text: str,
    history: xr.Dataset,
    scale: Scale,
    axis: str,
    values: Sequence[float],
    *,
    crossing: tuple[float, float] | None = None,
    variable: str = "end_difference",
    symbol: str = "c",
    **at: Any,
) -> Claim:
    """Check that the curve bends towards convex along an axis.

    Args:
        key: number of the claim.
        text: the claim.
        history: the collected sweep.
        scale: the scale of the run.
        axis: along which axis.
        values: at which of its values, in the order in which the number shall rise.
        crossing: two of the values between which the number shall change from negative to positive.
        variable: which number.
        symbol: what it is called.
        **at: the values of the other axes.

    Returns:
        The claim.
    """
    needed = [*values, *(crossing or ())]
    expected = f"{symbol} rises strictly over {axis} {', '.join(f'{value:g}' for value in values)}"
    if crossing:
        expected += f", and changes sign between {crossing[0]:g} and {crossing[1]:g}"
    if not has(history, **{axis: needed}):
        return untested(key, text, expected)
    numbers = [mean_of(history, variable, **{**at, axis: nearest(history, axis, value)}) for value in values]
    holds = bool(np.all(np.diff(numbers) > 0))
    if crossing:
        ends = [mean_of(history, variable, **{**at, axis: nearest(history, axis, value)}) for value in crossing]
        holds = holds and ends[0] < 0 < ends[1]
    measured = f"{symbol} = " + ", ".join(f"{number:+.2f}" for number in numbers)
    return judge(key, text, expected, measured, holds, tested=scale != "smoke")


def check_linear_net(history: xr.Dataset, scale: Scale, **at: Any) -> list[Claim]:
    """Check N5: less nonlinearity bends the curve towards convex, and a linear net is convex already without noise.

    Args:
        history: the collected sweep.
        scale: the scale of the run.
        **at: the point without noise.

    Returns:
        Two claims.
    """
    rising = check_rising(
        "N5",
        "less nonlinearity bends the curve from concave to convex, without any noise",
        history,
        scale,
        "slope",
        (0.0, 0.4, 1.0),
        **at,
    )
    c = mean_of(history, "end_difference", **{**at, "slope": nearest(history, "slope", 1.0)})
    linear = judge(
        "N5b", "a linear net is convex already", "c > 0 at slope 1", f"c = {c:+.2f}", c > 0, tested=scale != "smoke"
    )
    return [rising, linear]


def check_best_is_straight(history: xr.Dataset, scale: Scale, axis: str) -> list[Claim]:
    """Check N6: within a row of the diagram the accuracy is best where the curve is straightest.

    Args:
        history: the collected sweep.
        scale: the scale of the run.
        axis: the noise axis.

    Returns:
        One claim for each row with slope at most 0.4 that the theory file names, one for all of them together, and one that
        records the linear row, where the claim is known not to hold.
    """
    tested = scale != "smoke"
    accuracy, straight = history["test_accuracy"].mean("seed"), history["linearity"].mean("seed")
    claims = []
    for slope in (0.0, 0.4):
        if not has(history, slope=[slope]):
            continue
        row = {"slope": nearest(history, "slope", slope)}
        acc, fit = accuracy.sel(row).values, straight.sel(row).values
        labels = [f"{float(value):g}" for value in history[axis].values]
        peak, line = int(np.nanargmax(acc)), int(np.nanargmax(fit))
        gap = float(acc[peak] - acc[line])
        claims.append(
            judge(
                f"N6 ({slope:g})",
                f"slope {slope:g}: accuracy peaks where the load curve is straightest",
                f"accuracy at the largest R^2 within {100 * PEAK_TOLERANCE:g} points of the best",
                f"R^2 largest at {axis} {labels[line]} ({fit[line]:.3f}) with {100 * acc[line]:.2f} %, "
                f"best {100 * acc[peak]:.2f} % at {labels[peak]}",
                gap <= PEAK_TOLERANCE,
                tested=tested,
            )
        )
    curved = history["slope"].values.astype(float) <= 0.4 + 1e-9
    chosen = history.isel(slope=np.flatnonzero(curved))
    order = _rank_correlation(chosen)
    claims.append(
        judge(
            "N6",
            "over all runs with slope up to 0.4, straighter curves go with higher accuracy",
            "Spearman correlation of accuracy and R^2 above 0.5",
            f"{order:+.2f} over {int(np.isfinite(chosen['test_accuracy']).sum())} runs",
            order > 0.5,
            tested=tested,
        )
    )
    if has(history, slope=[1.0]):
        linear = _rank_correlation(history.sel(slope=[nearest(history, "slope", 1.0)]))
        claims.append(
            untested(
                "N6 (1)",
                f"inside the linear row it need not hold: Spearman there {linear:+.2f}",
                "no claim is made there",
            )
        )
    return claims


def _rank_correlation(history: xr.Dataset) -> float:
    return rank_correlation(history["test_accuracy"].values, history["linearity"].values)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Compute Spearman's rank correlation of what is finite in both.

    Args:
        first: numbers.
        second: numbers of the same shape.

    Returns:
        From -1 to 1; NaN for fewer than three pairs, or if one does not vary.
    """
    kept = np.isfinite(first) & np.isfinite(second)
    first, second = first[kept], second[kept]
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(spearmanr(first, second).statistic)


def check_held_out(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check N7: test curves follow training curves, shifted towards convex where there is nonlinearity.

    Args:
        history: the collected sweep over ``slope``.
        scale: the scale of the run.

    Returns:
        Two claims.
    """
    shift = (history["end_difference_held_out"] - history["end_difference"]).mean("seed")
    slopes = history["slope"].values.astype(float)
    curved, linear = shift.isel(slope=slopes < 1).values.ravel(), shift.isel(slope=slopes == 1).values.ravel()
    tested = scale != "smoke"
    return [
        judge(
            "N7",
            "with nonlinearity, test curves are the training curves shifted towards convex",
            "c(test) - c(training) above -0.1 for slope < 1 in every cell, above 0 on average",
            f"from {curved.min():+.2f} to {curved.max():+.2f}, mean {curved.mean():+.2f}",
            bool(curved.min() > -0.1 and curved.mean() > 0),
            tested=tested,
        ),
        judge(
            "N7b",
            "in linear nets they are the same",
            "|c(test) - c(training)| at most 0.15 at slope 1",
            f"from {linear.min():+.2f} to {linear.max():+.2f}",
            bool(np.abs(linear).max() <= 0.15),
            tested=tested,
        ),
    ]


def check_flat_pinv(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check N8: in linear nets the load by pseudo-inverse is nearly flat over depth where the load by trace falls.

    Args:
        history: the collected sweep, linear nets at the default learning rate.
        scale: the scale of the run.

    Returns:
        One claim.
    """
    hidden = without_readout(history)
    drops = {
        name: (hidden[name].isel(layer=0) - hidden[name].isel(layer=-1)).mean("seed").values.ravel()
        for name in ("load", "load_pinv")
    }
    share = np.abs(drops["load_pinv"]) / np.abs(drops["load"])
    return [
        judge(
            "N8",
            "in linear nets the load by pseudo-inverse is nearly flat: it does not see the layers",
            "its total change is below 30 % of that of the load by trace",
            f"{drops['load_pinv'].min():+.2f} to {drops['load_pinv'].max():+.2f} against "
            f"{drops['load'].min():+.2f} to {drops['load'].max():+.2f} (at most {100 * share.max():.0f} %)",
            bool(share.max() < 0.3),
            tested=scale != "smoke",
        )
    ]
