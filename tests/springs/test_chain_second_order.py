"""Chains with inertia: rest, stationary mean, damping, and the traps of the paper's notebook."""

import warnings

import numpy as np
import pytest

from learnmech.errors import InputError, LearnmechWarning
from learnmech.springs import SpringChain

BOTH = pytest.mark.parametrize("dynamics", ["stick_slip", "langevin"])


@BOTH
@pytest.mark.parametrize(
    ("damping", "friction", "steps", "error"),
    [(5.0, 0.01, 8000, 3e-9), (3.0, 0.03, 8000, 1e-12), (5.0, 0.1, 8000, 1e-9)],
)
def test_rests_where_the_first_order_chain_does(dynamics, damping, friction, steps, error):
    chain = SpringChain(friction_forward=friction)
    with warnings.catch_warnings():
        if damping < 3.9:
            warnings.simplefilter("ignore", LearnmechWarning)
        run = chain.simulate(steps=steps, dt=0.1, damping=damping, dynamics=dynamics)
    assert np.abs(run.elongation.isel(time=-1, chain=0) - chain.equilibrium()).max() < error


@BOTH
@pytest.mark.parametrize("seed", range(4))
def test_default_damping_prevents_overshoot(dynamics, seed):
    rng = np.random.default_rng(seed)
    blocks = int(rng.integers(1, 12))
    chain = SpringChain(blocks, stiffness=rng.uniform(0.1, 4), friction_forward=rng.uniform(0, 0.1))
    run = chain.simulate(steps=12_000, dt=0.1 / np.sqrt(chain.stiffness), dynamics=dynamics)
    assert np.abs(run.elongation.isel(time=-1, chain=0) - chain.equilibrium()).max() < 1e-7
    assert run.position.diff("time").min() > -1e-9


@pytest.mark.parametrize("damping", [0.5, 0.2])
def test_under_damped_chains_overshoot_and_are_warned_of(damping):
    chain = SpringChain(friction_forward=0.03, friction_backward=0.03)
    with pytest.warns(LearnmechWarning, match=r"oscillate and overshoot its rest; 3\.923 or more is safe"):
        run = chain.simulate(400, dt=0.02, damping=damping, dynamics="stick_slip")
    assert np.abs(run.elongation.isel(time=-1, chain=0) - chain.equilibrium()).max() > 0.01
    assert run.position.diff("time").min() < 0


@BOTH
def test_stationary_mean(dynamics):
    chain = SpringChain(friction_forward=0.02, friction_backward=0.07)
    with pytest.warns(LearnmechWarning, match="oscillate"):
        run = chain.simulate(
            steps=12_000, dt=0.05, damping=3.0, noise=0.3, dynamics=dynamics, chains=300, seed=2, record_every=200
        )
    slopes = run.elongation.sel(time=slice(200, None)).mean("time").diff("layer").mean("layer").values
    error = slopes.std() / np.sqrt(len(slopes))
    assert error < 5e-4
    assert abs(slopes.mean() + 0.025) < 4 * error


@pytest.mark.parametrize("dt", [0.05, 0.1, 0.3])
def test_friction_holds_at_rest_without_creep(dt):
    """Explicit sign friction creeps by a fifth of the elongations for steps from 0.05 on; the proximal step does not."""
    chain = SpringChain(stiffness=0.1, friction_forward=0.003, friction_backward=0.004)
    with pytest.warns(LearnmechWarning, match="oscillate"):
        run = chain.simulate(1400, dt=dt, damping=1.0, dynamics="langevin")
    assert np.abs(run.elongation.isel(time=-1, chain=0) - chain.equilibrium()).max() < 3e-6


def test_the_notebook_with_common_noise_of_the_right_strength():
    """The notebook's common noise is root 7 too strong, which alone moves its end from linear to the high-noise limit."""
    chain = SpringChain(stiffness=0.1, friction_forward=0.003, friction_backward=0.004)
    level = 0.003 / np.sqrt(0.05) * np.array([1.0, np.sqrt(7)])
    with pytest.warns(LearnmechWarning, match="oscillate"):
        run = chain.simulate(
            700, dt=0.05, damping=1.0, noise=level, noise_decay=0.001, common_noise=True, dynamics="langevin", chains=60
        )
    end = run.elongation.isel(time=-1).mean("chain")
    right, strong = (end.sel(layer="1") - end.sel(layer="7")).values
    assert abs(right) < 0.012
    assert strong == pytest.approx(0.028, abs=0.006)


def test_signs_of_the_phase_diagram():
    """Concave with friction and little noise, convex with noise and little friction, as in first order."""
    chain = SpringChain(friction_forward=np.array([[0.0], [0.03]]), friction_backward=0.04)
    for dynamics in ("stick_slip", "langevin"):
        run = chain.simulate(400, dt=0.1, noise=[0.0, 0.5], dynamics=dynamics, chains=100, record_every=4000)
        end = run.elongation.isel(time=-1).mean("chain")
        ends = (end.sel(layer="1") - end.sel(layer="7")).transpose("friction_forward", "noise").values
        assert abs(ends[0, 0]) < 1e-2
        assert ends[0, 1] > 0.05
        assert ends[1, 0] < -0.15
        assert ends[1, 1] > -0.02


def test_time_steps():
    chain = SpringChain()
    with pytest.raises(InputError, match="unstable"):
        chain.simulate(steps=5, dt=0.6, dynamics="langevin")
    with pytest.warns(LearnmechWarning, match="their motion is smooth"):
        chain.simulate(steps=5, dt=0.3, dynamics="langevin")
    with pytest.warns(LearnmechWarning, match="oscillate"):
        chain.simulate(steps=5, dt=0.3, damping=0.0, dynamics="stick_slip")


@BOTH
def test_the_limit_of_stability_is_sharp(dynamics):
    chain = SpringChain(stiffness=1.3)
    rate = 1.3 * 2 * (1 - np.cos(np.pi * 7 / 8))
    limit = (np.sqrt(25 + 4 * rate) - 5) / rate
    start = 0.01 * (-1.0) ** np.arange(7)
    with pytest.warns(LearnmechWarning, match="smooth"):
        run = chain.simulate(steps=3000, dt=0.995 * limit, damping=5.0, dynamics=dynamics, initial=start)
    assert np.abs(run.position.isel(time=-1, chain=0).values[:-1] - np.arange(1, 8) / 8).max() < 1e-3
    with pytest.raises(InputError, match="unstable"):
        chain.simulate(steps=5, dt=1.001 * limit, damping=5.0, dynamics=dynamics)
