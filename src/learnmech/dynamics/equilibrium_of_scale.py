r"""Where the norm of scale-invariant weights settles under weight decay, and how fast they turn there."""

import math

from learnmech.errors import InputError


def equilibrium_radius(normalised_gradient: float, *, rate: float, weight_decay: float, momentum: float = 0.0) -> float:
    r"""Predict the norm at which weights in front of a normalisation settle.

    The gradient of scale-invariant weights is :math:`\hat g/|\theta|`, with a :math:`\hat g` that depends on the direction only. Weight
    decay shrinks the norm, the steps raise it, and they balance where

    .. math:: |\theta|^4 = \frac{\eta\,E|\hat g|^2}{2\lambda(1-b)}.

    Source: the setting of Kunin et al. (arXiv 2012.04728) and Tanaka and Kunin, "Noether's learning dynamics" (arXiv 2105.02716);
    the factor for momentum was derived here.

    Args:
        normalised_gradient: mean of :math:`|\hat g|^2=|\theta|^2|g|^2` over steps.
        rate: learning rate η.
        weight_decay: λ.
        momentum: b in [0, 1).

    Returns:
        The norm. It assumes successive gradients without correlation, a small η λ, and a run of at least 1 / (η λ) steps; before
        that the norm still remembers its start.

    Raises:
        InputError: for settings out of range.

    Example:
        >>> equilibrium_radius(1.0, rate=0.02, weight_decay=0.01)
        1.0
    """
    for name, value in (
        ("normalised_gradient", normalised_gradient),
        ("rate", rate),
        ("weight_decay", weight_decay),
    ):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} must be a positive number, got {value!r}: without it the norm does not settle.")
    _check_momentum(momentum)
    return float((rate * normalised_gradient / (2 * weight_decay * (1 - momentum))) ** 0.25)


def effective_learning_rate(radius: float, *, rate: float, momentum: float = 0.0) -> float:
    r"""Give the learning rate at which the direction of scale-invariant weights learns.

    .. math:: \eta_\text{eff} = \frac{\eta}{|\theta|^2(1-b)}

    At the equilibrium of :func:`equilibrium_radius` the norm settles such that the direction turns by about
    :math:`\sqrt{2\eta\lambda/(1+b)}` a step, whatever the size of the gradient was: weights in front of a normalisation adapt their own
    rate, like RMSProp.

    Source: Tanaka and Kunin, "Noether's learning dynamics" (arXiv 2105.02716); derived anew here.

    Args:
        radius: norm of the weights.
        rate: learning rate η.
        momentum: b in [0, 1).

    Returns:
        The rate for the direction, in units of the direction's own gradient :math:`\hat g`.

    Raises:
        InputError: for settings out of range.

    Example:
        >>> effective_learning_rate(2.0, rate=0.5, momentum=0.5)
        0.25
    """
    for name, value in (("radius", radius), ("rate", rate)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} must be a positive number, got {value!r}.")
    _check_momentum(momentum)
    return rate / (radius**2 * (1 - momentum))


def _check_momentum(momentum: float) -> None:
    if not 0 <= momentum < 1:
        raise InputError(f"momentum must lie in [0, 1), got {momentum!r}.")
