"""Setting a network up by a scaling: the layers found, the weights drawn, the rates, and what is refused."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from learnmech.errors import InputError
from learnmech.nets import CNN, MLP, ResidualMLP
from learnmech.speed.scaling_setup import apply_scaling
from learnmech.speed.scalings import scaling


def batch(n=32, d=10, k=1, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=dtype), torch.randn(n, k, generator=generator, dtype=dtype)


def plain_net(**options):
    return MLP(10, 1, **({"width": 64, "depth": 5, "batch_norm": False, "bias": False} | options))


def rates(groups):
    return {group["name"]: group["lr"] for group in groups}


def spread(parameter):
    return float(parameter.detach().double().square().mean().sqrt())


class Attention(nn.Module):
    """A pre-norm transformer block whose layers are not declared in the order in which they are called."""

    def __init__(self, width):
        super().__init__()
        self.down, self.up = nn.Linear(2 * width, width), nn.Linear(width, 2 * width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.out, self.qkv = nn.Linear(width, width), nn.Linear(width, 3 * width)

    def forward(self, stream):
        parts = self.qkv(self.norm1(stream)).chunk(3, -1)
        stream = stream + self.out(functional.scaled_dot_product_attention(*parts, is_causal=True))
        return stream + self.down(functional.gelu(self.up(self.norm2(stream))))


class Transformer(nn.Module):
    def __init__(self, block=Attention, width=32, depth=3, words=20):
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(6, width)
        self.blocks = nn.ModuleList(block(width) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)

    def forward(self, tokens):
        stream = self.words(tokens) + self.places(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            stream = block(stream)
        return self.head(self.norm(stream))


def tokens():
    drawn = torch.randint(0, 20, (4, 6), generator=torch.Generator().manual_seed(0))
    return drawn, drawn


@pytest.mark.parametrize("kind", ["standard", "ntk", "mean_field", "fsc"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "muon"])
def test_a_plain_net_gets_the_table(kind, optimizer):
    x = torch.ones(8, 10)  # of mean square 1, as the table assumes
    net = plain_net(width=256)
    groups = apply_scaling(net, kind, (x, torch.zeros(8, 1)), optimizer=optimizer, seed=0)
    table = scaling(kind, width=256, depth=5, d_in=10, d_out=1, optimizer=optimizer)
    ends = scaling(kind, width=256, depth=5, d_in=10, d_out=1, optimizer="adam" if optimizer == "muon" else optimizer)
    assert rates(groups) == pytest.approx(
        {"input": ends.learning_rate["input"], "hidden": table.learning_rate["hidden"]}
        | {"output": ends.learning_rate["output"]}
    )
    # Standard errors of these deviations are at most 1/sqrt(2 * 256) = 4.4 % (read-out): 20 % is 4.5 of them, p < 1e-5.
    assert spread(net.hidden[0].linear.weight) == pytest.approx(table.init_std["input"], rel=0.2)
    assert spread(net.readout.weight) == pytest.approx(table.init_std["output"], rel=0.2)
    for block in list(net.hidden)[1:]:
        assert spread(block.linear.weight) == pytest.approx(table.init_std["hidden"], rel=0.05)
    if optimizer == "muon":
        assert {group["name"]: group["optimizer"] for group in groups} == {
            "input": "adam",
            "hidden": "muon",
            "output": "adam",
        }
    else:
        torch.optim.SGD(groups)
        assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))


def test_the_input_is_measured():
    x, y = batch()
    sets = {}
    for size in (1.0, 10.0):
        net = plain_net()
        sets[size] = rates(apply_scaling(net, "fsc", (size * x, y), seed=0)), net(size * x)
    assert sets[1.0][0]["input"] == pytest.approx(100 * sets[10.0][0]["input"])
    torch.testing.assert_close(sets[1.0][1], sets[10.0][1])


def test_the_seed_makes_the_draw_and_the_global_generator_is_used_without():
    one, two = plain_net(), plain_net()
    state = torch.get_rng_state()
    apply_scaling(one, "fsc", batch(), seed=3)
    apply_scaling(two, "fsc", batch(), seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    apply_scaling(two, "fsc", batch())
    assert not torch.equal(torch.get_rng_state(), state)


def test_biases_and_norms():
    net = MLP(10, 3, width=64, depth=4)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    net.hidden[0].norm.running_mean.add_(5.0)
    groups = apply_scaling(net, "fsc", batch(k=3))
    assert not net.readout.bias.any()
    assert not net.hidden[1].linear.bias.any()
    assert torch.equal(net.hidden[1].norm.weight, torch.ones(64))
    assert not net.hidden[0].norm.running_mean.any()
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))
    by_parameter = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    # The bias of a layer is an input layer whose input is a single 1; that of the read-out has rate k/L.
    assert by_parameter[id(net.hidden[1].linear.bias)] == pytest.approx(64 / 4**2)
    assert by_parameter[id(net.readout.bias)] == pytest.approx(3 / 4)


def test_a_convolutional_net():
    net = CNN((1, 8, 8), 3, channels=8, depth=4, batch_norm=False)
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    groups = rates(apply_scaling(net, "mean_field", (x, torch.zeros(4, dtype=torch.long)), seed=0))
    width = 8 * 64  # what the read-out sees
    assert groups["hidden"] == pytest.approx(width / (4 * 8 * 9))
    assert groups["output"] == pytest.approx(3 / (4 * width))
    # 576 entries: standard error 3 %; 15 % is 5 of them.
    assert spread(net.hidden[1].conv.weight) == pytest.approx((2 / 72) ** 0.5, rel=0.15)


@pytest.mark.parametrize(("kind", "power"), [("depth_mup", 0.5), ("complete_p", 1.0)])
def test_a_residual_net_gets_branch_factors(kind, power):
    net = ResidualMLP(10, 1, width=64, depth=9)
    x = torch.ones(8, 10)
    groups = apply_scaling(net, kind, (x, torch.zeros(8, 1)), seed=0)
    table = scaling(kind, width=64, depth=9, d_in=10, d_out=1)
    assert [block.branch for block in net.blocks] == pytest.approx([9**-power] * 9)
    assert rates(groups) == pytest.approx(table.learning_rate)


class Folded(nn.Module):
    """The block of ResidualMLP without a branch factor."""

    def __init__(self, block):
        super().__init__()
        self.body = copy.deepcopy(block.body)

    def forward(self, stream):
        return stream + self.body(stream)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("kind", ["depth_mup", "complete_p"])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_folded_branch_factor_trains_the_same_function(kind, optimizer, layers):
    x, y = batch(dtype=torch.float64)
    outputs = {}
    for folded in (False, True):
        net = ResidualMLP(10, 1, width=16, depth=4, block_layers=layers, bias=True).double()
        if folded:
            net.blocks = nn.ModuleList(Folded(block) for block in net.blocks)
        groups = apply_scaling(net, kind, (x, y), optimizer=optimizer, base_learning_rate=0.05, seed=0)
        trainer = torch.optim.SGD(groups) if optimizer == "sgd" else torch.optim.Adam(groups, eps=1e-30)
        for _ in range(4):
            trainer.zero_grad()
            functional.mse_loss(net(x), y).backward()
            trainer.step()
        outputs[folded] = net(x).detach()
    assert not torch.allclose(outputs[False], torch.zeros_like(outputs[False]))
    torch.testing.assert_close(outputs[False], outputs[True], rtol=1e-8, atol=1e-10)


def test_branch_ends_of_a_transformer_are_found_by_trying():
    net = Transformer()
    groups = apply_scaling(net, "complete_p", tokens(), optimizer="adam", gain=1.0, seed=0)
    for block in net.blocks:  # at least 1024 entries: standard error 2.2 %; 15 % is 6 of them
        assert spread(block.out.weight) == pytest.approx(32**-0.5 / 3, rel=0.15)
        assert spread(block.down.weight) == pytest.approx(64**-0.5 / 3, rel=0.15)
        assert spread(block.qkv.weight) == pytest.approx(32**-0.5, rel=0.15)
        assert spread(block.up.weight) == pytest.approx(32**-0.5, rel=0.15)
    assert spread(net.words.weight) == pytest.approx(1.0, rel=0.15)
    by_parameter = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert by_parameter[id(net.blocks[0].out.weight)] == pytest.approx(1 / 32 / 3)
    assert by_parameter[id(net.words.weight)] == by_parameter[id(net.places.weight)] == pytest.approx(1 / 3)
    assert len(by_parameter) == len(list(net.parameters()))


def test_torch_transformer_layers():
    def layer(width):
        return nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, norm_first=True)

    net = Transformer(layer)
    apply_scaling(net, "depth_mup", tokens(), gain=1.0, seed=0)
    attention = net.blocks[0].self_attn
    assert spread(attention.in_proj_weight) == pytest.approx(32**-0.5, rel=0.15)
    assert spread(attention.out_proj.weight) == pytest.approx((32 * 3) ** -0.5, rel=0.15)
    assert spread(net.blocks[1].linear2.weight) == pytest.approx((64 * 3) ** -0.5, rel=0.15)
    assert spread(net.blocks[1].linear1.weight) == pytest.approx(32**-0.5, rel=0.15)


def test_frozen_and_kept_parameters_are_left_alone():
    net = plain_net()
    net.hidden[1].linear.weight.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    groups = apply_scaling(net, "fsc", batch(), roles={"hidden.2.*": "keep"})
    listed = {id(parameter) for group in groups for parameter in group["params"]}
    for name in ("hidden.1.linear.weight", "hidden.2.linear.weight"):
        assert torch.equal(net.state_dict()[name], before[name])
        assert id(net.get_parameter(name)) not in listed
    assert not torch.equal(net.readout.weight, before["readout.weight"])


class OwnWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.leave = nn.Linear(10, 16), nn.Linear(16, 1)
        self.matrix = nn.Parameter(torch.ones(16, 16))

    def forward(self, x):
        return self.leave(functional.relu(functional.relu(self.enter(x)) @ self.matrix.T))


def test_roles_name_what_is_not_known():
    net = OwnWeights()
    with pytest.raises(InputError, match=r"matrix: OwnWeights itself.*roles=.*'hidden'"):
        apply_scaling(net, "fsc", batch())
    groups = apply_scaling(net, "fsc", batch(), roles={"matrix": "hidden", "enter.weight": "input"}, seed=0)
    assert "hidden" in rates(groups)
    assert spread(net.matrix) == pytest.approx((2 / 16) ** 0.5, rel=0.3)  # 256 entries: standard error 4.4 %


def test_what_is_measured_of_the_first_step_is_of_order_one():
    from learnmech.speed import measure

    x, y = batch(64, k=8)
    net = ResidualMLP(10, 8, width=64, depth=6, bias=True)
    groups = apply_scaling(net, "depth_mup", (x, y), seed=0)
    result = measure(net, (x, y), functional.mse_loss, torch.optim.SGD(groups), real_step=False)
    # Every parameter's decay is about 1/L times the squared error of a batch; constants of order one are not accounted for.
    assert (result.parameter_decay > 0.001 / 6).all()
    assert (result.parameter_decay < 10 / 6).all()


class PostNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear, self.norm = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, stream):
        return self.norm(stream + self.linear(functional.relu(stream)))


class NormedBranch(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear, self.norm = nn.Linear(width, width), nn.BatchNorm1d(width)

    def forward(self, stream):
        return stream + self.norm(self.linear(functional.relu(stream)))


class LooseSkips(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.inner, self.leave = nn.Linear(10, 16), nn.Linear(16, 16), nn.Linear(16, 1)

    def forward(self, x):
        stream = self.enter(x)
        return self.leave(stream + self.inner(functional.relu(stream)))


class Recurrent(LooseSkips):
    def forward(self, x):
        stream = self.enter(x)
        return self.leave(self.inner(functional.relu(self.inner(functional.relu(stream)))))


class Unused(LooseSkips):
    def forward(self, x):
        return self.leave(functional.relu(self.enter(x)))


class TwoHeads(LooseSkips):
    def forward(self, x):
        stream = functional.relu(self.inner(functional.relu(self.enter(x))))
        return torch.cat([self.leave(stream), stream.mean(1, keepdim=True)], 1)


def with_blocks(block):
    return nn.Sequential(nn.Linear(10, 16), block(16), block(16), nn.Linear(16, 1))


def tied():
    net = Transformer()
    net.head.weight = net.words.weight
    return net


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (plain_net, "depth_mup", "none were found in MLP"),
        (
            lambda: ResidualMLP(10, 1, width=16, depth=3),
            "fsc",
            "'fsc' is for plain nets, but ResidualMLP has 3 residual",
        ),
        (lambda: ResidualMLP(10, 1, width=16, depth=3, skip=0.5), "depth_mup", "skip = 0.5; set it to 1"),
        (lambda: ResidualMLP(10, 1, width=16, depth=3, skip=0, branch=0.5), "fsc", "by branch = 0.5"),
        (LooseSkips, "fsc", "skip connections outside of blocks"),
        (Recurrent, "fsc", "inner is called 2 times"),
        (Unused, "fsc", "inner is not used on this batch"),
        (lambda: with_blocks(PostNorm), "depth_mup", "post-norm"),
        (lambda: with_blocks(NormedBranch), "depth_mup", "a normalisation behind them undoes their size"),
        (lambda: nn.Linear(10, 1), "fsc", "nothing to scale|no read-out|no layer"),
        (TwoHeads, "fsc", "no read-out found"),
        (plain_net, "magic", "unknown scaling 'magic'"),
    ],
)
def test_what_cannot_be_set_up_is_refused_and_left_as_it_was(make, kind, text):
    net = make()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(InputError, match=text):
        apply_scaling(net, kind, batch())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_tied_weights_are_refused():
    with pytest.raises(InputError, match=r"words.weight and head.weight are the same parameter"):
        apply_scaling(tied(), "depth_mup", tokens())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"gain": 0.0}, "gain must be a positive number"),
        ({"gain": float("nan")}, "gain must be a positive number"),
        ({"optimizer": "lion"}, "optimizer must be one of"),
        ({"width": -1}, "width must be a positive integer"),
        ({"depth": 1}, "must be at least 2"),
        ({"roles": {"nothing.*": "keep"}}, "matches no parameter"),
        ({"roles": {"readout.*": "boss"}}, "'boss' is no role"),
        ({"roles": {"hidden.*": "output"}}, "expected one read-out"),
        ({"seed": 0.5}, "seed must be an integer"),
        ({"base_learning_rate": -1.0}, "base_learning_rate must be"),
    ],
)
def test_bad_options_are_named(options, text):
    with pytest.raises(InputError, match=text):
        apply_scaling(plain_net(), "fsc", batch(), **options)


def test_bad_batches_are_named():
    with pytest.raises(InputError, match=r"batch must be \(inputs, targets\)"):
        apply_scaling(plain_net(), "fsc", torch.ones(8, 10))
    with pytest.raises(InputError, match="must be positive and finite"):
        apply_scaling(plain_net(), "fsc", (torch.zeros(8, 10), torch.zeros(8, 1)))
