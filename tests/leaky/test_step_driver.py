"""The driver against forward passes written out by hand, closed forms of linear blocks, and uninterrupted training."""

import copy
import itertools
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from learnmech import history as histories
from learnmech.errors import InputError, LearnmechWarning
from learnmech.leaky.step_driver import StepDriver
from learnmech.leaky.step_sizes import StepSizePolicy
from learnmech.nets import ResidualMLP


class Scaled(nn.Module):
    """x + c x."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return x + self.factor * x


class Block(nn.Module):
    """x + tanh(V x), with the output in the form that a test asks for."""

    def __init__(self, width=6, form=lambda y: y):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.form = form

    def forward(self, hidden_states, mask=None):
        return self.form(hidden_states + torch.tanh(self.linear(hidden_states)))


class Stack(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
            x = x if isinstance(x, torch.Tensor) else x[0]
        return x


def policy(**options):
    return StepSizePolicy("adaptive", **{"period": 1, "begin": 1, "freeze": 1.0, **options})


def stack(layers=3, width=6, seed=0):
    torch.manual_seed(seed)
    return Stack([Block(width) for _ in range(layers)])


def set_steps(driver, steps):
    driver.load_state_dict({**driver.state_dict(), "steps": torch.tensor(steps, dtype=torch.float64)})


# ------------------------------------------------------------------ what it does to the network


def test_uniform_steps_leave_the_network_as_it_is():
    net, x = stack(7), torch.randn(5, 6)
    before = net(x)
    with StepSizePolicy("uniform").drive(net.blocks, 10) as driver:
        assert torch.equal(net(x), before)
        assert driver.multipliers.tolist() == [1.0] * 7
    with policy().drive(net.blocks, 10):
        assert torch.equal(net(x), before)  # adaptive steps start uniform


@pytest.mark.parametrize("train", [True, False])
def test_outputs_and_gradients_are_those_of_the_formula(train):
    net, x = stack().train(train), torch.randn(5, 6)
    expected = x
    for multiplier, block in zip([3 * 0.2, 3 * 0.3, 3 * 0.5], net.blocks, strict=True):
        expected = expected + multiplier * torch.tanh(expected @ block.linear.weight.T + block.linear.bias)
    by_hand = torch.autograd.grad(expected.square().sum(), list(net.parameters()))
    driver = policy().drive(net.blocks, 10)
    set_steps(driver, [0.2, 0.3, 0.5])
    assert torch.allclose(net(x), expected, atol=1e-6)
    gradients = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(gradients, by_hand, strict=True))


def test_irregular_steps_hold_from_the_start():
    net = Stack([Scaled(1.0) for _ in range(4)])
    with StepSizePolicy("irregular", irregularity=0.5).drive(net.blocks, 10):
        got = float(net(torch.ones(1)).detach())
    assert got == pytest.approx((1 + 1.0) * (1 + 1.125) * (1 + 1.0) * (1 + 0.875), rel=1e-6)


def test_removing_gives_the_network_back():
    net, x = stack(), torch.randn(5, 6)
    before, state = net(x), copy.deepcopy(net.state_dict())
    with policy().drive(net.blocks, 10) as driver:
        set_steps(driver, [0.2, 0.3, 0.5])
        assert not torch.allclose(net(x), before)
    assert torch.equal(net(x), before)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in net.blocks)


Pair = namedtuple("Pair", ["hidden", "weights"])


@pytest.mark.parametrize(
    "form", [lambda y: (y, "cache"), lambda y: [y, "cache"], lambda y: Pair(y, "cache"), lambda y: (y,)], ids="tlns"
)
def test_tuples_keep_their_form(form):
    torch.manual_seed(0)
    block, x = Block(form=form), torch.randn(4, 6)
    plain = block(x)
    driver = policy().drive([block, Block()], 10)
    set_steps(driver, [0.25, 0.75])
    got = block(hidden_states=x, mask=torch.ones(4, 6))
    assert type(got) is type(plain)
    assert len(got) == len(plain)
    assert list(got[1:]) == list(plain[1:])
    assert torch.allclose(got[0], x + 0.5 * (plain[0] - x), atol=1e-6)


def test_half_precision_keeps_its_dtype():
    net = stack().bfloat16()
    driver = policy().drive(net.blocks, 10)
    x = torch.randn(5, 6, dtype=torch.bfloat16)
    assert net(x).dtype == torch.bfloat16
    driver.step()
    assert torch.isfinite(driver.relative_steps).all()
    mixed = stack()
    driver = policy().drive(mixed.blocks, 10)
    set_steps(driver, [0.2, 0.3, 0.5])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = mixed(torch.randn(5, 6))
    assert out.dtype == torch.float32
    out.sum().backward()
    driver.step()
    assert torch.isfinite(driver.relative_steps).all()


# ------------------------------------------------------------------ the rule on stacks with closed forms


def test_linear_blocks_reach_the_closed_form_fixed_point():
    """x + m c x has the relative step m c/(1 + m c): equal where m is proportional to 1/c, sum of m = L."""
    factors = [0.1, 0.2, 0.4, 0.25]
    net = Stack([Scaled(factor) for factor in factors])
    driver = policy().drive(net.blocks, 100)
    for _ in range(60):
        net(torch.ones(3, 2))
        driver.step()
    inverse = 1 / np.array(factors)
    assert driver.multipliers.numpy() == pytest.approx(4 * inverse / inverse.sum(), rel=1e-6)
    assert driver.spread == pytest.approx(1, abs=1e-6)
    common = 4 / inverse.sum()
    assert driver.relative_steps.numpy() == pytest.approx(np.full(4, common / (1 + common)), rel=1e-6)


def test_one_update_is_the_policys():
    net, x = stack(4), torch.randn(8, 6)
    nodes = [x]
    for block in net.blocks:
        nodes.append(block(nodes[-1]))
    changes = torch.stack([(after - before).norm() for before, after in itertools.pairwise(nodes)])
    norms = torch.stack([node.norm() for node in nodes[1:]])
    driver = policy(mixing=0.5).drive(net.blocks, 10)
    net(x)
    driver.step()
    expected = driver.policy.proposed(torch.full((4,), 0.25), changes, norms)
    assert torch.allclose(driver.steps, expected, atol=1e-6)
    assert torch.allclose(driver.relative_steps, (changes / norms).double(), atol=1e-6)


# ------------------------------------------------------------------ training


def regression(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 10, generator=generator)
    return x, torch.stack([x[:, 0] * x[:, 1], x[:, 2].abs()], dim=1)


def unequal_net(seed=0):
    """Blocks whose initial changes differ in size by a factor of 8."""
    torch.manual_seed(seed)
    net = ResidualMLP(10, 2, width=24, depth=6, branch=0.5)
    with torch.no_grad():
        for number, block in enumerate(net.blocks):
            block.body.linear1.weight *= 2.0 ** (1.5 - 3 * number / 5)
    return net


def train(net, optimizer, steps, data=None):
    x, y = data or regression()
    for _ in range(steps):
        optimizer.zero_grad()
        (net(x) - y).square().mean().backward()
        optimizer.step()


def test_training_with_adaptive_steps_equalises_relative_steps():
    """Largest over smallest relative step after 100 steps of Adam: uniform 5.76, adaptive 1.014 (measured, this seed)."""
    spreads = {}
    for kind in ("uniform", "adaptive"):
        net = unequal_net()
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        with StepSizePolicy(kind, period=5, begin=20).drive(net.blocks, 100, optimizer) as driver:
            train(net, optimizer, 100)
            spreads[kind] = driver.spread
            rows = driver.history()
    assert spreads["uniform"] > 4
    assert spreads["adaptive"] < 1.1
    assert spreads["adaptive"] < spreads["uniform"] / 4
    steps = rows.step_size.values
    assert rows.step.values.tolist() == list(range(5, 101, 5))
    assert np.allclose(steps.sum(axis=1), 1)
    assert np.allclose(steps[rows.step.values <= 20], 1 / 6)  # before begin; the update after step 20 shows at 25
    assert not np.allclose(steps[4], 1 / 6)
    frozen = steps[rows.step.values > 80]
    assert (frozen == frozen[0]).all()


def test_a_transformer_trains_and_equalises():
    """Largest over smallest relative step after 30 steps of Adam: uniform 1.87, adaptive 1.09 (measured, this seed)."""
    spreads = {}
    for kind in ("uniform", "adaptive"):
        torch.manual_seed(0)
        layers = [
            nn.TransformerEncoderLayer(12, 2, 24, dropout=0.0, batch_first=True, norm_first=True) for _ in range(4)
        ]
        with torch.no_grad():
            for number, layer in enumerate(layers):
                layer.linear2.weight *= 1 + number
        net = Stack(layers)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        x, y = torch.randn(16, 5, 12), torch.randn(16, 5, 12)
        with StepSizePolicy(kind, period=2, begin=2).drive(net.blocks, 30, optimizer) as driver:
            train(net, optimizer, 30, (x, y))
            spreads[kind] = driver.spread
    assert spreads["adaptive"] < 1.2
    assert spreads["adaptive"] < spreads["uniform"] / 1.5


def test_resumed_training_equals_uninterrupted_bit_for_bit(tmp_path):
    def start():
        net = unequal_net()
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        return net, optimizer, StepSizePolicy("adaptive", period=3, begin=5).drive(net.blocks, 40, optimizer)

    net, optimizer, driver = start()
    train(net, optimizer, 40)
    half, half_optimizer, half_driver = start()
    train(half, half_optimizer, 20)
    parts = {"net": half.state_dict(), "optimizer": half_optimizer.state_dict(), "driver": half_driver.state_dict()}
    torch.save(parts, tmp_path / "run.pt")
    stored = torch.load(tmp_path / "run.pt", weights_only=True)
    other, other_optimizer, other_driver = start()
    other.load_state_dict(stored["net"])
    other_optimizer.load_state_dict(stored["optimizer"])
    other_driver.load_state_dict(stored["driver"])
    train(other, other_optimizer, 20)
    assert torch.equal(other_driver.steps, driver.steps)
    assert not torch.allclose(driver.multipliers, torch.ones(6).double())
    assert other_driver.history().identical(driver.history())
    for one, another in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, another)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpoints_change_nothing(reentrant):
    class Checkpointed(Stack):
        def forward(self, x):
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=reentrant)
            return x

    x = torch.randn(8, 6, requires_grad=True)
    results = []
    for kind in (Stack, Checkpointed):
        net = kind(copy.deepcopy(stack(4)).blocks)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        driver = policy(begin=2).drive(net.blocks, 8, optimizer)
        train(net, optimizer, 8, (x, torch.zeros(8, 6)))
        results.append((driver.history(), [parameter.detach() for parameter in net.parameters()]))
    assert results[0][0].identical(results[1][0])
    assert all(torch.equal(one, other) for one, other in zip(results[0][1], results[1][1], strict=True))


def test_only_the_first_training_pass_of_a_step_is_read():
    net, (first, second) = stack(), torch.randn(2, 8, 6)
    with policy().drive(net.blocks, 10) as driver:
        net(first)
        driver.step()
        expected = driver.relative_steps
    with policy().drive(net.blocks, 10) as driver:
        net.eval()(second)  # evaluation
        net.train()
        net.blocks[0](second)  # a pass that breaks off
        net(first).sum().backward()
        net(second).sum().backward()  # gradient accumulation
        net.eval()(second)
        driver.step()
        assert torch.equal(driver.relative_steps, expected)
        assert driver.history().step.values.tolist() == [1]


class Still(torch.optim.Optimizer):
    def step(self, closure=None):
        pass


def test_multipliers_wait_for_the_optimizer():
    net, x = stack(), torch.randn(8, 6)
    optimizer = Still(net.parameters(), {})
    driver = policy().drive(net.blocks, 10, optimizer)
    assert torch.equal(net(x), net(x))
    before = net(x)
    optimizer.step()
    assert not torch.allclose(net(x), before)
    optimizer.found_inf = torch.tensor(1.0)  # how a fused optimizer under a gradient scaler says that it skipped a step
    steps = driver.steps
    optimizer.step()
    assert torch.equal(driver.steps, steps)
    assert driver.history().sizes["step"] == 1


def test_processes_agree_through_combine():
    """Two halves of a batch, each with the other's squared norms added, adapt as the whole batch does."""
    net, x = stack(), torch.randn(8, 6)
    seen = []
    with policy().drive(net.blocks, 10, combine=lambda squares: seen.append(squares) or squares) as driver:
        net(x[4:])
        driver.step()
    with policy().drive(net.blocks, 10) as driver:
        net(x)
        driver.step()
        whole = driver.steps
    with policy().drive(net.blocks, 10, combine=lambda squares: squares + seen[0]) as driver:
        net(x[:4])
        driver.step()
        assert torch.allclose(driver.steps, whole, rtol=1e-6)
        assert not torch.equal(driver.steps, torch.full((3,), 1 / 3).double())
    with policy().drive(net.blocks, 10, combine=lambda squares: squares[0]) as driver:
        net(x)
        with pytest.raises(InputError, match=r"shape \(2, 3\)"):
            driver.step()


