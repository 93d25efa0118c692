"""The leaky instrument: its numbers by other routes, which blocks are residual, layouts of features, chunks, and edges."""

import itertools
import json

import numpy as np
import pytest
import torch
import zoo
from torch import nn
from torch.nn import functional as F

import learnmech as lm
from learnmech.leaky import block_measures
from learnmech.leaky.block_measures import RELATIVE_RIDGE, FeatureColumns
from learnmech.leaky.cost_of_identity import identity_cost
from learnmech.leaky.instrument import LeakyInstrument
from learnmech.leaky.network import LeakyResNet
from learnmech.leaky.ranks import negativity, stable_rank
from learnmech.leaky.skip_connections import residual_layers
from learnmech.monitor import watch
from learnmech.monitor.choice import choose_layers
from learnmech.monitor.criterion import Criterion
from learnmech.monitor.instrument import INSTRUMENTS, PRESETS, make_instruments
from learnmech.monitor.probe import Probe
from learnmech.monitor.snapshot import Chunk, InputMeter, ProbePass

PER_LAYER = ("identity_cost", "stable_rank", "bottleneck_dimension", "negativity", "relative_step")


def by_hand(rows):
    """All numbers but the step by NumPy, from an explicit least-squares problem for the weights of the ReLU layer."""
    features = np.asarray(rows, dtype=float).T
    width, columns = features.shape
    active = np.vstack([np.maximum(features, 0), np.ones((1, columns))])
    ridge = RELATIVE_RIDGE * np.linalg.norm(active, 2) ** 2
    # min |W|^2 + |A - W sigma|^2 / ridge, as one least-squares problem for the transposed weights.
    system = np.vstack([active.T / np.sqrt(ridge), np.eye(width + 1)])
    wanted = np.vstack([features.T / np.sqrt(ridge), np.zeros((width + 1, width))])
    weights = np.linalg.lstsq(system, wanted, rcond=None)[0]
    cost = np.square(system @ weights - wanted).sum()
    kept = np.linalg.svd(weights, compute_uv=False)
    singular = np.linalg.svd(features, compute_uv=False)
    return {
        "identity_cost": cost,
        "stable_rank": singular.sum() ** 2 / np.square(singular).sum(),
        "bottleneck_dimension": (kept > kept[0] / 2).sum(),
        "negativity": np.linalg.norm(np.minimum(features, 0)) / np.linalg.norm(features),
    }


def gather(features, axis=-1, sizes=None):
    samples = len(features)
    gathered = FeatureColumns(samples, axis)
    bounds = np.cumsum([0, *(sizes or [samples])])
    for start, stop in itertools.pairwise(bounds.tolist()):
        gathered.add(features[start:stop], Chunk(None, start, stop, slice(start, stop)))
    return gathered.numbers()


def measure(net, x, y=None, **options):
    y = torch.arange(len(x)) % 3 if y is None else y
    return watch(net, (x, y), options.pop("loss", F.cross_entropy), measures=["leaky"], **options)


# ---------------------------------------------------------------------- numbers


@pytest.mark.parametrize("sign", ["both", "positive"])
@pytest.mark.parametrize(("width", "samples"), [(5, 40), (40, 5), (12, 12), (12, 13), (12, 14), (1, 9), (9, 2)])
def test_numbers_equal_explicit_least_squares(width, samples, sign):
    torch.manual_seed(width + samples)
    rows = torch.randn(samples, width, dtype=torch.float64) + torch.arange(width) / width
    rows = rows.relu() if sign == "positive" else rows
    found = gather(rows)
    for name, value in by_hand(rows).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9, abs=1e-12), name
    assert found.columns == samples


