"""Figure S2: a convolutional net to which dropout is added after it has nearly converged, and then more."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from learnmech import history as histories
from learnmech.errors import InputError
from learnmech.experiments.drawing import draw_curves, new_figure
from learnmech.experiments.networks import describe_cell, load_dataset, read_config, without_readout
from learnmech.experiments.observing import observe
from learnmech.experiments.reproduction import Claim, Context, Reproduction, Scale, judge
from learnmech.experiments.settings import build_net, make_train_config
from learnmech.experiments.shi2024.phase_diagrams import SEEDS
from learnmech.nets.dropout import Dropout
from learnmech.sweep import Sweep
from learnmech.training import Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ALL: tuple[Scale, ...] = ("smoke", "reduced", "paper")
_NET = {"net": "cnn", "width": 16, "depth": 8}
_FIXED: Mapping[Scale, Mapping[str, Any]] = {
    "smoke": {**_NET, "data": "digits", "samples": 300, "image_size": None, "batch": 50, "stage_epochs": [6, 6]},
    "reduced": {**_NET, "data": "mnist", "samples": 2560, "batch": 128, "stage_epochs": [20, 20]},
    "paper": {**_NET, "data": "mnist", "samples": 2560, "lr": 1e-4, "stage_epochs": [2000, 1000]},
}
DROPOUTS: Mapping[Scale, tuple[float, ...]] = {
    "smoke": (0.0, 0.1, 0.3),
    "reduced": (0.0, 0.05, 0.1, 0.2, 0.4),
    "paper": (0.0, 0.02, 0.04, 0.08, 0.16, 0.32),
}


def train_in_stages(config: Mapping[str, Any]) -> xr.Dataset:
    """Train one network through stages that differ in their dropout rate: a cell of a sweep.

    Args:
        config: settings of :func:`learnmech.experiments.networks.read_config`, and ``dropouts`` (one rate a stage) and
            ``stage_epochs`` (epochs of the first stage, and of each further one).

    Returns:
        The histories at the end of each stage, over ``stage``.

    Raises:
        InputError: if no stage has dropout.
    """
    values = {name: value for name, value in config.items() if name not in ("dropouts", "stage_epochs")}
    rates, (first, later) = config["dropouts"], config["stage_epochs"]
    if max(rates) <= 0:
        raise InputError(f"dropouts must hold a rate above 0, got {rates}.")
    settings, _ = read_config({**values, "dropout": max(rates), "epochs": first + later * (len(rates) - 1)})
    data = load_dataset(settings)
    net = build_net(settings, data)
    layers = [module for module in net.modules() if isinstance(module, Dropout)]
    trainer = Trainer(net, data, make_train_config(settings, data))
    ends = {first + later * stage: stage for stage in range(len(rates))}
    curves = []

    def set_rate(rate: float) -> None:
        for layer in layers:
            layer.p = rate

    def at_epoch(trainer: Trainer) -> None:
        if trainer.epoch in ends:
            curves.append(observe(net, data, trainer.config.loss).history["load"].values[-1])
            stage = ends[trainer.epoch] + 1
            if stage < len(rates):
                set_rate(rates[stage])

    set_rate(rates[0])
    result = trainer.fit(on_epoch=at_epoch)
    cell = describe_cell(observe(net, data, trainer.config.loss), result, config, steps=False)
    missing = len(rates) - len(curves)
    stages = np.array([*curves, *[np.full(cell.sizes["layer"], np.nan)] * missing])
    cell["stage_load"] = (("stage", "layer"), stages, {**cell["load"].attrs, "long_name": "load at the end of a stage"})
    return histories.validate(cell.assign_coords(stage=list(rates)))


def run(context: Context) -> xr.Dataset:
    """Train the networks.

    Args:
        context: where and how.

    Returns:
        Their histories over ``seed`` and ``stage``.
    """
    fixed = {**_FIXED[context.scale], "dropouts": list(DROPOUTS[context.scale]), **context.overrides}
    return context.run(Sweep(train_in_stages, {"seed": list(SEEDS[context.scale])}, fixed=fixed))


def check(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check that dropout bends the curve of a convolutional net as it does that of an MLP.

    Args:
        history: what :func:`run` gave.
        scale: the scale.

    Returns:
        The claims.
    """
    curves = _hidden(history)
    c = (curves[:, 0] - curves[:, 1]) - (curves[:, -2] - curves[:, -1])
    return [
        judge(
            "S2",
            "dropout added to a converged convolutional net bends its load curve from concave towards convex",
            "c < 0 without dropout, and larger after the last stage than after the first",
            "c = " + ", ".join(f"{value:+.2f}" for value in c),
            bool(c[0] < 0 and c[-1] > c[0]),
            tested=scale != "smoke",
        ),
        judge(
            "S2b",
            "more dropout bends it further",
            "c rises strictly over the stages",
            "c = " + ", ".join(f"{value:+.2f}" for value in c),
            bool(np.all(np.diff(c) > 0)),
            tested=scale != "smoke",
        ),
    ]


def _hidden(history: xr.Dataset) -> np.ndarray:
    curves: np.ndarray = without_readout(history)["stage_load"].mean("seed").transpose("stage", "layer").values
    return curves


def draw(history: xr.Dataset) -> "Figure":
    """Draw the mean load curve at the end of each stage.

    Args:
        history: what :func:`run` gave.

    Returns:
        The figure.
    """
    figure = new_figure(width=5.2, height=3.8)
    labels = [f"dropout {rate:g}" for rate in history["stage"].values]
    draw_curves(figure.axes[0], list(_hidden(history)), labels, title="convolutional net, dropout added in stages")
    return figure


FIGS2 = Reproduction(
    name="shi2024/figS2",
    title="a convolutional net with dropout added in stages",
    caption="16 channels, 7 convolutions, BatchNorm, Adam, as the text says; the published script is another one (CIFAR-10, 20 channels, "
    "constant dropout). At scale reduced the images are 28 x 28, in batches of 128, at learning rate 1e-3.",
    settings={scale: {**_FIXED[scale], "dropouts": DROPOUTS[scale], "seed": SEEDS[scale]} for scale in _ALL},
    run=run,
    check=check,
    draw=draw,
)
