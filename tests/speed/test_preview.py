"""The preview of a step against the step that torch's optimizers really make, bit by bit, and that it leaves no trace."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from learnmech import speed
from learnmech.errors import InputError
from learnmech.speed import preview as previewing
from learnmech.speed.preview import preview_step

OPTIMIZERS = {
    "SGD": ("SGD", {"lr": 0.1}),
    "SGD, momentum": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.1}),
    "SGD, Nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "SGD, Nesterov, foreach": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "foreach": True}),
    "SGD, fused": ("SGD", {"lr": 0.1, "momentum": 0.9, "fused": True}),
    "SGD, maximize": ("SGD", {"lr": 0.1, "maximize": True}),
    "Adam": ("Adam", {"lr": 1e-2}),
    "Adam, AMSGrad": ("Adam", {"lr": 1e-2, "amsgrad": True, "weight_decay": 0.1}),
    "Adam, foreach": ("Adam", {"lr": 1e-2, "foreach": True}),
    "Adam, fused": ("Adam", {"lr": 1e-2, "fused": True}),
    "Adam, tensor learning rate": ("Adam", {"lr": torch.tensor(1e-2)}),
    "AdamW": ("AdamW", {"lr": 1e-2, "weight_decay": 0.2}),
    "AdamW, fused": ("AdamW", {"lr": 1e-2, "weight_decay": 0.2, "fused": True}),
    "NAdam": ("NAdam", {"lr": 1e-2}),
    "RAdam": ("RAdam", {"lr": 1e-2}),
    "Adamax": ("Adamax", {"lr": 1e-2}),
    "Adadelta": ("Adadelta", {"lr": 0.5}),
    "Adagrad": ("Adagrad", {"lr": 1e-2, "lr_decay": 0.1}),
    "Adagrad, fused": ("Adagrad", {"lr": 1e-2, "fused": True}),
    "RMSprop": ("RMSprop", {"lr": 1e-2, "centered": True, "momentum": 0.5}),
    "RMSprop, foreach": ("RMSprop", {"lr": 1e-2, "weight_decay": 0.1, "foreach": True}),
    "Rprop": ("Rprop", {"lr": 1e-2}),
    "ASGD": ("ASGD", {"lr": 1e-2}),
    "Adafactor": ("Adafactor", {"lr": 1e-2}),
    "Muon": ("Muon", {"lr": 1e-2, "weight_decay": 0.1}),
}


class Net(nn.Module):
    """Two layers; a parameter that gets no gradient, and a frozen one."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.idle = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(2, 2)
        self.frozen = nn.Linear(3, 3)
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.frozen(self.second(torch.tanh(self.first(x))))


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(7, 5, generator=generator), torch.randn(7, 3, generator=generator)


def backward(net, seed=0):
    net.zero_grad()
    x, y = batch(seed)
    F.mse_loss(net(x), y).backward()
    return {name: parameter.grad for name, parameter in net.named_parameters() if parameter.grad is not None}


def make(name, **changes):
    kind, options = OPTIMIZERS[name]
    if not hasattr(torch.optim, kind):
        pytest.skip(f"this torch has no {kind}")
    torch.manual_seed(0)
    net = Net()
    if kind == "Muon":
        return net, torch.optim.Muon([p for p in net.parameters() if p.ndim == 2], **options)
    groups = [
        {"params": net.first.parameters()},
        {"params": [*net.second.parameters(), *net.idle.parameters(), *net.frozen.parameters()], **changes},
    ]
    return net, getattr(torch.optim, kind)(groups, **options)


def train(net, optimizer, steps=3):
    for step in range(steps):
        backward(net, seed=step)
        optimizer.step()


def state_of(net, optimizer):
    return copy.deepcopy(
        (
            {name: (value, value.grad, value.requires_grad) for name, value in net.named_parameters()},
            [dict(group, params=[id(parameter) for parameter in group["params"]]) for group in optimizer.param_groups],
            {id(key): dict(value) for key, value in optimizer.state.items()},
            torch.get_rng_state(),
        )
    )


