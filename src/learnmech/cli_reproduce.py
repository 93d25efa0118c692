"""The commands that train many networks and draw: ``learnmech reproduce`` and ``learnmech sweep networks``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from learnmech.cli_parts import EXIT_FAILED_CELLS, Json, clear_errors, plain, read_shard, say, set_threads
from learnmech.cli_sweep import Executor, Workers

Shard = Annotated[str, typer.Option(metavar="I/N", help="Run only share I of N, 0 to N - 1, for job arrays.")]
Retry = Annotated[bool, typer.Option("--retry", help="Repeat cells that failed earlier.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of every network; may be repeated.")
]


def reproduce(
    figure: Annotated[str, typer.Argument(help="Such as shi2024/fig1a; see --list.")] = "",
    scale: Annotated[str, typer.Option(help="smoke (embedded data, under a minute), reduced, or paper.")] = "smoke",
    out: Annotated[Path | None, typer.Option(help="Folder; runs/reproduce/NAME-SCALE if not given.")] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List the figures.")] = False,
    settings: Settings = None,
    executor: Executor = "auto",
    workers: Workers = 0,
    shard: Shard = "",
    retry: Retry = False,
    as_json: Json = False,
) -> None:
    """Run a figure of a paper again: check its claims one by one, draw it, keep the history. The same call goes on."""
    with clear_errors():
        set_threads(1)
        from learnmech.errors import InputError
        from learnmech.experiments import list_figures
        from learnmech.experiments import reproduce as run

        if list_all:
            figures = list_figures()
            typer.echo(
                json.dumps(figures) if as_json else "\n".join(f"{name:16} {what}" for name, what in figures.items())
            )
            return
        if not figure:
            raise InputError("name a figure, such as shi2024/fig1a; learnmech reproduce --list shows all.")
        chosen = ("here" if scale == "smoke" else "processes") if executor == "auto" else executor
        outcome = run(
            figure,
            scale=scale,
            out=out,
            executor=None if chosen == "here" else chosen,
            workers=workers or None,
            retry=retry,
            shard=read_shard(shard),
            say=lambda line: say(as_json, line),
            **read_settings(settings or []),
        )
    if as_json:
        typer.echo(json.dumps(plain(outcome.to_dict())))
    else:
        typer.echo(str(outcome))
        for kind, path in outcome.files.items():
            typer.echo(f"{kind + ':':9}{path}")
    if outcome.failed_cells:
        raise typer.Exit(EXIT_FAILED_CELLS)


def networks(
    columns: Annotated[str, typer.Option(metavar="NAME=V,V,...", help="Horizontal axis, from the left.")],
    rows: Annotated[str, typer.Option(metavar="NAME=V,V,...", help="Vertical axis, from the top.")],
    seeds: Annotated[int, typer.Option(min=1, help="Networks for each cell.")] = 2,
    settings: Settings = None,
    curve: Annotated[str, typer.Option(help="Which load is drawn: load, load_held_out or load_pinv.")] = "load",
    out: Annotated[Path, typer.Option(help="Folder of the sweep and the figure.")] = Path("runs/networks"),
    executor: Executor = "processes",
    workers: Workers = 0,
    shard: Shard = "",
    retry: Retry = False,
    as_json: Json = False,
) -> None:
    """Train networks over any two settings and draw their phase diagram. The defaults are those of the paper."""
    with clear_errors():
        set_threads(1)
        from learnmech.experiments import phase_diagram

        diagram = phase_diagram(
            read_axis(columns),
            read_axis(rows),
            out=out,
            seeds=range(seeds),
            curve=curve,
            executor=None if executor == "here" else executor,
            workers=workers or None,
            retry=retry,
            shard=read_shard(shard),
            **read_settings(settings or []),
        )
    failed = len(json.loads(diagram.history.attrs.get("failures", "[]")))
    files = {kind: str(path) for kind, path in diagram.files.items()}
    if as_json:
        typer.echo(json.dumps({"files": files, "failed_cells": failed, "missing_cells": diagram.missing_cells}))
    else:
        if diagram.missing_cells:
            typer.echo(f"{diagram.missing_cells} cells are still to come; nothing was drawn.")
        for kind, path in files.items():
            typer.echo(f"{kind + ':':9}{path}")
    if failed:
        raise typer.Exit(EXIT_FAILED_CELLS)


def read_value(text: str) -> Any:
    """Read a value as a person writes it: a number, true, false, none, or text.

    Args:
        text: what was typed.

    Returns:
        The value.
    """
    known = {"true": True, "false": False, "none": None}
    if text.lower() in known:
        return known[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def read_settings(texts: list[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE`` settings.

    Args:
        texts: what was typed.

    Returns:
        Name to value.

    Raises:
        InputError: for text of another form.
    """
    from learnmech.errors import InputError

    values = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (name and sign):
            raise InputError(f"--set must be NAME=VALUE, such as --set epochs=20, got {text!r}.")
        values[name.strip().replace("-", "_")] = read_value(value.strip())
    return values


def read_axis(text: str) -> tuple[str, list[Any]]:
    """Read an axis, ``NAME=VALUE,VALUE,...``.

    Args:
        text: what was typed.

    Returns:
        Its name and values.

    Raises:
        InputError: for text of another form.
    """
    from learnmech.errors import InputError

    name, _, values = text.partition("=")
    parts = [part.strip() for part in values.split(",") if part.strip()]
    if not name or not parts:
        raise InputError(f"an axis must be NAME=VALUE,VALUE,..., such as dropout=0.2,0.1,0, got {text!r}.")
    return name.strip().replace("-", "_"), [read_value(part) for part in parts]
