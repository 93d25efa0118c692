"""The discretised flow: forward pass, cost, hand-written gradients, symmetries, and what is refused."""

import math

import numpy as np
import pytest
import torch

from learnmech import leaky
from learnmech.errors import InputError
from learnmech.leaky.objective import StackedObjective
from learnmech.leaky.passes import StackedPasses


def flow_by_hand(net, x):
    """The paper's recursion, in numpy."""
    weights, steps = net.weights.double().numpy(), net.steps.numpy()
    path = [net.embedding.weight.detach().double().numpy() @ x.double().numpy().T]
    for weight, step in zip(weights, steps, strict=True):
        active = np.maximum(path[-1], 0)
        if net.bias:
            active = np.vstack([active, np.ones(active.shape[1])])
        path.append((1 - step * net.effective_depth) * path[-1] + step * weight @ active)
    return np.stack(path)


def cost_by_hand(net, x, y):
    last = flow_by_hand(net, x)[-1]
    outputs = net.readout.weight.detach().double().numpy() @ last
    penalty = sum(s * (w**2).sum() for s, w in zip(net.steps.numpy(), net.weights.double().numpy(), strict=True))
    penalty *= net.penalty / (2 * net.effective_depth)
    if net.embeddings == "learned":
        squares = [float(part.weight.detach().square().sum()) for part in (net.embedding, net.readout)]
        penalty += net.penalty / 2 * sum(squares)
    if net.loss == "squared_error":
        return ((outputs - y.double().numpy().T) ** 2).sum() / len(x) + penalty
    logarithms = outputs - np.log(np.exp(outputs).sum(0))
    return -logarithms[y.numpy(), np.arange(len(x))].mean() + penalty


def make(seed=0, **options):
    torch.manual_seed(seed)
    options = {"d_in": 3, "d_out": 2, "width": 6, "effective_depth": 2.5, "layers": 5, "penalty": 0.05, **options}
    return leaky.LeakyResNet(**options).double()


