"""Predicted cosines against closed forms, a moment recursion, tables, and explicit wide nets written out in NumPy."""

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.integrate import quad
from torch import nn

from learnmech.errors import InputError
from learnmech.speed.layer_dispersion import activation_dispersion, weight_dispersion
from learnmech.speed.predict import post_activation_cosine, predict_cosine, sign_update_cosine
from learnmech.speed.predict_residual import predict_residual_cosine

DRAWS = 6
"""Each simulation averages so many nets unless said otherwise. Tolerances of statistical tests are 5 standard errors of such
a mean, from the spread of the draws themselves, plus an allowance for finite width. From 6 draws a layer is outside of the
first part alone with probability 0.004, from 40 draws with 1e-5. Seeds are fixed, so a test that passes stays so."""


def simulate(widths, shares, seed, *, skip=0.0, branch=1.0, relu=True, sign=False, post=False):
    """Draw one net f_i = a f_{i-1} + b V_i phi(f_{i-1}), train every layer with the wanted share, give all cosines."""
    rng = np.random.default_rng(seed)
    layers = len(widths)
    skips, branches = np.broadcast_to(skip, layers), np.broadcast_to(branch, layers)
    features, steps = rng.standard_normal(widths[0], dtype=np.float32), []
    for i in range(1, layers):
        mask = (features > 0).astype(np.float32) if relu else np.ones_like(features)
        weight = rng.standard_normal((widths[i], widths[i - 1]), dtype=np.float32)
        weight *= np.float32(branches[i] * math.sqrt((2 if relu else 1) / widths[i - 1]))
        steps.append((np.float32(skips[i]), weight, mask))
        features = weight @ (mask * features) + (skips[i] * features if skips[i] else 0)
    backward = [rng.standard_normal(widths[-1])]
    for skipped, weight, mask in reversed(steps):
        later = backward[0].astype(np.float32)
        backward.insert(0, (mask * (later @ weight) + (skipped * later if skipped else 0)).astype(np.float64))
    change, cosines = None, []
    for i, gradient in enumerate(backward):
        # The layer's own change is along b (or its sign) and lowers the loss by its share: <b, change> = C.
        local = shares[i] * (np.sign(gradient) / abs(gradient).sum() if sign else gradient / (gradient @ gradient))
        if i == 0:
            change = local
        else:
            skipped, weight, mask = steps[i - 1]
            before = change.astype(np.float32)
            change = (weight @ (mask * before) + (skipped * before if skipped else 0)).astype(np.float64) + local
        if post and i < layers - 1:
            seen, moved = backward[i + 1].astype(np.float32) @ steps[i][1], steps[i][2] * change
        else:
            seen, moved = gradient, change
        cosines.append(seen @ moved / np.linalg.norm(seen) / np.linalg.norm(moved))
    return np.array(cosines)


def agree(predicted, *args, layers=slice(None), draws=DRAWS, allowance=0.01, **settings):
    drawn = np.array([simulate(*args, seed, **settings) for seed in range(draws)])
    tolerance = 5 * drawn.std(axis=0, ddof=1) / math.sqrt(draws) + allowance
    wrong = np.abs(drawn.mean(axis=0) - predicted) / tolerance
    assert wrong[layers].max() < 1, (drawn.mean(axis=0), predicted)
    return drawn.mean(axis=0)


def test_equal_shares_have_the_closed_form():
    layer = np.arange(1, 41)
    for v in (0.0, 0.3, 2.0):
        expected = (1 + v * (layer - 1) * (2 * layer - 1) / (6 * layer)) ** -0.5
        assert_allclose(predict_cosine(np.full(40, 0.1), v), expected, rtol=1e-13)


@pytest.mark.parametrize(("v", "constant"), [(2.0, math.sqrt(1.5)), (1.0, math.sqrt(3.0))])
def test_deep_nets_follow_a_power_law_with_its_constant(v, constant):
    """Fitted over the last half of 4000 layers: 1.2247 l^-0.5 for ReLU, 1.732 l^-0.5 for linear nets."""
    layer = np.arange(2000, 4001)
    slope, offset = np.polyfit(np.log(layer), np.log(predict_cosine(np.ones(4000), v)[1999:]), 1)
    assert slope == pytest.approx(-0.5, abs=5e-4)
    assert math.exp(offset) == pytest.approx(constant, rel=5e-3)


