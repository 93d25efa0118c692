"""The idea on one small network: dormant neurons maximise their utility, then active ones minimise the cost, by turns."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.integrate import solve_ivp

from learnmech import history as histories
from learnmech.dynamics.agf.comparing import compare
from learnmech.dynamics.agf.engine_reading import read_run
from learnmech.dynamics.agf.engine_run import run as alternate
from learnmech.dynamics.agf.flows import gradient_flow
from learnmech.dynamics.agf.linear_problem import LinearProblem
from learnmech.dynamics.agf.problems import Problem
from learnmech.experiments.kunin2025.framework_drawing import draw
from learnmech.experiments.reproduction import Claim, Context, Reproduction, Scale, judge

_BASE: Mapping[str, Any] = {"values": [2.0, 1.0], "sizes": [1e-3, 2e-4, 5e-5, 1e-5], "seed": 1}
SETTINGS: Mapping[Scale, Mapping[str, Any]] = {
    "smoke": {**_BASE, "records": 200},
    "reduced": {**_BASE, "records": 600},
    "paper": {**_BASE, "records": 600},
}
_THEORY = "alternating gradient flow, Kunin et al. 2025 (arXiv 2506.06489)"
_FLOW = "integrated gradient flow"


def run(context: Context) -> xr.Dataset:
    """Run the engine and gradient flow from one start.

    Args:
        context: the scale; nothing can be replaced.

    Returns:
        Stages of the engine over ``stage`` and ``neuron``, utilities and gradient flow over ``time``.
    """
    context.require_overrides()
    settings = SETTINGS[context.scale]
    values, sizes = np.array(settings["values"]), np.array(settings["sizes"])
    problem = LinearProblem(np.diag(values))
    directions = np.random.default_rng(settings["seed"]).standard_normal((len(sizes), problem.size))
    start = sizes[:, None] * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    stages = alternate(problem, start)
    moments = stages["moment"].values
    end = 1.25 * float(moments[-1])
    flow = gradient_flow(problem, start, end=end)
    found = compare(read_run(stages), flow)
    times = np.linspace(0, end, settings["records"])
    norms = np.linalg.norm(flow["neurons"].values, axis=-1)
    thresholds = -np.log(sizes)
    utilities, at_stages = follow_utilities(problem, start, stages, times)

    def about(text: str, units: str = "1", source: str = _THEORY) -> dict[str, str]:
        return {"long_name": text, "units": units, "source": source}

    inside, flowing = ("time", "neuron"), flow["time"].values
    return histories.build(
        {
            "moment": (("stage",), moments, about("time of the jump to this plateau", "time")),
            "level": (("stage",), stages["loss"].values, about("level of the plateau")),
            "active": (("stage", "neuron"), stages["active"].values, about("whether a neuron is active")),
            "accumulated": (
                ("stage", "neuron"),
                stages["accumulated"].values,
                about("accumulated utility, by the engine"),
            ),
            "followed": (("stage", "neuron"), at_stages, about("the same, integrated anew", source="integrated here")),
            "threshold": (("neuron",), thresholds, about("utility at which a neuron wakes")),
            "utility": (inside, utilities, about("accumulated utility of each neuron")),
            "loss": (
                ("time",),
                np.interp(times, flowing, flow["loss"].values),
                about("loss", source=_FLOW),
            ),
            "norm": (
                inside,
                np.stack([np.interp(times, flowing, norm) for norm in norms.T], axis=1),
                about("norm of each neuron", source=_FLOW),
            ),
            "crossing": (("jump",), found.crossings, about("loss crosses the middle of a step", "time", _FLOW)),
            "jump_time": (("jump",), found.prediction.times, about("jump, by the engine", "time")),
            "flow_level": (("plateau",), found.levels, about("measured level", source=_FLOW)),
            "jump_level": (("plateau",), found.prediction.levels, about("level, by the engine")),
        },
        {
            "time": times,
            "stage": np.arange(len(moments)),
            "neuron": np.arange(len(sizes)),
            "jump": np.arange(len(found.crossings)),
            "plateau": np.arange(len(found.levels)),
        },
        config=dict(settings),
        attributes={"scale": context.scale, "order": list(found.prediction.order)},
    )


def follow_utilities(
    problem: Problem,
    start: Float[np.ndarray, "neurons size"],
    stages: xr.Dataset,
    times: Float[np.ndarray, " time"],
) -> tuple[Float[np.ndarray, "time neurons"], Float[np.ndarray, "stages neurons"]]:
    """Integrate dormant neurons under the frozen residual of each stage, apart from the engine.

    For neurons of degree 2 the accumulated utility is the growth of the log of the norm.

    Args:
        problem: the network.
        start: neurons at the start.
        stages: of the engine.
        times: at which utilities are wanted.

    Returns:
        Accumulated utilities at the times and at the stages; those of an active neuron stay at its threshold.
    """
    moments, active = stages["moment"].values, stages["active"].values
    first = np.linalg.norm(start, axis=1)
    dormant = start.copy()
    utilities, at_stages = np.zeros((len(times), len(start))), np.zeros((len(moments), len(start)))
    for stage, moment in enumerate(moments):
        stop = moments[stage + 1] if stage + 1 < len(moments) else max(float(times[-1]), float(moment))
        residual = problem.residual(stages["neurons"].values[stage][active[stage]])
        inside = (times >= moment) & (times <= stop)

        def slope(_: float, flat: np.ndarray, residual: np.ndarray = residual) -> np.ndarray:
            return problem.pull(flat.reshape(start.shape), residual).ravel()

        wanted = np.concatenate([times[inside], [stop]])
        state = dormant.ravel()
        if stop > moment:
            solution = solve_ivp(slope, (moment, stop), state, "DOP853", dense_output=True, rtol=1e-11, atol=1e-16)
            states = np.asarray(solution["sol"](wanted)).T.reshape(-1, *start.shape)
        else:
            states = np.repeat(dormant[None], len(wanted), axis=0)
        grown = np.log(np.linalg.norm(states, axis=-1) / first)
        grown[:, active[stage]] = -np.log(first[active[stage]])
        utilities[inside] = grown[:-1]
        if stage + 1 < len(moments):
            at_stages[stage + 1] = grown[-1]
        dormant = states[-1]
    return utilities, at_stages


def check(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check thresholds, levels and times.

    Args:
        history: what :func:`run` gave.
        scale: the scale of the run.

    Returns:
        The claims F1 to F4.
    """
    del scale  # every claim is tested at every scale
    active, threshold = history["active"].values, history["threshold"].values
    woken = active[1:] & ~active[:-1]
    reached = (history["followed"].values[1:] / threshold)[woken]
    asleep = (history["followed"].values / threshold)[~active]
    difference = float(np.abs(history["followed"].values - history["accumulated"].values).max())
    times = np.abs(history["crossing"].values / history["jump_time"].values - 1)
    levels = np.abs(history["flow_level"].values - history["jump_level"].values) / float(history["jump_level"][0])
    bound = 2 / float(threshold.min())
    return [
        judge(
            "F1",
            "a neuron wakes when its accumulated utility reaches its threshold -log|θ₀|, the others are below theirs",
            "utility over threshold 1 within 1e-6 for each that wakes, < 1 for each that sleeps; integrated apart from the engine",
            f"{', '.join(f'{value:.8f}' for value in reached)}; sleeping at most {asleep.max(initial=0.0):.3f}",
            bool(len(reached) and np.all(np.abs(reached - 1) <= 1e-6) and np.all(asleep < 1)),
        ),
        judge(
            "F2",
            "utilities add up over all stages and are never reset",
            "the engine's within 1e-6 of those integrated anew (ours)",
            f"largest difference {difference:.1e}",
            difference <= 1e-6,
        ),
        judge(
            "F3",
            "gradient flow rests on the engine's levels",
            "within 1 % of the first level (ours)",
            f"{100 * levels.max():.2f} %",
            bool(levels.max() <= 0.01),
        ),
        judge(
            "F4",
            "it jumps at the engine's times, to leading order in 1/log of the start",
            f"relative error ≤ 2 / |log θ₀| = {100 * bound:.0f} % (ours)",
            ", ".join(f"{100 * value:.1f} %" for value in times),
            bool(len(times) == len(history["jump_level"]) - 1 and np.all(times <= bound)),
        ),
    ]


FRAMEWORK = Reproduction(
    name="kunin2025/framework",
    title="alternating gradient flow in one picture: neurons sleep, wake and learn by turns",
    caption="A linear network with four hidden neurons learns two modes (singular values 2 and 1). Top: the loss of gradient flow, and "
    "the engine's staircase; on a plateau dormant neurons maximise their utility (shaded), at a jump the active ones minimise the cost, in "
    "no time for the engine (red line). Middle: accumulated utility of each neuron by its threshold, by the engine; a neuron wakes when it reaches 1; the utility "
    "of others keeps what it has gained. Bottom: norms in gradient flow from the same start, where others grow along a little. Flow jumps a little later "
    "than the engine: their times agree to leading order in 1/log of the start. An example of ours for the scheme that the paper draws.",
    settings=SETTINGS,
    run=run,
    check=check,
    draw=draw,
    citations=("kunin2025",),
)
