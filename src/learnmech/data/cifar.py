"""CIFAR-10: the official Python batches, from their folder or straight from the archive, without running any of them."""

import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from learnmech.data.catalog import public_data
from learnmech.data.inert_pickle import as_byte_array, as_bytes, load_inert
from learnmech.errors import DataError

CLASSES = 10
_FOLDER = "cifar-10-batches-py"
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = "test_batch"
_MOST_BYTES = 256 << 20  # a real batch has 31 MB
_PIXELS = 3 * 32 * 32


def _require_batch_size(where: str, size: int) -> None:
    if size > _MOST_BYTES:
        raise DataError(
            f"{where}: expected a batch of about 31 MB, at most {_MOST_BYTES} bytes, got {size} bytes. "
            "This is no CIFAR-10 batch; fetch the original again."
        )


def _parse(content: bytes, where: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    batch = load_inert(content, where)
    if not isinstance(batch, Mapping):
        raise DataError(
            f"{where}: expected a mapping with the keys data and labels, got {type(batch).__name__}. "
            "This is no CIFAR-10 batch; fetch the original again."
        )
    entries = {as_bytes(key): value for key, value in batch.items()}
    if b"data" not in entries or b"labels" not in entries:
        keys = sorted(key.decode("latin1") for key in entries if key is not None)
        raise DataError(f"{where}: expected the keys data and labels, got {keys}. This is no CIFAR-10 batch.")
    images = as_byte_array(entries[b"data"], f"{where}, data")
    if images.ndim != 2 or images.shape[1] != _PIXELS or not len(images):
        raise DataError(f"{where}, data: expected the shape (samples, {_PIXELS}), got {images.shape}.")
    labels = entries[b"labels"]
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < CLASSES for label in labels):
        raise DataError(
            f"{where}, labels: expected a list of integers from 0 to {CLASSES - 1}. Fetch the original again."
        )
    if len(labels) != len(images):
        raise DataError(
            f"{where}: expected as many labels as images, got {len(labels)} labels and {len(images)} images."
        )
    return images.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.uint8)


def read_cifar_batch(path: str | Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Read one CIFAR-10 batch of the Python version; the pickle runs no code.

    Format (Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html): a pickled mapping with ``data``, uint8 of shape
    (samples, 3072), each row the red, green and blue planes of a 32 x 32 image; and ``labels``, a list from 0 to 9.

    Args:
        path: a file such as ``data_batch_1``.

    Returns:
        Images (samples, 3, 32, 32) and labels (samples,), both uint8.

    Raises:
        DataError: if the file is missing or damaged, names anything but arrays, or holds no CIFAR-10 batch.
    """
    path = Path(path)
    try:
        _require_batch_size(str(path), path.stat().st_size)
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"could not read {path}: {error.strerror or error}. Check the path and its permissions."
        ) from None
    return _parse(content, str(path))


def _read_archive(path: Path) -> dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    wanted = {*_TRAIN, _TEST}
    batches = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if name not in wanted or name in batches or not member.isfile():
                    continue
                _require_batch_size(f"{path}, {member.name}", member.size)
                stream = archive.extractfile(member)
                content = stream.read() if stream else b""
                batches[name] = _parse(content, f"{path}, {member.name}")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path}: expected a whole tar archive, got a damaged one ({error}). Fetch it again.") from None
    absent = sorted(wanted - set(batches))
    if absent:
        raise DataError(f"{path}: expected {_FOLDER}/ with six batches, but {', '.join(absent)} is not in it.")
    return batches


def read_cifar10(
    folder: str | Path,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Read CIFAR-10 from a data folder; nothing is unpacked to disk and no pickle runs code.

    Args:
        folder: a folder that holds ``cifar-10-batches-py`` or ``cifar-10-python.tar.gz``, or the former itself. The
            unpacked batches are taken first.

    Returns:
        Training images (n, 3, 32, 32) and labels (n,), test images and labels, all uint8.

    Raises:
        DataError: if files are missing or damaged; the message names the layout wanted.
    """
    entry = public_data("cifar10")
    root = Path(folder).expanduser().absolute()
    unpacked = root if root.name == _FOLDER else root / _FOLDER
    archive = root / entry.files[0][0]
    names = (*_TRAIN, _TEST)
    absent = [name for name in names if not (unpacked / name).is_file()]
    if not absent:
        batches = {name: read_cifar_batch(unpacked / name) for name in names}
    elif archive.is_file():
        batches = _read_archive(archive)
    else:
        # With some batches there, the others are what is missing; with none, the archive is.
        raise DataError(entry.missing(root, absent if len(absent) < len(names) else [archive.name]))
    images = np.concatenate([batches[name][0] for name in _TRAIN])
    labels = np.concatenate([batches[name][1] for name in _TRAIN])
    return images, labels, *batches[_TEST]
