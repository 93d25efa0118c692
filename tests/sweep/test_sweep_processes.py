"""Processes: killed workers, a killed sweep, two sweeps in one folder."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import example_experiments as examples
import numpy as np
import pytest
import xarray as xr

from learnmech.errors import LearnmechError
from learnmech.sweep import Sweep, status

HERE = Path(__file__).parent
PROGRAM = """
import sys
sys.path.insert(0, {here!r})
import example_experiments
from learnmech.sweep import Sweep
experiment = getattr(example_experiments, {experiment!r})
Sweep(experiment, {grid!r}, fixed={fixed!r}).run(out={out!r})
"""


def start(experiment, grid, fixed, out):
    program = PROGRAM.format(here=str(HERE), experiment=experiment, grid=grid, fixed=fixed, out=str(out))
    return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_processes_give_the_numbers_of_one_and_survive_a_killed_worker(tmp_path):
    """Seed 1 kills its worker once and is run again; seed 2 each time, and is recorded as failed."""
    traces = tmp_path / "traces"
    sweep = Sweep(examples.lethal, {"seed": [0, 1, 2, 3], "rate": [0.5]}, fixed={"traces": str(traces)})
    result = sweep.run("processes", tmp_path / "out", workers=2)
    (failure,) = json.loads(result.attrs["failures"])
    assert failure["point"] == {"seed": 2, "rate": 0.5}
    assert failure["error"].startswith("the worker died each time")
    assert [name.startswith("run-2-") for name in examples.traces(traces)].count(True) == 3
    # One more trace keeps seed 1 alive here.
    (traces / "run-1-extra").touch()
    gentle = Sweep(examples.lethal, {"seed": [0, 1, 3], "rate": [0.5]}, fixed={"traces": str(traces)})
    here = gentle.run(out=tmp_path / "here")
    for name in ("loss", "load", "total"):
        xr.testing.assert_equal(result[name].sel(seed=[0, 1, 3]), here[name])


def test_killed_half_way_and_run_again_is_as_if_never_killed(tmp_path):
    grid = {"seed": list(range(8)), "rate": [1.0]}
    fixed = {"traces": str(tmp_path / "traces"), "pause": 0.1}
    out = tmp_path / "out"
    running = start("simple", grid, fixed, out)
    cells = out / "cells"
    wait_for(lambda: cells.is_dir() and len(list(cells.iterdir())) >= 3)
    running.kill()
    running.wait()
    running.stderr.close()
    assert running.returncode == -signal.SIGKILL
    done = status(out).done
    assert 3 <= done < 8
    finished = {path.parent.name: path.stat().st_mtime_ns for path in cells.glob("*/history.nc")}

    result = Sweep(examples.simple, grid, fixed=fixed).run(out=out)
    assert result.attrs["cells_done"] == 8
    assert {name: (cells / name / "history.nc").stat().st_mtime_ns for name in finished} == finished
    # Each finished cell was run once; the one that was cut off may have been begun twice.
    assert 8 <= len(examples.traces(fixed["traces"])) <= 9
    xr.testing.assert_equal(result, Sweep(examples.simple, grid, fixed=fixed).run(out=tmp_path / "whole"))


def test_two_sweeps_in_one_folder_at_once(tmp_path):
    grid = {"seed": list(range(8)), "rate": [1.0]}
    fixed = {"pause": 0.05}
    out = tmp_path / "out"
    other = start("simple", grid, fixed, out)
    wait_for((out / "cells").is_dir)
    result = Sweep(examples.simple, grid, fixed=fixed).run(out=out)
    _, errors = other.communicate(timeout=120)
    assert other.returncode == 0, errors
    xr.testing.assert_equal(result, Sweep(examples.simple, grid, fixed=fixed).run(out=tmp_path / "alone"))
    assert not any((out / "staging").iterdir())


def test_ctrl_c_stops_processes_and_keeps_what_is_finished(tmp_path):
    sweep = Sweep(examples.simple, {"seed": range(20), "rate": [1.0]}, fixed={"pause": 0.05})

    def stop(done, total):
        if done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        sweep.run("processes", tmp_path, workers=1, on_cell=stop)
    done = status(tmp_path).done
    assert 3 <= done < 20
    assert np.isfinite(sweep.run(out=tmp_path)["loss"]).all()


def test_a_pool_of_the_caller_that_breaks_is_an_error_that_says_what_to_do(tmp_path):
    class Broken:
        def submit(self, function, *arguments):
            raise BrokenProcessPool("a process was terminated")

    with pytest.raises(LearnmechError, match="Finished cells are safe"):
        Sweep(examples.numbers, {"seed": [0], "rate": [1.0]}).run(Broken(), tmp_path)
    with ProcessPoolExecutor(1) as pool, pytest.raises(LearnmechError, match="must be importable by the workers"):
        Sweep(lambda config: {"value": 1.0}, {"seed": [0]}).run(pool, tmp_path / "other")
