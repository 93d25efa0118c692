"""Where chains rest: the specification's table, a brute-force complementarity solver, and long simulations."""

import math

import numpy as np
import pytest

from learnmech.errors import InputError, LearnmechWarning
from learnmech.springs import SpringChain, curvature, end_difference


def complementarity_solution(blocks, stiffness, target, friction):
    """Projected over-relaxation on: x >= 0, force <= friction, one of them tight for each block."""
    position = [0.0] * (blocks + 1) + [target]
    relaxation = 2 / (1 + math.sin(math.pi / (blocks + 1)))
    for _ in range(60 * blocks + 200):
        for block in range(1, blocks + 1):
            tight = (position[block - 1] + position[block + 1] - friction / stiffness) / 2
            position[block] = max(0.0, position[block] + relaxation * (tight - position[block]))
    return np.diff(position)


TABLE = [
    ({"friction_forward": 0.01}, [0.09, 0.10, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16]),
    ({"friction_forward": 0.03, "friction_backward": 0.7}, [0.02, 0.05, 0.08, 0.11, 0.14, 0.17, 0.20, 0.23]),
    ({"friction_forward": 0.003, "stiffness": 0.1}, [0.02, 0.05, 0.08, 0.11, 0.14, 0.17, 0.20, 0.23]),
    ({"friction_forward": 0.05}, [0, 0, 1 / 24, 11 / 120, 17 / 120, 23 / 120, 29 / 120, 7 / 24]),
    ({"friction_forward": 0.1}, [0, 0, 0, 0, 0.1, 0.2, 0.3, 0.4]),
    ({"friction_forward": 0.2}, [0, 0, 0, 0, 0, 2 / 15, 1 / 3, 8 / 15]),
    ({"blocks": 3, "stiffness": 2.0, "target": 1.5, "friction_forward": 0.4}, [0.075, 0.275, 0.475, 0.675]),
    ({"friction_forward": 2.0}, [0, 0, 0, 0, 0, 0, 0, 1]),
]


@pytest.mark.parametrize(("parameters", "elongations"), TABLE)
def test_noiseless_rest_matches_the_specification_and_the_simulation(parameters, elongations):
    chain = SpringChain(**parameters)
    assert chain.equilibrium().tolist() == pytest.approx(elongations, abs=1e-15)
    dt = 0.4 / parameters.get("stiffness", 1.0)
    run = chain.simulate(steps=1000, dt=dt)
    assert run.elongation.isel(time=-1, chain=0).values.tolist() == pytest.approx(elongations, abs=3e-15)


@pytest.mark.parametrize("seed", range(30))
def test_noiseless_rest_solves_the_complementarity_problem(seed):
    rng = np.random.default_rng(seed)
    blocks = int(rng.integers(1, 25)) if seed < 25 else 64
    stiffness, target = rng.uniform(0.1, 3), rng.uniform(0, 3)
    friction = stiffness * target * 10 ** rng.uniform(-4, 0.3)
    chain = SpringChain(blocks, stiffness, target, friction)
    expected = complementarity_solution(blocks, stiffness, target, friction)
    assert chain.equilibrium() == pytest.approx(expected, abs=1e-10 * max(target, 1))


@pytest.mark.parametrize(("blocks", "steps"), [(1, 500), (2, 500), (5, 2000), (13, 8000), (64, 60_000)])
def test_noiseless_rest_is_where_simulations_end(blocks, steps):
    """Frictions from full motion of all blocks down to the motion of none."""
    frictions = np.geomspace(0.5, 3 * blocks * (blocks + 1), 12) ** -1.0
    chain = SpringChain(blocks, friction_forward=frictions, friction_backward=0.02)
    run = chain.simulate(steps=steps, dt=0.45, record_every=steps)
    assert run.elongation.isel(time=-1, chain=0).values == pytest.approx(chain.equilibrium(), abs=1e-8)


