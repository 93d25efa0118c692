"""Leaky ResNets: depth as time, energies of representations, the Hamiltonian, the bottleneck, and steps that adapt."""

from typing import TYPE_CHECKING

from learnmech.lazy import lazy_names

if TYPE_CHECKING:
    from learnmech.leaky import exact
    from learnmech.leaky.conserved import balancedness, pairing, pairing_drift
    from learnmech.leaky.cost_of_identity import identity_cost
    from learnmech.leaky.criticality import momenta, stationarity, step_gradients
    from learnmech.leaky.depth_expansion import DepthExpansion, fit_depth_expansion
    from learnmech.leaky.energies import (
        cross_term,
        kinetic_energy,
        lagrangian,
        least_norm_weights,
        path_length,
        potential_energy,
    )
    from learnmech.leaky.envelope import EnvelopeCheck, check_envelope, envelope_slope
    from learnmech.leaky.geodesic_figures import draw_geodesic
    from learnmech.leaky.geodesic_result import Geodesic
    from learnmech.leaky.geodesics import solve_geodesic
    from learnmech.leaky.hamilton_equations import momentum_velocity, velocity
    from learnmech.leaky.hamilton_flow import flow
    from learnmech.leaky.hamiltonians import effective_dimension, hamiltonian, pre_hamiltonian, ridge_hamiltonian
    from learnmech.leaky.instrument import LeakyInstrument
    from learnmech.leaky.metric import Metric
    from learnmech.leaky.network import LeakyBlock, LeakyResNet
    from learnmech.leaky.profile_figures import draw_profile
    from learnmech.leaky.profiles import profile
    from learnmech.leaky.rank_estimate import RankEstimate, estimate_bottleneck_rank
    from learnmech.leaky.ranks import bottleneck_rank, negativity, stable_rank
    from learnmech.leaky.spectra import predicted_spectrum, rates_of
    from learnmech.leaky.step_driver import StepDriver
    from learnmech.leaky.step_sizes import StepSizePolicy, relative_steps, step_norms, step_spread
    from learnmech.leaky.theorem4_bounds import Theorem4, TheoremBound, theorem4
    from learnmech.leaky.training import train, train_members
    from learnmech.leaky.training_result import LeakyTraining
    from learnmech.leaky.training_settings import LeakySettings

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DepthExpansion": "depth_expansion",
        "EnvelopeCheck": "envelope",
        "Geodesic": "geodesic_result",
        "LeakyBlock": "network",
        "LeakyInstrument": "instrument",
        "LeakyResNet": "network",
        "LeakySettings": "training_settings",
        "LeakyTraining": "training_result",
        "Metric": "metric",
        "RankEstimate": "rank_estimate",
        "StepDriver": "step_driver",
        "StepSizePolicy": "step_sizes",
        "Theorem4": "theorem4_bounds",
        "TheoremBound": "theorem4_bounds",
        "balancedness": "conserved",
        "bottleneck_rank": "ranks",
        "check_envelope": "envelope",
        "cross_term": "energies",
        "draw_geodesic": "geodesic_figures",
        "draw_profile": "profile_figures",
        "effective_dimension": "hamiltonians",
        "envelope_slope": "envelope",
        "estimate_bottleneck_rank": "rank_estimate",
        "fit_depth_expansion": "depth_expansion",
        "flow": "hamilton_flow",
        "hamiltonian": "hamiltonians",
        "identity_cost": "cost_of_identity",
        "kinetic_energy": "energies",
        "lagrangian": "energies",
        "least_norm_weights": "energies",
        "momenta": "criticality",
        "momentum_velocity": "hamilton_equations",
        "negativity": "ranks",
        "pairing": "conserved",
        "pairing_drift": "conserved",
        "path_length": "energies",
        "potential_energy": "energies",
        "pre_hamiltonian": "hamiltonians",
        "predicted_spectrum": "spectra",
        "profile": "profiles",
        "rates_of": "spectra",
        "relative_steps": "step_sizes",
        "ridge_hamiltonian": "hamiltonians",
        "solve_geodesic": "geodesics",
        "stable_rank": "ranks",
        "stationarity": "criticality",
        "step_gradients": "criticality",
        "step_norms": "step_sizes",
        "step_spread": "step_sizes",
        "theorem4": "theorem4_bounds",
        "train": "training",
        "train_members": "training",
        "velocity": "hamilton_equations",
    },
    modules=("exact",),
)

__all__ = [
    "DepthExpansion",
    "EnvelopeCheck",
    "Geodesic",
    "LeakyBlock",
    "LeakyInstrument",
    "LeakyResNet",
    "LeakySettings",
    "LeakyTraining",
    "Metric",
    "RankEstimate",
    "StepDriver",
    "StepSizePolicy",
    "Theorem4",
    "TheoremBound",
    "balancedness",
    "bottleneck_rank",
    "check_envelope",
    "cross_term",
    "draw_geodesic",
    "draw_profile",
    "effective_dimension",
    "envelope_slope",
    "estimate_bottleneck_rank",
    "exact",
    "fit_depth_expansion",
    "flow",
    "hamiltonian",
    "identity_cost",
    "kinetic_energy",
    "lagrangian",
    "least_norm_weights",
    "momenta",
    "momentum_velocity",
    "negativity",
    "pairing",
    "pairing_drift",
    "path_length",
    "potential_energy",
    "pre_hamiltonian",
    "predicted_spectrum",
    "profile",
    "rates_of",
    "relative_steps",
    "ridge_hamiltonian",
    "solve_geodesic",
    "stable_rank",
    "stationarity",
    "step_gradients",
    "step_norms",
    "step_spread",
    "theorem4",
    "train",
    "train_members",
    "velocity",
]
