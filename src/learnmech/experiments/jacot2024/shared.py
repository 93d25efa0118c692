"""What the figures share: settings with overrides, which nets may be read, statistics over depth, and axes."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from scipy import stats

from learnmech.errors import InputError
from learnmech.experiments.jacot2024.trained_nets import stack_values
from learnmech.experiments.reproduction import Context
from learnmech.figures import ACCENT, INK, SECOND, THIRD
from learnmech.leaky.training_result import RESIDUAL_LIMIT

if TYPE_CHECKING:
    pass

RIDGE_COLOURS = ("#0b2f5c", ACCENT, "#7fb3dd")
"""One a ridge, from the smallest (dark) to the largest (light)."""
SCHEME_COLOURS = {"uniform": INK, "irregular": THIRD, "adaptive": SECOND}
RESIDUAL_NOTE = (
    f"Hamiltonians are those of a critical point; nets whose median stationarity residual is above {RESIDUAL_LIMIT:g} are drawn "
    "hollow, and claims about their Hamiltonians are not tested. "
)


def choose_settings(
    context: Context, settings: Mapping[str, Any], axes: Sequence[str], *, locked: Sequence[str] = ()
) -> dict[str, Any]:
    """Give the settings of a scale, with the overrides of a context.

    Args:
        context: where and how to run.
        settings: those of its scale; a list for an axis.
        axes: names of the axes.
        locked: names that the figure compares or builds on.

    Returns:
        All settings.

    Raises:
        InputError: if an override is unknown or cannot be replaced, or is one value where several are needed or the other way
            round.
    """
    context.require_overrides(*settings)
    chosen = dict(settings)
    for name, value in context.overrides.items():
        if name in locked:
            raise InputError(f"{name} cannot be replaced: the figure compares these.")
        listed = isinstance(value, list | tuple)
        if listed != isinstance(chosen[name], list | tuple):
            wanted = "a list of values" if name in axes or not listed else "one value"
            raise InputError(f"{name} must be {wanted}, got {value!r}.")
        chosen[name] = list(value) if listed else value
    return chosen


def setting(history: xr.Dataset, name: str) -> Any:
    """Give a setting that all cells of a collected sweep share.

    Args:
        history: the collected sweep.
        name: the setting.

    Returns:
        Its value.
    """
    return json.loads(history.attrs["config"])["fixed"][name]


def task_rank(history: xr.Dataset) -> int:
    """Give the smallest width of the task, which bounds its bottleneck rank.

    Args:
        history: the collected sweep.

    Returns:
        k*.
    """
    return int(min(setting(history, "widths")))


def readable(history: xr.Dataset) -> np.ndarray:
    """Say of each net whether its Hamiltonian may be read: stationary, not collapsed, not diverged.

    Args:
        history: with ``stationary``, ``collapsed`` and ``diverged``.

    Returns:
        Booleans, over the dimensions of these; false where a cell failed.
    """
    flags = [
        np.nan_to_num(history[name].values, nan=bad)
        for name, bad in (("stationary", 0), ("collapsed", 1), ("diverged", 1))
    ]
    return np.asarray((flags[0] > 0) & (flags[1] == 0) & (flags[2] == 0))


def alive(history: xr.Dataset) -> np.ndarray:
    """Say of each net whether it was trained and did not collapse.

    Args:
        history: with ``collapsed`` and ``diverged``.

    Returns:
        Booleans, over the dimensions of these.
    """
    flags = [np.nan_to_num(history[name].values, nan=1.0) for name in ("collapsed", "diverged")]
    return np.asarray((flags[0] == 0) & (flags[1] == 0))


def spread(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Compute the standard deviation over depth, weighted with step sizes.

    Args:
        values: numbers (..., layers + 1), of steps; the last is left out.
        steps: step sizes of the same shape.

    Returns:
        Deviations (...).
    """
    kept, weights = values[..., :-1], steps[..., :-1]
    mean = (weights * kept).sum(-1, keepdims=True)
    return np.asarray(np.sqrt((weights * (kept - mean) ** 2).sum(-1)))


def order_correlation(first: Any, second: Any) -> float:
    """Compute Spearman's rank correlation.

    Args:
        first: numbers (n,).
        second: numbers (n,).

    Returns:
        Between -1 and 1; NaN for fewer than three, or where one of both is constant.
    """
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(stats.spearmanr(first, second).statistic)


def power(x: Any, y: Any) -> float:
    """Fit a power law by least squares in logarithms.

    Args:
        x: positive numbers (n,).
        y: positive numbers (n,).

    Returns:
        The exponent.
    """
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def numbers(values: Any, digits: int = 3) -> str:
    """Write numbers in a row.

    Args:
        values: the numbers.
        digits: significant digits.

    Returns:
        The numbers with commas between them.
    """
    return ", ".join(f"{float(value):.{digits}g}" for value in np.asarray(values, dtype=float).ravel())


def median_over_depth(history: xr.Dataset, name: str, *dimensions: str) -> np.ndarray:
    """Give the median over depth of a quantity of the steps.

    Args:
        history: the history.
        name: the quantity.
        *dimensions: the other dimensions, in order.

    Returns:
        Medians; NaN where a cell failed.
    """
    values = stack_values(history, name, *dimensions, "layer")[..., :-1]
    return np.asarray(np.median(values, axis=-1))


def node_depths(history: xr.Dataset) -> np.ndarray:
    """Give the depth of each node of each net.

    Args:
        history: the collected sweep over ``effective_depth``.

    Returns:
        Depths (effective depths, layers + 1).
    """
    if "depth_of_cell" in history:
        return stack_values(history, "depth_of_cell", "effective_depth", "layer")
    return np.tile(np.asarray(history["depth"].values, dtype=float), (history.sizes["effective_depth"], 1))


def ridge_colours(ridges: Sequence[float] | np.ndarray) -> list[str]:
    """Give each ridge its colour, darker for smaller ones.

    Args:
        ridges: the ridges, at most three.

    Returns:
        A colour each.
    """
    order = np.argsort(np.argsort(ridges))
    return [RIDGE_COLOURS[place] for place in order]


def write_ridge(ridge: float) -> str:
    """Write a ridge.

    Args:
        ridge: the number.

    Returns:
        Such as ``γ = 0.01``.
    """
    return f"γ = {float(ridge):g}"
