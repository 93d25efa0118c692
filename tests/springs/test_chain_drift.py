"""The drift model against SciPy's integrator, exact relaxation, the simulation, and the specification's phase table."""

import math

import numpy as np
import pytest
from scipy import integrate, linalg

from learnmech import history
from learnmech.errors import InputError
from learnmech.springs import SpringChain
from learnmech.springs.drift import mean_positions
from learnmech.springs.friction import mean_drift

KINDS = ("gaussian", "truncated", "uniform", "two_point")


def by_solve_ivp(times, blocks, stiffness, wall, forward, backward, noise, kind, decay=0.0):
    def velocity(time, position):
        whole = np.concatenate([[0.0], position, [wall(time)]])
        force = stiffness * np.diff(whole, 2)
        return mean_drift(force, noise * math.exp(-decay * time), forward, backward, kind)

    solution = integrate.solve_ivp(
        velocity, (0, times[-1]), np.zeros(blocks), t_eval=times, rtol=1e-10, atol=1e-12, method="LSODA", max_step=0.5
    )
    return solution.y.T


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [0.0, 0.03, 0.2])
def test_equals_solve_ivp(kind, noise):
    times = np.array([0.5, 3.0, 20.0, 60.0])
    expected = by_solve_ivp(times, 5, 1.3, lambda time: 0.8, 0.03, 0.05, noise, kind)
    found = mean_positions(
        times,
        blocks=5,
        stiffness=1.3,
        target=0.8,
        friction_forward=0.03,
        friction_backward=0.05,
        noise=noise,
        noise_kind=kind,
    )
    assert np.abs(found - expected).max() < 1e-6


@pytest.mark.parametrize("as_table", [True, False])
def test_follows_a_moving_wall(as_table):
    marks = np.array([0.0, 5.0, 11.0, 30.0])
    heights = np.array([1.0, 2.0, 0.5, 1.5])

    def wall(time):
        return np.interp(time, marks, heights)

    times = np.linspace(1, 40, 14)
    found = mean_positions(
        times,
        blocks=4,
        target=(marks, heights) if as_table else wall,
        friction_forward=0.02,
        friction_backward=0.06,
        noise=0.05,
    )
    expected = by_solve_ivp(times, 4, 1.0, wall, 0.02, 0.06, 0.05, "gaussian")
    assert np.abs(found - expected).max() < 5e-6
    many = mean_positions(
        times,
        blocks=4,
        target=(marks, np.stack([heights, 2 * heights])),
        friction_forward=[0.02, 0.04],
        friction_backward=[0.06, 0.12],
        noise=[0.05, 0.1],
    )
    assert np.abs(many[0] - expected).max() < 5e-6
    assert np.abs(many[1] - 2 * expected).max() < 1e-5  # the model has no scale of its own


def test_noise_may_decay():
    times = np.array([5.0, 50.0, 300.0])
    expected = by_solve_ivp(times, 3, 1.0, lambda time: 1.0, 0.1, 0.2, 0.3, "gaussian", decay=0.02)
    chain = SpringChain(3, friction_forward=0.1, friction_backward=0.2)
    run = chain.drift(times, 0.3, noise_decay=[0.0, 0.02])
    assert run.sizes == {"noise_decay": 2, "time": 3, "layer": 4}
    assert np.abs(run.position.values[1, :, :-1] - expected).max() < 1e-6


def test_frictionless_chains_relax_exactly():
    matrix = 2 * np.eye(6) - np.eye(6, k=1) - np.eye(6, k=-1)
    start, rest = np.linspace(0.3, -0.2, 6), np.arange(1, 7) / 7
    run = SpringChain(6, stiffness=0.7).drift([0.0, 1.0, 7.0], initial=start, noise=0.5)
    for time in run.time.values:
        expected = rest + linalg.expm(-0.7 * matrix * time) @ (start - rest)
        assert np.abs(run.position.sel(time=time).values[:-1] - expected).max() < 1e-6


def test_numbers_of_the_specification_and_the_simulation():
    chain = SpringChain(friction_forward=0.1, friction_backward=0.1)
    drift = chain.drift([20.0, 100.0], 0.1)
    expected = [0.0483, 0.0591, 0.0795, 0.1070, 0.1382, 0.1684, 0.1929, 0.2066]
    assert drift.elongation.sel(time=20.0).values.tolist() == pytest.approx(expected, abs=1e-4)  # Monte Carlo digits
    assert drift.elongation.sel(time=100.0).values[[0, -1]].tolist() == pytest.approx([0.1234, 0.1266], abs=5e-5)
    run = chain.simulate(20.0, noise=0.1, chains=1000, seed=3)
    sampled = run.position.isel(time=-1)
    error = sampled.std("chain").max().item() / math.sqrt(1000)
    assert np.abs(sampled.mean("chain") - drift.position.sel(time=20.0)).max() < 4 * error + 3e-4


