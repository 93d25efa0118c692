"""What an alternating gradient flow runs on: a sum of homogeneous neurons, a target, and half a squared distance."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from learnmech.errors import InputError

SOURCE = "alternating gradient flows, Kunin et al. 2025 (arXiv 2506.06489)"


@dataclass(frozen=True)
class Block:
    """A part of a neuron's numbers in which the neuron is homogeneous by itself.

    Attributes:
        start: index of its first number.
        stop: index after its last number.
        degree: of homogeneity in this part: 1 for each factor of a product, q for the input weights of an activation of degree q.
    """

    start: int
    stop: int
    degree: int = 1


class Problem(ABC):
    r"""A network that is a sum of homogeneous neurons, and half a squared distance to a target.

    .. math::
        f = \sum_i \phi(\theta_i), \qquad \phi(s\,\theta) = s^\kappa\phi(\theta), \qquad
        L = \tfrac12\,|r|^2 + L_\infty, \qquad r = T - f .

    Features :math:`\phi`, target T and residual r are vectors of one space. For data, its coordinates are samples (and
    outputs), with the square root of each sample's weight absorbed, so that L is half the *mean* squared error; an average
    over a population that is quadratic in f fits too, with :math:`L_\infty` what no network can remove (``floor``). The
    utility of a neuron is :math:`U(\theta) = \langle\phi(\theta), r\rangle`, and :math:`\nabla U` is all that the engine
    asks for: by Euler's theorem :math:`U = \theta\cdot\nabla U/\kappa`, and :math:`\nabla_{\theta_i}L = -\nabla U(\theta_i)`.

    A new problem gives ``degree``, ``size``, ``target`` and the two abstract methods; or see
    :class:`~learnmech.dynamics.agf.NeuronProblem`, which makes one from a function in PyTorch.

    Source: Kunin et al. 2025 (arXiv 2506.06489), the general framework.

    Attributes:
        name: of the model, for people.
        degree: :math:`\kappa`, at least 2.
        size: how many numbers a neuron has.
        target: T, shape (outputs,).
        floor: the part of the loss that no network can remove.
        smooth: False if the gradient has kinks, as with ReLU.
        blocks: the parts of a neuron in which it is homogeneous by itself, if any; gradient flow then keeps
            :math:`|\theta_b|^2/q_b - |\theta_c|^2/q_c` of every two.
    """

    name: str = "homogeneous neurons"
    degree: int = 2
    size: int
    target: Float[np.ndarray, " outputs"]
    floor: float = 0.0
    smooth: bool = True
    blocks: tuple[Block, ...] = ()

    @abstractmethod
    def features(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, "neurons outputs"]:
        """Give what each neuron adds to the network.

        Args:
            neurons: any number of them, 0 included.

        Returns:
            One row a neuron.
        """

    @abstractmethod
    def pull(
        self, neurons: Float[np.ndarray, "neurons size"], residual: Float[np.ndarray, " outputs"]
    ) -> Float[np.ndarray, "neurons size"]:
        """Give the gradient of each neuron's utility.

        Args:
            neurons: any number of them, 0 included.
            residual: r, frozen.

        Returns:
            One row a neuron.
        """

    def label(self, neuron: Float[np.ndarray, " size"]) -> Any:
        """Say in a word or number what a neuron has learned.

        Args:
            neuron: one that is active.

        Returns:
            Something that can be printed and compared, such as the index of a mode; None if there is no such thing.
        """
        del neuron
        return None

    def output(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, " outputs"]:
        """Give the network's output.

        Args:
            neurons: all that it has.

        Returns:
            The sum of their features.
        """
        return np.asarray(self.features(neurons).sum(axis=0))

    def residual(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, " outputs"]:
        """Give what is left of the target.

        Args:
            neurons: all that the network has; none give the target.

        Returns:
            T minus the output.
        """
        return self.target - self.output(neurons) if len(neurons) else self.target

    def loss(self, neurons: Float[np.ndarray, "neurons size"]) -> float:
        """Give the loss.

        Args:
            neurons: all that the network has.

        Returns:
            Half the squared residual, plus the floor.
        """
        rest = self.residual(neurons)
        return float(rest @ rest) / 2 + self.floor

    def gradient(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, "neurons size"]:
        """Give the gradient of the loss.

        Args:
            neurons: all that the network has.

        Returns:
            One row a neuron.
        """
        return -self.pull(neurons, self.residual(neurons))

    def utility(
        self, neurons: Float[np.ndarray, "neurons size"], residual: Float[np.ndarray, " outputs"]
    ) -> Float[np.ndarray, " neurons"]:
        """Give the utility of each neuron.

        Args:
            neurons: any number of them.
            residual: r, frozen.

        Returns:
            Inner products of features and residual.
        """
        return np.asarray((neurons * self.pull(neurons, residual)).sum(axis=1)) / self.degree

    def charges(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, "neurons charges"]:
        """Give what gradient flow keeps of each neuron.

        Args:
            neurons: any number of them.

        Returns:
            Squared norm over degree of each block after the first, minus that of the first; no columns without blocks.
        """
        if not self.blocks:
            return np.zeros((len(neurons), 0))
        shares = np.stack(
            [np.square(neurons[:, part.start : part.stop]).sum(axis=1) / part.degree for part in self.blocks], axis=1
        )
        return np.asarray(shares[:, 1:] - shares[:, :1])

    def config(self) -> dict[str, Any]:
        """Say what this problem is, for the record of a history.

        Returns:
            Plain values by name.
        """
        return {"model": self.name, "degree": self.degree, "size": self.size, "outputs": len(self.target)}


def require_neurons(problem: Problem, init: Any) -> Float[np.ndarray, "neurons size"]:
    """Check neurons at the start.

    Args:
        problem: what they belong to.
        init: numbers, (neurons, size).

    Returns:
        A float64 copy.

    Raises:
        InputError: for a wrong shape, numbers that are not finite, or if all are 0, where no flow ever leaves.
    """
    neurons = as_array("init", init, 2)
    if neurons.shape[1] != problem.size or not len(neurons):
        raise InputError(
            f"init must have shape (neurons, {problem.size}) for {problem.name}, got {neurons.shape}: one row a neuron."
        )
    if not neurons.any():
        raise InputError(
            "init is 0 everywhere: that is a saddle, which no flow ever leaves; give a small start instead, such as 1e-3."
        )
    return neurons


def as_array(name: str, values: Any, dimensions: int) -> np.ndarray:
    """Make a float64 array of numbers, a tensor included, and check it.

    Args:
        name: of the argument.
        values: what came.
        dimensions: how many it must have.

    Returns:
        A copy.

    Raises:
        InputError: if it is not numeric, has other dimensions, or holds numbers that are not finite.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers, got {type(values).__name__}: {error}.") from error
    if array.ndim != dimensions:
        raise InputError(f"{name} must have {dimensions} dimension(s), got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise InputError(f"{name} must be finite, but {int((~np.isfinite(array)).sum())} of its numbers are not.")
    return array
