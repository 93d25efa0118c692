"""The main job: train a network on a data set, watch it, keep history, verdict and report in one folder."""

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # noqa: F401 (the first optimizer imports it anyway, some 2 s: better now than in the middle of a run)
import xarray as xr

from learnmech import history as histories
from learnmech.data import Dataset
from learnmech.errors import LearnmechWarning, StorageError
from learnmech.experiments.observing import observe
from learnmech.experiments.settings import WatchSettings, build_net, load_data, make_train_config
from learnmech.files import require_writable_folder
from learnmech.monitor.monitor import Monitor
from learnmech.monitor.verdict import Verdict, read_verdict
from learnmech.report import write_report
from learnmech.training import Trainer, TrainResult
from learnmech.training.batches import steps_in_epoch

_PROBES = 10
"""Probes in a run, besides the one before training, unless the user says how often."""


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
    config = make_train_config(settings, dataset)
    trainer = Trainer(model, dataset, config, folder=folder)
    steps = settings.epochs * steps_in_epoch(len(dataset.train_inputs), config.batch_size)
    monitor = observe(
        model,
        dataset,
        config.loss,
        measures=settings.measures,
        optimizer=trainer.optimizer,
        every=settings.every or max(1, steps // _PROBES),
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
