"""The potential whose minimum a linear neuron finds."""

from typing import Any

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.neuron_problem import require_number, require_positive
from learnmech.errors import InputError


def bias_potential(sizes: Any, delta: float, eta_a: float = 1.0, eta_w: float = 1.0) -> Float[np.ndarray, "..."]:
    r"""Evaluate the radial part of the implicit-bias potential of a linear neuron.

    .. math::
        \Psi(s) = \frac{(k - 2\delta)\sqrt{k + \delta}}{3\sqrt{\eta_a\eta_w}}, \qquad k = \sqrt{\delta^2 + 4\eta_a\eta_w s^2},
        \qquad \Psi'(s) = \sqrt{k - \delta} .

    Source: Kunin et al. 2024 (arXiv 2406.06158), Theorem 3.1, for rates of 1; the factor for general rates is derived here.
    For a large positive delta it is :math:`s^2` up to a factor and a constant, for a large negative one :math:`s` (a cone).

    Args:
        sizes: norms of the product, at least 0.
        delta: the balance.
        eta_a: learning rate of a.
        eta_w: learning rate of w.

    Returns:
        The potential at each size. Large positive deltas leave few digits of its differences.

    Raises:
        InputError: for negative or not finite sizes, or rates not above 0.

    Example:
        >>> bias_potential([0.0, 1.0], 0.0).round(6).tolist()
        [0.0, 0.942809]
    """
    try:
        s = np.asarray(sizes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"sizes must be numbers, but {sizes!r} came.") from error
    if not (np.isfinite(s) & (s >= 0)).all():
        raise InputError("sizes are norms: they must be finite and at least 0.")
    balance = require_number("delta", delta)
    rate = np.sqrt(require_positive("eta_a", eta_a)) * np.sqrt(require_positive("eta_w", eta_w))
    k = np.hypot(balance, 2 * rate * s)
    if balance < 0:
        plus = 4 * np.square(rate * s) / (k - balance)
    else:
        plus = k + balance
    return np.asarray((k - 2 * balance) * np.sqrt(plus) / (3 * rate))
