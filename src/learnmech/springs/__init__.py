"""Spring-block theory of feature learning (Shi, Pan, Dokmanić 2024): how much each layer separates the data."""

from typing import TYPE_CHECKING

from learnmech.lazy import lazy_names

# Eager, but for what draws in xarray: functions share their names with the modules that hold them, which lazy lookup would confuse.
from learnmech.springs.load_curve import curvature, end_difference, increments, linearity, load_curve
from learnmech.springs.regression import RegressionAccumulator, regression_load
from learnmech.springs.separation import SeparationAccumulator, separation

if TYPE_CHECKING:
    from learnmech.springs.chain import SpringChain
    from learnmech.springs.twin import ChainFit, fit_chain

__all__ = [
    "ChainFit",
    "RegressionAccumulator",
    "SeparationAccumulator",
    "SpringChain",
    "curvature",
    "end_difference",
    "fit_chain",
    "increments",
    "linearity",
    "load_curve",
    "regression_load",
    "separation",
]

__getattr__, _ = lazy_names(__name__, {"ChainFit": "twin", "SpringChain": "chain", "fit_chain": "twin"})


def __dir__() -> list[str]:
    return sorted(__all__)
