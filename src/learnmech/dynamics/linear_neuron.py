"""The single linear neuron f = a w.x on whitened inputs: the smallest model that is lazy, rich, or lazy first and rich later."""

import math
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.optimize import brentq

from learnmech.dynamics.neuron_history import neuron_history
from learnmech.dynamics.neuron_kernel import form_preconditioner, whitened_distance
from learnmech.dynamics.neuron_problem import (
    SOURCE,
    make_problem,
    require_data,
    require_number,
    require_positive,
    require_times,
)
from learnmech.dynamics.neuron_solution import find_limit, find_modes, solve_modes
from learnmech.dynamics.neuron_timescales import Regime, Timescales, find_timescales, name_regime
from learnmech.errors import InputError

_RANGE = 1e300


class LinearNeuron:
    r"""The gradient flow of :math:`f(x) = a\,w\cdot x` on whitened inputs, in closed form.

    .. math::
        a' = -\eta_a\, w^T(X^TX\,aw - X^Ty), \qquad w' = -\eta_w\, a\,(X^TX\,aw - X^Ty), \qquad X^TX = cI,

    the flow of :math:`\tfrac12\sum_i(f(x_i) - y_i)^2` with a learning rate for each layer. Along it
    :math:`\delta = \eta_w a^2 - \eta_a|w|^2` is conserved, and its sign says how features are learned. Source: Kunin et al. 2024
    (arXiv 2406.06158), the single linear neuron. The one formula for every balance, sign and rate that is used here, and its form
    without overflow, are derived here (see :func:`~learnmech.dynamics.neuron_solution.solve_modes`).

    **How to read it.** ``delta`` far above 0 (*upstream*): the kernel hardly moves, lazy. Near 0 (*balanced*): size and direction
    of the product change together, rich. Far below 0 (*downstream*): the size is fitted fast with the direction of the start,
    lazy; the direction turns late, then the kernel moves: delayed rich.

    **When it isn't valid.** For inputs that are not whitened use :func:`~learnmech.dynamics.neuron_flow`. k steps of gradient descent
    of a small learning rate lr correspond to the time k lr for this loss; for ``MSELoss`` over n samples to 2 k lr / n.

    Args:
        a0: read-out weight at the start, any number.
        w0: input weights at the start, shape (dim,).
        beta: :math:`X^Ty`, shape (dim,).
        eta_a: learning rate of a, positive.
        eta_w: learning rate of w, positive.
        scale: c in :math:`X^TX = cI`; 1 for whitened inputs. The target is :math:`\beta_* = X^Ty/c`.

    Raises:
        InputError: for wrong shapes or numbers that are not finite, rates or scale not above 0.

    Example:
        Two inputs, the target (1, 0), a balanced start on the line of the target: the product obeys the logistic equation.

        >>> import math
        >>> neuron = LinearNeuron(0.1, [0.1, 0.0], [1.0, 0.0])
        >>> run = neuron.at([0.0, 1.0, 2.0])
        >>> [round(float(value), 6) for value in run.beta[:, 0]]
        [0.01, 0.069453, 0.355461]
        >>> round(1 / (1 + 99 * math.exp(-2 * 2.0)), 6)
        0.355461
    """

    def __init__(self, a0: Any, w0: Any, beta: Any, eta_a: float = 1.0, eta_w: float = 1.0, *, scale: float = 1.0):
        self._problem = make_problem(a0, w0, beta, eta_a, eta_w, scale)
        self._modes = find_modes(self._problem)

    def __repr__(self) -> str:
        return f"LinearNeuron(dim={self.dim}, {self.regime}, delta={self.delta:.4g})"

    @property
    def dim(self) -> int:
        """Number of inputs."""
        return len(self._problem.w0)

    @property
    def delta(self) -> float:
        r"""The conserved balance :math:`\delta = \eta_w a^2 - \eta_a|w|^2`."""
        return self._problem.delta

    @property
    def delta_prime(self) -> float:
        r""":math:`\delta' = \delta/\sqrt{\eta_a\eta_w}`, the balance of the problem with unit rates that has the same product."""
        return self._problem.delta_prime

    @property
    def target(self) -> Float[np.ndarray, " dim"]:
        r"""The least-squares solution :math:`\beta_* = X^Ty/c`."""
        return self._problem.target.copy()

    @property
    def regime(self) -> Regime:
        r"""``upstream``, ``balanced`` (:math:`|\delta| < 2\sqrt{\eta_a\eta_w}|\beta_*|`, the threshold is ours) or ``downstream``."""
        return name_regime(self.delta, self._problem.rate * self._problem.target_norm)

    @property
    def basin(self) -> int:
        r"""Sign of a at the end: sign of :math:`W_0\cdot\beta_* + A_0(\delta' + k)/2` (derived here).

        0 for a start that ends at a saddle, within rounding. With delta at least 0 and a nonzero target it is the sign of ``a0``.
        """
        return find_limit(self._modes)[2]

    def limit(self) -> tuple[float, Float[np.ndarray, " dim"]]:
        """Give the weights at the end of training.

        Returns:
            a and w for time to infinity; their product is the target, or 0 if the start ends at a saddle (:attr:`basin` 0).
        """
        a, w, _ = find_limit(self._modes)
        return self._unreduce(np.array(a), w)

    def _unreduce(self, a: Float[np.ndarray, "..."], w: Float[np.ndarray, "..."]) -> tuple[Any, Any]:
        factor = (self._problem.eta_w / self._problem.eta_a) ** 0.25
        return (a / factor if a.ndim else float(a) / factor), w * factor

    def _weights(
        self, times: Float[np.ndarray, " time"]
    ) -> tuple[Float[np.ndarray, " time"], Float[np.ndarray, "time dim"]]:
        problem = self._problem
        longest = float(times.max()) * problem.scale * problem.rate * max(self._modes.k, 1.0)
        if not longest < _RANGE:
            raise InputError(
                f"times must stay below {times.max() / longest * _RANGE:g}, but hold {times.max():g}; use limit()."
            )
        a, w = self._unreduce(*solve_modes(self._modes, times * problem.scale * problem.rate))
        start = times == 0
        a[start], w[start] = problem.a0, problem.w0
        return a, w

    def at(self, times: Any) -> xr.Dataset:
        r"""Give the exact solution at times, as a history.

        Args:
            times: strictly increasing, at least 0, in units of 1 / (learning rate × c).

        Returns:
            A history over ``time`` (and ``dim``):

            - ``a``, ``w`` (time, dim), ``beta = a w``, ``mu = a |w|``, ``phi`` = cosine of w and the target (NaN where one is 0);
            - ``k = sqrt(delta² + 4 eta_a eta_w mu²)``, the rate at which the size of beta follows;
            - ``delta``, from the weights at each time: a check of the numbers, it should not move;
            - ``loss = c |beta - target|² / 2``, half the squared error beyond the least possible;
            - ``kernel_distance`` in [0, 1] to the kernel at time 0 (NaN if that is 0): 0 is lazy.

        Raises InputError for times that are negative, not finite or not increasing.

        Example:
            >>> run = LinearNeuron(0.5, [0.3, -0.4], [1.0, 0.5]).at([1.0])
            >>> round(float(run.a[0]), 10), round(float(run.kernel_distance[0]), 8)
            (0.6981500744, 0.11451422)
        """
        clock, problem = require_times(times), self._problem
        a, w = self._weights(clock)
        return neuron_history(
            clock,
            a,
            w,
            target=problem.target,
            eta_a=problem.eta_a,
            eta_w=problem.eta_w,
            loss=self._loss(a, w),
            kernel_distance=whitened_distance(a, w, problem.a0, problem.w0, problem.eta_a, problem.eta_w),
            source=f"exact solution derived here for the model of {SOURCE}",
            config={"model": "linear neuron", "method": "exact", **self._describe()},
        )

    def _loss(self, a: Float[np.ndarray, " time"], w: Float[np.ndarray, "time dim"]) -> Float[np.ndarray, " time"]:
        return np.asarray(self._problem.scale / 2 * np.square(a[:, None] * w - self._problem.target).sum(axis=1))

    def _describe(self) -> dict[str, Any]:
        problem = self._problem
        return {
            "a0": problem.a0,
            "w0": problem.w0.tolist(),
            "beta": (problem.target * problem.scale).tolist(),
            "eta_a": problem.eta_a,
            "eta_w": problem.eta_w,
            "scale": problem.scale,
        }

    def preconditioner(self, time: float) -> Float[np.ndarray, "dim dim"]:
        r"""Give :math:`M = \eta_w a^2 I + \eta_a ww^T`, through which the product moves: :math:`\beta' = -M X^T(X\beta - y)`.

        Upstream it tends to :math:`\delta I`, balanced to :math:`\sqrt{\eta_a\eta_w}|\beta|(I + \hat\beta\hat\beta^T)`, downstream to
        :math:`|\delta|\hat\beta\hat\beta^T`.

        Args:
            time: at least 0.

        Returns:
            The matrix.
        """
        a, w = self._weights(require_times(time))
        return np.asarray(form_preconditioner(a, w, self._problem.eta_a, self._problem.eta_w)[0])

    def kernel(self, time: float, inputs: Any = None) -> Float[np.ndarray, "..."]:
        r"""Give the tangent kernel :math:`K = XMX^T`.

        Args:
            time: at least 0.
            inputs: X (samples, dim); None takes the unit vectors, whose kernel is M itself.

        Returns:
            The kernel (samples, samples).

        Raises:
            InputError: if the inputs have another number of columns than the neuron has inputs.
        """
        matrix = self.preconditioner(time)
        if inputs is None:
            return matrix
        X, _ = require_data(inputs, np.zeros(max(np.shape(inputs)[:1], default=1)))
        if X.shape[1] != self.dim:
            raise InputError(f"inputs must have {self.dim} columns, but have the shape {X.shape}.")
        return np.asarray(X @ matrix @ X.T)

    def timescales(self, size: float | None = None) -> Timescales:
        """Give the speeds of size and direction of the product, exact and in the limits of the balance.

        Args:
            size: of the product; that of the target if None.

        Returns:
            Speeds, their limits, and times near the target.

        Raises:
            InputError: for a negative size.
        """
        problem = self._problem
        value = problem.target_norm if size is None else require_number("size", size)
        if value < 0:
            raise InputError(f"size is a norm, at least 0, but {value:g} came.")
        return find_timescales(problem.delta, problem.rate, value, problem.target_norm, problem.scale)

    def time_to_loss(self, loss: float) -> float:
        """Give the time at which the loss has fallen to a value; it never rises again.

        Args:
            loss: half the squared error beyond the least possible, as in :meth:`at`, above 0.

        Returns:
            The time; 0 if the start is already there, infinity if training ends at a saddle above it.

        Raises:
            InputError: for a loss that is not above 0.
        """
        goal = require_positive("loss", loss)

        def height(time: float) -> float:
            return math.log(max(float(self._loss(*self._weights(np.array([time])))[0]), 1e-320) / goal)

        if height(0.0) <= 0:
            return 0.0
        a, w = self.limit()
        if float(self._loss(np.array([a]), w[None])[0]) >= goal:
            return math.inf
        problem = self._problem
        end = 1.0 / (problem.scale * problem.rate * max(self._modes.k, 1e-300))
        while height(end) > 0:
            end *= 2.0
        return float(brentq(height, 0.0, end, xtol=1e-300, rtol=1e-12))

    def slow_phase(self, times: Any) -> Float[np.ndarray, " time"]:
        r"""Give the cosine of w and the target in the slow phase of a downstream start, in closed form.

        .. math::
            \varphi(t) = \Big[1 + (\varphi_0^{-2} - 1)\,e^{-2c\,\eta_a\eta_w|\beta_*|^2 t/|\delta|}\Big]^{-1/2}

        The limit of a large negative delta, after the size has settled on :math:`\mu = \varphi|\beta_*|`; the error falls like
        :math:`1/\delta^2`. Source: derived from the equations of Kunin et al. 2024 (arXiv 2406.06158) for mu and phi.

        Args:
            times: at least 0.

        Returns:
            The cosine at each time; it keeps its sign.

        Raises:
            InputError: if delta is not below 0, or w or the target is 0.
        """
        problem, clock = self._problem, require_times(times, increasing=False)
        if not (problem.delta < 0 and problem.target_norm > 0):
            raise InputError(
                f"the slow phase needs delta < 0 and a target that is not 0, but delta is {problem.delta:g}."
            )
        phi = float(np.clip(problem.w0 / np.linalg.norm(problem.w0) @ self._modes.along, -1.0, 1.0))
        if phi == 0:
            return np.zeros_like(clock)
        rate = problem.scale * problem.rate**2 * problem.target_norm**2 / abs(problem.delta)
        return np.asarray(math.copysign(1.0, phi) / np.sqrt(1 + (phi**-2.0 - 1) * np.exp(-2 * rate * clock)))
