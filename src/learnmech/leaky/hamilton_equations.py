"""Hamilton's equations of representations: how a pair of representation and momentum moves with depth."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from learnmech.leaky.representations import (
    activated,
    require_effective_depth,
    require_like,
    require_representations,
    times_kernel,
)


def velocity(
    representation: Shaped[Tensor, "*batch width samples"],
    momentum: Shaped[Tensor, "*batch width samples"],
    effective_depth: float,
    *,
    bias: bool = True,
) -> Float[Tensor, "*batch width samples"]:
    r"""Compute how fast representations move, :math:`\dot A = \partial H/\partial B = \tilde L (B K - A)`.

    :math:`K = \sigma(A)^T\sigma(A)` with :math:`\sigma(A) = [\max(A, 0); 1]`; the same as
    :math:`-\tilde L A + W\sigma(A)` with :math:`W = \tilde L B\sigma(A)^T`. Source: Jacot and Kaiser (arXiv 2405.17573),
    Hamilton's equations. No pseudo-inverse is needed, and any momentum is allowed.

    Args:
        representation: A, columns are samples; leading dimensions are separate pairs.
        momentum: B, of the same shape.
        effective_depth: the leak, positive.
        bias: whether a row of ones is appended to the activations.

    Returns:
        The velocity, in units of A per depth, in float64.

    Raises:
        InputError: if shapes differ, a number is not real and finite, or the effective depth is not positive.

    Example:
        With one positive neuron and no bias, :math:`\tilde L (B a^2 - a)`:

        >>> velocity(torch.tensor([[2.0]]), torch.tensor([[1.0]]), 3.0, bias=False).item()
        6.0
    """
    values = require_representations("representation", representation)
    return plain_velocity(
        values, require_like("momentum", momentum, values), require_effective_depth(effective_depth), bias=bias
    )


def momentum_velocity(
    representation: Shaped[Tensor, "*batch width samples"],
    momentum: Shaped[Tensor, "*batch width samples"],
    effective_depth: float,
    *,
    bias: bool = True,
) -> Float[Tensor, "*batch width samples"]:
    r"""Compute how fast momenta move, :math:`\dot B = -\partial H/\partial A`.

    .. math:: \dot B = \tilde L\big(B - \dot\sigma(A)\odot(\max(A, 0)\,B^TB)\big), \qquad \dot\sigma(0) = 0.

    Source: Jacot and Kaiser (arXiv 2405.17573), Hamilton's equations. It holds where no entry of A is 0: where one stays
    at 0 for a while, the momentum may follow any slope of the kink in [0, 1] (derived here).

    Args:
        representation: A, columns are samples; leading dimensions are separate pairs.
        momentum: B, of the same shape.
        effective_depth: the leak, positive.
        bias: changes nothing, since the row of ones does not move; it is there so that both equations are called alike.

    Returns:
        The velocity of the momentum, in units of B per depth, in float64.

    Raises:
        InputError: if shapes differ, a number is not real and finite, or the effective depth is not positive.

    Example:
        With one positive neuron, :math:`\tilde L (B - a B^2)`:

        >>> momentum_velocity(torch.tensor([[2.0]]), torch.tensor([[1.0]]), 3.0).item()
        -3.0
    """
    del bias
    values = require_representations("representation", representation)
    return plain_momentum_velocity(
        values, require_like("momentum", momentum, values), require_effective_depth(effective_depth)
    )


def plain_velocity(representation: Tensor, momentum: Tensor, effective_depth: float, *, bias: bool) -> Tensor:
    """Compute :func:`velocity` without checks.

    Args:
        representation: A in float64.
        momentum: B in float64.
        effective_depth: the leak.
        bias: whether a row of ones is appended to the activations.

    Returns:
        The velocity.
    """
    return effective_depth * (times_kernel(momentum, activated(representation, bias=bias)) - representation)


def plain_momentum_velocity(representation: Tensor, momentum: Tensor, effective_depth: float) -> Tensor:
    """Compute :func:`momentum_velocity` without checks.

    Args:
        representation: A in float64.
        momentum: B in float64.
        effective_depth: the leak.

    Returns:
        The velocity of the momentum.
    """
    pull = times_kernel(representation.clamp(min=0), momentum)
    return effective_depth * (momentum - torch.where(representation > 0, pull, 0.0))


def plain_hamiltonian(representation: Tensor, momentum: Tensor, effective_depth: float, *, bias: bool) -> Tensor:
    r"""Compute :math:`H = \frac{\tilde L}{2}\lVert B\sigma(A)^T\rVert_F^2 - \tilde L\,\mathrm{Tr}[BA^T]` without checks.

    Args:
        representation: A in float64.
        momentum: B in float64.
        effective_depth: the leak.
        bias: whether a row of ones is appended to the activations.

    Returns:
        The energy, one number a pair.
    """
    weights = momentum @ activated(representation, bias=bias).mT
    pairing = (momentum * representation).sum(dim=(-2, -1))
    return effective_depth * (weights.square().sum(dim=(-2, -1)) / 2 - pairing)
