"""Two-layer ReLU nets as a problem of homogeneous neurons."""

import math
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from learnmech.dynamics.agf.flows import choose_records, flow_history
from learnmech.dynamics.agf.problems import Block, Problem
from learnmech.dynamics.agf.relu_directions import ReluDirections, extremal_directions
from learnmech.dynamics.agf.relu_flow import follow_net, make_net
from learnmech.dynamics.agf.relu_inputs import relu_data
from learnmech.dynamics.agf.relu_stages import minimise
from learnmech.errors import LearnmechError

_AT_REST = 1e-8


class ReluProblem(Problem):
    r"""A two-layer net with rectified neurons on data.

    .. math::
        f(x) = \sum_i a_i\,\sigma(w_i \cdot x), \qquad \sigma(z) = \max(z, \text{leak}\cdot z), \qquad
        L = \frac{1}{2n}\sum_j (y_j - f(x_j))^2 .

    A neuron is the row :math:`(a, w)` of 1 + d numbers (with ``bias`` 2 + d, the bias last), of degree 2. Gradient flow keeps
    :math:`|w_i|^2 - a_i^2`. Its gradient has kinks at :math:`w \cdot x_j = 0`, where the derivative of the activation is taken as
    the leak, as PyTorch does; :func:`~learnmech.dynamics.agf.gradient_flow` takes this problem's own integrator, which cuts its steps
    at kinks and slides along those that attract from both sides.

    Source: Kunin et al. 2025 (arXiv 2506.06489), section on ReLU networks; the integrator is derived here.

    Args:
        X: inputs (samples, inputs).
        y: targets (samples,), or (samples, 1).
        leak: slope below 0, from 0 to below 1.
        bias: whether neurons have biases: a column of ones is appended to the inputs.

    Attributes:
        points: the inputs, with the ones, shape (samples, dimension).
        values: the targets.
        leak: slope below 0.

    Raises:
        InputError: for wrong shapes or numbers that are not finite.

    Example:
        >>> problem = ReluProblem([[1.0, 0.0], [-1.0, 0.0]], [2.0, 1.0])
        >>> round(problem.loss(np.zeros((0, 3))), 12), round(problem.loss(np.array([[1.0, 2.0, 0.0]])), 12)
        (1.25, 0.25)
        >>> problem.pull(np.array([[1.0, 1.0, 0.0]]), problem.target).round(12).tolist()
        [[1.0, 1.0, 0.0]]
    """

    name = "two-layer ReLU net"
    degree = 2
    smooth = False

    def __init__(self, X: Any, y: Any, leak: float = 0.0, *, bias: bool = False):
        self.points, self.values, self.leak = relu_data(X, y, leak, bias)
        self.bias = bool(bias)
        self.size = 1 + self.points.shape[1]
        self._root = math.sqrt(len(self.values))
        self.target = self.values / self._root
        self.blocks = (Block(0, 1), Block(1, self.size))

    def features(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, "neurons outputs"]:
        r"""Give what each neuron adds to the network.

        Args:
            neurons: rows (a, w).

        Returns:
            :math:`a\,\sigma(w \cdot x_j)/\sqrt n`, one row a neuron.
        """
        heights = neurons[:, 1:] @ self.points.T
        return np.asarray(neurons[:, :1] * np.where(heights > 0, heights, self.leak * heights) / self._root)

    def pull(
        self, neurons: Float[np.ndarray, "neurons size"], residual: Float[np.ndarray, " outputs"]
    ) -> Float[np.ndarray, "neurons size"]:
        r"""Give the gradient of each neuron's utility.

        Args:
            neurons: rows (a, w).
            residual: with the root of the weights, as everywhere in a problem.

        Returns:
            :math:`(w \cdot D, a D)` with D the mean of :math:`\sigma'(w \cdot x_j)\,x_j r_j`.
        """
        gates = np.where(neurons[:, 1:] @ self.points.T > 0, 1.0, self.leak)
        pulls = (gates * (residual / self._root)) @ self.points
        return np.column_stack([np.einsum("id,id->i", neurons[:, 1:], pulls), neurons[:, :1] * pulls])

    def label(self, neuron: Float[np.ndarray, " size"]) -> Any:
        """Name the attracting direction of the first residual that is nearest.

        Args:
            neuron: a row (a, w).

        Returns:
            Its name, as :meth:`~learnmech.dynamics.agf.relu_directions.ReluDirections.nearest` gives; None if there is none
            within 1 rad with the same sign of a.
        """
        return self._attracting.nearest(neuron[1:], float(neuron[0]))

    @cached_property
    def _attracting(self) -> ReluDirections:
        return extremal_directions(self.points, self.values, leak=self.leak).attracting()

    def config(self) -> dict[str, Any]:
        """Say what this problem is.

        Returns:
            Plain values by name.
        """
        return {**super().config(), "leak": self.leak, "bias": self.bias}

    def settle(self, neurons: Float[np.ndarray, "neurons size"]) -> tuple[Float[np.ndarray, "neurons size"], bool]:
        """Follow active neurons to a critical point, kink by kink.

        Args:
            neurons: rows (a, w).

        Returns:
            The neurons there, and whether it was reached.
        """
        return minimise(self.points, self.values, self.leak, neurons)

    def flow(
        self, init: Float[np.ndarray, "neurons size"], end: float | None, stop: float, tolerance: float, records: int
    ) -> xr.Dataset:
        """Integrate the gradient flow, kink by kink.

        Args:
            init: rows (a, w).
            end: time; without, when the loss is ``stop`` times that of the start, or every neuron has stopped growing.
            stop: see ``end``.
            tolerance: of a step, relative to each neuron's norm.
            records: at most so many times are kept.

        Returns:
            A history, as :func:`~learnmech.dynamics.agf.gradient_flow` gives.

        Raises:
            LearnmechError: if the steps are exhausted.
        """
        net = make_net(self.points, self.values, self.leak, init)
        first = net.loss(init)
        times, states, losses, speeds = [0.0], [init.copy()], [first], [float(np.square(net.velocity(init)).sum())]
        fastest = 0.0

        def visit(moment: float, neurons: np.ndarray, loss: float, speed: float) -> bool:
            nonlocal fastest
            if not math.isfinite(loss):
                raise LearnmechError(f"the loss is not finite at time {moment:.3g}; take a smaller tolerance.")
            times.append(moment)
            states.append(neurons.copy())
            losses.append(loss)
            speeds.append(speed)
            growth = np.abs((neurons * net.velocity(neurons)).sum(axis=1))
            rate = float((growth / np.maximum(np.square(neurons).sum(axis=1), 1e-300)).max())
            fastest = max(fastest, rate)
            return end is None and (loss <= stop * first or rate <= _AT_REST * fastest)

        follow_net(net, visit, end=math.inf if end is None else end, tolerance=tolerance, inside=2)
        kept, levels = np.array(times), np.array(losses)
        keep = choose_records(kept, levels, records)
        return flow_history(
            self,
            kept[keep],
            levels[keep],
            np.array(speeds)[keep],
            np.stack([states[index] for index in keep]),
            {"end": end, "stop": stop, "tolerance": tolerance, "records": records},
        )
