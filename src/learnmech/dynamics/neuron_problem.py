"""A single linear neuron f = a w.x as numbers: checked, and reduced to unit learning rates and whitened inputs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from learnmech.errors import InputError

SOURCE = "Kunin et al. 2024 (arXiv 2406.06158), single linear neuron"
LARGEST = 1e60
"""Numbers beyond this are refused: their squares, and squares of these, would leave the range of float64."""


@dataclass(frozen=True)
class NeuronProblem:
    r"""A start, a target and learning rates, with what is conserved.

    Attributes:
        a0: read-out weight at the start.
        w0: input weights at the start, shape (dim,).
        target: the least-squares solution :math:`\beta_* = X^Ty/c`, shape (dim,).
        eta_a: learning rate of a.
        eta_w: learning rate of w.
        scale: c in :math:`X^TX = cI`.
    """

    a0: float
    w0: Float[np.ndarray, " dim"]
    target: Float[np.ndarray, " dim"]
    eta_a: float
    eta_w: float
    scale: float

    @property
    def rate(self) -> float:
        r""":math:`\sqrt{\eta_a\eta_w}`, the learning rate of the reduced problem."""
        return math.sqrt(self.eta_a) * math.sqrt(self.eta_w)

    @property
    def reduced_a(self) -> float:
        r""":math:`A_0 = (\eta_w/\eta_a)^{1/4} a_0`."""
        return float((self.eta_w / self.eta_a) ** 0.25) * self.a0

    @property
    def reduced_w(self) -> Float[np.ndarray, " dim"]:
        r""":math:`W_0 = (\eta_a/\eta_w)^{1/4} w_0`."""
        return np.asarray((self.eta_a / self.eta_w) ** 0.25 * self.w0)

    @property
    def delta(self) -> float:
        r""":math:`\delta = \eta_w a_0^2 - \eta_a|w_0|^2`."""
        return self.rate * self.delta_prime

    @property
    def delta_prime(self) -> float:
        r""":math:`\delta' = A_0^2 - |W_0|^2 = \delta/\sqrt{\eta_a\eta_w}`."""
        size = float(np.linalg.norm(self.reduced_w))
        return (abs(self.reduced_a) - size) * (abs(self.reduced_a) + size)

    @property
    def target_norm(self) -> float:
        r""":math:`|\beta_*|`."""
        return float(np.linalg.norm(self.target))


def make_problem(a0: Any, w0: Any, beta: Any, eta_a: Any, eta_w: Any, scale: Any = 1.0) -> NeuronProblem:
    """Check numbers and make a problem of them.

    Args:
        a0: one number.
        w0: a vector.
        beta: X^T y, a vector of the same length.
        eta_a: positive.
        eta_w: positive.
        scale: c in X^T X = c I, positive.

    Returns:
        The problem, in float64.

    Raises:
        InputError: for wrong arguments.
    """
    start, correlation = require_vector("w0", w0), require_vector("beta", beta)
    if len(start) != len(correlation):
        raise InputError(
            f"w0 and beta must have the same length (one entry an input), but have {len(start)} and {len(correlation)}."
        )
    c = require_positive("scale", scale)
    return NeuronProblem(
        require_number("a0", a0),
        start,
        correlation / c,
        require_positive("eta_a", eta_a),
        require_positive("eta_w", eta_w),
        c,
    )


def _as_array(name: str, value: Any, wanted: str) -> Float[np.ndarray, "..."]:
    if isinstance(value, Tensor):
        value = value.detach().cpu().double().numpy()
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be {wanted}, but {value!r} came.") from error
    if not np.isfinite(array).all():
        raise InputError(f"{name} must be finite, but holds {array[~np.isfinite(array)].flat[0]}.")
    if array.size and np.abs(array).max() > LARGEST:
        raise InputError(
            f"{name} must stay below {LARGEST:g} in size, but holds {np.abs(array).max():g}; rescale the problem."
        )
    return array


def require_number(name: str, value: Any) -> float:
    """Check one number.

    Args:
        name: of the argument.
        value: what came.

    Returns:
        The number.

    Raises:
        InputError: if it is not one finite number.
    """
    array = _as_array(name, value, "one number")
    if array.size != 1 or isinstance(value, bool):
        raise InputError(f"{name} must be one number, but {value!r} came.")
    return float(array.reshape(()))


def require_positive(name: str, value: Any) -> float:
    """Check one positive number.

    Args:
        name: of the argument.
        value: what came.

    Returns:
        The number.

    Raises:
        InputError: if it is not one finite number above 0.
    """
    number = require_number(name, value)
    if not number > 1.0 / LARGEST:
        raise InputError(f"{name} must be above 0 (at least {1 / LARGEST:g}), but {number:g} came.")
    return number


def require_vector(name: str, value: Any) -> Float[np.ndarray, " dim"]:
    """Check a vector.

    Args:
        name: of the argument.
        value: what came.

    Returns:
        The vector in float64, a copy.

    Raises:
        InputError: if it is not a vector of at least one finite number.
    """
    array = _as_array(name, value, "a vector of numbers")
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"{name} must be a vector with at least one entry, but has the shape {array.shape}.")
    return array


def require_data(X: Any, y: Any) -> tuple[Float[np.ndarray, "samples dim"], Float[np.ndarray, " samples"]]:
    """Check inputs and targets of a regression.

    Args:
        X: inputs (samples, dim), at least one of each.
        y: targets (samples,).

    Returns:
        Both in float64.

    Raises:
        InputError: if shapes do not fit or numbers are not finite.
    """
    inputs, targets = _as_array("X", X, "a matrix (samples, dim)"), require_vector("y", y)
    if inputs.ndim != 2 or inputs.size == 0 or len(inputs) != len(targets):
        raise InputError(
            "X must be a matrix (samples, dim) with one row for each entry of y, but X has the shape "
            f"{inputs.shape} and y {targets.shape}."
        )
    return inputs, targets


def require_times(times: Any, *, increasing: bool = True) -> Float[np.ndarray, " time"]:
    """Check times.

    Args:
        times: one or several.
        increasing: whether each must be later than the one before, as along a history.

    Returns:
        The times as a vector.

    Raises:
        InputError: if there are none, or they are negative, not finite, or not increasing.
    """
    array = np.atleast_1d(_as_array("times", list(times) if isinstance(times, Sequence) else times, "numbers"))
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"times must be a vector with at least one entry, but has the shape {array.shape}.")
    if array.min() < 0:
        raise InputError(f"times must be at least 0, but hold {array.min():g}.")
    if increasing and (np.diff(array) <= 0).any():
        raise InputError("times must increase strictly; sort them and drop repeats (numpy.unique does both).")
    return array
