"""The backward-to-feature kernel: products with it, its matrix, spectrum and cosines."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.errors import InputError
from learnmech.monitor.linear_passes import pull, push
from learnmech.speed.kantorovich import kantorovich_bound
from learnmech.speed.linear_passes import check_probes, jackknife, random_source, sphere_directions

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

LARGEST_EXACT = 512
"""Up to this dimension moments are computed from the whole matrix unless probes are asked for."""

DEFAULT_PROBES = 64


@dataclasses.dataclass(frozen=True, slots=True)
class KernelMoments:
    r"""The first two moments of a kernel's N eigenvalues.

    Attributes:
        mean: :math:`M_1 = \mathrm{tr}(K)/N`.
        mean_square: :math:`M_2 = \mathrm{tr}(K^2)/N`.
        cosine: :math:`M_1/\sqrt{M_2}`; NaN if K is zero.
        mean_error: standard error of the mean; 0 if exact.
        mean_square_error: standard error of the mean square; 0 if exact.
        cosine_error: standard error of the cosine; 0 if exact.
        probes: random directions behind the numbers; None if they are exact.
    """

    mean: float
    mean_square: float
    cosine: float
    mean_error: float
    mean_square_error: float
    cosine_error: float
    probes: int | None


class BackwardFeatureKernel:
    r"""The kernel :math:`K = \sum_k \eta_k J_kJ_k^T` of one layer of a net on a batch, made by :func:`backward_feature_kernel`.

    ``kernel @ b`` and ``kernel.matvec(b)`` cost one backward and one forward-mode pass. Weights and inputs are those at
    the time it was made, whatever is trained since; the model's own tensors are not touched.

    Args:
        features: the layer's output as a function of the parameters by name.
        parameters: where, by name.
        learning_rates: :math:`\eta_k` by name of parameter.
        quietly: a context in which the function may run.

    Attributes:
        shape: shape of the layer's output f, and of the backward pass b.
        dimension: N, how many numbers f has for the whole batch.
    """

    def __init__(
        self,
        features: Callable[[dict[str, Tensor]], Tensor],
        parameters: dict[str, Tensor],
        learning_rates: dict[str, float],
        quietly: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        self._features, self._parameters, self._rates, self._quietly = features, parameters, learning_rates, quietly
        with quietly():
            output = features(parameters)
        if not bool(torch.isfinite(output).all()):
            raise InputError("the layer's output holds NaN or infinite entries for these inputs.")
        self.shape = tuple(output.shape)
        self.dimension = output.numel()
        self._dtype, self._device = output.dtype, output.device

    def matvec(self, backward: Tensor) -> Tensor:
        r"""Multiply: :math:`Kb`. A gradient step of the given rates changes f by :math:`-Kb` to first order.

        Args:
            backward: b, of the layer's shape or flat, N numbers.

        Returns:
            The product in float64, of the shape that came. The passes run in the model's precision.

        Raises:
            InputError: for another shape, NaN or infinite entries, or a product that is not finite.
        """
        vector = self._check(backward)
        with self._multiplying() as multiply:
            return multiply(vector)

    def __matmul__(self, backward: Tensor) -> Tensor:
        return self.matvec(backward)

    def as_linear_operator(self) -> "LinearOperator":
        """Give the kernel to SciPy, such as for ``scipy.sparse.linalg.eigsh``.

        Returns:
            A symmetric operator on vectors of N numbers, float64.
        """
        from scipy.sparse.linalg import LinearOperator

        def multiply(vector: np.ndarray) -> np.ndarray:
            flat = torch.from_numpy(np.array(vector, dtype=np.float64).reshape(-1))
            product: np.ndarray = self.matvec(flat).cpu().numpy()
            return product

        return LinearOperator((self.dimension, self.dimension), matvec=multiply, rmatvec=multiply, dtype=np.float64)

    def dense(self, *, largest: int = 2048) -> Float[np.ndarray, "N N"]:
        """Write out the matrix, at one product a column.

        Args:
            largest: dimension above which to refuse.

        Returns:
            K, symmetric.

        Raises:
            InputError: if the dimension is above ``largest``.
        """
        if self.dimension > largest:
            raise InputError(
                f"this kernel is a matrix of {self.dimension} x {self.dimension} numbers, "
                f"{8e-9 * self.dimension**2:.3g} GB in float64, and would take {self.dimension} products; take fewer samples, "
                "use the products or moments(probes=...), or raise largest."
            )
        return self._matrix.copy()

    def moments(self, *, probes: int | None = None, seed: int = 0) -> KernelMoments:
        r"""Compute the first two moments of the eigenvalues.

        With directions z uniform on the sphere of squared radius N: :math:`M_1 = E\,z^TKz/N`, :math:`M_2 = E\|Kz\|^2/N`.

        Args:
            probes: random directions, at least 2; None takes the whole matrix up to dimension 512 and 64 directions above.
            seed: of the directions.

        Returns:
            The moments with their standard errors.

        Raises:
            InputError: for too few probes, or a negative seed.
        """
        if probes is None and self.dimension <= LARGEST_EXACT:
            matrix = self._matrix
            mean, square, cosine = _moments(np.trace(matrix) / self.dimension, np.sum(matrix**2) / self.dimension)
            return KernelMoments(float(mean), float(square), float(cosine), 0.0, 0.0, 0.0, None)
        count = DEFAULT_PROBES if probes is None else probes
        check_probes(count, 2)
        source = random_source(seed)
        first, second = np.empty(count), np.empty(count)
        with self._multiplying() as multiply:
            for probe in range(count):
                direction = sphere_directions(1, self.dimension, source)[0].to(self._device)
                product = multiply(direction)
                first[probe] = float(direction @ product) / self.dimension
                second[probe] = float(product @ product) / self.dimension
        (mean, square, cosine), (mean_error, square_error, cosine_error) = jackknife(_moments, first, second)
        return KernelMoments(
            mean=float(mean),
            mean_square=float(square),
            cosine=float(np.minimum(cosine, 1.0)),
            mean_error=float(mean_error),
            mean_square_error=float(square_error),
            cosine_error=float(cosine_error),
            probes=count,
        )

    def eigenvalues(self) -> Float[np.ndarray, " N"]:
        """Compute all eigenvalues, from the whole matrix.

        Returns:
            Eigenvalues from small to large; rounding below zero is put to zero, as no eigenvalue is negative.

        Raises:
            InputError: if the dimension is above 2048; see :meth:`dense`.
        """
        return np.maximum(np.linalg.eigvalsh(self.dense()), 0.0)

    def condition(self) -> float:
        """Compute the largest over the smallest eigenvalue, over the whole space of N numbers.

        Returns:
            The condition number; infinite if an eigenvalue is zero within rounding: some directions of f cannot be moved,
            as when a layer has fewer inputs than outputs, or behind dead units.

        Raises:
            InputError: if the dimension is above 2048, or the kernel is zero.
        """
        values = self.eigenvalues()
        if values[-1] == 0:
            raise InputError("this kernel is zero: no parameter with a learning rate moves the layer's output.")
        rounding = self.dimension * torch.finfo(self._dtype).eps * values[-1]
        return math.inf if values[0] <= rounding else float(values[-1] / values[0])

    def cosine(self, backward: Tensor) -> float:
        r"""Compute the cosine of a gradient step for one backward pass: :math:`b^TKb/(\|Kb\|\,\|b\|)`.

        Args:
            backward: b, as for :meth:`matvec`; its scale plays no part.

        Returns:
            The cosine in [0, 1]; NaN if b or K b is zero.

        Raises:
            InputError: as for :meth:`matvec`.
        """
        vector = self._check(backward).reshape(-1)
        peak = vector.abs().amax()
        if float(peak) == 0:
            return math.nan
        vector = vector / peak
        product = self.matvec(vector)
        if not bool(product.any()):
            return math.nan
        product = product / product.abs().amax()
        return float(vector @ product / (vector.norm() * product.norm()))

    def predicted_cosine(self, *, probes: int | None = None, seed: int = 0) -> float:
        r"""Predict the cosine of a backward pass that points anywhere: :math:`M_1/\sqrt{M_2}`.

        For b uniform on the sphere, independent of K, up to an error of the order
        :math:`\sqrt{(M_2/M_1^2 - 1)/N}`. A net at initialisation with one sample is close to that; a batch is not, since
        the backward passes of its samples are alike, nor is a trained net.

        Args:
            probes: as for :meth:`moments`.
            seed: as for :meth:`moments`.

        Returns:
            The cosine; NaN if K is zero.

        Raises:
            InputError: for too few probes, or a negative seed.
        """
        return self.moments(probes=probes, seed=seed).cosine

    def kantorovich_bound(self) -> float:
        """Compute the least cosine of any backward pass, see :func:`kantorovich_bound`; 0 if K is singular.

        Returns:
            The bound, in [0, 1].

        Raises:
            InputError: as for :meth:`condition`.
        """
        return kantorovich_bound(self.condition())

    @functools.cached_property
    def _matrix(self) -> Float[np.ndarray, "N N"]:
        matrix = np.empty((self.dimension, self.dimension))
        with self._multiplying() as multiply:
            for column in range(self.dimension):
                unit = torch.zeros(self.dimension, dtype=torch.float64, device=self._device)
                unit[column] = 1.0
                matrix[:, column] = multiply(unit).cpu().numpy()
        symmetric: np.ndarray = (matrix + matrix.T) / 2
        return symmetric

    @contextlib.contextmanager
    def _multiplying(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """Run the net once, and multiply any number of vectors of finite float64 numbers."""
        with self._quietly():
            _, back = pull(self._features, self._parameters)

            def multiply(vector: Tensor) -> Tensor:
                peak = vector.abs().amax()
                if float(peak) == 0:
                    return torch.zeros_like(vector)
                # Of size one, so that nothing overflows in single precision on the way.
                gradients = back((vector / peak).reshape(self.shape).to(self._dtype))
                moves = {name: self._rates[name] * gradient for name, gradient in gradients.items()}
                change = push(self._features, self._parameters, moves)
                product: Tensor = change.to(torch.float64).reshape(vector.shape) * peak
                if not bool(torch.isfinite(product).all()):
                    raise InputError(
                        "the kernel's product is not finite in the model's precision; try the model in float64."
                    )
                return product

            yield multiply

    def _check(self, backward: Tensor) -> Tensor:
        if not isinstance(backward, Tensor) or tuple(backward.shape) not in (self.shape, (self.dimension,)):
            came = tuple(backward.shape) if isinstance(backward, Tensor) else type(backward).__name__
            raise InputError(
                f"the backward pass must be a tensor of shape {self.shape} or flat ({self.dimension},), got {came}."
            )
        vector = backward.detach().to(device=self._device, dtype=torch.float64)
        if not bool(torch.isfinite(vector).all()):
            raise InputError(f"the backward pass holds {int((~torch.isfinite(vector)).sum())} NaN or infinite entries.")
        return vector


def _moments(first: np.ndarray | np.floating, second: np.ndarray | np.floating) -> np.ndarray:
    mean, square = float(np.mean(first)), float(np.mean(second))
    return np.array([mean, square, mean / math.sqrt(square) if square > 0 else math.nan])
