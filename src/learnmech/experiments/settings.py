"""What to train and how: one record that names data, network and training, and what it turns into."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from learnmech import data as datasets
from learnmech.data import Dataset, class_number_regression
from learnmech.errors import InputError
from learnmech.nets import CNN, MLP
from learnmech.training import TrainConfig, build_seeded


@dataclass(frozen=True, kw_only=True)
class WatchSettings:
    """What to train and how, with the settings of Shi, Pan, Dokmanić 2024 as defaults.

    Attributes:
        data: ``digits``, ``mnist``, ``fashion_mnist``, ``cifar10`` or ``csv:PATH``.
        data_dir: folder with the data; None for ``LEARNMECH_DATA`` or a download.
        samples: training samples, or as many as there are; None for all.
        image_size: images are resized to this height and width; None keeps them. 10 is the paper's.
        antialias: how images are resized, see :func:`learnmech.data.resize`; accuracy depends on it.
        regression: whether to learn the number of the class as a real-valued target, standardised.
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
    antialias: bool = True
    regression: bool = False
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


def load_data(settings: WatchSettings) -> Dataset:
    """Load the data set that the settings name, cut and resized as they say.

    Args:
        settings: the settings.

    Returns:
        The data set.
    """
    dataset = _load_as_it_is(settings)
    return class_number_regression(dataset) if settings.regression else dataset


def _load_as_it_is(settings: WatchSettings) -> Dataset:
    if settings.data != "digits" and not settings.data.startswith("csv:"):
        return datasets.load(
            settings.data,
            folder=settings.data_dir,
            train_samples=settings.samples,
            image_size=settings.image_size,
            antialias=settings.antialias,
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


def make_train_config(settings: WatchSettings, dataset: Dataset) -> TrainConfig:
    """Give the settings of the training that the settings describe.

    Args:
        settings: the settings.
        dataset: what shall be trained on; it decides the loss if the settings leave it open.

    Returns:
        Settings of a :class:`learnmech.training.Trainer`.
    """
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
