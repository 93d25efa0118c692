"""The instrument: symmetries of watched models, drifts by hand, wrong derivatives, and models that have none."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import learnmech as lm
from learnmech.dynamics import invariants_of_probe
from learnmech.monitor.instrument import PRESETS, make_instrument

DRAWS = torch.Generator().manual_seed(0)
X, Y = torch.randn(64, 6, generator=DRAWS), torch.randint(3, (64,), generator=DRAWS)


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)
    ).double()


def watch_training(net, optimizer, steps=10, every=5, inputs=X, loss=functional.cross_entropy, targets=Y):
    inputs = inputs.double()
    with lm.watch(net, (inputs, targets), loss, optimizer=optimizer, every=every, measures="invariants") as monitor:
        for _ in range(steps):
            optimizer.zero_grad()
            loss(net(inputs), targets).backward()
            optimizer.step()
    return monitor


def neurons(net):
    return (net[5].weight ** 2).sum(0) - (net[3].weight ** 2).sum(1) - net[3].bias ** 2


def test_drift_and_counts_by_hand():
    net = make_net()
    start = neurons(net).detach().clone()
    size = ((net[5].weight ** 2).sum(0) + (net[3].weight ** 2).sum(1) + net[3].bias ** 2).norm()
    first = float(size.detach())
    monitor = watch_training(net, torch.optim.SGD(net.parameters(), lr=0.1))
    run = monitor.history
    # scale 8, bias before BatchNorm 8, gain with next weights 8, neurons 4, classes 4 and their bias 1
    assert run["charge_count"].values.tolist() == [33.0, 33.0, 33.0]
    now = float(((net[5].weight ** 2).sum(0) + (net[3].weight ** 2).sum(1) + net[3].bias ** 2).norm().detach())
    drift = float((neurons(net).detach() - start).norm()) / max(first, now)
    assert run["charge_drift"].sel(layer="5").values[[0, -1]] == pytest.approx([0.0, drift], rel=1e-6)
    assert np.isnan(run["charge_drift"].sel(layer="input")).all()
    assert float(run["symmetry_violation"].max()) < 1e-13
    assert np.isnan(run["step_violation"].values[0]).all()
    assert float(run["step_violation"].max()) < 1e-4  # plain steps go along the gradient, but for BatchNorm's epsilon
    assert float(run["step_violation"].sel(layer="5").max()) < 1e-12
    codes = [finding.code for finding in monitor.verdict().findings]
    assert codes == ["invariants.conserved", "invariants.drift"]
    assert len(make_instrument("invariants").figures(run)) == 2


def test_drifts_count_from_the_start_of_the_first_watch():
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    first = watch_training(net, optimizer)
    with lm.watch(net, (X.double(), Y), functional.cross_entropy, optimizer=optimizer, measures="invariants") as again:
        again.load_state_dict(first.state_dict())
        values = again.observe()
    assert values["charge_drift/5"] == pytest.approx(float(first.history["charge_drift"].sel(layer="5")[-1]), rel=1e-12)
    assert values["charge_drift/5"] > 1e-6


def test_adaptive_steps_leave_the_symmetric_directions():
    net = make_net()
    run = watch_training(net, torch.optim.Adam(net.parameters(), lr=0.01)).history
    assert 0.01 < float(run["step_violation"].isel(step=-1).max()) <= 1


def test_a_wrong_derivative_is_a_problem_and_names_the_layers():
    net = make_net()
    monitor = lm.watch(net, (X.double(), Y), functional.cross_entropy, measures="invariants", every=1)
    assert monitor.verdict().findings[0].code == "invariants.conserved"
    net[4].register_full_backward_hook(lambda module, into, out: (into[0] * 2,))
    monitor.step()
    finding = monitor.verdict().findings[0]
    assert (finding.code, finding.severity) == ("invariants.broken", "problem")
    assert set(finding.layers) == {"3", "5"}  # the neurons around the spoiled ReLU
    assert float(monitor.history["symmetry_violation"].sel(layer="5", step=1)) > 0.01


def test_a_model_without_symmetry():
    net = nn.Sequential(nn.Linear(6, 4, bias=False), nn.Tanh()).double()
    targets = torch.randn(64, 4, generator=DRAWS, dtype=torch.float64)
    monitor = watch_training(net, torch.optim.SGD(net.parameters(), lr=0.1), loss=functional.mse_loss, targets=targets)
    assert [finding.code for finding in monitor.verdict().findings] == ["invariants.none"]


def test_a_model_that_cannot_be_read_costs_nothing_else(monkeypatch):
    def fail(*arguments, **named):
        raise RuntimeError("an operation of its own kind")

    monkeypatch.setattr(invariants_of_probe, "find_symmetries", fail)
    net = make_net()
    monitor = watch_training(net, torch.optim.SGD(net.parameters(), lr=0.1))
    (finding,) = monitor.verdict().findings
    assert (finding.code, finding.severity) == ("invariants.unknown", "unknown")
    assert "an operation of its own kind" in finding.evidence
    assert monitor.failures == []
    assert np.isfinite(monitor.history["loss"]).all()


def test_it_is_in_the_full_preset_only():
    assert "invariants" in PRESETS["full"]
    assert "invariants" not in PRESETS["light"] + PRESETS["standard"]
