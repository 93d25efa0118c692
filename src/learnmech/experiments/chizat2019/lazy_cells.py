"""The cell of the lazy figure: one MLP at one output scale, trained and watched."""

import dataclasses
import math
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from learnmech import data as datasets
from learnmech import history as histories
from learnmech.data import Dataset
from learnmech.dynamics.output_scale import OutputScale, scaled_rate
from learnmech.errors import InputError
from learnmech.experiments.observing import observe
from learnmech.training import TrainConfig, Trainer, build_seeded
from learnmech.training.batches import steps_in_epoch

REGIMES = ("unknown", "too_early", "lazy", "undecided", "delayed_rich", "rich")
"""Findings of the instrument ``regime``, by the number that stands for them in a history."""
_PROBES = 12
_RUN = "the training run"
_MEANINGS: Mapping[str, tuple[str, str]] = {
    "train_accuracy": ("accuracy on the training samples", "share, 0 to 1"),
    "test_accuracy": ("accuracy on the test samples", "share, 0 to 1"),
    "train_loss": ("mean squared error of the last epoch, not divided by the output scale", "0 at a perfect fit"),
    "regime": (f"reading of the instrument regime: position in {', '.join(REGIMES)}", "position, from 0"),
    "curvature": ("parabola coefficient of the normalised load curve at the end", "< 0 concave, > 0 convex"),
    "train_seconds": ("wall-clock time inside training steps", "seconds"),
}
_KEPT = ("centred_kernel_distance", "kernel_distance", "parameter_distance", "kernel_alignment", "loss")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LazySetup:
    """How a scaled net is made and trained.

    Attributes:
        data: name of the data set, see :func:`learnmech.data.load`; it must have classes.
        data_dir: folder with its files; None for ``LEARNMECH_DATA`` or a download.
        samples: training samples, or as many as there are.
        image_size: images are resized to this height and width; None keeps them.
        output_scale: factor α on the output, which is zero at the start.
        depth: weight layers.
        width: hidden neurons.
        learning_rate: at scale 1; others take it over α².
        momentum: of SGD.
        batch: samples of a step.
        epochs: passes over the data.
        seed: of the initial weights and the order of batches.
    """

    data: str = "digits"
    data_dir: str | None = None
    samples: int = 1347
    image_size: int | None = None
    output_scale: float = 1.0
    depth: int = 6
    width: int = 100
    learning_rate: float = 0.6
    momentum: float = 0.9
    batch: int = 256
    epochs: int = 100
    seed: int = 0


@lru_cache(maxsize=4)
def _load_once(name: str, folder: str | None, samples: int, image_size: int | None) -> Dataset:
    whole = {"digits": 1347}.get(name)
    count = None if whole is not None and samples >= whole else samples
    found = datasets.load(name, folder=folder, train_samples=count, image_size=image_size).flatten()
    if found.classes is None:
        raise InputError(f"expected a data set with classes, but {name!r} is a regression.")
    return found


def build_net(inputs: int, outputs: int, setup: LazySetup) -> OutputScale:
    """Build a ReLU net with He's initial weights and zero biases, behind an output scale.

    Args:
        inputs: numbers a sample.
        outputs: classes.
        setup: sizes and scale.

    Returns:
        The net; its layers are ``net.hidden_1``, ..., ``net.readout``.
    """

    def build() -> nn.Sequential:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        before = inputs
        for position in range(1, setup.depth):
            layers[f"hidden_{position}"] = linear = nn.Linear(before, setup.width)
            layers[f"relu_{position}"] = nn.ReLU()
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
            before = setup.width
        layers["readout"] = readout = nn.Linear(before, outputs)
        nn.init.normal_(readout.weight, std=1 / math.sqrt(before))
        nn.init.zeros_(readout.bias)
        return nn.Sequential(layers)

    return OutputScale(build_seeded(build, setup.seed), setup.output_scale)


def train_scaled(config: Mapping[str, Any]) -> xr.Dataset:
    """Train an MLP behind an output scale by momentum SGD on squared errors, and watch springs and regime.

    Args:
        config: names and values of :class:`LazySetup`.

    Returns:
        A history over ``step`` and ``layer``: kernel distance, load curve and what goes with them; accuracies and the reading of
        the regime without ``step``.

    Raises:
        InputError: for an unknown setting, or data without classes.
        KeyboardInterrupt: after Ctrl-C, so that a part of a training is not kept as a cell that is done.
    """
    known = {field.name for field in dataclasses.fields(LazySetup)}
    if unknown := sorted(set(config) - known):
        raise InputError(
            f"unknown settings {', '.join(unknown)} of a scaled net; known are {', '.join(sorted(known))}."
        )
    setup = LazySetup(**config)
    dataset = _load_once(setup.data, setup.data_dir, setup.samples, setup.image_size)
    net = build_net(dataset.input_shape[0], dataset.outputs, setup)
    training = TrainConfig(
        epochs=setup.epochs,
        batch_size=setup.batch,
        optimizer="sgd",
        lr=scaled_rate(setup.learning_rate, setup.output_scale),
        momentum=setup.momentum,
        loss="mse",
        seed=setup.seed,
        stop_loss=0.0,
        stop_change=0.0,
    )
    trainer = Trainer(net, dataset, training)
    steps = setup.epochs * steps_in_epoch(len(dataset.train_inputs), training.batch_size)
    monitor = observe(
        net,
        dataset,
        "mse",
        measures=["springs", "regime"],
        optimizer=trainer.optimizer,
        every=max(1, steps // _PROBES),
    )
    result = trainer.fit()
    monitor.close()
    if result.stopped_because == "interrupted":
        raise KeyboardInterrupt
    watched = monitor.history
    codes = [finding.code for finding in monitor.verdict().findings if finding.code.startswith("regime.")]
    return _describe(watched, _regime(codes), result, config)


def _regime(codes: list[str]) -> int:
    name = codes[0].removeprefix("regime.") if codes else "unknown"
    return REGIMES.index(name) if name in REGIMES else 0


def _describe(watched: xr.Dataset, regime: int, result: Any, config: Mapping[str, Any]) -> xr.Dataset:
    variables: dict[str, Any] = {
        name: (watched[name].dims, watched[name].values, dict(watched[name].attrs)) for name in (*_KEPT, "load")
    }
    values = {
        "train_accuracy": result.train_accuracy,
        "test_accuracy": result.test_accuracy,
        "train_loss": result.epoch_losses[-1] if result.epoch_losses else np.nan,
        "regime": regime,
        "curvature": float(watched["curvature"].isel(step=-1)),
        "train_seconds": result.seconds,
    }
    for name, number in values.items():
        long_name, scale = _MEANINGS[name]
        variables[name] = ((), float(number), {"long_name": long_name, "scale": scale, "source": _RUN})
    coordinates = {
        "step": watched["step"].values,
        "layer": [str(name) for name in watched["layer"].values],
        "depth": ("layer", watched["depth"].values),
        "role": ("layer", watched["role"].values),
    }
    return histories.build(variables, coordinates, config=dict(config), attributes={"threads": torch.get_num_threads()})
