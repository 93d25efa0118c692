"""Learning dynamics: tangent kernels and regimes, symmetries and conservation laws, exact minimal models, saddles, alternating gradient flows."""

from typing import TYPE_CHECKING

from learnmech.lazy import lazy_names

if TYPE_CHECKING:
    from learnmech.dynamics import agf, saddle
    from learnmech.dynamics.charge_views import View
    from learnmech.dynamics.conservation_laws import angular_momentum, step_linear_charge, step_quadratic_charge
    from learnmech.dynamics.conservation_monitor import ConservationMonitor
    from learnmech.dynamics.equilibrium_of_scale import effective_learning_rate, equilibrium_radius
    from learnmech.dynamics.finding import describe_symmetries, find_symmetries
    from learnmech.dynamics.implicit_bias_limit import ImplicitBias, implicit_bias
    from learnmech.dynamics.implicit_bias_potential import bias_potential
    from learnmech.dynamics.invariants_instrument import InvariantsInstrument
    from learnmech.dynamics.kernel_matrix import kernel
    from learnmech.dynamics.kernel_products import KernelOperator, kernel_operator
    from learnmech.dynamics.kernel_statistics import effective_rank, kernel_alignment, kernel_distance, kernel_spectrum
    from learnmech.dynamics.linear_network_chain import balanced_chain, escape_time
    from learnmech.dynamics.linear_network_runs import deep_linear
    from learnmech.dynamics.linear_neuron import LinearNeuron
    from learnmech.dynamics.low_rank_greedy import greedy_low_rank
    from learnmech.dynamics.low_rank_paths import low_rank_flow
    from learnmech.dynamics.low_rank_tasks import MatrixSensing, matrix_sensing
    from learnmech.dynamics.neural_mechanics_solutions import neural_mechanics
    from learnmech.dynamics.neuron_integrator import neuron_flow, product_flow
    from learnmech.dynamics.neuron_timescales import Timescales
    from learnmech.dynamics.numeric_nullspace import NumericalSymmetries, numerical_symmetries
    from learnmech.dynamics.output_scale import OutputScale, scaled_loss, scaled_rate
    from learnmech.dynamics.regime_instrument import RegimeInstrument
    from learnmech.dynamics.silent_kernels import SilentAlignment, silent_alignment
    from learnmech.dynamics.student_runs import student_teacher
    from learnmech.dynamics.student_settings import StudentSettings, alpha_of_delta
    from learnmech.dynamics.symmetries import Symmetry
    from learnmech.dynamics.two_layer_measures import pattern_change, teacher_alignment, two_layer_kernel
    from learnmech.dynamics.width_laws import WidthExponents, width_exponents
    from learnmech.dynamics.width_measures import measure_width_exponents

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ConservationMonitor": "conservation_monitor",
        "ImplicitBias": "implicit_bias_limit",
        "InvariantsInstrument": "invariants_instrument",
        "KernelOperator": "kernel_products",
        "LinearNeuron": "linear_neuron",
        "MatrixSensing": "low_rank_tasks",
        "NumericalSymmetries": "numeric_nullspace",
        "OutputScale": "output_scale",
        "RegimeInstrument": "regime_instrument",
        "SilentAlignment": "silent_kernels",
        "StudentSettings": "student_settings",
        "Symmetry": "symmetries",
        "Timescales": "neuron_timescales",
        "View": "charge_views",
        "WidthExponents": "width_laws",
        "alpha_of_delta": "student_settings",
        "angular_momentum": "conservation_laws",
        "balanced_chain": "linear_network_chain",
        "bias_potential": "implicit_bias_potential",
        "deep_linear": "linear_network_runs",
        "describe_symmetries": "finding",
        "effective_learning_rate": "equilibrium_of_scale",
        "effective_rank": "kernel_statistics",
        "equilibrium_radius": "equilibrium_of_scale",
        "escape_time": "linear_network_chain",
        "find_symmetries": "finding",
        "greedy_low_rank": "low_rank_greedy",
        "implicit_bias": "implicit_bias_limit",
        "kernel": "kernel_matrix",
        "kernel_alignment": "kernel_statistics",
        "kernel_distance": "kernel_statistics",
        "kernel_operator": "kernel_products",
        "kernel_spectrum": "kernel_statistics",
        "low_rank_flow": "low_rank_paths",
        "matrix_sensing": "low_rank_tasks",
        "measure_width_exponents": "width_measures",
        "neural_mechanics": "neural_mechanics_solutions",
        "neuron_flow": "neuron_integrator",
        "numerical_symmetries": "numeric_nullspace",
        "pattern_change": "two_layer_measures",
        "product_flow": "neuron_integrator",
        "scaled_loss": "output_scale",
        "scaled_rate": "output_scale",
        "silent_alignment": "silent_kernels",
        "step_linear_charge": "conservation_laws",
        "step_quadratic_charge": "conservation_laws",
        "student_teacher": "student_runs",
        "teacher_alignment": "two_layer_measures",
        "two_layer_kernel": "two_layer_measures",
        "width_exponents": "width_laws",
    },
    modules=("agf", "saddle"),
)

__all__ = [
    "ConservationMonitor",
    "ImplicitBias",
    "InvariantsInstrument",
    "KernelOperator",
    "LinearNeuron",
    "MatrixSensing",
    "NumericalSymmetries",
    "OutputScale",
    "RegimeInstrument",
    "SilentAlignment",
    "StudentSettings",
    "Symmetry",
    "Timescales",
    "View",
    "WidthExponents",
    "agf",
    "alpha_of_delta",
    "angular_momentum",
    "balanced_chain",
    "bias_potential",
    "deep_linear",
    "describe_symmetries",
    "effective_learning_rate",
    "effective_rank",
    "equilibrium_radius",
    "escape_time",
    "find_symmetries",
    "greedy_low_rank",
    "implicit_bias",
    "kernel",
    "kernel_alignment",
    "kernel_distance",
    "kernel_operator",
    "kernel_spectrum",
    "low_rank_flow",
    "matrix_sensing",
    "measure_width_exponents",
    "neural_mechanics",
    "neuron_flow",
    "numerical_symmetries",
    "pattern_change",
    "product_flow",
    "saddle",
    "scaled_loss",
    "scaled_rate",
    "silent_alignment",
    "step_linear_charge",
    "step_quadratic_charge",
    "student_teacher",
    "teacher_alignment",
    "two_layer_kernel",
    "width_exponents",
]
