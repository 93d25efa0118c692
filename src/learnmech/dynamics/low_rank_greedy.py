"""Greedy low-rank learning: one more column at a time, and gradient flow to convergence after each."""

import math
from typing import Any

import numpy as np
import xarray as xr

from learnmech import history
from learnmech.bars import terminal_bar
from learnmech.dynamics.low_rank_flow_steps import follow
from learnmech.dynamics.low_rank_tasks import Landscape, MatrixLoss
from learnmech.errors import InputError

SOURCE = "greedy low-rank learning, Li, Luo and Lyu 2021 (arXiv 2012.09839)"


def greedy_low_rank(
    loss: MatrixLoss,
    dimension: int | None = None,
    *,
    epsilon: float = 1e-8,
    most: int | None = None,
    growth_tolerance: float = 1e-6,
    gradient_tolerance: float = 1e-9,
    longest: float = 1e5,
    tolerance: float = 1e-9,
) -> xr.Dataset:
    r"""Minimise :math:`L(UU^T)` rank by rank, as gradient flow from an infinitely small start does.

    Begin with U empty. While the top eigenvalue :math:`\lambda_1` of :math:`-\nabla L(UU^T)` is positive, append the column
    :math:`\sqrt\epsilon\, v_1` and follow :math:`U' = -\nabla_U L(UU^T) = -2\,\nabla L(UU^T)\,U` until it rests. The losses
    after the phases are the plateaus of the flow from a small start; the first of them is left at the time
    :math:`-\log|\theta_0| / (2\lambda_1)`, since the top direction grows at rate :math:`2\lambda_1`.

    Source: Li, Luo and Lyu 2021 (arXiv 2012.09839). A phase is a true gradient flow with error control, never a
    quasi-Newton search, which may end in another valley. The rule for its end is ours: the gradient by U is below
    ``gradient_tolerance`` times :math:`|\nabla L(0)|`, and the new column has grown tenfold.

    How to read it: ``converged`` must be true in every phase, else the plateau is not one. The greedy path and the flow agree
    in the limit of a small start if the top eigenvalue of each phase is simple (``gap`` says by how much).

    Args:
        loss: a differentiable function of a symmetric float64 tensor (dimension, dimension), or a
            :class:`~learnmech.dynamics.MatrixSensing` task.
        dimension: of the matrix; a task knows it.
        epsilon: squared size of a new column, at most 1e-2.
        most: largest rank; the dimension if not given.
        growth_tolerance: phases end when the top eigenvalue is below this share of the first one.
        gradient_tolerance: see above.
        longest: time after which a phase ends unconverged.
        tolerance: relative tolerance of the integrator.

    Returns:
        A history over ``phase`` 0, 1, ... (0 is U empty): ``loss``, ``top_eigenvalue`` of minus the gradient, its ``gap`` to the
        second, ``rank``, ``gradient_norm`` by U, ``duration`` of the flow, ``converged``, and ``matrix`` X over ``row`` and ``column``.
        Attribute ``first_jump``: :math:`-\log\sqrt\epsilon / (2\lambda_1)`. A loss that gives no finite number raises
        InputError, an integrator that fails LearnmechError.

    Raises:
        InputError: if an argument is out of range.

    Example:
        >>> import torch
        >>> truth = torch.diag(torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64))
        >>> run = greedy_low_rank(lambda X: ((X - truth) ** 2).sum() / 2, 3)
        >>> run["loss"].values.round(6).tolist(), run["rank"].values.tolist()
        ([5.0, 0.5, 0.0], [0, 1, 2])
    """
    landscape = Landscape(loss, dimension)
    side = landscape.dimension
    most = side if most is None else most
    _require(epsilon, most, growth_tolerance, gradient_tolerance, longest, tolerance)
    factor = np.zeros((side, 0))
    phases: list[dict[str, Any]] = []
    first, scale = 0.0, 0.0
    elapsed, rests = 0.0, True
    with terminal_bar("greedy low-rank learning", most, least=3) as advance:
        while True:
            matrix = factor @ factor.T
            value, slope = landscape.at(matrix)
            eigenvalues = np.linalg.eigvalsh(-slope)
            growth, direction = landscape.growth(matrix)
            if not phases:
                first, scale = growth, float(np.linalg.norm(slope))
            phases.append(
                {
                    "loss": value,
                    "top_eigenvalue": growth,
                    "gap": float(eigenvalues[-1] - eigenvalues[-2]) if side > 1 else math.inf,
                    "rank": factor.shape[1],
                    "gradient_norm": 2 * float(np.linalg.norm(slope @ factor)),
                    "duration": elapsed,
                    "converged": rests,
                    "matrix": matrix,
                }
            )
            if growth <= growth_tolerance * max(first, 0.0) or growth <= 0 or factor.shape[1] >= most or not rests:
                break
            factor, elapsed, rests = _phase(
                landscape, factor, math.sqrt(epsilon) * direction, gradient_tolerance * scale, longest, tolerance
            )
            advance(1)
    return _history(
        phases,
        epsilon,
        {
            "model": "greedy_low_rank",
            "dimension": side,
            "epsilon": epsilon,
            "most": most,
            "growth_tolerance": growth_tolerance,
            "gradient_tolerance": gradient_tolerance,
            "longest": longest,
            "tolerance": tolerance,
        },
    )


