"""What train_members promises beside equal numbers: choice, memory, random state, Ctrl-C, user modules, bad input."""

import copy
import math
import os
import signal

import pytest
import torch
from stacked_runs import make_blobs, make_configs, make_models, make_regression, require_equal_training, train_both
from torch import nn

from learnmech.data.dataset import Dataset
from learnmech.errors import InputError, LearnmechWarning
from learnmech.nets import CNN, MLP
from learnmech.nets.stacked_plan import NetPlan, read_plan
from learnmech.training import TrainConfig, build_seeded, measure_stacking, train_members
from learnmech.training import stacked as stacked_module
from learnmech.training import stacking_choice as choice_module
from learnmech.training.stacked_batches import StackedBatches
from learnmech.training.stacked_optimizers import StackedOptimizer
from learnmech.training.stacking import find_form


class Residual(nn.Module):
    """A user's module with BatchNorm, a shared layer and a buffer of its own."""

    def __init__(self, slope=0.1):
        super().__init__()
        self.enter, self.shared, self.norm = nn.Linear(6, 8), nn.Linear(8, 8), nn.BatchNorm1d(8)
        self.leave = nn.Linear(8, 3)
        self.slope = slope

    def forward(self, inputs):
        features = self.enter(inputs)
        for _ in range(2):
            features = features + nn.functional.leaky_relu(self.norm(self.shared(features)), self.slope)
        return self.leave(features)


class Other(nn.Sequential):
    """The same as its base, but another class."""


def residuals(count=3, **settings):
    return [build_seeded(lambda: Residual(**settings), seed).double() for seed in range(count)]


def plain_configs(count=3, **settings):
    return [TrainConfig(**{"epochs": 4, "seed": seed, "optimizer": "sgd", **settings}) for seed in range(count)]


@pytest.mark.parametrize("batch_size", [None, 16])
def test_user_modules(batch_size):
    configs = [
        TrainConfig(**{**vars(c), "stop_loss": limit})
        for c, limit in zip(plain_configs(batch_size=batch_size, lr=0.05), (0.0, 9.0, 0.0), strict=True)
    ]
    stacked, _ = require_equal_training(residuals(), make_blobs(), configs)
    assert stacked[1].epochs == 1
    assert find_form(residuals(), make_blobs().train_inputs[:4]).name == "modules"


def test_user_modules_that_cannot_be_stacked_say_why():
    inputs = make_blobs().train_inputs[:4]
    cases = {
        "the models do not compute the same function": [*residuals(1), *residuals(1, slope=0.7)],
        "active dropout": [nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.1)).double() for _ in range(2)],
        "different classes": [nn.Sequential(nn.Linear(6, 3)).double(), Other(nn.Linear(6, 3)).double()],
    }
    hooked = residuals(2)
    hooked[1].enter.register_forward_hook(lambda *_: None)
    cases["enter has hooks"] = hooked
    for reason, models in cases.items():
        found = find_form(models, inputs)
        assert isinstance(found, str)
        assert reason in found
        choice = measure_stacking(models, make_blobs(), plain_configs(2))
        assert not choice.stack
        assert reason in choice.reason
        with pytest.raises(InputError, match="cannot be stacked"):
            train_members(models, make_blobs(), plain_configs(2), stack=True)
        assert len(train_members(models, make_blobs(), plain_configs(2))) == 2


