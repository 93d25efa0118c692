"""Which prediction, and which of its times, a run is held against."""

import json
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from learnmech.dynamics.agf.predictions import FLOW_TIME, Prediction
from learnmech.errors import InputError

_RELATIVE_UNITS = ("minus the log", "norm of")


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
    crossings = prediction.crossing_times
    same = np.array_equal(crossings, prediction.times, equal_nan=True)
    return (prediction.times, "times") if same else (crossings, "crossing_times")


def require_same_unit(prediction: Prediction, dimension: str) -> None:
    """Refuse a comparison of steps with time, or of time with a multiple of it.

    Args:
        prediction: in its unit.
        dimension: of the run: ``time``, ``step`` or another, which is taken on trust.

    Raises:
        InputError: if the units differ.
    """
    if dimension == "step" and prediction.time_unit == FLOW_TIME:
        raise InputError(
            "the run counts steps and the prediction time: convert it first, with prediction.convert(time_factor=(1 - momentum) / "
            "(learning_rate * c), time_unit='optimizer steps'), c the ratio of your loss to half the mean squared error."
        )
    if dimension == "time" and any(words in prediction.time_unit for words in _RELATIVE_UNITS):
        raise InputError(
            f"the prediction's unit is {prediction.time_unit!r}: give the instance the scale of the start, or use convert."
        )
