"""The main job: train a network on a data set, watch it, keep history, verdict and report in one folder."""

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch._dynamo  # noqa: F401 (the first optimizer imports it anyway, some 2 s: better now than in the middle of a run)
import xarray as xr
from torch import nn

from learnmech import data as datasets
from learnmech import history as histories
from learnmech.data import Dataset
from learnmech.errors import InputError, LearnmechWarning, StorageError
from learnmech.files import require_writable_folder
from learnmech.monitor.monitor import Monitor, watch
from learnmech.monitor.verdict import Verdict, read_verdict
from learnmech.nets import CNN, MLP
from learnmech.report import write_report
from learnmech.training import TrainConfig, Trainer, TrainResult, build_seeded, make_loss

_PROBES = 10
"""Probes in a run, besides the one before training, unless the user says how often."""
_HELD_OUT = 2560
"""Test samples on which the held-out curve is measured; the accuracy at the end is of all of them."""


@dataclass(frozen=True, kw_only=True)
class WatchSettings:
    """What to train and how, with the settings of Shi, Pan, Dokmanić 2024 as defaults.

    Attributes:
        data: ``digits``, ``mnist``, ``fashion_mnist``, ``cifar10`` or ``csv:PATH``.
        data_dir: folder with the data; None for ``LEARNMECH_DATA`` or a download.
        samples: training samples, or as many as there are; None for all.
        image_size: images are resized to this height and width; None keeps them. 10 is the paper's.
        net: ``mlp`` or ``cnn``.
        depth: weight layers, the read-out included.
        width: units of a layer (``mlp``) or channels (``cnn``).
        slope: of the LeakyReLU: 0 is ReLU, 1 is linear.
        dropout: rate behind every hidden layer.
        batch_norm: whether to normalise.
        init: scheme of the initial weights, see :func:`learnmech.nets.initialise`.
        init_scale: factor on the initial weights.
        label_noise: share of labels replaced in each batch.
        data_noise: strength of the noise on each batch, in standard deviations of its inputs.
        lr: learning rate.
        batch: samples in a batch; None for all.
        optimizer: ``adam``, ``adamw`` or ``sgd``.
        momentum: of ``sgd``.
        weight_decay: weight decay.
        loss: ``cross_entropy`` or ``mse``; None for the one that suits the targets.
        epochs: passes over the data.
        seed: of initial weights, batch order, dropout and noise.
        every: optimizer steps between probes; None for about ten probes in the run.
        measures: preset or instrument of ``watch``.
    """

    data: str = "mnist"
    data_dir: Path | None = None
    samples: int | None = 2560
    image_size: int | None = 10
    net: Literal["mlp", "cnn"] = "mlp"
    depth: int = 8
    width: int = 100
    slope: float = 0.0
    dropout: float = 0.0
    batch_norm: bool = True
    init: str = "torch"
    init_scale: float = 1.0
    label_noise: float = 0.0
    data_noise: float = 0.0
    lr: float = 1e-3
    batch: int | None = None
    optimizer: str = "adam"
    momentum: float = 0.0
    weight_decay: float = 0.0
    loss: str | None = None
    epochs: int = 100
    seed: int = 0
    every: int | None = None
    measures: str = "standard"


@dataclass(frozen=True)
class WatchedRun:
    """What came out of :func:`train_and_watch`.

    Attributes:
        history: everything measured.
        verdict: what it means.
        result: how training ended.
        history_path: where the history was saved, or None if it could not be.
        report_path: where the report was saved, or None if it could not be.
    """

    history: xr.Dataset
    verdict: Verdict
    result: TrainResult
    history_path: Path | None
    report_path: Path | None

    def to_dict(self) -> dict[str, Any]:
        """Give the outcome as plain values for machines.

        Returns:
            ``accuracy`` (test, 0 to 1), ``regime``, ``end_difference``, ``linearity``, ``curvature``, ``load`` (the curve
            that these are of: normalised input to last hidden layer), the paths ``history`` and ``report``, and more.
        """
        last = self.history.isel(step=-1)
        counted = last["role"].values != "readout"
        numbers = {
            name: _finite(last[name]) for name in ("end_difference", "linearity", "curvature", "curvature_error")
        }
        held_out = last["load_held_out"].values[counted] if "load_held_out" in last else np.array([])
        return {
            "accuracy": _finite(self.result.test_accuracy),
            "regime": self.verdict.regime,
            **numbers,
            "load": [_finite(value) for value in last["load"].values[counted]],
            "load_held_out": [_finite(value) for value in held_out],
            "load_readout": [_finite(value) for value in last["load"].values[~counted]],
            "layers": [str(name) for name in last["layer"].values[counted]],
            "train_accuracy": _finite(self.result.train_accuracy),
            "test_loss": _finite(self.result.test_loss),
            "epochs": self.result.epochs,
            "steps": self.result.steps,
            "stopped_because": self.result.stopped_because,
            "findings": [finding.code for finding in self.verdict.findings],
            "history": None if self.history_path is None else str(self.history_path),
            "report": None if self.report_path is None else str(self.report_path),
        }


