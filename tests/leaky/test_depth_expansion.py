"""The depth expansion, spectra and the envelope identity against closed forms, brute-force minima and simulated noise."""

import math

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from learnmech.errors import InputError, LearnmechWarning
from learnmech.leaky.depth_expansion import DepthExpansion, fit_depth_expansion
from learnmech.leaky.envelope import check_envelope, envelope_slope
from learnmech.leaky.spectra import predicted_spectrum, rates_of

DEPTHS = np.array([2.0, 3.0, 4.0, 6.0, 8.0])


def expansion(depths, k, R1, R2):
    return k * depths + R1 + R2 / depths


# ------------------------------------------------------------------ the fit


def test_the_specifications_runs():
    fit = fit_depth_expansion((2, 4, 8), (90.87, 77.86, 80.77))
    assert tuple(fit) == (fit.k, fit.R1, fit.R2)
    assert [round(fit.k, 2), round(fit.R1, 1), round(fit.R2, 1)] == [3.14, 46.0, 77.1]
    assert [round(fit.slope(depth), 2) for depth in (2, 4)] == [-16.15, -1.68]
    assert fit.slope(8) == pytest.approx(1.93, abs=5e-3)
    worse = fit_depth_expansion((2, 4, 8), (90.87, 78.48, 80.77))
    assert round(worse.k, 2) == 2.83
    J = np.array([0.90868, 0.77860, 0.80768])  # the costs themselves, penalty .02
    assert fit_depth_expansion((2, 4, 8), J, penalty=0.02).k == pytest.approx(3.14, abs=0.01)


@pytest.mark.parametrize("growth", [[1.0], [2.0, 0.5, -0.3], [5.7, 4.5, 3.4, 0.0]])
def test_aligned_directions_are_exact(growth):
    """Costs of decoupled directions, (1/Lt) sum (Lt + r)^2, without the expansion written out."""
    r = np.array(growth)
    costs = [((depth + r) ** 2).sum() / depth for depth in DEPTHS]
    k, R1, R2 = fit_depth_expansion(DEPTHS, costs)
    assert k == pytest.approx(len(r), abs=1e-9)
    assert pytest.approx(2 * r.sum(), abs=1e-9) == R1
    assert pytest.approx((r**2).sum(), abs=1e-9) == R2


def test_order_scale_and_penalty():
    costs = expansion(DEPTHS, 3, 40, 80) + np.array([0.3, -0.2, 0.4, 0.1, -0.3])
    fit = fit_depth_expansion(DEPTHS, costs)
    order = np.array([3, 0, 4, 2, 1])
    shuffled = fit_depth_expansion(DEPTHS[order], costs[order])
    assert tuple(shuffled) == pytest.approx(tuple(fit))
    assert shuffled.residuals[np.argsort(order)] == pytest.approx(fit.residuals)
    scaled = fit_depth_expansion(DEPTHS, costs * 0.01, penalty=0.02)
    assert tuple(scaled) == pytest.approx(tuple(fit))
    assert scaled.errors == pytest.approx(fit.errors)
    assert fit.cost(DEPTHS) + fit.residuals == pytest.approx(costs)
    step = 1e-5
    assert fit.slope(3.0) == pytest.approx((fit.cost(3 + step) - fit.cost(3 - step)) / (2 * step), rel=1e-7)
    assert isinstance(fit.cost(3.0), float)
    assert "95 %" in str(fit)


# ------------------------------------------------------------------ errors


def test_three_costs_tell_no_errors():
    fit = fit_depth_expansion((2, 4, 8), (90.87, 77.86, 80.77))
    assert np.isnan(fit.errors).all()
    assert np.isnan(fit.k_interval).all()
    assert "no errors known" in str(fit)


def test_scatter_gives_the_textbook_errors():
    """Against SciPy's curve_fit, which finds the covariance by another route."""
    costs = expansion(DEPTHS, 3, 40, 80) + np.array([0.3, -0.2, 0.4, 0.1, -0.3])
    fit = fit_depth_expansion(DEPTHS, costs)
    best, covariance = optimize.curve_fit(expansion, DEPTHS, costs)
    assert tuple(fit) == pytest.approx(tuple(best), rel=1e-6)
    assert fit.covariance == pytest.approx(covariance, rel=1e-4)
    assert fit.freedom == 2
    reach = stats.t.ppf(0.975, 2) * math.sqrt(covariance[0, 0])
    assert fit.k_interval == pytest.approx((fit.k - reach, fit.k + reach), rel=1e-4)
    errors = np.array([0.5, 0.1, 0.2, 0.3, 1.0])
    fit = fit_depth_expansion(DEPTHS, costs, errors=errors)
    best, covariance = optimize.curve_fit(expansion, DEPTHS, costs, sigma=errors, absolute_sigma=True)
    assert tuple(fit) == pytest.approx(tuple(best), rel=1e-6)
    assert fit.covariance == pytest.approx(covariance, rel=1e-4)
    assert fit.k_interval[1] - fit.k == pytest.approx(1.959964 * fit.errors[0], rel=1e-6)
    by_penalty = fit_depth_expansion(DEPTHS, costs * 0.01, errors=errors * 0.01, penalty=0.02)
    assert by_penalty.errors == pytest.approx(fit.errors)


