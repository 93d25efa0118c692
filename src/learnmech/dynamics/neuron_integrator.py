"""The gradient flow of a single linear neuron for any inputs, integrated to high accuracy."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.integrate import solve_ivp

from learnmech.dynamics.neuron_history import neuron_history
from learnmech.dynamics.neuron_kernel import gram_distance
from learnmech.dynamics.neuron_problem import (
    SOURCE,
    make_problem,
    require_data,
    require_positive,
    require_times,
    require_vector,
)
from learnmech.dynamics.neuron_solution import radical
from learnmech.errors import InputError, LearnmechError

Method = Literal["LSODA", "DOP853", "Radau"]


def neuron_flow(
    X: Any,
    y: Any,
    a0: Any,
    w0: Any,
    times: Any,
    *,
    eta_a: float = 1.0,
    eta_w: float = 1.0,
    tolerance: float = 1e-12,
    method: Method = "LSODA",
) -> xr.Dataset:
    r"""Integrate the gradient flow of :math:`f(x) = a\,w\cdot x` for any inputs and targets.

    .. math::
        a' = -\eta_a\, w^TX^T(X\,aw - y), \qquad w' = -\eta_w\, a\,X^T(X\,aw - y),

    the flow of half the *sum* of squared errors. Source: Kunin et al. 2024 (arXiv 2406.06158), the single linear neuron.

    Numbers are right to a few hundred times the tolerance; the drift of ``delta`` in the history shows the error of the integration.
    Near a saddle errors grow exponentially until it is left. For whitened inputs :class:`~learnmech.dynamics.LinearNeuron` is
    exact and faster.

    Args:
        X: inputs (samples, dim), of any rank and shape.
        y: targets (samples,).
        a0: read-out weight at the start.
        w0: input weights at the start, shape (dim,).
        times: strictly increasing, at least 0.
        eta_a: learning rate of a, positive.
        eta_w: learning rate of w, positive.
        tolerance: relative tolerance of the solver, from 1e-13 to 1e-2; the absolute one is a thousandth of it times the largest weight.
        method: of :func:`scipy.integrate.solve_ivp`; ``LSODA`` and ``Radau`` for stiff flows (long times), ``DOP853`` for short ones.

    Returns:
        A history as :meth:`LinearNeuron.at <learnmech.dynamics.LinearNeuron.at>` gives; ``kernel_distance`` is that of
        :math:`K = XMX^T`, ``phi`` the cosine of w and the least-squares solution of least norm.

    Raises:
        InputError: for wrong arguments.
        LearnmechError: if the solver gives up.

    Example:
        >>> run = neuron_flow([[1.0, 0.0], [0.0, 1.0]], [1.0, 0.5], 0.5, [0.3, -0.4], [1.0])
        >>> round(float(run.a[0]), 9), round(float(run.w[0, 1]), 9)
        (0.698150074, -0.048182001)
    """
    inputs, targets = require_data(X, y)
    problem = make_problem(a0, w0, inputs.T @ targets, eta_a, eta_w)
    if inputs.shape[1] != len(problem.w0):
        raise InputError(
            f"w0 must have one entry for each of the {inputs.shape[1]} columns of X, but has {len(problem.w0)}."
        )
    clock = require_times(times)
    gram, correlation = inputs.T @ inputs, inputs.T @ targets

    def slope(_: float, state: Float[np.ndarray, " state"]) -> Float[np.ndarray, " state"]:
        a, w = state[0], state[1:]
        gradient = gram @ (a * w) - correlation
        return np.concatenate([[-problem.eta_a * (w @ gradient)], -problem.eta_w * a * gradient])

    def jacobian(_: float, state: Float[np.ndarray, " state"]) -> Float[np.ndarray, "state state"]:
        a, w = state[0], state[1:]
        across, pulled = gram @ w, a * (gram @ w) - correlation
        matrix = np.empty((len(state), len(state)))
        matrix[0, 0] = -problem.eta_a * (w @ across)
        matrix[0, 1:] = -problem.eta_a * (a * across + pulled)
        matrix[1:, 0] = -problem.eta_w * (pulled + a * across)
        matrix[1:, 1:] = -problem.eta_w * a * a * gram
        return matrix

    start = np.concatenate([[problem.a0], problem.w0])
    states = _integrate(slope, jacobian, start, clock, tolerance, method)
    a, w = states[:, 0], states[:, 1:]
    best = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    origin = np.concatenate([[problem.a0], a]), np.concatenate([problem.w0[None], w])
    return neuron_history(
        clock,
        a,
        w,
        target=best,
        eta_a=problem.eta_a,
        eta_w=problem.eta_w,
        loss=np.square((a[:, None] * w - best) @ inputs.T).sum(axis=1) / 2,
        kernel_distance=gram_distance(gram, *origin, problem.eta_a, problem.eta_w)[1:],
        source=f"integrated gradient flow, {SOURCE}",
        config={
            "model": "linear neuron",
            "method": method,
            "tolerance": tolerance,
            "a0": problem.a0,
            "w0": problem.w0.tolist(),
            "eta_a": problem.eta_a,
            "eta_w": problem.eta_w,
            "samples": len(inputs),
        },
    )


def product_flow(
    X: Any,
    y: Any,
    beta0: Any,
    delta: float,
    times: Any,
    *,
    eta_a: float = 1.0,
    eta_w: float = 1.0,
    tolerance: float = 1e-12,
    method: Method = "LSODA",
) -> Float[np.ndarray, "time dim"]:
    r"""Integrate the flow of the product :math:`\beta = aw` alone, preconditioned by what the balance makes of it.

    .. math::
        \beta' = -M X^T(X\beta - y), \quad M = \tfrac{k+\delta}2 I + \tfrac{k-\delta}2\,\hat\beta\hat\beta^T, \quad
        k = \sqrt{\delta^2 + 4\eta_a\eta_w|\beta|^2} .

    Source: Kunin et al. 2024 (arXiv 2406.06158), the single linear neuron. It needs no weights. **Not valid** where
    :math:`\beta` passes through 0 with a negative delta: the direction there is that of w, which beta has lost.

    Args:
        X: inputs (samples, dim).
        y: targets (samples,).
        beta0: the product at the start, not 0, shape (dim,).
        delta: the balance, any number.
        times: strictly increasing, at least 0.
        eta_a: learning rate of a, positive.
        eta_w: learning rate of w, positive.
        tolerance: as for :func:`neuron_flow`.
        method: as for :func:`neuron_flow`.

    Returns:
        The product at each time.

    Raises:
        InputError: for wrong arguments, or a start at 0.
        LearnmechError: if the solver gives up.

    Example:
        >>> beta = product_flow([[1.0, 0.0], [0.0, 1.0]], [1.0, 0.5], [0.15, -0.2], 0.0, [1.0])
        >>> [round(float(value), 8) for value in beta[0]]
        [0.48625139, -0.03363827]
    """
    inputs, targets = require_data(X, y)
    start = require_vector("beta0", beta0)
    problem = make_problem(delta, start, inputs.T @ targets, eta_a, eta_w)
    if inputs.shape[1] != len(start):
        raise InputError(
            f"beta0 must have one entry for each of the {inputs.shape[1]} columns of X, but has {len(start)}."
        )
    if not start.any():
        raise InputError(
            "beta0 must not be 0: the flow of the product has no direction there. Use neuron_flow with the weights."
        )
    balance = problem.a0

    def slope(_: float, beta: Float[np.ndarray, " dim"]) -> Float[np.ndarray, " dim"]:
        size = float(np.linalg.norm(beta))
        _k, minus, plus = radical(balance, problem.rate * size)
        gradient = inputs.T @ (inputs @ beta - targets)
        unit = beta / size if size > 0 else beta
        return np.asarray(-(plus / 2 * gradient + minus / 2 * (unit @ gradient) * unit))

    return _integrate(slope, None, start, require_times(times), tolerance, method)


def _integrate(
    slope: Callable[..., Float[np.ndarray, " state"]],
    jacobian: Callable[..., Float[np.ndarray, "state state"]] | None,
    start: Float[np.ndarray, " state"],
    clock: Float[np.ndarray, " time"],
    tolerance: float,
    method: Method,
) -> Float[np.ndarray, "time state"]:
    if method not in get_args(Method):
        raise InputError(f"method must be one of {', '.join(get_args(Method))}, but {method!r} came.")
    relative = require_positive("tolerance", tolerance)
    if not 1e-13 <= relative <= 1e-2:
        raise InputError(f"tolerance must lie between 1e-13 and 1e-2, but {tolerance!r} came.")
    if clock[-1] == 0:
        return start[None].copy()
    options: dict[str, Any] = {} if jacobian is None or method == "DOP853" else {"jac": jacobian}
    absolute = 1e-3 * relative * max(float(np.abs(start).max()), 1e-100)
    done = solve_ivp(
        slope, (0.0, float(clock[-1])), start, method=method, t_eval=clock, rtol=relative, atol=absolute, **options
    )
    if not done.success or done.y.shape[1] != len(clock) or not np.isfinite(done.y).all():
        raise LearnmechError(
            f"{method} gave up before the time {clock[-1]:g}: {done.message} Try another method, a larger tolerance, or rescaled data."
        )
    return np.asarray(done.y.T)
