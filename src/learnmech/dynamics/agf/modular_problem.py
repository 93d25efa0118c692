"""Modular addition by a quadratic network, as a problem of homogeneous neurons of degree 3."""

import math
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Complex, Float

from learnmech.dynamics.agf.flows import flow_history
from learnmech.dynamics.agf.modular_stabilised import follow
from learnmech.dynamics.agf.modular_utility import spectrum
from learnmech.dynamics.agf.problems import Block, Problem
from learnmech.errors import InputError


class ModularProblem(Problem):
    r"""A quadratic network that adds modulo p, seeing each number as a template rolled by it.

    .. math::
        f(a, b) = \sum_i (u_i\cdot x_a + v_i\cdot x_b)^2\, w_i, \qquad L = \frac1{2p^2}\sum_{a,b}|x_{a+b} - f(a,b)|^2 .

    A neuron is the row (u, v, w) of 3 p numbers; :math:`x_a` is the template without its mean, rolled by a (``numpy.roll``). Features
    are all :math:`p^3` outputs over p, but loss and gradient never form them: with H neurons they cost of order
    :math:`H^2p` operations, since inner products of features are those of parts that depend on a and on b alone. Source: Kunin et al. 2025
    (arXiv 2506.06489), modular addition; the factorisation is derived here.

    The flow is stiff once a frequency is learned (eigenvalues of some hundreds against times of some hundreds):
    :func:`~learnmech.dynamics.agf.gradient_flow` takes a stabilised explicit method of order 2 here, whose tolerance is never below 1e-5;
    with 18 neurons and p = 20, jump times were within 5e-4 of those of an explicit method of order 8, for a twentieth of the gradients.

    Args:
        template: x (p,), p at least 3.

    Attributes:
        template: x without its mean.
        length: p.

    Raises:
        InputError: for a bad template.

    Example:
        >>> problem = ModularProblem([1.0, -1.0, 0.0, 0.0])
        >>> round(problem.loss(1e-3 * np.ones((1, 12))), 12), problem.size, len(problem.target)
        (1.0, 12, 64)
    """

    name = "modular addition"
    degree = 3

    def __init__(self, template: Any):
        parts = spectrum(template)
        length = parts.length
        self.template, self.length, self.size = parts.template, length, 3 * length
        self.blocks = (Block(0, 2 * length, 2), Block(2 * length, 3 * length, 1))
        places = np.arange(length)
        self._rolled = self.template[(places[None, :] - places[:, None]) % length]
        self.target = self._rolled[(places[:, None] + places[None, :]) % length].ravel() / length
        turns = 2 * np.pi * np.outer(places, parts.frequencies) / length
        self._waves = np.hstack([np.cos(turns), -np.sin(turns)])
        nyquist = 2 * parts.frequencies == length
        self._weights = (
            np.where(nyquist, 2.0, 4.0) / length**3 * np.abs(parts.coefficients) ** 2 * parts.coefficients.conj()
        )
        self._frequencies = parts.frequencies

    def neurons(self, width: int, scale: float, seed: int) -> Float[np.ndarray, "width size"]:
        r"""Draw the authors' start: entries of u and v normal with deviation :math:`s/\sqrt{2p}`, of w with :math:`s/\sqrt p`.

        A neuron then has a norm near :math:`\sqrt2\,s`.

        Args:
            width: number of neurons.
            scale: s, above 0.
            seed: of the numbers.

        Returns:
            One row a neuron.

        Raises:
            InputError: for a width or scale out of range.
        """
        if isinstance(width, bool) or not isinstance(width, int | np.integer) or width < 1:
            raise InputError(f"width must be a positive integer, got {width!r}.")
        if not (math.isfinite(scale) and scale > 0):
            raise InputError(f"scale must be a positive number, got {scale!r}: 0 is a saddle that no flow leaves.")
        draws = np.random.default_rng(seed)
        parts = [draws.standard_normal((width, self.length)) / math.sqrt(share * self.length) for share in (2, 2, 1)]
        return scale * np.concatenate(parts, axis=1)

    def features(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, "neurons outputs"]:
        """Give what each neuron adds to the network.

        Args:
            neurons: rows (u, v, w).

        Returns:
            For each neuron the outputs over a, b and place, flat, over p.
        """
        squares = np.square(self._sums(neurons))
        out = squares[:, :, :, None] * neurons[:, None, None, 2 * self.length :] / self.length
        return np.asarray(out.reshape(len(neurons), self.length**3))

    def output(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, " outputs"]:
        """Give the network's output, without the features of each neuron.

        Args:
            neurons: all that it has.

        Returns:
            The sum of their features.
        """
        squares = np.square(self._sums(neurons)).reshape(len(neurons), self.length**2)
        return np.asarray((squares.T @ neurons[:, 2 * self.length :]).ravel() / self.length)

    def pull(
        self, neurons: Float[np.ndarray, "neurons size"], residual: Float[np.ndarray, " outputs"]
    ) -> Float[np.ndarray, "neurons size"]:
        """Give the gradient of each neuron's utility.

        Args:
            neurons: rows (u, v, w).
            residual: over a, b and place, flat, over p.

        Returns:
            One row a neuron.
        """
        length = self.length
        table = residual.reshape(length**2, length) / length
        sums = self._sums(neurons)
        drive = 2 * sums * (neurons[:, 2 * length :] @ table.T).reshape(-1, length, length)
        squares = np.square(sums).reshape(len(neurons), length**2)
        return np.concatenate(
            [drive.sum(axis=2) @ self._rolled, drive.sum(axis=1) @ self._rolled, squares @ table], axis=1
        )

    def loss(self, neurons: Float[np.ndarray, "neurons size"]) -> float:
        """Give the loss.

        Args:
            neurons: all that the network has.

        Returns:
            Half the mean over pairs of the squared distance, summed over places; directly from the outputs, so that small losses are exact.
        """
        rest = self.residual(neurons)
        return float(rest @ rest) / 2

    def gradient(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, "neurons size"]:
        """Give the gradient of the loss, from inner products of features.

        Args:
            neurons: all that the network has.

        Returns:
            One row a neuron.
        """
        return -self.pull_beside(neurons, neurons)

    def pull_beside(
        self, neurons: Float[np.ndarray, "neurons size"], others: Float[np.ndarray, "others size"]
    ) -> Float[np.ndarray, "neurons size"]:
        """Give the gradient of each neuron's utility under the residual that other neurons leave, without forming that.

        Args:
            neurons: whose utility it is.
            others: whose output is taken from the target; none leave all of it.

        Returns:
            One row a neuron: the same as ``pull(neurons, residual(others))``.
        """
        length = self.length
        parts = neurons.reshape(-1, 3, length)
        wanted = self._wanted(parts)
        if not len(others):
            return wanted.reshape(neurons.shape)
        there = others.reshape(-1, 3, length)
        first, second = parts[:, 0] @ self._rolled.T, parts[:, 1] @ self._rolled.T
        same = others is neurons
        first_there = first if same else there[:, 0] @ self._rolled.T
        second_there = second if same else there[:, 1] @ self._rolled.T
        first_squares, second_squares = first_there * first_there, second_there * second_there
        first_sums, second_sums = first_squares.sum(axis=1), second_squares.sum(axis=1)
        first_own, second_own = (first * first, second * second) if not same else (first_squares, second_squares)
        first_gram, second_gram = first @ first_there.T, second @ second_there.T
        gram = parts[:, 2] @ there[:, 2].T
        overlap = length * (first_own @ first_squares.T + second_own @ second_squares.T)
        overlap += 4 * first_gram * second_gram
        overlap += first_own.sum(axis=1)[:, None] * second_sums + second_own.sum(axis=1)[:, None] * first_sums
        by_first = first * (length * (gram @ first_squares) + (gram @ second_sums)[:, None])
        by_first += 2 * (gram * second_gram) @ first_there
        by_second = second * (length * (gram @ second_squares) + (gram @ first_sums)[:, None])
        by_second += 2 * (gram * first_gram) @ second_there
        wanted[:, 0] -= by_first @ self._rolled * (2 / length**2)
        wanted[:, 1] -= by_second @ self._rolled * (2 / length**2)
        wanted[:, 2] -= overlap @ there[:, 2] / length**2
        return wanted.reshape(neurons.shape)

    def label(self, neuron: Float[np.ndarray, " size"]) -> Any:
        """Name the frequency of a neuron.

        Args:
            neuron: a row (u, v, w).

        Returns:
            The k of the template with the largest product of the powers of u, v and w, the lower one if two tie; None if all vanish.
        """
        power = np.abs(self._transform(neuron.reshape(1, 3, self.length))[0])
        products = power.prod(axis=0)
        best = int(np.argmax(products >= products.max() * (1 - 1e-9)))
        return int(self._frequencies[best]) if products[best] > 0 else None

    def flow(
        self, init: Float[np.ndarray, "neurons size"], end: float | None, stop: float, tolerance: float, records: int
    ) -> xr.Dataset:
        """Integrate the gradient flow with a stabilised explicit method.

        Args:
            init: rows (u, v, w).
            end: time; without, when the loss is ``stop`` times that of the start, or nothing grows any more.
            stop: see ``end``.
            tolerance: relative, raised to 1e-5.
            records: at most so many times are kept.

        Returns:
            A history, as :func:`~learnmech.dynamics.agf.gradient_flow` gives.
        """
        tolerance = max(tolerance, 1e-5)
        run = follow(self, init, end, stop, tolerance, records)
        speeds = np.array([np.square(self.gradient(state)).sum() for state in run.states])
        config = {"end": end, "stop": stop, "tolerance": tolerance, "records": records, "steps": run.steps}
        return flow_history(self, run.times, run.losses, speeds, run.states, config)

    def _transform(self, parts: Float[np.ndarray, "neurons 3 p"]) -> Complex[np.ndarray, "neurons 3 frequencies"]:
        """Fourier coefficients at the frequencies of the template."""
        both = parts.reshape(-1, self.length) @ self._waves
        half = both.shape[1] // 2
        return np.asarray((both[:, :half] + 1j * both[:, half:]).reshape(*parts.shape[:2], half))

    def _wanted(self, parts: Float[np.ndarray, "neurons 3 p"]) -> Float[np.ndarray, "neurons 3 p"]:
        """The gradient of each neuron's utility under the whole target, frequency by frequency."""
        waves = self._transform(parts)
        first, second, ahead = waves[:, 0], waves[:, 1], self._weights * waves[:, 2].conj()
        slopes = np.stack([second * ahead, first * ahead, (self._weights * first * second).conj()], axis=1)
        both = np.concatenate([slopes.real, -slopes.imag], axis=2).reshape(-1, self._waves.shape[1])
        return np.asarray((both @ self._waves.T).reshape(parts.shape))

    def _sums(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, "neurons p p"]:
        length = self.length
        first, second = neurons[:, :length] @ self._rolled.T, neurons[:, length : 2 * length] @ self._rolled.T
        return np.asarray(first[:, :, None] + second[:, None, :])
