"""What is measured of every student at a checkpoint."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from learnmech.dynamics.student_settings import StudentSettings
from learnmech.dynamics.student_task import SphereTask
from learnmech.dynamics.two_layer_measures import kernel_angle, pattern_change, teacher_alignment, two_layer_kernel
from learnmech.dynamics.two_layer_stack import TwoLayerStack

# name -> (what it is, scale)
MEANINGS: Mapping[str, tuple[str, str]] = {
    "train_error": (
        "mean squared error on the training samples",
        "squared target; no 1/2, not divided by the output scale",
    ),
    "test_error": ("mean squared error on the test samples", "squared target; no 1/2, not divided by the output scale"),
    "kernel_distance": ("kernel distance between start and now, on training samples", "0 lazy to 1"),
    "alignment": ("weighted mean cosine of neurons to the nearest teacher direction of their sign", "-1 to 1"),
    "pattern_change": ("share of activations of training samples that differ from the start", "0 to 1"),
    "parameter_distance": ("Euclidean distance of all weights from the start", "units of the weights"),
    "charge_drift": (
        "largest change over neurons of a^2 - |w|^2, which gradient flow keeps",
        "squared weight; 0 in the flow",
    ),
}
NEURON = (
    "effective_vector",
    "output weight's size times hidden weights, |a| w, of each neuron",
    "units of the teacher",
)


class StudentMeter:
    """Measures all students against their start.

    Args:
        stack: the students; read when :meth:`read` is called.
        tasks: the data of each seed.
        settings: sizes.
    """

    def __init__(self, stack: TwoLayerStack, tasks: list[SphereTask], settings: StudentSettings) -> None:
        self._stack, self._settings = stack, settings
        device = stack.hidden.device
        self._hidden, self._output = stack.hidden.double().clone(), stack.output.double().clone()
        kept = min(settings.kernel_samples, settings.samples)
        self._train = [(task.inputs.to(device), task.targets.to(device)) for task in tasks]
        self._test = [(task.test_inputs.to(device), task.test_targets.to(device)) for task in tasks]
        self._teachers = [(task.teacher.to(device), task.teacher_signs.to(device)) for task in tasks]
        self._probes = [inputs[:kept] for inputs, _ in self._train]

    def read(self, alive: Bool[Tensor, "members seeds"]) -> dict[str, Float[Tensor, "members seeds *rest"]]:
        """Measure all students.

        Args:
            alive: which of them have finite weights; the others get NaN.

        Returns:
            Each of :data:`MEANINGS` (members, seeds), on the CPU; and, if neurons are kept, :data:`NEURON`.
        """
        members, seeds = alive.shape
        found = {name: torch.full((members, seeds), torch.nan, dtype=torch.float64) for name in MEANINGS}
        for seed in range(seeds):
            for _, rows in self._stack.blocks(max(self._settings.test_samples, self._settings.samples)):
                chosen = torch.arange(members)[rows]
                chosen = chosen[alive[chosen, seed]]
                if not len(chosen):
                    continue
                for name, values in self._read_block(seed, chosen.to(self._stack.hidden.device)).items():
                    found[name][chosen, seed] = values.cpu()
        if self._settings.keep_neurons:
            vectors = (self._stack.output.abs().unsqueeze(-1) * self._stack.hidden).double().transpose(0, 1).cpu()
            found[NEURON[0]] = torch.where(alive[..., None, None], vectors, torch.nan)
        return found

    def _read_block(self, seed: int, chosen: Tensor) -> dict[str, Tensor]:
        hidden, output = self._stack.hidden[seed, chosen].double(), self._stack.output[seed, chosen].double()
        hidden_0, output_0 = self._hidden[seed, chosen], self._output[seed, chosen]
        scale = self._stack.output_scale[chosen].double()
        probe = self._probes[seed]
        kernels = [two_layer_kernel(*net, probe) for net in ((hidden_0, output_0), (hidden, output))]
        charges = [outer.square() - inner.square().sum(-1) for outer, inner in ((output_0, hidden_0), (output, hidden))]
        return {
            "train_error": _error(hidden, output, scale, *self._train[seed]),
            "test_error": _error(hidden, output, scale, *self._test[seed]),
            "kernel_distance": kernel_angle(*kernels),
            "alignment": teacher_alignment(hidden, output, *self._teachers[seed]),
            "pattern_change": pattern_change(hidden_0, hidden, self._train[seed][0]),
            "parameter_distance": (
                (hidden - hidden_0).square().sum((-2, -1)) + (output - output_0).square().sum(-1)
            ).sqrt(),
            "charge_drift": (charges[1] - charges[0]).abs().amax(-1),
        }


def largest_stable_rate(stack: TwoLayerStack, tasks: list[SphereTask], kept: int) -> Float[Tensor, "members seeds"]:
    r"""Estimate the largest rate at which the first steps are stable, :math:`n / \lambda_{\max}(K_0)`.

    Near a minimum with small residuals the Hessian of :math:`\frac{1}{n} \sum_j r_j^2` has the top eigenvalue
    :math:`2 \lambda_{\max}(K) / n`, and gradient descent needs a rate below 2 over it. The kernel grows where features are learned, so
    that a smaller rate may be needed later.

    Source: derived here.

    Args:
        stack: the students at their start.
        tasks: the data of each seed.
        kept: training samples to use.

    Returns:
        One rate a student, on the CPU.
    """
    columns = []
    for seed, task in enumerate(tasks):
        probe = task.inputs[:kept].to(stack.hidden.device)
        rates = []
        for hidden, output in zip(stack.hidden[seed], stack.output[seed], strict=True):
            kernel = two_layer_kernel(hidden, output, probe)
            rates.append(len(probe) / torch.linalg.eigvalsh(kernel)[-1])
        columns.append(torch.stack(rates))
    return torch.stack(columns, dim=1).cpu()


def _error(hidden: Tensor, output: Tensor, scale: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    outputs = (output.unsqueeze(-2) @ (hidden @ inputs.T).clamp(min=0)).squeeze(-2)
    return (scale[:, None] * outputs - targets).square().mean(-1)
