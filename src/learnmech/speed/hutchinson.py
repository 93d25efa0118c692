"""The dispersion of any layer, block or net, measured by random directions through its Jacobian."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from learnmech.errors import InputError
from learnmech.monitor.linear_passes import pull, push, quiet
from learnmech.speed.linear_passes import check_probes, jackknife, random_source, sphere_directions

FEWEST_PROBES = 4
MIXING = 1e-6
"""How much of one sample's change may reach another before samples count as mixed, relative to the largest change."""


@dataclasses.dataclass(frozen=True, slots=True)
class Dispersion:
    r"""How unevenly a map stretches directions.

    Attributes:
        dispersion: :math:`v = \tau((J^TJ)^2)/\tau(J^TJ)^2 - 1`, the variance of the squared singular values of J over the
            square of their mean, averaged over the samples that anything passes.
        standard_error: of that number for these samples, from the spread of the random directions.
        mean_square: :math:`\chi = \tau(J^TJ)`, the mean squared singular value, averaged over all samples: the gain of a
            random direction's squared length (times inputs/outputs if lengths are per entry).
        per_sample: the dispersion of each sample; NaN where the Jacobian is zero. Their spread over samples, beyond their
            errors, is real.
        per_sample_error: the standard error of each.
        per_sample_mean_square: :math:`\chi` of each sample.
        probes: how many random directions a sample; None if the whole Jacobian was used, and the numbers are exact.
    """

    dispersion: float
    standard_error: float
    mean_square: float
    per_sample: Float[np.ndarray, " samples"]
    per_sample_error: Float[np.ndarray, " samples"]
    per_sample_mean_square: Float[np.ndarray, " samples"]
    probes: int | None


def dispersion(
    network: nn.Module | Callable[[Tensor], Tensor],
    inputs: Float[Tensor, "samples *shape"],
    *,
    probes: int = 16,
    seed: int = 0,
) -> Dispersion:
    r"""Measure the dispersion of a layer, a block or a whole net at given inputs.

    With the Jacobian J of one sample's output by its N inputs, and directions z uniform on the sphere of squared radius N,

    .. math:: \chi = E\|Jz\|^2/N, \qquad v = \frac{N\,E\|J^TJz\|^2}{(E\|Jz\|^2)^2} - 1,

    where the square is estimated from pairs of different directions, which makes it unbiased, and the bias of the ratio is
    taken out by the jackknife. Each direction costs a forward-mode and a backward pass of the batch. With N up to
    ``probes`` the unit vectors are the directions, and the answer is exact. Source: Hutchinson's estimator of traces (1989), here for the v that
    :func:`predict_cosine` needs (derived here).

    0: all directions alike (orthogonal weights, dynamical isometry). 1: square Gaussian weights, or ReLU alone. 2: both.
    From this on, v of layers in a row add up in a wide net at initialisation, so a block can be measured as one.
    For one layer of a net give what that layer takes as ``inputs``.

    Args:
        network: a module or function from a batch to a tensor with one entry a sample. Modules run in evaluation mode
            (batch norm uses its running statistics, no dropout) and are left as they are.
        inputs: floating-point inputs, the samples along the first dimension.
        probes: directions for each sample, at least 4. The error falls like 1/sqrt(probes * samples).
        seed: of the directions; torch's own random state is not touched.

    Returns:
        The dispersion with its standard error, and the same for each sample. In sums, float64; the network runs in its own
        precision.

    Raises:
        InputError: for inputs that are not a finite floating-point tensor with a sample, an output that is not one entry a
            sample, samples that influence each other (a dispersion has one sample's Jacobian), NaN in the Jacobian, or a
            Jacobian that is zero for every sample.

    Example:
        Squared singular values 1 and 9: mean 5, variance 16, so v = 16/25.

        >>> round(dispersion(lambda x: x * torch.tensor([1.0, 3.0]), torch.zeros(1, 2)).dispersion, 9)
        0.64
        >>> found = dispersion(lambda x: x * torch.tensor([1.0, 3.0]).repeat(500), torch.zeros(1, 1000))
        >>> bool(abs(found.dispersion - 0.64) < 3 * found.standard_error < 0.1)
        True
    """
    check_probes(probes, FEWEST_PROBES)
    _check_inputs(inputs)
    exact = inputs[0].numel() <= probes
    with quiet(network, inputs.device):
        place = inputs.detach().clone()
        count = place[0].numel() if exact else probes
        first, second = _squared_lengths(network, place, count, exact=exact, seed=seed)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("the Jacobian holds NaN or infinite entries; look at the network's outputs for these inputs.")
    if exact:
        with np.errstate(divide="ignore", invalid="ignore"):
            values = second.mean(axis=0) / first.mean(axis=0) ** 2 - 1.0
        errors = np.zeros_like(values)
    else:
        values, errors = jackknife(_relative_variance, first, second)
    passing = np.isfinite(values)
    if not passing.any():
        raise InputError("the Jacobian is zero for every sample: the output does not depend on the inputs there.")
    return Dispersion(
        dispersion=float(values[passing].mean()),
        standard_error=float(np.sqrt(np.sum(errors[passing] ** 2)) / passing.sum()),
        mean_square=float(first.mean()),
        per_sample=values,
        per_sample_error=errors,
        per_sample_mean_square=first.mean(axis=0),
        probes=None if exact else probes,
    )


