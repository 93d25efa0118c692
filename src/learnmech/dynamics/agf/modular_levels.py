"""Modular addition: the staircase of frequencies, from the spectrum of the template alone or from a given start."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.agf.modular_path import Stage, alternate
from learnmech.dynamics.agf.modular_problem import ModularProblem
from learnmech.dynamics.agf.modular_utility import Spectrum, spectrum
from learnmech.dynamics.agf.predictions import FLOW_TIME, Prediction
from learnmech.dynamics.agf.problems import require_neurons
from learnmech.errors import InputError

SUMMED = "half the mean squared error, summed over the p outputs"
_TIE = 1e-9


@dataclass(frozen=True, kw_only=True)
class ModularPrediction(Prediction):
    """The staircase of modular addition.

    Attributes:
        utilities: of each frequency, in the order of ``order``: the largest mean over pairs of a neuron of unit norm.
        amplitudes: of the Fourier transform of the template, in that order.
        stages: the single activations from which the times were read; empty without a start.
    """

    utilities: Float[np.ndarray, " jumps"]
    amplitudes: Float[np.ndarray, " jumps"]
    stages: tuple[Stage, ...] = ()


def modular_addition(
    template: Any, *, scale: float | None = None, init: Any = None, end: float | None = None
) -> ModularPrediction:
    r"""Predict in which order, when and down to which loss a quadratic network learns the frequencies of a template.

    .. math::
        U_k^* = \sqrt{\tfrac{2p}{27}}\,\frac{|\hat x_k|^3}{p^2}, \qquad
        L_F = \frac1p \sum_{k \notin F} |\hat x_k|^2, \qquad
        \tau_k \ge \frac{1/n_0 - 1}{3\,U_k^*},

    with F the set learned so far, the sum over k from 1 to (p - 1)/2, and :math:`n_0` the largest norm of a neuron at the start. At
    the Nyquist frequency of an even p the utility is :math:`\sqrt2` times and the part of the loss half as large. Frequencies are
    learned by utility, the largest first. Times:

    - with ``init``, the alternation is run for that start: single neurons activate, the active ones relax, and a jump is when the loss crosses
      the mean of two levels. These are the times to hold against a gradient flow.
    - with ``scale``, the bound above for :math:`n_0` = scale.
    - with neither, its limit in units of :math:`1/n_0`.

    Source: Kunin et al. 2025 (arXiv 2506.06489), modular addition. The Nyquist frequency, ties, and times for a given start are derived here.

    How to read it: L is half the squared distance summed over outputs, so ``torch.nn.MSELoss`` is 2/p times the levels. A level is reached only if
    six neurons (two for the Nyquist frequency) can go to each frequency. From starts of scale 1e-2
    the first time was within 3 % of gradient flow in all of 30 runs (18 or 36 neurons). The second was within 10 % in 9 of 10 for a template without resonance, off
    by 19 % in the other, where the middle of the step lies next to one neuron's activation; and beyond 10 % in about half of the runs where
    a frequency is three times one learned before, whose neurons help it along while they relax.

    Not valid for the one-hot template: all utilities tie, and there is no staircase.

    Args:
        template: x (p,), p at least 3; its mean is removed.
        scale: largest norm :math:`n_0` of a neuron at the start, below 1.
        init: neurons at the start (neurons, 3 p), rows (u, v, w), all of norm below 1.
        end: only with init: time at which to give up; ten times the slowest bound if not given.

    Returns:
        A prediction with ``utilities``. Frequencies that tie to 1e-9 come by number, without a start at one time. With a start, ``order`` is that of the
        times, and what is not learned until ``end`` is left out, with a note.

    Raises:
        InputError: for a bad template, a scale out of range, or both scale and init.

    Example:
        >>> from learnmech.dynamics.agf.modular_utility import fourier_template
        >>> staircase = modular_addition(fourier_template(20, {1: 10.0, 3: 5.0, 5: 2.5}), scale=0.0159)
        >>> staircase.order, staircase.levels.round(9).tolist(), staircase.times.round(1).tolist()
        ((1, 3, 5), [6.5625, 1.5625, 0.3125, 0.0], [6.8, 54.2, 433.9])
    """
    parts = spectrum(template)
    if scale is not None and init is not None:
        raise InputError("give either scale or init, not both: init has norms of its own.")
    if scale is not None and not (math.isfinite(scale) and 0 < scale < 1):
        raise InputError(f"scale must lie above 0 and below 1, the largest norm of a neuron, got {scale!r}.")
    if end is not None and init is None:
        raise InputError("end is only for a given start; give init too, or leave end out.")
    utilities = parts.couplings / (3 * math.sqrt(3))
    order = _by_utility(utilities, parts.frequencies)
    notes = _notes(parts, utilities, order)
    if init is None:
        bound = 1.0 if scale is None else 1 / scale - 1
        notes.append("The times are lower bounds, those of a neuron that points the best way from the start.")
        unit = "1 / largest norm of a neuron at the start" if scale is None else FLOW_TIME
        times = np.maximum.accumulate(bound / (3 * utilities[order]))
        return _prediction(parts, utilities, order, times, unit, notes)
    problem = ModularProblem(parts.template)
    neurons = require_neurons(problem, init)
    norms = np.linalg.norm(neurons, axis=1)
    if norms.max() >= 1:
        raise InputError(
            f"init must be small, all norms below 1, got {norms.max():.3g}: dormant neurons are what is predicted."
        )
    if end is not None and not (math.isfinite(end) and end > 0):
        raise InputError(f"end must be a positive time, got {end!r}.")
    last = end or 10 * (1 / norms.max() - 1) / (3 * utilities.min())
    return _from_start(problem, parts, utilities, order, neurons, last, notes)


def _from_start(
    problem: ModularProblem,
    parts: Spectrum,
    utilities: np.ndarray,
    order: np.ndarray,
    neurons: np.ndarray,
    end: float,
    notes: list[str],
) -> ModularPrediction:
    """Read off the alternation when each frequency is half learned, and the levels in between."""
    needed = int(np.where(2 * parts.frequencies == parts.length, 2, 6).sum())
    if len(neurons) < needed:
        notes.append(
            f"There are {len(neurons)} neurons, fewer than the {needed} that learn all frequencies without error: the loss may stay above the levels."
        )
    stages = alternate(problem, neurons, end, parts.shares)
    half = np.full(len(order), math.inf)
    for stage in stages:
        half = np.where(np.isinf(half) & (np.array(stage.shares) >= 0.5), stage.moment, half)
    got, first = list[int](), np.full(len(order), math.inf)
    left = float(parts.shares.sum())
    for index in sorted((each for each in order if math.isfinite(half[each])), key=lambda each: half[each]):
        middle = left - parts.shares[index] / 2
        first[index] = min((stage.moment for stage in stages if stage.loss < middle), default=math.inf)
        if math.isinf(first[index]):
            break
        got.append(int(index))
        left -= parts.shares[index]
    missing = [int(parts.frequencies[index]) for index in order if index not in got]
    if missing:
        notes.append(
            f"Not learned until time {end:.6g}, or by the neurons there are: frequencies {', '.join(map(str, missing))}."
        )
    if got != [index for index in order if index in got]:
        notes.append("From this start the frequencies are not learned in the order of their utilities.")
    return _prediction(
        parts, utilities, np.array(got, dtype=int), first[np.array(got, dtype=int)], FLOW_TIME, notes, tuple(stages)
    )


def _prediction(
    parts: Spectrum,
    utilities: np.ndarray,
    order: np.ndarray,
    times: np.ndarray,
    unit: str,
    notes: list[str],
    stages: tuple[Stage, ...] = (),
) -> ModularPrediction:
    rest = [index for index in range(len(parts.shares)) if index not in order]
    falling = np.concatenate([parts.shares[order], [parts.shares[rest].sum()]])
    return ModularPrediction(
        times=np.asarray(times, dtype=np.float64),
        levels=np.cumsum(falling[::-1])[::-1],
        order=tuple(int(parts.frequencies[index]) for index in order),
        time_unit=unit,
        loss_unit=SUMMED,
        model="modular addition",
        notes=tuple(notes),
        utilities=utilities[order],
        amplitudes=np.abs(parts.coefficients)[order],
        stages=stages,
    )


def _by_utility(utilities: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Indices by falling utility; those that tie with the largest left come by number."""
    left, order = list(range(len(utilities))), []
    while left:
        top = max(utilities[index] for index in left)
        tied = sorted(
            (index for index in left if utilities[index] >= top * (1 - _TIE)), key=lambda index: frequencies[index]
        )
        order += tied
        left = [index for index in left if index not in tied]
    return np.array(order, dtype=int)


def _notes(parts: Spectrum, utilities: np.ndarray, order: np.ndarray) -> list[str]:
    notes, length, falling = [], parts.length, utilities[order]
    if abs(parts.mean) > 1e-12 * np.abs(parts.template).max():
        notes.append(f"The mean of the template, {parts.mean:.6g}, was removed.")
    ratios = falling[1:] / falling[:-1]
    ties = int((ratios >= 1 - _TIE).sum())
    if ties and ties == len(ratios) and parts.length // 2 == len(falling):
        notes.append(
            "All frequencies tie, as for a one-hot template: they are learned together, and there is no staircase."
        )
    elif ties:
        notes.append("Some frequencies tie: they are learned together, and which comes first is up to the start.")
    elif len(ratios) and ratios.max() > 0.5:
        notes.append("Some utilities lie within a factor of 2: for a few neurons the start may change the order.")
    learned = parts.frequencies[order].tolist()
    for place, frequency in enumerate(learned):
        triple = min(3 * frequency % length, -3 * frequency % length)
        if triple in learned[place + 1 :] and not ties:
            notes.append(
                f"Frequency {triple} is three times frequency {frequency}, whose neurons, while they relax, help it along: "
                "its time is rough."
            )
    return notes
