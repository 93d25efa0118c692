"""The command ``learnmech scan``: how features move as a network grows, with a verdict."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from learnmech.cli_parts import EXIT_FAILED_CLAIM, Json, Threads, clear_errors, plain, set_threads

_USUAL_SIZES = {"residual": ("128,256,512", "12,24,48")}
"""Widths and depths where others are not given: residual nets scatter less, and need more depth to show their powers."""


def scan(
    factory: Annotated[str, typer.Argument(metavar="FACTORY", help="mlp, residual, or MODULE:FUNCTION, see below.")],
    widths: Annotated[
        str, typer.Option(help="Widths, separated by commas; 256,512,1024 if not given, 128,256,512 for residual.")
    ] = "",
    depths: Annotated[
        str, typer.Option(help="Depths, separated by commas; 6,12,24 if not given, 12,24,48 for residual.")
    ] = "",
    scaling: Annotated[
        str,
        typer.Option(
            help="standard, ntk, mean_field, fsc, depth_mup or complete_p; none keeps the nets as they are made."
        ),
    ] = "",
    claim: Annotated[str, typer.Option(help="Scaling whose powers are tested; that of --scaling if not given.")] = "",
    optimizer: Annotated[str, typer.Option(help="sgd or adam.")] = "sgd",
    lr: Annotated[float, typer.Option(help="Factor on the rates of the scaling; with none, the learning rate.")] = 0.1,
    priority: Annotated[str, typer.Option(help="loss_decay or feature_learning, for mean_field.")] = "loss_decay",
    steps: Annotated[int, typer.Option(min=0, help="Optimizer steps of every net.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of every net.")] = 10,
    tolerance: Annotated[float, typer.Option(min=0, help="By how much a power may miss the claimed one.")] = 0.25,
    out: Annotated[Path | None, typer.Option(help="HTML file for the verdict and the figure.")] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Folder for every net's numbers; the same call goes on there.")
    ] = None,
    as_json: Json = False,
    threads: Threads = 1,
) -> None:
    """Train small nets of several sizes for a few steps and test how their features scale with width and depth.

    FUNCTION is called with width= and depth= and returns (model, (inputs, targets)) or (model, (inputs, targets), loss); the
    batch of the first net is used for all. MODULE is looked up from the current folder too. mlp and residual are built in; their
    scaling is fsc and depth_mup if not given. Exit code 7: the claim failed or could not be told.
    """
    with clear_errors():
        set_threads(threads)
        usual_widths, usual_depths = _USUAL_SIZES.get(factory, ("256,512,1024", "6,12,24"))
        width_list, depth_list = (
            _numbers("--widths", widths or usual_widths),
            _numbers("--depths", depths or usual_depths),
        )
        made, batch, loss, usual = _load(factory, width_list, depth_list)
        from learnmech.speed.scanning import scan as run_scan

        kind = None if scaling == "none" else scaling or usual
        result = run_scan(
            made,
            batch=batch,
            loss=loss,
            widths=width_list,
            depths=depth_list,
            kind=kind,
            optimizer=optimizer,
            optimizer_factory=None if kind else _Plain(optimizer, lr),
            options={"base_learning_rate": lr, "priority": priority} if kind else None,
            claim=claim or None,
            steps=steps,
            seeds=seeds,
            tolerance=tolerance,
            out=keep,
        )
        if out is not None:
            from learnmech.speed.scan_page import write_scan_page

            write_scan_page(result, out)
    if as_json:
        typer.echo(json.dumps({**plain(result.to_dict()), "report": None if out is None else str(out)}))
    else:
        typer.echo(str(result) + ("" if out is None else f"\n\nreport: {out}"))
    _leave(result.verdict)


def _leave(verdict: str | None) -> None:
    if verdict in ("fail", "unclear"):
        raise typer.Exit(EXIT_FAILED_CLAIM)


class _Plain:
    """An optimizer with one learning rate."""

    def __init__(self, kind: str, rate: float) -> None:
        self.kind, self.rate = kind, rate

    def __repr__(self) -> str:
        return f"{self.kind} with learning rate {self.rate}"

    def __call__(self, parameters: Any) -> Any:
        import torch

        kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
        return kinds[self.kind](parameters, lr=self.rate)


class _Model:
    """The network alone of what a user's function returns."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name, self.function = name, function

    def __repr__(self) -> str:
        return self.name

    def __call__(self, *, width: int, depth: int) -> Any:
        return self.function(width=width, depth=depth)[0]


def _load(factory: str, widths: list[int], depths: list[int]) -> tuple[Callable[..., Any], Any, Any, str | None]:
    from learnmech.errors import InputError
    from learnmech.speed import scan_nets

    built_in = {"mlp": (scan_nets.make_mlp, "fsc"), "residual": (scan_nets.make_residual, "depth_mup")}
    if factory in built_in:
        make, usual = built_in[factory]
        return make, scan_nets.make_batch(), scan_nets.pull, usual
    from torch import Tensor, nn
    from torch.nn import functional

    from learnmech.sweep.reference import resolve

    sys.path.insert(0, str(Path.cwd()))  # as python -m does
    function = resolve(factory)
    try:
        made = function(width=widths[0], depth=depths[0])
    except Exception as error:
        raise InputError(
            f"{factory}(width={widths[0]}, depth={depths[0]}) failed: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(made, tuple) or len(made) not in (2, 3) or not isinstance(made[0], nn.Module):
        raise InputError(f"{factory} must return (model, (inputs, targets)) or (model, (inputs, targets), loss).")
    if len(made) == 3:
        return _Model(factory, function), made[1], made[2], None
    real = isinstance(made[1][1], Tensor) and made[1][1].is_floating_point()
    return _Model(factory, function), made[1], functional.mse_loss if real else functional.cross_entropy, None


def _numbers(name: str, text: str) -> list[int]:
    from learnmech.errors import InputError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"{name} must be integers separated by commas, such as 128,256,512, got {text!r}.")
    return [int(part) for part in parts]
