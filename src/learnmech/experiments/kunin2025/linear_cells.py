"""What is measured of one two-layer linear network beside its prediction: the cells of the sweeps."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.interpolate import CubicHermiteSpline

from learnmech import history as histories
from learnmech.dynamics.agf.comparing import compare
from learnmech.dynamics.agf.flows import gradient_flow
from learnmech.dynamics.agf.linear_modes import LinearPrediction, linear
from learnmech.dynamics.agf.linear_problem import LinearProblem
from learnmech.training import derive_seed

DERIVED = "two-layer linear network after Kunin et al. 2025 (arXiv 2506.06489); refined times derived here"
_MEASURED = "integrated gradient flow"
_LATER, _SETTLED = 1.1, 15.0


def draw_weights(
    outputs: int, hidden: int, inputs: int, scale: float, seed: int
) -> tuple[Float[np.ndarray, "outputs hidden"], Float[np.ndarray, "hidden inputs"]]:
    """Draw weights as the authors do: normal, with variance 1 over the number of outputs or inputs, times the scale.

    Args:
        outputs: rows of A.
        hidden: neurons.
        inputs: columns of W.
        scale: of the start.
        seed: of the draw.

    Returns:
        A and W.
    """
    generator = np.random.default_rng(seed)
    first = scale * generator.standard_normal((outputs, hidden)) / math.sqrt(outputs)
    return first, scale * generator.standard_normal((hidden, inputs)) / math.sqrt(inputs)


def follow_whitened(config: Mapping[str, Any]) -> xr.Dataset:
    """Integrate one network on whitened inputs, and measure when each mode is half learned: a cell of a sweep.

    Args:
        config: ``hidden``, ``scale``, ``draw``, ``values`` (singular values of the target, which is diagonal),
            ``tolerance`` of the integration and ``records``.

    Returns:
        Times and levels, predicted and measured, over ``mode`` and ``plateau``; the loss over ``record``.
    """
    values = np.array(config["values"], dtype=np.float64)
    seed = derive_seed(config["draw"], f"whitened {config['hidden']}")
    first, second = draw_weights(len(values), config["hidden"], len(values), config["scale"], seed)
    problem, expected = LinearProblem(np.diag(values)), linear(first, second, np.diag(values))
    flow = gradient_flow(problem, problem.neurons(first, second), end=_end(expected), tolerance=config["tolerance"])
    rank = np.argsort(np.array(expected.order, dtype=int))
    left, right, growth = expected.left[:, rank], expected.right[:, rank], expected.growth[rank]
    hidden = (first.T @ left + second @ right) / math.sqrt(2)
    largest = float(np.linalg.norm(np.hstack([first.T, second]), axis=1).max())
    found = compare(expected, flow)
    half = strength_times(problem, flow, expected.left, expected.right, expected.strengths)
    return histories.build(
        {
            **_times(
                ("mode",),
                {
                    "refined": (expected.times[rank], "half of the strength, refined prediction", DERIVED),
                    "without_turn": (
                        np.log(growth / (np.square(hidden).sum(axis=0) / 2) - 1) / (2 * growth),
                        "half of the strength, without the orthogonalisation",
                        DERIVED,
                    ),
                    "plain": (-math.log(largest) / growth, "plain: -log of the largest neuron over the rate", DERIVED),
                    "half": (half[rank], "half of the strength", _MEASURED),
                    "crossing": (found.crossings[rank], "loss crosses the mean of two predicted levels", _MEASURED),
                    "expected_crossing": (expected.crossing_times[rank], "the same, predicted", DERIVED),
                },
            ),
            **_levels(found.levels, expected.levels),
            **path(flow, config["records"]),
        },
        {
            "mode": np.arange(len(values)),
            "plateau": np.arange(len(values) + 1),
            "record": np.arange(config["records"]),
        },
        config=dict(config),
    )


def follow_general(config: Mapping[str, Any]) -> xr.Dataset:
    """Integrate one network on inputs whose covariance does not commute with the target's: a cell of a sweep.

    Args:
        config: ``scale``, ``draw``, ``values`` (singular values of the cross-covariance), ``spread`` (eigenvalues of the input
            covariance, in a random basis), ``hidden``, ``tolerance`` and ``records``.

    Returns:
        Conjectured and measured times over ``mode``, levels over ``plateau``, the loss over ``record``.
    """
    values, spread = (np.array(config[name], dtype=np.float64) for name in ("values", "spread"))
    generator = np.random.default_rng(derive_seed(config["draw"], "general covariance"))
    basis = np.linalg.qr(generator.standard_normal((len(spread), len(spread))))[0]
    covariance, cross = (basis * spread) @ basis.T, np.diag(values)
    seed = derive_seed(config["draw"], "general start")
    first, second = draw_weights(len(values), config["hidden"], len(values), config["scale"], seed)
    problem, expected = LinearProblem(cross, covariance), linear(first, second, cross, covariance)
    flow = gradient_flow(problem, problem.neurons(first, second), end=_end(expected), tolerance=config["tolerance"])
    found = compare(expected, flow)
    return histories.build(
        {
            **_times(
                ("mode",),
                {
                    "expected_crossing": (expected.crossing_times, "jump, conjectured", DERIVED),
                    "crossing": (found.crossings, "loss crosses the mean of two predicted levels", _MEASURED),
                },
            ),
            **_levels(found.levels, expected.levels),
            **path(flow, config["records"]),
        },
        {
            "mode": np.arange(len(values)),
            "plateau": np.arange(len(values) + 1),
            "record": np.arange(config["records"]),
        },
        config=dict(config),
    )


def strength_times(
    problem: LinearProblem,
    flow: xr.Dataset,
    left: Float[np.ndarray, "outputs modes"],
    right: Float[np.ndarray, "inputs modes"],
    strengths: Float[np.ndarray, " modes"],
) -> Float[np.ndarray, " modes"]:
    """Measure when each mode of A W has half of its final strength.

    Args:
        problem: the network.
        flow: its gradient flow.
        left: output directions, in columns.
        right: input directions, in columns.
        strengths: final ones.

    Returns:
        The times, by a cubic through two points and their slopes; not a number where a mode never gets so far.
    """
    sizes, slopes = mode_strengths(problem, flow, left, right)
    times, found = flow["time"].values, np.full(len(strengths), math.nan)
    for mode, strength in enumerate(strengths):
        above = sizes[:, mode] > strength / 2
        if above[0] or not above.any():
            continue
        after = int(above.argmax())
        part = slice(after - 1, after + 1)
        curve = CubicHermiteSpline(times[part], sizes[part, mode] - strength / 2, slopes[part, mode])
        roots = curve.roots(extrapolate=False)
        found[mode] = roots[0] if len(roots) else times[after]
    return found


def mode_strengths(
    problem: LinearProblem,
    flow: xr.Dataset,
    left: Float[np.ndarray, "outputs modes"],
    right: Float[np.ndarray, "inputs modes"],
) -> tuple[Float[np.ndarray, "time modes"], Float[np.ndarray, "time modes"]]:
    """Give the strength of each mode of A W over time, and its derivative.

    Args:
        problem: the network.
        flow: its gradient flow.
        left: output directions, in columns.
        right: input directions, in columns.

    Returns:
        Strengths and slopes.
    """
    cut = problem.outputs
    sizes, slopes = [], []
    for neurons in flow["neurons"].values:
        change = -problem.gradient(neurons)
        read, input_part = neurons[:, :cut] @ left, neurons[:, cut:] @ right
        sizes.append((read * input_part).sum(axis=0))
        slopes.append((change[:, :cut] @ left * input_part + read * (change[:, cut:] @ right)).sum(axis=0))
    return np.array(sizes), np.array(slopes)


def path(flow: xr.Dataset, records: int) -> dict[str, Any]:
    """Give the loss at so many records, half of them even in time and half even along the curve.

    Args:
        flow: a gradient flow.
        records: how many.

    Returns:
        Variables ``moment`` and ``loss`` over ``record``.
    """
    times, losses = flow["time"].values, flow["loss"].values
    way = np.concatenate([[0.0], np.cumsum(-np.diff(losses))])
    place = times / times[-1] + way / way[-1]
    moments = np.interp(np.linspace(0, place[-1], records), place, times)
    about = {"source": _MEASURED}
    return {
        "moment": (("record",), moments, {"long_name": "time of the gradient flow", "units": "1 / rate", **about}),
        "loss": (("record",), np.interp(moments, times, losses), {"long_name": "loss", "units": "1", **about}),
    }


def _end(expected: LinearPrediction) -> float:
    """A time when all is learned; by itself the flow would end where all neurons rest at a saddle, as they do from 1e-15."""
    return float(_LATER * expected.times.max() + _SETTLED / expected.growth.min())


def _times(dimensions: tuple[str, ...], parts: Mapping[str, tuple[np.ndarray, str, str]]) -> dict[str, Any]:
    return {
        name: (dimensions, values, {"long_name": text, "units": "time of the gradient flow", "source": source})
        for name, (values, text, source) in parts.items()
    }


def _levels(measured: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    return {
        "level": (("plateau",), measured, {"long_name": "level of the loss", "units": "1", "source": _MEASURED}),
        "expected_level": (
            ("plateau",),
            expected,
            {"long_name": "the same, predicted", "units": "1", "source": DERIVED},
        ),
    }
