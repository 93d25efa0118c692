"""Nets at their start as the cells of a sweep: settings in, angles, speeds and sensitivities of one step out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from learnmech import history as histories
from learnmech.errors import InputError
from learnmech.nets import ResidualMLP
from learnmech.speed.measuring import measure
from learnmech.speed.predict_residual import predict_residual_cosine
from learnmech.training.seeds import build_seeded, make_generator

SOURCE = "Chizat, Netrapalli 2024 (arXiv 2311.18718)"
BRANCHES: Mapping[str, tuple[float, float]] = {
    "1/L": (1.0, 1.0),
    "0.5/sqrt(L)": (0.5, 0.5),
    "1/sqrt(L)": (1.0, 0.5),
    "2/sqrt(L)": (2.0, 0.5),
    "1": (1.0, 0.0),
}
"""Name of a branch scale to c and p in c / L^p, with L as the authors count it; "1" leaves no skip, which is the MLP."""
READOUTS: Mapping[str, tuple[float, float, float]] = {
    "NTK": (1.0, -0.5, 0.0),
    "mean field": (1.0, -1.0, 0.0),
    "FSC": (1.0, -1.0, 0.5),
}
"""Name of a read-out scale to c, p and q in the standard deviation c width^p L^q of the read-out's initial weights."""
_MEANINGS = {
    "cosine": ("cosine between a feature's change and the loss's descent direction in it", "-1 to 1"),
    "cosine_predicted": (
        "the same at large width, from the mean-field recursion for the nets' own shares of loss decay",
        "-1 to 1",
    ),
    "speed_rms": ("root mean square of a feature's first-order change, per unit of loss decay", "1 / loss"),
    "aligned_rms": ("the part of that change along the descent direction", "1 / loss"),
    "aligned_sensitivity": ("1 / (sqrt(features) ||b||) of a feature", "1 / loss"),
    "sensitivity": ("root mean square of the last feature's change over the loss decay", "1 / loss"),
    "decay": ("first-order decrease of the loss", "loss"),
    "identity_error": ("relative error of -<b, df> against the loss decay of the parameters upstream", "1"),
}


def measure_layers(config: Mapping[str, Any]) -> xr.Dataset:
    """Measure one step of a net at its start, block by block: a cell of a sweep.

    Args:
        config: see :func:`measure_start`.

    Returns:
        A history over ``layer`` ("1" is the first block) with ``cosine``, ``cosine_predicted``, ``speed_rms``,
        ``aligned_rms``, ``aligned_sensitivity`` and ``identity_error``. Speeds are divided by the loss decay.
    """
    measured, predicted = measure_start(config, every_block=True)
    decay = float(measured["total_decay"])
    cosine = measured["cosine"].values
    speeds = measured["speed_rms"].values / decay
    values = {
        "cosine": cosine,
        "cosine_predicted": predicted,
        "speed_rms": speeds,
        "aligned_rms": cosine * speeds,
        "aligned_sensitivity": 1.0 / (np.sqrt(config["width"]) * measured["backward_norm"].values),
        "identity_error": measured["identity_error"].values,
    }
    count = len(cosine)
    coordinates = {
        "layer": [str(number) for number in range(1, count + 1)],
        "depth": ("layer", np.linspace(0, 1, count) if count > 1 else np.zeros(1)),
    }
    return _describe({name: (("layer",), value) for name, value in values.items()}, coordinates, config)


def measure_last(config: Mapping[str, Any]) -> xr.Dataset:
    """Measure one step of a net at its start at the last block: a cell of a sweep.

    Args:
        config: see :func:`measure_start`.

    Returns:
        A history of the numbers ``cosine``, ``cosine_predicted``, ``sensitivity`` and ``identity_error``.
    """
    measured, predicted = measure_start(config, every_block=False)
    last = measured.isel(layer=-1)
    values = {name: float(last[name]) for name in ("cosine", "sensitivity", "identity_error")}
    values["cosine_predicted"] = float(predicted[-1])
    return _describe({name: ((), value) for name, value in values.items()}, {}, config)


