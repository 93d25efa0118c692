"""What can go wrong around a measurement: odd networks, odd numbers, odd settings; and that nothing is changed by it."""

import contextlib
import copy
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from learnmech import history as histories
from learnmech import speed
from learnmech.errors import InputError, LearnmechWarning
from learnmech.speed.products import all_finite, any_nonzero, gram
from learnmech.speed.step_reading import Step, read_step

sys.path.insert(0, str(Path(__file__).parents[1] / "monitor"))
import zoo

NUMBERS = ("speed", "backward_norm", "cosine", "loss_decay", "share", "linearity", "real_speed_rms", "activation_rms")


def small(dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype)
    return net, (torch.randn(10, 6, dtype=dtype), torch.randn(10, 3, dtype=dtype))


def assert_same(found, expected, rtol=1e-9, atol=1e-13, names=NUMBERS):
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, atol=atol, err_msg=name)


# ---- nothing is changed


def everything(model, optimizer):
    """All that a measurement must leave as it is."""
    modules = list(model.modules())
    return {
        "parameters": [(value.detach().clone(), value._version, value.requires_grad) for value in model.parameters()],
        "gradients": [None if value.grad is None else value.grad.to_dense().clone() for value in model.parameters()],
        "buffers": {name: value.clone() for name, value in model.named_buffers()},
        "modes": [module.training for module in modules],
        "hooks": [
            [len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks)] for module in modules
        ],
        "attributes": [sorted(vars(module)) for module in modules],
        "optimizer": copy.deepcopy(optimizer.state_dict()),
        "random": [torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()],
        "switches": [
            torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled,
            torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled(),
        ],
    }  # fmt: skip


def same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def ready(name):
    """A case in double precision, after a training step, with gradients of its own."""
    case = zoo.make(name).double()
    case.model.train()
    optimizer = case.optimizer()
    for _ in range(2):
        case.loss(case.forward(), case.probe[1]).backward()
        if name != "sparse_embedding":  # momentum of a sparse gradient stays sparse
            optimizer.step()
    return case, optimizer


@pytest.mark.parametrize("mode", ["eval", "current"])
@pytest.mark.parametrize("name", zoo.CASES)
def test_formula_and_nothing_changed(name, mode):
    case, optimizer = ready(name)
    before = everything(case.model, optimizer)
    update = 0.05 if name == "sparse_embedding" else optimizer
    history = speed.measure(case.model, case.probe, case.loss, update, mode=mode)
    assert same(everything(case.model, optimizer), before)
    histories.validate(history)
    assert float(history.identity_error.max()) < 1e-10 or "reentrant" in name
    if name != "gpt_checkpointed_reentrant":  # whose last normalisation belongs to no layer as far as can be seen
        assert float(history.share.sum()) == pytest.approx(1)
    assert bool(history.is_finite.all())
    assert history.attrs["method"].startswith("forward-mode")


@pytest.mark.parametrize("chunk_size", [7])
@pytest.mark.parametrize(
    "name",
    [
        "mlp",
        "resnet",
        "gpt",
        "reused",
        "checkpointed_reentrant",
        "lstm",
        "weighted_loss",
        "summed_loss",
        "tuple_inputs",
    ],
)
def test_chunks_give_the_same(name, chunk_size):
    case, optimizer = ready(name)
    update = 0.05 if name == "sparse_embedding" else optimizer
    whole = speed.measure(case.model, case.probe, case.loss, update)
    parts = speed.measure(case.model, case.probe, case.loss, update, chunk_size=chunk_size)
    exact = [name for name in NUMBERS if name != "linearity"]
    assert_same(parts, whole, rtol=1e-8, atol=1e-11, names=(*exact, "total_decay", "real_decay", "loss", "accuracy"))
    assert_same(
        parts, whole, rtol=1e-6, atol=1e-7, names=["linearity"]
    )  # a difference of squares: the root of round-off
    assert list(parts.place.values) == list(whole.place.values)


