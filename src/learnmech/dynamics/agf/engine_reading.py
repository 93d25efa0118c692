"""From the stages of the engine to a predicted staircase."""

import json
from typing import Any

import numpy as np
import xarray as xr

from learnmech.dynamics.agf.predictions import Prediction
from learnmech.errors import InputError

_SAME = 1e-6


def read_run(history: xr.Dataset) -> Prediction:
    """Read the stages of :func:`~learnmech.dynamics.agf.run` as plateaus and jumps.

    Stages at the same time (to 1e-6) are one jump. A stage that leaves the loss as it was (to 1e-6 of the first level), such as a
    second neuron for something already learned, is none. Several neurons that learn the same in one jump give it once; several
    things give a tuple.

    Args:
        history: that ``run`` returned.

    Returns:
        The prediction; ``order`` holds the problem's labels of the newly active neurons, or their indices.

    Raises:
        InputError: if the history is of something else.

    Example:
        >>> from learnmech.dynamics.agf.engine_run import run
        >>> from learnmech.dynamics.agf.problems import Problem
        >>> class Product(Problem):
        ...     degree, size, target = 2, 2, np.ones(1)
        ...     def features(self, neurons):
        ...         return neurons[:, :1] * neurons[:, 1:]
        ...     def pull(self, neurons, residual):
        ...         return neurons[:, ::-1] * residual
        >>> prediction = read_run(run(Product(), [[1e-3, 1e-3], [1e-5, 1e-5]]))
        >>> prediction.times.round(3).tolist(), prediction.levels.round(6).tolist(), prediction.order
        ([6.561], [0.5, 0.0], (0,))
    """
    needed = {"moment", "loss", "converged"}
    if not (isinstance(history, xr.Dataset) and needed <= set(history) and "labels" in history.attrs):
        raise InputError(
            "read_run reads the stages that agf.run returns, with moment, loss, converged and the attribute labels."
        )
    moments, losses = history["moment"].values, history["loss"].values
    labels = json.loads(history.attrs["labels"])
    times: list[float] = []
    levels = [float(losses[0])]
    learned: list[list[Any]] = []
    for moment, loss, new in zip(moments[1:].tolist(), losses[1:].tolist(), labels[1:], strict=True):
        same = abs(loss - levels[-1]) <= _SAME * losses[0]
        if times and moment - times[-1] <= _SAME * max(moment, 1e-300):
            levels[-1] = loss
            learned[-1] += [label for label in new if label not in learned[-1] and not same]
        elif not same:
            times.append(moment)
            levels.append(loss)
            learned.append(list(dict.fromkeys(new)))
    return Prediction(
        times=np.array(times, dtype=np.float64),
        levels=np.array(levels),
        order=tuple(new[0] if len(new) == 1 else tuple(new) for new in learned),
        model=str(history.attrs.get("model", "alternating gradient flow")),
        notes=_notes(history),
    )


def _notes(history: xr.Dataset) -> tuple[str, ...]:
    ended = str(history.attrs.get("ended", ""))
    notes = {
        "at rest": "The engine ended because no dormant neuron can grow.",
        "all active": "The engine ended because all neurons are active.",
        "longest": "The engine ended at the longest time; more may be learned later.",
        "most stages": "The engine ended at the largest number of stages; more may be learned later.",
        "too many steps": "The engine ended because a phase took too many steps; more may be learned later.",
        "interrupted": "The engine was interrupted; more may be learned later.",
    }
    failed = int((~history["converged"].values).sum())
    unsettled = (f"{failed} of the levels did not converge.",) if failed else ()
    return (*((notes[ended],) if ended in notes else ()), *unsettled)