def test_given_errors_go_through_three_depths():
    """Amplification: the error of k for costs with an error of 1."""
    fit = fit_depth_expansion((2, 4, 8), (90.87, 77.86, 80.77), errors=(1, 1, 1))
    assert fit.errors[0] == pytest.approx(fit.amplification)
    design = np.array([[depth, 1, 1 / depth] for depth in (2, 4, 8)])
    assert fit.amplification == pytest.approx(np.linalg.norm(np.linalg.inv(design)[0]))


@pytest.mark.parametrize("case", ["scatter", "errors", "mean of seeds"])
def test_intervals_cover_as_they_say(case):
    """1500 simulated sets: measured .947, .951 and .937. The coverage's own noise is .0056 (one standard deviation).

    Were the coverage .95, one below .92 would have a probability under 1e-6. For the mean of 4 seeds Welch's degrees of
    freedom are an approximation, so its coverage need not be .95.
    """
    rng = np.random.default_rng(0)
    errors, covered = np.array([1.0, 0.3, 0.5, 0.8, 2.0]), 0
    for _ in range(1500):
        noise = rng.standard_normal((5, 4))
        truth = expansion(DEPTHS, 3, 40, 80)
        if case == "scatter":
            fit = fit_depth_expansion(DEPTHS, truth + noise[:, 0])
        elif case == "errors":
            fit = fit_depth_expansion(DEPTHS, truth + errors * noise[:, 0], errors=errors)
        else:
            fit = fit_depth_expansion(DEPTHS, truth[:, None] + errors[:, None] * noise, reduce="mean")
        low, high = fit.k_interval
        covered += low <= 3 <= high
    assert 0.92 < covered / 1500 < 0.99


def test_lowest_of_seeds_and_its_jackknife():
    rng = np.random.default_rng(1)
    costs = expansion(DEPTHS, 3, 40, 80)[:, None] + rng.exponential(1.0, (5, 4))
    fit = fit_depth_expansion(DEPTHS, costs)
    assert tuple(fit) == pytest.approx(tuple(fit_depth_expansion(DEPTHS, costs.min(axis=1))))
    jackknife = []
    for row in costs:
        left_out = np.array([np.delete(row, seed).min() for seed in range(4)])
        jackknife.append(3 / 4 * ((left_out - left_out.mean()) ** 2).sum())
    weights = np.linalg.pinv(np.stack([DEPTHS, np.ones(5), 1 / DEPTHS], axis=1))
    assert fit.covariance == pytest.approx(weights @ np.diag(jackknife) @ weights.T)
    single = fit_depth_expansion(DEPTHS, costs[:, :1])
    assert tuple(single) == pytest.approx(tuple(fit_depth_expansion(DEPTHS, costs[:, 0])))
    same = fit_depth_expansion(DEPTHS, np.repeat(expansion(DEPTHS, 3, 40, 80)[:, None], 3, axis=1))
    assert same.errors.tolist() == [0, 0, 0]


def test_depths_that_are_too_close_are_named():
    depths = np.array([4.0, 4.5, 5.0])
    with pytest.warns(
        LearnmechWarning, match="too close to each other: an error of 1 in the costs moves k by about 22"
    ):
        fit = fit_depth_expansion(depths, expansion(depths, 3, 40, 80))
    assert fit.k == pytest.approx(3, abs=1e-9)


# ------------------------------------------------------------------ spectra


@pytest.mark.parametrize(
    ("layers", "dimension"),
    [(None, 0.7993498753), (5, 0.7097900799), (20, 0.7803974150), (100, 0.7957168409), (1000, 0.7989899825)],
)
def test_the_scalar_geodesic_of_the_specification(layers, dimension):
    weight = float(predicted_spectrum([math.log(3 / 0.5)], 4.0, layers))
    assert 2 * weight / 4 - (weight / 4) ** 2 == pytest.approx(dimension, abs=5e-11)
    if layers is None:
        assert weight == pytest.approx(5.7917594692, abs=5e-11)
        assert weight**2 / 8 == pytest.approx(4.1930597187, abs=5e-11)


