"""The benchmarks run and print one line of JSON of the promised shape. No timing is asserted."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PRESETS = {"light", "standard", "full"}
NAMES = (
    "adaptive_steps",
    "agf_greedy",
    "agf_vs_flow",
    "autoscale_mnist",
    "identity_cost",
    "import_time",
    "invariants_overhead",
    "langevin",
    "leaky_training",
    "ntk",
    "phase_diagram",
    "probe_overhead",
    "separation",
    "speed_exactness",
    "speed_law",
    "speed_overhead",
    "spring_simulation",
    "stacked_training",
)


# One process for all of them: importing torch anew for each would take longer than the quick runs do.
RUN_ALL = """
import contextlib, io, json, pathlib, runpy, sys
folder, *names = sys.argv[1:]
printed = {}
for name in names:
    path = str(pathlib.Path(folder) / f"{name}.py")
    sys.argv = [path, "--quick"]
    print(name, "...", file=sys.stderr)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        runpy.run_path(path, run_name="__main__")
    printed[name] = out.getvalue().splitlines()
print(json.dumps(printed))
"""


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, str(BENCHMARKS), *NAMES],
        cwd=tmp_path_factory.mktemp("benchmarks"),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=480,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert {name: len(found) for name, found in printed.items()} == dict.fromkeys(NAMES, 1)
    return {name: json.loads(found[0]) for name, found in printed.items()}


def test_every_benchmark_is_tested(lines):
    assert {path.stem for path in BENCHMARKS.glob("*.py")} == set(lines)


def test_common_fields(lines):
    import torch

    for name, line in lines.items():
        assert set(line) == {"benchmark", "settings", "results", "torch", "threads"}
        assert line["benchmark"] == name
        assert line["settings"]["quick"] is True
        assert line["settings"]["rounds"] >= 1
        assert line["torch"] == torch.__version__
        assert line["threads"] == 1


def test_probe_overhead(lines):
    results = lines["probe_overhead"]["results"]
    assert set(results) == {"mlp", "cnn", "transformer"}
    for result in results.values():
        assert result["step_cpu_ms"] > 0
        assert set(result["price"]) == set(result["every_50_slowdown"]) == PRESETS
        for preset in PRESETS:
            assert math.isclose(result["every_50_slowdown"][preset], result["price"][preset] / 50, abs_tol=2e-4)


def test_separation_routes_agree(lines):
    results = lines["separation"]["results"]
    assert set(results["difference"]) == {"trace", "pinv"}
    assert max(results["difference"].values()) < 1e-8
    assert set(results["ratio"]) == {"pinv_route_over_pinv", "pinv_route_over_trace", "matrices_over_trace"}
    assert all(ratio > 0 for ratio in results["ratio"].values())


def test_import_time(lines):
    results = lines["import_time"]["results"]
    assert set(results["wall_s"]) == {"torch", "torch_learnmech", "torch_learnmech_watch", "help"}
    assert set(results["added_to_torch_s"]) == {"torch_learnmech", "torch_learnmech_watch"}
    assert all(seconds > 0 for seconds in results["wall_s"].values())


def test_spring_simulation(lines):
    results = lines["spring_simulation"]["results"]
    assert set(results) == {"ns", "ratio", "phase_diagram_s"}
    assert set(results["ns"]) == {"simulate", "normals", "python_loop", "numpy_loop", "numpy_chains"}
    assert set(results["ratio"]) == {"python_loop", "numpy_loop", "numpy_chains", "over_normals"}
    assert all(value > 0 for value in (*results["ns"].values(), *results["ratio"].values()))


def test_langevin(lines):
    results = lines["langevin"]["results"]
    assert set(results["ns"]) == {"langevin", "stick_slip", "normals", "numpy_chains"}
    assert set(results["ratio"]) == {
        "numpy_chains_over_langevin",
        "numpy_chains_over_stick_slip",
        "langevin_over_normals",
    }
    assert all(value > 0 for value in (*results["ns"].values(), *results["ratio"].values()))


def test_stacked_training(lines):
    results = lines["stacked_training"]["results"]["member_steps_per_s"]
    assert set(results) == {"clean", "noisy"}
    for batches in results.values():
        assert set(batches) == {"10", "160", "2560"}
        for speeds in batches.values():
            assert set(speeds) == {"stacked", "one_at_a_time", "ratio"}
            assert all(speed > 0 for speed in speeds.values())


def test_phase_diagram(lines):
    results = lines["phase_diagram"]["results"]
    assert set(results) == {"in_process", "processes"}
    for result in results.values():
        assert set(result) == {"wall_s", "cells_per_minute", "share_outside_training"}
        assert result["cells_per_minute"] > 0
        assert 0 <= result["share_outside_training"] < 1


def test_speed_overhead(lines):
    results = lines["speed_overhead"]["results"]
    assert set(results) == {"mlp", "mlp_batch_512", "cnn", "transformer"}
    for result in results.values():
        price = result["price"]
        assert set(price) == {"measure", "again", "again_without_real_step", "again_gradient_descent", "layers"}
        assert all(value > 0 for value in price.values())
    assert set(results["mlp"]["memory"]) == {"training_mib", "measuring_mib", "ratio"}
    assert results["transformer"]["method"] == "forward-mode, math attention"


def test_speed_exactness(lines):
    results = lines["speed_exactness"]["results"]
    assert set(results) == {"mlp_relu", "mlp_tanh", "cnn_batchnorm", "transformer"}
    for net in results.values():
        assert net["float32"]["formula"] < 1e-6
        assert net["float64"]["formula"] < 1e-12


def test_autoscale_mnist(lines):
    results = lines["autoscale_mnist"]["results"]
    assert set(results) == {"torch", "he", "autoscaled"}
    tried = [*results["torch"]["rates"].values(), *results["he"]["rates"].values(), results["autoscaled"]]
    for start in tried:
        assert 0 <= start["mean_accuracy"] <= 1
        assert len(start["accuracy"]) == len(start["loss"]) == 3


def test_speed_law(lines):
    results = lines["speed_law"]["results"]
    limits = results.pop("residual_limits")
    assert set(limits) == {"0.5", "1.0", "2.0", "4.0"}
    assert set(results) == {"mlp", "linear", "orthogonal", "residual", "mlp_batch_32", "residual_batch_32"}
    for row in results.values():
        assert len(row["cosine"]) == len(row["layers"])
        assert all(0 < value <= 1 + 1e-6 for value in row["cosine"])
    assert results["orthogonal"]["cosine"] == pytest.approx([1.0] * 4, abs=1e-3)


def test_agf_greedy(lines):
    results = lines["agf_greedy"]["results"]
    assert set(results) == {"greedy", "adam", "adam_short", "random_start"}
    for widths in results.values():
        assert set(widths) == {"2", "4"}
        for found in widths.values():
            assert set(found) == {"test_rmse", "train_loss", "seconds", "search_s"}
            assert found["test_rmse"] > 0


def test_agf_vs_flow(lines):
    results = lines["agf_vs_flow"]["results"]
    assert set(results) == {"linear", "diagonal", "linear_attention"}
    for found in results.values():
        assert found["jumps"] >= 2
        assert found["ratio"] > 0
        assert 0 <= found["largest_time_error"] < 0.5
        assert 0 <= found["largest_level_error"] < 0.2