class Fails(nn.Module):
    """Fails when it is called for the n-th time."""

    def __init__(self, call):
        super().__init__()
        self.call, self.calls = call, [0]

    def forward(self, x):
        self.calls[0] += 1
        if self.calls[0] == self.call:
            raise KeyError("not today")
        return x


@pytest.mark.parametrize("call", range(1, 5))
def test_nothing_changed_by_a_failure(call):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), Fails(call), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(net.parameters())
    batch = torch.randn(10, 6), torch.randn(10, 3)
    before = everything(net, optimizer)
    # The first call is that which finds the layers; a failure of the forward-mode pass, the fourth, leads to the next method.
    raised = {1: pytest.raises(InputError), 2: pytest.raises(KeyError), 3: pytest.raises(KeyError)}
    with raised.get(call, contextlib.nullcontext()):
        speed.measure(net, batch, F.mse_loss, optimizer, mode="current")
    assert same(everything(net, optimizer), before)


def test_nothing_changed_when_the_loss_is_nan():
    net, (x, y) = small()
    optimizer = torch.optim.Adam(net.parameters())
    before = everything(net, optimizer)
    with pytest.raises(InputError, match="the loss on this batch is nan"):
        speed.measure(net, (x, y * float("nan")), F.mse_loss, optimizer)
    assert same(everything(net, optimizer), before)


def test_frozen_parameters_stay_frozen_when_they_are_displaced():
    net, batch = small()
    whole = speed.measure(net, batch, F.mse_loss, {"0.weight": torch.ones(8, 6)})
    net[0].requires_grad_(False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = everything(net, optimizer)
    frozen = speed.measure(net, batch, F.mse_loss, {"0.weight": torch.ones(8, 6)})
    assert same(everything(net, optimizer), before)
    assert_same(frozen, whole)
    assert float(frozen.sel(layer="0").share) == 1


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_inside_other_modes_of_torch(context):
    net, batch = small()
    optimizer = torch.optim.Adam(net.parameters())
    outside = speed.measure(net, batch, F.mse_loss, optimizer)
    with context():
        inside = speed.measure(net, batch, F.mse_loss, optimizer)
    assert_same(inside, outside)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(speed.measure(net, batch, F.mse_loss, optimizer), outside)


def test_random_masks_are_the_same_in_all_passes():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 30), nn.Dropout(0.5), nn.Linear(30, 20), nn.Tanh(), nn.Dropout(0.3), nn.Linear(20, 3)
    )
    net = net.double()
    batch = torch.randn(10, 6).double(), torch.randn(10, 3).double()
    first = speed.measure(net, batch, F.mse_loss, 1e-5, mode="current")
    assert float(first.identity_error.max()) < 1e-12
    assert float(first.linearity.max()) < 1e-3  # another mask would give about 1
    assert_same(speed.measure(net, batch, F.mse_loss, 1e-5, mode="current"), first)
    torch.rand(3)
    other = speed.measure(net, batch, F.mse_loss, 1e-5, mode="current")
    assert abs(float(other.loss - first.loss)) > 1e-6
    evaluated = speed.measure(net, batch, F.mse_loss, 1e-5)
    net.eval()
    assert_same(speed.measure(net, batch, F.mse_loss, 1e-5, mode="current"), evaluated)


def test_recurrent_dropout_in_training_mode():
    torch.manual_seed(0)
    case = zoo.make("lstm")
    case.model.lstm = nn.LSTM(4, 6, num_layers=2, dropout=0.5, batch_first=True)
    case.double()
    history = speed.measure(case.model, case.probe, case.loss, 1e-5, mode="current")
    assert float(history.identity_error.max()) < 1e-10
    assert float(history.linearity.max()) < 1e-3


# ---- numbers at the edge


