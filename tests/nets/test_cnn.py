import pytest
import torch
from torch import nn

from learnmech.errors import InputError
from learnmech.nets import CNN


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 10, 10), (2, 7, 9), (1, 2, 2)])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_shapes_and_parameter_count(shape, depth):
    channels, outputs = 6, 10
    net = CNN(shape, outputs, channels=channels, depth=depth, dropout=0.1)
    fans = [shape[0], *[channels] * (depth - 1)]
    conv = sum(9 * fan_in * channels + 3 * channels for fan_in in fans[:-1])  # weights, bias, BatchNorm
    readout = (fans[-1] * shape[1] * shape[2] + 1) * outputs
    assert sum(p.numel() for p in net.parameters()) == conv + readout
    assert net(torch.randn(2, *shape)).shape == (2, outputs)


def test_block_equals_the_paper_on_even_images():
    torch.manual_seed(2)
    net = CNN((3, 10, 10), 10, channels=5, depth=2, slope=0.2)
    torch.manual_seed(2)
    conv, readout = nn.Conv2d(3, 5, 3, padding=1), nn.Linear(500, 10)
    x = torch.randn(4, 3, 10, 10)
    features = nn.functional.max_pool2d(nn.functional.leaky_relu(nn.BatchNorm2d(5)(conv(x)), 0.2), 2)
    doubled = features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(net(x), readout(doubled.flatten(1)))


def test_features_are_reached_by_name():
    net = CNN((1, 7, 6), 3, channels=4, depth=3)
    shapes = []
    net.hidden[1].pool.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape)))
    net(torch.randn(2, 1, 7, 6))
    assert shapes == [(2, 4, 3, 3)]


def test_identity_start_only_pools():
    net = CNN((2, 4, 4), 32, channels=2, depth=3, batch_norm=False, slope=1.0, init="identity")
    x = torch.randn(2, 2, 4, 4)
    pooled = nn.functional.max_pool2d(x, 2).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(net(x), pooled.flatten(1))


@pytest.mark.parametrize("shape", [(1, 1, 5), (28, 28), (0, 4, 4), (1, 4.0, 4)])
def test_bad_image_shape(shape):
    with pytest.raises(InputError, match="input_shape must be"):
        CNN(shape, 10)


def test_wrong_batch():
    with pytest.raises(InputError, match=r"made for images of shape \(1, 4, 4\)"):
        CNN((1, 4, 4), 10)(torch.zeros(2, 1, 5, 5))
