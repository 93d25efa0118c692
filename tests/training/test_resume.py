"""A run that was broken off and resumed ends with the very bits of one that was not."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import HARD, fingerprint, hard_run, require_equal

from learnmech.errors import InputError
from learnmech.training import TrainConfig

SCRIPT = Path(__file__).with_name("small_runs.py")


def uninterrupted(config=HARD):
    trainer, walk = hard_run(config=config)
    result = trainer.fit(walk)
    return fingerprint(trainer, walk), result


def finish(folder, config=HARD):
    trainer, walk = hard_run(folder, config)
    assert trainer.resume()
    result = trainer.fit(walk)
    return fingerprint(trainer, walk), result


def require_same_result(first, second):
    for name in ("epochs", "steps", "stopped_because", "epoch_losses", "train_accuracy", "test_accuracy", "test_loss"):
        assert getattr(first, name) == getattr(second, name), name


def test_killed_twice_then_resumed(tmp_path):
    # The first kill is at the last step of an epoch; the second while the checkpoint of step 17 is half written.
    for when, step in (("step", 7), ("write", 17)):
        died = subprocess.run([sys.executable, SCRIPT, tmp_path, when, str(step)], capture_output=True, text=True)
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert (tmp_path / "checkpoint.pt").exists()
    state, result = finish(tmp_path)
    expected, expected_result = uninterrupted()
    require_equal(state, expected)
    require_same_result(result, expected_result)


@pytest.mark.parametrize("step", [1, 7, 10, 27])
def test_ctrl_c_then_resumed_in_a_new_trainer_or_the_same_one(tmp_path, step):
    config = replace(HARD, checkpoint_seconds=1000.0)
    expected, expected_result = uninterrupted(config)
    trainer, walk = hard_run(tmp_path, config)

    def on_step(trainer):
        walk(trainer)
        if trainer.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    result = trainer.fit(on_step)
    assert signal.getsignal(signal.SIGINT) is handler
    assert (result.stopped_because, result.steps) == ("interrupted", step)

    resumed, resumed_result = finish(tmp_path, config)
    require_equal(resumed, expected)
    require_same_result(resumed_result, expected_result)

    require_same_result(trainer.fit(walk), expected_result)
    require_equal(fingerprint(trainer, walk), expected)


def test_ctrl_c_after_the_last_step_goes_to_the_caller(tmp_path):
    trainer, walk = hard_run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(lambda trainer: trainer.step == 28 and os.kill(os.getpid(), signal.SIGINT))
    assert hard_run(tmp_path)[0].resume()
    assert trainer.fit().stopped_because == "epochs"
    assert walk.state["steps"] == 0


def test_second_ctrl_c_raises_at_once_and_the_half_done_step_is_refused(tmp_path):
    trainer, walk = hard_run(tmp_path)
    forward = trainer.model.forward

    def interrupted_forward(inputs):
        if trainer.step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return forward(inputs)

    trainer.model.forward = interrupted_forward
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(walk)
    with pytest.raises(InputError, match="in the middle of a step"):
        trainer.fit()
    del trainer.model.forward
    assert trainer.resume()
    assert trainer.step == 5
    trainer.fit(walk)
    require_equal(fingerprint(trainer, walk), uninterrupted()[0])


def test_error_in_a_callback_leaves_a_trainer_that_can_go_on():
    trainer, walk = hard_run()

    def on_step(trainer):
        walk(trainer)
        if trainer.step == 9:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trainer.fit(on_step)
    trainer.fit(walk)
    require_equal(fingerprint(trainer, walk), uninterrupted()[0])


def test_outside_the_main_thread_no_handler_is_installed():
    seen = []
    trainer, _ = hard_run()
    handler = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=trainer.fit, args=(lambda _: seen.append(signal.getsignal(signal.SIGINT)),))
    thread.start()
    thread.join()
    assert len(seen) == 28
    assert set(seen) == {handler}


def test_more_epochs_may_be_asked_for(tmp_path):
    short = replace(HARD, epochs=2, checkpoint_seconds=5.0)
    trainer, walk = hard_run(tmp_path, short)
    assert trainer.fit(walk).epochs == 2
    state, result = finish(tmp_path)
    assert result.epochs == 4
    require_equal(state, uninterrupted()[0])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_other_optimizers_resume_too(tmp_path, optimizer):
    settings = {"momentum": 0.9} if optimizer == "sgd" else {"weight_decay": 0.1}
    config = TrainConfig(epochs=4, optimizer=optimizer, lr=1e-2, batch_size=20, checkpoint_seconds=0.0, **settings)
    half, walk = hard_run(tmp_path, replace(config, epochs=2))
    half.fit(walk)
    require_equal(finish(tmp_path, config)[0], uninterrupted(config)[0])


def test_full_batch_resumes(tmp_path):
    config = replace(HARD, batch_size=None, epochs=6)
    half, walk = hard_run(tmp_path, replace(config, epochs=3))
    half.fit(walk)
    require_equal(finish(tmp_path, config)[0], uninterrupted(config)[0])


def test_a_finished_run_is_only_evaluated(tmp_path):
    trainer, walk = hard_run(tmp_path)
    first = trainer.fit(walk)
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["progress"]["seconds"]
    again, walk = hard_run(tmp_path)
    assert again.resume()
    second = again.fit(lambda _: pytest.fail("took a step"))
    require_same_result(second, first)
    assert second.seconds >= stored > 0


def test_checkpoints_do_not_change_the_run(tmp_path):
    trainer, walk = hard_run(tmp_path)
    trainer.fit(walk)
    require_equal(fingerprint(trainer, walk), uninterrupted()[0])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_nothing_to_resume(tmp_path):
    trainer, _ = hard_run(tmp_path / "empty")
    assert not trainer.resume()
    with pytest.raises(InputError, match="has no folder to resume from"):
        hard_run()[0].resume()


def test_global_random_state_is_left_alone():
    trainer, walk = hard_run()
    torch.manual_seed(11)
    before = torch.get_rng_state()
    trainer.fit(walk)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    require_equal(fingerprint(trainer, walk), uninterrupted()[0])
