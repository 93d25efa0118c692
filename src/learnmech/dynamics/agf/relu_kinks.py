"""What a ReLU neuron does on a kink: cross it, or slide along it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import lsq_linear

INSIDE = 1e-9
_ROUNDS = 20


@dataclass(frozen=True)
class Drift:
    r"""The constant pull on a neuron in one cone, or along a face of it.

    Attributes:
        gates: derivative of the activation at each sample: 1 or the leak; in between where the neuron slides.
        held: the samples along whose kinks it slides, :math:`w \cdot x_j = 0`.
        pull: :math:`D = \sum_j g_j c_j x_j`, orthogonal to every held sample.
        basis: orthonormal columns that span the held samples.
    """

    gates: Float[np.ndarray, " samples"]
    held: Bool[np.ndarray, " samples"]
    pull: Float[np.ndarray, " dimension"]
    basis: Float[np.ndarray, "dimension rank"]


def on_kink(
    points: Float[np.ndarray, "samples dimension"], weights: Float[np.ndarray, " dimension"], tolerance: float = 1e-12
) -> Bool[np.ndarray, " samples"]:
    """Tell the samples on whose kinks a neuron lies.

    Args:
        points: the data.
        weights: w.
        tolerance: largest sine of the angle between w and a kink.

    Returns:
        One truth value a sample; a zero input has no kink.
    """
    lengths = np.linalg.norm(points, axis=1)
    near = np.abs(points @ weights) <= tolerance * lengths * np.linalg.norm(weights)
    return np.asarray(near & (lengths > 0))


def settle(
    points: Float[np.ndarray, "samples dimension"],
    pulls: Float[np.ndarray, " samples"],
    sign: float,
    gates: Float[np.ndarray, " samples"],
    kinks: Bool[np.ndarray, " samples"],
    leak: float,
) -> Drift:
    r"""Decide for a neuron on kinks which of them it crosses and along which it slides.

    The utility :math:`s \sum_j c_j \sigma(w \cdot x_j)` is convex across a kink with :math:`s c_j \ge 0`: flow passes it or
    leaves it. It is concave across the others, where flow may be driven into the kink from both sides. There the velocity
    of the ascent is the shortest vector that the two sides span (Filippov's solution of a gradient flow),

    .. math:: \min_{g_j \in [\text{leak}, 1]} \Big| \sum_j g_j c_j x_j \Big|,

    a small least-squares problem with bounds. A gate at a bound: the neuron leaves; in between: it slides.

    Source: derived here.

    Args:
        points: the data.
        pulls: :math:`c_j`, residual times weight of the sample.
        sign: of the output weight.
        gates: so far; of a neuron without a past on a kink, the leak.
        kinks: the samples on whose kinks it lies.
        leak: slope of the activation below 0.

    Returns:
        Gates, held samples and the pull.
    """
    gates = gates.astype(np.float64).copy()
    lengths = np.einsum("jd,jd->j", points, points)
    concave = kinks & (sign * pulls < 0)
    convex = np.flatnonzero(kinks & ~concave)
    gates[convex] = np.where(gates[convex] > (1 + leak) / 2, 1.0, leak)
    chosen = np.flatnonzero(concave)
    for _ in range(_ROUNDS):
        if len(chosen):
            gates[chosen] = 0.0
            base = (gates * pulls) @ points
            columns = (pulls[chosen, None] * points[chosen]).T
            if len(chosen) == 1:
                best = -(columns[:, 0] @ base) / (columns[:, 0] @ columns[:, 0])
                gates[chosen] = np.clip(best, leak, 1.0)
            else:
                solution = lsq_linear(columns, -base, bounds=(leak, 1.0), method="bvls", tol=1e-15)
                gates[chosen] = np.clip(solution.x, leak, 1.0)
        pull = (gates * pulls) @ points
        size = np.abs(pulls).max(initial=0.0) * lengths[convex]
        speed = sign * (points[convex] @ pull)
        wrong = np.where(gates[convex] == 1.0, speed < -1e-14 * size, speed > 1e-14 * size)
        if not wrong.any():
            break
        flipped = convex[wrong]
        gates[flipped] = np.where(gates[flipped] == 1.0, leak, 1.0)
    width = INSIDE * (1 - leak)
    held = concave & (gates > leak + width) & (gates < 1 - width)
    loose = concave & ~held
    gates[loose] = np.where(gates[loose] > (1 + leak) / 2, 1.0, leak)
    pull = (gates * pulls) @ points
    basis = span(points[held])
    return Drift(gates, held, pull - basis @ (basis.T @ pull), basis)


def span(points: Float[np.ndarray, "held dimension"]) -> Float[np.ndarray, "dimension rank"]:
    """Give an orthonormal basis of what points span.

    Args:
        points: none, one, or more.

    Returns:
        Columns.
    """
    if not len(points):
        return np.zeros((points.shape[1], 0))
    left, values, _ = np.linalg.svd(points.T, full_matrices=False)
    return np.asarray(left[:, values > 1e-12 * values[0]])