def same(first, second):
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def real_step(net, optimizer, gradients):
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    net.zero_grad()
    for name, gradient in gradients.items():
        net.get_parameter(name).grad = gradient.clone()
    optimizer.step()
    changes = {name: parameter.detach() - before[name] for name, parameter in net.named_parameters()}
    return {name: change for name, change in changes.items() if bool((change != 0).any())}


def assert_equal(found, real):
    assert found.keys() == real.keys()
    for name in real:
        assert torch.equal(found[name], real[name]), name


@pytest.mark.parametrize("part", [1, 1 << 20])
@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_bit_by_bit(name, steps, part, monkeypatch):
    monkeypatch.setattr(previewing, "_PART", part)
    net, optimizer = make(name)
    train(net, optimizer, steps)
    gradients = {key: value.clone() for key, value in backward(net, seed=9).items()}
    given = copy.deepcopy(gradients)
    before = state_of(net, optimizer)
    found = preview_step(optimizer, dict(net.named_parameters()), gradients)
    assert same(state_of(net, optimizer), before)
    assert same(gradients, given)
    assert_equal(found, real_step(net, optimizer, gradients))
    assert not any(key.startswith(("idle", "frozen")) for key in found)


@pytest.mark.parametrize("name", ["Adam", "SGD, Nesterov", "AdamW, fused"])
def test_groups_with_learning_rates_of_their_own(name):
    net, optimizer = make(name, lr=0.5)
    train(net, optimizer)
    gradients = backward(net, seed=9)
    found = preview_step(optimizer, dict(net.named_parameters()), gradients)
    assert_equal(found, real_step(net, optimizer, gradients))


@pytest.mark.parametrize("scheduler", [lambda o: StepLR(o, 1, 0.5), lambda o: CosineAnnealingLR(o, 10)])
def test_with_a_scheduler(scheduler):
    net, optimizer = make("Adam")
    schedule = scheduler(optimizer)
    for step in range(3):
        train(net, optimizer, 1)
        schedule.step()
        assert step < 3
    gradients, before = backward(net, seed=9), state_of(net, optimizer)
    counted = schedule.state_dict()
    found = preview_step(optimizer, dict(net.named_parameters()), gradients)
    assert same(state_of(net, optimizer), before)
    assert schedule.state_dict() == counted
    assert_equal(found, real_step(net, optimizer, gradients))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the scheduler counts only real steps, and would complain otherwise
        schedule.step()


def test_no_hook_fires():
    fired = []
    net, optimizer = make("Adam")
    optimizer.register_step_pre_hook(lambda *_: fired.append("pre"))
    optimizer.register_step_post_hook(lambda *_: fired.append("post"))
    handles = [
        register_optimizer_step_pre_hook(lambda *_: fired.append("global pre")),
        register_optimizer_step_post_hook(lambda *_: fired.append("global post")),
    ]
    try:
        gradients = backward(net)
        found = preview_step(optimizer, dict(net.named_parameters()), gradients)
        assert fired == []
        assert_equal(found, real_step(net, optimizer, gradients))
        assert sorted(fired) == ["global post", "global pre", "post", "pre"]
    finally:
        for handle in handles:
            handle.remove()


class Coupled(torch.optim.Optimizer):
    """Normalised by the gradient of all parameters together, with a state beside the parameters' own."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})
        self.norms = []

    @torch.no_grad()
    def step(self, closure=None):
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in parameters]).norm()
        self.norms.append(float(norm))
        for parameter in parameters:
            parameter -= self.defaults["lr"] * parameter.grad / norm


def test_an_optimizer_that_couples_parameters(monkeypatch):
    monkeypatch.setattr(previewing, "_PART", 1)
    torch.manual_seed(0)
    net = Net()
    optimizer = Coupled(net.parameters(), 0.1)
    gradients = backward(net)
    found = preview_step(optimizer, dict(net.named_parameters()), gradients)
    assert optimizer.norms == []
    assert_equal(found, real_step(net, optimizer, gradients))


class Noisy(torch.optim.SGD):
    """A subclass that draws random numbers."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad += torch.randn_like(parameter.grad)
        super().step(closure)


