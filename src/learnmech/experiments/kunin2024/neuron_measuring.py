"""What the figure of the single linear neuron measures: paths, speeds, and errors against an integrated flow."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.linear_neuron import LinearNeuron
from learnmech.dynamics.neuron_integrator import neuron_flow
from learnmech.dynamics.neuron_solution import radical


def start_weights(product: Float[np.ndarray, " dim"], delta: float) -> tuple[float, Float[np.ndarray, " dim"]]:
    """Give weights with a product and a balance, for rates of 1 and a positive read-out weight.

    Args:
        product: beta_0, not 0.
        delta: the balance.

    Returns:
        a and w.
    """
    size = float(np.linalg.norm(product))
    _, minus, plus = radical(delta, size)
    return float(np.sqrt(plus / 2)), np.sqrt(minus / 2) * product / size


def measure_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Follow the product from one start with each balance.

    Args:
        settings: of the figure.

    Returns:
        Times, and each quantity over (start, time).
    """
    angle = np.deg2rad(settings["start_angle_degrees"])
    product = settings["start_size"] * np.array([np.cos(angle), np.sin(angle)])
    times = np.concatenate([[0.0], np.logspace(-4, 3, settings["points"] - 1)])
    runs = [LinearNeuron(*start_weights(product, delta), settings["target"]).at(times) for delta in settings["deltas"]]
    return {
        "time": times,
        **{
            name: np.stack([run[name].values for run in runs])
            for name in ("beta", "phi", "mu", "loss", "kernel_distance")
        },
    }


def measure_speeds(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Measure the speeds at |beta| = 1 over the balance, by differences of the first instants of the solution.

    Args:
        settings: of the figure.

    Returns:
        Balances, and ``measured``, ``exact`` and ``limits`` over (balance, size or direction).
    """
    product, target = np.array([0.0, 1.0]), np.array([1.0, 2.0])
    half = np.logspace(-1, 3, settings["balances"] // 2)
    deltas = np.concatenate([-half[::-1], [0.0], half])
    measured, exact, limits = [], [], []
    for delta in deltas:
        neuron = LinearNeuron(*start_weights(product, delta), target)
        step = 1e-5 / (1.0 + abs(delta))
        betas = neuron.at(np.array([0.0, step, 2 * step])).beta.values
        slope = (-3 * betas[0] + 4 * betas[1] - betas[2]) / (2 * step)
        drive = target - product  # minus the gradient: 1 along the product and 1 across
        measured.append([slope[1] / drive[1], slope[0] / drive[0]])
        speeds = neuron.timescales(1.0)
        exact.append([speeds.radial_speed, speeds.directional_speed])
        limits.append([speeds.radial_limit, speeds.directional_limit])
    return {"delta": deltas, "measured": np.array(measured), "exact": np.array(exact), "limits": np.array(limits)}


def measure_slow_phase(settings: Mapping[str, Any]) -> list[float]:
    """Measure the largest error of the slow phase in closed form, from starts on mu = phi |target|.

    Args:
        settings: of the figure.

    Returns:
        An error of the cosine for each balance.
    """
    cosine, found = settings["slow_cosine"], []
    direction = np.array([cosine, np.sqrt(1 - cosine**2)])
    for delta in settings["slow_deltas"]:
        neuron = LinearNeuron(*start_weights(cosine * direction, delta), settings["target"])
        times = np.linspace(0.0, 8.0 * abs(delta), 2001)
        found.append(float(np.abs(neuron.at(times).phi.values - neuron.slow_phase(times)).max()))
    return found


def random_errors(cases: int, longest: float, seed: int = 0) -> Float[np.ndarray, " case"]:
    """Compare the exact solution with the integrated flow for random starts, targets and rates.

    Sizes are log-uniform from 1e-3 to 5, rates from 0.1 to 10, dimensions from 1 to 5; every fifth start of more than one dimension is
    balanced, every eleventh has a = 0, every thirteenth w = 0.

    Args:
        cases: how many.
        longest: the last time.
        seed: of the draws.

    Returns:
        Largest error of any weight at any time, in units of the largest weight, for each case.
    """
    random = np.random.default_rng(seed)
    times = np.append(np.logspace(-2, np.log10(longest) - 0.5, 6), longest)
    errors = []
    for case in range(cases):
        dim = int(random.integers(1, 6))
        sizes = 10 ** random.uniform(-3, np.log10(5), 3)
        eta_a, eta_w = 10 ** random.uniform(-1, 1, 2)
        a0 = float(sizes[0] * random.standard_normal())
        w0, beta = (size * random.standard_normal(dim) / np.sqrt(dim) for size in sizes[1:])
        if case % 5 == 0 and dim > 1:
            a0 = float(np.sign(a0) * np.linalg.norm(w0) * np.sqrt(eta_a / eta_w))
        if case % 11 == 0:
            a0 = 0.0
        if case % 13 == 0:
            w0 = np.zeros(dim)
        exact = LinearNeuron(a0, w0, beta, eta_a, eta_w).at(times)
        flow = neuron_flow(np.eye(dim), beta, a0, w0, times, eta_a=eta_a, eta_w=eta_w)
        scale = max(float(np.abs(flow[name]).max()) for name in ("a", "w"))
        errors.append(max(float(np.abs(exact[name] - flow[name]).max()) for name in ("a", "w")) / max(scale, 1e-300))
    return np.array(errors)
