"""The cosine between backward pass and feature change that a wide net should have, from loss shares and dispersions."""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from learnmech.errors import InputError

WideNetActivation = Literal["relu", "linear"]

SMALLEST_DISPERSION = -1e-6
"""A dispersion is a variance; an estimate of zero may fall below it by rounding, not by more than this."""

RANK_SLACK = 0.05
"""How far an estimated dispersion may fall below the least one that a layer of its widths can have, relative to 1 + v."""


def predict_cosine(
    shares: ArrayLike, dispersion: ArrayLike, *, widths: ArrayLike | None = None
) -> Float[np.ndarray, " layers"]:
    r"""Predict the cosine of each layer of a wide feed-forward net for one input, under gradient descent.

    .. math:: \cos\theta_l = \Big[1 + \frac{N_l}{S_l^2}\sum_{i=2}^{l}
        \Big(v_i + 1 - \frac{N_{i-1}}{N_i}\Big)\frac{S_{i-1}^2}{N_{i-1}}\Big]^{-1/2},
        \qquad S_l = C_1 + \dots + C_l

    with the contribution :math:`C_k` of layer k to the loss decay, the dispersion
    :math:`v_i = \tau((J_i^TJ_i)^2)/\tau(J_i^TJ_i)^2 - 1` of the Jacobian of layer i, and :math:`N_l` the size of its output.
    With one width it is :math:`[1 + \sum_i v_i P_{i-1}^2]^{-1/2}` with :math:`P_i = S_i/S_l`; with equal contributions and
    one v, :math:`[1 + v (l-1)(2l-1)/(6l)]^{-1/2}`, close to :math:`\sqrt{3/(v l)}`: 1.2247/sqrt(l) for a ReLU net with
    independent Gaussian weights (v = 2).

    Source: derived here, from the recursion of the first two moments of the backward-to-feature kernel when the Jacobians
    of different layers are asymptotically free; checked by simulation, not proved. The angle itself is that of Chizat and
    Netrapalli (arXiv 2311.18718), whose abstract gives only the order 1/sqrt(depth) for ReLU nets.

    It holds at initialisation (weights independent from layer to layer), before the activation, for ONE input, and for
    width well above depth (depth/width below about 0.1). Not for a batch: with many inputs every layer's cosine is lower,
    see :func:`data_cosine`; divide the measured cosines by the first layer's. Not for ReLU nets with skip connections
    (:func:`predict_residual_cosine`), and not for updates that are not gradients times one rate a layer.

    Args:
        shares: :math:`C_1, \dots, C_L` in order, on any positive scale; ``history.share`` is one. The first is the first
            layer that is trained. A layer that is not trained has 0. Negative ones (a layer that climbs) are allowed
            while their sum is positive.
        dispersion: v, one number or one a layer; the first layer's plays no part. Of an activation and weights:
            :func:`activation_dispersion` plus :func:`weight_dispersion`; of any layer: :func:`dispersion`.
        widths: :math:`N_1, \dots, N_L`, how many numbers the output of each layer has for one sample; None where all are
            equal. A layer that widens lowers the cosine, since its feature change fills only part of its output.

    Returns:
        One cosine a layer, float64. 1 for the first layer with a share; NaN before it, where nothing moves.

    Raises:
        InputError: for lengths that do not fit, no layer, NaN or infinite entries, shares that sum to zero or less,
            negative dispersions or such as no layer of these widths can have, widths that are not positive.

    Example:
        One linear map of a vector is aligned; two layers with equal shares have :math:`1/\sqrt{1 + v/4}`:

        >>> predict_cosine([1, 1], 2.0).round(4).tolist()
        [1.0, 0.8165]
        >>> predict_cosine(np.ones(5), [1/4, 1/4, 2, 1/4, 2], widths=[256, 1024, 512, 2048, 1024]).round(3).tolist()
        [1.0, 0.707, 0.832, 0.485, 0.651]
    """
    contributions = check_shares(shares)
    layers = len(contributions)
    spread = per_layer("dispersion", dispersion, layers)
    if bool(np.any(spread[1:] < SMALLEST_DISPERSION)):
        raise InputError(f"dispersion is a variance and cannot be negative, but {_first_bad(spread < 0)} is.")
    size = np.ones(layers) if widths is None else per_layer("widths", widths, layers)
    if bool(np.any(size <= 0)):
        raise InputError(f"widths must be positive, but {_first_bad(size <= 0)} is not.")
    ratio = size[:-1] / size[1:]
    excess = spread[1:] + 1.0 - ratio
    impossible = excess < -RANK_SLACK * ratio
    if bool(np.any(impossible)):
        layer = int(np.flatnonzero(impossible)[0])
        raise InputError(
            f"a layer from {size[layer]:g} to {size[layer + 1]:g} units has a dispersion of at least "
            f"{ratio[layer] - 1:.4g}, since its Jacobian has that many zero directions, but entry {layer + 1} is "
            f"{spread[layer + 1]:.4g}. Take the dispersion of J^T J on the side of the layer's input."
        )
    reached = np.cumsum(contributions)
    noise = np.zeros(layers)
    noise[1:] = size[1:] * np.cumsum(np.maximum(excess, 0.0) * reached[:-1] ** 2 / size[:-1])
    return cosine_from_moments(reached, noise)


