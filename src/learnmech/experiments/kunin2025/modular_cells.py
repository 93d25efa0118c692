"""What the figure of modular addition measures: networks from small starts, the largest utility, and how many neurons a frequency needs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.optimize import minimize

from learnmech import history as histories
from learnmech.dynamics.agf.flows import gradient_flow
from learnmech.dynamics.agf.modular_levels import modular_addition
from learnmech.dynamics.agf.modular_neurons import six_neurons
from learnmech.dynamics.agf.modular_problem import ModularProblem
from learnmech.dynamics.agf.modular_spectra import frequency_share, neuron_power
from learnmech.dynamics.agf.modular_utility import fourier_template, spectrum
from learnmech.training import derive_seed

_SOURCE = "Kunin et al. 2025 (arXiv 2506.06489), modular addition"
BEST_FRACTIONS = (8 / 9, 5 / 9, 0.326, 1 / 6)
"""Of a frequency's loss, what 1 to 4 neurons leave at the best."""


def make_template(config: Mapping[str, Any]) -> Float[np.ndarray, " p"]:
    """Make the template of a cell.

    Args:
        config: ``encoding``, "correlated" or "one-hot"; ``p`` and ``amplitudes`` (frequency as text to size), or ``one_hot_p``.

    Returns:
        The template.
    """
    if config["encoding"] == "one-hot":
        return np.eye(config["one_hot_p"])[0]
    return fourier_template(config["p"], {int(k): float(size) for k, size in config["amplitudes"].items()})


def follow_start(config: Mapping[str, Any]) -> xr.Dataset:
    """Predict and train one network: a cell of a sweep.

    Args:
        config: ``encoding``, ``seed``, ``scale``, ``records``, ``jumps`` to follow, and see :func:`make_template`; ``width``, ``one_hot_width``.

    Returns:
        Its path over ``record``: time, loss, share of each frequency learned, power of each neuron at each frequency; and the prediction
        over ``jump``. Entries that a cell lacks are NaN.
    """
    template = make_template(config)
    problem = ModularProblem(template)
    hot = config["encoding"] == "one-hot"
    width = config["one_hot_width" if hot else "width"]
    start = problem.neurons(width, config["scale"], derive_seed(config["seed"], config["encoding"]))
    prediction = modular_addition(template, init=start)
    followed = len(prediction) if hot else min(config["jumps"], len(prediction))
    flow = gradient_flow(
        problem, start, end=1.15 * float(prediction.times[followed - 1]), records=config["records"]
    )
    count = config["records"]
    take = np.minimum(np.arange(count), flow.sizes["time"] - 1)
    neurons = flow["neurons"].values[take]
    shares, powers = frequency_share(neurons, template), neuron_power(neurons, template)
    frequencies = spectrum(template).frequencies
    most, wide = max(config["p"], config["one_hot_p"]) // 2, max(config["width"], config["one_hot_width"])

    def spread(values: np.ndarray, at: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        whole = np.full(shape, np.nan)
        whole[(..., at)] = values
        return whole

    share = spread(shares, frequencies - 1, (count, most))
    power = np.full((count, wide, most), np.nan)
    power[:, :width, : powers.shape[-1] - 1] = powers[..., 1:][..., :most]
    jumps = len(config["amplitudes"])
    predicted = {
        "predicted_time": prediction.times[:jumps],
        "predicted_frequency": np.array(prediction.order[:jumps], dtype=float),
        "utility": prediction.utilities[:jumps],
    }
    about = {"units": "1", "source": _SOURCE}
    variables: dict[str, Any] = {
        "moment": (("record",), flow["time"].values[take], {"long_name": "time of the gradient flow", **about}),
        "loss": (("record",), flow["loss"].values[take], {"long_name": "half the mean squared error", **about}),
        "share": (("record", "frequency"), share, {"long_name": "share of the frequency that is learned", **about}),
        "power": (
            ("record", "neuron", "frequency"),
            power,
            {"long_name": "share of a neuron's weights at the frequency, times its squared norm", **about},
        ),
        "level": (
            ("plateau",),
            spread(prediction.levels[: jumps + 1], np.arange(len(prediction.levels[: jumps + 1])), (jumps + 1,)),
            {"long_name": "predicted level", **about},
        ),
    }
    for name, values in predicted.items():
        variables[name] = (
            ("jump",),
            spread(values, np.arange(len(values)), (jumps,)),
            {"long_name": name.replace("_", " "), **about},
        )
    coordinates = {
        "record": np.arange(count),
        "frequency": np.arange(1, most + 1),
        "neuron": np.arange(wide),
        "jump": np.arange(jumps),
        "plateau": np.arange(jumps + 1),
    }
    return histories.build(variables, coordinates, config=dict(config))


def brute_utility(template: Float[np.ndarray, " p"], starts: int) -> float:
    """Maximise the utility by brute force: the sum over all pairs, and a general optimiser on the unit sphere.

    Args:
        template: x.
        starts: random starts.

    Returns:
        The largest mean over pairs found.
    """
    centred = template - template.mean()
    p = len(template)
    rolled = np.stack([np.roll(centred, shift) for shift in range(p)])
    pairs = np.add.outer(np.arange(p), np.arange(p)) % p
    draws = np.random.default_rng(0)

    def negative(flat: np.ndarray) -> tuple[float, np.ndarray]:
        size = float(np.linalg.norm(flat))
        u, v, w = (flat / size).reshape(3, p)
        first, second, last = rolled @ u, rolled @ v, (rolled @ w)[pairs]
        square = (first[:, None] + second[None, :]) ** 2
        utility = float((square * last).sum()) / p**2
        inner = 2 * (first[:, None] + second[None, :]) * last / p**2
        by_sum = np.bincount(pairs.ravel(), weights=square.ravel(), minlength=p) / p**2
        gradient = np.concatenate([rolled.T @ inner.sum(axis=1), rolled.T @ inner.sum(axis=0), rolled.T @ by_sum])
        along = flat / size
        return -utility, -(gradient - 3 * utility * along) / size

    found = [
        minimize(negative, draws.standard_normal(3 * p), jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-11})
        for _ in range(starts)
    ]
    return -min(float(one.fun) for one in found)


