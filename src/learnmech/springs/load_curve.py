"""The load curve and the numbers that describe its shape."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from learnmech.errors import InputError
from learnmech.springs.regression import regression_load
from learnmech.springs.separation import separation


def load_curve(
    features: Sequence[Shaped[Tensor, "samples *features"]],
    labels: Shaped[Tensor, "samples *targets"],
    kind: Literal["trace", "pinv", "mse", "rmse"] = "trace",
) -> Float[Tensor, "layers+1"]:
    """Measure the load :math:`D_l` of every layer: what is still to be done after layer l.

    For classes (``trace``, ``pinv``) this is :func:`~learnmech.springs.separation`; for real-valued targets (``mse``,
    ``rmse``) it is :func:`~learnmech.springs.regression_load`. Source: Shi, Pan, Dokmanić 2024 (arXiv 2407.19353).
    The paper's curve goes from the normalised input to the last hidden layer; it leaves the logits out.

    Args:
        features: the network's input first, then each layer's output in order; widths may differ.
        labels: integer classes, or targets for the regression kinds.
        kind: which measure.

    Returns:
        One number a layer, float64.

    Raises:
        InputError: as the measures do; the message names the position of the layer.

    Example:
        Each layer halves the spread inside the two classes, so the load falls by ln 4 a layer:

        >>> import torch
        >>> x, labels = torch.tensor([[-1.5], [-0.5], [0.5], [1.5]]), torch.tensor([0, 0, 1, 1])
        >>> centre = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]])
        >>> layers = [centre + (x - centre) / 2**k for k in range(4)]
        >>> increments(load_curve(layers, labels)).exp()
        tensor([4.0000, 4.0000, 4.0000], dtype=torch.float64)
    """
    if len(features) == 0:
        raise InputError("the load curve needs the features of at least one layer, but none came.")
    loads = []
    for position, layer in enumerate(features):
        try:
            if kind == "mse" or kind == "rmse":
                loads.append(regression_load(layer, labels, kind))
            else:
                loads.append(separation(layer, labels, kind))
        except InputError as error:
            raise InputError(f"layer {position}: {error}") from error
    return torch.stack([load.to(loads[0].device) for load in loads])


def increments(load_curve: Float[Tensor, "*batch layers+1"] | Any) -> Float[Tensor, "*batch layers"]:
    """Compute the contribution :math:`d_l = D_{l-1} - D_l` of each layer: what layer l adds to the separation.

    Args:
        load_curve: loads with the layers last; a tensor, array, sequence or data array.

    Returns:
        Contributions; positive where the layer separates the classes further. They sum to D_0 - D_n.

    Raises:
        InputError: for fewer than two loads.

    Example:
        >>> increments([2.0, 1.5, 0.5])
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    return -_as_curve(load_curve, 2).diff(dim=-1)


def curvature(load_curve: Float[Tensor, "*batch layers+1"] | Any) -> Float[Tensor, "*batch"]:
    r"""Compute the normalised parabola coefficient q of a load curve: which way it bends, free of scale.

    With :math:`u_l = l/n` and :math:`\hat D_l = (D_l - D_n)/(D_0 - D_n)`, q is the quadratic coefficient of the
    least-squares parabola through :math:`(u_l, \hat D_l)`. It uses every layer, where the paper's c uses two.

    Args:
        load_curve: loads with the layers last; a tensor, array, sequence or data array.

    Returns:
        q: below 0 concave (deep layers do the work: lazy), 0 linear (balanced), above 0 convex (early layers do the work:
        active). A parabola of coefficient q leaves the straight line by at most abs(q)/4 of the total drop. NaN where the
        curve does not drop or rise at all. Not meaningful where the total drop is within its noise.

    Raises:
        InputError: for fewer than three loads.

    Example:
        >>> curvature([4.0, 3.0, 2.0, 1.0]).abs() < 1e-12
        tensor(True)
        >>> u = torch.linspace(0, 1, 6, dtype=torch.float64)
        >>> curvature(5 * (1 - u) - 2 * u * (1 - u))  # (1 - u) + 0.4 (u^2 - u), times 5
        tensor(0.4000, dtype=torch.float64)
    """
    curve = _as_curve(load_curve, 3)
    last = curve.shape[-1] - 1
    depth = torch.arange(last + 1, dtype=torch.float64, device=curve.device) / last
    square = (depth - 0.5).square()
    parabola = square - square.mean()  # orthogonal to constants and, by symmetry, to lines
    drop = curve[..., 0] - curve[..., -1]
    coefficient = (curve @ parabola) / parabola.square().sum() / drop
    return torch.where(drop == 0, torch.nan, coefficient)


def linearity(load_curve: Float[Tensor, "*batch layers+1"] | Any) -> Float[Tensor, "*batch"]:
    r"""Compute how straight a load curve is: :math:`R^2 = \mathrm{corr}(l, D_l)^2`.

    He and Su 2023 (arXiv 2210.17020) call curves with :math:`R^2` near 1 equi-separating.

    Args:
        load_curve: loads with the layers last; a tensor, array, sequence or data array.

    Returns:
        R squared in [0, 1]; 1 is a straight line. NaN for a constant curve. It does not tell which way a curve bends: see
        :func:`curvature`.

    Raises:
        InputError: for fewer than three loads.

    Example:
        >>> linearity([4.0, 3.0, 2.0, 1.0])
        tensor(1., dtype=torch.float64)
    """
    curve = _as_curve(load_curve, 3)
    depth = torch.arange(curve.shape[-1], dtype=torch.float64, device=curve.device)
    depth = depth - depth.mean()
    deviation = curve - curve.mean(dim=-1, keepdim=True)
    spread = depth.square().sum() * deviation.square().sum(dim=-1)
    return torch.where(spread == 0, torch.nan, (deviation @ depth).square() / spread).clamp(max=1)


def end_difference(load_curve: Float[Tensor, "*batch layers+1"] | Any) -> Float[Tensor, "*batch"]:
    """Compute :math:`c = d_1 - d_n`, the first contribution minus the last, as the paper's code reports it.

    Source: ``v_and_c`` of the reference code, on the curve from the normalised input to the last hidden layer. The sum of
    its second differences telescopes to this, so it sees the first and the last layer only; read :func:`curvature` and
    :func:`linearity` beside it.

    Args:
        load_curve: loads with the layers last, without the logits; a tensor, array, sequence or data array.

    Returns:
        c in natural-log units: below 0 concave, above 0 convex.

    Raises:
        InputError: for fewer than three loads.

    Example:
        >>> end_difference([3.0, 2.5, 1.5, 0.0])
        tensor(-1., dtype=torch.float64)
    """
    contributions = -_as_curve(load_curve, 3).diff(dim=-1)
    return contributions[..., 0] - contributions[..., -1]


def _as_curve(load_curve: Any, least: int) -> Tensor:
    if not isinstance(load_curve, Tensor):
        load_curve = torch.from_numpy(np.array(load_curve, dtype=np.float64))
    if load_curve.ndim == 0 or load_curve.shape[-1] < least:
        raise InputError(
            f"the load curve must hold at least {least} loads along its last dimension, but has shape "
            f"{tuple(load_curve.shape)}."
        )
    curve: Tensor = load_curve.to(torch.float64)
    return curve
