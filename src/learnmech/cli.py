"""The command line: ``learnmech demo | watch | scan | sweep | reproduce | report | doctor | cite``.

Only typer is imported here; torch and the rest are imported by the command that needs them, so that help answers at once.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from learnmech import __version__, cli_reproduce, cli_scan, cli_sweep
from learnmech.cli_parts import (
    EXIT_DIVERGED,
    EXIT_INTERRUPTED,
    EXIT_STORAGE,
    Json,
    Threads,
    clear_errors,
    plain,
    say,
    set_threads,
    show_status,
)

if TYPE_CHECKING:
    from learnmech.experiments import WatchedRun, WatchSettings

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help=(
        "Measure feature learning in PyTorch, layer by layer. Exit codes: 0 done, 2 wrong input, 3 data missing or corrupt, "
        "4 a file could not be written, 5 training diverged, 6 cells of a sweep failed, 7 a claim of a scan failed, 130 stopped by Ctrl-C (go on with "
        "--resume, or with the same command)."
    ),
)
app.add_typer(cli_sweep.app, name="sweep")
app.command()(cli_reproduce.reproduce)
app.command()(cli_scan.scan)
cli_sweep.app.command()(cli_reproduce.networks)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for history.nc and report.html.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of weights and training.")] = 0,
    as_json: Json = False,
    threads: Threads = 1,
) -> None:
    """Train a net on real handwritten digits, show where its features are learned, then turn the knob that it names."""
    with clear_errors():
        set_threads(threads)
        from learnmech.experiments import WatchSettings

        settings = WatchSettings(data="digits", samples=None, image_size=None, seed=seed, epochs=100, every=5)
        say(as_json, "Watching an 8-layer ReLU net learn 1347 real 8 x 8 digits (scikit-learn).")
        first = _train(settings, out, resume=False, as_json=as_json)
        say(as_json, f"\n{first.verdict}\n")
        _leave(first)
        say(
            as_json,
            "Now a knob that it names: the same net with dropout 0.15.",
        )
        turned = replace(settings, dropout=0.15)
        second = _train(turned, out / "knob-turned", resume=False, as_json=as_json)
    if as_json:
        typer.echo(json.dumps({**first.to_dict(), "knob_turned": second.to_dict()}))
    else:
        typer.echo(_comparison(first, second))
        typer.echo(f"\nreport:  {first.report_path}\nhistory: {first.history_path}")
    _leave(second)


@app.command(name="watch")
def watch_command(
    data: Annotated[str, typer.Option(help="digits, mnist, fashion_mnist, cifar10, or csv:PATH.")] = "digits",
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder with the data (torchvision layout); else LEARNMECH_DATA, else a download."),
    ] = None,
    samples: Annotated[int, typer.Option(min=0, help="Training samples, the same for every seed; 0 for all.")] = 2560,
    image_size: Annotated[int, typer.Option(min=0, help="Resize images to this; 0 keeps them.")] = 10,
    net: Annotated[str, typer.Option(help="mlp or cnn.")] = "mlp",
    depth: Annotated[int, typer.Option(min=1, help="Weight layers, read-out included.")] = 8,
    width: Annotated[int, typer.Option(min=1, help="Units (mlp) or channels (cnn) of a layer.")] = 100,
    slope: Annotated[float, typer.Option(help="LeakyReLU slope: 0 is ReLU, 1 is linear.")] = 0.0,
    dropout: Annotated[float, typer.Option(help="Dropout rate behind every hidden layer.")] = 0.0,
    batch_norm: Annotated[bool, typer.Option(help="Normalise by batch.")] = True,
    init: Annotated[str, typer.Option(help="torch, orthogonal, kaiming, normal, ntk or identity.")] = "torch",
    init_scale: Annotated[float, typer.Option(help="Factor on the initial weights.")] = 1.0,
    noise: Annotated[float, typer.Option(help="Label noise and data noise together, as in the paper's Fig. 1a.")] = 0.0,
    label_noise: Annotated[float | None, typer.Option(help="Share of labels replaced in each batch.")] = None,
    data_noise: Annotated[float | None, typer.Option(help="Input noise in standard deviations of the batch.")] = None,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 1e-3,
    batch: Annotated[int, typer.Option(min=0, help="Samples in a batch; 0 for all.")] = 0,
    optimizer: Annotated[str, typer.Option(help="adam, adamw or sgd.")] = "adam",
    momentum: Annotated[float, typer.Option(help="Momentum of sgd.")] = 0.0,
    weight_decay: Annotated[float, typer.Option(help="Weight decay.")] = 0.0,
    loss: Annotated[str, typer.Option(help="cross_entropy or mse; empty for what suits the data.")] = "",
    epochs: Annotated[int, typer.Option(min=0, help="Passes over the data.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of weights, batch order, dropout and noise.")] = 0,
    every: Annotated[int, typer.Option(min=0, help="Optimizer steps between probes; 0 for about 10 in the run.")] = 0,
    measures: Annotated[str, typer.Option(help="light, standard or full.")] = "standard",
    out: Annotated[Path, typer.Option(help="Folder for history.nc, report.html and checkpoint.pt.")] = Path(
        "runs/watch"
    ),
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint in the folder.")] = False,
    as_json: Json = False,
    threads: Threads = 1,
) -> None:
    """Train a net on a data set and watch how its layers learn. The defaults are those of the spring-block paper."""
    with clear_errors():
        set_threads(threads)
        from learnmech.experiments import WatchSettings

        settings = WatchSettings(
            data=data,
            data_dir=data_dir,
            samples=samples or None,
            image_size=image_size or None,
            net=net,  # type: ignore[arg-type]
            depth=depth,
            width=width,
            slope=slope,
            dropout=dropout,
            batch_norm=batch_norm,
            init=init,
            init_scale=init_scale,
            label_noise=noise if label_noise is None else label_noise,
            data_noise=noise if data_noise is None else data_noise,
            lr=lr,
            batch=batch or None,
            optimizer=optimizer,
            momentum=momentum,
            weight_decay=weight_decay,
            loss=loss or None,
            epochs=epochs,
            seed=seed,
            every=every or None,
            measures=measures,
        )
        run = _train(settings, out, resume=resume, as_json=as_json)
    if as_json:
        typer.echo(json.dumps(run.to_dict()))
    else:
        typer.echo(str(run.verdict))
        typer.echo(
            f"\ntest accuracy {run.result.test_accuracy:.4f} after {run.result.epochs} epochs ({run.result.steps} steps)"
            f"\nreport:  {run.report_path}\nhistory: {run.history_path}"
        )
    _leave(run)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder, or a history file.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to write; report.html beside the history if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read a stored history again: print its verdict and write its report."""
    with clear_errors():
        from learnmech import history as histories
        from learnmech.monitor.verdict import read_verdict
        from learnmech.report import write_report

        history = histories.load(run)
        folder = run if run.is_dir() else run.parent
        verdict = read_verdict(history)
        path = write_report(history, out or folder / "report.html")
    if as_json:
        typer.echo(json.dumps({**plain(verdict.to_dict()), "report": str(path)}))
    else:
        typer.echo(f"{verdict}\n\nreport: {path}")


