"""The commands that train many networks and draw."""

import json

import pytest
from typer.testing import CliRunner

from learnmech.cli import app
from learnmech.cli_reproduce import read_axis, read_settings, read_value
from learnmech.errors import InputError
from learnmech.experiments.registry import FIGURES

TINY = ("--set", "epochs=2", "--set", "samples=100", "--set", "width=8", "--set", "depth=4")


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_list_names_every_figure():
    lines = invoke("reproduce", "--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(FIGURES)
    assert set(json.loads(invoke("reproduce", "--list", "--json").stdout)) == set(FIGURES)


def test_a_figure_is_run_checked_and_drawn(tmp_path):
    done = invoke("reproduce", "shi2024/fig1c", "--out", tmp_path, *TINY)
    assert done.exit_code == 0, done.output
    assert "claims hold" in done.stdout
    assert "figure.png" in done.stdout
    again = json.loads(invoke("reproduce", "shi2024/fig1c", "--out", tmp_path, *TINY, "--json").stdout)
    assert set(again) == {"name", "scale", "claims", "files", "missing_cells", "failed_cells"}
    assert set(again["claims"][0]) == {"key", "text", "expected", "measured", "verdict"}


def test_a_share_only(tmp_path):
    done = invoke("reproduce", "shi2024/fig5", "--out", tmp_path, "--set", "steps=2", "--shard", "0/2")
    assert done.exit_code == 0
    assert "2 cells are still to come" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a figure"),
        (["shi2024/fig99"], "unknown figure"),
        (["shi2024/fig3", "--scale", "large"], "scale must be one of"),
        (["shi2024/fig1a", "--set", "epochs"], "--set must be NAME=VALUE"),
        (["shi2024/fig1a", "--shard", "2/2"], "--shard must be I/N"),
    ],
)
def test_wrong_input_gives_one_line_and_code_two(arguments, message, tmp_path):
    done = invoke("reproduce", *arguments, "--out", tmp_path)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_networks_over_any_two_settings(tmp_path):
    arguments = ["--columns", "dropout=0.2,0", "--rows", "slope=0,1", "--seeds", 1, "--executor", "here", *TINY]
    data = ("--set", "data=digits", "--set", "image_size=none")
    done = invoke("sweep", "networks", *arguments, *data, "--out", tmp_path, "--json")
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    assert set(values) == {"files", "failed_cells", "missing_cells"}
    assert (values["failed_cells"], values["missing_cells"]) == (0, 0)
    assert (tmp_path / "figure.png").is_file()
    standing = json.loads(invoke("sweep", "status", tmp_path / "sweep", "--json").stdout)
    assert (standing["total"], standing["done"]) == (4, 4)


def test_values_are_read_as_a_person_means_them():
    assert [read_value(text) for text in ("3", "3.5", "1e-3", "true", "None", "adam")] == [
        3,
        3.5,
        1e-3,
        True,
        None,
        "adam",
    ]
    assert read_settings(["batch-norm=false", "data=mnist"]) == {"batch_norm": False, "data": "mnist"}
    assert read_axis("optimizer=adam, sgd") == ("optimizer", ["adam", "sgd"])
    for text in ("dropout", "dropout=", "=1,2"):
        with pytest.raises(InputError, match="an axis must be NAME=VALUE"):
            read_axis(text)
