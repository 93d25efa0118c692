"""Figure 4: load curves during training, of networks and of chains side by side."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from learnmech import history as histories
from learnmech.experiments.drawing import draw_curves, new_figure
from learnmech.experiments.networks import without_readout
from learnmech.experiments.reproduction import Claim, Context, Reproduction, Scale, judge
from learnmech.experiments.shi2024.network_claims import mean_of
from learnmech.experiments.shi2024.phase_diagrams import PAPER, SEEDS, SMOKE
from learnmech.experiments.sweeping import train_settings
from learnmech.springs import SpringChain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ALL: tuple[Scale, ...] = ("smoke", "reduced", "paper")
ROWS = ("concave", "linear", "convex")
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "concave": {"lr": 1e-4, "batch": 200, "dropout": 0.0},
    "linear": {"lr": 1e-3, "batch": 100, "dropout": 0.1},
    "convex": {"lr": 3e-3, "batch": 50, "dropout": 0.2},
}
"""Panels (b), (c), (d) of the paper."""
CHAINS: Mapping[str, Mapping[str, float]] = {
    "concave": {"friction_forward": 0.03, "friction_backward": 0.04, "noise": 0.004},
    "linear": {"friction_forward": 0.03, "friction_backward": 0.04, "noise": 0.0217},
    "convex": {"friction_forward": 0.005, "friction_backward": 0.07, "noise": 0.08},
}
"""Chains in the same three phases; the paper's values are not in its text. The linear one has the noise at which the drift
model puts the zero of c for these frictions at this time."""
_TIMES = (2.0, 5.0, 10.0, 20.0, 40.0, 100.0)
_PROBES = 8


def run(context: Context) -> xr.Dataset:
    """Train the networks with curves on the way, and let the chains move with one noise for all blocks and with several.

    Args:
        context: where and how.

    Returns:
        The networks' history, with ``chain_load`` (common noise, one chain), ``chain_end`` and ``chain_error``.
    """
    base = {**(SMOKE if context.scale == "smoke" else PAPER), "probes": _PROBES}
    nets = train_settings(NETWORKS, SEEDS[context.scale], base, context)
    names = list(CHAINS)
    columns = {
        name: xr.DataArray([CHAINS[row][name] for row in names], dims="setting", coords={"setting": names})
        for name in CHAINS["linear"]
    }
    chain = SpringChain(friction_forward=columns["friction_forward"], friction_backward=columns["friction_backward"])
    chains = {"smoke": 100, "reduced": 400, "paper": 2000}[context.scale]
    ends, errors = [], []
    for common in (True, False):
        moved = chain.simulate(
            steps=10_000,
            noise=columns["noise"],
            common_noise=common,
            chains=chains,
            seed=1,
            record_every=100 if common else 10_000,
        )["elongation"].transpose("setting", "time", "chain", "layer")
        if common:
            path = moved.isel(chain=0).sel(time=list(_TIMES), method="nearest")
        final = moved.isel(time=-1).values
        bend = final[..., 0] - final[..., -2]
        ends.append(bend.mean(axis=1))
        errors.append(bend.std(axis=1, ddof=1) / np.sqrt(chains))
    source = {"units": "load", "source": "Shi, Pan, Dokmanić 2024 (arXiv 2407.19353), Fig. 4"}
    kinds = ["common", "independent"]
    nets["chain_load"] = (
        ("setting", "time", "point"),
        chain.load_curve(path.values),
        {"long_name": "load of one chain whose blocks share their noise", **source},
    )
    nets["chain_end"] = (("noise_of_blocks", "setting"), np.array(ends), {"long_name": "mean c at the end", **source})
    nets["chain_error"] = (
        ("noise_of_blocks", "setting"),
        np.array(errors),
        {"long_name": "standard error of c", **source},
    )
    return histories.validate(
        nets.assign_coords(time=list(_TIMES), point=np.arange(path.sizes["layer"] + 1), noise_of_blocks=kinds)
    )


def check(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check that networks and chains end in the same phase, and S8.

    Args:
        history: what :func:`run` gave.
        scale: the scale.

    Returns:
        The claims.
    """
    final = last_probe(history)
    q = {row: mean_of(final, "curvature", setting=row) for row in ROWS}
    straight = mean_of(final, "linearity", setting="linear")
    common = history["chain_end"].sel(noise_of_blocks="common")
    c = {row: float(common.sel(setting=row)) for row in ROWS}
    gap = history["chain_end"].diff("noise_of_blocks").values.ravel()
    error = np.sqrt((history["chain_error"].values ** 2).sum(axis=0))
    return [
        judge(
            "4 (nets)",
            "little noise ends concave, much noise convex, some between",
            "q rises strictly over the rows, q < -0.3 in the first, q > 0.3 in the last",
            "q = " + ", ".join(f"{value:+.2f}" for value in q.values()),
            bool(np.all(np.diff(list(q.values())) > 0)) and q["concave"] < -0.3 and q["convex"] > 0.3,
            tested=scale != "smoke",
        ),
        judge(
            "4c (nets)",
            "the middle row ends linear",
            "R^2 > 0.98",
            f"R^2 = {straight:.3f}",
            straight > 0.98,
            tested=scale != "smoke",
        ),
        judge(
            "4 (chains)",
            "the chains end in the same three phases",
            "c < -0.05, |c| < 0.03, c > 0.05",
            "c = " + ", ".join(f"{value:+.3f}" for value in c.values()),
            c["concave"] < -0.05 and abs(c["linear"]) < 0.03 and c["convex"] > 0.05,
        ),
        judge(
            "S8",
            "noise that all blocks share changes the path, not the mean at the end",
            "c with common and with independent noise equal within 4 standard errors",
            ", ".join(f"{value:+.4f} ± {spread:.4f}" for value, spread in zip(gap, error, strict=True)),
            bool((np.abs(gap) <= 4 * error + 1e-9).all()),
        ),
    ]


