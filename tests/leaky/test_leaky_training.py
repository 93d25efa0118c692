"""Training to a critical point: the laws that hold there, stacks, stopping and going on, divergence, collapse."""

import dataclasses
import itertools
import math
import os
import signal

import numpy as np
import pytest
import torch

from learnmech import leaky
from learnmech.errors import DataError, InputError, StorageError

QUICK = leaky.LeakySettings(adam_steps=300, polish_iterations=100, warmup=20)


def smooth_net(layers, *, bias=True, effective_depth=3.0, seed=0):
    """Width 4, identity embeddings, and a start whose path is positive: no kink comes near."""
    torch.manual_seed(seed)
    net = leaky.LeakyResNet(4, 4, 4, effective_depth, layers, bias=bias, penalty=0.02).double()
    net.embedding.weight.data.copy_(torch.eye(4))
    net.readout.weight.data.copy_(torch.eye(4))
    extra = torch.zeros(4, int(bias))
    net.set_weights(torch.cat([effective_depth * torch.eye(4), extra], 1).expand(layers, -1, -1))
    return net


def smooth_data(seed=4):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(6, 4, generator=generator, dtype=torch.float64) + 0.5
    y = torch.rand(6, 4, generator=generator, dtype=torch.float64) + 0.5
    return x, y


SMOOTH = leaky.LeakySettings(adam_steps=0, polish_iterations=3000)


def test_a_critical_point_is_symplectic_euler():
    """E3: A and B of a trained net take symplectic Euler steps of the Hamiltonian (written out here in numpy)."""
    x, y = smooth_data()
    net = smooth_net(10)
    result = leaky.train(net, x, y, SMOOTH)
    assert float(result.residuals.max()) < 1e-11
    _, path = net(x, return_path=True)
    a, b = path.detach().numpy(), leaky.momenta(net, x, y).numpy()
    assert a.min() > 0
    depth, rho = 3.0, 0.1
    for layer in range(10):
        active = np.vstack([a[layer], np.ones(6)])
        moved = depth * (b[layer + 1] @ active.T @ active - a[layer])
        np.testing.assert_allclose(a[layer] + rho * moved, a[layer + 1], atol=1e-10)
        force = depth * ((a[layer] > 0) * (a[layer] @ b[layer + 1].T @ b[layer + 1]) - b[layer + 1])
        np.testing.assert_allclose(b[layer + 1] + rho * force, b[layer], atol=1e-10)
        np.testing.assert_allclose(net.weights[layer].numpy(), depth * b[layer + 1] @ active.T, atol=1e-10)
    run = leaky.profile(net, x, y)
    np.testing.assert_allclose(run["hamiltonian"], run["pre_hamiltonian"], atol=1e-10)


def test_hamiltonian_is_conserved_to_first_order_in_the_step():
    """Section 6.5: the range of the effective dimension over depth shrinks as 1 / layers."""
    x, y = smooth_data()
    ranges, means = [], []
    for layers in (10, 20, 40, 80):
        net = smooth_net(layers)
        assert leaky.train(net, x, y, SMOOTH).residual < 1e-10
        values = leaky.profile(net, x, y)["effective_dimension"].values[:-1]
        ranges.append(np.ptp(values))
        means.append(values.mean())
    assert all(second < 0.75 * first for first, second in itertools.pairwise(ranges))
    assert ranges[3] / ranges[2] == pytest.approx(0.5, abs=0.1)
    assert abs(means[3] - means[2]) < 0.8 * abs(means[2] - means[1])


def test_without_bias_all_layers_have_weights_of_one_norm():
    """E1 and E2, no bias: <A, B> and so the norm of the weights are constant, to the digits of the critical point."""
    x, y = smooth_data()
    net = smooth_net(6, bias=False)
    assert leaky.train(net, x, y, SMOOTH).residual < 1e-11
    run = leaky.profile(net, x, y)
    norms = run["weight_norm"].values[:-1]
    assert np.ptp(norms) < 1e-10 * norms.mean()
    assert np.ptp(run["effective_dimension"].values[:-1]) < 1e-9
    assert np.ptp(run["pairing"].values) < 1e-10


def test_slope_of_the_best_cost_is_the_mean_effective_dimension():
    """E5, the envelope identity, with the slope from two other trainings."""
    x, y = smooth_data()
    costs = [
        leaky.train(smooth_net(8, effective_depth=effective_depth), x, y, SMOOTH).cost
        for effective_depth in (2.99, 3.01)
    ]
    net = smooth_net(8)
    leaky.train(net, x, y, SMOOTH)
    slope = 2 / 0.02 * (costs[1] - costs[0]) / 0.02
    assert float(leaky.profile(net, x, y)["mean_pre_effective_dimension"]) == pytest.approx(slope, rel=1e-4)


def random_task(samples=40):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 3, generator=generator)
    return x, torch.stack([x[:, 0].abs(), x[:, 1] * x[:, 2]], dim=1)


