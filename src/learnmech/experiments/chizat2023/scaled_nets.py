"""Plain ReLU nets in a named scaling as the cells of a sweep: the four numbers that a scaling makes promises about."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from learnmech import history as histories
from learnmech.experiments.chizat2023.starting_nets import SOURCE
from learnmech.nets import ResidualMLP
from learnmech.speed.measuring import SpeedMeasurement
from learnmech.speed.scalings import Priority, Scaling, scaling
from learnmech.training.seeds import build_seeded, make_generator

KINDS: Mapping[str, tuple[str, Priority]] = {
    "NTK": ("ntk", "loss_decay"),
    "mean field, for loss": ("mean_field", "loss_decay"),
    "mean field, for features": ("mean_field", "feature_learning"),
    "FSC": ("fsc", "loss_decay"),
}
"""Name of a scaling to ``kind`` and ``priority`` of :func:`learnmech.speed.scaling`."""
QUANTITIES = {
    "sensitivity": ("root mean square of the last feature's change over the loss decay", "1 / loss"),
    "speed_rms": ("root mean square of the last feature's change", "1"),
    "loss_decay": ("first-order decrease of the loss", "loss"),
    "balance": ("least share of an input layer, a mean hidden layer and a read-out in the loss decay, times L", "1"),
}
"""Feature learning, loss decay and balanced contributions, and the ratio of the first two."""


def scaling_of(name: str, width: int, layers: int, inputs: int) -> Scaling:
    """Give the scaling of a cell.

    Args:
        name: in :data:`KINDS`.
        width: features of a layer.
        layers: weight layers, embedding and read-out included.
        inputs: inputs of the net.

    Returns:
        The scaling, for gradient descent and one output.
    """
    kind, priority = KINDS[name]
    return scaling(kind, width=width, depth=layers, d_in=inputs, d_out=1, priority=priority)


def measure_scaled(config: Mapping[str, Any]) -> xr.Dataset:
    """Measure the first step of gradient descent of a plain ReLU net in every scaling: a cell of a sweep.

    The scalings differ in the size of the read-out's weights and in the learning rates, so that one net, its read-out
    multiplied, stands for all. All layers are trained. The loss is the output itself of one sample, whose derivative, the
    error of the output, is 1 in every draw.

    Args:
        config: ``net`` (a name in ``nets``), ``nets`` (name to ``width`` and ``layers``), ``inputs``, ``draw``, ``dtype``.

    Returns:
        A history over ``scaling`` with the numbers in :data:`QUANTITIES`.
    """
    size = config["nets"][config["net"]]
    layers, width, inputs = size["layers"], size["width"], config["inputs"]
    chosen = {name: scaling_of(name, width, layers, inputs) for name in KINDS}
    start = chosen["NTK"].init_std
    dtype = getattr(torch, config["dtype"])
    model = build_seeded(
        lambda: ResidualMLP(
            inputs,
            1,
            width=width,
            depth=layers - 2,
            skip=0.0,
            branch=1.0,
            input_std=start["input"],
            hidden_std=start["hidden"],
            output_std=1.0,
        ),
        config["draw"],
    ).to(dtype)
    sample = torch.randn(1, inputs, generator=make_generator(config["draw"], "sample"), dtype=torch.float64)
    sample = (sample * np.sqrt(inputs) / sample.norm()).to(dtype)
    measurement = SpeedMeasurement(
        model, (sample, torch.zeros(1, 1, dtype=dtype)), mean_output, nodes=[f"blocks.{layers - 3}"]
    )
    drawn = model.readout.weight.detach().clone()
    rows = []
    for named in chosen.values():
        with torch.no_grad():
            model.readout.weight.copy_(drawn * named.init_std["output"])
        rows.append(_read(measurement.measure(_optimizer(model, named.learning_rate), real_step=False), layers))
    return histories.build(
        {
            name: (
                ("scaling",),
                [row[name] for row in rows],
                {"long_name": long_name, "units": units, "source": SOURCE},
            )
            for name, (long_name, units) in QUANTITIES.items()
        },
        {"scaling": list(chosen)},
        config=dict(config),
        attributes={"threads": torch.get_num_threads()},
    )


def mean_output(outputs: Tensor, targets: Tensor) -> Tensor:
    """Give the mean output, a loss whose derivative by the output of a sample is 1.

    Args:
        outputs: outputs (n, 1).
        targets: not used.

    Returns:
        The loss.
    """
    del targets
    return outputs.mean()


def _optimizer(model: ResidualMLP, rates: Mapping[str, float]) -> torch.optim.Optimizer:
    parts = {"input": model.embedding, "hidden": model.blocks, "output": model.readout}
    return torch.optim.SGD([{"params": list(part.parameters()), "lr": rates[role]} for role, part in parts.items()])


def _read(measured: xr.Dataset, layers: int) -> dict[str, float]:
    last = measured.isel(layer=np.flatnonzero(measured["role"].values == "block")[-1])
    decay = float(measured["total_decay"])
    shares: dict[str, list[float]] = {}
    for name, value in zip(measured["parameter"].values, measured["parameter_decay"].values, strict=True):
        shares.setdefault(str(name).split(".")[0], []).append(float(value) / decay)
    return {
        "sensitivity": float(last["sensitivity"]),
        "speed_rms": float(last["speed_rms"]),
        "loss_decay": decay,
        "balance": layers * min(float(np.mean(part)) for part in shares.values()),
    }