def test_copies_of_the_network_follow_and_are_not_read():
    net, x = stack(), torch.randn(8, 6)
    driver = policy().drive(net.blocks, 10)
    average = copy.deepcopy(net)
    set_steps(driver, [0.2, 0.3, 0.5])
    average(5 * x)
    expected = net(x)
    assert torch.equal(average(x), expected)
    average(5 * x)
    driver.step()
    nodes = [x]
    with torch.no_grad():
        for multiplier, block in zip([0.6, 0.9, 1.5], net.blocks, strict=True):
            nodes.append(nodes[-1] + multiplier * torch.tanh(block.linear(nodes[-1])))
    by_hand = [float((after - before).norm() / after.norm()) for before, after in itertools.pairwise(nodes)]
    assert driver.relative_steps.tolist() == pytest.approx(by_hand, rel=1e-5)


def test_blocks_that_pass_their_input_on_are_welcome():
    net = Stack([nn.Identity(), Block(), nn.Identity()])
    driver = StepSizePolicy("uniform", period=1).drive(net.blocks, 5)
    x = torch.randn(4, 6)
    for _ in range(2):
        net(x)
    driver.step()
    assert driver.relative_steps[0] == driver.relative_steps[2] == 0
    assert driver.spread == float("inf")


# ------------------------------------------------------------------ readings


