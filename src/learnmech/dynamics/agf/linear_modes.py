"""What a two-layer linear network learns, and when: singular modes, with jump times exact for whitened inputs."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.agf.linear_covariance import general_stages
from learnmech.dynamics.agf.linear_exact import LOSS_HALF, half_times, loss_times
from learnmech.dynamics.agf.linear_plain import neuron_times
from learnmech.dynamics.agf.linear_problem import covariances, two_matrices, unexplained
from learnmech.dynamics.agf.predictions import Prediction
from learnmech.errors import InputError

Case = Literal["whitened", "commuting", "general"]
_SAME = 1e-9
_NOTHING = 1e-12


@dataclass(frozen=True, kw_only=True)
class LinearPrediction(Prediction):
    r"""The staircase of a two-layer linear network.

    Attributes:
        case: "whitened", "commuting" or "general": how the input covariance lies to the cross-covariance.
        growth: rate :math:`\sigma_k` at which each mode grows before it is learned.
        strengths: size :math:`s_k` of each mode of AW when it is learned.
        left: output direction of each mode, in columns.
        right: input direction of each mode, in columns.
        find_plain_times: gives ``plain_times``, when they are asked for.
        find_loss_times: gives ``loss_times``, when they are asked for.
    """

    case: Case
    growth: Float[np.ndarray, " jumps"]
    strengths: Float[np.ndarray, " jumps"]
    left: Float[np.ndarray, "outputs jumps"]
    right: Float[np.ndarray, "inputs jumps"]
    find_plain_times: Callable[[], np.ndarray] = field(repr=False)
    find_loss_times: Callable[[], np.ndarray] = field(repr=False)

    @cached_property
    def plain_times(self) -> Float[np.ndarray, " jumps"]:
        r"""Times of alternating gradient flow itself, of leading order :math:`-\log|\theta_0|/\sigma_k`: when a neuron has norm 1.

        See :func:`~learnmech.dynamics.agf.linear_plain.neuron_times`; infinity where no neuron is left.
        """
        return self.find_plain_times()

    @cached_property
    def loss_times(self) -> Float[np.ndarray, " jumps"]:
        """When the loss crosses the mean of two levels; not a number where that is not known."""
        return self.find_loss_times()

    @property
    def crossing_times(self) -> Float[np.ndarray, " jumps"]:
        """When the loss crosses the mean of two levels; ``times`` where only those are known."""
        if self.crossings is not None:
            return self.crossings
        return np.where(np.isnan(self.loss_times), self.times, self.loss_times)


def linear(A0: Any, W0: Any, sigma_yx: Any, sigma_xx: Any = None, *, sigma_yy: Any = None) -> LinearPrediction:
    r"""Predict the staircase of a two-layer linear network :math:`f(x) = AWx` from a small start.

    With :math:`L = \frac12E|y - AWx|^2` (levels counted from the least that a linear map reaches) and the singular modes
    :math:`\Sigma_{yx} = \sum_k\sigma_ku_kv_k^T`, where :math:`\Sigma_{xx}` has the :math:`v_k` for eigenvectors with eigenvalues
    :math:`\lambda_k`, mode k grows at rate :math:`\sigma_k` from the start and ends at :math:`s_k = \sigma_k/\lambda_k`. Its strength is
    half of that at

    .. math::
        t_k = \frac{1}{2\sigma_k}\log\Big(\frac{s_k}{R_{kk}^2/2} - 1\Big), \qquad
        z_k = (A_0^Tu_k + W_0v_k)/\sqrt2, \quad QR = [z_1\ z_2\ \dots] .

    The orthogonalisation is needed because hidden directions that earlier modes have used decay for later ones. For whitened
    inputs the times are then corrected for modes that overlap in time, by the closed form of
    :func:`~learnmech.dynamics.agf.linear_exact.missing_shares`. Levels are :math:`\ell_k = \frac12\sum_{j>k}\sigma_js_j`. The order
    is that of these times, so mostly that of :math:`\sigma`, not of the drops of the loss. The loss crosses the mean of two
    levels a little earlier, at ``loss_times``: near a strength of :math:`(1 - 1/\sqrt2)s_k`, which is
    :math:`\log(1+\sqrt2)/(2\sigma_k)` before.

    For any other :math:`\Sigma_{xx}` the modes are the eigenvectors of :math:`\Sigma_{yx}\Sigma_{xx}^{-1}\Sigma_{xy}`, a conjecture of
    that paper's code, and ``times`` are those of leading order; see :func:`~learnmech.dynamics.agf.linear_covariance.general_stages`.

    Source: Kunin et al. 2025 (arXiv 2506.06489), fully connected linear networks; the refined times are derived here.

    How to read it: for whitened inputs the times are exact up to the square of the start (errors near 1e-4 at 1e-2, 1e-7
    at 1e-4). For commuting inputs the error is the share of a mode that is there while a faster one saturates, of order
    :math:`|\theta_0|^{2(1 - \sigma_{k+1}/\sigma_k)}`: up to 7e-3, 5e-4 and 1e-5 at starts of 1e-2, 1e-4 and 1e-8 in our runs. ``plain_times``
    are off by a share of order :math:`1/|\log|\theta_0||`. Neither is valid for a start that is not small: where a
    strength at the start exceeds half of its end, the time is NaN and a note says so.

    ``case`` is "whitened" where :math:`\Sigma_{xx}` is a multiple of the identity, "commuting" where the :math:`v_k` are its
    eigenvectors, both to 1e-9 of its largest entry, and else "general".

    Degenerate cases: modes without strength are left out; fewer hidden neurons than modes learn the first ones only. Modes of
    one growth and one strength are learned by the singular values of their common block of R, which are their ``times``, and
    ``left`` and ``right`` are those combinations. Equal growth at different strengths has no such basis: a note says that
    their times are approximate.

    Args:
        A0: read-out weights at the start (outputs, hidden).
        W0: input weights at the start (hidden, inputs).
        sigma_yx: E y x^T (outputs, inputs).
        sigma_xx: E x x^T (inputs, inputs), the identity if not given.
        sigma_yy: E y y^T (outputs, outputs); with it, levels are of the whole loss.

    Returns:
        The prediction; ``order`` holds indices of modes by decreasing growth, from 0.

    Raises:
        InputError: for wrong shapes, numbers that are not finite, or weights that are all 0, where nothing is ever learned.

    Example:
        >>> A, W = 1e-4 * np.array([[1.0, 2.0], [0.0, 1.0]]), 1e-4 * np.array([[1.0, -1.0], [2.0, 0.0]])
        >>> found = linear(A, W, np.diag([2.0, 1.0]))
        >>> found.times.round(4).tolist(), found.levels.tolist()
        ([4.3761, 9.6096], [2.5, 0.5, 0.0])
    """
    cross, spread, _, inverse = covariances(sigma_yx, sigma_xx)
    first, second = two_matrices(A0, W0, cross)
    floor = unexplained(sigma_yy, cross @ inverse)
    size = float(np.sqrt(np.square(first).sum(axis=0) + np.square(second).sum(axis=1)).max())
    if size == 0:
        raise InputError(
            "A0 and W0 are 0 everywhere: that is a saddle, which no flow ever leaves; give a small start, such as 1e-3."
        )
    modes = _commuting_modes(cross, spread)
    if modes is None:
        return _general(cross, inverse, size, first.shape[1], floor)
    left, growth, eigenvalues, right = modes
    whitened = bool(np.ptp(np.diag(spread)) <= _SAME * spread.max() and _off_diagonal(spread) <= _SAME * spread.max())
    strengths = growth / eigenvalues
    notes: list[str] = []
    network = first, second, left, right, growth
    left, right, amplitudes = _amplitudes(first, second, left, right, growth, strengths, notes)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = strengths / (amplitudes**2 / 2) - 1
        halves = np.where(ratios >= 1, np.log(ratios), math.nan) / (2 * growth)
    hidden = (first.T @ left + second @ right) / math.sqrt(2)
    if whitened:
        halves = half_times(halves, hidden, growth, strengths)
    chosen = _listed(amplitudes, first.shape[1])
    _note(halves, chosen, notes)
    chosen = chosen[np.argsort(np.nan_to_num(halves[chosen], nan=-math.inf, posinf=math.inf), kind="stable")]
    drops = growth * strengths / 2
    levels = np.maximum(drops.sum() - np.concatenate([[0.0], np.cumsum(drops[chosen])]), 0.0)
    crossed = halves[chosen] + LOSS_HALF / (2 * growth[chosen])
    every = np.concatenate([chosen, np.setdiff1d(np.arange(len(growth)), chosen)])
    whole = levels, hidden[:, every], growth[every], strengths[every]
    return LinearPrediction(
        times=halves[chosen],
        levels=floor + levels,
        order=tuple(chosen.tolist()),
        model="two-layer linear network",
        notes=tuple(notes),
        case="whitened" if whitened else "commuting",
        growth=growth[chosen],
        strengths=strengths[chosen],
        left=left[:, chosen],
        right=right[:, chosen],
        find_plain_times=partial(_chosen_times, network, chosen),
        find_loss_times=partial(loss_times, crossed, *whole) if whitened else partial(np.copy, crossed),
    )


def _chosen_times(network: tuple[np.ndarray, ...], chosen: np.ndarray) -> np.ndarray:
    return np.asarray(neuron_times(*network)[chosen])


def _listed(amplitudes: Float[np.ndarray, " modes"], hidden: int) -> np.ndarray:
    """The modes that are learned, and those absent from the start as far as hidden neurons are left for them."""
    learned, absent = np.flatnonzero(amplitudes > 0), np.flatnonzero(amplitudes == 0)
    return np.sort(np.concatenate([learned, absent[: max(min(hidden, len(amplitudes)) - len(learned), 0)]]))


def _note(times: Float[np.ndarray, " modes"], chosen: np.ndarray, notes: list[str]) -> None:
    """Say which modes are not learned or have no time, and why."""
    if len(chosen) < len(times):
        notes.append(f"the hidden neurons learn {len(chosen)} of {len(times)} modes.")
    for reason, text in (
        (np.isnan(times), "the start is not small for mode(s) {}: no time is predicted."),
        (
            np.isinf(times),
            "mode(s) {} have no hidden direction of their own at the start and are never learned: time inf.",
        ),
    ):
        if reason[chosen].any():
            notes.append(text.format(", ".join(map(str, chosen[reason[chosen]]))))


def _off_diagonal(matrix: np.ndarray) -> float:
    return float(np.abs(matrix - np.diag(np.diag(matrix))).max())


def _commuting_modes(
    cross: np.ndarray, spread: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Left vectors, singular values, eigenvalues and right vectors, the largest first; None without a common basis."""
    left, growth, right = np.linalg.svd(cross, full_matrices=False)
    right = right.T
    kept = growth > _NOTHING * max(growth.max(initial=0.0), 1e-300)
    left, growth, right = left[:, kept], growth[kept], right[:, kept]
    eigenvalues = np.empty_like(growth)
    for block in _ties(growth):
        # within a tie any basis of right vectors will do: take the one in which the covariance is diagonal
        values, vectors = np.linalg.eigh(right[:, block].T @ spread @ right[:, block])
        turn = vectors[:, ::-1]
        left[:, block], right[:, block], eigenvalues[block] = (
            left[:, block] @ turn,
            right[:, block] @ turn,
            values[::-1],
        )
    moved = spread @ right
    if np.abs(moved - right * eigenvalues).max(initial=0.0) > _SAME * max(float(np.abs(spread).max()), 1e-300):
        return None
    return left, growth, eigenvalues, right


