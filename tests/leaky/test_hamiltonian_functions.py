"""The Hamiltonian, its derivatives, the pre-Hamiltonian and conserved quantities, against nets written in NumPy here."""

import math

import numpy as np
import pytest
import torch

from learnmech.errors import InputError
from learnmech.leaky.conserved import balancedness, pairing, pairing_drift
from learnmech.leaky.energies import kinetic_energy, potential_energy
from learnmech.leaky.hamilton_equations import momentum_velocity, velocity
from learnmech.leaky.hamiltonians import effective_dimension, hamiltonian, pre_hamiltonian

DOUBLE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


class Net:
    """A leaky ResNet on columns with passes by hand: cost |Y - A_L|^2/N + penalty/(2 depth) sum of steps |W|^2."""

    def __init__(self, width, samples, layers, depth, *, bias, positive=False, uneven=False, seed=0):
        rng = np.random.default_rng(seed)
        self.start, self.target = rng.standard_normal((2, width, samples))
        if positive:
            self.start, self.target = np.abs(self.start) + 0.2, np.abs(self.target) + 0.2
        self.bias, self.depth, self.penalty, self.samples = bias, depth, 0.02, samples
        self.steps = np.linspace(1, 3, layers) if uneven else np.ones(layers)
        self.steps /= self.steps.sum()
        identity = np.hstack([depth * np.eye(width), np.zeros((width, int(bias)))])
        self.weights = identity + 0.1 * rng.standard_normal((layers, width, width + int(bias)))

    def active(self, values):
        return np.vstack([np.maximum(values, 0)] + [np.ones((1, self.samples))] * self.bias)

    def path(self, weights, steps):
        nodes = [self.start]
        for w, rho in zip(weights, steps, strict=True):
            nodes.append((1 - rho * self.depth) * nodes[-1] + rho * w @ self.active(nodes[-1]))
        return np.array(nodes)

    def cost(self, weights, steps):
        error = self.target - self.path(weights, steps)[-1]
        squares = np.sum(weights**2, axis=(1, 2))
        return np.sum(error**2) / self.samples + self.penalty / (2 * self.depth) * np.sum(steps * squares)

    def momenta(self, weights, steps):
        nodes = self.path(weights, steps)
        duals = [2 / (self.penalty * self.samples) * (self.target - nodes[-1])]
        for before, w, rho in zip(nodes[-2::-1], weights[::-1], steps[::-1], strict=True):
            back = (before > 0) * (w[:, : len(before)].T @ duals[0])
            duals.insert(0, (1 - rho * self.depth) * duals[0] + rho * back)
        return nodes, np.array(duals)

    def make_critical(self, momenta):
        """Choose weights and target such that the net is a critical point whose first layer has the given momenta B_1.

        W_1 = depth B_1 sigma(A_0)^T gives A_1; B_2 solves B_1 = (1 - rho depth) B_2 + rho (step's backward pass with
        W_2 = depth B_2 sigma(A_1)^T), by a damped fixed-point iteration; and so on. Last, the target is A_L plus the momenta's share.
        """
        node, dual, weights = self.start, momenta, []
        for layer, rho in enumerate(self.steps):
            if layer:
                before, dual = dual, dual / (1 - rho * self.depth)
                for _ in range(500):
                    back = (node > 0) * (np.maximum(node, 0) @ dual.T @ dual)
                    dual = 0.7 * dual + 0.3 * (before - rho * self.depth * back) / (1 - rho * self.depth)
            weights.append(self.depth * dual @ self.active(node).T)
            node = (1 - rho * self.depth) * node + rho * weights[-1] @ self.active(node)
        self.weights = np.array(weights)
        self.target = node + self.penalty * self.samples / 2 * dual
        assert np.allclose(self.momenta(self.weights, self.steps)[1][1], momenta, rtol=1e-12, atol=1e-12)
        return self

    def tensors(self):
        nodes, duals = self.momenta(self.weights, self.steps)
        return (torch.tensor(array) for array in (nodes, duals, self.weights, self.steps))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (4, 15)])
def test_formula_and_slopes(shape, bias):
    """By hand in NumPy; Hamilton's equations are its derivatives, by central differences (A has no entry near 0)."""
    values, duals = normal(*shape), normal(*shape, seed=1)
    values += 0.1 * values.sign()
    active = np.vstack([np.maximum(values.numpy(), 0)] + [np.ones((1, shape[1]))] * bias)
    expected = 1.5 * np.sum((duals.numpy() @ active.T) ** 2) - 3 * np.sum(duals.numpy() * values.numpy())
    assert float(hamiltonian(values, duals, 3.0, bias=bias)) == pytest.approx(expected)
    assert float(effective_dimension(values, duals, 3.0, bias=bias)) == pytest.approx(-2 / 3 * expected)

    for seed in range(3):
        direction, step = normal(*shape, seed=seed + 5), 1e-6

        def along(a, b, direction=direction, step=step):
            above = hamiltonian(values + step * a * direction, duals + step * b * direction, 3.0, bias=bias)
            below = hamiltonian(values - step * a * direction, duals - step * b * direction, 3.0, bias=bias)
            return float(above - below) / (2 * step)

        assert float((velocity(values, duals, 3.0, bias=bias) * direction).sum()) == pytest.approx(
            along(0, 1), rel=1e-6, abs=1e-5
        )
        assert float((momentum_velocity(values, duals, 3.0, bias=bias) * direction).sum()) == pytest.approx(
            -along(1, 0), rel=1e-6, abs=1e-5
        )


