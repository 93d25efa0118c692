"""The cells of the figures: a leaky ResNet trained on a task with a bottleneck, and its profile over depth."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, get_args

import numpy as np
import torch
import xarray as xr

from learnmech import history as histories
from learnmech.data import Dataset, bottleneck_task
from learnmech.experiments.jacot2024.setups import make_settings
from learnmech.leaky.criticality import path_and_momenta
from learnmech.leaky.network import LeakyResNet, StepKind
from learnmech.leaky.profiles import profile
from learnmech.leaky.training import train, train_members
from learnmech.leaky.training_result import LeakyTraining
from learnmech.leaky.training_settings import LeakySettings
from learnmech.training.seeds import build_seeded

SCHEMES: tuple[StepKind, ...] = get_args(StepKind)
KEPT = 10
"""Singular values that are kept of each matrix, as many as the paper draws."""
_RUN = "the training run"
_MEANINGS = {
    "test_cost": ("squared error on the test samples, summed over outputs", "mean over samples"),
    "residual": ("median over layers of the stationarity residual", "relative; 0 at a critical point"),
    "stationary": ("whether the median residual is below the limit for reading Hamiltonians", "1 yes, 0 no"),
    "collapsed": ("whether the net trained to zero", "1 yes, 0 no"),
    "diverged": ("whether the cost stopped being finite", "1 yes, 0 no"),
    "train_seconds": ("wall-clock time of the training", "seconds"),
}


@dataclasses.dataclass(frozen=True)
class Setup:
    """How a net of these figures is made and trained.

    Attributes:
        widths: dimensions of the task, see :func:`learnmech.data.bottleneck_task`.
        teacher: kind of its teachers.
        samples: training samples; as many test samples as the paper has are drawn, 1000.
        task_seed: seed of teachers and inputs.
        width: neurons.
        layers: steps L.
        effective_depth: leak.
        scheme: step sizes.
        init: how weights start.
        penalty: λ.
        adam_steps: steps of Adam.
        learning_rate: its highest rate.
        polish_iterations: iterations of L-BFGS that follow.
        ridges: of the identity cost.
        seed: of weights and embeddings.
    """

    widths: tuple[int, ...] = (20, 5, 20)
    teacher: str = "fully_connected"
    samples: int = 300
    task_seed: int = 0
    width: int = 40
    layers: int = 24
    effective_depth: float = 4.0
    scheme: str = "adaptive"
    init: str = "identity"
    penalty: float = 0.02
    adam_steps: int = 6000
    learning_rate: float = 3e-3
    polish_iterations: int = 1500
    ridges: tuple[float, ...] = (1e-2, 1e-3, 1e-4)
    seed: int = 0


def read_setup(config: Mapping[str, Any]) -> Setup:
    """Turn the configuration of a cell into settings.

    Args:
        config: names and values of :class:`Setup`.

    Returns:
        The settings.

    Raises:
        InputError: for a name that is none of these.
    """
    return make_settings(Setup, config, "a leaky net")


@lru_cache(maxsize=4)
def _task(widths: tuple[int, ...], teacher: str, samples: int, seed: int) -> Dataset:
    return bottleneck_task(widths, samples, test_samples=1000, teacher=teacher, seed=seed)  # type: ignore[arg-type]


def load_task(setup: Setup) -> Dataset:
    """Draw the task of a cell; the last few are kept in memory, as cells of a sweep share theirs.

    Args:
        setup: the settings.

    Returns:
        The task.
    """
    return _task(setup.widths, setup.teacher, setup.samples, setup.task_seed)


def build_net(setup: Setup, scheme: str | None = None) -> LeakyResNet:
    """Build the net that the settings describe, with weights and embeddings drawn by their seed.

    Args:
        setup: the settings.
        scheme: step sizes in place of those of the settings; nets of all schemes start from the same weights.

    Returns:
        The net, in float64, so that the polished weights are kept as they are.
    """
    return build_seeded(
        lambda: LeakyResNet(
            setup.widths[0],
            setup.widths[-1],
            setup.width,
            setup.effective_depth,
            setup.layers,
            scheme or setup.scheme,  # type: ignore[arg-type]
            init=setup.init,  # type: ignore[arg-type]
            penalty=setup.penalty,
        ),
        setup.seed,
    ).double()


def train_net(config: Mapping[str, Any]) -> xr.Dataset:
    """Train one net and profile it: a cell of a sweep.

    Args:
        config: see :class:`Setup`.

    Returns:
        What :func:`learnmech.leaky.profile` gives, the norm of the activations, and how training ended.
    """
    setup = read_setup(config)
    task, net = load_task(setup), build_net(setup)
    result = train(net, task.train_inputs, task.train_targets, _settings(setup))
    return describe_net(net, result, task, setup)


def train_case(config: Mapping[str, Any]) -> xr.Dataset:
    """Train the net of one named case.

    Args:
        config: ``cases`` (name to settings), ``case`` (which of them), and settings that all share.

    Returns:
        What :func:`train_net` returns.
    """
    shared = {name: value for name, value in config.items() if name not in ("cases", "case")}
    return train_net({**shared, **config["cases"][config["case"]]})


def train_schemes(config: Mapping[str, Any]) -> xr.Dataset:
    """Train nets that differ in their step sizes only, as one computation: a cell of a sweep.

    Args:
        config: see :class:`Setup`, without ``scheme``, and ``draw``, the seed of task, embeddings and weights.

    Returns:
        Their histories over ``scheme``, and ``projection``: all paths of representations on the two directions along which they vary
        most, from their common mean (``component``), in units of the norm of a representation of unit entries.
    """
    values = dict(config)
    draw = values.pop("draw")
    setup = dataclasses.replace(read_setup(values), seed=draw, task_seed=draw)
    task = load_task(setup)
    nets = [build_net(setup, scheme) for scheme in SCHEMES]
    results = train_members(nets, task.train_inputs, task.train_targets, _settings(setup))
    cells = [describe_net(net, result, task, setup) for net, result in zip(nets, results, strict=True)]
    # Schemes place layers at different depths: a coordinate cannot hold that, so it is a variable here.
    for cell in cells:
        cell["place"] = ("layer", cell["depth"].values, _meaning("depth of the layer", "0 to 1", _RUN))
        cell["depth"] = ("layer", np.linspace(0, 1, cell.sizes["layer"]))
    both = histories.concat(cells, "scheme", list(SCHEMES))
    paths = np.stack([_path(net, task) for net in nets])
    both["projection"] = (("scheme", "layer", "component"), *_project(paths))
    return histories.validate(both.assign_coords(component=[1, 2]))


def describe_net(net: LeakyResNet, result: LeakyTraining, task: Dataset, setup: Setup) -> xr.Dataset:
    """Gather what a sweep keeps of a trained net.

    Args:
        net: the net.
        result: how its training ended.
        task: what it was trained on.
        setup: its settings.

    Returns:
        A history over ``layer``, ``ridge`` and ``direction`` (the first :data:`KEPT`).
    """
    cell = profile(net, task.train_inputs, task.train_targets, ridges=setup.ridges)
    cell = cell.isel(direction=slice(None, KEPT))
    path, _ = path_and_momenta(net, task.train_inputs, task.train_targets)
    ones = torch.ones_like(path[:, :1])
    activations = torch.cat([path.clamp(min=0), ones], dim=1)
    cell["activation_norm"] = (
        "layer",
        torch.linalg.matrix_norm(activations, ord=2).numpy(),
        _meaning("largest singular value of the activations", "as the representation", "arXiv 2405.17573, Fig. 3"),
    )
    with torch.no_grad():
        test = net.data_cost(task.test_inputs.double(), task.test_targets.double())
    ends = {
        "test_cost": float(test),
        "residual": result.residual,
        "stationary": float(result.stationary),
        "collapsed": float(result.collapsed),
        "diverged": float(result.stopped_because == "diverged"),
        "train_seconds": result.seconds,
    }
    for name, value in ends.items():
        cell[name] = ((), value, _meaning(*_MEANINGS[name], _RUN))
    return histories.validate(cell)


def _settings(setup: Setup) -> LeakySettings:
    return LeakySettings(
        adam_steps=setup.adam_steps, learning_rate=setup.learning_rate, polish_iterations=setup.polish_iterations
    )


def _meaning(words: str, scale: str, source: str) -> dict[str, str]:
    return {"long_name": words, "scale": scale, "source": source}


def _path(net: LeakyResNet, task: Dataset) -> np.ndarray:
    path, _ = path_and_momenta(net, task.train_inputs, task.train_targets)
    return np.asarray(path.flatten(1).numpy())


def _project(paths: np.ndarray) -> tuple[np.ndarray, dict[str, str]]:
    """Project paths (schemes, nodes, numbers) on their two leading principal components."""
    schemes, nodes, numbers = paths.shape
    rows = paths.reshape(-1, numbers)
    rows = rows - rows.mean(0)
    left, values, _ = np.linalg.svd(rows, full_matrices=False)
    share = float((values[:2] ** 2).sum() / (values**2).sum())
    points = (left[:, :2] * values[:2] / numbers**0.5).reshape(schemes, nodes, 2)
    meaning = _meaning(
        f"representations on their two leading principal components, which hold {share:.0%} of the variance in this cell",
        "root mean square over neurons and samples",
        "arXiv 2405.17573, Fig. 2c",
    )
    return points, meaning


def stack_values(history: xr.Dataset, name: str, *dimensions: str) -> np.ndarray:
    """Give a variable as an array with its dimensions in an order.

    Args:
        history: the history.
        name: the variable.
        *dimensions: the order.

    Returns:
        The values.
    """
    return np.asarray(history[name].transpose(*dimensions).values, dtype=float)


def least_cost_layer(costs: np.ndarray) -> np.ndarray:
    """Find the layer at which the identity cost is least, among those that have weights.

    Args:
        costs: identity costs (..., layers + 1).

    Returns:
        Positions (...); the first where a net has no costs.
    """
    inner = np.where(np.isfinite(costs[..., :-1]), costs[..., :-1], np.inf)
    return np.asarray(inner.argmin(-1))


def describe_setup(setup: Setup, **axes: Sequence[Any]) -> dict[str, Any]:
    """Write settings for people and for the page of a figure.

    Args:
        setup: the settings.
        **axes: those that are varied, with their values.

    Returns:
        Plain values.
    """
    fixed = {name: value for name, value in dataclasses.asdict(setup).items() if name not in axes}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in {**fixed, **axes}.items()}
