"""Separation against a brute-force computation with full matrices in float64, closed forms, invariances and streams."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learnmech.errors import InputError
from learnmech.springs import SeparationAccumulator, separation


def brute_force(features: np.ndarray, labels: np.ndarray, kind: str) -> float:
    """Form S_w and S_b as matrices, as the definition reads."""
    features = features.astype(np.float64)
    n, d = features.shape
    mean = features.mean(axis=0)
    within, between = np.zeros((d, d)), np.zeros((d, d))
    for k in np.unique(labels):
        rows = features[labels == k]
        class_mean = rows.mean(axis=0)
        within += (rows - class_mean).T @ (rows - class_mean) / n
        between += len(rows) / n * np.outer(class_mean - mean, class_mean - mean)
    if kind == "trace":
        return math.log(np.trace(within) / np.trace(between))
    return math.log(np.trace(within @ np.linalg.pinv(between, rcond=1e-12, hermitian=True)))


def random_case(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw unbalanced classes, some empty, d above and below n, offsets, some constant features."""
    rng = np.random.default_rng(seed)
    n, d, classes = int(rng.integers(6, 60)), int(rng.integers(1, 80)), int(rng.integers(2, 7))
    weights = rng.dirichlet(np.full(classes, 0.7))
    labels = rng.choice(classes, size=n, p=weights)
    labels[:2] = [0, classes - 1]  # at least two classes; those between may be empty
    features = rng.normal(size=(n, d)) * rng.lognormal(size=d) + rng.normal(size=d) * rng.choice([0, 10])
    features += rng.normal(size=(classes, d))[labels]
    if d > 2:
        features[:, rng.integers(d)] = rng.normal()
    return torch.from_numpy(features), torch.from_numpy(labels)


@pytest.mark.parametrize("kind", ["trace", "pinv"])
def test_equals_brute_force_on_240_random_cases(kind):
    for seed in range(240):
        features, labels = random_case(seed)
        assert float(separation(features, labels, kind)) == pytest.approx(
            brute_force(features.numpy(), labels.numpy(), kind), abs=1e-10
        ), seed


@given(
    seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 60), max_size=4), kind=st.sampled_from(["trace", "pinv"])
)
@settings(max_examples=60, deadline=None)
def test_any_split_into_updates_and_merges_gives_the_same(seed, cuts, kind):
    features, labels = random_case(seed)
    edges = [0, *sorted(min(cut, len(labels)) for cut in cuts), len(labels)]
    parts = [(features[a:b], labels[a:b]) for a, b in itertools.pairwise(edges)]
    workers = [SeparationAccumulator(kind), SeparationAccumulator(kind)]
    for index, part in enumerate(parts):
        workers[index % 2].update(*part)
    merged = workers[0].merge(workers[1])
    assert merged.samples == len(labels)
    assert float(merged.compute()) == pytest.approx(float(separation(features, labels, kind)), abs=1e-9)


def test_merge_leaves_the_other_as_it_is():
    features, labels = random_case(3)
    other = SeparationAccumulator("pinv").update(features, labels)
    before = other.compute()
    SeparationAccumulator("pinv").merge(other).update(features + 5, labels)
    assert other.compute() == before


@pytest.mark.parametrize("kind", ["trace", "pinv"])
def test_invariant_under_order_rotation_shift_and_scale(kind):
    features, labels = random_case(11)
    expected = float(separation(features, labels, kind))
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(labels), generator=generator)
    rotation = torch.linalg.qr(
        torch.randn(features.shape[1], features.shape[1], generator=generator, dtype=torch.float64)
    ).Q
    assert float(separation(features[order], labels[order], kind)) == pytest.approx(expected, abs=1e-10)
    assert float(separation(3.7 * features @ rotation + 5, labels, kind)) == pytest.approx(expected, abs=1e-9)


def test_whitened_input_has_the_closed_form():
    """Rows of an orthogonal n x n matrix: D = ln((n - K)/(K - 1)) exactly; n = 100, K = 2 gives 4.584967."""
    generator = torch.Generator().manual_seed(0)
    x = torch.linalg.qr(torch.randn(100, 100, generator=generator, dtype=torch.float64)).Q
    labels = torch.arange(100) % 2
    # tr S_b = (K - 1)/n holds when the overall mean is taken out, so compare with balanced classes.
    assert float(separation(x, labels)) == pytest.approx(math.log((100 - 2) / (2 - 1)), abs=1e-9)


def test_isotropic_clusters_match_their_expectation():
    """D = ln(d sigma^2 / tr S_b); relative error of tr S_w is sqrt(2/(n d)), so 5 standard deviations are 0.01."""
    generator = torch.Generator().manual_seed(1)
    means = torch.tensor([[3.0, 0.0], [-3.0, 0.0]])
    labels = torch.arange(100_000) % 2
    features = torch.nn.functional.pad(means, (0, 8))[labels] + torch.randn(100_000, 10, generator=generator)
    assert float(separation(features, labels)) == pytest.approx(math.log(10 / 9), abs=0.01)


