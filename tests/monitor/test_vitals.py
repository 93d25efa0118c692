"""Vital signs against closed forms, and each finding both raised and not."""

import numpy as np
import pytest
import torch
import zoo
from torch import nn
from torch.nn import functional as F

from learnmech.monitor import watch
from learnmech.monitor.norms import joint_norms, squared_norm


def half_square(outputs, targets):
    return (outputs - targets).square().sum(1).mean() / 2


def linear_net():
    """y = V W x with known matrices and inputs; one hidden unit is dead."""
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]))
        net[1].weight.copy_(torch.tensor([[1.0, -1.0, 0.5]]))
    x = torch.tensor([[1.0, 1.0], [2.0, 0.0], [-1.0, 3.0], [0.0, 1.0]], dtype=torch.float64)
    y = torch.tensor([[0.0], [1.0], [2.0], [-1.0]], dtype=torch.float64)
    return net, x, y


@pytest.mark.parametrize("chunk_size", [None, 1, 3])
def test_every_variable_of_a_linear_net_by_hand(chunk_size):
    net, x, y = linear_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    monitor = watch(net, (x, y), half_square, optimizer=optimizer, every=1, measures="vitals", chunk_size=chunk_size)
    first, second = net[0].weight.detach().numpy().copy(), net[1].weight.detach().numpy().copy()
    inputs, targets = x.numpy(), y.numpy()
    hidden = inputs @ first.T
    output = hidden @ second.T
    error = (output - targets) / 4
    into_hidden = error @ second
    gradients = [into_hidden.T @ inputs, error.T @ hidden]
    start = monitor.history.isel(step=0)
    norm = np.linalg.norm
    expected = {
        "activation_rms": [norm(inputs) / 8**0.5, norm(hidden) / 12**0.5, norm(output) / 2],
        "dead_fraction": [0, 1 / 3, 0],
        "weight_norm": [np.nan, 5**0.5, 1.5],
        "gradient_norm": [np.nan, norm(gradients[0]), norm(gradients[1])],
        "leverage": [np.nan, norm(into_hidden) * norm(hidden), norm(error) * norm(output)],
        "update_ratio": [np.nan] * 3,
    }
    assert start["layer"].values.tolist() == ["input", "0", "1"]
    for name, values in expected.items():
        np.testing.assert_allclose(start[name].values, values, rtol=1e-12, atol=1e-15, err_msg=name)
    assert float(start["loss"]) == pytest.approx(8 * (error**2).sum() / 4 * 4 / 4, rel=1e-12)
    half_square(net(x), y).backward()
    optimizer.step()
    ratios = [0.1 * norm(gradients[0]) / norm(first - 0.1 * gradients[0])]
    ratios.append(0.1 * norm(gradients[1]) / norm(second - 0.1 * gradients[1]))
    np.testing.assert_allclose(monitor.history["update_ratio"].values[1, 1:], ratios, rtol=1e-12)


def test_light_measures_the_forward_pass_only():
    net, x, y = linear_net()
    run = watch(net, (x, y), half_square, measures="light").history
    assert {"activation_rms", "dead_fraction", "weight_norm"} <= set(run.data_vars)
    assert not {"gradient_norm", "leverage", "update_ratio"} & set(run.data_vars)


def test_standard_adds_the_update_without_a_backward_pass():
    case = zoo.make("mlp")
    case.model[4].requires_grad_(False)
    optimizer = torch.optim.SGD(
        [{"params": case.model[0].parameters(), "lr": 0.0}, {"params": case.model[6].parameters()}], lr=0.1
    )
    monitor = watch(case.model, case.probe, case.loss, optimizer=optimizer, every=1, measures="standard")
    assert not {"gradient_norm", "leverage"} & set(monitor.history.data_vars)
    case.loss(case.forward(), case.probe[1]).backward()
    optimizer.step()
    found = codes(monitor)
    assert found["vitals.no_update"].layers == ("0",)
    assert found["vitals.frozen"].layers == ("4",)
    assert monitor.history["update_ratio"].sel(step=1, layer="6") > 0


def test_a_last_probe_off_schedule_shows_the_latest_update():
    case = zoo.make("mlp")
    optimizer = torch.optim.SGD(case.model.parameters(), lr=30.0)
    with watch(case.model, case.probe, case.loss, optimizer=optimizer, every=2) as monitor:
        for _ in range(3):
            case.loss(case.forward(), case.probe[1]).backward()
            optimizer.step()
    assert np.isnan(monitor.history["update_ratio"].values[-1]).all()
    assert "vitals.violent_update" in codes(monitor)
    assert "vitals.frozen" not in codes(monitor)
    assert all(np.isfinite(row["update_ratio"]) for row in monitor.verdict().table if row["role"] == "readout")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.complex64])
