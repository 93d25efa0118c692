"""Integrates Hamilton's equations from the input on: where a representation with a given momentum goes."""

import math
import warnings
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
import xarray as xr
from jaxtyping import Shaped
from torch import Tensor

from learnmech.errors import InputError, LearnmechWarning
from learnmech.leaky.geodesic_history import path_history
from learnmech.leaky.integrators import NEWTON_TOLERANCE, runge_kutta_step, symplectic_euler_step
from learnmech.leaky.representations import (
    require_effective_depth,
    require_like,
    require_representations,
    require_ridges,
    require_steps,
)

Method = Literal["rk4", "symplectic_euler"]
_DRIFT, _LARGEST = 0.1, 1e60


def flow(
    A0: Shaped[Tensor, "width samples"],
    B0: Shaped[Tensor, "width samples"],
    effective_depth: float,
    steps: int | Tensor,
    *,
    method: Method = "rk4",
    bias: bool = True,
    ridges: Sequence[float] = (),
    record_every: int = 1,
) -> xr.Dataset:
    r"""Integrate Hamilton's equations over depth, from a representation and a momentum at the input.

    .. math::
        \dot A = \tilde L (B K - A), \qquad \dot B = \tilde L\big(B - \dot\sigma(A)\odot(\max(A, 0)\,B^TB)\big), \qquad
        H = \frac{\tilde L}{2}\lVert B\sigma(A)^T\rVert_F^2 - \tilde L\,\mathrm{Tr}[BA^T] = \text{constant}.

    Source: Jacot and Kaiser (arXiv 2405.17573), Hamilton's equations. Two methods:

    - ``"rk4"``, the classical Runge-Kutta method: the energy drifts like the fourth power of the step while no entry of A
      changes its sign.
    - ``"symplectic_euler"``: exactly the step that the layers of a leaky ResNet at a critical point take (derived here), first
      order: :math:`B_{l-1} = B_l - \rho\dot B(A_{l-1}, B_l)`, :math:`A_l = A_{l-1} + \rho\dot A(A_{l-1}, B_l)`. The energy is
      taken on the pairing :math:`(A_l, B_{l+1})` and stands at node l; the last node has none (NaN).

    **When it isn't valid.** Across a kink of the ReLU, where an entry of A changes sign, either method has a low order only.
    Where an entry should *stay* at 0, as in many trained nets, the flow with :math:`\dot\sigma(0) = 0` is not the geodesic;
    :func:`learnmech.leaky.solve_geodesic` treats that case. Going forward, modes of A and B grow like :math:`e^{\tilde L p}`,
    so that errors of the start grow by that factor: for large effective depths a path from A to A is better found
    as a boundary-value problem. Too large momenta reach infinity before depth 1; with ``"rk4"`` a warning says if the energy
    moved by more than a tenth.

    Args:
        A0: representation at the input, columns are samples.
        B0: momentum at the input, of the same shape.
        effective_depth: the leak, positive.
        steps: number of equal steps, or their sizes (layers,), which add up to 1.
        method: which.
        bias: whether a row of ones is appended to the activations.
        ridges: for which ridges the cost of identity is recorded, too.
        record_every: of how many nodes one is recorded; the first and the last always are.

    Returns:
        A history over ``layer`` (nodes "0" to "L", with their ``depth``): ``hamiltonian`` (energy), ``effective_dimension``
        (-2 H over the effective depth, a number of dimensions), ``pairing`` Tr[B A^T], ``representation_norm``,
        ``momentum_norm``, ``weight_norm``, ``path`` and ``momenta`` over (layer, neuron, sample), and with ridges
        ``identity_cost`` over (layer, ridge).

    Raises:
        InputError: for wrong arguments; if the flow leaves the range of numbers, naming the depth; if the implicit equation of
            the symplectic method has no solution near, naming the layer.

    Example:
        >>> from learnmech.leaky import exact
        >>> path = exact.scalar(0.5, 3.0, 4.0)
        >>> start, momentum = torch.tensor([[0.5]]), torch.tensor([[path.momentum_start]])
        >>> run = flow(start, momentum, 4.0, 200, bias=False)
        >>> round(run.path.values[-1].item(), 6), round(run.effective_dimension.values[-1].item(), 6)
        (3.0, 0.79935)
    """
    A = require_representations("A0", A0).detach()
    B = require_like("B0", B0, A).detach()
    if A.ndim != 2:
        raise InputError(f"A0 must be one matrix (width, samples), but has the shape {tuple(A.shape)}.")
    leak = require_effective_depth(effective_depth)
    sizes = _step_sizes(steps)
    if method not in get_args(Method):
        raise InputError(f"method must be one of {', '.join(get_args(Method))}, but {method!r} came.")
    if isinstance(record_every, bool) or not isinstance(record_every, int) or record_every < 1:
        raise InputError(f"record_every must be a whole number of at least 1, but {record_every!r} came.")
    if len(ridges):
        require_ridges(ridges)
    nodes = np.concatenate([[0.0], np.cumsum(sizes)])
    nodes[-1] = 1.0
    path, momenta, paired, kept = [A], [B], [], [0]
    for layer, step in enumerate(sizes.tolist(), start=1):
        before = B
        if method == "rk4":
            A, B = runge_kutta_step(A, B, step, leak, bias=bias)
        else:
            A, B, residual = symplectic_euler_step(A, B, step, leak, bias=bias)
            _require_solved(residual, layer, nodes[layer - 1], step * leak)
        _require_finite(A, B, nodes[layer], layer)
        if kept[-1] == layer - 1:
            paired.append(before if method == "rk4" else B)
        if layer % record_every == 0 or layer == len(sizes):
            path.append(A)
            momenta.append(B)
            kept.append(layer)
    paired.append(B if method == "rk4" else torch.full_like(B, math.nan))
    history = path_history(
        torch.stack(path),
        torch.stack(momenta),
        torch.stack(paired),
        depths=nodes[kept],
        names=[str(node) for node in kept],
        effective_depth=leak,
        bias=bias,
        ridges=ridges,
        config={
            "effective_depth": leak,
            "steps": len(sizes) if isinstance(steps, int) else sizes.tolist(),
            "method": method,
            "bias": bias,
        },
    )
    if method == "rk4":
        _warn_of_drift(history["hamiltonian"].values, leak)
    return history


