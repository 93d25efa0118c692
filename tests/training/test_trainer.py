import math
import random

import numpy as np
import pytest
import torch
from small_runs import make_data, make_line, make_net
from torch import nn
from torch.nn import functional

from learnmech.data.dataset import Dataset
from learnmech.data.noise import noisy_batch
from learnmech.errors import InputError, LearnmechWarning
from learnmech.nets import CNN
from learnmech.training import TrainConfig, Trainer, build_seeded, derive_seed


def reference_losses(model, data, config):
    """The loop as one would write it in a notebook."""
    torch.manual_seed(derive_seed(config.seed, "training"))
    order = torch.Generator().manual_seed(derive_seed(config.seed, "order"))
    noise = torch.Generator().manual_seed(derive_seed(config.seed, "noise"))
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[config.optimizer]
    more = {"momentum": config.momentum} if config.optimizer == "sgd" else {}
    optimizer = kind(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True, **more)
    levels = {"label_noise": config.label_noise, "data_noise": config.data_noise}
    samples, losses = len(data.train_inputs), []
    for _ in range(config.epochs):
        total = 0.0
        full = config.batch_size is None
        for batch in [slice(None)] if full else torch.randperm(samples, generator=order).split(config.batch_size):
            x, y = data.train_inputs[batch], data.train_targets[batch]
            x, y = noisy_batch(x, y, classes=data.classes, generator=noise, **levels)
            loss = functional.cross_entropy(model(x), y)
            if config.loss == "mse":
                loss = ((model(x) - functional.one_hot(y, data.classes)) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(x)
        losses.append(total / samples)
    return losses


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_size": 16},
        {"batch_size": 16, "optimizer": "sgd", "momentum": 0.9, "lr": 0.05, "weight_decay": 0.01},
        {"optimizer": "adamw", "weight_decay": 0.3, "label_noise": 0.3},
        {"batch_size": 9, "data_noise": 0.5, "label_noise": 0.5, "seed": 9},
    ],
    ids=["default", "batches", "sgd", "adamw", "noise"],
)
def test_equals_a_loop_written_by_hand(settings):
    data, config = make_data(), TrainConfig(epochs=6, stop_loss=0, **settings)
    trainer = Trainer(make_net(dropout=0.1), data, config)
    result = trainer.fit()
    model = make_net(dropout=0.1)
    torch_state = torch.get_rng_state()
    assert list(result.epoch_losses) == reference_losses(model, data, config)
    torch.set_rng_state(torch_state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, trainer.model.state_dict()[name]), name
    model.eval()
    outputs = model(data.test_inputs)
    assert result.test_loss == pytest.approx(functional.cross_entropy(outputs, data.test_targets).item(), rel=1e-6)
    assert result.test_accuracy == np.mean(outputs.argmax(1).numpy() == data.test_targets.numpy())


def test_squared_error_on_one_hot_targets():
    data, config = make_data(), TrainConfig(epochs=5, loss="mse", optimizer="sgd", lr=0.1, stop_loss=0)
    net = make_net(batch_norm=False)
    losses = Trainer(make_net(batch_norm=False), data, config).fit().epoch_losses
    assert losses == pytest.approx(reference_losses(net, data, config), rel=1e-6)


def test_gradient_descent_on_a_line_in_closed_form():
    # For w x against 2 x the error w - 2 shrinks by 1 - 2 lr mean(x^2) each step, and the loss is its square times mean(x^2).
    data, net = make_line(), nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    square = data.train_inputs.square().mean().item()
    result = Trainer(net, data, TrainConfig(loss="mse", optimizer="sgd", lr=0.3, epochs=10, stop_loss=0)).fit()
    shrink = 1 - 2 * 0.3 * square
    assert result.epoch_losses == pytest.approx([4 * square * shrink ** (2 * t) for t in range(10)], rel=1e-5)
    assert math.isnan(result.train_accuracy)
    assert math.isnan(result.test_accuracy)


