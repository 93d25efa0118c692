import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from learnmech.data import load, read_cifar10, read_cifar_batch
from learnmech.errors import DataError

NAMES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]


def batch(seed, samples=3):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (samples, 3072), dtype=np.uint8), random.integers(0, 10, samples).tolist()


def python2_pickle(images, labels):
    """The opcodes of the official files: protocol 2, Python 2 byte strings, the old home of NumPy's functions."""
    size = images.nbytes
    body = b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]q\x05("
    body += b"".join(b"K" + bytes([label]) for label in labels)
    body += b"eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\x09"
    body += b"(K\x01K" + bytes([len(images)]) + b"M\x00\x0c\x86cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b"
    body += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", size)
    body += images.tobytes() + b"tb"
    body += b"U\x09filenamesq\x0c]q\x0dU\x05a.pngq\x0eau."
    return body


def write_batches(folder, make=lambda images, labels: pickle.dumps({b"data": images, b"labels": labels})):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(NAMES):
        (folder / name).write_bytes(make(*batch(seed)))


def write_archive(folder, names=NAMES, make=python2_pickle):
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as archive:
        for seed, name in enumerate(names):
            content = make(*batch(seed))
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def check_whole(arrays):
    train_images, train_labels, test_images, test_labels = arrays
    expected = [batch(seed) for seed in range(6)]
    pixels = np.concatenate([images for images, _ in expected[:5]])
    np.testing.assert_array_equal(train_images.reshape(15, -1), pixels)
    assert train_labels.tolist() == [label for _, labels in expected[:5] for label in labels]
    np.testing.assert_array_equal(test_images.reshape(3, -1), expected[5][0])
    assert test_labels.tolist() == expected[5][1]
    # red plane first, then row by row
    assert train_images[2, 0, 1, 3] == pixels[2, 32 + 3]
    assert train_images[2, 2, 0, 0] == pixels[2, 2048]


def test_python2_batch(tmp_path):
    images, labels = batch(0)
    assert pickle.loads(python2_pickle(images, labels), encoding="bytes")[b"labels"] == labels  # a true pickle
    (tmp_path / "b").write_bytes(python2_pickle(images, labels))
    read_images, read_labels = read_cifar_batch(tmp_path / "b")
    np.testing.assert_array_equal(read_images, images.reshape(-1, 3, 32, 32))
    assert read_labels.tolist() == labels
    assert read_images.flags.writeable


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("key", [str, str.encode])
def test_batches_pickled_again(tmp_path, protocol, key):
    images, labels = batch(7)
    (tmp_path / "b").write_bytes(pickle.dumps({key("data"): images, key("labels"): labels}, protocol=protocol))
    read_images, read_labels = read_cifar_batch(tmp_path / "b")
    np.testing.assert_array_equal(read_images.reshape(3, -1), images)
    assert read_labels.tolist() == labels


def test_folder_and_archive(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    write_batches(folder)
    check_whole(read_cifar10(tmp_path))
    check_whole(read_cifar10(folder))
    packed = tmp_path / "packed"
    packed.mkdir()
    write_archive(packed)
    check_whole(read_cifar10(packed))
    assert [path.name for path in packed.iterdir()] == ["cifar-10-python.tar.gz"]  # nothing was unpacked


def test_load_gives_images_between_0_and_1(tmp_path):
    write_archive(tmp_path)
    data = load("cifar10", folder=tmp_path, train_samples=4, image_size=10)
    assert data.train_inputs.shape == (4, 3, 10, 10)
    assert data.test_inputs.shape == (3, 3, 10, 10)
    whole = load("cifar10", folder=tmp_path)
    np.testing.assert_allclose(whole.test_inputs.flatten(1).numpy(), batch(5)[0] / 255, rtol=1e-6)


class Malicious:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["system", "eval", "getattr", "mkdir"])
def test_malicious_pickle_is_refused_and_not_run(tmp_path, protocol, kind):
    trap = tmp_path / "trap"
    payload = {
        "system": Malicious(os.system, f"touch {trap}"),
        "eval": Malicious(eval, f"open({str(trap)!r}, 'w')"),
        "getattr": Malicious(getattr, "a", "upper"),
        "mkdir": Malicious(os.mkdir, str(trap)),
    }[kind]
    images, labels = batch(0)
    (tmp_path / "b").write_bytes(pickle.dumps({b"data": images, b"labels": labels, b"x": payload}, protocol=protocol))
    with pytest.raises(DataError, match="refused, nothing was run"):
        read_cifar_batch(tmp_path / "b")
    assert not trap.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cposix\nsystem\n(S'true'\ntR.",
        b"(ibuiltins\neval\n.",
        b"(S'1'\nibuiltins\neval\n.",
        b"cnumpy\nload\n.",
        b"cnumpy.core.multiarray\nfromstring\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x10core.os.system.x\x93.",
        b"c_codecs\nlookup\n.",
        b"ccopyreg\n_reconstructor\n.",
        b"cnumpy\ndtype\n}S'x'\nS'y'\nsb.",  # BUILD on the name itself
    ],
)
def test_other_names_are_refused(tmp_path, program):
    (tmp_path / "b").write_bytes(program)
    with pytest.raises(DataError, match="refused, nothing was run"):
        read_cifar_batch(tmp_path / "b")


