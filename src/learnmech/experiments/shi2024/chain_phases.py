"""Figures 3, S13 and S14: phase diagrams of spring chains, friction against noise, for three kinds of dynamics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from learnmech import history as histories
from learnmech.experiments.drawing import draw_phase_diagram
from learnmech.experiments.reproduction import Claim, Context, Reproduction, Scale
from learnmech.experiments.shi2024.chain_claims import check_phases, check_same_signs
from learnmech.springs import SpringChain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRICTIONS = (0.0, 0.005, 0.02, 0.03, 0.04, 0.06)
NOISES = (0.0, 0.003, 0.006, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
BACKWARD = 0.04
_FINE = {
    "frictions": tuple(np.linspace(0, 0.06, 13).round(4).tolist()),
    "noises": (0.0, *np.geomspace(0.003, 0.32, 17).round(5).tolist()),
}
_SOURCE = "Shi, Pan, Dokmanić 2024 (arXiv 2407.19353), Fig. 3"
_ALL: tuple[Scale, ...] = ("smoke", "reduced", "paper")


@dataclass(frozen=True)
class ChainDiagram:
    """A phase diagram of chains.

    Attributes:
        name: of the figure.
        title: of the figure.
        caption: how to read it.
        dynamics: of :meth:`learnmech.springs.SpringChain.simulate`.
        steps: steps of each chain.
        dt: length of a step.
        damping: of the dynamics with inertia.
        chains: at each scale.
    """

    name: str
    title: str
    caption: str
    dynamics: Literal["overdamped", "stick_slip", "langevin"]
    steps: int
    dt: float
    damping: float | None
    chains: Mapping[Scale, int]

    def grid(self, scale: Scale) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Give frictions and noises.

        Args:
            scale: the scale.

        Returns:
            Both axes, rising.
        """
        return (_FINE["frictions"], _FINE["noises"]) if scale == "paper" else (FRICTIONS, NOISES)

    def run(self, context: Context) -> xr.Dataset:
        """Simulate all chains of the diagram.

        Args:
            context: the scale.

        Returns:
            Mean elongations at the end, their bend c, and what the theory expects.
        """
        context.require_overrides()
        frictions, noises = self.grid(context.scale)
        chain = SpringChain(friction_forward=np.array(frictions)[:, None], friction_backward=BACKWARD)
        run = chain.simulate(
            steps=self.steps,
            dt=self.dt,
            noise=np.array(noises),
            dynamics=self.dynamics,
            damping=self.damping,
            chains=self.chains[context.scale],
            record_every=self.steps,
            seed=0,
        )
        return summarise(run, frictions, noises, self.settings(context.scale))

    def settings(self, scale: Scale) -> dict[str, Any]:
        """Describe the run.

        Args:
            scale: the scale.

        Returns:
            Name to value.
        """
        frictions, noises = self.grid(scale)
        return {
            "blocks": 7,
            "stiffness": 1,
            "target": 1,
            "friction_forward": frictions,
            "friction_backward": BACKWARD,
            "noise": noises,
            "dynamics": self.dynamics,
            "steps": self.steps,
            "dt": self.dt,
            "damping": "none" if self.damping is None else self.damping,
            "chains": self.chains[scale],
        }

    def check(self, history: xr.Dataset, scale: Scale) -> list[Claim]:
        """Check the claims.

        Args:
            history: what :meth:`run` gave.
            scale: the scale.

        Returns:
            S1 to S7 for the first-order chain, S9 for the others.
        """
        if self.dynamics == "overdamped":
            return check_phases(history)
        clear = np.where(np.abs(history["bend_limit"].values) > 0.02, history["bend_limit"].values, np.nan)
        what = {"stick_slip": "the second-order chain", "langevin": "the Langevin chain"}[self.dynamics]
        return [check_same_signs(history, clear, "S9", what)]

    def declare(self) -> Reproduction:
        """Make the figure that can be run by name.

        Returns:
            The figure.
        """
        return Reproduction(
            name=self.name,
            title=self.title,
            caption=self.caption,
            settings={scale: self.settings(scale) for scale in _ALL},
            run=self.run,
            check=self.check,
            draw=draw_chains,
        )


