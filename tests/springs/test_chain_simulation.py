"""First-order simulation: exact identities path by path, stationary moments, recording, reproducibility."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.special import erfc

from learnmech import history
from learnmech.errors import InputError, LearnmechWarning
from learnmech.springs import SpringChain
from learnmech.springs.langevin import Langevin
from learnmech.springs.overdamped import Overdamped
from learnmech.springs.stick_slip import StickSlip

NAMES = ("overdamped", "stick_slip", "langevin")


def test_frictionless_relaxation_is_a_matrix_power():
    matrix = 2 * np.eye(7) - np.eye(7, k=1) - np.eye(7, k=-1)
    rest, start = np.arange(1, 8) / 8, np.array([0.3, -0.1, 0.5, 0.0, 0.2, 0.9, 1.1])
    run = SpringChain().simulate(steps=777, initial=start)
    expected = rest + np.linalg.matrix_power(np.eye(7) - 0.01 * matrix, 777) @ (start - rest)
    assert run.position.isel(time=-1, chain=0).values[:-1] == pytest.approx(expected, abs=2e-14)


@pytest.mark.parametrize("dynamics", NAMES)
@pytest.mark.parametrize("common", [False, True])
def test_conjugacy_path_by_path(dynamics, common):
    """A chain under load with unequal frictions is an unloaded chain with equal ones, shifted by its high-noise rest."""
    options = {
        "steps": 3000,
        "noise": 0.05,
        "chains": 3,
        "seed": 4,
        "dynamics": dynamics,
        "common_noise": common,
        "dt": 0.02,
    }
    loaded = SpringChain(friction_forward=0.02, friction_backward=0.07)
    rest = np.cumsum(loaded.equilibrium("high_noise"))[:-1]
    one = loaded.simulate(**options)
    other = SpringChain(target=0.0, friction_forward=0.045, friction_backward=0.045).simulate(initial=-rest, **options)
    assert np.abs(one.position.values[..., :-1] - rest - other.position.values[..., :-1]).max() < 1e-12


@pytest.mark.parametrize("stepper", [Overdamped, StickSlip, Langevin])
@pytest.mark.parametrize("rows", [1, 7])
def test_opposite_noise_averages_to_the_high_noise_rest(stepper, rows):
    chain = SpringChain(friction_forward=0.02, friction_backward=0.07)
    rest = np.cumsum(chain.equilibrium("high_noise"))[:-1]
    start = torch.from_numpy(rest)[:, None].expand(7, 4)
    pair = [
        stepper(start, stiffness=1.0, target=1.0, friction_forward=0.02, friction_backward=0.07, dt=0.02, damping=4.0)
        for _ in range(2)
    ]
    generator = torch.Generator().manual_seed(0)
    for _ in range(1000):
        draws = torch.randn(rows, 4, dtype=torch.float64, generator=generator)
        pair[0].step(draws, 0.3)
        pair[1].step(draws, -0.3)
    assert (pair[0].positions - pair[1].positions).abs().max() > 0.01
    assert np.abs(((pair[0].positions + pair[1].positions) / 2).numpy() - rest[:, None]).max() < 1e-14


@pytest.mark.parametrize("dynamics", NAMES)
def test_one_step_by_hand(dynamics):
    """Each chain takes its own parameters: compare a grid with the formula, written out for one step from rest."""
    stiffness, level = np.array([0.5, 1.0, 2.0]), 0.3
    chain = SpringChain(3, stiffness, friction_forward=0.1, friction_backward=0.2)
    quiet = chain.simulate(steps=1, dt=0.05, initial=[0.3, 0.2, 0.4], dynamics=dynamics)
    gain = 0.05 if dynamics == "overdamped" else 0.05**2
    force = stiffness[:, None] * np.array([-0.4, 0.3, 0.4])
    expected = np.array([0.3, 0.2, 0.4]) + gain * (force - np.clip(force, -0.2, 0.1))
    assert quiet.position.values[:, 1, 0, :-1] == pytest.approx(expected, abs=1e-15)
    noisy = chain.simulate(
        steps=1, dt=0.05, initial=[0.3, 0.2, 0.4], dynamics=dynamics, noise=level, noise_kind="two_point"
    )
    kicked = np.stack([force - level, force + level])
    choices = np.array([0.3, 0.2, 0.4]) + gain * (kicked - np.clip(kicked, -0.2, 0.1))
    assert np.abs(noisy.position.values[:, 1, 0, :-1] - choices).min(axis=0).max() < 1e-15


MEANS = [(0.02, 0.07, 0.05, -0.025), (0.07, 0.02, 0.05, 0.025), (0.0, 0.05, 0.05, -0.025), (0.1, 0.1, 0.1, 0.0)]


@pytest.mark.parametrize("common", [False, True])
def test_stationary_mean(common):
    """400 chains, 40 snapshots after 6000 steps; the slope of the elongations is (mu+ - mu-)/2 exactly."""
    cases = np.array(MEANS[:1] if common else MEANS)
    chain = SpringChain(friction_forward=cases[:, 0], friction_backward=cases[:, 1])
    run = chain.simulate(
        steps=10_000, dt=0.05, noise=cases[:, 2], chains=400, seed=1, record_every=100, common_noise=common
    )
    settled = run.elongation.sel(time=slice(300, None)).mean("time")
    spring = np.arange(8) - 3.5
    slopes = (settled.values @ spring) / (spring @ spring)  # cells x chains
    error = slopes.std(axis=-1) / math.sqrt(400)
    assert (error < 4e-4).all()
    assert (np.abs(slopes.mean(axis=-1) - cases[:, 3]) < 4 * error).all()


@pytest.mark.parametrize(("half", "noise", "dt", "spread"), [(0.1, 0.1, 0.01, 0.00689), (0.05, 0.2, 0.02, 0.02564)])
def test_stationary_spread(half, noise, dt, spread):
    def tail(z):
        return erfc(z / math.sqrt(2)) / 2

    ratio = half / noise
    kappa = 2 * tail(ratio)
    density = math.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
    power = 2 * ((1 + ratio**2) * tail(ratio) - ratio * density)
    block = np.arange(1, 8)
    variance = dt * noise**2 * power / (2 * kappa) * block * (8 - block) / 8
    assert math.sqrt(variance[3]) == pytest.approx(spread, abs=1e-5)
    run = SpringChain(friction_forward=half, friction_backward=half).simulate(
        200, dt=dt, noise=noise, chains=500, seed=7, initial=block / 8, record_every=round(20 / dt)
    )
    sampled = run.position.sel(time=slice(80, None), layer=[str(number) for number in block]).var(("time", "chain"))
    assert (sampled.values / variance).tolist() == pytest.approx([1.0] * 7, abs=0.11)


def test_common_noise_has_the_same_strength():
    """One draw for all blocks, not the root of their number times too strong as in the paper's notebook."""
    options = {"steps": 1, "dt": 0.01, "noise": 2.0, "chains": 20_000, "initial": np.arange(1, 8) / 8}
    moves = {
        common: SpringChain().simulate(common_noise=common, **options).position.diff("time").values[0, :, :-1] / 0.02
        for common in (False, True)
    }
    assert np.ptp(moves[True], axis=-1).max() < 1e-12
    assert moves[True][:, 0].std() == pytest.approx(1.0, abs=0.02)
    assert moves[False].std() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("dynamics", NAMES)
