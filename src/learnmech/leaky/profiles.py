"""The mechanics of a leaky ResNet over its depth, as a history."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from learnmech import history
from learnmech.leaky.criticality import stacked_stationarity
from learnmech.leaky.hamiltonians import hamiltonian, pre_hamiltonian
from learnmech.leaky.metric import Metric
from learnmech.leaky.network import LeakyResNet
from learnmech.leaky.objective import StackedObjective
from learnmech.leaky.ranks import bottleneck_rank, negativity, stable_rank
from learnmech.leaky.representations import require_ridges

_PAPER = "Jacot and Kaiser, arXiv 2405.17573"
_DERIVED = "learnmech"

# name -> (dimensions, long name, scale, source)
VARIABLES: Mapping[str, tuple[tuple[str, ...], str, str, str]] = {
    "identity_cost": (
        ("layer", "ridge"),
        "cost of identity of the representation",
        "dimensions; falls as the ridge grows",
        _PAPER,
    ),
    "potential_energy": (("layer", "ridge"), "-(effective depth / 2) times the cost of identity", "energy", _PAPER),
    "kinetic_energy": (
        ("layer", "ridge"),
        "squared speed in the metric of the representation over twice the effective depth",
        "energy",
        _PAPER,
    ),
    "cross_term": (
        ("layer", "ridge"),
        "inner product of velocity and representation",
        "energy; its integral does not depend on the timing of the path",
        _PAPER,
    ),
    "ridge_effective_dimension": (
        ("layer", "ridge"),
        "cost of identity less squared speed over squared effective depth",
        "dimensions; tends to the effective dimension as the ridge falls",
        _PAPER,
    ),
    "hamiltonian": (
        ("layer",),
        "Hamiltonian of representation and next momentum",
        "energy; constant over depth at a critical point, up to the step size",
        _PAPER,
    ),
    "effective_dimension": (("layer",), "-2 / effective depth times the Hamiltonian", "dimensions", _PAPER),
    "pre_hamiltonian": (
        ("layer",),
        "Hamiltonian at the net's own weights, before the maximum over weights",
        "energy; equals the Hamiltonian at a critical point, and is steadier before",
        _DERIVED,
    ),
    "pre_effective_dimension": (("layer",), "-2 / effective depth times the pre-Hamiltonian", "dimensions", _DERIVED),
    "stationarity": (
        ("layer",),
        "distance of the layer's weights from the critical point",
        "relative; 0 at a critical point, near 1 Hamiltonians mean nothing",
        _DERIVED,
    ),
    "step_gradient": (("layer",), "slope of the cost in the step size", "cost; for diagnosis only", _DERIVED),
    "weight_norm": (("layer",), "Frobenius norm of the weights with biases", "as the weights", _DERIVED),
    "weight_spectrum": (("layer", "direction"), "singular values of the weights with biases", "as the weights", _PAPER),
    "kept_directions": (
        ("layer",),
        "singular values of the weights above half the largest",
        "directions; the bottleneck's dimension in the middle of a deep net",
        _PAPER,
    ),
    "varying_directions": (
        ("layer",),
        "singular values of the representation, less its mean over samples, above half the largest",
        "directions; one fewer than the weights keep where one of these carries a constant",
        _DERIVED,
    ),
    "representation_spectrum": (
        ("layer", "direction"),
        "singular values of the representation",
        "as the representation",
        _PAPER,
    ),
    "representation_norm": (("layer",), "Frobenius norm of the representation", "as the representation", _DERIVED),
    "stable_rank": (
        ("layer",),
        "squared nuclear norm over squared Frobenius norm of the representation",
        "dimensions; below the cost of identity without bias",
        _PAPER,
    ),
    "negativity": (
        ("layer",),
        "norm of the negative part of the representation over its norm",
        "0 to 1; near 0 in the bottleneck",
        _PAPER,
    ),
    "momentum_norm": (("layer",), "Frobenius norm of the momenta", "1 / representation", _PAPER),
    "pairing": (
        ("layer",),
        "inner product of representation and momentum",
        "dimensions; constant over depth without biases",
        _DERIVED,
    ),
    "velocity_norm": (("layer",), "Frobenius norm of change over step size", "representation / depth", _PAPER),
    "relative_step": (
        ("layer",),
        "norm of the change in the step over the norm after it",
        "relative; equal in all layers for adaptive steps",
        _PAPER,
    ),
    "step_size": (("layer",), "step size", "share of the depth", _PAPER),
    "path_length": (("ridge",), "length of the path in the metric of the representation", "length", _PAPER),
    "mean_effective_dimension": ((), "mean of the effective dimension over depth", "dimensions", _DERIVED),
    "mean_pre_effective_dimension": (
        (),
        "mean of the pre-Hamiltonian's effective dimension over depth",
        "dimensions; the slope of (2/penalty) cost in the effective depth, at a critical point",
        _DERIVED,
    ),
    "cost": ((), "regularised cost", "as the cost of the net", _PAPER),
    "data_cost": ((), "cost of the outputs", "as the cost of the net", _PAPER),
}


def profile(
    net: LeakyResNet,
    inputs: Tensor,
    targets: Tensor,
    *,
    ridges: Sequence[float] | float | Tensor = (1e-2, 1e-3, 1e-4),
    relative: bool = False,
) -> xr.Dataset:
    r"""Measure energies, Hamiltonian, spectra and steps of a leaky ResNet over its depth.

    ``layer`` l = 0 .. L is the representation :math:`A_l` at ``depth`` :math:`p_l = \rho_1 + \ldots + \rho_l`. What belongs to the
    step that leaves it stands there too, and is NaN at the last: the Hamiltonian on :math:`(A_l, B_{l+1})`, the pair on which it
    is conserved in discrete nets, the weights :math:`W_{l+1}`, and the velocity :math:`(A_{l+1} - A_l)/\rho_{l+1}` in kinetic
    energy and cross term.

    **How to read it.** Look at ``stationarity`` first: Hamiltonians and effective dimensions are those of a critical point, and
    mean nothing where it is near 1. In a deep net the identity cost falls to about the number of dimensions that the task keeps,
    the weights have about as many large singular values, and features are hardly negative there: that is the bottleneck. Features that
    are not negative have a mean; the weights carry it as a direction of its own (``kept_directions``), while
    ``varying_directions`` counts those in which samples differ. The effective
    dimension is constant over depth and never above the identity cost (without ridge). A **ridge** decides which directions count:
    absolute, in squared units of the activations summed over samples, or, with ``relative``, times the largest eigenvalue of
    :math:`\sigma(A)^T\sigma(A)` of each layer.

    Source: Jacot and Kaiser, arXiv 2405.17573; the pairing of representation and momentum, the pre-Hamiltonian and the
    stationarity residual are derived here, as ``source`` of each variable says.

    Args:
        net: the net; it is not changed.
        inputs: inputs (samples, d_in), all that it was trained on.
        targets: their targets.
        ridges: :math:`\gamma`, one or several; 0 is exact, and infinite for most representations with negative entries.
        relative: whether ridges are shares of each layer's largest eigenvalue.

    Returns:
        A history over ``layer``, with ``ridge`` and ``direction`` (singular values, falling), all computed in float64. Raises
        :class:`~learnmech.errors.InputError` for data that do not fit the net, or negative ridges.

    Example:
        >>> net = LeakyResNet(2, 2, width=4, effective_depth=2.0, layers=5)
        >>> run = profile(net, torch.rand(6, 2), torch.rand(6, 2), ridges=1e-2)
        >>> dict(run.sizes), run["identity_cost"].dims
        ({'layer': 6, 'ridge': 1, 'direction': 4}, ('layer', 'ridge'))
    """
    levels, _ = require_ridges(ridges)
    with torch.no_grad():
        objective = StackedObjective([net], inputs, targets, dtype=torch.float64)
        vector = objective.values()
        costs, _ = objective.cost_and_gradient(vector)
        moments = objective.end_gradients(vector)[:, 0] / -net.penalty
        path = objective.path[:, 0].clone()
        values = {
            **_representations(net, path, levels, relative=relative),
            **_steps(net, path, moments),
            "stationarity": stacked_stationarity(objective, vector)[0],
            "cost": costs[0],
            "data_cost": objective.data_costs(vector)[0],
        }
    steps = net.steps.cpu()
    for name in ("effective_dimension", "pre_effective_dimension"):
        values[f"mean_{name}"] = (steps * values[name].cpu()).sum()
    depths = torch.cat([torch.zeros(1), steps.cumsum(0)]).clamp(max=1)
    variables = {
        name: (
            dimensions,
            _placed(dimensions, values[name], len(path)),
            {"long_name": words, "scale": scale, "source": source},
        )
        for name, (dimensions, words, scale, source) in VARIABLES.items()
    }
    return history.build(
        variables,
        {
            "layer": [str(number) for number in range(len(path))],
            "depth": ("layer", depths.numpy()),
            "ridge": levels.numpy(),
            "direction": list(range(1, values["weight_spectrum"].shape[-1] + 1)),
        },
        config={
            "effective_depth": net.effective_depth,
            "penalty": net.penalty,
            "width": net.width,
            "layers": net.layers,
            "bias": net.bias,
            "loss": net.loss,
            "embeddings": net.embeddings,
            "steps": net.policy.kind,
            "relative_ridges": relative,
            "samples": path.shape[-1],
        },
        attributes={"citations": ["jacot2024"], "kind": "leaky profile"},
    )


def _representations(net: LeakyResNet, path: Tensor, levels: Tensor, *, relative: bool) -> dict[str, Tensor]:
    depth, steps = net.effective_depth, net.steps.to(path.device)[:, None]
    velocity = (path[1:] - path[:-1]) / steps[:, :, None]
    metric = Metric(path, bias=net.bias)
    ridges = levels.to(path.device) * metric.eigenvalues[:, :1] if relative else levels
    costs = metric.squared_norm(path, ridges)
    # The last representation moves no further.
    still = torch.cat([velocity, torch.zeros_like(velocity[:1])])
    speeds = metric.squared_norm(still, ridges)[:-1]
    spectrum = torch.linalg.svdvals(path)[:, : net.width]
    missing = net.width - spectrum.shape[1]
    return {
        "identity_cost": costs,
        "potential_energy": -depth / 2 * costs,
        "kinetic_energy": speeds / (2 * depth),
        "cross_term": metric.inner(still, path, ridges)[:-1],
        "ridge_effective_dimension": costs[:-1] - speeds / depth**2,
        "path_length": (speeds.sqrt() * steps).sum(0),
        "representation_spectrum": torch.nn.functional.pad(spectrum, (0, missing), value=torch.nan),
        "varying_directions": bottleneck_rank(torch.linalg.svdvals(path - path.mean(-1, keepdim=True))),
        "representation_norm": torch.linalg.vector_norm(path, dim=(1, 2)),
        "stable_rank": stable_rank(path),
        "negativity": negativity(path),
        "velocity_norm": torch.linalg.vector_norm(velocity, dim=(1, 2)),
        "relative_step": torch.linalg.vector_norm(path[1:] - path[:-1], dim=(1, 2))
        / torch.linalg.vector_norm(path[1:], dim=(1, 2)),
    }


def _steps(net: LeakyResNet, path: Tensor, moments: Tensor) -> dict[str, Tensor]:
    depth = net.effective_depth
    weights = net.weights.double()
    energy = hamiltonian(path[:-1], moments[1:], depth, bias=net.bias)
    before = pre_hamiltonian(path[:-1], moments[1:], weights, depth, bias=net.bias)
    spectrum = torch.linalg.svdvals(weights)
    return {
        "hamiltonian": energy,
        "effective_dimension": -2 / depth * energy,
        "pre_hamiltonian": before,
        "pre_effective_dimension": -2 / depth * before,
        "step_gradient": -net.penalty * before,
        "weight_norm": torch.linalg.vector_norm(weights, dim=(1, 2)),
        "weight_spectrum": spectrum,
        "kept_directions": bottleneck_rank(spectrum),
        "momentum_norm": torch.linalg.vector_norm(moments, dim=(1, 2)),
        "pairing": (path * moments).sum((1, 2)),
        "step_size": net.steps,
    }


def _placed(dimensions: tuple[str, ...], values: Tensor, nodes: int) -> Any:
    """Give an array over its dimensions; what belongs to a step gets a NaN at the last representation."""
    array = values.detach().double().cpu()
    if "layer" in dimensions and len(array) == nodes - 1:
        array = torch.cat([array, torch.full_like(array[:1], torch.nan)])
    return array.numpy()
