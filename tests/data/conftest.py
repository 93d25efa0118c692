"""Writers of tiny data files, independent of the readers under test."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def _idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, CODES[array.dtype.name], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def idx_bytes() -> Callable[[np.ndarray], bytes]:
    return _idx_bytes


@pytest.fixture
def write_mnist() -> Callable[..., dict[str, np.ndarray]]:
    """Write a tiny MNIST in torchvision's layout: 12 training and 5 test images of 28 x 28 pixels."""

    def write(folder: Path, *, zipped: bool = True, seed: int = 0) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)
        arrays = {
            "train-images-idx3-ubyte": random.integers(0, 256, (12, 28, 28), dtype=np.uint8),
            "train-labels-idx1-ubyte": (np.arange(12) % 10).astype(np.uint8),
            "t10k-images-idx3-ubyte": random.integers(0, 256, (5, 28, 28), dtype=np.uint8),
            "t10k-labels-idx1-ubyte": np.array([9, 8, 7, 6, 5], dtype=np.uint8),
        }
        folder.mkdir(parents=True)
        for name, array in arrays.items():
            content = _idx_bytes(array)
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
        return arrays

    return write


@pytest.fixture
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEARNMECH_DATA", raising=False)
