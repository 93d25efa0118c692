"""Checkpoints that cannot, or must not, be used or written."""

import pickle
import subprocess
import sys
import textwrap
import warnings
from collections import OrderedDict, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import HARD, Walk, hard_run, make_data, make_net
from torch import nn

from learnmech.errors import DataError, InputError, LearnmechWarning, StorageError
from learnmech.training import TrainConfig, Trainer
from learnmech.training.checkpoint import require_plain

SETTINGS = TrainConfig(epochs=2, batch_size=25)


class Exploit:
    def __reduce__(self):
        return (Path.touch, (Path("proof-of-code-run"),))


@pytest.fixture
def finished(tmp_path):
    Trainer(make_net(), make_data(), SETTINGS, folder=tmp_path).fit()
    return tmp_path / "checkpoint.pt"


def resume(file, model=None, data=None, config=SETTINGS, **more):
    return Trainer(model or make_net(), data or make_data(), config, folder=file.parent, **more).resume()


def flip_a_byte_of_a_tensor(path):
    content = bytearray(path.read_bytes())
    weight = torch.load(path, weights_only=True)["model"]["readout.weight"].numpy().tobytes()
    content[content.index(weight)] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-2000]),
    "text": lambda path: path.write_text("epoch 3 of 4"),
    "one bit": flip_a_byte_of_a_tensor,
    "other content": lambda path: torch.save({"format": "of something else"}, path),
    "not a mapping": lambda path: torch.save(torch.zeros(3), path),
    "plain pickle that runs code": lambda path: path.write_bytes(pickle.dumps(Exploit())),
    "zipped pickle that runs code": lambda path: torch.save({"model": Exploit()}, path),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_unusable_file(finished, damage, monkeypatch):
    monkeypatch.chdir(finished.parent)
    DAMAGES[damage](finished)
    with pytest.raises(DataError, match=r"checkpoint\.pt is not a usable checkpoint .*Delete it to start the run over"):
        resume(finished)
    assert not Path("proof-of-code-run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": replace(SETTINGS, lr=0.5, label_noise=0.1)}, r"lr was 0.001, is 0.5; label_noise was 0.0, is 0.1"),
        ({"config": replace(SETTINGS, batch_size=None)}, "batch_size was 25, is None"),
        ({"data": make_data(samples=40)}, r"the data set was 'blobs' \(\w{16}\), is 'blobs' \(\w{16}\)"),
        ({"model": make_net(slope=0.5)}, r"the model had '\(activation\): ReLU\(\)', has .*LeakyReLU"),
        ({"model": make_net(width=9)}, r"the model had .*out_features=8"),
        ({"model": nn.Linear(6, 3)}, r"the model had 'MLP\('"),
        ({"model": make_net().double()}, r"the model's input_norm.weight was \(6,\) torch.float32, is \(6,\) torch.fl"),
        ({"stateful": {"walk": Walk()}}, r"holds the state of \[\], this trainer has stateful=\['walk'\]"),
    ],
    ids=["lr and noise", "batch size", "data", "slope", "width", "model", "type", "stateful"],
)
def test_another_run_is_refused_and_named(finished, change, message):
    with pytest.raises(InputError, match=message):
        resume(finished, **change)


def test_epochs_and_time_between_checkpoints_may_change(finished):
    assert resume(finished, config=replace(SETTINGS, epochs=7, checkpoint_seconds=1.0))


def test_state_that_cannot_be_stored_is_refused_before_training(tmp_path):
    walk = Walk()
    walk.state["where"] = [tmp_path]
    trainer = Trainer(make_net(), make_data(), SETTINGS, folder=tmp_path, stateful={"walk": walk})
    with pytest.raises(InputError, match=r"the state of 'walk'\['where'\]\[0\] is a pathlib.*Path"):
        trainer.fit()
    assert trainer.step == 0


def test_every_plain_state_comes_back(tmp_path):
    state = {
        "a": [1, 2.5, True, None, "text", b"bytes", float("inf")],
        2: (torch.arange(3), {"deep": OrderedDict(x=nn.Parameter(torch.ones(2)))}),
    }
    require_plain(state, "state")
    torch.save(state, tmp_path / "state.pt")
    back = torch.load(tmp_path / "state.pt", weights_only=True)
    assert back["a"] == state["a"]
    assert torch.equal(back[2][0], state[2][0])
    assert torch.equal(back[2][1]["deep"]["x"], state[2][1]["deep"]["x"])


@pytest.mark.parametrize("value", [np.float64(1), np.zeros(2), {1}, defaultdict(int), Path(), range(3), print])
def test_no_other_state_is_accepted(value):
    with pytest.raises(InputError, match=r"state\['x'\] is a .* which a checkpoint does not store"):
        require_plain({"x": value}, "state")


def test_folder_that_cannot_be_made_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    trainer = Trainer(make_net(), make_data(), SETTINGS, folder=tmp_path / "file" / "folder")
    with pytest.raises(StorageError, match="could not write"):
        trainer.fit()
    assert trainer.step == 0


def test_full_disk_warns_once_and_training_goes_on(tmp_path):
    # A limit on the size of files stands in for the full disk: the first checkpoint fits, a later one does not.
    script = textwrap.dedent(
        """
        import resource, signal, sys, warnings
        sys.path.insert(0, sys.argv[1])
        from small_runs import fingerprint, hard_run, require_equal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        folder = sys.argv[2]
        trainer, walk = hard_run(folder)
        def on_step(trainer):
            walk(trainer)
            if trainer.step == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = trainer.fit(on_step)
        assert result.steps == 28 and result.stopped_because == "epochs", result
        reference, other = hard_run()
        reference.fit(other)
        require_equal(fingerprint(trainer, walk), fingerprint(reference, other))
        texts = [str(warning.message) for warning in caught]
        assert len(texts) == 1 and "goes on without a new checkpoint: could not write" in texts[0], texts
        later, _ = hard_run(folder)
        assert later.resume() and later.step == 2, later.step
        """
    )
    run = subprocess.run(
        [sys.executable, "-c", script, Path(__file__).parent, tmp_path], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_storage_warning_comes_once_per_trainer(tmp_path, monkeypatch):
    def fail(folder, parts):
        raise StorageError("no space left")

    trainer, walk = hard_run(tmp_path)
    monkeypatch.setattr("learnmech.training.trainer.save_checkpoint", fail)
    with pytest.warns(LearnmechWarning, match="no space left") as caught:
        trainer.fit(walk)
    assert len(caught) == 1
    assert trainer.step == 28


def test_time_between_checkpoints(tmp_path):
    trainer, walk = hard_run(tmp_path, replace(HARD, checkpoint_seconds=float("inf")))
    seen = []
    trainer.fit(lambda _: seen.append((tmp_path / "checkpoint.pt").exists()))
    assert not any(seen)
    assert (tmp_path / "checkpoint.pt").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert hard_run(tmp_path)[0].resume()
    assert walk.state["steps"] == 0
