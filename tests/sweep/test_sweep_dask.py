"""A real Dask cluster of two processes: equal numbers, a killed worker, joining by address."""

import json
import logging
import os
import signal
import sys

import example_experiments as examples
import pytest
import xarray as xr

from learnmech.errors import InputError
from learnmech.sweep import Sweep, status

distributed = pytest.importorskip("distributed")

GRID = {"seed": range(6), "rate": [0.5, 2.0]}


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
    ) as running:
        yield running


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return Sweep(examples.simple, GRID).run(out=tmp_path_factory.mktemp("here"))


def test_joining_by_address_gives_the_numbers_of_this_process(cluster, expected, tmp_path):
    result = Sweep(examples.simple, GRID).run(cluster.scheduler_address, tmp_path)
    xr.testing.assert_equal(result, expected)
    assert len(cluster.scheduler_info["workers"]) == 2  # still running


def test_stacks_and_shards_on_a_cluster(cluster, tmp_path):
    sweep = Sweep(examples.STACKED, GRID, fixed={"traces": str(tmp_path / "traces")})
    with distributed.Client(cluster, set_as_default=False) as client:
        sweep.run(client, tmp_path / "out", shard=(0, 2))
        assert status(tmp_path / "out").done == 6
        result = sweep.run(client, tmp_path / "out", shard=(1, 2))
    assert len(examples.traces(tmp_path / "traces", "stack")) == 12
    xr.testing.assert_equal(result, sweep.run(out=tmp_path / "here"))


def test_a_worker_killed_half_way_loses_nothing(cluster, tmp_path):
    fixed = {"traces": str(tmp_path / "traces"), "pause": 0.1}
    sweep = Sweep(examples.simple, GRID, fixed=fixed)
    killed = []
    with distributed.Client(cluster, set_as_default=False) as client:

        def kill(done, total):
            if done == 4 and not killed:
                killed.append(next(iter(client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)

        result = sweep.run(client, tmp_path / "out", on_cell=kill)
        assert client.submit(int, "7").result() == 7  # the caller's client stays open
    assert killed
    assert result.attrs["cells_done"] == 12
    assert json.loads(result.attrs["failures"]) == []
    assert 12 <= len(examples.traces(fixed["traces"])) <= 14  # only what the killed worker had in hand is run again
    xr.testing.assert_equal(result, sweep.run(out=tmp_path / "here"))


def test_a_cell_that_kills_every_worker_is_recorded_and_the_rest_goes_on(cluster, tmp_path):
    """Dask blames all that the worker had in hand; run alone, the innocent ones are done."""
    traces = tmp_path / "traces"
    sweep = Sweep(examples.lethal, {"seed": [0, 2, 3, 4, 5], "rate": [1.0]}, fixed={"traces": str(traces)})
    with distributed.Client(cluster, set_as_default=False) as client:
        client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 0))
        result = sweep.run(client, tmp_path / "out")
    (failure,) = json.loads(result.attrs["failures"])
    assert failure["point"] == {"seed": 2, "rate": 1.0}
    assert "KilledWorker" in failure["error"]
    assert result.attrs["cells_done"] == 4
    assert len([name for name in examples.traces(traces) if name.startswith("run-2-")]) == 2


def test_a_cluster_started_and_stopped_by_the_sweep(tmp_path):
    def local(config):  # sent by value: it has no name that a worker could import
        return examples.curve(config)

    sweep = Sweep(local, {"seed": [0, 1], "rate": [1.0]})
    here = sweep.run(out=tmp_path / "here")
    xr.testing.assert_equal(sweep.run("dask", tmp_path / "dask", workers=1), here)


def test_an_address_where_nobody_answers(tmp_path, monkeypatch):
    from learnmech.sweep import dask_cluster

    monkeypatch.setattr(dask_cluster, "_CONNECT_SECONDS", 0.5)
    with pytest.raises(InputError, match="no Dask scheduler answers at"):
        Sweep(examples.numbers, {"seed": [0], "rate": [1.0]}).run("tcp://127.0.0.1:9", tmp_path)


@pytest.mark.parametrize("executor", ["dask", "tcp://127.0.0.1:9"])
def test_without_dask_the_extra_is_named(executor, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'learnmech\[cluster\]'"):
        Sweep(examples.numbers, {"seed": [0], "rate": [1.0]}).run(executor, tmp_path)
