import dataclasses
import hashlib
import http.server
import threading
from functools import partial

import pytest
import requests

from learnmech.data import download, load
from learnmech.data.catalog import PUBLIC_DATA
from learnmech.data.progress import DownloadBar
from learnmech.errors import DataError, InputError


class _Quiet(http.server.SimpleHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path):
    """A folder, the address at which it is served on this machine, and the list of what was asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = type("Handler", (_Quiet,), {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/", handler.asked
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("LEARNMECH_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "learnmech"


@pytest.fixture
def tiny_mnist(served, cache, write_mnist, monkeypatch):
    """MNIST's entry in the catalogue, with a tiny MNIST served by the second of two mirrors."""
    folder, address, asked = served
    write_mnist(folder / "good")
    files = tuple(
        (name, hashlib.sha256((folder / "good" / name).read_bytes()).hexdigest())
        for name, _ in PUBLIC_DATA["mnist"].files
    )
    entry = dataclasses.replace(PUBLIC_DATA["mnist"], files=files, mirrors=(f"{address}gone/", f"{address}good/"))
    monkeypatch.setitem(PUBLIC_DATA, "mnist", entry)
    return folder, asked


def test_mirrors_in_turn_then_the_cache(tiny_mnist, cache):
    _, asked = tiny_mnist
    data = load("mnist")
    assert len(data.train_inputs) == 12
    assert sorted(path.name for path in (cache / "MNIST" / "raw").iterdir()) == sorted(
        name for name, _ in PUBLIC_DATA["mnist"].files
    )
    assert asked[:2] == ["/gone/train-images-idx3-ubyte.gz", "/good/train-images-idx3-ubyte.gz"]
    count = len(asked)
    assert load("mnist").fingerprint == data.fingerprint
    assert load("mnist", download=False).fingerprint == data.fingerprint
    assert len(asked) == count == 8


def test_into_a_named_folder(tiny_mnist, tmp_path, cache):
    folder = tmp_path / "mine"
    assert download("mnist", folder) == folder
    assert len(load("mnist", folder=folder).train_inputs) == 12
    assert not cache.exists()


def test_a_damaged_file_in_the_cache_is_fetched_again(tiny_mnist, cache):
    load("mnist")
    file = cache / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    good = file.read_bytes()
    file.write_bytes(good[:-1])
    load("mnist")
    assert file.read_bytes() == good


def test_wrong_checksum_is_refused_and_not_kept(tiny_mnist, cache):
    folder, _ = tiny_mnist
    file = folder / "good" / "train-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz \(refused and not kept: its SHA-256"):
        load("mnist")
    assert [path.name for path in (cache / "MNIST" / "raw").iterdir()] == ["train-images-idx3-ubyte.gz"]


def test_a_wrong_mirror_gives_way_to_the_next(tiny_mnist):
    folder, _ = tiny_mnist
    (folder / "gone").mkdir()
    for name, _sha256 in PUBLIC_DATA["mnist"].files:
        (folder / "gone" / name).write_bytes(b"not what was asked for")
    assert len(load("mnist").train_inputs) == 12


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
@pytest.mark.parametrize(
    "error", [requests.ConnectionError("no\nnetwork"), TimeoutError("late"), PermissionError(13, "Permission denied")]
)
def test_offline(monkeypatch, cache, name, error):
    def fail(*arguments, **keywords):
        raise error

    monkeypatch.setattr("pooch.retrieve", fail)
    with pytest.raises(DataError) as caught:
        load(name)
    message = str(caught.value)
    entry = PUBLIC_DATA[name]
    for part in (*entry.mirrors, str(cache / entry.folder), *(file for file, _ in entry.files), "LEARNMECH_DATA"):
        assert part in message
    assert "\n" not in message
    assert type(error).__name__ in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_what_is_asked_of_pooch(monkeypatch, cache):
    asked = []
    monkeypatch.setattr("pooch.retrieve", lambda **keywords: asked.append(keywords))
    download("cifar10")
    assert asked[0].pop("downloader").progressbar is False  # standard error is no terminal here
    assert asked == [
        {
            "url": "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "known_hash": "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            "fname": "cifar-10-python.tar.gz",
            "path": cache,
        }
    ]


def test_the_bar_counts_what_comes(capsys):
    bar = DownloadBar("file")
    bar.total = 100
    bar.update(60)
    bar.update(40)
    assert bar._bar.tasks[0].completed == 100
    bar.reset()
    bar.close()
    bar.close()  # once by pooch, once by us
    assert capsys.readouterr().out == ""


def test_every_entry_has_checksums_and_mirrors():
    for entry in PUBLIC_DATA.values():
        assert all(len(sha256) == 64 and int(sha256, 16) for _, sha256 in entry.files)
        assert all(mirror.startswith("http") and mirror.endswith("/") for mirror in entry.mirrors)


def test_unknown_name():
    with pytest.raises(InputError, match="'mnist', 'fashion_mnist', 'cifar10', got 'digits'"):
        download("digits")
