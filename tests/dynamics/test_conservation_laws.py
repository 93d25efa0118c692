"""One-step laws against steps made by hand, closed forms against an ODE solver, and the radius against a random walk."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from learnmech.dynamics.conservation_laws import step_linear_charge, step_quadratic_charge
from learnmech.dynamics.equilibrium_of_scale import effective_learning_rate, equilibrium_radius
from learnmech.dynamics.neural_mechanics_solutions import neural_mechanics
from learnmech.errors import InputError


@pytest.mark.parametrize("nesterov", [False, True])
def test_laws_against_steps_made_by_hand(nesterov):
    """theta = (a, w), f = a.w: gradients are made to obey the symmetry (a, w) -> (a / c, c w), and the sum over a part."""
    random = np.random.default_rng(0)
    theta, velocity = random.normal(size=6), np.zeros(6)
    signs = np.array([1, 1, 1, -1, -1, -1.0])
    law, line = (signs @ theta**2, 0.0), (theta[:3].sum(), 0.0)
    first = law[0]
    for step in range(300):
        rate, decay, b = 0.05 + 0.04 * np.sin(step), 0.01 * (1 + step % 3), 0.8
        gradient = random.normal(size=6)
        gradient[:3] -= gradient[:3].mean()
        gradient -= signs * theta * 0  # the two constraints together: project onto both
        directions = np.stack([signs * theta, np.array([1, 1, 1, 0, 0, 0.0])])
        gradient -= directions.T @ np.linalg.solve(directions @ directions.T, directions @ gradient)
        pushed = gradient + decay * theta
        velocity = b * velocity + pushed
        move = pushed + b * velocity if nesterov else velocity
        theta = theta - rate * move
        settings = {"rate": rate, "momentum": b, "weight_decay": decay, "nesterov": nesterov}
        law = step_quadratic_charge(*law, signs @ move**2, signs @ (move * velocity), **settings)
        line = step_linear_charge(*line, **settings)
    assert abs(signs @ theta**2 - first) > 0.1
    assert law[0] == pytest.approx(signs @ theta**2, rel=1e-11, abs=1e-12)
    assert line[0] == pytest.approx(theta[:3].sum(), rel=1e-10, abs=1e-13)


def test_translation_follows_the_three_term_recursion():
    rate, b, decay = 0.1, 0.9, 0.03
    charges, state = [2.0], (2.0, 0.0)
    for _ in range(60):
        state = step_linear_charge(*state, rate=rate, momentum=b, weight_decay=decay)
        charges.append(state[0])
    expected = [2.0, (1 - rate * decay) * 2.0]
    for _ in range(59):
        expected.append((1 + b - rate * decay) * expected[-1] - b * expected[-2])
    np.testing.assert_allclose(charges, expected, rtol=1e-12)


def test_laws_refuse_what_torch_refuses():
    with pytest.raises(InputError, match="velocity_form"):
        step_quadratic_charge(1.0, 0.0, 1.0, rate=0.1, nesterov=True)
    with pytest.raises(InputError, match="dampening"):
        step_linear_charge(1.0, 0.0, rate=0.1, nesterov=True, dampening=0.1)


@pytest.mark.parametrize("weight_decay", [0.0, 0.002, 1.0 / 0.4 * 0.01 / 0.19 * 0.19, 5.0])
@pytest.mark.parametrize("kind", ["quadratic", "translation"])
def test_closed_forms_against_an_ode_solver(weight_decay, kind):
    """Over- and underdamped motion; scipy's DOP853 at 1e-11 as the oracle."""
    rate, b = 0.1, 0.9
    damping = (1 - b) / (rate * (1 + b))
    square = (4 if kind == "quadratic" else 2) * weight_decay / (rate * (1 + b))
    times = np.linspace(0, 12, 40)
    solved = solve_ivp(
        lambda t, y: [y[1], -2 * damping * y[1] - square * y[0]],
        (0, 12),
        [3.0, 0.0],
        "DOP853",
        times,
        rtol=1e-11,
        atol=1e-13,
    )
    found = neural_mechanics(times, 3.0, rate=rate, momentum=b, weight_decay=weight_decay, kind=kind)
    np.testing.assert_allclose(found, solved.y[0], atol=1e-8)


def test_critical_damping_and_its_neighbours_agree():
    rate, b, times = 0.5, 0.5, np.linspace(0, 5, 11)
    critical = (1 - b) ** 2 / (4 * rate * (1 + b))
    near = [
        neural_mechanics(times, 1.0, rate=rate, momentum=b, weight_decay=critical * factor)
        for factor in (1 - 1e-7, 1.0, 1 + 1e-7)
    ]
    np.testing.assert_allclose(near[0], near[1], atol=1e-6)
    np.testing.assert_allclose(near[2], near[1], atol=1e-6)


