"""Greedy low-rank learning and the flow beside it: closed forms, plateaus in the limit of small starts, bad input."""

import numpy as np
import pytest
import torch

from learnmech.dynamics.low_rank_greedy import greedy_low_rank
from learnmech.dynamics.low_rank_paths import low_rank_flow
from learnmech.dynamics.low_rank_tasks import Landscape, matrix_sensing
from learnmech.dynamics.saddle import find_jumps
from learnmech.errors import InputError

TRUTH = np.diag([3.0, 2.0, 0.5, -1.0])


def distance(matrix):
    return ((matrix - torch.tensor(TRUTH, dtype=matrix.dtype)) ** 2).sum() / 2


def test_the_path_to_a_matrix_takes_its_positive_eigenvalues_one_by_one():
    """L(X) = |X - T|^2 / 2: level k is half the sum of squares of what is not yet learned, and lambda_1 the next eigenvalue."""
    run = greedy_low_rank(distance, 4)
    assert run["rank"].values.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(run["loss"], [7.125, 2.625, 0.625, 0.5], atol=1e-9)
    np.testing.assert_allclose(run["top_eigenvalue"], [3.0, 2.0, 0.5, 0.0], atol=1e-6)
    np.testing.assert_allclose(run["gap"][:3], [1.0, 1.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(run["matrix"][-1], np.diag([3.0, 2.0, 0.5, 0.0]), atol=1e-7)
    assert run["converged"].all()
    assert run.attrs["first_jump"] == pytest.approx(-np.log(1e-4) / 6)
    assert greedy_low_rank(distance, 4, most=1)["rank"].values.tolist() == [0, 1]


def test_a_loss_without_a_growing_direction_has_one_phase():
    run = greedy_low_rank(lambda matrix: matrix.diagonal().sum() + 1.0, 3)
    assert run["loss"].values.tolist() == [1.0]
    assert run.attrs["first_jump"] == "Infinity" or np.isinf(run.attrs["first_jump"])


def test_a_phase_that_does_not_come_to_rest_says_so():
    run = greedy_low_rank(distance, 4, longest=0.5)
    assert run["converged"].values.tolist() == [True, False]


def test_the_flow_of_one_number_is_logistic():
    """x = u^2 with u' = -2 (x - 2) u gives x' = 4 x (2 - x)."""
    times = np.linspace(0, 3, 20)
    run = low_rank_flow(lambda matrix: ((matrix - 2.0) ** 2).sum() / 2, 1, start=[[1e-3]], times=times)
    expected = 2 / (1 + (2 / 1e-6 - 1) * np.exp(-8 * times))
    np.testing.assert_allclose(run["eigenvalue"][:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(run["loss"], (expected - 2) ** 2 / 2, atol=1e-8)
    assert run.attrs["first_jump"] == pytest.approx(-np.log(1e-3) / 4)


def test_plateaus_are_approached_as_the_start_shrinks():
    task = matrix_sensing(6, measurements=18, rank=3, seed=2)
    greedy = greedy_low_rank(task)
    assert greedy["converged"].all()
    assert float(greedy["loss"][-1]) < 1e-12
    errors = {}
    for scale in (1e-4, 1e-8, 1e-12):
        run = low_rank_flow(task, scale=scale)
        assert run.attrs["rested"] == "true"
        jumps = find_jumps(run)
        nearest = np.abs(jumps.levels[:, None] - greedy["loss"].values[1:3]).min(0)
        errors[scale] = nearest
        assert jumps.times[0] == pytest.approx(run.attrs["first_jump"], rel=0.6 / -np.log(scale))
    assert (errors[1e-12] < errors[1e-8]).all()
    assert (errors[1e-8] <= errors[1e-4]).all()
    assert errors[1e-12].max() < 1e-2


def test_the_gradient_of_matrix_sensing_is_that_of_differences():
    task = matrix_sensing(3, measurements=5, rank=1, seed=0)
    point = np.array([[1.0, 0.2, -0.3], [0.2, 0.5, 0.1], [-0.3, 0.1, 2.0]])

    def value(matrix):
        return 0.5 * np.mean(
            [((a * matrix).sum() - y) ** 2 for a, y in zip(task.measurements, task.values, strict=True)]
        )

    for loss in (task, lambda matrix: task(matrix)):
        landscape = Landscape(loss, 3)
        got, slope = landscape.at(point)
        assert got == pytest.approx(value(point))
        for row in range(3):
            for column in range(3):
                step = np.zeros((3, 3))
                step[row, column] += 5e-6
                step[column, row] += 5e-6
                change = (value(point + step) - value(point - step)) / 2
                assert change == pytest.approx((slope * step).sum(), rel=1e-6, abs=1e-11)
    assert Landscape(task, None).dimension == 3
    assert task.truth.shape == (3, 3)
    assert np.linalg.matrix_rank(task.truth) == 1


def test_unsymmetric_losses_are_symmetrised():
    _, slope = Landscape(lambda matrix: matrix[0, 1] * 2, 2).at(np.eye(2))
    assert slope.tolist() == [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: greedy_low_rank(3, 2), "must be a function"),
        (lambda: greedy_low_rank(distance), "dimension must be a positive integer"),
        (lambda: greedy_low_rank(matrix_sensing(3), 4), "has dimension 3, got dimension=4"),
        (lambda: greedy_low_rank(lambda matrix: 1.0, 2), "depends differentiably"),
        (lambda: greedy_low_rank(lambda matrix: matrix, 2), "one number"),
        (lambda: greedy_low_rank(lambda matrix: (matrix / 0).sum(), 2), "not finite"),
        (lambda: greedy_low_rank(distance, 4, epsilon=0.5), "epsilon must lie"),
        (lambda: greedy_low_rank(distance, 4, most=0), "most must be"),
        (lambda: greedy_low_rank(distance, 4, growth_tolerance=0), "growth_tolerance must lie"),
        (lambda: greedy_low_rank(distance, 4, longest=np.inf), "longest must be"),
        (lambda: greedy_low_rank(distance, 4, tolerance=0), "tolerance must lie"),
        (lambda: low_rank_flow(distance, 4, scale=0), "scale must be positive"),
        (lambda: low_rank_flow(distance, 4, records=1), "records must be"),
        (lambda: low_rank_flow(distance, 4, rest=2), "rest must lie"),
        (lambda: low_rank_flow(distance, 4, start=np.zeros((4, 1))), "no column of zeros"),
        (lambda: low_rank_flow(distance, 4, start=np.eye(3)), "must have 4 rows"),
        (lambda: matrix_sensing(3, rank=4), "rank must be at most"),
        (lambda: matrix_sensing(0), "dimension must be a positive integer"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
