"""Gradient flow of a whole network, the ground truth beside a prediction."""

import math
from typing import Any, cast

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.integrate import DOP853, LSODA, RK23

from learnmech import history
from learnmech.dynamics.agf.problems import Problem, require_neurons
from learnmech.errors import InputError, LearnmechError

SOURCE = "integrated gradient flow"
_LARGE = 300
_INSIDE = 3
_MOST_STEPS = 200_000
_AT_REST = 1e-8


def gradient_flow(
    problem: Problem,
    init: Any,
    *,
    end: float | None = None,
    stop: float = 1e-10,
    tolerance: float | None = None,
    records: int = 2000,
) -> xr.Dataset:
    r"""Integrate :math:`\theta_i' = -\nabla_{\theta_i} L` with error control.

    LSODA, which turns implicit where the flow is stiff, for up to 300 unknowns; an explicit method of order 8 beyond; an
    explicit one of order 3 where the gradient has kinks, since a stiff solver chatters there. The absolute tolerance of a
    neuron is the relative one times its own norm at the start, so that vanishing starts stay exact. An instance with a better
    way (:class:`~learnmech.dynamics.agf.DiagonalProblem`, in log variables) takes it.

    Give ``end`` for starts below about 1e-8, and for neurons that slide on a kink: at a saddle where every neuron grows by less than 1e-8 of
    the fastest rate so far, the flow counts as ended, and one that never rests so ends with an error.

    How to read it: the times are those of the solver, and three between each two if the loss moves there. ``speed`` is
    :math:`-L' = |\nabla L|^2`; with it, :func:`~learnmech.dynamics.agf.compare` finds a jump's time far more accurately than
    the points lie apart.

    Args:
        problem: the model and its target.
        init: neurons at the start (neurons, size).
        end: time at which to end; without, when the loss above the floor is ``stop`` times that of the start, or every neuron has
            stopped growing.
        stop: see ``end``; from 0 to 1.
        tolerance: relative; 1e-10 if not given, 1e-7 where the gradient has kinks.
        records: at most so many times are kept, more where the loss moves.

    Returns:
        A history over ``time``, ``neuron`` and ``parameter``: ``loss``, ``speed``, ``neurons``.

    Raises:
        InputError: for wrong arguments, or neurons that are all 0.
        LearnmechError: if the integrator fails.
    """
    neurons = require_neurons(problem, init)
    if end is not None and not (math.isfinite(end) and end > 0):
        raise InputError(f"end must be a positive time, got {end!r}.")
    if not 0 <= stop < 1:
        raise InputError(f"stop must lie between 0 and 1, a share of the loss at the start, got {stop!r}.")
    if tolerance is not None and not 1e-13 <= tolerance <= 1e-2:
        raise InputError(f"tolerance must lie between 1e-13 and 0.01, got {tolerance!r}.")
    if not isinstance(records, int) or isinstance(records, bool) or records < 20:
        raise InputError(f"records must be an integer of at least 20, got {records!r}.")
    tolerance = tolerance or (1e-10 if problem.smooth else 1e-7)
    own = getattr(problem, "flow", None)
    if own is not None:
        return cast(xr.Dataset, own(neurons, end, stop, tolerance, records))
    times, states = _integrate(problem, neurons, end, stop, tolerance)
    losses = np.array([problem.loss(state) for state in states])
    speeds = np.array([np.square(problem.gradient(state)).sum() for state in states])
    keep = choose_records(times, losses, records)
    return flow_history(
        problem,
        times[keep],
        losses[keep],
        speeds[keep],
        states[keep],
        {"end": end, "stop": stop, "tolerance": tolerance, "records": records},
    )


