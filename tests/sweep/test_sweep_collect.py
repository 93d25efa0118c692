"""Collecting: cells that differ in steps and layers, axes of text, and the fast reader."""

import json

import example_experiments as examples
import numpy as np
import pytest
import xarray as xr

from learnmech import history as histories
from learnmech.errors import HistoryError
from learnmech.sweep import Sweep, collect
from learnmech.sweep.reading import CellReader

MEANING = {"long_name": "a number", "units": "1", "source": "test"}


def test_steps_layers_and_depths_that_differ(tmp_path):
    result = Sweep(examples.varied, {"layers": [2, 4], "seed": [0, 1, 2]}).run(out=tmp_path)
    assert result["step"].values.tolist() == [0, 1, 2, 3, 4, 6, 9]
    assert result["layer"].values.tolist() == [f"hidden.{place}" for place in range(4)]
    for layers in (2, 4):
        for seed in (0, 1, 2):
            own = examples.varied({"layers": layers, "seed": seed})["load"]
            part = result["load"].sel(layers=layers, seed=seed)
            xr.testing.assert_equal(
                part.sel(step=own.step, layer=own.layer).drop_vars(["layers", "seed", "depth"]), own.drop_vars("depth")
            )
            assert int(part.notnull().sum()) == own.size
    assert result["depth"].values.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    own_depth = result["depth_of_cell"].sel(layers=2, seed=1)
    assert own_depth.values[:2].tolist() == [0, 1]
    assert np.isnan(own_depth.values[2:]).all()
    assert result["role"].values.tolist() == ["block"] * 4
    assert result["last"].dtype.kind == "i"
    assert histories.load(histories.save(result, tmp_path / "all.nc")).equals(result)


def test_equal_to_concat_where_both_apply(tmp_path):
    result = Sweep(examples.varied, {"seed": [0, 2, 5]}, fixed={"layers": 3}).run(out=tmp_path)
    runs = [examples.varied({"layers": 3, "seed": seed}) for seed in (0, 2, 5)]
    xr.testing.assert_equal(result, histories.concat(runs, "seed", [0, 2, 5]))


def test_axes_of_text_and_truth(tmp_path):
    def experiment(config):
        return {"length": len(config["net"]) + 10 * config["norm"]}

    result = Sweep(experiment, {"net": ["mlp", "resnet"], "norm": [False, True]}).run(out=tmp_path)
    assert result["length"].sel(net="resnet", norm=True) == 16
    again = histories.load(histories.save(result, tmp_path / "all.nc"))
    assert again["length"].sel(net="mlp").values.tolist() == [3, 13]


def test_variables_that_only_some_cells_have_and_dimensions_without_a_coordinate(tmp_path):
    def experiment(config):
        variables = {"spread": (("sample",), np.arange(1.0 + config["seed"]), MEANING)}
        if config["seed"]:
            variables["extra"] = ((), 7, MEANING)
        return histories.build(
            variables,
            {"temperature": config["seed"] * 0.5},
            config=config,
            attributes={"seed": config["seed"], "kind": "x"},
        )

    result = Sweep(experiment, {"seed": [0, 2]}).run(out=tmp_path)
    np.testing.assert_equal(result["spread"].values, [[0, np.nan, np.nan], [0, 1, 2]])
    np.testing.assert_equal(result["extra"].values, [np.nan, 7])
    assert result["temperature_of_cell"].values.tolist() == [0.0, 1.0]
    assert result.attrs["kind"] == "x"
    assert "seed" not in result.attrs


def test_cells_that_do_not_fit_together_are_named(tmp_path):
    def experiment(config):
        dims = ("sample",) if config["seed"] else ()
        return histories.build({"value": (dims, np.ones((2,) * len(dims)), MEANING)}, {}, config=config)

    with pytest.raises(HistoryError, match=r"'value' lies along .*'seed': 1"):
        Sweep(experiment, {"seed": [0, 1]}).run(out=tmp_path)


def test_no_cell_at_all_is_a_history_of_nothing(tmp_path):
    result = Sweep(examples.numbers, {"seed": [0, 1], "rate": [1.0]}).run(out=tmp_path, shard=(3, 4))
    assert result.attrs["cells_missing"] == 2
    assert list(result.data_vars) == []
    assert result.sizes == {"seed": 2, "rate": 1}


def test_a_damaged_file_is_named_with_the_cure(tmp_path):
    sweep = Sweep(examples.simple, {"seed": [0, 1], "rate": [1.0]})
    expected = sweep.run(out=tmp_path)
    path = tmp_path / "cells" / sweep.cells[1].name / "history.nc"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(HistoryError, match=f"Remove the folder .*{sweep.cells[1].name}"):
        collect(tmp_path)
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    assert sweep.run(out=tmp_path).equals(expected)


def hard_history():
    return histories.build(
        {
            "whole": (("step", "layer"), np.arange(6).reshape(3, 2), MEANING),
            "single": (("layer",), np.float32([1, 2]), {**MEANING, "scale": "log"}),
            "yes": (("step",), [True, False, True], MEANING),
            "spread": (("step", "sample"), np.eye(3, 4), MEANING),
            "alone": ((), np.nan, MEANING),
            "flow": (("time",), [0.5], MEANING),
        },
        {
            "step": [0, 5, 7],
            "time": [1.5],
            "layer": ["a", "ä"],
            "depth": ("layer", [0.0, 1.0]),
            "role": ("layer", ["input", "block"]),
            "temperature": 3.0,
            "words": ("step", ["x", "", "z"]),
        },
        config={"a": 1},
        attributes={"seed": 3, "shares": [1, 2], "text": "grüße", "number": 2.5},
    )


def test_the_fast_reader_reads_what_the_slow_one_reads(tmp_path):
    for name, history in {"hard": hard_history(), "curve": examples.curve({"seed": 1, "rate": 0.5})}.items():
        path = histories.save(history, tmp_path / f"{name}.nc")
        reader = CellReader()
        slow = histories.load(path)
        for _ in range(2):
            fast = reader._read_fast(path)
            assert fast is not None
            xr.testing.assert_identical(fast, slow)
            assert {key: type(value) for key, value in fast.attrs.items()} == {
                key: type(value) for key, value in slow.attrs.items()
            }
            for variable in slow.variables:
                assert fast[variable].dtype.kind in (slow[variable].dtype.kind, "O")


def test_what_the_fast_reader_does_not_know_it_leaves_to_the_slow_one(tmp_path):
    history = examples.curve({"seed": 1, "rate": 0.5})
    path = tmp_path / "scaled.nc"
    encoding = {"loss": {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -9999}}
    history.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    assert CellReader()._read_fast(path) is None
    xr.testing.assert_identical(CellReader().read(path), histories.load(path))


def test_many_cells_collect_in_a_few_seconds(tmp_path):
    import shutil
    import time

    sweep = Sweep(examples.simple, {"seed": range(60), "rate": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]})
    Sweep(examples.simple, {"seed": [0], "rate": [0.1]}).run(out=tmp_path)
    first = tmp_path / "cells" / sweep.cells[0].name
    for cell in sweep.cells[1:]:
        shutil.copytree(first, tmp_path / "cells" / cell.name)
    description = json.loads((tmp_path / "sweep.json").read_text())
    description["grid"] = [[name, list(values)] for name, values in sweep.axes.items()]
    (tmp_path / "sweep.json").write_text(json.dumps(description))
    started = time.process_time()
    result = collect(tmp_path)
    assert time.process_time() - started < 20  # 2 s on a machine of its own
    assert result.attrs["cells_done"] == 480
    assert np.isfinite(result["loss"]).all()
