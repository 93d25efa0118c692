"""The kernel against matrices written out by hand, small real steps, SciPy, and bounds that hold for any spectrum."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.sparse.linalg import eigsh
from torch import nn

from learnmech.errors import InputError
from learnmech.speed.kantorovich import kantorovich_bound
from learnmech.speed.network_kernel import backward_feature_kernel


def linear(matrix, *, trained=True):
    matrix = torch.as_tensor(matrix, dtype=torch.float64)
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, dtype=torch.float64)
    layer.weight = nn.Parameter(matrix.clone(), requires_grad=trained)
    return layer


def vector(*entries):
    return torch.tensor(entries, dtype=torch.float64)


def with_spectrum(values):
    """A trained identity in front of a fixed diagonal: for one unit input, K = diag(values)."""
    return nn.Sequential(
        linear(torch.eye(len(values))),
        linear(torch.diag(torch.as_tensor(values, dtype=torch.float64).sqrt()), trained=False),
    )


def unit(size):
    return torch.eye(size, dtype=torch.float64)[:1]


# Closed forms


def test_one_linear_layer_is_isotropic():
    kernel = backward_feature_kernel(linear(torch.randn(4, 3)), vector(0, 1, 2)[None], learning_rates=0.1)
    assert_allclose(kernel.dense(), 0.5 * np.eye(4), atol=1e-15)
    assert kernel.condition() == pytest.approx(1, rel=1e-12)
    assert kernel.kantorovich_bound() == pytest.approx(1, rel=1e-12)
    assert kernel.predicted_cosine() == pytest.approx(1, rel=1e-12)
    assert (kernel.dimension, kernel.shape) == (4, (1, 4))


def test_two_layers_the_second_singular():
    """W2 = diag(1, 0), W1 = I, x = e1: K = diag(2, 1); b = (1, 1) has cosine 3/sqrt(10)."""
    net = nn.Sequential(linear(torch.eye(2)), linear(torch.diag(vector(1, 0))))
    kernel = backward_feature_kernel(net, unit(2))
    assert_allclose(kernel.dense(), np.diag([2.0, 1.0]), atol=1e-15)
    b = vector(1, 1)
    assert kernel.cosine(b) == pytest.approx(3 / math.sqrt(10), rel=1e-12)
    assert float((kernel @ b).norm()) == pytest.approx(math.sqrt(5), rel=1e-12)


def test_only_the_first_layer_trained_below_a_rank_one_map():
    """W2 = u v^T: features move along u alone, cosine |u.b|/(|u||b|), and K is singular."""
    u, v, b = vector(1, 2, -1), vector(0.5, 1), vector(1, 3, 2)
    net = nn.Sequential(linear([[1.0, 2.0], [0.0, 1.0]]), linear(torch.outer(u, v), trained=False))
    kernel = backward_feature_kernel(net, vector(1, 1)[None])
    assert kernel.cosine(b) == pytest.approx(abs(float(u @ b)) / float(u.norm() * b.norm()), rel=1e-12)
    assert kernel.condition() == math.inf
    assert kernel.kantorovich_bound() == 0
    assert math.isnan(kernel.cosine(vector(1, 0, 1)))  # orthogonal to u: nothing moves
    assert math.isnan(kernel.cosine(torch.zeros(3)))


def test_one_layer_after_its_relu_loses_what_is_off():
    weight = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, b = torch.ones(1, 5, dtype=torch.float64), torch.arange(1.0, 10.0, dtype=torch.float64)[None]
    kernel = backward_feature_kernel(nn.Sequential(linear(weight), nn.ReLU()), x)
    mask = (x @ weight.T > 0).double()
    assert 0 < mask.sum() < 9
    assert kernel.cosine(b) == pytest.approx(float((mask * b).norm() / b.norm()), rel=1e-12)


def test_worst_backward_pass_meets_the_bound():
    kernel = backward_feature_kernel(with_spectrum([9.0, 1.0]), unit(2))
    assert kernel.condition() == pytest.approx(9, rel=1e-12)
    assert kernel.kantorovich_bound() == pytest.approx(0.6, rel=1e-12)
    assert kernel.cosine(vector(1, 3)) == pytest.approx(0.6, rel=1e-12)


def test_random_backward_pass_meets_the_prediction():
    """Spectrum uniform on [0, 1], N = 300: sqrt(3)/2 for a random b; sd of one draw .013, mean of 40 draws within 5 sd."""
    spectrum = (np.arange(300) + 0.5) / 300
    kernel = backward_feature_kernel(with_spectrum(spectrum), unit(300))
    assert_allclose(kernel.eigenvalues(), spectrum, atol=1e-12)
    assert kernel.predicted_cosine() == pytest.approx(math.sqrt(3) / 2, abs=1e-5)
    generator = torch.Generator().manual_seed(0)
    drawn = [kernel.cosine(torch.randn(300, generator=generator, dtype=torch.float64)) for _ in range(40)]
    assert np.mean(drawn) == pytest.approx(math.sqrt(3) / 2, abs=5 * 0.013 / math.sqrt(40))


# Nets written out


class Net(nn.Module):
    """Three layers with tanh, the second of width 4, and a bias."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.first = linear(torch.randn(5, 3, generator=generator))
        self.second = linear(torch.randn(4, 5, generator=generator))
        self.third = linear(torch.randn(2, 4, generator=generator))
        self.shift = nn.Parameter(torch.zeros(4, dtype=torch.float64))

    def forward(self, x):
        return self.third(torch.tanh(self.second(torch.tanh(self.first(x))) + self.shift))