def _phase(
    landscape: Landscape, factor: np.ndarray, column: np.ndarray, least: float, longest: float, tolerance: float
) -> tuple[np.ndarray, float, bool]:
    start = np.column_stack([factor, column])
    size = float(np.linalg.norm(column))
    last: tuple[float, np.ndarray] = (0.0, start)

    def look(moment: float, now: np.ndarray, inside: Any) -> bool:
        nonlocal last
        last = (moment, now.copy())
        small = 2 * np.linalg.norm(landscape.at(now @ now.T)[1] @ now) <= least
        return bool(small and np.linalg.norm(now - start) >= 10 * size)

    rests = follow(landscape, start, longest, look, tolerance)
    return last[1], last[0], rests


def _require(
    epsilon: float, most: int, growth_tolerance: float, gradient_tolerance: float, longest: float, tolerance: float
) -> None:
    if not 0 < epsilon <= 1e-2:
        raise InputError(f"epsilon must lie between 0 and 0.01, the squared size of a new column, got {epsilon!r}.")
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise InputError(f"most must be a positive integer, the largest rank, got {most!r}.")
    for name, value in (("growth_tolerance", growth_tolerance), ("gradient_tolerance", gradient_tolerance)):
        if not 0 < value < 1:
            raise InputError(f"{name} must lie between 0 and 1, got {value!r}.")
    if not (math.isfinite(longest) and longest > 0):
        raise InputError(f"longest must be a positive time, got {longest!r}.")
    if not 1e-13 <= tolerance <= 1e-2:
        raise InputError(f"tolerance must lie between 1e-13 and 0.01, got {tolerance!r}.")


def _history(phases: list[dict[str, Any]], epsilon: float, config: dict[str, Any]) -> xr.Dataset:
    titles = {
        "loss": "loss after the phase, the level of a plateau",
        "top_eigenvalue": "top eigenvalue of minus the gradient after the phase",
        "gap": "distance of the top eigenvalue to the second",
        "rank": "number of columns of U",
        "gradient_norm": "norm of the gradient by U after the phase",
        "duration": "time of the gradient flow of the phase",
        "converged": "whether the flow came to rest",
        "matrix": "U U^T after the phase",
    }
    units = {"rank": "columns", "duration": "time of the flow"}
    variables = {
        name: (
            ("phase", "row", "column") if name == "matrix" else ("phase",),
            np.array([phase[name] for phase in phases]),
            {"long_name": title, "units": units.get(name, "1"), "source": SOURCE},
        )
        for name, title in titles.items()
    }
    side = phases[0]["matrix"].shape[0]
    growth = phases[0]["top_eigenvalue"]
    return history.build(
        variables,
        {"phase": np.arange(len(phases)), "row": np.arange(side), "column": np.arange(side)},
        config=config,
        attributes={"first_jump": -0.5 * math.log(epsilon) / (2 * growth) if growth > 0 else math.inf},
    )