def test_large_float32_features():  # T16
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Linear(5, 2, bias=False))
    net[0].weight.data.mul_(1e25)
    net[1].weight.data.mul_(1e-25)
    batch = torch.randn(3, 4), torch.randn(3, 2)
    step = {"0.weight": 1e22 * torch.randn(5, 4), "1.weight": 1e-28 * torch.randn(2, 5)}
    history = speed.measure(net, batch, F.mse_loss, step)
    wide = speed.measure(copy.deepcopy(net).double(), tuple(part.double() for part in batch), F.mse_loss, step)
    assert float(history.speed.sel(layer="0")) > 1e22
    assert bool(history.is_finite.all())
    assert history.attrs["notes"] == "[]"
    assert_same(
        history,
        wide,
        rtol=1e-5,
        atol=0,
        names=("speed", "backward_norm", "cosine", "loss_decay", "activation_rms", "share"),
    )


def test_infinite_features():  # T16
    net = nn.Sequential(nn.Linear(2, 3), nn.Hardtanh(), nn.Linear(3, 1))
    net[0].weight.data.fill_(3e38)
    history = speed.measure(net, (torch.full((2, 2), 2.0), torch.zeros(2, 1)), F.mse_loss, 0.1, nodes=["0", "2"])
    assert list(history.is_finite.values) == [False, True]
    assert "not finite at 0." in history.attrs["notes"]
    assert np.isinf(history.activation_rms.sel(layer="0"))


def test_a_gradient_that_is_not_finite():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))

    def loss(outputs, targets):
        return (outputs - outputs.detach()).sum().sqrt()

    with pytest.raises(
        InputError, match=r"the gradient of '0.weight' holds NaN or infinite entries although the loss is 0"
    ):
        speed.measure(net, (torch.ones(2, 2), torch.ones(2, 1)), loss, 0.1)


def test_read_out_of_zeros():
    net, batch = small()
    nn.init.zeros_(net[-1].weight)
    history = speed.measure(net, batch, F.mse_loss, 0.1)
    assert list(history.backward_norm.values[1:3]) == [0, 0]
    assert np.isnan(history.cosine.values[:3]).all()
    assert list(history.share.values) == [0, 0, 0, 1]
    assert "no backward signal reaches 0, 2" in history.attrs["notes"]
    nn.init.zeros_(net[-1].bias)
    with pytest.raises(InputError, match="the update moves nothing"):
        speed.measure(net, (batch[0], torch.zeros(10, 3).double()), F.mse_loss, 0.1)


def test_layers_before_anything_trained():
    net, batch = small()
    net[0].requires_grad_(False)
    history = speed.measure(net, batch, F.mse_loss, 0.1)
    rows = history.sel(layer=["input", "0"])
    assert np.isnan(rows.backward_norm).all()
    assert np.isnan(rows.cosine).all()
    assert not rows.speed.any()
    assert rows.is_finite.all()
    assert history.attrs["notes"] == "[]"


@pytest.mark.parametrize("name", ["mlp", "cnn", "regression", "gpt", "lstm"])
def test_one_sample(name):
    case = zoo.make(name).double()
    x, y = case.probe
    history = speed.measure(case.model, (x[:1], y[:1]), case.loss, 0.1)
    assert float(history.identity_error.max()) < 1e-10
    chain = history.isel(layer=slice(1, None))
    assert bool((chain.cosine > 0).all())


def test_half_precision():
    net, batch = small(torch.bfloat16)
    history = speed.measure(net, batch, F.mse_loss, 0.1)
    wide_net, wide = copy.deepcopy(net).double(), tuple(part.double() for part in batch)
    expected = speed.measure(wide_net, wide, F.mse_loss, 0.1)
    # bfloat16 has 8 bits: 0.4 % at each of a few operations.
    assert_same(history, expected, rtol=0.05, atol=0.02, names=("speed", "backward_norm", "cosine", "share"))
    assert float(history.identity_error.max()) < 0.02


# ---- operations without forward mode


class WithoutForwardMode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, kinked):
        ctx.save_for_backward(x)
        ctx.kinked = kinked
        return x.clamp(min=0) if kinked else x.tanh()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * ((x > 0).to(x.dtype) if ctx.kinked else 1 - x.tanh() ** 2), None


