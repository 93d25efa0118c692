"""The residual MLP: its formula by hand in numpy, the spread of its weights, its special cases, bad input."""

import itertools

import numpy as np
import pytest
import torch

from learnmech.errors import InputError
from learnmech.nets import MLP, ResidualMLP


def by_hand(net, inputs, skip, branch, slope):
    """The same map written with NumPy arrays."""

    def act(values):
        return np.where(values > 0, values, slope * values)

    def weights(module):
        return module.weight.detach().numpy(), 0 if module.bias is None else module.bias.detach().numpy()

    matrix, shift = weights(net.embedding)
    features = inputs.reshape(len(inputs), -1) @ matrix.T + shift
    for block in net.blocks:
        inner = features
        for layer in block.body:
            if isinstance(layer, torch.nn.Linear):
                matrix, shift = weights(layer)
                inner = act(inner) @ matrix.T + shift
        features = skip * features + branch * inner
    matrix, shift = weights(net.readout)
    return features @ matrix.T + shift


@pytest.mark.parametrize(
    ("skip", "branch", "block_layers", "slope", "bias"),
    [(1.0, 1.0, 1, 0.0, False), (0.8, 0.6, 1, 0.0, True), (0.0, 1.0, 1, 0.3, False), (1.0, -0.25, 3, 0.0, True)],
)
def test_the_formula_by_hand(skip, branch, block_layers, slope, bias):
    torch.manual_seed(0)
    net = ResidualMLP(
        6, 3, width=7, depth=4, skip=skip, branch=branch, block_layers=block_layers, slope=slope, bias=bias
    ).double()
    if bias:
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if name.endswith("bias"):
                    assert not parameter.any()
                    parameter.normal_()
    inputs = torch.randn(5, 2, 3, dtype=torch.float64)
    expected = by_hand(net, inputs.numpy(), skip, branch, slope)
    np.testing.assert_allclose(net(inputs).detach().numpy(), expected, rtol=1e-12, atol=1e-12)


def test_without_skip_it_is_the_plain_mlp():
    """The last block's Linear layer and the read-out, with no activation between them, are the plain net's last layer."""
    torch.manual_seed(0)
    net = ResidualMLP(6, 3, width=7, depth=4, skip=0.0, branch=1.0)
    plain = MLP(6, 3, width=7, depth=5, batch_norm=False, bias=False)
    sources = [net.embedding.weight, *(block.body.linear1.weight for block in net.blocks)]
    sources[-1] = net.readout.weight @ sources[-1]
    targets = [*(block.linear for block in plain.hidden), plain.readout]
    with torch.no_grad():
        for source, target in zip(sources, targets, strict=True):
            target.weight.copy_(source)
    inputs = torch.randn(5, 6)
    torch.testing.assert_close(net(inputs), plain(inputs))


def test_factors_can_be_set_afterwards_and_are_not_trained():
    torch.manual_seed(0)
    net = ResidualMLP(6, 3, width=7, depth=4)
    count = sum(parameter.numel() for parameter in net.parameters())
    assert count == 6 * 7 + 4 * 7 * 7 + 7 * 3
    assert {(block.skip, block.branch) for block in net.blocks} == {(1.0, 1.0)}
    for block in net.blocks:
        block.branch = 0.0
    inputs = torch.randn(5, 6)
    torch.testing.assert_close(net(inputs), net.readout(net.embedding(inputs)))
    assert "skip=1, branch=0" in repr(net)


def test_the_spread_of_the_start():
    """Standard deviations of n normal numbers lie within 5/sqrt(2 n) of theirs; beyond with probability 6e-7 each."""
    torch.manual_seed(1)
    width, inputs = 200, 100
    for options, expected in (
        ({}, (0.1, np.sqrt(2 / width), 1 / np.sqrt(width))),
        ({"slope": 1.0}, (0.1, 1 / np.sqrt(width), 1 / np.sqrt(width))),
        ({"input_std": 1.0, "hidden_std": 0.3, "output_std": 2.0}, (1.0, 0.3, 2.0)),
    ):
        net = ResidualMLP(inputs, 50, width=width, depth=2, block_layers=2, **options)
        parts = (net.embedding.weight, net.blocks[1].body.linear2.weight, net.readout.weight)
        for weight, deviation in zip(parts, expected, strict=True):
            assert float(weight.detach().double().std()) == pytest.approx(
                deviation, rel=5 / np.sqrt(2 * weight.numel())
            )


@pytest.mark.parametrize("branch", [1.0, 0.3])
def test_features_keep_their_size(branch):
    """Mean square 1 in, near 1 after 10 blocks: its spread over draws is below sqrt(5 * 10 / 1000) = 0.22; 5 of them."""
    torch.manual_seed(0)
    net = ResidualMLP(50, 1, width=1000, depth=10, skip=float(np.sqrt(1 - branch**2)), branch=branch)
    inputs = torch.randn(1, 50)
    features = net.embedding(inputs * np.sqrt(50) / inputs.norm())
    for block in net.blocks:
        features = block(features)
    assert abs(np.log(float(features.detach().square().mean()))) < 5 * 0.22


def test_every_draw_differs_and_a_seed_repeats_it():
    nets = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        nets.append(ResidualMLP(4, 2, width=5, depth=2))
    first, second, third = (torch.cat([value.flatten() for value in net.parameters()]) for net in nets)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    blocks = [block.body.linear1.weight for block in nets[0].blocks]
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(blocks, 2))


def test_a_zero_readout_starts_at_zero():
    net = ResidualMLP(4, 2, width=5, depth=2, output_std=0.0)
    assert not net(torch.randn(3, 4)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width must be a positive integer, got 0"),
        ({"depth": 0}, "depth must be a positive integer, got 0"),
        ({"block_layers": 1.5}, r"block_layers must be a positive integer, got 1\.5"),
        ({"skip": float("nan")}, "skip must be a finite number, got nan"),
        ({"branch": float("inf")}, "branch must be a finite number, got inf"),
        ({"slope": float("nan")}, "slope must be a finite number"),
        ({"hidden_std": -1.0}, r"hidden_std must be a number of at least 0, got -1\.0"),
        ({"input_std": float("nan")}, "input_std must be a number of at least 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        ResidualMLP(4, 2, **arguments)
