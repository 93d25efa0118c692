"""Energies of a representation in motion: potential, kinetic, their cross term and the Lagrangian; the length of a path."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from learnmech.errors import InputError
from learnmech.leaky.cost_of_identity import identity_cost
from learnmech.leaky.metric import TOLERANCE, Metric
from learnmech.leaky.representations import (
    Ridges,
    require_effective_depth,
    require_like,
    require_representations,
    require_ridges,
)

Representation = Shaped[Tensor, "*batch width samples"]
Energy = Float[Tensor, "*batch"] | Float[Tensor, "*batch ridges"]


def potential_energy(
    representation: Representation,
    effective_depth: float,
    *,
    ridge: Ridges = 0.0,
    bias: bool = True,
    tolerance: float = TOLERANCE,
) -> Energy:
    r"""Compute the potential energy of a representation, :math:`-\frac{\tilde L}{2} \lVert A \rVert_{K+\gamma}^2`.

    Source: Jacot and Kaiser (arXiv 2405.17573). It is minus half the effective depth times the identity cost, with all
    that :func:`learnmech.leaky.identity_cost` says about ridges, infinity (here minus infinity) and derivatives.
    Representations of low dimension are hills of this potential, and deep nets spend most of their depth near their tops.

    Args:
        representation: A, columns are samples; leading dimensions are separate representations.
        effective_depth: :math:`\tilde L`, positive.
        ridge: :math:`\gamma`, or several, which share one decomposition.
        bias: whether the layers have a bias.
        tolerance: for ridge 0, what counts as zero, see :class:`learnmech.leaky.Metric`.

    Returns:
        One number a representation, in float64; with several ridges one more dimension at the end.

    Raises:
        InputError: if an argument is out of range or has the wrong shape.

    Example:
        >>> potential_energy(torch.eye(3), 4.0, bias=False)
        tensor(-6., dtype=torch.float64)
    """
    depth = require_effective_depth(effective_depth)
    return -depth / 2 * identity_cost(representation, ridge=ridge, bias=bias, tolerance=tolerance)


def kinetic_energy(
    representation: Representation,
    velocity: Representation,
    effective_depth: float,
    *,
    ridge: Ridges = 0.0,
    bias: bool = True,
    tolerance: float = TOLERANCE,
) -> Energy:
    r"""Compute the kinetic energy of a moving representation, :math:`\frac{1}{2\tilde L} \lVert \partial_p A \rVert_{K+\gamma}^2`.

    Source: Jacot and Kaiser (arXiv 2405.17573). :math:`(K+\gamma)^{-1}` is the mass matrix: motions along directions that
    the activations hardly span are heavy. Where one representation after another is known, the velocity of the step that
    leaves node l is :math:`(A_{l+1} - A_l)/\rho_{l+1}`, to be put together with the representation :math:`A_l`.

    At ridge 0 kinetic and potential energy can both be large and cancel (they grow like :math:`\eta^{-2}` as a needed
    direction of size :math:`\eta` vanishes, while the Hamiltonian stays finite), and both are infinite where the image of
    A or of its velocity leaves that of the activations. Then the split of :func:`lagrangian` into three terms does not
    exist. Use a ridge, or :func:`learnmech.leaky.hamiltonian`, which needs no inverse. The result is detached.

    Args:
        representation: A, columns are samples; leading dimensions are separate representations.
        velocity: :math:`\partial_p A`, of the same shape, per unit of depth p in [0, 1].
        effective_depth: :math:`\tilde L`, positive.
        ridge: :math:`\gamma`, or several, which share one decomposition.
        bias: whether the layers have a bias.
        tolerance: for ridge 0, what counts as zero, see :class:`learnmech.leaky.Metric`.

    Returns:
        One number a representation, in float64; with several ridges one more dimension at the end.

    Raises:
        InputError: if an argument is out of range or has the wrong shape.

    Example:
        Without bias, one neuron and one sample: (1/2)/4 (8/2)^2.

        >>> kinetic_energy(torch.tensor([[2.0]]), torch.tensor([[8.0]]), 4.0, bias=False)
        tensor(2., dtype=torch.float64)
    """
    depth = require_effective_depth(effective_depth)

    def energy(metric: Metric, moved: Tensor, ridges: Tensor) -> Tensor:
        return metric.squared_norm(moved, ridges) / (2 * depth)

    return _energy(energy, representation, velocity, ridge, bias, tolerance)


def cross_term(
    representation: Representation,
    velocity: Representation,
    *,
    ridge: Ridges = 0.0,
    bias: bool = True,
    tolerance: float = TOLERANCE,
) -> Energy:
    r"""Compute what couples a representation and its velocity in the Lagrangian, :math:`\langle \partial_p A, A \rangle_{K+\gamma}`.

    Source: Jacot and Kaiser (arXiv 2405.17573). Integrated over depth it depends on the path alone, not on how fast it is
    passed, so it plays no part in how a path distributes its speed. For linear nets it integrates to the logarithm of a
    ratio of pseudo-determinants at both ends. The result is detached.

    Args:
        representation: A, columns are samples; leading dimensions are separate representations.
        velocity: :math:`\partial_p A`, of the same shape.
        ridge: :math:`\gamma`, or several, which share one decomposition.
        bias: whether the layers have a bias.
        tolerance: for ridge 0, what counts as zero, see :class:`learnmech.leaky.Metric`.

    Returns:
        One number a representation, in float64; with several ridges one more dimension at the end. For ridge 0 it is the
        limit of small ridges, which is infinite, with a sign, if both A and its velocity leave the image of the
        activations.

    Raises:
        InputError: if an argument is out of range or has the wrong shape.

    Example:
        >>> cross_term(torch.tensor([[2.0]]), torch.tensor([[8.0]]), bias=False)
        tensor(4., dtype=torch.float64)
    """

    def energy(metric: Metric, moved: Tensor, ridges: Tensor) -> Tensor:
        return metric.inner(moved, metric.representation, ridges)

    return _energy(energy, representation, velocity, ridge, bias, tolerance)


def lagrangian(
    representation: Representation,
    velocity: Representation,
    effective_depth: float,
    *,
    ridge: Ridges = 0.0,
    bias: bool = True,
    tolerance: float = TOLERANCE,
) -> Energy:
    r"""Compute the price per depth of moving a representation at some velocity.

    .. math::
        \mathcal L = \frac{1}{2\tilde L} \lVert \tilde L A + \partial_p A \rVert_{K+\gamma}^2
        = \frac{\tilde L}{2} \lVert A \rVert_{K+\gamma}^2 + \langle \partial_p A, A \rangle_{K+\gamma}
        + \frac{1}{2\tilde L} \lVert \partial_p A \rVert_{K+\gamma}^2

    Source: Jacot and Kaiser (arXiv 2405.17573), with :math:`\gamma = 0`. It is :math:`\lVert W \rVert_F^2/(2\tilde L)` of
    the least weights that realise the motion (:func:`least_norm_weights`); its integral over depth, times the penalty, is
    what the weights of a net cost. It is computed from the first form, which is finite even where the three terms of the
    split (minus :func:`potential_energy`, :func:`cross_term`, :func:`kinetic_energy`) are not: the leak :math:`-\tilde L
    A` costs nothing, so :math:`\partial_p A = -\tilde L A` always has Lagrangian 0. The result is detached.

    Args:
        representation: A, columns are samples; leading dimensions are separate representations.
        velocity: :math:`\partial_p A`, of the same shape, per unit of depth p in [0, 1].
        effective_depth: :math:`\tilde L`, positive.
        ridge: :math:`\gamma`, or several, which share one decomposition.
        bias: whether the layers have a bias.
        tolerance: for ridge 0, what counts as zero, see :class:`learnmech.leaky.Metric`.

    Returns:
        One number a representation, in float64; with several ridges one more dimension at the end. For ridge 0 infinite
        where no weights realise the motion.

    Raises:
        InputError: if an argument is out of range or has the wrong shape.

    Example:
        To stand still costs half the effective depth for each dimension.

        >>> lagrangian(torch.eye(3), torch.zeros(3, 3), 4.0, bias=False)
        tensor(6., dtype=torch.float64)
    """
    depth = require_effective_depth(effective_depth)

    def energy(metric: Metric, moved: Tensor, ridges: Tensor) -> Tensor:
        return metric.squared_norm(depth * metric.representation + moved, ridges) / (2 * depth)

    return _energy(energy, representation, velocity, ridge, bias, tolerance)


def least_norm_weights(
    representation: Representation,
    velocity: Representation,
    effective_depth: float,
    *,
    ridge: float = 0.0,
    bias: bool = True,
    tolerance: float = TOLERANCE,
) -> Float[Tensor, "*batch width inputs"]:
    r"""Compute the least weights that move a representation at some velocity, :math:`W = (\tilde L A + \partial_p A)\,\sigma(A)^+`.

    With a ridge, :math:`W = (\tilde L A + \partial_p A)(K+\gamma)^{-1}\sigma(A)^T`. Source: Jacot and Kaiser (arXiv
    2405.17573); the form with a ridge is derived here: it minimises :math:`\lVert W \rVert_F^2 + \frac1\gamma \lVert
    W\sigma(A) - \tilde L A - \partial_p A \rVert_F^2`. Trained nets have such weights only as far as they are trained.
    The result is detached.

    Args:
        representation: A, columns are samples; leading dimensions are separate representations.
        velocity: :math:`\partial_p A`, of the same shape, per unit of depth p in [0, 1].
        effective_depth: :math:`\tilde L`, positive.
        ridge: :math:`\gamma`, one number.
        bias: whether the weights have a last column for the row of ones.
        tolerance: for ridge 0, what counts as zero, see :class:`learnmech.leaky.Metric`.

    Returns:
        W, (..., width, width + bias). With ridge 0 and a motion that no weights realise (:func:`lagrangian` is infinite)
        the least-squares solution of least norm.

    Raises:
        InputError: if an argument is out of range or has the wrong shape.

    Example:
        >>> least_norm_weights(torch.tensor([[2.0]]), torch.tensor([[2.0]]), 4.0, bias=False)
        tensor([[5.]], dtype=torch.float64)
    """
    depth = require_effective_depth(effective_depth)
    ridges, single = require_ridges(ridge)
    if not single:
        raise InputError(f"least_norm_weights takes one ridge, but {len(ridges)} came.")
    metric = Metric(representation, bias=bias, tolerance=tolerance)
    moved = require_like("velocity", velocity, metric.representation).detach()
    return metric.weights(depth * metric.representation + moved, float(ridges))


def path_length(
    path: Shaped[Tensor, "*batch nodes width samples"],
    *,
    ridge: Ridges,
    bias: bool = True,
    tolerance: float = TOLERANCE,
) -> Energy:
    r"""Compute the length of a path of representations, :math:`\sum_l \lVert A_l - A_{l-1} \rVert_{K_{l-1}+\gamma}`.

    Source: Jacot and Kaiser (arXiv 2405.17573) for :math:`\int \lVert \partial_p A \rVert_{K+\gamma}\,dp`, which enters
    Theorem 4; the sum over steps is ours, with the metric at the node that a step leaves, as everywhere here, and an
    error of the order of the step sizes. A length does not depend on how fast its path is passed, so step sizes play no
    part. The result is detached.

    Args:
        path: A_0 to A_L, (..., layers + 1, width, samples), at least two nodes.
        ridge: :math:`\gamma`, or several. Ridge 0 gives infinity as soon as one step leaves the image of the activations,
            as steps of paths with more samples than neurons do.
        bias: whether the layers have a bias.
        tolerance: for ridge 0, what counts as zero, see :class:`learnmech.leaky.Metric`.

    Returns:
        One number a path, in float64; with several ridges one more dimension at the end.

    Raises:
        InputError: if an argument is out of range or has the wrong shape.

    Example:
        One neuron, one sample, no bias: from 1 to 2 to 4, each step doubles.

        >>> path_length(torch.tensor([1.0, 2.0, 4.0]).reshape(3, 1, 1), ridge=0.0, bias=False)
        tensor(2., dtype=torch.float64)
    """
    nodes = require_representations("path", path).detach()
    if nodes.ndim < 3 or nodes.shape[-3] < 2:
        raise InputError(
            f"path must have the shape (..., layers + 1, width, samples) with at least two nodes, but has {tuple(path.shape)}."
        )
    ridges, single = require_ridges(ridge)
    metric = Metric(nodes[..., :-1, :, :], bias=bias, tolerance=tolerance)
    lengths = metric.squared_norm(nodes.diff(dim=-3), ridges).sqrt().sum(-2)
    return lengths[..., 0] if single else lengths


def _energy(
    energy: Callable[[Metric, Tensor, Tensor], Tensor],
    representation: Tensor,
    velocity: Tensor,
    ridge: Ridges,
    bias: bool,
    tolerance: float,
) -> Energy:
    ridges, single = require_ridges(ridge)
    metric = Metric(representation, bias=bias, tolerance=tolerance)
    moved = require_like("velocity", velocity, metric.representation).detach()
    with torch.no_grad():
        energies = energy(metric, moved, ridges)
    return energies[..., 0] if single else energies
