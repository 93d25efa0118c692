"""The monitor in training loops: when it probes, what it survives, what it keeps, and where the numbers go."""

import csv
import json
import warnings

import numpy as np
import pytest
import torch
import zoo
from torch import nn
from torch.nn import functional as F

from learnmech import history
from learnmech.errors import HistoryError, InputError, LearnmechWarning, StorageError
from learnmech.monitor import CsvSink, JsonLinesSink, Monitor, watch


def train(case, optimizer, steps=1):
    for _ in range(steps):
        optimizer.zero_grad()
        case.loss(case.forward(), case.probe[1]).backward()
        optimizer.step()


def start(name="mlp", *, every=2, **options):
    case = zoo.make(name)
    optimizer = case.optimizer()
    return case, optimizer, watch(case.model, case.probe, case.loss, optimizer=optimizer, every=every, **options)


def steps_of(monitor):
    return monitor.history.step.values.tolist()


def hooks_of(optimizer):
    return [*optimizer._optimizer_step_pre_hooks, *optimizer._optimizer_step_post_hooks]


# ---------------------------------------------------------------------- schedule


def test_probes_at_the_start_every_few_steps_and_at_the_end():
    case, optimizer, monitor = start(every=3)
    train(case, optimizer, 7)
    assert steps_of(monitor) == [0, 3, 6]
    monitor.close()
    monitor.close()
    assert steps_of(monitor) == [0, 3, 6, 7]
    assert hooks_of(optimizer) == []
    train(case, optimizer, 5)
    assert steps_of(monitor) == [0, 3, 6, 7]


def test_no_second_probe_at_the_end_of_a_round():
    case, optimizer, monitor = start(every=2)
    train(case, optimizer, 4)
    seconds = monitor.history.attrs["probe_seconds"]
    monitor.close()
    assert steps_of(monitor) == [0, 2, 4]
    assert monitor.history.attrs["probe_seconds"] == seconds


def test_the_context_manager_closes_and_lets_errors_through():
    case = zoo.make("mlp")
    optimizer = case.optimizer()
    with watch(case.model, case.probe, case.loss, optimizer=optimizer, every=5) as monitor:
        train(case, optimizer, 2)
    assert (steps_of(monitor), hooks_of(optimizer)) == ([0, 2], [])

    def fail():
        nonlocal monitor
        with watch(case.model, case.probe, case.loss, optimizer=optimizer) as monitor:
            train(case, optimizer, 1)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert (steps_of(monitor), hooks_of(optimizer)) == ([0], [])


def test_without_an_optimizer_steps_are_counted_by_hand():
    case = zoo.make("mlp")
    monitor = watch(case.model, case.probe, case.loss, every=2)
    optimizer = case.optimizer()
    for _ in range(5):
        train(case, optimizer)
        monitor.step()
    assert steps_of(monitor) == [0, 2, 4]
    values = monitor.observe()
    assert steps_of(monitor) == [0, 2, 4, 5]
    assert values["loss"] == float(monitor.history["loss"][-1])
    assert values["load/0"] == float(monitor.history["load"].sel(layer="0")[-1])


def test_gradient_accumulation_counts_optimizer_steps_only():
    case, optimizer, monitor = start(every=2)
    for batch in range(12):
        (case.loss(case.forward(), case.probe[1]) / 3).backward()
        if batch % 3 == 2:
            before = [p.grad.clone() for p in case.model.parameters()]
            optimizer.step()
            assert all(torch.equal(p.grad, g) for p, g in zip(case.model.parameters(), before, strict=True))
            optimizer.zero_grad()
    assert steps_of(monitor) == [0, 2, 4]


def test_a_closure_counts_as_one_step():
    case = zoo.make("regression")
    optimizer = torch.optim.LBFGS(case.model.parameters(), max_iter=4)
    monitor = watch(case.model, case.probe, case.loss, optimizer=optimizer, every=1)

    def closure():
        optimizer.zero_grad()
        loss = case.loss(case.forward(), case.probe[1])
        loss.backward()
        return loss

    optimizer.step(closure)
    optimizer.step(closure)
    assert steps_of(monitor) == [0, 1, 2]
    assert (monitor.history["update_ratio"].sel(layer="0").values[1:] > 0).all()


