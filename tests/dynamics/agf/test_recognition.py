"""Predictions for modules of one's own: recognition, units, assumptions, and real training runs held against them."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import learnmech
from learnmech.dynamics.agf.modular_utility import fourier_template
from learnmech.dynamics.agf.recognition_clock import Clock, read_clock, read_loss
from learnmech.dynamics.agf.recognition_data import modular_template, training_data
from learnmech.dynamics.agf.recognition_modules import recognise
from learnmech.dynamics.agf.recognition_predictions import predict
from learnmech.dynamics.agf.recognition_problems import ActivationProblem, SampledAttentionProblem
from learnmech.errors import InputError


class Power(nn.Module):
    def __init__(self, power):
        super().__init__()
        self.power = power

    def forward(self, x):
        return x**self.power


class Vectors(nn.Module):
    def __init__(self, dim, *, squares=False, scale=1e-3):
        super().__init__()
        self.first = nn.Parameter(torch.full((dim,), scale))
        self.second = nn.Parameter(torch.full((dim,), scale if squares else 0.0))
        self.squares = squares

    def forward(self, x):
        return x @ (self.first**2 - self.second**2 if self.squares else self.first * self.second)


class Raw(nn.Module):
    """Transposed matrices and a factor."""

    def __init__(self, dim, hidden, outputs, factor, activation=lambda z: z):
        super().__init__()
        self.inner = nn.Parameter(1e-3 * torch.randn(dim, hidden))
        self.outer = nn.Parameter(1e-3 * torch.randn(hidden, outputs))
        self.factor, self.activation = factor, activation

    def forward(self, x):
        return self.factor * self.activation(x.flatten(1) @ self.inner) @ self.outer


class Heads(nn.Module):
    def __init__(self, dim, heads, pairs):
        super().__init__()
        self.value = nn.Parameter(1e-2 * torch.rand(heads))
        self.query = nn.Parameter(1e-2 * torch.randn(heads, dim))
        self.key = nn.Parameter(1e-2 * torch.randn(dim, heads))
        self.pairs = pairs

    def forward(self, shown, answers=None, query=None):
        if answers is None:
            shown, answers, query = shown[:, :-1, :-1], shown[:, :-1, -1], shown[:, -1, :-1]
        summed = torch.einsum("bnd,bn->bd", shown, answers) / self.pairs
        return ((query @ self.query.T) * (summed @ self.key)) @ self.value


def two_layers(dim, hidden, outputs, activation=None, *, bias=False, scale=1e-3, seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(dim, hidden, bias=bias), *([activation] if activation else []), nn.Linear(hidden, outputs, bias=bias)
    )
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=scale)
    return net


def regression(samples=60, dim=4, seed=1):
    torch.manual_seed(seed)
    inputs = torch.randn(samples, dim)
    target = torch.stack([2 * inputs[:, 0], 1.0 * inputs[:, 1]], dim=1)
    return inputs, target


def trained(net, inputs, targets, optimizer, steps, loss=functional.mse_loss):
    losses = []
    for _ in range(steps):
        value = loss(net(inputs), targets)
        losses.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return np.arange(steps), np.array(losses)


class TestRecognition:
    @pytest.mark.parametrize(
        ("module", "kind", "formula"),
        [
            (two_layers(4, 5, 2), "linear", "A (W x)"),
            (two_layers(4, 4, 4), "linear", "A (W x)"),
            (two_layers(4, 5, 2, bias=True), "linear", "A (W x + b) + c"),
            (two_layers(4, 5, 2, nn.ReLU()), "relu", "A relu(W x)"),
            (two_layers(4, 4, 4, nn.ReLU(), bias=True), "relu", "A relu(W x + b) + c"),
            (two_layers(4, 5, 1, nn.LeakyReLU(0.3)), "relu", "A leaky_relu[0.3](W x)"),
            (two_layers(4, 5, 2, Power(2)), "quadratic", "A (W x)^2"),
            (two_layers(4, 5, 2, Power(3)), "homogeneous", "A s(W x), s(z) = 1 z^3 for z > 0 and -1 (-z)^3 for z < 0"),
            (Vectors(4), "diagonal", "(u * v) . x"),
            (Vectors(4, squares=True), "diagonal", "(p * p - m * m) . x"),
            (two_layers(1, 1, 1), "linear", "A (W x)"),
        ],
    )
    def test_of_every_kind(self, module, kind, formula):
        width = module.first.numel() if isinstance(module, Vectors) else module[0].in_features
        found = recognise(module, torch.randn(1, width))
        assert found.kind == kind
        assert found.formula == formula
        assert found.error < 1e-12

    def test_of_transposed_matrices_with_a_factor_behind_a_flattening(self):
        torch.manual_seed(0)
        found = recognise(Raw(6, 5, 2, -0.25), torch.randn(3, 2, 3))
        assert found.roles == {"a": "outer.T", "w": "inner.T"}
        assert found.scale == pytest.approx(-0.25)
        module = Raw(6, 5, 2, 3.0, torch.relu)
        inputs = torch.randn(3, 6, dtype=torch.float64)
        found = recognise(module, inputs)
        with torch.no_grad():
            expected = copy.deepcopy(module).double()(inputs).reshape(-1)
        torch.testing.assert_close(found.outputs(found.values(module), inputs), expected)

    def test_of_attention_on_triples_and_tokens(self):
        torch.manual_seed(0)
        triple = (torch.randn(2, 5, 3), torch.randn(2, 5), torch.randn(2, 3))
        tokens = torch.randn(2, 6, 4)
        tokens[:, -1, -1] = 0
        for inputs in (triple, tokens):
            found = recognise(Heads(3, 4, 5), inputs)
            assert found.kind == "linear attention"
            assert found.roles == {"v": "value", "q": "query", "k": "key.T"}
            assert found.scale == pytest.approx(0.2)

    @pytest.mark.parametrize(
        "module",
        [
            two_layers(4, 5, 2, nn.Tanh()),
            two_layers(4, 5, 2, nn.GELU()),
            nn.Linear(4, 2),
            nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)),
            nn.Sequential(nn.Linear(4, 4, bias=False), nn.LayerNorm(4), nn.Linear(4, 1)),
            nn.Sequential(nn.Linear(4, 6, bias=False), nn.Dropout(0.5), nn.Linear(6, 1, bias=False)),
            nn.Identity(),
        ],
    )
    def test_refuses_what_is_none(self, module):
        with pytest.raises(InputError, match="no two-layer network of a known kind"):
            recognise(module, torch.randn(3, 4))

    def test_refuses_what_is_no_module_or_does_not_run(self):
        with pytest.raises(InputError, match=r"torch\.nn\.Module"):
            recognise(lambda x: x, torch.randn(3, 4))
        with pytest.raises(InputError, match="does not take these inputs"):
            recognise(two_layers(4, 5, 2), torch.randn(3, 7))

    def test_of_a_model_that_treats_some_inputs_apart(self):
        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = two_layers(4, 5, 2)

            def forward(self, x):
                return self.net(x) + (1.0 if x.abs().max() > 1e3 else 0.0)

        with pytest.raises(InputError, match="but not on the data"):
            predict(Odd(), (torch.full((3, 4), 2e3), torch.ones(3, 2)))

    def test_leaves_the_model_as_it_was(self):
        net = two_layers(4, 5, 2, nn.ReLU())
        net.train()
        functional.mse_loss(net(torch.randn(3, 4)), torch.ones(3, 2)).backward()
        before = copy.deepcopy(net.state_dict())
        gradients = [parameter.grad.clone() for parameter in net.parameters()]
        state = torch.get_rng_state()
        recognise(net, torch.randn(3, 4, generator=torch.Generator().manual_seed(1)))
        assert torch.equal(state, torch.get_rng_state())
        assert net.training
        assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
        assert all(torch.equal(one, parameter.grad) for one, parameter in zip(gradients, net.parameters(), strict=True))


class TestUnits:
    @pytest.mark.parametrize(
        ("loss", "factor"),
        [
            (None, 2 / 3),
            (nn.MSELoss(reduction="sum"), 2 * 5),
            (lambda f, y: 0.5 * (f - y).square().sum(1).mean(), 1.0),
            (functional.mse_loss, 2 / 3),
        ],
    )
    def test_of_squared_losses_are_measured(self, loss, factor):
        assert read_loss(loss, (5, 3)) == pytest.approx(factor)

    @pytest.mark.parametrize("loss", [nn.L1Loss(), nn.CrossEntropyLoss(), nn.HuberLoss(), lambda f: f.sum()])
    def test_of_other_losses_are_refused(self, loss):
        with pytest.raises(InputError):
            read_loss(loss, (5, 3))

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"momentum": 0.9},
            {"momentum": 0.9, "nesterov": True},
            {"momentum": 0.8, "dampening": 0.5},
        ],
    )
    def test_steps_are_those_of_torch(self, settings):
        """A linear growth by torch's own SGD: how many steps until it has grown as the flow does in the time 50."""
        growth, lr, time = 0.5, 0.1, 50.0
        weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = torch.optim.SGD([weight], lr=lr, **settings)
        clock = read_clock(optimizer, None, 0.0, 1.0)
        logs = [0.0]
        while logs[-1] < growth * time:
            weight.grad = -growth * weight.detach()
            optimizer.step()
            logs.append(math.log(weight.item()))
        exact = len(logs) - 2 + (growth * time - logs[-2]) / (logs[-1] - logs[-2])
        found = clock.steps(np.array([time]), np.array([growth]))[0]
        assert found == pytest.approx(exact, abs=1e-6 * exact)
        plain = clock.steps(np.array([time]), np.array([0.0]))[0]
        assert plain == pytest.approx(time / clock.rate)
        assert Clock(1.0, "", True, 1e-9).steps(np.array([time]), np.array([growth]))[0] == pytest.approx(time / 1e-9)

    def test_of_other_optimizers_are_not_known(self):
        net = two_layers(4, 5, 2)
        adam = read_clock(torch.optim.Adam(net.parameters()), None, 0.0, 1.0)
        assert not adam.counts_steps
        assert adam.exact is False
        decay = read_clock(torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=1e-3), None, 0.0, 1.0)
        assert decay.counts_steps
        assert decay.exact is False
        groups = [{"params": [parameter], "lr": lr} for parameter, lr in zip(net.parameters(), (0.1, 0.2), strict=True)]
        assert not read_clock(torch.optim.SGD(groups), None, 0.0, 1.0).counts_steps
        with pytest.raises(InputError, match="maximises"):
            read_clock(torch.optim.SGD(net.parameters(), lr=0.1, maximize=True), None, 0.0, 1.0)
        with pytest.raises(InputError, match="not both"):
            read_clock(torch.optim.SGD(net.parameters(), lr=0.1), 0.1, 0.0, 1.0)
        with pytest.raises(InputError, match="must be positive"):
            read_clock(None, -1.0, 0.0, 1.0)
        with pytest.raises(InputError, match=r"torch\.optim\.Optimizer"):
            read_clock("SGD", None, 0.0, 1.0)