def test_stop_rules():
    data = make_line()
    settings = {"loss": "mse", "optimizer": "sgd", "epochs": 500}

    def run(**more):
        net = nn.Linear(1, 1)
        nn.init.zeros_(net.weight)
        nn.init.zeros_(net.bias)
        return Trainer(net, data, TrainConfig(**{**settings, **more})).fit()

    by_loss = run(lr=0.3, stop_loss=1e-3)
    assert by_loss.stopped_because == "loss"
    assert by_loss.epoch_losses[-1] < 1e-3 <= by_loss.epoch_losses[-2]
    by_change = run(lr=0.01, stop_loss=0, stop_change=1e-3)
    changes = -np.diff(by_change.epoch_losses)
    assert by_change.stopped_because == "change"
    assert changes[-1] < 1e-3 <= changes[:-1].min()
    assert run(lr=0.01, epochs=3).stopped_because == "epochs"
    none = run(lr=0.01, epochs=0)
    assert (none.stopped_because, none.steps, none.epoch_losses) == ("epochs", 0, ())


@pytest.mark.parametrize("batch_size", [None, 10])
def test_divergence_keeps_what_was_computed(tmp_path, batch_size):
    config = TrainConfig(loss="mse", optimizer="sgd", lr=1e4, epochs=200, batch_size=batch_size)
    trainer = Trainer(nn.Linear(1, 1), make_line(), config, folder=tmp_path)
    with pytest.warns(LearnmechWarning, match="training diverged: the loss of epoch"):
        result = trainer.fit()
    assert result.stopped_because == "diverged"
    assert result.epochs == len(result.epoch_losses) < 200
    assert not math.isfinite(result.epoch_losses[-1])
    assert all(math.isfinite(loss) for loss in result.epoch_losses[:-1])
    again = Trainer(nn.Linear(1, 1), make_line(), config, folder=tmp_path)
    assert again.resume()
    with pytest.warns(LearnmechWarning, match="diverged"):
        assert again.fit().steps == result.steps


def test_same_seed_same_run_and_streams_are_separate():
    def run(seed=0, **more):
        return Trainer(make_net(), make_data(), TrainConfig(epochs=2, batch_size=10, seed=seed, **more)).fit()

    assert run().epoch_losses == run().epoch_losses
    assert run().epoch_losses != run(seed=1).epoch_losses
    orders = []
    for noise in (0.0, 0.5):
        seen = []
        trainer = Trainer(make_net(), make_data(), TrainConfig(epochs=2, batch_size=10, data_noise=noise))
        draw = trainer._draw_order
        trainer._draw_order = lambda draw=draw, seen=seen: seen.append(draw()) or seen[-1]
        trainer.fit()
        orders.append(torch.stack(seen))
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0][0], orders[0][1])
    assert all(torch.equal(order.sort().values, torch.arange(50)) for order in orders[0])


def test_all_random_states_of_the_caller_are_unchanged():
    torch.manual_seed(1)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    net = make_net(dropout=0.5)
    Trainer(net, make_data(), TrainConfig(epochs=2, data_noise=0.1, batch_size=10)).fit()
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_full_batch_is_the_data_itself():
    data = make_data()
    trainer = Trainer(make_net(), data, TrainConfig(epochs=1))
    seen = []
    trainer.model.register_forward_pre_hook(lambda _module, arguments: seen.append(arguments[0].data_ptr()))
    trainer.fit()
    assert seen[0] == data.train_inputs.data_ptr()
    assert Trainer(make_net(), data, TrainConfig(batch_size=50))._bounds == [(0, 50)]


def test_last_batch_of_one_sample_is_merged_only_with_batch_norm():
    sizes = {}
    for batch_norm in (True, False):
        trainer = Trainer(make_net(batch_norm=batch_norm), make_data(), TrainConfig(epochs=1, batch_size=7))
        seen = []
        trainer.model.register_forward_pre_hook(lambda _module, arguments, seen=seen: seen.append(len(arguments[0])))
        assert trainer.fit().steps == 7 + (not batch_norm)
        sizes[batch_norm] = seen[: trainer.step]
    assert sizes == {True: [7, 7, 7, 7, 7, 7, 8], False: [7, 7, 7, 7, 7, 7, 7, 1]}


