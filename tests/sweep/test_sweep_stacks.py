"""Cells that are computed as one: grouping, members that fail, and being killed between two renames."""

import json
import os
import time
from dataclasses import replace

import example_experiments as examples
import numpy as np
import pytest
import xarray as xr

from learnmech.errors import InputError
from learnmech.sweep import Sweep, collect, status
from learnmech.sweep import staging as staging_module
from learnmech.sweep.plan import plan_jobs

GRID = {"seed": range(5), "rate": [0.5, 2.0]}


def make(tmp_path, **fixed):
    return Sweep(examples.STACKED, GRID, fixed={"traces": str(tmp_path / "traces"), **fixed})


def test_groups_follow_from_the_grid(tmp_path):
    sweep = make(tmp_path)
    jobs = plan_jobs(sweep.cells, examples.STACKED, stack=True)
    points = [[tuple(cell.point.values()) for cell in job.cells] for job in jobs]
    assert points == [
        [(0, 0.5), (1, 0.5), (2, 0.5)],
        [(3, 0.5), (4, 0.5)],
        [(0, 2.0), (1, 2.0), (2, 2.0)],
        [(3, 2.0), (4, 2.0)],
    ]
    assert all(job.stacked for job in jobs)
    single = plan_jobs(sweep.cells, examples.STACKED, stack=False)
    assert [len(job.cells) for job in single] == [1] * 10
    with pytest.raises(InputError, match="group_size"):
        plan_jobs(sweep.cells, replace(examples.STACKED, group_size=0), stack=True)


def test_stacked_and_single_give_the_same_cells(tmp_path):
    stacked = make(tmp_path).run(out=tmp_path / "stacked")
    assert len(examples.traces(tmp_path / "traces", "stack")) == 10
    assert examples.traces(tmp_path / "traces", "run") == []
    single = make(tmp_path).run(out=tmp_path / "single", stack=False)
    assert len(examples.traces(tmp_path / "traces", "run")) == 10
    xr.testing.assert_equal(stacked, single)
    about = json.loads(next((tmp_path / "stacked" / "cells").glob("*/config.json")).read_text())
    assert about["stack_size"] in (2, 3)


def test_a_member_that_fails_leaves_the_others(tmp_path):
    result = make(tmp_path, bad=True).run(out=tmp_path / "out")
    assert status(tmp_path / "out").failed == 2
    assert {failure["error"] for failure in json.loads(result.attrs["failures"])} == {"RuntimeError: member 4"}
    assert np.isfinite(result["loss"].sel(seed=[0, 1, 2, 3])).all()


def test_a_stack_that_fails_as_a_whole_is_run_cell_by_cell(tmp_path):
    result = make(tmp_path, broken=True).run(out=tmp_path / "out")
    assert result.attrs["cells_done"] == 10
    assert len(examples.traces(tmp_path / "traces", "run")) == 10


def test_killed_between_two_renames_nothing_is_lost_or_run_again(tmp_path, monkeypatch):
    """The whole group is staged: what was not yet moved to its place is moved by the next run."""
    expected = make(tmp_path).run(out=tmp_path / "expected")
    out = tmp_path / "out"
    real, moved = staging_module._place, []

    def killed(root, folder):
        if len(moved) == 4:
            raise SystemExit("killed")
        moved.append(folder.name)
        real(root, folder)

    monkeypatch.setattr(staging_module, "_place", killed)
    with pytest.raises(SystemExit):
        make(tmp_path).run(out=out)
    monkeypatch.undo()
    assert status(out).done == 4
    (ready,) = (out / "staging").glob("*.ready")
    assert len(list(ready.iterdir())) == 1
    before = len(examples.traces(tmp_path / "traces", "stack"))
    result = make(tmp_path).run(out=out)
    assert len(examples.traces(tmp_path / "traces", "stack")) == before + 5  # the two groups not begun
    assert not any((out / "staging").iterdir())
    xr.testing.assert_equal(result, expected)


def test_a_lost_cell_is_computed_with_its_group_and_finished_ones_are_not_touched(tmp_path):
    out = tmp_path / "out"
    sweep = make(tmp_path)
    expected = sweep.run(out=out)
    lost, kept = sweep.cells[2], sweep.cells[0]  # one group
    for path in (out / "cells" / lost.name).iterdir():
        path.unlink()
    (out / "cells" / lost.name).rmdir()
    before = (out / "cells" / kept.name / "history.nc").stat().st_mtime_ns
    xr.testing.assert_equal(sweep.run(out=out), expected)
    assert (out / "cells" / kept.name / "history.nc").stat().st_mtime_ns == before
    assert len(examples.traces(tmp_path / "traces", "stack")) == 13


def test_halves_are_cleared_away_unless_somebody_still_writes_them(tmp_path):
    out = tmp_path / "out"
    make(tmp_path).run(out=out)
    host = staging_module._host()
    dead = 2**22 + 1  # above the largest process number of Linux
    parts = {
        "dead": out / "staging" / f"{'0' * 16}.{host}.{dead}.abcd.part",
        "alive": out / "staging" / f"{'0' * 16}.{host}.{os.getpid()}.abcd.part",
        "elsewhere": out / "staging" / f"{'0' * 16}.another-host.1.abcd.part",
        "forgotten": out / "staging" / f"{'0' * 16}.another-host.2.abcd.part",
        "replaced": out / "staging" / f"{'0' * 16}.abcd.old",
    }
    for part in parts.values():
        (part / "cell").mkdir(parents=True)
    long_ago = time.time() - 2 * 3600
    os.utime(parts["forgotten"], (long_ago, long_ago))
    make(tmp_path).run(out=out)
    assert {name for name, part in parts.items() if part.exists()} == {"alive", "elsewhere"}
    assert collect(out).attrs["cells_done"] == 10


def test_two_results_for_one_place(tmp_path):
    """The finished cell stays; a failure gives way."""
    out = tmp_path / "out"
    sweep = make(tmp_path)
    sweep.run(out=out)
    first, second = (out / "cells" / cell.name for cell in sweep.cells[:2])
    for name, target in (("late", first), ("better", second)):
        ready = out / "staging" / f"{name}.ready" / target.name
        ready.mkdir(parents=True)
        for path in target.iterdir():
            (ready / path.name).write_bytes(path.read_bytes())
        (ready / "mark").touch()
    (second / "history.nc").unlink()
    (second / "failed.json").write_text('{"error": "before"}')
    sweep.run(out=out)
    assert not (first / "mark").exists()
    assert (second / "mark").exists()
    assert (second / "history.nc").exists()
    assert not any((out / "staging").iterdir())
