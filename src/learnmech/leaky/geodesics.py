"""Geodesics between two representations: the least action of a leaky ResNet, as a boundary-value problem."""

import math
import warnings
from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from learnmech.errors import InputError, LearnmechWarning
from learnmech.leaky.geodesic_descent import descend
from learnmech.leaky.geodesic_passes import LeakyPasses, Point
from learnmech.leaky.geodesic_polish import Polish, Polished
from learnmech.leaky.geodesic_reach import require_reachable
from learnmech.leaky.geodesic_result import Geodesic
from learnmech.leaky.geodesic_start import following_weights, sagging_path, straight_path
from learnmech.leaky.representations import (
    require_effective_depth,
    require_like,
    require_representations,
    require_steps,
)

_NEAR, _DESCENT_END, _LARGEST = 0.03, 1e-4, 40_000_000


def solve_geodesic(
    A0: Shaped[Tensor, "width samples"],
    A1: Shaped[Tensor, "width samples"],
    effective_depth: float,
    layers: int,
    *,
    steps: Tensor | None = None,
    bias: bool = True,
    tolerance: float = 1e-9,
    max_iterations: int = 200,
    initial: Shaped[Tensor, "nodes width samples"] | None = None,
    on_progress: Callable[[int, float, float], None] | None = None,
) -> Geodesic:
    r"""Find the path of least action between two representations.

    .. math::
        \min_W \frac{1}{2\tilde L}\sum_l \rho_l \lVert W_l\rVert_F^2 \quad\text{such that}\quad A_L = A_1, \qquad
        A_l = (1 - \rho_l\tilde L) A_{l-1} + \rho_l W_l\,\sigma(A_{l-1}).

    The action is that of Jacot and Kaiser (arXiv 2405.17573) for the discretised flow; fixed ends instead of a loss, and how
    they are met, are ours. At the minimum :math:`W_l = \tilde L\,B_l\,\sigma(A_{l-1})^T`, A and B follow Hamilton's equations
    by the symplectic Euler method, and the momentum :math:`B_L` is the multiplier of the end. The energy is constant up to
    O(1/layers).

    **Method.** Sequential quadratic programming in the weights with hand-written first and second derivatives: quadratic
    convergence, ends met to rounding. Entries that a path drags along the kink of the ReLU are *held* at 0 as constraints;
    their multiplier takes the place of the slope 0 that autograd would use, so that all conditions hold to rounding there,
    too. If the search starts far away or stalls, an augmented Lagrangian with L-BFGS brings it near first.

    **How to read it.** The action is a local minimum. There are often several: with mixed signs many, between large
    non-negative ends one that stays up and one that sags towards 0 (:func:`learnmech.leaky.exact.one_sample`). Without
    ``initial`` the search runs from a straight and from a sagging guess, and the least action is taken. Cost and memory grow
    with (width x samples + held entries) squared times the number of weights: more than 4e7 numbers are refused.

    Args:
        A0: representation at the input, columns are samples.
        A1: representation at the output, of the same shape.
        effective_depth: the leak, positive.
        layers: number of layers, above the effective depth.
        steps: step sizes (layers,) that add up to 1; equal ones by default. Step times effective depth must be below 1.
        bias: whether the layers have biases; their squares count in the action.
        tolerance: the largest stationarity at which the path counts as converged, relative to the weights.
        max_iterations: at most so many Newton steps in each search.
        initial: a path (layers + 1, width, samples) near which to search, for example that of a geodesic for another
            effective depth.
        on_progress: called with the number of steps so far, the action, and the distance from A1 relative to the ends.

    Returns:
        The geodesic. If ``converged`` is False, which also raises a warning, its ``end_error`` and ``stationarity`` say what is
        wrong: with samples beyond width + 1 few layers may not reach every A1.

    Raises:
        InputError: for wrong arguments, steps too long for the effective depth, or an end that no weights reach: equal
            columns that should part, or, without bias, columns without positive entries, which only leak, or multiples of
            one another that should end as other multiples.

    Example:
        >>> import torch
        >>> from learnmech.leaky import exact
        >>> path = solve_geodesic(torch.tensor([[0.5]]), torch.tensor([[3.0]]), 4.0, 20, bias=False)
        >>> round(path.effective_dimension, 10), round(exact.scalar_discrete(0.5, 3.0, 4.0, 20).effective_dimension, 10)
        (0.780397415, 0.780397415)
    """
    first = require_representations("A0", A0).detach()
    last = require_like("A1", A1, first).detach()
    if first.ndim != 2:
        raise InputError(f"A0 must be one matrix (width, samples), but has the shape {tuple(first.shape)}.")
    leak = require_effective_depth(effective_depth)
    sizes = _step_sizes(layers, steps, leak)
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise InputError(f"tolerance must be positive, but {tolerance!r} came.")
    if isinstance(max_iterations, bool) or not isinstance(max_iterations, int) or max_iterations < 1:
        raise InputError(f"max_iterations must be a whole number of at least 1, but {max_iterations!r} came.")
    passes = LeakyPasses(first.cpu().numpy(), sizes, leak, bias=bias)
    goal = last.cpu().numpy()
    require_reachable(passes, goal)
    _require_small(passes)
    search = _Search(passes, goal, tolerance, max_iterations, on_progress)
    guesses = _guesses(passes, goal, initial)
    with np.errstate(over="ignore", invalid="ignore"):  # steps that go too far are refused
        found = [search.run(guess) for guess in guesses]
    best = min(found, key=lambda one: (not search.good(one), one.at.action if search.good(one) else one.end_error))
    result = Geodesic.from_arrays(
        path=best.at.path,
        momenta=best.momenta,
        weights=best.at.weights,
        steps=sizes,
        effective_depth=leak,
        bias=bias,
        kinks=int(best.held.sum()),
        end_error=best.end_error,
        converged=search.good(best),
        iterations=search.iterations,
        device=first.device,
    )
    if not result.converged:
        warnings.warn(
            f"the geodesic did not converge: it ends {result.end_error:.1e} from A1 (relative to the ends), and its "
            f"stationarity is {best.residual:.1e} where {tolerance:.1e} was asked for. Give more layers if the end is not "
            "reached, more max_iterations, or an initial path; or take the result as it is.",
            LearnmechWarning,
            stacklevel=2,
        )
    return result


