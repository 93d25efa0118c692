import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from learnmech.data import read_idx
from learnmech.errors import DataError

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("zipped", [False, True])
def test_round_trip_of_every_type(tmp_path, idx_bytes, dtype, zipped):
    array = (np.arange(30).reshape(5, 3, 2) - (0 if dtype == "uint8" else 7)).astype(dtype)
    path = tmp_path / "any-name"
    path.write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
    result = read_idx(path)
    assert result.dtype == array.dtype
    assert result.dtype.isnative
    assert result.flags.writeable
    np.testing.assert_array_equal(result, array)


def test_bytes_written_by_hand(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes.fromhex("00000B02 00000001 00000002 0102 FFFE"))
    assert read_idx(str(path)).tolist() == [[258, -2]]


def test_vector_and_many_chunks(tmp_path, idx_bytes):
    array = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8)
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx_bytes(array), 1))
    np.testing.assert_array_equal(read_idx(tmp_path / "a.gz"), array)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda good: b"", "expected 4 bytes of IDX magic number, got 0"),
        (lambda good: good[:3], "got 3"),
        (lambda good: b"\x89PNG" + good[4:], "two zero bytes.*89 50 4e 47"),
        (lambda good: b"\0\0\x07\x03" + good[4:], "00 00 07 03"),
        (lambda good: b"\0\0\x08\x00" + good[4:], "1 to 32 axes"),
        (lambda good: b"\0\0\x08\xff" + good[4:], "1 to 32 axes"),
        (lambda good: good[:9], "expected 12 bytes of IDX shape, got 5"),
        (lambda good: good + b"\0", "expected 24 bytes of payload for the shape .2, 3, 4., got more"),
        (lambda good: good[:4] + struct.pack(">3I", 0, 3, 4) + good[16:], "header"),
        (lambda good: good[:4] + struct.pack(">3I", *[2**32 - 1] * 3) + good[16:], "header declares the shape"),
    ],
)
def test_corrupt_file(tmp_path, idx_bytes, zipped, spoil, message):
    content = spoil(idx_bytes(ARRAY))
    path = tmp_path / "bad-idx"
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_short_payload(tmp_path, idx_bytes):
    short = idx_bytes(ARRAY)[:-1]
    (tmp_path / "a.gz").write_bytes(gzip.compress(short))
    with pytest.raises(DataError, match=r"expected 24 bytes of payload.*got 23"):
        read_idx(tmp_path / "a.gz")
    (tmp_path / "a").write_bytes(short)
    with pytest.raises(DataError, match="cut short"):
        read_idx(tmp_path / "a")


def test_absurd_size_takes_no_memory(tmp_path):
    header = b"\0\0\x08\x03" + struct.pack(">3I", 60_000, 2**20, 2**10)
    for name, content in (("plain", header), ("zipped", gzip.compress(header))):
        (tmp_path / name).write_bytes(content)
        tracemalloc.start()
        with pytest.raises(DataError, match="header declares"):
            read_idx(tmp_path / name)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20


def test_damaged_gzip(tmp_path, idx_bytes):
    array = np.random.default_rng(1).integers(0, 256, (100, 100), dtype=np.uint8)
    good = gzip.compress(idx_bytes(array))
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0xFF
    wrong_sum = good[:-8] + bytes([good[-8] ^ 1]) + good[-7:]
    for content in (good[:-9], good[: len(good) // 2], good[:5], bytes(flipped), wrong_sum):
        (tmp_path / "a.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.gz"):
            read_idx(tmp_path / "a.gz")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_idx(tmp_path / "nothing")
    with pytest.raises(DataError, match="could not read"):
        read_idx(tmp_path)
