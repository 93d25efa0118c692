"""Diagonal linear networks as a problem of homogeneous neurons."""

import math
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from learnmech.dynamics.agf.diagonal_data import diagonal_data
from learnmech.dynamics.agf.diagonal_logs import follow_logs
from learnmech.dynamics.agf.diagonal_path import label, require_scale
from learnmech.dynamics.agf.flows import flow_history
from learnmech.dynamics.agf.problems import Block, Problem


class DiagonalProblem(Problem):
    r"""A diagonal linear network on data, :math:`f(x) = \sum_i u_iv_ix_i`.

    .. math::
        L = \tfrac{1}{2n}|X\beta - y|^2, \qquad \beta = \sum_k u_k \circ v_k .

    A neuron is the row (u, v) of 2 dim numbers. The network has one for each coordinate, which is zero at all others and stays so
    under the flow: :meth:`neurons` gives them. (Any rows will do: the flow is exact for those too.) Features are
    in the space that the inputs span, so the target has as many numbers as X has rank, and what no coefficients remove is ``floor``.
    Source: Kunin et al. 2025 (arXiv 2506.06489), diagonal linear networks; rows for coordinates are ours.

    For many coordinates the neurons of a history are many numbers (time × dim × 2 dim): use
    :func:`~learnmech.dynamics.agf.diagonal_flow` there.

    Args:
        X: inputs (samples, dim).
        y: targets (samples,), or (samples, 1).

    Attributes:
        dim: number of coordinates.

    Raises:
        InputError: for wrong shapes or numbers that are not finite.

    Example:
        >>> problem = DiagonalProblem([[1.0, 0.0], [0.0, 2.0]], [2.0, 2.0])
        >>> round(problem.loss(problem.neurons(1e-3)), 9), round(problem.loss(np.array([[2.0, 0.0, 1.0, 0.0]])), 9)
        (2.0, 1.0)
        >>> problem.pull(np.array([[2.0, 0.0, 1.0, 0.0]]), problem.target).round(12).tolist()
        [[1.0, 0.0, 2.0, 0.0]]
    """

    name = "diagonal linear network"
    degree = 2

    def __init__(self, X: Any, y: Any):
        self._data = diagonal_data(X, y)
        self.dim = self._data.dim
        self.size = 2 * self.dim
        self.target = self._data.target
        self.floor = self._data.floor
        self.blocks = (Block(0, self.dim), Block(self.dim, self.size))

    def neurons(self, scale: float) -> Float[np.ndarray, "dim size"]:
        r"""Give the start :math:`u = \sqrt2\,\alpha, v = 0`, a neuron for each coordinate.

        Args:
            scale: :math:`\alpha`, above 0 and below 1.

        Returns:
            One row a coordinate.
        """
        return np.hstack([math.sqrt(2) * require_scale(scale) * np.eye(self.dim), np.zeros((self.dim, self.dim))])

    def beta(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, " dim"]:
        """Give the coefficients of a network.

        Args:
            neurons: all that it has.

        Returns:
            Sum of u times v.
        """
        return np.asarray((neurons[:, : self.dim] * neurons[:, self.dim :]).sum(axis=0))

    def features(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, "neurons outputs"]:
        """Give what each neuron adds to the network.

        Args:
            neurons: rows (u, v).

        Returns:
            One row a neuron.
        """
        return np.asarray((neurons[:, : self.dim] * neurons[:, self.dim :]) @ self._data.matrix.T)

    def pull(
        self, neurons: Float[np.ndarray, "neurons size"], residual: Float[np.ndarray, " outputs"]
    ) -> Float[np.ndarray, "neurons size"]:
        """Give the gradient of each neuron's utility.

        Args:
            neurons: rows (u, v).
            residual: in the space of the target.

        Returns:
            Rows (h v, h u), with h minus the derivative of the loss by each coefficient.
        """
        drive = residual @ self._data.matrix
        return np.hstack([drive * neurons[:, self.dim :], drive * neurons[:, : self.dim]])

    def label(self, neuron: Float[np.ndarray, " size"]) -> Any:
        """Name the coordinate of a neuron with the sign of its coefficient.

        Args:
            neuron: a row (u, v).

        Returns:
            Such as ``"+3"``; None for zeros.
        """
        u, v = neuron[: self.dim], neuron[self.dim :]
        norms = np.hypot(u, v)
        index = int(np.argmax(norms))
        return label(index, float(u[index] * v[index])) if norms[index] > 0 else None

    def flow(
        self, init: Float[np.ndarray, "neurons size"], end: float | None, stop: float, tolerance: float, records: int
    ) -> xr.Dataset:
        """Integrate the gradient flow exactly, in logarithms.

        Args:
            init: rows (u, v), any.
            end: time; without, when the loss above the floor is ``stop`` times that of the start, or nothing grows any more.
            stop: see ``end``.
            tolerance: of the integrator.
            records: at most so many times are kept.

        Returns:
            A history, as :func:`~learnmech.dynamics.agf.gradient_flow` gives.
        """
        u, v = init[:, : self.dim], init[:, self.dim :]
        total, difference = u + v, u - v
        run = follow_logs(self._data, log_energy(total), log_energy(difference), end, stop, tolerance, records)
        integrals = run.integrals[:, None, :]
        grown = _grow(total, integrals)
        shrunk = _grow(difference, -integrals)
        neurons = np.concatenate([grown + shrunk, grown - shrunk], axis=2) / 2
        return flow_history(
            self,
            run.times,
            run.losses,
            run.speeds,
            neurons,
            {"end": end, "stop": stop, "tolerance": tolerance, "records": records},
        )


def log_energy(rows: Float[np.ndarray, "neurons dim"]) -> Float[np.ndarray, " dim"]:
    """Give the log of a quarter of the summed squares, without underflow.

    Args:
        rows: one a neuron.

    Returns:
        One number a coordinate, minus infinity for zeros.
    """
    largest = np.abs(rows).max(axis=0)
    safe = np.where(largest > 0, largest, 1.0)
    with np.errstate(divide="ignore"):
        return np.asarray(2 * np.log(largest) + np.log(np.maximum(np.square(rows / safe).sum(axis=0), 1.0) / 4))


def _grow(rows: Float[np.ndarray, "neurons dim"], integrals: Float[np.ndarray, "time one dim"]) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.asarray(np.sign(rows) * np.exp(np.log(np.abs(rows)) + integrals))
