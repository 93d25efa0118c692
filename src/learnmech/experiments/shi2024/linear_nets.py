"""Figure 5: deep linear nets on whitened data beside chains without forward friction."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from learnmech import history as histories
from learnmech.data import Dataset
from learnmech.experiments.drawing import draw_curves, new_figure
from learnmech.experiments.networks import describe_cell, without_readout
from learnmech.experiments.observing import observe
from learnmech.experiments.reproduction import Claim, Context, Reproduction, Scale, judge
from learnmech.nets import MLP
from learnmech.springs import SpringChain
from learnmech.sweep import Sweep
from learnmech.training import TrainConfig, Trainer, build_seeded, derive_seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES = 100
_ALL: tuple[Scale, ...] = ("smoke", "reduced", "paper")
WAYS: Mapping[str, Mapping[str, Any]] = {
    "gradient descent": {"loss": "mse", "lr": 0.1, "dropout": 0.0},
    "large steps": {"loss": "cross_entropy", "lr": 10.0, "dropout": 0.0},
    "dropout 0.05": {"loss": "mse", "lr": 0.1, "dropout": 0.05},
    "dropout 0.2": {"loss": "mse", "lr": 0.1, "dropout": 0.2},
}
"""How the linear nets are trained. A learning rate of 0.1 on the mean over 100 samples and 2 outputs is the paper's 1e-3 on
half the sum of squares. Its large step is not known; squared error stays linear for every stable one, so it is cross-entropy."""
_STEPS: Mapping[Scale, int] = {"smoke": 400, "reduced": 5000, "paper": 20000}
_SEEDS: Mapping[Scale, tuple[int, ...]] = {"smoke": (0,), "reduced": (0, 1, 2), "paper": tuple(range(10))}
_CHAIN_NOISE = 0.05
_CHAIN_BACKWARD = 0.05


def whitened_data(seed: int) -> Dataset:
    """Make whitened inputs, the rows of a random orthogonal matrix, with random binary labels.

    Args:
        seed: of both.

    Returns:
        100 samples of 100 features in 2 classes, float64; no test samples.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "whitened data"))
    inputs = torch.linalg.qr(torch.randn(SAMPLES, SAMPLES, generator=generator, dtype=torch.float64)).Q
    labels = torch.randint(0, 2, (SAMPLES,), generator=generator)
    return Dataset("whitened", inputs, labels, inputs[:0], labels[:0], 2, "rows of a random orthogonal matrix")


def train_linear_net(config: Mapping[str, Any]) -> xr.Dataset:
    """Train a deep linear net from an orthogonal start: a cell of a sweep.

    Args:
        config: ``way`` (a name of :data:`WAYS`), ``steps`` and ``seed``.

    Returns:
        Its load curve, see :func:`learnmech.experiments.networks.describe_cell`.
    """
    way = WAYS[config["way"]]
    data = whitened_data(config["seed"])
    net = build_seeded(
        lambda: MLP(
            SAMPLES,
            2,
            depth=8,
            slope=1.0,
            dropout=way["dropout"],
            batch_norm=False,
            bias=False,
            init="orthogonal",
        ).double(),
        config["seed"],
    )
    settings = TrainConfig(
        optimizer="sgd",
        lr=way["lr"],
        loss=way["loss"],
        epochs=config["steps"],
        seed=config["seed"],
        stop_loss=1e-10,
        stop_change=0.0,
    )
    result = Trainer(net, data, settings).fit()
    return describe_cell(observe(net, data, settings.loss), result, config, steps=False)


