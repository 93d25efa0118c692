"""The figures that can be reproduced, by name; the module of a figure is imported when it is asked for."""

import importlib

from learnmech.errors import InputError
from learnmech.experiments.reproduction import Reproduction

_SHI = "learnmech.experiments.shi2024"
_CHIZAT = "learnmech.experiments.chizat2023"
_JACOT = "learnmech.experiments.jacot2024"
_SADDLE = "learnmech.experiments.jacot2022"
_KUNIN = "learnmech.experiments.kunin2024"
_MECHANICS = "learnmech.experiments.kunin2020"
_FLOWS = "learnmech.experiments.kunin2025"

FIGURES: dict[str, str] = {
    "shi2024/fig1a": f"{_SHI}.figure1:FIG1A",
    "shi2024/fig1b": f"{_SHI}.figure1:FIG1B",
    "shi2024/fig1c": f"{_SHI}.figure1:FIG1C",
    "shi2024/fig1d": f"{_SHI}.figure1:FIG1D",
    "shi2024/fig2": f"{_SHI}.folding_ruler:FIG2",
    "shi2024/fig3": f"{_SHI}.chain_phases:FIG3",
    "shi2024/fig4": f"{_SHI}.figure4:FIG4",
    "shi2024/fig5": f"{_SHI}.linear_nets:FIG5",
    "shi2024/figS2": f"{_SHI}.convolution:FIGS2",
    "shi2024/figS4": f"{_SHI}.held_out_curves:FIGS4",
    "shi2024/figS5": f"{_SHI}.variants:FIGS5",
    "shi2024/figS6": f"{_SHI}.variants:FIGS6",
    "shi2024/figS7": f"{_SHI}.variants:FIGS7",
    "shi2024/figS8": f"{_SHI}.cifar:FIGS8",
    "shi2024/figS9": f"{_SHI}.cifar:FIGS9",
    "shi2024/figS10": f"{_SHI}.two_loads:FIGS10",
    "shi2024/figS11": f"{_SHI}.two_loads:FIGS11",
    "shi2024/figS12": f"{_SHI}.regression:FIGS12",
    "shi2024/figS13": f"{_SHI}.chain_phases:FIGS13",
    "shi2024/figS14": f"{_SHI}.chain_phases:FIGS14",
    "chizat2023/F1": f"{_CHIZAT}.angle_over_layers:F1",
    "chizat2023/F2": f"{_CHIZAT}.angle_over_depth:F2",
    "chizat2023/F3": f"{_CHIZAT}.angle_over_branch:F3",
    "chizat2023/F4": f"{_CHIZAT}.angle_over_branch:F4",
    "chizat2023/F5": f"{_CHIZAT}.speeds_over_layers:F5",
    "chizat2023/F6": f"{_CHIZAT}.sensitivities:F6",
    "chizat2023/F7": f"{_CHIZAT}.sensitivities:F7",
    "chizat2023/scalings": f"{_CHIZAT}.scaling_table:SCALINGS",
    "jacot2024/fig1": f"{_JACOT}.depth_sweep:FIG1",
    "jacot2024/fig2": f"{_JACOT}.step_schemes:FIG2",
    "jacot2024/fig3": f"{_JACOT}.depth_sweep:FIG3",
    "jacot2024/rank": f"{_JACOT}.rank_table:RANK",
    "jacot2024/digits": f"{_JACOT}.classes:DIGITS",
    "jacot2024/mnist": f"{_JACOT}.classes:MNIST",
    "jacot2022/phase": f"{_SADDLE}.phase:PHASE",
    "kunin2024/neuron": f"{_KUNIN}.neuron:NEURON",
    "kunin2024/bias": f"{_KUNIN}.bias:BIAS",
    "kunin2024/phase": f"{_KUNIN}.phase:PHASE",
    "chizat2019/lazy": "learnmech.experiments.chizat2019.lazy:LAZY",
    "kunin2020/charges": f"{_MECHANICS}.charges:CHARGES",
    "kunin2025/framework": f"{_FLOWS}.framework:FRAMEWORK",
    "kunin2025/linear": f"{_FLOWS}.linear:LINEAR",
    "kunin2025/diagonal": f"{_FLOWS}.diagonal:DIAGONAL",
    "kunin2025/modular": f"{_FLOWS}.modular:MODULAR",
    "kunin2025/attention": f"{_FLOWS}.attention:ATTENTION",
    "kunin2025/relu": f"{_FLOWS}.relu:RELU",
    "kunin2025/greedy": f"{_FLOWS}.greedy:GREEDY",
}
"""Name to ``module:object``."""


def find(name: str) -> Reproduction:
    """Import a figure.

    Args:
        name: such as ``shi2024/fig1a``.

    Returns:
        The figure.

    Raises:
        InputError: if there is none of this name.
    """
    if name not in FIGURES:
        raise InputError(f"unknown figure {name!r}; known are {', '.join(FIGURES)}.")
    module, _, attribute = FIGURES[name].partition(":")
    figure: Reproduction = getattr(importlib.import_module(module), attribute)
    return figure