class Custom(nn.Module):
    def __init__(self, kinked):
        super().__init__()
        self.kinked = kinked

    def forward(self, x):
        return WithoutForwardMode.apply(x, self.kinked)


@pytest.mark.parametrize(
    ("kinked", "dtype", "tolerance"),
    [
        (False, torch.float32, 1e-3),
        (True, torch.float32, 1e-2),
        (False, torch.float64, 1e-4),
        (True, torch.float64, 1e-4),
    ],
)
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_finite_differences_where_there_is_no_forward_mode(kinked, dtype, tolerance, optimizer):
    torch.manual_seed(0)
    plain: list[nn.Module] = []
    for before, after in ((10, 64), (64, 64), (64, 64), (64, 64)):
        plain += [nn.Linear(before, after), nn.ReLU() if kinked else nn.Tanh()]
    net = nn.Sequential(*plain, nn.Linear(64, 3)).to(dtype)
    custom = nn.Sequential(*(Custom(kinked) if isinstance(m, nn.ReLU | nn.Tanh) else m for m in net))
    batch = torch.randn(40, 10, dtype=dtype), torch.randn(40, 3, dtype=dtype)
    step = getattr(torch.optim, optimizer)(net.parameters(), lr=1e-2)
    exact = speed.measure(net, batch, F.mse_loss, step)
    with pytest.warns(LearnmechWarning, match="central finite differences: accurate to about 1e-3"):
        found = speed.measure(custom, batch, F.mse_loss, step)
    assert found.attrs["method"] == "central difference"
    assert exact.attrs["method"] == "forward-mode"
    assert_same(found, exact, rtol=tolerance, atol=tolerance, names=("speed", "cosine", "loss_decay", "share"))
    assert_same(found, exact, rtol=1e-2, atol=0.03, names=["linearity"])
    assert_same(
        found, exact, rtol=1e-5, atol=1e-6, names=("backward_norm", "activation_rms", "real_speed_rms", "loss_decay")
    )
    measurement = speed.SpeedMeasurement(custom, batch, F.mse_loss)
    with pytest.warns(LearnmechWarning, match="no forward mode"):
        first = measurement.measure(step)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        assert_same(measurement.measure(step), first)
        chunked = read_step(
            measurement.source, measurement.probe, Step({}, {}, {"0.weight": torch.ones(64, 10, dtype=dtype)}),
            chunk_size=16, backward=False, real=False, method="central difference",
        )  # fmt: skip
    assert chunked.layers["8"].entries == 40 * 3


def test_a_bias_of_zero_does_not_spoil_finite_differences():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 32), Custom(False), nn.Linear(32, 3))
    net[0].bias.data.mul_(1e-12)
    step = {"0.weight": 1e-2 * torch.randn(32, 10), "0.bias": 1e-2 * torch.randn(32)}
    batch = torch.randn(20, 10), torch.randn(20, 3)
    with pytest.warns(LearnmechWarning, match="no forward mode"):
        found = speed.measure(net, batch, F.mse_loss, step)
    net[1] = nn.Tanh()
    assert_same(found, speed.measure(net, batch, F.mse_loss, step), rtol=1e-3, atol=1e-3, names=("speed", "cosine"))


class Detached(nn.Module):
    """Divides by a norm that it computes without gradients."""

    def __init__(self, how):
        super().__init__()
        self.first, self.last, self.how = nn.Linear(6, 8), nn.Linear(8, 3), how

    def forward(self, x):
        x = self.first(x)
        if self.how == "detach":
            size = x.detach().norm(dim=1, keepdim=True)
        else:
            with torch.no_grad():
                size = x.norm(dim=1, keepdim=True)
        return self.last(x / size)


