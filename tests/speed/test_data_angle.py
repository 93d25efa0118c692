"""The data angle against sums over samples and units written out, closed forms, and linear nets on a batch."""

import math

import numpy as np
import pytest
import torch

from learnmech.errors import InputError
from learnmech.speed.data_angle import data_cosine, data_cosine_rank_one
from learnmech.speed.predict import predict_cosine


def by_hand(inputs, backward, bias=False):
    """Take the gradient step on W (and the bias) and look at what it does to each sample."""
    weight_gradient = sum(np.outer(b, x) for x, b in zip(inputs, backward, strict=True))
    change = np.array([-weight_gradient @ x - (backward.sum(axis=0) if bias else 0) for x in inputs])
    return -(backward * change).sum() / np.linalg.norm(backward) / np.linalg.norm(change)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("samples", [1, 2, 7, 40])
def test_equals_the_step_written_out(samples, bias):
    rng = np.random.default_rng(samples)
    inputs, backward = rng.standard_normal((samples, 9)) + 0.5, rng.standard_normal((samples, 6))
    found = data_cosine(torch.from_numpy(inputs), torch.from_numpy(backward), bias=bias)
    assert float(found) == pytest.approx(by_hand(inputs, backward, bias), rel=1e-12)
    assert found.dtype == torch.float64


@pytest.mark.parametrize(("first", "second"), [(1.0, 2.0), (3.0, 3.0), (1e-12, 1.0), (1e20, 5e20)])
def test_orthogonal_inputs_have_the_closed_form(first, second):
    """(r1^2 + r2^2)/sqrt(2 (r1^4 + r2^4)); 5/sqrt(34) for 1 and 2."""
    ratio = (first / second) ** 2
    expected = (ratio + 1) / math.sqrt(2 * (ratio**2 + 1))
    inputs = torch.diag(torch.tensor([first, second], dtype=torch.float64))
    assert float(data_cosine(inputs, torch.eye(2))) == pytest.approx(expected, rel=1e-12)
    assert float(data_cosine_rank_one(inputs, torch.ones(2))) == pytest.approx(expected, rel=1e-12)


def test_one_sample_is_aligned_and_images_are_flattened():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 2, 4, 4, generator=generator)
    backward = torch.randn(3, 5, 2, generator=generator)
    assert float(data_cosine(inputs[:1], backward[:1])) == pytest.approx(1, abs=1e-12)
    flat = data_cosine(inputs.reshape(3, -1), backward.reshape(3, -1))
    assert float(data_cosine(inputs, backward)) == float(flat)


def test_scale_and_order_play_no_part_and_nothing_overflows():
    generator = torch.Generator().manual_seed(1)
    inputs, backward = torch.randn(8, 5, generator=generator), torch.randn(8, 3, generator=generator)
    expected = float(data_cosine(inputs, backward))
    order = torch.randperm(8, generator=generator)
    assert float(data_cosine(inputs[order], backward[order])) == pytest.approx(expected, abs=1e-12)
    assert float(data_cosine(1e30 * inputs, 1e-30 * backward)) == pytest.approx(expected, abs=1e-6)
    wide = (inputs.double() * 1e200, backward.double() * 1e-200)
    assert float(data_cosine(*wide)) == pytest.approx(expected, abs=1e-12)


def test_rank_one_is_its_quadratic_form():
    rng = np.random.default_rng(2)
    inputs, chi = rng.standard_normal((10, 4)), rng.standard_normal(10)
    gram = inputs @ inputs.T
    expected = chi @ gram @ chi / np.linalg.norm(chi) / np.linalg.norm(gram @ chi)
    for shape in ((10,), (10, 1)):
        found = data_cosine_rank_one(torch.from_numpy(inputs), torch.from_numpy(chi).reshape(shape))
        assert float(found) == pytest.approx(expected, rel=1e-12)


def test_deep_linear_net_on_a_batch_is_data_angle_times_prediction():
    """16 inputs, 12 layers of 768 units, 8 draws of the weights: 5 standard errors, plus .01 for finite width."""
    samples, width, layers = 16, 768, 12
    inputs = np.random.default_rng(0).standard_normal((samples, 10)) / math.sqrt(10)
    chi = np.random.default_rng(1).standard_normal((samples, 1))
    drawn = np.array([cosines_of_linear_net(inputs, chi, width, layers, seed) for seed in range(8)])
    baseline = float(data_cosine_rank_one(torch.from_numpy(inputs), torch.from_numpy(chi)))
    assert 0.4 < baseline < 0.8
    expected = baseline * predict_cosine(np.ones(layers), 1.0)
    assert (np.abs(drawn.mean(axis=0) - expected) < 5 * drawn.std(axis=0, ddof=1) / math.sqrt(8) + 0.01).all()


def cosines_of_linear_net(inputs, chi, width, layers, seed):
    """Take a step of equal contributions on all layers; the read-out direction is random."""
    rng = np.random.default_rng(seed)
    features, weights = [inputs], []
    for _ in range(layers):
        weight = rng.standard_normal((width, features[-1].shape[1]), dtype=np.float32) / math.sqrt(
            features[-1].shape[1]
        )
        weights.append(weight)
        features.append(features[-1] @ weight.T)
    backward = [chi * rng.standard_normal((1, width))]
    for weight in reversed(weights[1:]):
        backward.insert(0, backward[0] @ weight)
    change, cosines = np.zeros_like(inputs), []
    for before, gradient, weight in zip(features, backward, weights, strict=False):
        local = before @ (before.T @ gradient)
        change = change @ weight.T + local / (local * gradient).sum()
        cosines.append((gradient * change).sum() / np.linalg.norm(gradient) / np.linalg.norm(change))
    return cosines


def test_degenerate_batches_have_no_cosine():
    assert math.isnan(float(data_cosine(torch.ones(3, 2), torch.zeros(3, 2))))
    assert math.isnan(float(data_cosine(torch.zeros(3, 2), torch.ones(3, 2))))
    # Two opposite backward rows of the same input cancel.
    assert math.isnan(float(data_cosine_rank_one(torch.ones(2, 2), torch.tensor([1.0, -1.0]))))
    assert float(data_cosine(torch.zeros(3, 2), torch.ones(3, 2), bias=True)) == pytest.approx(1)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="one entry a sample"):
        data_cosine(torch.ones(3, 2), torch.ones(2, 2))
    with pytest.raises(InputError, match="backward hold 1 NaN"):
        data_cosine(torch.ones(1, 2), torch.tensor([[1.0, math.inf]]))
    with pytest.raises(InputError, match="inputs must have at least one sample"):
        data_cosine(torch.ones(0, 2), torch.ones(0, 2))
    with pytest.raises(InputError, match="must be a tensor"):
        data_cosine(np.ones((2, 2)), torch.ones(2, 2))
    with pytest.raises(InputError, match="must be real"):
        data_cosine(torch.ones(2, 2, dtype=torch.complex64), torch.ones(2, 2))
    with pytest.raises(InputError, match="one number a sample"):
        data_cosine_rank_one(torch.ones(2, 2), torch.ones(2, 2))
