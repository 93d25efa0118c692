"""How many steps a simulation takes, and which of them are recorded."""

import math

import numpy as np
import torch

from learnmech.errors import InputError

RECORDS = 100
"""Records a simulation makes unless told otherwise, the start not counted."""

USUAL_BYTES = 2**27
"""Size of a history from which on fewer records are made unless told otherwise."""

MOST_BYTES = 2**32
"""Size of a history that is refused."""

_VARIABLES = 3  # position, elongation and load


def whole_steps(duration: float | None, steps: int | None, dt: float) -> int:
    """Turn a duration into a number of steps.

    Args:
        duration: time to simulate, or None.
        steps: number of steps, or None.
        dt: time step.

    Returns:
        The number of steps; a duration is rounded to the nearest.

    Raises:
        InputError: unless exactly one of duration and steps is given, at least one step long, and dt is above 0.

    Example:
        >>> whole_steps(100, None, 0.01)
        10000
    """
    if not (isinstance(dt, int | float) and 0 < dt < math.inf):
        raise InputError(f"dt must be a number above 0, but is {dt!r}.")
    if (duration is None) == (steps is None):
        raise InputError(f"give either duration or steps, but they are {duration!r} and {steps!r}.")
    if duration is not None:
        if not 0 < duration < math.inf or round(duration / dt) < 1:
            raise InputError(f"duration must be at least one step of dt = {dt:g}, but is {duration!r}.")
        return round(duration / dt)
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise InputError(f"steps must be a whole number of at least 1, but is {steps!r}.")
    return int(steps)


def record_spacing(record_every: int | None, steps: int, numbers: int, dtype: torch.dtype) -> int:
    """Choose how many steps lie between two records, within memory.

    Args:
        record_every: what the user asks for, or None.
        steps: steps of the simulation.
        numbers: blocks times chains times parameters.
        dtype: precision of the positions.

    Returns:
        The spacing.

    Raises:
        InputError: if the history would be larger than memory should hold; the message gives a spacing that fits.

    Example:
        >>> record_spacing(None, 10_000, 7, torch.float64)
        100
    """
    size = _VARIABLES * dtype.itemsize * max(numbers, 1)
    if record_every is None:
        return math.ceil(steps / min(RECORDS, max(1, USUAL_BYTES // size)))
    if isinstance(record_every, bool) or not isinstance(record_every, int | np.integer) or record_every < 1:
        raise InputError(f"record_every must be a whole number of at least 1, but is {record_every!r}.")
    if size * (steps / record_every) > MOST_BYTES:
        fitting = math.ceil(steps * size / MOST_BYTES)
        advice = f"record_every={fitting}" if fitting <= steps else "fewer chains or parameters"
        raise InputError(
            f"{steps // record_every} records of {numbers:,} positions make a history of {size * steps / record_every / 2**30:.1f} "
            f"GiB, but at most {MOST_BYTES / 2**30:.0f} are made; take {advice}."
        )
    return int(record_every)