def post_activation_cosine(cosine: ArrayLike) -> Float[np.ndarray, "..."]:
    r"""Turn the cosine before a ReLU of a feed-forward net into the one after it: :math:`\cos_{post} = \cos/\sqrt{1 + \cos^2}`.

    Behind the ReLU the backward pass also has entries at inactive units, where features cannot move; hence at most
    :math:`1/\sqrt2`. Source: derived here, for masks that are independent of backward pass and feature change and on for
    half of the units (checked by simulation); one input.

    Args:
        cosine: cosines before the activation, in [-1, 1].

    Returns:
        Cosines after it, of the same shape, float64. NaN stays NaN.

    Raises:
        InputError: for values outside [-1, 1].

    Example:
        >>> post_activation_cosine([1.0, 0.0]).round(4).tolist()
        [0.7071, 0.0]
    """
    before = check_cosines(cosine)
    after: Float[np.ndarray, "..."] = before / np.sqrt(1.0 + before**2)
    return after


def sign_update_cosine(
    cosine: ArrayLike, shares: ArrayLike, *, activation: WideNetActivation = "relu"
) -> Float[np.ndarray, " layers"]:
    r"""Turn the cosines of gradient descent into those of sign descent (Adam's first step) for a feed-forward net.

    .. math:: \cos_{sign,l}^{-2} = \cos_l^{-2} + \Big(\frac\pi2 - 1\Big)\,\frac{C_l^2 + \gamma\sum_{k<l} C_k^2}{S_l^2}

    with :math:`\gamma = 2` for ReLU, since a layer moves only active units, all of which pass its error on, and 1 without
    activation. Source: derived here: for Gaussian gradients the sign has cosine :math:`\sqrt{2/\pi}` with the gradient, and
    its error is independent from layer to layer (checked by simulation). One input, no skip connections: along a skip the
    errors of neighbouring layers add up, and heavier tails lower the cosine further. For Adam later in training, and for
    Muon, measure instead.

    Args:
        cosine: cosines under gradient descent, one a layer, such as from :func:`predict_cosine`.
        shares: contributions of the layers under the SIGN update, as in :func:`predict_cosine`.
        activation: ``relu`` or ``linear``.

    Returns:
        One cosine a layer, float64; NaN where the given one is.

    Raises:
        InputError: for lengths that do not fit, cosines outside [-1, 1], shares that :func:`predict_cosine` refuses, or an
            unknown activation.

    Example:
        >>> sign_update_cosine([1.0, 0.8165], [1.0, 1.0]).round(3).tolist()
        [0.798, 0.72]
    """
    if activation not in get_args(WideNetActivation):
        raise InputError(f"activation must be 'relu' or 'linear', but is {activation!r}.")
    contributions = check_shares(shares)
    before = check_cosines(cosine)
    if before.shape != contributions.shape:
        raise InputError(
            f"one cosine and one share a layer are needed, but shapes {before.shape} and {contributions.shape} came."
        )
    own = contributions**2
    passed_on = (np.cumsum(own) - own) * (2.0 if activation == "relu" else 1.0)
    reached = np.cumsum(contributions)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Both sides times the squared cosine and S, so that a cosine of zero stays zero.
        noise = before**2 * (np.pi / 2 - 1.0) * (own + passed_on)
        lowered: Float[np.ndarray, " layers"] = before * np.abs(reached) / np.sqrt(reached**2 + noise)
    return lowered


