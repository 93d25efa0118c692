"""Problems for recognised networks that have no exact route of their own: any homogeneous activation, and attention on samples."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.agf.problems import Block, Problem


class ActivationProblem(Problem):
    r"""A two-layer net :math:`\sum_i a_i\,\sigma(w_i\cdot x)` with several outputs and a homogeneous activation, on data.

    .. math::
        \sigma(z) = c_+ z^q\ (z > 0), \qquad \sigma(z) = c_-(-z)^q\ (z < 0), \qquad L = \tfrac1{2n}\sum_j|y_j - f(x_j)|^2 .

    A neuron is the row (a, w). With ``free_mean`` the mean over samples is taken off targets and features: that is the loss after the best bias of
    the outputs.

    Args:
        X: inputs (samples, inputs).
        Y: targets (samples, outputs).
        power: q.
        up: :math:`c_+`.
        down: :math:`c_-`.
        free_mean: whether the outputs have a bias.
    """

    name = "two-layer net"

    def __init__(
        self,
        X: Float[np.ndarray, "samples inputs"],
        Y: Float[np.ndarray, "samples outputs"],
        power: int,
        up: float,
        down: float,
        *,
        free_mean: bool = False,
    ):
        self._inputs, self._free_mean = X, free_mean
        self._power, self._up, self._down = power, up, down
        self._root = math.sqrt(len(X))
        self._outputs = Y.shape[1]
        self.size = self._outputs + X.shape[1]
        self.degree = 1 + power
        self.blocks = (Block(0, self._outputs), Block(self._outputs, self.size, power))
        self.smooth = power > 1 or up == -down
        self.target = self._centre(Y[None])[0].ravel() / self._root

    def _centre(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(values - values.mean(axis=1, keepdims=True)) if self._free_mean else values

    def _activation(self, heights: np.ndarray) -> np.ndarray:
        return np.asarray(np.where(heights > 0, self._up, self._down) * np.abs(heights) ** self._power)

    def features(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, "neurons outputs"]:
        """Give what each neuron adds to the outputs of all samples, over the root of their number."""
        out, inside = neurons[:, : self._outputs], neurons[:, self._outputs :]
        values = self._centre(self._activation(inside @ self._inputs.T))
        return np.asarray((values[:, :, None] * out[:, None, :]).reshape(len(neurons), -1) / self._root)

    def output(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, " outputs"]:
        """Give the outputs of all samples, without the features of each neuron."""
        out, inside = neurons[:, : self._outputs], neurons[:, self._outputs :]
        values = self._centre(self._activation(inside @ self._inputs.T))
        return np.asarray(values.T @ out).ravel() / self._root

    def pull(
        self, neurons: Float[np.ndarray, "neurons size"], residual: Float[np.ndarray, " outputs"]
    ) -> Float[np.ndarray, "neurons size"]:
        """Give the gradient of each neuron's utility; the derivative at 0 is that of the negative side, as in PyTorch for ReLU."""
        out, inside = neurons[:, : self._outputs], neurons[:, self._outputs :]
        rest = residual.reshape(-1, self._outputs) / self._root
        rest = self._centre(rest[None])[0]
        heights = inside @ self._inputs.T
        slopes = self._power * np.where(heights > 0, self._up, -self._down) * np.abs(heights) ** (self._power - 1)
        by_out = self._activation(heights) @ rest
        by_inside = ((out @ rest.T) * slopes) @ self._inputs
        return np.hstack([by_out, by_inside])

    def label(self, neuron: Float[np.ndarray, " size"]) -> Any:
        """Name the input and the output that weigh most, such as ``"+x3 to y0"``."""
        out, inside = neuron[: self._outputs], neuron[self._outputs :]
        place, goal = int(np.abs(inside).argmax()), int(np.abs(out).argmax())
        return f"{'-' if inside[place] < 0 else '+'}x{place} to {'-' if out[goal] < 0 else '+'}y{goal}"


class SampledAttentionProblem(Problem):
    r"""Linear attention on a finite set of contexts, :math:`f_b = \sum_h v_h(q_h\cdot x_b)(k_h\cdot z_b)`.

    Here :math:`z_b = \sum_n y_{bn}x_{bn}` is what the context shows. A neuron is the row (v, q, k), of degree 3.

    Args:
        query: x (batch, dimension).
        summed: z (batch, dimension).
        y: targets (batch,).
    """

    name = "linear attention on samples"
    degree = 3

    def __init__(
        self,
        query: Float[np.ndarray, "batch dimension"],
        summed: Float[np.ndarray, "batch dimension"],
        y: Float[np.ndarray, " batch"],
    ):
        self._query, self._summed = query, summed
        self._root = math.sqrt(len(y))
        self._side = query.shape[1]
        self.size = 1 + 2 * self._side
        self.blocks = (Block(0, 1), Block(1, 1 + self._side), Block(1 + self._side, self.size))
        self.target = y / self._root

    def features(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, "neurons outputs"]:
        """Give what each head adds to the outputs."""
        left, right = self._sides(neurons)
        return np.asarray(neurons[:, :1] * left * right / self._root)

    def pull(
        self, neurons: Float[np.ndarray, "neurons size"], residual: Float[np.ndarray, " outputs"]
    ) -> Float[np.ndarray, "neurons size"]:
        """Give the gradient of each head's utility."""
        left, right = self._sides(neurons)
        rest = residual / self._root
        value = neurons[:, :1]
        return np.hstack(
            [
                (left * right * rest).sum(axis=1, keepdims=True),
                value * ((right * rest) @ self._query),
                value * ((left * rest) @ self._summed),
            ]
        )

    def label(self, neuron: Float[np.ndarray, " size"]) -> Any:
        """Give the index of the coordinate that the head is most of."""
        return int(np.abs(neuron[1 : 1 + self._side] * neuron[1 + self._side :]).argmax())

    def _sides(self, neurons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return neurons[:, 1 : 1 + self._side] @ self._query.T, neurons[:, 1 + self._side :] @ self._summed.T