@pytest.mark.parametrize("b", [0.0, 0.9])
def test_forcing_against_an_ode_solver(b):
    """A force cos(t): the trapezoidal rule on 2001 points, so 1e-4."""
    rate, decay, times = 0.1, 0.2, np.linspace(0, 8, 2001)
    if b == 0:
        solved = solve_ivp(lambda t, y: -2 * decay * y + rate * np.cos(t), (0, 8), [1.0], "DOP853", times, rtol=1e-10)
    else:
        damping, square = (1 - b) / (rate * (1 + b)), 4 * decay / (rate * (1 + b))
        solved = solve_ivp(
            lambda t, y: [y[1], -2 * damping * y[1] - square * y[0] + 2 * np.cos(t)],
            (0, 8),
            [1.0, 0.0],
            "DOP853",
            times,
            rtol=1e-10,
        )
    found = neural_mechanics(times, 1.0, rate=rate, momentum=b, weight_decay=decay, forcing=np.cos(times))
    np.testing.assert_allclose(found, solved.y[0], atol=1e-4)


def test_nothing_overflows_and_arrays_are_kept_apart():
    times = np.array([0.0, 1e3, 1e6])
    found = neural_mechanics(times, [1.0, -2.0], rate=1e-3, momentum=0.5, weight_decay=1e-4, forcing=np.zeros((3, 2)))
    assert found.shape == (3, 2)
    assert np.isfinite(found).all()
    assert found[1, 0] == pytest.approx(np.exp(-2 * 1e-4 * 1e3 / 0.5), rel=1e-3)


@pytest.mark.parametrize(("rate", "decay", "b"), [(0.1, 0.01, 0.0), (0.05, 0.01, 0.9), (0.2, 0.02, 0.5)])
def test_equilibrium_radius_against_a_random_walk(rate, decay, b):
    """200 walkers: scale-invariant weights in 10 dimensions with random tangential gradients of |ghat|^2 = 9.

    They start 10 % too large and relax over 1 / (4 rate decay) = 62 to 500 steps. The mean over walkers fluctuates by a few 1e-4; the
    formula's own error is O(rate decay), below 1 %.
    """
    random = torch.Generator().manual_seed(0)
    expected = equilibrium_radius(9.0, rate=rate, weight_decay=decay, momentum=b)
    theta = torch.randn(200, 10, generator=random, dtype=torch.float64)
    theta *= 1.1 * expected / theta.norm(dim=1, keepdim=True)
    velocity = torch.zeros_like(theta)
    for _ in range(2500):
        row = torch.randn(200, 10, generator=random, dtype=torch.float64)
        norm = theta.norm(dim=1, keepdim=True)
        row -= theta * ((row * theta).sum(1, keepdim=True) / norm**2)
        velocity = b * velocity + row * (3 / (row.norm(dim=1, keepdim=True) * norm)) + decay * theta
        theta = theta - rate * velocity
    assert float(theta.norm(dim=1).mean()) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: neural_mechanics([0, 1], 1.0, rate=0.0), "rate must be a positive"),
        (lambda: neural_mechanics([0, 1], 1.0, rate=0.1, momentum=1.0), "momentum must lie in"),
        (lambda: neural_mechanics([0, 1], 1.0, rate=0.1, weight_decay=-1.0), "weight_decay must be"),
        (lambda: neural_mechanics([1, 2], 1.0, rate=0.1), "starts at 0"),
        (lambda: neural_mechanics([0, 0], 1.0, rate=0.1), "increasing"),
        (lambda: neural_mechanics([0, 1], np.nan, rate=0.1), "charge holds NaN"),
        (lambda: neural_mechanics([0, 1], 1.0, rate=0.1, kind="scale"), "kind must be"),
        (lambda: neural_mechanics([0, 1], 1.0, rate=0.1, forcing=[1.0]), "forcing should hold"),
        (lambda: neural_mechanics([0, 1], 1.0, rate=0.1, forcing=[1, 1], kind="translation"), "no forcing"),
        (lambda: equilibrium_radius(0.0, rate=0.1, weight_decay=0.1), "normalised_gradient must be"),
        (lambda: equilibrium_radius(1.0, rate=0.1, weight_decay=0.0), "does not settle"),
        (lambda: effective_learning_rate(1.0, rate=0.1, momentum=-0.1), "momentum must lie"),
        (lambda: effective_learning_rate(np.nan, rate=0.1), "radius must be"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
