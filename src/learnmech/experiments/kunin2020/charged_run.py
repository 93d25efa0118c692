"""One run of a small net with every symmetry of the paper: charges measured at all steps, with their laws beside them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional

from learnmech import data as datasets
from learnmech import history as histories
from learnmech.dynamics.charge_views import View
from learnmech.dynamics.conservation_monitor import ConservationMonitor
from learnmech.dynamics.equilibrium_of_scale import equilibrium_radius
from learnmech.dynamics.neural_mechanics_solutions import neural_mechanics
from learnmech.dynamics.symmetries import Symmetry
from learnmech.errors import InputError

KINDS = ("scale", "rescale", "gl", "translation")
_SOURCE = "Kunin et al. 2020 (arXiv 2012.04728); discrete laws derived in learnmech"
_OVER_STEPS = {
    "charge": ("one charge of each kind, the first", "as the parameters, squared (a translation: not squared)"),
    "discrete": ("the same charge by the exact discrete law", "as the charge"),
    "continuous": ("the same charge by the closed form in continuous time", "as the charge"),
    "drift": ("distance of all charges of the kind from their start", "relative to their norm at the start"),
    "discrete_error": (
        "distance of all charges of the kind from the discrete law",
        "relative to the size of the parts that cancel in them",
    ),
    "continuous_error": (
        "distance from the closed form",
        "relative to the larger of their norms at the start and that step",
    ),
}


def build(settings: Mapping[str, Any], inputs: int) -> nn.Sequential:
    """Build Linear, BatchNorm, ReLU, Linear, Linear in float64, for ten classes.

    Args:
        settings: ``width``, ``inner``, ``epsilon`` of BatchNorm, and ``seed``.
        inputs: numbers of an input.

    Returns:
        The net.
    """
    width, inner = settings["width"], settings["inner"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings["seed"])
        return nn.Sequential(
            nn.Linear(inputs, width),
            nn.BatchNorm1d(width, eps=settings["epsilon"]),
            nn.ReLU(),
            nn.Linear(width, inner),
            nn.Linear(inner, 10),
        ).double()


def symmetries(net: nn.Sequential) -> list[Symmetry]:
    """Write out the symmetries of the net, one of each kind.

    Args:
        net: what :func:`build` gave.

    Returns:
        In the order of :data:`KINDS`.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in net.named_parameters()}
    (width, inputs), (classes, inner) = shapes["0.weight"], shapes["4.weight"]
    return [
        Symmetry("scale", (View("0.weight", (width, inputs)),), layers=("0",), broken_by="BatchNorm's epsilon"),
        Symmetry(
            "rescale",
            (
                View("3.weight", (inner, width), units=(1,)),
                View("1.weight", (width,), weight=-1.0),
                View("1.bias", (width,), weight=-1.0),
            ),
            layers=("1", "3"),
        ),
        Symmetry(
            "gl",
            (
                View("4.weight", (classes, inner), units=(1,)),
                View("3.weight", (inner, width), weight=-1.0),
                View("3.bias", (inner,), weight=-1.0),
            ),
            mixing=True,
            layers=("3", "4"),
        ),
        Symmetry("translation", (View("4.weight", (classes, inner), units=(1,)),), layers=("4",)),
    ]


