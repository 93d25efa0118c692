"""Figures of leaky ResNets: cells against passes by hand, runs from declaration to files, claims that can fail."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

from learnmech.errors import InputError, LearnmechError
from learnmech.experiments import reproduce
from learnmech.experiments.jacot2024 import depth_claims, depth_sweep, shared, step_schemes
from learnmech.experiments.jacot2024.trained_nets import (
    SCHEMES,
    build_net,
    least_cost_layer,
    load_task,
    read_setup,
    train_case,
    train_net,
    train_schemes,
)
from learnmech.experiments.reproduction import Context

CELL = {
    "widths": [4, 2, 4],
    "samples": 12,
    "width": 6,
    "layers": 5,
    "effective_depth": 2.0,
    "penalty": 0.05,
    "adam_steps": 0,
    "polish_iterations": 0,
}
TINY = {"samples": 12, "width": 8, "adam_steps": 3, "polish_iterations": 2}
TINY_OF = {
    "fig1": {**TINY, "layers": 6, "effective_depth": [2.0, 2.5]},
    "fig2": {**TINY, "layers": [4, 5], "draws": 1},
    "fig3": {**TINY, "layers": 6, "effective_depth": [2.0, 2.5, 3.0]},
}
RIDGES = [1e-2, 1e-3, 1e-4]


def by_hand(config):
    """Representations, momenta and test cost of a cell's untrained net, in NumPy."""
    setup = read_setup(config)
    net, task = build_net(setup), load_task(setup)
    into, out = (layer.weight.detach().numpy() for layer in (net.embedding, net.readout))
    weights, steps, leak = net.weights.numpy(), net.steps.numpy(), setup.effective_depth

    def activate(values):
        return np.vstack([np.maximum(values, 0), np.ones((1, values.shape[1]))])

    def forward(inputs):
        path = [into @ inputs.double().numpy().T]
        for weight, step in zip(weights, steps, strict=True):
            path.append((1 - step * leak) * path[-1] + step * weight @ activate(path[-1]))
        return path

    path = forward(task.train_inputs)
    targets = task.train_targets.double().numpy().T
    momenta = [2 / (setup.penalty * setup.samples) * out.T @ (targets - out @ path[-1])]
    for weight, step, values in zip(weights[::-1], steps[::-1], path[-2::-1], strict=True):
        pulled = (values > 0) * (weight[:, : setup.width].T @ momenta[0])
        momenta.insert(0, (1 - step * leak) * momenta[0] + step * pulled)
    error = task.test_targets.double().numpy().T - out @ forward(task.test_inputs)[-1]
    norms = [np.linalg.norm(activate(values), 2) for values in path]
    return path, np.array([np.linalg.norm(row) for row in momenta]), (error**2).sum(0).mean(), norms