def batch(samples=3):
    return torch.randn(samples, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def by_hand(net, x, rates):
    """K = sum over layers of eta <q(x_i), q(x_j)> J(x_i) J(x_j)^T, and of eta J J^T for the bias."""
    x = x.numpy()
    first, second, third = (part.weight.detach().numpy() for part in (net.first, net.second, net.third))
    q1 = np.tanh(x @ first.T)
    q2 = np.tanh(q1 @ second.T + net.shift.detach().numpy())
    count, outputs = len(x), len(third)
    kernel = np.zeros((count, outputs, count, outputs))
    for i in range(count):
        for j in range(count):
            to_second = [third * (1 - q2[k] ** 2) for k in (i, j)]
            to_first = [(to_second[n] @ second) * (1 - q1[k] ** 2) for n, k in enumerate((i, j))]
            kernel[i, :, j] = (
                rates["third.weight"] * (q2[i] @ q2[j]) * np.eye(outputs)
                + (rates["second.weight"] * (q1[i] @ q1[j]) + rates["shift"]) * to_second[0] @ to_second[1].T
                + rates["first.weight"] * (x[i] @ x[j]) * to_first[0] @ to_first[1].T
            )
    return kernel.reshape(count * outputs, count * outputs)


RATES = {"first.weight": 0.5, "second.weight": 2.0, "third.weight": 0.1, "shift": 3.0}


@pytest.mark.parametrize("rates", [RATES, dict.fromkeys(RATES, 1.0), dict.fromkeys(RATES, 0.0) | {"shift": 1.0}])
def test_batch_kernel_is_the_sum_over_layers_by_hand(rates):
    net, x = Net(), batch()
    expected = by_hand(net, x, rates)
    assert_allclose(backward_feature_kernel(net, x, learning_rates=rates).dense(), expected, atol=1e-13)
    unnamed = {name: rate for name, rate in rates.items() if rate > 0}  # what is not named does not move
    assert_allclose(backward_feature_kernel(net, x, learning_rates=unnamed).dense(), expected, atol=1e-13)


def test_one_rate_for_all_leaves_frozen_parameters_out():
    net, x = Net(), batch()
    net.second.weight.requires_grad_(False)
    expected = by_hand(net, x, dict.fromkeys(RATES, 0.3) | {"second.weight": 0.0})
    assert_allclose(backward_feature_kernel(net, x, learning_rates=0.3).dense(), expected, atol=1e-13)


def test_a_node_inside_has_the_kernel_of_the_net_up_to_it():
    net, x = Net(), batch()
    kernel = backward_feature_kernel(net, x, node="second")
    assert kernel.shape == (3, 4)
    q1 = np.tanh(x.numpy() @ net.first.weight.detach().numpy().T)
    second = net.second.weight.detach().numpy()
    expected = np.einsum("ij,ab->iajb", q1 @ q1.T, np.eye(4))
    for i in range(3):
        for j in range(3):
            expected[i, :, j] += (x[i] @ x[j]).item() * (second * (1 - q1[i] ** 2)) @ (second * (1 - q1[j] ** 2)).T
    assert_allclose(kernel.dense(), expected.reshape(12, 12), atol=1e-13)


@pytest.mark.parametrize("node", ["first", "second", None])
def test_a_small_gradient_step_moves_the_features_by_minus_k_b(node):
    """Central differences: relative error of order eps^2."""
    net, x, eps = Net(), batch(), 1e-4
    kernel = backward_feature_kernel(net, x, learning_rates=RATES, node=node)
    seen = []
    hooked = net if node is None else net.get_submodule(node)
    hooked.register_forward_hook(lambda module, args, output: seen.append(output))
    loss = net(x).sin().sum()
    feature = seen[0]
    named = dict(net.named_parameters())
    backward, *gradients = torch.autograd.grad(loss, [feature, *named.values()])
    for sign in (1, -1):
        moved = copy.deepcopy(net)
        with torch.no_grad():
            for (name, parameter), gradient in zip(moved.named_parameters(), gradients, strict=True):
                parameter -= sign * eps * RATES[name] * gradient
            moved(x)  # the copied hook writes to the same list
    change = (seen[1] - seen[2]) / (2 * eps)
    assert_allclose((-(kernel @ backward)).numpy(), change.detach().numpy(), rtol=1e-5, atol=1e-8)
    expected = -float((backward * change).sum() / backward.norm() / change.norm())
    assert kernel.cosine(backward) == pytest.approx(expected, abs=1e-6)


def test_flat_and_shaped_vectors_and_scipy_agree():
    kernel = backward_feature_kernel(Net(), batch(), learning_rates=RATES)
    dense, b = kernel.dense(), torch.arange(6.0)
    assert_allclose((kernel @ b).numpy(), dense @ b.numpy(), atol=1e-12)
    assert (kernel @ b.reshape(3, 2)).shape == (3, 2)
    assert (kernel @ b).dtype == torch.float64
    operator = kernel.as_linear_operator()
    assert_allclose(operator @ np.eye(6), dense, atol=1e-12)
    assert_allclose(operator.T @ b.numpy(), dense @ b.numpy(), atol=1e-12)
    largest = eigsh(operator, k=1, which="LM", return_eigenvectors=False, v0=np.ones(6))
    values = np.linalg.eigvalsh(by_hand(Net(), batch(), RATES))
    assert_allclose(largest, values[-1], rtol=1e-10)
    assert_allclose(kernel.eigenvalues(), values, rtol=1e-9)
    assert kernel.condition() == pytest.approx(values[-1] / values[0], rel=1e-8)


def test_sampled_moments_agree_with_exact_ones():
    """5 errors of 200 directions: 1e-6 a number; coverage of 2 errors over 40 repeats is above .8 but for 1e-3."""
    kernel = backward_feature_kernel(Net(), batch(10), learning_rates=RATES)
    values = np.linalg.eigvalsh(kernel.dense())
    exact = kernel.moments()
    assert exact.probes is None
    assert exact.mean == pytest.approx(values.mean(), rel=1e-12)
    assert exact.mean_square == pytest.approx((values**2).mean(), rel=1e-12)
    assert exact.cosine == pytest.approx(values.mean() / math.sqrt((values**2).mean()), rel=1e-12)
    assert (exact.mean_error, exact.mean_square_error, exact.cosine_error) == (0, 0, 0)
    found = kernel.moments(probes=200)
    assert abs(found.mean - exact.mean) < 5 * found.mean_error < 0.5 * exact.mean
    assert abs(found.mean_square - exact.mean_square) < 5 * found.mean_square_error
    assert abs(found.cosine - exact.cosine) < 5 * found.cosine_error < 0.2
    repeats = [kernel.moments(probes=12, seed=seed) for seed in range(40)]
    assert np.mean([abs(one.cosine - exact.cosine) < 2 * one.cosine_error for one in repeats]) > 0.8
    assert kernel.predicted_cosine(probes=12, seed=7) == repeats[7].cosine


def test_large_kernels_are_sampled_and_not_written_out():
    net = nn.Sequential(nn.Linear(4, 700), nn.ReLU())
    kernel = backward_feature_kernel(net, torch.ones(3, 4))
    assert kernel.moments(probes=4).probes == 4
    with pytest.raises(InputError, match=r"2100 x 2100 numbers, 0.0353 GB"):
        kernel.dense()


@given(
    values=st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=5),
    entries=st.lists(st.floats(-1, 1), min_size=5, max_size=5),
)
@settings(max_examples=25, deadline=None)
def test_no_backward_pass_falls_below_the_bound(values, entries):
    b = torch.tensor(entries[: len(values)], dtype=torch.float64)
    if float(b.abs().max()) < 1e-3:
        b = b + 1
    kernel = backward_feature_kernel(with_spectrum(values), unit(len(values)))
    bound = kernel.kantorovich_bound()
    assert bound == pytest.approx(kantorovich_bound(max(values) / min(values)), rel=1e-9)
    assert bound - 1e-9 <= kernel.cosine(b) <= 1 + 1e-9


