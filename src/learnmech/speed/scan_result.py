"""What a scan found: every net's numbers, the fitted powers, the verdict."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from learnmech.errors import InputError
from learnmech.speed.scan_cell import name_readings
from learnmech.speed.scan_claims import AXES, QUANTITIES, Bounds, Check, Outcome, judge_powers
from learnmech.speed.scan_fit import LEVEL, Estimate, fit_powers
from learnmech.speed.scan_text import write_text

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class ScanResult:
    """A scan of widths and depths; print it for the verdict.

    Attributes:
        history: every net's numbers over ``width``, ``depth``, ``seed`` and ``step``, and ``diverged_at``.
        powers: quantity to ``width`` and ``depth`` to the power fitted at the judged step.
        later_powers: the same at the last step.
        checks: the claimed powers, each with an outcome.
        settings: how the nets were made.
        judged_step: the step whose numbers were judged.
        claim: name of the claim; empty for none.
        diverged: sizes and seeds of nets that diverged, with the step.
        failed: sizes and seeds of nets that could not be made or measured, with the error.
        missing: nets that were not computed, as in a scan that shares its cells with other processes.
    """

    history: xr.Dataset
    powers: Mapping[str, Mapping[str, Estimate]]
    later_powers: Mapping[str, Mapping[str, Estimate]]
    checks: tuple[Check, ...]
    settings: Mapping[str, Any]
    judged_step: int
    claim: str
    diverged: tuple[Mapping[str, int], ...]
    failed: tuple[Mapping[str, Any], ...]
    missing: int

    @property
    def verdict(self) -> Outcome | None:
        """Whether the claim holds; None if nothing was claimed.

        ``fail`` if a claimed power is missed, or a net diverged or failed; ``unclear`` if one cannot be told or nets are
        missing; else ``pass``.
        """
        if not self.claim:
            return None
        outcomes = {check.outcome for check in self.checks}
        if "fail" in outcomes or self.diverged or self.failed:
            return "fail"
        return "unclear" if "unclear" in outcomes or self.missing or not self.checks else "pass"

    def to_dict(self) -> dict[str, Any]:
        """Give all but the history as plain values.

        Returns:
            ``verdict``, ``claim``, ``checks``, ``powers``, ``later_powers``, ``diverged``, ``failed``, ``missing``,
            ``judged_step``, ``level`` of the intervals, ``widths``, ``depths``, ``seeds`` and ``settings``.
        """
        return {
            "verdict": self.verdict,
            "claim": self.claim,
            "level": LEVEL,
            "judged_step": self.judged_step,
            "checks": [check.to_dict() for check in self.checks],
            "powers": _plain(self.powers),
            "later_powers": _plain(self.later_powers),
            "diverged": [dict(net) for net in self.diverged],
            "failed": [dict(net) for net in self.failed],
            "missing": self.missing,
            **{f"{name}s": self.history[name].values.tolist() for name in ("width", "depth", "seed")},
            "settings": dict(self.settings),
        }

    def figure(self) -> "go.Figure":
        """Draw every quantity over depth and over width, with the claimed powers.

        Returns:
            A plotly figure.
        """
        from learnmech.speed.scan_figure import draw_scan

        return draw_scan(self)

    def __str__(self) -> str:
        return write_text(self)


def read_scan(
    swept: xr.Dataset,
    claims: Mapping[str, Mapping[str, Bounds]],
    settings: Mapping[str, Any],
    *,
    judged_step: int,
    tolerance: float,
    claim: Any,
) -> ScanResult:
    """Fit and judge what a sweep collected.

    Args:
        swept: the history of the sweep.
        claims: quantity to axis to bounds.
        settings: how the nets were made.
        judged_step: the step whose numbers are judged; negative from the end.
        tolerance: by how much a power may miss the bounds.
        claim: the claim as it was given.

    Returns:
        The result.

    Raises:
        InputError: if not one net could be measured.
    """
    failures = json.loads(swept.attrs.get("failures", "[]"))
    if swept.attrs["cells_done"] == 0:
        reason = failures[0]["error"] if failures else "none was computed"
        raise InputError(
            f"not one of {swept.attrs['cells_total']} nets could be made and measured; the first: {reason}"
        )
    history = name_readings(swept).rename(net_width="width", net_depth="depth")
    for name, long_name in (("width", "width"), ("depth", "depth as the factory counts it")):
        history[name].attrs["long_name"] = long_name
    steps = history.sizes["step"]
    judged = judged_step % steps
    powers, later = (_fit(history, step) for step in (judged, steps - 1))
    return ScanResult(
        history=history,
        powers=powers,
        later_powers=later,
        checks=judge_powers(claims, powers, tolerance),
        settings=settings,
        judged_step=judged,
        claim="" if claim is None else claim if isinstance(claim, str) else "powers as given",
        diverged=tuple(_diverged(history)),
        failed=tuple({**_point(failure["point"]), "error": failure["error"]} for failure in failures),
        missing=int(swept.attrs["cells_missing"]),
    )


def _fit(history: xr.Dataset, step: int) -> dict[str, dict[str, Estimate]]:
    axes = {name: history[name].values.tolist() for name in AXES}
    varied = [name for name, sizes in axes.items() if len(sizes) > 1]
    now = history.isel(step=step)
    # Logarithms of sizes and speeds scatter between draws with a variance in proportion to depth over width.
    weights = np.asarray(axes["width"], dtype=float)[:, None] / np.asarray(axes["depth"], dtype=float)[None, :]
    return {
        quantity: {
            name: estimate
            for name, estimate in fit_powers(
                now[quantity].transpose(*AXES, "seed").values, axes, weights=weights
            ).items()
            if name in varied
        }
        for quantity in QUANTITIES
    }


def _diverged(history: xr.Dataset) -> list[dict[str, int]]:
    steps = history["diverged_at"].transpose(*AXES, "seed").values
    return [
        {name: int(history[name].values[place]) for name, place in zip((*AXES, "seed"), places, strict=True)}
        | {"step": int(steps[tuple(places)])}
        for places in np.argwhere(np.isfinite(steps))
    ]


def _point(point: Mapping[str, Any]) -> dict[str, int]:
    return {name.removeprefix("net_"): int(value) for name, value in point.items()}


def _plain(powers: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, dict[str, float | None]]]:
    return {
        quantity: {
            axis: {name: value if math.isfinite(value) else None for name, value in vars(estimate).items()}
            for axis, estimate in estimates.items()
        }
        for quantity, estimates in powers.items()
    }
