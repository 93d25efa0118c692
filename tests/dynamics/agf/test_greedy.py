"""Greedy training: exact directions against brute force, closed-form staircases, monotone costs, and what comes out of it."""

import itertools
import math
import signal

import numpy as np
import pytest
import torch
from torch import nn

from learnmech.dynamics.agf import greedy_training
from learnmech.dynamics.agf.greedy_activation import Homogeneous, read_activation
from learnmech.dynamics.agf.greedy_cost import Cost, _curvature, balance, best_outputs, minimise_cost
from learnmech.dynamics.agf.greedy_rounds import grow, prune
from learnmech.dynamics.agf.greedy_training import Greedy
from learnmech.dynamics.agf.greedy_utility import maximise_utility, pull, search_circle
from learnmech.errors import InputError

ACTIVATIONS = ["relu", "leaky_relu", "abs", "linear", "square", lambda z: z.clamp(min=0) ** 3]


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def teacher_task(samples=150, seed=0, outputs=1):
    inputs = normal(samples, 4, seed=seed)
    targets = (inputs @ normal(4, 5, seed=seed + 1)).clamp(min=0) @ normal(5, outputs, seed=seed + 2)
    return inputs, targets


# ---- activations


@pytest.mark.parametrize(
    ("activation", "degree", "positive", "negative"),
    [
        (nn.ReLU(), 1, 1, 0),
        (nn.LeakyReLU(0.2), 1, 1, -0.2),
        (torch.abs, 1, 1, 1),
        (torch.square, 2, 1, 1),
        (lambda z: -2 * (-z).clamp(min=0) ** 1.5, 1.5, 0, -2),
        ("linear", 1, 1, -1),
    ],
)
def test_an_activation_is_recognised_by_its_values(activation, degree, positive, negative):
    found, make = read_activation(activation)
    assert (found.degree, found.positive, found.negative) == pytest.approx((degree, positive, negative), abs=1e-7)
    probes = normal(50)
    expected = activation(probes) if callable(activation) else probes
    torch.testing.assert_close(found.value(probes), expected.double())
    torch.testing.assert_close(make()(probes), expected.double())
    step = 1e-6
    slope = (found.value(probes + step) - found.value(probes - step)) / (2 * step)
    torch.testing.assert_close(found.slope(probes), slope, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "activation",
    ["gelu", 3, torch.tanh, nn.GELU(), torch.relu_ if False else (lambda z: z + 1), lambda z: 0 * z, lambda z: z[:2]],
)
def test_what_is_not_homogeneous_is_refused(activation):
    with pytest.raises(InputError, match="activation must be"):
        Greedy(activation=activation)


# ---- utility


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "abs"])
@pytest.mark.parametrize("seed", range(4))
def test_in_two_dimensions_the_best_direction_is_the_best_of_all_kinks_and_peaks(activation, seed):
    """A maximum on the circle is in a kink, across some sample, or at D/|D| or -D/|D| of one of the 2n arcs between kinks."""
    function, _ = read_activation(activation)
    inputs, residual = normal(25, 2, seed=seed), normal(25, 1, seed=seed + 50)
    across = np.arctan2(inputs[:, 1].numpy(), inputs[:, 0].numpy()) + np.pi / 2
    kinks = np.sort(np.concatenate([across, across + np.pi]) % (2 * np.pi))
    middles = (kinks + np.roll(kinks, -1) + 2 * np.pi * (np.arange(50) == 49)) / 2
    angles = list(kinks)
    for middle in middles:
        active = inputs.numpy() @ [np.cos(middle), np.sin(middle)] > 0
        slopes = np.where(active, function.positive, -function.negative)
        slope = inputs.numpy().T @ (slopes * residual.numpy()[:, 0])
        angles += [np.arctan2(slope[1], slope[0]), np.arctan2(-slope[1], -slope[0])]
    best = 0.0
    for angle in angles:
        seen = inputs.numpy() @ [np.cos(angle), np.sin(angle)]
        values = np.where(seen > 0, function.positive * seen, -function.negative * seen)
        best = max(best, abs(float(values @ residual.numpy()[:, 0])) / 25)
    found = maximise_utility(inputs, residual, function, starts=2)
    assert float(found.utilities[0]) == pytest.approx(best / 2, rel=1e-12)