@pytest.mark.parametrize(("width", "samples"), [(6, 50), (50, 6)])
def test_numbers_equal_those_of_the_pure_functions(width, samples):
    torch.manual_seed(0)
    rows = torch.randn(samples, width, dtype=torch.float64)
    active = torch.cat([rows.relu(), torch.ones(samples, 1)], dim=1)
    ridge = RELATIVE_RIDGE * float(torch.linalg.matrix_norm(active, 2)) ** 2
    found = gather(rows)
    assert found.identity_cost == pytest.approx(float(identity_cost(rows.T, ridge=ridge)), rel=1e-10)
    assert found.stable_rank == pytest.approx(float(stable_rank(rows.T)), rel=1e-10)
    assert found.negativity == pytest.approx(float(negativity(rows.T)), rel=1e-10)


def test_groups_of_equal_samples_are_counted():
    """Columns 3 e_i, each ten times: four dimensions are kept, and the cost is 4 - 4/(9 + 4) in the limit of no ridge."""
    rows = 3 * torch.eye(4, dtype=torch.float64).repeat(10, 1)
    found = gather(rows)
    assert found.bottleneck_dimension == 4
    assert found.stable_rank == pytest.approx(4)
    # sigma sigma^T = [[90 I, 30], [30, 40]]: three eigenvalues 90, one 130 along (3, 3, 3, 3, 4)/sqrt(52), one 0.
    ridge = RELATIVE_RIDGE * 130
    assert found.identity_cost == pytest.approx(3 * 90 / (90 + ridge) + 90 / (130 + ridge), rel=1e-12)


def test_a_small_residual_net_by_hand():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.linear.weight.data = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
            self.linear.bias.data = torch.tensor([0.5, 0.0])

        def forward(self, x):
            return x + self.linear(F.relu(x))

    net = nn.Sequential(Block(), Block(), nn.Linear(2, 2)).double()
    x = torch.tensor([[1.0, 2.0], [-1.0, 1.0], [0.0, -3.0], [2.0, 0.0]], dtype=torch.float64)
    run = measure(net, x, torch.tensor([0, 1, 0, 1])).history.isel(step=-1)
    first = np.array([[1 + 2 + 0.5, 2 - 1], [-1 + 1 + 0.5, 1], [0.5, -3], [2 + 0.5, -2]])
    moved = np.array([[2.5, -1], [1.5, 0], [0.5, 0], [0.5, -2]])
    assert run["layer"].values.tolist() == ["input", "0", "1", "2"]
    assert float(run["relative_step"].sel(layer="0")) == pytest.approx(np.linalg.norm(moved) / np.linalg.norm(first))
    second = first + np.stack([np.maximum(first[:, 1], 0) + 0.5, -np.maximum(first[:, 0], 0)], axis=1)
    assert float(run["relative_step"].sel(layer="1")) == pytest.approx(
        np.linalg.norm(second - first) / np.linalg.norm(second)
    )
    assert np.isnan(run["relative_step"].sel(layer=["input", "2"])).all()
    for name, rows in (("input", x), ("0", first), ("1", second)):
        for variable, value in by_hand(rows).items():
            assert float(run[variable].sel(layer=name)) == pytest.approx(value, rel=1e-9), (name, variable)


def test_scale_and_number_of_samples_hardly_matter():
    torch.manual_seed(0)
    rows = torch.randn(60, 8, dtype=torch.float64).relu() * 100  # large, so that the bias counts little
    one = gather(rows)
    for other in (gather(rows.repeat(3, 1)), gather(7 * rows)):
        assert other.identity_cost == pytest.approx(one.identity_cost, rel=1e-3)
        assert other.bottleneck_dimension == one.bottleneck_dimension
    assert gather(rows.repeat(3, 1)).identity_cost == pytest.approx(one.identity_cost, rel=1e-12)


# ---------------------------------------------------------------------- layouts


