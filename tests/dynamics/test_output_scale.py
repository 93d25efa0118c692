"""An output scale on any model: a start at exactly zero, the linearised limit, and a model that is watched as before."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import learnmech as lm
from learnmech.dynamics.output_scale import OutputScale, scaled_loss, scaled_rate
from learnmech.errors import InputError


def make_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()


@pytest.fixture
def inputs():
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def shift(net, amount=0.1):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(amount)


def test_output_is_the_change_times_the_scale(inputs):
    net = make_net()
    first = net(inputs).detach()
    scaled = OutputScale(net, 7.0)
    assert torch.equal(scaled(inputs), torch.zeros(6, 2, dtype=torch.float64))
    shift(net)
    torch.testing.assert_close(scaled(inputs), 7 * (net(inputs) - first))
    plain = OutputScale(make_net(), 7.0, centred=False)
    torch.testing.assert_close(plain(inputs), 7 * first)


def test_gradients_are_scaled_and_the_start_has_none(inputs):
    net, twin = make_net(), make_net()
    scaled = OutputScale(net, 7.0)
    scaled(inputs).sum().backward()
    twin(inputs).sum().backward()
    assert [name for name, _ in scaled.named_parameters()] == [f"net.{name}" for name, _ in twin.named_parameters()]
    for parameter, other in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, 7 * other.grad)
    assert not any(buffer.requires_grad for buffer in scaled.buffers())


def test_wrapping_leaves_the_model_alone(inputs):
    net = make_net().train()
    net(inputs).sum().backward()
    state, gradients = copy.deepcopy(net.state_dict()), [parameter.grad.clone() for parameter in net.parameters()]
    random_state = torch.get_rng_state()
    scaled = OutputScale(net, 3.0)
    with torch.no_grad():
        scaled(inputs)
    assert scaled.net is net
    assert net.training
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())
    assert all(torch.equal(kept, part.grad) for kept, part in zip(gradients, net.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert torch.equal(random_state, torch.get_rng_state())


def test_the_start_travels(inputs):
    scaled = OutputScale(make_net(), 5.0)
    shift(scaled)
    expected = scaled(inputs)
    fresh = OutputScale(make_net(seed=3), 5.0)
    fresh.load_state_dict(scaled.state_dict())
    torch.testing.assert_close(fresh(inputs), expected)
    torch.testing.assert_close(copy.deepcopy(scaled)(inputs), expected)
    single = copy.deepcopy(scaled).float()
    torch.testing.assert_close(single(inputs.float()), expected.float(), rtol=1e-4, atol=1e-5)


def test_rate_and_loss_do_the_same(inputs):
    targets = torch.ones(6, 2, dtype=torch.float64)
    ends = []
    for loss, rate in (
        (scaled_loss(functional.mse_loss, 20.0), 0.1),
        (functional.mse_loss, scaled_rate(0.1, 20.0)),
    ):
        scaled = OutputScale(make_net(), 20.0)
        optimizer = torch.optim.SGD(scaled.parameters(), lr=rate, momentum=0.9)
        for _ in range(20):
            optimizer.zero_grad()
            loss(scaled(inputs), targets).backward()
            optimizer.step()
        ends.append(scaled(inputs).detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-10, atol=1e-12)
    assert math.isclose(scaled_rate(0.1, 20.0), 0.1 / 400)


def test_the_limit_is_the_linearised_model(inputs):
    """With a very large scale, gradient descent is that of the kernel J J^T, with J by central differences at the start."""
    net, targets = make_net(), torch.tensor([[1.0, -1.0]] * 6, dtype=torch.float64)
    columns = []
    for parameter in net.parameters():
        flat = parameter.data.view(-1)
        for position in range(len(flat)):
            ends = []
            for sign in (1, -1):
                flat[position] += sign * 1e-5
                ends.append(net(inputs).detach().numpy().ravel())
                flat[position] -= sign * 1e-5
            columns.append((ends[0] - ends[1]) / 2e-5)
    kernel = np.array(columns).T @ np.array(columns)
    scale, rate, steps = 1e5, 0.05, 50
    scaled = OutputScale(net, scale)
    optimizer = torch.optim.SGD(scaled.parameters(), lr=scaled_rate(rate, scale))
    linear, wanted = np.zeros(12), targets.numpy().ravel()
    for _ in range(steps):
        optimizer.zero_grad()
        functional.mse_loss(scaled(inputs), targets).backward()
        optimizer.step()
        linear = linear - rate * kernel @ (2 / 12 * (linear - wanted))
    assert np.abs(linear - wanted).max() < 0.9  # it has moved
    np.testing.assert_allclose(scaled(inputs).detach().numpy().ravel(), linear, atol=1e-3)


def test_parts_that_depend_on_the_mode_start_at_zero_in_evaluation(inputs):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)).double()
    scaled = OutputScale(net, 10.0)
    scaled(inputs)  # in training mode: statistics of the model move, those of the start do not
    assert float(net[1].running_mean.abs().max()) > 0
    start = dict(scaled.named_buffers())["start__1__running_mean"]
    assert float(start.abs().max()) == 0
    fresh = OutputScale(nn.Sequential(*copy.deepcopy(net)), 10.0).eval()
    assert fresh(inputs).abs().max().item() == 0


def test_hooks_see_one_pass(inputs):
    net, seen = make_net(), []
    net[0].register_forward_hook(lambda module, given, output: seen.append(len(output)))
    OutputScale(net, 2.0)(inputs)
    assert seen == [6]


def test_watch_finds_the_layers_with_readable_names(inputs):
    labels = torch.arange(6) % 2
    scaled = OutputScale(make_net(), 2.0)
    monitor = lm.watch(scaled, (inputs, labels), functional.cross_entropy, measures=["springs"])
    assert monitor.history["layer"].values.tolist() == ["input", "net.0", "net.2"]
    assert monitor.history["role"].values.tolist() == ["input", "block", "readout"]


class Two(nn.Module):
    def forward(self, x):
        return x, x


def test_bad_input_is_refused(inputs):
    for scale in (0.0, -1.0, float("inf"), float("nan"), "2", True):
        with pytest.raises(InputError, match="scale must be a positive finite number"):
            OutputScale(make_net(), scale)
    with pytest.raises(InputError, match=r"must be a torch.nn.Module, but a function came"):
        OutputScale(lambda x: x, 1.0)
    with pytest.raises(InputError, match="Two returned a tuple; wrap it"):
        OutputScale(Two(), 1.0)(inputs)
    with pytest.raises(InputError, match="has no shape yet"):
        OutputScale(nn.LazyLinear(3), 1.0)
    broken = make_net()
    shift(broken, float("nan"))
    with pytest.raises(InputError, match=r"0\.weight holds numbers that are not finite"):
        OutputScale(broken, 1.0)
    with pytest.raises(InputError, match="rate must be a positive finite number"):
        scaled_rate(0.0, 1.0)