def make(seed=0, effective_depth=2.0, **options):
    torch.manual_seed(seed)
    return leaky.LeakyResNet(3, 2, 8, effective_depth, 6, penalty=0.02, **options)


def test_a_stack_trains_as_its_members_alone():
    x, y = random_task()
    kinds = [("uniform", 2.0), ("adaptive", 3.0), ("irregular", 1.0)]
    settings = dataclasses.replace(QUICK, polish_iterations=0)
    together = [make(n, depth, steps=kind) for n, (kind, depth) in enumerate(kinds)]
    leaky.train_members(together, x, y, settings)
    for number, (kind, depth) in enumerate(kinds):
        alone = make(number, depth, steps=kind)
        leaky.train(alone, x, y, settings)
        torch.testing.assert_close(alone.weights, together[number].weights, rtol=2e-3, atol=2e-4)  # float32 sums
        torch.testing.assert_close(alone.steps, together[number].steps, rtol=1e-3, atol=1e-5)


def test_it_lowers_the_cost_and_says_what_it_did():
    x, y = random_task()
    net = make()
    before = float(net.cost(x, y).detach())
    seen = []
    result = leaky.train(net, x, y, QUICK, on_progress=lambda done, total: seen.append((done, total)))
    assert float(net.cost(x, y).detach()) == pytest.approx(result.cost, rel=1e-5)
    assert result.cost < 0.5 * before
    assert result.costs[0] == pytest.approx(before, rel=1e-5)
    assert result.cost_steps[:3] == (0, 100, 200)
    assert result.stopped_because == "done"
    assert seen[0] == (1, 400)
    assert seen[-1][0] <= 400
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    residuals = leaky.stationarity(net, x, y)
    torch.testing.assert_close(residuals, result.residuals)
    assert "median residual" in str(result)


def test_adaptive_steps_even_out_relative_steps():
    x, y = random_task()
    spreads = []
    for kind in ("uniform", "adaptive"):
        net = make(steps=kind, effective_depth=3.0)
        leaky.train(net, x, y, dataclasses.replace(QUICK, adam_steps=1500, polish_iterations=0))
        run = leaky.profile(net, x, y)["relative_step"].values[:-1]
        spreads.append(run.max() / run.min())
    assert spreads[1] < 0.6 * spreads[0]
    assert float(net.steps.sum()) == pytest.approx(1)
    assert float(net.steps.max()) * 3.0 <= 0.95 + 1e-9


@pytest.mark.parametrize("batch_size", [None, 16])
def test_interrupted_training_goes_on_bit_for_bit(tmp_path, batch_size):
    x, y = random_task()
    settings = dataclasses.replace(QUICK, polish_iterations=0, batch_size=batch_size)
    whole = [make(0, steps="adaptive"), make(1)]
    leaky.train_members(whole, x, y, settings)
    file = tmp_path / "run.pt"

    def stop(done, total):
        if done == 130:
            os.kill(os.getpid(), signal.SIGINT)

    cut = [make(0, steps="adaptive"), make(1)]
    results = leaky.train_members(cut, x, y, settings, checkpoint=file, on_progress=stop)
    assert [result.stopped_because for result in results] == ["interrupted"] * 2
    assert results[0].adam_steps == 130
    assert file.exists()
    again = [make(0, steps="adaptive"), make(1)]
    results = leaky.train_members(again, x, y, settings, checkpoint=file)
    assert results[0].adam_steps == 300
    assert not file.exists()
    for first, second in zip(whole, again, strict=True):
        assert torch.equal(first.weights, second.weights)
        assert torch.equal(first.steps, second.steps)


def test_interrupted_polish_keeps_what_was_reached(tmp_path):
    x, y = random_task()
    file = tmp_path / "run.pt"
    nets = [make(0).double(), make(1).double()]

    def stop(done, total):
        if done == 300 + 100 + 40:
            os.kill(os.getpid(), signal.SIGINT)

    results = leaky.train_members(nets, x, y, QUICK, checkpoint=file, on_progress=stop)
    assert [result.polish_iterations for result in results] == [100, 40]
    reached = results[1].cost
    again = [make(0).double(), make(1).double()]
    results = leaky.train_members(again, x, y, QUICK, checkpoint=file)
    assert results[1].polish_iterations == 100
    assert results[1].cost < reached
    torch.testing.assert_close(again[0].weights, nets[0].weights)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    x, y = random_task()
    file = tmp_path / "run.pt"
    stop = lambda done, total: os.kill(os.getpid(), signal.SIGINT) if done == 10 else None  # noqa: E731
    leaky.train(make(), x, y, QUICK, checkpoint=file, on_progress=stop)
    with pytest.raises(InputError, match="another training"):
        leaky.train(make(1), x, y, QUICK, checkpoint=file)
    with pytest.raises(InputError, match="another training"):
        leaky.train(make(), x, y, dataclasses.replace(QUICK, learning_rate=1e-3), checkpoint=file)
    file.write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read"):
        leaky.train(make(), x, y, QUICK, checkpoint=file)
    torch.save({"other": 1}, file)
    with pytest.raises(DataError, match="something else"):
        leaky.train(make(), x, y, QUICK, checkpoint=file)


