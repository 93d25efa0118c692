"""Fig. 1 and Fig. 3: nets of many effective depths on the 20-5-20 task, and four more nets for claims that need them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from learnmech import history as histories
from learnmech.experiments.jacot2024.depth_claims import check_bottleneck, check_sizes
from learnmech.experiments.jacot2024.depth_figures import draw_bottleneck, draw_sizes
from learnmech.experiments.jacot2024.shared import RESIDUAL_NOTE, choose_settings, spread
from learnmech.experiments.jacot2024.trained_nets import least_cost_layer, stack_values, train_case, train_net
from learnmech.experiments.reproduction import Context, Reproduction, Scale
from learnmech.sweep import Sweep

_COMMON: Mapping[str, Any] = {
    "widths": [20, 5, 20],
    "teacher": "fully_connected",
    "task_seed": 0,
    "scheme": "adaptive",
    "init": "identity",
    "learning_rate": 3e-3,
    "ridges": [1e-2, 1e-3, 1e-4],
    "seed": 0,
}
SETTINGS: Mapping[Scale, Mapping[str, Any]] = {
    "smoke": {
        **_COMMON,
        "widths": [6, 2, 6],
        "samples": 60,
        "width": 14,
        "layers": 8,
        "effective_depth": [2.0, 3.0, 5.0],
        "penalty": 0.05,
        "adam_steps": 600,
        "polish_iterations": 200,
    },
    "reduced": {
        **_COMMON,
        "samples": 250,
        "width": 44,
        "layers": 24,
        "effective_depth": [2.0, 4.0, 5.0, 6.0, 8.0, 10.0],
        "penalty": 0.08,
        "adam_steps": 3000,
        "polish_iterations": 3000,
    },
    "paper": {
        **_COMMON,
        "samples": 1000,
        "width": 200,
        "layers": 50,
        "effective_depth": [2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5],
        "penalty": 0.002,
        "adam_steps": 20_000,
        "polish_iterations": 10_000,
    },
}
_TOO_LARGE = 20.0
"""Factor on the penalty of the net that shall fail."""
_CASE_SOURCE = "learnmech, for claims C1 and C9 of Jacot and Kaiser, arXiv 2405.17573"
_CASE_MEANINGS = {
    "case_layers": ("steps of the net", "steps"),
    "case_spread": ("standard deviation over depth of the effective dimension", "dimensions"),
    "case_pre_spread": ("standard deviation over depth of the pre-Hamiltonian's effective dimension", "dimensions"),
    "case_residual": ("median stationarity residual", "relative"),
    "case_stationary": ("whether it is below the limit", "1 yes, 0 no"),
    "case_collapsed": ("whether the net trained to zero", "1 yes, 0 no"),
    "case_kept": ("singular values above half the largest, where the identity cost is least", "directions"),
}


def list_cases(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """List the nets beside the sweep.

    Args:
        settings: those of the scale.

    Returns:
        Name to settings: half and twice the layers at a moderate effective depth, and two nets at the largest that shall fail.
    """
    layers, depths = int(settings["layers"]), sorted(settings["effective_depth"])
    moderate, deepest = depths[(len(depths) - 1) // 3], depths[-1]
    return {
        "half the layers": {"effective_depth": moderate, "layers": layers // 2},
        "twice the layers": {"effective_depth": moderate, "layers": layers * 2},
        "start of torch": {"effective_depth": deepest, "init": "torch"},
        "penalty too large": {"effective_depth": deepest, "penalty": _TOO_LARGE * float(settings["penalty"])},
    }


def run_sweep(context: Context) -> xr.Dataset:
    """Train a net for every effective depth.

    Args:
        context: where and how to run.

    Returns:
        The collected sweep.
    """
    settings = _choose(context)
    depths = settings.pop("effective_depth")
    return context.run(Sweep(train_net, {"effective_depth": depths}, fixed=settings))


def run_with_cases(context: Context) -> xr.Dataset:
    """Train a net for every effective depth, and those of :func:`list_cases`.

    Args:
        context: where and how to run.

    Returns:
        The collected sweep, with variables ``case_...`` over ``case``.
    """
    settings = _choose(context)
    cases = list_cases(settings)
    history = run_sweep(context)
    if "cost" not in history and context.shard is None:  # all failed
        return history
    settings.pop("effective_depth")
    varied = {name for case in cases.values() for name in case}
    beside = {name: value for name, value in settings.items() if name not in varied}
    full = {name: {**{key: settings[key] for key in varied if key in settings}, **case} for name, case in cases.items()}
    found = context.run(Sweep(train_case, {"case": list(cases)}, fixed={**beside, "cases": full}), folder="sweep_cases")
    if "effective_dimension" not in found:  # only a share of the cells was run
        return history
    return histories.validate(history.merge(_summarise(found)))


def _choose(context: Context) -> dict[str, Any]:
    return choose_settings(context, SETTINGS[context.scale], ("effective_depth",), locked=("scheme", "init"))


def _summarise(found: xr.Dataset) -> xr.Dataset:
    """Give numbers of each case, so that nets of different depth stand side by side."""
    sizes, names = stack_values(found, "step_size", "case", "layer"), found["case"].values
    rows: dict[str, list[float]] = {name: [] for name in _CASE_MEANINGS}
    for row in range(len(names)):
        present = np.flatnonzero(np.isfinite(sizes[row]))
        nodes = np.append(present, present[-1] + 1) if len(present) else present
        cell = found.isel(case=row, layer=nodes)
        for name in ("residual", "stationary", "collapsed"):
            rows[f"case_{name}"].append(float(cell[name]))
        rows["case_layers"].append(float(len(present)))
        for name, variable in (("spread", "effective_dimension"), ("pre_spread", "pre_effective_dimension")):
            values = spread(cell[variable].values, cell["step_size"].values) if len(present) else np.nan
            rows[f"case_{name}"].append(float(values))
        costs = stack_values(cell.isel(ridge=int(cell["ridge"].values.argmax())), "identity_cost", "layer")
        kept = cell["kept_directions"].values[int(least_cost_layer(costs))] if len(present) else np.nan
        rows["case_kept"].append(float(kept))
    variables = {
        name: ("case", rows[name], {"long_name": words, "scale": scale, "source": _CASE_SOURCE})
        for name, (words, scale) in _CASE_MEANINGS.items()
    }
    return xr.Dataset(variables, {"case": names})


_NOT_GIVEN = (
    "The paper does not give initialisation, teachers, learning rates or the embeddings; ours are in the settings. "
    "At scale reduced nets are narrower, samples fewer and the penalty larger than the paper's. "
)
FIG1 = Reproduction(
    name="jacot2024/fig1",
    title="a bottleneck forms as the effective depth grows",
    caption="A leaky ResNet learns y = g(h(x)), where h maps 20 numbers to 5 and g maps 5 to 20. (a) The least identity cost over depth "
    "(circles), about the number of dimensions that the narrowest layer holds, falls towards 5 as the effective depth L̃ grows; the "
    "effective dimension -2H/L̃ of the Hamiltonian (red) rises from below; numbers in brackets say how near each net is to a critical point. "
    "Right: the slope of the optimal cost in L̃ is the number of directions that are kept. (b, c, d) Singular values of the weights over "
    "depth: in the bottleneck a few lie above L̃ (dotted) and the rest near 0. Bottom row: identity cost and kinetic energy are large "
    "where the features move fast, at both ends, and small in the bottleneck, while their difference, the Hamiltonian, stays nearly "
    "constant. " + RESIDUAL_NOTE + _NOT_GIVEN,
    settings={scale: {**values, "cases": list_cases(values)} for scale, values in SETTINGS.items()},
    run=run_with_cases,
    check=check_bottleneck,
    draw=draw_bottleneck,
    citations=("jacot2024", "jacot2023bottleneck"),
)
FIG3 = Reproduction(
    name="jacot2024/fig3",
    title="path length and momenta change little with the effective depth",
    caption="The bounds of Theorem 4 hold the effective dimension near the least identity cost if the length of the path in the metric of "
    "the representation, over L̃, and the largest norm of the momenta are small. Dashed: growth in proportion to L̃, from the first "
    "point. A curve that stays below it is good. " + _NOT_GIVEN,
    settings=SETTINGS,
    run=run_sweep,
    check=check_sizes,
    draw=draw_sizes,
    citations=("jacot2024",),
)
