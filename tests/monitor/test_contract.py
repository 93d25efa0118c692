"""One contract over every model and preset: watching changes nothing, and chunks change no number."""

import random

import numpy as np
import pytest
import torch
import zoo

from learnmech.errors import LearnmechWarning
from learnmech.monitor import watch

PRESETS = ("light", "standard", "full")
HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_state_dict_hooks",
)


def mark(case):
    """Give the model everything that a probe could disturb: gradients, mixed flags, hooks of the user."""
    model = case.model
    loss = case.loss(case.forward(), case.probe[1])
    loss.backward()
    for position, module in enumerate(model.modules()):
        module.training = position % 3 != 1
    next(iter(model.modules())).register_forward_hook(lambda *_: None)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda gradient: pytest.fail("the probe fired a hook of a parameter"))
    return case


def tensors_of(case):
    loss = list(case.loss.named_parameters()) if isinstance(case.loss, torch.nn.Module) else []
    return [*case.model.named_parameters(), *((f"loss.{name}", p) for name, p in loss)]


def state_of(case):
    """Everything that must not change: objects by identity, numbers by value."""
    identities, values = [], []
    for name, parameter in tensors_of(case):
        identities += [(name, id(parameter)), (name, id(parameter.grad)), (name, parameter.requires_grad)]
        identities.append((name, list((parameter._backward_hooks or {}).values())))
        identities.append((name, list((getattr(parameter, "_post_accumulate_grad_hooks", None) or {}).values())))
        values += [parameter.detach().clone()]
        if parameter.grad is not None:
            values.append(parameter.grad.to_dense().clone())
    for name, buffer in case.model.named_buffers():
        identities.append((name, id(buffer)))
        values.append(buffer.clone())
    for module in case.model.modules():
        identities.append(module.training)
        identities.append({key: id(value) for key, value in vars(module).items()})
        identities += [list(getattr(module, hooks).items()) for hooks in HOOKS]
    inputs, targets = case.probe
    parts = [*(inputs.values() if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else [inputs])]
    values += [part.clone() for part in [*parts, targets] if isinstance(part, torch.Tensor)]
    values += [torch.get_rng_state(), torch.from_numpy(np.random.get_state()[1].astype("int64"))]
    identities += [random.getstate(), np.random.get_state()[2:]]
    return identities, values


