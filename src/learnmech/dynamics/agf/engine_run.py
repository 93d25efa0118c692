"""Alternating gradient flow of any sum of homogeneous neurons: utility maximisation and cost minimisation by turns."""

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from learnmech import history
from learnmech.bars import terminal_bar
from learnmech.dynamics.agf.engine_active import restored, settle
from learnmech.dynamics.agf.engine_dormant import growth_scale, log_norms, thresholds, wait
from learnmech.dynamics.agf.predictions import FLOW_TIME, HALF_MEAN
from learnmech.dynamics.agf.problems import SOURCE, Problem, require_neurons
from learnmech.errors import InputError, LearnmechWarning
from learnmech.training.interrupt import InterruptFlag

_NOTHING_LEFT = 1e-9
_PATIENCE = 1e4


def run(
    problem: Problem,
    init: Any,
    *,
    loss_tolerance: float = 1e-10,
    longest: float | None = None,
    most_stages: int | None = None,
    tolerance: float = 1e-9,
) -> xr.Dataset:
    r"""Alternate between dormant neurons that maximise their utility and active neurons that minimise the loss.

    While the residual r is frozen, a dormant neuron of direction d follows

    .. math::
        \dot d = |\theta|^{\kappa-2} P_\perp\nabla U(d), \qquad
        \frac{d}{dt}\log|\theta| = \kappa\,|\theta|^{\kappa-2} U(d), \qquad U(\theta) = \langle\phi(\theta), r\rangle ,

    until the first has norm 1, which is when its accumulated utility :math:`S = \int\kappa\,U(d)\,dt` is
    :math:`-\log|\theta_0|`, or :math:`(|\theta_0|^{2-\kappa}-1)/(\kappa-2)` for :math:`\kappa > 2`. It becomes active; the active
    neurons then follow the gradient flow of the loss to a critical point, in no time; and so on.

    Source: Kunin et al. 2025 (arXiv 2506.06489). Derived here: what happens to a neuron that vanishes. It is dormant again with norm
    **one** in the accounting, since a log-norm of order 1 is nothing beside that of the start, so S stays at its threshold,
    and with the direction that the charges of gradient flow (``problem.blocks``) give it. With this a diagonal
    network follows the exact path of Pesme and Flammarion: a coordinate that comes back with the other sign has twice the way.

    How to read it: ``loss`` after stage k is the level of plateau k, and ``moment`` the time of the jump to it.
    :func:`~learnmech.dynamics.agf.read_run` makes a prediction of it. It is the limit of a small start: at a finite one, times are
    off by O(1) (:math:`\kappa = 2`, relative :math:`1/|\log|\theta_0||`), or by the part :math:`|\theta_0|`
    (:math:`\kappa = 3`).

    Neurons that reach norm 1 within a billionth of their way wake together. A neuron that is exactly 0 sleeps for ever; one that starts
    with norm 1 or more is active from time 0, as it is. A part of a direction below 1e-16 is rounding: where a
    later jump grows from such a part (very small starts with unequal modes), its time is not that of the exact flow; the instances'
    own routes have no such limit. If the active neurons end at a saddle that they leave slowly by themselves, the engine, like the
    theory, counts it as a plateau and stays.

    Args:
        problem: the model and its target.
        init: neurons at the start (neurons, size).
        loss_tolerance: ends when the loss above the floor is this share of the loss without neurons.
        longest: ends at this time; without, at 10,000 times the largest threshold over the steepest slope of the utility.
        most_stages: ends after so many; without, after 10 times as many as there are neurons.
        tolerance: a stage has converged if the gradient is this share of that at its start.

    Returns:
        A history over ``stage`` 0 (no neuron active), 1, ...: ``moment``, ``loss``, ``converged``; over ``neuron`` too ``active``
        and ``accumulated`` utility S; over ``parameter`` too ``neurons``, which are those of dormant neurons at their true
        small size. Attribute ``ended``: ``"loss"`` (below tolerance), ``"all active"``, ``"at rest"`` (no dormant neuron can
        grow), ``"longest"``, ``"most stages"``, ``"too many steps"``, ``"interrupted"`` (a first Ctrl-C; the stages so far are
        there). Attribute ``labels``: what the newly active neurons of each stage have learned, by
        their parameters on the plateau. A stage that does not converge warns.

    Raises:
        InputError: for wrong arguments, or neurons that are all 0.
        LearnmechError: if the integrator fails.

    Example:
        Two neurons a w that learn the number 1 from the start 1e-3: at log(1000) / 1, both together.

        >>> class Product(Problem):
        ...     degree, size, target = 2, 2, np.ones(1)
        ...     def features(self, neurons):
        ...         return neurons[:, :1] * neurons[:, 1:]
        ...     def pull(self, neurons, residual):
        ...         return neurons[:, ::-1] * residual
        >>> stages = run(Product(), 1e-3 * np.ones((2, 2)) / np.sqrt(2))
        >>> stages["moment"].values.round(6).tolist(), stages["loss"].values.round(9).tolist(), stages.attrs["ended"]
        ([0.0, 6.907755], [0.5, 0.0], 'loss')
    """
    neurons = require_neurons(problem, init)
    _require(loss_tolerance, longest, most_stages, tolerance)
    limit = most_stages if most_stages is not None else 10 * len(neurons)
    state = _State(problem, neurons, tolerance)
    first = problem.loss(neurons[:0]) - problem.floor
    with InterruptFlag() as interrupt, terminal_bar("alternating gradient flow", limit, least=3) as advance:
        state.stopped = lambda: interrupt.requested
        state.record([], True)
        if longest is None:
            longest = state.patience()
        state.active = state.logs >= 0
        if state.active.any():
            state.minimise(np.flatnonzero(state.active))
        ended = ""
        while not ended:
            if interrupt.requested:
                ended = "interrupted"
            elif state.stages[-1]["loss"] - problem.floor <= loss_tolerance * first:
                ended = "loss"
            elif state.active.all():
                ended = "all active"
            elif len(state.stages) > limit:
                ended = "most stages"
            else:
                ended = state.next_stage(longest)
                advance(1)
    failed = sum(not stage["converged"] for stage in state.stages)
    if failed and ended != "interrupted":
        warnings.warn(
            f"cost minimisation did not come to rest in {failed} of {len(state.stages) - 1} stages, whose levels are no "
            "plateaus (see converged); take a larger tolerance, or more neurons if the best loss needs infinite weights.",
            LearnmechWarning,
            stacklevel=2,
        )
    return _history(
        state,
        ended,
        {"loss_tolerance": loss_tolerance, "longest": longest, "most_stages": most_stages, "tolerance": tolerance},
    )