class TestTrainingRuns:
    @pytest.mark.parametrize(
        ("dtype", "settings", "most"),
        [(torch.float64, {}, 0.003), (torch.float32, {"momentum": 0.9}, 0.02)],
    )
    def test_of_a_linear_net_on_white_inputs(self, dtype, settings, most):
        inputs = torch.linalg.qr(regression()[0])[0] * 60**0.5
        targets = torch.stack([2 * inputs[:, 0], 1.0 * inputs[:, 1]], dim=1)
        net = two_layers(4, 6, 2).to(dtype)
        lr = 0.03 * (1 - settings.get("momentum", 0.0))
        optimizer = torch.optim.SGD(net.parameters(), lr=lr, **settings)
        found = predict(net, (inputs, targets), optimizer=optimizer, batch_size=len(inputs))
        assert found.order == (0, 1)
        assert not found.failing
        run = trained(net, inputs.to(dtype), targets.to(dtype), optimizer, int(1.5 * found.times[-1]))
        comparison = found.compare(*run)
        assert comparison.complete
        assert np.abs(comparison.time_errors).max() < most
        assert np.abs(comparison.level_errors).max() < 0.01

    def test_watched_over_steps(self):
        inputs, targets = regression()
        net = two_layers(4, 6, 2)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        loss = nn.MSELoss()
        found = predict(net, (inputs, targets), optimizer=optimizer, loss=loss)
        assert found.time_unit == "optimizer steps"
        steps = int(1.5 * found.times[-1])
        with learnmech.watch(net, (inputs, targets), loss, optimizer=optimizer, every=2, measures="light") as monitor:
            trained(net, inputs, targets, optimizer, steps, loss)
        comparison = found.compare(monitor.history)
        assert comparison.complete
        assert np.abs(comparison.time_errors).max() < 0.02
        assert np.abs(comparison.level_errors).max() < 0.03

    @pytest.mark.parametrize("squares", [False, True])
    def test_of_diagonal_ones(self, squares):
        torch.manual_seed(0)
        inputs = torch.linalg.qr(torch.randn(50, 3, dtype=torch.float64))[0] * 50**0.5
        targets = inputs @ torch.tensor([2.0, -1.0, 0.0], dtype=torch.float64)
        net = Vectors(3, squares=squares, scale=1e-5).double()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        found = predict(net, (inputs, targets), optimizer=optimizer)
        assert found.order == ("+0", "-1")
        comparison = found.compare(*trained(net, inputs, targets, optimizer, int(1.3 * found.times[-1])))
        assert comparison.complete
        assert np.abs(comparison.time_errors).max() < 0.05  # of leading order
        assert any("leading order" in note for note in found.notes)

    def test_of_a_rectified_net_with_a_factor(self):
        torch.manual_seed(3)
        inputs = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
        targets = torch.tensor([[2.0], [-0.8]], dtype=torch.float64)
        net = Raw(2, 8, 1, 0.5, torch.relu).double()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        found = predict(net, (inputs, targets), optimizer=optimizer)
        assert found.by == "agf.relu"
        assert found.recognised.scale == pytest.approx(0.5)
        comparison = found.compare(*trained(net, inputs, targets, optimizer, int(1.4 * found.times[-1])))
        assert comparison.complete
        assert np.abs(comparison.time_errors).max() < 0.02

    def test_of_a_quadratic_net_on_other_data(self):
        inputs, _ = regression(samples=20, dim=3)
        targets = (1.5 * inputs[:, 0] ** 2 + 0.5 * inputs[:, 1] ** 2)[:, None]
        net = two_layers(3, 3, 1, Power(2), scale=2e-2)
        optimizer = torch.optim.SGD(net.parameters(), lr=5e-3)
        found = predict(net, (inputs, targets), optimizer=optimizer)
        assert found.by == "agf.run"
        comparison = found.compare(*trained(net, inputs, targets, optimizer, int(1.1 * found.times[0]) + 20))
        assert comparison.status[0] == "seen"
        assert abs(comparison.time_errors[0]) < 0.05

    def test_by_adam_is_judged_by_levels(self):
        inputs, targets = regression()
        net = two_layers(4, 6, 2)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        found = predict(net, (inputs, targets), optimizer=optimizer)
        assert found.time_unit == "time of the gradient flow"
        assert [failed.name for failed in found.failing] == ["plain gradient descent"]
        steps = np.arange(200)
        levels = found.levels
        losses = np.where(steps < 50, levels[0], np.where(steps < 120, levels[1], levels[2]))
        comparison = found.compare(steps, losses)
        assert np.isnan(comparison.time_errors).all()
        assert comparison.level_errors == pytest.approx([0, 0, 0])
        assert comparison.reasons == ("no time is predicted for it.",) * 2


