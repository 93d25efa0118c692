"""Deep linear networks over time: loss, modes of the product, tangent kernel, and what the flow conserves."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr

from learnmech import history
from learnmech.bars import terminal_bar
from learnmech.dynamics.linear_network import (
    LinearTask,
    Weights,
    draw_weights,
    make_task,
    product_of,
    read_weights,
    trace_kernel,
)
from learnmech.dynamics.linear_network_flow import Flow, choose_times
from learnmech.errors import InputError

_TASK = "gradient flow of a deep linear network, Jacot et al. 2021 (arXiv 2106.15933)"
_MEANINGS = {
    "loss": ("loss, half the mean squared error", "1", _TASK),
    "singular_value": ("singular values of the product of all weights", "1", "Saxe et al. 2014 (arXiv 1312.6120)"),
    "mode_strength": (
        "product of all weights along each pair of singular vectors of the target",
        "1",
        "Saxe et al. 2014 (arXiv 1312.6120)",
    ),
    "kernel": (
        "tangent kernel on whitened unit inputs, summed over outputs",
        "1",
        "Jacot et al. 2018 (arXiv 1806.07572)",
    ),
    "kernel_norm": ("Frobenius norm of the tangent kernel", "1", "Jacot et al. 2018 (arXiv 1806.07572)"),
    "kernel_cosine": ("cosine of the tangent kernel to the last one", "1", "Atanasov et al. 2021 (arXiv 2111.00034)"),
    "balance_drift": (
        "largest change of W_(l+1)^T W_(l+1) - W_l W_l^T since the start, over its terms",
        "1",
        "Du, Hu and Lee 2018 (arXiv 1806.00900)",
    ),
}


def deep_linear(
    target: Any,
    *,
    depth: int = 2,
    width: int = 10,
    gamma: float = 1.0,
    scale: float = 1.0,
    weights: Sequence[Any] | None = None,
    covariance: Any = None,
    seed: int | Sequence[int] = 0,
    times: Any = None,
    records: int = 300,
    stop: float = 1e-6,
    longest: float = 1e5,
    learning_rate: float | None = None,
    tolerance: float = 1e-7,
) -> xr.Dataset:
    r"""Train a deep linear network by gradient flow, or gradient descent, and follow its modes and kernel.

    The network is :math:`f(x) = W_L \cdots W_1 x` with entries :math:`N(0, \text{scale}^2 w^{-\gamma})`, the loss
    :math:`\frac12 E|f(x) - Tx|^2` (convention "mean") for inputs with the given second moments, and
    :math:`W_l' = -\partial L/\partial W_l`. The flow is integrated by an explicit Runge-Kutta method of order 8 with error
    control; gradient descent takes true steps, and time is steps times learning rate. From a small start (gamma > 1, or a
    small scale) the loss rests at saddles, where the product holds the strongest modes of T only, and jumps between them:
    :func:`learnmech.dynamics.saddle.find_jumps` finds both.

    Source: Jacot, Ged, Simsek, Hongler and Gabriel 2021 (arXiv 2106.15933); modes as in Saxe, McClelland and Ganguli 2014
    (arXiv 1312.6120).

    Args:
        target: the matrix T to learn (outputs, inputs).
        depth: number of weights L, at least 2.
        width: hidden width w.
        gamma: exponent of the variance of the weights.
        scale: factor on the weights at the start.
        weights: start from these instead, first layer first, each (out, in); depth, width, gamma, scale and seed are not used.
        covariance: second moments of the inputs (inputs, inputs); the identity, whitened inputs, if not given.
        seed: of the weights; several give a dimension ``seed``.
        times: when to record (time,); if not given, ``records`` times from 0 until the loss of every seed is ``stop`` times
            its start, close together where the integrator takes small steps.
        records: number of recorded times if ``times`` is not given.
        stop: share of the first loss at which a run may end.
        longest: time after which a run ends all the same; ``reached_stop`` says so.
        learning_rate: None for gradient flow, or the step of gradient descent.
        tolerance: relative tolerance of the flow.

    Returns:
        A history over ``time``: ``loss``; ``singular_value`` and ``mode_strength`` over ``mode``; ``kernel`` over ``probe`` and
        ``other_probe``, with ``kernel_norm`` and ``kernel_cosine``; ``balance_drift``, which is 0 for an exact flow and of
        the order of the learning rate for descent. Attributes: ``target_values``, the singular values of T Sigma, and
        ``reached_stop``. Where a run cannot go on, LearnmechError is raised.

    Raises:
        InputError: if an argument is out of range.

    Example:
        >>> run = deep_linear([[2.0, 0.0], [0.0, 1.0]], width=4, scale=1e-3, tolerance=1e-6)
        >>> print(np.round(run["singular_value"].values[-1], 2))
        [2. 1.]
    """
    task = make_task(target, covariance)
    _require(records=records, stop=stop, longest=longest, learning_rate=learning_rate, tolerance=tolerance)
    seeds = [seed] if isinstance(seed, int | np.integer) else list(seed)
    if len(seeds) == 0 or len(set(seeds)) != len(seeds):
        raise InputError(f"seed must be one integer or several different ones, got {seed!r}.")
    outputs, inputs = task.target.shape
    if weights is not None:
        if not isinstance(seed, int | np.integer):
            raise InputError("several seeds make no sense with weights=, which fixes the start; leave seed out.")
        starts = [read_weights(weights, task)]
    else:
        starts = [
            draw_weights(inputs, outputs, depth, width, gamma=gamma, scale=scale, seed=int(number)) for number in seeds
        ]
    flow = Flow(task, tolerance, learning_rate)
    reached = True
    with terminal_bar("training deep linear networks", 2 * len(starts), least=4) as advance:
        if times is None:
            steps: list[float] = []
            for start in starts:
                taken, there = flow.find_end(start, stop, longest)
                steps += taken
                reached &= there
                advance(1)
            moments = choose_times(steps, records)
        else:
            moments = read_times(times)
        runs = []
        for start in starts:
            runs.append(_record(flow, start, moments))
            advance(1)
    single = isinstance(seed, int | np.integer)
    return _history(
        runs[0] if single else _stack(runs),
        moments,
        task,
        None if single else seeds,
        {
            "depth": len(starts[0]),
            "width": starts[0][0].shape[0],
            "start": "given" if weights is not None else {"gamma": gamma, "scale": scale},
            "seed": [int(number) for number in seeds],
            "method": "flow" if learning_rate is None else {"learning_rate": learning_rate},
            "tolerance": tolerance,
            "loss_convention": "mean",
        },
        reached if times is None else None,
    )


def read_times(times: Any) -> np.ndarray:
    """Check times at which to record.

    Args:
        times: what came.

    Returns:
        The times in float64.

    Raises:
        InputError: if they are not finite, negative, or do not increase.
    """
    moments = np.atleast_1d(np.array(times, dtype=np.float64))
    if moments.ndim != 1 or len(moments) == 0 or not np.isfinite(moments).all() or moments[0] < 0:
        raise InputError("times must be a list of finite numbers, at least 0.")
    if (np.diff(moments) <= 0).any():
        raise InputError("times must increase strictly.")
    return moments


def _require(*, records: int, stop: float, longest: float, learning_rate: float | None, tolerance: float) -> None:
    if not isinstance(records, int) or isinstance(records, bool) or records < 2:
        raise InputError(f"records must be an integer of at least 2, got {records!r}.")
    if not 0 < stop < 1:
        raise InputError(f"stop must lie between 0 and 1, a share of the first loss, got {stop!r}.")
    if not (math.isfinite(longest) and longest > 0):
        raise InputError(f"longest must be a positive time, got {longest!r}.")
    if learning_rate is not None and not (math.isfinite(learning_rate) and learning_rate > 0):
        raise InputError(f"learning_rate must be positive, or None for gradient flow, got {learning_rate!r}.")
    if not 1e-13 <= tolerance <= 1e-2:
        raise InputError(f"tolerance must lie between 1e-13 and 0.01, got {tolerance!r}.")


def _balance(weights: Weights) -> list[np.ndarray]:
    return [after.T @ after - before @ before.T for before, after in pairwise(weights)]


def _record(flow: Flow, start: Weights, moments: np.ndarray) -> dict[str, np.ndarray]:
    task: LinearTask = flow.task
    left, _, right = task.modes()
    root = np.linalg.cholesky(task.covariance)
    first = _balance(start)
    values: dict[str, list[Any]] = {
        name: [] for name in ("loss", "singular_value", "mode_strength", "kernel", "balance_drift")
    }

    def read(_: int, now: Weights) -> None:
        product = product_of(now)
        values["loss"].append(task.loss(product))
        values["singular_value"].append(np.linalg.svd(product, compute_uv=False))
        values["mode_strength"].append(((left.T @ product) * right).sum(1))
        values["kernel"].append(trace_kernel(now, root))
        change = max(float(np.linalg.norm(then - before)) for then, before in zip(_balance(now), first, strict=True))
        values["balance_drift"].append(change / max(float((weight**2).sum()) for weight in now))

    flow.at(start, moments, read)
    run = {name: np.array(recorded) for name, recorded in values.items()}
    norms = np.linalg.norm(run["kernel"], axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        run["kernel_cosine"] = (run["kernel"] * run["kernel"][-1]).sum((1, 2)) / (norms * norms[-1])
    return run | {"kernel_norm": norms}


def _stack(runs: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([run[name] for run in runs]) for name in runs[0]}


def _history(
    run: dict[str, np.ndarray],
    moments: np.ndarray,
    task: LinearTask,
    seeds: Sequence[int] | None,
    config: dict[str, Any],
    reached: bool | None,
) -> xr.Dataset:
    front = () if seeds is None else ("seed",)
    tails = {"singular_value": ("mode",), "mode_strength": ("mode",), "kernel": ("probe", "other_probe")}
    variables = {
        name: (
            (*front, "time", *tails.get(name, ())),
            run[name],
            {"long_name": title, "units": units, "source": source},
        )
        for name, (title, units, source) in _MEANINGS.items()
    }
    inputs = task.target.shape[1]
    coordinates: dict[str, Any] = {
        "time": moments,
        "mode": np.arange(1, min(task.target.shape) + 1),
        "probe": np.arange(inputs),
        "other_probe": np.arange(inputs),
    }
    if seeds is not None:
        coordinates["seed"] = [int(number) for number in seeds]
    config |= {"model": "deep_linear", "target": task.target.tolist(), "covariance": task.covariance.tolist()}
    attributes: dict[str, Any] = {"target_values": task.modes()[1].tolist()}
    if reached is not None:
        attributes["reached_stop"] = reached
    return history.build(variables, coordinates, config=config, attributes=attributes)