def test_float32_and_bfloat16_features_are_reduced_in_float64():
    features, labels = random_case(5)
    single = features.float()
    assert separation(single, labels).dtype == torch.float64
    assert float(separation(single, labels)) == pytest.approx(float(separation(single.double(), labels)), abs=1e-13)
    half = features.bfloat16()
    assert float(separation(half, labels)) == pytest.approx(float(separation(half.double(), labels)), abs=1e-13)
    huge = single * 1e30  # squares overflow float32
    assert float(separation(huge, labels)) == pytest.approx(float(separation(huge.double(), labels)), abs=1e-10)


def test_tokens_are_samples_when_labels_say_so():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, 6, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (4, 6), generator=generator)
    expected = separation(features.reshape(24, 5), labels.reshape(24))
    assert torch.equal(separation(features, labels), expected)
    images = torch.randn(8, 2, 3, 3, generator=generator, dtype=torch.float64)
    assert torch.equal(separation(images, torch.arange(8) % 2), separation(images.flatten(1), torch.arange(8) % 2))


def test_label_minus_100_is_left_out():
    features, labels = random_case(7)
    marked = torch.cat([labels, torch.tensor([-100, -100])])
    padded = torch.cat([features, torch.full((2, features.shape[1]), 1e6, dtype=torch.float64)])
    assert torch.equal(separation(padded, marked), separation(features, labels))


class TestDegenerateFeatures:
    labels = torch.arange(12) % 3

    @pytest.mark.parametrize("kind", ["trace", "pinv"])
    @pytest.mark.parametrize("value", [0.0, 1 / 3, 1e10])
    def test_a_dead_layer_is_nan(self, kind, value):
        assert math.isnan(separation(torch.full((12, 4), value), self.labels, kind))

    @pytest.mark.parametrize("kind", ["trace", "pinv"])
    def test_complete_collapse_is_minus_infinity(self, kind):
        means = torch.tensor([[0.1, 0.7], [0.3, -1.3], [2.2, 0.9]])
        assert separation(means[self.labels], self.labels, kind) == -math.inf

    @pytest.mark.parametrize("kind", ["trace", "pinv"])
    def test_equal_class_means_are_plus_infinity(self, kind):
        block = torch.tensor([[0.1, 0.7], [0.3, -1.3], [2.2, 0.9], [-0.4, 0.2]])
        features = block.repeat_interleave(3, dim=0)  # each class holds the same four points
        assert separation(features, self.labels, kind) == math.inf


class TestBadInput:
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))

    def test_one_class(self):
        with pytest.raises(InputError, match=r"at least two classes, but 1 came \(6 samples"):
            separation(self.features, torch.zeros(6, dtype=torch.long))

    def test_one_sample_and_none(self):
        with pytest.raises(InputError, match="at least two classes"):
            separation(self.features[:1], torch.tensor([0]))
        with pytest.raises(InputError, match="at least two classes, but 0 came"):
            separation(self.features[:0], torch.tensor([], dtype=torch.long))

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_not_finite(self, value):
        features = self.features.clone()
        features[2, 1] = value
        with pytest.raises(InputError, match="1 NaN or infinite entries of 18"):
            separation(features, torch.arange(6) % 2)

    def test_negative_label(self):
        with pytest.raises(InputError, match="1 of 6 are not; the first is -3"):
            separation(self.features, torch.tensor([0, 1, 0, 1, -3, 0]))

    def test_label_out_of_range(self):
        with pytest.raises(InputError, match=r"in 0 \.\. 1 .* the first is 7"):
            SeparationAccumulator(classes=2).update(self.features, torch.tensor([0, 1, 0, 1, 7, 0]))

    def test_real_labels_point_to_regression(self):
        with pytest.raises(InputError, match="regression_load"):
            separation(self.features, torch.rand(6))

    def test_shapes(self):
        with pytest.raises(InputError, match=r"\(6, 3\), labels \(5,\)"):
            separation(self.features, torch.arange(5) % 2)
        with pytest.raises(InputError, match="3 features, earlier ones had 2"):
            SeparationAccumulator().update(self.features[:, :2], torch.arange(6)).update(self.features, torch.arange(6))

    def test_kinds(self):
        with pytest.raises(InputError, match="'trace' or 'pinv'"):
            separation(self.features, torch.arange(6), kind="ratio")
        with pytest.raises(InputError, match="cannot merge"):
            SeparationAccumulator().merge(SeparationAccumulator("pinv"))
