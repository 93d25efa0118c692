"""From a recognised network and its data to the instance that predicts it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from learnmech.dynamics.agf.comparing_predictions import predicted_times
from learnmech.dynamics.agf.predictions import Prediction
from learnmech.dynamics.agf.problems import Problem
from learnmech.dynamics.agf.recognition_assumptions import Assumption, near_commuting, population
from learnmech.dynamics.agf.recognition_data import modular_template
from learnmech.dynamics.agf.recognition_formulas import decode_attention
from learnmech.dynamics.agf.recognition_modules import Recognised
from learnmech.dynamics.agf.recognition_problems import ActivationProblem, SampledAttentionProblem

_POPULATION = 0.1
_NOTHING = 1e-12


@dataclass(frozen=True)
class Route:
    """A prediction in the time of the instance.

    Attributes:
        prediction: with its best times as ``times``, levels in half the mean squared error, floor included.
        instance: what the instance returned.
        neurons: at the start, scaled so that the network has no factor.
        growth: rate at which the fastest neuron grows at norm 1.
        growths: mean rate at which what is learned at each jump grows exponentially on the way there; 0 if it does not.
        clock: time of the instance in one unit of the flow of the model's own parameters.
        by: which function predicted it.
        assumptions: of this route.
    """

    prediction: Prediction
    instance: Prediction
    neurons: Float[np.ndarray, "neurons size"]
    growth: float
    growths: Float[np.ndarray, " jumps"]
    clock: float
    by: str
    assumptions: tuple[Assumption, ...] = ()


def route(found: Recognised, values: Mapping[str, Tensor], inputs: Any, targets: Tensor) -> Route:
    """Predict a recognised network.

    Args:
        found: what it is.
        values: its parameters by role.
        inputs: all of them.
        targets: likewise.

    Returns:
        The prediction. What an instance cannot take, such as a start that is not small, raises its InputError.
    """
    numbers = {role: value.numpy() for role, value in values.items()}
    factor = abs(found.scale) ** (1 / found.degree)
    sign = math.copysign(1.0, found.scale)
    Y = targets.reshape(len(targets), -1).numpy()
    if found.kind == "linear attention":
        made = _attention(numbers, factor, sign, inputs, Y[:, 0])
    elif found.kind == "diagonal":
        made = _diagonal(found, numbers, factor, sign, inputs.reshape(len(Y), -1).numpy(), Y[:, 0])
    else:
        made = _layers(found, numbers, factor, sign, inputs.reshape(len(Y), -1).numpy(), Y)
    return replace(made, clock=made.clock * factor**2)


def _best(prediction: Prediction, floor: float = 0.0) -> Prediction:
    """A plain prediction with the best times of an instance, in order, and a floor added."""
    times, _ = predicted_times(prediction, None)
    levels = prediction.levels + floor
    return Prediction(
        times=times,
        levels=np.where(levels > _NOTHING * levels[0], levels, 0.0),
        order=prediction.order,
        time_unit=prediction.time_unit,
        loss_unit=prediction.loss_unit,
        model=prediction.model,
        notes=prediction.notes,
    )


def _mean_growths(prediction: Prediction, neurons: np.ndarray) -> Float[np.ndarray, " jumps"]:
    """How fast a neuron of degree 2 grew on average to norm 1."""
    way = max(-math.log(float(np.linalg.norm(neurons, axis=1).max())), 0.0)
    return way / np.where(prediction.times > 0, prediction.times, math.inf)


def _layers(
    found: Recognised, numbers: dict[str, np.ndarray], factor: float, sign: float, X: np.ndarray, Y: np.ndarray
) -> Route:
    inner = numbers["w"]
    outer = sign * numbers["a"].reshape(-1, len(inner))
    free_mean = "outer_bias" in numbers
    if "inner_bias" in numbers:
        inner = np.column_stack([inner, numbers["inner_bias"].reshape(-1)])
        X = np.column_stack([X, np.ones(len(X))])
    outer, inner = factor * outer, factor * inner
    neurons = np.hstack([outer.T, inner])
    if found.kind == "linear":
        return _linear(outer, inner, X, Y, free_mean)
    if found.kind == "quadratic" and not free_mean and "inner_bias" not in numbers:
        template = modular_template(X, Y)
        if template is not None:
            from learnmech.dynamics.agf.modular_levels import modular_addition

            rows = np.hstack([inner, outer.T])
            staircase = modular_addition(template, init=rows)
            growth = 3 * float(staircase.utilities.max(initial=0.0))
            return Route(
                _best(staircase), staircase, rows, growth, np.zeros(len(staircase)), 1.0, "agf.modular_addition"
            )
    if found.kind == "relu" and Y.shape[1] == 1 and not free_mean:
        from learnmech.dynamics.agf.relu_path import relu

        path = relu(X, Y[:, 0], init=neurons, leak=-found.down + 0.0)
        growth = 2 * float(path.utilities.max(initial=0.0))
        best = _best(path)
        return Route(best, path, neurons, growth, _mean_growths(best, neurons), 1.0, "agf.relu")
    problem = ActivationProblem(X, Y, found.power, found.up, found.down, free_mean=free_mean)
    return _engine(problem, neurons)


def _linear(outer: np.ndarray, inner: np.ndarray, X: np.ndarray, Y: np.ndarray, free_mean: bool) -> Route:
    from learnmech.dynamics.agf.linear_modes import linear
    from learnmech.dynamics.agf.linear_problem import LinearProblem

    if free_mean:
        X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    problem = LinearProblem.from_data(X, Y)
    cross, spread = problem.sigma_yx, problem.sigma_xx
    staircase = linear(outer, inner, cross, spread)
    best, growths, off = _best(staircase, problem.floor), staircase.growth, 0.0
    if staircase.case == "general" and len(staircase):
        _, strengths, rights = np.linalg.svd(cross, full_matrices=False)
        rights = rights[strengths > 1e-12 * strengths[0]]
        seen = rights @ spread @ rights.T
        scales = np.sqrt(np.diag(seen))
        off = float(np.abs(seen / np.outer(scales, scales) - np.eye(len(seen))).max())
        near = linear(
            outer, inner, cross, (rights.T * np.diag(seen)) @ rights + np.eye(len(spread)) - rights.T @ rights
        )
        if len(near) == len(staircase):
            note = "times are those of the nearest inputs whose covariance has the modes for eigenvectors; levels are exact."
            best = replace(best, times=predicted_times(near, None)[0], notes=(note, *near.notes))
            growths = near.growth
    growth = float(staircase.growth.max(initial=0.0))
    neurons = problem.neurons(outer, inner)
    return Route(best, staircase, neurons, growth, growths, 1.0, "agf.linear", (near_commuting(staircase.case, off),))


def _diagonal(
    found: Recognised, numbers: dict[str, np.ndarray], factor: float, sign: float, X: np.ndarray, y: np.ndarray
) -> Route:
    from learnmech.dynamics.agf.diagonal_path import diagonal

    u, v = (factor * numbers[role].reshape(-1) for role in ("u", "v"))
    u, v = (u + v, u - v) if found.squares else (u, v)
    path = diagonal(X, sign * y, init=(u, v))
    growth = float(np.abs(X.T @ y).max()) / len(y)
    # p' = -2 p g and m' = 2 m g make u = p + m run twice as fast as u' = -v g
    clock = 2.0 if found.squares else 1.0
    best, neurons = _best(path), np.stack([u, v], axis=1)
    return Route(best, path, neurons, growth, _mean_growths(best, neurons), clock, "agf.diagonal")


def _attention(numbers: dict[str, np.ndarray], factor: float, sign: float, inputs: Any, y: np.ndarray) -> Route:
    from learnmech.dynamics.agf.attention_modes import linear_attention

    decoded = decode_attention(inputs)
    assert decoded is not None
    shown, answers, query = (part.numpy() for part in decoded)
    value = sign * factor * numbers["v"].reshape(-1, 1)
    queries, keys = factor * numbers["q"], factor * numbers["k"]
    pairs = shown.shape[1]
    summed = np.einsum("bnd,bn->bd", shown, answers)
    everything = np.concatenate([shown.reshape(-1, shown.shape[2]), query])
    spread = everything.T @ everything / len(everything)
    eigenvalues, vectors = np.linalg.eigh(spread)
    measured = np.einsum("b,bi,bj->ij", y, query, summed) / len(y)
    expected = pairs * spread @ spread
    off = float(np.linalg.norm(measured - expected) / np.linalg.norm(expected))
    told = population(off, _POPULATION)
    if off < _POPULATION:
        eigenvalues, vectors = eigenvalues[::-1].clip(min=0.0), vectors[:, ::-1]
        heads = np.hstack([value, queries @ vectors, keys @ vectors])
        staircase = linear_attention(eigenvalues, pairs, init=heads)
        growth = 3 * float(staircase.utilities.max(initial=0.0))
        none = np.zeros(len(staircase))
        return Route(_best(staircase), staircase, heads, growth, none, 1.0, "agf.linear_attention", (told,))
    made = _engine(SampledAttentionProblem(query, summed, y), np.hstack([value, queries, keys]))
    return replace(made, assumptions=(told,))


def _engine(problem: Problem, neurons: np.ndarray) -> Route:
    from learnmech.dynamics.agf.engine_dormant import growth_scale
    from learnmech.dynamics.agf.engine_reading import read_run
    from learnmech.dynamics.agf.engine_run import run

    staircase = read_run(run(problem, neurons, loss_tolerance=1e-6))
    norms = np.linalg.norm(neurons, axis=1, keepdims=True)
    growth = growth_scale(problem, problem.target, (neurons / np.maximum(norms, 1e-300))[norms[:, 0] > 0])
    best = _best(staircase)
    growths = _mean_growths(best, neurons) if problem.degree == 2 else np.zeros(len(best))
    return Route(best, staircase, neurons, growth, growths, 1.0, "agf.run")
