"""One function that loads any of the named data sets."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from learnmech.data.catalog import PUBLIC_DATA, public_data
from learnmech.data.checks import require_integer
from learnmech.data.cifar import read_cifar10
from learnmech.data.dataset import Dataset
from learnmech.data.downloading import download as download_files
from learnmech.data.folders import cache_folder, named_folder
from learnmech.data.mnist import read_mnist
from learnmech.data.resizing import resize
from learnmech.data.subsets import choose_samples
from learnmech.data.tabular import load_csv
from learnmech.errors import InputError

_CLASSES = 10
_CSV = "csv:"
_DIGITS_TEST = 450

_Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]


def _digits(split_seed: int) -> _Arrays:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    train_images, test_images, train_labels, test_labels = train_test_split(
        digits.images[:, None], digits.target, test_size=_DIGITS_TEST, random_state=split_seed, stratify=digits.target
    )
    return train_images, train_labels, test_images, test_labels


def _public(name: str, folder: str | Path | None, download: bool) -> _Arrays:
    root = named_folder(folder)
    if root is None:
        root = download_files(name) if download else cache_folder()
    return read_cifar10(root) if name == "cifar10" else read_mnist(public_data(name), root)


def _prepare(images: npt.NDArray[Any], chosen: Tensor, white: int, image_size: int | None, antialias: bool) -> Tensor:
    inputs = torch.from_numpy(images[chosen.numpy()]).float() / white
    return inputs if image_size is None else resize(inputs, image_size, antialias)


def _table(
    name: str, folder: str | Path | None, train_samples: int | None, test_samples: int | None, split_seed: int
) -> Dataset:
    path = Path(name.removeprefix(_CSV)).expanduser()
    whole = load_csv(path if folder is None else Path(folder).expanduser() / path, split_seed=split_seed)
    train = choose_samples(len(whole.train_inputs), train_samples, split_seed, "train_samples", minimum=2)
    test = choose_samples(len(whole.test_inputs), test_samples, split_seed, "test_samples")
    return dataclasses.replace(
        whole,
        train_inputs=whole.train_inputs[train],
        train_targets=whole.train_targets[train],
        test_inputs=whole.test_inputs[test],
        test_targets=whole.test_targets[test],
        source=f"{whole.source}, {len(train)} of {len(whole.train_inputs)} training and {len(test)} of "
        f"{len(whole.test_inputs)} test rows",
    )


def load(
    name: str,
    *,
    folder: str | Path | None = None,
    download: bool = True,
    train_samples: int | None = None,
    test_samples: int | None = None,
    image_size: int | None = None,
    antialias: bool = True,
    split_seed: int = 1,
) -> Dataset:
    """Load a data set by name, cut it down to a fixed choice of samples, and resize its images.

    Names: ``"digits"`` (scikit-learn's 1797 images of 8 x 8 pixels, always there; a stratified split into 1347 and 450),
    ``"mnist"``, ``"fashion_mnist"``, ``"cifar10"``, and ``"csv:PATH"`` for regression (``load_csv`` with its defaults).

    Files are looked for in ``folder``; else in the folder that the environment variable ``LEARNMECH_DATA`` names; else in
    the user's cache, into which they are downloaded. A folder that you name is only read, never written. The layout is
    torchvision's: ``MNIST/raw/train-images-idx3-ubyte.gz`` and so on (gzipped or not), ``cifar-10-batches-py`` or
    ``cifar-10-python.tar.gz``.

    Setting of the spring-block paper (Shi, Pan, Dokmanic, arXiv 2407.19353): ``load("mnist", train_samples=2560,
    image_size=10)``; the same 2560 samples for every training seed. Accuracy depends on ``antialias``: see ``resize``.

    Args:
        name: one of the names above.
        folder: the data folder; for ``"csv:PATH"``, the folder that a relative PATH starts from.
        download: whether to fetch into the cache what is not there, when no folder is named.
        train_samples: how many training samples to keep, ``randperm(n)[:train_samples]``; None for all, in file order.
        test_samples: the same for the test samples.
        image_size: resize images to this height and width; None keeps them.
        antialias: how to resize.
        split_seed: the seed of these choices; the paper's is 1. Keep it when you vary the seed of the training.

    Returns:
        Images are float32 in [0, 1] of shape (samples, channels, height, width); tables are (samples, features).

    Raises:
        InputError: if an argument does not fit; nothing was read.
        DataError: if files are missing and cannot be fetched, or are corrupt; the message names the folder, the layout
            wanted, and the mirrors tried.

    Example:
        >>> data = load("digits", train_samples=500)
        >>> data.input_shape, data.outputs, len(data.train_inputs), len(data.test_inputs)
        ((1, 8, 8), 10, 500, 450)
    """
    require_integer("split_seed", split_seed, 0, 2**32 - 1)
    if name.startswith(_CSV):
        if image_size is not None:
            raise InputError(f"image_size: expected None for a table, got {image_size}. Leave it out.")
        return _table(name, folder, train_samples, test_samples, split_seed)
    if name != "digits" and name not in PUBLIC_DATA:
        known = ", ".join(map(repr, ("digits", *PUBLIC_DATA, "csv:PATH")))
        raise InputError(f"name: expected one of {known}, got {name!r}.")
    if image_size is not None:
        require_integer("image_size", image_size, 1)

    arrays = _digits(split_seed) if name == "digits" else _public(name, folder, download)
    train_images, train_labels, test_images, test_labels = arrays
    train = choose_samples(len(train_images), train_samples, split_seed, "train_samples", minimum=2)
    test = choose_samples(len(test_images), test_samples, split_seed, "test_samples")
    white = 16 if name == "digits" else 255
    title = "scikit-learn's digits" if name == "digits" else public_data(name).title
    cut = f"{len(train)} of {len(train_images)} training and {len(test)} of {len(test_images)} test images"
    size = "" if image_size is None else f", {image_size} x {image_size} {'with' if antialias else 'without'} antialias"
    return Dataset(
        name=name,
        train_inputs=_prepare(train_images, train, white, image_size, antialias),
        train_targets=torch.from_numpy(train_labels[train.numpy()]).long(),
        test_inputs=_prepare(test_images, test, white, image_size, antialias),
        test_targets=torch.from_numpy(test_labels[test.numpy()]).long(),
        classes=_CLASSES,
        source=f"{title}, {cut}, split seed {split_seed}{size}",
    )
