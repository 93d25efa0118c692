"""The single linear neuron: golden numbers, explicit matrices, an ODE solver of another family, and every degenerate start."""

import math

import mpmath
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from learnmech import history as histories
from learnmech.dynamics.linear_neuron import LinearNeuron
from learnmech.dynamics.neuron_integrator import neuron_flow, product_flow
from learnmech.dynamics.neuron_solution import radical
from learnmech.errors import InputError, LearnmechError
from learnmech.experiments.kunin2024.neuron_measuring import random_errors, start_weights

TIMES = np.array([0.0, 1e-9, 0.01, 1.0, 10.0, 5000.0, 1e7])

GOLDEN = [  # from an independent integration, to ten digits
    (1.5, (0.3, -0.4), 1.0, (1.5631380073, 0.6157968330, 0.2533667110), 0.00862998),
    (0.5, (0.3, -0.4), 1.0, (0.6981500744, 0.6964854781, -0.0481820008), 0.11451422),
    (0.5, (0.3, -0.4), 10.0, (1.0573712591, 0.9457526121, 0.4728487879), None),
    (-0.2, (0.9, -1.2), 1.0, (0.0860221825, 0.8858478545, -1.1969433548), None),
]


@pytest.mark.parametrize(("a0", "w0", "time", "weights", "distance"), GOLDEN)
def test_golden_numbers(a0, w0, time, weights, distance):
    run = LinearNeuron(a0, w0, [1.0, 0.5]).at([time])
    found = [float(run.a[0]), *run.w.values[0]]
    np.testing.assert_allclose(found, weights, rtol=0, atol=1e-10)
    if distance is not None:
        assert abs(float(run.kernel_distance[0]) - distance) < 1e-8


def test_two_hundred_random_cases_against_the_integrated_flow():
    """All signs of delta, unequal rates, scales 1e-3 to 5, times to 5000. Fixed seed; the worst case measured 3e-11."""
    errors = random_errors(200, 5000.0)
    assert errors.shape == (200,)
    assert errors.max() <= 1e-8


@pytest.mark.parametrize("a0", [-0.7, 0.0, 0.4, 2.0])
def test_an_explicit_solver_of_the_equations_as_written(a0):
    """DOP853 with the loss gradient by central differences of the loss: nothing is shared with the package."""
    w0, beta, eta_a, eta_w, scale = np.array([0.6, -0.3, 0.2]), np.array([0.5, 1.0, -0.4]), 0.4, 2.5, 1.7

    def loss(state):
        product = state[0] * state[1:]
        return scale / 2 * product @ product - product @ beta

    def slope(_, state):
        steps = 1e-5 * np.eye(4)
        gradient = np.array([(loss(state + step) - loss(state - step)) / 2e-5 for step in steps])
        return -np.array([eta_a, eta_w, eta_w, eta_w]) * gradient

    done = solve_ivp(slope, (0, 2.0), [a0, *w0], method="DOP853", rtol=1e-10, atol=1e-12, t_eval=[0.5, 2.0])
    run = LinearNeuron(a0, w0, beta, eta_a, eta_w, scale=scale).at([0.5, 2.0])
    np.testing.assert_allclose(run.a, done.y[0], atol=1e-8)
    np.testing.assert_allclose(run.w, done.y[1:].T, atol=1e-8)
    product = run.a.values[:, None] * run.w.values
    np.testing.assert_allclose(run.loss, scale / 2 * ((product - beta / scale) ** 2).sum(1), rtol=1e-12)


