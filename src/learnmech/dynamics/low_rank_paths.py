"""Gradient flow of a full factor from a small start, to be held against greedy low-rank learning."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from learnmech import history
from learnmech.dynamics.linear_network import as_matrix
from learnmech.dynamics.linear_network_flow import choose_times
from learnmech.dynamics.linear_network_runs import read_times
from learnmech.dynamics.low_rank_flow_steps import follow
from learnmech.dynamics.low_rank_greedy import SOURCE
from learnmech.dynamics.low_rank_tasks import Landscape, MatrixLoss
from learnmech.errors import InputError


def low_rank_flow(
    loss: MatrixLoss,
    dimension: int | None = None,
    *,
    scale: float = 1e-4,
    seed: int = 0,
    start: Any = None,
    times: Any = None,
    records: int = 400,
    rest: float = 1e-6,
    longest: float = 1e5,
    tolerance: float = 1e-9,
) -> xr.Dataset:
    r"""Follow :math:`U' = -\nabla_U L(UU^T)` from a small start with as many columns as rows.

    The start is ``scale`` times a random orthogonal matrix, so every direction begins at the same size. The first jump is
    predicted at :math:`-\log|v_1^T U_0| / (2\lambda_1)`, with the top eigenpair of :math:`-\nabla L(0)`.

    Source: Li, Luo and Lyu 2021 (arXiv 2012.09839); the overlap with the top direction in the place of the norm: ours.

    How to read it: as the scale falls, the plateaus that :func:`learnmech.dynamics.saddle.find_jumps` finds come close to the
    levels of :func:`greedy_low_rank`, and the jump times over :math:`-\log(\text{scale})` to a limit; both errors fall slowly,
    the times' as 1 / log.

    Args:
        loss: a differentiable function of a symmetric float64 tensor (dimension, dimension), or a matrix-sensing task.
        dimension: of the matrix; a task knows it.
        scale: size of each column at the start.
        seed: of the orthogonal matrix.
        start: start from this U instead (dimension, columns).
        times: when to record; if not given, ``records`` times until the flow rests, close together where it is fast.
        records: number of recorded times if ``times`` is not given.
        rest: the flow rests when the gradient by U and the top eigenvalue of minus the gradient are both below this share of
            their size at X = 0. A saddle does not count: there the eigenvalue is large.
        longest: time at which to end all the same; the attribute ``rested`` says so.
        tolerance: relative tolerance of the integrator.

    Returns:
        A history over ``time``: ``loss``, and ``eigenvalue`` of X over ``mode``, largest first. Attributes ``first_jump`` and
        ``rested``. A loss that gives no finite number raises InputError, an integrator that fails LearnmechError.

    Raises:
        InputError: if an argument is out of range.

    Example:
        >>> import torch
        >>> run = low_rank_flow(lambda X: ((X - torch.eye(1).double()) ** 2).sum() / 2, 1, scale=1e-3)
        >>> print(f"{run.attrs['first_jump']:.3f}")
        3.454
    """
    landscape = Landscape(loss, dimension)
    side = landscape.dimension
    if not (math.isfinite(scale) and scale > 0):
        raise InputError(f"scale must be positive, got {scale!r}.")
    if not isinstance(records, int) or isinstance(records, bool) or records < 2:
        raise InputError(f"records must be an integer of at least 2, got {records!r}.")
    if not 0 < rest < 1 or not (math.isfinite(longest) and longest > 0) or not 1e-13 <= tolerance <= 1e-2:
        raise InputError(
            "rest must lie between 0 and 1, longest be positive, and tolerance lie between 1e-13 and 0.01."
        )
    if start is None:
        factor = scale * np.linalg.qr(np.random.default_rng(seed).standard_normal((side, side)))[0]
    else:
        factor = as_matrix(start, "start")
        if factor.shape[0] != side or not factor.any(axis=0).all():
            raise InputError(f"start must have {side} rows and no column of zeros, got shape {factor.shape}.")
    slope = landscape.at(np.zeros((side, side)))[1]
    growth, direction = landscape.growth(np.zeros((side, side)))
    size = float(np.linalg.norm(slope))
    steps, rested = [0.0], False

    def settle(moment: float, now: np.ndarray, inside: Callable[[float], np.ndarray]) -> bool:
        nonlocal rested
        steps.append(moment)
        pull = landscape.at(now @ now.T)[1]
        if 2 * np.linalg.norm(pull @ now) > rest * size or np.linalg.eigvalsh(-pull)[-1] > rest * max(growth, 0.0):
            return False
        rested = True
        return True

    if times is None:
        follow(landscape, factor, longest, settle, tolerance)
        moments = choose_times(steps, records)
    else:
        moments = read_times(times)
    losses, eigenvalues = _record(landscape, factor, moments, tolerance)
    meaning = {"units": "1", "source": SOURCE}
    overlap = float(np.linalg.norm(direction @ factor))
    return history.build(
        {
            "loss": (("time",), losses, {"long_name": "loss", **meaning}),
            "eigenvalue": (("time", "mode"), eigenvalues, {"long_name": "eigenvalues of U U^T", **meaning}),
        },
        {"time": moments, "mode": np.arange(1, side + 1)},
        config={
            "model": "low_rank_flow",
            "dimension": side,
            "start": "given" if start is not None else {"scale": scale, "seed": seed},
            "rest": rest,
            "tolerance": tolerance,
        },
        attributes={
            "first_jump": -math.log(overlap) / (2 * growth) if growth > 0 and overlap > 0 else math.inf,
            **({} if times is not None else {"rested": rested}),
        },
    )


def _record(
    landscape: Landscape, factor: np.ndarray, moments: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    losses, eigenvalues = np.full(len(moments), np.nan), np.full((len(moments), landscape.dimension), np.nan)
    done = 0

    def keep(now: np.ndarray) -> None:
        nonlocal done
        matrix = now @ now.T
        losses[done] = landscape.at(matrix)[0]
        eigenvalues[done] = np.linalg.eigvalsh(matrix)[::-1]
        done += 1

    def look(moment: float, now: np.ndarray, inside: Callable[[float], np.ndarray]) -> bool:
        while done < len(moments) and moments[done] <= moment:
            keep(inside(float(moments[done])))
        return done == len(moments)

    if moments[0] == 0:
        keep(factor)
    if done < len(moments):
        follow(landscape, factor, float(moments[-1]), look, tolerance)
    return losses, eigenvalues
