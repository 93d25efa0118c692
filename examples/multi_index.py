"""Predict what a network of one's own learns, in which order and when: a multi-index model.

The target depends on a few hidden directions ("indices") of the input. The network is a sum of neurons a ((w.x)^2 - |w|^2),
homogeneous of degree 3. From a vanishing start it learns one index after the other, the strongest first; alternating gradient
flows say when, and how far the loss falls. Beside the prediction stands the integrated gradient flow of the same network.

Run: python examples/multi_index.py [FOLDER]. With a folder, both histories are written there.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from learnmech.dynamics.agf.engine_reading import read_run
from learnmech.dynamics.agf.engine_run import run
from learnmech.dynamics.agf.flows import gradient_flow
from learnmech.dynamics.agf.problems import Block
from learnmech.dynamics.agf.written_problem import NeuronProblem
from learnmech.history import save

DIMENSION, SAMPLES, NEURONS = 6, 200, 6
STRENGTHS = np.array([3.0, -2.0, 1.0])

torch.set_num_threads(1)
random = np.random.default_rng(0)
indices = np.linalg.qr(random.standard_normal((DIMENSION, DIMENSION)))[0][:, : len(STRENGTHS)]
inputs = random.standard_normal((SAMPLES, DIMENSION))
targets = ((inputs @ indices) ** 2 - 1) @ STRENGTHS


def neuron(theta: Tensor, x: Tensor) -> Tensor:
    """Give a ((w.x)^2 - |w|^2) for theta = (a, w)."""
    w = theta[1:]
    return theta[0] * ((x @ w) ** 2 - w @ w)


def nearest_index(theta: np.ndarray) -> str:
    """Name the index that a neuron points along, with the sign of its strength."""
    index = int(np.abs(theta[1:] @ indices).argmax())
    return f"{'+' if theta[0] > 0 else '-'}v{index}"


problem = NeuronProblem(
    neuron,
    3,
    inputs,
    targets,
    1 + DIMENSION,
    blocks=(Block(0, 1, 1), Block(1, 1 + DIMENSION, 2)),
    label=nearest_index,
    name="multi-index model",
)


def crossing(times: np.ndarray, losses: np.ndarray, middle: float) -> float:
    """Give the time at which a falling loss crosses a value."""
    after = int((losses < middle).argmax())
    share = (losses[after - 1] - middle) / (losses[after - 1] - losses[after])
    return float(times[after - 1] + share * (times[after] - times[after - 1]))


def compare(scale: float) -> None:
    """Print the prediction beside gradient flow, for starts of a given size."""
    init = scale * np.random.default_rng(3).standard_normal((NEURONS, 1 + DIMENSION))
    stages = run(problem, init)
    prediction = read_run(stages)
    flow = gradient_flow(problem, init, stop=1e-5, tolerance=1e-6)
    times, losses, speeds = (flow[name].values for name in ("time", "loss", "speed"))
    jumps = [crossing(times, losses, (high + low) / 2) for high, low in zip(prediction.levels, prediction.levels[1:])]
    ends = [*jumps[1:], times[-1]]
    print(f"start {scale:g}: the engine ended with '{stages.attrs['ended']}'")
    print("  learns   jump predicted   measured   error    level predicted   measured")
    for learned, when, level, jump, end in zip(
        prediction.order, prediction.times, prediction.levels[1:], jumps, ends, strict=True
    ):
        inside = np.flatnonzero((times > jump) & (times <= end))
        plateau = losses[inside[speeds[inside].argmin()]]
        print(
            f"  {learned!s:8s} {when:14.4f} {jump:10.4f} {abs(when / jump - 1):8.2%} {level:16.6f} {plateau:10.6f}"
        )
    if len(sys.argv) > 1:
        save(stages, Path(sys.argv[1]) / f"multi_index_stages_{scale:g}.nc")
        save(flow, Path(sys.argv[1]) / f"multi_index_flow_{scale:g}.nc")


for size in (1e-2, 1e-3):
    compare(size)
