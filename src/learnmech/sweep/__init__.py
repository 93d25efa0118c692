"""Sweeps: a grid of settings, one folder a cell, any executor, collected to one history."""

from typing import TYPE_CHECKING

from learnmech.lazy import lazy_names

if TYPE_CHECKING:
    from learnmech.sweep.assembly import collect
    from learnmech.sweep.overview import SweepStatus, status
    from learnmech.sweep.sweep import Sweep, retry

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Sweep": "sweep",
        "SweepStatus": "overview",
        "collect": "assembly",
        "retry": "sweep",
        "status": "overview",
    },
)

__all__ = ["Sweep", "SweepStatus", "collect", "retry", "status"]
