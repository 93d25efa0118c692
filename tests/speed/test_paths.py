"""Cuts, branches and shared parameters: against brute force on random networks, and in the kinds of network that people train."""

import random
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from learnmech import speed
from learnmech.monitor.choice import choose_layers
from learnmech.monitor.criterion import Criterion
from learnmech.monitor.paths import PathTracer, trace_paths
from learnmech.monitor.probe import Probe
from learnmech.monitor.snapshot import ProbePass

sys.path.insert(0, str(Path(__file__).parents[1] / "monitor"))
import zoo


def passes(net, batch, loss=F.mse_loss, nodes="**", *, evaluate=True):
    probe = Probe(*batch)
    return ProbePass(net, choose_layers(net, probe, nodes), Criterion(loss), evaluate=evaluate), probe


def paths_of(net, batch, loss=F.mse_loss, nodes="**"):
    source, probe = passes(net, batch, loss, nodes)
    found = trace_paths(source, probe)
    tracer = PathTracer(source.layers.layers)
    source.run(probe, [], step=0, backward=True, tracer=tracer)
    assert found == tracer.paths  # the pass of a few samples and that of the whole batch see the same
    return found


class Node(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width, bias=False)

    def forward(self, x):
        return torch.tanh(self.linear(x))


class Random(nn.Module):
    """Nodes that each take the sum of some nodes before; some are read by the loss, some lead nowhere, some share weights."""

    def __init__(self, rng, count):
        super().__init__()
        self.nodes = nn.ModuleList(Node(3) for _ in range(count))
        self.inputs = [sorted(rng.sample(range(-1, i), rng.randint(1, min(2, i + 1)))) for i in range(count)]  # -1: x
        self.read = sorted(rng.sample(range(count), rng.randint(1, 2)))
        if rng.random() < 0.5:
            first, second = rng.sample(range(count), 2)
            self.nodes[second].linear.weight = self.nodes[first].linear.weight

    def forward(self, x):
        values = {-1: x}
        for index, node in enumerate(self.nodes):
            values[index] = node(sum(values[item] for item in self.inputs[index]))
        return sum(values[index] for index in self.read)

    def reach_loss(self, without=None):
        """The nodes from which the loss can be reached, without going through one of them."""
        good = set()
        for index in reversed(range(len(self.nodes))):
            users = [user for user in good if index in self.inputs[user]]
            if index != without and (index in self.read or users):
                good.add(index)
        return good

    def behind(self, node):
        """The nodes from which a node can be reached, with itself."""
        found, stack = set(), [node]
        while stack:
            index = stack.pop()
            if index >= 0 and index not in found:
                found.add(index)
                stack += self.inputs[index]
        return found


@pytest.mark.parametrize("seed", range(60))
def test_random_networks_against_brute_force(seed):
    rng = random.Random(seed)
    net = Random(rng, rng.randint(2, 8))
    found = paths_of(net, (torch.randn(5, 3), torch.randn(5, 3)), nodes="nodes.*")
    weights = {id(value): name for name, value in net.named_parameters()}
    owner = [weights[id(node.linear.weight)] for node in net.nodes]
    alive = net.reach_loss()
    for index in range(len(net.nodes)):
        if index not in alive:
            assert found[f"nodes.{index}"].cut is False
            assert not found[f"nodes.{index}"].upstream
            continue
        around = net.reach_loss(without=index)
        upstream = net.behind(index)
        paths = found[f"nodes.{index}"]
        assert paths.upstream == {owner[item] for item in upstream}, index
        # A weight used twice is one parameter: a node is a cut if what is used before it passes it, whatever the other use does.
        assert paths.cut == (not upstream & around), index
        if paths.cut:
            assert paths.tied == {owner[item] for item in upstream} & {owner[item] for item in around}, index


