"""Profiles: every column against its own definition in numpy, figures, and the estimate of a bottleneck rank."""

import numpy as np
import pytest
import torch
import xarray as xr

from learnmech import history, leaky
from learnmech.errors import HistoryError, InputError


@pytest.fixture(scope="module")
def trained():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, generator=generator)
    y = torch.stack([x[:, 0].abs(), x[:, 1] * x[:, 2]], dim=1)
    torch.manual_seed(0)
    net = leaky.LeakyResNet(3, 2, 6, 2.0, 5, steps="irregular", penalty=0.02).double()
    leaky.train(net, x, y, leaky.LeakySettings(adam_steps=200, polish_iterations=50))
    return net, x, y


def test_every_column_is_what_it_says(trained):
    net, x, y = trained
    ridges = (1e-2, 1e-4)
    run = leaky.profile(net, x, y, ridges=ridges)
    depth, rho = 2.0, net.steps.numpy()
    a = net(x.double(), return_path=True)[1].detach().numpy()
    b = leaky.momenta(net, x, y).numpy()
    w = net.weights.numpy()
    np.testing.assert_allclose(run["depth"], np.concatenate([[0], np.cumsum(rho)]), atol=1e-12)
    length = np.zeros(2)
    for node in range(6):
        here = run.isel(layer=node)
        active = np.vstack([np.maximum(a[node], 0), np.ones(12)])
        kernel = active.T @ active
        for number, ridge in enumerate(ridges):
            inverse = np.linalg.inv(kernel + ridge * np.eye(12))
            cost = np.trace(a[node] @ inverse @ a[node].T)
            assert float(here["identity_cost"][number]) == pytest.approx(cost, rel=1e-6)
            assert float(here["potential_energy"][number]) == pytest.approx(-cost, rel=1e-6)
            if node < 5:
                velocity = (a[node + 1] - a[node]) / rho[node]
                speed = np.trace(velocity @ inverse @ velocity.T)
                length[number] += rho[node] * np.sqrt(speed)
                assert float(here["kinetic_energy"][number]) == pytest.approx(speed / 4, rel=1e-6)
                assert float(here["cross_term"][number]) == pytest.approx(
                    np.trace(velocity @ inverse @ a[node].T), rel=1e-5
                )
                assert float(here["ridge_effective_dimension"][number]) == pytest.approx(cost - speed / 4, rel=1e-5)
        singular = np.linalg.svd(a[node], compute_uv=False)
        np.testing.assert_allclose(here["representation_spectrum"][:6], singular, rtol=1e-9, atol=1e-12)
        varying = np.linalg.svd(a[node] - a[node].mean(1, keepdims=True), compute_uv=False)
        assert int(here["varying_directions"]) == (varying > varying[0] / 2).sum()
        assert float(here["stable_rank"]) == pytest.approx(singular.sum() ** 2 / (singular**2).sum())
        assert float(here["negativity"]) == pytest.approx(
            np.linalg.norm(np.minimum(a[node], 0)) / np.linalg.norm(a[node])
        )
        assert float(here["momentum_norm"]) == pytest.approx(np.linalg.norm(b[node]))
        assert float(here["pairing"]) == pytest.approx((a[node] * b[node]).sum())
        if node == 5:
            assert np.isnan(here["hamiltonian"])
            continue
        energy = depth / 2 * np.linalg.norm(b[node + 1] @ active.T) ** 2 - depth * (b[node + 1] * a[node]).sum()
        assert float(here["hamiltonian"]) == pytest.approx(energy)
        assert float(here["effective_dimension"]) == pytest.approx(-energy)
        before = (b[node + 1] * (w[node] @ active - depth * a[node])).sum() - (w[node] ** 2).sum() / (2 * depth)
        assert float(here["pre_hamiltonian"]) == pytest.approx(before)
        assert float(here["step_gradient"]) == pytest.approx(-net.penalty * before)
        residual = np.linalg.norm(w[node] - depth * b[node + 1] @ active.T) / np.linalg.norm(w[node])
        assert float(here["stationarity"]) == pytest.approx(residual, rel=1e-6)
        spectrum = np.linalg.svd(w[node], compute_uv=False)
        np.testing.assert_allclose(here["weight_spectrum"], spectrum, rtol=1e-9)
        assert int(here["kept_directions"]) == (spectrum > spectrum[0] / 2).sum()
        assert float(here["relative_step"]) == pytest.approx(
            np.linalg.norm(a[node + 1] - a[node]) / np.linalg.norm(a[node + 1])
        )
    np.testing.assert_allclose(run["path_length"], length, rtol=1e-6)
    assert float(run["cost"]) == pytest.approx(float(net.cost(x.double(), y.double()).detach()))
    mean = (rho * run["pre_effective_dimension"].values[:-1]).sum()
    assert float(run["mean_pre_effective_dimension"]) == pytest.approx(mean)


