"""The regime instrument in watched runs: lazy, rich and delayed nets are told apart, and nothing breaks a user's loop."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from learnmech import data, history
from learnmech.dynamics.kernel_matrix import kernel
from learnmech.dynamics.kernel_statistics import kernel_distance
from learnmech.dynamics.regime_findings import findings_of
from learnmech.dynamics.regime_instrument import RegimeInstrument
from learnmech.dynamics.regime_reference import StartingParameters, distance_with_error
from learnmech.dynamics.regime_samples import blocks_of, choose_samples
from learnmech.monitor import watch
from learnmech.monitor.instrument import INSTRUMENTS, PRESETS, make_instruments


class Scaled(nn.Module):
    """alpha (f - f_0): training it with rate lr / alpha^2 is lazier the larger alpha (Chizat, Oyallon, Bach)."""

    def __init__(self, net, alpha):
        super().__init__()
        self.net, self.start, self.alpha = net, copy.deepcopy(net).requires_grad_(False), alpha

    def forward(self, x):
        return self.alpha * (self.net(x) - self.start(x))


def finding(monitor):
    (found,) = [item for item in monitor.verdict().findings if item.code.startswith("regime.")]
    return found


def train_on_digits(alpha, steps=150, rate=0.2):
    digits = data.load("digits")
    inputs, labels = digits.train_inputs.flatten(1).float(), digits.train_targets
    torch.manual_seed(0)
    net = Scaled(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), alpha)
    optimizer = torch.optim.SGD(net.net.parameters(), lr=rate / alpha**2)
    generator = torch.Generator().manual_seed(0)
    with watch(
        net, (inputs, labels), functional.cross_entropy, optimizer=optimizer, every=75, measures="regime"
    ) as monitor:
        for _ in range(steps):
            batch = torch.randint(0, len(inputs), (128,), generator=generator)
            optimizer.zero_grad()
            functional.cross_entropy(net(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    return monitor


def test_output_scales_1_and_100_are_rich_and_lazy():
    rich, lazy = (train_on_digits(alpha) for alpha in (1, 100))
    assert finding(rich).code == "regime.rich"
    assert finding(lazy).code == "regime.lazy"
    assert any("output scale" in knob for knob in finding(lazy).knobs)
    assert "+-" in finding(lazy).evidence
    for monitor in (rich, lazy):
        run = history.validate(monitor.history)
        assert run.attrs["regime_samples"] == 48
        assert run.attrs["regime_combinations"] == 10
        assert run.attrs["regime_covered"] == 1.0
        assert run["kernel_distance"].values[0] == 0
        assert np.isnan(run["kernel_turn"].values[0])
        (figure,) = make_instruments("regime").instruments[0].figures(run)
        assert "rich above" in json.dumps(figure.plot.to_dict(), default=str)
    assert rich.history["parameter_distance"].values[-1] > 10 * lazy.history["parameter_distance"].values[-1]


def test_a_downstream_linear_neuron_is_delayed_rich():
    """f = a w.x with delta = a^2 - |w|^2 = -10: the size is fitted at rate |delta| with w at rest, which takes 81 % of the loss when
    the cosine of w with the solution is 0.9; w turns at rate 2/|delta|. Its kernel is w.x w.x', so that the plain distance ends
    at 1 - 0.9^2 = 0.19 (section 3 of Kunin et al., arXiv 2406.06158)."""
    corners = torch.tensor([[1.0 - 2 * (k >> bit & 1) for bit in range(4)] for k in range(16)]).double()
    inputs = corners.repeat(3, 1)
    net = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(10**0.5 * torch.tensor([[0.9, (1 - 0.9**2) ** 0.5, 0, 0]]))
        net[1].weight.zero_()
    targets = inputs[:, :1].clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02)
    with watch(
        net, (inputs, targets), functional.mse_loss, optimizer=optimizer, every=20, measures="regime"
    ) as monitor:
        for _ in range(800):
            optimizer.zero_grad()
            functional.mse_loss(net(inputs), targets).backward()
            optimizer.step()
    assert finding(monitor).code == "regime.delayed_rich"
    run = monitor.history
    assert 0.15 < float(run["loss"].sel(step=20)) < 1 - 0.9**2
    assert float(run["kernel_distance"].sel(step=20)) < 1e-3


def test_numbers_are_those_of_the_pure_functions():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    inputs, labels = torch.randn(20, 3).double(), torch.arange(20) % 2
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    rows = torch.from_numpy(choose_samples(inputs, 20, labels))
    before = copy.deepcopy(net)
    with watch(
        net, (inputs, labels), functional.cross_entropy, optimizer=optimizer, every=1, measures="regime"
    ) as monitor:
        functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    kernels = [kernel(model, inputs[rows], method="loop").numpy() for model in (before, net)]
    run = monitor.history.isel(step=-1)
    assert math.isclose(float(run["kernel_distance"]), kernel_distance(*kernels), rel_tol=1e-8)
    assert math.isclose(float(run["kernel_norm"]), np.linalg.norm(kernels[1]), rel_tol=1e-10)
    assert math.isclose(float(run["kernel_reference_norm"]), np.linalg.norm(kernels[0]), rel_tol=1e-10)
    flat = [torch.cat([p.detach().flatten() for p in model.parameters()]) for model in (before, net)]
    assert math.isclose(
        float(run["parameter_distance"]), float((flat[1] - flat[0]).norm() / flat[0].norm()), rel_tol=1e-6
    )


def test_standard_error_agrees_with_the_spread_over_independent_samples():
    """Mean reported error over the spread of 200 draws of 48 samples. The jackknife of a smooth statistic is biased upwards by
    little; the spread itself is known to 5 %. Measured 1.08, 1.01 and 0.95 for seeds 0 to 2; 0.7 to 1.5 is asserted, six standard
    deviations off."""
    rng = np.random.default_rng(0)
    distances, errors = [], []
    weights, turned = rng.normal(size=(2, 6, 4))
    for _ in range(200):
        x = rng.normal(size=(48, 6))
        first, second = np.tanh(x @ weights), np.tanh(x @ (weights + 0.5 * turned))
        found = distance_with_error(first @ first.T, second @ second.T, centred=True)
        distances.append(found[0])
        errors.append(found[1])
    assert 0.7 < np.mean(errors) / np.std(distances, ddof=1) < 1.5


def course(distance, loss, *, error=0.002, reference=None, steps=None, **attributes):
    """A made-up history."""
    count = len(distance)
    meaning = {"long_name": "made up", "units": "1", "source": "test"}
    columns = {
        "loss": loss,
        "centred_kernel_distance": distance,
        "centred_kernel_distance_error": [error] * count,
        "kernel_distance": distance,
        "kernel_alignment": [0.5] * count,
        "kernel_reference_norm": reference or [1.0] * count,
        "parameter_distance": [0.1] * count,
    }
    variables = {name: (("step",), np.array(values, dtype=float), meaning) for name, values in columns.items()}
    return history.build(variables, {"step": steps or list(range(0, 10 * count, 10))}, attributes=attributes)


@pytest.mark.parametrize(
    ("distance", "loss", "code"),
    [
        ([0, 0.01, 0.02], [2.0, 0.5, 0.1], "lazy"),
        ([0, 0.1, 0.3], [2.0, 0.5, 0.1], "rich"),
        ([0, 0.01, 0.3], [2.0, 0.1, 0.05], "delayed_rich"),
        ([0, 0.01, 0.3], [2.0, 1.5, 0.05], "rich"),
        ([0, 0.01, 0.05], [2.0, 0.5, 0.1], "undecided"),
        ([0, 0.001, 0.002], [2.0, 1.99, 1.95], "too_early"),
        ([0, 0.2, 0.5], [2.0, 2.5, 3.0], "undecided"),
        ([0, 0.2, 0.5], [2.0, 2.5, np.nan], "undecided"),
        ([0], [2.0], "too_early"),
        ([np.nan, np.nan], [2.0, 1.0], "unknown"),
        ([0, 0.01, np.nan], [2.0, 0.5, 0.1], "lazy"),
    ],
)
def test_reading(distance, loss, code):
    (found,) = findings_of(course(distance, loss))
    assert found.code == f"regime.{code}"


def test_reading_waits_for_sureness_and_says_where_it_began():
    assert findings_of(course([0, 0.09], [2.0, 0.1], error=0.02))[0].code == "regime.undecided"
    assert findings_of(course([0, 0.03], [2.0, 0.1], error=0.02))[0].code == "regime.undecided"
    (few,) = findings_of(course([0, 0.3], [2.0, 0.1], error=np.nan))
    assert few.confidence == "weak"
    assert "fewer than 16 samples" in few.evidence
    assert "began at step 50" in findings_of(course([0, 0.3], [2.0, 0.1], steps=[50, 60]))[0].message
    resumed = course([0, 0.3, 0.001, 0.002], [2.0, 0.3, 0.29, 0.28], reference=[1.0, 1.0, 3.0, 3.0])
    (found,) = findings_of(resumed)
    assert found.code == "regime.too_early"
    assert "taken up again" in found.message
    (unknown,) = findings_of(course([np.nan], [1.0], regime_unknown="samples mix."))
    assert unknown.severity == "unknown"
    assert unknown.message.endswith("samples mix.")


def test_samples_take_all_classes_in_turn_whatever_the_order():
    torch.manual_seed(0)
    inputs, labels = torch.randn(400, 3), torch.arange(400) % 5
    rows = choose_samples(inputs, 400, labels)
    assert len(rows) == len(set(rows.tolist())) == 48
    assert labels[rows].tolist() == [turn % 5 for turn in range(48)]
    order = torch.randperm(400)
    assert torch.equal(inputs[order][choose_samples(inputs[order], 400, labels[order])], inputs[rows])
    assert len(choose_samples(inputs[:80], 80, None)) == 20
    assert len(choose_samples(inputs[:5], 5, torch.full((5,), -100))) == 5
    assert choose_samples(inputs[:40], 40, torch.tensor([7] + [-100] * 39)).tolist() == [0]
    assert blocks_of(15) == []
    taken = [set(range(48)) - set(kept.tolist()) for kept in blocks_of(48)]
    assert set().union(*taken) == set(range(48))
    assert sum(map(len, taken)) == 48


class Mean(nn.Module):
    """Samples see one another."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x - x.mean(0))


