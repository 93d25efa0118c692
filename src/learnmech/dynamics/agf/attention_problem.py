"""Linear attention that learns to regress in context, as a problem of homogeneous neurons."""

import operator
from typing import Any

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.agf.problems import Block, Problem, as_array
from learnmech.errors import InputError


class AttentionProblem(Problem):
    r"""In-context linear regression by linear attention, and its exact population loss.

    Given N pairs :math:`(x_n, w\cdot x_n)` and a query :math:`x`, the heads predict :math:`x^TBS_Nw` with
    :math:`B = \sum_h v_hq_hk_h^T` and :math:`S_N = \sum_n x_nx_n^T`. For :math:`x \sim N(0, \Lambda)` and :math:`w \sim N(0, I)`

    .. math::
        L = \tfrac12\big[\mathrm{tr}\,\Lambda - 2N\,\mathrm{tr}(B\Lambda^2) + \mathrm{tr}(BMB^T\Lambda)\big], \qquad
        M = N(N+1)\Lambda^2 + N\,\mathrm{tr}(\Lambda)\Lambda .

    A neuron is a head (v, q, k) in the eigenbasis of :math:`\Lambda`, of degree 3. Features are
    :math:`v\,\Lambda^{1/2}q\,(M^{1/2}k)^T`; the square is completed, so ``floor`` is what no heads remove.

    Source: Kunin et al. 2025 (arXiv 2506.06489), in-context linear regression; the loss is derived here.

    Args:
        eigenvalues: of :math:`\Lambda` (dimension,), not negative. For another basis rotate q and k.
        context: N, at least 1.

    Raises:
        InputError: for eigenvalues that are negative, not finite or all 0, or a context below 1.

    Example:
        >>> problem = AttentionProblem([1.0], 1)
        >>> problem.loss(np.zeros((1, 3))), round(problem.floor, 12)
        (0.5, 0.333333333333)
    """

    name = "linear attention"
    degree = 3

    def __init__(self, eigenvalues: Any, context: int):
        self.eigenvalues, self.context = attention_task(eigenvalues, context)
        self.dimension = len(self.eigenvalues)
        self.size = 1 + 2 * self.dimension
        self.blocks = (Block(0, 1), Block(1, 1 + self.dimension), Block(1 + self.dimension, self.size))
        spread = self.eigenvalues
        inside = self.context * (self.context + 1) * spread**2 + self.context * spread.sum() * spread
        self._query, self._key = np.sqrt(spread), np.sqrt(inside)
        whole = np.zeros((self.dimension, self.dimension))
        seen = spread > 0
        whole[seen, seen] = self.context * spread[seen] ** 1.5 / self._key[seen]
        self.target = whole.ravel()
        self.floor = float(spread.sum() - (whole**2).sum()) / 2

    def features(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, "neurons outputs"]:
        """Give v times the scaled q and k of each head, flat."""
        value, query, key = self._parts(neurons)
        return np.asarray((value[:, None, None] * query[:, :, None] * key[:, None, :]).reshape(len(neurons), -1))

    def output(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, " outputs"]:
        """Give the sum over heads, flat."""
        value, query, key = self._parts(neurons)
        return np.asarray((value[:, None] * query).T @ key).ravel()

    def pull(
        self, neurons: Float[np.ndarray, "neurons size"], residual: Float[np.ndarray, " outputs"]
    ) -> Float[np.ndarray, "neurons size"]:
        """Give the gradient of v q^T C k."""
        value, query, key = self._parts(neurons)
        rest = residual.reshape(self.dimension, self.dimension)
        up, down = query @ rest, key @ rest.T
        return np.hstack(
            [
                (up * key).sum(axis=1, keepdims=True),
                value[:, None] * down * self._query,
                value[:, None] * up * self._key,
            ]
        )

    def label(self, neuron: Float[np.ndarray, " size"]) -> int:
        """Give the index of the eigenvector that the head is most of."""
        _, query, key = self._parts(neuron[None])
        return int(np.abs(query * key)[0].argmax())

    def _parts(self, neurons: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return (
            neurons[:, 0],
            neurons[:, 1 : 1 + self.dimension] * self._query,
            neurons[:, 1 + self.dimension :] * self._key,
        )


def attention_task(eigenvalues: Any, context: Any) -> tuple[Float[np.ndarray, " dimension"], int]:
    """Check the task.

    Args:
        eigenvalues: of the covariance of the inputs.
        context: number of pairs shown.

    Returns:
        Both.

    Raises:
        InputError: if they are out of range.
    """
    spread = as_array("eigenvalues", eigenvalues, 1)
    if not len(spread) or (spread < 0).any() or not spread.any():
        raise InputError(f"eigenvalues must be variances, none negative and not all 0, got {spread.tolist()}.")
    try:
        pairs = operator.index(context)
    except TypeError:
        pairs = 0
    if isinstance(context, bool) or pairs < 1:
        raise InputError(f"context must be a whole number of pairs, an integer of at least 1, got {context!r}.")
    return spread, pairs