@pytest.mark.parametrize("how", ["detach", "no_grad"])
def test_a_model_that_stops_gradients(how):
    torch.manual_seed(0)
    net, batch = Detached(how), (torch.randn(10, 6), torch.randn(10, 3))
    history = speed.measure(net, batch, F.mse_loss, 0.1)
    told = "the backward and the forward pass are not of the same function" in history.attrs["notes"]
    assert told == (how == "no_grad")  # torch stops both directions at detach(), only one under no_grad()
    assert (float(history.identity_error.max()) > 0.02) == told


def test_an_error_of_the_model_is_raised_as_it_is():
    class Moody(nn.Module):
        def forward(self, x):
            if not torch.is_grad_enabled() and len(x) > 7:
                raise RuntimeError("never without gradients")
            return x

    net = nn.Sequential(nn.Linear(6, 8), Moody(), nn.Linear(8, 3))
    with pytest.raises(RuntimeError, match="never without gradients"):
        speed.measure(net, (torch.randn(10, 6), torch.randn(10, 3)), F.mse_loss, 0.1)


# ---- wrappers, nodes, settings


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, when it loads its compiler
def test_wrappers():
    net, batch = small()
    expected = speed.measure(net, batch, F.mse_loss, 0.1)

    class DistributedDataParallel(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    wrapped = DistributedDataParallel(net)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    with pytest.warns(LearnmechWarning, match="measuring the eager module inside DistributedDataParallel"):
        assert_same(speed.measure(wrapped, batch, F.mse_loss, optimizer), expected)
    with pytest.warns(LearnmechWarning, match=r"measuring the eager module inside torch\.compile"):
        assert_same(speed.measure(torch.compile(net), batch, F.mse_loss, optimizer), expected)
    net.compile()
    with pytest.warns(LearnmechWarning, match=r"measuring the eager module inside torch\.compile"):
        assert_same(speed.measure(net, batch, F.mse_loss, optimizer), expected)


def test_nodes():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    ).double()
    batch = torch.randn(10, 6).double(), torch.randn(10, 3).double()

    def layers(nodes):
        history = speed.measure(net, batch, F.mse_loss, 0.1, nodes=nodes)
        assert float(history.identity_error.max()) < 1e-12
        return list(history.layer.values), list(history.role.values)

    assert layers("auto") == (["input", "0", "3", "5"], ["input", "block", "block", "readout"])
    assert layers("weights") == (["0", "3", "5"], ["block", "block", "readout"])
    assert layers(["3", "0"]) == (["0", "3"], ["block", "block"])
    assert layers("?") == (["0", "1", "2", "3", "4", "5"], [*["block"] * 5, "readout"])
    assert layers(lambda name, module: isinstance(module, nn.ReLU)) == (["2", "4"], ["block", "block"])
    before, behind = (
        speed.measure(net, batch, F.mse_loss, 0.1, nodes=nodes).sel(layer="0") for nodes in ("weights", "auto")
    )
    assert float(before.loss_decay) < float(behind.loss_decay)  # the gain of the normalisation acts between
    with pytest.raises(InputError, match="matches no module"):
        layers("nothing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"update": 0.0}, "update must be an optimizer"),
        ({"update": -0.1}, "update must be an optimizer"),
        ({"update": True}, "update must be an optimizer"),
        ({"update": float("nan")}, "update must be an optimizer"),
        ({"update": "Adam"}, "update must be an optimizer"),
        ({"update": {"0.wieght": torch.ones(8, 6)}}, "no parameter of the model; near are 0.weight"),
        ({"update": {"0.weight": torch.ones(6, 8)}}, r"must be a tensor of shape \(8, 6\), but \(6, 8\) came"),
        ({"update": {"0.weight": 1.0}}, r"must be a tensor of shape \(8, 6\), but float came"),
        ({"update": {"0.weight": torch.full((8, 6), float("inf"))}}, "holds NaN or infinite entries"),
        ({"update": {"0.weight": torch.zeros(8, 6)}}, "the update moves nothing"),
        ({"update": {}}, "the update moves nothing"),
        ({"mode": "train"}, "mode must be 'eval' or 'current'"),
        ({"chunk_size": 0}, "chunk_size must be a whole number"),
        ({"chunk_size": True}, "chunk_size must be a whole number"),
        ({"chunk_size": 2.0}, "chunk_size must be a whole number"),
        ({"batch": torch.ones(3)}, "batch must be a pair"),
        ({"batch": (torch.ones(3, 5), torch.ones(3, 3))}, "cannot run on the probe's inputs"),
        ({"batch": (torch.full((3, 6), float("nan")), torch.ones(3, 3))}, "NaN or infinite"),
        ({"batch": (torch.ones(0, 6), torch.ones(0, 3))}, "at least one sample"),
        ({"loss": "mse"}, "loss must be a callable"),
        ({"loss": lambda out, y: out}, "must return a scalar"),
        ({"model": lambda x: x}, "needs a torch.nn.Module"),
    ],
)
def test_bad_input(changes, message):
    net, batch = small()
    arguments = {"model": net, "batch": batch, "loss": F.mse_loss, "update": 0.1, **changes}
    positional = [arguments.pop(name) for name in ("model", "batch", "loss", "update")]
    with pytest.raises(InputError, match=message):
        speed.measure(*positional, **arguments)


