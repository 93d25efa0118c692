import hashlib

import pytest
import torch

from learnmech.data import Dataset
from learnmech.errors import InputError


def make(**changes):
    fields = {
        "name": "toy",
        "train_inputs": torch.arange(24.0).reshape(4, 2, 3),
        "train_targets": torch.tensor([0, 1, 2, 0]),
        "test_inputs": torch.ones(2, 2, 3),
        "test_targets": torch.tensor([2, 1]),
        "classes": 3,
        "source": "a test",
    }
    return Dataset(**{**fields, **changes})


def make_regression(**changes):
    return make(**{"train_targets": torch.rand(4, 2), "test_targets": torch.rand(2, 2), "classes": None, **changes})


def test_shapes_of_classification_and_regression():
    data = make()
    assert (data.input_shape, data.outputs) == ((2, 3), 3)
    assert (make_regression().outputs, make_regression().classes) == (2, None)
    flat = data.flatten()
    assert flat.train_inputs.shape == (4, 6)
    assert flat.test_inputs.shape == (2, 6)
    assert torch.equal(flat.train_inputs[1], torch.arange(6.0, 12.0))


def test_fingerprint_names_the_content_only():
    data = make()
    assert len(data.fingerprint) == 16
    assert int(data.fingerprint, 16) >= 0
    assert data.fingerprint == make(name="other", source="elsewhere").fingerprint
    changed = data.train_inputs.clone()
    changed[3, 1, 2] += 1
    assert make(train_inputs=changed).fingerprint != data.fingerprint
    assert make(test_targets=torch.tensor([2, 0])).fingerprint != data.fingerprint


def test_fingerprint_by_hand():
    digest = hashlib.sha256()
    data = make()
    for tensor, code in (
        (data.train_inputs, "<f4"),
        (data.train_targets, "<i8"),
        (data.test_inputs, "<f4"),
        (data.test_targets, "<i8"),
    ):
        digest.update(f"array {code} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().astype(code).tobytes())
    assert data.fingerprint == digest.hexdigest()[:16]


def test_to_changes_floats_and_leaves_labels():
    data = make().to(dtype=torch.float64)
    assert data.train_inputs.dtype == data.test_inputs.dtype == torch.float64
    assert data.train_targets.dtype == torch.int64
    assert make_regression().to(dtype=torch.float64).train_targets.dtype == torch.float64
    assert make().to(device="cpu").fingerprint == make().fingerprint
    with pytest.raises(InputError, match="float type"):
        make().to(dtype=torch.int64)
    with pytest.raises(InputError, match="finite"):
        make(train_inputs=torch.full((4, 2, 3), 1e6)).to(dtype=torch.float16)


def test_describe_is_one_line():
    line = make().describe()
    assert "\n" not in line
    for part in ("toy", "4 training", "2 test", "(2, 3)", "3 classes", make().fingerprint, "a test"):
        assert part in line
    assert "regression" in make_regression().describe()
    assert repr(make()) == f"Dataset({line})"


def test_empty_test_set_is_allowed():
    data = make(test_inputs=torch.ones(0, 2, 3), test_targets=torch.ones(0, dtype=torch.int64))
    assert len(data.test_inputs) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_targets": torch.tensor([0, 1, 2])}, "4 inputs and 3 targets"),
        ({"train_targets": torch.tensor([0, 1, 3, 0])}, "labels from 0 to 2, got labels from 0 to 3"),
        ({"test_targets": torch.tensor([0, -1])}, "labels from -1 to 0"),
        ({"train_targets": torch.tensor([0, 1, 2, 0], dtype=torch.int32)}, "int64 labels"),
        ({"train_targets": torch.zeros(4)}, "int64 labels"),
        ({"train_inputs": torch.full((4, 2, 3), float("nan"))}, "finite"),
        ({"test_inputs": torch.full((2, 2, 3), float("inf"))}, "finite"),
        ({"train_inputs": torch.ones(4, 2, 3, dtype=torch.int64)}, "expected floats"),
        ({"train_inputs": torch.ones(4)}, r"\(samples, ...\)"),
        ({"test_inputs": torch.ones(2, 3, 2)}, "like the training inputs"),
        ({"test_inputs": torch.ones(2, 2, 3, dtype=torch.float64)}, "float64"),
        ({"train_inputs": torch.ones(1, 2, 3), "train_targets": torch.tensor([0])}, "at least 2 training samples"),
        ({"classes": 1}, "classes"),
        ({"classes": True}, "bool"),
        ({"classes": 3.0}, "float"),
    ],
)
def test_classification_that_does_not_fit(changes, message):
    with pytest.raises(InputError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_targets": torch.rand(4)}, r"\[:, None\]"),
        ({"train_targets": torch.ones(4, 2, dtype=torch.int64)}, "expected floats"),
        ({"train_targets": torch.full((4, 2), float("nan"))}, "train_targets: expected finite"),
        ({"test_targets": torch.rand(2, 1)}, "like the training targets"),
    ],
)
def test_regression_that_does_not_fit(changes, message):
    with pytest.raises(InputError, match=message):
        make_regression(**changes)
