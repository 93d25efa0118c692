"""Sequential quadratic programming for geodesics: exact ends, Newton's convergence, and kinks that hold entries at zero."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import qr, solve_triangular

from learnmech.leaky.geodesic_passes import LeakyPasses, Point

Array = np.ndarray
_RANK, _CONJUGATE = 1e-11, 300
_DAMPINGS, _DAMPING_STEP, _LARGEST = 30, 5.0, 40_000_000


@dataclass(frozen=True)
class Polished:
    """A path whose ends are met.

    Attributes:
        at: the path.
        momenta: momenta B at every node.
        held: entries of inner nodes that are held at the kink of the activation.
        residual: weights that no momenta explain, relative to all weights.
        end_error: distance from the goal, relative to its size.
        iterations: Newton steps taken.
    """

    at: Point
    momenta: Float[Array, "nodes width samples"]
    held: Bool[Array, "layers width samples"]
    residual: float
    end_error: float
    iterations: int


class Polish:
    r"""Minimises :math:`\tfrac12\lVert U\rVert^2` subject to :math:`A_L = A_1`.

    At the minimum the scaled weights are a combination of the derivatives of the ends, :math:`U = J^TM`, with M the momentum
    at the end. A step solves the quadratic model on the null space of J by conjugate gradients, then corrects the ends.

    **Kinks.** Where the descent is blocked since an entry of A changes sign, this entry is held at 0 as a further constraint.
    Its multiplier is what the backward pass lacks there; it must lie between those of slopes 0 and 1 with the kink pointing
    up, otherwise the entry is released to the side that lowers the action.

    Args:
        passes: the net.
        goal: representation A_1 that the path must end at.
        tolerance: residual at which to stop.
        iterations: at most so many Newton steps.
        report: called with action and relative distance from the goal after each step.
    """

    def __init__(
        self,
        passes: LeakyPasses,
        goal: Float[Array, "width samples"],
        *,
        tolerance: float,
        iterations: int,
        report: Callable[[float, float], None],
    ) -> None:
        self._passes, self._goal = passes, goal
        self._tolerance, self._iterations, self._report = tolerance, iterations, report
        self._size = passes.size(goal)
        self._held = np.zeros((passes.layers, passes.width, passes.samples), dtype=bool)
        self._released: dict[tuple[int, int, int], int] = {}
        self._side: dict[tuple[int, int, int], bool] = {}
        self._damping = 1e-2

    def run(self, at: Point) -> Polished:
        """Polish a path.

        Args:
            at: where to begin; its end should be near the goal.

        Returns:
            The path reached.
        """
        best: Polished | None = None
        stalled = 0
        for iteration in range(self._iterations + 1):
            self._linearise(at)
            residual, error = self._residual(at), self._error(at)
            state = Polished(at, self._momenta, self._held.copy(), residual, error, iteration)
            if best is None or _badness(state) < _badness(best) or error < 0.9 * best.end_error:
                best, stalled = state, 0
            else:
                stalled += 1
            if iteration:
                self._report(at.action, error)
            if error <= 1e-12 and residual <= self._tolerance and not self._release(at):
                return state
            if iteration == self._iterations or stalled > 25:
                break
            moved = self._step(at)
            if moved is None:
                if not self._release(at):
                    break
            else:
                at = moved
        assert best is not None
        return best

    def _error(self, at: Point) -> float:
        gap = float(np.linalg.norm(at.path[-1] - self._goal))
        held = at.path[:-1][self._held]
        return float(np.hypot(gap, np.linalg.norm(held))) / self._size

    def _residual(self, at: Point) -> float:
        size = float(np.linalg.norm(at.scaled))
        return float(np.linalg.norm(self._slope)) / size if size else 0.0

    def _linearise(self, at: Point) -> None:
        passes = self._passes
        self._up = at.up & ~self._held
        for entry, side in self._side.items():
            self._up[entry] = side
        self._side = {}
        nodes, neurons, samples = np.nonzero(self._held[::-1])
        end = np.indices(self._goal.shape).reshape(2, -1)
        self._entries = (
            np.concatenate([np.full(end.shape[1], passes.layers), passes.layers - 1 - nodes]),
            np.concatenate([end[0], neurons]),
            np.concatenate([end[1], samples]),
        )
        rows = passes.jacobian(at, self._up, self._entries).reshape(len(self._entries[0]), -1)
        lengths = np.linalg.norm(rows, axis=1)
        self._lengths = np.where(lengths > 0, lengths, 1.0)
        basis, triangle, order = qr(
            (rows / self._lengths[:, None]).T, mode="economic", pivoting=True, check_finite=False
        )
        diagonal = np.abs(np.diag(triangle))
        rank = int((diagonal > _RANK * diagonal[0]).sum()) if diagonal[0] > 0 else 0
        self._basis, self._triangle, self._order = basis[:, :rank], triangle[:rank], order
        flat = at.scaled.ravel()
        self._slope = self._tangential(flat)
        multipliers = np.zeros(len(self._entries[0]))
        if rank:
            multipliers[order[:rank]] = solve_triangular(triangle[:rank, :rank], self._basis.T @ flat)
        pulls = np.zeros_like(at.path)
        pulls[self._entries] = multipliers / self._lengths
        self._pulls, self._momenta = pulls, passes.momenta(at, self._up, pulls)

    def _tangential(self, flat: Array) -> Array:
        once = flat - self._basis @ (self._basis.T @ flat)
        twice: Array = once - self._basis @ (self._basis.T @ once)
        return twice

    def _gaps(self, at: Point) -> Array:
        wanted = np.zeros_like(at.path)
        wanted[-1] = self._goal
        gaps: Array = (wanted - at.path)[self._entries] / self._lengths
        return gaps

    def _correction(self, at: Point) -> Array:
        """Give the least change of scaled weights that meets the independent constraints to first order."""
        rank = len(self._triangle)
        if not rank:
            return np.zeros(at.scaled.size)
        gaps, square = self._gaps(at)[self._order[:rank]], self._triangle[:, :rank]
        change: Array = self._basis @ solve_triangular(square, gaps, trans="T")
        return change

    def _bend(self, at: Point, flat: Array) -> Array:
        """Apply the second derivative of the Lagrangian."""
        turned = self._passes.curvature(at, self._up, self._momenta, flat.reshape(at.scaled.shape))
        bent: Array = flat - turned.ravel()
        return bent

    def _newton(self, at: Point, normal: Array) -> Array:
        """Minimise the quadratic model on the null space by conjugate gradients, stopping at negative curvature."""
        left = self._tangential(self._slope + (self._bend(at, normal) if normal.any() else 0.0))
        step, direction = np.zeros_like(left), -left
        size = first = float(left @ left)
        goal = first * min(0.01, max(self._residual(at), 1e-14)) ** 2
        for _ in range(_CONJUGATE):
            if size <= goal or size == 0:
                break
            bent = self._tangential(self._bend(at, direction))
            bend = float(direction @ bent)
            if bend <= 1e-12 * float(direction @ direction):
                return direction if not step.any() else step
            length = size / bend
            step = step + length * direction
            left = left + length * bent
            before, size = size, float(left @ left)
            direction = -left + size / before * direction
        return step

    def _step(self, at: Point) -> Point | None:
        normal = self._correction(at)
        error = self._error(at)
        if error > 1e-3:  # first the ends
            return self._restore(at)
        step = self._newton(at, normal) + normal
        flat, share = at.scaled.ravel(), 1.0
        refused: Point | None = None
        while share > 1e-6:
            trial = self._corrected(flat + share * step, at)
            limit = max(error, 1e-13)
            if self._error(trial) <= 2 * limit:
                gain = at.action - trial.action
                normal_gain = abs(float(flat @ normal))
                promised = share * (1 - share / 2) * max(-float(self._slope @ step), 0.0)
                if gain >= 1e-4 * promised - 2 * normal_gain - 1e-14 * at.action:
                    if refused is not None and share < 0.3:
                        self._hold(trial, refused)
                    return trial
            refused = trial
            share /= 2
        if refused is not None and self._hold(at, self._corrected(flat + step, at)):
            return at
        return self._restore(at) if error > 1e-12 else None

    def _corrected(self, flat: Array, at: Point) -> Point:
        trial = self._passes.point(flat.reshape(at.scaled.shape))
        error = self._error(trial)
        for _ in range(8):
            if error <= 1e-14:
                break
            again = self._passes.point((trial.scaled.ravel() + self._correction(trial)).reshape(at.scaled.shape))
            again_error = self._error(again)
            if not again_error < error / 1.5:
                break
            trial, error = again, again_error
        return trial

    def _restore(self, at: Point) -> Point | None:
        """Come nearer to the ends by a step of the Levenberg-Marquardt method."""
        if not len(self._triangle):
            return None
        error, gaps = self._error(at), self._gaps(at)[self._order]
        left, singular, right = np.linalg.svd(self._triangle, full_matrices=False)
        along = right @ gaps
        for _ in range(_DAMPINGS):
            change = self._basis @ (left @ (singular / (singular**2 + (self._damping * singular[0]) ** 2) * along))
            trial = self._passes.point((at.scaled.ravel() + change).reshape(at.scaled.shape))
            if self._error(trial) < 0.999 * error:
                self._damping = max(self._damping / _DAMPING_STEP, 1e-8)
                return trial
            self._damping *= _DAMPING_STEP
        self._damping = 1e-2
        return None

    def _hold(self, one: Point, other: Point) -> bool:
        """Hold the entries of inner nodes that have different signs at two paths."""
        crossing = (one.up != other.up) & ~self._held
        crossing[0] = False
        for node, neuron, sample in np.argwhere(crossing).tolist():
            if self._released.get((node, neuron, sample), 0) > 3:
                crossing[node, neuron, sample] = False
        if not crossing.any() or (crossing.sum() + self._held.sum()) * one.scaled.size > _LARGEST:
            return False
        self._held |= crossing
        return True

    def _release(self, at: Point) -> bool:
        """Release the held entry whose multiplier is farthest from what a kink allows; say whether there was one."""
        if not self._held.any():
            return False
        after = at.weights[:, :, : self._passes.width].transpose(0, 2, 1) @ self._momenta[1:]
        full = self._passes.steps[:, None, None] * after
        pull = self._pulls[:-1]
        # Going down by d lowers the action by d pull, going up by d (full - pull).
        down = np.where(self._held, pull, -np.inf)
        upward = np.where(self._held, full - pull, -np.inf)
        scale = float(np.abs(self._momenta).max())
        worst = np.maximum(down, upward)
        entry = tuple(int(k) for k in np.unravel_index(int(worst.argmax()), worst.shape))
        if worst[entry] <= 1e-9 * scale:
            return False
        where = (entry[0], entry[1], entry[2])
        self._held[where] = False
        self._released[where] = self._released.get(where, 0) + 1
        self._side[where] = bool(upward[where] > down[where])
        return True


def _badness(state: Polished) -> float:
    return max(state.residual, 1e3 * state.end_error)