@pytest.mark.parametrize("layers", [1, 4, 7, 30])
def test_weights_of_the_discrete_net_bring_about_the_growth(layers):
    for rate in (-1.5, 0.0, 0.3, 2.0):
        weight = float(predicted_spectrum([rate], 4.0, layers))
        a = 1.0
        for _ in range(layers):
            a = (1 - 4.0 / layers) * a + weight * a / layers
        assert a == pytest.approx(math.exp(rate), rel=1e-12)


def test_between_a_resnet_and_a_fully_connected_net():
    """At L = Lt the cost w^2/Lt of a direction is that of a fully connected net, L s^(2/L)."""
    s = np.array([0.5, 1.0, 3.0])
    fully_connected = predicted_spectrum(np.log(s), 6.0, layers=6).numpy()
    assert fully_connected**2 / 6 == pytest.approx(6 * s ** (2 / 6), rel=1e-12)
    continuous, fine = predicted_spectrum(np.log(s), 6.0), predicted_spectrum(np.log(s), 6.0, layers=10**6)
    assert torch.allclose(continuous, fine, atol=1e-5)


def test_rates_are_the_inverse_and_keep_shapes():
    rates = torch.tensor([[5.7, 4.5, 3.4], [-1.0, 0.0, 1.0]])
    for layers in (None, 8, 50):
        back = rates_of(predicted_spectrum(rates, 3.0, layers), 3.0, layers)
        assert torch.allclose(back, rates.double(), atol=1e-12)
    assert predicted_spectrum([-5.0], 3.0).tolist() == [2.0]  # a singular value has no sign
    assert rates_of([0.1], 4.0).dtype == torch.float64
    assert float(rates_of([0.1], 4.0)) == pytest.approx(-3.9, abs=1e-15)


# ------------------------------------------------------------------ the envelope identity


def scalar_optimum(depth, rho, *, a0=0.5, y=3.0, penalty=0.02):
    """Minimise the cost of a leaky net of one neuron and one sample without bias, by brute force over its weights."""

    def path(weights):
        return a0 * np.cumprod(np.concatenate([[1.0], 1 - rho * depth + rho * weights]))

    def cost(weights):
        return (y - path(weights)[-1]) ** 2 + penalty / (2 * depth) * (rho * weights**2).sum()

    found = optimize.minimize(cost, np.full(len(rho), depth + 1.0), method="BFGS", options={"gtol": 1e-11})
    best, a = found.x, path(found.x)
    B = np.empty(len(rho) + 1)
    B[-1] = 2 / penalty * (y - a[-1])
    for layer in range(len(rho), 0, -1):
        B[layer - 1] = B[layer] * (1 - rho[layer - 1] * depth + rho[layer - 1] * best[layer - 1])
    hamiltonians = depth / 2 * (B[1:] * a[:-1]) ** 2 - depth * B[1:] * a[:-1]
    return cost(best), hamiltonians


@pytest.mark.parametrize("rho", [np.full(5, 0.2), np.array([0.1, 0.3, 0.15, 0.25, 0.2])], ids=["uniform", "uneven"])
def test_the_envelope_identity_on_a_net_solved_by_brute_force(rho):
    depths = np.array([2.995, 3.0, 3.005])
    solved = [scalar_optimum(depth, rho) for depth in depths]
    slopes = [envelope_slope(rho, energies, depth) for depth, (_, energies) in zip(depths, solved, strict=True)]
    check = check_envelope(depths, [cost for cost, _ in solved], slopes, 0.02, method="difference")
    assert check.difference[1] == pytest.approx(0, abs=3e-5 * abs(check.expected[1]))
    assert check.worst < 1e-3 * abs(check.expected[1])
    assert check.worst == abs(check.difference).max()


def test_the_expansion_holds_for_a_fine_scalar_net():
    """One direction: k = 1.000 from the depths 2, 4, 8 and slopes within 7e-6 (measured); the mesh and end point add a little."""
    rho = np.full(40, 1 / 40)
    solved = {depth: scalar_optimum(depth, rho, penalty=1e-3) for depth in (2.0, 4.0, 8.0)}
    costs = [cost for cost, _ in solved.values()]
    fit = fit_depth_expansion(list(solved), costs, penalty=1e-3)
    assert fit.k == pytest.approx(1, abs=0.01)
    slopes = [envelope_slope(rho, energies, depth) for depth, (_, energies) in solved.items()]
    check = check_envelope(list(solved), costs, slopes, 1e-3)
    assert check.worst < 1e-3


