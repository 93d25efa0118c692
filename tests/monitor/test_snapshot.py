"""What the probe pass reads, against plain hooks, hand-made forward passes and finite differences."""

import numpy as np
import pytest
import torch
import zoo

from learnmech.monitor import Probe, choose_layers, watch
from learnmech.monitor.criterion import Criterion
from learnmech.monitor.snapshot import ProbePass, RestartProbe


class Recorder:
    """A meter that keeps everything."""

    def __init__(self):
        self.features, self.backward, self.snapshot = {}, {}, None

    def on_features(self, layer, features, chunk):
        self.features.setdefault(layer, []).append(features.clone())

    def on_backward(self, layer, gradient, chunk):
        self.backward.setdefault(layer, []).append((chunk.start, gradient.clone()))

    def compute(self, snapshot):
        return {}


def take(case, chunk_size=None, layers="auto"):
    criterion = Criterion(case.loss)
    probe = Probe(*case.probe, ignored=criterion.ignored)
    choice = choose_layers(case.model, probe, layers)
    probe_pass = ProbePass(case.model, choice, criterion)
    while True:
        recorder = Recorder()
        try:
            snapshot = probe_pass.run(probe, [recorder], step=0, backward=True, chunk_size=chunk_size)
        except RestartProbe:
            continue
        features = {name: torch.cat(parts) for name, parts in recorder.features.items()}
        backward = {
            name: torch.cat([part for _, part in sorted(parts, key=lambda item: item[0])])
            for name, parts in recorder.backward.items()
        }
        return choice, features, backward, snapshot


