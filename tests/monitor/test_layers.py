"""Which layers are read, what they are called, and that every other module has a reason."""

import pytest
import torch
import zoo
from torch import nn
from torch.nn import functional as F

from learnmech.errors import InputError
from learnmech.monitor import Probe, choose_layers, watch
from learnmech.monitor.unwrap import eager_modules


def choose(case, layers="auto"):
    return choose_layers(case.model, Probe(*case.probe), layers)


def pairs(choice):
    return [(layer.name, layer.role) for layer in choice.layers]


@pytest.mark.parametrize("name", [name for name in zoo.CASES if zoo.make(name).layers])
def test_automatic_choice(name):
    case = zoo.make(name)
    assert pairs(choose(case)) == case.layers


@pytest.mark.parametrize("name", zoo.CASES)
def test_every_module_is_chosen_or_skipped_with_a_reason(name):
    case = zoo.make(name)
    choice = choose(case)
    read = {layer.module for layer in choice.layers}
    skipped = {item.name: item.reason for item in choice.skipped}
    for module in eager_modules(case.model):
        if module:
            assert (module in read) != (module in skipped)
    assert all(len(reason) > 8 and reason != "not chosen" for reason in skipped.values()), skipped
    for item in choice.skipped:
        assert f"{item.name} ({item.kind}): {item.reason}" in str(choice)


def test_groups_are_read_before_dropout_and_own_their_parameters():
    case = zoo.make("mlp")
    choice = choose(case)
    first = choice.layers[1]
    assert (first.module, first.members, first.kinds) == ("2", ("0", "1", "2"), "Linear + BatchNorm1d + ReLU")
    assert choice.parameters(case.model)["0"] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    reasons = {item.name: item.reason for item in choice.skipped}
    assert reasons["3"] == "dropout: the layer is read before it"
    assert reasons["0"] == "part of 0: read at the output of 2"
    assert choice.depths == [0.0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]


def test_tied_parameters_are_listed_at_each_layer():
    case = zoo.make("tied")
    parameters = choose(case).parameters(case.model)
    assert parameters["encode"] == ["encode.weight", "encode.bias"]
    assert parameters["decode"] == ["encode.weight", "decode.bias"]


def test_reused_modules_are_read_at_each_call():
    choice = choose(zoo.make("reused"))
    assert [(layer.module, layer.call) for layer in choice.layers[2:4]] == [("act", 1), ("act", 2)]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("blocks.1", ["blocks.1"]),
        ("blocks.*", ["blocks.0", "blocks.1"]),
        (["lm_head", "blocks.?"], ["blocks.0", "blocks.1", "lm_head"]),
        ("blocks.0.**", 9),
        ("**.attention", ["blocks.0.attention", "blocks.1.attention"]),
        (lambda name, module: isinstance(module, nn.LayerNorm), 5),
        (lambda name, module: name == "ln_f", ["ln_f"]),
    ],
)
def test_names_globs_and_callables(layers, expected):
    names = choose(zoo.make("gpt"), layers).names
    assert (len(names) if isinstance(expected, int) else names) == expected


def test_the_layer_that_gives_the_output_is_the_readout():
    assert pairs(choose(zoo.make("gpt"), ["blocks.0", "lm_head"])) == [("blocks.0", "block"), ("lm_head", "readout")]


def test_unknown_names_are_answered_with_similar_ones():
    with pytest.raises(InputError, match=r"'block\.0' matches no module.*similar names: .*blocks\.0"):
        choose(zoo.make("gpt"), "block.0")
    with pytest.raises(InputError, match="chose none of: "):
        choose(zoo.make("gpt"), lambda name, module: False)


def test_a_model_without_readable_layers_lists_the_reasons():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.flat = nn.Dropout(0.1), nn.Flatten()

        def forward(self, x):
            return self.flat(self.drop(x))

    with pytest.raises(
        InputError, match=r"(?s)no layer of Mean can be read:.*drop \(Dropout\): dropout.*flat \(Flatten\)"
    ):
        choose_layers(Mean(), Probe(torch.randn(9, 4), torch.arange(9) % 2))


