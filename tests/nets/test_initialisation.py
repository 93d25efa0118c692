import math

import pytest
import torch
from torch import nn

from learnmech.errors import InputError
from learnmech.nets import activation_gain, initialise
from learnmech.nets.initialisation import SCHEMES

# Section 1.1 of the specification: slope, rho2, rhoV.
GAINS = [
    (0.0, 1.41421, 1.71286),
    (0.2, 1.38675, 1.54646),
    (0.4, 1.31306, 1.38316),
    (0.6, 1.21268, 1.23604),
    (0.8, 1.10432, 1.10863),
    (1.0, 1.0, 1.0),
]


@pytest.mark.parametrize(("slope", "second_moment", "variance"), GAINS)
def test_activation_gain_table(slope, second_moment, variance):
    assert activation_gain(slope) == pytest.approx(second_moment, abs=5e-6)
    assert activation_gain(slope, "variance") == pytest.approx(variance, abs=5e-6)


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0, -0.5])
def test_activation_gain_against_monte_carlo(slope):
    z = torch.randn(1_000_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    activated = torch.where(z > 0, z, slope * z)
    # E[z^4] = 3 bounds the standard error of a second moment of 1e6 draws by 2e-3; five of them are allowed.
    assert (activation_gain(slope) * activated).square().mean().item() == pytest.approx(1.0, abs=1e-2)
    assert (activation_gain(slope, "variance") * activated).var().item() == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize(
    ("scheme", "slope", "variance"),
    [("torch", 0.0, 1 / 3), ("kaiming", 0.0, 2.0), ("kaiming", 0.5, 1.6), ("normal", 0.0, 1.0), ("ntk", 0.0, 1.0)],
)
@pytest.mark.parametrize("layer", [nn.Linear(400, 500), nn.Conv2d(16, 300, 5)], ids=["linear", "conv"])
def test_random_schemes_have_their_variance(scheme, slope, variance, layer):
    torch.manual_seed(0)
    initialise(layer, scheme, slope=slope, scale=3.0)
    fan_in = layer.weight[0].numel()
    # 1.2e5 weights or more: the standard error of the variance is below 0.5 %.
    assert layer.weight.var().item() * fan_in / 9 == pytest.approx(variance, rel=0.02)
    if scheme == "torch":
        assert layer.weight.abs().max().item() <= 3 / math.sqrt(fan_in) * (1 + 1e-6)
        assert 0 < layer.bias.abs().max().item() <= 1 / math.sqrt(fan_in)  # the scale leaves biases alone
    else:
        assert not layer.bias.any()


def test_ntk_is_a_standard_normal_draw_divided_by_the_root_of_the_fan_in():
    layer = nn.Linear(25, 7)
    torch.manual_seed(3)
    initialise(layer, "ntk")
    torch.manual_seed(3)
    assert torch.equal(layer.weight, torch.empty(7, 25).normal_() / 5)


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_orthogonal(shape):
    layer = initialise(nn.Linear(shape[1], shape[0]).double(), "orthogonal", scale=2.0)
    small, tall = sorted(shape)
    singular = torch.linalg.svdvals(layer.weight.detach())
    assert singular.shape == (small,)
    assert torch.allclose(singular, torch.full((small,), 2.0, dtype=torch.float64), atol=1e-12)
    assert tall >= small


def test_orthogonal_linear_net_keeps_distances():
    net = nn.Sequential(*(nn.Linear(20, 20).double() for _ in range(5)))
    initialise(net, "orthogonal")
    x = torch.randn(10, 20, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(torch.cdist(net(x), net(x)), torch.cdist(x, x), atol=1e-10)


def test_identity_is_the_identity_map():
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 5, padding=2), nn.Flatten(), nn.Linear(48, 48))
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(initialise(net, "identity")(x), x.flatten(1))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_other_layers_and_missing_biases_are_left_alone(scheme):
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3))
    nn.init.constant_(net[1].weight, 7.0)
    assert initialise(net, scheme) is net
    assert net[1].weight.tolist() == [7.0] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheme": "xavier"}, "unknown initialisation 'xavier'.*'torch'"),
        ({"slope": math.nan}, "slope must be a finite number"),
        ({"scale": math.inf}, "scale of the initial weights must be finite"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        initialise(nn.Linear(2, 2), **arguments)


def test_bad_gain():
    with pytest.raises(InputError, match="kind must be"):
        activation_gain(0.0, "third_moment")
