"""The tangent kernel against closed forms, finite differences and explicit loops, for every kind of layer and trap."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from learnmech.dynamics.kernel_matrix import kernel
from learnmech.errors import InputError, LearnmechWarning


class Attention(nn.Module):
    """A block on tokens with a lookup, positions of its own, heads and two kinds of norm; logits of all tokens."""

    def __init__(self, width=6, heads=2, words=9, tokens=4):
        super().__init__()
        self.table, self.place = nn.Embedding(words, width, padding_idx=0), nn.Parameter(torch.randn(tokens, width))
        self.before, self.after, self.heads = nn.LayerNorm(width), nn.RMSNorm(width), heads
        self.qkv, self.mix, self.read = (
            nn.Linear(width, 3 * width),
            nn.Linear(width, width, bias=False),
            nn.Linear(width, 2),
        )

    def forward(self, ids):
        x = self.table(ids) + self.place
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.before(x)).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.read(self.after(x + self.mix(mixed.reshape(batch, tokens, width)))).flatten(0, 1)


class Shared(nn.Module):
    """A layer called twice, a table that is also the read-out, and a layer whose weight is used outside of it."""

    def __init__(self):
        super().__init__()
        self.table, self.twice, self.outside = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.idle = nn.Linear(4, 4)

    def forward(self, ids):
        x = self.outside(self.twice(torch.tanh(self.twice(self.table(ids).mean(1)))))
        return functional.linear(torch.tanh(x) @ self.outside.weight, self.table.weight)


class Tuple(nn.Module):
    """A recurrent net, whose output is a tuple."""

    def __init__(self):
        super().__init__()
        self.cell, self.read = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x):
        states, last = self.cell(x)
        return {"hidden": last.flatten().sum(), "logits": self.read(states[:, -1])}


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.first, self.second, self.reentrant = nn.Linear(4, 5), nn.Linear(5, 2), reentrant

    def forward(self, x):
        hidden = checkpoint(lambda y: torch.tanh(self.first(y)), x, use_reentrant=self.reentrant)
        return self.second(hidden)


class TimeFirst(nn.Module):
    """Works on (time, samples, width) inside: the layer's first dimension does not hold the samples."""

    def __init__(self):
        super().__init__()
        self.layer, self.read = nn.Linear(2, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.read(torch.tanh(self.layer(x.transpose(0, 1))).mean(0))


def convolutions():
    net = nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        *(nn.Conv2d(4, 6, 3, groups=2, padding="same", padding_mode="circular"), nn.GroupNorm(2, 6), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 4, (1, 2), bias=False), nn.Dropout(), nn.Flatten(), nn.Linear(8, 3)),
    )
    with torch.no_grad():
        net[1].running_mean.normal_()
        net[1].running_var.uniform_(0.5, 2.0)
    return net


def make(name):
    torch.manual_seed(0)
    return {
        "mlp": lambda: (
            nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)),
            torch.randn(7, 4),
        ),
        "cnn": lambda: (convolutions(), torch.randn(5, 2, 8, 8)),
        "cnn1d": lambda: (
            nn.Sequential(
                nn.Conv1d(2, 4, 3, padding=1, dilation=1), nn.BatchNorm1d(4), nn.Tanh(), nn.Flatten(), nn.Linear(20, 2)
            ),
            torch.randn(4, 2, 5),
        ),
        "layernorm": lambda: (
            nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 2)),
            torch.randn(6, 4),
        ),
        "attention": lambda: (Attention(), torch.randint(0, 9, (5, 4))),
        "shared": lambda: (Shared(), torch.randint(0, 5, (4, 3))),
        "encoder": lambda: (nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), torch.randn(4, 3, 4)),
        "time_first": lambda: (TimeFirst(), torch.randn(4, 4, 2)),
        "checkpoint": lambda: (Checkpointed(reentrant=False), torch.randn(4, 4)),
        "unfolded": lambda: (
            nn.Sequential(
                nn.Flatten(0, 1), nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.Flatten(1), nn.LayerNorm(8), nn.Linear(8, 1)
            ),
            torch.randn(4, 3, 1, 3, 3),
        ),
    }[name]()


NETS = ("mlp", "cnn", "cnn1d", "layernorm", "attention", "shared", "encoder", "time_first", "checkpoint", "unfolded")


