"""What a prediction for a real network assumes, and whether it holds."""

import math
from dataclasses import dataclass

import numpy as np

from learnmech.dynamics.agf.predictions import Prediction

_SMALL_LOSS = 0.01
_SMALL_NORM = 0.1
_SLOW_STEP = 0.1
_APART = 3.0
_CORRELATED = 0.3
_UNBALANCED = 1e-2
_SMALL_MEAN = 0.05


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


def small_start(loss: float, zero_loss: float, largest: float) -> Assumption:
    """Judge the start by how much of the loss it has changed.

    Args:
        loss: of the model as it is.
        zero_loss: of a model without neurons.
        largest: norm of a neuron.

    Returns:
        The assumption.
    """
    change = abs(loss / zero_loss - 1) if zero_loss > 0 else math.inf
    return Assumption(
        "small start",
        change < _SMALL_LOSS and largest < _SMALL_NORM,
        f"the loss differs by {change:.2g} of that without neurons, and the largest neuron has norm {largest:.2g}",
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


def near_commuting(case: str, off: float) -> Assumption:
    """Judge whether modes of a linear network grow independently.

    Args:
        case: of the instance: whitened, commuting or general.
        off: largest correlation between the inputs along two modes.

    Returns:
        The assumption.
    """
    return Assumption(
        "modes grow by themselves",
        case != "general" or off < _CORRELATED,
        f"inputs along two modes correlate by at most {off:.2g}",
        "growing modes mix, so times are approximate and levels a conjecture; whiten the inputs",
    )


def population(off: float, most: float) -> Assumption:
    """Judge whether contexts are those of the theory, with independent normal inputs and weights.

    Args:
        off: relative distance between the measured moment E y x z and that of the theory.
        most: largest for which they are.

    Returns:
        The assumption.
    """
    return Assumption(
        "contexts of independent normal inputs and weights",
        off < most,
        f"the first moment is off by {off:.2g}",
        "the samples themselves were used, which is slower",
    )


def biases(inner: bool, mean: float | None) -> Assumption:
    """Say what becomes of biases.

    Args:
        inner: whether neurons have biases.
        mean: what biases of outputs have to learn before anything else, relative to the spread of targets; None if there are none.

    Returns:
        The assumption.
    """
    if not inner and mean is None:
        return Assumption("no biases", True, "there are none", "")
    parts = ["those of neurons are taken as weights of a constant input"] if inner else []
    if mean is not None:
        parts.append(
            f"those of outputs are taken to have learned the mean first, which is off by {mean:.2g} of the spread of targets"
        )
    return Assumption(
        "no biases",
        mean is None or mean < _SMALL_MEAN,
        "; ".join(parts),
        "neurons grow while they learn it, so jumps come earlier; use bias=False, or centre the targets",
    )


def balanced(charge: float) -> Assumption:
    """Judge whether the factors of every neuron are of one size.

    Args:
        charge: largest difference of squared norms between the factors of a neuron, which gradient flow keeps.

    Returns:
        The assumption.
    """
    return Assumption(
        "balanced start",
        charge < _UNBALANCED,
        f"squared norms of the factors of a neuron differ by at most {charge:.2g}",
        "neurons keep that difference, and learn in other shapes than balanced ones",
    )


def gradient_descent(optimizer: str, exact: bool | None) -> Assumption:
    """Judge the optimizer.

    Args:
        optimizer: in words.
        exact: whether its steps are those of a gradient flow up to their size; None if not known.

    Returns:
        The assumption.
    """
    return Assumption(
        "plain gradient descent", exact, optimizer, "times, and for other optimizers order and levels too, may differ"
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
