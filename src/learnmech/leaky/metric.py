"""The metric that a representation puts on its own motions, (K + ridge)^-1 with K = sigma^T sigma, decomposed once."""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from learnmech.errors import InputError
from learnmech.leaky.representations import Ridges, activated, require_representations

TOLERANCE = 1e-10
"""Directions of sigma(A) with less than this share of its largest singular value count as outside its image."""
_PRECISION = torch.finfo(torch.float64).eps


class Metric:
    r"""The inner product :math:`\langle M, M' \rangle_{K+\gamma} = \mathrm{Tr}[M (K + \gamma)^{-1} M'^T]` at a representation.

    :math:`K = \sigma(A)^T\sigma(A)` compares samples. What it makes of a matrix M, one column a sample, is the least
    price of producing M from the activations with a linear map W,

    .. math:: \lVert M \rVert_{K+\gamma}^2 = \min_W\ \lVert W \rVert_F^2 + \tfrac1\gamma \lVert M - W\sigma(A) \rVert_F^2,

    and for :math:`\gamma = 0` the least :math:`\lVert W \rVert_F^2` with :math:`W\sigma(A) = M`, which is infinite if
    there is none. M = A gives the identity cost, M = velocity the kinetic energy.

    Source: Jacot and Kaiser (arXiv 2405.17573) for the norm; the minimum over W with a ridge is derived here. One
    decomposition serves all matrices M and all ridges: :math:`\sigma = U\,\mathrm{diag}(s)\,V^T` (a QR decomposition,
    then one of singular values, which unlike eigenvalues of K keeps small :math:`s` accurate), and

    .. math:: \lVert M \rVert_{K+\gamma}^2 = \sum_i \frac{\lVert M v_i \rVert^2}{s_i^2 + \gamma}
        + \frac{\lVert M - M V V^T \rVert_F^2}{\gamma}.

    The last term, what lies outside the span of the activations, is computed from the difference itself, not as a
    difference of norms. Everything is in float64 and detached from the graph.

    Ridge 0 needs a decision on what is zero: directions with :math:`s_i \le \texttt{tolerance} \cdot s_1` count as
    absent, and M as outside if its part there is larger than :math:`\texttt{tolerance} \cdot \lVert M \rVert_F` plus
    round-off (:math:`10 \max(n, N)\,\epsilon\, s_1 \lVert W \rVert_F`, n rows, N samples).

    Args:
        representation: A, (..., width, samples); leading dimensions are separate representations.
        bias: whether :math:`\sigma(A)` has a row of ones below :math:`\max(A, 0)`.
        tolerance: share of the largest singular value below which a direction counts as absent; for ridge 0 only.

    Raises:
        InputError: if the representation is no such tensor, or the tolerance is not in (0, 1).

    Example:
        Two orthogonal samples, no bias: each coordinate costs itself.

        >>> metric = Metric(torch.diag(torch.tensor([2.0, 1.0])), bias=False)
        >>> metric.squared_norm(torch.eye(2), [0.0, 1.0])  # 1/4 + 1, 1/5 + 1/2
        tensor([1.2500, 0.7000], dtype=torch.float64)
    """

    activations: Float[Tensor, "*batch rows samples"]
    """sigma(A)."""
    singular_values: Float[Tensor, "*batch rank"]
    """Singular values of sigma(A), falling."""
    directions: Float[Tensor, "*batch samples rank"]
    """The matching directions over samples, orthonormal columns."""

    def __init__(
        self, representation: Shaped[Tensor, "*batch width samples"], *, bias: bool = True, tolerance: float = TOLERANCE
    ) -> None:
        if not 0 < tolerance < 1:
            raise InputError(f"tolerance must lie between 0 and 1, but is {tolerance!r}.")
        self.tolerance = float(tolerance)
        self.representation = require_representations("representation", representation).detach()
        self.activations = activated(self.representation, bias=bias)
        self.singular_values, self.directions = _decompose(self.activations)

    @property
    def eigenvalues(self) -> Float[Tensor, "*batch rank"]:
        """Eigenvalues of K, falling; those beyond the rank are zero."""
        return self.singular_values.square()

    def squared_norm(
        self, values: Shaped[Tensor, "*batch rows samples"], ridges: Ridges
    ) -> Float[Tensor, "*batch ridges"]:
        r"""Compute :math:`\lVert M \rVert_{K+\gamma}^2` for several ridges.

        Args:
            values: M, with the leading dimensions and samples of the representation.
            ridges: a number, (ridges,) or (..., ridges), so that a ridge can go with the representation, such as 1e-3 times
                ``eigenvalues[..., :1]``.

        Returns:
            One number a ridge; infinite for ridge 0 where M is not in the image.

        Raises:
            InputError: if shapes do not fit or a ridge is negative or not finite.
        """
        ridges = self._ridges(ridges)
        inside, outside = self._split(self._values(values))
        sizes = torch.linalg.vector_norm(inside, dim=-2)
        rest = torch.linalg.vector_norm(outside, dim=(-2, -1))[..., None]
        total = (sizes[..., None, :] / self._scales(ridges)).square().sum(-1)
        with_ridge: Tensor = total + (rest / ridges.where(ridges > 0, 1.0).sqrt()).square()
        if bool((ridges > 0).all()):
            return with_ridge
        without = total.where(self._left_out(inside, outside)[1][..., None], torch.inf)
        result: Tensor = with_ridge.where(ridges > 0, without)
        return result

    def inner(
        self,
        first: Shaped[Tensor, "*batch rows samples"],
        second: Shaped[Tensor, "*batch rows samples"],
        ridges: Ridges,
    ) -> Float[Tensor, "*batch ridges"]:
        r"""Compute :math:`\langle M, M' \rangle_{K+\gamma}` for several ridges.

        Args:
            first: M.
            second: M', of the same shape.
            ridges: as for :meth:`squared_norm`.

        Returns:
            One number a ridge. For ridge 0 it is the limit of small ridges: finite if M or M' lies in the image or their
            parts outside are orthogonal, and else infinite with the sign of the product of these parts.

        Raises:
            InputError: if shapes do not fit or a ridge is negative or not finite.
        """
        ridges = self._ridges(ridges)
        if first.shape != second.shape:
            raise InputError(
                f"both matrices must have one shape, but have {tuple(first.shape)} and {tuple(second.shape)}."
            )
        inside, outside = self._split(self._values(first))
        inside2, outside2 = self._split(self._values(second))
        products = (inside * inside2).sum(-2)
        rest = (outside * outside2).sum((-2, -1))
        scales = self._scales(ridges)
        total = (products[..., None, :] / scales / scales).sum(-1)
        with_ridge = total + rest[..., None] / ridges.where(ridges > 0, 1.0)
        size, supported = self._left_out(inside, outside)
        size2, supported2 = self._left_out(inside2, outside2)
        shared = rest + products.where(~self._present, 0.0).sum(-1)
        diverges = ~supported & ~supported2 & (shared.abs() > self.tolerance * size * size2)
        without = total.where(~diverges[..., None], (shared.sign() * torch.inf)[..., None])
        result: Tensor = with_ridge.where(ridges > 0, without)
        return result

    def solve(
        self, values: Shaped[Tensor, "*batch rows samples"], ridge: float
    ) -> Float[Tensor, "*batch rows samples"]:
        r"""Compute :math:`M (K + \gamma)^{-1}`, with the pseudo-inverse for ridge 0.

        Args:
            values: M.
            ridge: one ridge.

        Returns:
            A matrix of the shape of M.

        Raises:
            InputError: if shapes do not fit or the ridge is negative or not finite.
        """
        ridges = self._ridges(ridge)
        inside, outside = self._split(self._values(values))
        scale = self._scales(ridges)
        solved = (inside / scale / scale) @ self.directions.mT
        return solved if float(ridges) == 0 else solved + outside / ridges

    def weights(
        self, values: Shaped[Tensor, "*batch rows samples"], ridge: float
    ) -> Float[Tensor, "*batch rows neurons"]:
        r"""Compute the least weights that produce M, :math:`W = M (K + \gamma)^{-1} \sigma(A)^T`.

        Args:
            values: M.
            ridge: one ridge.

        Returns:
            W, the minimiser in the formula at the top; with ridge 0 the least-squares solution of least norm, which does
            not produce M where M is outside the image (:meth:`squared_norm` is infinite there).

        Raises:
            InputError: if shapes do not fit or the ridge is negative or not finite.
        """
        scale = self._scales(self._ridges(ridge))
        inside, _ = self._split(self._values(values))
        return (inside / scale / scale) @ (self.activations @ self.directions).mT

    @property
    def _present(self) -> Bool[Tensor, "*batch rank"]:
        return self.singular_values > self.tolerance * self.singular_values[..., :1]

    def _split(
        self, values: Float[Tensor, "*batch rows samples"]
    ) -> tuple[Float[Tensor, "*batch rows rank"], Float[Tensor, "*batch rows samples"]]:
        """Give the components along the directions, and what is outside all of them."""
        inside = values @ self.directions
        if self.directions.shape[-1] == self.directions.shape[-2]:  # nothing is outside
            return inside, torch.zeros_like(values)
        return inside, values - inside @ self.directions.mT

    def _scales(self, ridges: Float[Tensor, "*batch ridges"]) -> Float[Tensor, "*batch ridges rank"]:
        """Compute the square root of s^2 + ridge, infinite for ridge 0 where a direction is absent."""
        scales = torch.hypot(self.singular_values[..., None, :], ridges[..., :, None].sqrt())
        return scales.where((ridges > 0)[..., :, None] | self._present[..., None, :], torch.inf)

    def _left_out(
        self, inside: Float[Tensor, "*batch rows rank"], outside: Float[Tensor, "*batch rows samples"]
    ) -> tuple[Float[Tensor, "*batch"], Bool[Tensor, "*batch"]]:
        """Measure what ridge 0 can not produce, and decide whether it is more than nothing."""
        sizes = torch.linalg.vector_norm(inside, dim=-2)
        absent = torch.linalg.vector_norm(sizes.where(~self._present, 0.0), dim=-1)
        left_out = torch.hypot(absent, torch.linalg.vector_norm(outside, dim=(-2, -1)))
        whole = torch.hypot(left_out, torch.linalg.vector_norm(sizes.where(self._present, 0.0), dim=-1))
        no_ridge = self.singular_values.new_zeros(1)
        weights = torch.linalg.vector_norm(sizes[..., None, :] / self._scales(no_ridge), dim=-1)[..., 0]
        top = self.singular_values[..., 0]
        round_off = 10 * max(self.activations.shape[-2:]) * _PRECISION * top * weights
        return left_out, left_out <= self.tolerance * whole + round_off

    def _values(self, values: Shaped[Tensor, "*batch rows samples"]) -> Float[Tensor, "*batch rows samples"]:
        checked = require_representations("values", values).detach().to(self.representation.device)
        own = self.representation.shape
        if checked.shape[:-2] != own[:-2] or checked.shape[-1] != own[-1]:
            raise InputError(
                f"values must have the leading dimensions and samples of the representation {tuple(own)}, but have the shape "
                f"{tuple(checked.shape)}."
            )
        return checked

    def _ridges(self, ridges: Ridges) -> Float[Tensor, "*batch ridges"]:
        given = torch.as_tensor(ridges, dtype=torch.float64).detach().to(self.representation.device)
        batch = self.representation.shape[:-2]
        given = given.reshape(1) if given.ndim == 0 else given
        if given.numel() == 0 or (given.ndim > 1 and given.shape[:-1] != batch):
            raise InputError(
                f"ridges must have the shape (ridges,) or {(*batch, 'ridges')}, but have {tuple(given.shape)}."
            )
        if not bool(((given >= 0) & given.isfinite()).all()):
            raise InputError(f"ridges must be finite and at least 0, but {given.flatten().tolist()} came.")
        return given


def _decompose(
    activations: Float[Tensor, "*batch rows samples"],
) -> tuple[Float[Tensor, "*batch rank"], Float[Tensor, "*batch samples rank"]]:
    """Compute singular values and right singular vectors, through the smaller side of the matrix."""
    rows, samples = activations.shape[-2:]
    if rows >= samples:
        triangle = torch.linalg.qr(activations, mode="r")[1]
        _, values, right = torch.linalg.svd(triangle, full_matrices=False)
        return values, right.mT
    basis, triangle = torch.linalg.qr(activations.mT)
    _, values, inner = torch.linalg.svd(triangle.mT, full_matrices=False)
    return values, basis @ inner.mT