def gradients_by_loops(net, inputs):
    """(samples, outputs, parameters): one sample, one output, one backward pass at a time."""
    net = copy.deepcopy(net).eval()
    parameters = list(net.parameters())
    rows = []
    for index in range(len(inputs)):
        row = net(inputs[index : index + 1]).flatten()
        rows.append([])
        for value in row:
            found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            flat = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]
            rows[-1].append(torch.cat([g.flatten() for g in flat]))
    return torch.stack([torch.stack(row) for row in rows]).double()


def gradients_by_differences(net, inputs, step=1e-6):
    """The same by central differences, without any automatic differentiation; float64, error about 1e-9."""
    net = copy.deepcopy(net).eval()
    columns = []
    with torch.no_grad():
        for parameter in net.parameters():
            for entry in range(parameter.numel()):
                values = []
                for sign in (1, -1):
                    parameter.view(-1)[entry] += sign * step
                    values.append(net(inputs).reshape(len(inputs), -1))
                    parameter.view(-1)[entry] -= sign * step
                columns.append((values[0] - values[1]) / (2 * step))
    return torch.stack(columns, dim=-1)


def error(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETS)
def test_equal_to_the_jacobian_by_loops(name, dtype):
    net, inputs = make(name)
    net, inputs = net.to(dtype), inputs.to(dtype) if inputs.is_floating_point() else inputs
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    full = torch.einsum("icp,jdp->icjd", *2 * [gradients_by_loops(net, inputs)])
    trace = torch.einsum("icjc->ij", full)
    # torch.func does not run checkpoints, which is what the message about the slow route would say.
    vectorised = {"method": "loop" if name == "checkpoint" else "jacobian", "chunk_size": 3}
    for options in ({}, {"chunk_size": 3}, vectorised, {"method": "loop"}):
        found = kernel(net, inputs, **options)
        assert found.dtype == torch.float64
        assert error(found, trace) < tolerance
    for options in ({}, {"chunk_size": 2}):
        assert error(kernel(net, inputs, outputs="full", **options), full) < tolerance
    assert error(kernel(net, inputs, other=inputs[1:3]), trace[:, 1:3]) < tolerance
    assert error(kernel(net, inputs, other=inputs[1:4], chunk_size=2), trace[:, 1:4]) < tolerance


@pytest.mark.parametrize("name", ["mlp", "cnn1d", "layernorm", "attention", "shared"])
def test_equal_to_finite_differences(name):
    net, inputs = make(name)
    # The padding's row gets no gradient by definition, so that no sample may hold it here.
    net, inputs = net.double(), inputs.double() if inputs.is_floating_point() else inputs.clamp(min=1)
    gradients = gradients_by_differences(net, inputs)
    assert error(kernel(net, inputs), torch.einsum("icp,jcp->ij", gradients, gradients)) < 1e-6


def test_two_layer_relu_in_closed_form():
    """K = P P^T + (X X^T) o (C diag(a^2) C^T) with P = relu(X W^T), C = 1[X W^T > 0]."""
    rng = np.random.default_rng(0)
    x, w, a = rng.normal(size=(20, 3)), rng.normal(size=(50, 3)), rng.normal(size=50)
    net = nn.Sequential(nn.Linear(3, 50, bias=False), nn.ReLU(), nn.Linear(50, 1, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.from_numpy(w))
        net[2].weight.copy_(torch.from_numpy(a[None]))
    pre = x @ w.T
    active = (pre > 0) * a
    first = (x @ x.T) * (active @ active.T)
    second = np.maximum(pre, 0) @ np.maximum(pre, 0).T
    inputs = torch.from_numpy(x)
    np.testing.assert_allclose(kernel(net, inputs), first + second, rtol=1e-12)
    rates = {"0.weight": 0.3, "2.weight": 2.0}
    np.testing.assert_allclose(kernel(net, inputs, learning_rates=rates), 0.3 * first + 2 * second, rtol=1e-12)
    np.testing.assert_allclose(kernel(net, inputs, learning_rates={"0.weight": 1, "2.weight": 0}), first, rtol=1e-12)
    net[2].weight.requires_grad_(False)
    np.testing.assert_allclose(kernel(net, inputs), first, rtol=1e-12)
    np.testing.assert_allclose(kernel(net.float(), inputs.float()), first, rtol=1e-5, atol=1e-5 * first.max())


def test_outputs_that_are_asked_for():
    net, inputs = make("mlp")
    full = kernel(net, inputs, outputs="full")
    matrix = torch.tensor([[1.0, -1.0, 0.0], [0.0, 2.0, 1.0]])
    assert error(kernel(net, inputs, outputs=1), full[:, 1, :, 1]) < 1e-6
    assert error(kernel(net, inputs, outputs=[0, 2]), full[:, 0, :, 0] + full[:, 2, :, 2]) < 1e-6
    assert (
        error(
            kernel(net, inputs, outputs=matrix), torch.einsum("rc,icjd,rd->ij", matrix.double(), full, matrix.double())
        )
        < 1e-6
    )


def test_many_outputs_in_one_backward_pass_and_in_groups(monkeypatch):
    torch.manual_seed(0)
    net, inputs = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 12)).double(), torch.randn(6, 4).double()
    gradients = gradients_by_loops(net, inputs)
    expected = torch.einsum("icp,jcp->ij", gradients, gradients)
    assert error(kernel(net, inputs), expected) < 1e-12
    monkeypatch.setattr("learnmech.dynamics.kernel_matrix.BUDGET", 300)
    assert error(kernel(net, inputs, chunk_size=4), expected) < 1e-12


