"""The data model: what it accepts, what it refuses by name, and that files are whole or absent."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import xarray as xr

from learnmech import history
from learnmech.errors import HistoryError, StorageError
from learnmech.files import require_writable_folder, write_atomically

MEANING = {"long_name": "load", "units": "nat", "source": "test"}


def make(seed: int = 0, steps: tuple[int, ...] = (0, 10, 20)) -> xr.Dataset:
    load = np.random.default_rng(seed).normal(size=(len(steps), 3))
    return history.build(
        {"load": (("step", "layer"), load, MEANING), "loss": (("step",), load[:, 0], MEANING)},
        {"step": list(steps), "layer": ["input", "hidden<0>", "read-out"], "depth": ("layer", [0, 0.5, 1])},
        config={"seed": seed},
        attributes={"seed": seed, "instruments": ["springs"]},
    )


def test_build_keeps_values_and_says_what_made_them():
    run = make()
    assert run["load"].dims == ("step", "layer")
    assert json.loads(run.attrs["config"]) == {"seed": 0}
    assert json.loads(run.attrs["instruments"]) == ["springs"]
    assert run.attrs["config_fingerprint"] == history.fingerprint_config({"seed": 0})


def test_round_trip(tmp_path):
    run = make()
    path = history.save(run, tmp_path / "deep" / "history.nc")
    again = history.load(path)
    xr.testing.assert_identical(again, run)
    xr.testing.assert_identical(history.load(path.parent), run)  # a run folder will do
    assert [file.name for file in path.parent.iterdir()] == ["history.nc"]


def test_nan_and_booleans_survive(tmp_path):
    run = make()
    run["load"][0, 0] = np.nan
    run["dead"] = (("layer",), np.array([True, False, True]), MEANING)
    again = history.load(history.save(run, tmp_path / "history.nc"))
    assert np.isnan(again["load"][0, 0])
    assert again.dead.values.astype(bool).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["load"].attrs.pop("source"), "variable 'load' lacks the attribute 'source'"),
        (lambda d: d["load"].attrs.pop("units"), r"variable 'load' lacks the attribute 'units' \(or 'scale'\)"),
        (lambda d: d.attrs.pop("config"), "lacks the attribute 'config'"),
        (lambda d: d.attrs.update(config="{"), "must be JSON"),
        (
            lambda d: d.__setitem__("loss", d.loss.astype(str).assign_attrs(MEANING)),
            "variable 'loss' must hold real numbers",
        ),
        (
            lambda d: d.coords.__setitem__("step", [0, 10, 10]),
            r"'step' must increase strictly, but holds \[0, 10, 10\]",
        ),
        (lambda d: d.coords.__setitem__("layer", ["a", "b", "a"]), r"\['a'\] more than once"),
        (lambda d: d.coords.__setitem__("depth", ("layer", [0, 1, 2])), r"'depth' must lie in \[0, 1\]"),
        (
            lambda d: d.__setitem__("odd", (("width",), [1.0], MEANING)),
            "variable 'odd' has the dimension 'width' without",
        ),
    ],
)
def test_validate_names_what_offends(change, message):
    run = make()
    change(run)
    with pytest.raises(HistoryError, match=message):
        history.validate(run)


def test_build_names_what_does_not_fit():
    with pytest.raises(HistoryError, match="variable 'load' has 1 dimensions"):
        history.build({"load": (("step", "layer"), [1.0], MEANING)}, {"step": [0]})
    with pytest.raises(HistoryError, match="do not fit together"):
        history.build({"load": (("step",), [1.0, 2.0], MEANING)}, {"step": [0]})
    with pytest.raises(HistoryError, match=r"xarray\.Dataset"):
        history.validate({"load": 1})


def test_concat_joins_seeds_and_fills_missing_steps():
    joined = history.concat([make(0), make(1, (0, 10, 30))], "seed_axis", [0, 1])
    assert joined["load"].dims == ("seed_axis", "step", "layer")
    assert joined.step.values.tolist() == [0, 10, 20, 30]
    assert np.isnan(joined["load"].sel(seed_axis=1, step=20)).all()
    np.testing.assert_array_equal(joined["load"].sel(seed_axis=0, step=20), make(0)["load"].sel(step=20))
    assert json.loads(joined.attrs["config"]) == [{"seed": 0}, {"seed": 1}]


def test_concat_refuses_what_does_not_belong_together():
    with pytest.raises(HistoryError, match="2 histories and 1 values"):
        history.concat([make(), make(1)], "run", [0])
    with pytest.raises(HistoryError, match="must all differ"):
        history.concat([make(), make(1)], "run", [0, 0])
    with pytest.raises(HistoryError, match="run 1 differs from run 0 in the variables"):
        history.concat([make(), make(1).drop_vars("loss")], "run", [0, 1])
    with pytest.raises(HistoryError, match="run 1 has the layers"):
        history.concat([make(), make(1).assign_coords(layer=["a", "b", "c"])], "run", [0, 1])


@pytest.mark.parametrize("content", [b"", b"not netCDF at all", b"\x89HDF\r\n\x1a\n" + b"\0" * 50])
def test_a_corrupt_file_is_one_clear_error(tmp_path, content):
    path = tmp_path / "history.nc"
    path.write_bytes(content)
    with pytest.raises(HistoryError, match=r"history\.nc"):
        history.load(path)


def test_a_truncated_file_is_one_clear_error(tmp_path):
    path = history.save(make(), tmp_path / "history.nc")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(HistoryError, match="not a readable netCDF"):
        history.load(path)


def test_other_netcdf_files_and_missing_ones(tmp_path):
    xr.Dataset({"x": ("t", [1.0])}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(HistoryError, match="does not hold a history: variable 'x'"):
        history.load(tmp_path / "other.nc")
    with pytest.raises(HistoryError, match="there is no history at"):
        history.load(tmp_path / "nothing.nc")


def test_a_full_disk_keeps_the_earlier_file(tmp_path):
    """RLIMIT_FSIZE makes the real write fail part-way, as a full disk does; in a process of its own."""
    path = history.save(make(0), tmp_path / "history.nc")
    before = path.read_bytes()
    script = f"""
        import resource, signal, sys
        sys.path.insert(0, {str(__import__("pathlib").Path(__file__).parent)!r})
        from test_history import make
        from learnmech import history
        from learnmech.errors import StorageError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            history.save(make(1), {str(path)!r})
        except StorageError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert "could not write" in done.stdout
    assert "Nothing that stood there before was changed" in done.stdout
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["history.nc"]


def test_an_unwritable_folder_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="could not write"):
        write_atomically(tmp_path / "file" / "history.nc", b"x")
    with pytest.raises(StorageError, match="could not write"):
        require_writable_folder(tmp_path / "file" / "runs")
    assert require_writable_folder(tmp_path / "runs").is_dir()
    assert list((tmp_path / "runs").iterdir()) == []


def test_fingerprints_are_stable_across_processes():
    script = "from learnmech import history; import numpy; print(history.fingerprint_data(numpy.arange(3.0)), history.fingerprint_config({'b': 1, 'a': (1, 2)}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        history.fingerprint_data(np.arange(3.0)),
        history.fingerprint_config({"a": [1, 2], "b": 1}),
    ]