def test_a_checkpoint_that_cannot_be_written_costs_nothing_computed(tmp_path):
    x, y = random_task()
    (tmp_path / "file").write_text("not a folder")
    net = make()
    before = net.weights
    stop = lambda done, total: os.kill(os.getpid(), signal.SIGINT) if done == 10 else None  # noqa: E731
    with pytest.raises(StorageError):
        leaky.train(net, x, y, QUICK, checkpoint=tmp_path / "file" / "run.pt", on_progress=stop)
    assert not torch.equal(net.weights, before)  # ten steps are in the net


def test_an_error_in_the_callback_leaves_the_net_trained_so_far():
    x, y = random_task()
    net = make()
    before = net.weights

    def fail(done, total):
        if done == 5:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        leaky.train(net, x, y, QUICK, on_progress=fail)
    assert not torch.equal(net.weights, before)
    assert bool(torch.isfinite(net.weights).all())


def test_a_member_that_diverges_does_not_take_the_others_along():
    x, y = random_task()
    nets = [make(0), make(1), make(2)]
    for block in nets[1].blocks:
        block.linear.weight.data.mul_(1e5)  # finite in the float64 of the first look, not in the float32 of Adam
    start = nets[1].weights
    results = leaky.train_members(nets, x, y, QUICK)
    assert [result.stopped_because for result in results] == ["done", "diverged", "done"]
    assert all(math.isfinite(result.cost) for result in results)
    assert torch.equal(nets[1].weights, start)
    alone = make(2)
    leaky.train(alone, x, y, QUICK)
    assert results[2].cost == pytest.approx(float(alone.cost(x, y).detach()), rel=1e-2)


def test_a_learning_rate_that_is_too_high_leaves_the_last_finite_weights():
    x, y = random_task()
    net = make()
    result = leaky.train(net, x, y, dataclasses.replace(QUICK, learning_rate=1e12, warmup=0))
    assert result.stopped_because == "diverged"
    assert math.isfinite(result.cost)
    assert bool(torch.isfinite(net.weights).all())


def test_collapse_to_zero_is_named():
    """A start that the leak swallows (exp(-10)), under a large penalty: the zero net is what Adam finds."""
    x, y = random_task()
    torch.manual_seed(0)
    net = leaky.LeakyResNet(3, 2, 8, 10.0, 16, init="torch", penalty=0.2)
    result = leaky.train(net, x, y - y.mean(0), dataclasses.replace(QUICK, adam_steps=800, learning_rate=1e-2))
    assert result.collapsed
    assert "collapsed" in str(result)
    net = make()
    assert not leaky.train(net, x, y, QUICK).collapsed


def test_an_unconverged_net_is_flagged():
    x, y = random_task()
    result = leaky.train(make(), x, y, dataclasses.replace(QUICK, adam_steps=5, polish_iterations=0))
    assert result.residual > 0.25
    assert not result.stationary
    assert "NOT stationary" in str(result)


def test_learned_embeddings_and_classes_train():
    x, y = random_task(60)
    labels = (y[:, 0] > 0.7).long()
    torch.manual_seed(0)
    net = leaky.LeakyResNet(3, 2, 8, 2.0, 6, embeddings="learned", loss="cross_entropy", penalty=1e-3)
    before = net.embedding.weight.detach().clone()
    leaky.train(net, x, labels, dataclasses.replace(QUICK, adam_steps=600))
    assert not torch.equal(net.embedding.weight, before)
    assert float((net(x).argmax(1) == labels).double().mean()) > 0.95


def test_what_does_not_fit_is_refused():
    x, y = random_task()
    with pytest.raises(InputError, match="at least one"):
        leaky.train_members([], x, y)
    with pytest.raises(InputError, match="agree in"):
        leaky.train_members([make(), leaky.LeakyResNet(3, 2, 9, 2.0, 6)], x, y)
    with pytest.raises(InputError, match="expected a LeakyResNet"):
        leaky.train(torch.nn.Linear(3, 2), x, y)
    with pytest.raises(InputError, match="not finite at the start"):
        leaky.train(make().double(), x.double() * 1e200, y, QUICK)
    for name, value in (
        ("adam_steps", -1),
        ("learning_rate", 0.0),
        ("batch_size", 0),
        ("polish_memory", 0),
        ("warmup", 1.5),
    ):
        with pytest.raises(InputError, match=name):
            leaky.LeakySettings(**{name: value})


def test_the_learning_rate_rises_and_falls():
    settings = leaky.LeakySettings(adam_steps=1000, learning_rate=1.0, warmup=100, last_rate=0.01)
    assert settings.rate(0) == pytest.approx(0.01)
    assert settings.rate(99) == pytest.approx(1.0)
    assert settings.rate(550) == pytest.approx(0.505)
    assert settings.rate(999) == pytest.approx(0.01, abs=1e-4)