def test_widths_and_shares_agree_with_a_moment_recursion_whatever_the_gains():
    """Carry M1 and M2 from layer to layer with arbitrary gains chi; the prediction knows only shares, v and widths."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        layers = int(rng.integers(2, 12))
        widths, gains, shares = rng.integers(1, 50, layers), rng.lognormal(size=layers), rng.exponential(size=layers)
        ratios = np.append(1.0, widths[:-1] / widths[1:])
        spread = np.maximum(ratios - 1, 0) + rng.exponential(size=layers)
        lengths = np.ones(layers)  # |b_l|^2, from the last layer down: |b_{l-1}|^2 = r chi |b_l|^2
        for i in range(layers - 1, 0, -1):
            lengths[i - 1] = ratios[i] * gains[i] * lengths[i]
        weights = shares / lengths
        mean, square, expected = weights[0], weights[0] ** 2, [1.0]
        for r, chi, v, w in zip(ratios[1:], gains[1:], spread[1:], weights[1:], strict=True):
            square = r * chi**2 * (square + v * mean**2) + 2 * r * chi * w * mean + w**2
            mean = r * chi * mean + w
            expected.append(mean / math.sqrt(square))
        assert_allclose(predict_cosine(shares, spread, widths=widths), expected, rtol=1e-10)


def test_unequal_widths_match_the_table_and_nets():
    widths = [256, 1024, 512, 2048, 1024]
    spread = [1.0, *(weight_dispersion(a, b) for a, b in itertools.pairwise(widths))]
    predicted = predict_cosine(np.ones(5), spread, widths=widths)
    assert_allclose(predicted, [1, 0.707, 0.832, 0.485, 0.651], atol=5e-4)
    agree(predicted, widths, np.ones(5), relu=False)
    agree(predict_cosine(np.ones(5), np.array(spread) + 1, widths=widths), widths, np.ones(5))


def test_wide_relu_net_matches():
    """cos_2 = 1/sqrt(1.5), cos_3 = .6882, cos_4 = .6030, and so on down to a 24th layer."""
    predicted = predict_cosine(np.ones(24), activation_dispersion("relu") + weight_dispersion(512, 512))
    assert_allclose(predicted[:4], [1, 1.5**-0.5, 0.6882, 0.6030], atol=5e-5)
    agree(predicted, [512] * 24, np.ones(24))


def test_wide_linear_net_matches():
    agree(predict_cosine(np.ones(16), weight_dispersion(512, 512)), [512] * 16, np.ones(16), relu=False)


def test_random_shares_match():
    shares = np.random.default_rng(5).exponential(size=16)
    shares[7] = 0  # a frozen layer
    agree(predict_cosine(shares, 2.0), [512] * 16, shares)


def test_dispersion_of_one_layer_alone_counts_with_what_came_before():
    # Only layer 3 disperses: 1/cos^2 = 1 + v (S_2/S_l)^2 from there on.
    cosine = predict_cosine([1, 2, 1, 4], [9, 0, 0.5, 0])
    assert_allclose(cosine, [1, 1, (1 + 0.5 * (3 / 4) ** 2) ** -0.5, (1 + 0.5 * (3 / 8) ** 2) ** -0.5], rtol=1e-14)


def test_layers_before_the_first_share_have_no_cosine():
    assert_allclose(predict_cosine([0, 0, 3, 3], 2.0), [np.nan, np.nan, 1.0, 1.5**-0.5], rtol=1e-14)
    assert_allclose(predict_cosine([1, -1, 2], 2.0)[1:], [0.0, 1.5**-0.5], rtol=1e-14)
    assert_allclose(predict_cosine([1e-300, 1e-300], 2.0), predict_cosine([1e300, 1e300], 2.0))


# Residual nets


def test_residual_net_without_skip_is_the_plain_one():
    shares = np.random.default_rng(0).exponential(size=50)
    assert_allclose(predict_residual_cosine(0.0, 1.0, shares), predict_cosine(shares, 2.0), rtol=1e-13)
    assert_allclose(predict_residual_cosine(0, 1, shares, activation="linear"), predict_cosine(shares, 1.0), rtol=1e-13)


def test_only_the_ratio_of_skip_and_branch_matters():
    rng = np.random.default_rng(1)
    skip, branch, shares, factor = rng.random((4, 30))
    plain = predict_residual_cosine(skip, branch, shares)
    assert_allclose(predict_residual_cosine(factor * skip, factor * branch, 7 * shares), plain, rtol=1e-12)


def test_last_layer_agrees_with_the_recursion_for_the_whole_kernel():
    """Another bookkeeping of the same mean field, in two sequences e and h, exact at the last layer."""
    rng = np.random.default_rng(2)
    skip, branch, shares = rng.random((3, 25))
    a, b = skip / np.hypot(skip, branch), branch / np.hypot(skip, branch)
    reached = np.cumsum(shares)
    cross, fresh, h = np.zeros(25), np.zeros(25), np.zeros(25)
    for k in range(1, 25):
        cross[k] = 2 * a[k] ** 2 * b[k] ** 2 * reached[k - 1] ** 2
        fresh[k] = 2 * a[k] ** 2 * b[k] ** 2 * h[k - 1] + b[k] ** 4 * (reached[k - 1] ** 2 + 2 * h[k - 1])
        e = 0.0
        for s in range(1, k + 1):
            both = 0.5 - math.acos(np.prod(a[s : k + 1])) / (2 * math.pi)
            decay = np.prod(a[s + 1 : k + 1] ** 2)
            e += decay * (cross[s] / 2 + fresh[s])
            h[k] += decay * (cross[s] * both + fresh[s] / 2)
    expected = reached[-1] / math.sqrt(reached[-1] ** 2 + 2 * e)
    assert predict_residual_cosine(skip, branch, shares)[-1] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("c", "limit"), [(0.25, 0.9795), (0.5, 0.9225), (1.0, 0.7514), (2.0, 0.469), (4.0, 0.247), (8.0, 0.126)]
)
def test_branches_over_root_depth_have_a_limit(c, limit):
    depth = 3000
    cosine = predict_residual_cosine(math.sqrt(1 - c**2 / depth), c / math.sqrt(depth), np.ones(depth))[-1]
    assert cosine == pytest.approx(limit, abs=1e-3)


def test_strong_branches_go_as_one_over_c_and_weak_ones_to_one():
    depth = 3000
    assert predict_residual_cosine(1.0, 1 / depth, np.ones(depth))[-1] > 0.9998
    strong = [16 * predict_residual_cosine(1.0, 16 / math.sqrt(n), np.ones(n))[-1] for n in (1500, 3000)]
    assert 2 * strong[1] - strong[0] == pytest.approx(1.0, abs=0.02)  # finite depth costs the order c^2/depth


def test_branch_that_normalises_first_stays_at_two_thirds():
    blocks = np.arange(1, 3001)
    assert predict_residual_cosine(1, blocks**-0.5, np.ones(3000))[-1] == pytest.approx(0.670, abs=5e-4)


@pytest.mark.parametrize("c", [1.0, 2.0, 4.0])
def test_residual_nets_match_at_every_layer(c):
    branch = c / math.sqrt(24)
    skip = math.sqrt(1 - branch**2)
    agree(predict_residual_cosine(skip, branch, np.ones(24)), [384] * 24, np.ones(24), skip=skip, branch=branch)


def test_backward_pass_prefers_units_that_stay_on():
    """At layer 2 the spectrum of the kernel alone gives 1/sqrt(1 + b^2/2), .9428 here; nets are well below it."""
    skip, branch = math.sqrt(0.75), 0.5
    predicted = predict_residual_cosine(skip, branch, np.ones(16))
    mean = agree(predicted, [256] * 16, np.ones(16), skip=skip, branch=branch, draws=40, allowance=0.003)
    assert 1.125**-0.5 - mean[1] > 3 * abs(predicted[1] - mean[1])


def test_residual_nets_with_changing_branches_and_shares_match():
    rng = np.random.default_rng(3)
    branch, shares = rng.uniform(0.2, 0.8, 20), rng.exponential(size=20)
    skip = np.sqrt(1 - branch**2)
    agree(predict_residual_cosine(skip, branch, shares), [512] * 20, shares, skip=skip, branch=branch)


def test_linear_residual_nets_match():
    branch = 2 / math.sqrt(24)
    skip = math.sqrt(1 - branch**2)
    predicted = predict_residual_cosine(skip, branch, np.ones(24), activation="linear")
    agree(predicted, [384] * 24, np.ones(24), skip=skip, branch=branch, relu=False)


@pytest.mark.parametrize(("c", "cosine"), [(1, 0.7794), (2, 0.5328), (4, 0.3144)])
def test_linear_residual_nets_of_64_layers(c, cosine):
    skip = math.sqrt(1 - c**2 / 64)
    assert predict_residual_cosine(skip, c / 8, np.ones(64), activation="linear")[-1] == pytest.approx(cosine, abs=5e-5)


# After the activation, and for signs


def test_cosine_after_the_activation_matches():
    predicted = post_activation_cosine(predict_cosine(np.ones(13), 2.0))
    assert_allclose(predicted[[0, 1, 3, 7]], [0.7071, 0.6325, 0.5164, 0.3961], atol=5e-5)
    agree(predicted, [512] * 13, np.ones(13), post=True, layers=slice(0, 12))


@pytest.mark.parametrize(("activation", "v"), [("relu", 2.0), ("linear", 1.0)])
def test_sign_updates_match(activation, v):
    predicted = sign_update_cosine(predict_cosine(np.ones(5), v), np.ones(5), activation=activation)
    assert predicted[0] == pytest.approx(math.sqrt(2 / math.pi), rel=1e-14)
    relu = activation == "relu"
    agree(predicted, [512] * 5, np.ones(5), sign=True, relu=relu, draws=40, allowance=0.003)


def test_sign_of_one_layer_has_the_closed_form():
    """The simulated net agrees with |b|_1/(sqrt(m) |b|_2), so the tests above compare with the right thing."""
    gradient = np.random.default_rng(4)
    gradient.standard_normal(64, dtype=np.float32)  # the features come first
    b = gradient.standard_normal(64)
    assert simulate([64], [1.0], 4, sign=True)[0] == pytest.approx(abs(b).sum() / math.sqrt(64) / np.linalg.norm(b))


def test_undefined_and_zero_cosines_stay_so():
    assert_allclose(post_activation_cosine([np.nan, 0.0, -1.0]), [np.nan, 0.0, -math.sqrt(0.5)])
    assert_allclose(sign_update_cosine([np.nan, 1.0, 0.0], [0.0, 1.0, 1.0]), [np.nan, math.sqrt(2 / math.pi), 0.0])


# Dispersions in closed form


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.3, 1.0, -1.0, 2.0])
def test_dispersion_of_leaky_relu(slope):
    expected = (1 - slope**2) ** 2 / (1 + slope**2) ** 2
    assert activation_dispersion(nn.LeakyReLU(slope), scale=2.3) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_dispersion_of_tanh_agrees_with_quadrature(scale):
    def moment(power):
        return quad(
            lambda z: (1 / math.cosh(scale * z) ** 2) ** power * math.exp(-z * z / 2) / math.sqrt(2 * math.pi), -12, 12
        )[0]

    assert activation_dispersion("tanh", scale=scale) == pytest.approx(moment(4) / moment(2) ** 2 - 1, abs=1e-7)


def test_activations_that_write_in_place_are_fine():
    assert activation_dispersion(nn.ReLU(inplace=True)) == pytest.approx(1.0, abs=1e-12)
    with torch.inference_mode():
        assert activation_dispersion(nn.functional.relu) == pytest.approx(1.0, abs=1e-12)


# Bad input


@pytest.mark.parametrize(
    ("shares", "dispersion", "widths", "message"),
    [
        ([], 1.0, None, "row of at least one"),
        ([[1.0, 1.0]], 1.0, None, "row of at least one"),
        ([1.0, np.nan], 1.0, None, "entry 1"),
        ([1.0, -2.0], 1.0, None, "sum to more than zero"),
        ([0.0, 0.0], 1.0, None, "sum to more than zero"),
        ([1.0, 1.0], [1.0, 1.0, 1.0], None, "one for each of 2 layers"),
        ([1.0, 1.0], np.inf, None, "dispersion must be finite"),
        ([1.0, 1.0], -0.1, None, "cannot be negative"),
        ([1.0, 1.0], 1.0, [4.0, 0.0], "widths must be positive"),
        ([1.0, 1.0], 1.0, [100, 10], "dispersion of at least 9"),
    ],
)
def test_bad_input_is_refused(shares, dispersion, widths, message):
    with pytest.raises(InputError, match=message):
        predict_cosine(shares, dispersion, widths=widths)


def test_other_bad_input_is_refused():
    with pytest.raises(InputError, match="skip must not be negative"):
        predict_residual_cosine(-1.0, 1.0, [1.0])
    with pytest.raises(InputError, match="both zero in layer 1"):
        predict_residual_cosine([1.0, 0.0], [1.0, 0.0], [1.0, 1.0])
    with pytest.raises(InputError, match="'relu' or 'linear'"):
        predict_residual_cosine(1.0, 1.0, [1.0], activation="tanh")
    with pytest.raises(InputError, match="'relu' or 'linear'"):
        sign_update_cosine([1.0], [1.0], activation="tanh")
    with pytest.raises(InputError, match="one cosine and one share"):
        sign_update_cosine([1.0], [1.0, 1.0])
    with pytest.raises(InputError, match=r"in \[-1, 1\], but entry 1"):
        post_activation_cosine([0.5, 1.5])
    with pytest.raises(InputError, match="unknown activation"):
        activation_dispersion("swish2")
    with pytest.raises(InputError, match="positive and finite"):
        activation_dispersion("relu", scale=0.0)
    with pytest.raises(InputError, match="cannot be differentiated"):
        activation_dispersion(lambda x: (x > 0).double())
    with pytest.raises(InputError, match="shape of its input"):
        activation_dispersion(lambda x: x.sum())
    with pytest.raises(InputError, match="zero everywhere"):
        activation_dispersion(lambda x: 0 * x)
    with pytest.raises(InputError, match="at least one input"):
        weight_dispersion(0, 3)