def test_allowed_names_do_not_run_either(tmp_path, monkeypatch):
    def fail(*arguments, **keywords):
        raise AssertionError("run on behalf of a file")

    images, labels = batch(0)
    content = pickle.dumps({b"data": images, b"labels": labels}, protocol=2)
    (tmp_path / "b").write_bytes(content)
    monkeypatch.setattr("numpy._core.multiarray._reconstruct", fail)
    monkeypatch.setattr("_codecs.encode", fail)
    with pytest.raises(AssertionError):
        pickle.loads(content)
    assert read_cifar_batch(tmp_path / "b")[1].tolist() == labels


def spoilt():
    images, labels = batch(0)
    good = pickle.dumps({b"data": images, b"labels": labels})
    dumps = pickle.dumps
    return [
        (b"", "damaged"),
        (good[:100], "damaged"),
        (good[:-1], "damaged"),
        (b"not a pickle", "damaged"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.", "damaged"),  # an absurd length
        (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.", "damaged"),
        (b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".", "memo index 4294967295"),
        (b"P1\n.", "damaged"),  # a persistent id
        (dumps([1, 2]), "expected a mapping"),
        (dumps({b"data": images}), "keys data and labels, got .'data'."),
        (dumps({b"data": images[:2], b"labels": labels}), "3 labels and 2 images"),
        (dumps({b"data": images[:, :100].copy(), b"labels": labels}), r"\(samples, 3072\), got \(3, 100\)"),
        (dumps({b"data": images[:0], b"labels": []}), r"got \(0, 3072\)"),
        (dumps({b"data": images.astype(np.int64), b"labels": labels}), "expected an array of uint8"),
        (dumps({b"data": np.asfortranarray(images), b"labels": labels}), "C order"),
        (dumps({b"data": images.tolist(), b"labels": labels}), "expected an array in C order, got list"),
        (dumps({b"data": images, b"labels": [1, 2, 10]}), "integers from 0 to 9"),
        (dumps({b"data": images, b"labels": [1, 2, "3"]}), "integers from 0 to 9"),
        (dumps({b"data": images, b"labels": (1, 2, 3)}), "expected a list"),
        (python2_pickle(images, labels).replace(b"M\x00\x0c\x86", b"M\x01\x0c\x86"), "as many bytes"),
        (python2_pickle(images, labels).replace(b"U\x02u1", b"U\x02O8"), "uint8"),
    ]


@pytest.mark.parametrize("case", range(len(spoilt())))
def test_spoilt_batch(tmp_path, case):
    content, message = spoilt()[case]
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_cifar_batch(tmp_path / "b")
    assert str(tmp_path / "b") in str(caught.value)


def test_missing_files(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_cifar_batch(tmp_path / "b")
    with pytest.raises(DataError, match=r"to hold cifar-10-python\.tar\.gz .*cifar-10-batches-py/data_batch_1"):
        read_cifar10(tmp_path)
    write_batches(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(DataError, match=r"missing: data_batch_4\."):
        read_cifar10(tmp_path)


def test_archive_that_is_not_whole(tmp_path):
    write_archive(tmp_path, names=NAMES[:5])
    with pytest.raises(DataError, match="test_batch is not in it"):
        read_cifar10(tmp_path)
    archive = tmp_path / "cifar-10-python.tar.gz"
    write_archive(tmp_path)
    archive.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(DataError, match="whole tar archive"):
        read_cifar10(tmp_path)
    archive.write_bytes(b"no archive")
    with pytest.raises(DataError, match="whole tar archive"):
        read_cifar10(tmp_path)


def test_huge_member_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr("learnmech.data.cifar._MOST_BYTES", 1000)
    write_archive(tmp_path)
    with pytest.raises(DataError, match="at most 1000 bytes"):
        read_cifar10(tmp_path)
    write_batches(tmp_path / "cifar-10-batches-py")
    with pytest.raises(DataError, match="at most 1000 bytes"):
        read_cifar10(tmp_path)