@pytest.mark.parametrize("case", range(12))
def test_extreme_scales_against_eighty_digits(case):
    """Scales 1e-8 to 1e3, times to 5000, against y = (q^2 - |p|^2) / delta and a matrix exponential by eigenvectors."""
    random = np.random.default_rng(100 + case)
    a0, beta_size, w_size = 10 ** random.uniform(-8, 3, 3)
    w0, beta = w_size * random.standard_normal(2), beta_size * random.standard_normal(2)
    times = [1e-6, 1.0, 5000.0]
    neuron = LinearNeuron(a0, w0, beta)
    run = neuron.at(times)
    with mpmath.workdps(80):
        a, w, b = mpmath.mpf(a0), [mpmath.mpf(v) for v in w0], [mpmath.mpf(v) for v in beta]
        delta, s = a**2 - w[0] ** 2 - w[1] ** 2, mpmath.sqrt(b[0] ** 2 + b[1] ** 2)
        along, across = (w[0] * b[0] + w[1] * b[1]) / s, (w[1] * b[0] - w[0] * b[1]) / s
        root = mpmath.sqrt(delta**2 / 4 + s**2)
        for place, time in enumerate(times):
            even, odd = mpmath.cosh(root * time), mpmath.sinh(root * time) / root
            q = even * a + odd * (delta / 2 * a + s * along)
            p = even * along + odd * (s * a - delta / 2 * along)
            side = across * mpmath.exp(-delta * time / 2)
            norm = mpmath.sqrt((q**2 - p**2 - side**2) / delta)
            expected = [q / norm, (p * b[0] - side * b[1]) / norm / s, (p * b[1] + side * b[0]) / norm / s]
            found = [float(run.a[place]), *run.w.values[place]]
            scale = max(abs(a0), float(np.abs(w0).max()), *(abs(float(value)) for value in expected))
            assert max(abs(float(x) - y) for x, y in zip(expected, found, strict=True)) <= 1e-12 * scale


def explicit_kernel(a, w, eta_a, eta_w, X):
    features = np.concatenate([np.sqrt(eta_a) * (X @ w)[:, None], np.sqrt(eta_w) * a * X], axis=1)
    return features @ features.T


