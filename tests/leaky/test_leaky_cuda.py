"""The same numbers on a CUDA device as on the CPU."""

import pytest
import torch

from learnmech import leaky

DEVICE = "cuda"
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def task():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 3, generator=generator)
    return x, torch.stack([x[:, 0].abs(), x[:, 1] * x[:, 2]], dim=1)


def make():
    torch.manual_seed(0)
    return [
        leaky.LeakyResNet(3, 2, 8, depth, 6, kind, penalty=0.02)
        for depth, kind in ((2.0, "uniform"), (3.0, "adaptive"))
    ]


def test_training_and_profiles():
    x, y = task()
    settings = leaky.LeakySettings(adam_steps=250, polish_iterations=30)
    here, there = make(), [net.to(DEVICE) for net in make()]
    ends = leaky.train_members(here, x, y, settings)
    others = leaky.train_members(there, x.to(DEVICE), y.to(DEVICE), settings)
    for net, other, end, result in zip(here, there, ends, others, strict=True):
        assert other.weights.device.type == torch.device(DEVICE).type
        assert result.cost == pytest.approx(end.cost, rel=0.05)  # two paths of float32 drift apart
        other.set_weights(net.weights.to(DEVICE))
        other.set_steps(net.steps.to(DEVICE))
        torch.testing.assert_close(leaky.momenta(other, x.to(DEVICE), y.to(DEVICE)).cpu(), leaky.momenta(net, x, y))
        first, second = leaky.profile(net, x, y), leaky.profile(other, x.to(DEVICE), y.to(DEVICE))
        for name in ("identity_cost", "hamiltonian", "stationarity", "weight_spectrum"):
            torch.testing.assert_close(
                torch.tensor(second[name].values),
                torch.tensor(first[name].values),
                rtol=1e-6,
                atol=1e-8,
                equal_nan=True,
            )


def test_energies():
    values = torch.randn(3, 6, 20, generator=torch.Generator().manual_seed(0))
    for function in (leaky.stable_rank, leaky.negativity, lambda a: leaky.identity_cost(a, ridge=(1e-1, 1e-3))):
        result = function(values.to(DEVICE))
        assert result.device.type == torch.device(DEVICE).type
        torch.testing.assert_close(result.cpu(), function(values), rtol=1e-9, atol=1e-12)


def test_driven_steps():
    torch.manual_seed(0)
    from learnmech.nets import ResidualMLP

    net = ResidualMLP(6, 2, width=8, depth=4).to(DEVICE)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    policy = leaky.StepSizePolicy("adaptive", begin=2, period=2)
    x = torch.randn(16, 6, device=DEVICE)
    with policy.drive(net.blocks, total_steps=20, optimizer=optimizer) as driver:
        for _ in range(20):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
        assert float(driver.steps.sum()) == pytest.approx(1)