def _warn_of_drift(energies: np.ndarray, leak: float) -> None:
    """Warn if the energy moved by more than a tenth of itself, or of that of one dimension at rest if this is larger."""
    drift = float(np.ptp(energies))
    if not drift <= _DRIFT * max(abs(float(energies[0])), leak / 2):
        warnings.warn(
            f"the energy should be constant, but moved by {drift:.2e} from {float(energies[0]):.2e}: the path is wrong. Give more steps, "
            "or a smaller B0.",
            LearnmechWarning,
            stacklevel=3,
        )


def _step_sizes(steps: int | Tensor) -> np.ndarray:
    if isinstance(steps, int) and not isinstance(steps, bool):
        if steps < 1:
            raise InputError(f"steps must be at least 1, but {steps} came.")
        return np.full(steps, 1.0 / steps)
    if not isinstance(steps, Tensor) or steps.ndim != 1:
        raise InputError(
            f"steps must be a number of equal steps, or a tensor of step sizes (layers,), but {steps!r} came."
        )
    sizes: np.ndarray = require_steps(steps, len(steps)).cpu().numpy()
    return sizes


def _require_finite(A: Tensor, B: Tensor, depth: float, layer: int) -> None:
    if not max(float(A.abs().max()), float(B.abs().max())) < _LARGEST:
        raise InputError(
            f"the flow left the range of numbers before depth {depth:.4g} (step {layer}): the momentum at the start is too large "
            "for this effective depth, or the steps too coarse. Give a smaller B0, or more steps."
        )


def _require_solved(residual: float, layer: int, depth: float, leak: float) -> None:
    if residual > NEWTON_TOLERANCE:
        raise InputError(
            f"the implicit equation for the momentum after step {layer} (from depth {depth:.4g}) has no solution that Newton's "
            f"method finds (relative residual {residual:.1e}): step size times effective depth is {leak:.3g}, too large for this "
            "momentum. Give more steps, a smaller B0, or method='rk4'."
        )
