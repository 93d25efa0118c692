"""The command that scans sizes."""

import json

import pytest
import typer
from typer.testing import CliRunner

from learnmech.cli_parts import EXIT_FAILED_CLAIM, EXIT_INPUT
from learnmech.cli_scan import scan

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(scan)
SMALL = ["--widths", "8,16", "--depths", "3,4", "--seeds", "2", "--steps", "1"]
MODULE = """
import torch
from torch import nn

def build(width, depth):
    layers = [nn.Linear(3, width), nn.ReLU()]
    for _ in range(depth - 2):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 2)), (torch.ones(4, 3), torch.tensor([0, 1, 0, 1]))

def wrong(width, depth):
    return 3

def broken(width, depth):
    raise RuntimeError("no such size")
"""


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_json_holds_the_verdict_and_the_page_is_written(tmp_path):
    done = run("mlp", *SMALL, "--json", "--out", str(tmp_path / "scan.html"))
    said = json.loads(done.stdout)
    assert said["claim"] == "fsc"
    assert done.exit_code == (0 if said["verdict"] == "pass" else EXIT_FAILED_CLAIM)
    assert said["widths"] == [8, 16]
    assert "Scan of widths and depths" in (tmp_path / "scan.html").read_text()


def test_a_claim_that_is_not_borne_out_gives_its_own_exit_code():
    tolerance = ["--tolerance", "0"]
    done = run("residual", *SMALL, *tolerance)
    assert done.exit_code == EXIT_FAILED_CLAIM
    assert "powers of depth_mup hold within 0" in done.stdout
    wide = run("residual", *SMALL, "--tolerance", "1000", "--seeds", "3")
    assert wide.exit_code == 0, wide.stdout
    assert "PASS: 8 of 8" in wide.stdout


def test_a_function_of_the_users_and_a_folder_to_go_on_in(tmp_path, monkeypatch):
    (tmp_path / "scanned_nets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = ["scanned_nets:build", *SMALL, "--scaling", "none", "--lr", "0.01", "--keep", "cells"]
    first, second = run(*arguments), run(*arguments)
    assert first.exit_code == 0, first.output
    assert "nothing was claimed" in first.stdout
    assert first.stdout == second.stdout
    assert len(list((tmp_path / "cells" / "cells").iterdir())) == 8
    claimed = run(*arguments[:-2], "--claim", "ntk")
    assert claimed.exit_code in (0, EXIT_FAILED_CLAIM)
    assert "powers of ntk hold" in claimed.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["mlp", "--widths", "8;16"], "--widths must be integers separated by commas"),
        (["mlp", "--scaling", "magic"], "unknown scaling 'magic'"),
        (["mlp", "--optimizer", "lion", "--widths", "8", "--depths", "3"], "optimizer must be one of"),
        (["nothing:here"], "could not be imported here"),
        (["nothing"], "expected the name of an experiment"),
        (["scanned_faults:wrong"], "must return"),
        (["scanned_faults:broken"], "failed: RuntimeError: no such size"),
    ],
)
def test_wrong_input_is_one_line_and_its_exit_code(arguments, text, tmp_path, monkeypatch):
    (tmp_path / "scanned_faults.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    done = run(*arguments)
    assert done.exit_code == EXIT_INPUT, done.output
    assert text in done.output
