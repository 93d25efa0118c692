"""The shape numbers against NumPy's polynomial fit, the closed forms of arithmetic increments, and regression by lstsq."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learnmech.errors import InputError
from learnmech.springs import (
    RegressionAccumulator,
    curvature,
    end_difference,
    increments,
    linearity,
    load_curve,
    regression_load,
    separation,
)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=20))
@settings(max_examples=200, deadline=None)
def test_curvature_and_linearity_equal_numpy(loads):
    drop = loads[0] - loads[-1]
    if abs(drop) < 1e-3 or np.std(loads) < 1e-3:
        return
    n = len(loads) - 1
    normalised = (np.array(loads) - loads[-1]) / drop
    scale = np.abs(normalised).max()
    assert float(curvature(loads)) == pytest.approx(
        np.polyfit(np.arange(n + 1) / n, normalised, 2)[0], abs=1e-8 * scale
    )
    assert float(linearity(loads)) == pytest.approx(np.corrcoef(np.arange(n + 1), loads)[0, 1] ** 2, abs=1e-9)


@pytest.mark.parametrize(("step", "q", "c"), [(0.01, -0.32, -0.06), (0.03, -0.96, -0.18), (-0.02, 0.64, 0.12)])
def test_arithmetic_increments_have_closed_forms(step, q, c):
    """Increments 1/8 + step (l - 9/2), l = 1..8: q = -step n/(2 mean); c on D_0..D_7 = -6 step."""
    contributions = 1 / 8 + step * (np.arange(1, 9) - 4.5)
    loads = 1 - np.concatenate([[0], np.cumsum(contributions)])
    assert float(curvature(loads)) == pytest.approx(q, abs=1e-12)
    assert float(end_difference(loads[:-1])) == pytest.approx(c, abs=1e-12)
    assert increments(loads).tolist() == pytest.approx(contributions.tolist(), abs=1e-12)


@pytest.mark.parametrize(("step", "expected"), [(0.01, 0.99185), (0.03, 0.93117), (-0.02, 0.96819)])
def test_linearity_matches_the_specification(step, expected):
    loads = 1 - np.concatenate([[0], np.cumsum(1 / 8 + step * (np.arange(1, 9) - 4.5))])
    assert float(linearity(loads)) == pytest.approx(expected, abs=5e-6)


def test_shape_numbers_work_on_batches_and_ignore_scale():
    loads = torch.tensor([[3.0, 2.5, 1.0, 0.5], [4.0, 1.0, 0.5, 0.0]])
    for measure in (curvature, linearity, end_difference):
        assert torch.allclose(measure(loads), torch.stack([measure(row) for row in loads]))
    assert torch.allclose(curvature(7 * loads - 2), curvature(loads))


def test_a_flat_curve_has_no_shape():
    assert math.isnan(curvature([1.0, 1.0, 1.0]))
    assert math.isnan(linearity([1.0, 1.0, 1.0]))


@pytest.mark.parametrize("measure", [curvature, linearity, end_difference])
def test_two_loads_are_too_few(measure):
    with pytest.raises(InputError, match="at least 3 loads"):
        measure([1.0, 0.5])


def test_load_curve_is_separation_layer_by_layer():
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(30, width, generator=generator) for width in (4, 7, 2)]
    labels = torch.arange(30) % 3
    for kind in ("trace", "pinv"):
        assert load_curve(layers, labels, kind).tolist() == [float(separation(layer, labels, kind)) for layer in layers]
    with pytest.raises(InputError, match="layer 1: features hold"):
        load_curve([layers[0], layers[1] * math.nan], labels)
    with pytest.raises(InputError, match="at least one layer"):
        load_curve([], labels)


class TestRegressionLoad:
    @pytest.mark.parametrize("seed", range(20))
    def test_equals_least_squares_with_intercept(self, seed):
        rng = np.random.default_rng(seed)
        n, d, p = int(rng.integers(5, 60)), int(rng.integers(1, 30)), int(rng.integers(1, 4))
        features, targets = rng.normal(size=(n, d)) + 3, rng.normal(size=(n, p))
        if d > 3:
            features[:, 0] = features[:, 1] + features[:, 2]  # rank-deficient
        design = np.column_stack([features, np.ones(n)])
        residual = targets - design @ np.linalg.lstsq(design, targets, rcond=None)[0]
        expected = (residual**2).mean()
        got = regression_load(torch.from_numpy(features), torch.from_numpy(targets))
        assert float(got) == pytest.approx(expected, abs=1e-10)
        root = regression_load(torch.from_numpy(features), torch.from_numpy(targets), "rmse")
        assert float(root) == pytest.approx(math.sqrt(expected), abs=1e-6)

    def test_streams_exactly(self):
        rng = np.random.default_rng(0)
        features, targets = torch.from_numpy(rng.normal(size=(200, 6))), torch.from_numpy(rng.normal(size=200))
        whole = regression_load(features, targets)
        one = RegressionAccumulator().update(features[:50], targets[:50]).update(features[50:60], targets[50:60])
        two = RegressionAccumulator().update(features[60:], targets[60:])
        assert float(one.merge(two).compute()) == pytest.approx(float(whole), abs=1e-12)
        assert one.samples == 200

    def test_a_constant_layer_leaves_the_variance_of_the_targets(self):
        targets = torch.tensor([1.0, 2.0, 3.0, 6.0])
        assert float(regression_load(torch.ones(4, 3), targets)) == pytest.approx(3.5)

    def test_bad_input(self):
        with pytest.raises(InputError, match="at least two samples"):
            regression_load(torch.ones(1, 2), torch.ones(1))
        with pytest.raises(InputError, match="1 and targets 0 NaN"):
            regression_load(torch.tensor([[1.0], [math.nan]]), torch.ones(2))
        with pytest.raises(InputError, match="do not fit"):
            regression_load(torch.ones(3, 2), torch.ones(4))
        with pytest.raises(InputError, match="'mse' or 'rmse'"):
            regression_load(torch.ones(3, 2), torch.ones(3), "mae")
