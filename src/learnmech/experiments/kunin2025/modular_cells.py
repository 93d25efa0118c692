"""What the figure of modular addition measures: networks from small starts, the largest utility, and how many neurons a frequency needs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.optimize import minimize

from learnmech import history as histories
from learnmech.dynamics.agf.comparing import compare
from learnmech.dynamics.agf.flows import gradient_flow
from learnmech.dynamics.agf.modular_levels import ModularPrediction, modular_addition
from learnmech.dynamics.agf.modular_neurons import six_neurons
from learnmech.dynamics.agf.modular_problem import ModularProblem
from learnmech.dynamics.agf.modular_spectra import frequency_power, frequency_share, neuron_power
from learnmech.dynamics.agf.modular_utility import fourier_template, spectrum
from learnmech.training import derive_seed

SOURCE = "Kunin et al. 2025 (arXiv 2506.06489), modular addition"
BEST_FRACTIONS = (8 / 9, 5 / 9, 0.326, 1 / 6)
"""Of a frequency's loss, what 1 to 4 neurons leave at the best."""
ONE_HOT = "one-hot"
_LATE = 1.15


def make_template(config: Mapping[str, Any]) -> Float[np.ndarray, " p"]:
    """Make the template of a cell.

    Args:
        config: ``encoding``; ``one_hot_p`` if that is "one-hot", else ``p`` and ``templates`` (encoding to frequency, as text, to size).

    Returns:
        The template.
    """
    if config["encoding"] == ONE_HOT:
        return np.asarray(np.eye(config["one_hot_p"])[0])
    sizes = config["templates"][config["encoding"]]
    return fourier_template(config["p"], {int(k): float(size) for k, size in sizes.items()})


def follow_start(config: Mapping[str, Any]) -> xr.Dataset:
    """Predict and train one network: a cell of a sweep.

    Args:
        config: ``seed``, ``scale``, ``records``, ``jumps`` to follow, ``later`` (end of the flow, in predicted times of the last of
            them), ``patience`` (end of the prediction, in lower bounds of that time), ``width``, ``one_hot_width``, and see :func:`make_template`.

    Returns:
        Its path over ``record``, the prediction and what was measured over ``jump`` and ``plateau``; over ``frequency`` parts of the loss, and
        when half of each is learned. Entries that a cell lacks are not numbers.
    """
    template = make_template(config)
    problem = ModularProblem(template)
    hot = config["encoding"] == ONE_HOT
    width, wide = config["one_hot_width" if hot else "width"], max(config["width"], config["one_hot_width"])
    start = problem.neurons(width, config["scale"], derive_seed(config["seed"], config["encoding"]))
    jumps, prediction = config["jumps"], _predict(template, start, config, followed=not hot)
    last = prediction.times[-1 if hot else min(jumps, len(prediction)) - 1]
    flow = gradient_flow(
        problem, start, end=(_LATE if hot else config["later"]) * float(last), records=config["records"]
    )
    count = config["records"]
    take = np.minimum(np.arange(count), flow.sizes["time"] - 1)
    neurons, moments = flow["neurons"].values, flow["time"].values
    shares = frequency_share(neurons, template)
    parts, stages = spectrum(template), prediction.stages[:wide]
    most = max(config["p"], config["one_hot_p"]) // 2
    powers = neuron_power(neurons[take], template)[..., 1:]
    here = (..., slice(powers.shape[-1]))
    sums, lasts = main_phases(neurons[take], template)

    def spread(values: Any, shape: tuple[int, ...], at: tuple[Any, ...] = (...,)) -> np.ndarray:
        whole = np.full(shape, np.nan)
        whole[at] = values
        return whole

    at_parts = (..., parts.frequencies - 1)
    first = (slice(min(jumps, len(prediction))),)
    record, frequency, neuron, jump = ("record",), ("frequency",), ("neuron",), ("jump",)
    variables = {
        "moment": (record, moments[take], "time of the gradient flow"),
        "loss": (record, flow["loss"].values[take], "half the mean squared error"),
        "share": (record + frequency, spread(shares[take], (count, most), at_parts), "share learned"),
        "output_power": (
            record + frequency,
            spread(frequency_power(neurons[take], template)[:, 1:], (count, most), here),
            "mean squared output at the frequency",
        ),
        "power": (
            record + neuron + frequency,
            spread(powers, (count, wide, most), (slice(None), slice(width), slice(powers.shape[-1]))),
            "squared norm of the neuron at the frequency",
        ),
        "phase_sum": (
            record + neuron,
            spread(sums, (count, wide), (slice(None), slice(width))),
            "phases of u and v less that of the template, at the neuron's largest frequency",
        ),
        "phase_last": (
            record + neuron,
            spread(lasts, (count, wide), (slice(None), slice(width))),
            "phase of w at the neuron's largest frequency",
        ),
        "part": (frequency, spread(parts.shares, (most,), at_parts), "what the frequency adds to the loss"),
        "learned_time": (
            frequency,
            spread(_half_times(moments, shares), (most,), at_parts),
            "when half of the frequency is learned",
        ),
        "predicted_time": (jump, spread(prediction.times[first], (jumps,), first), "predicted time of the jump"),
        "predicted_frequency": (
            jump,
            spread(prediction.order[first[0]], (jumps,), first),
            "frequency that is predicted to be learned",
        ),
        "crossing": (
            jump,
            spread(np.nan if hot else compare(prediction, flow).crossings[first], (jumps,), first),
            "when the loss crosses the mean of two predicted levels",
        ),
        "stage_time": (
            ("stage",),
            spread([stage.moment for stage in stages], (wide,), (slice(len(stages)),)),
            "when each neuron is predicted to activate",
        ),
        "stage_loss": (
            ("stage",),
            spread([stage.loss for stage in stages], (wide,), (slice(len(stages)),)),
            "predicted loss afterwards",
        ),
        "level": (("plateau",), prediction.levels[: jumps + 1], "predicted level"),
        "utility": ((), prediction.utilities.max(), "largest utility of a neuron of unit norm"),
    }
    return histories.build(
        {
            name: (names, values, {"long_name": text, "units": "1", "source": SOURCE})
            for name, (names, values, text) in variables.items()
        },
        {
            "record": np.arange(count),
            "frequency": np.arange(1, most + 1),
            "neuron": np.arange(wide),
            "stage": np.arange(wide),
            "jump": np.arange(jumps),
            "plateau": np.arange(jumps + 1),
        },
        config=dict(config),
    )


