"""Feature speed against closed forms, and against gradients and finite differences that are computed here, by other code."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from learnmech import speed

EXACT = 1e-9


def pull(outputs, direction):
    """A loss whose backward signal at the output is ``direction``, whatever the output."""
    return (outputs * direction).sum()


def half_square(outputs, targets):
    return 0.5 * (outputs - targets).square().sum()


def chain(*weights):
    """Linear layers without bias, in double precision."""
    layers = []
    for weight in weights:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
        layer.weight.data.copy_(weight)
        layers.append(layer)
    return nn.Sequential(*layers)


def doubles(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def at(history, name):
    """The numbers of one layer, as floats."""
    row = history.sel(layer=name)
    return {key: float(row[key]) for key in row.data_vars if row[key].ndim == 0}


def close(value, expected, tolerance=EXACT):
    return abs(value - expected) <= tolerance * max(1.0, abs(expected))


def test_one_linear_layer_and_one_sample():  # T1
    x, target, weight, eta = doubles(1, 3), doubles(1, 2, seed=1), doubles(2, 3, seed=2), 0.1
    b = x @ weight.T - target
    history = speed.measure(chain(weight), (x, target), half_square, eta)
    row, size, signal = at(history, "0"), float(x.square().sum()), float(b.norm())
    assert close(row["cosine"], 1.0)
    assert close(row["speed"], eta * size * signal)
    assert close(row["speed_rms"], eta * size * signal / math.sqrt(2))
    assert close(row["backward_norm"], signal)
    assert close(row["loss_decay"], eta * size * signal**2)
    assert close(row["share"], 1.0)
    assert close(row["sensitivity"], 1 / (math.sqrt(2) * signal))
    assert close(float(history.total_decay), eta * size * signal**2)
    assert close(float(history.real_decay), eta * size * signal**2 - eta**2 * size**2 * signal**2 / 2)
    assert close(float(history.loss), signal**2 / 2)
    assert row["linearity"] < 1e-7
    assert close(row["real_speed_rms"], row["speed_rms"])
    assert history.attrs["method"] == "forward-mode"


@pytest.mark.parametrize("radii", [(1.0, 2.0), (1.0, 1.0), (0.3, 5.0)])
def test_two_orthogonal_inputs(radii):  # T1b
    x = torch.diag(torch.tensor(radii, dtype=torch.float64))
    history = speed.measure(chain(doubles(3, 2)), (x, torch.eye(2, 3, dtype=torch.float64)), pull, 0.7)
    first, second = (radius**2 for radius in radii)
    assert close(at(history, "0")["cosine"], (first + second) / math.sqrt(2 * (first**2 + second**2)))
    if radii == (1.0, 2.0):
        assert close(at(history, "0")["cosine"], 5 / math.sqrt(34))


def test_deep_orthogonal_net_with_a_learning_rate_per_layer():  # T2
    rates = [0.1, 0.03, 0.7, 0.2]
    net = chain(*(torch.linalg.qr(doubles(5, 5, seed=seed)).Q for seed in range(4)))
    optimizer = torch.optim.SGD(
        [{"params": layer.parameters(), "lr": rate} for layer, rate in zip(net, rates, strict=True)]
    )
    x, direction = doubles(1, 5, seed=7), doubles(1, 5, seed=8)
    history = speed.measure(net, (x, direction), pull, optimizer)
    for layer in range(4):
        row = at(history, str(layer))
        assert close(row["cosine"], 1.0)
        assert close(row["backward_norm"], float(direction.norm()))
        assert close(row["speed"], float(x.square().sum() * direction.norm()) * sum(rates[: layer + 1]))
        assert close(row["share"], rates[layer] / sum(rates))


def test_a_projection_behind_the_identity():  # T3
    net = chain(torch.eye(2), torch.diag(torch.tensor([1.0, 0.0])))
    x, direction = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[1.0, 1.0]]).double()
    row = at(speed.measure(net, (x, direction), pull, 1.0), "1")
    assert close(row["cosine"], 3 / math.sqrt(10))
    assert close(row["speed"], math.sqrt(5))
    assert close(row["loss_decay"], 3.0)
    assert close(row["loss_decay"] / (row["backward_norm"] * row["cosine"]), math.sqrt(5))


def test_one_trained_layer_behind_a_projection_to_one_direction():  # T4
    u, v, direction = doubles(4), doubles(3, seed=1), doubles(1, 4, seed=2)
    net = chain(doubles(3, 5, seed=3), torch.outer(u, v))
    net[1].requires_grad_(False)
    row = at(speed.measure(net, (doubles(1, 5, seed=4), direction), pull, 0.3), "1")
    assert close(row["cosine"], abs(float(u @ direction[0])) / float(u.norm() * direction.norm()))
    assert row["share"] == 0


def test_one_layer_read_behind_its_relu():  # T5
    net = nn.Sequential(*chain(doubles(6, 4)), nn.ReLU())
    x, direction = doubles(1, 4, seed=1), doubles(1, 6, seed=2)
    history = speed.measure(net, (x, direction), pull, 0.2)
    mask = (x @ net[0].weight.T > 0).double()
    assert 0 < mask.sum() < 6
    assert close(at(history, "0")["cosine"], float((mask * direction).norm() / direction.norm()))
    assert close(at(speed.measure(net, (x, direction), pull, 0.2, nodes="weights"), "0")["cosine"], 1.0)


def test_invariance_to_the_scales_of_loss_and_learning_rate():  # T8
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    batch = doubles(9, 5), doubles(9, 2, seed=1)
    base = speed.measure(net, batch, F.mse_loss, 0.1).isel(layer=slice(1, None))
    faster = speed.measure(net, batch, F.mse_loss, 0.7).isel(layer=slice(1, None))
    louder = speed.measure(net, batch, lambda out, y: 3 * F.mse_loss(out, y), 0.1).isel(layer=slice(1, None))
    for name, power_of_rate, power_of_loss in (
        ("cosine", 0, 0), ("share", 0, 0), ("sensitivity", 0, -1), ("speed", 1, 1), ("loss_decay", 1, 2),
        ("backward_norm", 0, 1), ("activation_rms", 0, 0),
    ):  # fmt: skip
        np.testing.assert_allclose(faster[name], base[name] * 7**power_of_rate, rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(louder[name], base[name] * 3.0**power_of_loss, rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(faster.effective_learning_rate, 0.7, rtol=1e-9)
    np.testing.assert_allclose(louder.effective_learning_rate, 0.1, rtol=1e-9)


def test_sign_step_of_one_layer():  # T9
    x, direction, eta = doubles(1, 5), doubles(1, 4, seed=1), 0.01
    net = chain(doubles(4, 5, seed=2))
    step = {"0.weight": -eta * torch.outer(direction[0], x[0]).sign()}
    row = at(speed.measure(net, (x, direction), pull, step), "0")
    ones = float(direction.abs().sum()), float(x.abs().sum())
    assert close(row["cosine"], ones[0] / (2 * float(direction.norm())))
    assert close(row["loss_decay"], eta * ones[0] * ones[1])
    assert close(row["speed"], eta * 2 * ones[1])


def test_spectral_step_of_one_layer():  # T9b
    x, direction, eta = doubles(1, 5), doubles(1, 4, seed=1), 0.01
    net = chain(doubles(4, 5, seed=2))
    step = {"0.weight": -eta * torch.outer(direction[0] / direction.norm(), x[0] / x.norm())}
    row = at(speed.measure(net, (x, direction), pull, step), "0")
    assert close(row["cosine"], 1.0)
    assert close(row["speed"], eta * float(x.norm()))
    assert close(row["loss_decay"], eta * float(direction.norm() * x.norm()))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Linear(1, 1, bias=False).double()
        self.w.weight.data.fill_(2.0)

    def forward(self, x):
        return self.w(self.w(x))


def test_shared_weight():  # T11
    x = torch.ones(1, 1, dtype=torch.float64)
    history = speed.measure(Twice(), (x, x), pull, 1.0, nodes=["w"])
    assert list(history.layer.values) == ["w", "w#2"]
    assert set(history.sharing.values) == {"reused module"}
    np.testing.assert_allclose(history.loss_decay, [8, 16], rtol=EXACT)
    np.testing.assert_allclose(history.gradient_norm, [4], rtol=EXACT)
    np.testing.assert_allclose(history.backward_norm, [2, 1], rtol=EXACT)
    np.testing.assert_allclose(history.speed, [4, 16], rtol=EXACT)
    assert close(float(history.total_decay), 16)
    assert math.isnan(at(history, "w")["identity_error"])
    assert at(history, "w#2")["identity_error"] < EXACT


class Parallel(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.out = (nn.Linear(3, 3).double() for _ in range(3))

    def forward(self, x):
        return self.out(torch.tanh(self.left(x)) * self.right(x))


def test_parallel_branches():  # T12
    torch.manual_seed(0)
    net, batch = Parallel(), (doubles(4, 3), doubles(4, 3, seed=1))
    history = speed.measure(net, batch, F.mse_loss, 0.1, nodes=["left", "right", "out"])
    decays = {name: float(value) for name, value in zip(history.parameter.values, history.parameter_decay, strict=True)}
    for name in ("left", "right"):
        own = decays[f"{name}.weight"] + decays[f"{name}.bias"]
        assert close(at(history, name)["loss_decay"], own)
        assert close(at(history, name)["share"], own / sum(decays.values()))
        assert at(history, name)["identity_error"] < EXACT
    assert close(at(history, "out")["loss_decay"], sum(decays.values()))


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up, self.act, self.down = nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width)

    def forward(self, x):
        return x + self.down(self.act(self.up(x)))


class Residual(nn.Module):
    def __init__(self, width=6, blocks=3):
        super().__init__()
        self.first, self.blocks = nn.Linear(4, width), nn.ModuleList(Block(width) for _ in range(blocks))
        self.last = nn.Linear(width, 2)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


def test_inside_a_residual_branch_and_on_the_stream():  # T13
    torch.manual_seed(0)
    net, batch = Residual(blocks=1).double(), (doubles(5, 4), doubles(5, 2, seed=1))
    history = speed.measure(net, batch, F.mse_loss, 0.1, nodes=["first", "blocks.0.up", "blocks.0", "last"])
    assert list(history.place.values) == ["cut", "branch", "cut", "cut"]
    expected = oracle(
        net, batch, F.mse_loss, {name: -0.1 * g for name, g in gradients(net, batch, F.mse_loss).items()}, history
    )
    np.testing.assert_allclose(history.cosine, expected["cosine"], rtol=1e-6)
    inner, stream = at(history, "blocks.0.up"), at(history, "blocks.0")
    assert close(inner["loss_decay"], expected["mediated"][1], 1e-6)
    upstream = sum(
        float(value)
        for name, value in zip(history.parameter.values, history.parameter_decay, strict=True)
        if name.startswith(("first", "blocks.0.up"))
    )
    assert abs(inner["loss_decay"] / upstream - 1) > 0.01
    assert math.isnan(inner["identity_error"])
    assert close(stream["loss_decay"], float(history.total_decay) * (1 - at(history, "last")["share"]))
    assert close(stream["loss_decay"], expected["mediated"][2], 1e-6)


# ---- the same numbers by other code: gradients of a copy, and central finite differences in double precision


def gradients(net, batch, loss):
    twin = copy.deepcopy(net)
    loss(call(twin, batch[0]), batch[1]).backward()
    return {name: parameter.grad for name, parameter in twin.named_parameters() if parameter.grad is not None}


def call(net, inputs):
    return net(**inputs) if isinstance(inputs, dict) else net(inputs)


def seen(net, batch, loss, names, *, backward=False):
    """Features, and backward signals, of named modules, with hooks of its own."""
    net, features = copy.deepcopy(net), {}
    for name in names:
        net.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: features.update({name: out}))
    value = loss(call(net, batch[0]), batch[1])
    if not backward:
        return {name: feature.detach() for name, feature in features.items()}
    return dict(zip(names, torch.autograd.grad(value, [features[name] for name in names]), strict=True))


def oracle(net, batch, loss, displacement, history, *, where=None, length=1e-6):
    """Speeds, backward norms and mediated decays of the layers of a history, for smooth nets in double precision."""
    where = where or {}
    names = [where.get(name, name) for name in history.layer.values if name not in ("input", "embedding")]
    moved = []
    for sign in (1, -1):
        twin = copy.deepcopy(net)
        with torch.no_grad():
            for name, parameter in twin.named_parameters():
                if name in displacement:
                    parameter += sign * length * displacement[name]
        moved.append(seen(twin, batch, loss, names))
    signals = seen(net, batch, loss, names, backward=True)
    changes = {name: (moved[0][name] - moved[1][name]) / (2 * length) for name in names}
    speeds = np.array([float(changes[name].norm()) for name in names])
    norms = np.array([float(signals[name].norm()) for name in names])
    mediated = np.array([-float((signals[name] * changes[name]).sum()) for name in names])
    return {"speed": speeds, "backward_norm": norms, "mediated": mediated, "cosine": mediated / (speeds * norms)}


class Attention(nn.Module):
    """A pre-norm transformer block; attention by torch's kernel or written out."""

    def __init__(self, width, written_out):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.written_out = written_out

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        if self.written_out:
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
            scores = scores.masked_fill(torch.ones(x.shape[1], x.shape[1]).triu(1).bool(), -math.inf)
            attended = scores.softmax(-1) @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, written_out=False):
        super().__init__()
        self.embed, self.place = nn.Embedding(11, 8), nn.Parameter(torch.randn(6, 8))
        self.blocks = nn.ModuleList(Attention(8, written_out) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 11)

    def forward(self, ids):
        x = self.embed(ids) + self.place
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).flatten(0, 1)