def test_recording_does_not_change_the_path(dynamics):
    chain = SpringChain(4, friction_forward=[0.0, 0.05], friction_backward=0.03)
    options = {"steps": 250, "dt": 0.05, "noise": 0.1, "noise_decay": 0.1, "chains": 5, "seed": 9, "dynamics": dynamics}
    fine, coarse, usual = (chain.simulate(record_every=spacing, **options) for spacing in (1, 90, None))
    assert len(fine.time) == 251
    assert coarse.time.values.tolist() == pytest.approx([0.0, 4.5, 9.0, 12.5])
    assert len(usual.time) <= 102
    for run in (coarse, usual):
        assert run.position.equals(fine.position.isel(time=np.rint(run.time.values / 0.05).astype(int)))
    longer = chain.simulate(**{**options, "steps": 400}, record_every=250)
    assert longer.position.isel(time=1).equals(fine.position.isel(time=-1).assign_coords(time=longer.time[1]))
    assert not np.array_equal(chain.simulate(**{**options, "seed": 10}).position.values, usual.position.values)


def test_many_chunks_are_independent_and_equal_in_law(monkeypatch):
    chain = SpringChain(2, friction_forward=0.02, friction_backward=0.07)
    monkeypatch.setattr("learnmech.springs.simulation.BLOCKS_AT_ONCE", 64)
    options = {"steps": 600, "dt": 0.2, "noise": 0.2, "chains": 200, "record_every": 600}
    run = chain.simulate(**options)
    final = run.position.isel(time=-1).values[:, :-1]
    assert len(np.unique(final[:, 0])) == 200
    rest = np.cumsum(chain.equilibrium("high_noise"))[:-1]
    assert (np.abs(final.mean(axis=0) - rest) < 4 * final.std(axis=0) / math.sqrt(200)).all()
    stopping = chain.simulate(stop_tolerance=0.0, **options)
    assert stopping.position.equals(run.position)