def test_the_history_is_one_and_names_come_from_the_user(tmp_path):
    net, x = stack(2), torch.randn(4, 6)
    driver = policy(period=2).drive({"lower": net.blocks[0], "upper": net.blocks[1]}, 5)
    assert torch.isnan(driver.relative_steps).all()
    assert np.isnan(driver.spread)
    with pytest.raises(InputError, match="nothing has been read yet"):
        driver.history()
    for _ in range(5):
        net(x)
        driver.step()
    rows = histories.load(histories.save(driver.history(), tmp_path / "steps.nc"))
    assert rows.step.values.tolist() == [2, 4, 5]  # every period, and the last
    assert rows.layer.values.tolist() == ["lower", "upper"]
    assert rows.step_size.values[0].tolist() == [0.5, 0.5]
    assert repr(driver) == "<StepDriver of 2 blocks: adaptive steps, 5 of 5 done>"


def test_steps_without_a_reading_are_named():
    net, x = stack(), torch.randn(4, 6)
    driver = policy().drive(net.blocks, 10)
    net.eval()(x)
    with pytest.warns(LearnmechWarning, match="no norms were read at step 1"):
        driver.step()
    driver.step()  # said once
    net.train()(torch.full((4, 6), torch.inf))
    with pytest.warns(LearnmechWarning, match="not finite at step 3"):
        driver.step()
    assert driver.steps.tolist() == [1 / 3] * 3