@dataclass
class _State:
    problem: Problem
    neurons: Float[np.ndarray, "neurons size"]
    tolerance: float
    moment: float = 0.0
    stages: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = len(self.neurons)
        self.first_logs = log_norms(self.neurons)
        self.logs = self.first_logs.copy()
        self.active: Bool[np.ndarray, " neurons"] = np.zeros(count, dtype=bool)
        self.directions = np.zeros_like(self.neurons)
        some = np.isfinite(self.logs)
        largest = np.abs(self.neurons[some]).max(axis=1, keepdims=True)
        scaled = self.neurons[some] / largest
        self.directions[some] = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
        self.at_activation = self.neurons.copy()
        self.vanished_at = np.full(count, -1.0)
        self.first_scale = growth_scale(self.problem, self.problem.target, self.directions[some])
        self.stopped: Any = lambda: False

    def patience(self) -> float:
        """The longest time: far beyond what the largest threshold needs at the steepest slope."""
        ways = thresholds(self.first_logs[np.isfinite(self.first_logs)], self.problem.degree)
        return _PATIENCE * (1 + float(ways.max())) / self.first_scale if self.first_scale > 0 else 1.0

    def next_stage(self, longest: float) -> str:
        """Wait for the next neuron, and let the active ones settle; the reason if there is none."""
        residual = self.problem.residual(self.neurons[self.active])
        able = np.flatnonzero(~self.active & np.isfinite(self.logs))
        if (
            not len(able)
            or growth_scale(self.problem, residual, self.directions[able]) <= _NOTHING_LEFT * self.first_scale
        ):
            return "at rest"
        found = wait(self.problem, residual, self.directions[able], self.logs[able], self.moment, longest, self.stopped)
        self.moment = found.moment
        self.directions[able], self.logs[able] = found.directions, found.logs
        if found.ended:
            return found.ended
        new = able[found.awake]
        self.neurons[new] = self.at_activation[new] = self.directions[new]
        self.logs[new], self.active[new] = 0.0, True
        self.minimise(new)
        return ""

    def minimise(self, new: np.ndarray) -> None:
        """Let the active neurons settle, put to sleep those that vanish, and record the stage."""
        active = np.flatnonzero(self.active)
        settled = settle(
            self.problem,
            self.neurons[active],
            may_vanish=self.vanished_at[active] != self.moment,
            reference=self.first_scale,
            tolerance=self.tolerance,
            stopped=self.stopped,
        )
        self.neurons[active] = settled.neurons
        for neuron in active[settled.vanished]:
            self.directions[neuron] = restored(self.problem, self.neurons[neuron], self.at_activation[neuron])
            self.neurons[neuron] = self.directions[neuron]
            self.logs[neuron], self.active[neuron], self.vanished_at[neuron] = 0.0, False, self.moment
        if not settled.interrupted:
            labels = [_plain(self.problem.label(self.neurons[neuron]), neuron) for neuron in new]
            self.record(labels, settled.converged)

    def record(self, labels: list[Any], converged: bool) -> None:
        """Add a stage."""
        degree = self.problem.degree
        with np.errstate(over="ignore", invalid="ignore"):
            way = thresholds(self.first_logs, degree) - thresholds(self.logs, degree)
            dormant = np.exp(self.logs)[:, None] * self.directions
        self.stages.append(
            {
                "moment": self.moment,
                "loss": self.problem.loss(self.neurons[self.active]),
                "active": self.active.copy(),
                "neurons": np.where(self.active[:, None], self.neurons, dormant),
                "accumulated": np.where(np.isfinite(self.first_logs), way, 0.0),
                "converged": converged,
                "labels": labels,
            }
        )