def test_slopes_of_a_parabola_are_exact_in_any_order():
    depths = np.array([5.0, 2.0, 3.5, 3.0])
    check = check_envelope(depths, depths**2 + 1, 2 * depths, method="difference")
    assert check.worst < 1e-12
    assert check.effective_depths.tolist() == depths.tolist()
    check = check_envelope(depths, expansion(depths, 3, 1, 8), 3 - 8 / depths**2)
    assert check.worst < 1e-11


def test_envelope_slopes_take_leading_dimensions():
    slopes = envelope_slope(torch.tensor([0.25, 0.75]), torch.tensor([[-4.0, -8.0], [0.0, -2.0]]), 2.0)
    assert slopes.tolist() == [7.0, 1.5]


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([2, 4], [1, 1]), {}, "at least three different"),
        (([2, 4, 4], [1, 1, 1]), {}, "at least three different"),
        (([[2, 4, 8]], [1, 1, 1]), {}, "at least three different"),
        (([0, 4, 8], [1, 1, 1]), {}, "effective_depths must be positive"),
        (([2, 4, math.nan], [1, 1, 1]), {}, "effective_depths must be positive"),
        (([2, 4, 8], [1, 1]), {}, "one row a depth"),
        (([2, 4, 8], [[1, 1, 1]]), {}, "one row a depth"),
        (([2, 4, 8], np.ones((3, 0))), {}, "one row a depth"),
        (([2, 4, 8], [1, math.nan, 1]), {}, "costs must be finite"),
        (([2, 4, 8], [1, -1, 1]), {}, "costs must be finite"),
        (([2, 4, 8], [1, 1, 1]), {"penalty": 0.0}, "penalty must be positive"),
        (([2, 4, 8], [1, 1, 1]), {"errors": [1, 1]}, "errors must be one for each"),
        (([2, 4, 8], [1, 1, 1]), {"errors": [1, 1, 0]}, "errors must be positive"),
        (([2, 4, 8], np.ones((3, 2))), {"errors": [1, 1, 1]}, "not both"),
        (([2, 4, 8], np.ones((3, 2))), {"reduce": "median"}, "'lowest' or 'mean'"),
    ],
)
def test_bad_runs_are_refused(arguments, options, message):
    with pytest.raises(InputError, match=message):
        fit_depth_expansion(*arguments, **options)


def test_other_bad_input_is_refused():
    fit = fit_depth_expansion((2, 4, 8), (90.87, 77.86, 80.77))
    assert isinstance(fit, DepthExpansion)
    with pytest.raises(InputError, match="effective_depth must be positive"):
        fit.cost(0.0)
    with pytest.raises(InputError, match="effective_depth must be positive"):
        fit.slope([1.0, math.nan])
    for bad in (0.0, -1.0, math.inf, math.nan, True, "4"):
        with pytest.raises(InputError, match="effective_depth must be a positive"):
            predicted_spectrum([1.0], bad)
    for bad in (0, 2.5, True):
        with pytest.raises(InputError, match="layers must be a whole number"):
            rates_of([1.0], 4.0, bad)
    with pytest.raises(InputError, match="rates must be finite"):
        predicted_spectrum([math.nan], 4.0)
    with pytest.raises(InputError, match="at least 0"):
        rates_of([-1.0], 4.0)
    with pytest.raises(InputError, match="as many layers"):
        envelope_slope([0.5, 0.5], [1.0], 4.0)
    with pytest.raises(InputError, match="with the sum 1"):
        envelope_slope([0.5, 0.6], [1.0, 1.0], 4.0)
    with pytest.raises(InputError, match="last node"):
        envelope_slope([0.5, 0.5], [1.0, math.nan], 4.0)
    with pytest.raises(InputError, match="effective_depth"):
        envelope_slope([0.5, 0.5], [1.0, 1.0], 0.0)
    good = ([2, 4, 8], [1, 1, 1])
    with pytest.raises(InputError, match="unknown method"):
        check_envelope(*good, [1, 1, 1], method="spline")
    with pytest.raises(InputError, match="one for each of 3 different depths"):
        check_envelope(*good, [1, 1])
    with pytest.raises(InputError, match="one for each of 4 different depths"):
        check_envelope([2, 4, 8, 8], [1, 1, 1, 1], [1, 1, 1, 1])
    with pytest.raises(InputError, match="slopes must be finite"):
        check_envelope(*good, [1, 1, math.nan])