class Loss(nn.Module):
    """Gives its output in a mapping, behind a number."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return {"size": x.norm(), "logits": self.layer(x)}


def observed(net, inputs, targets, loss=functional.cross_entropy):
    monitor = watch(net, (inputs, targets), loss, measures="regime")
    return monitor, monitor.history.isel(step=0)


def test_what_has_no_kernel_is_unknown_with_the_reason():
    inputs, labels = torch.randn(20, 3), torch.arange(20) % 2
    for net, words in ((Mean(), "sample beside it"), (nn.Linear(3, 2).requires_grad_(False), "let parameters require")):
        monitor, run = observed(net, inputs, labels)
        assert np.isnan(run["kernel_distance"])
        assert np.isfinite(run["loss"])
        assert finding(monitor).code == "regime.unknown"
        assert words in finding(monitor).message


def test_outputs_in_mappings_targets_and_dead_nets():
    torch.manual_seed(0)
    inputs, labels = torch.randn(20, 3), torch.arange(20) % 2
    _, run = observed(Loss(), inputs, labels, lambda out, y: functional.cross_entropy(out["logits"], y))
    assert np.isfinite(run["kernel_alignment"])
    _, run = observed(nn.Linear(3, 2), inputs, torch.randn(20, 2), functional.mse_loss)
    assert np.isfinite(run["kernel_alignment"])
    _, run = observed(nn.Linear(3, 2), inputs, torch.full((20,), 1))
    assert np.isnan(run["kernel_alignment"])
    dead = nn.Sequential(nn.Linear(3, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        dead[2].weight.zero_()
        dead[0].weight.zero_()
    monitor, run = observed(dead, inputs, labels)
    assert np.isnan(run["kernel_norm"])
    assert "zero or not finite" in finding(monitor).message


def test_a_net_that_diverges_keeps_its_earlier_numbers():
    torch.manual_seed(0)
    net, inputs, labels = nn.Linear(3, 2), torch.randn(20, 3), torch.arange(20) % 2
    monitor = watch(net, (inputs, labels), functional.cross_entropy, measures="regime")
    with torch.no_grad():
        net.weight.fill_(float("nan"))
    monitor.step()
    monitor.observe()
    assert np.isfinite(monitor.history["kernel_norm"].values).tolist() == [True, False]
    assert finding(monitor).code == "regime.too_early"


def test_parameters_without_a_formula():
    """A recurrent net takes Jacobians of fewer samples, without a warning; a few parameters are left out and said to be."""
    torch.manual_seed(0)

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.read = nn.GRU(2, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            return self.read(self.cell(x)[0][:, -1])

    net, inputs, labels = Recurrent(), torch.randn(80, 3, 2), torch.arange(80) % 2
    monitor, run = observed(net, inputs, labels)
    assert np.isfinite(run["kernel_norm"])
    assert monitor.history.attrs["regime_samples"] == 16
    assert monitor.history.attrs["regime_covered"] == round(10 / 106, 4)
    scaled = nn.Sequential(nn.Linear(2, 9), nn.PReLU(), nn.Linear(9, 2))
    monitor, run = observed(scaled, torch.randn(40, 2), torch.arange(40) % 2)
    assert monitor.history.attrs["regime_covered"] == round(1 - 1 / 48, 4)
    rows = torch.from_numpy(choose_samples(monitor._probe.inputs, 40, monitor._probe.labels))
    rates = {name: 1.0 for name, _ in scaled.named_parameters() if not name.startswith("1.")}
    expected = kernel(scaled, monitor._probe.inputs[rows], learning_rates=rates)
    assert math.isclose(float(run["kernel_norm"]), float(expected.norm()), rel_tol=1e-5)


def taking_up(*, remember):
    """A run that is taken up again after three steps from the monitor's checkpoint, with or without the instrument's part."""
    torch.manual_seed(0)
    net, inputs, labels = (
        nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)),
        torch.randn(30, 3),
        torch.arange(30) % 2,
    )

    def start():
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
        return watch(
            net, (inputs, labels), functional.cross_entropy, optimizer=optimizer, every=1, measures="regime"
        ), optimizer

    def go_on(monitor, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            functional.cross_entropy(net(inputs), labels).backward()
            optimizer.step()
        return monitor

    first, optimizer = start()
    state = go_on(first, optimizer).state_dict()
    if not remember:
        del state["instruments"]
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    whole = go_on(first, optimizer).history
    first.close()
    net.load_state_dict(weights)
    again, optimizer = start()
    again.load_state_dict(state)
    run = go_on(again, optimizer).history
    again.close()
    return whole, run, again


def test_a_watch_that_goes_on_from_a_checkpoint_measures_from_its_first_start():
    whole, run, _ = taking_up(remember=True)
    assert run["step"].values.tolist() == list(range(7))
    for name in ("kernel_distance", "centred_kernel_distance", "kernel_turn", "parameter_distance"):
        np.testing.assert_array_equal(run[name], whole[name])


def test_a_watch_without_memory_measures_from_there_and_says_so():
    _, run, monitor = taking_up(remember=False)
    references = run["kernel_reference_norm"].values
    assert len(set(references[:4])) == len(set(references[4:])) == 1
    assert references[0] != references[4]
    assert "taken up again" in finding(monitor).message


def test_starting_parameters_of_other_models():
    net = nn.Linear(3, 2)
    start = StartingParameters(net)
    assert start.relative_distance(net) == 0
    assert np.isnan(start.relative_distance(nn.Linear(4, 2)))
    big = nn.Linear(3000, 1000, bias=False)
    start = StartingParameters(big)
    with torch.no_grad():
        big.weight.mul_(1.5)
    assert math.isclose(start.relative_distance(big), 0.5, rel_tol=1e-5)


def test_its_place_among_the_instruments():
    assert INSTRUMENTS["regime"].endswith(":RegimeInstrument")
    assert "regime" in PRESETS["standard"]
    assert "regime" in PRESETS["full"]
    assert "regime" not in PRESETS["light"]
    make_instruments("full")
    with pytest.raises(ValueError, match="both 'regime' and 'regime' measure"):
        make_instruments(["regime", RegimeInstrument()])