def _plain(label: Any, neuron: Any) -> Any:
    """A label that JSON can hold; the neuron's index if the problem has none."""
    if label is None:
        return int(neuron)
    if isinstance(label, np.generic):
        return label.item()
    return label if isinstance(label, bool | int | float | str) else str(label)


def _require(loss_tolerance: float, longest: float | None, most_stages: int | None, tolerance: float) -> None:
    if not 0 <= loss_tolerance < 1:
        raise InputError(f"loss_tolerance must lie between 0 and 1, a share of the first loss, got {loss_tolerance!r}.")
    if longest is not None and not (math.isfinite(longest) and longest > 0):
        raise InputError(f"longest must be a positive time, got {longest!r}.")
    if most_stages is not None and (
        not isinstance(most_stages, int) or isinstance(most_stages, bool) or most_stages < 1
    ):
        raise InputError(f"most_stages must be a positive integer, got {most_stages!r}.")
    if not 0 <= tolerance <= 1e-2:
        raise InputError(f"tolerance must lie between 0 and 0.01, a share of the gradient, got {tolerance!r}.")


def _history(state: _State, ended: str, config: dict[str, Any]) -> xr.Dataset:
    titles = {
        "moment": ("time of the jump to this plateau", FLOW_TIME, ("stage",)),
        "loss": (f"level of the plateau, {HALF_MEAN}", "1", ("stage",)),
        "active": ("whether a neuron is active", "1", ("stage", "neuron")),
        "neurons": ("parameters of each neuron", "1", ("stage", "neuron", "parameter")),
        "accumulated": ("accumulated utility S", "1", ("stage", "neuron")),
        "converged": ("whether cost minimisation came to rest", "1", ("stage",)),
    }
    count, size = state.neurons.shape
    return history.build(
        {
            name: (
                dimensions,
                np.array([stage[name] for stage in state.stages]),
                {"long_name": title, "units": units, "source": SOURCE},
            )
            for name, (title, units, dimensions) in titles.items()
        },
        {"stage": np.arange(len(state.stages)), "neuron": np.arange(count), "parameter": np.arange(size)},
        config={**state.problem.config(), **config},
        attributes={
            "model": state.problem.name,
            "ended": ended,
            "labels": [stage["labels"] for stage in state.stages],
        },
    )
