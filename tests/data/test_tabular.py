import gzip

import numpy as np
import pytest
import torch

from learnmech.data import load_csv
from learnmech.errors import DataError, InputError


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(5, 3, size=(40, 4))


def write(path, rows, header=None, delimiter=",", zipped=False):
    lines = [delimiter.join(header)] if header else []
    lines += [delimiter.join(map(repr, row)) for row in rows.tolist()]
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if zipped else content)
    return path


def split(rows, seed=1, testing=8):
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).numpy()
    return rows[order[:-testing]], rows[order[-testing:]]


@pytest.mark.parametrize("header", [None, ["a", "b", "c", "price 2"]])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_values_split_and_scale(tmp_path, rows, header, zipped, delimiter):
    path = write(tmp_path / "t.csv", rows, header, delimiter, zipped)
    data = load_csv(path, delimiter=delimiter)
    train, test = split(rows)
    mean, deviation = train.mean(axis=0), np.sqrt(((train - train.mean(axis=0)) ** 2).mean(axis=0))
    np.testing.assert_allclose(data.train_inputs, ((train - mean) / deviation)[:, :3], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(data.train_targets, ((train - mean) / deviation)[:, 3:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(data.test_inputs, ((test - mean) / deviation)[:, :3], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(data.test_targets, ((test - mean) / deviation)[:, 3:], rtol=1e-5, atol=1e-6)
    assert data.train_inputs.dtype == torch.float32
    assert data.classes is None


@pytest.mark.parametrize("target", [1, -3, "b"])
def test_target_by_name_or_number_without_scaling(tmp_path, rows, target):
    path = write(tmp_path / "t.csv", rows, ["a", "b", "c", "d"])
    data = load_csv(path, target, standardize=False, split_seed=3, test_fraction=0.5)
    train, test = split(rows, seed=3, testing=20)
    np.testing.assert_allclose(data.train_inputs, train[:, [0, 2, 3]], rtol=1e-6)
    np.testing.assert_allclose(data.test_targets, test[:, [1]], rtol=1e-6)


def test_no_test_rows(tmp_path, rows):
    data = load_csv(write(tmp_path / "t.csv", rows), test_fraction=0)
    assert data.train_inputs.shape == (40, 3)
    assert data.test_inputs.shape == (0, 3)


def test_text_forms(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeff"x, the first",y\r\n 1 ,+2\r\n\r\n"1e-1",-.5\r\n3.,4E2\r\n'.encode())
    data = load_csv(path, "y", test_fraction=0, standardize=False)
    assert sorted(data.train_inputs[:, 0].tolist()) == pytest.approx([0.1, 1, 3])
    assert sorted(data.train_targets[:, 0].tolist()) == pytest.approx([-0.5, 2, 400])


def test_constant_feature_is_centred_only(tmp_path, rows):
    rows[:, 1] = 0.1  # its computed standard deviation is not exactly 0
    data = load_csv(write(tmp_path / "t.csv", rows))
    assert bool((data.train_inputs[:, 1] == 0).all())
    assert bool((data.test_inputs[:, 1] == 0).all())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,x\n", r"line 3, column 2 \('b'\): expected a finite number, got 'x'"),
        ("1,2\n3,\n", "line 2, column 2: expected a finite number, got an empty cell"),
        ("1,2\n3,nan\n", "got 'nan'"),
        ("1,2\ninf,2\n", "line 2, column 1: .* got 'inf'"),
        ("1,2\n1_000,2\n", "got '1_000'"),
        ("1,b\n3,4\n", "line 1, column 2: .* got 'b'.*column names must have no numbers"),
        ("a,b\n1,2\n1,2,3\n", "line 3: expected 2 columns as in the first row, got 3"),
        ("1,2,3\n1,2\n", "line 2: expected 3 columns as in the first row, got 2"),
        ("a,b\n", "expected rows of numbers, got none"),
        ("", "expected rows of numbers, got none"),
        ("\n\n", "got none"),
        (",\n,\n", "got an empty cell"),
        ("1;2\n3;4\n", "at least 2 columns.*Is the delimiter ',' right"),
        ("1\n2\n3\n", "at least 2 columns.*delimiter"),
        ("1,2\n", "at least 2 training rows, got 1"),
        ("1,5\n2,5\n3,5\n4,5\n", "column 2: expected a target that varies"),
        ("a,b\n1,5\n2,5\n3,5\n", "column 'b': expected a target that varies"),
        ("1,1\n2,3\n1e300,2\n-1e300,7\n", "fit in float32"),
    ],
)
def test_bad_content(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load_csv(tmp_path / "t.csv", standardize=False)
    assert str(tmp_path / "t.csv") in str(caught.value)


def test_bad_files(tmp_path, rows):
    with pytest.raises(DataError, match="No such file"):
        load_csv(tmp_path / "none.csv")
    with pytest.raises(DataError, match="could not read"):
        load_csv(tmp_path)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00,1\n")
    with pytest.raises(DataError, match="UTF-8"):
        load_csv(tmp_path / "binary.csv")
    path = write(tmp_path / "t.csv.gz", rows, zipped=True)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="gzip"):
        load_csv(path)


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        (["price"], {}, "stands once among the columns a, b, b, d"),
        (["b"], {}, "stands 2 times"),
        ([4], {}, "from -4 to 3, got 4"),
        ([-5], {}, "target"),
        ([], {"test_fraction": 1.0}, "test_fraction"),
        ([], {"test_fraction": -0.1}, "test_fraction"),
        ([], {"delimiter": "::"}, "one character"),
        ([], {"delimiter": ""}, "one character"),
        ([], {"split_seed": 1.5}, "split_seed"),
    ],
)
def test_bad_arguments(tmp_path, rows, arguments, keywords, message):
    path = write(tmp_path / "t.csv", rows, ["a", "b", "b", "d"])
    with pytest.raises(InputError, match=message):
        load_csv(path, *arguments, **keywords)


def test_name_without_header(tmp_path, rows):
    with pytest.raises(InputError, match="no column names"):
        load_csv(write(tmp_path / "t.csv", rows), "price")
