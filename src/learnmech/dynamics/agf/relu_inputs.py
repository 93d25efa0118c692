"""Checks of the data of a ReLU net."""

from typing import Any

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.agf.problems import as_array
from learnmech.errors import InputError


def relu_data(
    X: Any, y: Any, leak: float, bias: bool
) -> tuple[Float[np.ndarray, "samples dimension"], Float[np.ndarray, " samples"], float]:
    """Check data for a ReLU net.

    Args:
        X: inputs (samples, inputs).
        y: targets or residual (samples,), or (samples, 1).
        leak: slope below 0.
        bias: whether to append a column of ones.

    Returns:
        Inputs, targets and leak as float64.

    Raises:
        InputError: for wrong shapes, no sample, numbers that are not finite, or a leak outside [0, 1).
    """
    points = as_array("X", X, 2)
    shape = tuple(getattr(y, "shape", np.shape(y)))
    values = as_array("y", y, len(shape) if len(shape) == 2 else 1)
    if values.ndim == 2:
        if values.shape[1] != 1:
            raise InputError(
                f"y must hold one number a sample, got shape {values.shape}; several outputs aren't supported."
            )
        values = values[:, 0]
    if not points.size or len(points) != len(values):
        raise InputError(
            f"X (samples, inputs) and y (samples,) must have as many rows, got {points.shape} and {shape}."
        )
    if not (isinstance(leak, int | float) and 0 <= leak < 1):
        raise InputError(f"leak must be a slope from 0 to below 1, got {leak!r}.")
    if bias:
        points = np.column_stack([points, np.ones(len(points))])
    return points, values, float(leak)
