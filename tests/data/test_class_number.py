"""Labels as real-valued targets."""

import pytest
import torch

from learnmech.data import Dataset, class_number_regression, load
from learnmech.errors import InputError


def test_targets_are_standardised_on_the_training_set():
    data = class_number_regression(load("digits"))
    assert data.classes is None
    assert data.train_targets.shape == (1347, 1)
    assert abs(float(data.train_targets.mean())) < 1e-6
    assert float(data.train_targets.std(correction=0)) == pytest.approx(1)
    labels = load("digits").test_targets
    order = torch.argsort(data.test_targets.squeeze(1), stable=True)
    assert torch.equal(labels[order], labels.sort().values)


def test_bad_input():
    inputs, labels = torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(InputError, match="one class only"):
        class_number_regression(Dataset("flat", inputs, labels, inputs, labels, 2, "made up"))
    with pytest.raises(InputError, match="real-valued targets already"):
        class_number_regression(Dataset("real", inputs, inputs, inputs, inputs, None, "made up"))