# ---------------------------------------------------------------------- mixed precision


@pytest.mark.parametrize("fused", [False, True])
def test_grad_scaler_neither_scales_the_probe_nor_counts_skipped_steps(fused):
    case = zoo.make("mlp")
    optimizer = torch.optim.AdamW(case.model.parameters(), lr=1e-3, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    monitor = watch(case.model, case.probe, case.loss, optimizer=optimizer, every=1, measures="full")
    for step in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = case.loss(case.forward(), case.probe[1])
        scaler.scale(loss).backward()
        if step == 1:
            next(case.model.parameters()).grad.fill_(float("inf"))
        scaler.step(optimizer)
        scaler.update()
    assert steps_of(monitor) == [0, 1, 2]
    scaled = monitor.history
    plain = watch(case.model, case.probe, case.loss, measures="full").history
    np.testing.assert_array_equal(scaled["gradient_norm"].values[-1], plain["gradient_norm"].values[0])


def test_a_step_inside_autocast_is_probed_in_full_precision():
    case, optimizer, monitor = start(every=1)
    with torch.autocast("cpu", torch.bfloat16):
        train(case, optimizer)
    inside = monitor.history.isel(step=-1)
    outside = watch(case.model, case.probe, case.loss).history.isel(step=0)
    np.testing.assert_array_equal(inside["load"].values, outside["load"].values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    case = zoo.make("mlp")
    case.model.to(dtype)
    x, y = case.probe
    case.probe = (x.to(dtype), y)
    monitor = watch(case.model, case.probe, case.loss, optimizer=case.optimizer(), measures="full", chunk_size=9)
    reference = watch(zoo.make("mlp").model, (x, y), case.loss, measures="full").history
    for name in ("load", "loss", "gradient_norm", "activation_rms"):
        np.testing.assert_allclose(
            monitor.history[name], reference[name], rtol=0.2 if dtype == torch.bfloat16 else 1e-4
        )


# ---------------------------------------------------------------------- wrappers


def test_a_compiled_model_is_unwrapped_with_one_message_and_not_compiled_again():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    case = zoo.make("mlp")
    plain = watch(case.model, case.probe, case.loss).history
    compiled = torch.compile(case.model, backend=backend)
    optimizer = case.optimizer()
    with pytest.warns(LearnmechWarning, match="eager module inside torch.compile") as caught:
        monitor = watch(compiled, case.probe, case.loss, optimizer=optimizer, every=1)
    assert len(caught) == 1
    assert graphs == []
    for name in plain.data_vars:
        np.testing.assert_array_equal(monitor.history[name].values, plain[name].values)
    counts = []
    for _ in range(3):
        optimizer.zero_grad()
        case.loss(compiled(case.probe[0]), case.probe[1]).backward()
        optimizer.step()
        counts.append(len(graphs))
    assert steps_of(monitor) == [0, 1, 2, 3]
    assert counts[0] == counts[-1] > 0
    torch._dynamo.reset()


def test_compiled_parts_of_an_eager_model_are_read_by_their_own_names():
    case = zoo.make("gpt")
    plain = watch(case.model, case.probe, case.loss).history
    case.model.blocks[0] = torch.compile(case.model.blocks[0], backend="eager")
    case.model.blocks[1].compile(backend="eager")
    with torch.no_grad():
        case.forward()
    with pytest.warns(LearnmechWarning, match=r"torch\.compile") as caught:
        monitor = watch(case.model, case.probe, case.loss)
    assert len(caught) == 1
    assert monitor.history.layer.values.tolist() == plain.layer.values.tolist()
    for name in plain.data_vars:
        np.testing.assert_array_equal(monitor.history[name].values, plain[name].values)
    torch._dynamo.reset()


def test_data_parallel_is_unwrapped_with_a_message():
    case = zoo.make("mlp")
    with pytest.warns(LearnmechWarning, match="inside DataParallel"):
        monitor = watch(nn.DataParallel(case.model), case.probe, case.loss)
    assert monitor.history.layer.values.tolist() == ["input", "0", "4", "6"]


def test_models_that_cannot_be_read_are_refused():
    case = zoo.make("mlp")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(case.model)
    sharded = type("FullyShardedDataParallel", (nn.Module,), {})()
    dtensor = type("DTensor", (torch.Tensor,), {})
    piecewise = nn.Linear(6, 3)
    piecewise.weight = nn.Parameter(piecewise.weight.detach().as_subclass(dtensor))
    for model, message in (
        (scripted, "ScriptModule has no eager sub-modules"),
        (sharded, "sharded"),
        (nn.Sequential(piecewise), "sharded"),
        (nn.Sequential(nn.LazyLinear(3)), "lazy parameters"),
        (lambda x: x, r"needs a torch\.nn\.Module, but a function came"),
    ):
        with pytest.raises(InputError, match=message):
            watch(model, case.probe, case.loss)


# ---------------------------------------------------------------------- sinks


def test_sinks_get_plain_numbers(tmp_path):
    taken = []
    sinks = [lambda values, step: taken.append((step, values)), CsvSink(tmp_path / "a" / "run.csv")]
    case, optimizer, monitor = start(sink=[*sinks, JsonLinesSink(tmp_path / "run.jsonl")])
    train(case, optimizer, 4)
    assert [step for step, _ in taken] == [0, 2, 4]
    values = taken[-1][1]
    assert all(type(value) is float for value in values.values())
    run = monitor.history
    expected = [name for name in run.data_vars if "layer" not in run[name].dims]
    expected += [f"{name}/{layer}" for name in run.data_vars if "layer" in run[name].dims for layer in run.layer.values]
    assert set(values) == set(expected)
    with (tmp_path / "a" / "run.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["step"] for row in rows] == ["0", "2", "4"]
    assert float(rows[-1]["load/0"]) == values["load/0"]
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 4]
    assert lines[-1]["load/0"] == values["load/0"]
    assert lines[0]["contribution/input"] is None  # NaN


def test_files_are_continued(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("")
    CsvSink(path)({"loss": 1.0}, 0)
    with path.open("a") as stream:
        stream.write("5,0.")  # stopped while writing
    CsvSink(path)({"loss": 0.5}, 10)
    assert path.read_text().splitlines() == ["step,loss", "0,1.0", "5,0.", "10,0.5"]
    with pytest.raises(InputError, match="these differ: accuracy"):
        CsvSink(path)({"loss": 0.5, "accuracy": 1.0}, 20)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="could not append"):
        JsonLinesSink(tmp_path / "folder")({"loss": 1.0}, 0)


def test_a_failing_sink_warns_once_and_nothing_is_lost():
    def broken(values, step):
        values.clear()
        raise OSError("disk full")

    taken = []
    with pytest.warns(LearnmechWarning, match="the sink broken failed.*disk full") as caught:
        case, optimizer, monitor = start(sink=[broken, lambda values, step: taken.append(len(values))])
    assert len(caught) == 1
    train(case, optimizer, 6)  # a second warning would be an error
    assert steps_of(monitor) == [0, 2, 4, 6]
    assert len(taken) == 4
    assert min(taken) > 10
    with pytest.raises(InputError, match="a sink must be a callable"):
        start(sink="run.csv")


# ---------------------------------------------------------------------- failures


class Fragile(nn.Module):
    """Fails where it is told to; large batches run out of memory."""

    def __init__(self, error=None, largest=10**9):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(6, 8), nn.ReLU()), nn.Linear(8, 3)
        self.error, self.largest = error, largest

    def forward(self, x):
        if len(x) > self.largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        if self.error is not None and not self.training:
            raise self.error
        return self.head(self.body(x))


def fragile(**options):
    torch.manual_seed(0)
    case = zoo.Case(Fragile(**options), zoo._vectors(), F.cross_entropy)
    return case, case.optimizer()


def test_a_failing_probe_does_not_end_training():
    case, optimizer = fragile()
    monitor = watch(case.model, case.probe, case.loss, optimizer=optimizer, every=2)
    case.model.error = ValueError("bad luck")
    with pytest.warns(LearnmechWarning, match=r"the probe at step 2 failed.*ValueError: bad luck") as caught:
        train(case, optimizer, 6)
    assert len(caught) == 1
    case.model.error = None
    train(case, optimizer, 2)
    assert steps_of(monitor) == [0, 8]
    assert monitor.failures == [(step, "ValueError: bad luck") for step in (2, 4, 6)]
    assert json.loads(monitor.history.attrs["failures"])[0] == "step 2: ValueError: bad luck"
    case.model.error = ValueError("bad luck")
    with pytest.raises(ValueError, match="bad luck"):
        monitor.observe()  # asked for by hand: raises
    train(case, optimizer, 1)
    monitor.close()  # in a hook's place: kept
    assert len(monitor.failures) == 4
    assert hooks_of(optimizer) == []


def test_where_warnings_are_errors_nothing_is_lost():
    case, optimizer = fragile()
    monitor = watch(case.model, case.probe, case.loss, optimizer=optimizer, every=1)
    case.model.error = ValueError("bad luck")
    before = [p.detach().clone() for p in case.model.parameters()]
    with pytest.raises(LearnmechWarning, match="bad luck"):
        train(case, optimizer)
    assert monitor.failures == [(1, "ValueError: bad luck")]
    assert any(not torch.equal(p, q) for p, q in zip(case.model.parameters(), before, strict=True))
    case.model.error = None
    train(case, optimizer)
    assert steps_of(monitor) == [0, 2]
    case.model.largest = 12
    case.probe = (case.probe[0][:10], case.probe[1][:10])
    with pytest.raises(LearnmechWarning, match="chunks of 12 samples"):
        train(case, optimizer)
    assert steps_of(monitor) == [0, 2, 3]  # the record is there although the warning was raised
    assert len(monitor.failures) == 1


def test_ctrl_c_in_a_probe_stops_the_run_and_leaves_the_monitor_usable():
    case, optimizer = fragile()
    monitor = watch(case.model, case.probe, case.loss, optimizer=optimizer, every=1)
    case.model.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        train(case, optimizer)
    case.model.error = None
    train(case, optimizer)
    assert steps_of(monitor) == [0, 2]


def test_out_of_memory_halves_the_chunks():
    case, _ = fragile(largest=8)
    whole = watch(fragile()[0].model, case.probe, case.loss).history
    with pytest.warns(LearnmechWarning, match=r"chunks of (12|6) samples") as caught:
        monitor = watch(case.model, case.probe, case.loss)
    assert [str(w.message).split("chunks of ")[1] for w in caught] == ["12 samples.", "6 samples."]
    for name in whole.data_vars:
        np.testing.assert_allclose(monitor.history[name].values, whole[name].values, rtol=1e-4, atol=1e-5)
    case.model.largest = 0
    with pytest.warns(LearnmechWarning, match="chunks of"), pytest.raises(torch.OutOfMemoryError):
        monitor.observe()


# ---------------------------------------------------------------------- bad input


def labelled(labels, loss=F.cross_entropy, x=None):
    case = zoo.make("mlp")
    return watch(case.model, (case.probe[0][: len(labels)] if x is None else x, labels), loss)


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss(), nn.NLLLoss(), F.nll_loss])
def test_labels_out_of_range_are_named_before_the_loss_sees_them(loss):
    with pytest.raises(InputError, match=r"labels go from 0 to 5, but the model has 3 outputs.*0 \.\. 2") as error:
        labelled(torch.arange(24) % 6, loss)
    assert error.value.__cause__ is None
    with pytest.raises(InputError, match="go from -1 to 1"):
        watch(zoo.make("mlp").model, (torch.randn(9, 6), torch.arange(9) % 3 - 1), loss, measures="vitals")