def test_a_cell_is_what_passes_by_hand_give():
    config = {**CELL, "scheme": "irregular", "seed": 3}
    path, momenta, test, norms = by_hand(config)
    cell = train_net(config)
    close = {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(cell["momentum_norm"], momenta, **close)
    np.testing.assert_allclose(cell["representation_norm"], [np.linalg.norm(row) for row in path], **close)
    np.testing.assert_allclose(cell["activation_norm"], norms, **close)
    np.testing.assert_allclose(cell["test_cost"], test, **close)
    assert float(cell["stationary"]) == float(float(cell["residual"]) < 0.25)
    assert float(cell["residual"]) == pytest.approx(float(np.median(cell["stationarity"].values[:-1])), abs=0)
    assert float(cell["diverged"]) == 0


def test_training_lowers_the_cost_and_cases_replace_settings():
    config = {**CELL, "adam_steps": 60, "polish_iterations": 20}
    trained = train_net(config)
    assert float(trained["cost"]) < 0.7 * float(train_net(CELL)["cost"])
    case = train_case(
        {**CELL, "cases": {"one": {"penalty": 0.05, "adam_steps": 60, "polish_iterations": 20}}, "case": "one"}
    )
    xr.testing.assert_allclose(case.drop_vars("train_seconds"), trained.drop_vars("train_seconds"), rtol=1e-12)


def test_schemes_start_from_the_same_weights_and_share_one_projection():
    cell = train_schemes({**CELL, "draw": 2})
    assert cell["scheme"].values.tolist() == list(SCHEMES)
    both = cell.sel(scheme=["uniform", "adaptive"])
    np.testing.assert_array_equal(*both["weight_spectrum"].values)
    np.testing.assert_allclose(*both["projection"].values, atol=1e-12)
    assert not np.array_equal(cell["step_size"].sel(scheme="irregular"), cell["step_size"].sel(scheme="uniform"))
    # all start at the embedded inputs, and a projection never lengthens a distance
    np.testing.assert_allclose(np.ptp(cell["projection"].isel(layer=0).values, axis=0), 0, atol=1e-12)
    path, *_ = by_hand({**CELL, "scheme": "uniform", "seed": 2, "task_seed": 2})
    points = cell["projection"].sel(scheme="uniform").values
    for first in range(6):
        for second in range(first):
            true = np.sqrt(((path[first] - path[second]) ** 2).mean())
            assert np.linalg.norm(points[first] - points[second]) <= true * (1 + 1e-9)
    largest = max(np.sqrt(((row - path[0]) ** 2).mean()) for row in path)
    found = np.linalg.norm(points - points[0], axis=1).max()
    assert found > 0.8 * largest  # two directions hold most of paths this short


@pytest.mark.parametrize("name", TINY_OF)
@pytest.mark.filterwarnings("ignore::learnmech.errors.LearnmechWarning")  # depths this close amplify errors, as it says
def test_figures_run_from_declaration_to_files(name, tmp_path):
    outcome = reproduce(f"jacot2024/{name}", out=tmp_path, **TINY_OF[name])
    assert outcome.failed_cells == outcome.missing_cells == 0
    assert {claim.verdict for claim in outcome.claims} == {"not tested at this scale"}
    assert outcome.files["png"].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = outcome.files["html"].read_text()
    assert "jacot2025hamiltonian" in page
    assert json.loads(outcome.files["claims"].read_text())["claims"] == [claim.to_dict() for claim in outcome.claims]
    if name == "fig1":
        assert outcome.history["case_layers"].values.tolist() == [3, 12, 6, 6]


def test_shares_of_figure_1_are_put_together(tmp_path):
    first = reproduce("jacot2024/fig1", out=tmp_path, shard=(0, 8), **TINY_OF["fig1"])
    assert first.missing_cells > 0
    assert first.claims == ()


def test_a_net_that_cannot_be_made_leaves_a_gap(tmp_path):
    fast = {"layers": 8, "adam_steps": 0, "polish_iterations": 0}
    changes = TINY_OF["fig1"] | fast | {"effective_depth": [2.0, 3.0, 20.0]}
    history = depth_sweep.run_with_cases(Context("smoke", tmp_path, overrides=changes))
    assert np.isfinite(history["cost"].values).tolist() == [True, True, False]
    assert np.isfinite(history["case_spread"].values).tolist() == [True, True, False, False]
    claims = depth_claims.check_bottleneck(history, "smoke")
    assert {claim.verdict for claim in claims} == {"not tested at this scale"}
    assert len(depth_sweep.FIG1.draw(history).axes) == 8
    deep = TINY_OF["fig1"] | fast | {"effective_depth": [20.0, 21.0]}
    with pytest.raises(
        LearnmechError, match=r"all 2 cells of jacot2024/fig1 failed.*too few for the effective depth 20"
    ):
        reproduce("jacot2024/fig1", out=tmp_path / "none", **deep)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("fig1", {"nonsense": 1}, "no settings nonsense"),
        ("fig1", {"scheme": "uniform"}, "scheme cannot be replaced"),
        ("fig1", {"effective_depth": 4.0}, "effective_depth must be a list of values"),
        ("fig3", {"width": [8, 9]}, "width must be one value"),
        ("fig2", {"draws": 0}, "draws must be a positive integer"),
        ("fig2", {"layers": 4}, "layers must be a list of values"),
    ],
)
def test_bad_overrides_are_refused(name, changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        reproduce(f"jacot2024/{name}", out=tmp_path, **changes)


def test_bad_cells_are_refused():
    with pytest.raises(InputError, match="unknown settings lr of a leaky net"):
        train_net({**CELL, "lr": 1})
    with pytest.raises(InputError, match="unknown init"):
        train_net({**CELL, "init": "he"})


# --- statistics


def test_statistics_over_depth():
    values, steps = np.array([1.0, 3.0, np.nan]), np.array([0.25, 0.75, np.nan])
    assert float(shared.spread(values, steps)) == pytest.approx(np.sqrt(0.25 * 1.5**2 + 0.75 * 0.5**2))
    assert shared.power([1, 2, 4], [3, 6, 12]) == pytest.approx(1.0)
    assert shared.order_correlation([1, 2, 3], [5, 9, 8]) == pytest.approx(0.5)
    assert np.isnan(shared.order_correlation([1, 2], [1, 2]))
    assert least_cost_layer(np.array([[5.0, 2.0, 1.0], [np.nan, 3.0, 9.0]])).tolist() == [1, 1]


def test_paired_differences_are_those_of_a_paired_t_test():
    generator = np.random.default_rng(0)
    values = generator.standard_normal((2, 5, 3))
    history = xr.Dataset(
        {"test_cost": (("layers", "draw", "scheme"), values)}, {"layers": [4, 8], "scheme": list(SCHEMES)}
    )
    means, errors = step_schemes.paired_differences(history, "test_cost")
    for row in range(2):
        test = stats.ttest_rel(values[row, :, SCHEMES.index("adaptive")], values[row, :, SCHEMES.index("uniform")])
        assert means[row] / errors[row] == pytest.approx(test.statistic)


# --- claims


def verdicts(claims):
    return {claim.key: claim.verdict for claim in claims}


def failing(claims):
    return {key for key, verdict in verdicts(claims).items() if verdict == "fail"}


def ideal_sweep():
    """The theory's picture in closed form: k* = 5 directions of rates r, costs k L + 2 sum r + sum r^2 / L."""
    depths, layers, penalty = np.arange(2.0, 9.0), 20, 0.05
    rates = np.array([2.0, 1.5, 1.0, 0.8, 0.5])
    square = (rates**2).sum()
    dimension = 5 - square / depths**2
    p = np.linspace(0, 1, layers + 1)
    dip = 1 + 4e3 * (p - 0.65) ** 2 / depths[:, None]
    costs = 5.2 * np.exp(3 / depths[:, None]) / np.exp(3 / 8) * dip
    costs = np.stack([costs, 1.3 * costs, 2 * costs], axis=-1)
    kinetic = depths[:, None, None] / 2 * (costs - dimension[:, None, None])
    spectrum = np.full((7, layers + 1, 10), 0.1)
    spectrum[:, :, :5] = (depths[:, None] + rates)[:, None, :]
    flat = np.ones((7, layers + 1))

    def steps(values):
        values = np.array(values, dtype=float)
        values[:, -1] = np.nan
        return values

    layer, ridged = ("effective_depth", "layer"), ("effective_depth", "layer", "ridge")
    ripple = 0.01 * np.sin(7 * p)
    arrays = {
        "cost": ("effective_depth", penalty / 2 * (5 * depths + 2 * rates.sum() + square / depths)),
        "identity_cost": (ridged, costs),
        "kinetic_energy": (ridged, steps(kinetic)),
        "ridge_effective_dimension": (ridged, steps(costs * 0 + dimension[:, None, None])),
        "effective_dimension": (layer, steps(dimension[:, None] + ripple)),
        "pre_effective_dimension": (layer, steps(dimension[:, None] + ripple)),
        "mean_pre_effective_dimension": ("effective_depth", dimension),
        "weight_spectrum": ((*layer, "direction"), steps(spectrum)),
        "kept_directions": (layer, steps(5 * flat)),
        "stationarity": (layer, steps(0.05 * flat)),
        "negativity": (layer, flat * 0.5 * np.abs(2 * p - 1)),
        "momentum_norm": (layer, 0.5 * flat),
        "activation_norm": (layer, flat),
        "step_size": (layer, steps(flat / layers)),
        "path_length": (("effective_depth", "ridge"), np.ones((7, 3)) * 100 * depths[:, None] ** 0.3),
        "case_layers": ("case", [12.0, 48.0, 24.0, 24.0]),
        "case_spread": ("case", [0.4, 0.1, 0.0, 0.0]),
        "case_pre_spread": ("case", [0.4, 0.1, 0.0, 0.0]),
        "case_residual": ("case", [0.1, 0.1, 0.1, 0.1]),
        "case_stationary": ("case", [1.0, 1.0, 1.0, 1.0]),
        "case_collapsed": ("case", [0.0, 0.0, 1.0, 0.0]),
        "case_kept": ("case", [5.0, 5.0, 9.0, 3.0]),
    }
    flags = {"residual": 0.05, "stationary": 1.0, "collapsed": 0.0, "diverged": 0.0}
    arrays |= {name: ("effective_depth", np.full(7, value)) for name, value in flags.items()}
    history = xr.Dataset(
        arrays,
        {
            "effective_depth": depths,
            "layer": [str(number) for number in range(layers + 1)],
            "depth": ("layer", p),
            "ridge": RIDGES,
            "direction": range(1, 11),
            "case": list(depth_sweep.list_cases(depth_sweep.SETTINGS["reduced"])),
        },
    )
    history.attrs["config"] = json.dumps({"fixed": {"widths": [20, 5, 20], "penalty": penalty}})
    return history


ALL_OF_FIG1 = {key for key in depth_claims.TEXTS if not key.startswith("C7")}


def test_claims_about_depth_hold_for_the_theory():
    history = ideal_sweep()
    assert verdicts(depth_claims.check_bottleneck(history, "reduced")) == dict.fromkeys(ALL_OF_FIG1, "pass")
    assert verdicts(depth_claims.check_sizes(history, "reduced")) == {"C7a": "pass", "C7b": "pass"}


def scaled_by_depth(history, name, exponent):
    return {name: history[name] * history["effective_depth"] ** exponent}


@pytest.mark.parametrize(
    ("broken", "change"),
    [
        ({"C1a"}, lambda h: {"effective_dimension": h["effective_dimension"] * (1 + 1000 * (h["depth"] - 0.5) ** 2)}),
        ({"C1b"}, lambda h: {"case_spread": ("case", [0.1, 0.4, 0.0, 0.0])}),
        ({"C2a"}, lambda h: {"effective_dimension": h["effective_dimension"] - 2 * h["effective_depth"]}),
        ({"C2b"}, lambda h: {"effective_dimension": h["effective_dimension"] + 10}),
        ({"C3a"}, lambda h: {"identity_cost": h["identity_cost"][::-1].values * xr.ones_like(h["identity_cost"])}),
        ({"C3b"}, lambda h: {"identity_cost": h["identity_cost"] + 4}),
        ({"C3c"}, lambda h: {"identity_cost": h["identity_cost"] * 0 + 5.2 + 100 * h["depth"]}),
        ({"C3d"}, lambda h: {"kept_directions": h["kept_directions"] + 2}),
        ({"C4"}, lambda h: {"negativity": h["negativity"] + 0.1}),
        ({"C5"}, lambda h: {"kinetic_energy": h["kinetic_energy"] * 2}),
        ({"C6a"}, lambda h: {"weight_spectrum": h["weight_spectrum"] * 1.5}),
        ({"C6b", "C6c"}, lambda h: {"cost": h["cost"] + 0.05 * h["effective_depth"]}),
        ({"C9"}, lambda h: {"case_collapsed": h["case_collapsed"] * 0}),
    ],
)
def test_each_claim_about_depth_can_fail(broken, change):
    history = ideal_sweep()
    assert broken <= failing(depth_claims.check_bottleneck(history.assign(change(history)), "reduced"))


def test_claims_about_sizes_can_fail():
    history = ideal_sweep()
    long = history.assign(scaled_by_depth(history, "path_length", 0.6))
    assert failing(depth_claims.check_sizes(long, "reduced")) == {"C7a"}
    heavy = history.assign(scaled_by_depth(history, "momentum_norm", 0.9))
    assert failing(depth_claims.check_sizes(heavy, "reduced")) == {"C7b"}


def test_hamiltonians_of_nets_that_are_not_stationary_are_not_judged():
    history = ideal_sweep()
    history["stationary"] = history["stationary"] * 0
    history["case_stationary"] = history["case_stationary"] * 0
    claims = {claim.key: claim for claim in depth_claims.check_bottleneck(history, "reduced")}
    untested = {key for key, claim in claims.items() if claim.verdict == "not tested at this scale"}
    assert untested == {"C1a", "C1b", "C2a", "C2b", "C5", "C6c"}
    assert "residual below 0.25" in claims["C2a"].expected


def test_collapsed_nets_are_left_out_and_too_few_are_not_judged():
    history = ideal_sweep()
    history["collapsed"][-1] = 1.0
    history["cost"][-1] = 1e6
    assert failing(depth_claims.check_bottleneck(history, "reduced")) <= {"C3b"}
    history["collapsed"][3:] = 1.0
    claims = depth_claims.check_bottleneck(history, "reduced")
    assert set(verdicts(claims).values()) == {"not tested at this scale"}


def ideal_schemes():
    layers, draws = [4, 10], 4
    generator = np.random.default_rng(1)
    nodes = max(layers) + 1
    shape = (2, draws, 3, nodes)
    axes = ("layers", "draw", "scheme", "layer")
    present = np.arange(nodes) < np.array(layers)[:, None, None, None]
    adaptive = np.array([name == "adaptive" for name in SCHEMES])[None, None, :, None]
    place = np.arange(nodes) / np.array(layers)[:, None, None, None]
    wobble = np.where(adaptive, 0.1, 1.0) * np.sin(6 * place)

    def steps(values):
        return np.where(present, np.broadcast_to(values, shape), np.nan)

    better = np.where(adaptive[..., 0], 0.9, 1.0) + 0.001 * generator.standard_normal(shape[:3])
    arrays = {
        "relative_step": (axes, steps(0.2 + 0.1 * wobble)),
        "pre_effective_dimension": (axes, steps(2 + wobble)),
        "step_size": (axes, steps(1 / np.array(layers)[:, None, None, None])),
        "test_cost": (axes[:3], better),
        "cost": (axes[:3], better),
        "residual": (axes[:3], np.full(shape[:3], 0.1)),
        "stationary": (axes[:3], np.ones(shape[:3])),
        "collapsed": (axes[:3], np.zeros(shape[:3])),
        "diverged": (axes[:3], np.zeros(shape[:3])),
        "kept_directions": (axes, steps(3.0)),
        "identity_cost": (
            (*axes, "ridge"),
            np.where(
                (np.arange(nodes) <= np.array(layers)[:, None, None, None])[..., None],
                5 + 0 * steps(1.0)[..., None],
                np.nan,
            ),
        ),
    }
    history = xr.Dataset(
        arrays,
        {
            "layers": layers,
            "draw": range(draws),
            "scheme": list(SCHEMES),
            "layer": [str(n) for n in range(nodes)],
            "ridge": [0.01],
        },
    )
    history.attrs["config"] = json.dumps({"fixed": {"widths": [30, 6, 3, 30]}})
    return history


def test_claims_about_step_sizes_hold_for_the_papers_picture_and_fail_for_its_mirror():
    good = ideal_schemes()
    assert verdicts(step_schemes.check(good, "reduced")) == dict.fromkeys(step_schemes.TEXTS, "pass")
    mirror = good.assign_coords(scheme=["adaptive", "irregular", "uniform"]).sel(scheme=list(SCHEMES))
    assert failing(step_schemes.check(mirror, "reduced")) == {"C8a", "C8b", "C8c", "C8d"}
    rank = good.assign(kept_directions=good["kept_directions"] * 2)
    assert failing(step_schemes.check(rank, "reduced")) == {"2b"}
    noisy = good.assign(test_cost=good["test_cost"] + np.random.default_rng(2).standard_normal((2, 4, 3)))
    assert "C8c" in failing(step_schemes.check(noisy, "reduced"))


def test_spreads_of_schemes_are_not_judged_far_from_critical_points():
    history = ideal_schemes()
    history["stationary"] = history["stationary"] * 0
    claims = {claim.key: claim for claim in step_schemes.check(history, "reduced")}
    assert claims["C8b"].verdict == "not tested at this scale"
    assert "there are 0 of 8" in claims["C8b"].expected
    assert set(verdicts(step_schemes.check(history, "smoke")).values()) == {"not tested at this scale"}


def test_torch_keeps_its_random_state():
    state = torch.random.get_rng_state()
    train_net(CELL)
    assert torch.equal(torch.random.get_rng_state(), state)