def assert_same(before, after):
    assert before[0] == after[0]
    assert len(before[1]) == len(after[1])
    for one, two in zip(before[1], after[1], strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", zoo.CASES)
def test_nothing_is_touched(name, preset):
    case = mark(zoo.make(name))
    before = state_of(case)
    monitor = watch(case.model, case.probe, case.loss, measures=preset)
    assert_same(before, state_of(case))
    monitor._chunk_size = 5
    monitor._chunks_checked = True
    monitor.observe()
    assert_same(before, state_of(case))
    measured = monitor.history
    assert np.isfinite(measured["loss"]).all()
    assert np.isfinite(measured["load"]).all()


def train(case, steps=3, **options):
    optimizer = torch.optim.SGD([p for _, p in tensors_of(case) if p.requires_grad], lr=0.05, momentum=0.9)
    monitor = watch(case.model, case.probe, case.loss, optimizer=optimizer, every=1, **options) if options else None
    for _ in range(steps):
        optimizer.zero_grad()
        case.loss(case.forward(), case.probe[1]).backward()
        optimizer.step()
    if monitor is not None:
        assert monitor.failures == []
        assert monitor.history.step.values.tolist() == list(range(steps + 1))
        monitor.close()
        assert not optimizer._optimizer_step_post_hooks
        assert not optimizer._optimizer_step_pre_hooks
    return [p.detach().clone() for _, p in tensors_of(case)], [b.clone() for b in case.model.buffers()]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", zoo.CASES)
def test_training_is_bit_identical(name, preset):
    plain = train(zoo.make(name))
    watched = train(zoo.make(name), measures=preset)
    for one, two in zip(plain[0] + plain[1], watched[0] + watched[1], strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["mlp", "gpt_checkpointed_reentrant", "counting", "randomness", "lstm"])
def test_nothing_is_touched_when_the_probe_breaks_off(name, stop):
    case = mark(zoo.make(name))
    monitor = watch(case.model, case.probe, case.loss, measures="full")
    *_, last = case.model.modules()

    def fail(*_):
        raise stop("half way")

    last.register_forward_hook(fail)
    before = state_of(case)
    with pytest.raises(stop):
        monitor.observe()
    assert_same(before, state_of(case))


def chunk_cases():
    return [(name, preset) for name in zoo.CASES for preset in PRESETS if zoo.make(name).divisible]


@pytest.mark.parametrize(("name", "preset"), chunk_cases())
def test_chunks_give_the_same_numbers(name, preset):
    case = zoo.make(name).double()
    case.model.eval()
    monitor = watch(case.model, case.probe, case.loss, measures=preset)
    whole = monitor.history
    for size in (1, 7, 12, 100):
        if name == "counting" and size < 24:
            continue  # its buffers take the mean over the batch
        monitor._chunk_size = size
        monitor.observe()
        parts = monitor.history
        for variable in whole.data_vars:
            np.testing.assert_allclose(
                parts[variable].values, whole[variable].values, rtol=1e-9, atol=1e-9, err_msg=f"{variable}, {size}"
            )


@pytest.mark.parametrize("name", [name for name in zoo.CASES if name not in ("counting", "randomness")])
def test_the_order_of_samples_does_not_matter(name):
    case = zoo.make(name).double()
    order = torch.randperm(zoo.SAMPLES)

    def shuffle(value):
        if isinstance(value, dict):
            return {key: shuffle(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return tuple(shuffle(item) for item in value)
        return value[order] if isinstance(value, torch.Tensor) else value

    first = watch(case.model, case.probe, case.loss, measures="full").history
    second = watch(case.model, shuffle(case.probe), case.loss, measures="full").history
    for variable in first.data_vars:
        if not variable.endswith("_error"):
            np.testing.assert_allclose(
                second[variable].values, first[variable].values, rtol=1e-8, atol=1e-8, err_msg=variable
            )


@pytest.mark.parametrize(
    "context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
@pytest.mark.parametrize("name", ["mlp", "gpt", "checkpointed_reentrant", "lstm", "counting"])
def test_surrounding_contexts_change_no_number(name, context):
    case = zoo.make(name)
    plain = watch(case.model, case.probe, case.loss, measures="full").history
    before = state_of(case)
    with context():
        inside = watch(case.model, case.probe, case.loss, measures="full").history
    assert_same(before, state_of(case))
    for variable in plain.data_vars:
        np.testing.assert_array_equal(inside[variable].values, plain[variable].values, err_msg=variable)


def test_inputs_made_in_inference_mode_or_that_require_a_gradient():
    case = zoo.make("mlp")
    plain = watch(case.model, case.probe, case.loss).history
    with torch.inference_mode():
        frozen_input = case.probe[0].clone()
    leaf = case.probe[0].clone().requires_grad_()
    for x in (frozen_input, leaf):
        other = watch(case.model, (x, case.probe[1]), case.loss).history
        for variable in plain.data_vars:
            np.testing.assert_array_equal(other[variable].values, plain[variable].values, err_msg=variable)
    assert leaf.grad is None


def test_a_loss_that_is_no_mean_over_samples_is_warned_of_in_chunks():
    case = zoo.make("mlp")

    def contrastive(outputs, targets):
        return torch.pdist(outputs).mean()

    with pytest.warns(LearnmechWarning, match="not the mean over its samples"):
        watch(case.model, case.probe, contrastive, chunk_size=8)
    watch(case.model, case.probe, contrastive)


def test_a_model_whose_batch_norm_depends_on_the_batch_is_measured_in_evaluation_mode():
    case = zoo.make("mlp")
    case.model.train()
    monitor = watch(case.model, case.probe, case.loss)
    case.model.eval()
    expected = case.loss(case.forward(), case.probe[1])
    assert float(monitor.history["loss"][0]) == pytest.approx(expected.item(), abs=1e-6)