def test_a_loss_that_fails_says_on_what():
    with pytest.raises(
        InputError, match=r"the loss failed on outputs \(tensor \(24, 3\) torch.float32\).*IndexError"
    ) as error:
        labelled(torch.arange(24) % 6, lambda out, y: F.cross_entropy(out, y))
    assert isinstance(error.value.__cause__, IndexError)
    with pytest.raises(InputError, match=r"must return a scalar tensor, but returned shape \(24,\)"):
        labelled(torch.arange(24) % 3, nn.CrossEntropyLoss(reduction="none"))
    with pytest.raises(InputError, match="but returned float"):
        labelled(torch.arange(24) % 3, lambda out, y: 0.5)
    with pytest.raises(InputError, match="loss must be a callable"):
        labelled(torch.arange(24) % 3, None)


def test_degenerate_probes():
    with pytest.raises(InputError, match="samples of 1 class only"):
        labelled(torch.zeros(24, dtype=torch.long))
    with pytest.raises(InputError, match=r"samples of 1 class only \(1 samples\)"):
        labelled(torch.tensor([1]))
    with pytest.raises(InputError, match="inputs hold 6 NaN or infinite entries of 144"):
        labelled(torch.arange(24) % 3, x=torch.cat([torch.randn(23, 6), torch.full((1, 6), float("nan"))]))
    with pytest.raises(InputError, match="24 inputs but 23 targets"):
        labelled(torch.arange(23) % 3, x=torch.randn(24, 6))
    with pytest.raises(InputError, match="at least one sample"):
        labelled(torch.zeros(0, dtype=torch.long), x=torch.zeros(0, 6))
    case = zoo.make("mlp")
    with pytest.raises(InputError, match="24 inputs but 7 labels"):
        watch(case.model, case.probe, case.loss, labels=torch.arange(7))
    with pytest.raises(InputError, match="must be a pair"):
        watch(case.model, case.probe[0], case.loss)


