"""Sweeps of reference networks: over axes, or over a list of named settings."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from learnmech.errors import InputError
from learnmech.experiments.networks import (
    STACKABLE,
    load_dataset,
    read_config,
    stacked_networks,
    train_network,
)
from learnmech.experiments.reproduction import Context
from learnmech.experiments.settings import build_net, make_train_config
from learnmech.files import write_atomically
from learnmech.sweep import Sweep
from learnmech.training import measure_stacking

CLEAR_GAIN = 1.5
"""How much faster a stack must be: cells trained one at a time are finished, and kept, one at a time."""
_CHOICE = "stacking.json"


def train_grid(
    grid: Mapping[str, Sequence[Any]], fixed: Mapping[str, Any], context: Context, *, folder: str = "sweep"
) -> xr.Dataset:
    """Train a network for every point of a grid.

    Args:
        grid: axis to values; axes are settings, see :func:`learnmech.experiments.networks.read_config`.
        fixed: the other settings; those of ``context.overrides`` go before them.
        context: where and how to run.
        folder: folder of the sweep inside ``context.out``.

    Returns:
        One history with the axes of the grid as dimensions.

    Raises:
        InputError: if an override is an axis of the grid.
    """
    both = sorted(set(grid) & set(context.overrides))
    if both:
        raise InputError(f"{', '.join(both)} cannot be replaced: the figure varies it.")
    settings = {**fixed, **context.overrides}
    stacked = choose_stacking(grid, settings, context.out / folder)
    return context.run(Sweep(stacked_networks if stacked else train_network, grid, fixed=settings), folder)


def train_settings(
    table: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    fixed: Mapping[str, Any],
    context: Context,
    *,
    folder: str = "sweep",
) -> xr.Dataset:
    """Train networks for each of some named settings.

    Args:
        table: name to the settings that it stands for.
        seeds: seeds of each.
        fixed: settings that all share; those of ``context.overrides`` go before them.
        context: where and how to run.
        folder: folder of the sweep inside ``context.out``.

    Returns:
        One history over ``setting`` and ``seed``.
    """
    shared = {"settings": {name: dict(values) for name, values in table.items()}, **fixed, **context.overrides}
    return context.run(Sweep(train_setting, {"setting": list(table), "seed": list(seeds)}, fixed=shared), folder)


def train_setting(config: Mapping[str, Any]) -> xr.Dataset:
    """Train the network of one named setting.

    Args:
        config: ``settings`` (name to settings), ``setting`` (which of them), and settings that all share.

    Returns:
        Its history, see :func:`learnmech.experiments.networks.train_network`.
    """
    shared = {name: value for name, value in config.items() if name not in ("settings", "setting")}
    return train_network({**shared, **config["settings"][config["setting"]]})


def choose_stacking(grid: Mapping[str, Sequence[Any]], settings: Mapping[str, Any], out: Path) -> bool:
    """Decide by measurement whether the networks of a grid shall be trained as one; an earlier decision is kept.

    Stacked and single training agree to rounding only in float32, so a sweep that goes on must go on as it began.

    Args:
        grid: the grid.
        settings: the other settings.
        out: folder of the sweep, where the decision is kept.

    Returns:
        Whether to stack.
    """
    known = out / _CHOICE
    if known.is_file():
        return bool(json.loads(known.read_text(encoding="utf-8"))["stacked"])
    axes = [name for name in grid if name in STACKABLE]
    members = int(np.prod([len(grid[name]) for name in axes])) if axes else 1
    if members < 2 or settings.get("probes"):
        choice = {"stacked": False, "reason": "nothing to stack"}
    else:
        # The smallest batch decides: it is where steps are many and cheap, and stacking pays.
        first = {**settings, **{name: values[0] for name, values in grid.items()}}
        if "batch" in grid:
            first["batch"] = min(grid["batch"])
        count = min(members, stacked_networks.group_size)
        read = [read_config({**first, "seed": seed})[0] for seed in range(count)]
        dataset = load_dataset(read[0])
        measured = measure_stacking(
            [build_net(item, dataset) for item in read], dataset, [make_train_config(item, dataset) for item in read]
        )
        stacked, alone = measured.stacked_seconds, measured.separate_seconds
        clear = bool(measured.stack and stacked and alone and alone > CLEAR_GAIN * stacked)
        choice = {"stacked": clear, "reason": measured.reason}
    write_atomically(known, json.dumps(choice))
    return bool(choice["stacked"])