NOISE = [0.0, 0.003, 0.006, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32]
PHASES = {
    0.0: [0, 0.024, 0.049, 0.082, 0.118, 0.120, 0.119, 0.119, 0.116],
    0.005: [-0.03, -0.006, 0.019, 0.053, 0.101, 0.105, 0.103, 0.105, 0.099],
    0.02: [-0.12, -0.096, -0.071, -0.037, 0.038, 0.060, 0.060, 0.058, 0.060],
    0.03: [-0.18, -0.156, -0.130, -0.096, -0.012, 0.029, 0.030, 0.029, 0.032],
}


@pytest.fixture(scope="module")
def phases():
    return SpringChain(friction_forward=np.array(list(PHASES))[:, None], friction_backward=0.04).drift([100.0], NOISE)


def test_phase_table(phases):
    """First minus last but one elongation at t = 100; the table is sampled, with errors up to 0.0055."""
    elongation = phases.elongation.isel(time=0)
    found = elongation.sel(layer="1") - elongation.sel(layer="7")
    assert found.dims == ("friction_forward", "noise")
    assert np.abs(found.values - np.array(list(PHASES.values()))).max() < 0.0065


def test_phenomena(phases):
    """More friction makes curves concave, more noise convex; strong noise saturates at -6 m."""
    elongation = phases.elongation.isel(time=0)
    ends = (elongation.sel(layer="1") - elongation.sel(layer="7")).values
    assert (np.diff(ends, axis=0) < 0).all()
    assert (np.diff(ends[:, :6], axis=1) > 0).all()
    assert ends[:, -1] == pytest.approx(-6 * (np.array(list(PHASES)) - 0.04) / 2, abs=1e-3)
    equal = SpringChain(friction_forward=0.04, friction_backward=0.04).drift([1000.0], [0.0, 0.01, 0.04, 0.3])
    convex = (equal.elongation.sel(layer="1") - equal.elongation.sel(layer="7")).values
    assert convex.max() < 1e-5


def test_is_a_history(phases, tmp_path):
    path = history.save(phases, tmp_path / "phases.nc")
    assert history.load(path).equals(phases)
    assert phases["load"].values + phases.position.values == pytest.approx(1.0)
    assert phases.attrs["citations"] == '["shi2024"]'


def test_any_scale():
    """Noise far above the load, no load at all, and a solver that cannot follow."""
    strong = mean_positions([500.0], blocks=3, noise=[1.0, 1e3, 1e6], friction_forward=0.1, friction_backward=0.1)
    assert np.abs(strong - [0.25, 0.5, 0.75]).max() < 1e-6
    unloaded = mean_positions([500.0], blocks=3, target=[0.0, 0.0, 1.0], friction_forward=[0.0, 0.1, 0.1], noise=0.3)
    assert np.abs(unloaded[:, 0] - [[0, 0, 0], [-0.075, -0.1, -0.075], [0.175, 0.4, 0.675]]).max() < 1e-6
    with pytest.raises(InputError, match=r"could not be solved \(Excess work.*noise 1e\+12"):
        mean_positions([1.0, 200.0], blocks=3, noise=1e12, friction_forward=0.1, friction_backward=0.1)


def test_single_blocks_and_many_times():
    times = np.linspace(0, 10, 50)
    run = SpringChain(1, stiffness=0.5, target=[1.0, 2.0]).drift(times)
    expected = np.array([[1.0], [2.0]]) / 2 * (1 - np.exp(-times))
    assert np.abs(run.position.values[..., 0] - expected).max() < 1e-6
    assert run.target.values.tolist() == [1.0, 2.0]


def test_bad_input():
    chain = SpringChain(3)
    for times in ([1.0, 0.5], [], [np.nan], [[0.0, 1.0]]):
        with pytest.raises(InputError, match="times must be a list of finite numbers that increase"):
            chain.drift(times)
    with pytest.raises(InputError, match="must not lie before the start"):
        chain.drift([-1.0])
    with pytest.raises(InputError, match=r"initial positions of shape \(\.\.\., 3\)"):
        chain.drift([1.0], initial=[0.0, 0.1])
    with pytest.raises(InputError, match="must be finite"):
        mean_positions([1.0], blocks=2, target=np.inf)
    with pytest.raises(InputError, match="one value for each"):
        mean_positions([1.0], blocks=2, target=([0.0, 1.0], [1.0, 2.0, 3.0]))
    with pytest.raises(InputError, match="do not broadcast"):
        mean_positions([1.0], blocks=2, noise=[0.1, 0.2], friction_forward=[0.1, 0.2, 0.3])