def test_a_cut_decay_is_the_sum_over_parameters_and_a_branch_decay_is_not():
    for seed in range(12):
        rng = random.Random(seed)
        torch.manual_seed(seed)
        net = Random(rng, 6).double()
        batch = torch.randn(5, 3).double(), torch.randn(5, 3).double()
        history = speed.measure(net, batch, F.mse_loss, 0.1, nodes="nodes.*")
        known = (history.place == "cut") & (history.sharing == "no") & (history.backward_norm > 0)
        assert float(history.identity_error.where(known).max()) < 1e-12
        assert bool(history.identity_error.where(~known).isnull().all())


def test_chain_stream_and_branch():
    case = zoo.make("transformer_block")
    found = paths_of(case.model, case.probe, case.loss)
    cut = {name for name, paths in found.items() if paths.cut}
    assert cut == {"embed", "block", "head"}
    assert "block.attention.qkv.weight" not in found["embed"].upstream
    assert found["head"].upstream == {name for name, _ in case.model.named_parameters()}
    assert not any(paths.tied for paths in found.values())


def test_tied_weights():
    case = zoo.make("gpt")
    found = paths_of(case.model, case.probe, case.loss, "auto")
    assert all(paths.cut for paths in found.values())
    assert found["embedding"].tied == found["blocks.1"].tied == {"wte.weight"}
    assert found["lm_head"].tied == frozenset()


def test_reused_module():
    case = zoo.make("reused")
    found = paths_of(case.model, case.probe, case.loss, "auto")
    assert found["middle"].tied == {"middle.weight", "middle.bias"}
    assert found["first"].tied == found["middle#2"].tied == frozenset()
    history = speed.measure(case.model, case.probe, case.loss, 0.1)
    words = dict(zip(history.layer.values, history.sharing.values, strict=True))
    # All share one activation module, which holds no weights.
    assert words == {"input": "no", "first": "no", "middle": "reused module", "middle#2": "reused module", "last": "no"}


def test_what_is_not_trained_is_upstream_of_nothing():
    case = zoo.make("frozen")
    found = paths_of(case.model, case.probe, case.loss, "auto")
    assert (found["0"].cut, found["0"].upstream) == (True, frozenset())
    assert found["4"].upstream == {"4.weight", "4.bias"}


class Auxiliary(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.head, self.other, self.unused = (nn.Linear(3, 3) for _ in range(4))

    def forward(self, x):
        x = torch.tanh(self.trunk(x))
        return self.head(x), self.other(x)


def test_a_branch_without_loss_and_an_unused_parameter():
    torch.manual_seed(0)
    net, batch = Auxiliary(), (torch.randn(4, 3), torch.randn(4, 3))

    def loss(outputs, targets):
        return F.mse_loss(outputs[0], targets)

    found = paths_of(net, batch, loss)
    assert {name: paths.cut for name, paths in found.items()} == {"trunk": True, "head": True, "other": False}
    history = speed.measure(
        net, batch, loss, torch.optim.SGD(net.parameters(), lr=0.1), nodes=["trunk", "other", "head"]
    )
    other = history.sel(layer="other")
    assert float(other.backward_norm) == 0
    assert float(other.speed) > 0  # the trunk moves it
    assert bool(torch.tensor(float(other.cosine)).isnan())
    assert "other.bias, other.weight, unused.bias, unused.weight" in history.attrs["notes"]
    assert float(history.share.sum()) == pytest.approx(1)

    def both(outputs, targets):
        return F.mse_loss(outputs[0], targets) + F.mse_loss(outputs[1], targets)

    found = paths_of(net, batch, both)
    assert {name: paths.cut for name, paths in found.items()} == {"trunk": True, "head": False, "other": False}
    assert found["head"].upstream == {"trunk.weight", "trunk.bias", "head.weight", "head.bias"}


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 6)

    def forward(self, x):
        return self.linear(x).chunk(2, -1)


class Chunks(nn.Module):
    def __init__(self, last):
        super().__init__()
        self.pair, self.last, self.both = Pair(), nn.Linear(3, 3), last

    def forward(self, x):
        left, right = self.pair(x)
        return self.last(left + right if self.both else left)


