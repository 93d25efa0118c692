"""Live runs: charges against their exact laws, written out by hand; broken runs, and the cause that is named."""

import io

import pytest
import torch
from torch import nn
from torch.nn import functional

from learnmech import history as histories
from learnmech.dynamics import Symmetry, View
from learnmech.dynamics.conservation_laws import angular_momentum
from learnmech.dynamics.conservation_monitor import ConservationMonitor
from learnmech.errors import HistoryError, InputError, LearnmechWarning

BATCHES = torch.Generator().manual_seed(1)
X = torch.randn(400, 6, generator=BATCHES, dtype=torch.float64)
Y = torch.randint(3, (400,), generator=BATCHES)


def make_net(epsilon=1e-30):
    torch.manual_seed(0)
    parts = (nn.Linear(6, 8), nn.BatchNorm1d(8, eps=epsilon), nn.ReLU(), nn.Linear(8, 4), nn.Linear(4, 3))
    return nn.Sequential(*parts).double()


def make_symmetries(broken_by=""):
    return [
        Symmetry("scale", (View("0.weight", (8, 6)),), layers=("0",), broken_by=broken_by),
        Symmetry(
            "rescale",
            (
                View("3.weight", (4, 8), units=(1,)),
                View("1.weight", (8,), weight=-1.0),
                View("1.bias", (8,), weight=-1.0),
            ),
            layers=("1", "3"),
        ),
        Symmetry(
            "gl",
            (
                View("4.weight", (3, 4), units=(1,)),
                View("3.weight", (4, 8), weight=-1.0),
                View("3.bias", (4,), weight=-1.0),
            ),
            mixing=True,
            layers=("3", "4"),
        ),
        Symmetry("translation", (View("4.weight", (3, 4), units=(1,)),), layers=("4",)),
        Symmetry("translation", (View("4.bias", (3,), units=()),), layers=("4",)),
    ]


def charges_by_hand(net, rates=(1.0, 1.0, 1.0)):
    """Charges of the net above, for learning rates of the modules 1, 3 and 4 relative to the last view's own."""
    w, gain, shift = net[0].weight, net[1].weight, net[1].bias
    v, c, u, d = net[3].weight, net[3].bias, net[4].weight, net[4].bias
    first, second, third = rates
    matrix = u.T @ u - (v @ v.T + torch.outer(c, c)) * third / second
    rows, columns = torch.triu_indices(4, 4)
    return [
        (w**2).sum(1),
        (v**2).sum(0) - (gain**2 + shift**2) * second / first,
        matrix[rows, columns],
        u.sum(0),
        d.sum().reshape(1),
    ]


def train(net, optimizer, steps, *, before=None, schedule=None, seed=2):
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        if schedule is not None:
            schedule(optimizer, step)
        chosen = torch.randint(400, (32,), generator=generator)
        optimizer.zero_grad()
        functional.cross_entropy(net(X[chosen]), Y[chosen]).backward()
        if before is not None:
            before(net, step)
        optimizer.step()


def off_by(monitor, net, rates=(1.0, 1.0, 1.0)):
    """The largest difference between the law and the charges by hand, relative to the charges, of each symmetry."""
    run = monitor.history
    last = run["predicted"].values[-1]
    result = []
    for name, charges in zip(monitor.names, charges_by_hand(net, rates), strict=True):
        predicted = torch.from_numpy(last[run["owner"].values == name])
        result.append(float((predicted - charges.detach()).abs().max() / charges.detach().abs().max()))
    return result


def cosine(optimizer, step):
    for group in optimizer.param_groups:
        group["lr"] = 0.01 + 0.09 * (1 + (step / 300) % 2) / 2
        group["weight_decay"] = 5e-3 if step < 1000 else 1e-3


