"""Training reference networks as the cells of a sweep: settings in, load curves and accuracies out."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import xarray as xr

from learnmech import history as histories
from learnmech.data import Dataset
from learnmech.errors import InputError
from learnmech.experiments.observing import observe
from learnmech.experiments.settings import WatchSettings, build_net, load_data, make_train_config
from learnmech.monitor.monitor import Monitor
from learnmech.springs import curvature, end_difference, linearity
from learnmech.training import Trainer, TrainResult, train_members
from learnmech.training.batches import steps_in_epoch

STACKABLE = (
    "slope",
    "dropout",
    "noise",
    "label_noise",
    "data_noise",
    "lr",
    "momentum",
    "weight_decay",
    "init",
    "init_scale",
    "seed",
)
"""Settings in which networks may differ and still be trained as one computation."""
CURVES = {"load": "", "load_held_out": "_held_out", "load_pinv": "_pinv"}
"""The load curves of a cell, and what their shape numbers are called after ``curvature``, ``linearity``, ``end_difference``."""
_RUN = "the training run"
_MEANINGS = {
    "test_accuracy": ("accuracy on the test samples", "share, 0 to 1"),
    "train_accuracy": ("accuracy on the clean training samples", "share, 0 to 1"),
    "test_loss": ("loss on the test samples", "as the loss function gives it"),
    "train_loss": ("mean loss of the last epoch, with noise and dropout", "as the loss function gives it"),
    "epochs_done": ("epochs that were completed", "epochs"),
    "steps_done": ("optimizer steps that were taken", "steps"),
    "train_seconds": ("wall-clock time inside training steps", "seconds"),
}
_SHAPES = {
    "curvature": (curvature, "parabola coefficient q of the normalised load curve", "< 0 concave, > 0 convex"),
    "linearity": (linearity, "R squared of the load curve", "0 to 1"),
    "end_difference": (end_difference, "first contribution minus last, c", "units of the load; < 0 concave"),
}


def read_config(config: Mapping[str, Any]) -> tuple[WatchSettings, int]:
    """Turn the configuration of a cell into settings.

    Args:
        config: names and values of :class:`~learnmech.experiments.WatchSettings`, and two more: ``noise`` sets label noise
            and data noise together, ``probes`` asks for curves during training.

    Returns:
        The settings, and the number of probes during training (0: at the end only).

    Raises:
        InputError: for a name that is none of these, or for ``noise`` beside one of its parts.
    """
    values = dict(config)
    probes = int(values.pop("probes", 0))
    known = {field.name for field in dataclasses.fields(WatchSettings)}
    unknown = sorted(set(values) - known - {"noise"})
    if unknown:
        raise InputError(
            f"unknown settings {', '.join(unknown)} of a network; known are {', '.join(sorted(known | {'noise', 'probes'}))}."
        )
    if "noise" in values:
        if {"label_noise", "data_noise"} & set(values):
            raise InputError("noise sets label_noise and data_noise together; give either it or those two.")
        values["label_noise"] = values["data_noise"] = values.pop("noise")
    return WatchSettings(**values), probes


def train_network(config: Mapping[str, Any]) -> xr.Dataset:
    """Train one network and measure its load curves: a cell of a sweep.

    Args:
        config: see :func:`read_config`.

    Returns:
        A history over ``layer`` (and ``step``, with ``probes``): ``load``, ``load_held_out`` and, for classes,
        ``load_pinv``, with the shape numbers of each; accuracies, losses and how training ended. Layers are named by their
        position, ``input``, ``1``, ..., ``readout``, so that networks of different kinds can be compared.
    """
    settings, probes = read_config(config)
    dataset = load_dataset(settings)
    model = build_net(settings, dataset)
    trainer = Trainer(model, dataset, make_train_config(settings, dataset))
    if not probes:
        result = trainer.fit()
        return describe_cell(observe(model, dataset, trainer.config.loss), result, config, steps=False)
    steps = settings.epochs * steps_in_epoch(len(dataset.train_inputs), settings.batch)
    monitor = observe(model, dataset, trainer.config.loss, optimizer=trainer.optimizer, every=max(1, steps // probes))
    result = trainer.fit()
    monitor.close()
    return describe_cell(monitor, result, config, steps=True)


def train_stacked_networks(configs: Sequence[Mapping[str, Any]]) -> list[xr.Dataset]:
    """Train several networks of one shape as one computation; they may differ in the settings of :data:`STACKABLE`.

    Args:
        configs: one configuration a network, without ``probes``.

    Returns:
        What :func:`train_network` returns, for each; in float32 equal to it up to rounding.

    Raises:
        InputError: if curves during training are asked for.
    """
    read = [read_config(config) for config in configs]
    if any(probes for _, probes in read):
        raise InputError("networks that are trained as one are measured at the end only; leave probes at 0.")
    dataset = load_dataset(read[0][0])
    models = [build_net(settings, dataset) for settings, _ in read]
    train_configs = [make_train_config(settings, dataset) for settings, _ in read]
    results = train_members(models, dataset, train_configs, stack=True)
    return [
        describe_cell(observe(model, dataset, train_config.loss), result, config, steps=False)
        for model, train_config, result, config in zip(models, train_configs, results, configs, strict=True)
    ]


@dataclass(frozen=True)
class StackedNetworks:
    """The same experiment as :func:`train_network`, with cells that can be trained as one computation.

    Attributes:
        stackable: axes that may differ inside a stack.
        group_size: networks in a stack at the most.
        import_name: where a process that works on a sweep finds it.
    """

    import_name = f"{__name__}:stacked_networks"
    stackable = STACKABLE
    group_size = 16

    def __call__(self, config: Mapping[str, Any]) -> xr.Dataset:
        """Train one network, see :func:`train_network`.

        Args:
            config: its configuration.

        Returns:
            Its history.
        """
        return self.run_stacked([config])[0]

    def run_stacked(self, configs: Sequence[Mapping[str, Any]]) -> list[xr.Dataset]:
        """Train several networks as one, see :func:`train_stacked_networks`.

        Args:
            configs: their configurations.

        Returns:
            Their histories.
        """
        return train_stacked_networks(configs)


stacked_networks = StackedNetworks()


@lru_cache(maxsize=4)
def _load_once(key: tuple[Any, ...]) -> Dataset:
    return load_data(WatchSettings(**dict(key)))


def load_dataset(settings: WatchSettings) -> Dataset:
    """Load the data of a cell; the last few data sets are kept in memory, as cells of a sweep share theirs.

    Args:
        settings: the settings.

    Returns:
        The data set.
    """
    names = ("data", "data_dir", "samples", "image_size", "antialias", "regression")
    return _load_once(tuple((name, getattr(settings, name)) for name in names))


def describe_cell(monitor: Monitor, result: TrainResult, config: Mapping[str, Any], *, steps: bool) -> xr.Dataset:
    """Gather what a sweep keeps of a trained network.

    Args:
        monitor: a monitor with the spring instrument that has measured the network.
        result: how its training ended.
        config: the configuration of the cell.
        steps: whether to keep the curves of every probe, or those of the last only.

    Returns:
        A history.
    """
    watched = monitor.history
    roles = list(watched["role"].values)
    names = [role if role in ("input", "readout") else str(position) for position, role in enumerate(roles)]
    if "input" not in roles:  # counted from one, so that layer l is the l-th that learns
        names = [name if name == "readout" else str(position + 1) for position, name in enumerate(names)]
    lead = ("step",) if steps else ()
    variables: dict[str, Any] = {}
    counted = [position for position, role in enumerate(roles) if role != "readout"]
    for name, ending in CURVES.items():
        if name not in watched:
            continue
        curve = watched[name].values if steps else watched[name].values[-1]
        meaning = {**watched["load_pinv" if name == "load_pinv" else "load"].attrs}
        if name == "load_held_out":
            meaning["long_name"] = "load of each layer on test samples"
        variables[name] = ((*lead, "layer"), curve, meaning)
        for shape, (compute, long_name, scale) in _SHAPES.items():
            value = compute(curve[..., counted]).numpy() if len(counted) > 2 else np.full(curve.shape[:-1], np.nan)
            variables[shape + ending] = (
                lead,
                value,
                {"long_name": f"{long_name}, of {name}", "scale": scale, "source": meaning["source"]},
            )
    values = {
        "test_accuracy": result.test_accuracy,
        "train_accuracy": result.train_accuracy,
        "test_loss": result.test_loss,
        "train_loss": result.epoch_losses[-1] if result.epoch_losses else np.nan,
        "epochs_done": result.epochs,
        "steps_done": result.steps,
        "train_seconds": result.seconds,
    }
    for name, number in values.items():
        long_name, units = _MEANINGS[name]
        variables[name] = ((), float(number), {"long_name": long_name, "units": units, "source": _RUN})
    coordinates: dict[str, Any] = {
        "layer": names,
        "depth": ("layer", np.linspace(0, 1, len(names)) if len(names) > 1 else np.zeros(1)),
        "role": ("layer", roles),
    }
    if steps:
        coordinates["step"] = watched["step"].values
    return histories.build(
        variables,
        coordinates,
        config=dict(config),
        attributes={
            "citations": ["shi2024"],
            "data_fingerprint": watched.attrs.get("data_fingerprint", ""),
            "stopped_because": result.stopped_because,
            "threads": torch.get_num_threads(),
        },
    )


def without_readout(history: xr.Dataset) -> xr.Dataset:
    """Leave the read-out out, as the paper's load curves do.

    Args:
        history: over ``layer``, with ``role``.

    Returns:
        The history up to the last hidden layer.
    """
    return history.isel(layer=np.flatnonzero(history["role"].values != "readout"))
