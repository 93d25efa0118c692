import numpy as np
import pytest
import torch

from learnmech.data import resize
from learnmech.errors import InputError


def weights(source, size, antialias):
    """The matrix (size, source) of one axis, from the definition of the two filters."""
    matrix = np.zeros((size, source))
    ratio = source / size
    for row in range(size):
        centre = (row + 0.5) * ratio - 0.5
        if antialias:
            width = max(ratio, 1.0)
            taps = np.maximum(0, 1 - np.abs(np.arange(source) - centre) / width)
            matrix[row] = taps / taps.sum()
        else:
            centre = max(centre, 0)
            left = int(centre)
            matrix[row, left] += 1 - (centre - left)
            matrix[row, min(left + 1, source - 1)] += centre - left
    return matrix


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(("height", "width", "size"), [(28, 28, 10), (8, 8, 4), (32, 32, 10), (7, 12, 5), (5, 5, 9)])
def test_against_the_definition(height, width, size, antialias):
    images = torch.rand(3, 2, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows, columns = weights(height, size, antialias), weights(width, size, antialias)
    expected = np.einsum("ah,nchw,bw->ncab", rows, images.numpy(), columns)
    np.testing.assert_allclose(resize(images, size, antialias).numpy(), expected, atol=1e-12)


def test_exact_halving():
    images = torch.rand(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    means = images.reshape(2, 1, 4, 2, 4, 2).mean(dim=(3, 5))
    torch.testing.assert_close(resize(images, 4, antialias=False), means)
    # the antialiased triangle spans four pixels: (1, 3, 3, 1) / 8 on each axis
    kernel = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8
    inner = torch.einsum("h,nchw,w->nc", kernel, images[:, :, 1:5, 3:7], kernel)
    torch.testing.assert_close(resize(images, 4, antialias=True)[:, :, 1, 2], inner)


@pytest.mark.parametrize("antialias", [True, False])
def test_constant_stays_constant_and_ramp_stays_a_ramp(antialias):
    torch.testing.assert_close(resize(torch.full((1, 1, 28, 28), 0.3), 10, antialias), torch.full((1, 1, 10, 10), 0.3))
    # at a ratio of 2 the taps lie evenly about the centre; at 2.8 the antialiased ones do not, and a ramp bends slightly
    size = 14 if antialias else 10
    ramp = torch.arange(28, dtype=torch.float64).expand(1, 1, 28, 28)
    expected = (torch.arange(size, dtype=torch.float64) + 0.5) * 28 / size - 0.5
    torch.testing.assert_close(resize(ramp, size, antialias)[0, 0, 4, 1:-1], expected[1:-1])


def test_same_size_is_the_identity():
    images = torch.rand(2, 3, 10, 10)
    torch.testing.assert_close(resize(images, 10), images)


def test_type_is_kept_and_range_does_not_grow():
    images = (torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(2)) > 0.5).float()
    small = resize(images, 10)
    assert small.dtype == torch.float32
    assert small.min() >= 0
    assert small.max() <= 1 + 1e-6


@pytest.mark.parametrize(
    ("images", "size"),
    [
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), 4),
        (torch.zeros(2, 8, 8), 4),
        (torch.zeros(2, 1, 8, 8), 0),
        (torch.zeros(2, 1, 8, 8), 4.0),
    ],
)
def test_bad_arguments(images, size):
    with pytest.raises(InputError):
        resize(images, size)