@pytest.mark.parametrize(
    ("settings", "schedule"),
    [
        ({"lr": 0.1, "weight_decay": 1e-3}, None),
        ({"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}, cosine),
        ({"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3, "nesterov": True}, None),
    ],
)
def test_two_thousand_steps_keep_every_law(settings, schedule):
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), **settings)
    started = [charges.detach().clone() for charges in charges_by_hand(net)]
    with ConservationMonitor(net, optimizer, make_symmetries(), every=500, keep_charges=True) as monitor:
        train(net, optimizer, 2000, schedule=schedule)
    moved = [
        float((new.detach() - old).norm() / old.norm()) for new, old in zip(charges_by_hand(net), started, strict=True)
    ]
    assert min(moved) > 0.05
    assert max(off_by(monitor, net)) < 1e-10
    assert monitor.history["step"].values.tolist() == [0, 500, 1000, 1500, 2000]
    assert {finding.code for finding in monitor.findings} == {"invariants.conserved"}


def groups_by_layer(net):
    last = list(net[4].parameters())
    return [{"params": [item for part in net[:4] for item in part.parameters()]}, {"params": last, "lr": 0.03}]


def decay_on_matrices(net):
    flat = [item for item in net.parameters() if item.ndim == 1]
    return [{"params": [item for item in net.parameters() if item.ndim == 2]}, {"params": flat, "weight_decay": 0.0}]


@pytest.mark.parametrize(
    ("settings", "groups", "rates"),
    [
        ({"momentum": 0.9, "dampening": 0.4, "weight_decay": 5e-3}, nn.Module.parameters, (1, 1, 1)),
        ({"momentum": 0.5, "weight_decay": 5e-3, "maximize": True, "lr": 1e-3}, nn.Module.parameters, (1, 1, 1)),
        ({"momentum": 0.9}, groups_by_layer, (0.1, 0.1, 0.03)),
        ({"momentum": 0.9, "weight_decay": 5e-3}, groups_by_layer, (0.1, 0.1, 0.03)),
        ({"momentum": 0.9, "weight_decay": 5e-3, "nesterov": True}, decay_on_matrices, (1, 1, 1)),
        ({"weight_decay": 5e-3}, decay_on_matrices, (1, 1, 1)),
    ],
)
def test_dampening_maximize_and_groups(settings, groups, rates):
    net = make_net()
    optimizer = torch.optim.SGD(groups(net), **{"lr": 0.1, **settings})
    with ConservationMonitor(net, optimizer, make_symmetries(), every=50, keep_charges=True) as monitor:
        train(net, optimizer, 100)
    assert max(off_by(monitor, net, rates)) < 1e-11
    codes = {finding.code for finding in monitor.findings}
    assert codes == {"invariants.conserved"} | ({"invariants.unequal_rates"} if rates[2] != 1 else set())


def test_rotations_have_an_angular_momentum_that_stays_zero():
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    train(net, optimizer, 50)
    values = {name: value.detach() for name, value in net.named_parameters()}
    velocities = {name: optimizer.state[value]["momentum_buffer"] for name, value in net.named_parameters()}
    w, a, b = values["3.weight"], values["4.weight"], values["3.bias"]
    vw, va, vb = velocities["3.weight"], velocities["4.weight"], velocities["3.bias"]
    matrix = vw @ w.T + va.T @ a + torch.outer(vb, b)
    found = angular_momentum(make_symmetries()[2], values, velocities)
    torch.testing.assert_close(
        found, ((matrix - matrix.T) / 2)[*torch.triu_indices(4, 4, offset=1)], rtol=0, atol=1e-15
    )
    assert float(found.abs().max()) < 1e-13 * float((vw @ w.T).norm())
    assert float((vw @ w.T - w @ vw.T).norm()) > 1e-3 * float((vw @ w.T).norm())  # each part by itself does not vanish
    with pytest.raises(InputError, match="do not mix"):
        angular_momentum(make_symmetries()[1], values, velocities)


def test_clipping_the_norm_and_accumulating_keep_the_laws_and_a_resumed_run_goes_on():
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)

    def clip(model, step):
        functional.cross_entropy(model(X[:50]), Y[:50]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)

    first = ConservationMonitor(net, optimizer, make_symmetries(), every=10, keep_charges=True)
    train(net, optimizer, 40, before=clip)
    first.close()
    stored = io.BytesIO()
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "monitor": first.state_dict()}, stored)
    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    other = make_net()
    other_optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    other.load_state_dict(state["net"])
    other_optimizer.load_state_dict(state["optimizer"])
    with ConservationMonitor(other, other_optimizer, make_symmetries(), every=10, keep_charges=True) as second:
        second.load_state_dict(state["monitor"])
        train(other, other_optimizer, 40, before=clip)
    assert second.history["step"].values.tolist() == list(range(0, 81, 10))
    assert max(off_by(second, other)) < 1e-11
    assert {finding.code for finding in second.findings} == {"invariants.conserved"}
    with pytest.raises(HistoryError, match="no checkpoint"):
        second.load_state_dict({})


def clip_values(net, step):
    nn.utils.clip_grad_value_(net.parameters(), 0.005)


def edit(net, step):
    if step % 7 == 3:
        with torch.no_grad():
            net[3].weight.clamp_(-0.3, 0.3)


