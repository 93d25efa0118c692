"""The feature-speed instrument in a watched run: the numbers of ``measure`` at the parameters before the step, and advice."""

import copy

import numpy as np
import pytest
import torch
import zoo
from torch import nn
from torch.nn import functional as F

import learnmech as lm
from learnmech.monitor import watch
from learnmech.monitor.verdict import read_verdict
from learnmech.speed.advice import findings_of
from learnmech.speed.expected import expected_cosine
from learnmech.speed.instrument import SpeedInstrument

SHARED = ("speed_rms", "real_speed_rms", "relative_speed")
BACKWARD = ("backward_norm", "cosine", "loss_decay", "share", "sensitivity")


def make_run(measures="full", chunk_size=None, steps=3, optimizer=torch.optim.Adam, nodes="auto"):
    """Train for some steps, watched at each; give the monitor and copies of the model around the last step."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    ).double()
    x, y = torch.randn(48, 6).double(), torch.arange(48) % 3
    opt = optimizer(net.parameters(), lr=1e-2)
    monitor = watch(
        net, (x, y), F.cross_entropy, optimizer=opt, every=1, measures=measures, chunk_size=chunk_size, layers=nodes
    )
    for _ in range(steps):
        before = copy.deepcopy(net)
        opt.zero_grad()
        F.cross_entropy(net(x[:20]), y[:20]).backward()
        opt.step()
    return monitor, before, net, (x, y)


@pytest.mark.parametrize("chunk_size", [None, 11])
def test_full_equals_measure_before_the_step(chunk_size):
    monitor, before, after, batch = make_run(chunk_size=chunk_size)
    step = {
        name: new.detach() - old.detach()
        for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True)
    }
    expected = lm.speed.measure(before, batch, F.cross_entropy, step)
    run = monitor.history.isel(step=-1)
    for name in (*SHARED, *BACKWARD):
        np.testing.assert_allclose(run[name], expected[name], rtol=1e-8, err_msg=name)
    np.testing.assert_allclose(run["step_linearity"], expected["linearity"], rtol=1e-4)
    np.testing.assert_allclose(run["parameter_share"], expected["parameter_share"], rtol=1e-8)
    np.testing.assert_allclose(run["effective_learning_rate"], expected["effective_learning_rate"], rtol=1e-8)
    assert float(run["loss_before"]) == pytest.approx(float(expected["loss"]), rel=1e-12)
    assert float(run["total_decay"]) == pytest.approx(float(expected["total_decay"]), rel=1e-8)
    assert run["is_cut"].values.tolist() == [1.0] * 5
    assert monitor.history.attrs["speed_method"] == "forward-mode"
    assert "chizat2023" in monitor.history.attrs["citations"]


@pytest.mark.parametrize("chunk_size", [None, 11])
def test_standard_measures_the_same_speeds_without_a_backward_pass(chunk_size):
    full, standard = (make_run(measures, chunk_size)[0].history.isel(step=-1) for measures in ("full", "standard"))
    for name in (*SHARED, "step_linearity"):
        np.testing.assert_allclose(standard[name], full[name], rtol=1e-9, err_msg=name)
    assert not set(BACKWARD) & set(standard.data_vars)


def test_the_real_change_is_the_difference_of_two_forward_passes():
    monitor, before, after, (x, _) = make_run()
    with torch.no_grad():
        change = (after[:2](x) - before[:2](x)).square().mean().sqrt()
    assert float(monitor.history["real_speed_rms"].isel(step=-1).sel(layer="0")) == pytest.approx(
        float(change), rel=1e-9
    )


def test_probes_without_a_step_have_no_speed():
    history = make_run(steps=1)[0].history
    assert np.isnan(history["speed_rms"].isel(step=0)).all()
    assert np.isfinite(history["speed_rms"].isel(step=1)).all()
    early = history.isel(step=[0])
    assert [finding.code for finding in findings_of(early)] == ["speed.not_watched"]
    assert SpeedInstrument("full").figures(early) == []


@pytest.mark.parametrize("preset", ["standard", "full"])
@pytest.mark.parametrize("name", zoo.CASES)
def test_every_kind_of_model_has_speeds_and_trains_as_if_unwatched(name, preset):
    results = []
    for watched in (True, False):
        case = zoo.make(name)
        opt = case.optimizer()
        monitor = None
        if watched:
            monitor = watch(case.model, case.probe, case.loss, optimizer=opt, every=2, measures=preset)
        for step in range(2):
            torch.manual_seed(step)
            opt.zero_grad()
            case.loss(case.forward(), case.probe[1]).backward()
            opt.step()
        results.append([tensor.detach().clone() for tensor in case.model.parameters()])
        if monitor is not None:
            assert not monitor.failures
            run = monitor.history.isel(step=-1)
            blocks = run["role"].values != "input"
            assert np.isfinite(run["speed_rms"].values[blocks]).all()
            assert run["speed_rms"].values[blocks].max() > 0
            if preset == "full":
                assert np.isfinite(run["loss_decay"].values[blocks]).all()
            assert str(monitor.verdict())
    if zoo.make(name).deterministic:
        assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_a_step_that_moves_nothing_is_no_step():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    opt = torch.optim.SGD(net.parameters(), lr=0.0)
    monitor = watch(net, (torch.randn(12, 4), torch.arange(12) % 2), F.cross_entropy, optimizer=opt, every=1)
    F.cross_entropy(net(torch.randn(4, 4)), torch.tensor([0, 1, 0, 1])).backward()
    opt.step()
    assert np.isnan(monitor.history["speed_rms"]).all()


def test_report_and_checkpoint_hold_parameters(tmp_path):
    monitor = make_run()[0]
    history = monitor.history
    assert history["effective_learning_rate"].dims == ("step", "parameter")
    again = lm.history.load(lm.history.save(history, tmp_path / "run.nc"))
    assert again["effective_learning_rate"].equals(history["effective_learning_rate"])
    text = monitor.report(tmp_path / "report.html").read_text()
    for title in (
        "How fast features move",
        "At which angle features move",
        "Who brings the loss decay",
        "Learning rates",
    ):
        assert title in text
    state = monitor.state_dict()
    assert state["parameters"] == [f"{k}.{kind}" for k in (0, 2, 4, 6) for kind in ("weight", "bias")]
    assert str(read_verdict(again)) == str(monitor.verdict())


# ---------------------------------------------------------------------- advice


def doctored(**changes):
    """A history of ten blocks and a read-out in which all is well, with some variables changed in its last step."""
    monitor = watch(
        nn.Sequential(*[nn.Sequential(nn.Linear(5, 5), nn.ReLU()) for _ in range(10)], nn.Linear(5, 2)),
        (torch.randn(20, 5), torch.arange(20) % 2),
        F.cross_entropy,
        measures=["speed"],
    )
    run = monitor.history.copy(deep=True)
    layers = run.sizes["layer"]
    even = {
        "speed_rms": 0.01, "real_speed_rms": 0.01, "relative_speed": 0.01, "step_linearity": 0.01, "cosine": 0.3,
        "cosine_expected": 0.3, "share": 1 / (layers - 1), "is_cut": 1.0, "total_decay": 0.02, "loss_before": 1.0,
    }  # fmt: skip
    for name, value in {**even, **changes}.items():
        run[name].values[...] = np.broadcast_to(np.asarray(value, dtype=float), run[name].shape)
    return run


def codes(**changes):
    return {finding.code for finding in findings_of(doctored(**changes))}


def at(position, value, other):
    values = np.full(12, other)
    values[position] = value
    return values


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"relative_speed": at(4, 1e-5, 0.01)}, "speed.still_layer"),
        ({"step_linearity": at(4, 0.7, 0.01)}, "speed.nonlinear_step"),
        ({"total_decay": -0.01}, "speed.uphill"),
        ({"share": at(3, 0.8, 0.02)}, "speed.dominant_layer"),
        ({"cosine": at(3, 0.05, 0.3)}, "speed.angle_off_profile"),
        ({"cosine_expected": 0.9 / np.arange(1, 13), "cosine": 0.9 / np.arange(1, 13)}, "speed.deep_angle"),
    ],
)
def test_each_finding_needs_its_reason(changes, code):
    assert codes(**changes) - {"speed.sensitivity.balanced"} == (set() if code is None else {code})


@pytest.mark.parametrize(
    ("speed", "code"),
    [(1e-5, "speed.sensitivity.low"), (0.01, "speed.sensitivity.balanced"), (0.9, "speed.sensitivity.high")],
)
def test_sensitivity_names_the_output_scale_and_no_global_learning_rate(speed, code):
    finding = next(f for f in findings_of(doctored(relative_speed=speed)) if f.code.startswith("speed.sensitivity"))
    assert finding.code == code
    if finding.knobs:
        assert "output scale" in finding.knobs[0]
        assert "global learning rate" in finding.message


def test_adaptive_optimizers_make_angles_less_sure():
    run = doctored(cosine=at(3, 0.05, 0.3))
    run.attrs["config"] = '{"optimizer": {"class": "AdamW"}}'
    assert next(f for f in findings_of(run) if f.code == "speed.angle_off_profile").confidence == "weak"


# ---------------------------------------------------------------------- what to expect


def test_expected_cosines_follow_measured_ones_of_wide_random_networks():
    """Profile over depth of a ReLU network on a batch; single draws of width 512 lie within 25 % (fixed seed)."""
    torch.manual_seed(0)
    net = lm.nets.MLP(10, 1, width=512, depth=9, batch_norm=False, bias=False, init="kaiming")
    opt = torch.optim.SGD(net.parameters(), lr=1e-5)
    x, y = torch.randn(64, 10), torch.randn(64, 1)
    monitor = watch(net, (x, y), F.mse_loss, optimizer=opt, every=1, measures=["speed"])
    F.mse_loss(net(x), y).backward()
    opt.step()
    run = monitor.history.isel(step=-1)
    hidden = run["role"].values == "block"
    ratio = run["cosine"].values[hidden] / run["cosine_expected"].values[hidden]
    assert np.all(np.abs(np.log(ratio)) < np.log(1.35))
    assert np.isnan(run["cosine_expected"].values[0])


def test_expected_cosine_says_nothing_where_it_knows_nothing():
    names, kinds, one = ["a", "b", "c"], ["Linear"] * 3, np.ones(3)
    assert np.isnan(expected_cosine(names, kinds, one, one, 8 * one, {})[1:]).all()
    assert np.isnan(expected_cosine(names, kinds, one, -one, 8 * one, {"b": 1.0, "c": 1.0})).all()
    assert np.isnan(expected_cosine(names, kinds, one, one * np.nan, 8 * one, {"b": 1.0, "c": 1.0})).all()
