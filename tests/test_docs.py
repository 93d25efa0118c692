"""The docs keep up with the source: finding codes, commands, JSON fields, variables; and nothing is left to do."""

import inspect
import re
from pathlib import Path

import pytest
import typer

from learnmech.cli import app
from learnmech.experiments import WatchedRun
from learnmech.monitor.instrument import INSTRUMENTS, Finding, make_instrument

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "learnmech"


def read(name):
    return (DOCS / name).read_text(encoding="utf-8")


def finding_codes():
    """Codes written out in the source, with the one placeholder filled from the table of meanings."""
    from learnmech.springs.advice import _MEANING

    instruments = "|".join(INSTRUMENTS)
    codes = set()
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        codes |= set(re.findall(rf'"((?:{instruments})(?:\.[a-z_]+)+)"', text))
        for start in re.findall(rf'f"((?:{instruments})\.[a-z_.]*)\{{code\}}"', text):
            codes |= {start + code for code, *_ in _MEANING.values()}
    return sorted(codes)


def test_codes_are_found_in_the_source():
    codes = finding_codes()
    assert len(codes) >= 18
    assert {"springs.regime.lazy", "springs.undoing", "vitals.dead_layer"} <= set(codes)


@pytest.mark.parametrize("code", finding_codes())
def test_every_finding_is_explained(code):
    anchor = Finding(code, "", "", "note").anchor
    assert anchor == "verdict.html#" + re.sub(r"[._]", "-", code)
    assert f"\n({anchor.partition('#')[2]})=\n### `{code}`: " in read("verdict.md")


def test_no_finding_is_explained_that_does_not_exist():
    assert set(re.findall(r"^### `([\w.]+)`", read("verdict.md"), flags=re.MULTILINE)) == set(finding_codes())


def commands():
    return typer.main.get_command(app).commands


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_and_option_is_documented(name):
    page = read("cli.md")
    section = re.search(rf"^## `learnmech {name}\b.*?(?=^## |\Z)", page, flags=re.MULTILINE | re.DOTALL)
    assert section, name
    inside = getattr(commands()[name], "commands", {})  # of a group, such as sweep
    for command in inside:
        assert f"`{name} {command}" in section[0], (name, command)
    for parameter in [item for command in (commands()[name], *inside.values()) for item in command.params]:
        for option in (*parameter.opts, *parameter.secondary_opts):
            if option.startswith("--") and option != "--help":
                assert option in section[0], (name, option)


def test_every_exit_code_is_documented():
    from learnmech import cli_parts

    codes = [value for name, value in vars(cli_parts).items() if name.startswith("EXIT_")]
    assert len(codes) >= 5
    for code in codes:
        assert f"\n| {code} | " in read("cli.md")


def test_every_json_field_is_documented():
    source = inspect.getsource(WatchedRun.to_dict)
    fields = set(re.findall(r'^\s+"(\w+)": ', source, flags=re.MULTILINE))
    fields |= {"end_difference", "linearity", "curvature", "curvature_error"}  # made in one comprehension
    assert len(fields) >= 18
    for field in fields:
        assert f"\n| `{field}` | " in read("cli.md"), field


def test_json_fields_of_a_real_run_are_documented(tmp_path):
    from learnmech.experiments import WatchSettings, train_and_watch

    settings = WatchSettings(data="digits", samples=200, image_size=None, depth=3, width=10, epochs=2)
    run = train_and_watch(settings, tmp_path).to_dict()
    for field in run:
        assert f"\n| `{field}` | " in read("cli.md"), field


@pytest.mark.parametrize("level", ["light", "standard", "full"])
def test_every_variable_is_documented(level):
    for name in INSTRUMENTS:
        for variable in make_instrument(name, level).variables():
            assert f"`{variable}`" in read("history.md"), variable


def test_nothing_is_left_to_do():
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8").replace("TODO-PRICE", "")
        assert "TODO" not in text, page.name