def test_one_sample_is_measured_where_it_can_be():
    case = zoo.make("mlp")
    monitor = watch(case.model, (case.probe[0][:1], case.probe[1][:1]), case.loss, measures="vitals")
    assert np.isnan(monitor.history["dead_fraction"]).all()
    assert np.isfinite(monitor.history["activation_rms"]).all()
    assert not any(finding.code == "vitals.dead_layer" for finding in monitor.verdict().findings)


@pytest.mark.parametrize(
    "options", [{"every": 0}, {"every": 1.5}, {"chunk_size": 0}, {"measures": []}, {"measures": "odd"}]
)
def test_bad_options(options):
    with pytest.raises(InputError):
        start(**options)


def test_an_object_that_is_no_optimizer():
    case = zoo.make("mlp")
    with pytest.raises(InputError, match="register_step_post_hook"):
        watch(case.model, case.probe, case.loss, optimizer=object())


def test_empty_and_many_parameter_groups():
    case = zoo.make("mlp")
    optimizer = torch.optim.SGD([{"params": []}, {"params": list(case.model.parameters()), "lr": 0.1}], lr=0.5)
    monitor = watch(case.model, case.probe, case.loss, optimizer=optimizer, every=1)
    train(case, optimizer, 2)
    assert json.loads(monitor.history.attrs["config"])["optimizer"]["lr"] == [0.5, 0.1]