def test_channels_of_images_and_entries_of_tokens_are_the_width():
    torch.manual_seed(0)
    images = torch.randn(6, 3, 4, 5)
    assert gather(images, 1) == gather(images.permute(0, 2, 3, 1), -1)
    assert gather(images, 1).columns == 6 * 20
    tokens = torch.randn(6, 7, 3)
    assert gather(tokens).identity_cost == gather(tokens.flatten(0, 1)).identity_cost
    flat = FeatureColumns(6, -1)
    flat.add(tokens.flatten(0, 1), Chunk(None, 0, 6, slice(0, 6)))
    assert flat.numbers() == gather(tokens)
    assert gather(torch.randn(6), -1).columns == 6


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_the_width_of_a_block_is_found_from_its_modules(chunk_size):
    torch.manual_seed(0)
    waves = nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1),
        Wrapped(nn.Sequential(nn.Conv1d(4, 4, 3, padding=1), nn.ReLU())),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).double()
    x = torch.randn(12, 2, 9, dtype=torch.float64)
    monitor = measure(waves, x, chunk_size=chunk_size)
    run = monitor.history.isel(step=-1)
    counts = json.loads(monitor.history.attrs["leaky_columns"])
    assert counts["input"] == counts["0"] == counts["1"] == 12 * 9
    with torch.no_grad():
        rows = waves[1](waves[0](x)).movedim(1, -1).flatten(0, 1)
    for variable, value in by_hand(rows).items():
        assert float(run[variable].sel(layer="1")) == pytest.approx(value, rel=1e-9), variable

    swin = nn.Sequential(
        nn.Unflatten(1, (4, 4, 1)),
        nn.Linear(1, 6),
        Wrapped(nn.Sequential(nn.Linear(6, 6), nn.ReLU())),
        nn.Flatten(),
        nn.Linear(96, 3),
    )
    monitor = measure(swin, torch.randn(12, 16), chunk_size=chunk_size)
    assert json.loads(monitor.history.attrs["leaky_columns"])["2"] == 12 * 16
    again = monitor.observe()
    assert again["identity_cost/2"] == float(monitor.history["identity_cost"].sel(layer="2")[-1])


def test_wide_layers_with_many_columns_are_thinned_the_same_way_in_chunks(monkeypatch):
    monkeypatch.setattr(block_measures, "LARGEST", 10)
    torch.manual_seed(0)
    for shape in ((7, 20, 3, 3), (30, 20), (30, 20, 2, 2)):
        features = torch.randn(shape, dtype=torch.float64)
        whole = gather(features, 1)
        assert whole.columns <= 10
        for sizes in ([1] * shape[0], [shape[0] - 2, 2]):
            assert gather(features, 1, sizes).identity_cost == pytest.approx(whole.identity_cost, rel=1e-12)
    images = torch.randn(3, 20, 9, dtype=torch.float64)
    kept = images[:, :, [0, 3, 6]].movedim(1, -1).flatten(0, 1)  # 10 // 3 positions of each of the 3 samples
    assert gather(images, 1).identity_cost == pytest.approx(by_hand(kept)["identity_cost"], rel=1e-9)


@pytest.mark.parametrize("name", ["mlp", "resnet", "gpt", "encoder"])
def test_chunks_and_the_order_of_samples_change_nothing(name):
    case = zoo.make(name).double()
    whole = measure(case.model, *case.probe, loss=case.loss)
    expected = whole.history.isel(step=-1)
    parts = measure(case.model, *case.probe, loss=case.loss, chunk_size=5).history.isel(step=-1)
    order = torch.randperm(zoo.SAMPLES)
    shuffled = measure(case.model, case.probe[0][order], case.probe[1][order], loss=case.loss).history.isel(step=-1)
    for variable in PER_LAYER:
        assert np.isfinite(expected[variable]).any() == (variable != "relative_step" or name != "mlp"), variable
        np.testing.assert_allclose(parts[variable], expected[variable], rtol=1e-9, err_msg=variable)
        np.testing.assert_allclose(shuffled[variable], expected[variable], rtol=1e-9, err_msg=variable)


# ---------------------------------------------------------------------- residual blocks


class Step(nn.Module):
    """A block made of one function of its input and its weights."""

    def __init__(self, function, inputs=6, outputs=6):
        super().__init__()
        self.one, self.two, self.norm = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs), nn.LayerNorm(outputs)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


def assigned(block, x):
    x = x.clone()
    x += block.one(x)
    return x