def _ties(growth: np.ndarray) -> list[slice]:
    """Runs of values that are equal up to rounding, of decreasing ones."""
    if not len(growth):
        return []
    edges = [0, *(np.flatnonzero(np.diff(growth) < -_SAME * growth[0]) + 1).tolist(), len(growth)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _amplitudes(
    first: np.ndarray,
    second: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    growth: np.ndarray,
    strengths: np.ndarray,
    notes: list[str],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The modes, turned within ties to singular vectors of their block, and what earlier modes leave of each hidden vector."""
    hidden = (first.T @ left + second @ right) / math.sqrt(2)
    basis = np.zeros((hidden.shape[0], 0))
    amplitudes = np.zeros(len(growth))
    left, right = left.copy(), right.copy()
    for block in _ties(growth):
        rest = hidden[:, block]
        for _ in range(2):  # twice, for the digits
            rest = rest - basis @ (basis.T @ rest)
        directions, sizes, turn = np.linalg.svd(rest, full_matrices=False)
        same = np.ptp(strengths[block]) <= _SAME * strengths[block].max()
        if block.stop - block.start > 1 and not same:
            notes.append(
                f"modes {block.start} to {block.stop - 1} grow alike but end unlike: their times are approximate."
            )
        width = block.stop - block.start
        padded = np.zeros(width)
        padded[: len(sizes)] = sizes
        if width > 1 and same:
            full = np.linalg.svd(rest, full_matrices=True)[2] if len(sizes) < width else turn
            left[:, block], right[:, block] = left[:, block] @ full.T, right[:, block] @ full.T
        elif width > 1:
            padded = np.abs(np.diag(np.linalg.qr(rest, mode="r"), 0))
            padded = np.concatenate([padded, np.zeros(width - len(padded))])
        padded[padded <= _NOTHING * np.linalg.norm(hidden[:, block])] = 0.0
        amplitudes[block] = padded
        basis = np.hstack([basis, directions[:, sizes > _NOTHING * np.linalg.norm(hidden[:, block])]])
    return left, right, amplitudes


def _general(cross: np.ndarray, inverse: np.ndarray, size: float, hidden: int, floor: float) -> LinearPrediction:
    stages = general_stages(cross, inverse, min(hidden, *cross.shape))
    unit = max(-math.log(size), 0.0)
    count = len(stages.times)
    left = np.array([mode.left for mode in stages.modes]).reshape(count, len(cross)).T
    right = inverse @ inverse @ cross.T @ left
    strengths = np.linalg.norm(right, axis=0)
    return LinearPrediction(
        times=unit * stages.times,
        levels=floor + stages.levels[: count + 1],
        order=tuple(range(count)),
        model="two-layer linear network",
        notes=("the input covariance does not commute: modes and times are a conjecture, of leading order.",),
        case="general",
        growth=np.array([mode.growth for mode in stages.modes]),
        strengths=strengths,
        left=left,
        right=right / strengths,
        find_plain_times=partial(np.copy, unit * stages.times),
        find_loss_times=partial(np.full, count, math.nan),
    )
