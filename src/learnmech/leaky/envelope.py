"""The envelope identity: the slope of the optimal cost in the effective depth, read within one trained net."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from learnmech.errors import InputError
from learnmech.leaky.depth_expansion import depths_and_costs, fit_depth_expansion, positive


@dataclass(frozen=True, eq=False)
class EnvelopeCheck:
    r"""The slope of the optimal cost in the effective depth, twice.

    Attributes:
        effective_depths: in the order given.
        expected: :math:`(2/\lambda)\,dJ^*/d\tilde L` from the costs.
        measured: the slopes measured in the nets.
    """

    effective_depths: np.ndarray
    expected: np.ndarray
    measured: np.ndarray

    @property
    def difference(self) -> np.ndarray:
        """Measured less expected slopes."""
        apart: np.ndarray = self.measured - self.expected
        return apart

    @property
    def worst(self) -> float:
        """The largest absolute difference."""
        return float(np.abs(self.difference).max())


def envelope_slope(steps: Any, hamiltonians: Any, effective_depth: float) -> Any:
    r"""Give the slope of the optimal cost in the effective depth, as measured within one trained net.

    .. math:: \frac{2}{\lambda}\frac{dJ^*}{d\tilde L} = \sum_l \rho_l \left(-\frac{2 H_l}{\tilde L}\right)

    Source: derived in learnmech (an envelope theorem), for leaky ResNets of Jacot and Kaiser (arXiv 2405.17573), whose
    :math:`-2H/\tilde L` is the effective dimension. Exact at a critical point of the discrete net, with the Hamiltonian on
    the pairing :math:`(A_{l-1}, B_l)` and steps :math:`\rho` that stay as they are when the depth changes; read it next
    to the stationarity residual. On nets that are not fully converged the pre-Hamiltonian in place of H is more robust.

    Args:
        steps: :math:`\rho` (..., layers), positive, sum 1.
        hamiltonians: H_l (..., layers); leave out the last node of a history, where there is none.
        effective_depth: :math:`\tilde L`.

    Returns:
        The slope, a float (or float64 array of the leading dimensions).

    Raises:
        InputError: for shapes that do not fit, NaN or infinite numbers, steps that are not positive or do not sum to 1, or a
            depth that is not positive.

    Example:
        >>> envelope_slope([0.5, 0.5], [-4.0, -6.0], 4.0)
        2.5
    """
    depth = float(positive(effective_depth, "effective_depth"))
    rho, energies = np.asarray(steps, dtype=float), np.asarray(hamiltonians, dtype=float)
    if rho.ndim == 0 or energies.ndim == 0 or rho.shape[-1] != energies.shape[-1]:
        raise InputError(
            f"steps and hamiltonians must have as many layers each, but have the shapes {rho.shape} and {energies.shape}."
        )
    if not (np.isfinite(rho).all() and (rho > 0).all() and np.allclose(rho.sum(-1), 1, atol=1e-6)):
        raise InputError("steps must be positive with the sum 1 along the layers.")
    if not np.isfinite(energies).all():
        raise InputError("hamiltonians must be finite; a history has none at its last node, which is to be left out.")
    slope = (rho * (-2 * energies / depth)).sum(-1)
    return float(slope) if slope.ndim == 0 else slope


def check_envelope(
    effective_depths: Sequence[float] | np.ndarray,
    costs: Sequence[float] | np.ndarray,
    slopes: Sequence[float] | np.ndarray,
    penalty: float | None = None,
    *,
    method: Literal["expansion", "difference"] = "expansion",
) -> EnvelopeCheck:
    r"""Compare the slope of the costs in the effective depth with the slopes that :func:`envelope_slope` measured.

    Source: derived in learnmech (see :func:`envelope_slope`).

    Args:
        effective_depths: :math:`\tilde L`, at least three different positive numbers.
        costs: :math:`(2/\lambda) J^*` at each; J itself if ``penalty`` is given. Of the same runs as the slopes.
        slopes: what :func:`envelope_slope` gave at each.
        penalty: :math:`\lambda`.
        method: where the slope of the costs comes from: ``expansion`` (that of :func:`fit_depth_expansion`, for depths that are far
            apart) or ``difference`` (of the parabola through three neighbours, without a model, for depths that are close).

    Returns:
        Both slopes at each depth. A difference has the errors of the costs, of the expansion and of training in it;
        costs that ended in different local minima give slopes of no use.

    Raises:
        InputError: as :func:`fit_depth_expansion`, for slopes that do not fit or are not finite, for depths given twice, and for
            an unknown method.

    Example:
        >>> depths = np.array([2.0, 4.0, 8.0])
        >>> check_envelope(depths, 3 * depths + 1 + 8 / depths, 3 - 8 / depths**2).worst < 1e-12
        True
    """
    if method not in ("expansion", "difference"):
        raise InputError(f"unknown method {method!r}: expected 'expansion' or 'difference'.")
    depths, table = depths_and_costs(effective_depths, costs, penalty)
    measured = np.asarray(slopes, dtype=float)
    if table.shape[1] != 1 or measured.shape != depths.shape or len(np.unique(depths)) < len(depths):
        raise InputError(
            f"costs and slopes must be one for each of {len(depths)} different depths, but have the shapes {np.shape(costs)} and "
            f"{measured.shape}."
        )
    if not np.isfinite(measured).all():
        raise InputError("slopes must be finite numbers, but hold NaN or infinity.")
    values = table[:, 0]
    if method == "expansion":
        expected = fit_depth_expansion(depths, values).slope(depths)
    else:
        order = np.argsort(depths)
        expected = np.empty_like(values)
        expected[order] = np.gradient(values[order], depths[order], edge_order=2)
    return EnvelopeCheck(depths, expected, measured)