class TestAssumptions:
    def verdicts(self, found):
        return {assumption.name: assumption.holds for assumption in found.assumptions}

    def test_that_hold_and_fail(self):
        inputs, targets = regression()
        good = predict(two_layers(4, 6, 2), (inputs, targets), learning_rate=1e-2, batch_size=60)
        assert set(self.verdicts(good).values()) == {True}
        assert "no assumption is known to fail" in str(good)
        large = predict(two_layers(4, 6, 2, scale=0.2), (inputs, targets), learning_rate=0.5, batch_size=10)
        verdicts = self.verdicts(large)
        assert verdicts["small start"] is False
        assert verdicts["balanced start"] is False
        assert verdicts["small steps"] is False
        assert verdicts["full batch"] is False
        assert "assumptions fail" in str(large)
        unknown = self.verdicts(predict(two_layers(4, 6, 2), (inputs, targets)))
        assert unknown["small steps"] is unknown["full batch"] is unknown["plain gradient descent"] is None

    def test_on_biases(self):
        inputs, targets = regression()
        inputs, targets = inputs - inputs.mean(0), targets - targets.mean(0)
        net = two_layers(4, 6, 2, bias=True)
        free = predict(two_layers(4, 6, 2), (inputs, targets), learning_rate=1e-2)
        centred = predict(net, (inputs, targets), learning_rate=1e-2)
        assert self.verdicts(centred)["no biases"] is True
        assert centred.levels == pytest.approx(free.levels, abs=1e-6)
        shifted = predict(net, (inputs, targets + 3), learning_rate=1e-2)
        assert self.verdicts(shifted)["no biases"] is False
        assert shifted.levels == pytest.approx(free.levels, abs=1e-6)

    def test_on_inputs_that_mix_modes(self):
        inputs, targets = regression()
        mixed = inputs.clone()
        mixed[:, 0] += 1.5 * inputs[:, 1]
        found = predict(two_layers(4, 6, 2), (mixed, targets), learning_rate=1e-2)
        assert self.verdicts(found)["modes grow by themselves"] is False

    def test_levels_include_what_no_linear_map_removes(self):
        inputs, targets = regression()
        noisy = targets + 0.5 * torch.randn(targets.shape, generator=torch.Generator().manual_seed(0))
        found = predict(two_layers(4, 6, 2), (inputs, noisy), learning_rate=1e-2)
        X, Y = inputs.double().numpy(), noisy.double().numpy()
        rest = Y - X @ np.linalg.lstsq(X, Y, rcond=None)[0]
        assert found.levels[0] == pytest.approx(np.square(Y).mean())
        assert found.levels[-1] == pytest.approx(np.square(rest).mean())