def test_a_reference_net_that_was_changed_is_not_taken_for_one():
    models = make_models()[:2]
    for model in models:
        model.hidden[0].activation = nn.Tanh()
    found = find_form(models, make_blobs().train_inputs[:4])
    assert isinstance(found, str)
    assert "hidden.0.activation is a Tanh" in found
    models = make_models(dropout=0.0, slope=0.2)[:2]
    for model in models:
        model.hidden[0].activation = nn.Tanh()
    require_equal_training(models, make_blobs(), plain_configs(2))
    frozen = make_models(dropout=0.0, slope=0.2)[:2]
    for model in frozen:
        model.readout.weight.requires_grad_(False)
    require_equal_training(frozen, make_blobs(), plain_configs(2))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda net: setattr(net.hidden[1], "pool", nn.MaxPool2d(3, 2, 1)), "hidden.1.pool is a MaxPool2d"),
        (
            lambda net: setattr(net.hidden[0], "upsample", nn.Upsample(size=(5, 4), mode="bilinear")),
            "hidden.0.upsample",
        ),
        (lambda net: setattr(net.hidden[1].conv, "padding_mode", "circular"), "hidden.1.conv"),
        (lambda net: setattr(net.hidden[1].conv, "weight", net.hidden[0].conv.weight), "share parameters"),
        (lambda net: setattr(net, "readout", nn.Sequential(nn.Linear(60, 3))), "its parts hidden, flatten, readout"),
        (lambda net: setattr(net.hidden[1], "activation", nn.LeakyReLU(0.7)), "differ in slope"),
        (lambda net: setattr(net.hidden[1].norm, "momentum", None), "no momentum"),
        (lambda net: net.hidden[0].dropout.__setattr__("inplace", True), "inplace=True"),
        (lambda net: net.hidden[0].norm.weight.requires_grad_(False), "frozen"),
        (lambda net: setattr(net, "forward", print), "forward method of its own"),
    ],
)
def test_changes_that_a_plan_does_not_know(change, reason):
    net = CNN((3, 5, 4), 3, channels=3, depth=3, dropout=0.1)
    assert isinstance(read_plan(net), NetPlan)
    change(net)
    assert reason in read_plan(net)


def test_the_random_state_of_the_caller_is_untouched():
    state = torch.get_rng_state()
    for stack in (True, False, None):
        train_members(make_models(), make_blobs(), make_configs(batch_size=10), stack=stack)
        assert torch.equal(torch.get_rng_state(), state)


def test_one_at_a_time_gives_the_same():
    models, configs = make_models(), make_configs(batch_size=20, optimizer="sgd")
    others, counts, more = copy.deepcopy(models), [], []
    mine = train_members(models, make_blobs(), configs, stack=True, on_epoch=counts.append)
    its = train_members(others, make_blobs(), configs, stack=False, on_epoch=more.append)
    assert counts == [6, 12, 18, 24, 30]
    assert more == list(range(1, 31))
    for first, second in zip(mine, its, strict=True):
        assert first.epoch_losses == pytest.approx(second.epoch_losses, abs=1e-10)
        assert first.test_loss == pytest.approx(second.test_loss, abs=1e-10)


def test_data_that_members_share_are_not_copied():
    data, configs = make_blobs(), make_configs(noise=False)
    batches = StackedBatches(data.train_inputs, data.train_targets, classes=3, bounds=[(0, 50)], configs=configs)
    batches.start_epoch()
    inputs, targets = batches.get(0)
    assert inputs.shape == (1, 50, 6)
    assert inputs.data_ptr() == data.train_inputs.data_ptr()
    assert targets.data_ptr() == data.train_targets.data_ptr()
    labels_only = [TrainConfig(label_noise=0.3), TrainConfig()]
    inputs, targets = StackedBatches(
        data.train_inputs, data.train_targets, classes=3, bounds=[(0, 50)], configs=labels_only
    ).get(0)
    assert inputs.data_ptr() == data.train_inputs.data_ptr()
    assert targets.shape == (2, 50)
    assert torch.equal(targets[1], data.train_targets)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_step_on_shared_data_asks_for_no_memory_of_the_size_of_copies(batch_norm):
    members, generator = 8, torch.Generator()
    models = [MLP(500, 3, width=4, depth=2, batch_norm=batch_norm) for _ in range(members)]
    inputs = torch.randn(1, 300, 500)
    net = find_form(models, inputs[0, :4]).build(range(members), [generator] * members)
    for _ in range(2):  # the first call fills the memory that later ones use again
        with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            outputs = net.forward(inputs)
            net.backward(torch.ones_like(outputs))
        largest = max(event.self_cpu_memory_usage for event in profile.events())
        assert largest < 2 * inputs.numel() * inputs.element_size()


