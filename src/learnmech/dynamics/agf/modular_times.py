"""Modular addition: when each neuron of a start would reach unit norm at each frequency, in closed form."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import elliprf

from learnmech.dynamics.agf.modular_utility import spectrum
from learnmech.dynamics.agf.problems import as_array
from learnmech.errors import InputError

_ROUNDING = 1e-14


def activation_times(template: Any, init: Any) -> tuple[list[int], Float[np.ndarray, "neurons frequencies"]]:
    r"""Give when each neuron reaches unit norm at each frequency, under the residual of the empty network.

    The frequencies of a dormant neuron do not interact, and each is a three-wave resonance of complex amplitudes,

    .. math::
        u' = C\,\bar v w,\quad v' = C\,\bar u w,\quad w' = C\,uv, \qquad
        \dot P = \pm2C\sqrt{P(P + d_v)(P + d_w) - K^2},

    with :math:`P = |u|^2`, constant :math:`d_v = |v|^2 - |u|^2, d_w = |w|^2 - |u|^2, K = \mathrm{Im}(uv\bar w)`, w turned by the phase
    of the template, and C of :func:`~learnmech.dynamics.agf.modular_utility.maximal_utilities`. So the time is an elliptic integral:
    :math:`R_F(P - r_1, P - r_2, P - r_3)/C` is left until infinity, with r the roots of the cubic; a neuron that starts against the
    phase first shrinks to the largest root.

    How to read it: a bound and a rough guess of the times of jumps, cheap and exact for a frozen residual. It leaves out that a
    frequency needs several neurons, and that those that learned change what the others see. Derived here.

    Args:
        template: x (p,); its mean is removed.
        init: neurons at the start (neurons, 3 p), rows (u, v, w).

    Returns:
        The frequencies, and times (neurons, frequencies): 0 for a neuron that is there already, infinity for one that never arrives (it
        misses two of the three, or ends in a saddle).

    Raises:
        InputError: for bad arguments.

    Example:
        >>> from learnmech.dynamics.agf.modular_utility import fourier_template, utility_maximiser
        >>> template = fourier_template(20, {1: 10.0})
        >>> start = 0.01 * utility_maximiser(template, 1)
        >>> frequencies, times = activation_times(template, [start])
        >>> frequencies, round(float(times[0, 0] * 3 * 3.0429031), 4)  # 1 / 0.01 - 1
        ([1], 99.0)
    """
    parts = spectrum(template)
    neurons = as_array("init", init, 2)
    length = parts.length
    if neurons.shape[1] != 3 * length:
        raise InputError(f"init must have shape (neurons, {3 * length}), rows (u, v, w), got {neurons.shape}.")
    waves = np.fft.rfft(neurons.reshape(-1, 3, length), axis=2)[:, :, parts.frequencies] * parts.scales
    waves[:, 2] *= parts.coefficients / np.abs(parts.coefficients)
    times = [
        [_time(waves[neuron, :, index]) / parts.couplings[index] for index in range(len(parts.frequencies))]
        for neuron in range(len(neurons))
    ]
    return parts.frequencies.tolist(), np.array(times).reshape(len(neurons), len(parts.frequencies))


def _time(waves: np.ndarray) -> float:
    """The time to a squared norm of 1 for C = 1, from complex u, v, w."""
    powers = np.abs(waves) ** 2
    if powers.sum() >= 1:
        return 0.0
    scale = powers.max()
    if scale == 0:
        return math.inf
    smallest = powers.min()
    product = waves[0] * waves[1] * waves[2].conj()
    gaps = (powers - smallest) / scale
    gaps[gaps < _ROUNDING] = 0.0
    kept = float((product.imag / scale**1.5) ** 2)
    kept = 0.0 if kept < _ROUNDING**2 else kept
    first, second = np.delete(gaps, np.argmin(gaps))
    roots = np.roots([1.0, first + second, first * second, -kept])
    top = max(float(roots[np.argmax(roots.real)].real), 0.0)
    others = np.delete(roots, np.argmax(roots.real))
    begin = max(smallest / scale, top)
    finish = ((1 - (powers - smallest).sum()) / 3) / scale

    def left(power: float) -> float:
        return float(elliprf(complex(power - top), complex(power - others[0]), complex(power - others[1])).real)

    with np.errstate(all="ignore"):
        total = left(begin) if product.real >= 0 else 2 * left(top) - left(begin)
        time = (total - left(finish)) / math.sqrt(scale)
    return time if math.isfinite(time) else math.inf
