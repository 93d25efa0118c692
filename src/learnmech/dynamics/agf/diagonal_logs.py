"""The exact gradient flow of diagonal networks in logarithms, down to starts that float64 cannot hold."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.integrate import LSODA

from learnmech import history
from learnmech.dynamics.agf.diagonal_data import Regression, diagonal_data
from learnmech.dynamics.agf.flows import SOURCE, choose_records
from learnmech.errors import InputError, LearnmechError

_INSIDE = 3
_MOST_STEPS = 200_000
_AT_REST = 1e-20
_LARGEST = 300.0


@dataclass(frozen=True)
class Logs:
    r"""A flow of :math:`\beta_i = e^{2G_i + a_i} - e^{-2G_i + b_i}`.

    Attributes:
        times: increasing.
        losses: at each.
        speeds: minus the derivative of the loss.
        integrals: G, minus the gradient integrated over time (time, dim).
        beta: coefficients (time, dim).
    """

    times: Float[np.ndarray, " time"]
    losses: Float[np.ndarray, " time"]
    speeds: Float[np.ndarray, " time"]
    integrals: Float[np.ndarray, "time dim"]
    beta: Float[np.ndarray, "time dim"]


def follow_logs(
    data: Regression,
    up: Float[np.ndarray, " dim"],
    down: Float[np.ndarray, " dim"],
    end: float | None,
    stop: float,
    tolerance: float,
    records: int,
) -> Logs:
    r"""Integrate :math:`G' = -g(\beta)` exactly.

    For any start, :math:`u + v = (u_0 + v_0)e^G` and :math:`u - v = (u_0 - v_0)e^{-G}` with :math:`G' = -\nabla_\beta L`, so that
    :math:`\beta = \tfrac14((u_0+v_0)^2e^{2G} - (u_0-v_0)^2e^{-2G})`. G never leaves the space that the inputs span, whose
    coordinates are integrated, with the exact Jacobian.

    Args:
        data: the regression.
        up: :math:`a = \log\tfrac14(u_0+v_0)^2`, minus infinity for 0.
        down: :math:`b = \log\tfrac14(u_0-v_0)^2`.
        end: time; without, when the loss above the floor is ``stop`` times that of the start, or nothing grows any more.
        stop: see ``end``.
        tolerance: relative, of the integrator.
        records: at most so many times are kept.

    Returns:
        The flow.

    Raises:
        LearnmechError: if the integrator fails.
    """

    def parts(state: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        integrals = state @ data.basis
        return (
            integrals,
            np.exp(np.minimum(2 * integrals + up, _LARGEST)),
            np.exp(np.minimum(down - 2 * integrals, _LARGEST)),
        )

    def slope(_: float, state: np.ndarray) -> np.ndarray:
        plus, minus = parts(state)[1:]
        return np.asarray(data.strengths * (data.target - data.matrix @ (plus - minus)))

    def jacobian(_: float, state: np.ndarray) -> np.ndarray:
        plus, minus = parts(state)[1:]
        return np.asarray(-(data.strengths[:, None] * data.matrix * (2 * (plus + minus))) @ data.basis.T)

    def look(state: np.ndarray) -> tuple[float, float, np.ndarray]:
        plus, minus = parts(state)[1:]
        beta = plus - minus
        drive = data.drive(beta)
        return data.loss(beta) - data.floor, float(2 * np.square(drive) @ (plus + minus)), drive

    start = np.zeros(len(data.strengths))
    first, speed, _ = look(start)
    times, states, values, speeds = [0.0], [start], [first], [speed]
    fastest = speed
    if not len(start) or (end is None and first <= 0):
        times, states, values, speeds = [0.0, end or 1.0], [start] * 2, [first] * 2, [speed] * 2
    else:
        solver = LSODA(
            slope, 0.0, start, math.inf if end is None else end, rtol=tolerance, atol=tolerance, jac=jacobian
        )
        for _ in range(_MOST_STEPS):
            solver.step()
            if solver.status == "failed":
                raise LearnmechError(f"the integrator failed at time {solver.t:.3g}; take a larger tolerance.")
            state = solver.y.copy()
            now, speed, drive = look(state)
            if not math.isfinite(now):
                raise LearnmechError(f"the loss is not finite at time {solver.t:.3g}; take a smaller tolerance.")
            if abs(now - values[-1]) > 1e-6 * first:
                interpolate = solver.dense_output()
                for moment in np.linspace(times[-1], solver.t, _INSIDE + 2)[1:-1]:
                    inner = np.asarray(interpolate(moment))
                    inside, pace, _ = look(inner)
                    times.append(float(moment))
                    states.append(inner)
                    values.append(inside)
                    speeds.append(pace)
            times.append(float(solver.t))
            states.append(state)
            values.append(now)
            speeds.append(speed)
            fastest = max(fastest, speed)
            grows = (np.abs(drive) > data.noise) & np.isfinite(np.where(drive > 0, up, down))
            rests = now <= stop * first or (not grows.any() and speed <= _AT_REST * fastest)
            if solver.status == "finished" or (end is None and rests):
                break
        else:
            raise LearnmechError(
                f"the integrator took {_MOST_STEPS} steps to time {solver.t:.3g}; give an earlier end."
            )
    moments, levels = np.array(times), np.array(values)
    keep = choose_records(moments, levels, records)
    kept = [parts(states[index]) for index in keep]
    return Logs(
        moments[keep],
        levels[keep] + data.floor,
        np.array(speeds)[keep],
        np.stack([part[0] for part in kept]),
        np.stack([part[1] - part[2] for part in kept]),
    )


def diagonal_flow(
    X: Any,
    y: Any,
    log_scale: float,
    *,
    end: float | None = None,
    stop: float = 1e-10,
    tolerance: float = 1e-10,
    records: int = 2000,
) -> xr.Dataset:
    r"""Integrate the gradient flow of a diagonal linear network exactly, from any small start.

    From :math:`u = \sqrt2\,\alpha, v = 0` the flow of :math:`\tfrac{1}{2n}|X(u\circ v) - y|^2` is, at all times,

    .. math::
        G' = -\nabla_\beta L(\beta), \qquad \beta = \alpha^2\sinh 2G,

    integrated with :math:`\beta = \tfrac12(e^{2G + 2\log\alpha} - e^{-2G + 2\log\alpha})`: the scale comes as its logarithm, and
    1e-100 or less is as good as 0.1. Source: the form with sinh is that of Woodworth et al. 2020 (arXiv 2002.09277).

    How to read it: hold it against :func:`~learnmech.dynamics.agf.diagonal` with :func:`~learnmech.dynamics.agf.compare`.
    ``accumulated`` is :math:`G/(-\log\alpha)`: it tends to 1 or -1 for active coordinates as the scale vanishes.

    Args:
        X: inputs (n, dim).
        y: targets (n,).
        log_scale: :math:`\log\alpha`, negative.
        end: time at which to end; without, when the loss above the least possible is ``stop`` times that of the start, or nothing grows.
        stop: see ``end``; from 0 to 1.
        tolerance: of the integrator, relative to coefficients.
        records: at most so many times are kept, more where the loss moves.

    Returns:
        A history over ``time`` and ``coordinate``: ``loss``, ``speed``, ``beta``, ``accumulated``.

    Raises:
        InputError: for wrong arguments.
        LearnmechError: if the integrator fails.

    Example:
        One coordinate with :math:`L = \tfrac12(\beta - 1)^2`: it is half learned at the time
        :math:`-\log\alpha + \tfrac12\log 2`.

        >>> run = diagonal_flow([[1.0]], [1.0], -50.0, end=70.0)
        >>> float(np.interp(0.5, run["beta"][:, 0], run["time"]).round(2)), float(run["loss"][-1].round(9))
        (50.35, 0.0)
    """
    data = diagonal_data(X, y)
    if isinstance(log_scale, bool) or not isinstance(log_scale, int | float | np.number) or not -1e12 < log_scale < 0:
        raise InputError(f"log_scale must be a negative number, the log of a scale below 1, got {log_scale!r}.")
    if end is not None and not (math.isfinite(end) and end > 0):
        raise InputError(f"end must be a positive time, got {end!r}.")
    if not 0 <= stop < 1:
        raise InputError(f"stop must lie between 0 and 1, a share of the loss at the start, got {stop!r}.")
    if not 1e-13 <= tolerance <= 1e-2:
        raise InputError(f"tolerance must lie between 1e-13 and 0.01, got {tolerance!r}.")
    if not isinstance(records, int) or isinstance(records, bool) or records < 20:
        raise InputError(f"records must be an integer of at least 20, got {records!r}.")
    size = np.full(data.dim, 2.0 * float(log_scale) - math.log(2))
    run = follow_logs(data, size, size, end, stop, tolerance, records)
    along = ("time", "coordinate")
    return history.build(
        {
            "loss": (("time",), run.losses, {"long_name": "loss", "units": "1", "source": SOURCE}),
            "speed": (
                ("time",),
                run.speeds,
                {"long_name": "minus the derivative of the loss", "units": "1 / time", "source": SOURCE},
            ),
            "beta": (along, run.beta, {"long_name": "coefficients u v", "units": "1", "source": SOURCE}),
            "accumulated": (
                along,
                run.integrals / -log_scale,
                {"long_name": "integrated minus gradient over minus log scale", "units": "1", "source": SOURCE},
            ),
        },
        {"time": run.times, "coordinate": np.arange(data.dim)},
        config={
            "model": "diagonal linear network",
            "log_scale": float(log_scale),
            "end": end,
            "stop": stop,
            "tolerance": tolerance,
            "records": records,
        },
        attributes={"model": "diagonal linear network"},
    )