def test_callbacks_see_every_step_and_epoch():
    steps, epochs = [], []
    trainer = Trainer(make_net(), make_data(), TrainConfig(epochs=3, batch_size=20))
    trainer.fit(
        lambda trainer: steps.append((trainer.step, trainer.epoch, trainer.model.training)),
        lambda trainer: epochs.append((trainer.step, trainer.epoch, len(trainer.epoch_losses))),
    )
    assert steps == [(step, (step - 1) // 3, True) for step in range(1, 10)]
    assert epochs == [(3, 1, 1), (6, 2, 2), (9, 3, 3)]


def test_evaluate_is_exact_in_chunks_and_restores_modes():
    data = make_data(samples=5000)
    trainer = Trainer(make_net(dropout=0.5), data)
    trainer.model.hidden[0].norm.eval()
    modes = [module.training for module in trainer.model.modules()]
    statistics = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    loss, accuracy = trainer.evaluate(data.train_inputs, data.train_targets)
    assert [module.training for module in trainer.model.modules()] == modes
    assert all(torch.equal(value, statistics[name]) for name, value in trainer.model.state_dict().items())
    outputs = trainer.model.eval()(data.train_inputs)
    assert loss == pytest.approx(functional.cross_entropy(outputs, data.train_targets).item(), rel=1e-5)
    assert accuracy == (outputs.argmax(1) == data.train_targets).double().mean().item()
    with pytest.raises(InputError, match="one target for each input, got 5000 inputs and 3 targets"):
        trainer.evaluate(data.train_inputs, data.train_targets[:3])


def test_float64_model_and_empty_test_set():
    data = make_data()
    data = Dataset("d", data.train_inputs, data.train_targets, data.test_inputs[:0], data.test_targets[:0], 3, "here")
    result = Trainer(make_net().double(), data, TrainConfig(epochs=2)).fit()
    assert math.isnan(result.test_loss)
    assert math.isnan(result.test_accuracy)


def test_cnn_learns_digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, torch.tensor(labels)
    data = Dataset("digits", inputs[:500], targets[:500], inputs[500:], targets[500:], classes=10, source="sklearn")
    net = build_seeded(lambda: CNN((1, 8, 8), 10, channels=8, depth=3), 0)
    result = Trainer(net, data, TrainConfig(epochs=6, batch_size=50, lr=1e-2)).fit()
    assert result.test_accuracy > 0.85


def test_a_hook_on_the_optimizer_fires_every_step():
    trainer, fired = Trainer(make_net(), make_data(), TrainConfig(epochs=3)), []
    trainer.optimizer.register_step_post_hook(lambda *_: fired.append(trainer.step))
    trainer.fit()
    assert fired == [0, 1, 2]


@pytest.mark.parametrize(
    ("model", "data", "config", "message"),
    [
        (nn.ReLU(), make_data(), TrainConfig(), "the model has no parameters"),
        (nn.Linear(6, 3).requires_grad_(False), make_data(), TrainConfig(), "no parameter that needs a gradient"),
        (make_net(), make_data(), TrainConfig(batch_size=1), "BatchNorm cannot be trained on batches of one sample"),
        (nn.Linear(1, 1), make_line(), TrainConfig(), "'cross_entropy' needs a data set with classes"),
    ],
)
def test_what_does_not_fit_together(model, data, config, message):
    with pytest.raises(InputError, match=message):
        Trainer(model, data, config)


def test_wrong_number_of_outputs_for_regression():
    with pytest.raises(InputError, match=r"outputs have shape \(21, 2\) but targets \(21, 1\)"):
        Trainer(nn.Linear(1, 2), make_line(), TrainConfig(loss="mse")).fit()