@pytest.mark.parametrize("budget", [1, 200, 2000])
def test_little_memory_changes_no_number(monkeypatch, budget):
    for module in ("tangent_layers", "tangent_jacobians"):
        monkeypatch.setattr(f"learnmech.dynamics.{module}.BUDGET", budget)
    for name in ("cnn", "attention"):
        net, inputs = make(name)
        net, inputs = net.double(), inputs.double() if inputs.is_floating_point() else inputs
        gradients = gradients_by_loops(net, inputs)
        expected = torch.einsum("icp,jcp->ij", gradients, gradients)
        assert error(kernel(net, inputs), expected) < 1e-12


def test_long_sequences_take_pairs_of_positions_and_short_ones_gradients():
    """Wide layers on few tokens sum over pairs of positions, narrow ones write out gradients: the numbers agree."""
    torch.manual_seed(0)
    for width, tokens, words in ((40, 2, 3), (2, 12, 3), (2, 2, 500)):
        net = nn.Sequential(
            nn.Embedding(words, width), nn.Linear(width, width), nn.Tanh(), nn.Flatten(), nn.Linear(width * tokens, 1)
        )
        net, ids = net.double(), torch.randint(0, words, (6, tokens))
        gradients = gradients_by_loops(net, ids)
        assert error(kernel(net, ids, method="layers"), torch.einsum("icp,jcp->ij", gradients, gradients)) < 1e-12


def test_recurrent_net_falls_back_to_a_loop_with_a_message():
    torch.manual_seed(0)
    net, inputs = Tuple().double(), torch.randn(4, 3, 2).double()
    with pytest.warns(LearnmechWarning, match=r"cell.*one sample at a time"):
        found = kernel(net, inputs)

    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x)["logits"]

    gradients = gradients_by_loops(Logits(), inputs)
    assert error(found, torch.einsum("icp,jcp->ij", gradients, gradients)) < 1e-12


def test_reentrant_checkpoints_are_run_plainly():
    torch.manual_seed(0)
    net, inputs = Checkpointed(reentrant=True).double(), torch.randn(4, 4).double()
    plain = copy.deepcopy(net)
    plain.reentrant = False
    assert error(kernel(net, inputs), kernel(plain, inputs, method="loop")) < 1e-12


def test_sparse_and_renormalised_tables():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(6, 3, sparse=True, max_norm=0.5), nn.Flatten(), nn.Linear(6, 2)).double()
    ids, before = torch.tensor([[1, 2], [1, 1], [5, 0]]), net[0].weight.detach().clone()
    found = kernel(net, ids)
    assert torch.equal(net[0].weight, before)
    assert error(found, kernel(net, ids, method="loop")) < 1e-12


