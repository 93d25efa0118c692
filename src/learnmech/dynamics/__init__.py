"""Learning dynamics: tangent kernels and regimes, symmetries and conservation laws, exact minimal models, saddles."""

from typing import TYPE_CHECKING

from learnmech.lazy import lazy_names

if TYPE_CHECKING:
    from learnmech.dynamics import saddle
    from learnmech.dynamics.charge_views import View
    from learnmech.dynamics.finding import describe_symmetries, find_symmetries
    from learnmech.dynamics.implicit_bias_limit import ImplicitBias, implicit_bias
    from learnmech.dynamics.implicit_bias_potential import bias_potential
    from learnmech.dynamics.linear_network_chain import balanced_chain, escape_time
    from learnmech.dynamics.linear_network_runs import deep_linear
    from learnmech.dynamics.linear_neuron import LinearNeuron
    from learnmech.dynamics.low_rank_greedy import greedy_low_rank
    from learnmech.dynamics.low_rank_paths import low_rank_flow
    from learnmech.dynamics.low_rank_tasks import MatrixSensing, matrix_sensing
    from learnmech.dynamics.neuron_integrator import neuron_flow, product_flow
    from learnmech.dynamics.neuron_timescales import Timescales
    from learnmech.dynamics.numeric_nullspace import NumericalSymmetries, numerical_symmetries
    from learnmech.dynamics.silent_kernels import SilentAlignment, silent_alignment
    from learnmech.dynamics.symmetries import Symmetry
    from learnmech.dynamics.width_laws import WidthExponents, width_exponents
    from learnmech.dynamics.width_measures import measure_width_exponents

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ImplicitBias": "implicit_bias_limit",
        "LinearNeuron": "linear_neuron",
        "MatrixSensing": "low_rank_tasks",
        "NumericalSymmetries": "numeric_nullspace",
        "SilentAlignment": "silent_kernels",
        "Symmetry": "symmetries",
        "Timescales": "neuron_timescales",
        "View": "charge_views",
        "WidthExponents": "width_laws",
        "balanced_chain": "linear_network_chain",
        "bias_potential": "implicit_bias_potential",
        "deep_linear": "linear_network_runs",
        "describe_symmetries": "finding",
        "escape_time": "linear_network_chain",
        "find_symmetries": "finding",
        "greedy_low_rank": "low_rank_greedy",
        "implicit_bias": "implicit_bias_limit",
        "low_rank_flow": "low_rank_paths",
        "matrix_sensing": "low_rank_tasks",
        "measure_width_exponents": "width_measures",
        "neuron_flow": "neuron_integrator",
        "numerical_symmetries": "numeric_nullspace",
        "product_flow": "neuron_integrator",
        "silent_alignment": "silent_kernels",
        "width_exponents": "width_laws",
    },
    modules=("saddle",),
)

__all__ = [
    "ImplicitBias",
    "LinearNeuron",
    "MatrixSensing",
    "NumericalSymmetries",
    "SilentAlignment",
    "Symmetry",
    "Timescales",
    "View",
    "WidthExponents",
    "balanced_chain",
    "bias_potential",
    "deep_linear",
    "describe_symmetries",
    "escape_time",
    "find_symmetries",
    "greedy_low_rank",
    "implicit_bias",
    "low_rank_flow",
    "matrix_sensing",
    "measure_width_exponents",
    "neuron_flow",
    "numerical_symmetries",
    "product_flow",
    "saddle",
    "silent_alignment",
    "width_exponents",
]