def test_an_optimizer_that_draws_random_numbers():
    torch.manual_seed(0)
    net = Net()
    optimizer = Noisy(net.parameters(), 0.1)
    gradients = backward(net)
    before = torch.get_rng_state()
    found = preview_step(optimizer, dict(net.named_parameters()), gradients)
    assert torch.equal(torch.get_rng_state(), before)
    assert_equal(found, real_step(net, optimizer, gradients))


def test_sparse_gradients():
    torch.manual_seed(0)
    embedding = nn.Embedding(6, 3, sparse=True)
    optimizer = torch.optim.SparseAdam(embedding.parameters(), lr=0.1)
    ids = torch.tensor([1, 4, 4])
    for _ in range(2):
        optimizer.zero_grad()
        embedding(ids).square().sum().backward()
        optimizer.step()
    optimizer.zero_grad()
    embedding(ids[:1]).square().sum().backward()
    found = preview_step(optimizer, {"weight": embedding.weight}, {"weight": embedding.weight.grad.to_dense()})
    before = embedding.weight.detach().clone()
    optimizer.step()
    assert torch.equal(found["weight"], embedding.weight.detach() - before)


def test_channels_last_weights():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(5, 2)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, fused=True)
    for _ in range(2):
        optimizer.zero_grad()
        net(torch.randn(3, 4, 3, 3).to(memory_format=torch.channels_last)).square().mean().backward()
        optimizer.step()
    gradients = {name: parameter.grad.clone() for name, parameter in net.named_parameters()}
    found = preview_step(optimizer, dict(net.named_parameters()), gradients)
    assert_equal(found, real_step(net, optimizer, gradients))


def test_unused_parameters_stay_though_weight_decay_would_move_them():
    net, optimizer = make("AdamW")
    train(net, optimizer)
    gradients = {**backward(net), "idle.weight": torch.zeros(2, 2), "idle.bias": torch.zeros(2)}
    parameters = dict(net.named_parameters())
    assert "idle.weight" in preview_step(optimizer, parameters, gradients)
    assert "idle.weight" not in preview_step(optimizer, parameters, gradients, unused=["idle.weight", "idle.bias"])
    history = speed.measure(net, batch(), F.mse_loss, optimizer)
    assert not any(
        name.startswith("idle") and size > 0
        for name, size in zip(history.parameter.values, history.update_norm, strict=True)
    )


def test_refused():
    net, _ = make("SGD")
    gradients, parameters = backward(net), dict(net.named_parameters())
    with pytest.raises(InputError, match="needs a closure"):
        preview_step(torch.optim.LBFGS(net.first.parameters()), parameters, gradients)
    with pytest.raises(InputError, match="holds none of the model's"):
        preview_step(torch.optim.SGD(Net().parameters(), lr=0.1), parameters, gradients)

    class Broken(torch.optim.SGD):
        def step(self, closure=None):
            raise ValueError("no step today")

    with pytest.raises(InputError, match="failed on a copy of its state: ValueError: no step today"):
        preview_step(Broken(net.parameters(), lr=0.1), parameters, gradients)


def test_an_optimizer_that_holds_parameters_of_two_models():
    (net, _), other = make("SGD"), Net()
    optimizer = torch.optim.Adam([*net.parameters(), *other.parameters()], lr=0.1)
    gradients = backward(net)
    backward(other)
    found = preview_step(optimizer, dict(net.named_parameters()), gradients)
    assert found.keys() == gradients.keys()
    assert not optimizer.state
