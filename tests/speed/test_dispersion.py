"""Measured dispersions against Jacobians written out in NumPy, nets of known dispersion, and repeats with other seeds."""

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from learnmech.errors import InputError
from learnmech.speed.hutchinson import dispersion


def relative_variance(jacobian):
    """Take it from singular values: variance of their squares over the squared mean, on the side of the input."""
    squares = np.zeros(jacobian.shape[1])
    values = np.linalg.svd(jacobian, compute_uv=False)
    squares[: len(values)] = values**2
    return squares.var() / squares.mean() ** 2, squares.mean()


def relu_net(widths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for inputs, outputs in itertools.pairwise(widths):
        linear = nn.Linear(inputs, outputs, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(torch.randn(outputs, inputs, generator=generator, dtype=torch.float64))
            linear.weight.mul_((2 / inputs) ** 0.5)
            linear.bias.zero_()
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def jacobian_by_hand(net, x):
    jacobian, features = np.eye(len(x)), x.numpy()
    for module in net:
        if isinstance(module, nn.Linear):
            weight = module.weight.detach().numpy()
            jacobian, features = weight @ jacobian, weight @ features
        else:
            jacobian, features = (features > 0)[:, None] * jacobian, np.maximum(features, 0)
    return jacobian


def test_small_maps_are_exact():
    net = relu_net([7, 20, 5])
    x = torch.randn(6, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = np.array([relative_variance(jacobian_by_hand(net, row)) for row in x])
    found = dispersion(net, x)
    assert_allclose(found.per_sample, expected[:, 0], rtol=1e-12)
    assert_allclose(found.per_sample_mean_square, expected[:, 1], rtol=1e-12)
    assert found.dispersion == pytest.approx(expected[:, 0].mean(), rel=1e-12)
    assert found.mean_square == pytest.approx(expected[:, 1].mean(), rel=1e-12)
    assert found.standard_error == 0
    assert found.probes is None


def test_random_directions_agree_within_their_error():
    """80 samples, each within 5 of its own errors but for at most 2 (t of 15 degrees: 1.6e-4 each, skewness aside)."""
    net = relu_net([60, 80, 40])
    x = torch.randn(80, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = np.array([relative_variance(jacobian_by_hand(net, row)) for row in x])
    found = dispersion(net, x)
    assert (np.abs(found.per_sample - expected[:, 0]) > 5 * found.per_sample_error).sum() <= 2
    # Normal mean of 80 samples: 4 errors are passed with probability 6e-5.
    assert abs(found.dispersion - expected[:, 0].mean()) < 4 * found.standard_error
    assert found.standard_error < 0.03 * found.dispersion
    assert found.mean_square == pytest.approx(expected[:, 1].mean(), rel=0.02)
    assert found.probes == 16


@pytest.mark.parametrize(("entries", "probes"), [(20, 16), (100, 16), (40, 32)])
def test_standard_error_covers_and_the_estimate_is_unbiased(entries, probes):
    """2000 independent repeats as samples of one linear map: coverage of 2 errors .90 to .97 (sd .005), bias within 4 sd."""
    rng = np.random.default_rng(entries)
    matrix = rng.standard_normal((entries, entries)) * (rng.random(entries) < 0.6)
    truth, _ = relative_variance(matrix)
    weight = torch.from_numpy(matrix)
    found = dispersion(lambda x: x @ weight.T, torch.zeros(2000, entries, dtype=torch.float64), probes=probes)
    covered = (np.abs(found.per_sample - truth) < 2 * found.per_sample_error).mean()
    assert 0.90 < covered < 0.97
    assert abs(found.dispersion - truth) < 4 * found.per_sample.std() / math.sqrt(2000)
    assert found.standard_error == pytest.approx(found.per_sample.std() / math.sqrt(2000), rel=0.15)


def test_orthogonal_map_has_none_without_any_error():
    weight = torch.linalg.qr(torch.randn(90, 90, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    found = dispersion(lambda x: 3 * x @ weight, torch.zeros(2, 90, dtype=torch.float64))
    assert abs(found.dispersion) < 1e-12
    assert found.standard_error < 1e-12
    assert found.mean_square == pytest.approx(9, rel=1e-12)


def test_gaussian_layers_and_relu_have_their_constants_and_add_up():
    """v_W = N_in/N_out, 1 for ReLU; in a row they add. Finite width: relative deviations of order (layers/width)."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(4, 400, generator=generator, dtype=torch.float64)
    wide = relu_net([400, 800], seed=3)
    assert dispersion(wide, x).dispersion == pytest.approx(0.5, abs=0.03)
    assert dispersion(nn.ReLU(), x).dispersion == pytest.approx(1.0, abs=0.2)  # the number of active units varies
    deep = relu_net([400] * 5, seed=4)  # four weights and three ReLUs
    assert dispersion(deep, x).dispersion == pytest.approx(7.0, rel=0.15)


def test_images_and_sequences_have_one_jacobian_a_sample():
    """A 1x1 convolution acts alike on every pixel: the dispersion of its matrix."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    convolution = nn.Conv2d(3, 4, 1, dtype=torch.float64)
    with torch.no_grad():
        convolution.weight.copy_(weight[:, :, None, None])
    expected, mean = relative_variance(weight.numpy())
    exact = dispersion(convolution, torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64))
    assert exact.dispersion == pytest.approx(expected, rel=1e-12)
    found = dispersion(convolution, torch.randn(40, 3, 5, 5, generator=generator, dtype=torch.float64))
    assert abs(found.dispersion - expected) < 4 * found.standard_error
    assert found.mean_square == pytest.approx(mean, rel=0.05)


class Attention(nn.Module):
    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x):
        return self.cells(x)[0]


@pytest.mark.parametrize("network", [Attention(), Recurrent()])
def test_fused_layers_agree_with_finite_differences(network):
    torch.manual_seed(0)
    network, x = network.double(), torch.randn(1, 4, 3, dtype=torch.float64)
    columns = []
    with torch.no_grad():
        for entry in range(12):
            step = torch.zeros(12, dtype=torch.float64)
            step[entry] = 1e-6
            step = step.reshape(x.shape)
            columns.append(((network(x + step) - network(x - step)) / 2e-6).reshape(-1).numpy())
    expected, _ = relative_variance(np.stack(columns, axis=1))
    assert dispersion(network, x).dispersion == pytest.approx(expected, rel=1e-6)


def test_model_and_random_state_are_left_alone():
    net = nn.Sequential(nn.Linear(30, 30), nn.BatchNorm1d(30), nn.Dropout(0.5), nn.ReLU()).train()
    net[0].weight.grad = torch.ones(30, 30)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    x = torch.randn(5, 30, generator=torch.Generator().manual_seed(0))
    found = dispersion(net, x, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert net[2].training
    assert torch.equal(net[0].weight.grad, torch.ones(30, 30))
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not x.requires_grad
    again = dispersion(net, x, seed=3)
    assert found.dispersion == again.dispersion
    assert found.dispersion != dispersion(net, x, seed=4).dispersion
    with torch.inference_mode():
        assert dispersion(net, x, seed=3).dispersion == found.dispersion
    # Batch norm and dropout in evaluation mode are the identity of a fresh net, up to its epsilon.
    assert found.dispersion == pytest.approx(dispersion(nn.Sequential(net[0], net[3]), x, seed=3).dispersion, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_drawn_with_the_same_seed_are_not_the_directions(dtype):
    """If they were, ||Jz|| would be far too large: a row of W times itself. Mean gain 1, sd .01."""
    torch.manual_seed(0)
    np.random.seed(0)  # the global state is meant
    for weight in (torch.randn(300, 300, dtype=dtype), torch.from_numpy(np.random.randn(300, 300)).to(dtype)):
        found = dispersion(lambda x, weight=weight: x @ weight.T / 300**0.5, torch.zeros(1, 300, dtype=dtype), seed=0)
        assert found.mean_square == pytest.approx(1.0, abs=0.1)


def test_dead_samples_are_told_apart():
    x = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    found = dispersion(nn.ReLU(), x)
    assert found.dispersion == 0
    assert_allclose(found.per_sample, [0, np.nan])
    assert found.mean_square == 0.5
    with pytest.raises(InputError, match="zero for every sample"):
        dispersion(nn.ReLU(), -torch.ones(3, 2))
    with pytest.raises(InputError, match="zero for every sample"):
        dispersion(nn.ReLU(), -torch.ones(3, 50))


@pytest.mark.parametrize(
    ("network", "inputs", "message"),
    [
        (nn.ReLU(), torch.ones(3, 2, dtype=torch.long), "give the embedded ones"),
        (nn.ReLU(), [[1.0]], "floating-point tensor"),
        (nn.ReLU(), torch.ones(3), "at least one feature"),
        (nn.ReLU(), torch.ones(0, 2), "at least one feature"),
        (nn.ReLU(), torch.tensor([[1.0, np.nan]]), "1 NaN or infinite"),
        (lambda x: x.sum(), torch.ones(3, 2), "one entry for each of 3 samples"),
        (lambda x: (x, x), torch.ones(3, 2), "gave tuple"),
        (lambda x: x - x.mean(dim=0), torch.ones(3, 2), "influence each other"),
        (lambda x: x.sqrt(), torch.zeros(1, 2), "NaN or infinite"),
    ],
)
def test_bad_input_is_refused(network, inputs, message):
    with pytest.raises(InputError, match=message):
        dispersion(network, inputs)


@pytest.mark.parametrize("probes", [3, 0, 4.0, True])
def test_too_few_probes_are_refused(probes):
    with pytest.raises(InputError, match="at least 4"):
        dispersion(nn.ReLU(), torch.ones(3, 2), probes=probes)