def measure_start(config: Mapping[str, Any], *, every_block: bool) -> tuple[xr.Dataset, np.ndarray]:
    """Draw a net and one sample, and measure the step that takes the same loss decay from every block.

    The net is a :class:`learnmech.nets.ResidualMLP` of skip sqrt(1 - branch^2) on one normal input of mean square norm 1,
    with the loss (output - target)^2 / 2. Embedding and read-out are not trained. Block k moves by gradient descent at the
    rate ``step / (L ||g_k||^2)``, so that each block takes ``step / L`` of the loss to first order.

    Source: the settings of the authors' notebooks. Different from them: the change of features is the exact first-order
    one, by forward-mode differentiation; theirs is that of a finite step of the same length.

    Args:
        config: ``width``, ``layers`` (L: blocks, embedding and read-out together), ``inputs``, ``branch`` (a number or a name
            in :data:`BRANCHES`), ``draw`` (seed of net and sample), ``step``, ``target`` ("random" or a number), ``readout``
            (a name in :data:`READOUTS`; "NTK" if it is left out) and ``dtype``.
        every_block: whether to measure every block, or the last only.

    Returns:
        What :func:`learnmech.speed.measure` gives, for the blocks asked for; and the predicted cosine of every block.

    Raises:
        InputError: if L leaves no block, or a name is unknown.
    """
    layers, width, inputs = config["layers"], config["width"], config["inputs"]
    if layers < 3:
        raise InputError(f"layers counts embedding and read-out too, so it must be at least 3, got {layers!r}.")
    branch = read_branch(config["branch"], layers)
    skip = float(np.sqrt(max(0.0, 1.0 - branch**2)))
    factor, power_of_width, power_of_layers = READOUTS[config.get("readout", "NTK")]
    model = build_seeded(
        lambda: ResidualMLP(
            inputs,
            1,
            width=width,
            depth=layers - 2,
            skip=skip,
            branch=branch,
            input_std=1.0,
            output_std=factor * width**power_of_width * layers**power_of_layers,
        ),
        config["draw"],
    ).to(getattr(torch, config["dtype"]))
    batch = draw_sample(config)
    update = balanced_update(model, batch, config["step"], layers)
    names = [f"blocks.{number}" for number in range(layers - 2)]
    history = measure(model, batch, half_square, update, nodes=names if every_block else names[-1:], real_step=False)
    shares = history["parameter_decay"].sel(parameter=list(update)).values
    return (
        history.isel(layer=np.flatnonzero(history["role"].values == "block")),
        predict_residual_cosine(skip, branch, shares),
    )


def read_branch(branch: float | str, layers: int) -> float:
    """Give the number that a branch scale stands for.

    Args:
        branch: a number, or a name in :data:`BRANCHES`.
        layers: L as the authors count it.

    Returns:
        The factor of the branch.

    Raises:
        InputError: if the name is unknown or the number is not in (0, 1].
    """
    if isinstance(branch, str):
        if branch not in BRANCHES:
            raise InputError(f"unknown branch scale {branch!r}; known are {', '.join(BRANCHES)}.")
        factor, power = BRANCHES[branch]
        value: float = factor / layers**power
    else:
        value = float(branch)
    if not 0 < value <= 1:
        raise InputError(f"branch must be in (0, 1], so that a skip of sqrt(1 - branch^2) exists, got {value!r}.")
    return value


def draw_sample(config: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Draw the one sample of a cell.

    Args:
        config: of the cell.

    Returns:
        Inputs (1, inputs), normal with mean square norm 1, and a target (1, 1).
    """
    generator = make_generator(config["draw"], "sample")
    dtype = getattr(torch, config["dtype"])
    inputs = torch.randn(1, config["inputs"], generator=generator, dtype=torch.float64) / np.sqrt(config["inputs"])
    target = torch.randn(1, 1, generator=generator, dtype=torch.float64)
    if config["target"] != "random":
        target = torch.full((1, 1), float(config["target"]), dtype=torch.float64)
    return inputs.to(dtype), target.to(dtype)


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    """Give half the squared error, summed over outputs, mean over samples.

    Args:
        outputs: outputs (n, k).
        targets: targets (n, k).

    Returns:
        The loss.
    """
    return (outputs - targets).square().sum(dim=1).mean() / 2


def balanced_update(model: ResidualMLP, batch: tuple[Tensor, Tensor], step: float, layers: int) -> dict[str, Tensor]:
    """Give the displacement by gradient descent to which every block contributes the same loss decay.

    Args:
        model: the net.
        batch: inputs and targets.
        step: loss decay of all L layers together, if all were trained.
        layers: L.

    Returns:
        Parameter name to displacement, for the weights of the blocks.
    """
    weights = {name: weight for name, weight in model.named_parameters() if name.startswith("blocks.")}
    loss = half_square(model(batch[0]), batch[1])
    gradients = torch.autograd.grad(loss, list(weights.values()))
    return {
        name: gradient * -(step / layers / float(torch.linalg.vector_norm(gradient, dtype=torch.float64)) ** 2)
        for name, gradient in zip(weights, gradients, strict=True)
    }


def _describe(
    values: Mapping[str, tuple[tuple[str, ...], Any]], coordinates: Mapping[str, Any], config: Mapping[str, Any]
) -> xr.Dataset:
    variables = {}
    for name, (dimensions, value) in values.items():
        long_name, units = _MEANINGS[name]
        variables[name] = (dimensions, value, {"long_name": long_name, "units": units, "source": SOURCE})
    return histories.build(variables, coordinates, config=dict(config), attributes={"threads": torch.get_num_threads()})
