"""The Hamiltonian of a representation and its momenta, what Pontryagin calls its pre-Hamiltonian, and the form with a ridge."""

from jaxtyping import Float, Shaped
from torch import Tensor

from learnmech.errors import InputError
from learnmech.leaky.metric import TOLERANCE, Metric
from learnmech.leaky.representations import (
    Ridges,
    activated,
    require_effective_depth,
    require_like,
    require_representations,
    require_ridges,
)

Representation = Shaped[Tensor, "*batch width samples"]


def hamiltonian(
    representation: Representation, momenta: Representation, effective_depth: float, *, bias: bool = True
) -> Float[Tensor, "*batch"]:
    r"""Compute the Hamiltonian, :math:`H(A, B) = \frac{\tilde L}{2} \lVert B\,\sigma(A)^T \rVert_F^2 - \tilde L\,\mathrm{Tr}[B A^T]`.

    B are the momenta, :math:`-\frac1\lambda \partial C/\partial A` (:func:`learnmech.leaky.momenta`). On optimal paths H
    is constant over depth, and where A lies in the image of its activations it is kinetic plus potential energy. No
    inverse is needed. Source: Jacot and Kaiser (arXiv 2405.17573).

    **Pairing.** A critical point of a net with finitely many layers takes steps of symplectic Euler, in which
    :math:`A_{l-1}` goes with :math:`B_l` (derived here): give ``path[:-1]`` and ``momenta[1:]``. Pairing :math:`A_l` with
    :math:`B_l` adds an error of the order of the step. Even so H varies over layers by the order of the step size, and it
    is meaningless where a net is not trained to a critical point: look at :func:`learnmech.leaky.stationarity`, and use
    :func:`pre_hamiltonian`, which suffers less. Torch can differentiate it: :math:`\partial H/\partial B = \tilde L(BK -
    A)` is the velocity of A.

    Args:
        representation: A, columns are samples; leading dimensions are separate representations.
        momenta: B, of the same shape.
        effective_depth: :math:`\tilde L`, positive.
        bias: whether :math:`\sigma(A)` has a row of ones.

    Returns:
        One number a representation, in float64, in units of the cost over the penalty.

    Raises:
        InputError: if shapes do not fit, numbers are not finite, or the effective depth is not positive.

    Example:
        One neuron at rest, A = 2 and B = 1/2, no bias: -depth/2 for its one dimension.

        >>> import torch
        >>> hamiltonian(torch.tensor([[2.0]]), torch.tensor([[0.5]]), 4.0, bias=False)
        tensor(-2., dtype=torch.float64)
    """
    depth = require_effective_depth(effective_depth)
    return -depth / 2 * effective_dimension(representation, momenta, depth, bias=bias)


def effective_dimension(
    representation: Representation, momenta: Representation, effective_depth: float, *, bias: bool = True
) -> Float[Tensor, "*batch"]:
    r"""Compute the effective dimension, :math:`k_H = -\frac{2}{\tilde L} H(A, B) = 2\,\mathrm{Tr}[B A^T] - \lVert B\,\sigma(A)^T \rVert_F^2`.

    Source: Jacot and Kaiser (arXiv 2405.17573) for the Hamiltonian in these units. On a trained net it is almost constant
    over depth, rises with the effective depth, stays below the smallest identity cost (plus a term of the order of a
    ridge, if the cost has one), and approaches the number of dimensions that the bottleneck keeps. It is negative at
    small effective depths, where kinetic energy prevails. At a critical point its mean over depth, weighted with step
    sizes, is :math:`\frac2\lambda \partial J/\partial\tilde L` (derived here). What :func:`hamiltonian` says on pairing
    and on untrained nets holds here, too.

    Args:
        representation: A, columns are samples; leading dimensions are separate representations.
        momenta: B, of the same shape.
        effective_depth: :math:`\tilde L`, positive. It cancels; momenta contain it already.
        bias: whether :math:`\sigma(A)` has a row of ones.

    Returns:
        One number a representation, in float64.

    Raises:
        InputError: if shapes do not fit, numbers are not finite, or the effective depth is not positive.

    Example:
        Three neurons at rest, no bias.

        >>> import torch
        >>> effective_dimension(2 * torch.eye(3), torch.eye(3) / 2, 4.0, bias=False)
        tensor(3., dtype=torch.float64)
    """
    require_effective_depth(effective_depth)
    values = require_representations("representation", representation)
    dual = require_like("momenta", momenta, values)
    weights = dual @ activated(values, bias=bias).mT
    return 2 * (dual * values).sum((-2, -1)) - weights.square().sum((-2, -1))


