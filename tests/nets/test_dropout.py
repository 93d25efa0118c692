import math

import pytest
import torch
from torch import nn

from learnmech.nets import Dropout


@pytest.mark.parametrize("p", [0.04, 0.3, 0.75])
def test_frequency_mean_and_independence(p):
    torch.manual_seed(0)
    n = 400_000
    out = Dropout(p)(torch.ones(n, dtype=torch.float64))
    kept = out > 0
    spread = 5 * math.sqrt(p * (1 - p) / n)  # five standard errors, and half a level of rounding
    assert kept.double().mean().item() == pytest.approx(1 - p, abs=spread + 2**-17)
    factor = out.max().item()
    assert set(out.tolist()) == {0.0, factor}
    assert factor == pytest.approx(1 / (1 - p), rel=1e-4)
    centred = kept.double() - kept.double().mean()
    for lag in (1, 2, 3, 4):  # four entries share a draw: they must not be correlated
        correlation = (centred[:-lag] * centred[lag:]).mean() / centred.square().mean()
        assert abs(correlation.item()) < 5 / math.sqrt(n)


def test_gradient_passes_through_the_same_mask():
    x = torch.randn(7, 5, requires_grad=True)
    out = Dropout(0.5)(x)
    out.sum().backward()
    assert torch.equal(x.grad, torch.where(out == 0, 0.0, 2.0))


def test_tiny_probability_is_not_rounded_away():
    assert (Dropout(1e-9)(torch.ones(2_000_000)) == 0).sum() > 0


@pytest.mark.parametrize("layer", [Dropout(0.0), Dropout(0.5).eval()])
def test_identity(layer):
    x = torch.randn(3, 4)
    assert torch.equal(layer(x), x)


def test_corner_cases():
    assert not Dropout(1.0)(torch.ones(5)).any()
    assert Dropout(0.5)(torch.ones(0, 3)).shape == (0, 3)
    assert Dropout(0.5)(torch.ones(3, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert isinstance(Dropout(0.5), nn.Dropout)


def test_each_member_of_a_vmap_draws_its_own_mask():
    out = torch.vmap(Dropout(0.5), randomness="different")(torch.ones(4, 100))
    assert not torch.equal(out[0], out[1])
