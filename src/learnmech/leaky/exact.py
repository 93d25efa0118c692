"""Geodesics and trained paths in closed form: what solvers, integrators and trained nets are tested against."""

from learnmech.leaky.exact_linear import AlignedGeodesic, ScalarGeodesic, aligned, scalar, scalar_discrete
from learnmech.leaky.exact_sample import SampleGeodesic, one_sample
from learnmech.leaky.exact_trained import TrainedScalar, scalar_trained

__all__ = [
    "AlignedGeodesic",
    "SampleGeodesic",
    "ScalarGeodesic",
    "TrainedScalar",
    "aligned",
    "one_sample",
    "scalar",
    "scalar_discrete",
    "scalar_trained",
]