@pytest.mark.parametrize("bias", [True, False])
def test_kinetic_plus_potential_where_supported(bias):
    values, duals = normal(6, 4).abs() + 0.1, normal(6, 4, seed=1)
    moved = velocity(values, duals, 3.0, bias=bias)
    total = kinetic_energy(values, moved, 3.0, bias=bias) + potential_energy(values, 3.0, bias=bias)
    assert float(hamiltonian(values, duals, 3.0, bias=bias)) == pytest.approx(float(total), rel=1e-9)


def test_scalar_geodesic():
    a0, a1, depth = 0.5, 3.0, 4.0
    rate = math.log(a1 / a0)
    a = torch.tensor([a0, 1.1, a1], dtype=DOUBLE).reshape(3, 1, 1)
    b = (1 + rate / depth) / a
    assert effective_dimension(a, b, depth, bias=False).tolist() == pytest.approx([0.7993498753] * 3, abs=1e-10)
    weight = torch.full((3, 1, 1), depth + rate, dtype=DOUBLE)
    assert pre_hamiltonian(a, b, weight, depth, bias=False).tolist() == pytest.approx(
        hamiltonian(a, b, depth, bias=False).tolist()
    )


@pytest.mark.parametrize("bias", [True, False])
def test_pre_hamiltonian_is_the_slope_in_the_step_sizes(bias):
    """dJ/d rho_l = -penalty P_l at any parameters; central differences of a cost written in NumPy (their error is 1e-9)."""
    net = Net(4, 5, 6, 2.5, bias=bias, uneven=True)
    nodes, duals, weights, _ = net.tensors()
    found = -net.penalty * pre_hamiltonian(nodes[:-1], duals[1:], weights, net.depth, bias=bias)
    for layer in range(6):
        shift = np.zeros(6)
        shift[layer] = 1e-5
        slope = (net.cost(net.weights, net.steps + shift) - net.cost(net.weights, net.steps - shift)) / 2e-5
        assert float(found[layer]) == pytest.approx(slope, rel=1e-7, abs=1e-8)


