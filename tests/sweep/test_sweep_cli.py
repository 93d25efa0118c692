"""The command line of sweeps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import example_experiments as examples
import pytest
from typer.testing import CliRunner

from learnmech.cli_sweep import app
from learnmech.sweep import Sweep, status

GRID = {"seed": [0, 1, 2], "rate": [0.5, 2.0]}


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def begun(tmp_path):
    sweep = Sweep(examples.fragile, GRID, fixed={"traces": str(tmp_path / "traces")})
    sweep.run(out=tmp_path / "out", shard=(0, 3))
    return tmp_path


def test_status_run_and_retry(begun):
    out = begun / "out"
    first = invoke("status", out)
    assert first.exit_code == 0
    assert "fragile: 1 of 6 cells done, 1 failed, 4 to come" in first.stdout
    assert invoke("run", out, "--shard", "1/3").exit_code == 6
    assert status(out).missing == 2
    done = invoke("run", out, "--json")
    assert done.exit_code == 6, done.output
    values = json.loads(done.stdout)
    assert (values["done"], values["failed"], values["missing"]) == (4, 2, 0)
    assert {failure["error"] for failure in values["failures"]} == {"ValueError: seed 1 is not to be had"}
    (begun / "traces" / "mended").touch()
    mended = invoke("retry", out)
    assert mended.exit_code == 0, mended.output
    assert "6 of 6 cells done, 0 failed, 0 to come" in mended.stdout


def test_a_sweep_that_was_only_prepared(tmp_path):
    Sweep(examples.STACKED, GRID).prepare(tmp_path, stack=False)
    assert status(tmp_path).missing == 6
    assert invoke("run", tmp_path, "--shard", "0/2").exit_code == 0
    assert status(tmp_path).done == 3
    assert json.loads((tmp_path / "sweep.json").read_text())["stack"] is False


def test_in_a_process_of_its_own_from_the_folder_of_the_experiment(begun):
    program = "from learnmech.cli_sweep import app\napp()"
    done = subprocess.run(
        [sys.executable, "-c", program, "run", str(begun / "out"), "--json"],
        cwd=Path(__file__).parent,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 6, done.stderr
    assert json.loads(done.stdout)["done"] == 4
    assert done.stderr == ""


def test_help_does_not_import_torch():
    program = (
        "import sys\nfrom learnmech.cli_sweep import app\n"
        "try:\n    app(['run', '--help'])\nexcept SystemExit:\n    pass\nprint('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"
    assert "--shard" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("status", "/nonexistent"), "there is no sweep"),
        (("run", "OUT", "--shard", "3/3"), "--shard must be I/N"),
        (("run", "OUT", "--shard", "1"), "--shard must be I/N"),
        (("run", "OUT", "--executor", "cluster"), "executor must be"),
        (("run", "OUT", "--workers", "2"), "'processes' and 'dask' only"),
        (("retry", "LAMBDA"), "lambda or defined inside a function"),
    ],
)
def test_wrong_use_is_one_line_and_an_exit_code(arguments, message, begun):
    if "LAMBDA" in arguments:
        Sweep(lambda config: {"value": 1.0}, {"seed": [0]}).run(out=begun / "lambda")
    places = {"OUT": begun / "out", "LAMBDA": begun / "lambda"}
    done = invoke(*(places.get(word, word) for word in arguments))
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert "Traceback" not in done.output
