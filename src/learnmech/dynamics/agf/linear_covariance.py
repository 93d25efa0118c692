"""Stages of a two-layer linear network whose inputs are not white: the conjecture for any covariance."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_NOTHING = 1e-12


@dataclass(frozen=True)
class Mode:
    """What is learned in one stage.

    Attributes:
        left: output direction.
        growth: largest singular value of the residual's cross-covariance in the stage before its jump.
    """

    left: Float[np.ndarray, " outputs"]
    growth: float


@dataclass(frozen=True)
class Stages:
    """All stages.

    Attributes:
        modes: in order.
        times: of the jumps, in units of minus the log of the start.
        levels: of the loss above its floor, one more.
    """

    modes: tuple[Mode, ...]
    times: Float[np.ndarray, " jumps"]
    levels: Float[np.ndarray, " plateaus"]


def general_stages(
    cross: Float[np.ndarray, "outputs inputs"], inverse: Float[np.ndarray, "inputs inputs"], most: int
) -> Stages:
    r"""Give the stages for any input covariance.

    With :math:`U_k` the top k eigenvectors of :math:`\Sigma_{yx}\Sigma_{xx}^{-1}\Sigma_{xy}` and :math:`\mu` its eigenvalues,
    the map after k jumps is :math:`\beta_k = P_{U_k}\Sigma_{yx}\Sigma_{xx}^{-1}`, the level :math:`\frac12\sum_{j>k}\mu_j`,
    and what is left of the cross-covariance :math:`(I - P_{U_k})\Sigma_{yx}`, with singular values
    :math:`\sigma^{(k)}_1, \sigma^{(k)}_2, \dots` The neuron that is the j-th to become active has grown as the (j-i)-th of
    these in stage i, so that

    .. math::
        \Delta\tau_k = \Big(1 - \sum_{i<k-1}\sigma^{(i)}_{k-i}\,\Delta\tau_{i+1}\Big)\Big/\sigma^{(k-1)}_1 .

    A conjecture in the code of Kunin et al. 2025 (arXiv 2506.06489). **Not valid** where the inputs commute with the
    cross-covariance and the order by growth is not that by :math:`\mu`; :func:`~learnmech.dynamics.agf.linear` treats those exactly.

    Args:
        cross: :math:`\Sigma_{yx}`.
        inverse: the inverse root of :math:`\Sigma_{xx}`.
        most: how many jumps at the most.

    Returns:
        The stages; modes without strength are left out.
    """
    white = cross @ inverse
    left, roots, _ = np.linalg.svd(white, full_matrices=False)
    kept = roots > _NOTHING * max(roots.max(initial=0.0), 1e-300)
    left, roots = left[:, kept], roots[kept]
    levels = np.concatenate([np.cumsum((roots**2)[::-1])[::-1], [0.0]]) / 2
    count = min(most, len(roots))
    spectra = [
        np.linalg.svd(cross - left[:, :stage] @ (left[:, :stage].T @ cross), compute_uv=False) for stage in range(count)
    ]
    spans: list[float] = []
    for number in range(1, count + 1):
        grown = sum(spectra[stage][number - stage - 1] * spans[stage] for stage in range(number - 1))
        spans.append(max(1.0 - grown, 0.0) / spectra[number - 1][0])
    modes = tuple(Mode(left[:, number], float(spectra[number][0])) for number in range(count))
    return Stages(modes, np.cumsum(spans), levels)