def summarise(
    run: xr.Dataset, frictions: tuple[float, ...], noises: tuple[float, ...], config: Mapping[str, Any]
) -> xr.Dataset:
    """Reduce simulated chains to the means at the end and what the theory expects of them.

    Args:
        run: a simulation over ``friction_forward``, ``noise``, ``time``, ``chain``, ``layer``.
        frictions: the frictions.
        noises: the noises.
        config: what was run.

    Returns:
        A history over ``friction_forward``, ``noise`` and ``layer``.
    """
    dims = ("friction_forward", "noise")
    final = run["elongation"].isel(time=-1).transpose(*dims, "chain", "layer").values
    bends = final[..., 0] - final[..., -2]
    chain = SpringChain(friction_forward=np.array(frictions)[:, None], friction_backward=BACKWARD)
    mean = final.mean(axis=2)
    quiet, loud = chain.equilibrium("noiseless"), chain.equilibrium("high_noise")
    limit = np.full(mean.shape[:2], np.nan)
    limit[:, 0] = (quiet[..., 0] - quiet[..., -2]).ravel()
    limit[:, -1] = (loud[..., 0] - loud[..., -2]).ravel()
    length = {"units": "load", "source": _SOURCE}
    many = np.sqrt(final.shape[2])
    error = bends.std(axis=2, ddof=1) / many if final.shape[2] > 1 else np.zeros(mean.shape[:2])
    return histories.build(
        {
            "elongation": ((*dims, "layer"), mean, {"long_name": "mean elongation at the end", **length}),
            "load": (
                (*dims, "layer"),
                chain.load_curve(mean)[..., 1:],
                {"long_name": "mean load at the end", **length},
            ),
            "bend": (dims, bends.mean(axis=2), {"long_name": "first elongation minus last hidden one, c", **length}),
            "bend_error": (dims, error, {"long_name": "standard error of c over chains", **length}),
            "bend_limit": (dims, limit, {"long_name": "c at rest without noise, and under unlimited noise", **length}),
            "friction_backward": ((), BACKWARD, {"long_name": "friction against backward motion", **length}),
            "stiffness": ((), 1.0, {"long_name": "stiffness of the springs", "units": "1", "source": _SOURCE}),
        },
        {
            "friction_forward": list(frictions),
            "noise": list(noises),
            "layer": run["layer"].values,
            "depth": ("layer", run["depth"].values),
        },
        config=dict(config),
    )


def draw_chains(history: xr.Dataset) -> "Figure":
    """Draw a phase diagram of chains: c as colour, load curves in the cells, friction up and noise to the left.

    Args:
        history: what :func:`summarise` gave.

    Returns:
        The figure.
    """
    turned = history.isel(friction_forward=slice(None, None, -1), noise=slice(None, None, -1))
    loads = turned["load"].transpose("friction_forward", "noise", "layer").values
    whole = np.concatenate([np.ones((*loads.shape[:2], 1)), loads[..., :-1]], axis=-1)
    return draw_phase_diagram(
        turned["bend"].transpose("friction_forward", "noise").values,
        whole,
        rows=turned["friction_forward"].values.tolist(),
        columns=turned["noise"].values.tolist(),
        row_title="friction against forward motion",
        column_title="noise",
        colour_title="bend c of the load curve: red concave, blue convex",
        diverging=True,
    )


_READ = (
    "Top row most friction, left column most noise. Red cells are concave (lazy), white ones straight, blue ones convex (active). "
    "The small curves are mean load curves from the fixed end to the last block. "
)
FIG3 = ChainDiagram(
    name="shi2024/fig3",
    title="phase diagram of first-order spring chains",
    caption=_READ + "The paper's grid of frictions and noises is not known; this one is ours.",
    dynamics="overdamped",
    steps=10_000,
    dt=0.01,
    damping=None,
    chains={"smoke": 20, "reduced": 100, "paper": 400},
).declare()
FIGS13 = ChainDiagram(
    name="shi2024/figS13",
    title="phase diagram of second-order chains with stick and slip",
    caption=_READ + "Unit mass, damping 4; noise inside the friction.",
    dynamics="stick_slip",
    steps=10_000,
    dt=0.05,
    damping=4.0,
    chains={"smoke": 40, "reduced": 100, "paper": 400},
).declare()
FIGS14 = ChainDiagram(
    name="shi2024/figS14",
    title="phase diagram of Langevin chains",
    caption=_READ
    + "Unit mass, damping 4; noise outside the friction, so that a moving block feels the friction of its direction.",
    dynamics="langevin",
    steps=10_000,
    dt=0.05,
    damping=4.0,
    chains={"smoke": 40, "reduced": 100, "paper": 400},
).declare()