def run_charges(config: Mapping[str, Any]) -> xr.Dataset:
    """Train on digits with SGD, and hold every charge against its discrete law and its closed form: a cell of a sweep.

    Args:
        config: ``momentum``, ``weight_decay``, ``rate``, ``batch``, ``steps``, ``stored`` (records), ``width``, ``inner``, ``epsilon``
            and ``seed``.

    Returns:
        A history over ``step`` and ``kind``, with mean squared norm of the scale-invariant weights over the last quarter of the run
        (``settled_square``) and the one that the equilibrium radius predicts (``predicted_square``).

    Raises:
        InputError: if ``steps`` is not a positive multiple of ``stored``.
    """
    steps, stored = config["steps"], config["stored"]
    if not (isinstance(steps, int) and isinstance(stored, int) and 0 < stored <= steps and steps % stored == 0):
        raise InputError(f"steps should be a positive multiple of stored, got {steps!r} and {stored!r}.")
    task = datasets.load("digits")
    inputs = task.train_inputs.flatten(1).double()
    net = build(config, inputs.shape[1])
    found = symmetries(net)
    optimizer = torch.optim.SGD(
        net.parameters(), lr=config["rate"], momentum=config["momentum"], weight_decay=config["weight_decay"]
    )
    monitor = ConservationMonitor(net, optimizer, found, every=steps // stored, keep_charges=True)
    parameters = dict(net.named_parameters())
    pushes = [[torch.zeros(symmetry.count, dtype=torch.float64)] for symmetry in found[:3]]
    squares, rough = [], []
    weight = parameters["0.weight"]
    remembered = weight.detach().square().sum(1) ** 2
    generator = torch.Generator().manual_seed(config["seed"])
    with monitor:
        for step in range(steps):
            chosen = torch.randint(len(inputs), (config["batch"],), generator=generator)
            optimizer.zero_grad()
            functional.cross_entropy(net(inputs[chosen]), task.train_targets[chosen]).backward()  # type: ignore[no-untyped-call]
            assert weight.grad is not None
            square = weight.detach().square().sum(1)
            push = square * weight.grad.square().sum(1)
            remembered = (
                np.exp(-4 * config["rate"] * config["weight_decay"]) * remembered + 2 * config["rate"] ** 2 * push
            )
            if step >= steps - steps // 4:
                squares.append(square)
                rough.append(push)
            optimizer.step()
            moving = _velocities(parameters, optimizer)
            for symmetry, forms in zip(found, pushes, strict=False):
                forms.append(symmetry.form(moving, moving))
    now = weight.detach().square().sum(1)
    run = _history(config, monitor, pushes, torch.stack(squares).mean(0), torch.stack(rough).mean(0))
    plain = config["momentum"] == 0
    run["remembered_ratio"] = (
        (),
        float((now / remembered.sqrt()).mean()) if plain else np.nan,
        _meaning(
            "squared norm of scale-invariant weights over the one that past gradients predict, Q(t)^2 = exp(-4 wd t) Q(0)^2 + 2 lr int "
            "exp(-4 wd (t - s)) |ghat(s)|^2 ds",
            "1 if weights in front of BatchNorm adapt like RMSProp; mean over units, NaN with momentum",
        ),
    )
    return histories.validate(run)


def _velocities(parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What forces quadratic charges: the velocity, or the gradient without momentum."""
    result: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        velocity = optimizer.state.get(parameter, {}).get("momentum_buffer")
        given = parameter.grad if velocity is None else velocity
        result[name] = torch.zeros_like(parameter) if given is None else given
    return result


def _history(
    config: Mapping[str, Any], monitor: ConservationMonitor, pushes: list[list[Tensor]], squares: Tensor, rough: Tensor
) -> xr.Dataset:
    run = monitor.history
    every = config["steps"] // config["stored"]
    shape = (config["stored"] + 1, len(KINDS))
    columns = {name: np.full(shape, np.nan) for name in _OVER_STEPS}
    times = config["rate"] * np.arange(config["steps"] + 1)
    for place, name in enumerate(monitor.names):
        own = run["owner"].values == name
        measured, law = run["charge"].values[:, own], run["predicted"].values[:, own]
        flow = neural_mechanics(
            times,
            measured[0],
            rate=config["rate"],
            momentum=config["momentum"],
            weight_decay=config["weight_decay"],
            kind="translation" if place == 3 else "quadratic",
            forcing=None if place == 3 else torch.stack(pushes[place]).numpy(),
        )[::every]
        start, now = np.linalg.norm(measured[0]), np.linalg.norm(measured, axis=1)
        columns["charge"][:, place], columns["discrete"][:, place] = measured[:, 0], law[:, 0]
        columns["continuous"][:, place] = flow[:, 0]
        columns["drift"][:, place] = np.linalg.norm(measured - measured[0], axis=1) / start
        columns["discrete_error"][:, place] = run["violation"].values[:, place]
        columns["continuous_error"][:, place] = np.linalg.norm(measured - flow, axis=1) / np.maximum(start, now)
    variables: dict[str, Any] = {
        name: (("step", "kind"), values, _meaning(*_OVER_STEPS[name])) for name, values in columns.items()
    }
    predicted = np.nan
    if config["weight_decay"] > 0:
        settings = {name: config[name] for name in ("rate", "weight_decay", "momentum")}
        predicted = float(np.mean([equilibrium_radius(float(value), **settings) ** 2 for value in rough]))
    variables["settled_square"] = (
        (),
        float(squares.mean()),
        _meaning(
            "squared norm of a unit's scale-invariant weights, last quarter of the run", "mean over units and steps"
        ),
    )
    variables["predicted_square"] = (
        (),
        predicted,
        _meaning("the same by the equilibrium radius, from the gradients of these steps", "NaN without weight decay"),
    )
    return histories.build(variables, {"step": run["step"].values, "kind": list(KINDS)}, config=dict(config))


def _meaning(words: str, scale: str) -> dict[str, str]:
    return {"long_name": words, "scale": scale, "source": _SOURCE}