def test_keyword_and_tuple_inputs_and_a_mask_for_all():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.scale = nn.Linear(3, 2), nn.Parameter(torch.tensor(2.0))

        def forward(self, x, mask):
            return self.scale * self.layer(x * mask)

    torch.manual_seed(0)
    net, x, mask = Two().double(), torch.randn(5, 3).double(), torch.tensor([1.0, 0.0, 1.0]).double()
    found = kernel(net, (x, mask))
    # d/dW and d/db are scale times those of the layer, d/dscale is the layer's output.
    plain = 4 * 2 * ((x * mask) @ (x * mask).T + 1) + net.layer(x * mask) @ net.layer(x * mask).T
    assert error(found, plain.detach()) < 1e-12
    assert torch.equal(found, kernel(net, {"x": x, "mask": mask}))


def test_leaves_no_trace():
    net, inputs = make("cnn")
    net[0].weight.grad = torch.ones_like(net[0].weight)
    net[3].train(False)
    flags = [module.training for module in net.modules()]
    before = copy.deepcopy(net.state_dict())
    hooks = [len(module._forward_hooks) for module in net.modules()]
    state = torch.get_rng_state()
    with torch.no_grad():
        found = kernel(net, inputs)
    with torch.inference_mode():
        assert torch.equal(found, kernel(net, inputs))
    assert torch.equal(state, torch.get_rng_state())
    assert flags == [module.training for module in net.modules()]
    assert hooks == [len(module._forward_hooks) for module in net.modules()]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(net[0].weight.grad, torch.ones_like(net[0].weight))
    assert net[9].weight.grad is None


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x - x.mean(0))


@pytest.mark.parametrize(
    ("net", "inputs", "options", "message"),
    [
        (lambda x: x, torch.ones(2, 3), {}, r"torch\.nn\.Module"),
        (nn.Linear(3, 2), torch.ones(0, 3), {}, "at least one sample"),
        (nn.Linear(3, 2), torch.tensor([[1.0, float("nan"), 0.0]]), {}, "NaN"),
        (nn.Linear(3, 2), torch.full((2, 3), 1e38), {"learning_rates": 1e300}, "not finite"),
        (Mixing(), torch.eye(3), {}, "changes with the sample beside it"),
        (nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False)), torch.eye(3), {}, "beside it"),
        (nn.Sequential(nn.Linear(3, 2), nn.Flatten(0)), torch.ones(3, 3), {"outputs": 2}, r"0 \.\. 1"),
        (nn.Linear(3, 2), torch.ones(2, 3), {"outputs": []}, "outputs must be"),
        (nn.Linear(3, 2), torch.ones(2, 3), {"outputs": [1, 1]}, "different indices"),
        (nn.Linear(3, 2), torch.ones(2, 3), {"outputs": "all"}, "outputs must be"),
        (nn.Linear(3, 2), torch.ones(2, 3), {"outputs": torch.ones(1, 3)}, r"\(combinations, 2\)"),
        (nn.Linear(3, 2), torch.ones(2, 3), {"outputs": torch.tensor([[1.0, float("inf")]])}, "infinite"),
        (nn.Linear(3, 2), torch.ones(2, 3), {"learning_rates": -1.0}, "not negative"),
        (nn.Linear(3, 2), torch.ones(2, 3), {"learning_rates": {"wait": 1.0}}, "no parameter"),
        (nn.Linear(3, 2), torch.ones(2, 3), {"learning_rates": 0.0}, "no parameter has"),
        (nn.Linear(3, 2), torch.ones(2, 3), {"method": "fast"}, "method must be"),
        (nn.Linear(3, 2), torch.ones(2, 3), {"chunk_size": 0}, "chunk_size"),
        (nn.Linear(3, 2), torch.ones(2, 3), {"other": torch.ones(0, 3)}, "at least one sample"),
        (nn.Linear(3, 2).requires_grad_(False), torch.ones(2, 3), {}, "let parameters require"),
        (nn.PReLU(), torch.ones(2, 3), {"method": "layers"}, "no exact layer formula covers weight"),
    ],
)
def test_bad_input_is_refused(net, inputs, options, message):
    with pytest.raises(InputError, match=message):
        kernel(net, inputs, **options)


def test_weights_and_outputs_that_are_not_finite_are_refused():
    net = nn.Linear(3, 2)
    with torch.no_grad():
        net.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="parameter 'weight' holds NaN"):
        kernel(net, torch.ones(2, 3))

    class Log(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return torch.log(self.scale * x)

    with pytest.raises(InputError, match="output holds NaN"):
        kernel(Log(), -torch.ones(1, 1))
