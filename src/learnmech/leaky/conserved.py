"""What is conserved along the depth of a leaky ResNet: the pairing of representation and momenta, and balanced weights."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from learnmech.errors import InputError
from learnmech.leaky.representations import (
    require_effective_depth,
    require_like,
    require_representations,
    require_steps,
)


def pairing(
    representation: Shaped[Tensor, "*batch width samples"], momenta: Shaped[Tensor, "*batch width samples"]
) -> Float[Tensor, "*batch"]:
    r"""Compute :math:`\langle A, B \rangle = \mathrm{Tr}[B A^T]`, representation times momenta.

    Source: derived here. Without bias it is the charge that belongs to the scaling of A: with :math:`A_l` and :math:`B_l`
    of the same node it is constant over depth, exactly and at any parameters, trained or not, of continuous and discrete
    nets. With bias it changes by :math:`\rho_l \langle B_l, b_l 1^T \rangle` in each layer, see :func:`pairing_drift`.
    Torch can differentiate it.

    Args:
        representation: A, columns are samples; leading dimensions are separate representations.
        momenta: B, of the same shape and at the same nodes.

    Returns:
        One number a representation, in float64.

    Raises:
        InputError: if shapes do not fit or numbers are not finite.

    Example:
        >>> pairing(torch.tensor([[2.0, 1.0]]), torch.tensor([[0.5, 3.0]]))
        tensor(4., dtype=torch.float64)
    """
    values = require_representations("representation", representation)
    dual = require_like("momenta", momenta, values)
    return (values * dual).sum((-2, -1))


def pairing_drift(
    path: Shaped[Tensor, "*batch nodes width samples"],
    momenta: Shaped[Tensor, "*batch nodes width samples"],
    steps: Shaped[Tensor, " layers"],
    biases: Shaped[Tensor, "*batch layers width"] | None = None,
) -> Float[Tensor, "*batch layers"]:
    r"""Compute by how much each layer breaks the law of the pairing.

    .. math:: \langle A_l, B_l \rangle - \langle A_{l-1}, B_{l-1} \rangle - \rho_l \langle B_l, b_l 1^T \rangle = 0.

    Source: derived here (Euler's theorem on homogeneous functions: a layer without bias is homogeneous in A). It is exact
    at any parameters, so anything but round-off (1e-14 of :math:`\lVert A \rVert_F \lVert B \rVert_F` in float64) means
    that path, momenta, steps and biases are not of one net.

    Args:
        path: A_0 to A_L, (..., layers + 1, width, samples).
        momenta: B_0 to B_L, of the same shape.
        steps: step sizes (layers,), with a sum of 1.
        biases: b_1 to b_L, (..., layers, width), such as ``net.weights[..., -1]``; None for a net without.

    Returns:
        One number a layer, in float64.

    Raises:
        InputError: if shapes do not fit, numbers are not finite, or steps do not add up to 1.

    Example:
        A layer that leaks half of its one neuron: A halves, B doubles.

        >>> path, momenta = torch.tensor([4.0, 2.0]).reshape(2, 1, 1), torch.tensor([0.5, 1.0]).reshape(2, 1, 1)
        >>> pairing_drift(path, momenta, torch.ones(1))
        tensor([0.], dtype=torch.float64)
    """
    values = require_representations("path", path)
    if values.ndim < 3 or values.shape[-3] < 2:
        raise InputError(
            f"path must have the shape (..., layers + 1, width, samples) with at least two nodes, but has {tuple(path.shape)}."
        )
    dual = require_like("momenta", momenta, values)
    layers = values.shape[-3] - 1
    sizes = require_steps(steps, layers).to(values.device)
    change = (values * dual).sum((-2, -1)).diff(dim=-1)
    if biases is None:
        return change
    shifts = require_representations("biases", biases).to(values.device)
    expected = (*values.shape[:-3], layers, values.shape[-2])
    if tuple(shifts.shape) != expected:
        raise InputError(f"biases must have the shape {expected} (..., layers, width), but have {tuple(biases.shape)}.")
    return change - sizes * (dual[..., 1:, :, :].sum(-1) * shifts).sum(-1)


def balancedness(
    weights: Shaped[Tensor, "*batch layers width inputs"],
    steps: Shaped[Tensor, " layers"],
    effective_depth: float,
    *,
    bias: bool = True,
    hamiltonians: Shaped[Tensor, "*batch layers"] | None = None,
) -> Float[Tensor, "*batch layers"]:
    r"""Compute :math:`\lVert W_p \rVert_F^2 - 2\tilde L \int_0^p \lVert b_q \rVert^2\,dq`, which optimal nets keep constant over depth.

    Source: Jacot and Kaiser (arXiv 2405.17573, Proposition 10) for the law, which prints :math:`\tilde L` without the
    factor 2; derived again here: :math:`\lVert W \rVert_F^2 = 2\tilde L H + 2\tilde L^2 \langle A, B \rangle`, where H is
    constant and :math:`\partial_p \langle A, B \rangle = \lVert b \rVert^2/\tilde L`.

    It holds for critical points of the continuous net. Over layers it is constant up to the order of the step sizes only,
    which is no sharp test: critical points with 4 positive neurons and 3 samples at effective depth 3 range over 40, 23
    and 13 % of the mean for 6, 12 and 24 equal layers. (The integral takes half of the own layer, the midpoint rule.)
    Without bias it is :math:`\lVert W_l \rVert_F^2`, exactly constant in discrete nets with equal steps and positive
    representations, but not with unequal steps or where signs change.

    With the Hamiltonian of each layer there is a law without such an error (derived here),

    .. math:: (1 + \rho_l\tilde L) \lVert W_l \rVert_F^2 - 2\tilde L \sum_{k \le l} \rho_k \lVert b_k \rVert^2
        - 2\tilde L (1 - \rho_l\tilde L) H_l = 2\tilde L^2 \langle A_0, B_0 \rangle,

    exact at any critical point of the discrete net, for any step sizes and with or without bias. Its range tells how far a
    net is from :math:`W_l = \tilde L B_l \sigma(A_{l-1})^T`.

    Args:
        weights: W_1 to W_L, (..., layers, width, width + bias), the bias in the last column.
        steps: step sizes (layers,), with a sum of 1.
        effective_depth: :math:`\tilde L`, positive.
        bias: whether the last column of the weights is a bias.
        hamiltonians: :math:`H(A_{l-1}, B_l)`, (..., layers), for the exact law.

    Returns:
        One number a layer, in float64; look at its range over its mean.

    Raises:
        InputError: if shapes do not fit, numbers are not finite, the effective depth is not positive, or steps do not add
            up to 1.

    Example:
        >>> balancedness(torch.tensor([[[3.0, 1.0]], [[3.0, 1.0]]]), torch.tensor([0.5, 0.5]), 2.0)  # 10 - 4 (1/4, 3/4)
        tensor([9., 7.], dtype=torch.float64)
    """
    depth = require_effective_depth(effective_depth)
    linear = require_representations("weights", weights)
    if linear.ndim < 3 or linear.shape[-1] != linear.shape[-2] + int(bias):
        raise InputError(
            f"weights must have the shape (..., layers, width, width{' + 1' if bias else ''}), but have {tuple(weights.shape)}; "
            f"bias={bias}."
        )
    sizes = require_steps(steps, linear.shape[-3]).to(linear.device)
    squares = linear.square().sum((-2, -1))
    gained = sizes * linear[..., -1].square().sum(-1) if bias else torch.zeros_like(squares)
    if hamiltonians is None:
        return squares - 2 * depth * (torch.cumsum(gained, dim=-1) - gained / 2)
    if tuple(hamiltonians.shape) != tuple(squares.shape) or not bool(torch.isfinite(hamiltonians).all()):
        raise InputError(
            f"hamiltonians must be finite, of the shape {tuple(squares.shape)}, one a layer, but have the shape "
            f"{tuple(hamiltonians.shape)}."
        )
    energies = hamiltonians.to(linear.device, torch.float64)
    leak = sizes * depth
    return (1 + leak) * squares - 2 * depth * (torch.cumsum(gained, dim=-1) + (1 - leak) * energies)
