"""From sums over a batch to the numbers of the feature speed formula, layer by layer and parameter by parameter."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from learnmech.monitor.paths import Paths
from learnmech.speed.products import inner
from learnmech.speed.step_reading import BACKWARD, CHANGE, FEATURES, REAL, LayerSums

_NOWHERE = Paths(False, frozenset(), frozenset())


@dataclass(frozen=True)
class ParameterNumbers:
    """What a step does to one parameter tensor.

    Attributes:
        decay: first-order decay of the loss that it brings, -<g, dw>.
        norm: Euclidean norm of the parameter.
        gradient_norm: of the gradient.
        update_norm: of the displacement.
    """

    decay: float
    norm: float
    gradient_norm: float
    update_norm: float

    @property
    def relative_update(self) -> float:
        """Size of the displacement relative to the parameter; infinite for a parameter of zeros."""
        if self.norm > 0:
            return self.update_norm / self.norm
        return float("inf") if self.update_norm > 0 else float("nan")

    @property
    def effective_learning_rate(self) -> float:
        """Learning rate with which gradient descent would bring the same decay; NaN without a gradient."""
        return self.decay / self.gradient_norm**2 if self.gradient_norm > 0 else float("nan")


def read_parameters(
    values: Mapping[str, Tensor], gradients: Mapping[str, Tensor], displacements: Mapping[str, Tensor]
) -> dict[str, ParameterNumbers]:
    """Reduce gradients and displacements to numbers.

    Args:
        values: the parameters by name.
        gradients: dL/dw of those that have one.
        displacements: of those that move.

    Returns:
        Numbers by parameter name, for every parameter with a gradient or a displacement.
    """
    numbers = {}
    for name in values:
        if name not in gradients and name not in displacements:
            continue
        value, gradient, displacement = values[name].detach(), gradients.get(name), displacements.get(name)
        numbers[name] = ParameterNumbers(
            decay=0.0 if gradient is None or displacement is None else -inner(gradient, displacement),
            norm=math.sqrt(inner(value, value)),
            gradient_norm=0.0 if gradient is None else math.sqrt(inner(gradient, gradient)),
            update_norm=0.0 if displacement is None else math.sqrt(inner(displacement, displacement)),
        )
    return numbers


def layer_numbers(
    names: Sequence[str],
    sums: Mapping[str, LayerSums],
    decays: Mapping[str, float] | None,
    paths: Mapping[str, Paths] | None,
    own: Mapping[str, Collection[str]] | None = None,
) -> dict[str, np.ndarray]:
    """Compute every variable over layers.

    Args:
        names: the layers in order.
        sums: their sums.
        decays: first-order loss decay by parameter; None if there was no backward pass.
        paths: where each layer lies; None if unknown.
        own: the parameters of each layer, used where paths are unknown.

    Returns:
        Variable name to shape (layers,). What could not be computed is NaN.
    """
    products = np.stack([sums[name].products for name in names])
    entries = np.array([sums[name].entries for name in names], dtype=float)
    square = {index: products[:, index, index] for index in (FEATURES, BACKWARD, CHANGE, REAL)}
    with np.errstate(divide="ignore", invalid="ignore"):
        speed, backward = np.sqrt(square[CHANGE]), np.sqrt(square[BACKWARD])
        error = square[REAL] - 2 * products[:, REAL, CHANGE] + square[CHANGE]
        values = {
            "speed": speed,
            "speed_rms": speed / np.sqrt(entries),
            "real_speed_rms": np.sqrt(square[REAL] / entries),
            "linearity": np.where(square[CHANGE] > 0, np.sqrt(np.maximum(error, 0) / square[CHANGE]), np.nan),
            "activation_rms": np.sqrt(square[FEATURES] / entries),
            "relative_speed": np.where(square[FEATURES] > 0, speed / np.sqrt(square[FEATURES]), np.nan),
        }
        if decays is not None:
            mediated = -products[:, BACKWARD, CHANGE]
            values |= _with_backward(names, values["speed_rms"], speed, backward, mediated, decays, paths, own)
    return values


def _with_backward(
    names: Sequence[str],
    speed_rms: np.ndarray,
    speed: np.ndarray,
    backward: np.ndarray,
    mediated: np.ndarray,
    decays: Mapping[str, float],
    paths: Mapping[str, Paths] | None,
    own: Mapping[str, Collection[str]] | None,
) -> dict[str, np.ndarray]:
    total = sum(decays.values())
    places = [(paths or {}).get(name, _NOWHERE) for name in names]
    known = np.array([paths is not None and place.cut and not place.tied for place in places])
    upstream = np.array([sum(decays.get(item, 0.0) for item in place.upstream) for place in places])
    size = np.array([sum(abs(decays.get(item, 0.0)) for item in place.upstream) for place in places])
    # Where nothing before is trained, no backward signal is computed.
    untrained = np.array([paths is not None and place.cut and not place.upstream for place in places])
    backward = np.where(untrained & (backward == 0), np.nan, backward)
    return {
        "backward_norm": backward,
        "cosine": np.where(speed * backward > 0, mediated / (speed * backward), np.nan),
        "loss_decay": np.where(known, upstream, mediated),
        "share": own_decays(names, decays, paths, own) / (total if total != 0 else np.nan),
        "sensitivity": speed_rms / (abs(total) if total != 0 else np.nan),
        "identity_error": np.where(known & (size > 0), np.abs(mediated - upstream) / size, np.nan),
    }


def own_decays(
    names: Sequence[str],
    decays: Mapping[str, float],
    paths: Mapping[str, Paths] | None,
    own: Mapping[str, Collection[str]] | None = None,
) -> np.ndarray:
    """Give each layer the decay of the parameters that act on it but on no layer before it.

    Args:
        names: the layers in order.
        decays: first-order loss decay by parameter.
        paths: where each layer lies; None if unknown.
        own: the parameters of each layer, used where paths are unknown.

    Returns:
        Shape (layers,). The sum is the whole decay if the last layer is the model's output.
    """
    taken: set[str] = set()
    result = []
    for name in names:
        mine = set(paths[name].upstream if paths is not None else (own or {}).get(name, ())) - taken
        taken |= mine
        result.append(sum(decays.get(item, 0.0) for item in mine))
    return np.array(result)