def edit_once(net, step):
    if step == 20:
        with torch.no_grad():
            net[3].weight.mul_(1.1)


@pytest.mark.parametrize(
    ("spoil", "cause", "words"),
    [(clip_values, "gradient", "clipping by value"), (edit, "outside", "clamping"), (edit_once, "once", "one edit")],
)
def test_a_broken_law_names_layer_and_cause(spoil, cause, words):
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    with ConservationMonitor(net, optimizer, make_symmetries()[1:2]) as monitor:
        train(net, optimizer, 60, before=spoil)
    (finding,) = monitor.findings
    assert (finding.code, finding.severity, finding.layers) == ("invariants.broken", "problem", ("1", "3"))
    assert cause in monitor.history.attrs["causes"]
    assert words in " ".join(finding.knobs)
    assert "invariants.broken" in monitor.report()


def test_an_update_that_does_not_follow_its_equation():
    class Rounding(torch.optim.SGD):
        """Has the step of SGD, and a hook of the user that rounds."""

    net = make_net()
    optimizer = Rounding(net.parameters(), lr=0.05)

    def round_weights(*_):
        with torch.no_grad():
            net[3].weight.copy_(net[3].weight.mul(64).round().div(64))

    optimizer.register_step_post_hook(round_weights)  # before the monitor's own, so it belongs to the step
    with ConservationMonitor(net, optimizer, make_symmetries()[1:2]) as monitor:
        train(net, optimizer, 60)
    assert monitor.coverage == "exact"
    assert "update" in monitor.history.attrs["causes"]


def test_tied_weights_are_named():
    torch.manual_seed(0)
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    third = nn.Linear(4, 4, bias=False)
    third.weight = first.weight
    net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third).double()
    symmetry = Symmetry(
        "rescale", (View("2.weight", (4, 4), units=(1,)), View("0.weight", (4, 4), weight=-1.0)), layers=("0", "2")
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    with ConservationMonitor(net, optimizer, [symmetry]) as monitor:
        for _ in range(10):
            optimizer.zero_grad()
            net(X[:, :4]).square().mean().backward()
            optimizer.step()
    (finding,) = monitor.findings
    assert finding.code == "invariants.broken"
    assert "weight tying: 0.weight" in finding.knobs[0]


def test_an_epsilon_is_told_from_a_bug():
    net = make_net(epsilon=1e-5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with ConservationMonitor(net, optimizer, make_symmetries("its epsilon")[:1]) as monitor:
        train(net, optimizer, 60)
    (finding,) = monitor.findings
    assert finding.code == "invariants.explicit"
    assert "its epsilon" in finding.message
    assert 1e-9 < float(monitor.history["violation"][-1, 0]) < 1e-3


@pytest.mark.parametrize(("kind", "coverage"), [(torch.optim.Adam, "measured"), (torch.optim.AdamW, "decoupled")])
def test_other_optimizers_are_measured_and_not_judged(kind, coverage):
    net = make_net()
    optimizer = kind(net.parameters(), lr=0.01)
    with ConservationMonitor(net, optimizer, make_symmetries()) as monitor:
        train(net, optimizer, 30)
    assert monitor.coverage == coverage
    (finding,) = monitor.findings
    assert (finding.code, finding.severity) == ("invariants.not_covered", "note")
    assert float(monitor.history["update_violation"][-1, 0]) > 1e-3


def test_decoupled_decay_alone_is_predicted():
    """AdamW without a gradient to speak of: every parameter shrinks, and quadratic charges as their square."""
    net = make_net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.5, eps=1e12)
    with ConservationMonitor(net, optimizer, make_symmetries(), keep_charges=True) as monitor:
        train(net, optimizer, 20)
    assert max(off_by(monitor, net)) < 1e-9


def test_float32_is_judged_by_its_rounding():
    net = make_net().float()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    with ConservationMonitor(net, optimizer, make_symmetries()) as monitor:
        for _ in range(60):
            optimizer.zero_grad()
            functional.cross_entropy(net(X.float()), Y).backward()
            optimizer.step()
    assert {finding.code for finding in monitor.findings} == {"invariants.conserved"}
    assert 1e-9 < float(monitor.history["violation"].max()) < float(monitor.history["rounding_limit"].max()) < 1e-4


def test_a_bias_that_batch_normalisation_takes_out_may_start_at_zero():
    net = make_net()
    nn.init.zeros_(net[0].bias)
    symmetry = Symmetry("translation", (View("0.bias", (8,)),), layers=("0",))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    with ConservationMonitor(net, optimizer, [symmetry, make_symmetries()[1]]) as monitor:
        train(net, optimizer, 50)
    assert {finding.code for finding in monitor.findings} == {"invariants.conserved"}


def test_closures_steps_without_gradient_and_a_changing_ratio():
    net = make_net()
    groups = groups_by_layer(net)
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)

    def closure():
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(X), Y)
        loss.backward()
        return loss

    with ConservationMonitor(net, optimizer, make_symmetries()) as monitor:
        for step in range(20):
            if step == 10:
                optimizer.param_groups[1]["lr"] = 0.1
            optimizer.step(closure)
            optimizer.zero_grad(set_to_none=True)
            optimizer.step()
    codes = [finding.code for finding in monitor.findings]
    assert "invariants.broken" not in codes
    assert codes.count("invariants.uncovered_steps") == 1  # of the linear maps; one step each
    assert float(monitor.history["violation"].max()) < 1e-13


