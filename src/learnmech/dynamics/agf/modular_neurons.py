"""Modular addition: a frequency learned without error by six neurons, in closed form."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.agf.modular_utility import require_frequency, spectrum, utility_maximiser


def six_neurons(template: Any, frequency: int) -> Float[np.ndarray, "neurons size"]:
    r"""Give six neurons that learn a frequency without error and leave all others as they are.

    With :math:`\omega = 2\pi k/p` and :math:`s_x` the phase of :math:`\hat x_k`, for j = 0, 1, 2 and both signs:

    .. math::
        u = \lambda\cos(\omega n + \tfrac{2\pi j}3),\quad v = \pm u,\quad
        w = \pm\lambda\cos(\omega n + \tfrac{4\pi j}3 - s_x), \qquad
        \lambda = \sqrt{\tfrac2p}\Big(\frac{\sqrt{p/2}}{3|\hat x_k|}\Big)^{1/3} .

    A pair of signs cancels the squares, which no target contains; three products of cosines make one of complex numbers, and fewer
    do not. With N = 1 to 4 neurons the share of the frequency's loss that stays is 8/9, 5/9, 0.326 and 1/6 at best (a search comes down
    to these from above, slowly in flat valleys); with five it can be as small as one likes, but only with weights that grow without bound.

    The Nyquist frequency of an even p needs two: :math:`u = \lambda(-1)^n, v = \pm u, w = \pm\operatorname{sign}(\hat x_k)\,u`
    with :math:`\lambda^3 = 1/(4p|\hat x_k|)`; one alone leaves half.

    Source: Kunin et al. 2025 (arXiv 2506.06489) for six neurons with such phases; this closed form, the shares for fewer (found by
    search) and the Nyquist frequency are derived here.

    Args:
        template: x (p,); its mean is removed.
        frequency: k, one of those of the template.

    Returns:
        Rows (u, v, w): six, or two for the Nyquist frequency.

    Raises:
        InputError: for a bad template, or if it lacks the frequency.

    Example:
        >>> from learnmech.dynamics.agf.modular_problem import ModularProblem
        >>> from learnmech.dynamics.agf.modular_utility import fourier_template
        >>> template = fourier_template(20, {1: 10.0, 3: 5.0})
        >>> problem = ModularProblem(template)
        >>> round(problem.loss(six_neurons(template, 1)), 12), problem.loss(np.vstack([six_neurons(template, k) for k in (1, 3)])) < 1e-20
        (1.25, True)
    """
    parts = spectrum(template)
    amplitude = abs(parts.coefficients[require_frequency(parts, frequency)])
    length = parts.length
    if 2 * frequency == length:
        first = utility_maximiser(template, frequency) * math.sqrt(3 * length)
        neurons = np.stack([first, first * np.repeat([1.0, -1.0, -1.0], length)])
        return np.asarray(neurons * (1 / (4 * length * amplitude)) ** (1 / 3))
    rows = []
    for step in range(3):
        phase = 2 * math.pi * step / 3
        first = utility_maximiser(template, frequency, phase, phase) * math.sqrt(3)
        rows += [first, first * np.repeat([1.0, -1.0, -1.0], length)]
    return np.asarray(np.stack(rows) * (math.sqrt(length / 2) / (3 * amplitude)) ** (1 / 3))
