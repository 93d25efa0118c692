"""The tangent kernel as a linear operator, for batches whose matrix would not fit."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from learnmech.dynamics.tangent_network import Network
from learnmech.errors import InputError
from learnmech.monitor.linear_passes import pull, push, quiet
from learnmech.monitor.tangent import no_checkpoints

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


def kernel_operator(
    model: nn.Module, inputs: Any, *, learning_rates: float | Mapping[str, float] = 1.0
) -> "KernelOperator":
    r"""Make the tangent kernel of a batch as an operator on the outputs of all samples.

    .. math:: \Theta v = J\,\mathrm{diag}(\eta)\,J^Tv, \qquad \Theta\in\mathbb R^{nc\times nc}

    at one backward and one forward-mode pass a product, without ever writing :math:`J` or :math:`\Theta`. Its trace over
    outputs is what :func:`learnmech.dynamics.kernel` gives by default, its matrix what that gives with ``outputs="full"``.
    Samples may influence one another here. Source: Pearlmutter 1994 and Schraudolph 2002, for products of this kind.

    Args:
        model: any module whose operations have forward mode; it runs in evaluation mode and is left as it is.
        inputs: a tensor, a tuple of positional or a mapping of keyword arguments, samples first.
        learning_rates: as for :func:`learnmech.dynamics.kernel`.

    Returns:
        The operator. It keeps the weights of the time when it was made.

    Raises:
        InputError: for bad input, see :func:`learnmech.dynamics.kernel`.

    Example:
        >>> layer = nn.Linear(3, 2, bias=False)
        >>> operator = kernel_operator(layer, torch.tensor([[0.0, 1.0, 2.0]]))
        >>> operator.dense().tolist()
        [[5.0, 0.0], [0.0, 5.0]]
    """
    network = Network(model, learning_rates)
    samples = network.check(inputs, independent=False)
    return KernelOperator(network, network.batch(inputs, 0, samples, samples), samples)


class KernelOperator:
    """Products with a tangent kernel, made by :func:`kernel_operator`.

    Args:
        network: the model and its rates.
        batch: the inputs, on the model's device.
        samples: how many.

    Attributes:
        samples: n.
        outputs: c, how many numbers the model gives for a sample.
        shape: (n c, n c); a vector holds the outputs of the first sample, then those of the second.
    """

    def __init__(self, network: Network, batch: Any, samples: int) -> None:
        self._network, self._batch, self.samples = network, batch, samples
        self._parameters = {
            name: tensor.detach().clone() for name, tensor in network.leaves().items() if name in network.rates
        }
        self._frozen = {
            name: tensor.detach().clone() for name, tensor in network.leaves().items() if name not in network.rates
        }
        with quiet(network.model, network.device):
            rows = self._rows(self._parameters)
        if not bool(torch.isfinite(rows).all()):
            raise InputError("the model's output holds NaN or infinite entries for these inputs.")
        self.outputs, self._dtype = rows.shape[1], rows.dtype
        self.shape = (rows.numel(), rows.numel())

    def matvec(self, vector: Tensor | np.ndarray) -> Float[Tensor, " nc"]:
        r"""Multiply: :math:`\Theta v`.

        Args:
            vector: v, n c numbers, flat or (n, c).

        Returns:
            The product in float64, flat. The passes run in the model's precision.

        Raises:
            InputError: for another length, NaN or infinite entries, or a product that is not finite.
        """
        given = torch.as_tensor(vector).detach().to(device=self._network.device, dtype=torch.float64).reshape(-1)
        if given.numel() != self.shape[0]:
            raise InputError(f"a vector must hold {self.shape[0]} numbers, but holds {given.numel()}.")
        if not bool(torch.isfinite(given).all()):
            raise InputError(f"the vector holds {int((~torch.isfinite(given)).sum())} NaN or infinite entries.")
        peak = given.abs().amax()
        if float(peak) == 0:
            return torch.zeros_like(given)
        with quiet(self._network.model, self._network.device), no_checkpoints():
            _, back = pull(self._rows, self._parameters)
            gradients = back((given / peak).reshape(self.samples, self.outputs).to(self._dtype))
            moves = {name: self._network.rates[name] * gradient for name, gradient in gradients.items()}
            change = push(self._rows, self._parameters, moves)
        product: Tensor = change.double().reshape(-1) * peak
        if not bool(torch.isfinite(product).all()):
            raise InputError("the kernel's product is not finite in the model's precision; try the model in float64.")
        return product

    def as_linear_operator(self) -> "LinearOperator":
        """Give the kernel to SciPy, such as for ``scipy.sparse.linalg.eigsh``.

        Returns:
            A symmetric operator, float64.
        """
        from scipy.sparse.linalg import LinearOperator

        def multiply(vector: np.ndarray) -> np.ndarray:
            product: np.ndarray = self.matvec(np.array(vector, dtype=np.float64)).cpu().numpy()
            return product

        return LinearOperator(self.shape, matvec=multiply, rmatvec=multiply, dtype=np.float64)

    def dense(self, *, largest: int = 2048) -> Float[np.ndarray, "nc nc"]:
        """Write out the matrix, at one product a column; :func:`learnmech.dynamics.kernel` is faster where it fits.

        Args:
            largest: dimension above which to refuse.

        Returns:
            The matrix, symmetric.

        Raises:
            InputError: if it is larger.
        """
        size = self.shape[0]
        if size > largest:
            raise InputError(
                f"this kernel is a matrix of {size} x {size} numbers, {8e-9 * size**2:.3g} GB in float64, and would take {size} "
                "products; take fewer samples, or raise largest."
            )
        columns = np.stack([self.matvec(unit).cpu().numpy() for unit in np.eye(size)], axis=1)
        return np.asarray((columns + columns.T) / 2)

    def trace(self, *, probes: int = 32, seed: int = 0) -> tuple[float, float]:
        r"""Estimate the trace from random signs z: :math:`E\,z^T\Theta z`. Source: Hutchinson 1990.

        Args:
            probes: how many, at least 2; one product each.
            seed: of the signs.

        Returns:
            The trace, and its standard error.

        Raises:
            InputError: for fewer than 2 probes.
        """
        if isinstance(probes, bool) or not isinstance(probes, int) or probes < 2:
            raise InputError(
                f"probes must be an integer of at least 2, since the error comes from their spread, got {probes!r}."
            )
        source = np.random.default_rng([0x6B65726E, seed])
        signs = source.choice([-1.0, 1.0], size=(probes, self.shape[0]))
        values = np.array([float(sign @ self.matvec(sign).cpu().numpy()) for sign in signs])
        return float(values.mean()), float(values.std(ddof=1) / probes**0.5)

    def top_eigenvalues(self, count: int = 1) -> Float[np.ndarray, " count"]:
        """Compute the largest eigenvalues, by Lanczos iterations from a fixed start.

        Args:
            count: how many; fewer than the dimension.

        Returns:
            Eigenvalues from large to small.

        Raises:
            InputError: for a count out of range.
        """
        from scipy.sparse.linalg import eigsh

        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count < self.shape[0]:
            raise InputError(f"count must be an integer from 1 to {self.shape[0] - 1}, but is {count!r}.")
        start = np.random.default_rng(0).standard_normal(self.shape[0])
        values = eigsh(self.as_linear_operator(), k=count, v0=start, return_eigenvectors=False)
        return np.maximum(np.sort(values)[::-1], 0.0)

    def _rows(self, moving: dict[str, Tensor]) -> Tensor:
        return self._network.outputs({**self._frozen, **moving}, self._batch, self.samples)
