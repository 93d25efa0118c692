"""The history of a path of representations and momenta over depth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from learnmech import history
from learnmech.leaky.cost_of_identity import identity_cost
from learnmech.leaky.hamilton_equations import plain_hamiltonian
from learnmech.leaky.representations import activated

SOURCE = "Jacot and Kaiser (arXiv 2405.17573)"
Variables = dict[str, tuple[Sequence[str], Any, Mapping[str, str]]]


def path_history(
    path: Float[Tensor, "nodes width samples"],
    momenta: Float[Tensor, "nodes width samples"],
    paired: Float[Tensor, "nodes width samples"],
    *,
    depths: Float[np.ndarray, " nodes"],
    names: Sequence[str],
    effective_depth: float,
    bias: bool,
    ridges: Sequence[float] = (),
    further: Variables | None = None,
    coordinates: Mapping[str, Any] | None = None,
    config: Mapping[str, Any],
) -> xr.Dataset:
    """Make a history from representations and momenta over depth.

    Args:
        path: representations in float64.
        momenta: momenta at the same nodes.
        paired: the momentum that goes with the representation in the energy: that of the same node, or that of the next
            one, NaN at the last.
        depths: where the nodes are, in [0, 1].
        names: their names.
        effective_depth: the leak.
        bias: whether a row of ones is appended to the activations.
        ridges: for which ridges the cost of identity is taken.
        further: further variables.
        coordinates: further coordinates.
        config: what made the path.

    Returns:
        A history with ``hamiltonian``, ``effective_dimension``, ``pairing``, ``weight_norm``, ``representation_norm``,
        ``momentum_norm``, ``path``, ``momenta``, and ``identity_cost`` if there are ridges.
    """
    energy = plain_hamiltonian(path, paired, effective_depth, bias=bias)
    weights = effective_depth * (paired @ activated(path, bias=bias).mT)
    everywhere, matrices = ("layer",), ("layer", "neuron", "sample")
    source = f"{SOURCE}, Hamiltonian reformulation"
    variables: Variables = {
        "hamiltonian": (everywhere, energy, {"long_name": "energy H", "units": "1", "source": source}),
        "effective_dimension": (
            everywhere,
            -2 / effective_depth * energy,
            {
                "long_name": "effective dimension, -2 H over the effective depth",
                "units": "dimensions",
                "source": source,
            },
        ),
        "pairing": (
            everywhere,
            (paired * path).sum(dim=(-2, -1)),
            {"long_name": "momentum times representation", "units": "1", "source": "derived in learnmech"},
        ),
        "weight_norm": (
            everywhere,
            torch.linalg.matrix_norm(weights),
            {"long_name": "norm of the weights that follow", "units": "1", "source": source},
        ),
        "representation_norm": (
            everywhere,
            torch.linalg.matrix_norm(path),
            {"long_name": "norm of the representation", "units": "representation", "source": SOURCE},
        ),
        "momentum_norm": (
            everywhere,
            torch.linalg.matrix_norm(momenta),
            {"long_name": "norm of the momentum", "units": "1 / representation", "source": source},
        ),
        "path": (matrices, path, {"long_name": "representation", "units": "representation", "source": SOURCE}),
        "momenta": (matrices, momenta, {"long_name": "momentum", "units": "1 / representation", "source": source}),
    }
    axes: dict[str, Any] = {
        "layer": list(names),
        "depth": ("layer", np.clip(depths, 0, 1)),
        "neuron": np.arange(path.shape[1]),
        **(coordinates or {}),
    }
    if len(ridges):
        costs = identity_cost(path, ridge=list(ridges), bias=bias)
        meaning = {"long_name": "cost of identity", "units": "dimensions", "source": f"{SOURCE}, Cost of Identity"}
        variables["identity_cost"] = (("layer", "ridge"), costs, meaning)
        axes["ridge"] = list(ridges)
    plain = {
        name: (dimensions, value.cpu().numpy() if isinstance(value, Tensor) else value, meaning)
        for name, (dimensions, value, meaning) in {**variables, **(further or {})}.items()
    }
    return history.build(plain, axes, config=config, attributes={"citations": ["jacot2024"]})
