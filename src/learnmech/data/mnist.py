"""MNIST and Fashion-MNIST: four IDX files in torchvision's layout."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from learnmech.data.catalog import PublicData
from learnmech.data.idx import read_idx
from learnmech.errors import DataError

CLASSES = 10


def _find(entry: PublicData, root: Path) -> list[Path]:
    # MNIST and Fashion-MNIST name their files alike: a folder counts only if its own name says which one it is.
    below = Path(entry.folder)
    folders = [root / below]
    if root.name == below.parent.name:
        folders.append(root / below.name)
    if (root.parent.name, root.name) == below.parts:
        folders.append(root)
    best: list[str] | None = None
    for folder in folders:
        found, absent = [], []
        for name, _ in entry.files:
            candidates = (folder / name.removesuffix(".gz"), folder / name)
            present = next((path for path in candidates if path.is_file()), None)
            if present is None:
                absent.append(name)
            else:
                found.append(present)
        if not absent:
            return found
        best = absent if best is None or len(absent) < len(best) else best
    raise DataError(entry.missing(root, best or []))


def _read_part(images_path: Path, labels_path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    images, labels = read_idx(images_path), read_idx(labels_path)
    for path, values, axes, what in ((images_path, images, 3, "images"), (labels_path, labels, 1, "labels")):
        if values.dtype != np.uint8 or values.ndim != axes:
            raise DataError(
                f"{path}: expected {what}, that is uint8 with {axes} axes, got {values.dtype} of shape {values.shape}. "
                "Perhaps two files were swapped."
            )
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} holds {len(images)} images but {labels_path} holds {len(labels)} labels: expected as many. "
            "Fetch both again."
        )
    if labels.max() >= CLASSES:
        raise DataError(f"{labels_path}: expected labels from 0 to {CLASSES - 1}, got {labels.max()}. Fetch it again.")
    return images[:, None], labels


def read_mnist(
    entry: PublicData, root: Path
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Read MNIST or Fashion-MNIST from a data folder.

    Args:
        entry: which of the two.
        root: the data folder, or the ``MNIST`` (``FashionMNIST``) folder in it, or the ``raw`` folder in that.

    Returns:
        Training images (n, 1, h, w) and labels (n,), test images and labels, all uint8.

    Raises:
        DataError: if a file is missing or corrupt, or the four do not fit together.
    """
    paths = _find(entry, root)
    train_images, train_labels = _read_part(paths[0], paths[1])
    test_images, test_labels = _read_part(paths[2], paths[3])
    if train_images.shape[1:] != test_images.shape[1:]:
        raise DataError(
            f"{paths[2]}: expected images of shape {train_images.shape[2:]} as in {paths[0].name}, got "
            f"{test_images.shape[2:]}. Fetch both again."
        )
    return train_images, train_labels, test_images, test_labels
