import math

import pytest
import torch

from learnmech.data import gaussian_clusters
from learnmech.errors import InputError


@pytest.mark.parametrize(("features", "classes", "separation"), [(5, 3, 4.0), (2, 3, 10.0), (30, 10, 6.0), (1, 2, 3.0)])
def test_centres_and_spread(features, classes, separation):
    data = gaussian_clusters(2000 * classes, features, classes, separation=separation, seed=0)
    inputs, labels = data.train_inputs.double(), data.train_targets
    centres = torch.stack([inputs[labels == label].mean(dim=0) for label in range(classes)])
    # a coordinate of a difference of two means of 2000 has deviation sqrt(2 / 2000) = 0.032
    distances = torch.pdist(centres)
    assert (distances - separation).abs().max() < 6 * 0.032
    residual = inputs - centres[labels]
    # the entries of the covariance have deviation at most sqrt(2 / 6000 ...) = 0.022
    assert (residual.T @ residual / len(inputs) - torch.eye(features)).abs().max() < 6 * math.sqrt(2 / len(inputs))


def test_data_separation_in_closed_form():
    features, classes, separation = 20, 4, 5.0
    data = gaussian_clusters(40_000, features, classes, separation=separation, seed=1)
    inputs, labels = data.train_inputs.double(), data.train_targets
    centres = torch.stack([inputs[labels == label].mean(dim=0) for label in range(classes)])
    within = (inputs - centres[labels]).square().sum() / len(inputs)
    between = (centres - inputs.mean(dim=0)).square().sum() / classes
    expected = math.log(2 * classes * features / ((classes - 1) * separation**2))
    assert torch.log(within / between).item() == pytest.approx(expected, abs=0.02)


def test_sizes_and_seeds():
    data = gaussian_clusters(12, 4, 3, separation=2.0, seed=0, test_samples=6)
    assert data.train_inputs.shape == (12, 4)
    assert data.test_inputs.shape == (6, 4)
    assert data.train_targets.bincount().tolist() == [4, 4, 4]
    assert data.fingerprint == gaussian_clusters(12, 4, 3, separation=2.0, seed=0, test_samples=6).fingerprint
    assert data.fingerprint != gaussian_clusters(12, 4, 3, separation=2.0, seed=1, test_samples=6).fingerprint
    assert not torch.equal(data.train_inputs[:6], data.test_inputs)
    assert len(gaussian_clusters(12, 4, 3, separation=2.0, seed=0, test_samples=0).test_inputs) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 2}, "samples"),
        ({"features": 1}, "features"),
        ({"classes": 1}, "classes"),
        ({"separation": -1.0}, "separation"),
        ({"separation": math.nan}, "separation"),
        ({"separation": math.inf}, "separation"),
        ({"seed": -1}, "seed"),
        ({"test_samples": -1}, "test_samples"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(InputError, match=message):
        gaussian_clusters(**{"samples": 12, "features": 4, "classes": 3, "separation": 2.0, "seed": 0, **changes})
