"""Every member of a stack ends where the plain trainer would take it alone."""

import math

import pytest
import torch
from stacked_runs import (
    MEMBERS,
    make_blobs,
    make_configs,
    make_models,
    make_regression,
    require_equal_training,
    train_both,
)

from learnmech.nets import CNN
from learnmech.training import TrainConfig


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("batch_size", [None, 8], ids=["full", "batches"])
@pytest.mark.parametrize("batch_norm", [True, False], ids=["norm", "plain"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "regression"])
def test_members_that_differ_in_everything(optimizer, batch_size, batch_norm, loss):
    data = make_regression() if loss == "regression" else make_blobs()
    configs = make_configs(optimizer=optimizer, batch_size=batch_size, loss="mse" if loss == "regression" else loss)
    require_equal_training(make_models(batch_norm=batch_norm), data, configs)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("batch_size", [None, 16], ids=["full", "batches"])
def test_without_noise_all_members_share_the_full_batch(optimizer, batch_size):
    configs = make_configs(noise=False, optimizer=optimizer, batch_size=batch_size, epochs=8)
    require_equal_training(make_models(), make_blobs(), configs)


@pytest.mark.parametrize(
    "shape",
    [
        {"bias": False},
        {"bias": False, "batch_norm": False},
        {"depth": 1},
        {"depth": 1, "batch_norm": False},
        {"depth": 1, "bias": False},
        {"depth": 2, "width": 5},
        {"depth": 6, "init": "orthogonal", "init_scale": 1.5},
        {"slope": -0.3},
    ],
    ids=str,
)
@pytest.mark.parametrize("batch_size", [None, 16], ids=["full", "batches"])
def test_shapes(shape, batch_size):
    configs = make_configs(optimizer="sgd", batch_size=batch_size)
    require_equal_training(make_models(**shape), make_blobs(), configs)


def test_inputs_of_any_shape_and_one_output():
    data = make_blobs(shape=(1, 2, 3))
    require_equal_training(make_models(), data, make_configs(optimizer="sgd"))


def test_last_single_sample_is_merged_with_batch_norm():
    stacked, _ = require_equal_training(
        make_models(), make_blobs(samples=49), make_configs(batch_size=8, optimizer="sgd")
    )
    assert stacked[0].steps == 6 * 5


def test_all_members_without_dropout_and_all_with_it():
    for dropout in (0.0, 0.2):
        require_equal_training(
            make_models(dropout=dropout), make_blobs(), make_configs(optimizer="adamw", batch_size=20)
        )


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_members_leave_the_stack_when_their_rule_holds(optimizer):
    limits = [0.9, 0.5, 0.8, 0.0, 0.7, 0.0]
    settings = make_configs(epochs=30, batch_size=25, lr=5e-3, optimizer=optimizer)
    configs = [
        TrainConfig(**{**vars(config), "stop_loss": limit, "stop_change": 0.02 if position == 5 else 0.0})
        for position, (config, limit) in enumerate(zip(settings, limits, strict=True))
    ]
    stacked, plain = require_equal_training(make_models(), make_blobs(), configs)
    assert len({result.epochs for result in stacked}) >= 4
    assert {result.stopped_because for result in stacked} == {"loss", "change", "epochs"}
    assert [result.epochs for result in stacked] == [result.epochs for result in plain]


@pytest.mark.parametrize("batch_norm", [True, False], ids=["norm", "plain"])
@pytest.mark.parametrize("batch_size", [None, 10], ids=["full", "batches"])
def test_a_member_that_diverges_harms_no_other(batch_norm, batch_size):
    configs = make_configs(optimizer="sgd", loss="mse", batch_size=batch_size, epochs=12)
    configs[2] = TrainConfig(**{**vars(configs[2]), "lr": 1e60})
    stacked, _ = require_equal_training(make_models(batch_norm=batch_norm), make_blobs(), configs)
    assert stacked[2].stopped_because == "diverged"
    assert not math.isfinite(stacked[2].epoch_losses[-1])
    assert all(result.stopped_because == "epochs" for position, result in enumerate(stacked) if position != 2)


def test_no_epochs():
    models = make_models()
    before = [parameter.clone() for parameter in models[0].parameters()]
    stacked, _ = require_equal_training(models, make_blobs(), make_configs(epochs=0))
    assert stacked[0].stopped_because == "epochs"
    assert all(torch.equal(old, new) for old, new in zip(before, models[0].parameters(), strict=True))


@pytest.mark.parametrize("size", [1, 2, 4, None])
def test_several_stacks_one_after_the_other(size):
    require_equal_training(make_models(), make_blobs(), make_configs(optimizer="sgd", batch_size=20), stack_size=size)


def test_many_steps_in_double_precision():
    configs = make_configs(optimizer="sgd", batch_size=10, epochs=20)
    require_equal_training(make_models(), make_blobs(), configs)


def test_single_precision_stays_close():
    # Parameters of which a plain net knows the zero gradient up to rounding only are looked at in their own test.
    data = make_blobs(dtype=torch.float32)
    for batch_norm in (True, False):
        models = make_models(dtype=torch.float32, batch_norm=batch_norm)
        require_equal_training(models, data, make_configs(optimizer="sgd", batch_size=16, epochs=3), tolerance=2e-5)
    stacked, plain, _ = train_both(make_models(dtype=torch.float32), data, make_configs(batch_size=16, epochs=3))
    for mine, its in zip(stacked, plain, strict=True):
        assert mine.epoch_losses == pytest.approx(its.epoch_losses, abs=1e-3)


def test_zero_gradients_before_batch_norm_are_exact():
    model = make_models(members=MEMBERS[:2])
    before = [member.hidden[0].linear.bias.clone() for member in model]
    train_both(model, make_blobs(), make_configs(members=[(*m[:5], 0.0, *m[6:]) for m in MEMBERS[:2]]))
    for member, start in zip(model, before, strict=True):
        assert torch.equal(member.hidden[0].linear.bias, start)
        assert not member.input_norm.bias.any()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("batch_size", [None, 8], ids=["full", "batches"])
@pytest.mark.parametrize("batch_norm", [True, False], ids=["norm", "plain"])
def test_convolutional_nets(optimizer, batch_size, batch_norm):
    data = make_blobs(samples=18, shape=(2, 5, 4))
    configs = make_configs(optimizer=optimizer, batch_size=batch_size, epochs=3)
    require_equal_training(make_models(CNN, batch_norm=batch_norm), data, configs)


@pytest.mark.parametrize("shape", [{"depth": 1}, {"bias": False}, {"slope": 1.0, "dropout": 0.0}], ids=str)
def test_shapes_of_convolutional_nets(shape):
    data = make_blobs(samples=18, shape=(2, 5, 4))
    for noise in (True, False):
        require_equal_training(make_models(CNN, **shape), data, make_configs(optimizer="sgd", noise=noise, epochs=3))
