"""The data angle: what a batch alone takes from the cosine, in closed form for one linear map."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from learnmech.errors import InputError


def data_cosine(
    inputs: Shaped[Tensor, "samples *features"], backward: Shaped[Tensor, "samples *outputs"], *, bias: bool = False
) -> Float[Tensor, ""]:
    r"""Compute the cosine of one linear layer :math:`f = XW^T` under a gradient step on W, for a batch, exactly.

    .. math:: \cos\theta = \frac{\mathrm{tr}(SG)}{\sqrt{\mathrm{tr}(S)\,\mathrm{tr}(SG^2)}}, \qquad G = XX^T, \quad S = BB^T

    (n x n Gram matrices of inputs X and backward pass B, one row a sample; tokens are samples too). The step changes
    f by :math:`-\eta GB`: samples drag along others that resemble them, so it is 1 only where G acts on B as a multiple of
    the identity, such as for one sample, or for orthogonal inputs of one size. Source: derived here (exact algebra).

    It is the baseline of a batch: every layer of a net inherits it, on top of what :func:`predict_cosine` says for one
    sample. Never compare cosines of a batch with constants for one sample; compare each with that of the first layer.

    Args:
        inputs: what the layer takes, one entry a sample along the first dimension; the rest is flattened.
        backward: derivative of the loss with respect to the layer's output, likewise. Its scale plays no part.
        bias: whether a bias is trained at the same rate; it adds 1 to every entry of G.

    Returns:
        The cosine in [0, 1], a float64 scalar; NaN if B or the feature change GB is zero.

    Raises:
        InputError: for shapes that do not fit, no sample, NaN, infinite or complex entries.

    Example:
        Two orthogonal inputs of norm 1 and 2 with orthonormal backward rows: 5/sqrt(34).

        >>> data_cosine(torch.diag(torch.tensor([1.0, 2.0])), torch.eye(2))
        tensor(0.8575, dtype=torch.float64)
    """
    rows, gradient = _rows("inputs", inputs), _rows("backward", backward)
    if len(rows) != len(gradient):
        raise InputError(
            f"inputs and backward need one entry a sample each, but have shapes {tuple(inputs.shape)} and "
            f"{tuple(backward.shape)}."
        )
    gradient = _of_size_one(gradient.to(rows.device))
    if bias:
        rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
    rows = _of_size_one(rows)
    change = _of_size_one(rows @ (rows.T @ gradient))
    cosine: Tensor = (gradient * change).sum() / (gradient.norm() * change.norm())
    return cosine


def data_cosine_rank_one(
    inputs: Shaped[Tensor, "samples *features"], output_gradient: Shaped[Tensor, " samples"]
) -> Float[Tensor, ""]:
    r"""Compute the data angle of a deep linear net with one output: :math:`\chi^TG\chi/(\|\chi\|\,\|G\chi\|)`.

    :func:`data_cosine` for a backward pass of rank one, :math:`b_l(x_i) = \chi_i\,u_l`, as in every layer of a linear net
    with the output derivative :math:`\chi_i` of sample i. While the Gram matrix G is the same up to scale in all layers (wide linear
    nets at initialisation), the cosine of a batch is this times the cosine for one sample
    (:func:`predict_cosine`). With ReLU the product is only roughly right, since samples have different masks. Source:
    derived here; the product checked by simulation.

    Args:
        inputs: what the first layer takes, one entry a sample.
        output_gradient: :math:`\chi`, derivative of the loss with respect to the net's output, one number a sample.

    Returns:
        The cosine in [0, 1], a float64 scalar; NaN if :math:`G\chi` is zero.

    Raises:
        InputError: for more than one number a sample, or what :func:`data_cosine` refuses.

    Example:
        >>> data_cosine_rank_one(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([1.0, 1.0]))
        tensor(0.8575, dtype=torch.float64)
    """
    if output_gradient.ndim == 0 or output_gradient.numel() != len(output_gradient):
        raise InputError(
            f"output_gradient must hold one number a sample, but its shape is {tuple(output_gradient.shape)}; for more "
            "outputs give the backward pass to data_cosine."
        )
    return data_cosine(inputs, output_gradient.reshape(-1, 1))


def _rows(name: str, values: Tensor) -> Float[Tensor, "samples entries"]:
    if not isinstance(values, Tensor):
        raise InputError(f"{name} must be a tensor, but is a {type(values).__name__}.")
    if values.ndim == 0 or values.numel() == 0:
        raise InputError(
            f"{name} must have at least one sample with one entry, but its shape is {tuple(values.shape)}."
        )
    if values.is_complex():
        raise InputError(f"{name} must be real, but is {values.dtype}.")
    rows = values.detach().reshape(len(values), -1).to(torch.float64)
    if not bool(torch.isfinite(rows).all()):
        raise InputError(f"{name} hold {int((~torch.isfinite(rows)).sum())} NaN or infinite entries.")
    return rows


def _of_size_one(rows: Tensor) -> Tensor:
    """Divide by the largest entry, so that no square overflows or vanishes."""
    peak = rows.abs().amax()
    return rows / torch.where(peak > 0, peak, 1.0)
