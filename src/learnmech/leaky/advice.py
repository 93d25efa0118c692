"""What identity costs, dimensions and relative steps of the blocks of a network mean, and what to turn."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from learnmech.monitor.instrument import Finding

BOTTLENECK = 0.5
"""Least over largest identity cost of the blocks up to which there is a bottleneck: half of what is kept elsewhere is dropped there."""
EVEN = 2.0
"""Largest over smallest relative step up to which steps count as even. Of our leaky ResNets (width 40, 24 layers, effective depths
2, 4 and 8), those with uniform step sizes end at 2.4 to 4.1, those with adaptive ones at 1.2."""
IDLE = 0.02
"""Relative step below which a block hardly does anything: features change by less than 2 % of their size."""
MIXED = 0.1
"""Negativity above which identity cost is no count of dimensions. At representations of least cost we find at most 0.02."""
CROWDED = 0.5
"""Kept dimensions in units of the number of columns above which the probe, not the network, limits them."""
_LEAST_BLOCKS = 3


@dataclass(frozen=True)
class _Last:
    """The last step of a history, and what the run was."""

    data: xr.Dataset
    model: dict[str, Any]
    columns: dict[str, int]
    classes: int
    trace_error: str

    def blocks(self, variable: str) -> list[tuple[str, float]]:
        """Give name and value at each block with a finite value."""
        return [
            (str(name), float(value))
            for name, role, value in zip(
                self.data["layer"].values, self.data["role"].values, self.data[variable].values, strict=True
            )
            if role == "block" and np.isfinite(value)
        ]

    def at(self, variable: str, layer: str) -> float:
        return float(self.data[variable].sel(layer=layer))

    @property
    def leaky(self) -> bool:
        return bool(self.model.get("class") == "LeakyResNet")


def findings_of(history: xr.Dataset) -> list[Finding]:
    """Read the variables of the leaky instrument at the last step.

    Args:
        history: a history with them.

    Returns:
        Findings: the bottleneck, the evenness of the steps, blocks that do nothing, and for networks that are no leaky ResNets
        what does not carry over.
    """
    last = _Last(
        history.isel(step=-1),
        json.loads(history.attrs.get("config", "{}")).get("model", {}),
        json.loads(history.attrs.get("leaky_columns", "{}")),
        int(history.attrs.get("classes", 0)),
        str(history.attrs.get("leaky_trace_error", "")),
    )
    return [*_read_costs(last), *_read_steps(last), *_read_scope(last)]


def _read_costs(last: _Last) -> list[Finding]:
    costs = last.blocks("identity_cost")
    if not costs:
        return [
            Finding(
                "leaky.not_measurable",
                "no identity cost",
                "No block has features of which dimensions could be counted: it needs finite numbers, and at least two samples.",
                "unknown",
                _counts(last),
                "sure",
                ("give a probe of some hundred samples", "look for NaN or infinite features"),
            )
        ]
    name, least = min(costs, key=lambda item: item[1])
    columns, kept = last.columns.get(name, 0), int(last.at("bottleneck_dimension", name))
    if columns and kept > CROWDED * columns:
        return [
            Finding(
                "leaky.few_samples",
                "too few samples to count dimensions",
                "No more dimensions can be seen than there are samples, and even the block where features are cheapest to keep has "
                "more than half as many. What the numbers show is the probe, not the network.",
                "unknown",
                f"{kept} dimensions kept at {name}, seen in {columns} columns; identity cost {least:.3g}",
                "sure",
                ("give a larger probe: several times as many samples as there are dimensions",),
                (name,),
            )
        ]
    if len(costs) < _LEAST_BLOCKS:
        return []
    return [_read_bottleneck(last, costs), *_read_signs(last, name)]


def _read_bottleneck(last: _Last, costs: Sequence[tuple[str, float]]) -> Finding:
    name, least = min(costs, key=lambda item: item[1])
    top, most = max(costs, key=lambda item: item[1])
    kept, rank = int(last.at("bottleneck_dimension", name)), last.at("stable_rank", name)
    evidence = f"identity cost {least:.3g} at {name}, {most:.3g} at {top}; kept dimensions {kept}, stable rank {rank:.3g} at {name}"
    if least > BOTTLENECK * most:
        return Finding(
            "leaky.no_bottleneck",
            "no bottleneck",
            "Where the features are cheapest to keep they still cost more than half of what they cost where they are dearest: no "
            "place in this network stands out as narrow.",
            "note",
            evidence,
            "likely",
            (),
            (name,),
        )
    where = (
        "the last block" if name == costs[-1][0] else "the first block" if name == costs[0][0] else "inside the network"
    )
    return Finding(
        "leaky.bottleneck",
        f"bottleneck at {name}",
        f"Keeping the features is cheapest at {name}, {where}: {_dimensions(kept)} kept there. {_compared(last, kept)}",
        "note",
        evidence,
        "likely" if last.leaky else "weak",
        ("if it is too narrow or too wide for the task: a stronger penalty on weights (weight decay) narrows it",),
        (name,),
    )


def _dimensions(count: int) -> str:
    return "1 dimension is" if count == 1 else f"{count} dimensions are"


def _compared(last: _Last, kept: int) -> str:
    if last.classes < 2:
        return ""
    needed = last.classes - 1
    relation = "fewer than" if kept < needed else "as many as" if kept == needed else "more than"
    return (
        f"That is {relation} the {needed} in which {last.classes} classes can all lie at one distance from each other."
    )


def _read_signs(last: _Last, name: str) -> list[Finding]:
    negative = last.at("negativity", name)
    if not negative > MIXED:
        return []
    return [
        Finding(
            "leaky.mixed_signs",
            "features of both signs where the cost is least",
            "Identity cost counts dimensions where features are not negative. Here a good part of them is, and each such part "
            "costs extra: compare the costs of layers with each other, and do not read them as counts.",
            "note",
            f"negativity {negative:.2g} at {name}",
            "sure",
            ("name the activations in layers= to read features behind them",),
            (name,),
        )
    ]


def _read_steps(last: _Last) -> list[Finding]:
    steps = last.blocks("relative_step")
    if not steps:
        return [
            Finding(
                "leaky.no_residual_blocks",
                "no steps to compare",
                "No layer that is read is a residual block, one that adds to its input what weights make of it. So there are no "
                "relative steps.",
                "unknown" if last.trace_error else "note",
                last.trace_error or "layers: " + ", ".join(str(name) for name in last.data["layer"].values[:8]),
                "sure",
                ("if the network has such blocks, name them in layers=",),
            )
        ]
    idle = [(name, value) for name, value in steps if value < IDLE]
    moving = [(name, value) for name, value in steps if value >= IDLE]
    findings = []
    if idle:
        findings.append(
            Finding(
                "leaky.idle_block",
                "blocks that hardly do anything",
                "These residual blocks change their features by less than 2 % of their size. Without them the network would compute "
                "nearly the same features.",
                "note",
                "relative step: " + _listing(idle),
                "likely",
                (
                    "leave them out, or merge them with the next block, and compare the loss",
                    "if training has just begun, wait: blocks that start at zero are idle at first",
                ),
                tuple(name for name, _ in idle),
            )
        )
    if len(moving) < _LEAST_BLOCKS:
        return findings
    low, high = min(moving, key=lambda item: item[1]), max(moving, key=lambda item: item[1])
    spread = high[1] / low[1]
    evidence = f"relative step {low[1]:.2g} at {low[0]} to {high[1]:.2g} at {high[0]}: a factor of {spread:.2g}"
    if spread <= EVEN:
        return [
            Finding(
                "leaky.even_steps",
                "blocks take even steps",
                "Every residual block moves the features by about the same share of their size: depth is used evenly.",
                "good",
                evidence,
                "likely",
            ),
            *findings,
        ]
    return [
        Finding(
            "leaky.uneven_steps",
            "blocks take uneven steps",
            "Some residual blocks move the features several times as far as others. In leaky ResNets small steps gather where the "
            "features hardly change, and the few long ones are the coarse part of the path.",
            "note",
            evidence,
            "likely",
            (
                'steps="adaptive" makes them even while it trains'
                if last.leaky
                else 'learnmech.leaky.StepSizePolicy("adaptive") evens them out while it trains, for blocks scaled by a step size',
                f"more blocks around {high[0]}, fewer around {low[0]}",
            ),
            (low[0], high[0]),
        ),
        *findings,
    ]


def _read_scope(last: _Last) -> list[Finding]:
    if last.leaky:
        return []
    norms = [str(name) for name in last.model.get("normalisations", [])]
    activations = [str(name) for name in last.model.get("activations", []) if name != "ReLU"]
    found = [*(["normalisation (" + ", ".join(norms) + ")"] if norms else []), *activations]
    return [
        Finding(
            "leaky.scope",
            "not a leaky ResNet",
            "Identity cost, ranks and relative steps mean for this network what they are: the least squared size of a ReLU layer "
            "that keeps the features, and how far blocks move them. The laws of leaky ResNets do not carry over: no "
            "Hamiltonian is conserved, no effective dimension is defined, and no step size follows from the cost.",
            "note",
            f"model {last.model.get('class', 'unknown')}" + (": " + ", ".join(found) if found else ""),
            "sure",
        )
    ]


def _counts(last: _Last) -> str:
    counts = [f"{name} {count}" for name, count in list(last.columns.items())[:6]]
    return "columns: " + ", ".join(counts) if counts else ""


def _listing(items: Sequence[tuple[str, float]]) -> str:
    shown = ", ".join(f"{name} {value:.2g}" for name, value in items[:6])
    return shown + (f" and {len(items) - 6} more" if len(items) > 6 else "")
