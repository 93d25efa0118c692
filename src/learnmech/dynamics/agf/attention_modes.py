"""What linear attention learns in context, and when: one principal component a head."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from learnmech.dynamics.agf.attention_heads import HeadPaths, Heads
from learnmech.dynamics.agf.attention_problem import attention_task
from learnmech.dynamics.agf.predictions import FLOW_TIME, Prediction
from learnmech.dynamics.agf.problems import as_array
from learnmech.errors import InputError

_HALF = 1 - 1 / math.sqrt(2)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)
LEADING_TIME = "time of the gradient flow times the norm of the largest head at the start"


@dataclass(frozen=True, kw_only=True)
class AttentionPrediction(Prediction):
    r"""The staircase of linear attention.

    Attributes:
        strengths: what the component's entry of :math:`B = \sum_hv_hq_hk_h^T` becomes at each jump.
        utilities: largest normalised utility :math:`N\lambda_k^2/(3\sqrt3)` of each component.
        heads: which head learns each; -1 where no start was given.
        activation_times: when that head's norm reaches 1 under the frozen residual, the jump of alternating gradient flow.
        lower_bounds: the earliest time of each jump, for a head of the largest dormant norm that is aligned already.
    """

    strengths: Float[np.ndarray, " jumps"]
    utilities: Float[np.ndarray, " jumps"]
    heads: tuple[int, ...]
    activation_times: Float[np.ndarray, " jumps"]
    lower_bounds: Float[np.ndarray, " jumps"]


def linear_attention(
    eigenvalues: Any, context: int, *, scale: float | None = None, init: Any = None
) -> AttentionPrediction:
    r"""Predict the staircase of in-context linear regression by linear attention.

    Heads (v, q, k) learn one eigenvector of the input covariance after the other, the largest eigenvalue first (see
    :class:`~learnmech.dynamics.agf.AttentionProblem` for the loss). The strength and the level after the first k are

    .. math::
        B_{kk} = \frac{1}{\mathrm{tr}\Lambda + (N+1)\lambda_k}, \qquad
        \ell_k = \frac12\Big[\mathrm{tr}\Lambda - \sum_{i\le k}\frac{\lambda_i}{1 + (1 + \mathrm{tr}\Lambda/\lambda_i)/N}\Big] .

    A dormant head grows by :math:`|\theta|' = 3|\theta|^2\hat U` with :math:`\hat U \le N\lambda_k^2/(3\sqrt3)`, so that no jump comes
    before :math:`\tau_{k-1} + (1/n - 1)/(3\hat U^*_k)`, n the largest dormant norm at :math:`\tau_{k-1}`.

    With ``init`` the motion of every head, its alignment included, is followed in closed form up to one integral
    (:class:`~learnmech.dynamics.agf.attention_heads.HeadPaths`), and the last part of the rise is counted with the head's own saturation;
    ``times`` are when the loss crosses the mean of two levels. With ``scale`` only, ``times`` are the lower bounds for heads that
    start at that norm and already aligned, :math:`(1/n - 1)/(3\hat U^*_k)` each. With neither they are :math:`1/(3\hat U^*_k)`, in units of
    1/n.

    Source: Kunin et al. 2025 (arXiv 2506.06489), in-context linear regression; the exact motion of heads and the saturation are derived
    here.

    How to read it: with ``init`` the error against gradient flow falls in proportion to the scale: below 1e-3 at 1e-4.

    Degenerate cases: eigenvalues of 0 are never learned. Of equal eigenvalues (to 1e-9) a head learns the direction in their
    space to which it points, the next ones what is orthogonal to it, and a note says so; levels are the same. Fewer heads
    than components learn the first ones. A head of zeros, or one whose v and :math:`q^TCk` are 0, stays dormant.

    Args:
        eigenvalues: of the input covariance (dimension,).
        context: pairs in the context, N.
        scale: norm of the largest head at the start, below 1.
        init: heads at the start (heads, 1 + 2 dimension): v, q, k in the eigenbasis, as in :class:`~learnmech.dynamics.agf.AttentionProblem`.

    Returns:
        The prediction; ``order`` holds indices of eigenvalues as given.

    Raises:
        InputError: for wrong shapes, a scale outside (0, 1), both scale and init, or heads that are all 0 or not small.

    Example:
        >>> found = linear_attention([0.96, 0.48, 0.32, 0.24], 32)
        >>> found.levels.round(8).tolist(), found.order
        ([1.0, 0.56218527, 0.3555485, 0.22510264, 0.13219942], (0, 1, 2, 3))
    """
    spread, pairs = attention_task(eigenvalues, context)
    total = float(spread.sum())
    if scale is not None and init is not None:
        raise InputError("give scale or init, not both: init holds the scale.")
    if init is not None:
        return _from_heads(spread, pairs, init)
    if scale is not None and not (math.isfinite(scale) and 0 < scale < 1):
        raise InputError(f"scale must lie between 0 and 1, the norm of the largest head at the start, got {scale!r}.")
    order = np.argsort(-spread, kind="stable")
    order = order[spread[order] > 0]
    utilities = pairs * spread[order] ** 2 / (3 * math.sqrt(3))
    times = (1.0 if scale is None else 1 / scale - 1) / (3 * utilities)
    return AttentionPrediction(
        times=times,
        levels=_levels(spread[order], total, pairs),
        order=tuple(order.tolist()),
        model="linear attention",
        notes=("times are lower bounds: heads that are aligned from the start; give init for those of a real start.",),
        strengths=1 / (total + (pairs + 1) * spread[order]),
        utilities=utilities,
        heads=(-1,) * len(order),
        activation_times=times,
        lower_bounds=times,
        time_unit=LEADING_TIME if scale is None else FLOW_TIME,
    )


def _levels(learned: np.ndarray, total: float, pairs: int) -> Float[np.ndarray, " plateaus"]:
    drops = learned / (1 + (1 + total / learned) / pairs)
    return (total - np.concatenate([[0.0], np.cumsum(drops)])) / 2


def _from_heads(spread: np.ndarray, pairs: int, init: Any) -> AttentionPrediction:
    size = len(spread)
    start = as_array("init", init, 2)
    if start.shape[1] != 1 + 2 * size or not len(start):
        raise InputError(f"init must have shape (heads, {1 + 2 * size}): v, q and k of each head; got {start.shape}.")
    if not start.any():
        raise InputError(
            "init is 0 everywhere: that is a saddle, which no flow ever leaves; give a small start instead."
        )
    if np.linalg.norm(start, axis=1).max() >= 1:
        raise InputError("init must be small: a head has norm 1 or more, where the theory has nothing dormant left.")
    total = float(spread.sum())
    growth = pairs * spread**2
    strengths = 1 / (total + (pairs + 1) * spread)
    dormant, names = Heads(start[:, 0], start[:, 1 : 1 + size], start[:, 1 + size :]), np.arange(len(start))
    moment, notes = 0.0, list[str]()
    order: list[int] = []
    times: list[float] = []
    heads: list[int] = []
    activations: list[float] = []
    bounds: list[float] = []
    while len(names) and growth.any():
        paths = HeadPaths(dormant, growth)
        waits = paths.times_to_norm(1.0)
        first = int(waits.argmin())
        if not math.isfinite(waits[first]):
            break
        largest = float(dormant.norms.max())
        dormant = paths.at(float(waits[first]))
        mode = int(np.abs(dormant.query[first] * dormant.key[first] * growth).argmax())
        tied = np.isclose(growth, growth[mode], rtol=1e-9) & (growth > 0)
        if tied.sum() > 1:
            dormant = _turned(dormant, first, mode, tied)
            notes.append(f"component {mode} has equals: what is learned is a direction between them.")
        bounds.append(moment + math.sqrt(3) * (1 / largest - 1) / growth[mode])
        moment += float(waits[first])
        activations.append(moment)
        times.append(moment + _saturation(growth[mode], strengths[mode]))
        order.append(mode)
        heads.append(int(names[first]))
        dormant, names = dormant.without(first), np.delete(names, first)
        growth[mode] = 0.0
    if growth.any():
        notes.append(f"{len(start)} heads learn {len(order)} of {int((spread > 0).sum())} components.")
    learned = np.array(order, dtype=int)
    return AttentionPrediction(
        times=np.array(times),
        levels=_levels(spread[learned], total, pairs),
        order=tuple(order),
        model="linear attention",
        notes=tuple(notes),
        strengths=strengths[learned],
        utilities=pairs * spread[learned] ** 2 / (3 * math.sqrt(3)),
        heads=tuple(heads),
        activation_times=np.array(activations),
        lower_bounds=np.array(bounds),
    )


def _turned(heads: Heads, first: int, mode: int, tied: Bool[np.ndarray, " dimension"]) -> Heads:
    """Reflect equal components so that what the first head points to is along the given one."""
    toward = heads.query[first][tied] + math.copysign(1.0, heads.value[first]) * heads.key[first][tied]
    normal = toward / np.linalg.norm(toward)
    place = int(tied[:mode].sum())
    normal[place] += math.copysign(1.0, normal[place])
    normal /= np.linalg.norm(normal)
    query, key = heads.query.copy(), heads.key.copy()
    for part in (query, key):
        part[:, tied] -= 2 * (part[:, tied] @ normal)[:, None] * normal
    return Heads(heads.value, query, key)


def _saturation(growth: float, strength: float) -> float:
    r"""How much later than its norm reaches 1 under a frozen residual an aligned head crosses the mean of two losses.

    With v = q = k = x, :math:`x' = c\,x^2(1 - x^3/B)` up to :math:`x_*^3 = (1 - 1/\sqrt2)B`, against :math:`x' = c\,x^2` up to
    :math:`1/\sqrt3`.

    Args:
        growth: c.
        strength: B.

    Returns:
        The time, mostly negative.
    """
    end = (_HALF * strength) ** (1 / 3)
    places = end * (1 + _NODES) / 2
    extra = end / 2 * float(_WEIGHTS @ (places / strength / (1 - places**3 / strength)))
    return float((extra - 1 / end + math.sqrt(3)) / growth)