def test_nan_is_said_and_training_goes_on():
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with ConservationMonitor(net, optimizer, make_symmetries()[1:3]) as monitor:
        train(
            net, optimizer, 5, before=lambda model, step: model[4].weight.grad.fill_(torch.nan) if step == 3 else None
        )
    assert monitor.history.sizes["step"] == 6
    assert monitor.findings[0].code == "invariants.not_finite"
    lost = {finding.layers: finding.evidence for finding in monitor.findings}
    assert "step 4" in lost["3", "4"]
    assert "step 5" in lost["1", "3"]  # which the NaN reaches through the gradient one step later


def test_an_error_while_following_does_not_end_training():
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    monitor = ConservationMonitor(net, optimizer, make_symmetries()[1:2])
    net[3].weight.data = torch.zeros(2, 2, dtype=torch.float64)
    net[3].weight.grad = torch.zeros(2, 2, dtype=torch.float64)
    with pytest.warns(LearnmechWarning, match="training goes on"):
        optimizer.step()
    assert "invariants.stopped" in {finding.code for finding in monitor.findings}


def test_history_is_valid_and_kept(tmp_path):
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with ConservationMonitor(net, optimizer, make_symmetries(), keep_charges=True) as monitor:
        train(net, optimizer, 3)
    loaded = histories.load(histories.save(monitor.history, tmp_path / "charges.nc"))
    assert loaded["violation"].dims == ("step", "symmetry")
    assert loaded["charge"].shape == (4, 8 + 8 + 10 + 4 + 1)
    assert "31 charges of 5 symmetries, 3 steps" in repr(monitor)
    train(net, optimizer, 1)  # the hooks are gone
    assert monitor.history.sizes["step"] == 4


def test_symmetries_are_found_in_the_structure():
    net = make_net(epsilon=1e-5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    with ConservationMonitor(net, optimizer, inputs=X[:8], loss="cross_entropy") as monitor:
        train(net, optimizer, 20)
    kinds = {symmetry.kind for symmetry in monitor.symmetries}
    assert kinds == {"scale", "rescale", "gl", "translation"}
    assert {finding.code for finding in monitor.findings} == {"invariants.conserved", "invariants.explicit"}


def test_bad_input():
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(InputError, match="Optimizer with register_step_post_hook was expected"):
        ConservationMonitor(net, "sgd", make_symmetries())
    with pytest.raises(InputError, match="no symmetry that could be followed"):
        ConservationMonitor(net, optimizer, [])
    with pytest.raises(InputError, match="must hold Symmetry objects"):
        ConservationMonitor(net, optimizer, ["rescale"])
    with pytest.raises(InputError, match="which the model does not have"):
        ConservationMonitor(net, optimizer, [Symmetry("scale", (View("nothing", (3,)),))])
    with pytest.raises(InputError, match="every must be a positive integer"):
        ConservationMonitor(net, optimizer, make_symmetries(), every=0)
    part = torch.optim.SGD(net[4].parameters(), lr=0.1)
    with pytest.raises(InputError, match="is not in the optimizer"):
        ConservationMonitor(net, part, make_symmetries()[:2])
    monitor = ConservationMonitor(net, part, make_symmetries())
    assert set(monitor.skipped) == {"scale 0", "rescale 1, 3", "gl 3, 4"}
    assert "invariants.skipped" in {finding.code for finding in monitor.findings}
    net[1].weight.requires_grad_(False)
    assert "frozen" in ConservationMonitor(net, optimizer, make_symmetries()).skipped["rescale 1, 3"]
