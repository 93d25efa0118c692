"""Where the search for a geodesic begins: guesses of the path, and weights that follow them."""

import numpy as np
from jaxtyping import Float

from learnmech.leaky.geodesic_passes import LeakyPasses

Array = np.ndarray


def straight_path(
    first: Float[Array, "width samples"], last: Float[Array, "width samples"], depths: Float[Array, " nodes"]
) -> Float[Array, "nodes width samples"]:
    """Interpolate geometrically where both ends are positive, as scalar geodesics do, and linearly elsewhere.

    Args:
        first: representation at depth 0.
        last: representation at depth 1.
        depths: where.

    Returns:
        The path.
    """
    share = depths[:, None, None]
    path = (1 - share) * first + share * last
    positive = (first > 0) & (last > 0)
    logs = [np.log(np.where(positive, end, 1.0)) for end in (first, last)]
    mixed: Array = np.where(positive, np.exp((1 - share) * logs[0] + share * logs[1]), path)
    return mixed


def sagging_path(
    first: Float[Array, "width samples"],
    last: Float[Array, "width samples"],
    depths: Float[Array, " nodes"],
    effective_depth: float,
) -> Float[Array, "nodes width samples"]:
    """Interpolate by a representation that leaks away for free and is built up anew, as in a bottleneck of dimension 0.

    Args:
        first: representation at depth 0.
        last: representation at depth 1.
        depths: where.
        effective_depth: the leak.

    Returns:
        The path.
    """
    scale = -np.expm1(-2 * effective_depth)
    falling, rising = (
        np.exp(-effective_depth * (1 - share)) * -np.expm1(-2 * effective_depth * share) / scale
        for share in (1 - depths, depths)
    )
    path: Array = falling[:, None, None] * first + rising[:, None, None] * last
    return path


def following_weights(
    passes: LeakyPasses, path: Float[Array, "nodes width samples"]
) -> Float[Array, "layers width rows"]:
    """Find the least weights whose net follows a path as nearly as it can: each layer aims at the path's next node.

    Args:
        passes: the net.
        path: where it should go.

    Returns:
        Scaled weights.
    """
    # Where there are more samples than rows the path is only aimed at: keep the weights from growing in vain.
    cutoff = 1e-10 if passes.samples <= passes.rows else 0.05
    weights = np.empty((passes.layers, passes.width, passes.rows))
    now = passes.start
    for layer in range(passes.layers):
        active = np.maximum(now, 0)
        if passes.bias:
            active = np.concatenate([active, np.ones((1, passes.samples))])
        wanted = (path[layer + 1] - passes.skips[layer] * now) / passes.steps[layer]
        weights[layer] = np.linalg.lstsq(active.T, wanted.T, rcond=cutoff)[0].T
        now = passes.skips[layer] * now + passes.steps[layer] * (weights[layer] @ active)
    return passes.scale(weights)
