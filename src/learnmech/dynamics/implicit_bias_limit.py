"""Which of the many interpolating solutions a linear neuron finds: in closed form, and as the minimum of a potential."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.implicit_bias_potential import bias_potential
from learnmech.dynamics.neuron_integrator import neuron_flow
from learnmech.dynamics.neuron_problem import NeuronProblem, make_problem, require_data, require_vector
from learnmech.errors import InputError

_SETTLED = 1e-3
_SPANS = 12


@dataclass(frozen=True)
class ImplicitBias:
    r"""Where the gradient flow of a linear neuron ends.

    Attributes:
        beta: the product a w at the end, shape (dim,).
        a: read-out weight at the end.
        w: input weights at the end, shape (dim,).
        delta: balance :math:`\eta_w a^2 - \eta_a|w|^2`.
        sigma: sign of a at the start times that at the end: -1 if a passed through 0, 0 if it started at 0.
        linear: slope of the linear term of the potential, shape (dim,): :math:`\sigma\psi\hat\beta_0`.
        regression: least-squares solution of least norm, shape (dim,).
        lazy_limit: the end for delta to infinity at this product at the start: linear regression from there.
        direction_limit: the end for delta to minus infinity at this product at the start, which keeps the direction of the
            start up to what the data demand; NaN where the inputs do not see the start or it is at right angles to the fit.
        rank: of the inputs; below the number of inputs there is something to be biased about.
        residual: half the sum of squared errors at the end; above rounding no interpolation exists, and the end is the
            least-squares solution that the same potential selects.
        rate: :math:`\sqrt{\eta_a\eta_w}`.
    """

    beta: Float[np.ndarray, " dim"]
    a: float
    w: Float[np.ndarray, " dim"]
    delta: float
    sigma: int
    linear: Float[np.ndarray, " dim"]
    regression: Float[np.ndarray, " dim"]
    lazy_limit: Float[np.ndarray, " dim"]
    direction_limit: Float[np.ndarray, " dim"]
    rank: int
    residual: float
    rate: float

    def potential(self, beta: Any) -> float:
        r"""Give the potential that the end minimises among all solutions: :math:`\Psi(|\beta|) - \sigma\psi\,\hat\beta_0\cdot\beta`.

        Args:
            beta: a product, shape (dim,).

        Returns:
            The value; only differences between solutions of the regression mean something.

        Raises:
            InputError: if beta has another length.
        """
        point = require_vector("beta", beta)
        if len(point) != len(self.beta):
            raise InputError(f"beta must have {len(self.beta)} entries, but has {len(point)}.")
        return float(bias_potential(np.linalg.norm(point), self.delta, self.rate, self.rate) - self.linear @ point)


def implicit_bias(
    X: Any,
    y: Any,
    a0: Any,
    w0: Any,
    *,
    eta_a: float = 1.0,
    eta_w: float = 1.0,
    end_sign: int | None = None,
) -> ImplicitBias:
    r"""Find where the gradient flow of :math:`f(x) = a\,w\cdot x` ends, for any inputs and any balance.

    .. math::
        \beta_\infty = \arg\min_{X\beta = y}\; \Psi(|\beta|) - \sigma\psi\,\hat\beta_0\cdot\beta, \quad
        \Psi(s) = \frac{(k - 2\delta)\sqrt{k + \delta}}{3\sqrt{\eta_a\eta_w}}, \quad k = \sqrt{\delta^2 + 4\eta_a\eta_w s^2}, \quad
        \psi = \sqrt{k(|\beta_0|) - \delta},

    which has the solution, with N the projection on the null space of X, :math:`\beta_r` the least-squares solution of least norm
    and weights in reduced units :math:`A = (\eta_w/\eta_a)^{1/4}a,\; W = (\eta_a/\eta_w)^{1/4}w`

    .. math::
        \beta_\infty = \beta_r + A_\infty N W_0, \qquad A_\infty = \pm\sqrt{\kappa + \sqrt{\kappa^2 + |\beta_r|^2}}, \qquad
        \kappa = \tfrac12\Big(|NW_0|^2 + \tfrac{\delta}{\sqrt{\eta_a\eta_w}}\Big).

    Source of the minimum: Kunin et al. 2024 (arXiv 2406.06158), Theorem 3.1, for rates of 1 and a product that never vanishes. The
    factor for general rates, the sign :math:`\sigma` for a that passes through 0, and the closed form for a null space of any
    dimension are derived here: w moves in the row space of X only, and :math:`\nabla\Psi = \mathrm{sign}(a)\sqrt{2\eta_a}\,w`.

    **How to read it.** Upstream the end is that of linear regression from the start (``lazy_limit``): parts of the start that the data
    do not see stay. Downstream their ratio to the rest is kept, so that the direction of the start stays as far as the data
    allow (``direction_limit``). Noisy targets without an interpolation give the least-squares solution in place of it.

    Args:
        X: inputs (samples, dim), of any rank and shape.
        y: targets (samples,).
        a0: read-out weight at the start.
        w0: input weights at the start, shape (dim,).
        eta_a: learning rate of a, positive.
        eta_w: learning rate of w, positive.
        end_sign: sign of a at the end, 1 or -1, if known. With delta at least 0 it is that of ``a0``. With a negative delta it is found
            by integrating the flow roughly.

    Returns:
        The end, the potential, and the limits for extreme balances.

    Raises:
        InputError: for wrong arguments; if the flow stays at a saddle, or did not come near its end and the sign is unknown.

    Example:
        One sample sees the first input only. A balanced start with a weight on the second keeps some of it.

        >>> end = implicit_bias([[1.0, 0.0]], [2.0], 1.0, [0.0, 1.0])
        >>> end.beta.round(6).tolist(), round(end.a, 6)
        ([2.0, 1.600485], 1.600485)
        >>> end.lazy_limit.tolist()
        [2.0, 1.0]
    """
    inputs, targets = require_data(X, y)
    problem = make_problem(a0, w0, inputs.T @ targets, eta_a, eta_w)
    if inputs.shape[1] != len(problem.w0):
        raise InputError(
            f"w0 must have one entry for each of the {inputs.shape[1]} columns of X, but has {len(problem.w0)}."
        )
    if end_sign is not None and (isinstance(end_sign, bool) or end_sign not in (-1, 1)):
        raise InputError(f"end_sign must be 1, -1 or None, but {end_sign!r} came.")
    rows, regression = _decompose(inputs, targets)
    unseen = problem.reduced_w - rows.T @ (rows @ problem.reduced_w)
    if np.linalg.norm(unseen) <= 1e-14 * np.linalg.norm(problem.reduced_w):
        unseen = np.zeros_like(unseen)
    kappa = (float(unseen @ unseen) + problem.delta_prime) / 2
    size = _end_size(kappa, float(np.linalg.norm(regression)))
    if size == 0:
        raise InputError(
            "the flow has no end of its own here: X^T y is 0 and a falls to 0, so that beta ends at 0 with w left undetermined by the "
            "conserved quantities. Integrate it with neuron_flow."
        )
    sign = end_sign or _find_sign(problem, inputs, targets, regression, size * unseen)
    beta, end = regression + sign * size * unseen, sign * size
    factor = (problem.eta_w / problem.eta_a) ** 0.25
    return ImplicitBias(
        beta=beta,
        a=end / factor,
        w=factor * (unseen + regression / end),
        delta=problem.delta,
        sigma=int(np.sign(problem.a0)) * sign,
        linear=sign * math.sqrt(2 * problem.eta_a) * problem.w0,
        regression=regression,
        lazy_limit=regression + problem.a0 * (problem.w0 - rows.T @ (rows @ problem.w0)),
        direction_limit=_keep_direction(problem, inputs, rows, regression),
        rank=len(rows),
        residual=float(np.square(inputs @ beta - targets).sum() / 2),
        rate=problem.rate,
    )


def _decompose(
    inputs: Float[np.ndarray, "samples dim"], targets: Float[np.ndarray, " samples"]
) -> tuple[Float[np.ndarray, "rank dim"], Float[np.ndarray, " dim"]]:
    """Give an orthonormal basis of the row space, and the least-squares solution of least norm."""
    left, values, right = np.linalg.svd(inputs, full_matrices=False)
    kept = values > max(inputs.shape) * np.finfo(np.float64).eps * values.max(initial=0.0)
    rows = right[kept]
    return rows, rows.T @ ((left[:, kept].T @ targets) / values[kept])


def _end_size(kappa: float, seen: float) -> float:
    """Square root of kappa + sqrt(kappa^2 + seen^2), without cancellation for a negative kappa."""
    root = math.hypot(kappa, seen)
    square = kappa + root if kappa >= 0 else seen * (seen / (root - kappa))
    return math.sqrt(square)


def _find_sign(
    problem: NeuronProblem,
    inputs: Float[np.ndarray, "samples dim"],
    targets: Float[np.ndarray, " samples"],
    regression: Float[np.ndarray, " dim"],
    unseen: Float[np.ndarray, " dim"],
) -> int:
    if problem.delta_prime >= 0 and problem.a0 != 0:
        return int(np.sign(problem.a0))
    # a may cross 0. Integrate until the weights are near one of the two ends, ever longer.
    factor = (problem.eta_w / problem.eta_a) ** 0.25
    size = math.sqrt(float(np.linalg.norm(regression)) + float(np.abs(problem.reduced_a)) + 1e-300)
    time = 1.0 / (problem.rate * max(float(np.linalg.norm(inputs, 2)) ** 2, 1e-100) * max(size, 1e-30) ** 2)
    scale = np.sqrt(regression @ regression + unseen @ unseen)
    for _ in range(_SPANS):
        run = neuron_flow(
            inputs, targets, problem.a0, problem.w0, [time], eta_a=problem.eta_a, eta_w=problem.eta_w, tolerance=1e-9
        )
        a, beta = factor * float(run["a"][0]), run["beta"].values[0]
        sign = 1 if a > 0 else -1
        if a != 0 and np.linalg.norm(beta - regression - sign * unseen) <= _SETTLED * scale:
            return sign
        time *= 8.0
    raise InputError(
        f"the flow did not come near either of its two ends by the time {time / 8:g}: it starts at or very near a saddle (the product of "
        "w0 with X^T y and a0 are 0, or balanced against each other). Move the start, or give end_sign."
    )


def _keep_direction(
    problem: NeuronProblem,
    inputs: Float[np.ndarray, "samples dim"],
    rows: Float[np.ndarray, "rank dim"],
    regression: Float[np.ndarray, " dim"],
) -> Float[np.ndarray, " dim"]:
    r"""The limit delta to minus infinity at a fixed product: W_0 = beta_0 / A_0 with A_0 to 0.

    kappa tends to (|N W_0|^2 - |W_0|^2)/2 = -|R W_0|^2 / 2, so that A tends to |beta_r| / |R W_0| and the part in the null space to
    |beta_r| N beta_0 / |R beta_0|. First A alone settles, with the sign of (X beta_0).y; the loss is then below that of A = 0,
    and the sign stays. Derived here.

    Args:
        problem: the start.
        inputs: X.
        rows: basis of the row space.
        regression: least-squares solution of least norm.

    Returns:
        The limit, or NaN.
    """
    beta0 = problem.a0 * problem.w0
    seen = rows.T @ (rows @ beta0)
    size = float(np.linalg.norm(seen))
    toward = float(np.sign((inputs @ seen) @ (inputs @ regression)))
    if size <= 1e-14 * float(np.linalg.norm(beta0)) or toward == 0:
        return np.full_like(beta0, np.nan)
    return np.asarray(regression + toward * float(np.linalg.norm(regression)) / size * (beta0 - seen))
