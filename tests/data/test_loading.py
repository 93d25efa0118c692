import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import random_split

from learnmech.data import load, resize
from learnmech.data.catalog import PUBLIC_DATA
from learnmech.errors import DataError, InputError

needs_data = pytest.mark.skipif(not os.environ.get("LEARNMECH_DATA"), reason="LEARNMECH_DATA is not set")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    def refuse(*arguments, **keywords):
        raise AssertionError("a download was tried")

    monkeypatch.setattr("pooch.retrieve", refuse)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)


class TestDigits:
    def test_sizes_and_range(self):
        data = load("digits")
        assert data.train_inputs.shape == (1347, 1, 8, 8)
        assert data.test_inputs.shape == (450, 1, 8, 8)
        assert data.train_inputs.dtype == torch.float32
        assert data.classes == 10
        assert data.train_inputs.min() == 0
        assert data.train_inputs.max() == 1

    def test_split_is_stratified_disjoint_and_complete(self):
        from sklearn.datasets import load_digits

        data, digits = load("digits"), load_digits()
        counts = np.bincount(digits.target)
        for targets, share in ((data.train_targets, 1347 / 1797), (data.test_targets, 450 / 1797)):
            assert np.abs(targets.bincount().numpy() - counts * share).max() < 1
        together = torch.cat([data.train_inputs, data.test_inputs]).flatten(1).numpy() * 16
        labels = torch.cat([data.train_targets, data.test_targets]).numpy()
        ours = sorted(map(tuple, np.column_stack([together, labels]).astype(int).tolist()))
        theirs = sorted(map(tuple, np.column_stack([digits.data, digits.target]).astype(int).tolist()))
        assert ours == theirs

    def test_split_seed(self):
        assert load("digits").fingerprint == load("digits", split_seed=1).fingerprint
        assert load("digits").fingerprint != load("digits", split_seed=2).fingerprint

    def test_neither_folder_nor_variable_matters(self, monkeypatch, tmp_path):
        monkeypatch.setenv("LEARNMECH_DATA", str(tmp_path / "nowhere"))
        assert load("digits", folder=tmp_path / "nothing", download=False).name == "digits"

    def test_image_size(self):
        data, whole = load("digits", train_samples=20, image_size=4, antialias=False), load("digits", train_samples=20)
        torch.testing.assert_close(data.train_inputs, resize(whole.train_inputs, 4, antialias=False))
        assert "4 x 4 without antialias" in data.source