def data(seed=1, samples=7, classes=False):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 3, generator=generator, dtype=torch.float64)
    if classes:
        return x, torch.randint(0, 2, (samples,), generator=generator)
    return x, torch.randn(samples, 2, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("steps", ["uniform", "irregular", torch.tensor([1.0, 2.0, 1.5, 1.0, 1.0])])
def test_forward_is_the_recursion(bias, steps):
    net = make(bias=bias, steps=steps)
    x, _ = data()
    outputs, path = net(x, return_path=True)
    assert path.shape == (6, 6, 7)
    np.testing.assert_allclose(path.detach().numpy(), flow_by_hand(net, x), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(outputs, net(x))
    assert float(net.steps.sum()) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize("embeddings", ["fixed", "learned"])
@pytest.mark.parametrize("bias", [True, False])
def test_cost_and_hand_written_gradient(loss, embeddings, bias):
    nets = [
        make(0, loss=loss, embeddings=embeddings, bias=bias),
        make(1, loss=loss, embeddings=embeddings, bias=bias, effective_depth=4.0, steps="irregular", penalty=0.3),
    ]
    x, y = data(classes=loss == "cross_entropy")
    objective = StackedObjective(nets, x, y, dtype=torch.float64)
    values = objective.values()
    costs, gradient = objective.cost_and_gradient(values)
    for member, net in enumerate(nets):
        expected = cost_by_hand(net, x, y)
        assert float(costs[member]) == pytest.approx(expected, rel=1e-12)
        assert float(net.cost(x, y).detach()) == pytest.approx(expected, rel=1e-12)
        assert float(objective.data_costs(values)[member]) == pytest.approx(
            expected - float(net.penalty_cost().detach()), rel=1e-12
        )
    generator = torch.Generator().manual_seed(5)
    for _ in range(6):  # central differences along random directions
        direction = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        step = 1e-5
        slopes = (
            objective.cost_and_gradient(values + step * direction)[0]
            - objective.cost_and_gradient(values - step * direction)[0]
        ) / (2 * step)
        torch.testing.assert_close(slopes, (gradient * direction).sum(1), rtol=2e-6, atol=1e-8)


def test_members_of_a_stack_do_not_mix():
    nets = [make(seed, effective_depth=1.0 + seed) for seed in range(3)]
    x, y = data()
    together, gradients = (
        part.clone()
        for part in StackedObjective(nets, x, y, dtype=torch.float64).cost_and_gradient(
            StackedObjective(nets, x, y, dtype=torch.float64).values()
        )
    )
    for member, net in enumerate(nets):
        alone = StackedObjective([net], x, y, dtype=torch.float64)
        cost, gradient = alone.cost_and_gradient(alone.values())
        torch.testing.assert_close(cost[0], together[member], rtol=1e-14, atol=0)
        torch.testing.assert_close(gradient[0], gradients[member], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("embeddings", ["fixed", "learned"])
def test_groups_that_fit_the_cache_change_nothing(monkeypatch, embeddings):
    nets = [make(seed, effective_depth=1.0 + seed / 2, embeddings=embeddings) for seed in range(5)]
    x, y = data()
    whole = StackedObjective(nets, x, y, dtype=torch.float64)
    costs, gradient = whole.cost_and_gradient(whole.values())
    monkeypatch.setattr("learnmech.leaky.objective._CACHED", 2 * 6 * 7)  # two members
    cut = StackedObjective(nets, x, y, dtype=torch.float64)
    assert len(cut._groups) == 3
    torch.testing.assert_close(cut.cost_and_gradient(cut.values()), (costs, gradient), rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(cut.path, whole.path)
    torch.testing.assert_close(cut.step_norms(), whole.step_norms())
    torch.testing.assert_close(cut.data_costs(cut.values()), whole.data_costs(whole.values()))
    torch.testing.assert_close(cut.end_gradients(cut.values()), whole.end_gradients(whole.values()))


def test_momenta_are_the_slopes_of_the_data_cost():
    """Push the flow from a later representation on: the cost changes as the momentum there says."""
    net = make(bias=True)
    x, y = data()
    _, path = net(x, return_path=True)
    moments = leaky.momenta(net, x, y)

    def cost_from(layer, representation):
        features = representation.T
        for block, step in zip(net.blocks[layer:], net.steps[layer:], strict=True):
            features = block(features, step, net.effective_depth)
        return float((net.readout(features) - y).square().sum().detach() / len(x))

    generator = torch.Generator().manual_seed(0)
    for layer in range(net.layers + 1):
        direction = torch.randn(path[layer].shape, generator=generator, dtype=torch.float64)
        slope = (
            cost_from(layer, path[layer] + 1e-6 * direction) - cost_from(layer, path[layer] - 1e-6 * direction)
        ) / 2e-6
        assert slope == pytest.approx(-net.penalty * float((moments[layer] * direction).sum()), rel=1e-6, abs=1e-9)


def test_slope_in_the_step_size_is_minus_penalty_times_pre_hamiltonian():
    """dJ/drho_l = -lambda P_l, against central differences with Richardson extrapolation."""
    net = make(steps="irregular")
    x, y = data()
    slopes = leaky.step_gradients(net, x, y)
    for layer in range(net.layers):
        estimates = []
        for step in (1e-3, 5e-4):
            values = []
            for sign in (1, -1):
                net.steps[layer] += sign * step
                values.append(float(net.cost(x, y).detach()))
                net.steps[layer] -= sign * step
            estimates.append((values[0] - values[1]) / (2 * step))
        assert (4 * estimates[1] - estimates[0]) / 3 == pytest.approx(float(slopes[layer]), rel=1e-9, abs=1e-10)


def test_slope_in_the_step_size_to_ten_digits():
    """On a path without kinks the cost is a polynomial in one step size: a complex step gives its slope to round-off."""
    torch.manual_seed(3)
    net = leaky.LeakyResNet(3, 2, 5, 1.5, 4, penalty=0.1).double()
    net.embedding.weight.data.abs_()
    for block in net.blocks:
        block.linear.weight.data.abs_()
        block.linear.bias.data.abs_()
    x, y = torch.rand(6, 3, dtype=torch.float64), torch.rand(6, 2, dtype=torch.float64)
    slopes = leaky.step_gradients(net, x, y)
    weights, start = net.weights.numpy(), net.embedding.weight.detach().numpy() @ x.numpy().T
    for layer in range(4):
        steps = net.steps.numpy().astype(complex)
        steps[layer] += 1e-30j
        values = start.astype(complex)
        for weight, step in zip(weights, steps, strict=True):
            values = (1 - step * 1.5) * values + step * weight @ np.vstack([values, np.ones(6)])
        errors = net.readout.weight.detach().numpy() @ values - y.numpy().T
        cost = (errors**2).sum() / 6 + 0.1 / 3.0 * sum(s * (w**2).sum() for s, w in zip(steps, weights, strict=True))
        assert float(slopes[layer]) == pytest.approx(cost.imag / 1e-30, rel=1e-10)


def test_the_range_of_depth_can_be_stretched_instead():
    """Symmetry S1: the first half of the steps, at twice the size with half leak and weights, ends where it ended."""
    net = make(layers=8)
    x, _ = data()
    _, path = net(x, return_path=True)
    half = leaky.LeakyResNet(3, 2, 6, net.effective_depth / 2, 4).double()
    half.embedding.weight.data.copy_(net.embedding.weight)
    half.set_weights(net.weights[:4] / 2)
    _, first = half(x, return_path=True)
    torch.testing.assert_close(first, path[:5], rtol=1e-13, atol=1e-14)


def test_without_bias_more_leak_only_shrinks():
    """Symmetry S2, which holds in the limit of many steps: A' = exp(-c p) A."""
    net = make(bias=False, layers=4000, width=4)
    x, _ = data()
    other = leaky.LeakyResNet(3, 2, 4, net.effective_depth + 1.5, 4000, bias=False).double()
    other.embedding.weight.data.copy_(net.embedding.weight)
    other.set_weights(net.weights)
    with torch.no_grad():
        _, path = net(x, return_path=True)
        _, shrunk = other(x, return_path=True)
    torch.testing.assert_close(shrunk[-1], math.exp(-1.5) * path[-1], rtol=5e-3, atol=1e-4)


def test_pairing_is_conserved_step_by_step():
    """E1 at any weights: without bias <A, B> is constant; with it the difference is rho <B, b 1>."""
    x, y = data()
    net = make(bias=False)
    _, path = net(x, return_path=True)
    products = (path.detach() * leaky.momenta(net, x, y)).sum((1, 2))
    torch.testing.assert_close(products, products[0].expand(6), rtol=1e-12, atol=1e-14)
    net = make(bias=True, steps="irregular")
    _, path = net(x, return_path=True)
    moments = leaky.momenta(net, x, y)
    products = (path.detach() * moments).sum((1, 2))
    gains = net.steps * (moments[1:] * net.weights[:, :, -1:]).sum((1, 2))
    torch.testing.assert_close(products[1:] - products[:-1], gains, rtol=1e-11, atol=1e-13)


def test_weights_and_steps_can_be_replaced():
    net, other = make(0), make(1)
    other.set_weights(net.weights)
    torch.testing.assert_close(other.weights, net.weights)
    net.set_steps(torch.tensor([1.0, 1.0, 2.0, 1.0, 1.0]))
    torch.testing.assert_close(net.steps, torch.tensor([1, 1, 2, 1, 1], dtype=torch.float64) / 6)
    copy = make(5)
    copy.load_state_dict(net.state_dict())
    torch.testing.assert_close(copy.steps, net.steps)


def test_it_is_a_module_like_others():
    net = leaky.LeakyResNet(3, 2, 6, 2.0, 4, embeddings="learned")
    x = torch.randn(5, 3)
    assert net(x).dtype == torch.float32
    net.cost(x, torch.zeros(5, 2)).backward()
    assert all(p.grad is not None for p in net.parameters())
    assert net.half().steps.dtype == torch.float16
    assert "effective_depth=2" in repr(net)
    fixed = leaky.LeakyResNet(3, 2, 6, 2.0, 4)
    assert not fixed.embedding.weight.requires_grad
    gram = fixed.embedding.weight.T @ fixed.embedding.weight
    torch.testing.assert_close(gram, torch.eye(3), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"effective_depth": 5.0}, "layers"),
        ({"effective_depth": 6.0}, "layers"),
        ({"effective_depth": 0.0}, "positive"),
        ({"effective_depth": math.nan}, "positive"),
        ({"penalty": -1.0}, "penalty"),
        ({"width": 2}, "orthonormal"),
        ({"layers": 0}, "layers"),
        ({"steps": "even"}, "kind"),
        ({"steps": torch.ones(4)}, "5 positive"),
        ({"steps": torch.tensor([1.0, 1.0, -1.0, 1.0, 1.0])}, "positive"),
        ({"steps": torch.tensor([10.0, 1.0, 1.0, 1.0, 1.0])}, "below 1"),
        ({"embeddings": "free"}, "embeddings"),
        ({"init": "he"}, "init"),
        ({"loss": "mse"}, "loss"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


def test_data_that_do_not_fit_are_refused():
    net = make()
    x, y = data()
    with pytest.raises(InputError, match=r"\(samples, 3\)"):
        net(torch.zeros(4, 2, dtype=torch.float64))
    with pytest.raises(InputError, match="targets of shape"):
        net.cost(x, y[:, :1])
    with pytest.raises(InputError, match="cross_entropy"):
        net.cost(x, torch.zeros(7, dtype=torch.long))
    with pytest.raises(InputError, match="finite"):
        leaky.momenta(net, x * math.nan, y)
    with pytest.raises(InputError, match="finite"):
        leaky.momenta(net, x, y * math.inf)
    with pytest.raises(InputError, match="at least one sample"):
        leaky.momenta(net, x[:0], y[:0])
    with pytest.raises(InputError, match="shape"):
        net.set_weights(torch.zeros(5, 6, 6))
    classes = make(loss="cross_entropy")
    with pytest.raises(InputError, match=r"class indices must lie in 0 \.\. 1"):
        classes.cost(x, torch.full((7,), 2))
    with pytest.raises(InputError, match="integer"):
        classes.cost(x, y)
    with pytest.raises(InputError, match="LeakyResNet"):
        leaky.momenta(torch.nn.Linear(3, 2), x, y)


def test_nothing_of_the_net_changes_when_it_is_measured():
    net = leaky.LeakyResNet(3, 2, 6, 2.0, 4)
    x, y = torch.randn(5, 3), torch.randn(5, 2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    leaky.momenta(net, x, y)
    leaky.stationarity(net, x, y)
    leaky.step_gradients(net, x, y)
    leaky.profile(net, x, y)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert net.training


def test_passes_take_step_sizes_that_differ_between_members():
    steps = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.25, 0.25]])
    passes = StackedPasses(
        steps, torch.tensor([1.0, 1.5]), width=3, samples=4, bias=True, dtype=torch.float64, device=torch.device("cpu")
    )
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 3, 3, 4, generator=generator, dtype=torch.float64)
    start = torch.randn(1, 3, 4, generator=generator, dtype=torch.float64)
    passes.forward(weights, start)
    for member, leak in enumerate((1.0, 1.5)):
        values = start[0]
        for layer in range(3):
            rho = float(steps.double()[member, layer])
            active = torch.cat([values.clamp(min=0), torch.ones(1, 4, dtype=torch.float64)])
            values = (1 - rho * leak) * values + rho * weights[member, layer] @ active
            torch.testing.assert_close(passes.path[layer + 1, member], values, rtol=1e-12, atol=1e-14)