def _step_sizes(layers: int, steps: Tensor | None, leak: float) -> np.ndarray:
    if isinstance(layers, bool) or not isinstance(layers, int) or layers < 1:
        raise InputError(f"layers must be a whole number of at least 1, but {layers!r} came.")
    sizes: np.ndarray = np.full(layers, 1 / layers) if steps is None else require_steps(steps, layers).cpu().numpy()
    if sizes.max() * leak >= 1:
        raise InputError(
            f"step size times effective depth must be below 1, but reaches {sizes.max() * leak:.4g}; with equal steps an effective "
            f"depth of {leak:g} takes at least {math.floor(leak) + 1} layers."
        )
    return sizes


def _require_small(passes: LeakyPasses) -> None:
    entries = passes.width * passes.samples * passes.layers * passes.width * passes.rows
    if entries > _LARGEST:
        raise InputError(
            f"the search takes a matrix of {entries:.1e} numbers (width x samples times the number of weights), and more than "
            f"{_LARGEST:.0e} are not meant: take fewer samples, layers or neurons."
        )


def _guesses(passes: LeakyPasses, goal: np.ndarray, initial: Tensor | None) -> list[np.ndarray]:
    if initial is not None:
        path = require_representations("initial", initial).detach().cpu().numpy()
        expected = (passes.layers + 1, passes.width, passes.samples)
        if path.shape != expected:
            raise InputError(f"initial must be a path of shape {expected}, but has the shape {path.shape}.")
        return [path]
    depths = np.concatenate([[0.0], np.cumsum(passes.steps)])
    guesses = [straight_path(passes.start, goal, depths)]
    if passes.layers > 1:
        guesses.append(sagging_path(passes.start, goal, depths, passes.leak))
    return guesses


class _Search:
    """Runs descent and polish from guesses of the path."""

    def __init__(
        self,
        passes: LeakyPasses,
        goal: np.ndarray,
        tolerance: float,
        max_iterations: int,
        on_progress: Callable[[int, float, float], None] | None,
    ) -> None:
        self._passes, self._goal = passes, goal
        self._tolerance, self._most, self._on_progress = tolerance, max_iterations, on_progress
        self.iterations = 0

    def good(self, one: Polished) -> bool:
        """Say whether a path counts as converged.

        Args:
            one: the path.

        Returns:
            Whether ends and stationarity are met.
        """
        return one.end_error <= 1e-9 and one.residual <= self._tolerance

    def run(self, guess: np.ndarray) -> Polished:
        """Search from a guess of the path.

        Args:
            guess: representations at all nodes.

        Returns:
            The path reached.
        """
        begin = self._passes.point(following_weights(self._passes, guess))
        first = self._polish(begin)
        if self.good(first):
            return first
        descended = descend(
            self._passes,
            (first.at if first.end_error <= _NEAR else begin).scaled,
            self._goal,
            tolerance=_DESCENT_END,
            iterations=5 * self._most,
            report=self._report,
        )
        second = self._polish(descended)
        return second if self.good(second) or second.end_error < first.end_error else first

    def _polish(self, at: Point) -> Polished:
        polish = Polish(
            self._passes, self._goal, tolerance=self._tolerance / 10, iterations=self._most, report=self._report
        )
        return polish.run(at)

    def _report(self, action: float, error: float) -> None:
        self.iterations += 1
        if self._on_progress is not None:
            self._on_progress(self.iterations, action, error)
