import math

import pytest
import torch

from learnmech.data import bottleneck_task
from learnmech.errors import InputError


@pytest.mark.parametrize("teacher", ["fully_connected", "residual"])
def test_targets_lie_on_a_curve_if_one_number_passes(teacher):
    """Around a point of a curve one direction holds almost all variance of near neighbours; with two numbers it does not."""

    def leading_share(widths):
        targets = bottleneck_task(widths, 4000, test_samples=0, teacher=teacher, seed=1).train_targets.double()
        shares = []
        for point in targets[:40]:
            near = targets[(targets - point).norm(dim=1).argsort()[:8]]
            spectrum = torch.linalg.svdvals(near - near.mean(0)).square()
            shares.append(float(spectrum[0] / spectrum.sum()))
        return sorted(shares)[20]

    assert leading_share((4, 1, 5)) > 0.999
    assert leading_share((4, 2, 5)) < 0.97


@pytest.mark.parametrize("teacher", ["fully_connected", "residual"])
def test_every_coordinate_is_standardised_on_the_training_samples(teacher):
    task = bottleneck_task((6, 2, 7), 500, test_samples=200, teacher=teacher, seed=0)
    for values in (task.train_inputs, task.train_targets):
        assert values.mean(0).abs().max() < 1e-5
        assert (values.square().mean(0) - 1).abs().max() < 1e-4
    # the mean of 200 standard normal numbers has deviation 0.07; 6 of them, 5 deviations
    assert task.test_inputs.mean(0).abs().max() < 5 / math.sqrt(200)
    assert task.classes is None
    assert "6-2-7" in task.name


def test_sizes_and_seeds():
    task = bottleneck_task((20, 5, 20), 12, test_samples=6, seed=0)
    assert task.train_inputs.shape == task.train_targets.shape == (12, 20)
    assert task.test_inputs.shape == (6, 20)
    assert bottleneck_task((20, 5, 20), 12, test_samples=6, seed=0).fingerprint == task.fingerprint
    assert bottleneck_task((20, 5, 20), 12, test_samples=6, seed=1).fingerprint != task.fingerprint
    assert bottleneck_task((20, 5, 20), 12, test_samples=6, hidden=9).fingerprint != task.fingerprint
    assert len(bottleneck_task((3, 4), 12, test_samples=0).test_inputs) == 0
    state = torch.random.get_rng_state()
    bottleneck_task((3, 4), 12)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": (20,)}, "two dimensions"),
        ({"widths": "20-5-20"}, "two dimensions"),
        ({"widths": (20, 0, 20)}, "widths"),
        ({"widths": (20, 2.5, 20)}, "widths"),
        ({"samples": 1}, "samples"),
        ({"test_samples": -1}, "test_samples"),
        ({"hidden": 0}, "hidden"),
        ({"seed": -1}, "seed"),
        ({"teacher": "linear"}, "teacher: expected one of fully_connected, residual"),
        ({"widths": (1, 1), "hidden": 1, "samples": 2, "seed": 3, "test_samples": 0}, "does not vary"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(InputError, match=message):
        bottleneck_task(**{"widths": (6, 2, 6), "samples": 10, **changes})
