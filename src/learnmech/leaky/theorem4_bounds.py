"""Theorem 4 of Jacot and Kaiser: how far energies with a ridge can be from the Hamiltonian, checked on given paths."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from learnmech.errors import InputError
from learnmech.leaky.hamilton_equations import plain_velocity
from learnmech.leaky.hamiltonians import hamiltonian
from learnmech.leaky.metric import Metric
from learnmech.leaky.representations import (
    require_effective_depth,
    require_like,
    require_representations,
    require_ridges,
    require_steps,
)

_ROUND_OFF = 1e-9


@dataclass(frozen=True, eq=False)
class TheoremBound:
    """A number and the two between which the theorem puts it."""

    low: Float[Tensor, "*batch"]
    """The least that is allowed."""
    value: Float[Tensor, "*batch"]
    """What was measured."""
    high: Float[Tensor, "*batch"]
    """The most that is allowed."""

    @property
    def holds(self) -> Bool[Tensor, "*batch"]:
        """Whether the value lies between, up to a relative 1e-9 for round-off."""
        room = _ROUND_OFF * (self.value.abs() + self.low.abs() + self.high.abs())
        return (self.low - room <= self.value) & (self.value <= self.high + room)


@dataclass(frozen=True, eq=False)
class Theorem4:
    """What :func:`theorem4` found; each tensor has one number a node, and those about whole paths one a path."""

    ridge: float
    """The ridge."""
    largest_momentum: Float[Tensor, "*batch"]
    """c: the largest norm of the momenta along a path; without steps the norm at each node."""
    hamiltonian: Float[Tensor, "*batch"]
    """H(A, B)."""
    ridge_hamiltonian: Float[Tensor, "*batch"]
    """The Hamiltonian from energies with a ridge."""
    residual: Float[Tensor, "*batch"]
    """How far both sides of the identity differ, over the sum of the sizes of its four terms: round-off, or the code is wrong."""
    difference: TheoremBound
    """(2/depth) (H - H_ridge)."""
    speed: TheoremBound
    """The norm of the velocity."""
    dimension: TheoremBound | None
    """The effective dimension, averaged with the step sizes, minus the least identity cost; None without steps."""
    path_length: Float[Tensor, "*paths"] | None
    """The integral of the norm of the velocity; None without steps."""


def theorem4(
    representation: Shaped[Tensor, "*batch width samples"],
    momenta: Shaped[Tensor, "*batch width samples"],
    effective_depth: float,
    ridge: float,
    steps: Shaped[Tensor, " layers"] | None = None,
    *,
    bias: bool = True,
) -> Theorem4:
    r"""Check the identity and the three bounds of Theorem 4, that relate the Hamiltonian to energies with a ridge.

    For any A and B, with the velocity :math:`\partial_p A = \tilde L(BK - A)` that they imply,

    .. math:: H = \tfrac{1}{2\tilde L} \lVert \partial_p A + \gamma\tilde L B \rVert_{K+\gamma}^2
        - \tfrac{\tilde L}{2} \lVert A \rVert_{K+\gamma}^2 - \tfrac{\gamma\tilde L}{2} \lVert B \rVert_F^2,

    and with :math:`\lVert B \rVert_F \le c` and the path length :math:`\ell = \int \lVert \partial_p A
    \rVert_{K+\gamma}\,dp`

    .. math::
        \left|\tfrac{2}{\tilde L}(H - H_\gamma)\right| &\le \tfrac{2}{\tilde L}\sqrt\gamma\,c\,\lVert \partial_p A \rVert_{K+\gamma} + \gamma c^2 \\
        \left|\lVert \partial_p A \rVert_{K+\gamma} - \tilde L\sqrt{\max(0, \lVert A \rVert_{K+\gamma}^2 + 2H/\tilde L)}\right|
            &\le 2\tilde L\sqrt\gamma\,c \\
        -\left(\ell/\tilde L + \sqrt\gamma\,c\right)^2 &\le -\tfrac{2}{\tilde L} H - \min_p \lVert A_p \rVert_{K+\gamma}^2
        \le \gamma c^2.

    Source: Jacot and Kaiser (arXiv 2405.17573), Theorem 4; the identity is derived here and implies the bounds. The first
    preprint writes :math:`c` for what is :math:`c^2` here.

    The identity and the first two bounds hold at every node whatever A and B are; a failure means that the computation is
    wrong (or lost in round-off, for ridges near 1e-16 of the largest eigenvalue of K). The third is about a path on which
    H is constant. A net with finitely many layers has a Hamiltonian per node, of which the average weighted with step
    sizes is taken, and the bound can fail where H is far from constant: on untrained or coarse nets. The velocity is that
    of the flow, not the difference of representations; both agree at a critical point.

    Args:
        representation: A, (..., width, samples); for a path (..., layers, width, samples), :math:`A_{l-1}` for l = 1 .. L.
        momenta: B, of the same shape; for a path :math:`B_l`.
        effective_depth: :math:`\tilde L`, positive.
        ridge: :math:`\gamma`, one positive number.
        steps: step sizes (layers,), with a sum of 1, if the third dimension from the end is a path; without them every
            node is on its own, c is the norm of its momenta, and there is no third bound.
        bias: whether :math:`\sigma(A)` has a row of ones.

    Returns:
        The numbers, with ``holds`` on each bound.

    Raises:
        InputError: if shapes do not fit, numbers are not finite, the ridge or effective depth is not positive, or steps
            do not add up to 1.

    Example:
        >>> found = theorem4(torch.eye(3), torch.eye(3), 4.0, 0.01)
        >>> bool(found.residual < 1e-12), bool(found.difference.holds), bool(found.speed.holds)
        (True, True, True)
    """
    depth = require_effective_depth(effective_depth)
    ridges, single = require_ridges(ridge)
    if not single or float(ridges) == 0:
        raise InputError(f"theorem4 takes one positive ridge, but {ridge!r} came.")
    gamma = float(ridges)
    values = require_representations("representation", representation).detach()
    dual = require_like("momenta", momenta, values).detach()
    if steps is not None and values.ndim < 3:
        raise InputError(
            f"with steps, representations need the shape (..., layers, width, samples), but have {tuple(values.shape)}."
        )
    sizes = None if steps is None else require_steps(steps, values.shape[-3]).to(values.device)

    metric = Metric(values, bias=bias)
    velocity = plain_velocity(values, dual, depth, bias=bias)
    energy = hamiltonian(values, dual, depth, bias=bias)
    cost = metric.squared_norm(values, ridges)[..., 0]
    square_speed = metric.squared_norm(velocity, ridges)[..., 0]
    shifted = metric.squared_norm(velocity + gamma * depth * dual, ridges)[..., 0]
    square_momentum = dual.square().sum((-2, -1))

    speed = square_speed.sqrt()
    with_ridge = square_speed / (2 * depth) - depth / 2 * cost
    terms = torch.stack([energy, -shifted / (2 * depth), depth / 2 * cost, gamma * depth / 2 * square_momentum])
    whole = terms.abs().sum(0)
    residual = terms.sum(0).abs() / whole.where(whole > 0, 1.0)
    largest = square_momentum.sqrt()
    if sizes is not None:
        largest = largest.amax(-1, keepdim=True)
    margin = gamma**0.5 * largest
    expected = depth * (cost + 2 * energy / depth).clamp(min=0).sqrt()
    slack = 2 / depth * margin * speed + margin.square()
    difference = TheoremBound(-slack, 2 / depth * (energy - with_ridge), slack)
    bound = TheoremBound(expected - 2 * depth * margin, speed, expected + 2 * depth * margin)
    if sizes is None:
        return Theorem4(gamma, largest, energy, with_ridge, residual, difference, bound, None, None)
    length = (speed * sizes).sum(-1)
    peak = margin[..., 0]
    average = -2 / depth * (energy * sizes).sum(-1)
    dimension = TheoremBound(-(length / depth + peak).square(), average - cost.amin(-1), peak.square())
    return Theorem4(gamma, largest[..., 0], energy, with_ridge, residual, difference, bound, dimension, length)
