r"""Closed forms of charges in continuous time, under learning rate, momentum and weight decay."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from learnmech.errors import InputError

Kind = Literal["translation", "quadratic"]


@dataclass(frozen=True)
class _Damped:
    r"""The oscillator :math:`y''+2Gy'+\omega^2y=F`, or :math:`y'=-\mu y` where there is no inertia."""

    damping: float
    square: float  # omega^2

    def start(self, times: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
        """Give y for y(0) = 1, y'(0) = 0 and no force."""
        gap, root = self._roots()
        if gap == 0:
            return np.asarray(np.exp(-self.damping * times) * (1 + self.damping * times))
        if gap < 0:
            return np.asarray(
                np.exp(-self.damping * times) * (np.cos(root * times) + self.damping / root * np.sin(root * times))
            )
        slow, fast = self.square / (self.damping + root), self.damping + root  # slow = G - r without cancellation
        return np.asarray((fast * np.exp(-slow * times) - slow * np.exp(-fast * times)) / (2 * root))

    def answer(self, lags: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
        """Give y for y(0) = 0, y'(0) = 1: what a unit push does after some time."""
        gap, root = self._roots()
        if gap == 0:
            return np.asarray(lags * np.exp(-self.damping * lags))
        if gap < 0:
            return np.asarray(np.exp(-self.damping * lags) * np.sin(root * lags) / root)
        slow = self.square / (self.damping + root)
        return np.asarray(-np.exp(-slow * lags) * np.expm1(-2 * root * lags) / (2 * root))

    def _roots(self) -> tuple[float, float]:
        gap = self.damping**2 - self.square
        return gap, float(np.sqrt(abs(gap)))


def neural_mechanics(
    times: Any,
    charge: Any,
    *,
    rate: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    kind: Kind = "quadratic",
    forcing: Any = None,
) -> Float[ndarray, "time ..."]:
    r"""Predict a charge in continuous time, in closed form.

    Learning with step η is the flow of a modified equation,
    :math:`\frac{\eta(1+b)}{2}\theta''+(1-b)\theta'+\lambda\theta=-g`. With :math:`G=\frac{1-b}{\eta(1+b)}` a charge obeys

    .. math:: Q''+2GQ'+\omega^2Q=2\langle\theta',T\theta'\rangle, \qquad \omega^2=\frac{4\lambda}{\eta(1+b)},

    and a translation the same without the right side and with half of :math:`\omega^2`. Without momentum the inertia is dropped:
    :math:`Q(t)=e^{-2\lambda t}Q_0+\eta\int_0^t e^{-2\lambda(t-s)}\langle g,Tg\rangle\,ds`, and :math:`e^{-\lambda t}c_0`. The integral
    over the forcing is taken by the trapezoidal rule on ``times``. Written so that no exponent is positive: nothing overflows.

    Source: Kunin et al., "Neural mechanics" (arXiv 2012.04728), whose equations were derived anew here. The initial slope is taken
    as zero, as the velocity is at the start.

    Args:
        times: increasing, from 0, shape (time,): t = η k after k steps.
        charge: at the start; a number, or an array of many.
        rate: learning rate η, constant.
        momentum: b in [0, 1).
        weight_decay: λ.
        kind: ``quadratic`` or ``translation``.
        forcing: for quadratic charges :math:`\langle v,Tv\rangle` at ``times``, v being the velocity (without momentum the gradient),
            shape (time,) or (time, ...) as ``charge``; None for none.

    Returns:
        The charge at ``times``, shape (time, ...). Read it beside the discrete law: it is off by a relative O(η λ), 1e-3 in our runs,
        and it knows nothing of a schedule.

    Raises:
        InputError: for settings out of range, times that do not start at 0 and increase, a forcing that does not fit or comes with a
            translation, and NaN or infinite numbers.

    Example:
        Weight decay alone, after time 1:

        >>> round(float(neural_mechanics([0.0, 1.0], 3.0, rate=0.1, weight_decay=0.5)[-1]), 6)
        1.103638
    """
    moments, start = np.asarray(times, dtype=float), np.asarray(charge, dtype=float)
    _check(moments, start, rate, momentum, weight_decay, kind)
    column = moments.reshape(-1, *([1] * start.ndim))
    quadratic = kind == "quadratic"
    if momentum == 0:
        decay = (2 if quadratic else 1) * weight_decay
        base = np.exp(-decay * column) * start
        gain = rate
    else:
        inertia = rate * (1 + momentum)
        motion = _Damped((1 - momentum) / inertia, (4 if quadratic else 2) * weight_decay / inertia)
        base = motion.start(column) * start
        gain = 2.0
    if forcing is None:
        return np.asarray(base)
    if not quadratic:
        raise InputError("a translation has no forcing: leave it out, or say kind='quadratic'.")
    force = np.asarray(forcing, dtype=float)
    if force.shape not in ((len(moments),), (len(moments), *start.shape)) or not np.isfinite(force).all():
        raise InputError(
            f"forcing should hold finite numbers of shape {(len(moments), *start.shape)}, one at each time, but has shape {force.shape}."
        )
    force = force.reshape(len(moments), *(force.shape[1:] or [1] * start.ndim))
    if momentum == 0:
        kernel = lambda lags: np.exp(-decay * lags)  # noqa: E731
    else:
        kernel = motion.answer
    return np.asarray(base + gain * _convolve(moments, force, kernel))


def _convolve(times: ndarray, force: ndarray, kernel: Any) -> ndarray:
    """Integrate kernel(t - s) force(s) over s from 0 to t, by the trapezoidal rule, at every t."""
    widths = np.diff(times)
    weights = np.zeros(len(times))
    result = np.zeros(force.shape)
    for position in range(1, len(times)):
        weights[position - 1] += widths[position - 1] / 2
        weights[position] = widths[position - 1] / 2
        answers = kernel(times[position] - times[: position + 1]) * weights[: position + 1]
        result[position] = np.tensordot(answers, force[: position + 1], axes=1)
    return result


def _check(times: ndarray, charge: ndarray, rate: float, momentum: float, weight_decay: float, kind: str) -> None:
    if kind not in ("quadratic", "translation"):
        raise InputError(f"kind must be 'quadratic' or 'translation', got {kind!r}.")
    if not (np.isfinite(rate) and rate > 0):
        raise InputError(f"rate must be a positive number, got {rate!r}.")
    if not 0 <= momentum < 1:
        raise InputError(f"momentum must lie in [0, 1), got {momentum!r}.")
    if not (np.isfinite(weight_decay) and weight_decay >= 0):
        raise InputError(f"weight_decay must be a number of at least 0, got {weight_decay!r}.")
    if times.ndim != 1 or len(times) == 0 or times[0] != 0 or not (np.diff(times) > 0).all() or np.isinf(times).any():
        raise InputError("times must be a list of increasing finite numbers that starts at 0.")
    if not np.isfinite(charge).all():
        raise InputError("charge holds NaN or infinite numbers.")
