"""The examples run as they stand, alone, and leave a report."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("name", "lines", "layer"), [("quickstart.py", 60, "input"), ("own_transformer.py", 90, "blocks.0")]
)
def test_example(name, lines, layer, tmp_path):
    path = EXAMPLES / name
    assert len(path.read_text(encoding="utf-8").splitlines()) < lines
    run = subprocess.run(
        [sys.executable, "-W", "error", str(path), str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "learnmech verdict at step" in run.stdout
    assert f"\n{layer} " in run.stdout
    assert "springs.regime." in run.stdout
    assert (tmp_path / "report.html").stat().st_size > 100_000


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"quickstart.py", "own_transformer.py"}