def mlp():
    return nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 12), nn.Sigmoid(), nn.Linear(12, 3))


def cnn():
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.SiLU(), nn.AvgPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


MAKERS = {"mlp": mlp, "cnn": cnn, "residual": Residual, "transformer": Transformer}
READ_AT = {"mlp": {"0": "1", "2": "3"}, "cnn": {"0": "3", "4": "7"}}  # the end of each automatic block


def setting(name, dtype):
    torch.manual_seed(3)
    net = MAKERS[name]().to(dtype)
    if name == "transformer":
        ids = torch.randint(11, (5, 6))
        return net, (ids, (ids.roll(1, 1) % 4).flatten()), F.cross_entropy
    if name == "residual":
        return net, (torch.randn(8, 4, dtype=dtype), torch.randn(8, 2, dtype=dtype)), F.mse_loss
    shape = (16, 10) if name == "mlp" else (6, 2, 8, 8)
    return net, (torch.randn(*shape, dtype=dtype), torch.arange(shape[0]) % 3), F.cross_entropy


def trained(net, batch, loss, steps=4):
    """A few real steps of Adam, so that its state is that of training."""
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3, weight_decay=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(call(net, batch[0]), batch[1]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return optimizer


def real_displacement(net, optimizer, batch, loss, *, evaluate):
    """What the optimizer really does, on copies of the model and of it."""
    twin, twin_optimizer = copy.deepcopy((net, optimizer))
    twin.train(not evaluate)
    before = copy.deepcopy(dict(twin.named_parameters()))
    loss(call(twin, batch[0]), batch[1]).backward()
    twin_optimizer.step()
    return {name: (parameter - before[name]).detach() for name, parameter in twin.named_parameters()}


@pytest.mark.parametrize("mode", ["eval", "current"])
@pytest.mark.parametrize("name", MAKERS)
def test_against_other_code(name, mode):
    net, batch, loss = setting(name, torch.float64)
    optimizer = trained(net, batch, loss)
    displacement = real_displacement(net, optimizer, batch, loss, evaluate=mode == "eval")
    history = speed.measure(net, batch, loss, optimizer, mode=mode)
    net.train(mode == "current")
    expected = oracle(net, batch, loss, displacement, history, where=READ_AT.get(name))
    blocks = history.isel(layer=history.role.values != "input")
    for variable in ("speed", "backward_norm", "cosine"):
        np.testing.assert_allclose(blocks[variable], expected[variable], rtol=2e-7, err_msg=variable)
    np.testing.assert_allclose(blocks.loss_decay, expected["mediated"], rtol=2e-7)
    assert list(blocks.place.values) == ["cut"] * len(blocks.layer)
    gradient = gradients(net, batch, loss)
    for parameter in history.parameter.values:
        row, change = history.sel(parameter=parameter), displacement[parameter]
        assert close(float(row.parameter_decay), -float((gradient[parameter] * change).sum()), 1e-12)
        assert close(float(row.gradient_norm), float(gradient[parameter].norm()), 1e-12)
        assert close(float(row.update_norm), float(change.norm()), 1e-12)
        assert close(float(row.parameter_norm), float(net.get_parameter(parameter).detach().norm()), 1e-12)
    assert close(float(history.share.sum()), 1.0)
    with torch.no_grad():
        for parameter, change in displacement.items():
            net.get_parameter(parameter).add_(change)
        after = float(loss(call(net, batch[0]), batch[1]))
    assert close(float(history.real_decay), float(history.loss) - after, 1e-12)


@pytest.mark.parametrize("mode", ["eval", "current"])
@pytest.mark.parametrize("name", MAKERS)
def test_formula_in_single_precision(name, mode):
    net, batch, loss = setting(name, torch.float32)
    optimizer = trained(net, batch, loss)
    displacement = real_displacement(net, optimizer, batch, loss, evaluate=mode == "eval")
    history = speed.measure(net, batch, loss, optimizer, mode=mode)
    net.train(mode == "current")
    gradient = gradients(net, batch, loss)
    decays = {key: -float((gradient[key].double() * displacement[key].double()).sum()) for key in gradient}
    size = sum(abs(value) for value in decays.values())
    assert abs(float(history.total_decay) - sum(decays.values())) < 1e-6 * size
    blocks = history.isel(layer=history.role.values != "input")
    formula = blocks.loss_decay / (blocks.backward_norm * blocks.cosine)
    # The cosine of a step that mixes ascent and descent can be small, so the error counts relative to the sizes of the decays.
    np.testing.assert_allclose(
        formula * blocks.cosine, blocks.speed * blocks.cosine, atol=1e-6 * size / float(blocks.backward_norm.min())
    )
    assert float(blocks.identity_error.max()) < 1e-6


def test_attention_kernels_agree():  # T17
    torch.manual_seed(0)
    fused, written_out = Transformer(), Transformer(written_out=True)
    written_out.load_state_dict(fused.state_dict())
    ids = torch.randint(11, (4, 6))
    batch = ids, (ids % 5).flatten()
    first = speed.measure(fused.double(), batch, F.cross_entropy, 0.1)
    second = speed.measure(written_out.double(), batch, F.cross_entropy, 0.1)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        third = speed.measure(fused, batch, F.cross_entropy, 0.1)
    assert first.attrs["method"] == "forward-mode, math attention"
    assert second.attrs["method"] == third.attrs["method"] == "forward-mode"
    for other in (second, third):
        for variable in ("speed", "cosine", "loss_decay", "backward_norm", "share"):
            np.testing.assert_allclose(other[variable], first[variable], rtol=1e-9, atol=1e-14, err_msg=variable)


def test_many_steps_with_one_measurement():
    net, batch, loss = setting("mlp", torch.float64)
    measurement = speed.SpeedMeasurement(net, batch, loss)
    for rate in (0.1, 0.2):
        again, alone = measurement.measure(rate), speed.measure(net, batch, loss, rate)
        for variable in alone.data_vars:
            np.testing.assert_array_equal(again[variable], alone[variable], err_msg=str(variable))
        net[0].weight.data.mul_(1.1)
        net[2].requires_grad_(False)
    assert "0" in measurement.layers.names
    assert float(again.sel(layer="2").share) == 0
