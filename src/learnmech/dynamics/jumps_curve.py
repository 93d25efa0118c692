"""Reading a loss curve for :func:`learnmech.dynamics.saddle.find_jumps`: from a history, an array, or two lists."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from learnmech.errors import InputError

NAMES = ("loss", "train_loss", "training_loss")
LEAST_POINTS = 8
MOST_POINTS = 2000


@dataclass(frozen=True)
class Curve:
    """A loss curve that can be searched.

    Attributes:
        times: increasing times or steps.
        losses: finite losses.
        left_out: points that were not finite and were left out.
        block: measured points that each point averages; 1 for a curve of at most 2000 points.
    """

    times: Float[np.ndarray, " points"]
    losses: Float[np.ndarray, " points"]
    left_out: int
    block: int


def read_curve(curve: Any, losses: Any, variable: str | None) -> Curve:
    """Read a loss curve.

    Args:
        curve: a history, a DataArray over one dimension, or times.
        losses: the losses if ``curve`` is times, else None.
        variable: name of the loss in a history.

    Returns:
        The curve. What stands behind the last finite loss is left out, and so are gaps.

    Raises:
        InputError: if this is not one curve of at least 8 finite points over increasing times.
    """
    times, values = _from_labelled(curve, variable) if losses is None else _from_lists(curve, losses, variable)
    if times.shape != values.shape or times.ndim != 1:
        raise InputError(
            f"times and losses must be two lists of one length, got shapes {times.shape} and {values.shape}."
        )
    if not np.isfinite(times).all() or np.any(np.diff(times) <= 0):
        raise InputError("times must be finite and increase strictly; sort the points and drop repeated ones.")
    kept = np.isfinite(values)
    if kept.sum() < LEAST_POINTS:
        raise InputError(
            f"a loss curve needs at least {LEAST_POINTS} finite points, got {int(kept.sum())} of {len(values)}; "
            "record the loss more often."
        )
    left_out = int((~kept).sum())
    times, values = times[kept], values[kept]
    block = -(-len(times) // MOST_POINTS)
    if block > 1:
        edges = np.arange(0, len(times), block)
        sizes = np.diff(np.append(edges, len(times)))
        times, values = (np.add.reduceat(array, edges) / sizes for array in (times, values))
    return Curve(times, values, left_out, block)


def _from_lists(times: Any, losses: Any, variable: str | None) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(times, xr.Dataset) or variable is not None:
        raise InputError("give either a history (and variable=), or times and losses, not both.")
    try:
        return np.asarray(times, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"times and losses must be numbers: {error}") from error


def _from_labelled(curve: Any, variable: str | None) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(curve, xr.Dataset):
        name = variable or next((name for name in NAMES if name in curve.data_vars), None)
        if name is None or name not in curve.data_vars:
            raise InputError(
                f"the history has no variable {variable or ' or '.join(NAMES)!r}; it has "
                f"{', '.join(map(str, curve.data_vars))}. Name the loss with variable=."
            )
        curve = curve[name]
    if not isinstance(curve, xr.DataArray):
        raise InputError(
            f"expected a history, a DataArray, or times and losses, got a single {type(curve).__name__}; "
            "call find_jumps(times, losses) for plain lists."
        )
    if curve.ndim != 1:
        raise InputError(
            f"the loss must run over one dimension, but runs over {tuple(map(str, curve.dims))} (shape {curve.shape}); "
            "choose one run first, such as history.sel(seed=0)."
        )
    dimension = curve.dims[0]
    if dimension not in curve.coords:
        raise InputError(f"the dimension {dimension!r} of the loss has no coordinate that says when it was measured.")
    return _from_lists(curve[dimension].values, curve.values, None)
