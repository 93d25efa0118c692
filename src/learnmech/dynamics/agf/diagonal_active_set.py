"""The saddles of a diagonal network in the limit of a vanishing start, by sign-constrained least squares."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg.lapack import dgels

from learnmech.dynamics.agf.diagonal_data import Regression
from learnmech.errors import LearnmechError

TIE = 1e-10
MOST = 100_000


@dataclass(frozen=True)
class Path:
    """Saddles one after another.

    Attributes:
        times: of the jumps, in the unit of the bounds over a gradient.
        saddles: coefficients, one row more than there are jumps.
        accumulated: minus the gradient integrated over time, over the bound on its side: from -1 to 1, at each saddle.
        entering: coordinates that become nonzero at each jump, with their signs.
        leaving: coordinates that become 0 at each jump.
    """

    times: Float[np.ndarray, " jumps"]
    saddles: Float[np.ndarray, "stages dim"]
    accumulated: Float[np.ndarray, "stages dim"]
    entering: tuple[tuple[tuple[int, int], ...], ...]
    leaving: tuple[tuple[int, ...], ...]


class Recorder:
    """Collects the saddles of a path."""

    def __init__(self, dim: int):
        self.times: list[float] = []
        self.saddles = [np.zeros(dim)]
        self.accumulated = [np.zeros(dim)]
        self.entering: list[tuple[tuple[int, int], ...]] = []
        self.leaving: list[tuple[int, ...]] = []

    def jump(self, time: float, beta: Float[np.ndarray, " dim"], accumulated: Float[np.ndarray, " dim"]) -> None:
        """Note a jump, unless nothing enters or leaves.

        Args:
            time: at which it happens.
            beta: the saddle after it.
            accumulated: share of the way to its bound of each coordinate.
        """
        before, after = np.sign(self.saddles[-1]), np.sign(beta)
        entering = np.flatnonzero((after != 0) & (after != before))
        leaving = np.flatnonzero((before != 0) & (after == 0))
        if not len(entering) and not len(leaving):
            return
        self.times.append(time)
        self.saddles.append(beta)
        self.accumulated.append(accumulated)
        self.entering.append(tuple((int(index), int(after[index])) for index in entering))
        self.leaving.append(tuple(int(index) for index in leaving))

    def path(self) -> Path:
        """Give what was noted.

        Returns:
            The path.
        """
        return Path(
            np.array(self.times),
            np.stack(self.saddles),
            np.stack(self.accumulated),
            tuple(self.entering),
            tuple(self.leaving),
        )


def follow_saddles(data: Regression, upper: Float[np.ndarray, " dim"], lower: Float[np.ndarray, " dim"]) -> Path:
    r"""Follow the successive saddles.

    Each coordinate accumulates minus its gradient, :math:`S_i' = -g_i`, while the coefficients rest on a saddle. When one
    reaches a bound, they jump to the minimiser of the loss with :math:`\beta_i \ge 0` where :math:`S_i` is at its upper bound,
    :math:`\le 0` at the lower, and 0 between. A coordinate that returns to 0 stays at its bound and leaves it as soon as its
    gradient turns.

    Source: Pesme and Flammarion 2023 (arXiv 2304.00488), their successive saddles, with bounds 1; bounds of each coordinate
    for a general start, and the choice among several minimisers, are derived here.

    Args:
        data: the regression.
        upper: positive bounds; infinite for what can't grow.
        lower: the same on the other side, positive numbers.

    Returns:
        The path.

    Raises:
        LearnmechError: if there are more than 100 000 jumps.
    """
    beta = corner = position = sides = np.zeros(data.dim)
    almost_upper, almost_lower = upper * (1 - TIE), -lower * (1 - TIE)
    clock = 0.0
    recorder = Recorder(data.dim)
    for _ in range(MOST):
        drive = data.drive(beta)
        drive[(np.abs(drive) <= data.noise) | (beta != 0)] = 0
        drive[drive * sides > 0] = 0
        moving = drive.nonzero()[0]
        speed = np.abs(drive[moving])
        ways = np.where(drive[moving] > 0, upper[moving] - position[moving], lower[moving] + position[moving])
        duration = float((ways / speed).min(initial=np.inf))
        if not math.isfinite(duration):
            return recorder.path()
        clock += duration
        position = position + duration * drive
        sides = np.where(position >= almost_upper, 1.0, np.where(position <= almost_lower, -1.0, 0.0))
        position = np.where(sides > 0, upper, np.where(sides < 0, -lower, position))
        corner = minimise_with_signs(data, sides, corner)
        beta = spread(data, sides, corner)
        recorder.jump(clock, beta, position / np.where(position > 0, upper, lower))
    raise LearnmechError(f"the path has more than {MOST} jumps; check that the inputs are on comparable scales.")


def minimise_with_signs(
    data: Regression, sides: Float[np.ndarray, " dim"], start: Float[np.ndarray, " dim"]
) -> Float[np.ndarray, " dim"]:
    r"""Minimise the loss with a sign for each coordinate.

    Lawson and Hanson's active-set method for nonnegative least squares on columns with flipped signs, started from the
    minimiser before, with a least-squares fit on each support: exact within rounding.

    Args:
        data: the regression.
        sides: 1 for coefficients of at least 0, -1 for at most 0, 0 for 0.
        start: the minimiser for other sides, with the same signs where it is not 0; or zeros.

    Returns:
        A minimiser; of several one whose columns are independent.

    Raises:
        LearnmechError: if the method does not end.
    """
    allowed = np.flatnonzero(sides)
    signs = sides[allowed]
    columns = data.matrix[:, allowed] * signs
    noise = data.noise[allowed]
    values = np.abs(start[allowed])
    support = values > 0
    refused = np.zeros(len(allowed), dtype=bool)
    for _ in range(MOST):
        pull = columns.T @ (data.target - columns @ values)
        pull[support | refused | (pull <= noise)] = 0
        chosen = int(pull.argmax()) if len(pull) else 0
        if not len(pull) or pull[chosen] == 0:
            beta = np.zeros(data.dim)
            beta[allowed] = signs * values
            return beta
        support[chosen] = True
        fit = _fit(columns, data.target, support)
        if fit[chosen] <= 0:  # by rounding, or because its column depends on the others
            support[chosen], refused[chosen] = False, True
            continue
        refused[:] = False
        while (fit[support] <= 0).any():
            blocked = np.flatnonzero(support & (fit <= 0))
            steps = values[blocked] / (values[blocked] - fit[blocked])
            values = np.where(support, values + steps.min() * (fit - values), 0.0)
            values[blocked[steps <= steps.min() * (1 + 1e-14)]] = 0.0
            support &= values > 0
            fit = _fit(columns, data.target, support)
        values = fit
    raise LearnmechError("sign-constrained least squares did not end; the inputs are too close to dependent.")


def _fit(
    columns: Float[np.ndarray, "rank allowed"], target: Float[np.ndarray, " rank"], support: np.ndarray
) -> Float[np.ndarray, " allowed"]:
    fit = np.zeros(columns.shape[1])
    chosen = columns[:, support]
    # as exact as lstsq, which costs several times as much for a few columns
    _, values, failed = dgels(chosen, target) if chosen.shape[0] >= chosen.shape[1] else (None, target, 1)
    fit[support] = np.linalg.lstsq(chosen, target, rcond=None)[0] if failed else values[: chosen.shape[1]]
    return fit


def spread(
    data: Regression, sides: Float[np.ndarray, " dim"], beta: Float[np.ndarray, " dim"]
) -> Float[np.ndarray, " dim"]:
    r"""Choose among several minimisers the one that a flow from a small start goes to.

    All have the same weighted l1 norm, since :math:`S = A^T\nu` at the bounds. The flow has :math:`\log|\beta_i| = \pm 2(A^T\nu)_i`
    + a constant, so it takes the one with the largest entropy :math:`-\sum|\beta_i|\log|\beta_i|`: of duplicated columns each
    gets the same share. Derived here.

    Args:
        data: the regression.
        sides: signs that were allowed.
        beta: any minimiser.

    Returns:
        The minimiser of largest entropy; ``beta`` if there is only one.
    """
    flat = (sides != 0) & ((beta != 0) | (np.abs(data.drive(beta)) <= data.noise))
    if flat.sum() == (beta != 0).sum():
        return beta
    _, strengths, rows = np.linalg.svd(data.matrix[:, flat] * sides[flat], full_matrices=False)
    rows = rows[strengths > 1e-10 * strengths[0]] if len(strengths) else rows
    total = float(np.abs(beta).sum())
    if len(rows) == flat.sum() or total == 0:
        return beta
    goal = rows @ (np.abs(beta[flat]) / total)
    dual = rows.sum(axis=1) * -np.log(flat.sum())
    values = np.exp(dual @ rows)
    for _ in range(200):
        miss = rows @ values - goal
        if np.abs(miss).max() <= 1e-15:
            break
        step = np.linalg.lstsq((rows * values) @ rows.T, miss, rcond=None)[0]
        before, size = values.sum() - dual @ goal, 1.0
        while size > 1e-10:
            trial = np.exp(np.minimum((dual - size * step) @ rows, 50.0))
            if trial.sum() - (dual - size * step) @ goal <= before + 1e-15:
                break
            size /= 2
        dual = dual - size * step
        values = np.exp(np.minimum(dual @ rows, 50.0))
    values[values <= 1e-12 * values.max()] = 0
    chosen = np.zeros(data.dim)
    chosen[flat] = sides[flat] * values * total
    return chosen
