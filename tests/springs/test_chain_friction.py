"""Mean drift and effective friction against quadrature over the density of the noise, and the limits of the theory."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from learnmech.errors import InputError
from learnmech.springs import SpringChain
from learnmech.springs.friction import effective_friction, mean_drift, noise_bound, sliding_force
from learnmech.springs.spring_noise import SpringNoise

KINDS = ("gaussian", "truncated", "uniform", "two_point")
CASES = [
    (0.05, 0.1, 0.1, 0.1),
    (0.2, 0.1, 0.05, 0.3),
    (-0.02, 0.03, 0.06, 0.02),
    (0.0, 0.1, 0.02, 1.0),
    (0.3, 0.1, 0.0, 0.05),
]


def mean_by_quadrature(kind, force, forward, backward, noise):
    def moved(draw):
        drive = force + noise * draw
        return drive - forward if drive > forward else drive + backward if drive < -backward else 0.0

    if kind == "two_point":
        return (moved(1.0) + moved(-1.0)) / 2
    density, reach = {
        "gaussian": (stats.norm.pdf, 12.0),
        "truncated": (stats.truncnorm(-2, 2).pdf, 2.0),
        "uniform": (stats.uniform(-1, 2).pdf, 1.0),
    }[kind]
    edges = [edge for edge in ((forward - force) / noise, (-backward - force) / noise) if abs(edge) < reach]
    return integrate.quad(lambda draw: moved(draw) * density(draw), -reach, reach, points=edges, epsabs=1e-13)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("force", "forward", "backward", "noise"), CASES)
def test_mean_drift_is_the_average_over_the_noise(kind, force, forward, backward, noise):
    expected = mean_by_quadrature(kind, force, forward, backward, noise)
    assert float(mean_drift(force, noise, forward, backward, kind)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("case", "expected"), list(zip(CASES, [0.016849, 0.142279, -0.000130, -0.038087], strict=False))
)
def test_numbers_of_the_specification(case, expected):
    force, forward, backward, noise = case
    chain = SpringChain(friction_forward=forward, friction_backward=backward)
    assert float(chain.mean_drift(force, noise)) == pytest.approx(expected, abs=5e-7)
    assert float(chain.effective_friction(force, noise)) == pytest.approx(force - expected, abs=5e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_the_distribution_that_the_formulas_assume(kind):
    draws = SpringNoise(kind, rows=7, chains=3000, seed=(5,)).draw().double().numpy().ravel()
    for force, forward, backward, noise in CASES:
        values = sliding_force(force + noise * draws, forward, backward)
        error = values.std() / math.sqrt(values.size) + 1e-9
        assert abs(values.mean() - float(mean_drift(force, noise, forward, backward, kind))) < 4 * error
    assert np.abs(draws).max() <= noise_bound(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_no_noise_leaves_dry_friction(kind):
    forces = np.linspace(-0.5, 0.5, 41)
    assert mean_drift(forces, 0.0, 0.1, 0.25, kind) == pytest.approx(sliding_force(forces, 0.1, 0.25), abs=1e-15)
    assert mean_drift(forces, 1e-5, 0.0, 0.0, kind) == pytest.approx(forces, abs=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_the_balanced_force_never_drifts(kind):
    noise = np.geomspace(1e-6, 1e6, 13)
    assert effective_friction(0.03, noise, 0.1, 0.04, kind) == pytest.approx(0.03, abs=1e-9)


def test_strong_noise():
    assert float(effective_friction(0.05, 50.0, 0.1, 0.04)) == pytest.approx(0.0300223, abs=5e-8)
    bias, half = 0.03, 0.07
    linear = bias + 2 * half / (math.sqrt(2 * math.pi) * 50) * (0.05 - bias)
    assert float(effective_friction(0.05, 50.0, 0.1, 0.04)) == pytest.approx(linear, abs=1e-8)


def test_arguments_broadcast_with_the_parameters():
    chain = SpringChain(friction_forward=np.array([[0.0], [0.1], [0.2]]))
    assert chain.effective_friction(np.linspace(0, 1, 5), 0.1).shape == (3, 5)
    assert float(chain.effective_friction(-1.0, 0.0)[1, 0]) == 0.0  # friction_backward is 0


def test_unknown_noise():
    with pytest.raises(InputError, match="'gaussian', 'truncated', 'uniform', 'two_point'"):
        mean_drift(0.1, 0.1, 0.1, 0.1, "cauchy")
    with pytest.raises(InputError, match="noise must be at least 0"):
        SpringChain().effective_friction(0.1, -0.1)