# The model


def test_model_is_left_alone_and_later_training_does_not_reach_the_kernel():
    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.ReLU(inplace=True), nn.Linear(5, 2))
    net = net.double().train()
    net[0].weight.grad = torch.ones(5, 3, dtype=torch.float64)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    x = batch()
    kernel = backward_feature_kernel(net, x, node="1")
    dense = kernel.dense()
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert torch.equal(net[0].weight.grad, torch.ones(5, 3, dtype=torch.float64))
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(len(module._forward_hooks) == 0 for module in net.modules())
    again = backward_feature_kernel(net, x, node="1")
    with torch.no_grad():
        net[0].weight.mul_(5)
        net[1].running_var.mul_(4)
        x.mul_(2)
    assert_allclose(again.dense(), dense, atol=1e-14)
    assert not np.allclose(backward_feature_kernel(net, x, node="1").dense(), dense)


def test_inputs_may_be_tuples_mappings_and_tokens():
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(4, 3, dtype=torch.float64)

        def forward(self, tokens, scale):
            return self.table(tokens) * scale

    tokens, scale = torch.tensor([[0, 1], [1, 2]]), vector(2.0)
    for inputs in ((tokens, scale), {"tokens": tokens, "scale": scale}):
        dense = backward_feature_kernel(Embedded(), inputs).dense()
        # Same token, same embedding: 4 (scale squared) between uses of one token.
        same = (tokens.reshape(-1, 1) == tokens.reshape(1, -1)).double().numpy()
        assert_allclose(dense, 4 * np.kron(same, np.eye(3)), atol=1e-14)