RESIDUAL = {
    "plain sum": lambda b, x: x + b.one(F.relu(x)),
    "branch first": lambda b, x: b.one(F.relu(x)) + x,
    "difference": lambda b, x: x - b.one(x),
    "scaled": lambda b, x: 0.3 * x + 0.5 * b.one(x),
    "activation behind": lambda b, x: F.relu(x + b.one(x)),
    "norm behind": lambda b, x: b.norm(x + b.one(x)),
    "two sums": lambda b, x: (x + b.one(x)) + b.two(b.norm(x + b.one(x))),
    "interpolation": lambda b, x: torch.lerp(x, b.one(x), 0.3),
    "gated skip": lambda b, x: x * torch.sigmoid(b.one(x)) + b.two(x),
    "in place": assigned,
    "writes its input": lambda b, x: F.relu_(x) + b.one(x),
    "through a view": lambda b, x: x + b.one(x.view(-1, 2, 3).flatten(1)).view(-1, 2, 3).reshape(-1, 6),
    "normed skip": lambda b, x: b.norm(x) + b.one(x),
}
OTHER = {
    "chain": lambda b, x: F.relu(b.two(F.relu(b.one(x)))),
    "two branches": lambda b, x: b.one(x) + b.two(x),
    "gate only": lambda b, x: x * torch.sigmoid(b.one(x)),
    "no weights": lambda b, x: x + torch.tanh(x),
    "identity": lambda b, x: x,
    "unrelated sum": lambda b, x: x + b.one.bias,
    "unknown function": lambda b, x: Custom.apply(x) + b.one(x),
    "detached": lambda b, x: x.detach() + b.one(x),
}


def found_in(net, x, y=None, loss=F.cross_entropy, layers="auto"):
    probe = Probe(x, torch.arange(len(x)) % 3 if y is None else y)
    return residual_layers(ProbePass(net, choose_layers(net, probe, layers), Criterion(loss)), probe)


@pytest.mark.parametrize("name", RESIDUAL)
def test_residual_blocks_are_recognised(name):
    torch.manual_seed(0)
    net = nn.Sequential(Step(RESIDUAL[name]), Step(RESIDUAL[name]), nn.Linear(6, 3))
    assert found_in(net, torch.randn(8, 6)) == {"0", "1"}


@pytest.mark.parametrize("name", OTHER)
def test_other_blocks_are_not_residual(name):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 6), Step(OTHER[name]), Step(OTHER[name]), nn.Linear(6, 3))
    assert found_in(net, torch.randn(8, 6)) == frozenset()


def test_blocks_that_change_the_shape_are_not_residual():
    wide = Step(lambda b, x: F.pad(x, (0, 2)) + b.one(x), 6, 8)
    net = nn.Sequential(wide, Step(RESIDUAL["plain sum"], 8, 8), nn.Linear(8, 3))
    assert found_in(net, torch.randn(8, 6)) == {"1"}


def test_a_residual_block_inside_another_one_is_found_too():
    inner = Step(RESIDUAL["plain sum"])
    outer = Wrapped(nn.Sequential(inner, nn.Linear(6, 6)))
    net = nn.Sequential(outer, nn.Linear(6, 3))
    assert found_in(net, torch.randn(8, 6), layers=["0", "0.inner.0"]) == {"0", "0.inner.0"}


@pytest.mark.parametrize(
    ("name", "residual"),
    [
        ("mlp", set()),
        ("cnn", set()),
        ("resnet", {"layer1.0", "layer1.1", "layer2.1"}),
        ("transformer_block", {"block"}),
        ("gpt", {"blocks.0", "blocks.1"}),
        ("gpt_checkpointed", {"blocks.0", "blocks.1"}),
        ("gpt_checkpointed_reentrant", {"blocks.0", "blocks.1"}),
        ("encoder", {"encoder.layers.0", "encoder.layers.1"}),
        ("multi_head", {"blocks.0", "blocks.1"}),
        ("reused", set()),
        ("checkpointed_reentrant", set()),
        ("lstm", set()),
    ],
)
def test_residual_blocks_of_common_networks(name, residual):
    case = zoo.make(name)
    run = measure(case.model, *case.probe, loss=case.loss).history.isel(step=-1)
    steps = run["relative_step"]
    assert {str(layer) for layer in run["layer"].values[np.isfinite(steps)]} == residual
    assert (steps.values[np.isfinite(steps)] > 0).all()


