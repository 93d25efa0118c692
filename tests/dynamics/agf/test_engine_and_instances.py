"""The general engine on the problems of the instances: the same staircase as their own exact routes, which share no code with it."""

import numpy as np
import pytest

from learnmech.dynamics import agf

SIX = np.deg2rad([20, 75, 140, 200, 265, 320])


def assert_same(found, exact, *, times=1e-3, levels=1e-6):
    assert len(found) == len(exact)
    np.testing.assert_allclose(found.times, exact.times, rtol=times)
    np.testing.assert_allclose(found.levels, exact.levels, atol=levels * exact.levels[0])


@pytest.mark.parametrize(("seed", "leaving"), [(1, 1), (2, 0), (3, 0)])
def test_diagonal_where_coordinates_leave_and_come_back(seed, leaving):
    draws = np.random.default_rng(seed)
    inputs = draws.standard_normal((12, 5)) @ (np.eye(5) + 0.5 * draws.standard_normal((5, 5)))
    targets = inputs @ draws.standard_normal(5)
    exact = agf.diagonal(inputs, targets, 1e-5)
    assert sum(map(len, exact.leaving)) == leaving
    problem = agf.DiagonalProblem(inputs, targets)
    found = agf.read_run(agf.run(problem, problem.neurons(1e-5)))
    assert_same(found, exact, times=1e-8, levels=1e-9)
    assert found.order == exact.order


def test_rectified_neurons_with_a_level_on_a_kink():
    inputs = np.stack([np.cos(SIX), np.sin(SIX)], axis=1)
    targets = sum(
        size * np.maximum(inputs @ [np.cos(angle), np.sin(angle)], 0) for size, angle in ((2, 0.9), (-0.8, 3.6))
    )
    start = np.exp(-10) * np.random.default_rng(0).standard_normal((6, 3))
    exact = agf.relu(inputs, targets, init=start, refine=False)
    found = agf.read_run(agf.run(agf.ReluProblem(inputs, targets), start))
    assert_same(found, exact)
    assert found.order == exact.order


def test_modular_addition_activates_the_same_neuron_at_the_same_time():
    template = agf.fourier_template(5, {1: 3.0, 2: 1.0})
    problem = agf.ModularProblem(template)
    start = problem.neurons(6, 0.05, seed=0)
    stages = agf.run(problem, start, most_stages=1)
    exact = agf.modular_addition(template, init=start).stages
    assert stages["moment"].values[1] == pytest.approx(exact[0].moment, rel=1e-5)
    assert stages["loss"].values[1] == pytest.approx(exact[0].loss, rel=0.01)