class TestData:
    def test_of_a_loader(self):
        inputs, targets = regression()
        loader = DataLoader(TensorDataset(inputs, targets), batch_size=16, shuffle=True)
        state = torch.get_rng_state()
        found = predict(two_layers(4, 6, 2), loader, learning_rate=1e-2)
        whole = predict(two_layers(4, 6, 2), (inputs, targets), learning_rate=1e-2)
        assert found.times == pytest.approx(whole.times)
        assert [failed.name for failed in found.failing] == ["full batch"]
        torch.set_rng_state(state)
        training_data(loader)
        assert torch.equal(state, torch.get_rng_state())

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (torch.ones(3, 4), "must be \\(inputs, targets\\)"),
            ((torch.ones(3, 4), torch.ones(4, 2)), "as many samples"),
            ((torch.full((3, 4), math.nan), torch.ones(3, 2)), "finite"),
            ((torch.ones(3, 4), torch.ones(3, dtype=torch.long)), "integers"),
            (("a", torch.ones(3)), "must be tensors"),
            ((torch.ones(3, 4), torch.ones(3)), "broadcast"),
        ],
    )
    def test_that_do_not_fit(self, data, message):
        with pytest.raises(InputError, match=message):
            predict(two_layers(4, 5, 2), data)

    def test_parameters_that_are_not_trained(self):
        net = two_layers(4, 5, 2)
        with pytest.raises(InputError, match=r"does not train 1\.weight"):
            predict(net, (torch.ones(3, 4), torch.ones(3, 2)), optimizer=torch.optim.SGD([net[0].weight], lr=0.1))

    def test_the_table_of_modular_addition_is_seen_in_any_order(self):
        template = fourier_template(7, {1: 3.0, 2: 1.5})
        rolled = np.stack([np.roll(template, shift) for shift in range(7)])
        pairs = np.random.default_rng(0).permutation([(a, b) for a in range(7) for b in range(7)])
        X = np.array([np.concatenate([rolled[a], rolled[b]]) for a, b in pairs])
        Y = np.array([rolled[(a + b) % 7] for a, b in pairs])
        found = modular_template(X, Y)
        again = np.stack([np.roll(found, shift) for shift in range(7)])
        first, second = (np.abs(again - X[5, part]).max(1).argmin() for part in (slice(0, 7), slice(7, 14)))
        np.testing.assert_allclose(again[(first + second) % 7], Y[5], atol=1e-9)
        assert modular_template(X[:-1], Y[:-1]) is None
        assert modular_template(X, Y[::-1]) is None
        assert modular_template(X + 1, Y + 1) is None
        doubled = X.copy()
        doubled[0] = doubled[1]
        assert modular_template(doubled, Y) is None

    def test_a_quadratic_net_on_that_table_goes_to_its_instance(self):
        template = fourier_template(5, {1: 3.0})
        rolled = np.stack([np.roll(template, shift) for shift in range(5)])
        X = np.array([np.concatenate([rolled[a], rolled[b]]) for a in range(5) for b in range(5)])
        Y = np.array([rolled[(a + b) % 5] for a in range(5) for b in range(5)])
        found = predict(
            two_layers(10, 8, 5, Power(2), scale=1e-2),
            (torch.tensor(X), torch.tensor(Y)),
            learning_rate=1e-2,
        )
        assert found.by == "agf.modular_addition"
        assert found.order == (1,)
        assert found.levels == pytest.approx([np.square(Y).mean(), 0])

    def test_attention_on_normal_contexts_and_on_few(self):
        generator = torch.Generator().manual_seed(0)
        shown = torch.randn(3000, 6, 2, generator=generator) * torch.tensor([1.0, 0.6])
        weights = torch.randn(3000, 2, generator=generator)
        query = torch.randn(3000, 2, generator=generator) * torch.tensor([1.0, 0.6])
        answers, targets = torch.einsum("bnd,bd->bn", shown, weights), (query * weights).sum(1)
        torch.manual_seed(0)
        net = Heads(2, 3, 6)
        many = predict(net, ((shown, answers, query), targets), learning_rate=0.01)
        assert many.by == "agf.linear_attention"
        assert many.order == (0, 1)
        few = predict(net, ((shown[:20], answers[:20], query[:20]), targets[:20]), learning_rate=0.01)
        assert few.by == "agf.run"
        assert few.levels[0] == pytest.approx(float(targets[:20].square().mean()), rel=1e-4)