def last_probe(history: xr.Dataset) -> xr.Dataset:
    """Give the shape numbers of each cell at its last record; cells of different length are padded with NaN after it.

    Args:
        history: over ``step``.

    Returns:
        ``curvature``, ``linearity`` and ``end_difference`` without ``step``.
    """
    measured = history["curvature"].notnull()
    last = history.sizes["step"] - 1 - measured.isel(step=slice(None, None, -1)).argmax("step")
    return history[["curvature", "linearity", "end_difference"]].isel(step=last)


def draw(history: xr.Dataset) -> "Figure":
    """Draw networks on the left, chains on the right, early curves light and late ones dark.

    Args:
        history: what :func:`run` gave.

    Returns:
        The figure.
    """
    hidden = without_readout(history)
    figure = new_figure(3, 2, width=7.6, height=8.2)
    panels = iter(figure.axes)
    for row, letter in zip(ROWS, "bcd", strict=True):
        curves = hidden["load"].sel(setting=row).isel(seed=0).transpose("step", "layer")
        kept = np.flatnonzero(np.isfinite(curves.values).all(axis=1))
        labels = [f"step {int(history['step'].values[position])}" for position in kept]
        settings = ", ".join(f"{name} {value:g}" for name, value in NETWORKS[row].items())
        draw_curves(next(panels), list(curves.values[kept]), labels, title=f"({letter}) network: {settings}")
        chain = history["chain_load"].sel(setting=row).transpose("time", "point").values[:, :-1]
        values = CHAINS[row]
        draw_curves(
            next(panels),
            list(chain),
            [f"time {time:g}" for time in history["time"].values],
            title=f"chain: friction {values['friction_forward']:g} and {values['friction_backward']:g}, "
            f"noise {values['noise']:g}",
            x_title="block",
        )
    return figure


FIG4 = Reproduction(
    name="shi2024/fig4",
    title="load curves during training: networks beside chains",
    caption="Light curves are early, dark ones late. Left: a ReLU net at one seed. Right: one chain whose blocks share their noise. The "
    "frictions and noises of the paper's chains are not in its text; these are ours.",
    settings={
        scale: {
            **(SMOKE if scale == "smoke" else PAPER),
            "networks": {name: dict(values) for name, values in NETWORKS.items()},
            "chains": {name: dict(values) for name, values in CHAINS.items()},
            "seed": SEEDS[scale],
        }
        for scale in _ALL
    },
    run=run,
    check=check,
    draw=draw,
)