@pytest.mark.usefixtures("no_variable")
class TestMnist:
    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
    @pytest.mark.parametrize("below", ["", "{}", "{}/raw"])
    def test_round_trip(self, tmp_path, write_mnist, zipped, name, folder, below):
        arrays = write_mnist(tmp_path / folder / "raw", zipped=zipped)
        data = load(name, folder=tmp_path / below.format(folder))
        assert data.train_inputs.shape == (12, 1, 28, 28)
        assert data.train_inputs.dtype == torch.float32
        expected = arrays["train-images-idx3-ubyte"] / 255
        np.testing.assert_allclose(data.train_inputs[:, 0].numpy(), expected, rtol=1e-6)
        assert data.train_targets.tolist() == arrays["train-labels-idx1-ubyte"].tolist()
        assert data.test_targets.tolist() == [9, 8, 7, 6, 5]
        assert str(tmp_path) not in data.source

    def test_the_choice_of_samples_is_that_of_random_split(self, tmp_path, write_mnist):
        arrays = write_mnist(tmp_path / "MNIST" / "raw")
        data = load("mnist", folder=tmp_path, train_samples=7, test_samples=2)
        chosen = random_split(range(12), [7, 5], generator=torch.Generator().manual_seed(1))[0].indices
        np.testing.assert_allclose(
            data.train_inputs[:, 0].numpy(), arrays["train-images-idx3-ubyte"][chosen] / 255, rtol=1e-6
        )
        tested = torch.randperm(5, generator=torch.Generator().manual_seed(1))[:2].tolist()
        assert data.test_targets.tolist() == arrays["t10k-labels-idx1-ubyte"][tested].tolist()
        assert load("mnist", folder=tmp_path, train_samples=7, split_seed=2).fingerprint != data.fingerprint

    def test_image_size(self, tmp_path, write_mnist):
        write_mnist(tmp_path / "MNIST" / "raw")
        data = load("mnist", folder=tmp_path, image_size=10)
        assert data.train_inputs.shape == (12, 1, 10, 10)
        torch.testing.assert_close(data.train_inputs, resize(load("mnist", folder=tmp_path).train_inputs, 10))
        without = load("mnist", folder=tmp_path, image_size=10, antialias=False)
        assert without.fingerprint != data.fingerprint

    def test_folder_wins_over_variable_and_variable_over_cache(self, tmp_path, write_mnist, monkeypatch):
        for seed, place in enumerate(("argument", "variable", "cache/learnmech")):
            write_mnist(tmp_path / place / "MNIST" / "raw", seed=seed)

        def first_pixels(**keywords):
            return (load("mnist", download=False, **keywords).train_inputs[0] * 255).round().byte().numpy()

        def expected(seed):
            return np.random.default_rng(seed).integers(0, 256, (12, 28, 28), dtype=np.uint8)[:1]

        np.testing.assert_array_equal(first_pixels(), expected(2))
        monkeypatch.setenv("LEARNMECH_DATA", str(tmp_path / "variable"))
        np.testing.assert_array_equal(first_pixels(), expected(1))
        np.testing.assert_array_equal(first_pixels(folder=tmp_path / "argument"), expected(0))

    def test_one_kind_is_never_taken_for_the_other(self, tmp_path, write_mnist):
        write_mnist(tmp_path / "MNIST" / "raw")
        for folder in ("MNIST", "MNIST/raw"):
            with pytest.raises(DataError, match="Fashion-MNIST is not in the data folder"):
                load("fashion_mnist", folder=tmp_path / folder)

    @pytest.mark.parametrize("how", ["argument", "variable"])
    def test_a_named_folder_is_only_read(self, tmp_path, monkeypatch, how):
        folder = tmp_path / "empty"
        folder.mkdir()
        if how == "variable":
            monkeypatch.setenv("LEARNMECH_DATA", str(folder))
        with pytest.raises(DataError) as caught:
            load("mnist", folder=folder if how == "argument" else None)
        message = str(caught.value)
        for part in (str(folder / "MNIST" / "raw"), "train-images-idx3-ubyte.gz", "LEARNMECH_DATA", "download"):
            assert part in message
        assert list(folder.iterdir()) == []

    def test_without_download_the_cache_is_only_read(self):
        with pytest.raises(DataError, match="missing: all of them"):
            load("mnist", download=False)

    def test_what_is_missing_is_named(self, tmp_path, write_mnist):
        write_mnist(tmp_path / "MNIST" / "raw")
        (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").unlink()
        with pytest.raises(DataError, match=r"missing: t10k-labels-idx1-ubyte\.gz\."):
            load("mnist", folder=tmp_path)

    @pytest.mark.parametrize(
        ("file", "array", "message"),
        [
            ("train-labels-idx1-ubyte", np.zeros(11, np.uint8), "12 images but .* 11 labels"),
            ("train-labels-idx1-ubyte", np.full(12, 10, np.uint8), "labels from 0 to 9, got 10"),
            ("train-labels-idx1-ubyte", np.zeros((12, 28, 28), np.uint8), "expected labels.*swapped"),
            ("train-images-idx3-ubyte", np.zeros(12, np.uint8), "expected images.*swapped"),
            ("train-images-idx3-ubyte", np.zeros((12, 28, 28), np.int16), "got int16"),
            ("t10k-images-idx3-ubyte", np.zeros((5, 20, 20), np.uint8), "shape .28, 28."),
        ],
    )
    def test_files_that_do_not_fit_together(self, tmp_path, write_mnist, idx_bytes, file, array, message):
        write_mnist(tmp_path / "MNIST" / "raw")
        (tmp_path / "MNIST" / "raw" / f"{file}.gz").write_bytes(gzip.compress(idx_bytes(array)))
        with pytest.raises(DataError, match=message):
            load("mnist", folder=tmp_path)


class TestTable:
    def test_relative_to_folder_and_cut(self, tmp_path):
        rows = np.random.default_rng(0).normal(size=(50, 3))
        np.savetxt(tmp_path / "t.csv", rows, delimiter=",")
        data = load("csv:t.csv", folder=tmp_path, train_samples=10, test_samples=4)
        assert (len(data.train_inputs), len(data.test_inputs), data.classes, data.outputs) == (10, 4, None, 1)
        assert "10 of 40 training" in data.source
        assert len(load(f"csv:{tmp_path / 't.csv'}").train_inputs) == 40

    def test_no_images(self, tmp_path):
        with pytest.raises(InputError, match="image_size"):
            load("csv:t.csv", folder=tmp_path, image_size=10)


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("imagenet", {}, "expected one of 'digits', 'mnist', 'fashion_mnist', 'cifar10', 'csv:PATH', got 'imagenet'"),
        ("digits", {"train_samples": 1348}, "from 2 to 1347, got 1348"),
        ("digits", {"train_samples": 1}, "train_samples"),
        ("digits", {"train_samples": 10.0}, "float"),
        ("digits", {"train_samples": True}, "bool"),
        ("digits", {"test_samples": 0}, "from 1 to 450"),
        ("digits", {"image_size": 0}, "image_size"),
        ("digits", {"split_seed": -1}, "split_seed"),
    ],
)
def test_bad_arguments(name, keywords, message):
    with pytest.raises(InputError, match=message):
        load(name, **keywords)


@pytest.mark.data
@needs_data
class TestRealData:
    @pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
    def test_first_labels_and_counts(self, name):
        data = load(name)
        assert data.train_inputs.shape == (60000, 1, 28, 28)
        assert data.test_inputs.shape == (10000, 1, 28, 28)
        known = {
            "mnist": ([5, 0, 4, 1, 9, 2, 1, 3, 1, 4], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9], 0.1307, 0.3081),
            "fashion_mnist": ([9, 0, 0, 3, 0, 2, 7, 2, 5, 5], [9, 2, 1, 1, 6, 1, 4, 6, 5, 7], 0.2860, 0.3530),
        }[name]
        assert data.train_targets[:10].tolist() == known[0]
        assert data.test_targets[:10].tolist() == known[1]
        # the published mean and standard deviation of the training pixels
        assert data.train_inputs.double().mean().item() == pytest.approx(known[2], abs=1e-4)
        assert data.train_inputs.double().std().item() == pytest.approx(known[3], abs=1e-4)

    def test_setting_of_the_paper(self):
        data = load("mnist", train_samples=2560, image_size=10)
        assert data.train_inputs.shape == (2560, 1, 10, 10)
        assert len(data.test_inputs) == 10000
        assert data.train_inputs.min() >= 0
        assert data.train_inputs.max() <= 1 + 1e-6
        assert data.fingerprint == load("mnist", train_samples=2560, image_size=10).fingerprint

    @pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
    def test_files_have_the_checksums_of_the_catalog(self, name):
        import hashlib

        entry = PUBLIC_DATA[name]
        folder = Path(os.environ["LEARNMECH_DATA"]) / entry.folder
        if not (folder / entry.files[0][0]).is_file():
            pytest.skip("the files are there unzipped only")
        for file, sha256 in entry.files:
            assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == sha256