def test_decaying_noise_ends_between_both_limits():
    chain = SpringChain(friction_forward=0.02, friction_backward=0.07)
    run = chain.simulate(600, dt=0.1, noise=0.1, noise_decay=[0.0, 0.01, 10.0], chains=50, seed=3)
    slopes = run.elongation.isel(time=-1).mean("chain").diff("layer").mean("layer").values
    assert slopes[0] == pytest.approx(-0.025, abs=0.004)
    assert slopes[2] == pytest.approx(0.02, abs=0.003)
    drift = chain.drift([600.0], 0.1, noise_decay=[0.0, 0.01, 10.0]).elongation.isel(time=0)
    assert slopes == pytest.approx(drift.diff("layer").mean("layer").values, abs=0.004)


def test_stops_when_nothing_moves():
    chain = SpringChain(friction_forward=[0.01, 0.03])
    run = chain.simulate(5000, dt=0.1, record_every=50, stop_tolerance=1e-6)
    assert 20 < run.time[-1] < 500
    assert run.elongation.isel(time=-1, chain=0).values == pytest.approx(chain.equilibrium(), abs=1e-5)
    assert json.loads(run.attrs["config"])["stop_tolerance"] == 1e-6


def test_start_of_every_chain():
    chain = SpringChain(2, friction_forward=[0.0, 0.1, 0.2])
    shared = chain.simulate(steps=1, chains=4, initial=[0.1, 0.2])
    assert (shared.position.values[:, 0, :, :-1] == [0.1, 0.2]).all()
    own = np.random.default_rng(0).uniform(size=(3, 4, 2))
    assert np.array_equal(chain.simulate(steps=1, chains=4, initial=own).position.values[:, 0, :, :-1], own)
    for wrong in (0.5, [0.1, 0.2, 0.3], np.zeros((2, 2)), [math.nan, 0.0]):
        with pytest.raises(InputError, match="initial positions must"):
            chain.simulate(steps=1, initial=wrong)


def test_is_a_history(tmp_path):
    chain = SpringChain(2, target=[1.0, 2.0])
    run = chain.simulate(1.0, noise=0.1, noise_kind="uniform", chains=3, seed=5)
    assert run.position.dims == ("target", "time", "chain", "layer")
    assert run.layer.values.tolist() == ["1", "2", "3"]
    assert run.depth.values == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert np.array_equal(run["load"].values, (run.target - run.position).transpose(*run["load"].dims).values)
    assert run.elongation.sum("layer").values == pytest.approx(np.broadcast_to([[[1.0]], [[2.0]]], (2, 101, 3)))
    assert run.attrs["noise_bound"] == 0.1
    assert run.attrs["seed"] == 5
    assert run.attrs["dynamics"] == "overdamped"
    assert run.attrs["citations"] == '["shi2024"]'
    config = json.loads(run.attrs["config"])
    assert {"blocks", "dt", "noise", "noise_kind", "target", "seed", "steps", "chains"} <= set(config)
    stored = history.load(history.save(run, tmp_path / "run.nc"))
    assert stored.equals(run)
    assert stored.attrs == run.attrs
    endless = chain.simulate(steps=1, noise=0.1)
    assert endless.attrs["noise_bound"] == math.inf
    assert history.load(history.save(endless, tmp_path / "endless.nc")).attrs["noise_bound"] == math.inf