def test_exactly_enough_load_is_the_limit_of_both_formulas():
    exact = SpringChain(friction_forward=1 / 28).equilibrium()
    assert exact == pytest.approx(SpringChain(friction_forward=(1 - 1e-12) / 28).equilibrium(), abs=1e-11)
    assert exact[0] == pytest.approx(0.0, abs=1e-15)


def test_an_unloaded_chain_has_no_elongation():
    chain = SpringChain(target=0.0, friction_forward=[0.0, 0.1])
    assert np.abs(chain.equilibrium()).max() == 0
    assert chain.equilibrium("high_noise")[1].sum() == pytest.approx(0.0, abs=1e-15)


def test_high_noise_rest():
    chain = SpringChain(friction_forward=[0.02, 0.07, 0.1], friction_backward=[0.07, 0.02, 0.1])
    steps = np.diff(chain.equilibrium("high_noise"), axis=-1)
    assert steps == pytest.approx(np.broadcast_to([[-0.025], [0.025], [0.0]], steps.shape), abs=1e-15)


class TestBoundedNoise:
    @pytest.mark.parametrize(
        ("bound", "force"), [(0.01, 0.02), (0.03, 0.0), (0.04, -0.01), (0.045, -0.015), (0.08, -0.015)]
    )
    def test_residual_force_of_the_specification(self, bound, force):
        chain = SpringChain(friction_forward=0.03, friction_backward=0.06)
        assert np.diff(chain.equilibrium("bounded", bound=bound)) == pytest.approx(force, abs=1e-15)

    @pytest.mark.parametrize("bound", [0.01, 0.03, 0.04, 0.045])
    def test_two_point_noise_gets_there(self, bound):
        chain = SpringChain(friction_forward=0.03, friction_backward=0.06)
        run = chain.simulate(1200, dt=0.2, noise=bound, noise_kind="two_point", chains=4, seed=1)
        expected = chain.equilibrium("bounded", bound=bound)
        assert np.abs(run.elongation.isel(time=-1).values - expected).max() < 5e-15

    @pytest.mark.parametrize("kind", ["two_point", "uniform"])
    def test_saturated_noise_rests_at_the_high_noise_mean(self, kind):
        chain = SpringChain(friction_forward=0.03, friction_backward=0.06)
        run = chain.simulate(2000, dt=0.05, noise=0.08, noise_kind=kind, chains=200, seed=2, record_every=200)
        settled = run.elongation.sel(time=slice(600, None))
        assert np.abs(settled.mean(("time", "chain")) - chain.equilibrium("bounded", bound=0.08)).max() < 1e-3

    @pytest.mark.parametrize("bound", [0.01, 0.03, 0.045])
    def test_uniform_noise_gets_there_like_one_over_time(self, bound):
        chain = SpringChain(friction_forward=0.03, friction_backward=0.06)
        expected = chain.equilibrium("bounded", bound=bound)
        run = chain.drift([600.0, 6000.0], noise=bound, noise_kind="uniform")
        early, late = np.abs(run.elongation - expected).max("layer").values
        assert early < 0.007
        assert late < 0.2 * early

    @pytest.mark.parametrize("seed", range(24))
    def test_random_chains_rest_there_under_two_point_noise(self, seed):
        """Where there is a closed form, and the noise is too weak to keep blocks moving, all paths end there."""
        rng = np.random.default_rng(seed)
        blocks = int(rng.integers(1, 9))
        forward, backward = rng.uniform(0, 0.3, 2) / rng.choice([1, blocks])
        bound = rng.uniform(0, 1) * (forward + backward) / 2
        chain = SpringChain(blocks, friction_forward=forward, friction_backward=backward)
        if bound > backward and (forward - bound) * blocks * (blocks + 1) / 2 >= 1:
            with pytest.warns(LearnmechWarning, match="no closed form"):
                assert np.isnan(chain.equilibrium("bounded", bound=bound)).all()
            return
        expected = chain.equilibrium("bounded", bound=bound)
        run = chain.simulate(steps=4000, dt=0.2, noise=bound, noise_kind="two_point", chains=3, seed=seed)
        assert np.abs(run.elongation.isel(time=-1).values - expected).max() < 1e-9

    def test_left_kicks_push_unloaded_blocks_back(self):
        """The specification's counter-example: d_1 = -0.043."""
        chain = SpringChain(friction_forward=0.1, friction_backward=0.02)
        with pytest.warns(LearnmechWarning, match="friction_backward"):
            assert np.isnan(chain.equilibrium("bounded", bound=0.05)).all()
        assert float(chain.drift([3000.0], 0.05, noise_kind="two_point").elongation[0, 0]) == pytest.approx(
            -0.043, abs=1e-3
        )


