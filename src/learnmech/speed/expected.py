"""The cosine to expect of every layer of a network, so that nobody takes a small one for a fault, or the other way round."""

import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np

from learnmech.errors import InputError
from learnmech.speed.layer_dispersion import activation_dispersion
from learnmech.speed.predict import predict_cosine

_ACTIVATIONS = {
    "ReLU": "relu",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "GELU": "gelu",
    "SiLU": "silu",
    "ELU": "elu",
    "Softplus": "softplus",
}


def expected_cosine(
    names: Sequence[str],
    kinds: Sequence[str],
    cosine: np.ndarray,
    share: np.ndarray,
    widths: np.ndarray,
    dispersions: Mapping[str, float],
) -> np.ndarray:
    r"""Predict the cosine of cut nodes of a network from their shares and the dispersions in between, for its batch.

    .. math::
        \cos_l \approx \cos^{data} \, (c_l^{-2} + v_{\phi,l})^{-1/2},

    with :math:`c_l` of :func:`predict_cosine` for one input and :math:`v_\phi` the dispersion of the activation that a layer is
    read after. A batch takes away nearly the same factor :math:`\cos^{data}` at every depth; it is the median over blocks of
    measured over predicted. So the level is measured, and the profile over depth is predicted: a layer that falls out of it
    is unusual.

    Source: derived here. Valid for random weights and gradient descent; for ReLU networks with skip connections up to 20 %
    too low in the deep layers, and only a guide for networks that have learned, for attention and for Adam-like updates.

    Args:
        names: the cut nodes in order, from the first that moves.
        kinds: the modules of each layer, as ``LayerChoice`` lists them.
        cosine: measured, for the level.
        share: share of the loss decay of each.
        widths: entries of one sample's features at each.
        dispersions: layer name to dispersion of the Jacobian from the layer before.

    Returns:
        One number a node; NaN from the first missing dispersion on, or where shares do not allow it.
    """
    expected = np.full(len(names), np.nan)
    spread = np.array([dispersions.get(name, np.nan) for name in names])
    known = len(names)
    for position in range(1, len(names)):
        if not np.isfinite(spread[position]):
            known = position
            break
    if known == 0 or not np.isfinite(share[:known]).all():
        return expected
    spread = spread[:known].copy()
    spread[0] = 0.0
    size = np.asarray(widths[:known], dtype=float)
    spread[1:] = np.maximum(spread[1:], size[:-1] / size[1:] - 1)  # estimates may fall below what is possible
    try:
        inner = predict_cosine(share[:known], spread, widths=size)
    except InputError:  # shares that sum to nothing, or less
        return expected
    after = np.array([_after_activation(kind) for kind in kinds[:known]])
    with np.errstate(divide="ignore", invalid="ignore"):
        single = 1 / np.sqrt(inner**-2 + after)
        level = np.asarray(cosine[:known]) / single
    level = level[np.isfinite(level) & (level > 0)]
    if len(level) > 0:
        expected[:known] = float(np.median(level[:-1] if len(level) > 2 else level)) * single
    return expected


@functools.cache
def _after_activation(kinds: str) -> float:
    """Dispersion of the activation that a layer is read after; 0 if there is none, or one that is not known."""
    last = [kind for kind in kinds.split(" + ") if not re.search("Pool|Norm|Dropout|Flatten", kind)][-1:]
    if last == ["LeakyReLU"]:
        return activation_dispersion("relu")  # up to the square of its slope
    return activation_dispersion(_ACTIVATIONS[last[0]]) if last and last[0] in _ACTIVATIONS else 0.0