def test_single_precision_does_not_overflow():
    layer = nn.Linear(1, 1, bias=False)
    kernel = backward_feature_kernel(layer, torch.tensor([[1e15]]))
    assert kernel.dense()[0, 0] == pytest.approx(1e30, rel=1e-6)
    assert float(kernel @ torch.tensor([[1e30]])) == pytest.approx(1e60, rel=1e-6)
    assert kernel.cosine(torch.tensor([[1e30]])) == pytest.approx(1)
    with pytest.raises(InputError, match="try the model in float64"):
        backward_feature_kernel(layer, torch.tensor([[1e25]])).dense()


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.part, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.part(self.part(x)), x


@pytest.mark.parametrize(
    ("network", "inputs", "settings", "message"),
    [
        (lambda x: x, torch.ones(1, 3), {}, "torch.nn.Module, but a function"),
        (nn.Linear(3, 3), torch.ones(0, 3), {}, "at least one sample"),
        (nn.Linear(3, 3), 3.0, {}, "at least one sample"),
        (nn.Linear(3, 3), torch.full((1, 3), torch.nan), {}, "3 NaN or infinite"),
        (nn.Linear(3, 3), torch.ones(1, 3), {"learning_rates": -1.0}, "not negative"),
        (nn.Linear(3, 3), torch.ones(1, 3), {"learning_rates": {"weight": math.inf}}, "finite"),
        (nn.Linear(3, 3), torch.ones(1, 3), {"learning_rates": {"wieght": 1.0}}, "similar names: weight"),
        (nn.Linear(3, 3), torch.ones(1, 3), {"learning_rates": {}}, "no parameter has a learning rate"),
        (nn.ReLU(), torch.ones(1, 3), {}, "no parameter has a learning rate"),
        (Twice(), torch.ones(1, 3), {"node": "prat"}, "similar names: part"),
        (Twice(), torch.ones(1, 3), {"node": "part"}, "made 2 times"),
        (Twice(), torch.ones(1, 3), {"node": "unused"}, "made 0 times"),
        (Twice(), torch.ones(1, 3), {}, "one floating-point tensor"),
    ],
)
def test_bad_input_is_refused(network, inputs, settings, message):
    with pytest.raises(InputError, match=message):
        backward_feature_kernel(network, inputs, **settings)


def test_other_bad_input_is_refused():
    kernel = backward_feature_kernel(nn.Linear(3, 2), torch.ones(2, 3))
    with pytest.raises(InputError, match=r"shape \(2, 2\) or flat \(4,\)"):
        kernel @ torch.ones(3)
    with pytest.raises(InputError, match="1 NaN"):
        kernel @ torch.tensor([1.0, 2.0, math.nan, 0.0])
    with pytest.raises(InputError, match="at least 2"):
        kernel.moments(probes=1)
    with pytest.raises(InputError, match="seed must be"):
        kernel.moments(probes=2, seed=-1)
    with pytest.raises(InputError, match="kernel is zero"):
        backward_feature_kernel(nn.Linear(3, 2), torch.ones(2, 3), learning_rates=0.0).condition()
    for condition in (0.5, math.nan, -1.0):
        with pytest.raises(InputError, match="at least 1"):
            kantorovich_bound(condition)
    assert (kernel @ torch.zeros(4)).tolist() == [0, 0, 0, 0]
