"""The examples run as they stand, alone, and leave a report."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run_example(name, folder):
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), str(folder)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def count_lines(name):
    return len((EXAMPLES / name).read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize(
    ("name", "lines", "layer"), [("quickstart.py", 60, "input"), ("own_transformer.py", 90, "blocks.0")]
)
def test_example(name, lines, layer, tmp_path):
    assert count_lines(name) < lines
    run = run_example(name, tmp_path)
    assert run.returncode == 0, run.stderr
    assert "learnmech verdict at step" in run.stdout
    assert f"\n{layer} " in run.stdout
    assert "springs.regime." in run.stdout
    assert (tmp_path / "report.html").stat().st_size > 100_000


def test_example_of_leaky_nets(tmp_path):
    assert count_lines("leaky_digits.py") < 150
    run = run_example("leaky_digits.py", tmp_path)
    assert run.returncode == 0, run.stderr
    assert "accuracy" in run.stdout
    assert any(path.suffix in (".png", ".html") for path in tmp_path.iterdir())


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "quickstart.py",
        "own_transformer.py",
        "leaky_digits.py",
        "multi_index.py",
    }


def test_example_of_a_multi_index_model(tmp_path):
    assert count_lines("multi_index.py") < 150
    run = run_example("multi_index.py", tmp_path)
    assert run.returncode == 0, run.stderr
    assert "2 of 2 predicted jumps seen" in run.stdout
    assert (tmp_path / "staircase.html").exists()