class TestProblems:
    @pytest.mark.parametrize(
        ("power", "up", "down"), [(1, 1.0, -1.0), (1, 1.0, -0.1), (2, 1.0, 1.0), (2, 1.0, 0.0), (3, 1.0, -1.0)]
    )
    @pytest.mark.parametrize("free_mean", [False, True])
    def test_gradients_by_finite_differences(self, power, up, down, free_mean):
        draws = np.random.default_rng(0)
        problem = ActivationProblem(
            draws.standard_normal((9, 3)), draws.standard_normal((9, 2)), power, up, down, free_mean=free_mean
        )
        self.check(problem, draws)
        direct = draws.standard_normal((4, problem.size))
        np.testing.assert_allclose(problem.output(direct), problem.features(direct).sum(axis=0), atol=1e-12)

    def test_gradients_of_attention_by_finite_differences(self):
        draws = np.random.default_rng(0)
        self.check(SampledAttentionProblem(*draws.standard_normal((2, 9, 3)), draws.standard_normal(9)), draws)

    def check(self, problem, draws):
        neurons, residual = draws.standard_normal((4, problem.size)), draws.standard_normal(len(problem.target))
        found, step = problem.pull(neurons, residual), 1e-6
        for place in range(problem.size):
            shift = step * np.eye(problem.size)[place]
            slope = (problem.features(neurons + shift) - problem.features(neurons - shift)) @ residual / (2 * step)
            np.testing.assert_allclose(found[:, place], slope, rtol=1e-6, atol=1e-7)
        euler = problem.features(neurons) @ residual
        np.testing.assert_allclose(problem.utility(neurons, residual), euler, atol=1e-10)
        assert problem.label(neurons[0]) is not None
