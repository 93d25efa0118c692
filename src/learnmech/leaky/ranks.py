"""How many dimensions a representation or a spectrum has, and how much of a representation is negative."""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from learnmech.errors import InputError
from learnmech.leaky.representations import require_representations


def stable_rank(representation: Shaped[Tensor, "*batch width samples"]) -> Float[Tensor, "*batch"]:
    r"""Compute the stable rank of a matrix, :math:`\lVert A \rVert_*^2 / \lVert A \rVert_F^2 = (\sum_i s_i)^2 / \sum_i s_i^2`.

    Source: Jacot and Kaiser (arXiv 2405.17573), Proposition 1: the identity cost without bias is never lower. It moves
    continuously, is at most the rank, which it reaches for equal singular values, and at least :math:`\lVert A
    \rVert_F^2/\lVert A \rVert_\mathrm{op}^2`, which others call stable rank. It does not depend on scale, and a large
    mean over samples pulls it towards 1. Torch can differentiate it where singular values are distinct.

    Args:
        representation: A, columns are samples; leading dimensions are separate matrices.

    Returns:
        One number a matrix, in float64; NaN for a matrix of zeros.

    Raises:
        InputError: if A is not a real finite tensor of at least two dimensions with entries.

    Example:
        >>> stable_rank(torch.eye(4)), stable_rank(torch.diag(torch.tensor([3.0, 1.0])))  # 4; 16/10
        (tensor(4., dtype=torch.float64), tensor(1.6000, dtype=torch.float64))
    """
    values = require_representations("representation", representation)
    spectrum: Tensor = torch.linalg.svdvals(values)
    top = spectrum.detach()[..., :1]
    shares = spectrum / top  # no square overflows; NaN without any size
    return shares.sum(-1).square() / shares.square().sum(-1)


def bottleneck_rank(spectrum: Shaped[Tensor, "*batch values"], threshold: float = 0.5) -> Int[Tensor, "*batch"]:
    r"""Count the singular values above a share of the largest, :math:`\#\{i : s_i > \texttt{threshold} \cdot s_1\}`.

    Source: learnmech; Jacot and Kaiser (arXiv 2405.17573) read the same off their figures. It suits the weights in the
    middle of a deep leaky ResNet, whose spectrum splits in a few values a little above the effective depth and the rest
    near 0; any threshold in between gives the same number there. Where the spectrum does not split, the number is the
    threshold's, not the net's: look at the spectrum. Representations need not split: their singular values can differ in
    scale.

    Args:
        spectrum: singular values along the last dimension, in any order.
        threshold: in [0, 1).

    Returns:
        One count a spectrum; 0 if all values are zero.

    Raises:
        InputError: for values that are negative, complex, NaN or infinite, none at all, or a threshold outside [0, 1).

    Example:
        >>> bottleneck_rank(torch.tensor([13.3, 12.6, 12.2, 11.5, 0.08, 0.01]))
        tensor(4)
    """
    if not 0 <= threshold < 1:
        raise InputError(f"threshold must lie in [0, 1), but is {threshold!r}.")
    if not isinstance(spectrum, Tensor) or spectrum.ndim == 0 or spectrum.numel() == 0:
        came = tuple(spectrum.shape) if isinstance(spectrum, Tensor) else type(spectrum).__name__
        raise InputError(f"spectrum must be a tensor of singular values (..., values), but {came} came.")
    if spectrum.is_complex() or not bool((torch.isfinite(spectrum) & (spectrum >= 0)).all()):
        raise InputError(
            "singular values must be finite and at least 0, but NaN, infinite, complex or negative ones came."
        )
    count: Tensor = (spectrum > threshold * spectrum.amax(-1, keepdim=True)).sum(-1)
    return count


def negativity(representation: Shaped[Tensor, "*batch width samples"]) -> Float[Tensor, "*batch"]:
    r"""Compute the share of a representation that is negative, :math:`\lVert \max(-A, 0) \rVert_F / \lVert A \rVert_F`.

    Source: learnmech, for the claim of Jacot and Kaiser (arXiv 2405.17573, Proposition 2) that minima of the identity
    cost are non-negative. In a deep leaky ResNet it is large at both ends and falls to almost 0 where the net moves
    slowly; there the identity cost can be read as a rank. For entries that are as often positive as negative it is
    :math:`\sqrt{1/2}`.

    Args:
        representation: A, columns are samples; leading dimensions are separate representations.

    Returns:
        One number a representation, in [0, 1], in float64; NaN for a representation of zeros.

    Raises:
        InputError: if A is not a real finite tensor of at least two dimensions with entries.

    Example:
        >>> negativity(torch.tensor([[4.0, -3.0]]))
        tensor(0.6000, dtype=torch.float64)
    """
    values = require_representations("representation", representation)
    whole = torch.linalg.vector_norm(values, dim=(-2, -1))
    negative = torch.linalg.vector_norm(values.clamp(max=0), dim=(-2, -1))
    share: Tensor = negative / whole
    return share
