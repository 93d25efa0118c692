"""The same MLP at several output scales: kernel distance, accuracy and load curve side by side."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import xarray as xr

from learnmech.experiments.chizat2019.lazy_cells import LazySetup, train_scaled
from learnmech.experiments.chizat2019.lazy_claims import check
from learnmech.experiments.chizat2019.lazy_drawing import draw
from learnmech.experiments.reproduction import Context, Reproduction, Scale

_AXES = ("output_scale", "seed")
_CAPTION = (
    "One MLP, trained on squared errors to one-hot labels behind α (f - f at the start), with a learning rate divided by α², so that "
    "all have the same time. Lines and dots are means and seeds, bands from least to most. First: how far the centred tangent kernel "
    "turned from the start. Second: the same at the end, with what the instrument regime says, and how far the weights moved: lazy "
    "nets fit their samples with features that stay. Third: accuracy. Fourth: the load curve of the springs: the rich net (α 1) "
    "lowers it layer by layer, the lazy one (α 100) keeps the curve of its random start and separates classes in its read-out; q is "
    "the curvature of the curve, which says little where the curve hardly falls. The paper has two-layer nets, and a VGG-11 on "
    "CIFAR-10; this MLP and all criteria are ours. At scale smoke the data are the embedded digits; MNIST's files must be given "
    "(LEARNMECH_DATA) or reachable, or replaced by data=digits image_size=null."
)


def _settings(**changes: Any) -> dict[str, Any]:
    factors, seeds = changes.pop("output_scale"), changes.pop("seed")
    plain = dataclasses.asdict(LazySetup(**changes))
    return {**plain, "output_scale": factors, "seed": seeds}


SETTINGS: Mapping[Scale, Mapping[str, Any]] = {
    "smoke": _settings(samples=300, width=24, depth=4, epochs=10, output_scale=[1.0, 100.0], seed=[0]),
    "reduced": _settings(
        data="mnist", samples=2560, image_size=10, epochs=300, output_scale=[1.0, 3.0, 10.0, 100.0], seed=[0, 1, 2]
    ),
    "paper": _settings(
        data="mnist",
        samples=10_000,
        image_size=None,
        width=500,
        epochs=1000,
        output_scale=[0.3, 1.0, 3.0, 10.0, 30.0, 100.0],
        seed=[0, 1, 2, 3, 4],
    ),
}


def run(context: Context) -> xr.Dataset:
    """Train a net for every output scale and seed.

    Args:
        context: where and how to run; every setting of the scale can be replaced, lists by lists.

    Returns:
        The collected sweep.
    """
    return context.run_grid(train_scaled, SETTINGS[context.scale], _AXES)


LAZY = Reproduction(
    name="chizat2019/lazy",
    title="lazy training by output scale: kernel distance, accuracy and load curve of one MLP",
    caption=_CAPTION,
    settings=SETTINGS,
    run=run,
    check=check,
    draw=draw,
    citations=("chizat2019", "kunin2024", "shi2024"),
)
