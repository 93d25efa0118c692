"""A sweep in this process: folders, failures, what is run again and what is not."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import example_experiments as examples
import numpy as np
import pytest
import torch
import xarray as xr

from learnmech import history as histories
from learnmech.errors import InputError, StorageError
from learnmech.sweep import Sweep, collect, retry, status
from learnmech.sweep import staging as staging_module

GRID = {"seed": [0, 1, 2], "rate": [0.5, 2.0]}


def folders(out):
    return sorted(path.name for path in (out / "cells").iterdir())


def test_cells_stand_in_folders_and_come_back_as_one_history(tmp_path):
    sweep = Sweep(examples.simple, GRID, fixed={"traces": str(tmp_path / "traces")})
    result = sweep.run(out=tmp_path / "out")
    assert result["loss"].dims == ("seed", "rate", "step")
    assert result["load"].dims == ("seed", "rate", "step", "layer")
    assert result["count"].dtype.kind == "i"
    assert result["count"].sel(rate=2.0).values.tolist() == [0, 1, 2]
    assert result["rate"].values.tolist() == [0.5, 2.0]
    assert folders(tmp_path / "out") == sorted(cell.name for cell in sweep.cells)
    cell = sweep.cells[3]
    folder = tmp_path / "out" / "cells" / cell.name
    assert json.loads((folder / "config.json").read_text())["config"] == {**sweep.fixed, "seed": 1, "rate": 2.0}
    own = histories.load(folder)
    xr.testing.assert_equal(own["loss"], result["loss"].sel(seed=1, rate=2.0, drop=True))
    assert 0 < own.attrs["seconds"] < 10
    assert json.loads(result.attrs["config"])["grid"] == {"rate": [0.5, 2.0], "seed": [0, 1, 2]}
    assert histories.load(histories.save(result, tmp_path / "all.nc")).equals(result)
    assert not any((tmp_path / "out" / "staging").iterdir())
    assert collect(tmp_path / "out").identical(result)


def test_nothing_is_run_twice_and_a_larger_grid_runs_what_is_new(tmp_path):
    traces = tmp_path / "traces"
    fixed = {"traces": str(traces)}
    first = Sweep(examples.simple, GRID, fixed=fixed).run(out=tmp_path / "out")
    again = Sweep(examples.simple, GRID, fixed=fixed).run(out=tmp_path / "out")
    assert again.identical(first)
    assert len(examples.traces(traces)) == 6
    # The order of axes and values, and 2 for 2.0, make no difference to what a cell is.
    larger = Sweep(examples.simple, {"rate": [2, 1, 0.5], "seed": (3, 2, 1, 0)}, fixed=fixed).run(out=tmp_path / "out")
    assert len(examples.traces(traces)) == 12
    assert larger["loss"].dims == ("rate", "seed", "step")
    xr.testing.assert_equal(
        larger["loss"].sel(seed=first.seed, rate=first.rate).transpose(*first["loss"].dims), first["loss"]
    )
    assert status(tmp_path / "out").total == 12


def test_a_setting_that_becomes_an_axis_keeps_its_cells(tmp_path):
    traces = {"traces": str(tmp_path / "traces")}
    Sweep(examples.simple, {"seed": [0, 1]}, fixed={"rate": 1.0, **traces}).run(out=tmp_path / "out")
    Sweep(examples.simple, {"seed": [0, 1], "rate": [1.0, 2.0]}, fixed=traces).run(out=tmp_path / "out")
    assert len(examples.traces(tmp_path / "traces")) == 4


def test_a_failing_cell_is_recorded_and_the_rest_goes_on(tmp_path):
    out, traces = tmp_path / "out", tmp_path / "traces"
    sweep = Sweep(examples.fragile, GRID, fixed={"traces": str(traces)})
    seen = []
    result = sweep.run(out=out, on_cell=lambda done, total: seen.append((done, total)))
    assert seen == [(count, 6) for count in range(7)]
    assert np.isnan(result["loss"].sel(seed=1)).all()
    assert np.isfinite(result["loss"].sel(seed=[0, 2])).all()
    assert result["count"].dtype.kind == "f"
    failures = json.loads(result.attrs["failures"])
    assert [failure["point"] for failure in failures] == [{"rate": rate, "seed": 1} for rate in (0.5, 2.0)]
    assert failures[0]["error"] == "ValueError: seed 1 is not to be had"
    assert "in fragile" in (out / "cells" / failures[0]["cell"] / "error.txt").read_text()
    assert [result.attrs[f"cells_{name}"] for name in ("total", "done", "failed", "missing")] == [6, 4, 2, 0]
    standing = status(out)
    assert (standing.total, standing.done, standing.failed, standing.missing) == (6, 4, 2, 0)
    assert standing.seconds > 0
    assert "failed: seed=1, rate=0.5: ValueError" in str(standing)

    sweep.run(out=out)
    assert len(examples.traces(traces)) == 6  # left alone
    retry(out)
    assert len(examples.traces(traces)) == 8  # failed again
    assert status(out).failed == 2
    (traces / "mended").touch()
    mended = retry(out)
    assert len(examples.traces(traces)) == 10
    assert np.isfinite(mended["loss"]).all()
    assert json.loads(mended.attrs["failures"]) == []
    assert status(out).done == 6
    assert not any((out / "staging").iterdir())


def test_numbers_become_a_history(tmp_path):
    result = Sweep(examples.numbers, {"rate": [0.5], "seed": np.arange(3)}).run(out=tmp_path)
    assert result["sum"].values.tolist() == [[0.5, 1.5, 2.5]]
    assert result["product"].attrs["source"] == "example_experiments:numbers"


def test_what_is_no_result_is_a_failure_that_says_so(tmp_path):
    cases = {
        "text": lambda config: {"loss": "low"},
        "nothing": lambda config: None,
        "axis": lambda config: {"seed": 1.0},
    }
    for name, experiment in cases.items():
        result = Sweep(experiment, {"seed": [0]}).run(out=tmp_path / name)
        (failure,) = json.loads(result.attrs["failures"])
        assert failure["error"].startswith("HistoryError: "), name


def test_the_global_generators_are_seeded_by_the_cell_and_left_as_they_were(tmp_path):
    def draw(config):
        return {"a": random.random(), "b": np.random.rand(), "c": torch.rand(1), "seed_given": config["seed"]}

    whole = Sweep(draw, {"seed": [0, 1]}).run(out=tmp_path / "whole")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    part = Sweep(draw, {"seed": [1]}).run(out=tmp_path / "part")
    assert torch.rand(1) == expected
    xr.testing.assert_equal(part, whole.sel(seed=[1]))
    assert float(whole["c"].sel(seed=0)) != float(whole["c"].sel(seed=1))


def test_shards_are_disjoint_and_together_everything(tmp_path):
    traces = tmp_path / "traces"
    sweep = Sweep(examples.simple, GRID, fixed={"traces": str(traces)})
    counts = []
    for number in range(4):
        sweep.run(out=tmp_path / "out", shard=(number, 4))
        counts.append(status(tmp_path / "out").done)
    assert counts == [2, 4, 5, 6]
    assert len(examples.traces(traces)) == 6


def test_an_object_with_submit(tmp_path):
    expected = Sweep(examples.numbers, GRID).run(out=tmp_path / "here")
    with ThreadPoolExecutor(3) as pool:
        result = Sweep(examples.numbers, GRID).run(pool, tmp_path / "pool")
        assert pool.submit(int, "7").result() == 7  # still open
    xr.testing.assert_equal(result, expected)


def test_ctrl_c_keeps_what_is_finished(tmp_path):
    def interrupted(config):
        if config["seed"] == 2 and config["rate"] == 0.5 and not (tmp_path / "going on").exists():
            raise KeyboardInterrupt
        return examples.curve(config)

    sweep = Sweep(interrupted, GRID)
    with pytest.raises(KeyboardInterrupt) as raised:
        sweep.run(out=tmp_path / "out")
    assert "4 of 6 cells" in raised.value.__notes__[0]
    assert status(tmp_path / "out").done == 4
    (tmp_path / "going on").touch()
    assert sweep.run(out=tmp_path / "out").attrs["cells_done"] == 6


def test_a_disk_that_is_full_loses_nothing_that_was_finished(tmp_path, monkeypatch):
    sweep = Sweep(examples.numbers, {"rate": [1.0], "seed": range(8)})
    real, calls = staging_module.write_cell, []

    def full(folder, record):
        calls.append(record.name)
        if len(calls) > 2:
            raise StorageError("no space left on device")
        real(folder, record)

    monkeypatch.setattr(staging_module, "write_cell", full)
    with pytest.raises(StorageError, match=r"no space left.*Finished cells are safe"):
        sweep.run(out=tmp_path)
    assert len(calls) == 5  # three in vain are enough
    assert status(tmp_path).done == 2
    monkeypatch.undo()
    assert sweep.run(out=tmp_path).attrs["cells_done"] == 8


def test_an_unwritable_folder_is_refused_before_anything_is_computed():
    with pytest.raises(StorageError, match="could not write"):
        Sweep(examples.lethal, {"seed": [2]}).run(out="/proc/nothing/here")


@dataclass(frozen=True)
class Bound:
    factor: float

    def __call__(self, config):
        return {"value": self.factor * config["seed"]}


DOUBLE = Bound(2.0)


def test_how_experiments_are_named():
    assert Sweep(examples.simple, GRID).reference.text == "example_experiments:simple"
    assert Sweep("example_experiments:simple", GRID).cells == Sweep(examples.simple, GRID).cells
    assert Sweep(DOUBLE, GRID).reference.text == f"{__name__}:DOUBLE"
    loose = Sweep(Bound(3.0), GRID).reference
    assert loose.text.startswith(f"{__name__}:Bound#")
    assert "bind one" in loose.obstacle
    assert Sweep(replace(DOUBLE, factor=4.0), GRID).reference.text != loose.text

    def closure(number):
        return lambda config: {"value": number}

    one, other, same = (Sweep(closure(number), GRID).reference for number in (1, 2, 1))
    assert one == same
    assert one.text != other.text
    assert "lambda" in one.obstacle


def test_an_experiment_that_cannot_be_imported_says_so_when_the_folder_is_run_again(tmp_path):
    Sweep(lambda config: {"value": 1.0}, {"seed": [0]}).run(out=tmp_path)
    with pytest.raises(InputError, match="lambda or defined inside a function"):
        Sweep.stored(tmp_path)
    assert status(tmp_path).done == 1
    with pytest.raises(InputError, match="give each experiment a folder of its own"):
        Sweep(examples.simple, GRID).run(out=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((7, GRID), "experiment must be a function"),
        ((print, GRID), "dataclass with __call__"),
        (("nonsense", GRID), "module:qualname"),
        (("no.such.module:make", GRID), "could not be imported"),
        (("example_experiments:LOSS", GRID), "must be callable"),
        ((examples.simple, {}), "at least one axis"),
        ((examples.simple, {"seed": "012"}), "sequence of numbers or strings"),
        ((examples.simple, {"seed": 3}), "sequence of numbers or strings"),
        ((examples.simple, {"seed": []}), "has no values"),
        ((examples.simple, {"seed": [1, 1.0]}), "must all differ"),
        ((examples.simple, {"seed": [1, "a"]}), "numbers only, or strings only"),
        ((examples.simple, {"seed": [None]}), "numbers only, or strings only"),
        ((examples.simple, {"seed": [float("nan")]}), "NaN"),
        ((examples.simple, {"step": [1]}), "cannot be called 'step'"),
        ((examples.simple, {"depth": [1]}), "net_depth"),
        ((examples.simple, {"a/b": [1]}), "without '/'"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        Sweep(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out": None}, "out is missing"),
        ({"shard": (4, 4)}, "0 <= i < n"),
        ({"shard": "0/4"}, "0 <= i < n"),
        ({"executor": "cluster"}, "executor must be"),
        ({"executor": 3}, "executor must be"),
        ({"workers": 2}, "'processes' and 'dask' only"),
        ({"executor": "processes", "workers": 0}, "positive integer"),
        ({"threads": 0}, "positive integer"),
    ],
)
def test_bad_arguments_of_run(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        Sweep(examples.numbers, GRID).run(**{"out": tmp_path, **arguments})


def test_bad_settings_and_folders(tmp_path):
    with pytest.raises(InputError, match="fixed setting 'net'"):
        Sweep(examples.simple, GRID, fixed={"net": torch.nn.Linear(1, 1)})
    with pytest.raises(InputError, match="there is no sweep"):
        status(tmp_path)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ValueError, match="lacks"):
        collect(tmp_path)
