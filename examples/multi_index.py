"""Predict what a network of one's own learns, in which order and when: a multi-index model.

The target depends on a few hidden directions ("indices") of the input. The network is a sum of neurons a ((w.x)^2 - |w|^2),
homogeneous of degree 3. From a vanishing start it learns one index after the other, the strongest first; alternating gradient
flows say when, and how far the loss falls. Beside the prediction stands the integrated gradient flow of the same network.

Run: python examples/multi_index.py [FOLDER]. With a folder, the flow and a picture of the staircase are written there.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from learnmech.dynamics import agf
from learnmech.history import save

DIMENSION, SAMPLES, NEURONS, SCALE = 4, 120, 4, 1e-2
STRENGTHS = np.array([2.0, -1.2])

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


problem = agf.NeuronProblem(
    neuron,
    3,
    inputs,
    targets,
    1 + DIMENSION,
    blocks=(agf.Block(0, 1, degree=1), agf.Block(1, 1 + DIMENSION, degree=2)),
    label=nearest_index,
    name="multi-index model",
)
start = SCALE * random.standard_normal((NEURONS, 1 + DIMENSION))
prediction = agf.read_run(agf.run(problem, start))
print(prediction)

flow = agf.gradient_flow(problem, start, end=1.3 * float(prediction.times[-1]), tolerance=1e-6)
found = agf.compare(prediction, flow)
print(found)
if len(sys.argv) > 1:
    folder = Path(sys.argv[1])
    save(flow, folder / "flow.nc")
    found.draw().write_html(folder / "staircase.html")