# ------------------------------------------------------------------ what is refused


class InPlace(nn.Module):
    def forward(self, x):
        return x.add_(1.0)


def test_unfit_blocks_are_refused_in_the_forward_pass():
    x = torch.randn(4, 6)
    for block, message in (
        (nn.Linear(6, 5), r"changed the shape of its features from \(4, 6\) to \(4, 5\)"),
        (InPlace(), "writes into its input"),
        (nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 6)), "writes into its input"),
        (Block(form=lambda y: {"hidden": y}), "returned dict"),
        (Block(form=lambda y: y.long()), "returned Tensor"),
    ):
        with policy().drive([block], 10), pytest.raises(InputError, match=message):
            block(x.clone())
    table = nn.Embedding(6, 6)
    with policy().drive([table], 10), pytest.raises(InputError, match="without a tensor of real"):
        table(torch.tensor([1, 2]))


def test_shared_weights_and_wrong_order_are_refused():
    net, x = stack(2), torch.randn(4, 6)
    first, second = net.blocks
    with policy().drive([first], 10), pytest.raises(InputError, match="runs several times"):
        first(first(x))
    with policy().drive(net.blocks, 10):
        with pytest.raises(InputError, match="runs several times"):
            first(torch.relu(first(x)))  # something in between
        with pytest.raises(InputError, match="is listed after it"):
            net(torch.relu(net(x)))  # weights shared between cycles
    with policy().drive([second, first], 10), pytest.raises(InputError, match="list blocks in the order"):
        net(x)
    with policy().drive(net.blocks, 10), torch.no_grad(), pytest.raises(InputError, match="is listed after it"):
        net(net(x))  # no graph: by the tensor itself
    with policy().drive(net.blocks, 10):
        net(x)
        net(x)  # two passes on the same data are no shared weights
        net(net(x).detach())