def best_fractions(most: int, starts: int) -> list[float]:
    """Find what of a frequency's loss few neurons leave, from random starts.

    Args:
        most: largest number of neurons.
        starts: random starts for each.

    Returns:
        The least fraction for 1, 2, ... neurons.
    """
    problem = ModularProblem(fourier_template(7, {1: 3.0}))
    whole = problem.loss(np.zeros((1, problem.size)))
    draws = np.random.default_rng(1)
    found = []
    for count in range(1, most + 1):

        def cost(flat: np.ndarray, count: int = count) -> tuple[float, np.ndarray]:
            neurons = flat.reshape(count, -1)
            return problem.loss(neurons), problem.gradient(neurons).ravel()

        tried = [
            minimize(cost, draws.standard_normal(count * problem.size), jac=True, method="L-BFGS-B", options={"maxiter": 3000})
            for _ in range(starts)
        ]
        found.append(min(float(one.fun) for one in tried) / whole)
    return found


def six_neuron_residual(config: Mapping[str, Any]) -> tuple[float, float]:
    """Compute what six neurons a frequency leave, and how far the levels are from the losses of such networks.

    Args:
        config: of the correlated template.

    Returns:
        Loss with all frequencies, over the first; largest relative error of a level.
    """
    template = make_template({**config, "encoding": "correlated"})
    problem, prediction = ModularProblem(template), modular_addition(template)
    neurons = np.zeros((0, problem.size))
    losses = [problem.loss(np.zeros((1, problem.size)))]
    for frequency in prediction.order:
        assert isinstance(frequency, int)
        neurons = np.vstack([neurons, six_neurons(template, frequency)])
        losses.append(problem.loss(neurons))
    return losses[-1] / losses[0], float(np.abs(np.array(losses) - prediction.levels).max()) / losses[0]
