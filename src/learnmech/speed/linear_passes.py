"""What the estimators that multiply with Jacobians share: directions on the sphere, the jackknife."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.errors import InputError

_OWN_STREAM = 0x73706565


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
