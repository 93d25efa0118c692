"""First and second derivatives of the end of a leaky path in its weights, by hand: the engine of the geodesic solver."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

Array = np.ndarray


@dataclass(frozen=True)
class Point:
    """A path and what its derivatives need.

    Attributes:
        scaled: weights times the root of step over effective depth, so that the action is half their squared norm.
        weights: weights (layers, width, rows).
        path: representations (layers + 1, width, samples).
        active: activations sigma(A) of all nodes but the last (layers, rows, samples).
        up: where the activation has slope 1 (layers, width, samples).
    """

    scaled: Float[Array, "layers width rows"]
    weights: Float[Array, "layers width rows"]
    path: Float[Array, "nodes width samples"]
    active: Float[Array, "layers rows samples"]
    up: Bool[Array, "layers width samples"]

    @property
    def action(self) -> float:
        """The action: the sum of step times squared weights, over twice the effective depth."""
        return float(np.vdot(self.scaled, self.scaled)) / 2


class LeakyPasses:
    r"""The discretised flow of one leaky ResNet from a fixed representation, in float64.

    .. math:: A_l = (1 - \rho_l\tilde L) A_{l-1} + \rho_l W_l\,\sigma(A_{l-1}), \qquad U_l = \sqrt{\rho_l/\tilde L}\;W_l.

    Args:
        start: representation A_0 (width, samples).
        steps: step sizes (layers,).
        effective_depth: the leak.
        bias: whether a row of ones is appended to the activations.
    """

    def __init__(
        self,
        start: Float[Array, "width samples"],
        steps: Float[Array, " layers"],
        effective_depth: float,
        *,
        bias: bool,
    ) -> None:
        self.start, self.steps, self.leak, self.bias = start, steps, effective_depth, bias
        self.width, self.samples = start.shape
        self.rows, self.layers = self.width + int(bias), len(steps)
        self.skips = 1 - steps * effective_depth
        self._unscale = np.sqrt(effective_depth / steps)[:, None, None]
        self._strength = np.sqrt(effective_depth * steps)

    def size(self, goal: Float[Array, "width samples"]) -> float:
        """Give the size of the ends, to which errors of the end are relative.

        Args:
            goal: representation that a path should end at.

        Returns:
            The larger norm of start and goal, or 1 if both are 0.
        """
        return max(float(np.linalg.norm(goal)), float(np.linalg.norm(self.start))) or 1.0

    def scale(self, weights: Float[Array, "layers width rows"]) -> Float[Array, "layers width rows"]:
        """Scale weights so that the action is half their squared norm.

        Args:
            weights: weights.

        Returns:
            Scaled weights.
        """
        return weights / self._unscale

    def point(self, scaled: Float[Array, "layers width rows"]) -> Point:
        """Compute the path of weights.

        Args:
            scaled: scaled weights.

        Returns:
            The path and what belongs to it.
        """
        weights = scaled * self._unscale
        path = np.empty((self.layers + 1, self.width, self.samples))
        active = np.ones((self.layers, self.rows, self.samples))
        path[0] = self.start
        for layer in range(self.layers):
            np.maximum(path[layer], 0, out=active[layer, : self.width])
            path[layer + 1] = self.skips[layer] * path[layer] + self.steps[layer] * (weights[layer] @ active[layer])
        return Point(scaled, weights, path, active, path[:-1] > 0)

    def momenta(
        self, at: Point, up: Bool[Array, "layers width samples"], pulls: Float[Array, "nodes width samples"]
    ) -> Float[Array, "nodes width samples"]:
        r"""Carry pulls on the representations back: :math:`B_{l-1} = (1-\rho\tilde L) B_l + \rho\,s\odot V^TB_l + M_{l-1}`.

        Args:
            at: the path.
            up: slopes s of the activations.
            pulls: M at every node; the last is the momentum at the end.

        Returns:
            B at every node.
        """
        momenta = np.empty_like(pulls)
        momenta[-1] = pulls[-1]
        for layer in range(self.layers - 1, -1, -1):
            after = momenta[layer + 1]
            inner = self.steps[layer] * (at.weights[layer, :, : self.width].T @ after)
            momenta[layer] = self.skips[layer] * after + np.where(up[layer], inner, 0.0) + pulls[layer]
        return momenta

    def gradient(self, at: Point, momenta: Float[Array, "nodes width samples"]) -> Float[Array, "layers width rows"]:
        r"""Compute the derivative of the pulled representations in the scaled weights, :math:`\sqrt{\rho\tilde L}B\sigma^T`.

        Args:
            at: the path.
            momenta: what :meth:`momenta` gave.

        Returns:
            The gradient; at a geodesic it is the scaled weights themselves.
        """
        product: Array = momenta[1:] @ at.active.transpose(0, 2, 1)
        return product * self._strength[:, None, None]

    def tangent(
        self, at: Point, up: Bool[Array, "layers width samples"], change: Float[Array, "layers width rows"]
    ) -> Float[Array, "nodes width samples"]:
        """Compute how the path moves, to first order, when the scaled weights do.

        Args:
            at: the path.
            up: slopes of the activations.
            change: change of the scaled weights.

        Returns:
            Change of the representations.
        """
        moved = np.zeros_like(at.path)
        direct = (change @ at.active) * self._strength[:, None, None]
        for layer in range(self.layers):
            inner = at.weights[layer, :, : self.width] @ np.where(up[layer], moved[layer], 0.0)
            moved[layer + 1] = self.skips[layer] * moved[layer] + self.steps[layer] * inner + direct[layer]
        return moved

    def curvature(
        self,
        at: Point,
        up: Bool[Array, "layers width samples"],
        momenta: Float[Array, "nodes width samples"],
        change: Float[Array, "layers width rows"],
    ) -> Float[Array, "layers width rows"]:
        """Compute the change of :meth:`gradient` when the scaled weights change and the pulls do not.

        Args:
            at: the path.
            up: slopes of the activations, taken as fixed.
            momenta: what :meth:`momenta` gave.
            change: change of the scaled weights.

        Returns:
            The second derivative of the pulled representations, times the change.
        """
        moved = np.where(up, self.tangent(at, up, change)[:-1], 0.0)
        turned = np.zeros_like(momenta)
        plain = change * self._unscale
        for layer in range(self.layers - 1, -1, -1):
            weights, after = at.weights[layer, :, : self.width], turned[layer + 1]
            inner = weights.T @ after + plain[layer, :, : self.width].T @ momenta[layer + 1]
            turned[layer] = self.skips[layer] * after + self.steps[layer] * np.where(up[layer], inner, 0.0)
        result: Array = turned[1:] @ at.active.transpose(0, 2, 1)
        result[:, :, : self.width] += momenta[1:] @ moved.transpose(0, 2, 1)
        return result * self._strength[:, None, None]

    def jacobian(
        self, at: Point, up: Bool[Array, "layers width samples"], entries: tuple[Array, Array, Array]
    ) -> Float[Array, "entries layers width rows"]:
        """Compute the derivative of single entries of the path in the scaled weights.

        Args:
            at: the path.
            up: slopes of the activations.
            entries: nodes, neurons and samples of the entries; nodes must decrease.

        Returns:
            One gradient an entry.
        """
        nodes, neurons, samples = entries
        rows = np.zeros((len(nodes), self.layers, self.width, self.rows))
        pulls = np.zeros((len(nodes), self.width))
        begun = 0
        for layer in range(self.layers - 1, -1, -1):
            now = int(np.searchsorted(-nodes, -layer, side="left"))  # entries of nodes above ``layer``
            pulls[np.arange(begun, now), neurons[begun:now]] = 1.0
            begun = now
            live, columns = pulls[:now], samples[:now]
            rows[:now, layer] = self._strength[layer] * live[:, :, None] * at.active[layer].T[columns][:, None, :]
            inner = np.where(up[layer].T[columns], live @ at.weights[layer, :, : self.width], 0.0)
            pulls[:now] = self.skips[layer] * live + self.steps[layer] * inner
        return rows