def run(context: Context) -> xr.Dataset:
    """Train the nets and relax the chains.

    Args:
        context: where and how.

    Returns:
        Both, the chains as ``chain_load``.
    """
    context.require_overrides("steps")
    steps = {"steps": _STEPS[context.scale], **context.overrides}
    grid: dict[str, list[Any]] = {"way": list(WAYS), "seed": list(_SEEDS[context.scale])}
    nets = context.run(Sweep(train_linear_net, grid, fixed=steps))
    chain = SpringChain(friction_forward=0.0, friction_backward=_CHAIN_BACKWARD)
    run = chain.simulate(steps=20_000, noise=np.array([0.0, _CHAIN_NOISE]), chains=200, record_every=20_000, seed=0)
    elongation = run["elongation"].isel(time=-1).mean("chain").transpose("noise", "layer").values
    meaning = {
        "long_name": "mean load of a chain without forward friction",
        "units": "load",
        "source": "Shi, Pan, Dokmanić 2024 (arXiv 2407.19353), Fig. 5(b)",
    }
    nets["chain_load"] = (("chain_noise", "point"), chain.load_curve(elongation), meaning)
    return histories.validate(
        nets.assign_coords(chain_noise=[0.0, _CHAIN_NOISE], point=np.arange(elongation.shape[1] + 1))
    )


def check(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check N9 and the same of the chain.

    Args:
        history: what :func:`run` gave.
        scale: the scale.

    Returns:
        The claims.
    """
    straight = history["linearity"].sel(way="gradient descent").values.ravel()
    bends = {way: history["end_difference"].sel(way=way).values.ravel() for way in WAYS if way != "gradient descent"}
    chain = history["chain_load"].values[:, :-1]
    c = [float(curve[0] - curve[1] - curve[-2] + curve[-1]) for curve in chain]
    claims = [
        judge(
            "N9",
            "gradient descent on whitened data makes a deep linear net exactly linear",
            "R^2 > 0.9999 for every seed",
            f"R^2 from {straight.min():.7f} to {straight.max():.7f}",
            bool((straight > 0.9999).all()),
        )
    ]
    for way, least in (("large steps", 1.0), ("dropout 0.05", 2.0), ("dropout 0.2", 2.0)):
        claims.append(
            judge(
                f"N9 ({way})",
                f"{way} bends it to convex",
                f"c > {least:g} for every seed",
                f"c from {bends[way].min():+.2f} to {bends[way].max():+.2f}",
                bool((bends[way] > least).all()),
                tested=scale != "smoke" or way == "large steps",
            )
        )
    claims.append(
        judge(
            "S3",
            "a chain without forward friction is linear without noise and convex with it",
            "|c| < 1e-6 without noise, c > 0.05 with noise",
            f"c = {c[0]:+.1e} and {c[1]:+.3f}",
            abs(c[0]) < 1e-6 and c[1] > 0.05,
        )
    )
    return claims


def draw(history: xr.Dataset) -> "Figure":
    """Draw nets on the left, chains on the right.

    Args:
        history: what :func:`run` gave.

    Returns:
        The figure.
    """
    hidden = without_readout(history)
    figure = new_figure(1, 2, width=8.4, height=3.6)
    curves = [hidden["load"].sel(way=way).mean("seed").values for way in WAYS]
    colours = ["#1f2933", "#1b6ca8", "#e2954a", "#d1495b"]
    draw_curves(figure.axes[0], curves, list(WAYS), colours=colours, title="(a) deep linear nets on whitened data")
    labels = ["no noise", f"noise {_CHAIN_NOISE:g}"]
    draw_curves(
        figure.axes[1],
        list(history["chain_load"].values[:, :-1]),
        labels,
        colours=["#1f2933", "#d1495b"],
        title="(b) chains without forward friction",
        x_title="block",
    )
    return figure


FIG5 = Reproduction(
    name="shi2024/fig5",
    title="deep linear nets on whitened data, and chains without forward friction",
    caption="Gradient descent from an orthogonal start moves all layers alike: a straight line. Large steps and dropout act as noise "
    "does on a chain whose forward friction is zero: they bend the curve to convex. The paper's large step and dropout rates "
    "are not in its text; those here are ours.",
    settings={
        scale: {
            "ways": {name: dict(way) for name, way in WAYS.items()},
            "steps": _STEPS[scale],
            "seed": _SEEDS[scale],
            "chain": f"forward friction 0, backward {_CHAIN_BACKWARD:g}, noise 0 and {_CHAIN_NOISE:g}, 200 chains",
        }
        for scale in _ALL
    },
    run=run,
    check=check,
    draw=draw,
)