def _squared_lengths(
    network: Callable[[Tensor], Tensor], place: Tensor, count: int, *, exact: bool, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the squared lengths of Jz and J'Jz for each direction z, taken to have length 1, and each sample."""
    samples, entries = len(place), place[0].numel()
    source = random_source(seed)
    first, second = np.empty((count, samples)), np.empty((count, samples))
    output, back = pull(_checked(network, samples), place)
    _refuse_mixing(network, place)
    for index in range(count):
        if exact:
            direction = torch.zeros(samples, entries, dtype=torch.float64)
            direction[:, index] = 1.0
        else:
            direction = sphere_directions(samples, entries, source)
        pushed = push(network, place, direction.to(place).reshape(place.shape))
        first[index] = _squares(pushed)
        second[index] = _squares(back(pushed.to(output.dtype)))
    length = 1 if exact else entries  # of the directions, squared
    return first / length, second / length


def _relative_variance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    count = len(first)
    pairs = (first.sum(axis=0) ** 2 - np.sum(first**2, axis=0)) / (count * (count - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative: np.ndarray = np.where(pairs > 0, second.mean(axis=0) / pairs - 1.0, np.nan)
    return relative


def _squares(values: Tensor) -> np.ndarray:
    squared: np.ndarray = values.detach().reshape(len(values), -1).to(torch.float64).square().sum(dim=1).cpu().numpy()
    return squared


def _check_inputs(inputs: Tensor) -> None:
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        kind = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise InputError(
            f"inputs must be a floating-point tensor, since a Jacobian is taken by them, but are {kind}; for tokens, give "
            "the embedded ones and the part of the network behind the embedding."
        )
    if inputs.ndim < 2 or inputs.numel() == 0:
        raise InputError(
            f"inputs must have the samples along the first dimension and at least one feature, but have shape "
            f"{tuple(inputs.shape)}."
        )
    if not bool(torch.isfinite(inputs).all()):
        raise InputError(f"inputs hold {int((~torch.isfinite(inputs)).sum())} NaN or infinite entries.")


def _checked(network: Callable[[Tensor], Tensor], samples: int) -> Callable[[Tensor], Tensor]:
    def run(place: Tensor) -> Tensor:
        output = network(place)
        if not isinstance(output, Tensor) or output.ndim == 0 or len(output) != samples:
            came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise InputError(
                f"the network must give a tensor with one entry for each of {samples} samples, but gave {came}."
            )
        return output

    return run


def _refuse_mixing(network: Callable[[Tensor], Tensor], place: Tensor) -> None:
    """Move the first sample alone and see whether the outputs of others move."""
    if len(place) == 1:
        return
    direction = torch.zeros_like(place)
    direction[0] = 1.0
    pushed = push(network, place, direction)
    change = pushed.reshape(len(place), -1).to(torch.float64).abs().amax(dim=1)
    if float(change[1:].max()) > MIXING * float(change.max()):
        raise InputError(
            "samples influence each other in this network (it compares or normalises over the batch), so one sample has no "
            "Jacobian of its own; give one sample at a time, or a network without that."
        )
