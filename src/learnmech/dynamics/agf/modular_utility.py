"""Modular addition: templates and their spectra, the utility of each frequency, and the neurons that maximise it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Complex, Float

from learnmech.dynamics.agf.problems import as_array
from learnmech.errors import InputError

_ABSENT = 1e-9


@dataclass(frozen=True)
class Spectrum:
    """A template without its mean, and the frequencies that it has.

    Attributes:
        template: the numbers, mean removed, shape (p,).
        frequencies: k from 1 to p // 2 with an amplitude above 1e-9 times the largest, increasing.
        coefficients: of the discrete Fourier transform (no 1/p) at those.
        shares: what each adds to the loss while it is not learned.
        couplings: C of each, see :func:`maximal_utilities`.
        scales: what turns a coefficient of a vector into a coordinate of unit length.
        mean: that was removed.
    """

    template: Float[np.ndarray, " p"]
    frequencies: np.ndarray
    coefficients: Complex[np.ndarray, " frequencies"]
    shares: Float[np.ndarray, " frequencies"]
    couplings: Float[np.ndarray, " frequencies"]
    scales: Float[np.ndarray, " frequencies"]
    mean: float

    @property
    def length(self) -> int:
        """The p of the addition modulo p."""
        return len(self.template)


def fourier_template(
    length: int, amplitudes: Mapping[int, float], phases: Mapping[int, float] | None = None
) -> Float[np.ndarray, " p"]:
    r"""Make a template with given amplitudes of its Fourier transform.

    .. math::
        x_n = \frac1p\sum_k c_k\,|\hat x_k| \cos(2\pi kn/p + s_k), \qquad c_k = 2,\ \text{or 1 for the Nyquist frequency } p/2 .

    Args:
        length: p, at least 3.
        amplitudes: :math:`|\hat x_k|`, as ``numpy.fft.fft`` gives it, by frequency k from 1 to p // 2.
        phases: :math:`s_k` in radians, 0 for what is not given; at the Nyquist frequency only 0 or :math:`\pi`.

    Returns:
        The template (p,), with mean 0.

    Raises:
        InputError: for a frequency out of range, or a negative amplitude.

    Example:
        >>> fourier_template(6, {3: 6.0}).round(12).tolist()
        [1.0, -1.0, 1.0, -1.0, 1.0, -1.0]
    """
    if isinstance(length, bool) or not isinstance(length, int | np.integer) or length < 3:
        raise InputError(f"length must be an integer of at least 3, the p of addition modulo p, got {length!r}.")
    phases = phases or {}
    places = np.arange(length)
    template = np.zeros(length)
    for frequency in sorted(set(amplitudes) | set(phases)):
        amplitude, phase = amplitudes.get(frequency, 0.0), phases.get(frequency, 0.0)
        if not (isinstance(frequency, int | np.integer) and 1 <= frequency <= length // 2):
            raise InputError(f"frequencies must be integers from 1 to {length // 2}, got {frequency!r}.")
        if not (math.isfinite(amplitude) and amplitude >= 0 and math.isfinite(phase)):
            raise InputError(
                f"amplitude and phase of frequency {frequency} must be finite and the first not negative, got {amplitude!r}, {phase!r}."
            )
        nyquist = 2 * frequency == length
        if nyquist and abs(math.sin(phase)) > 1e-12:
            raise InputError(f"the phase of the Nyquist frequency {frequency} must be 0 or pi, got {phase!r}.")
        turn = 2 * math.pi * frequency * places / length + phase
        template += (1 if nyquist else 2) * amplitude / length * np.cos(turn)
    return template


def spectrum(template: Any) -> Spectrum:
    """Check a template and take it apart.

    Args:
        template: numbers (p,).

    Returns:
        Its parts.

    Raises:
        InputError: for fewer than three numbers, or if all are equal, where there is nothing to learn.
    """
    numbers = as_array("template", template, 1)
    length = len(numbers)
    if length < 3:
        raise InputError(f"template must have at least 3 numbers, the p of addition modulo p, got {length}.")
    mean = float(numbers.mean())
    centred = numbers - mean
    if np.abs(centred).max() <= _ABSENT * np.abs(numbers).max():
        raise InputError("template is the same number everywhere: without its mean nothing is left to learn.")
    coefficients = np.fft.rfft(centred)[1:]
    frequencies = np.arange(1, length // 2 + 1)
    present = np.abs(coefficients) > _ABSENT * np.abs(coefficients).max()
    frequencies, coefficients = frequencies[present], coefficients[present]
    nyquist = 2 * frequencies == length
    power = np.abs(coefficients) ** 2
    return Spectrum(
        template=centred,
        frequencies=frequencies,
        coefficients=coefficients,
        shares=np.where(nyquist, 0.5, 1.0) * power / length,
        couplings=np.where(nyquist, 2.0, math.sqrt(2)) * np.abs(coefficients) ** 3 / length**1.5,
        scales=np.sqrt(np.where(nyquist, 1.0, 2.0) / length),
        mean=mean,
    )


def maximal_utilities(template: Any) -> dict[int, float]:
    r"""Give the largest utility of a neuron of unit norm at each frequency.

    .. math::
        U = \frac1{p^2}\sum_{a,b}\langle (u\cdot x_a + v\cdot x_b)^2\,w,\ x_{a+b}\rangle
          = \sum_k C_k\,\mathrm{Re}\big(u_kv_k\overline{w_k}\,e^{-is_k}\big), \qquad
        U_k^* = \frac{C_k}{3\sqrt3}, \quad C_k = \sqrt2\,p^{-3/2}|\hat x_k|^3,

    with :math:`u_k, v_k, w_k` complex coordinates of unit length and :math:`s_k` the phase of :math:`\hat x_k`: the largest utility is
    :math:`\sqrt{2p/27}\,|\hat x_k|^3/p^2`. The frequencies do not mix: a sum of cubic forms in separate coordinates is largest
    with all length in one of them, tied ones included. At the Nyquist frequency k = p/2 of an even p there is one real
    coordinate each and :math:`C_k = 2p^{-3/2}|\hat x_k|^3`, :math:`\sqrt2` times the value of another frequency of that amplitude.

    Source: Kunin et al. 2025 (arXiv 2506.06489) for :math:`k \ne p/2`, given there as a sum over pairs with unit u, v and w,
    :math:`\sqrt{2p}\,|\hat x_k|^3`; the mean over pairs for a neuron of unit norm and the Nyquist frequency are derived here.

    Args:
        template: x (p,); its mean is removed.

    Returns:
        Utility by frequency. Frequencies with amplitude below 1e-9 of the largest are absent.

    Raises:
        InputError: for a bad template.

    Example:
        >>> {k: round(u, 7) for k, u in maximal_utilities(fourier_template(20, {1: 10.0, 3: 5.0})).items()}
        {1: 3.0429031, 3: 0.3803629}
    """
    parts = spectrum(template)
    return dict(zip(parts.frequencies.tolist(), (parts.couplings / (3 * math.sqrt(3))).tolist(), strict=True))


def utility_maximiser(
    template: Any, frequency: int, first_phase: float = 0.0, second_phase: float = 0.0
) -> Float[np.ndarray, " size"]:
    r"""Give a neuron of unit norm with the largest utility at a frequency.

    .. math::
        u_n = \sqrt{\tfrac{2}{3p}}\cos(\omega n + s_u),\quad v_n = \sqrt{\tfrac{2}{3p}}\cos(\omega n + s_v),\quad
        w_n = \sqrt{\tfrac{2}{3p}}\cos(\omega n + s_w), \qquad s_u + s_v = s_w + s_x,\quad \omega = 2\pi k/p .

    Source: Kunin et al. 2025 (arXiv 2506.06489); for the Nyquist frequency, where u, v and w alternate in sign and phases count
    only through the signs of their cosines, derived here.

    Args:
        template: x (p,).
        frequency: k, one of those of the template.
        first_phase: :math:`s_u` in radians.
        second_phase: :math:`s_v`.

    Returns:
        The row (u, v, w) of 3 p numbers.

    Raises:
        InputError: if the template lacks the frequency.

    Example:
        >>> neuron = utility_maximiser(fourier_template(8, {1: 2.0}), 1, 0.3, 0.4)
        >>> round(float(neuron @ neuron), 12)
        1.0
    """
    parts = spectrum(template)
    place = require_frequency(parts, frequency)
    length = parts.length
    places = np.arange(length)
    phase = float(np.angle(parts.coefficients[place]))
    if 2 * frequency == length:
        signs = [math.copysign(1.0, math.cos(first_phase)), math.copysign(1.0, math.cos(second_phase))]
        signs.append(signs[0] * signs[1] * math.copysign(1.0, math.cos(phase)))
        return np.concatenate([sign * (-1.0) ** places for sign in signs]) / math.sqrt(3 * length)
    turn = 2 * math.pi * frequency * places / length
    phases = (first_phase, second_phase, first_phase + second_phase - phase)
    return math.sqrt(2 / (3 * length)) * np.concatenate([np.cos(turn + each) for each in phases])


def require_frequency(parts: Spectrum, frequency: int) -> int:
    """Find a frequency of a template.

    Args:
        parts: of the template.
        frequency: k.

    Returns:
        Its index among those that the template has.

    Raises:
        InputError: if it lacks it.
    """
    found = np.flatnonzero(parts.frequencies == frequency)
    if not len(found):
        have = ", ".join(map(str, parts.frequencies[:10].tolist())) + (", ..." if len(parts.frequencies) > 10 else "")
        raise InputError(f"frequency must be one that the template has ({have}), got {frequency!r}.")
    return int(found[0])
