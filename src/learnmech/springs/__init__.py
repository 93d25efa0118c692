"""Spring-block theory of feature learning (Shi, Pan, Dokmanić 2024): how much each layer separates the data."""

# Eager on purpose: functions share their names with the modules that hold them, which lazy lookup would confuse.
from learnmech.springs.load_curve import curvature, end_difference, increments, linearity, load_curve
from learnmech.springs.regression import RegressionAccumulator, regression_load
from learnmech.springs.separation import SeparationAccumulator, separation

__all__ = [
    "RegressionAccumulator",
    "SeparationAccumulator",
    "curvature",
    "end_difference",
    "increments",
    "linearity",
    "load_curve",
    "regression_load",
    "separation",
]