def test_stacks_are_checked_when_driven():
    net = stack()
    block = net.blocks[0]
    for blocks, message in (
        ([], "no blocks"),
        ([block, block], "blocks 0 and 1 are the same module"),
        ({"a": block, "b": block}, "blocks a and b"),
        ([block, "block"], "must be a torch.nn.Module"),
        ([net, block], "block 1 is a part of block 0"),
        (block, "list of modules"),
    ):
        with pytest.raises(InputError, match=message):
            policy().drive(blocks, 10)
    for total in (0, 2.5, True):
        with pytest.raises(InputError, match="total_steps"):
            policy().drive(net.blocks, total)
    with pytest.raises(InputError, match="first update is at step 200 and the last at 80"):
        StepSizePolicy("adaptive").drive(net.blocks, 100)
    with pytest.raises(InputError, match="register_step_post_hook"):
        policy().drive(net.blocks, 10, optimizer=object())
    assert not any(each._forward_hooks for each in net.blocks)


def test_steps_are_counted_once():
    net = stack()
    driver = policy().drive(net.blocks, 10, torch.optim.SGD(net.parameters(), lr=0.1))
    with pytest.raises(InputError, match="by itself"):
        driver.step()


def test_checkpoints_of_others_are_refused():
    net = stack()
    driver = StepDriver(policy(), net.blocks, 10)
    state = driver.state_dict()
    for wrong, message in (
        ({"steps": torch.ones(3)}, "no checkpoint of a step driver"),
        ({**state, "layers": ["a", "b", "c"]}, "other layers"),
        ({**state, "policy": {**state["policy"], "mixing": 0.5}}, "other policy"),
        ({**state, "steps": torch.ones(2)}, "3 positive numbers"),
        ({**state, "steps": -torch.ones(3)}, "3 positive numbers"),
    ):
        with pytest.raises(InputError, match=message):
            driver.load_state_dict(wrong)
    assert torch.equal(driver.steps, state["steps"])