def test_a_relu_in_three_dimensions_reaches_the_best_of_all_cones():
    """Inside a cone of fixed signs U = D.w; its maximum on the sphere is |D| if D lies in it, else on its border: bounded by brute force."""
    function, _ = read_activation("relu")
    inputs, residual = normal(8, 3, seed=5), normal(8, 1, seed=6)
    best = 0.0
    for first, second in itertools.combinations(range(8), 2):  # rays where two samples sit in their kinks
        ray = torch.linalg.cross(inputs[first], inputs[second])
        for sign in (1, -1):
            best = max(best, float(pull(inputs, residual, sign * ray[None] / ray.norm(), function)[0]))
    for mask in itertools.product([0.0, 1.0], repeat=8):  # peaks inside cones
        slope = inputs.T @ (torch.tensor(mask, dtype=torch.float64) * residual[:, 0]) / 8
        for sign in (1, -1):
            direction = sign * slope / slope.norm().clamp(min=1e-300)
            best = max(best, float(pull(inputs, residual, direction[None], function)[0]))
    random = torch.nn.functional.normalize(normal(20_000, 3, seed=7), dim=1)  # peaks on borders of one kink
    best = max(best, float(pull(inputs, residual, random, function)[0].max()))
    found = maximise_utility(inputs, residual, function, polished=16)
    assert 2 * float(found.utilities[0]) >= best * (1 - 1e-9)


def test_the_search_on_a_circle_is_exact_in_any_dimension():
    function, _ = read_activation("leaky_relu")
    inputs, weights = normal(40, 6, seed=1), normal(40, seed=2)
    basis = torch.linalg.qr(normal(6, 2, seed=3))[0]
    angle = search_circle(inputs, weights, basis[:, 0], basis[:, 1], function)
    assert -math.pi <= angle <= math.pi
    angles = torch.linspace(-math.pi, math.pi, 20_001, dtype=torch.float64)

    def utility(at):
        directions = at.cos()[:, None] * basis[:, 0] + at.sin()[:, None] * basis[:, 1]
        return (function.value(inputs @ directions.T).T @ weights).abs()

    reached, grid = float(utility(torch.tensor([angle], dtype=torch.float64))), float(utility(angles).max())
    assert grid - 1e-12 <= reached <= grid * (1 + 1e-4)


def test_linear_and_square_neurons_have_most_utility_at_singular_and_eigenvectors():
    inputs, residual = normal(60, 5, seed=1), normal(60, 3, seed=2)
    top = np.linalg.svd((inputs.T @ residual / 60).numpy(), compute_uv=False)
    found = maximise_utility(inputs, residual, read_activation("linear")[0])
    np.testing.assert_allclose(found.utilities, top / 2, rtol=1e-10)
    matrix = (inputs.T @ (residual[:, :1] * inputs) / 60).numpy()
    sizes = np.sort(np.abs(np.linalg.eigvalsh(matrix)))[::-1]
    found = maximise_utility(inputs, residual[:, :1], read_activation("square")[0])
    np.testing.assert_allclose(found.utilities, math.sqrt(4 / 27) * sizes, rtol=1e-9)


def test_many_outputs_beat_every_random_direction():
    inputs, residual = normal(80, 3, seed=1), normal(80, 4, seed=2)
    directions = torch.nn.functional.normalize(normal(10_000, 3, seed=3), dim=1)
    for activation in ACTIVATIONS:
        function, _ = read_activation(activation)
        found = maximise_utility(inputs, residual, function, steps=400, tolerance=1e-12)
        sizes, _ = pull(inputs, residual, found.directions[:1], function)
        assert float(sizes) >= float(pull(inputs, residual, directions, function)[0].max()) * (1 - 1e-6)