@pytest.mark.parametrize("both", [True, False])
def test_one_of_two_results_of_an_operation(both):
    found = paths_of(Chunks(both), (torch.randn(4, 3), torch.randn(4, 3)))
    assert found["pair"].cut is not both
    assert found["pair.linear"].cut
    assert found["pair"].upstream == {"pair.linear.weight", "pair.linear.bias"}


def test_in_place_operations_behind_a_node():
    case = zoo.make("resnet")  # ReLUs in place, and a sum in place
    found = paths_of(case.model, case.probe, case.loss, ["conv1", "layer1.*", "layer2.*", "layer1.0.conv1", "fc"])
    assert {name for name, paths in found.items() if not paths.cut} == {"layer1.0.conv1"}


def test_recurrent_net():
    case = zoo.make("lstm")
    found = paths_of(case.model, case.probe, case.loss, "auto")
    assert found["lstm"].cut
    assert found["lstm"].upstream == {name for name, _ in case.model.named_parameters() if name.startswith("lstm")}


def test_checkpoints():
    seen = paths_of(*_parts("checkpointed"))
    assert all(paths.cut for paths in seen.values())
    assert "blocks.0.0.weight" in seen["blocks.0"].upstream
    case = zoo.make("checkpointed_reentrant")
    source, probe = passes(case.model, case.probe, case.loss, "auto")
    assert trace_paths(source, probe) is None
    history = speed.measure(case.model, case.probe, case.loss, 0.1)
    assert set(history.place.values) == {"unknown"}
    assert not bool(history.is_cut.any())
    assert "re-entrant activation checkpoints" in history.attrs["notes"]
    plain = speed.measure(zoo.make("checkpointed").model, case.probe, case.loss, 0.1)
    for variable in ("speed", "cosine", "share"):
        torch.testing.assert_close(
            torch.tensor(history[variable].values), torch.tensor(plain[variable].values), equal_nan=True
        )


def _parts(name):
    case = zoo.make(name)
    return case.model, case.probe, case.loss, "auto"


class OnlyInTraining(nn.Module):
    """Checkpoints as Hugging Face models have them: in training only, so that a pass in evaluation mode does not see them."""

    def __init__(self):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        x = self.first(x)
        x = checkpoint(self.middle, x, use_reentrant=True) if self.training else self.middle(x)
        return self.last(x)


def test_checkpoints_in_training_only():
    torch.manual_seed(0)
    net, batch = OnlyInTraining().double(), (torch.randn(4, 3).double(), torch.randn(4, 3).double())
    current = speed.measure(net, batch, F.mse_loss, 0.1, mode="current")
    evaluated = speed.measure(net, batch, F.mse_loss, 0.1)
    assert set(current.place.values) == {"unknown"}
    assert set(evaluated.place.values) == {"cut"}
    for variable in ("speed", "cosine", "loss_decay", "share"):
        torch.testing.assert_close(
            torch.tensor(current[variable].values), torch.tensor(evaluated[variable].values), equal_nan=True
        )


class Experts(nn.Module):
    """Each sample goes to one expert: the first few see only the first."""

    def __init__(self):
        super().__init__()
        self.experts, self.last = nn.ModuleList(nn.Linear(3, 3) for _ in range(3)), nn.Linear(3, 2)

    def forward(self, x):
        number = x[:, 0].long()
        out = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            rows = (number == index).nonzero()[:, 0]
            if len(rows):
                out = out.index_add(0, rows, expert(x[rows]))
        return self.last(torch.tanh(out))


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_experts_that_the_first_samples_do_not_use(chunk_size):
    torch.manual_seed(0)
    x = torch.randn(12, 3).double()
    x[:, 0] = torch.arange(12) // 4
    history = speed.measure(
        Experts().double(), (x, torch.randn(12, 2).double()), F.mse_loss, 0.1, nodes=["last"], chunk_size=chunk_size
    )
    assert float(history.share.sum()) == pytest.approx(1)
    assert float(history.identity_error.max()) < 1e-12
    assert history.attrs["notes"] == "[]"
