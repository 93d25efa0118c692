"""Leaky ResNets that classify images, as the cells of a sweep: accuracies, and where and how narrow the bottleneck is."""

import dataclasses
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from learnmech import data as datasets
from learnmech import history as histories
from learnmech.data import Dataset
from learnmech.errors import InputError
from learnmech.experiments.jacot2024.setups import make_settings
from learnmech.leaky.data_costs import CostName
from learnmech.leaky.network import LeakyResNet
from learnmech.leaky.profiles import profile
from learnmech.leaky.training import train
from learnmech.leaky.training_result import LeakyTraining
from learnmech.leaky.training_settings import LeakySettings
from learnmech.training.seeds import build_seeded

DIRECTIONS = 16
"""Singular values that are kept of each matrix."""
_SOURCE = "learnmech"
# name -> (what it is, scale)
MEANINGS: Mapping[str, tuple[str, str]] = {
    "train_accuracy": ("accuracy on the training samples", "share, 0 to 1"),
    "test_accuracy": ("accuracy on the test samples", "share, 0 to 1"),
    "linear_accuracy": ("accuracy on the test samples of logistic regression on the same inputs", "share, 0 to 1"),
    "least_identity_cost": ("identity cost at the narrowest representation", "dimensions; falls as the ridge grows"),
    "bottleneck_depth": ("depth of the narrowest representation: that of least identity cost", "0 input, 1 output"),
    "bottleneck_dimension": (
        "singular values above half the largest, of the weights that follow the narrowest representation",
        "directions",
    ),
    "next_direction": (
        "first singular value of those weights that is not kept, over the last that is",
        "0 to 1; near 0 the number of directions does not hang on the threshold",
    ),
    "median_effective_dimension": ("median over layers of the pre-Hamiltonian's effective dimension", "dimensions"),
    "bottleneck_negativity": ("norm of the negative part of the narrowest representation over its norm", "0 to 1"),
    "residual": ("median over layers of the stationarity residual", "relative; 0 at a critical point"),
    "stationary": ("whether that is below the limit for reading Hamiltonians", "1 yes, 0 no"),
    "collapsed": ("whether the net trained to zero", "1 yes, 0 no"),
    "train_seconds": ("wall-clock time of the training", "seconds"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassSetup:
    """How a classifier is made and trained.

    Attributes:
        data: name of the data set, see :func:`learnmech.data.load`; it must have classes.
        data_dir: folder with its files; None for ``LEARNMECH_DATA`` or a download.
        samples: training samples.
        test_samples: test samples; None for all.
        components: principal components of the training inputs that are fed to the net.
        width: neurons.
        layers: steps L.
        effective_depth: leak.
        penalty: λ.
        loss: ``cross_entropy``, or ``squared_error`` to one-hot targets, centred and scaled to unit variance.
        adam_steps: steps of Adam.
        batch_size: samples of each; None for all.
        learning_rate: its highest rate.
        polish_iterations: iterations of L-BFGS that follow, on all training samples.
        ridges: of the identity cost, as shares of the largest eigenvalue of the layer's kernel; the first finds the bottleneck.
        seed: of weights, embeddings and the order of batches.
    """

    data: str = "digits"
    data_dir: str | None = None
    samples: int = 1347
    test_samples: int | None = None
    components: int = 30
    width: int = 40
    layers: int = 16
    effective_depth: float = 4.0
    penalty: float = 0.003
    loss: CostName = "cross_entropy"
    adam_steps: int = 3000
    batch_size: int | None = 256
    learning_rate: float = 3e-3
    polish_iterations: int = 400
    ridges: tuple[float, ...] = (1e-3, 1e-4)
    seed: int = 0


def read_setup(config: Mapping[str, Any]) -> ClassSetup:
    """Turn the configuration of a cell into settings.

    Args:
        config: names and values of :class:`ClassSetup`.

    Returns:
        The settings.

    Raises:
        InputError: for a name that is none of these.
    """
    return make_settings(ClassSetup, config, "a classifier")


def load_classes(setup: ClassSetup) -> Dataset:
    """Load the images of a cell on their principal components; the last few are kept in memory, as cells share theirs.

    The training mean is taken off, images are projected on the leading principal components of the training images, and
    divided by one number, so that the mean square of the training inputs is 1: distances keep their proportions.

    Args:
        setup: the settings.

    Returns:
        Inputs (samples, components) in float64, and class labels.

    Raises:
        InputError: if the data have no classes, or fewer numbers an image, or samples, than components.
    """
    return _load_once(*_key(setup))


def _key(setup: ClassSetup) -> tuple[str, str | None, int, int | None, int]:
    return setup.data, setup.data_dir, setup.samples, setup.test_samples, setup.components


@lru_cache(maxsize=4)
def _load_once(name: str, folder: str | None, samples: int, test_samples: int | None, components: int) -> Dataset:
    images = datasets.load(name, folder=folder, train_samples=samples, test_samples=test_samples).flatten()
    if images.classes is None:
        raise InputError(f"expected a data set with classes, but {name!r} is a regression.")
    numbers = min(images.input_shape[0], len(images.train_inputs))
    if not 1 <= components <= numbers:
        raise InputError(f"components must lie between 1 and {numbers} for {images.describe()}; got {components!r}.")
    mean = images.train_inputs.double().mean(0)
    centred = images.train_inputs.double() - mean
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:components].T
    inputs = centred @ axes
    scale = inputs.square().mean().sqrt()
    return dataclasses.replace(
        images, train_inputs=inputs / scale, test_inputs=(images.test_inputs.double() - mean) @ axes / scale
    )


@lru_cache(maxsize=4)
def _linear_accuracy(name: str, folder: str | None, samples: int, test_samples: int | None, components: int) -> float:
    from sklearn.linear_model import LogisticRegression

    images = _load_once(name, folder, samples, test_samples, components)
    model = LogisticRegression(max_iter=2000).fit(images.train_inputs.numpy(), images.train_targets.numpy())
    return float(model.score(images.test_inputs.numpy(), images.test_targets.numpy()))


def make_targets(labels: Tensor, classes: int, loss: CostName) -> Tensor:
    """Turn labels into what a cost expects.

    Args:
        labels: class numbers (samples,).
        classes: how many there are.
        loss: the cost.

    Returns:
        The labels, or for the squared error one-hot vectors (samples, classes) less 1/classes over the standard deviation that
        they have for classes of equal size.
    """
    if loss == "cross_entropy":
        return labels
    share = 1 / classes
    one_hot: Tensor = torch.nn.functional.one_hot(labels, classes).double()
    return (one_hot - share) / math.sqrt(share * (1 - share))


def train_classifier(config: Mapping[str, Any]) -> xr.Dataset:
    """Train one classifier and profile it: a cell of a sweep.

    Args:
        config: see :class:`ClassSetup`.

    Returns:
        What :func:`learnmech.leaky.profile` gives on the training samples, with the leading :data:`DIRECTIONS` singular values,
        and the numbers of :data:`MEANINGS`.
    """
    setup = read_setup(config)
    images = load_classes(setup)
    targets = make_targets(images.train_targets, images.outputs, setup.loss)
    net = build_seeded(
        lambda: LeakyResNet(
            setup.components,
            images.outputs,
            setup.width,
            setup.effective_depth,
            setup.layers,
            penalty=setup.penalty,
            loss=setup.loss,
        ),
        setup.seed,
    ).double()
    settings = LeakySettings(
        adam_steps=setup.adam_steps,
        learning_rate=setup.learning_rate,
        warmup=min(100, setup.adam_steps),
        batch_size=setup.batch_size,
        polish_iterations=setup.polish_iterations,
        seed=setup.seed,
    )
    result = train(net, images.train_inputs, targets, settings)
    cell = profile(net, images.train_inputs, targets, ridges=setup.ridges, relative=True)
    return histories.validate(_describe(cell.isel(direction=slice(None, DIRECTIONS)), net, setup, result))


def _describe(cell: xr.Dataset, net: LeakyResNet, setup: ClassSetup, result: LeakyTraining) -> xr.Dataset:
    images = load_classes(setup)
    costs = cell["identity_cost"].values[:-1]  # the last representation has no weights behind it
    narrowest = int(costs[:, 0].argmin())
    spectrum = cell["weight_spectrum"].values[narrowest]
    kept = int(cell["kept_directions"].values[narrowest])
    numbers = {
        "train_accuracy": _accuracy(net, images.train_inputs, images.train_targets),
        "test_accuracy": _accuracy(net, images.test_inputs, images.test_targets),
        "bottleneck_depth": float(cell["depth"].values[narrowest]),
        "bottleneck_dimension": kept,
        "next_direction": spectrum[kept] / spectrum[kept - 1] if 0 < kept < len(spectrum) else np.nan,
        "linear_accuracy": _linear_accuracy(*_key(setup)),
        "bottleneck_negativity": float(cell["negativity"].values[narrowest]),
        "median_effective_dimension": float(np.nanmedian(cell["pre_effective_dimension"].values)),
        "residual": result.residual,
        "stationary": float(result.stationary),
        "collapsed": float(result.collapsed),
        "train_seconds": result.seconds,
    }
    for name, value in numbers.items():
        cell[name] = ((), float(value), _meaning(name))
    cell["least_identity_cost"] = ("ridge", costs[narrowest], _meaning("least_identity_cost"))
    return cell


def _accuracy(net: LeakyResNet, inputs: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((net(inputs).argmax(1) == labels).double().mean())


def _meaning(name: str) -> dict[str, str]:
    words, scale = MEANINGS[name]
    return {"long_name": words, "scale": scale, "source": _SOURCE}
