"""The cosine between backward pass and feature change in a wide residual net, where neighbouring layers share masks."""

from typing import get_args

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from learnmech.errors import InputError
from learnmech.speed.predict import WideNetActivation, check_shares, cosine_from_moments, per_layer, predict_cosine


def predict_residual_cosine(
    skip: ArrayLike, branch: ArrayLike, shares: ArrayLike, *, activation: WideNetActivation = "relu"
) -> Float[np.ndarray, " layers"]:
    r"""Predict the cosine of each layer of a wide residual net :math:`f_s = a_s f_{s-1} + b_s V_s\,\phi(f_{s-1})`.

    V has independent Gaussian entries that keep the size of the features (variance 2/width with ReLU, 1/width without
    activation), and :math:`a_s^2 + b_s^2 = 1` after a common factor is taken out of both, which no cosine depends on. Along a
    skip the same units stay on: :math:`R(\rho) = 1/2 - \arccos(\rho)/(2\pi)` is the chance that a unit is on in two layers
    whose features have correlation :math:`\rho`. With :math:`S_s = C_1 + \dots + C_s`, :math:`A_s = 2a_s^2b_s^2S_{s-1}^2`,
    and zero before layer 2,

    .. math::
        U_s(j) &= a_s^2\,U_{s-1}(j) + A_s\,R(a_sa_{s+1}\cdots a_j), \quad j \ge s, \qquad
        u_s = a_s^2\,u_{s-1} + A_s/2 \\
        g_s &= g_{s-1} + 4b_s^2\,U_{s-1}(s-1) + 2b_s^4 S_{s-1}^2 \\
        w_l &= (a_{l+1}\cdots a_L)^2\,u_l + 2\sum_{j=l}^{L-1} b_{j+1}^2\,(a_{l+1}\cdots a_j)^2\,U_l(j) \\
        \cos\theta_l &= S_l/\sqrt{S_l^2 + g_l + u_l + w_l}

    Here g + 2u is the variance of the kernel's eigenvalues, and w - u what the backward pass adds to it, which is larger on
    units that stay on in the layers above (zero at the last layer).

    With a = 0 it is :func:`predict_cosine` with dispersion 2. At the last layer of a deep net with one
    :math:`b = c/\sqrt L` and equal shares it depends on c alone: .9795, .9225, .7514, .469, .247, .126 for
    c = 1/4, 1/2, 1, 2, 4, 8, and 1/c for large c. Without activation there are no masks, and it is :func:`predict_cosine` with
    dispersion :math:`2a^2b^2 + b^4`.

    Source: derived here, a mean-field calculation checked by simulation, not proved. That the angle stays away from 0 and 90
    degrees only for b of order 1/sqrt(depth) is in the abstract of Chizat and Netrapalli (arXiv 2311.18718).

    Holds at initialisation, for one input, gradient descent, and width well above depth. The features are the residual
    stream. See :func:`predict_cosine` for batches.

    Args:
        skip: a, at least 0: one number or one a layer. 1 is the usual skip.
        branch: b, at least 0: one number or one a layer. A branch that normalises the stream first,
            :math:`f + V\phi(f/\mathrm{rms} f)` on a stream that starts with size 1, has :math:`a = 1, b_k = 1/\sqrt k`.
        shares: contributions of ALL layers up to the read-out, as in :func:`predict_cosine`; the first is the first trained
            block, whose own skip and branch play no part. A block that is not trained has 0.
        activation: ``relu`` or ``linear``.

    Returns:
        One cosine a layer, float64; NaN before the first share.

    Raises:
        InputError: for lengths that do not fit, NaN, infinite or negative a or b, both zero in a layer, shares that
            :func:`predict_cosine` refuses, or an unknown activation.

    Example:
        >>> predict_residual_cosine(0.0, 1.0, np.ones(4)).round(4).tolist()  # no skip: sqrt of 1, 2/3, 9/19, 4/11
        [1.0, 0.8165, 0.6882, 0.603]
        >>> float(predict_residual_cosine(1.0, 1 / 8, np.ones(64))[-1].round(3))  # b = 1/sqrt(depth)
        0.759
    """
    if activation not in get_args(WideNetActivation):
        raise InputError(f"activation must be 'relu' or 'linear', but is {activation!r}.")
    contributions = check_shares(shares)
    layers = len(contributions)
    kept, added = _normalised(per_layer("skip", skip, layers), per_layer("branch", branch, layers))
    if activation == "linear":
        return predict_cosine(contributions, 2 * kept**2 * added**2 + added**4)
    reached = np.cumsum(contributions)
    return cosine_from_moments(reached, _noise(kept, added, reached))


def _normalised(kept: np.ndarray, added: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    for name, values in (("skip", kept), ("branch", added)):
        if bool(np.any(values < 0)):
            raise InputError(f"{name} must not be negative, but entry {int(np.flatnonzero(values < 0)[0])} is.")
    size = np.hypot(kept, added)
    if bool(np.any(size == 0)):
        layer = int(np.flatnonzero(size == 0)[0])
        raise InputError(f"skip and branch are both zero in layer {layer}: nothing passes it.")
    return kept / size, added / size


def _noise(kept: np.ndarray, added: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """Compute g + u + w of each layer, in units of squared shares."""
    layers = len(kept)
    noise = np.zeros(layers)
    on_later = np.zeros(layers)  # U(j)
    spread_evenly = on_average = 0.0  # g and u
    for layer in range(1, layers):
        before = float(reached[layer - 1] ** 2)
        spread_evenly += 4 * added[layer] ** 2 * on_later[layer - 1] + 2 * added[layer] ** 4 * before
        cross = 2 * kept[layer] ** 2 * added[layer] ** 2 * before  # A
        likeness = np.minimum(np.cumprod(kept[layer:]), 1.0)
        on_later[layer:] *= kept[layer] ** 2
        on_later[layer:] += cross * (0.5 - np.arccos(likeness) / (2 * np.pi))
        on_average = kept[layer] ** 2 * on_average + cross / 2
        decay = np.cumprod(np.concatenate([[1.0], kept[layer + 1 :] ** 2]))
        seen_backward = on_average * decay[-1]
        seen_backward += 2 * np.sum(added[layer + 1 :] ** 2 * decay[:-1] * on_later[layer : layers - 1])  # w
        noise[layer] = spread_evenly + on_average + seen_backward
    return noise