def test_the_skip_of_a_residual_mlp_makes_the_difference():
    x = torch.randn(20, 5)
    for skip, residual in ((1.0, {"blocks.0", "blocks.1"}), (0.0, set())):
        assert found_in(lm.nets.ResidualMLP(5, 3, width=8, depth=2, skip=skip), x) == residual


def test_steps_of_a_leaky_resnet_are_those_of_its_path():
    torch.manual_seed(0)
    net = LeakyResNet(5, 3, 8, 3.0, 6).double()
    x = torch.randn(30, 5, dtype=torch.float64)
    run = measure(net, x).history.isel(step=-1)
    path = net(x, return_path=True)[1].detach()
    for step in range(6):
        expected = (path[step + 1] - path[step]).norm() / path[step + 1].norm()
        assert float(run["relative_step"].sel(layer=f"blocks.{step}")) == pytest.approx(float(expected), rel=1e-9)


def test_a_block_that_writes_over_its_input_is_compared_with_what_it_got():
    torch.manual_seed(0)
    block = Step(RESIDUAL["writes its input"]).double()
    net = nn.Sequential(nn.Linear(6, 6), block, nn.Linear(6, 3)).double()
    x = torch.randn(20, 6, dtype=torch.float64)
    with torch.no_grad():
        before = net[0](x)
        after = block(before.clone())
    run = measure(net, x, layers=["1"]).history
    assert float(run["relative_step"][-1, 0]) == pytest.approx(float((after - before).norm() / after.norm()), rel=1e-12)


def test_a_model_that_does_not_run_on_a_graph_is_measured_without_steps():
    net = nn.Sequential(
        Step(lambda b, x: torch.from_numpy(np.maximum(x.numpy(), 0)) + b.one(x)),
        Step(RESIDUAL["plain sum"]),
        nn.Linear(6, 3),
    )
    monitor = measure(net.requires_grad_(False), torch.randn(20, 6))
    assert np.isfinite(monitor.history["identity_cost"]).all()
    assert "numpy" in monitor.history.attrs["leaky_trace_error"]
    finding = next(f for f in monitor.verdict().findings if f.code == "leaky.no_residual_blocks")
    assert "could not be looked for" in finding.evidence


# ---------------------------------------------------------------------- inputs of layers for meters


class Recorder:
    """A meter that writes down what it is called with."""

    def __init__(self):
        self.calls, self.tensors = [], []

    def on_input(self, layer, tensor, chunk):
        self.calls.append(("input", layer, chunk.start))
        self.tensors.append(tensor.clone())
        assert not tensor.requires_grad

    def on_features(self, layer, features, chunk):
        self.calls.append(("features", layer, chunk.start))

    def on_backward(self, layer, gradient, chunk):
        pass

    def compute(self, snapshot):
        return {}


@pytest.mark.parametrize("name", ["reused", "gpt_checkpointed_reentrant", "mlp"])
@pytest.mark.parametrize("backward", [False, True])
def test_meters_see_inputs_of_single_modules_once_before_their_features(name, backward):
    case = zoo.make(name)
    probe = Probe(*case.probe)
    layers = choose_layers(case.model, probe)
    recorder = Recorder()
    assert isinstance(recorder, InputMeter)
    ProbePass(case.model, layers, Criterion(case.loss)).run(probe, [recorder], step=0, backward=backward, chunk_size=12)
    expected = []
    for start in (0, 12):
        for layer in layers.layers:
            expected += [("input", layer.name, start)] * layer.is_module + [("features", layer.name, start)]
    assert recorder.calls == expected
    if name == "mlp":  # of the groups of several modules only the read-out stands alone
        assert [layer.name for layer in layers.layers if layer.is_module] == ["6"]