def test_features_that_become_nan_are_marked():
    case, _optimizer, monitor = start("mlp", every=1, measures="full")
    with torch.no_grad():
        case.model[4].weight[0, 0] = float("nan")
    monitor.step()
    run = monitor.history
    history.validate(run)
    last = run.isel(step=-1)
    for name in ("load", "activation_rms", "dead_fraction", "load_pinv"):
        assert np.isfinite(last[name].sel(layer=["input", "0"])).all()
        assert np.isnan(last[name].sel(layer=["4", "6"])).all(), name
    assert np.isnan(last["loss"])
    codes = {finding.code: finding for finding in monitor.verdict().findings}
    assert codes["vitals.loss_not_finite"].evidence == "first seen at step 1"
    assert "springs.regime.collapsed" in codes
    assert str(monitor.verdict())


def test_a_dead_layer_is_marked():
    case, _, monitor = start("mlp", measures="full")
    with torch.no_grad():
        case.model[4].bias.fill_(-100)
    monitor.observe()
    last = monitor.history.isel(step=-1)
    assert last["dead_fraction"].sel(layer="4") == 1
    assert np.isnan(last["load"].sel(layer="4"))
    assert last["gradient_norm"].sel(layer="0") == 0
    codes = {finding.code: finding for finding in monitor.verdict().findings}
    assert "4" in codes["vitals.dead_layer"].layers
    assert "0" in codes["vitals.no_gradient"].layers
    assert "springs.regime.collapsed" in codes


