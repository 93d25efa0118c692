"""Closed forms for two-layer ReLU nets: tangent kernel, kernel distance, alignment with a teacher, pattern change."""

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.errors import InputError


def two_layer_kernel(
    hidden: Float[Tensor, "*batch neurons inputs"],
    output: Float[Tensor, "*batch neurons"],
    inputs: Float[Tensor, "samples inputs"],
) -> Float[Tensor, "*batch samples samples"]:
    r"""Compute the tangent kernel of :math:`f(x) = \sum_i a_i \max(w_i \cdot x, 0)` in closed form.

    .. math:: K = P P^T + (X X^T) \odot (C\,\mathrm{diag}(a^2)\,C^T), \quad P = \max(X W^T, 0), \; C = 1[X W^T > 0].

    The first term is of the gradients with respect to a, the second of those with respect to W; both with rate 1.

    Source: derivative of f written out; the kernel is that of Jacot, Gabriel and Hongler, arXiv 1806.07572.

    Args:
        hidden: W; leading dimensions are separate nets.
        output: a.
        inputs: X.

    Returns:
        The Gram matrices, in float64. A factor on f multiplies them by its square.

    Raises:
        InputError: if shapes do not fit or numbers are not finite.

    Example:
        >>> two_layer_kernel(torch.tensor([[1.0, 0.0]]), torch.tensor([2.0]), torch.tensor([[3.0, 1.0], [-1.0, 5.0]]))
        tensor([[49.,  0.],
                [ 0.,  0.]], dtype=torch.float64)
    """
    weights, outer, points = _require_net(hidden, output, inputs)
    before = weights @ points.T
    features = before.clamp(min=0)
    active = (before > 0).double()
    slopes = active.transpose(-1, -2) @ (outer.square().unsqueeze(-1) * active)
    kernel: Tensor = features.transpose(-1, -2) @ features + (points @ points.T) * slopes
    return kernel


def kernel_angle(
    first: Float[Tensor, "*batch samples samples"], second: Float[Tensor, "*batch samples samples"]
) -> Float[Tensor, "*batch"]:
    r"""Compute the kernel distance :math:`S = 1 - \langle K_0, K_1 \rangle_F / (\lVert K_0 \rVert_F \lVert K_1 \rVert_F)`, batched.

    Source: Fort et al., arXiv 2010.15110, which calls it the kernel distance; as arXiv 2406.06158 uses it. It is computed as
    half the squared distance of the normalised kernels, which is the same number, and keeps its digits near zero.

    Args:
        first: Gram matrices, such as those at the start.
        second: Gram matrices of the same samples.

    Returns:
        One number a pair, from 0 (proportional kernels: lazy) to 1; NaN where a kernel is zero.
    """
    units = [
        kernel / torch.linalg.vector_norm(kernel, dim=(-2, -1), keepdim=True)
        for kernel in (first.double(), second.double())
    ]
    squares: Tensor = (units[0] - units[1]).square().sum((-2, -1))
    return squares / 2


def teacher_alignment(
    hidden: Float[Tensor, "*batch neurons inputs"],
    output: Float[Tensor, "*batch neurons"],
    teacher: Float[Tensor, "teachers inputs"],
    teacher_signs: Float[Tensor, " teachers"],
) -> Float[Tensor, "*batch"]:
    r"""Compute how well neurons point along the teacher's.

    Each neuron takes the largest cosine of :math:`w_i` to a teacher's direction of the sign of :math:`a_i`; the answer is the mean
    over neurons with weights :math:`|a_i| \lVert w_i \rVert`. Neurons of a sign that no teacher has are left out (ours).

    Source: arXiv 2406.06158, student-teacher experiment; with no formula there, the definition is that of its code as we read it.

    Args:
        hidden: W; leading dimensions are separate nets.
        output: a.
        teacher: directions of the teacher's neurons.
        teacher_signs: signs of their output weights.

    Returns:
        One number a net, at most 1: every neuron that counts lies on a teacher's direction. NaN where none counts.

    Raises:
        InputError: if shapes do not fit or numbers are not finite.

    Example:
        >>> w, a = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([1.0, -1.0])
        >>> teacher_alignment(w, a, torch.tensor([[1.0, 0.0]]), torch.tensor([1.0]))
        tensor(0.6000, dtype=torch.float64)
    """
    weights, outer, directions = _require_net(hidden, output, teacher)
    if tuple(teacher_signs.shape) != directions.shape[:1]:
        raise InputError(
            f"teacher_signs must be one a teacher, {directions.shape[0]}, got {tuple(teacher_signs.shape)}."
        )
    norms = torch.linalg.vector_norm(weights, dim=-1)
    units = weights / norms.unsqueeze(-1).clamp(min=torch.finfo(torch.float64).tiny)
    cosines = units @ (directions / torch.linalg.vector_norm(directions, dim=1, keepdim=True)).T
    alike = outer.unsqueeze(-1) * teacher_signs.to(outer) > 0
    best = torch.where(alike, cosines, -torch.inf).amax(-1)
    counts = alike.any(-1)
    sizes = torch.where(counts, outer.abs() * norms, 0.0)
    return (sizes * torch.where(counts, best, 0.0)).sum(-1) / sizes.sum(-1)


def pattern_change(
    first: Float[Tensor, "*batch neurons inputs"],
    second: Float[Tensor, "*batch neurons inputs"],
    inputs: Float[Tensor, "samples inputs"],
) -> Float[Tensor, "*batch"]:
    r"""Compute the share of pairs of sample and neuron whose activation changed, :math:`1[w \cdot x > 0] \ne 1[w_0 \cdot x > 0]`.

    Source: the Hamming distance of activation patterns, arXiv 2406.06158, student-teacher experiment.

    Args:
        first: W at the start; leading dimensions are separate nets.
        second: W now.
        inputs: X.

    Returns:
        One number a net, 0 to 1; about 1/2 for unrelated weights.

    Example:
        >>> pattern_change(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        tensor(0.5000, dtype=torch.float64)
    """
    points = inputs.to(first.device, first.dtype).T
    return ((first @ points > 0) != (second @ points > 0)).double().mean((-2, -1))


def _require_net(hidden: Tensor, output: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if hidden.ndim < 2 or tuple(output.shape) != tuple(hidden.shape[:-1]):
        raise InputError(
            f"hidden (..., neurons, inputs) and output (..., neurons) do not fit: {tuple(hidden.shape)}, {tuple(output.shape)}."
        )
    if rows.ndim != 2 or rows.shape[1] != hidden.shape[-1] or not len(rows):
        raise InputError(
            f"expected rows of {hidden.shape[-1]} numbers, at least one, got the shape {tuple(rows.shape)}."
        )
    if not all(bool(torch.isfinite(values).all()) for values in (hidden, output, rows)):
        raise InputError("weights and inputs must be finite.")
    return hidden.double(), output.double(), rows.to(hidden.device, torch.float64)
