"""The command line of sweeps: ``learnmech sweep status | run | retry``.

Only typer is imported here, as in :mod:`learnmech.cli`, so that help answers at once.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from learnmech.cli_parts import EXIT_FAILED_CELLS, Json, clear_errors, read_shard

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Look at a sweep that Sweep(...).run(out=...) stored in a folder, go on with it, repeat what failed.",
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the sweep.")]
Executor = Annotated[
    str,
    typer.Option(help="here, processes, dask, or the address of a Dask scheduler such as tcp://host:8786."),
]
Workers = Annotated[int, typer.Option(min=0, help="Processes for processes and dask; 0 for one a usable CPU.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads for torch in each job.")]


@app.command(name="status")
def show_status(folder: Folder, as_json: Json = False) -> None:
    """Say how many cells are done, failed and to come, and why those failed that did."""
    with clear_errors():
        from learnmech.sweep import status

        standing = status(folder)
    typer.echo(json.dumps(standing.to_dict()) if as_json else str(standing))


@app.command()
def run(
    folder: Folder,
    executor: Executor = "here",
    workers: Workers = 0,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Run only share I of N, 0 to N - 1, for job arrays.")] = "",
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Compute the cells that are missing. Failed cells are left alone."""
    _compute(folder, executor, workers, threads, as_json, shard=shard)


@app.command()
def retry(
    folder: Folder,
    executor: Executor = "here",
    workers: Workers = 0,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Repeat the cells that failed, and compute those that are missing."""
    _compute(folder, executor, workers, threads, as_json, retry=True)


def _compute(
    folder: Path, executor: str, workers: int, threads: int, as_json: bool, *, shard: str = "", retry: bool = False
) -> NoReturn:
    with clear_errors():
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # before torch is imported
        sys.path.insert(0, str(Path.cwd()))  # as python -m does: the experiment may stand in the current folder
        from learnmech.sweep import Sweep, status
        from learnmech.sweep.store import read_description

        share = read_shard(shard)
        stack = bool(read_description(folder).get("stack", True))
        Sweep.stored(folder).run(
            None if executor == "here" else executor,
            folder,
            shard=share,
            retry=retry,
            stack=stack,
            workers=workers or None,
            threads=threads,
        )
        standing = status(folder)
    typer.echo(json.dumps(standing.to_dict()) if as_json else str(standing))
    raise typer.Exit(EXIT_FAILED_CELLS if standing.failed else 0)
