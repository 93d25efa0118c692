"""The history of a spring chain: positions over time, with what follows from them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from learnmech import history
from learnmech.springs.parameter_grid import ParameterGrid

SOURCE = "Shi, Pan, Dokmanić 2024 (arXiv 2407.19353), Eq. 5"


def chain_history(
    positions: Float[np.ndarray, "*cells blocks"],
    times: Float[np.ndarray, " time"],
    grid: ParameterGrid,
    *,
    chains: int | None,
    source: str,
    config: Mapping[str, Any],
    attributes: Mapping[str, Any],
) -> xr.Dataset:
    """Make a history from the positions of the blocks.

    Args:
        positions: positions over (cells..., time, chain, block); without the axis of chains if ``chains`` is None.
        times: the recorded times.
        grid: the parameters, among them ``target``.
        chains: number of chains, or None.
        source: where the equation of motion stands.
        config: what made the history.
        attributes: further attributes.

    Returns:
        A history with ``position`` x_l, ``elongation`` d_l = x_l - x_(l-1) and ``load`` D_l = target - x_l for the layers
        1 to L+1, and ``target`` D_0.
    """
    blocks = positions.shape[-1]
    target = grid.values["target"]
    whole = np.zeros((*positions.shape[:-1], blocks + 2), dtype=positions.dtype)
    whole[..., 1:-1] = positions
    whole[..., -1] = target.reshape(*grid.shape, *[1] * (positions.ndim - 1 - len(grid.shape)))
    layers = np.array([str(layer) for layer in range(1, blocks + 2)])
    dims = (*grid.dims, "time", *(("chain",) if chains is not None else ()), "layer")
    length = "load"  # positions are measured on the scale of the load
    variables = {
        "position": (dims, whole[..., 1:], {"long_name": "position of the block", "units": length, "source": source}),
        "elongation": (
            dims,
            np.diff(whole, axis=-1),
            {"long_name": "elongation of the spring before the block", "units": length, "source": source},
        ),
        "load": (
            dims,
            whole[..., -1:] - whole[..., 1:],
            {"long_name": "load left beyond the block", "units": length, "source": source},
        ),
    }
    if "target" not in grid.dims:
        meaning = {"long_name": "position of the wall, the load at the start", "units": length, "source": source}
        variables["target"] = (grid.dims, target, meaning)
    coordinates: dict[str, Any] = {
        **{str(name): values for name, values in grid.coordinates.items()},
        "time": np.asarray(times, dtype=np.float64),
        "layer": layers,
        "depth": ("layer", np.arange(1, blocks + 2) / (blocks + 1)),
    }
    if chains is not None:
        coordinates["chain"] = np.arange(chains)
    return history.build(
        variables, coordinates, config=config, attributes={"citations": ["shi2024"], **dict(attributes)}
    )
