"""What the estimators that multiply with Jacobians share: a quiet model, directions on the sphere, the jackknife."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from learnmech.errors import InputError
from learnmech.monitor.tangent import load_rules, plain_kernels_only
from learnmech.monitor.untouched import untouched

_OWN_STREAM = 0x73706565


@contextlib.contextmanager
def quiet(network: object, device: torch.device) -> Iterator[None]:
    """Run a network for Jacobian products and leave no trace: evaluation mode, no graph, no fused kernels.

    Fused attention and recurrent layers have no forward-mode derivative, so they run as plain matrix products inside.

    Args:
        network: a module, put back afterwards as :func:`learnmech.monitor.untouched.untouched` does, or a function.
        device: where it runs.

    Yields:
        Nothing.
    """
    load_rules()
    with contextlib.ExitStack() as stack:
        if isinstance(network, nn.Module):
            stack.enter_context(untouched(network, device))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(plain_kernels_only())
        stack.enter_context(
            torch.no_grad()
        )  # torch.func differentiates all the same, only torch's own graph is not kept
        yield


def random_source(seed: int) -> np.random.Generator:
    """Make the source of random directions of a seed.

    Its stream is unlike torch's and NumPy's own of the same seed: weights or data drawn with that seed would otherwise BE the
    directions, which the estimators take to be independent of them.

    Args:
        seed: not negative.

    Returns:
        A generator.

    Raises:
        InputError: for a negative seed, or something other than an integer.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise InputError(f"seed must be an integer of at least 0, got {seed!r}.")
    return np.random.default_rng([seed, _OWN_STREAM])


def sphere_directions(samples: int, entries: int, source: np.random.Generator) -> Float[Tensor, "samples entries"]:
    r"""Draw directions uniformly on the sphere of squared radius ``entries``, so that :math:`E[zz^T] = I`.

    Against normal entries this leaves out the noise of the length: an isotropic matrix is found without any error.

    Args:
        samples: how many directions.
        entries: dimension.
        source: of random numbers.

    Returns:
        Directions in float64 on the CPU.
    """
    normal = torch.from_numpy(source.standard_normal((samples, entries)))
    directions: Tensor = normal * (entries**0.5 / normal.norm(dim=1, keepdim=True))
    return directions


def push(function: Callable[[Any], Tensor], place: Any, direction: Any) -> Tensor:
    """Multiply with a Jacobian, in one forward-mode pass: :math:`Jz`.

    Args:
        function: of a tensor, or of tensors by name.
        place: where.
        direction: z, of the form of ``place``.

    Returns:
        The product, of the form of the function's value.
    """
    product: Tensor = torch.func.jvp(function, (place,), (direction,))[1]
    return product


def pull(function: Callable[[Any], Tensor], place: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """Run a function and keep what multiplies with its transposed Jacobian, in one backward pass each: :math:`J^Tu`.

    Args:
        function: of a tensor, or of tensors by name.
        place: where.

    Returns:
        The function's value, and a function from u, of the form of that value, to the product, of the form of ``place``.
    """
    results = torch.func.vjp(function, place)
    back = results[1]
    value: Tensor = results[0]
    return value, lambda cotangent: back(cotangent)[0]


def jackknife(
    statistic: Callable[..., Float[np.ndarray, "*rest"]], *draws: Float[np.ndarray, "draws *rest"]
) -> tuple[Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"]]:
    r"""Estimate a statistic of independent draws, and its standard error, by leaving out one draw at a time.

    .. math:: \hat s = P s - (P - 1)\bar s, \qquad
        \mathrm{se}^2 = \frac{P - 1}{P}\sum_p (s_{-p} - \bar s)^2, \qquad \bar s = \frac1P\sum_p s_{-p}

    The first takes out the bias of order 1/P that a ratio of means has. Source: Quenouille 1956; Tukey 1958.

    Args:
        statistic: of arrays with the draws along the first dimension.
        *draws: P draws of each quantity.

    Returns:
        The estimate, and its standard error.
    """
    count = len(draws[0])
    without = np.stack([statistic(*(np.delete(draw, index, axis=0) for draw in draws)) for index in range(count)])
    spread = np.sum((without - without.mean(axis=0)) ** 2, axis=0)
    estimate = count * statistic(*draws) - (count - 1) * without.mean(axis=0)
    return estimate, np.sqrt((count - 1) / count * spread)


def check_probes(probes: int, least: int) -> None:
    """Check a number of random directions.

    Args:
        probes: how many.
        least: the fewest that give a standard error.

    Raises:
        InputError: for fewer, or something other than an integer.
    """
    if not isinstance(probes, int) or isinstance(probes, bool) or probes < least:
        raise InputError(
            f"probes must be an integer of at least {least}, since errors come from their spread, got {probes!r}."
        )
