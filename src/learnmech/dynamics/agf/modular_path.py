"""Modular addition: the alternation for a given start, with the factorised gradient."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.integrate import DOP853
from scipy.optimize import brentq

from learnmech.bars import terminal_bar
from learnmech.dynamics.agf.modular_problem import ModularProblem
from learnmech.dynamics.agf.modular_spectra import frequency_share
from learnmech.dynamics.agf.modular_stabilised import Stepper

_TOLERANCE = 1e-4
_AT_REST = 1e-3
_LONGEST = 30.0
_LEARNED = 1e-3


@dataclass(frozen=True)
class Stage:
    """One neuron that activates, and the rest that the active ones come to.

    Attributes:
        moment: when it reaches unit norm.
        loss: after the relaxation.
        neuron: its index in the start.
        label: its frequency at that time.
        shares: how much of each frequency of the template is learned afterwards.
    """

    moment: float
    loss: float
    neuron: int
    label: int | None
    shares: tuple[float, ...]


def alternate(
    problem: ModularProblem,
    init: Float[np.ndarray, "neurons size"],
    end: float,
    shares: Float[np.ndarray, " frequencies"],
) -> list[Stage]:
    r"""Alternate between dormant neurons under a frozen residual and active ones that relax in no time.

    Dormant neurons follow :math:`\theta' = \nabla U` until one has unit norm; it joins the active ones, which follow the
    gradient flow of their loss until :math:`|\nabla L|^2\,t \le 10^{-3}L_0` or t = 30. The relaxation has to end by such a rule: with fewer than six neurons a frequency has
    no best weights, and they would grow for ever. Derived here.

    Args:
        problem: the task.
        init: neurons at the start, of norm below 1.
        end: time at which to give up.
        shares: parts of the loss of the frequencies, to know when all are learned.

    Returns:
        Stages in order of time, until the loss is below 1e-3 of its smallest part, no neuron is dormant, or none activates before ``end``.
    """
    dormant, names = init.copy(), np.arange(len(init))
    active = np.zeros((0, problem.size))
    moment, stages = 0.0, list[Stage]()
    enough = _LEARNED * float(shares.min())
    first = float(shares.sum())
    with terminal_bar("alternating flow", len(init), least=3) as advance:
        while len(dormant) and moment < end:
            found = _activate(problem, dormant, active, moment, end)
            if found is None:
                break
            moment, dormant = found
            index = int(np.argmax(np.square(dormant).sum(axis=1)))
            label, name = problem.label(dormant[index]), int(names[index])
            active = _relax(problem, np.vstack([active, dormant[index]]), first)
            dormant, names = np.delete(dormant, index, axis=0), np.delete(names, index)
            loss = problem.loss(active)
            stages.append(Stage(moment, loss, name, label, tuple(frequency_share(active, problem.template).tolist())))
            advance(1)
            if loss <= enough:
                break
    return stages


def _activate(
    problem: ModularProblem, dormant: np.ndarray, active: np.ndarray, moment: float, end: float
) -> tuple[float, np.ndarray] | None:
    """The next time at which a dormant neuron has unit norm, and all of them then; None if there is none."""
    if np.square(dormant).sum(axis=1).max() >= 1:
        return moment, dormant
    shape = dormant.shape
    small = 1e-4 * _TOLERANCE * float(np.abs(dormant).max())

    def slope(_: float, flat: np.ndarray) -> np.ndarray:
        return problem.pull_beside(flat.reshape(shape), active).ravel()

    solver: Any = DOP853(slope, moment, dormant.ravel(), end, rtol=1e-2 * _TOLERANCE, atol=small)
    while solver.status == "running":
        solver.step()
        if solver.status == "failed":
            return None
        if np.square(solver.y.reshape(shape)).sum(axis=1).max() < 1:
            continue
        inside = solver.dense_output()

        def excess(time: float, inside: Any = inside) -> float:
            return float(np.square(inside(time).reshape(shape)).sum(axis=1).max()) - 1

        start = float(solver.t_old)
        when = float(brentq(excess, start, solver.t)) if excess(start) < 0 else start
        return when, inside(when).reshape(shape)
    return None


def _relax(problem: ModularProblem, active: np.ndarray, first: float) -> np.ndarray:
    stepper = Stepper(problem, active, _TOLERANCE)
    while stepper.time < _LONGEST:
        stepper.advance(math.inf)
        if float(np.square(stepper.slope).sum()) * max(stepper.time, 1.0) <= _AT_REST * first:
            break
    return stepper.state