@pytest.mark.parametrize(("blocks", "force", "energy"), [(7, 0.01, 0.0021), (7, -0.02, 0.0084), (4, 0.05, 0.0125)])
def test_energy_above_the_uniform_chain(blocks, force, energy):
    forward, backward = (2 * force, 0.0) if force > 0 else (0.0, -2 * force)
    chain = SpringChain(blocks, friction_forward=forward, friction_backward=backward)
    rest = chain.equilibrium("high_noise")
    assert float(chain.energy(rest, above_uniform=True)) == pytest.approx(energy, abs=1e-16)
    uniform = np.full(blocks + 1, 1 / (blocks + 1))
    assert float(chain.energy(rest) - chain.energy(uniform)) == pytest.approx(energy, abs=1e-15)
    assert float(chain.energy(uniform, above_uniform=True)) == pytest.approx(0.0, abs=1e-30)


@pytest.mark.parametrize(("force", "q", "c"), [(0.01, -0.32, -0.06), (0.03, -0.96, -0.18), (-0.02, 0.64, 0.12)])
def test_shape_of_the_load_curve(force, q, c):
    forward, backward = (2 * force, 0.0) if force > 0 else (0.0, -2 * force)
    chain = SpringChain(friction_forward=forward, friction_backward=backward)
    loads = chain.load_curve(chain.equilibrium("high_noise"))
    assert loads[[0, -1]].tolist() == pytest.approx([1.0, 0.0], abs=1e-15)
    assert float(curvature(loads)) == pytest.approx(q, abs=1e-12)
    assert float(end_difference(loads[:-1])) == pytest.approx(c, abs=1e-12)


def test_energy_and_load_curve_follow_named_axes():
    chain = SpringChain(stiffness=[1.0, 2.0], friction_forward=0.01)
    run = chain.drift([0.0, 10.0])
    energy = chain.energy(run.elongation)
    assert energy.dims == ("stiffness", "time")
    assert energy.sel(stiffness=2.0, time=0.0) == 1.0  # all the load on the last spring: k y^2 / 2
    assert energy.values == pytest.approx(chain.energy(run.elongation.values.transpose(1, 0, 2)).T)
    excess = chain.energy(run.elongation, above_uniform=True)
    assert excess.sel(stiffness=2.0, time=0.0) == pytest.approx(1 - 1 / 8)
    assert chain.load_curve(run.elongation)[..., 1:] == pytest.approx(run["load"].values, abs=1e-15)


def test_bad_questions():
    chain = SpringChain()
    with pytest.raises(InputError, match="'noiseless', 'high_noise' or 'bounded'"):
        chain.equilibrium("noisy")
    for arguments in ({"regime": "bounded"}, {"bound": 0.1}):
        with pytest.raises(InputError, match="bound belongs to the regime 'bounded'"):
            chain.equilibrium(**arguments)
    with pytest.raises(InputError, match="bound must be at least 0"):
        chain.equilibrium("bounded", bound=-0.1)
    with pytest.raises(InputError, match="has 8 elongations"):
        chain.energy(np.ones(7))
    with pytest.raises(InputError, match="has 8 elongations"):
        chain.load_curve(1.0)