# ---------------------------------------------------------------------- keeping


def test_a_checkpoint_goes_on_where_it_stopped(tmp_path):
    case, optimizer, monitor = start(every=2)
    train(case, optimizer, 5)
    monitor.failures.append((1, "something"))
    torch.save(monitor.state_dict(), tmp_path / "monitor.pt")
    state = torch.load(tmp_path / "monitor.pt", weights_only=True)
    again = watch(case.model, case.probe, case.loss, optimizer=optimizer, every=2)
    monitor.close()
    again.load_state_dict(state)
    assert steps_of(again) == [0, 2, 4]
    assert again.failures == [(1, "something")]
    train(case, optimizer, 1)
    again.close()
    assert steps_of(again) == [0, 2, 4, 6]
    np.testing.assert_array_equal(again.history["load"].values[:3], monitor.history["load"].values[:3])
    other = watch(case.model, case.probe, case.loss, layers=["0", "6"])
    with pytest.raises(HistoryError, match="measured the layers"):
        other.load_state_dict(state)
    with pytest.raises(HistoryError, match="no checkpoint of a monitor: it lacks"):
        other.load_state_dict({"steps": 3})


@pytest.mark.parametrize("name", ["mlp", "gpt", "regression", "randomness", "tuple_inputs"])
def test_histories_are_valid_and_survive_a_file(name, tmp_path):
    case, optimizer, monitor = start(name, config={"seed": 7, "batch_size": 24})
    train(case, optimizer, 2)
    run = history.validate(monitor.history)
    assert run.attrs["seed"] == 7
    assert json.loads(run.attrs["instruments"]) == ["springs", "speed", "regime", "vitals"]
    assert json.loads(run.attrs["config"])["probe_samples"] == zoo.SAMPLES
    again = history.load(history.save(run, tmp_path / "history.nc"))
    assert again.attrs == run.attrs
    for variable in run.variables:
        np.testing.assert_array_equal(again[variable].values, run[variable].values)


def test_held_out_data_is_measured_beside():
    case = zoo.make("mlp")
    x, y = zoo._vectors(samples=30)
    monitor = watch(case.model, case.probe, case.loss, held_out=(x, y), chunk_size=7)
    alone = watch(case.model, (x, y), case.loss).history
    for name in ("loss", "accuracy", "load", "curvature"):
        np.testing.assert_allclose(monitor.history[name + "_held_out"], alone[name], rtol=1e-5)
    assert "gradient_norm_held_out" not in monitor.history


def test_labels_apart_from_targets():
    case = zoo.make("regression")
    labels = torch.arange(zoo.SAMPLES) % 3
    monitor = watch(case.model, case.probe, case.loss, labels=labels, chunk_size=10)
    whole = watch(case.model, case.probe, case.loss, labels=labels).history
    assert monitor.history.attrs["classes"] == 3
    np.testing.assert_allclose(monitor.history["load"], whole["load"], rtol=1e-5)
    np.testing.assert_allclose(monitor.history["loss"], whole["loss"], rtol=1e-5)


def test_the_model_can_be_copied_and_pickled_while_watched(tmp_path):
    import copy

    case, optimizer, monitor = start()
    twin, other = copy.deepcopy(case.model), copy.deepcopy(optimizer)
    assert hooks_of(other) == []
    assert all(not module._forward_hooks for module in twin.modules())
    torch.save(case.model, tmp_path / "model.pt")
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    assert steps_of(monitor) == [0]


def test_importing_and_watching_does_not_load_the_compiler():
    import subprocess
    import sys

    code = (
        "import sys, torch, learnmech\n"
        "net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))\n"
        "learnmech.watch(net, (torch.randn(20, 4), torch.arange(20) % 2), torch.nn.functional.cross_entropy)\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


def test_repr_says_what_is_watched():
    assert repr(start()[2]) == "<Monitor of Sequential: 4 layers, measures standard, 1 probes in 0 steps>"
    assert isinstance(start()[2], Monitor)
