"""IDX, the file format of MNIST and its kin."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from learnmech.errors import DataError

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_AXES = 32
_DEFLATE_LIMIT = 1032  # DEFLATE cannot shrink data by more than this factor
_CHUNK = 1 << 20


def _read_exactly(stream: IO[bytes] | gzip.GzipFile, length: int, path: Path, what: str) -> bytearray:
    content = bytearray()
    while len(content) < length:
        chunk = stream.read(min(_CHUNK, length - len(content)))
        if not chunk:
            raise DataError(
                f"{path}: expected {length} bytes of {what}, got {len(content)}: the file is cut short. Fetch it again."
            )
        content += chunk
    return content


def _parse(stream: IO[bytes] | gzip.GzipFile, path: Path, most_bytes: int) -> npt.NDArray[Any]:
    magic = bytes(_read_exactly(stream, 4, path, "IDX magic number"))
    if magic[:2] != b"\0\0" or magic[2] not in _TYPES or not 1 <= magic[3] <= _MOST_AXES:
        raise DataError(
            f"{path}: expected an IDX file, that is two zero bytes, a type code among "
            f"{', '.join(f'0x{code:02X}' for code in _TYPES)} and 1 to {_MOST_AXES} axes; got the bytes {magic.hex(' ')}. "
            "This is another kind of file, or a corrupt one."
        )
    axes = magic[3]
    shape = struct.unpack(f">{axes}I", _read_exactly(stream, 4 * axes, path, "IDX shape"))
    stored = np.dtype(_TYPES[magic[2]])
    size = math.prod(shape) * stored.itemsize
    if not 0 < size <= most_bytes:
        raise DataError(
            f"{path}: expected a payload of 1 to {most_bytes} bytes for a file of this size, but its header declares the "
            f"shape {shape}, {size} bytes: the file is cut short or its header is corrupt. Fetch it again."
        )
    content = _read_exactly(stream, size, path, f"payload for the shape {shape}")
    if stream.read(1):
        raise DataError(
            f"{path}: expected {size} bytes of payload for the shape {shape}, got more: header and content do not match. "
            "Fetch it again."
        )
    return np.frombuffer(content, dtype=stored).reshape(shape).astype(stored.newbyteorder("="), copy=False)


def read_idx(path: str | Path) -> npt.NDArray[Any]:
    """Read an array from an IDX file, plain or gzipped.

    Format (LeCun, http://yann.lecun.com/exdb/mnist): two zero bytes, a type code (0x08 uint8, 0x09 int8, 0x0B int16,
    0x0C int32, 0x0D float32, 0x0E float64), the number of axes, each axis as a big-endian uint32, then the values, big
    end first, last axis fastest. Gzip is known by its first bytes, not by the file's name. The declared size is compared
    with the size of the file before any memory is taken.

    Args:
        path: the file.

    Returns:
        A writable array of the shape and type that the file declares, in the byte order of this machine.

    Raises:
        DataError: if the file is missing, is not IDX, is cut short or too long, or its gzip layer is damaged.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
        >>> _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        >>> read_idx(file).tolist()
        [7, 2, 1]
    """
    path = Path(path)
    try:
        file_size = path.stat().st_size
        with path.open("rb") as plain:
            zipped = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            if not zipped:
                return _parse(plain, path, file_size)
            with gzip.GzipFile(fileobj=plain) as stream:
                return _parse(stream, path, file_size * _DEFLATE_LIMIT)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: expected a whole gzip file, got a damaged one ({error}). Fetch it again.") from None
    except OSError as error:
        raise DataError(
            f"could not read {path}: {error.strerror or error}. Check the path and its permissions."
        ) from None
