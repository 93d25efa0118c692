"""Alternating gradient flows: what a two-layer network learns, in which order, and when, from a vanishing start."""

from typing import TYPE_CHECKING

from learnmech.lazy import lazy_names

if TYPE_CHECKING:
    from learnmech.dynamics.agf.attention_modes import AttentionPrediction, linear_attention
    from learnmech.dynamics.agf.attention_problem import AttentionProblem
    from learnmech.dynamics.agf.comparing import Comparison, compare
    from learnmech.dynamics.agf.comparing_order import OrderAgreement
    from learnmech.dynamics.agf.diagonal_bias import diagonal_limit, diagonal_potential
    from learnmech.dynamics.agf.diagonal_logs import diagonal_flow
    from learnmech.dynamics.agf.diagonal_path import DiagonalPrediction, diagonal
    from learnmech.dynamics.agf.diagonal_problem import DiagonalProblem
    from learnmech.dynamics.agf.engine_reading import read_run
    from learnmech.dynamics.agf.engine_run import run
    from learnmech.dynamics.agf.flows import gradient_flow
    from learnmech.dynamics.agf.greedy_training import Greedy
    from learnmech.dynamics.agf.linear_modes import LinearPrediction, linear
    from learnmech.dynamics.agf.linear_problem import LinearProblem
    from learnmech.dynamics.agf.modular_levels import ModularPrediction, modular_addition
    from learnmech.dynamics.agf.modular_neurons import six_neurons
    from learnmech.dynamics.agf.modular_problem import ModularProblem
    from learnmech.dynamics.agf.modular_spectra import frequency_power, frequency_share, neuron_power
    from learnmech.dynamics.agf.modular_times import activation_times
    from learnmech.dynamics.agf.modular_utility import fourier_template, maximal_utilities, utility_maximiser
    from learnmech.dynamics.agf.predictions import Prediction
    from learnmech.dynamics.agf.problems import Block, Problem
    from learnmech.dynamics.agf.recognition_assumptions import Assumption
    from learnmech.dynamics.agf.recognition_modules import Recognised
    from learnmech.dynamics.agf.recognition_predictions import ModelPrediction, predict
    from learnmech.dynamics.agf.relu_directions import ReluDirections, extremal_directions
    from learnmech.dynamics.agf.relu_path import ReluPrediction, relu
    from learnmech.dynamics.agf.relu_problem import ReluProblem
    from learnmech.dynamics.agf.staircase_drawing import draw_staircase
    from learnmech.dynamics.agf.written_problem import NeuronProblem

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Assumption": "recognition_assumptions",
        "AttentionPrediction": "attention_modes",
        "AttentionProblem": "attention_problem",
        "Block": "problems",
        "Comparison": "comparing",
        "DiagonalPrediction": "diagonal_path",
        "DiagonalProblem": "diagonal_problem",
        "Greedy": "greedy_training",
        "LinearPrediction": "linear_modes",
        "LinearProblem": "linear_problem",
        "ModelPrediction": "recognition_predictions",
        "ModularPrediction": "modular_levels",
        "ModularProblem": "modular_problem",
        "NeuronProblem": "written_problem",
        "OrderAgreement": "comparing_order",
        "Prediction": "predictions",
        "Problem": "problems",
        "Recognised": "recognition_modules",
        "ReluDirections": "relu_directions",
        "ReluPrediction": "relu_path",
        "ReluProblem": "relu_problem",
        "activation_times": "modular_times",
        "compare": "comparing",
        "diagonal": "diagonal_path",
        "diagonal_flow": "diagonal_logs",
        "diagonal_limit": "diagonal_bias",
        "diagonal_potential": "diagonal_bias",
        "draw_staircase": "staircase_drawing",
        "extremal_directions": "relu_directions",
        "fourier_template": "modular_utility",
        "frequency_power": "modular_spectra",
        "frequency_share": "modular_spectra",
        "gradient_flow": "flows",
        "linear": "linear_modes",
        "linear_attention": "attention_modes",
        "maximal_utilities": "modular_utility",
        "modular_addition": "modular_levels",
        "neuron_power": "modular_spectra",
        "predict": "recognition_predictions",
        "read_run": "engine_reading",
        "relu": "relu_path",
        "run": "engine_run",
        "six_neurons": "modular_neurons",
        "utility_maximiser": "modular_utility",
    },
)

__all__ = [
    "Assumption",
    "AttentionPrediction",
    "AttentionProblem",
    "Block",
    "Comparison",
    "DiagonalPrediction",
    "DiagonalProblem",
    "Greedy",
    "LinearPrediction",
    "LinearProblem",
    "ModelPrediction",
    "ModularPrediction",
    "ModularProblem",
    "NeuronProblem",
    "OrderAgreement",
    "Prediction",
    "Problem",
    "Recognised",
    "ReluDirections",
    "ReluPrediction",
    "ReluProblem",
    "activation_times",
    "compare",
    "diagonal",
    "diagonal_flow",
    "diagonal_limit",
    "diagonal_potential",
    "draw_staircase",
    "extremal_directions",
    "fourier_template",
    "frequency_power",
    "frequency_share",
    "gradient_flow",
    "linear",
    "linear_attention",
    "maximal_utilities",
    "modular_addition",
    "neuron_power",
    "predict",
    "read_run",
    "relu",
    "run",
    "six_neurons",
    "utility_maximiser",
]
