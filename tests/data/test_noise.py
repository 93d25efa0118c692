import math

import pytest
import torch

from learnmech.data import noisy_batch
from learnmech.errors import InputError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("samples", "level", "count"), [(2560, 0.3, 768), (10, 0.25, 2), (7, 1.0, 7), (3, 0.3, 0)])
def test_exactly_floor_of_level_times_n_samples_are_redrawn(samples, level, count):
    labels = torch.full((samples,), -1)  # a mark that no drawn class can equal
    _, noisy = noisy_batch(torch.zeros(samples, 2), labels, label_noise=level, classes=10, generator=seeded())
    assert int((noisy != -1).sum()) == count
    assert set(noisy.tolist()) <= {-1, *range(10)}
    assert bool((labels == -1).all())


def test_flip_rate_is_nine_tenths_of_the_level():
    samples, level = 40_000, 0.5
    labels = torch.arange(samples) % 10
    _, noisy = noisy_batch(torch.zeros(samples, 1), labels, label_noise=level, classes=10, generator=seeded(3))
    # wrong ~ Binomial(20000, 0.9), standard deviation 42; 5 of them fail with probability 6e-7
    assert abs(int((noisy != labels).sum()) - 18_000) < 5 * math.sqrt(20_000 * 0.9 * 0.1)


def test_drawn_classes_are_uniform():
    _, noisy = noisy_batch(
        torch.zeros(100_000, 1), torch.full((100_000,), -1), label_noise=1.0, classes=10, generator=seeded(4)
    )
    counts = noisy.bincount(minlength=10).double()
    # chi-square with 9 degrees of freedom exceeds 42.6 with probability 2.5e-6
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 42.6


def test_added_variance_is_level_squared_times_that_of_the_batch():
    inputs = 3 + 2 * torch.rand(1000, 200, generator=seeded(5), dtype=torch.float64)
    inputs[:, :100] *= 5  # one standard deviation for all entries, not one a feature
    noisy, _ = noisy_batch(inputs, torch.zeros(1000, dtype=torch.int64), data_noise=0.3, classes=2, generator=seeded(6))
    noise = noisy - inputs
    variance = ((inputs - inputs.mean()) ** 2).sum() / (inputs.numel() - 1)
    # a sample variance of N numbers has relative deviation sqrt(2 / N); 5 of them fail with probability 6e-7
    for part, numbers in ((noise, 200_000), (noise[:, :100], 100_000), (noise[:, 100:], 100_000)):
        assert abs(part.var() / (0.09 * variance) - 1) < 5 * math.sqrt(2 / numbers)
    assert abs(noise.mean()) < 5 * 0.3 * math.sqrt(variance / 200_000)


def test_noise_is_the_same_for_the_same_generator_and_fresh_at_each_batch():
    inputs, labels = torch.randn(64, 5, generator=seeded(7)), torch.zeros(64, dtype=torch.int64)
    keywords = {"label_noise": 0.5, "data_noise": 0.5, "classes": 10}
    generator = seeded(8)
    first, second = (noisy_batch(inputs, labels, generator=generator, **keywords) for _ in range(2))
    again = noisy_batch(inputs, labels, generator=seeded(8), **keywords)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


def test_nothing_is_changed_in_place():
    inputs, labels = torch.randn(64, 5, generator=seeded(9)), torch.arange(64) % 10
    kept = inputs.clone(), labels.clone()
    noisy_batch(inputs, labels, label_noise=1.0, data_noise=1.0, classes=10, generator=seeded())
    assert torch.equal(inputs, kept[0])
    assert torch.equal(labels, kept[1])


def test_level_zero_draws_nothing():
    inputs, labels = torch.randn(64, 5, generator=seeded(9)), torch.arange(64) % 10
    generator = seeded(10)
    before = generator.get_state()
    same_inputs, same_labels = noisy_batch(inputs, labels, classes=10, generator=generator)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(same_inputs, inputs)
    assert torch.equal(same_labels, labels)
    # data noise alone draws what randn alone draws
    noisy, _ = noisy_batch(inputs, labels, data_noise=0.5, classes=10, generator=generator)
    draw = torch.randn(64, 5, generator=seeded(10))
    torch.testing.assert_close(noisy, inputs + 0.5 * inputs.std() * draw)
    # label noise alone leaves the inputs
    same_inputs, _ = noisy_batch(inputs, labels, label_noise=0.5, classes=10, generator=generator)
    assert torch.equal(same_inputs, inputs)


def test_regression_targets_get_gaussian_noise():
    targets = 7 + 3 * torch.randn(50_000, 1, generator=seeded(11), dtype=torch.float64)
    _, noisy = noisy_batch(torch.zeros(50_000, 2), targets, label_noise=0.4, classes=None, generator=seeded(12))
    # as above: 5 relative deviations of a variance
    assert abs((noisy - targets).var() / (0.16 * targets.var()) - 1) < 5 * math.sqrt(2 / 50_000)


def test_types_are_kept():
    inputs, labels = torch.randn(8, 3, dtype=torch.float64), torch.zeros(8, dtype=torch.int32)
    noisy, noisy_labels = noisy_batch(inputs, labels, label_noise=0.5, data_noise=0.5, classes=3, generator=seeded())
    assert noisy.dtype == torch.float64
    assert noisy_labels.dtype == torch.int32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_noise": 1.1}, "label_noise"),
        ({"label_noise": -0.1}, "label_noise"),
        ({"label_noise": math.nan}, "label_noise"),
        ({"data_noise": -0.1}, "data_noise"),
        ({"data_noise": math.nan}, "data_noise"),
        ({"data_noise": math.inf}, "data_noise"),
        ({"classes": None}, "classes is None"),
        ({"classes": 1}, "classes"),
        ({"targets": torch.zeros(4)}, "integer labels"),
        ({"targets": torch.zeros(4, 1, dtype=torch.int64)}, "integer labels"),
        ({"targets": torch.zeros(3, dtype=torch.int64)}, "4 inputs and 3 targets"),
        ({"inputs": torch.zeros(4, 2, dtype=torch.int64), "data_noise": 0.1}, "inputs: expected at least 2 floats"),
        (
            {"inputs": torch.zeros(1, 1), "targets": torch.zeros(1, dtype=torch.int64), "data_noise": 0.1},
            "at least 2 floats",
        ),
    ],
)
def test_bad_arguments(changes, message):
    arguments = {"inputs": torch.zeros(4, 2), "targets": torch.zeros(4, dtype=torch.int64), "classes": 10, **changes}
    with pytest.raises(InputError, match=message):
        noisy_batch(arguments.pop("inputs"), arguments.pop("targets"), generator=seeded(), **arguments)