@app.command()
def doctor(
    factory: Annotated[str, typer.Argument(metavar="MODULE:FACTORY", help="A function without arguments, see below.")],
    measures: Annotated[str, typer.Option(help="Presets to price, separated by commas.")] = "light,standard,full",
    layers: Annotated[str, typer.Option(help="Names or globs of layers, separated by commas; or auto.")] = "auto",
    as_json: Json = False,
    threads: Threads = 1,
) -> None:
    """Check a model of yours before watching it: which layers are read and skipped, and what each preset costs.

    FACTORY returns (model, (inputs, targets)) or (model, (inputs, targets), loss). MODULE is looked up from the current folder
    too; it may be a file: path/to/file.py:FACTORY.
    """
    with clear_errors():
        set_threads(threads)
        from learnmech.experiments.doctor import examine, load_factory

        chosen = layers if layers == "auto" else tuple(part.strip() for part in layers.split(","))
        with show_status("timing passes and probes", quiet=as_json):
            made = load_factory(factory)
            diagnosis = examine(*made, measures=[part.strip() for part in measures.split(",")], layers=chosen)
    typer.echo(json.dumps(diagnosis.to_dict()) if as_json else str(diagnosis))


@app.command()
def cite(
    run: Annotated[Path | None, typer.Argument(help="A run folder or history; all works if not given.")] = None,
) -> None:
    """Print the BibTeX of the works behind a run's measurements."""
    with clear_errors():
        from learnmech import history as histories
        from learnmech.citation import cite as citations

        typer.echo(citations(None if run is None else histories.load(run)))


# ---------------------------------------------------------------------- parts


def _train(settings: "WatchSettings", out: Path, *, resume: bool, as_json: bool) -> "WatchedRun":
    from learnmech.experiments import train_and_watch

    with _progress(settings.epochs, quiet=as_json) as on_epoch:
        return train_and_watch(settings, out, resume=resume, on_epoch=on_epoch)


@contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Callable[[Any, int], None] | None]:
    """Show a progress bar on standard error if that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs, loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=total, loss="-")

        def on_epoch(trainer: Any, epochs: int) -> None:
            bar.update(task, completed=trainer.epoch, total=epochs, loss=f"{trainer.epoch_losses[-1]:.3g}")

        yield on_epoch


def _comparison(first: "WatchedRun", second: "WatchedRun") -> str:
    lines = [f"{'':24}{'as it was':>12}{'knob turned':>14}"]
    values = [run.to_dict() for run in (first, second)]
    for name, label, form in (
        ("regime", "regime", "{}"),
        ("curvature", "curvature q", "{:+.2f}"),
        ("linearity", "linearity R²", "{:.3f}"),
        ("accuracy", "test accuracy", "{:.1%}"),
    ):
        cells = [form.format(value[name]) if value[name] is not None else "-" for value in values]
        lines.append(f"{label:24}{cells[0]:>12}{cells[1]:>14}")
    return "\n".join(lines)


def _leave(run: "WatchedRun") -> None:
    if run.result.stopped_because == "interrupted":
        typer.echo("stopped by Ctrl-C; watch goes on from here with --resume.", err=True)
    codes = {"interrupted": EXIT_INTERRUPTED, "diverged": EXIT_DIVERGED}
    code = codes.get(run.result.stopped_because, 0)
    if code == 0 and None in (run.history_path, run.report_path):
        code = EXIT_STORAGE
    if code:
        raise typer.Exit(code)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
