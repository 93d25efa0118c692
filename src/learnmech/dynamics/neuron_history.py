"""The history of a single linear neuron, exact or integrated."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from learnmech import history
from learnmech.dynamics.neuron_problem import SOURCE


def neuron_history(
    times: Float[np.ndarray, " time"],
    a: Float[np.ndarray, " time"],
    w: Float[np.ndarray, "time dim"],
    *,
    target: Float[np.ndarray, " dim"],
    eta_a: float,
    eta_w: float,
    loss: Float[np.ndarray, " time"],
    kernel_distance: Float[np.ndarray, " time"],
    source: str,
    config: Mapping[str, Any],
) -> xr.Dataset:
    """Make a history of weights over time.

    Args:
        times: increasing times of the gradient flow.
        a: read-out weights.
        w: input weights.
        target: the least-squares solution, against which the angle is taken.
        eta_a: learning rate of a.
        eta_w: learning rate of w.
        loss: half the squared error beyond the least possible.
        kernel_distance: to the kernel at the start.
        source: where the weights come from.
        config: what made the history.

    Returns:
        A history over ``time`` (and ``dim``): ``a``, ``w``, ``beta``, ``mu``, ``phi``, ``k``, ``delta``, ``loss``,
        ``kernel_distance``.
    """
    size, goal = np.linalg.norm(w, axis=1), float(np.linalg.norm(target))
    with np.errstate(invalid="ignore", divide="ignore"):
        phi = np.clip((w / size[:, None]) @ (target / goal), -1.0, 1.0)
    delta = (np.sqrt(eta_w) * np.abs(a) - np.sqrt(eta_a) * size) * (np.sqrt(eta_w) * np.abs(a) + np.sqrt(eta_a) * size)
    # k = eta_w a^2 + eta_a |w|^2, the same number as sqrt(delta^2 + 4 eta_a eta_w mu^2)
    k = eta_w * np.square(a) + eta_a * np.square(size)
    plain = ("time",)
    variables = {
        "a": (plain, a, {"long_name": "read-out weight", "units": "weight", "source": source}),
        "w": (("time", "dim"), w, {"long_name": "input weights", "units": "weight", "source": source}),
        "beta": (
            ("time", "dim"),
            a[:, None] * w,
            {"long_name": "the linear map a w", "units": "target / input", "source": source},
        ),
        "mu": (plain, a * size, {"long_name": "signed size a |w|", "units": "target / input", "source": source}),
        "phi": (plain, phi, {"long_name": "cosine of w and the target", "units": "1", "source": source}),
        "k": (plain, k, {"long_name": "rate of the size of beta", "units": "1 / time", "source": SOURCE}),
        "delta": (
            plain,
            delta,
            {"long_name": "balance eta_w a^2 - eta_a |w|^2, conserved", "units": "rate weight^2", "source": SOURCE},
        ),
        "loss": (
            plain,
            loss,
            {"long_name": "half the squared error beyond the least possible", "units": "target^2", "source": source},
        ),
        "kernel_distance": (
            plain,
            kernel_distance,
            {"long_name": "kernel distance to the start", "units": "1", "source": SOURCE},
        ),
    }
    return history.build(
        variables,
        {"time": times, "dim": np.arange(w.shape[1])},
        config=config,
        attributes={"citations": ["kunin2024"], "loss": "half the sum of squared errors"},
    )