def pre_hamiltonian(
    representation: Representation,
    momenta: Representation,
    weights: Shaped[Tensor, "*batch width inputs"],
    effective_depth: float,
    *,
    bias: bool = True,
) -> Float[Tensor, "*batch"]:
    r"""Compute the pre-Hamiltonian, the Hamiltonian before the weights are optimal.

    .. math:: P(A, B, W) = \langle B, W\sigma(A) - \tilde L A \rangle - \frac{\lVert W \rVert_F^2}{2\tilde L}
        \;\le\; \max_W P = H(A, B), \quad \text{at } W = \tilde L\,B\,\sigma(A)^T.

    Source: derived here (Pontryagin's principle for the cost of Jacot and Kaiser, arXiv 2405.17573). For a net with
    layers l on the pairing :math:`(A_{l-1}, B_l, W_l)` the derivative of its cost with respect to a step size is
    :math:`\partial J/\partial\rho_l = -\lambda P_l`, exactly, at any parameters. It equals the Hamiltonian at a critical
    point and is the better estimate of it close to one: its error is of second order in the residual :math:`W - \tilde L
    B\sigma(A)^T`, since :math:`H - P = \lVert W - \tilde L B\sigma(A)^T \rVert_F^2/(2\tilde L)`. It does not replace
    training to a critical point. Torch can differentiate it.

    Args:
        representation: A, columns are samples; leading dimensions are separate representations.
        momenta: B, of the same shape.
        weights: W, (..., width, width + bias), the bias in the last column.
        effective_depth: :math:`\tilde L`, positive.
        bias: whether :math:`\sigma(A)` has a row of ones.

    Returns:
        One number a representation, in float64.

    Raises:
        InputError: if shapes do not fit, numbers are not finite, or the effective depth is not positive.

    Example:
        One neuron, A = 2 and B = 1/2, no bias; weight 4 is optimal, weight 0 lets it leak.

        >>> import torch
        >>> A, B = torch.tensor([[2.0]]), torch.tensor([[0.5]])
        >>> pre_hamiltonian(A, B, torch.tensor([[4.0]]), 4.0, bias=False)
        tensor(-2., dtype=torch.float64)
        >>> pre_hamiltonian(A, B, torch.tensor([[0.0]]), 4.0, bias=False)
        tensor(-4., dtype=torch.float64)
    """
    depth = require_effective_depth(effective_depth)
    values = require_representations("representation", representation)
    dual = require_like("momenta", momenta, values)
    linear = require_representations("weights", weights).to(values.device)
    active = activated(values, bias=bias)
    expected = (*values.shape[:-1], active.shape[-2])
    if tuple(linear.shape) != expected:
        raise InputError(
            f"weights must have the shape {expected} (..., width, width{' + 1' if bias else ''}), but have "
            f"{tuple(weights.shape)}; bias={bias}."
        )
    drive = (dual * (linear @ active - depth * values)).sum((-2, -1))
    return drive - linear.square().sum((-2, -1)) / (2 * depth)


def ridge_hamiltonian(
    representation: Representation,
    velocity: Representation,
    effective_depth: float,
    *,
    ridge: Ridges,
    bias: bool = True,
    tolerance: float = TOLERANCE,
) -> Float[Tensor, "*batch"] | Float[Tensor, "*batch ridges"]:
    r"""Compute the Hamiltonian from energies with a ridge.

    .. math:: H_\gamma = \frac{1}{2\tilde L} \lVert \partial_p A \rVert_{K+\gamma}^2 - \frac{\tilde L}{2} \lVert A \rVert_{K+\gamma}^2

    Source: Jacot and Kaiser (arXiv 2405.17573). Unlike :func:`hamiltonian` it varies over depth, more so for larger
    ridges; how far it can be from it is Theorem 4 of the paper, checked by :func:`learnmech.leaky.theorem4`. It needs
    representations only, no momenta. The result is detached.

    Args:
        representation: A, columns are samples; leading dimensions are separate representations.
        velocity: :math:`\partial_p A`, of the same shape, per unit of depth p in [0, 1].
        effective_depth: :math:`\tilde L`, positive.
        ridge: :math:`\gamma`, or several, which share one decomposition.
        bias: whether the layers have a bias.
        tolerance: for ridge 0, what counts as zero, see :class:`learnmech.leaky.Metric`.

    Returns:
        One number a representation, in float64; with several ridges one more dimension at the end. For ridge 0 NaN where
        both energies are infinite.

    Raises:
        InputError: if an argument is out of range or has the wrong shape.

    Example:
        >>> import torch
        >>> ridge_hamiltonian(torch.tensor([[2.0]]), torch.tensor([[0.0]]), 4.0, ridge=4.0, bias=False)  # -4/2 * 4/(4 + 4)
        tensor(-1.0000, dtype=torch.float64)
    """
    depth = require_effective_depth(effective_depth)
    ridges, single = require_ridges(ridge)
    metric = Metric(representation, bias=bias, tolerance=tolerance)
    moved = require_like("velocity", velocity, metric.representation)
    kinetic = metric.squared_norm(moved, ridges) / (2 * depth)
    energies = kinetic - depth / 2 * metric.squared_norm(metric.representation, ridges)
    return energies[..., 0] if single else energies
