"""A problem from a function in PyTorch: the neuron of a model of one's own."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.dynamics.agf.problems import Block, Problem, as_array
from learnmech.errors import InputError

_SAME_DEGREE = 1e-6


class NeuronProblem(Problem):
    r"""A sum of neurons of one's own, on data.

    .. math::
        f(x) = \sum_i \phi(\theta_i; x), \qquad L = \tfrac12\sum_s w_s\,|y_s - f(x_s)|^2, \qquad \sum_s w_s = 1,

    so L is half the mean squared error, summed over outputs. Gradients are PyTorch's, over all neurons at once with
    ``torch.func.vmap``, or one by one if the function does not allow it. On construction the neuron is tried on random parameters: its
    shape, finite values, and that it is homogeneous of the degree given, as a whole and in each block.

    The theory is that of Kunin et al. 2025 (arXiv 2506.06489).

    Args:
        neuron: a function of parameters (size,) and X, both float64 tensors, that gives (samples,) or (samples, outputs).
        degree: of homogeneity, :math:`\kappa` of at least 2: that of a product is the sum of those of its factors.
        X: inputs, samples first.
        y: targets (samples,) or (samples, outputs).
        size: how many numbers a neuron has.
        smooth: False if the neuron has kinks.
        blocks: the parts in which it is homogeneous by itself, if any; the engine then treats neurons that vanish exactly.
        weights: of the samples, not negative; equal if not given. They are divided by their sum.
        label: says in a word or number what an active neuron, an array (size,), has learned.
        name: of the model, for people.

    Raises:
        InputError: if something does not fit; for a wrong degree the message says which one was measured.

    Example:
        Neurons a w x on two samples: half the mean squared target is 1.25, and the utility of (1, 1) is the mean of x y = 2.

        >>> problem = NeuronProblem(lambda theta, X: theta[0] * theta[1] * X, 2, [1.0, 1.0], [3.0, 1.0], 2)
        >>> round(problem.loss(np.zeros((1, 2))), 12), problem.pull(np.ones((1, 2)), problem.target).round(12).tolist()
        (2.5, [[2.0, 2.0]])
    """

    def __init__(
        self,
        neuron: Callable[[Tensor, Tensor], Tensor],
        degree: int,
        X: Any,
        y: Any,
        size: int,
        *,
        smooth: bool = True,
        blocks: tuple[Block, ...] = (),
        weights: Any = None,
        label: Callable[[np.ndarray], Any] | None = None,
        name: str = "neurons of one's own",
    ):
        for what, value, least in (("degree", degree, 2), ("size", size, 1)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{what} must be an integer of at least {least}, got {value!r}.")
        self._neuron, self._label = neuron, label
        self.degree, self.size, self.smooth, self.name = degree, size, smooth, name
        self.blocks = _checked_blocks(blocks, size)
        self._X = _inputs(X)
        targets = _targets(y, len(self._X))
        self._outputs = targets.shape[1:]
        roots = np.sqrt(_weights(weights, len(self._X)))
        self._roots = torch.from_numpy(roots.reshape(-1, *[1] * len(self._outputs)))
        self.target = (targets * self._roots.numpy()).ravel()
        self._together = True
        self._try()

    def features(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, "neurons outputs"]:
        """Give what each neuron adds to the network.

        Args:
            neurons: any number of them.

        Returns:
            One row a neuron, samples (and outputs) in a row, with the roots of the weights.
        """
        with torch.no_grad():
            values = self._values(torch.from_numpy(np.ascontiguousarray(neurons, dtype=np.float64)))
        return np.asarray(values.reshape(len(neurons), len(self.target)).numpy())

    def pull(
        self, neurons: Float[np.ndarray, "neurons size"], residual: Float[np.ndarray, " outputs"]
    ) -> Float[np.ndarray, "neurons size"]:
        """Give the gradient of each neuron's utility.

        Args:
            neurons: any number of them.
            residual: in the space of the target.

        Returns:
            One row a neuron.
        """
        if not len(neurons):
            return np.zeros((0, self.size))
        with torch.enable_grad():
            parameters = torch.tensor(neurons, dtype=torch.float64, requires_grad=True)
            values = self._values(parameters).reshape(len(neurons), len(self.target))
            total = (values @ torch.as_tensor(residual, dtype=torch.float64)).sum()
            (gradient,) = torch.autograd.grad(total, parameters)
        return np.asarray(gradient.numpy())

    def gradient(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, "neurons size"]:
        """Give the gradient of the loss, in one pass.

        Args:
            neurons: all that the network has.

        Returns:
            One row a neuron.
        """
        if not len(neurons):
            return np.zeros((0, self.size))
        with torch.enable_grad():
            parameters = torch.tensor(neurons, dtype=torch.float64, requires_grad=True)
            values = self._values(parameters).reshape(len(neurons), len(self.target))
            loss = (torch.from_numpy(self.target) - values.sum(dim=0)).square().sum() / 2
            (gradient,) = torch.autograd.grad(loss, parameters)
        return np.asarray(gradient.numpy())

    def label(self, neuron: Float[np.ndarray, " size"]) -> Any:
        """Say what a neuron has learned, by the function given.

        Args:
            neuron: one that is active.

        Returns:
            Its answer; None without one.
        """
        return None if self._label is None else self._label(neuron)

    def _values(self, parameters: Tensor) -> Tensor:
        if not len(parameters):
            return torch.zeros((0, len(self._X), *self._outputs), dtype=torch.float64)
        if self._together:
            values = torch.func.vmap(self._neuron, in_dims=(0, None))(parameters, self._X)
        else:
            values = torch.stack([self._neuron(row, self._X) for row in parameters])
        return values * self._roots

    def _try(self) -> None:
        """Run the neuron on random parameters and check what it gives."""
        random = torch.from_numpy(np.random.default_rng(0).standard_normal((4, self.size)))
        shape = (len(self._X), *self._outputs)
        try:
            single = self._neuron(random[0], self._X)
        except Exception as error:
            raise InputError(
                f"neuron(theta, X) failed on theta of shape ({self.size},) and X of shape {tuple(self._X.shape)}: {error}"
            ) from error
        if not isinstance(single, Tensor) or tuple(single.shape) != shape:
            got = tuple(single.shape) if isinstance(single, Tensor) else type(single).__name__
            raise InputError(f"neuron(theta, X) must give a tensor of shape {shape}, that of y, got {got}.")
        if single.dtype != torch.float64:
            raise InputError(
                f"neuron(theta, X) must compute in float64, got {single.dtype}: leave theta and X as they are."
            )
        try:
            self._values(random)
        except Exception:
            self._together = False
        values = self.features(random.numpy())
        if not np.isfinite(values).all():
            raise InputError("neuron(theta, X) gives numbers that are not finite on random parameters.")
        if not values.any():
            raise InputError("neuron(theta, X) is 0 on random parameters; there is nothing to learn with.")
        everything = Block(0, self.size, self.degree)
        for part in (everything, *self.blocks):
            self._check_degree(random.numpy(), values, part)

    def _check_degree(self, random: np.ndarray, values: np.ndarray, part: Block) -> None:
        for factor in (2.0, 0.5):
            scaled = random.copy()
            scaled[:, part.start : part.stop] *= factor
            there = self.features(scaled)
            if np.abs(there - factor**part.degree * values).max() > _SAME_DEGREE * np.abs(there).max():
                size = np.linalg.norm(there) / np.linalg.norm(values)
                measured = math.log(size) / math.log(factor) if size > 0 else math.nan
                where = (
                    "" if part.stop - part.start == self.size else f" in its numbers {part.start} to {part.stop - 1}"
                )
                raise InputError(
                    f"neuron(theta, X) must be homogeneous of degree {part.degree}{where}, but when these are multiplied by "
                    f"{factor:g} it grows as degree {measured:.3g}; correct the degree, or leave out biases and other "
                    "parts that do not scale."
                )


def _checked_blocks(blocks: tuple[Block, ...], size: int) -> tuple[Block, ...]:
    blocks = tuple(blocks)
    end = 0
    for part in sorted(blocks, key=lambda block: block.start):
        if not (end <= part.start < part.stop <= size and part.degree >= 1):
            raise InputError(f"blocks must be disjoint parts of 0 to {size} with a degree of at least 1, got {blocks}.")
        end = part.stop
    return blocks


def _inputs(X: Any) -> Tensor:
    try:
        inputs = X.detach().cpu().double() if isinstance(X, Tensor) else torch.from_numpy(np.array(X, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise InputError(f"X must be numbers, got {type(X).__name__}: {error}.") from error
    if inputs.ndim == 0 or not len(inputs):
        raise InputError(f"X must have samples in its first dimension, got shape {tuple(inputs.shape)}.")
    if not bool(torch.isfinite(inputs).all()):
        raise InputError("X must be finite, but some of its numbers are not.")
    return inputs


def _targets(y: Any, samples: int) -> np.ndarray:
    dimensions = len(np.shape(y.detach().cpu() if hasattr(y, "detach") else y))
    targets = as_array("y", y, 2 if dimensions == 2 else 1)
    if len(targets) != samples:
        raise InputError(f"y must have a target for each of the {samples} samples of X, got shape {targets.shape}.")
    return targets


def _weights(weights: Any, samples: int) -> np.ndarray:
    if weights is None:
        return np.full(samples, 1 / samples)
    values = as_array("weights", weights, 1)
    if len(values) != samples or (values < 0).any() or not values.any():
        raise InputError(
            f"weights must be {samples} numbers that are not negative and not all 0, got shape {values.shape}."
        )
    return np.asarray(values / values.sum())
