"""The spring instrument in a watched run: loads as by the pure functions, and honest standard errors."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from learnmech.errors import InputError
from learnmech.monitor import watch
from learnmech.springs import curvature, end_difference, increments, linearity, load_curve
from learnmech.springs.instrument import summarise


def make_net(seed=0, width=12, outputs=3):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(8, width), nn.ReLU(inplace=True), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width),
        nn.Tanh(), nn.Linear(width, outputs),
    ).double()  # fmt: skip


def make_probe(seed=0, samples=120, classes=3):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % classes
    centres = torch.randn(classes, 8, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return torch.randn(samples, 8, generator=generator, dtype=torch.float64) + 1.5 * centres[labels], labels


def hooked_features(net, x, indices=(1, 3, 5, 6)):
    features, value = [x], x
    with torch.no_grad():
        for position, module in enumerate(net):
            value = module(value.clone())
            if position in indices:
                features.append(value.clone())
    return features


@pytest.mark.parametrize("chunk_size", [None, 17])
def test_loads_equal_the_pure_functions(chunk_size):
    net, (x, y) = make_net(), make_probe()
    run = watch(net, (x, y), F.cross_entropy, measures="full", chunk_size=chunk_size).history.isel(step=0)
    features = hooked_features(net, x)
    loads = load_curve(features, y).numpy()
    np.testing.assert_allclose(run["load"], loads, atol=1e-10)
    np.testing.assert_allclose(run["load_pinv"], load_curve(features, y, kind="pinv").numpy(), atol=1e-9)
    np.testing.assert_allclose(run["contribution"][1:], increments(loads).numpy(), atol=1e-10)
    assert np.isnan(run["contribution"][0])
    curve = loads[:-1]  # the read-out does not belong to the shape
    assert float(run["curvature"]) == pytest.approx(float(curvature(curve)), abs=1e-9)
    assert float(run["linearity"]) == pytest.approx(float(linearity(curve)), abs=1e-9)
    assert float(run["end_difference"]) == pytest.approx(float(end_difference(curve)), abs=1e-9)


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_token_labels_are_samples_and_those_left_out_do_not_count(chunk_size):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(20, 5, 4, dtype=torch.float64), torch.arange(100).reshape(20, 5) % 3
    y = y.clone()
    y[:, 1] = -100
    y[4] = -100

    def loss(out, target):
        return F.cross_entropy(out.flatten(0, 1), target.flatten())

    run = watch(net, (x, y), loss, chunk_size=chunk_size).history.isel(step=0)
    expected = load_curve([part.flatten(0, 1) for part in hooked_features(net, x, (1, 3, 4))], y.flatten()).numpy()
    np.testing.assert_allclose(run["load"], expected, atol=1e-10)


@pytest.mark.parametrize("chunk_size", [None, 17])
def test_real_valued_targets_give_the_regression_load(chunk_size):
    net, (x, _) = make_net(outputs=2), make_probe()
    y = torch.stack([x[:, 0] * x[:, 1], x[:, 2].sin()], 1)
    run = watch(net, (x, y), F.mse_loss, chunk_size=chunk_size).history.isel(step=0)
    np.testing.assert_allclose(run["load"], load_curve(hooked_features(net, x), y, kind="mse").numpy(), atol=1e-10)
    assert run.attrs["classes"] == 0
    assert np.isfinite(run["contribution_error"][1:]).all()


def errors_against_spread(targets, loss, net, probes):
    """Ratio of the mean reported standard error to the spread over independent probes, for each contribution."""
    taken = {name: [] for name in ("contribution", "contribution_error", "curvature", "curvature_error")}
    gains, gain_errors = [], []
    for seed in range(probes):
        x, y = targets(seed)
        run = watch(net, (x, y), loss, measures="springs").history.isel(step=0)
        for name, values in taken.items():
            values.append(run[name].values)
        gains.append(float(run["load"][0] - run["load"][-2]))
        gain_errors.append(float(run["gain_error"]))
    ratios = np.sqrt(np.mean(np.square(taken["contribution_error"]), 0)) / np.std(taken["contribution"], 0, ddof=1)
    bends = np.sqrt(np.mean(np.square(taken["curvature_error"]))) / np.std(taken["curvature"], ddof=1)
    return ratios[1:], np.sqrt(np.mean(np.square(gain_errors))) / np.std(gains, ddof=1), bends


def test_standard_errors_agree_with_the_spread_over_independent_probes():
    """60 probes: the spread itself is known to 1/sqrt(118), 9 %; the factor 0.6 .. 1.6 is five times that.

    The net is trained, or the load would hardly fall and q, which is divided by the fall, would have no spread to speak of.
    """
    net = make_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    x, y = make_probe(1000, samples=600)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    ratios, gain, bend = errors_against_spread(lambda seed: make_probe(seed + 1, samples=240), F.cross_entropy, net, 60)
    assert np.all((ratios > 0.6) & (ratios < 1.6)), ratios
    assert 0.6 < gain < 1.6
    assert 0.6 < bend < 1.6


def test_standard_errors_of_regression_agree_with_the_spread():
    """Halves overestimate: a fit on half the samples is less certain by more than the number of samples says."""
    net = make_net(outputs=1)

    def targets(seed):
        x, _ = make_probe(seed + 1, samples=400)
        return x, (x[:, :1] * x[:, 1:2]).tanh()

    ratios, gain, _ = errors_against_spread(targets, F.mse_loss, net, 40)
    assert np.all((ratios > 0.5) & (ratios < 2)), ratios
    assert 0.5 < gain < 2


def test_targets_that_are_no_tensor_need_labels():
    net, (x, y) = make_net(), make_probe()

    def loss(out, target):
        return F.cross_entropy(out, target["y"])

    with pytest.raises(InputError, match="pass labels="):
        watch(net, (x, {"y": y}), loss)
    given = watch(net, (x, {"y": y}), loss, labels=y, chunk_size=13).history
    plain = watch(net, (x, y), F.cross_entropy).history
    np.testing.assert_allclose(given["load"], plain["load"], atol=1e-10)
    np.testing.assert_allclose(given["loss"], plain["loss"], rtol=1e-12)
    assert watch(net, (x, {"y": y}), loss, measures="vitals").history.sizes["step"] == 1


def test_the_default_device_does_not_matter():
    net, (x, y) = make_net(), make_probe()
    plain = watch(net, (x, y), F.cross_entropy).history
    with torch.device("meta"):
        other = watch(net, (x, y), F.cross_entropy).history
    np.testing.assert_array_equal(other["load"].values, plain["load"].values)


def test_halves_that_collapse_leave_the_errors_unknown():
    """Two samples a class: in a half each class is one point, so its load is -inf at both ends. No warning, only NaN."""
    halves = np.full((3, 2, 4), -np.inf)
    values = summarise(np.array([1.0, 0.5, 0.2, 0.1]), [0, 1, 2, 3], halves)
    assert np.isnan(values["gain_error"])
    assert np.isnan(values["contribution_error"]).all()
    assert np.isfinite(values["curvature"])