def loss_with(case, layer, position, shift):
    """The loss, with one entry of one layer's output shifted, and nothing differentiated."""
    modules = dict(case.model.named_modules())
    module, calls = modules[layer.module], [0]

    def before(_, args):
        call = calls[0]
        calls[0] += 1
        if layer.side == "input" and call == layer.call:
            shifted = args[0].clone(memory_format=torch.contiguous_format)
            shifted.view(-1)[position] += shift
            return (shifted, *args[1:])
        return None

    def after(_, args, output):
        if layer.side == "input" or calls[0] - 1 != layer.call:
            return None
        first = output[0] if isinstance(output, tuple) else output
        shifted = first.clone(memory_format=torch.contiguous_format)
        shifted.view(-1)[position] += shift
        return (shifted, *output[1:]) if isinstance(output, tuple) else shifted

    handles = [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        with torch.no_grad():
            return float(case.loss(case.forward(), case.probe[1]))
    finally:
        for handle in handles:
            handle.remove()


DIFFERENCED = [
    "mlp", "cnn", "resnet", "gpt", "encoder", "multi_head", "reused", "tuple_outputs", "tied", "checkpointed",
    "checkpointed_reentrant", "gpt_checkpointed", "gpt_checkpointed_reentrant", "lstm", "functional", "regression",
    "loss_with_parameters_reentrant", "weighted_loss", "summed_loss", "keyword_inputs",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("chunk_size", [None, 7])
@pytest.mark.parametrize("name", DIFFERENCED)
def test_backward_equals_finite_differences(name, chunk_size):
    case = zoo.make(name).double()
    case.model.eval()
    choice, features, backward, snapshot = take(case, chunk_size)
    assert snapshot.loss == pytest.approx(float(case.loss(case.forward(), case.probe[1]).detach()), rel=1e-12)
    generator, step = np.random.default_rng(0), 1e-5
    for layer in choice.layers:
        if layer.role == "input" and layer.side == "input" and layer.module == "":
            assert layer.name not in backward  # nothing trainable lies before it
            continue
        gradient = backward[layer.name].reshape(-1)
        assert backward[layer.name].shape == features[layer.name].shape
        for position in generator.choice(len(gradient), size=3, replace=False):
            up, down = (loss_with(case, layer, int(position), sign * step) for sign in (1, -1))
            assert float(gradient[position]) == pytest.approx((up - down) / (2 * step), abs=2e-8), layer.name


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("chunk_size", [None, 5])
@pytest.mark.parametrize("name", [*DIFFERENCED, "sparse_embedding", "frozen"])
def test_parameter_gradients_equal_finite_differences(name, chunk_size):
    case = zoo.make(name).double()
    case.model.eval()
    _, _, _, snapshot = take(case, chunk_size)
    generator, step = np.random.default_rng(1), 1e-5
    parameters = {key: value for key, value in case.model.named_parameters() if value.requires_grad}
    assert list(snapshot.gradients) == list(parameters)
    for key, parameter in parameters.items():
        assert not snapshot.gradients[key].is_sparse
        position = int(generator.integers(parameter.numel()))
        losses = []
        with torch.no_grad():
            for shift in (step, -2 * step):
                parameter.view(-1)[position] += shift
                losses.append(float(case.loss(case.forward(), case.probe[1])))
            parameter.view(-1)[position] += step
        expected = (losses[0] - losses[1]) / (2 * step)
        assert float(snapshot.gradients[key].view(-1)[position]) == pytest.approx(expected, abs=2e-8), key


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("chunk_size", [None, 7])
@pytest.mark.parametrize(
    "name", ["mlp", "gpt", "functional", "checkpointed_reentrant", "lstm", "tuple_outputs", "reused"]
)
def test_features_equal_a_plain_hook_pass(name, chunk_size):
    case = zoo.make(name).double()
    case.model.eval()
    choice, features, _, _ = take(case, chunk_size)
    modules, seen, handles = dict(case.model.named_modules()), {}, []
    for module_name in {layer.module for layer in choice.layers}:

        def keep(_, args, kwargs, output, name=module_name):
            value = output[0] if isinstance(output, tuple) else output
            source = args[0] if args else next(iter(kwargs.values()))
            taken = [part.clone() if isinstance(part, torch.Tensor) else None for part in (source, value)]
            seen.setdefault(name, []).append(taken)

        handles.append(modules[module_name].register_forward_hook(keep, with_kwargs=True))
    with torch.no_grad():
        case.forward()
    for layer in choice.layers:
        source, output = seen[layer.module][layer.call]
        torch.testing.assert_close(
            features[layer.name], source if layer.side == "input" else output, rtol=1e-12, atol=1e-12
        )
    for handle in handles:
        handle.remove()


def test_features_and_gradients_of_a_linear_net_by_hand():
    """f = W x, L = mean |f - y|^2 / 2 over samples: dL/df = (f - y)/N and dL/dW = (f - y)^T x / N."""
    net = torch.nn.Linear(3, 2, bias=False).double()
    x, y = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
    case = zoo.Case(net, (x, y), lambda out, target: (out - target).square().sum(1).mean() / 2)
    _, features, backward, snapshot = take(case)
    error = x @ net.weight.detach().T - y
    torch.testing.assert_close(features["model"], error + y)
    torch.testing.assert_close(backward["model"], error / 8)
    torch.testing.assert_close(snapshot.gradients["weight"], error.T @ x / 8)


def test_a_reentrant_checkpoint_that_the_recording_did_not_show_is_found_out():
    case = zoo.make("checkpointed_reentrant").double()
    criterion, probe = Criterion(case.loss), Probe(*case.probe)
    choice = choose_layers(case.model, probe)
    assert choice.checkpointed
    probe_pass = ProbePass(case.model, choice, criterion)
    probe_pass._reentrant = False
    with pytest.raises(RestartProbe):
        probe_pass.run(probe, [], step=0, backward=True)
    probe_pass.run(probe, [], step=0, backward=True)


class UpdateInstrument:
    name, citations, needs_backward, needs_updates, held_out = "updates", (), False, True, False

    def __init__(self):
        self.taken = {}

    def variables(self):
        return {}

    def start(self, probe, layers):
        outer = self

        class Meter(Recorder):
            def compute(self, snapshot):
                outer.taken[snapshot.step] = {name: value.clone() for name, value in snapshot.updates.items()}
                return {}

        return Meter()

    def read(self, history):
        return []

    def figures(self, history):
        return []


def test_updates_are_the_displacement_of_the_latest_step():
    case, instrument = zoo.make("frozen"), UpdateInstrument()
    optimizer = case.optimizer()
    monitor = watch(case.model, case.probe, case.loss, optimizer=optimizer, every=2, measures=[instrument])
    expected = {}
    for step in range(1, 6):
        optimizer.zero_grad()
        case.loss(case.forward(), case.probe[1]).backward()
        before = {name: p.detach().clone() for name, p in case.model.named_parameters() if p.requires_grad}
        optimizer.step()
        expected[step] = {
            name: dict(case.model.named_parameters())[name].detach() - old for name, old in before.items()
        }
    monitor.close()
    assert list(instrument.taken) == [0, 2, 4, 5]
    assert instrument.taken[0] == {}
    assert instrument.taken[5] == {}  # not watched: it was not known that this step would be the last
    for step in (2, 4):
        assert list(instrument.taken[step]) == list(expected[step])
        for name, value in expected[step].items():
            assert torch.equal(instrument.taken[step][name], value)
