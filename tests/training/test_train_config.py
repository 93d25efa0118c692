import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

from learnmech.errors import InputError
from learnmech.training import TrainConfig, build_seeded, derive_seed, make_loss
from learnmech.training.batches import batch_bounds


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adagrad"}, "optimizer must be one of 'adam', 'adamw', 'sgd', got 'adagrad'"),
        ({"loss": "hinge"}, "loss must be one of 'cross_entropy', 'mse', got 'hinge'"),
        ({"epochs": 1.5}, "epochs must be an integer, got 1.5"),
        ({"epochs": -1}, "epochs must be at least 0, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": True}, "batch_size must be an integer"),
        ({"seed": "0"}, "seed must be an integer"),
        ({"lr": -0.1}, "lr must be a finite number of at least 0, got -0.1"),
        ({"lr": math.nan}, "lr must be a finite number"),
        ({"lr": math.inf}, "lr must be a finite number"),
        ({"lr": "fast"}, "lr must be a number"),
        ({"label_noise": 1.1}, "label_noise must be a finite number of at least 0 and at most 1, got 1.1"),
        ({"optimizer": "sgd", "momentum": 1.0}, "momentum must be a finite number of at least 0 and below 1"),
        ({"momentum": 0.9}, "momentum=0.9 has no effect on optimizer='adam'"),
        ({"checkpoint_seconds": -1}, "checkpoint_seconds must be a finite number of at least 0"),
        ({"weight_decay": -1}, "weight_decay must be"),
        ({"stop_change": -1}, "stop_change must be"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**settings)


def test_fingerprint_names_what_is_computed():
    base = TrainConfig()
    same = TrainConfig(epochs=np.int64(3), checkpoint_seconds=math.inf, lr=np.float64(1e-3), seed=np.int32(0))
    assert same.fingerprint == base.fingerprint
    changed = [{"lr": 1e-2}, {"seed": 1}, {"batch_size": 5}, {"loss": "mse"}, {"stop_loss": 0}, {"data_noise": 0.1}]
    assert len({replace(base, **change).fingerprint for change in [{}, *changed]}) == 7
    with pytest.raises(FrozenInstanceError):
        base.lr = 1.0


@pytest.mark.parametrize("samples", range(1, 12))
@pytest.mark.parametrize("batch_size", [None, *range(1, 13)])
def test_batches_cover_every_sample_once(samples, batch_size):
    bounds = batch_bounds(samples, batch_size)
    assert [position for start, stop in bounds for position in range(start, stop)] == list(range(samples))
    assert all(stop - start <= (batch_size or samples) for start, stop in bounds)
    if min(samples, batch_size or samples) > 1:
        merged = batch_bounds(samples, batch_size, allow_single=False)
        assert min(stop - start for start, stop in merged) > 1
        assert [position for start, stop in merged for position in range(start, stop)] == list(range(samples))


def test_no_samples():
    with pytest.raises(InputError, match="no training samples"):
        batch_bounds(0, None)


def test_derived_seeds_are_stable_and_differ():
    seeds = {derive_seed(seed, purpose) for seed in range(-5, 50) for purpose in ("init", "order", "noise")}
    assert len(seeds) == 55 * 3
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "init") == 3598610026517748695


def test_build_seeded_leaves_the_random_state_alone_even_on_error():
    before = torch.get_rng_state()
    first, second = (build_seeded(lambda: torch.nn.Linear(3, 3), seed).weight for seed in (4, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, build_seeded(lambda: torch.nn.Linear(3, 3), 5).weight)
    with pytest.raises(ZeroDivisionError):
        build_seeded(lambda: torch.rand(3) / (1 // 0), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_losses_against_numpy():
    generator = torch.Generator().manual_seed(0)
    outputs, labels = torch.randn(9, 4, generator=generator), torch.randint(4, (9,), generator=generator)
    scores, onehot = outputs.double().numpy(), np.eye(4)[labels]
    log_sum = np.log(np.exp(scores).sum(1))
    expected = np.mean(log_sum - scores[np.arange(9), labels])
    assert make_loss("cross_entropy", 4)(outputs, labels).item() == pytest.approx(expected, rel=1e-6)
    assert make_loss("mse", 4)(outputs, labels).item() == pytest.approx(((scores - onehot) ** 2).mean(), rel=1e-6)
    targets = torch.randn(9, generator=generator, dtype=torch.float64)
    loss = make_loss("mse", None)(outputs[:, :1], targets)
    assert loss.item() == pytest.approx(((scores[:, 0] - targets.numpy()) ** 2).mean(), rel=1e-6)
    with pytest.raises(InputError, match="loss must be"):
        make_loss("hinge", 4)