def load_data(settings: WatchSettings) -> Dataset:
    """Load the data set that the settings name, cut and resized as they say.

    Args:
        settings: the settings.

    Returns:
        The data set.
    """
    if settings.data != "digits" and not settings.data.startswith("csv:"):
        return datasets.load(
            settings.data, folder=settings.data_dir, train_samples=settings.samples, image_size=settings.image_size
        )
    # Small sets, which may have fewer samples than asked for, and images of a size of their own.
    whole = datasets.load(settings.data, folder=settings.data_dir)
    if settings.samples is None or settings.samples >= len(whole.train_inputs):
        return whole
    return datasets.load(settings.data, folder=settings.data_dir, train_samples=settings.samples)


def build_net(settings: WatchSettings, dataset: Dataset) -> nn.Module:
    """Build the network that the settings describe, with weights drawn by their seed.

    Args:
        settings: the settings.
        dataset: what it shall be trained on.

    Returns:
        The network.

    Raises:
        InputError: for an unknown kind, or a convolutional net on data without height and width.
    """
    common: dict[str, Any] = {
        "depth": settings.depth,
        "slope": settings.slope,
        "dropout": settings.dropout,
        "batch_norm": settings.batch_norm,
        "init": settings.init,
        "init_scale": settings.init_scale,
    }
    shape = dataset.input_shape
    if settings.net == "mlp":
        return build_seeded(
            lambda: MLP(int(np.prod(shape)), dataset.outputs, width=settings.width, **common), settings.seed
        )
    if settings.net == "cnn":
        if len(shape) != 3:
            raise InputError(
                f"net='cnn' needs images (channels, height, width), but {dataset.name} has inputs {shape}."
            )
        return build_seeded(
            lambda: CNN((shape[0], shape[1], shape[2]), dataset.outputs, channels=settings.width, **common),
            settings.seed,
        )
    raise InputError(f"unknown net {settings.net!r}: expected 'mlp' or 'cnn'.")


def train_and_watch(
    settings: WatchSettings,
    out: str | Path,
    *,
    dataset: Dataset | None = None,
    resume: bool = False,
    on_epoch: Callable[[Trainer, int], None] | None = None,
) -> WatchedRun:
    """Train, watch, and leave ``history.nc``, ``report.html`` and ``checkpoint.pt`` in a folder.

    After Ctrl-C (the result says so) or a kill, the same call with ``resume`` goes on and ends with the same numbers.

    Args:
        settings: what to do.
        out: the folder.
        dataset: the data, if it is loaded already.
        resume: whether to go on from the folder's checkpoint, if it has one; otherwise training starts anew.
        on_epoch: called with the trainer and the number of epochs wanted after every epoch, for progress bars.

    Returns:
        What came out. A file that cannot be written at the end (a full disk) is warned of, and its path is None; the
        numbers are still returned.
    """
    folder = require_writable_folder(out)
    dataset = load_data(settings) if dataset is None else dataset
    model = build_net(settings, dataset)
    config = _train_config(settings, dataset)
    trainer = Trainer(model, dataset, config, folder=folder)
    steps_in_epoch = -(-len(dataset.train_inputs) // (config.batch_size or len(dataset.train_inputs)))
    every = settings.every or max(1, steps_in_epoch * settings.epochs // _PROBES)
    monitor = watch(
        model,
        (dataset.train_inputs, dataset.train_targets),
        make_loss(config.loss, dataset.classes),
        optimizer=trainer.optimizer,
        every=every,
        measures=settings.measures,
        held_out=(dataset.test_inputs[:_HELD_OUT], dataset.test_targets[:_HELD_OUT])
        if len(dataset.test_inputs) > 1
        else None,
        config=_described(settings, dataset),
    )
    trainer.stateful["monitor"] = monitor
    if resume:
        trainer.resume()
    result = trainer.fit(on_epoch=None if on_epoch is None else lambda at: on_epoch(at, settings.epochs))
    monitor.close()
    return _finish(monitor, result, folder)


def _finish(monitor: Monitor, result: TrainResult, folder: Path) -> WatchedRun:
    history = monitor.history
    writers: dict[str, Callable[[Path], Path]] = {
        "history.nc": lambda path: histories.save(history, path),
        "report.html": lambda path: write_report(history, path),
    }
    written: dict[str, Path | None] = {}
    for name, write in writers.items():
        try:
            written[name] = write(folder / name)
        except StorageError as error:
            warnings.warn(f"{error} The numbers are printed and returned all the same.", LearnmechWarning, stacklevel=3)
            written[name] = None
    return WatchedRun(history, read_verdict(history), result, written["history.nc"], written["report.html"])


def _train_config(settings: WatchSettings, dataset: Dataset) -> TrainConfig:
    return TrainConfig(
        epochs=settings.epochs,
        batch_size=settings.batch,
        optimizer=settings.optimizer,  # type: ignore[arg-type]
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        loss=settings.loss or ("mse" if dataset.classes is None else "cross_entropy"),  # type: ignore[arg-type]
        label_noise=settings.label_noise,
        data_noise=settings.data_noise,
        seed=settings.seed,
    )


def _described(settings: WatchSettings, dataset: Dataset) -> dict[str, Any]:
    described = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    for name in ("every", "measures", "optimizer", "lr", "momentum", "weight_decay", "loss", "data_dir", "batch"):
        del described[name]  # the monitor notes them itself, or they do not matter
    return {
        **described,
        "batch_size": settings.batch or len(dataset.train_inputs),
        "data": dataset.name,
        "data_source": dataset.source,
        "threads": torch.get_num_threads(),
    }


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None