def test_layers_without_the_samples_in_front_are_skipped_with_the_shape():
    class SequenceFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.fc = nn.LSTM(4, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.fc(self.lstm(x.transpose(0, 1))[0][-1])

    choice = choose_layers(SequenceFirst(), Probe(torch.randn(24, 5, 4), torch.arange(24) % 3))
    assert choice.names == ["input", "fc"]
    assert "does not begin with the 7 samples" in choice.skipped[0].reason


def test_names_stay_unique_where_a_module_is_called_input():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.input, self.output = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.output(torch.relu(self.input(x)))

    monitor = watch(Net(), (torch.randn(12, 4), torch.arange(12) % 3), F.cross_entropy)
    assert monitor.history.layer.values.tolist() == ["(input)", "input", "output"]


def test_a_bare_layer_can_be_watched():
    monitor = watch(nn.Linear(4, 3), (torch.randn(12, 4), torch.arange(12) % 3), F.cross_entropy)
    assert monitor.history.layer.values.tolist() == ["input", "model"]
    assert monitor.history["role"].values.tolist() == ["input", "readout"]


def test_a_module_with_two_names_is_listed_once():
    case = zoo.make("mlp")
    shared = nn.Tanh()
    net = nn.Sequential(nn.Linear(6, 5), shared, nn.Linear(5, 5), shared, nn.Linear(5, 3))
    choice = choose_layers(net, Probe(*case.probe))
    assert choice.names == ["input", "0", "2", "4"]
    assert [(layer.module, layer.call) for layer in choice.layers[1:3]] == [("1", 0), ("1", 1)]


def test_a_model_that_cannot_run_on_the_probe():
    case = zoo.make("mlp")
    with pytest.raises(
        InputError, match=r"Sequential cannot run on the probe's inputs \(tensor \(7, 5\) torch.float32\)"
    ):
        choose_layers(case.model, Probe(torch.randn(9, 5), torch.arange(9) % 3))


def test_blocks_with_a_leading_norm_name_every_part_of_the_input():
    net = nn.Sequential(nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
    choice = choose_layers(net, Probe(*zoo.make("mlp").probe))
    assert [(layer.name, layer.module) for layer in choice.layers] == [("input", "1"), ("2", "2")]
    assert choice.skipped[0].reason == "part of the input: read at the output of 1"


def test_labels_that_fit_no_layer_are_refused_and_others_can_be_given():
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    x, pixels = torch.randn(8, 1, 6, 6), torch.randint(0, 3, (8, 6, 6))
    with pytest.raises(InputError, match=r"(?s)does not begin with the 252 labels of the 7 samples.*labels=\.\.\."):
        watch(net, (x, pixels), F.cross_entropy)
    whole = watch(net, (x, pixels), F.cross_entropy, labels=torch.arange(8) % 2, measures="full").history
    parts = watch(net, (x, pixels), F.cross_entropy, labels=torch.arange(8) % 2, measures="full", chunk_size=3).history
    assert whole.layer.values.tolist() == ["input", "0", "2"]
    for name in ("loss", "load", "gradient_norm"):
        assert abs(parts[name] - whole[name]).max() < 1e-5


@pytest.mark.parametrize(
    "change", [lambda z: z.transpose(0, 1).transpose(0, 1), lambda z: z.squeeze(-1), lambda z: z.flatten()]
)
def test_the_readout_is_found_behind_a_view(change):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 1)

        def forward(self, x):
            return change(self.head(torch.tanh(self.second(torch.tanh(self.first(x))))))

    y = torch.randn(12)
    monitor = watch(Net(), (torch.randn(12, 4), y), lambda z, y: (z.flatten() - y).square().mean(), measures="light")
    assert [layer.role for layer in monitor.layers.layers] == ["input", "block", "block", "readout"]