def test_models_keep_their_tensors_and_modes():
    models = make_models()
    places = [parameter.data_ptr() for model in models for parameter in model.parameters()]
    models[1].eval()
    train_members(models, make_blobs(), make_configs(), stack=True)
    assert places == [parameter.data_ptr() for model in models for parameter in model.parameters()]
    assert models[0].training
    assert not models[1].training


def test_threads_are_put_back():
    before, seen = torch.get_num_threads(), []
    train_members(
        make_models(), make_blobs(), make_configs(), stack=True, on_epoch=lambda _: seen.append(torch.get_num_threads())
    )
    assert set(seen) == {1}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("stacked", "separate", "expected"), [(1.0, 2.0, True), (2.0, 1.0, False)])
def test_the_cheaper_way_is_chosen(monkeypatch, stacked, separate, expected):
    monkeypatch.setattr(choice_module, "time_stacked", lambda *_: stacked)
    monkeypatch.setattr(choice_module, "time_separate", lambda *_: separate)
    choice = measure_stacking(make_models(), make_blobs(), make_configs())
    assert choice.stack is expected
    assert (choice.stacked_seconds, choice.separate_seconds, choice.form) == (stacked, separate, "MLP")
    ways = []
    monkeypatch.setattr(stacked_module, "_train_stacks", lambda *_, **__: ways.append(True) or [])
    monkeypatch.setattr(stacked_module, "train_one_at_a_time", lambda *_, **__: ways.append(False) or [])
    train_members(make_models(), make_blobs(), make_configs(epochs=20))
    assert ways == [expected]
    train_members(make_models(), make_blobs(), make_configs(epochs=9))  # over before it could be measured
    assert ways == [expected, False]


@pytest.mark.parametrize("batch_size", [None, 8])
def test_measuring_changes_nothing(batch_size):
    models, state = make_models(), torch.get_rng_state()
    before = copy.deepcopy([model.state_dict() for model in models])
    choice = measure_stacking(
        models,
        make_blobs(),
        make_configs(batch_size=batch_size),
    )
    assert choice.stacked_seconds > 0
    assert choice.separate_seconds > 0
    assert torch.equal(torch.get_rng_state(), state)
    for model, old in zip(models, before, strict=True):
        assert all(torch.equal(value, old[name]) for name, value in model.state_dict().items())


def test_a_single_member_is_never_stacked_unless_asked():
    assert measure_stacking(make_models()[:1], make_blobs(), make_configs()[:1]).reason == "a single member"
    require_equal_training(make_models()[:1], make_blobs(), make_configs(optimizer="sgd")[:1])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_written_out_rules_equal_the_fused_kernels(optimizer):
    configs = make_configs(optimizer=optimizer)
    rows = [torch.randn(6, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) for _ in range(2)]
    gradients = [torch.zeros_like(rows[0]) for _ in range(2)]
    rows[1] = rows[0].clone()
    pair = [StackedOptimizer(configs, rows[k], gradients[k], fused=k == 0) for k in range(2)]
    for step in range(5):
        for gradient in gradients:
            gradient.copy_(torch.sin(torch.arange(240.0, dtype=torch.float64) * (step + 1)).view(6, 40))
        for one in pair:
            one.step()
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stack", [True, False])
@pytest.mark.parametrize("batch_size", [None, 8])
def test_ctrl_c_ends_after_the_step(stack, batch_size):
    def press(done):
        os.kill(os.getpid(), signal.SIGINT)

    models, configs = make_models(), make_configs(batch_size=batch_size, epochs=50)
    configs[1] = TrainConfig(**{**vars(configs[1]), "stop_loss": 100.0})
    results = train_members(models, make_blobs(), configs, stack=stack, on_epoch=press)
    reasons = [result.stopped_because for result in results]
    assert reasons.count("interrupted") >= 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if stack:
        assert reasons[1] == "loss"
        assert {result.epochs for result in results} == {1}
        copies = make_models()
        train_members(copies, make_blobs(), [TrainConfig(**{**vars(c), "epochs": 1}) for c in configs], stack=True)
        assert torch.equal(models[0].readout.weight, copies[0].readout.weight)


@pytest.mark.parametrize("stack", [True, False])
def test_ctrl_c_after_the_last_step_is_for_the_caller(stack):
    def press(done):
        if done == 6:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_members(make_models(), make_blobs(), make_configs(epochs=1), stack=stack, on_epoch=press)


