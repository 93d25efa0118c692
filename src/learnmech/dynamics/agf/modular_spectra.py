"""Modular addition: what a network has learned of each frequency, for figures."""

from typing import Any

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.agf.modular_utility import Spectrum, spectrum
from learnmech.errors import InputError


def frequency_power(neurons: Any, template: Any) -> Float[np.ndarray, "... frequencies"]:
    r"""Give the mean squared output of a network at each frequency of its places.

    .. math::
        \frac{c_k}{p}\,\frac1{p^2}\sum_{a,b}|\hat f_k(a, b)|^2, \qquad c_k = 2, \text{ or 1 for } k = 0 \text{ and } p/2 .

    The sum over k is the mean of :math:`|f(a, b)|^2`. Derived here.

    How to read it: a frequency that is learned without error has :math:`2|\hat x_k|^2/p` (half that at the Nyquist frequency), twice its part of
    the loss. Output at a frequency that the template lacks is an error.

    Args:
        neurons: rows (u, v, w), (..., neurons, 3 p): leading dimensions, such as time, stay.
        template: x (p,).

    Returns:
        Powers at k = 0 to p // 2.

    Raises:
        InputError: for a wrong shape.

    Example:
        >>> from learnmech.dynamics.agf.modular_neurons import six_neurons
        >>> from learnmech.dynamics.agf.modular_utility import fourier_template
        >>> template = fourier_template(6, {1: 3.0, 3: 2.0})
        >>> np.abs(frequency_power(six_neurons(template, 1), template)).round(9).tolist()
        [0.0, 3.0, 0.0, 0.0]
    """
    parts = spectrum(template)
    rows = _rows(neurons, parts)
    first, second, outputs = _inputs(rows, parts)
    length = parts.length

    def gram(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.asarray(left @ np.swapaxes(right, -1, -2))

    a, b = first * first, second * second
    sums_a, sums_b = a.sum(axis=-1, keepdims=True), b.sum(axis=-1, keepdims=True)
    overlap = length * (gram(a, a) + gram(b, b)) + 4 * gram(first, first) * gram(second, second)
    overlap = overlap + gram(sums_a, sums_b) + gram(sums_b, sums_a)
    waves = np.fft.rfft(outputs, axis=-1)
    once = np.arange(waves.shape[-1]) % length == 0
    once |= 2 * np.arange(waves.shape[-1]) == length
    power = np.einsum("...ik,...ij,...jk->...k", waves.conj(), overlap, waves).real
    return np.asarray(power * np.where(once, 1.0, 2.0) / length**3)


def frequency_share(neurons: Any, template: Any) -> Float[np.ndarray, "... frequencies"]:
    r"""Give how much of each frequency of the target a network has learned.

    .. math::
        \langle f, T_k\rangle / |T_k|^2, \qquad T_k(a, b) \text{ the part of } x_{a+b} \text{ at frequency } k .

    How to read it: 0 before, 1 when learned. Derived here.

    Args:
        neurons: rows (u, v, w), (..., neurons, 3 p): leading dimensions, such as time, stay.
        template: x (p,).

    Returns:
        Shares at the frequencies of the template, in increasing order.

    Raises:
        InputError: for a wrong shape.

    Example:
        >>> from learnmech.dynamics.agf.modular_neurons import six_neurons
        >>> from learnmech.dynamics.agf.modular_utility import fourier_template
        >>> template = fourier_template(20, {1: 10.0, 3: 5.0})
        >>> np.abs(frequency_share(six_neurons(template, 3), template)).round(9).tolist()
        [0.0, 1.0]
    """
    parts = spectrum(template)
    rows = _rows(neurons, parts)
    length = parts.length
    waves = np.fft.rfft(rows.reshape(*rows.shape[:-1], 3, length), axis=-1)[..., parts.frequencies] * parts.scales
    turned = waves[..., 2, :] * parts.coefficients / np.abs(parts.coefficients)
    utility = parts.couplings * (waves[..., 0, :] * waves[..., 1, :] * turned.conj()).real.sum(axis=-2)
    return np.asarray(utility / (2 * parts.shares))


def neuron_power(neurons: Any, template: Any) -> Float[np.ndarray, "... neurons frequencies"]:
    r"""Give the squared norm of each neuron at each frequency, over u, v and w.

    The sum over frequencies is :math:`|\theta|^2`.

    Args:
        neurons: rows (u, v, w), (..., neurons, 3 p).
        template: x (p,), for its length.

    Returns:
        Powers at k = 0 to p // 2.

    Raises:
        InputError: for a wrong shape.

    Example:
        >>> from learnmech.dynamics.agf.modular_utility import fourier_template, utility_maximiser
        >>> template = fourier_template(8, {2: 1.0})
        >>> neuron_power([utility_maximiser(template, 2)], template).round(9).tolist()
        [[0.0, 0.0, 1.0, 0.0, 0.0]]
    """
    parts = spectrum(template)
    rows = _rows(neurons, parts)
    length = parts.length
    waves = np.fft.rfft(rows.reshape(*rows.shape[:-1], 3, length), axis=-1)
    ranks = np.arange(waves.shape[-1])
    once = (ranks == 0) | (2 * ranks == length)
    return np.asarray((np.abs(waves) ** 2).sum(axis=-2) * np.where(once, 1.0, 2.0) / length)


def _rows(neurons: Any, parts: Spectrum) -> np.ndarray:
    if hasattr(neurons, "detach"):
        neurons = neurons.detach().cpu().numpy()
    rows = np.asarray(neurons, dtype=np.float64)
    if rows.ndim < 2 or rows.shape[-1] != 3 * parts.length:
        raise InputError(
            f"neurons must have shape (..., neurons, {3 * parts.length}), rows (u, v, w), got {rows.shape}."
        )
    return rows


def _inputs(rows: np.ndarray, parts: Spectrum) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    length = parts.length
    places = np.arange(length)
    rolled = parts.template[(places[:, None] - places[None, :]) % length]
    return rows[..., :length] @ rolled, rows[..., length : 2 * length] @ rolled, rows[..., 2 * length :]