def test_single_precision():
    chain = SpringChain(friction_forward=[0.01, 0.1], friction_backward=0.1)
    run = chain.simulate(600, dt=0.1, dtype=torch.float32)
    assert run.position.dtype == np.float32
    assert run.elongation.isel(time=-1, chain=0).values == pytest.approx(chain.equilibrium(), abs=1e-5)
    for dynamics in NAMES:
        noise = [0.0, 0.1]
        assert (
            chain.simulate(steps=20, noise=noise, dtype=torch.float32, dynamics=dynamics).position.dtype == np.float32
        )


def test_bad_input():
    chain = SpringChain()
    for arguments, message in [
        ({}, "either duration or steps"),
        ({"duration": 1.0, "steps": 5}, "either duration or steps"),
        ({"duration": 0.001}, "at least one step"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"steps": 5, "dt": 0.0}, "dt must be a number above 0"),
        ({"steps": 5, "noise": -0.1}, "noise must be at least 0"),
        ({"steps": 5, "noise": math.nan}, "noise must be finite"),
        ({"steps": 5, "noise_kind": "levy"}, "noise_kind must be one of"),
        ({"steps": 5, "dynamics": "newton"}, "dynamics must be one of"),
        ({"steps": 5, "damping": 1.0}, "damping is for"),
        ({"steps": 5, "chains": 0}, "chains must be a whole number of at least 1"),
        ({"steps": 5, "seed": -1}, "seed must be a whole number of at least 0"),
        ({"steps": 5, "record_every": 0}, "record_every must be a whole number"),
        ({"steps": 5, "stop_tolerance": 1.0}, "stop_tolerance must lie"),
        ({"steps": 5, "dtype": torch.float16}, "dtype must be"),
        ({"steps": 5, "dt": 0.53}, "unstable.*less than 0.5198"),
        ({"steps": 10**6, "chains": 1000, "record_every": 1}, "take record_every=40"),
    ]:
        with pytest.raises(InputError, match=message):
            chain.simulate(**arguments)


def test_steps_between_smooth_and_unstable_are_warned_of():
    with pytest.warns(LearnmechWarning, match=r"up to 0\.5 their motion is smooth"):
        SpringChain().simulate(steps=5, dt=0.51)


def test_progress_is_shown_on_a_terminal_only(monkeypatch, capsys):
    monkeypatch.setattr("learnmech.springs.simulation.LONG", 0)
    SpringChain().simulate(steps=5)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    SpringChain().simulate(steps=5)
    shown = capsys.readouterr()
    assert "simulating" in shown.err
    assert shown.out == ""


def test_large_grids_keep_their_configuration_small(tmp_path):
    grid = np.linspace(0, 0.1, 2000)
    run = SpringChain(1, friction_forward=grid[:, None], friction_backward=0.1).simulate(steps=2, noise=[0.0, 0.1])
    config = json.loads(run.attrs["config"])
    assert config["noise"] == {"dims": ["noise"], "values": [0.0, 0.1]}
    assert config["friction_backward"] == 0.1
    assert set(config["friction_forward"]) == {"dims", "fingerprint"}
    assert history.load(history.save(run, tmp_path / "large.nc")).equals(run)


def test_explosions_are_reported():
    with pytest.raises(InputError, match=r"infinite by step 4; take a smaller dt"):
        SpringChain().simulate(steps=40, dt=0.1, noise=1e308, record_every=4)