def test_norms_of_any_precision(dtype):
    tensor = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = np.square(np.abs(tensor.to(torch.complex128).numpy())).sum()
    assert float(squared_norm(tensor)) == pytest.approx(expected, rel=1e-5)


def test_norms_neither_overflow_nor_underflow():
    assert float(squared_norm(torch.full((4,), 1e200, dtype=torch.float64))) == float("inf")
    for scale in (1e-30, 1.0, 1e30):
        assert float(squared_norm(torch.full((4,), scale))) == pytest.approx(4 * scale**2, rel=1e-5)
    assert float(squared_norm(torch.zeros(0))) == 0
    assert float(squared_norm(torch.zeros(3))) == 0
    values = joint_norms([[torch.tensor([3.0]), torch.tensor([4.0])], [], [torch.tensor([2.0])]])
    np.testing.assert_allclose(values, [5, np.nan, 2])


# ---------------------------------------------------------------------- findings


def watched(change=None, **options):
    case = zoo.make("mlp")
    case.loss = F.cross_entropy
    if change is not None:
        change(case.model)
    return case, watch(case.model, case.probe, case.loss, measures="vitals", **options)


def codes(monitor):
    return {finding.code: finding for finding in monitor.verdict().findings}


def test_a_healthy_net_has_no_findings():
    assert codes(watched()[1]) == {}


def test_dead_layers_and_dead_units():
    def kill(count):
        def change(model):
            with torch.no_grad():
                model[4].bias.fill_(5)
                model[4].bias[:count] = -100

        return change

    dead = codes(watched(kill(7))[1])
    assert dead["vitals.dead_layer"].layers == ("4", "6")
    assert "vitals.dead_units" not in dead
    many = codes(watched(kill(4))[1])
    assert many["vitals.dead_units"].layers == ("4",)
    assert "57%" in many["vitals.dead_units"].evidence
    assert "vitals.dead_layer" not in many
    assert codes(watched(kill(3))[1]) == {}


class Cut(nn.Module):
    """Part of the net is behind a detach."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)).detach())


def test_no_gradient_behind_a_detach_is_not_called_frozen():
    torch.manual_seed(0)
    monitor = watch(Cut(), zoo._vectors(), F.cross_entropy, measures="vitals")
    found = codes(monitor)
    assert found["vitals.no_gradient"].layers == ("first",)
    assert "vitals.frozen" not in found


def test_frozen_layers_are_noted():
    def freeze(model):
        model[4].requires_grad_(False)

    found = codes(watched(freeze)[1])
    assert found["vitals.frozen"].layers == ("4",)
    assert "vitals.no_gradient" not in found
    _, everything = watched(lambda model: model.requires_grad_(False))
    assert codes(everything)["vitals.frozen"].layers == ("0", "4", "6")


@pytest.mark.parametrize(("rate", "found"), [(1e-4, False), (30.0, True)])
def test_violent_updates(rate, found):
    case = zoo.make("mlp")
    optimizer = torch.optim.SGD(case.model.parameters(), lr=rate)
    monitor = watch(case.model, case.probe, case.loss, optimizer=optimizer, every=1, measures="vitals")
    case.loss(case.forward(), case.probe[1]).backward()
    optimizer.step()
    assert ("vitals.violent_update" in codes(monitor)) == found


def test_a_loss_that_is_not_finite():
    case, monitor = watched(every=1)
    monitor.step()
    with torch.no_grad():
        case.model[6].bias[0] = float("inf")
    monitor.step()
    monitor.step()
    finding = codes(monitor)["vitals.loss_not_finite"]
    assert finding.evidence == "first seen at step 2"
    assert finding.severity == "problem"


def test_a_signal_that_vanishes_over_depth():
    def shrink(scale):
        def change(model):
            with torch.no_grad():
                model[4].weight *= scale

        return change

    assert codes(watched(shrink(1e-7))[1])["vitals.uneven_leverage"].layers == ("0",)
    assert "vitals.uneven_leverage" not in codes(watched(shrink(0.5))[1])


def test_figures_are_drawn_where_there_is_something_to_see():
    _, monitor = watched(lambda model: model[4].bias.data.fill_(-100), every=1)
    instrument = monitor._instruments.instruments[0]
    assert [figure.name for figure in instrument.figures(monitor.history)] == ["dead_fraction"]
    healthy = zoo.make("regression")
    optimizer = healthy.optimizer()
    steady = watch(healthy.model, healthy.probe, healthy.loss, optimizer=optimizer, every=1, measures="vitals")
    healthy.loss(healthy.forward(), healthy.probe[1]).backward()
    optimizer.step()
    assert [figure.name for figure in instrument.figures(steady.history)] == ["update_ratio"]