def test_kernel_and_its_distance_are_those_of_explicit_gradients():
    random = np.random.default_rng(3)
    for case in range(20):
        dim = 2 + case % 4
        X = np.linalg.qr(random.standard_normal((9, dim)))[0]
        a0, w0, beta = random.standard_normal(), random.standard_normal(dim), random.standard_normal(dim)
        eta_a, eta_w = 10 ** random.uniform(-1, 1, 2)
        neuron = LinearNeuron(a0, w0, beta, eta_a, eta_w)
        run = neuron.at([0.3, 3.0])
        first = explicit_kernel(a0, w0, eta_a, eta_w, X)
        for place, time in enumerate([0.3, 3.0]):
            later = explicit_kernel(float(run.a[place]), run.w.values[place], eta_a, eta_w, X)
            np.testing.assert_allclose(neuron.kernel(time, X), later, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(X @ neuron.preconditioner(time) @ X.T, later, rtol=1e-12, atol=1e-12)
            expected = 1 - (first * later).sum() / (np.linalg.norm(first) * np.linalg.norm(later))
            assert abs(float(run.kernel_distance[place]) - expected) < 1e-14


def test_small_kernel_distances_keep_their_digits():
    """S is a quadratic function of a small time: halving the time quarters it, far below the rounding of 1."""
    neuron = LinearNeuron(0.8, [0.5, -0.2], [1.0, 0.5])
    near, far = neuron.at([1e-10, 2e-10]).kernel_distance.values
    assert 0 < near < 1e-18
    assert abs(far / near - 4) < 1e-4


def test_flow_for_any_inputs_and_its_form_in_the_product():
    random = np.random.default_rng(5)
    X, y, w0 = random.standard_normal((4, 6)), random.standard_normal(4), random.standard_normal(6)
    times = np.array([0.0, 0.1, 1.0, 4.0])
    for a0, eta_a, eta_w in ((1.5, 1.0, 1.0), (0.3, 0.5, 2.0)):
        run = neuron_flow(X, y, a0, w0, times, eta_a=eta_a, eta_w=eta_w)
        other = neuron_flow(X, y, a0, w0, times, eta_a=eta_a, eta_w=eta_w, method="DOP853")
        np.testing.assert_allclose(run.w, other.w, atol=1e-9)
        delta = eta_w * a0**2 - eta_a * w0 @ w0
        np.testing.assert_allclose(run.delta, delta, atol=1e-9)
        product = product_flow(X, y, a0 * w0, delta, times, eta_a=eta_a, eta_w=eta_w)
        np.testing.assert_allclose(product, run.beta, atol=1e-9)
        first = explicit_kernel(a0, w0, eta_a, eta_w, X)
        last = explicit_kernel(float(run.a[-1]), run.w.values[-1], eta_a, eta_w, X)
        expected = 1 - (first * last).sum() / (np.linalg.norm(first) * np.linalg.norm(last))
        assert abs(float(run.kernel_distance[-1]) - expected) < 1e-13


DEGENERATE = {
    "both zero: the saddle": (0.0, [0.0, 0.0], [1.0, 0.5], 0),
    "a = 0 and w across the target: a saddle": (0.0, [0.5, -1.0], [1.0, 0.5], 0),
    "a = 0": (0.0, [0.4, 0.1], [1.0, 0.5], 1),
    "a = 0, w against": (0.0, [-0.4, 0.1], [1.0, 0.5], -1),
    "w = 0": (-0.3, [0.0, 0.0], [1.0, 0.5], -1),
    "w across, a tiny": (1e-20, [0.0, 1.0], [1.0, 0.0], 1),
    "w against, balanced: into the saddle": (math.hypot(2, 1), [-2.0, -1.0], [1.0, 0.5], 0),
    "w against, upstream": (3.0, [-2.0, -1.0], [1.0, 0.5], 1),
    "w against, downstream: a changes sign": (0.5, [-2.0, -1.0], [1.0, 0.5], -1),
    "no target, upstream": (0.3, [0.2, 0.1], [0.0, 0.0], 1),
    "no target, downstream": (0.1, [0.2, 0.1], [0.0, 0.0], 0),
    "no target, balanced": (math.hypot(0.2, 0.1), [0.2, 0.1], [0.0, 0.0], 0),
    "one input": (2.0, [1.0], [-1.0], 1),
    "tiny": (1e-8, [1e-8, 2e-8], [1.0, 0.5], 1),
    "so tiny that squares vanish": (1e-200, [1e-200, 0.0], [1.0, 0.0], 1),
    "huge": (1e3, [1e3, -2e3], [1.0, 0.5], 1),
    "huge target": (1e3, [1.0, 2.0], [1e3, 3.0], 1),
    "huge and tiny": (1e-8, [1e3, 1e3], [1e-8, 0.0], 1),
    "beyond reason": (1e50, [1e50, 1.0], [1.0, 1.0], 1),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_starts_are_finite_and_keep_their_balance(name):
    a0, w0, beta, basin = DEGENERATE[name]
    neuron = LinearNeuron(a0, w0, beta)
    run = neuron.at(TIMES)
    assert neuron.basin == basin
    for variable in ("a", "w", "loss", "mu", "k"):
        assert np.isfinite(run[variable]).all(), variable
    assert float(run.a[0]) == a0
    np.testing.assert_array_equal(run.w[0], w0)
    assert np.abs(run.delta - neuron.delta).max() <= 1e-14 * float(run.k.max())
    assert (np.diff(run.loss) <= 1e-14 * float(run.loss[0])).all()
    a, w = neuron.limit()
    if name not in ("huge", "beyond reason", "huge and tiny"):  # these need more time than the last
        atol = 3e-4 if name == "no target, balanced" else 1e-9  # algebraic in time there
        np.testing.assert_allclose(float(run.a[-1]), a, atol=atol)
        np.testing.assert_allclose(run.w[-1], w, atol=atol)
    if basin and any(beta):
        np.testing.assert_allclose(a * w, beta, rtol=1e-12)


def test_on_the_way_into_the_saddle_the_product_obeys_the_logistic_equation():
    """Balanced against the target the product b < 0 obeys b' = 2 |b| (1 - b), whose solution is known."""
    run = LinearNeuron(1.0, [-1.0, 0.0], [1.0, 0.0]).at([0.5, 3.0])
    grown = np.exp(-2 * run.time.values)
    np.testing.assert_allclose(run.beta[:, 0], -grown / (2 - grown), rtol=1e-13)


def test_scale_is_a_change_of_clock():
    plain = LinearNeuron(0.5, [0.3, -0.4], [1.0, 0.5]).at([3.0])
    scaled = LinearNeuron(0.5, [0.3, -0.4], [3.0, 1.5], scale=3.0).at([1.0])
    np.testing.assert_allclose(scaled.w, plain.w, rtol=1e-13)
    np.testing.assert_allclose(scaled.loss, 3 * plain.loss, rtol=1e-10)


def test_speeds_are_those_of_the_path_and_tend_to_the_table():
    product, drive = np.array([0.0, 1.0]), np.array([1.0, 1.0])
    for delta in (-100.0, -1.0, 0.0, 1.0, 100.0):
        neuron = LinearNeuron(*start_weights(product, delta), product + drive)
        step = 1e-6 / (1 + abs(delta))
        betas = neuron.at([0.0, step, 2 * step]).beta.values
        slope = (-3 * betas[0] + 4 * betas[1] - betas[2]) / (2 * step)
        speeds = neuron.timescales(1.0)
        np.testing.assert_allclose([speeds.directional_speed, speeds.radial_speed], slope, rtol=1e-5)
        if delta in (0.0, -100.0, 100.0):
            table = {0.0: (2.0, 1.0), -100.0: (100.0, 0.01), 100.0: (100.0, 100.0)}[delta]
            assert (speeds.radial_limit, speeds.directional_limit) == pytest.approx(table)
            np.testing.assert_allclose((speeds.radial_speed, speeds.directional_speed), table, rtol=1e-3)


def test_regimes_and_relaxation_near_the_target():
    for delta, name in ((8.0, "upstream"), (0.3, "balanced"), (-8.0, "downstream")):
        near = np.array([1.0, 1e-4])
        neuron = LinearNeuron(*start_weights(near, delta), [1.0, 0.0])
        assert neuron.regime == neuron.timescales().regime == name
        time = neuron.timescales().directional_time
        run = neuron.at([0.0, time])
        assert float(run.beta[1, 1] / run.beta[0, 1]) == pytest.approx(math.exp(-1), rel=1e-3)
    assert LinearNeuron(1.0, [0.0], [0.0]).regime == "upstream"


def test_radicals_do_not_cancel():
    k, minus, plus = radical(1e9, 1.0)
    assert (minus, k * k) == (pytest.approx(2e-9, rel=1e-15), pytest.approx(1e18, rel=1e-15))
    assert radical(-1e9, 1.0) == (k, plus, minus)
    assert radical(0.0, 0.0) == (0.0, 0.0, 0.0)


def test_the_slow_phase_of_a_downstream_start():
    """The error falls like 1/delta^2: about 16 for a factor of 4."""
    cosine, errors = 0.3, []
    for delta in (-10.0, -40.0, -160.0, -640.0):
        product = cosine * np.array([cosine, math.sqrt(1 - cosine**2)])
        neuron = LinearNeuron(*start_weights(product, delta), [1.0, 0.0])
        times = np.linspace(0, 8 * abs(delta), 1001)
        errors.append(np.abs(neuron.at(times).phi.values - neuron.slow_phase(times)).max())
    np.testing.assert_allclose(errors, [4.13e-3, 2.63e-4, 1.65e-5, 1.03e-6], rtol=0.01)
    ratios = np.array(errors[:-1]) / errors[1:]
    assert ((ratios > 14) & (ratios < 18)).all()
    with pytest.raises(InputError, match="needs delta < 0"):
        LinearNeuron(2.0, [0.1, 0.1], [1.0, 0.0]).slow_phase([1.0])
    assert LinearNeuron(0.0, [0.0, 1.0], [1.0, 0.0]).slow_phase([0.0, 1.0]).tolist() == [0.0, 0.0]


def test_time_to_a_loss():
    neuron = LinearNeuron(0.1, [0.1, 0.0], [1.0, 0.0])
    time = neuron.time_to_loss(1e-4)
    product = 1 - math.sqrt(2e-4)  # logistic equation from 0.01
    assert time == pytest.approx(math.log(99 * product / (1 - product)) / 2, rel=1e-9)
    assert neuron.time_to_loss(10.0) == 0.0
    assert LinearNeuron(0.0, [0.0, 0.0], [1.0, 0.0]).time_to_loss(0.1) == math.inf
    with pytest.raises(InputError, match="above 0"):
        neuron.time_to_loss(0.0)


def test_history_says_what_it_holds(tmp_path):
    neuron = LinearNeuron(0.5, [0.3, -0.4], [1.0, 0.5])
    run = neuron.at([0.0, 1.0])
    assert run.w.dims == ("time", "dim")
    assert run.a.dims == run.kernel_distance.dims == ("time",)
    assert float(run.kernel_distance[0]) == 0.0
    np.testing.assert_allclose(run.k, np.sqrt(run.delta**2 + 4 * run.mu**2), rtol=1e-12)
    assert np.isnan(LinearNeuron(0.0, [0.0], [1.0]).at([1.0]).kernel_distance).all()
    loaded = histories.load(histories.save(run, tmp_path / "run.nc"))
    np.testing.assert_array_equal(loaded.w, run.w)
    assert repr(neuron) == "LinearNeuron(dim=2, balanced, delta=0)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((math.nan, [1.0], [1.0]), "a0 must be finite"),
        ((1.0, [1.0], [1.0, 2.0]), "same length"),
        ((1.0, [], []), "at least one entry"),
        ((1.0, [[1.0]], [1.0]), "must be a vector"),
        ((1.0, [1.0], [math.inf]), "beta must be finite"),
        ((1.0, [1.0], [1.0], 0.0), "eta_a must be above 0"),
        ((1.0, [1.0], [1.0], 1.0, -1.0), "eta_w must be above 0"),
        (("one", [1.0], [1.0]), "a0 must be one number"),
        (([1.0, 2.0], [1.0], [1.0]), "a0 must be one number"),
        ((1e70, [1.0], [1.0]), "rescale"),
    ],
)
def test_bad_neurons_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        LinearNeuron(*arguments)