@pytest.mark.parametrize("stack", [True, False])
def test_a_second_ctrl_c_raises_at_once(stack):
    def press(done):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    models = make_models()
    before = models[0].readout.weight.clone()
    with pytest.raises(KeyboardInterrupt):
        train_members(models, make_blobs(), make_configs(), stack=stack, on_epoch=press)
    assert not torch.equal(models[0].readout.weight, before)  # what was computed is kept
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_divergence_is_said_once():
    configs = make_configs(optimizer="sgd", loss="mse")
    for position in (1, 4):
        configs[position] = TrainConfig(**{**vars(configs[position]), "lr": 1e60})
    for stack in (True, False):
        with pytest.warns(LearnmechWarning, match=r"diverged in 2 of 6 members \(positions \[1, 4\]\)") as caught:
            train_members(make_models(batch_norm=False), make_blobs(), configs, stack=stack)
        assert len(caught) == 1


def test_bad_inputs():
    data, models, configs = make_blobs(), make_models(), make_configs()

    def refuse(match, models=models, data=data, configs=configs, **options):
        before = copy.deepcopy([model.state_dict() for model in models if isinstance(model, nn.Module)])
        for stack in (True, False, None):
            with pytest.raises(InputError, match=match):
                train_members(models, data, configs, **{"stack": stack, **options})
        for model, old in zip([m for m in models if isinstance(m, nn.Module)], before, strict=True):
            for name, value in model.state_dict().items():
                torch.testing.assert_close(value, old[name], rtol=0, atol=0, equal_nan=True)

    refuse("at least one model", models=[], configs=[])
    refuse("6 models and 5 configs", configs=configs[:5])
    refuse("expected a torch.nn.Module, got str", models=["net", *models[1:]])
    refuse(r"models\[0\] and models\[1\] share", models=[models[0], models[0], *models[2:]])
    refuse("one shape, but readout.weight is", models=[MLP(6, 4, width=8, depth=3).double(), *models[1:]])
    refuse(
        "one shape, but hidden.2.linear.weight is missing", models=[*models[:5], MLP(6, 3, width=8, depth=4).double()]
    )
    refuse("one shape, but input_norm.weight", models=[models[0].float(), *make_models()[1:]])
    models[0].double()
    for name, value in {"batch_size": 7, "optimizer": "sgd", "loss": "mse", "epochs": 6}.items():
        other = TrainConfig(**{**vars(configs[5]), name: value})
        refuse(rf"agree in {name}, but configs\[0\].* configs\[5\]", configs=[*configs[:5], other])
    refuse("batches of one sample", configs=make_configs(batch_size=1))
    refuse("cross_entropy' needs a data set with classes", data=make_regression())
    refuse("net as many outputs", data=make_regression(outputs=2), configs=make_configs(loss="mse"))
    refuse("cannot be evaluated on data set 'blobs'", data=make_blobs(shape=(7,)))
    refuse(
        "at least 2 floats",
        data=Dataset("one", *[torch.rand(3, 1).double()] * 4, classes=None, source="x"),
        models=[nn.Linear(1, 1).double()],
        configs=[TrainConfig(batch_size=1, data_noise=0.1, loss="mse")],
    )
    refuse("threads must be", threads=0)
    refuse("stack_size must be", stack_size=0)
    broken = make_models()
    with torch.no_grad():
        broken[3].readout.weight[0, 0] = math.nan
    refuse(r"models\[3\]: readout.weight holds nan", models=broken)
    refuse("no parameter that needs", models=[model.requires_grad_(False) for model in make_models()])


def test_losses_of_members_that_share_a_seed_are_the_same():
    models = [build_seeded(lambda: MLP(6, 3, width=8, depth=3, dropout=0.2), 1).double() for _ in range(3)]
    stacked, _, _ = train_both(models, make_blobs(), [TrainConfig(seed=4, epochs=3, batch_size=10)] * 3)
    assert stacked[0].epoch_losses == stacked[1].epoch_losses == stacked[2].epoch_losses