def test_pre_hamiltonian_is_below_by_the_squared_residual():
    values, duals, weights = normal(9, 5, 7), normal(9, 5, 7, seed=1), normal(9, 5, 6, seed=2)
    active = torch.cat([values.clamp(min=0), torch.ones(9, 1, 7, dtype=DOUBLE)], dim=1)
    gap = (weights - 3 * duals @ active.mT).square().sum((1, 2)) / 6
    energy, before = hamiltonian(values, duals, 3.0), pre_hamiltonian(values, duals, weights, 3.0)
    assert torch.allclose(energy - before, gap, rtol=1e-10)
    assert torch.allclose(pre_hamiltonian(values, duals, 3 * duals @ active.mT, 3.0), energy, rtol=1e-10)


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("uneven", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_critical_points_obey_every_law(bias, uneven, positive):
    net = Net(4, 6, 8, 2.0, bias=bias, uneven=uneven, positive=positive, seed=2)
    net.make_critical(0.04 * np.random.default_rng(3).standard_normal((4, 6)) + 0.03)
    nodes, duals, weights, steps = net.tensors()
    assert bool(nodes.min() < 0) or positive
    energy = hamiltonian(nodes[:-1], duals[1:], net.depth, bias=bias)
    before = pre_hamiltonian(nodes[:-1], duals[1:], weights, net.depth, bias=bias)
    assert torch.allclose(energy, before, rtol=1e-10)
    exact = balancedness(weights, steps, net.depth, bias=bias, hamiltonians=energy)
    expected = 2 * net.depth**2 * float(pairing(nodes[0], duals[0]))
    size = float(weights.square().sum((1, 2)).mean())
    assert exact.tolist() == pytest.approx([expected] * len(steps), abs=1e-10 * size)
    wrong = balancedness(weights, steps, net.depth, bias=bias, hamiltonians=1.1 * energy)
    assert float((wrong - expected).abs().max()) > 1e-3 * size


@pytest.mark.parametrize(("bias", "uneven"), [(True, True), (True, False), (False, True), (False, False)])
def test_balancedness_of_critical_points_is_constant_to_first_order(bias, uneven):
    def spread(layers):
        net = Net(4, 6, layers, 2.0, bias=bias, uneven=uneven, seed=2)
        net.make_critical(0.04 * np.random.default_rng(3).standard_normal((4, 6)) + 0.03)
        _, _, weights, steps = net.tensors()
        found = balancedness(weights, steps, net.depth, bias=bias)
        return float((found.max() - found.min()) / found.abs().mean())

    assert 0 < spread(64) < spread(16) / 2.5


@pytest.mark.parametrize("uneven", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_pairing_of_untrained_nets(bias, uneven):
    net = Net(4, 5, 7, 2.5, bias=bias, uneven=uneven, seed=1)
    nodes, duals, weights, steps = net.tensors()
    size = float(nodes.norm() * duals.norm())
    drift = pairing_drift(nodes, duals, steps, weights[..., -1] if bias else None)
    assert float(drift.abs().max()) < 1e-14 * size
    pairs = pairing(nodes, duals)
    change = float(pairs.max() - pairs.min())
    assert change > 1e-3 * size if bias else change < 1e-14 * size
    if bias:
        assert float(pairing_drift(nodes, duals, steps).abs().max()) > 1e-4 * size
    both = pairing_drift(torch.stack([nodes, nodes]), torch.stack([duals, duals]), steps, None)
    assert both.shape == (2, 7)


def test_balancedness_on_an_exact_geodesic_needs_the_factor_two():
    """One neuron, one sample, bias, H = 0: a = a0 e^(Lp), |W|^2 = 4 L^2 a^2/(1 + a^2), b = 2 L a/(1 + a^2)."""
    depth, a0, layers = 1.7, 0.4, 2000
    steps = torch.full((layers,), 1 / layers, dtype=DOUBLE)
    middles = steps.cumsum(0) - steps / 2
    a = a0 * (depth * middles).exp()
    weights = (2 * depth * torch.stack([a**2, a], dim=-1) / (1 + a**2)[:, None])[:, None, :]
    assert torch.allclose(weights.square().sum((1, 2)), 4 * depth**2 * a**2 / (1 + a**2))
    start = 4 * depth**2 * a0**2 / (1 + a0**2)
    found = balancedness(weights, steps, depth)
    assert found.tolist() == pytest.approx([start] * layers, rel=1e-5)
    half = (balancedness(weights, steps, depth) + weights.square().sum((1, 2))) / 2  # what the paper prints
    assert float(half[-1] / half[0]) > 1.5


def test_momenta_pass_gradients():
    values, duals = normal(3, 4).requires_grad_(), normal(3, 4, seed=1).requires_grad_()
    hamiltonian(values, duals, 2.0).backward()
    assert torch.allclose(duals.grad, velocity(values.detach(), duals.detach(), 2.0))


@pytest.mark.parametrize("function", [hamiltonian, effective_dimension])
def test_hamiltonian_refuses(function):
    with pytest.raises(InputError, match="momenta must have the shape"):
        function(torch.eye(2), torch.ones(2, 3), 1.0)
    with pytest.raises(InputError, match="effective_depth"):
        function(torch.eye(2), torch.eye(2), 0.0)
    with pytest.raises(InputError, match="NaN"):
        function(torch.eye(2), torch.full((2, 2), math.nan), 1.0)
    with pytest.raises(InputError, match="one neuron"):
        function(torch.ones(2), torch.ones(2), 1.0)
    with pytest.raises(InputError, match="real"):
        function(torch.eye(2), torch.eye(2, dtype=torch.complex64), 1.0)


def test_integers_are_converted():
    assert float(hamiltonian(torch.tensor([[2]]), torch.tensor([[1]]), 1, bias=False)) == pytest.approx(0.0)


def test_the_others_refuse():
    eye, steps = torch.eye(2), torch.tensor([0.5, 0.5])
    path = torch.ones(3, 2, 4)
    with pytest.raises(InputError, match=r"weights must have the shape \(2, 3\)"):
        pre_hamiltonian(eye, eye, eye, 1.0)
    with pytest.raises(InputError, match=r"weights must have the shape \(2, 2\)"):
        pre_hamiltonian(eye, eye, torch.ones(2, 3), 1.0, bias=False)
    with pytest.raises(InputError, match="momenta must have"):
        pairing(eye, torch.ones(2, 3))
    with pytest.raises(InputError, match="two nodes"):
        pairing_drift(eye, eye, steps)
    with pytest.raises(InputError, match="2 step sizes"):
        pairing_drift(path, path, torch.ones(3) / 3)
    with pytest.raises(InputError, match="2 step sizes"):
        pairing_drift(path, path, [0.5, 0.5])
    with pytest.raises(InputError, match="add up to 1"):
        pairing_drift(path, path, torch.tensor([0.5, 0.6]))
    with pytest.raises(InputError, match="positive"):
        pairing_drift(path, path, torch.tensor([1.5, -0.5]))
    with pytest.raises(InputError, match="positive"):
        pairing_drift(path, path, torch.tensor([0.5, math.nan]))
    with pytest.raises(InputError, match="biases must have"):
        pairing_drift(path, path, steps, torch.ones(2, 3))
    with pytest.raises(InputError, match="weights must have"):
        balancedness(torch.ones(2, 3, 3), steps, 1.0)
    with pytest.raises(InputError, match="weights must have"):
        balancedness(torch.ones(3, 4), steps, 1.0)
    with pytest.raises(InputError, match="hamiltonians must be"):
        balancedness(torch.ones(2, 3, 4), steps, 1.0, hamiltonians=torch.ones(3))
    with pytest.raises(InputError, match="effective_depth"):
        balancedness(torch.ones(2, 3, 4), steps, -1.0)