@pytest.mark.parametrize(
    ("times", "message"),
    [([-1.0], "at least 0"), ([1.0, 1.0], "increase strictly"), ([], "at least one"), ([math.nan], "finite")],
)
def test_bad_times_are_refused(times, message):
    with pytest.raises(InputError, match=message):
        LinearNeuron(1.0, [1.0], [1.0]).at(times)
    with pytest.raises(InputError, match=message):
        neuron_flow([[1.0]], [1.0], 1.0, [1.0], times)


def test_bad_flows_are_refused():
    with pytest.raises(InputError, match="one row for each entry of y"):
        neuron_flow([[1.0]], [1.0, 2.0], 1.0, [1.0], [1.0])
    with pytest.raises(InputError, match=r"one entry for each|same length"):
        neuron_flow([[1.0, 2.0]], [1.0], 1.0, [1.0], [1.0])
    with pytest.raises(InputError, match="method must be one of"):
        neuron_flow([[1.0]], [1.0], 1.0, [1.0], [1.0], method="Euler")
    with pytest.raises(InputError, match="between 1e-13 and 1e-2"):
        neuron_flow([[1.0]], [1.0], 1.0, [1.0], [1.0], tolerance=0.5)
    with pytest.raises(InputError, match="beta0 must not be 0"):
        product_flow([[1.0]], [1.0], [0.0], 1.0, [1.0])
    with pytest.raises(InputError, match="X must be a matrix"):
        LinearNeuron(1.0, [1.0], [1.0]).kernel(1.0, 3.0)
    with pytest.raises(InputError, match="must have 1 columns"):
        LinearNeuron(1.0, [1.0], [1.0]).kernel(1.0, [[1.0, 2.0]])
    with pytest.raises(InputError, match="at least 0"):
        LinearNeuron(1.0, [1.0], [1.0]).timescales(-1.0)
    assert issubclass(InputError, LearnmechError)
