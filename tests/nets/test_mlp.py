import itertools

import pytest
import torch
from torch import nn

from learnmech.errors import InputError
from learnmech.nets import MLP, Dropout


def by_hand(inputs, outputs, width, depth, slope):
    layers = [nn.Flatten(), nn.BatchNorm1d(inputs)]
    for fan_in in [inputs, *[width] * (depth - 2)]:
        layers += [nn.Linear(fan_in, width), nn.BatchNorm1d(width), nn.LeakyReLU(slope)]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
def test_equals_the_same_layers_made_by_hand(slope):
    torch.manual_seed(5)
    net = MLP(12, 4, width=9, depth=5, slope=slope)
    torch.manual_seed(5)
    reference = by_hand(12, 4, 9, 5, slope)
    x = torch.randn(7, 3, 4)
    assert torch.equal(net(x), reference(x))
    assert torch.equal(net.eval()(x), reference.eval()(x))


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 8])
def test_parameter_count_in_closed_form(batch_norm, bias, depth):
    inputs, outputs, width = 30, 10, 20
    fans = [inputs, *[width] * (depth - 1), outputs]
    linear = sum(a * b + bias * b for a, b in itertools.pairwise(fans))
    norms = 2 * (inputs + width * (depth - 1)) * batch_norm
    net = MLP(inputs, outputs, width=width, depth=depth, batch_norm=batch_norm, bias=bias)
    assert sum(p.numel() for p in net.parameters()) == linear + norms
    assert net(torch.randn(3, inputs)).shape == (3, outputs)


def test_needless_modules_are_left_out():
    net = MLP(5, 2, depth=3, batch_norm=False)
    assert net.input_norm is None
    assert [name for name, _ in net.hidden[0].named_children()] == ["linear", "activation"]
    full = MLP(5, 2, depth=3, dropout=0.1, slope=0.5)
    assert [name for name, _ in full.hidden[0].named_children()] == ["linear", "norm", "activation", "dropout"]
    assert isinstance(full.hidden[0].dropout, Dropout)
    kinds = [type(MLP(5, 2, slope=slope).hidden[0].activation) for slope in (0.0, 0.5, 1.0)]
    assert kinds == [nn.ReLU, nn.LeakyReLU, nn.Identity]


def test_identity_start_is_linear_and_the_identity():
    net = MLP(6, 6, width=6, depth=4, slope=1.0, batch_norm=False, init="identity")
    x = torch.randn(3, 6)
    assert torch.equal(net(x), x)


def test_init_scale_multiplies_every_weight_of_torchs_draw():
    nets = []
    for scale in (1.0, 0.5):
        torch.manual_seed(0)
        nets.append(MLP(4, 2, width=3, depth=3, init_scale=scale))
    for one, half in zip(nets[0].hidden, nets[1].hidden, strict=True):
        assert torch.equal(one.linear.weight * 0.5, half.linear.weight)
        assert torch.equal(one.linear.bias, half.linear.bias)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width must be a positive integer, got 0"),
        ({"depth": 2.5}, "depth must be a positive integer, got 2.5"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"dropout": float("nan")}, r"dropout must be in \[0, 1\)"),
        ({"init": "zeros"}, "unknown initialisation 'zeros'"),
        ({"slope": float("inf")}, "slope must be a finite number"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        MLP(4, 2, **arguments)