def _predict(template: np.ndarray, start: np.ndarray, config: Mapping[str, Any], followed: bool) -> ModularPrediction:
    """Predict; with ``followed`` not the jumps beyond those that are followed, which would take long."""
    if not followed:
        return modular_addition(template, init=start)
    bounds = modular_addition(template, scale=float(np.linalg.norm(start, axis=1).max())).times
    last = float(bounds[min(config["jumps"], len(bounds)) - 1])
    return modular_addition(template, init=start, end=config["patience"] * last)


def _half_times(moments: np.ndarray, shares: np.ndarray) -> np.ndarray:
    found = np.full(shares.shape[1], np.inf)
    for column, share in enumerate(shares.T):
        above = share >= 0.5
        if above.any():
            after = int(above.argmax())
            pair = slice(max(after - 1, 0), after + 1)
            found[column] = np.interp(0.5, share[pair], moments[pair])
    return found


def main_phases(
    neurons: Float[np.ndarray, "... neurons size"], template: Float[np.ndarray, " p"]
) -> tuple[Float[np.ndarray, "... neurons"], Float[np.ndarray, "... neurons"]]:
    """Give the phases of each neuron at that frequency of the template at which it is largest.

    Args:
        neurons: rows (u, v, w).
        template: x.

    Returns:
        Those of u and v together less that of the template, and that of w, in radians from -pi to pi; they are equal for a neuron with the
        largest utility.
    """
    parts = spectrum(template)
    rows = neurons.reshape(*neurons.shape[:-1], 3, parts.length)
    waves = np.fft.rfft(rows, axis=-1)[..., parts.frequencies]
    largest = np.square(np.abs(waves)).sum(axis=-2).argmax(axis=-1)
    at = np.take_along_axis(waves, largest[..., None, None], axis=-1)[..., 0]
    turned = at[..., 0] * at[..., 1] * parts.coefficients[largest].conj()
    return np.angle(turned), np.angle(at[..., 2])


def brute_utility(template: Float[np.ndarray, " p"], starts: int) -> tuple[float, Float[np.ndarray, " size"]]:
    """Maximise the utility by brute force: the sum over all pairs, and a general optimiser on the unit sphere.

    Args:
        template: x.
        starts: random starts.

    Returns:
        The largest mean over pairs found, and the neuron of unit norm that has it.
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
        minimize(
            negative, draws.standard_normal(3 * p), jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-11}
        )
        for _ in range(starts)
    ]
    best = min(found, key=lambda one: float(one.fun))
    return -float(best.fun), best.x / np.linalg.norm(best.x)


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
            minimize(
                cost,
                draws.standard_normal(count * problem.size),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": 3000},
            )
            for _ in range(starts)
        ]
        found.append(min(float(one.fun) for one in tried) / whole)
    return found


def six_neuron_residual(template: Float[np.ndarray, " p"]) -> tuple[float, float]:
    """Compute what six neurons a frequency leave, and how far the levels are from the losses of such networks.

    Args:
        template: x.

    Returns:
        Loss with all frequencies, over the first; largest error of a level, over the first.
    """
    problem, prediction = ModularProblem(template), modular_addition(template)
    neurons = np.zeros((0, problem.size))
    losses = [problem.loss(np.zeros((1, problem.size)))]
    for frequency in prediction.order:
        assert isinstance(frequency, int)
        neurons = np.vstack([neurons, six_neurons(template, frequency)])
        losses.append(problem.loss(neurons))
    return losses[-1] / losses[0], float(np.abs(np.array(losses) - prediction.levels).max()) / losses[0]