def check_shares(shares: ArrayLike) -> Float[np.ndarray, " layers"]:
    """Check contributions to the loss decay and bring the largest to 1.

    Args:
        shares: one contribution a layer.

    Returns:
        Shares in float64, divided by the largest absolute value.

    Raises:
        InputError: for anything but a row of finite numbers with a positive sum.
    """
    given = np.asarray(shares, dtype=np.float64)
    if given.ndim != 1 or len(given) == 0:
        raise InputError(
            f"shares must be one number a layer, in a row of at least one, but their shape is {given.shape}."
        )
    if not bool(np.isfinite(given).all()):
        raise InputError(
            f"shares must be finite, but {_first_bad(~np.isfinite(given))} is not; leave out rows without a share, such "
            "as history.isel(layer=history.role != 'input')."
        )
    scaled: Float[np.ndarray, " layers"] = given / max(float(np.abs(given).max()), np.finfo(np.float64).tiny)
    if scaled.sum() <= 0:
        raise InputError(
            f"shares must sum to more than zero, but sum to {given.sum():g}: this update does not lower the loss to first "
            "order, and no cosine can be predicted for it."
        )
    return scaled


def per_layer(name: str, values: ArrayLike, layers: int) -> Float[np.ndarray, " layers"]:
    """Repeat a number for every layer, or check that there is one a layer.

    Args:
        name: of the argument, for the message.
        values: a number, or one a layer.
        layers: how many layers.

    Returns:
        One finite number a layer, float64.

    Raises:
        InputError: for another shape, NaN or infinite entries.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.shape not in ((), (layers,)):
        raise InputError(
            f"{name} must be one number or one for each of {layers} layers, but its shape is {given.shape}."
        )
    if not bool(np.isfinite(given).all()):
        raise InputError(f"{name} must be finite, but {_first_bad(~np.isfinite(np.atleast_1d(given)))} is not.")
    return np.broadcast_to(given, (layers,)).copy()


def check_cosines(cosine: ArrayLike) -> Float[np.ndarray, "..."]:
    """Check cosines.

    Args:
        cosine: numbers in [-1, 1]; NaN is let through.

    Returns:
        The same in float64.

    Raises:
        InputError: for a value outside.
    """
    given = np.asarray(cosine, dtype=np.float64)
    outside = np.abs(given) > 1.0 + 1e-9
    if bool(np.any(outside)):
        raise InputError(f"cosines must be in [-1, 1], but {_first_bad(np.atleast_1d(outside))} is not.")
    return given


def cosine_from_moments(
    mean: Float[np.ndarray, " layers"], variance: Float[np.ndarray, " layers"]
) -> Float[np.ndarray, " layers"]:
    r"""Compute :math:`m/\sqrt{m^2 + s}` from a kernel's mean eigenvalue m and the variance s of its eigenvalues.

    Args:
        mean: m.
        variance: s, at least 0.

    Returns:
        Cosines; NaN where both are zero.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine: Float[np.ndarray, " layers"] = mean / np.sqrt(mean**2 + variance)
    return cosine


def _first_bad(bad: np.ndarray) -> str:
    return f"entry {int(np.flatnonzero(bad)[0])}"