def flow_history(
    problem: Problem,
    times: Float[np.ndarray, " time"],
    losses: Float[np.ndarray, " time"],
    speeds: Float[np.ndarray, " time"],
    neurons: Float[np.ndarray, "time neuron parameter"],
    config: dict[str, Any],
) -> xr.Dataset:
    """Put a flow into a history.

    Args:
        problem: the model.
        times: increasing.
        losses: at each.
        speeds: minus the derivative of the loss at each.
        neurons: at each.
        config: how it was made.

    Returns:
        The history.
    """
    return history.build(
        {
            "loss": (("time",), losses, {"long_name": "loss", "units": "1", "source": SOURCE}),
            "speed": (
                ("time",),
                speeds,
                {"long_name": "minus the derivative of the loss", "units": "1 / time", "source": SOURCE},
            ),
            "neurons": (
                ("time", "neuron", "parameter"),
                neurons,
                {"long_name": "parameters of each neuron", "units": "1", "source": SOURCE},
            ),
        },
        {"time": times, "neuron": np.arange(neurons.shape[1]), "parameter": np.arange(neurons.shape[2])},
        config={**problem.config(), **config},
        attributes={"model": problem.name},
    )


def _integrate(
    problem: Problem, neurons: Float[np.ndarray, "neurons size"], end: float | None, stop: float, tolerance: float
) -> tuple[Float[np.ndarray, " time"], Float[np.ndarray, "time neurons size"]]:
    shape = neurons.shape
    norms = np.maximum(np.linalg.norm(neurons, axis=1, keepdims=True), 1e-300)
    absolute = np.broadcast_to(tolerance * norms, shape).ravel()
    method: Any = RK23 if not problem.smooth else LSODA if neurons.size <= _LARGE else DOP853

    def slope(_: float, flat: np.ndarray) -> np.ndarray:
        return -problem.gradient(flat.reshape(shape)).ravel()

    solver = method(slope, 0.0, neurons.ravel(), math.inf if end is None else end, rtol=tolerance, atol=absolute)
    first = problem.loss(neurons) - problem.floor
    times, states, before, fastest = [0.0], [neurons], first, 0.0
    for _ in range(_MOST_STEPS):
        solver.step()
        if solver.status == "failed":
            raise LearnmechError(f"the integrator failed at time {solver.t:.3g}; take a larger tolerance.")
        state = solver.y.reshape(shape)
        now = problem.loss(state) - problem.floor
        if not math.isfinite(now):
            raise LearnmechError(f"the loss is not finite at time {solver.t:.3g}; take a smaller tolerance.")
        if abs(now - before) > 1e-6 * first:
            interpolate = solver.dense_output()
            inside = np.linspace(times[-1], solver.t, _INSIDE + 2)[1:-1]
            times += inside.tolist()
            states += list(interpolate(inside).T.reshape(-1, *shape))
        times.append(float(solver.t))
        states.append(state.copy())
        before = now
        rates = np.abs((state * problem.gradient(state)).sum(axis=1)) / np.maximum(np.square(state).sum(axis=1), 1e-300)
        fastest = max(fastest, float(rates.max()))
        rests = end is None and (now <= stop * first or rates.max() <= _AT_REST * fastest)
        if solver.status == "finished" or rests:
            return np.array(times), np.stack(states)
    raise LearnmechError(f"the integrator took {_MOST_STEPS} steps to time {solver.t:.3g}; give an earlier end.")


def choose_records(times: Float[np.ndarray, " time"], losses: Float[np.ndarray, " time"], records: int) -> np.ndarray:
    """Choose which records to keep: evenly in the mean of the share of steps, of time, and of the way that the loss went.

    Args:
        times: of all records.
        losses: at each.
        records: how many to keep at the most.

    Returns:
        Their indices, the first and the last among them.
    """
    if len(times) <= records:
        return np.arange(len(times))
    steps = np.linspace(0, 1, len(times))
    way = np.concatenate([[0.0], np.abs(np.diff(losses)).cumsum()])
    place = (steps + times / times[-1] + way / max(way[-1], 1e-300)) / (3 if way[-1] > 0 else 2)
    return np.unique(np.searchsorted(place, np.linspace(0, place[-1], records)).clip(max=len(times) - 1))
