"""What a prediction for a real network assumes, and whether it holds."""

import math
from dataclasses import dataclass

import numpy as np

from learnmech.dynamics.agf.predictions import Prediction

_SMALL_LOSS = 0.01
_SLOW_STEP = 0.05
_APART = 3.0


@dataclass(frozen=True)
class Assumption:
    """One assumption.

    Attributes:
        name: in a few words.
        holds: whether it does; None if it cannot be told.
        measured: the number or fact.
        meaning: what happens if it fails.
    """

    name: str
    holds: bool | None
    measured: str
    meaning: str

    def __str__(self) -> str:
        mark = {True: "holds", False: "FAILS", None: "not known"}[self.holds]
        return f"{mark:9s} {self.name}: {self.measured}" + ("" if self.holds else f" ({self.meaning})")


def small_start(loss: float, zero_loss: float) -> Assumption:
    """Judge the start by how much of the loss it has changed.

    Args:
        loss: of the model as it is.
        zero_loss: of a model that outputs 0.

    Returns:
        The assumption.
    """
    change = abs(loss / zero_loss - 1) if zero_loss > 0 else math.inf
    return Assumption(
        "small start",
        change < _SMALL_LOSS,
        f"the loss differs by {change:.2g} from that of the output 0",
        "plateaus are not reached, and jumps run into one another; make the first weights smaller",
    )


def small_steps(rate: float, growth: float) -> Assumption:
    """Judge the learning rate by how much the fastest neuron grows in one step.

    Args:
        rate: time of the flow in a step.
        growth: of the fastest neuron's logarithm in that time's unit, at norm 1.

    Returns:
        The assumption.
    """
    if not math.isfinite(rate):
        return Assumption("small steps", None, "no learning rate is known", "give the optimizer")
    share = rate * growth
    return Assumption(
        "small steps",
        share < _SLOW_STEP,
        f"the fastest neuron grows by {share:.2g} in a step",
        "steps are no flow: jumps come at other times; lower the learning rate",
    )


def jumps_apart(prediction: Prediction, growth: float) -> Assumption:
    """Judge whether jumps can be told apart.

    Args:
        prediction: in time of the flow.
        growth: rate of the fastest neuron, which sets the width of a jump.

    Returns:
        The assumption.
    """
    times = np.sort(prediction.times[np.isfinite(prediction.times)])
    gap = float(np.diff(times).min(initial=math.inf)) * growth
    return Assumption(
        "jumps apart",
        gap > _APART,
        "one jump" if math.isinf(gap) else f"the nearest two are {gap:.2g} growth times apart",
        "they look like one jump; levels between are not seen",
    )


def biases(largest: float, mean_target: float, present: bool) -> Assumption:
    """Judge whether biases can be left out.

    Args:
        largest: of the biases, at the start.
        mean_target: size of the mean target and the mean input, relative to their spread.
        present: whether there are trainable biases.

    Returns:
        The assumption.
    """
    if not present:
        return Assumption("no biases", True, "there are none", "")
    return Assumption(
        "no biases",
        largest <= 1e-6 and mean_target <= 1e-3,
        f"they begin at up to {largest:.2g}, and data have means of {mean_target:.2g} of their spread",
        "a bias learns the mean at once and is not in the prediction; centre the data, or use bias=False",
    )


def full_batch(batch_size: int | None, samples: int) -> Assumption:
    """Judge whether steps see all data.

    Args:
        batch_size: of training; None if it is not known.
        samples: of the data.

    Returns:
        The assumption.
    """
    if batch_size is None:
        return Assumption("full batch", None, "not told", "small batches add noise, which blurs times; give batch_size")
    return Assumption(
        "full batch",
        batch_size >= samples,
        f"{batch_size} of {samples} samples a step",
        "small batches add noise, which blurs times",
    )