def test_the_power_method_never_falls_for_one_sign_and_may_for_two():
    """What the docstring says: |D| >= U for residuals of one sign; a residual of both signs breaks it, so steps are checked."""
    function, _ = read_activation("relu")

    def power(inputs, residual, direction, steps):
        values = []
        for _ in range(steps):
            values.append(float((residual * function.value(inputs @ direction)).mean()))
            slope = inputs.T @ (residual * function.slope(inputs @ direction)) / len(inputs)
            direction = slope / slope.norm().clamp(min=1e-300)
        return np.array(values)

    fell = 0
    for seed in range(40):
        inputs, residual, start = normal(30, 4, seed=seed), normal(30, seed=seed + 99), normal(4, seed=seed + 500)
        start = start / start.norm()
        assert (np.diff(power(inputs, residual.abs(), start, 15)) >= -1e-14).all()
        values = power(inputs, residual, start, 15)
        positive = values[values > 0]
        fell += bool(len(positive) > 1 and (np.diff(values) < -1e-9).any())
    assert fell > 0


# ---- cost


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_curvature_and_slope_against_jacobians_by_differences(activation):
    function, _ = read_activation(activation)
    inputs, targets = normal(30, 3, seed=1), normal(30, 2, seed=2)
    cost = Cost(inputs, targets, function, 0.3)
    weights, outputs = normal(4, 3, seed=3), normal(4, 2, seed=4)
    point = torch.cat([weights.flatten(), outputs.flatten()])

    def residual(flat):
        return cost.residual(flat[:12].view(4, 3), flat[12:].view(4, 2)).flatten()

    step = 1e-6
    jacobian = torch.stack(
        [(residual(point + step * e) - residual(point - step * e)) / (2 * step) for e in torch.eye(20).double()], 1
    )
    hessian, slope = _curvature(cost, weights, outputs)
    torch.testing.assert_close(hessian, jacobian.T @ jacobian / 30 + 0.3 * torch.eye(20).double(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(slope, jacobian.T @ residual(point) / 30 + 0.3 * point, atol=1e-6, rtol=1e-6)


def test_best_outputs_are_those_of_numpy_and_doubled_neurons_are_no_trouble():
    inputs, targets = normal(50, 3, seed=1), normal(50, 2, seed=2)
    cost = Cost(inputs, targets, read_activation("relu")[0])
    weights = normal(4, 3, seed=3)
    features = (inputs @ weights.T).clamp(min=0).numpy()
    expected = np.linalg.lstsq(features, targets.numpy(), rcond=None)[0]
    np.testing.assert_allclose(best_outputs(cost, weights), expected, rtol=1e-9)
    doubled = best_outputs(cost, torch.cat([weights, weights]))
    np.testing.assert_allclose(doubled, np.concatenate([expected, expected]) / 2, rtol=1e-6)
    decayed = np.linalg.solve(features.T @ features / 50 + 0.1 * np.eye(4), features.T @ targets.numpy() / 50)
    np.testing.assert_allclose(best_outputs(Cost(inputs, targets, cost.activation, 0.1), weights), decayed, rtol=1e-9)


@pytest.mark.parametrize("degree", [1.0, 2.0, 3.0])
def test_balanced_neurons_are_the_smallest_of_the_same_network(degree):
    function = Homogeneous(degree, 1.0, 0.0, "power")
    inputs, weights, outputs = normal(20, 3), normal(5, 3, seed=1), normal(5, 2, seed=2)
    weights[4] = 0
    rescaled = balance(weights, outputs, degree)
    network = function.value(inputs @ weights.T) @ outputs
    torch.testing.assert_close(function.value(inputs @ rescaled[0].T) @ rescaled[1], network)
    assert not rescaled[1][4].any()

    def size(scale):
        return float((rescaled[0][:4] * scale).square().sum() + (rescaled[1][:4] / scale**degree).square().sum())

    assert size(1.0) <= min(size(0.97), size(1.03))


def test_cost_never_rises_by_either_method(monkeypatch):
    inputs, targets = teacher_task()
    for activation, most in itertools.product(ACTIVATIONS, (1600, 0)):
        monkeypatch.setattr("learnmech.dynamics.agf.greedy_cost._MOST_FOR_SECOND_ORDER", most)
        cost = Cost(inputs, targets, read_activation(activation)[0], 1e-3)
        weights, outputs = normal(6, 4, seed=8), normal(6, 1, seed=9)
        before = cost.value(weights, outputs)
        *after, value = minimise_cost(cost, weights, outputs, steps=4)
        assert value < before
        assert cost.value(*after) == pytest.approx(value, rel=1e-12)
        again = minimise_cost(cost, *after, steps=2)
        assert again[2] <= value


def test_a_new_neuron_lowers_the_loss_by_what_the_line_search_promises():
    inputs, targets = teacher_task(outputs=2)
    for activation in ACTIVATIONS:
        function, _ = read_activation(activation)
        cost = Cost(inputs, targets, function)
        none = inputs.new_zeros(0, 4), targets.new_zeros(0, 2)
        weights, outputs, utility = grow(cost, *none, most=1, starts=32, seed=0)
        unit = torch.nn.functional.normalize(weights, dim=1)
        size = float(pull(inputs, targets, unit, function)[0])
        square = float(function.value(inputs @ unit.T).square().mean())
        fell = cost.value(*none) - cost.value(weights, outputs)
        assert fell == pytest.approx(size**2 / (2 * square), rel=1e-9)
        assert float(weights.norm()) == pytest.approx(function.degree**0.5 * float(outputs.norm()))
        assert utility > 0


def test_neurons_that_add_nothing_leave():
    inputs, targets = teacher_task()
    cost = Cost(inputs, targets, read_activation("relu")[0])
    weights = torch.cat([normal(3, 4, seed=1), torch.zeros(1, 4).double()])
    outputs = torch.cat([normal(3, 1, seed=2), torch.ones(1, 1).double()])
    value = cost.value(weights, outputs)
    kept, kept_outputs, after = prune(cost, weights, outputs, value, cost.value(weights[:0], outputs[:0]))
    assert len(kept) == len(kept_outputs) == 3
    assert after == pytest.approx(value)


# ---- the training


def test_linear_neurons_walk_down_the_singular_values():
    """Whitened inputs: after k neurons the loss is half the sum of the squares of what is left, sigma_j^2 for j > k."""
    orthogonal = torch.linalg.qr(normal(60, 4))[0] * math.sqrt(60)
    left, right = torch.linalg.qr(normal(4, 4, seed=1))[0], torch.linalg.qr(normal(3, 3, seed=2))[0]
    strengths = torch.tensor([3.0, 1.5, 0.5], dtype=torch.float64)
    targets = orthogonal @ left[:, :3] @ torch.diag(strengths) @ right.T
    run = Greedy(8, activation="linear", bias=False, standardize=False, tolerance=1e-12).fit(orthogonal, targets)
    np.testing.assert_allclose(run["loss"][:4], [5.75, 1.25, 0.125, 0.0], atol=1e-9)
    np.testing.assert_allclose(run["utility"][1:4], [1.5, 0.75, 0.25], rtol=1e-6)
    assert run["neurons"].values.tolist() == [0, 1, 2, 3]
    assert run.attrs["reason"] == "tolerance"


def test_square_neurons_learn_a_quadratic_form_by_its_rank():
    inputs = normal(400, 5)
    basis = torch.linalg.qr(normal(5, 5, seed=3))[0]
    form = basis[:, :3] @ torch.diag(torch.tensor([3.0, -2.0, 1.0], dtype=torch.float64)) @ basis[:, :3].T
    greedy = Greedy(6, activation="square", bias=False, standardize=False, tolerance=1e-14, steps=100)
    run = greedy.fit(inputs, ((inputs @ form) * inputs).sum(1))
    assert run["neurons"].values[-1] == 3
    assert float(run["loss"][-1]) < 1e-12 * float(run["loss"][0])
    layers = greedy.module()
    found = (layers[0].weight.T * layers[2].weight[0]) @ layers[0].weight
    torch.testing.assert_close(found.detach(), form, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("standardize", [True, False])
def test_the_module_is_the_network(activation, standardize):
    inputs, targets = teacher_task(120, outputs=2)
    inputs, targets = 3 * inputs + 5, 10 * targets - 4
    greedy = Greedy(4, activation=activation, standardize=standardize, steps=5, starts=16)
    run = greedy.fit(inputs, targets)
    module = greedy.module()
    torch.testing.assert_close(module(inputs).detach(), greedy.predict(inputs), rtol=1e-9, atol=1e-7)
    error = float((module(inputs) - targets).detach().square().sum()) / (2 * len(inputs))
    assert float(run["loss"][-1]) == pytest.approx(error, rel=1e-9)
    assert (np.diff(run["loss"]) <= 1e-9 * float(run["loss"][0])).all()
    assert greedy.neurons == run["neurons"][-1]
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_scaled_data_give_the_same_training():
    inputs, targets = teacher_task(150)
    first, second = Greedy(3, steps=5), Greedy(3, steps=5)
    one, two = first.fit(inputs, targets), second.fit(4 * inputs, 8 * targets)
    np.testing.assert_allclose(two["loss"], 64 * one["loss"], rtol=1e-12)
    torch.testing.assert_close(second.predict(4 * inputs), 8 * first.predict(inputs))


def test_same_seed_same_network_and_the_global_generator_is_untouched():
    inputs, targets = teacher_task(100)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    greedy = [Greedy(4, steps=5, seed=3) for _ in range(2)]
    runs = [each.fit(inputs, targets) for each in greedy]
    modules = [each.module() for each in greedy]
    assert torch.equal(torch.rand(1), expected)
    np.testing.assert_array_equal(runs[0]["loss"], runs[1]["loss"])
    assert torch.equal(modules[0][0].weight, modules[1][0].weight)


def test_a_teacher_of_relus_is_learned_to_the_end():
    inputs, targets = teacher_task(400)
    run = Greedy(20, standardize=False, tolerance=1e-8).fit(inputs, targets[:, 0])
    assert run.attrs["reason"] == "tolerance"
    assert run["loss"][-1] <= 1e-8 * run["loss"][0]
    assert (np.diff(run["seconds"]) > 0).all()


def test_more_neurons_can_be_asked_for_later():
    inputs, targets = teacher_task(150)
    whole = Greedy(6, steps=4, starts=16)
    expected = whole.fit(inputs, targets)
    parts = Greedy(3, steps=4, starts=16)
    parts.fit(inputs, targets)
    run = parts.fit(inputs, targets, width=6)
    np.testing.assert_allclose(run["loss"], expected["loss"], rtol=1e-9)
    np.testing.assert_array_equal(run["round"], np.arange(len(expected["round"])))
    assert (np.diff(run["seconds"]) > 0).all()
    with pytest.raises(InputError, match="reset"):
        parts.fit(inputs[:, :3], targets)
    parts.reset()
    assert parts.neurons == 0
    assert parts.fit(inputs[:, :3], targets)["neurons"][-1] > 0


def test_several_neurons_a_round():
    inputs, targets = teacher_task(200)
    run = Greedy(7, per_round=3, steps=5).fit(inputs, targets)
    assert run["neurons"].values.tolist() == [0, 3, 6, 7]


def test_validation_keeps_the_best_round():
    inputs, targets = teacher_task(60)
    noisy = targets + 2 * normal(60, 1, seed=9)
    held = normal(400, 4, seed=77)
    clean = (held @ normal(4, 5, seed=1)).clamp(min=0) @ normal(5, 1, seed=2)
    greedy = Greedy(40, patience=3, steps=10)
    run = greedy.fit(inputs, noisy, validation=(held, clean))
    assert run.attrs["reason"] == "validation"
    best = int(run["validation_loss"].values.argmin())
    assert run.attrs["kept_round"] == best
    assert len(run["round"]) == best + 4
    assert greedy.neurons == run["neurons"][best]
    error = float((greedy.predict(held) - clean).square().mean()) / 2
    assert float(run["validation_loss"].min()) == pytest.approx(error)
    more = greedy.fit(inputs, noisy, validation=(held, clean))
    assert len(more["round"]) > len(run["round"])
    kept = int(more.attrs["kept_round"])
    assert more["validation_loss"][kept] <= run["validation_loss"][best]
    assert greedy.neurons == more["neurons"][kept]
    share = Greedy(2, steps=3).fit(inputs, noisy, validation=0.25)
    assert share["validation_loss"].notnull().all()


def test_weight_decay_leads_to_the_optimum_over_networks_of_any_width():
    """For degree 1 the problem is convex in measures on the circle. With a dual point nu whose pull is nowhere above the decay, no network
    costs less than <nu, y>/n - |nu|^2/2n; the residual, scaled to be such a point, bounds the cost from below."""
    inputs = torch.linspace(-1, 1, 60, dtype=torch.float64)[:, None]
    targets = (3 * inputs[:, 0]).sin()
    decay = 1e-2
    greedy = Greedy(30, standardize=False, weight_decay=decay)
    run = greedy.fit(inputs, targets)
    assert run.attrs["reason"] in {"no utility", "no gain"}
    assert (np.diff(run["cost"]) <= 1e-9).all()
    angles = torch.linspace(-math.pi, math.pi, 20_001, dtype=torch.float64)
    grid = torch.stack([angles.cos(), angles.sin()], 1)
    columns = torch.cat([inputs, torch.ones_like(inputs)], 1)
    residual = targets - greedy.predict(inputs)
    pulls, _ = pull(columns, residual[:, None], grid, read_activation("relu")[0])
    assert float(pulls.max()) <= decay * 1.05
    dual = residual * min(1.0, decay / float(pulls.max()))
    bound = float((dual * targets).mean() - dual.square().mean() / 2)
    assert bound <= float(run["cost"][-1]) <= bound * 1.005
    assert float(run["loss"][-1]) == pytest.approx(float(residual.square().mean()) / 2)
    none = Greedy(5, standardize=False, weight_decay=10.0).fit(inputs, targets)
    assert none.attrs["reason"] == "no utility"
    assert none["neurons"].values.tolist() == [0]


def test_nothing_to_learn_gives_the_constant():
    inputs = normal(20, 3)
    greedy = Greedy(4)
    run = greedy.fit(inputs, torch.full((20,), 2.5, dtype=torch.float64))
    assert run.attrs["reason"] == "nothing to learn"
    assert greedy.neurons == 0
    assert greedy.predict(inputs).tolist() == [2.5] * 20
    assert greedy.module()(inputs).flatten().tolist() == [2.5] * 20
    constant = Greedy(4).fit(torch.cat([inputs, torch.ones(20, 1)], 1), inputs[:, 0])
    assert np.isfinite(constant["loss"]).all()


def test_inputs_of_zero_have_no_utility():
    run = Greedy(4, bias=False, standardize=False).fit(np.zeros((10, 2)), np.ones(10))
    assert run.attrs["reason"] == "no utility"
    assert run["loss"].values.tolist() == [0.5]


def test_types_are_kept_and_lists_are_taken():
    inputs, targets = teacher_task(80)
    for kind in (torch.float32, torch.float64):
        greedy = Greedy(2, steps=3)
        greedy.fit(inputs.to(kind), targets.to(kind))
        assert greedy.predict(inputs).dtype == greedy.module()[0].weight.dtype == kind
    half = Greedy(2, steps=3)
    half.fit(inputs.to(torch.bfloat16), targets)
    assert half.predict(inputs).dtype == torch.float32
    whole = Greedy(2, steps=3)
    whole.fit([[0, 1], [1, 0], [2, 2], [3, 1]], [0, 1, 0, 2])
    assert whole.predict([[0, 1]]).shape == (1,)


def test_ctrl_c_keeps_what_has_been_fitted(monkeypatch):
    inputs, targets = teacher_task(200)
    original, calls = greedy_training.minimise_cost, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments, **options)

    monkeypatch.setattr(greedy_training, "minimise_cost", interrupted)
    greedy = Greedy(4, steps=5)
    run = greedy.fit(inputs, targets)
    assert run.attrs["reason"] == "interrupted"
    assert greedy.neurons == run["neurons"][-1] == 3
    assert (np.diff(run["loss"]) < 0).all()
    resumed = greedy.fit(inputs, targets)
    assert resumed.attrs["reason"] == "width"
    assert resumed["neurons"].values.tolist() == list(range(5))


@pytest.mark.parametrize(
    "options",
    [
        {"width": 0},
        {"width": True},
        {"per_round": 0},
        {"starts": 1.5},
        {"weight_decay": -1.0},
        {"weight_decay": math.nan},
        {"steps": 0},
        {"tolerance": 1.0},
        {"patience": 0},
        {"seed": -1},
    ],
)
def test_wrong_settings(options):
    with pytest.raises(InputError, match=next(iter(options))):
        Greedy(**options)


@pytest.mark.parametrize(
    ("inputs", "targets", "validation", "message"),
    [
        (np.ones(4), np.ones(4), None, "X must have shape"),
        (np.ones((0, 2)), np.ones(0), None, "X must have shape"),
        (np.ones((4, 2)), np.ones(3), None, "y must have shape"),
        (np.ones((4, 2)), np.ones((4, 1, 1)), None, "y must have shape"),
        (np.full((4, 2), np.nan), np.ones(4), None, "X must be finite"),
        (np.ones((4, 2)), [1, 2, np.inf, 0], None, "y must be finite"),
        ("words", np.ones(4), None, "X must be numbers"),
        (np.ones((4, 2)) * 1j, np.ones(4), None, "X must be real"),
        (np.ones((4, 2)), np.ones(4), 0.1, "validation must be"),
        (np.ones((4, 2)), np.ones(4), 2, "validation must be"),
        (np.ones((4, 2)), np.ones(4), "half", "validation must be"),
        (np.ones((4, 2)), np.ones(4), (np.ones((4, 3)), np.ones(4)), "validation must have 2 inputs"),
        (np.ones((4, 2)), np.ones(4), (np.full((4, 2), np.nan), np.ones(4)), "validation X must be finite"),
    ],
)
def test_wrong_data(inputs, targets, validation, message):
    with pytest.raises(InputError, match=message):
        Greedy(4).fit(inputs, targets, validation=validation)


def test_before_and_after_fitting():
    greedy = Greedy(2, steps=2)
    for ask in (greedy.module, lambda: greedy.predict(np.ones((1, 2))), lambda: greedy.history):
        with pytest.raises(InputError, match="fit"):
            ask()
    inputs, targets = teacher_task(40)
    greedy.fit(inputs, targets)
    with pytest.raises(InputError, match=r"shape \(samples, 4\)"):
        greedy.predict(np.ones((3, 2)))
    with pytest.raises(InputError, match="finite"):
        greedy.predict(np.full((3, 4), np.nan))