def test_relative_ridges_scale_with_each_layer(trained):
    net, x, y = trained
    run = leaky.profile(net, x, y, ridges=1e-2, relative=True)
    path = net(x.double(), return_path=True)[1].detach()
    active = torch.cat([path.clamp(min=0), torch.ones(6, 1, 12, dtype=torch.float64)], dim=1)
    for node in range(6):
        ridge = 1e-2 * float(torch.linalg.matrix_norm(active[node], 2) ** 2)
        assert float(run["identity_cost"][node, 0]) == pytest.approx(
            float(leaky.identity_cost(path[node], ridge=ridge))
        )


def test_a_profile_is_a_history_that_can_be_kept(trained, tmp_path):
    net, x, y = trained
    run = leaky.profile(net, x, y)
    history.save(run, tmp_path / "profile.nc")
    xr.testing.assert_allclose(history.load(tmp_path / "profile.nc"), run)


def test_more_neurons_than_samples_and_fewer(trained):
    net, x, y = trained
    run = leaky.profile(net, x[:4], y[:4])
    assert np.isfinite(run["identity_cost"]).all()
    assert np.isnan(run["representation_spectrum"][:, 4:]).all()
    exact = leaky.profile(net, x, y, ridges=0.0)["identity_cost"].values  # 12 samples, 7 rows: not supported
    assert np.isinf(exact).any()


def test_bad_ridges_are_refused(trained):
    net, x, y = trained
    with pytest.raises(InputError, match="ridge"):
        leaky.profile(net, x, y, ridges=-1.0)


def test_figures_of_a_profile(trained):
    net, x, y = trained
    run = leaky.profile(net, x, y)
    figures = leaky.draw_profile(run)
    assert [figure.name for figure in figures] == [
        "leaky_dimensions",
        "leaky_spectrum",
        "leaky_hamiltonian",
        "leaky_steps",
    ]
    bars = figures[3].plot.data[0]
    np.testing.assert_allclose(bars.y, run["relative_step"].values[:-1])
    assert len(figures[1].plot.data) == 6
    with pytest.raises(HistoryError, match="profile of one net"):
        leaky.draw_profile(history.concat([run, run], "seed", [0, 1]))
    with pytest.raises(HistoryError, match="profile of one net"):
        leaky.draw_profile(run.drop_vars("stationarity"))


def test_bottleneck_rank_of_a_linear_map_of_rank_two():
    """Positive data and a positive map of rank 2: nets keep two directions, or one more for the bias."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 4, generator=generator)
    y = x @ torch.rand(4, 2, generator=generator) @ torch.rand(2, 4, generator=generator)
    estimate = leaky.estimate_bottleneck_rank(
        x,
        y,
        effective_depths=(3.0, 2.0, 5.0),
        seeds=(0, 1),
        width=8,
        layers=10,
        penalty=0.01,
        settings=leaky.LeakySettings(adam_steps=1500, polish_iterations=300, learning_rate=1e-2),
    )
    assert 1 <= estimate.kept_directions <= 3
    assert abs(estimate.expansion.k - estimate.kept_directions) < 1.0
    rows = estimate.table()
    assert [row["effective_depth"] for row in rows] == [2.0, 3.0, 5.0]
    assert estimate.profiles["effective_depth"].values.tolist() == [2.0, 3.0, 5.0]
    assert len(estimate.trainings) == 3
    assert len(estimate.trainings[0]) == 2
    assert rows[0]["cost"] == pytest.approx(min(end.cost for end in estimate.trainings[0]), rel=1e-6)
    assert "bottleneck rank" in str(estimate)


def test_a_rank_cannot_be_estimated_from_too_little():
    x, y = torch.rand(5, 2), torch.rand(5, 2)
    for depths in ((1.0, 2.0), (1.0, 1.0, 2.0, 3.0)):
        with pytest.raises(InputError, match="three different"):
            leaky.estimate_bottleneck_rank(x, y, effective_depths=depths)
    with pytest.raises(InputError, match="seed"):
        leaky.estimate_bottleneck_rank(x, y, seeds=())
    with pytest.raises(InputError, match="samples, d_out"):
        leaky.estimate_bottleneck_rank(x, torch.zeros(5, dtype=torch.long))
    settings = leaky.LeakySettings(adam_steps=600, polish_iterations=10, learning_rate=3e-2)
    with pytest.raises(InputError, match="collapsed"):
        leaky.estimate_bottleneck_rank(
            (x - 0.5) * 1e-3,
            (y - y.mean(0)) * 1e-3,
            penalty=10.0,
            settings=settings,
            layers=10,
            effective_depths=(2, 3, 4),
        )