def test_what_a_meter_sees_as_input_is_what_the_module_gets():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    x = torch.randn(6, 4)
    probe, recorder = Probe(x, torch.arange(6) % 3), Recorder()
    ProbePass(net, choose_layers(net, probe), Criterion(F.cross_entropy)).run(probe, [recorder], step=0, backward=False)
    assert torch.equal(recorder.tensors[0], x)
    assert torch.equal(recorder.tensors[1], net[0](x).detach())


# ---------------------------------------------------------------------- edges and the instrument as such


class Zero(nn.Module):
    def forward(self, x):
        return x * 0


def test_a_dead_layer_costs_nothing_and_has_no_rank():
    net = nn.Sequential(nn.Linear(6, 6), Zero(), nn.Linear(6, 3, bias=False), nn.Linear(3, 3))
    run = measure(net, torch.randn(20, 6), layers=["0", "1", "2", "3"]).history.isel(step=-1)
    for layer in ("1", "2"):
        at = run.sel(layer=layer)
        assert float(at["identity_cost"]) == float(at["bottleneck_dimension"]) == 0
        assert np.isnan(at["stable_rank"])
        assert np.isnan(at["negativity"])
    constant = run.sel(layer="3")  # the same bias for every sample: one dimension
    assert float(constant["stable_rank"]) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("width", [6, 60])
def test_features_that_are_not_finite_give_nan(bad, width):
    rows = torch.randn(20, width)
    rows[3, 2] = bad
    assert all(np.isnan(getattr(gather(rows), name)) for name in PER_LAYER[:4])


def test_features_that_do_not_divide_into_samples_are_left_out():
    gathered = FeatureColumns(20, -1)
    gathered.add(torch.randn(7, 6), Chunk(None, 0, 20, slice(0, 20)))
    assert np.isnan(gathered.numbers().identity_cost)
    assert gathered.columns == 0


def test_one_sample_gives_nan_and_says_so():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
    monitor = measure(net, torch.randn(1, 4), torch.tensor([0]))
    assert np.isnan(monitor.history["identity_cost"]).all()
    finding = next(f for f in monitor.verdict().findings if f.code == "leaky.not_measurable")
    assert finding.severity == "unknown"
    assert LeakyInstrument().figures(monitor.history) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_widened(dtype):
    torch.manual_seed(0)
    rows = torch.randn(30, 4).to(dtype)
    assert gather(rows).identity_cost == pytest.approx(by_hand(rows.double())["identity_cost"], rel=1e-9)


def test_it_is_part_of_full_and_its_variables_are_its_own():
    assert "leaky" in INSTRUMENTS
    assert "leaky" in PRESETS["full"]
    assert "leaky" not in PRESETS["standard"] + PRESETS["light"]
    make_instruments("full")  # refuses two variables of one name
    instrument = LeakyInstrument("full")
    assert tuple(instrument.variables()) == PER_LAYER
    assert set(instrument.columns) <= set(PER_LAYER)
    for variable in instrument.variables().values():
        assert variable.dimensions == ("layer",)
        assert all(variable.attributes.values())


def test_a_history_says_how_it_was_measured_and_survives_saving(tmp_path):
    torch.manual_seed(0)
    net = lm.nets.ResidualMLP(6, 3, width=10, depth=4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x, y = torch.randn(40, 6), torch.arange(40) % 3
    with watch(net, (x, y), F.cross_entropy, optimizer=optimizer, every=1, measures=["leaky"]) as monitor:
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
    assert monitor.failures == []
    history = monitor.history
    assert history.attrs["leaky_ridge"].startswith("0.001 times")
    assert set(json.loads(history.attrs["leaky_columns"]).values()) == {40}
    assert "jacot2024" in history.attrs["citations"]
    again = lm.history.load(lm.history.save(history, tmp_path / "run.nc"))
    assert LeakyInstrument().read(again) == LeakyInstrument().read(history)
    names = [figure.name for figure in LeakyInstrument().figures(again)]
    assert names == ["identity_cost", "relative_step"]
