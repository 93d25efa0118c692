"""The command line, as its users meet it: in processes of its own where streams and exit codes matter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from learnmech.cli import app

SMALL = ["--data", "digits", "--samples", "200", "--depth", "4", "--width", "12", "--epochs", "6", "--every", "2"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "learnmech.cli", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, run("watch", *SMALL, "--out", str(folder), "--json")


def test_json_is_one_object_and_nothing_else(finished):
    folder, done = finished
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    wanted = {"accuracy", "regime", "end_difference", "linearity", "curvature", "load", "history", "report"}
    assert wanted <= set(values)
    assert Path(values["history"]).is_file()
    assert Path(values["report"]).is_file()
    assert done.stderr == ""  # quiet when not a terminal
    assert values["report"] == str(folder / "report.html")


def test_report_reads_a_run_again(finished, tmp_path):
    folder, done = finished
    again = CliRunner().invoke(app, ["report", str(folder), "--out", str(tmp_path / "again.html"), "--json"])
    assert again.exit_code == 0, again.output
    values = json.loads(again.stdout)
    assert values["regime"] == json.loads(done.stdout)["regime"]
    assert (tmp_path / "again.html").is_file()


def test_text_output_names_everything(tmp_path):
    done = CliRunner().invoke(app, ["watch", *SMALL, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    for word in ("learnmech verdict at step", "hidden.0", "evidence:", "test accuracy", "report.html"):
        assert word in done.output


def test_resume_continues(tmp_path):
    first = CliRunner().invoke(app, ["watch", *SMALL, "--out", str(tmp_path), "--json"])
    longer = [*SMALL, "--epochs", "9"]
    second = CliRunner().invoke(app, ["watch", *longer, "--out", str(tmp_path), "--resume", "--json"])
    assert json.loads(first.stdout)["epochs"] == 6
    assert json.loads(second.stdout)["epochs"] == 9


def test_version_cite_and_help():
    runner = CliRunner()
    assert runner.invoke(app, ["--version"]).output.strip() == "0.1.0"
    assert "@article{shi2024spring" in runner.invoke(app, ["cite"]).output
    for command in ("demo", "watch", "report", "doctor", "cite"):
        assert runner.invoke(app, [command, "--help"]).exit_code == 0


def test_demo(tmp_path):
    done = run("demo", "--out", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["regime"] == "lazy/concave"
    assert values["knob_turned"]["linearity"] > values["linearity"]
    assert (tmp_path / "history.nc").is_file()
    assert (tmp_path / "report.html").is_file()


MODEL = """
import torch
def make():
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(8, 3))
    return net, (torch.randn(30, 4), torch.arange(30) % 3)
def wrong():
    return 7
"""


def test_doctor_lists_layers_and_prices(tmp_path):
    (tmp_path / "mymodel.py").write_text(MODEL)
    done = run("doctor", f"{tmp_path / 'mymodel.py'}:make", "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert [layer["name"] for layer in values["layers"]] == ["input", "0", "3"]
    assert {item["name"]: item["reason"] for item in values["skipped"]}["2"].startswith("dropout")
    assert set(values["prices"]) == {"light", "standard", "full"}
    text = CliRunner().invoke(app, ["doctor", f"{tmp_path / 'mymodel.py'}:make", "--measures", "light"])
    assert "not read on their own" in text.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("watch", "--data", "imagenet"), 2, "'imagenet'"),
        (("watch", *SMALL, "--optimizer", "lion"), 2, "optimizer"),
        (("watch", *SMALL, "--measures", "everything"), 2, "unknown measure 'everything'"),
        (("watch", *SMALL, "--dropout", "1.5"), 2, "dropout"),
        (("watch", *SMALL, "--out", "/proc/nothing/here"), 4, "could not write"),
        (("watch", "--data", "mnist", "--data-dir", "/nonexistent"), 3, "train-images-idx3-ubyte"),
        (("report", "/nonexistent"), 2, "there is no history"),
        (("doctor", "nonsense"), 2, "expected MODULE:FACTORY"),
        (("doctor", "no.such.module:make"), 2, "could not be used"),
    ],
)
def test_wrong_use_is_one_line_and_an_exit_code(arguments, code, message, tmp_path):
    if "--out" not in arguments and arguments[0] == "watch":
        arguments = (*arguments, "--out", str(tmp_path))
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == code, done.output
    assert message in done.output
    assert "Traceback" not in done.output


@pytest.mark.filterwarnings("ignore:training diverged")
def test_divergence_has_its_own_exit_code(tmp_path):
    diverging = ["--lr", "1e30", "--optimizer", "sgd", "--no-batch-norm", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ["watch", *SMALL, *diverging])
    assert done.exit_code == 5
    assert "diverged" in done.output
