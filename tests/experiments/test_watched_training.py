"""The main job: numbers, files, resuming, and folders that cannot be written."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from learnmech import history as histories
from learnmech import springs
from learnmech.errors import InputError, LearnmechWarning, StorageError
from learnmech.experiments import WatchSettings, train_and_watch

SMALL = WatchSettings(
    data="digits", samples=300, depth=4, width=20, epochs=12, every=3, batch=100, dropout=0.1, label_noise=0.1
)


def test_numbers_hold_together(tmp_path):
    run = train_and_watch(SMALL, tmp_path)
    values = run.to_dict()
    json.dumps(values, allow_nan=False)
    assert values["end_difference"] == pytest.approx(float(springs.end_difference(values["load"])))
    assert values["curvature"] == pytest.approx(float(springs.curvature(values["load"])))
    assert values["linearity"] == pytest.approx(float(springs.linearity(values["load"])))
    assert values["layers"] == ["input", "hidden.0", "hidden.1", "hidden.2"]
    assert values["steps"] == 36
    assert 0 <= values["accuracy"] <= 1
    stored = histories.load(tmp_path)
    assert stored.step.values.tolist() == list(range(0, 37, 3))
    np.testing.assert_array_equal(stored["load"], run.history["load"])
    config = json.loads(stored.attrs["config"])
    assert (config["batch_size"], config["label_noise"], config["data"]) == (100, 0.1, "digits")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "history.nc", "report.html"]


def test_measuring_does_not_change_training(tmp_path):
    often = train_and_watch(dataclasses.replace(SMALL, every=1, measures="full"), tmp_path / "a")
    seldom = train_and_watch(dataclasses.replace(SMALL, every=1000, measures="light"), tmp_path / "b")
    assert often.result.epoch_losses == seldom.result.epoch_losses
    assert often.result.test_accuracy == seldom.result.test_accuracy


def test_killed_and_resumed_gives_the_same_history(tmp_path):
    """The process kills itself in the middle of an epoch; the resumed run must equal an uninterrupted one, bit for bit."""
    whole = train_and_watch(SMALL, tmp_path / "whole")
    script = f"""
        import os, signal
        from learnmech.experiments import watched_training as job
        from learnmech.training import Trainer
        settings = job.WatchSettings(**{dataclasses.asdict(SMALL)!r})
        steps = 0
        plain = Trainer._take_step
        def take_step(self, *rest):
            global steps
            plain(self, *rest)
            steps += 1
            if steps == 20:
                self._checkpoint()
            if steps == 23:
                os.kill(os.getpid(), signal.SIGKILL)
        Trainer._take_step = take_step
        job.train_and_watch(settings, {str(tmp_path / "killed")!r})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    resumed = train_and_watch(SMALL, tmp_path / "killed", resume=True)
    assert resumed.result.epoch_losses == whole.result.epoch_losses
    for name in whole.history.data_vars:
        np.testing.assert_array_equal(resumed.history[name], whole.history[name], err_msg=str(name))


def test_ctrl_c_keeps_what_was_measured_and_resumes(tmp_path):
    whole = train_and_watch(SMALL, tmp_path / "whole")

    def interrupt(trainer, epochs):
        if trainer.epoch == 5:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = train_and_watch(SMALL, tmp_path / "stopped", on_epoch=interrupt)
    assert stopped.result.stopped_because == "interrupted"
    assert stopped.history_path is not None
    assert stopped.history.step.values[-1] == 15
    resumed = train_and_watch(SMALL, tmp_path / "stopped", resume=True)
    np.testing.assert_array_equal(resumed.history["load"].sel(step=36), whole.history["load"].sel(step=36))


def test_without_resume_training_starts_anew(tmp_path):
    train_and_watch(SMALL, tmp_path)
    again = train_and_watch(dataclasses.replace(SMALL, epochs=2, seed=5), tmp_path)
    assert again.result.epochs == 2
    with pytest.raises(InputError, match="seed"):
        train_and_watch(SMALL, tmp_path, resume=True)


def test_cnn_and_regression(tmp_path):
    images = train_and_watch(
        WatchSettings(data="digits", samples=120, net="cnn", depth=4, width=4, epochs=2, lr=0.01), tmp_path / "cnn"
    )
    assert len(images.to_dict()["load"]) == 4
    table = tmp_path / "table.csv"
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    np.savetxt(table, np.column_stack([x, x @ [1.0, -2.0, 0.5] + x[:, 0] ** 2]), delimiter=",", fmt="%.6f")
    run = train_and_watch(WatchSettings(data=f"csv:{table}", depth=4, width=10, epochs=40, lr=0.01), tmp_path / "csv")
    values = run.to_dict()
    assert values["accuracy"] is None
    assert all(value is not None for value in values["load"])
    assert values["load"][-1] < values["load"][0]


def test_bad_settings_are_one_clear_error(tmp_path):
    with pytest.raises(InputError, match="'mlp' or 'cnn'"):
        train_and_watch(dataclasses.replace(SMALL, net="transformer"), tmp_path)
    with pytest.raises(InputError, match="optimizer"):
        train_and_watch(dataclasses.replace(SMALL, optimizer="lion"), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not write"):
        train_and_watch(SMALL, tmp_path / "file" / "run")


def test_a_disk_that_fills_up_loses_no_numbers(tmp_path):
    """RLIMIT_FSIZE lets small files through and stops larger ones, as a full disk does."""
    script = f"""
        import resource, signal, warnings
        from learnmech.experiments import WatchSettings, train_and_watch
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run = train_and_watch(WatchSettings(**{dataclasses.asdict(SMALL)!r}), {str(tmp_path)!r})
        print(run.history_path, run.report_path, run.result.epochs, run.to_dict()["linearity"] is not None)
        print(sum("could not write" in str(warning.message) for warning in caught))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    outcome, warned = done.stdout.splitlines()
    assert outcome == "None None 12 True"
    assert int(warned) == 3  # checkpoint once, history, report
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::learnmech.errors.LearnmechWarning")
def test_divergence_is_reported_and_kept(tmp_path):
    wild = dataclasses.replace(SMALL, optimizer="sgd", lr=1e30, batch_norm=False, dropout=0.0)
    run = train_and_watch(wild, tmp_path)
    assert run.result.stopped_because == "diverged"
    assert not math.isfinite(float(run.history["loss"][-1]))
    assert "vitals.loss_not_finite" in run.to_dict()["findings"]
    assert LearnmechWarning is not None


@pytest.mark.data
@pytest.mark.skipif("LEARNMECH_DATA" not in os.environ, reason="LEARNMECH_DATA is not set")
@pytest.mark.parametrize("seed", [0, 1])
def test_the_papers_three_corners_on_mnist(tmp_path, seed):
    """N1 to N3 of the spring-block phase diagram, at the tolerances of the theory file."""
    plain, noisy, dropped = (
        train_and_watch(WatchSettings(seed=seed, measures="light", every=100, **change), tmp_path / name).to_dict()
        for name, change in (
            ("plain", {}),
            ("noisy", {"label_noise": 0.2, "data_noise": 0.2}),
            ("dropped", {"dropout": 0.28}),
        )
    )
    assert plain["end_difference"] < -0.8
    assert plain["curvature"] < -0.6
    assert plain["linearity"] < 0.95
    assert plain["accuracy"] > 0.9
    assert noisy["linearity"] > 0.99
    assert noisy["accuracy"] > plain["accuracy"]
    assert dropped["curvature"] > 0.3
    assert dropped["end_difference"] > 0.3
