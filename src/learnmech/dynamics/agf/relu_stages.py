"""Cost minimisation of active ReLU neurons: gradient flow until they rest, then Newton's method in their cones."""

import math

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.agf.relu_flow import Net, follow_net, make_net

_NEARLY = 1e-2
_AT_REST = 1e-9
_NEWTON = 30
_LONGEST = 1e5
_MOST = 4_000
_PATIENCE = 500


def minimise(
    points: Float[np.ndarray, "samples dimension"],
    values: Float[np.ndarray, " samples"],
    leak: float,
    neurons: Float[np.ndarray, "neurons size"],
    tolerance: float = 1e-8,
) -> tuple[Float[np.ndarray, "neurons size"], bool]:
    r"""Follow the gradient flow of active neurons to a critical point.

    When the gradient is a hundredth of the largest on the way, and at times before, Gauss and Newton's method is tried: near a critical point
    every neuron's :math:`D` vanishes, so it converges quadratically. It is kept if no neuron changes its cone and the
    loss falls by no more than the flow could still do; else the flow goes on.

    Source: derived here.

    Args:
        points: the data.
        values: targets.
        leak: slope of the activation below 0.
        neurons: rows (a, w).
        tolerance: of the flow's steps.

    Returns:
        The neurons at the critical point, and whether it was reached.
    """
    net = make_net(points, values, leak, neurons)
    largest = math.sqrt(float(np.square(net.velocity(net.neurons)).sum()))
    scale = float(np.abs(points).max() * np.abs(values).max())
    longest = _LONGEST / max(scale, 1e-300)
    pace = float(_growth(net, net.neurons).max(initial=0.0))
    share, passed, rests, steps = _NEARLY, 0.0, False, 0

    def visit(moment: float, state: np.ndarray, loss: float, speed: float) -> bool:
        nonlocal largest, rests, steps
        steps += 1
        size = math.sqrt(speed)
        largest = max(largest, size)
        rests = size <= share * largest and _calm(net, state, pace)
        return rests or size <= 1e-15 * scale or steps % _PATIENCE == 0

    while passed < longest:
        passed += follow_net(net, visit, end=longest - passed, tolerance=tolerance)
        polished = _polish(net) if _calm(net, net.neurons, pace) else None
        if polished is not None:
            return polished, True
        if rests and share <= _AT_REST:
            return net.neurons, True
        if steps >= _MOST:
            break
        share = share / 10 if rests else share
    return net.neurons, False


def _growth(net: Net, neurons: np.ndarray) -> np.ndarray:
    return np.asarray(
        (neurons * net.velocity(neurons)).sum(axis=1) / np.maximum(np.square(neurons).sum(axis=1), 1e-300)
    )


def _calm(net: Net, neurons: np.ndarray, pace: float) -> bool:
    """Whether no neuron still grows at a hundredth of the pace at which the stage began."""
    return bool((_growth(net, neurons) <= 0.01 * pace).all())


def _polish(net: Net) -> np.ndarray | None:
    state = net.neurons.copy()
    size = float(np.linalg.norm(state))
    before = net.loss(state)
    scale = float(np.abs(net.points).max() * np.abs(net.values).max())
    for _ in range(_NEWTON):
        heights = net.gates * (state[:, 1:] @ net.points.T)
        rows = net.gates[:, :, None] * net.points[None]
        if net.planes is not None:
            rows = np.einsum("ijd,idk->ijk", rows, net.planes)
        jacobian = np.concatenate([heights[:, :, None], state[:, :1, None] * rows], axis=2)
        jacobian = jacobian.transpose(1, 0, 2).reshape(len(net.points), -1)
        change = np.linalg.lstsq(jacobian, net.residual(state), rcond=1e-10)[0].reshape(state.shape)
        state = state + change
        if np.linalg.norm(state - net.neurons) > 0.1 * size or net.room(state) < 0:
            return None
        if np.linalg.norm(net.velocity(state)) <= 1e-13 * scale * max(size, 1.0):
            return state if net.loss(state) <= before * (1 + 1e-12) + 1e-300 else None
    return None
