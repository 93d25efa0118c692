"""The exact solution of a single linear neuron on whitened inputs, for any balance, free of overflow."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.neuron_problem import NeuronProblem

_ROUNDING = 8 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class NeuronModes:
    r"""The linear system behind the neuron, in reduced units (unit rates, whitened inputs).

    :math:`(q, p)' = \begin{pmatrix}\delta'/2 & \beta_*^T\\ \beta_* & -\delta' I/2\end{pmatrix}(q, p)` has the rates
    :math:`\pm k/2` in the plane of q and of p along the target, and :math:`-\delta'/2` across.

    Attributes:
        q_grow: :math:`Q_+`, the growing part of q.
        q_fall: :math:`Q_-`.
        p_grow: :math:`P_+`, the growing part of p along the target.
        p_fall: :math:`P_-`.
        across: the part of W_0 across the target, shape (dim,).
        along: unit vector of the target; zeros if the target is 0.
        delta: :math:`\delta'`.
        k: :math:`\sqrt{\delta'^2 + 4|\beta_*|^2}`.
        k_minus: :math:`k - \delta'`, without cancellation.
        k_plus: :math:`k + \delta'`, without cancellation.
    """

    q_grow: float
    q_fall: float
    p_grow: float
    p_fall: float
    across: Float[np.ndarray, " dim"]
    along: Float[np.ndarray, " dim"]
    delta: float
    k: float
    k_minus: float
    k_plus: float


def radical(delta: float, product: float) -> tuple[float, float, float]:
    r"""Give :math:`k = \sqrt{\delta^2 + 4s^2}`, :math:`k - \delta` and :math:`k + \delta`, each to rounding.

    Args:
        delta: :math:`\delta`.
        product: s, at least 0.

    Returns:
        The three numbers.
    """
    k = math.hypot(delta, 2 * product)
    larger = k + abs(delta)
    smaller = 4 * product * (product / larger) if larger > 0 else 0.0
    return (k, smaller, larger) if delta >= 0 else (k, larger, smaller)


def find_modes(problem: NeuronProblem) -> NeuronModes:
    """Split the start into the modes of the linear system.

    A start whose growing part is 0 up to rounding (8 times the machine precision of the products that it sums) is put exactly
    on the boundary between the basins; it ends at the saddle.

    Args:
        problem: the neuron.

    Returns:
        The modes.
    """
    a, w, delta, s = problem.reduced_a, problem.reduced_w, problem.delta_prime, problem.target_norm
    k, k_minus, k_plus = radical(delta, s)
    along = problem.target / s if s > 0 else np.zeros_like(w)
    parallel = float(w @ problem.target) / s if s > 0 else 0.0
    rounding = _ROUNDING * float(np.abs(w) @ np.abs(along))
    across = w - parallel * along
    across = across - float(across @ along) * along
    if np.linalg.norm(across) <= _ROUNDING * abs(parallel):
        across = np.zeros_like(w)
    if k == 0:
        return NeuronModes(a / 2, a / 2, parallel / 2, parallel / 2, across, along, delta, 0.0, 0.0, 0.0)
    up, down, mixed = k_plus / k, k_minus / k, 2 * s / k
    grows = up * a + mixed * parallel, mixed * a + down * parallel
    if abs(grows[0]) <= _ROUNDING * up * abs(a) + mixed * rounding:
        grows = 0.0, 0.0
    return NeuronModes(
        grows[0] / 2,
        (down * a - mixed * parallel) / 2,
        grows[1] / 2,
        (up * parallel - mixed * a) / 2,
        across,
        along,
        delta,
        k,
        k_minus,
        k_plus,
    )


def solve_modes(
    modes: NeuronModes, clock: Float[np.ndarray, " time"]
) -> tuple[Float[np.ndarray, " time"], Float[np.ndarray, "time dim"]]:
    r"""Evaluate the exact solution at reduced times :math:`c\sqrt{\eta_a\eta_w}\,t`.

    .. math::
        A = q/\sqrt y, \quad W = p/\sqrt y, \qquad y = e^{\delta' t}\Big[1 + 2\int_0^t e^{-\delta' u}|p(u)|^2 du\Big].

    Every exponential is taken relative to the fastest growth that the start excites, and the terms of y relative to the
    largest of them: no exponent is positive, and nothing underflows to 0/0. Derived here.

    Args:
        modes: of the start.
        clock: reduced times, at least 0.

    Returns:
        A and W in reduced units.
    """
    t = np.asarray(clock, dtype=np.float64)
    m, excited = modes, modes.q_grow != 0 or modes.p_grow != 0
    # The rate relative to which q^2, p^2 and y are measured: k, or |delta| if nothing grows; gaps are at least 0.
    gap = 0.0 if excited else (m.k_minus if m.delta >= 0 else m.k_plus)  # k minus that rate
    first = m.k_minus if excited else 2 * max(-m.delta, 0.0)  # that rate minus delta
    cross = m.k_plus if excited else 2 * max(m.delta, 0.0)  # that rate plus delta
    grow, fall = np.zeros_like(t), -(2 * m.k - gap) * t
    start = -first * t
    terms = [
        start / 2,
        _log_root(m.p_grow, grow, start, m.k_minus, t),
        _log_root(m.p_fall, fall, start, m.k_plus, t),
        _log_root(float(np.linalg.norm(m.across)), -cross * t, start, 2 * abs(m.delta), t),
    ]
    unit = np.maximum.reduce(terms)
    one, up, down, side = (np.exp(term - unit) for term in terms)
    mixed = np.zeros_like(t)
    if m.p_grow != 0 and m.p_fall != 0:
        with np.errstate(invalid="ignore"):  # at t = 0 all terms but the first are 0
            ratio = _log_difference(-m.k * t, start, abs(m.delta), t) - 0.5 * (
                _log_difference(grow, start, m.k_minus, t) + _log_difference(fall, start, m.k_plus, t)
            )
        ratio = np.where(t > 0, ratio, 0.0)
        mixed = 2 * np.sign(m.p_grow * m.p_fall) * up * down * np.exp(np.minimum(ratio, 0.0))
    root = np.sqrt(one**2 + up**2 + mixed + down**2 + side**2)
    rise = np.exp(-unit) / root if excited else np.zeros_like(t)
    sink = np.exp(fall / 2 - unit) / root
    away = np.exp(-cross * t / 2 - unit) / root
    a = m.q_grow * rise + m.q_fall * sink
    w = np.outer(m.p_grow * rise + m.p_fall * sink, m.along) + np.outer(away, m.across)
    return a, w


def _log_difference(
    x: Float[np.ndarray, " time"], y: Float[np.ndarray, " time"], gap: float, t: Float[np.ndarray, " time"]
) -> Float[np.ndarray, " time"]:
    """Logarithm of (e^x - e^y) / (x - y) times t, for exponents x and y that are ``gap`` times t apart."""
    with np.errstate(divide="ignore"):
        if gap == 0:
            return np.asarray(np.maximum(x, y) + np.log(t))
        return np.asarray(np.maximum(x, y) + np.log(-np.expm1(-gap * t) / gap))


def _log_root(
    size: float,
    x: Float[np.ndarray, " time"],
    y: Float[np.ndarray, " time"],
    gap: float,
    t: Float[np.ndarray, " time"],
) -> Float[np.ndarray, " time"]:
    if size == 0:
        return np.full_like(t, -np.inf)
    return np.asarray(0.5 * (math.log(2) + _log_difference(x, y, gap, t)) + math.log(abs(size)))


def find_limit(modes: NeuronModes) -> tuple[float, Float[np.ndarray, " dim"], int]:
    r"""Give where the neuron ends, in reduced units, and in which basin it started.

    .. math::
        A_\infty = \sigma\sqrt{(k + \delta')/2}, \quad W_\infty = \sigma\sqrt{(k - \delta')/2}\,\beta_*/|\beta_*|, \quad
        \sigma = \mathrm{sign}\big(W_0\cdot\beta_* + A_0(\delta' + k)/2\big).

    Args:
        modes: of the start.

    Returns:
        A, W and sigma; sigma is 0 for a start that ends at a saddle (A = 0), or if the target is 0 and A ends at 0.
    """
    sign = int(np.sign(modes.q_grow)) if modes.k_plus > 0 else 0
    if sign:
        return (
            sign * math.sqrt(modes.k_plus / 2),
            sign * math.sqrt(modes.k_minus / 2) * modes.along,
            sign,
        )
    size = float(np.linalg.norm(modes.across))
    if size == 0 or modes.delta >= 0:
        return 0.0, np.zeros_like(modes.across), 0
    return 0.0, math.sqrt(-modes.delta) * modes.across / size, 0