def test_nothing_trained():
    net, batch = small()
    net.requires_grad_(False)
    with pytest.raises(InputError, match="no parameter of the model requires a gradient"):
        speed.measure(net, batch, F.mse_loss, 0.1)


def test_without_the_real_step():
    net, batch = small()
    whole = speed.measure(net, batch, F.mse_loss, 0.1)
    quick = speed.measure(net, batch, F.mse_loss, 0.1, real_step=False)
    for name in ("linearity", "real_speed_rms", "real_decay"):
        assert np.isnan(quick[name]).all()
    assert_same(quick, whole, names=("speed", "cosine", "loss_decay", "share", "sensitivity", "total_decay"))


def test_saved_and_loaded(tmp_path):
    net, batch = small()
    history = speed.measure(net, batch, F.mse_loss, torch.optim.Adam(net.parameters(), lr=1e-3))
    histories.save(history, tmp_path / "step.nc")
    loaded = histories.load(tmp_path / "step.nc")
    assert loaded.equals(history)
    assert loaded.attrs == history.attrs
    assert set(loaded.role.values) == {"input", "block", "readout"}
    assert bool(loaded.is_cut.all())


def test_history_of_dropped_input():
    net, batch = small()
    history = speed.measure(net, batch, F.mse_loss, 0.1)
    assert list(history.isel(layer=(history.role != "input").values).layer.values) == ["0", "2", "4"]


# ---- sums of products


@pytest.mark.parametrize("entries", [0, 1, 7, 1 << 15, (1 << 15) + 3, 100_001])
def test_gram(entries):
    generator = torch.Generator().manual_seed(entries)
    rows = torch.randn(3, entries, generator=generator)
    wide = rows.double().numpy()
    np.testing.assert_allclose(gram(*rows), wide @ wide.T, rtol=1e-12, atol=1e-12)


def test_gram_of_numbers_whose_squares_overflow():
    large = torch.full((5,), 1e30)
    np.testing.assert_allclose(gram(large, -large), 5e60 * np.array([[1, -1], [-1, 1]]), rtol=1e-6)


def test_quick_checks():
    assert all_finite(torch.full((9,), 3e38))  # the sum is not
    for bad in (float("nan"), float("inf"), -float("inf")):
        tensor = torch.zeros(3000)
        tensor[2000] = bad
        assert not all_finite(tensor)
        assert any_nonzero(tensor)
    assert not all_finite(torch.tensor([float("inf"), -float("inf")]))
    assert not any_nonzero(torch.zeros(3000))
    assert not any_nonzero(torch.zeros(0))
    late = torch.zeros(3000)
    late[-1] = 1e-45
    assert any_nonzero(late)
