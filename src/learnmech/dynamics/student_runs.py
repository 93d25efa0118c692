"""The student-teacher experiment: two-layer ReLU students of many scales and seeds, trained as one computation."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from learnmech import history as histories
from learnmech.bars import terminal_bar
from learnmech.dynamics.student_measures import MEANINGS, NEURON, StudentMeter, largest_stable_rate
from learnmech.dynamics.student_settings import StudentSettings, alpha_of_delta
from learnmech.dynamics.student_task import SphereTask, draw_task
from learnmech.dynamics.two_layer_stack import TwoLayerStack
from learnmech.errors import InputError, LearnmechWarning
from learnmech.training.interrupt import InterruptFlag

SOURCE = "Kunin et al., arXiv 2406.06158, student-teacher experiment"
_AXES = ("overall_scale", "relative_scale", "output_scale")
_LEAST_BAR = 200_000


def student_teacher(
    overall_scales: Sequence[float] = (0.1, 2.0),
    relative_scales: Sequence[float] = (-1.0, 0.0, 1.0),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    *,
    output_scales: float | Sequence[float] = 1.0,
    settings: StudentSettings | None = None,
    on_progress: Callable[[int, int], object] | None = None,
) -> xr.Dataset:
    r"""Train two-layer ReLU students of every scale and seed by full-batch gradient descent, and follow lazy and rich learning.

    .. math:: f(x) = c \sum_{i \le m} a_i \max(w_i \cdot x, 0), \qquad
        \mathcal{L} = \frac{1}{c^2 n} \sum_j (f(x_j) - y_j)^2,

    started at :math:`|a_i| = \tau\alpha, \lVert w_i \rVert = \tau/\alpha`, on inputs uniform on the unit sphere with targets of a small
    teacher of the same kind. :math:`\tau` is the overall scale, and :math:`\delta = a^2 - \lVert w \rVert^2`, conserved by gradient flow,
    the relative scale: positive, the first layer moves faster (upstream); zero, balanced; negative, the last layer does (downstream).
    :math:`c` is Chizat's output scale: training :math:`\mathcal{L}/c^2` with large c is lazy.

    Source: Kunin et al., arXiv 2406.06158 (scales, measures); Chizat, Oyallon and Bach, arXiv 1812.07956 (output scale).
    The ``alpha`` of the former's public code is the inverse of the paper's; here it is the paper's. Time is stored beside steps:
    in the clock of :math:`\frac{1}{2n}\sum_j r_j^2`, k steps at rate h take :math:`2 h k`.

    How to read it: a kernel distance near 0 at a small training error is lazy learning; one that leaves 0 before the error has
    dropped is rich; one that stays near 0 while the error drops and grows afterwards is *delayed rich*. Distances are
    comparable between runs with the same ``kernel_samples``. ``charge_drift`` is of the order of the rate; if it is not small against
    :math:`\tau^2`, steps are too large to speak of gradient flow.

    Ctrl-C ends the training and returns what is measured: later checkpoints are left out, and the attribute ``stopped_because`` says
    ``interrupted``. A student that diverges is NaN from then on, with a warning, and the others go on.

    Args:
        overall_scales: :math:`\tau`, positive.
        relative_scales: :math:`\delta`, or :math:`\alpha` (``settings.relative``).
        seeds: of data, teacher and directions; the same seed has the same ones at every scale, so that scales compare in pairs.
        output_scales: c, positive; several make a further axis.
        settings: sizes, rate and checkpoints.
        on_progress: called with the steps of single students done, and their total.

    Returns:
        A history over ``step``, ``overall_scale``, ``relative_scale`` (``output_scale``) and ``seed``: ``train_error``,
        ``test_error``, ``kernel_distance``, ``alignment``, ``pattern_change``, ``parameter_distance``, ``charge_drift`` and
        ``flow_time``; ``learning_rate`` and ``diverged`` without ``step``; the teacher's
        ``teacher_vector`` (seed, teacher, input) and ``teacher_sign``; and with ``keep_neurons`` each neuron's ``effective_vector``
        (..., neuron, input) and ``neuron_sign``.

    Raises:
        InputError: if scales or seeds are empty, repeated or out of range.

    Example:
        >>> small = StudentSettings(inputs=2, neurons=10, samples=20, test_samples=50, steps=100, learning_rate=1e-3)
        >>> run = student_teacher([0.1], [0.0, 1.0], seeds=[0], settings=small)
        >>> run["kernel_distance"].dims
        ('step', 'overall_scale', 'relative_scale', 'seed')
        >>> float(run["kernel_distance"].isel(step=0).max())
        0.0
    """
    settings = settings or StudentSettings()
    several = not isinstance(output_scales, int | float)
    factors = [output_scales] if isinstance(output_scales, int | float) else list(output_scales)
    axes = {
        "overall_scale": _require_values("overall_scales", overall_scales, positive=True),
        "relative_scale": _require_values("relative_scales", relative_scales, positive=settings.relative == "alpha"),
        "output_scale": _require_values("output_scales", factors, positive=True),
    }
    chosen = _require_seeds(seeds)
    with torch.no_grad():
        run = _Run(axes, chosen, settings)
        run.train(on_progress)
    return run.history(several)


class _Run:
    def __init__(self, axes: dict[str, list[float]], seeds: list[int], settings: StudentSettings) -> None:
        self._axes, self._seeds, self._settings = axes, seeds, settings
        self._tasks = [draw_task(settings, seed) for seed in seeds]
        self._stack = _make_stack(axes, self._tasks, settings)
        self._members = len(self._stack.rates)
        kept = min(settings.kernel_samples, settings.samples)
        self._start = TwoLayerStack(self._stack.hidden.clone(), self._stack.output.clone(), *_rest(self._stack))
        self._kept = kept
        self._alive = torch.ones(self._members, len(seeds), dtype=torch.bool)
        self._read: dict[str, list[Tensor]] = {}
        self._steps: list[int] = []
        self._interrupted = False

    def train(self, on_progress: Callable[[int, int], object] | None) -> None:
        total = self._settings.steps * self._members * len(self._seeds)
        done = 0
        meter = StudentMeter(self._stack, self._tasks, self._settings)
        with (
            InterruptFlag() as interrupt,
            terminal_bar("training students", total, least=_LEAST_BAR) as advance,
        ):
            before = 0
            for step in self._settings.checkpoint_steps():
                for taken in self._stack.descend(step - before):
                    advance(taken)
                    done += taken
                    if on_progress is not None:
                        on_progress(done, total)
                    if interrupt.requested:
                        break
                if interrupt.requested:
                    self._interrupted = True
                    return
                before = step
                self._drop_diverged()
                for name, values in meter.read(self._alive).items():
                    self._read.setdefault(name, []).append(values)
                self._steps.append(step)

    def _drop_diverged(self) -> None:
        finite = torch.isfinite(self._stack.hidden).flatten(2).all(-1) & torch.isfinite(self._stack.output).all(-1)
        lost = ~finite
        if bool(lost.any()):
            self._alive &= finite.T.cpu()
            self._stack.hidden[lost] = 0.0
            self._stack.output[lost] = 0.0

    def history(self, several: bool) -> xr.Dataset:
        self._warn()
        names = _AXES if several else _AXES[:2]
        sizes = [len(self._axes[name]) for name in names]
        axes = (*names, "seed")
        steps = np.array(self._steps, dtype=np.int64)
        rates = self._stack.rates.double().cpu().reshape(sizes).numpy()
        variables: dict[str, Any] = {}
        for name, values in self._read.items():
            stacked = torch.stack(values)
            shaped = stacked.reshape(len(steps), *sizes, len(self._seeds), *stacked.shape[3:]).numpy()
            meaning, scale = MEANINGS[name] if name in MEANINGS else NEURON[1:]
            further = () if name in MEANINGS else ("neuron", "input")
            variables[name] = (("step", *axes, *further), shaped, _meaning(meaning, scale))
        variables["flow_time"] = (
            ("step", *names),
            2 * steps.reshape(-1, *[1] * len(sizes)) * rates,
            _meaning("time of gradient flow on half the mean squared error", "2 x rate x steps; of the loss over c^2"),
        )
        variables["learning_rate"] = (names, rates, _meaning("rate of the mean squared error over c^2", "no 1/2"))
        variables["diverged"] = (
            axes,
            (~self._alive).reshape(*sizes, len(self._seeds)).numpy().astype(np.int8),
            _meaning("whether the weights stopped being finite", "1 yes, 0 no"),
        )
        variables["teacher_vector"] = (
            ("seed", "teacher", "input"),
            torch.stack([task.teacher for task in self._tasks]).numpy(),
            _meaning("hidden weights of each neuron of the teacher", "unit length"),
        )
        variables["teacher_sign"] = (
            ("seed", "teacher"),
            torch.stack([task.teacher_signs for task in self._tasks]).numpy(),
            _meaning("output weight of each neuron of the teacher", "+1 or -1"),
        )
        coordinates: dict[str, Any] = {"step": steps, **{name: self._axes[name] for name in names}, "seed": self._seeds}
        coordinates["teacher"] = np.arange(self._settings.teachers)
        coordinates["input"] = np.arange(self._settings.inputs)
        if self._settings.keep_neurons:
            coordinates["neuron"] = np.arange(self._settings.neurons)
            signs = torch.stack([task.signs for task in self._tasks]).numpy()
            variables["neuron_sign"] = (
                ("seed", "neuron"),
                signs,
                _meaning("sign of each output weight at the start", "+1 or -1"),
            )
        config = {**dataclasses.asdict(self._settings), **self._axes, "seeds": self._seeds}
        attributes = {
            "loss": "mean squared error over the square of the output scale",
            "stopped_because": "interrupted" if self._interrupted else "done",
        }
        return histories.build(variables, coordinates, config=config, attributes=attributes)

    def _warn(self) -> None:
        lost = torch.nonzero(~self._alive).tolist()
        if not lost:
            return
        member, seed = lost[0]
        stable = largest_stable_rate(self._start, self._tasks, self._kept)
        scales = dict(zip(_AXES, _combinations(self._axes)[member], strict=True))
        where = ", ".join(f"{name} {value:g}" for name, value in scales.items())
        warnings.warn(
            f"{len(lost)} of {self._alive.numel()} students diverged and are NaN from then on, the first with {where}, seed "
            f"{self._seeds[seed]}, at the learning rate {float(self._stack.rates[member]):.3g}; at its start rates below about "
            f"{float(stable[member, seed]):.3g} are stable, later they must be lower where the kernel grows. Lower learning_rate, or use "
            "rate_law='inverse_square'.",
            LearnmechWarning,
            stacklevel=4,
        )


def _rest(stack: TwoLayerStack) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return stack.output_scale, stack.rates, stack.inputs, stack.targets


def _combinations(axes: dict[str, list[float]]) -> list[tuple[float, float, float]]:
    return [
        (overall, relative, factor)
        for overall in axes["overall_scale"]
        for relative in axes["relative_scale"]
        for factor in axes["output_scale"]
    ]


def _make_stack(axes: dict[str, list[float]], tasks: list[SphereTask], settings: StudentSettings) -> TwoLayerStack:
    dtype, device = getattr(torch, settings.dtype), torch.device(settings.device)
    members = _combinations(axes)
    overall = torch.tensor([scale for scale, _, _ in members], dtype=torch.float64)
    alphas = torch.tensor(
        [value if settings.relative == "alpha" else alpha_of_delta(value, scale) for scale, value, _ in members],
        dtype=torch.float64,
    )
    factors = torch.tensor([factor for _, _, factor in members], dtype=torch.float64)
    rates = torch.full_like(overall, settings.learning_rate)
    if settings.rate_law == "inverse_square":
        rates = rates / overall.square()
    directions = torch.stack([task.directions for task in tasks])
    signs = torch.stack([task.signs for task in tasks])
    hidden = (overall / alphas)[None, :, None, None] * directions[:, None]
    output = (overall * alphas)[None, :, None] * signs[:, None]
    inputs, targets = torch.stack([task.inputs for task in tasks]), torch.stack([task.targets for task in tasks])
    return TwoLayerStack(*(values.to(device, dtype) for values in (hidden, output, factors, rates, inputs, targets)))


def _require_values(name: str, values: Sequence[float], *, positive: bool) -> list[float]:
    listed = [float(value) for value in values]
    good = all(math.isfinite(value) and (value > 0 or not positive) for value in listed)
    if not listed or not good or len(set(listed)) != len(listed):
        wanted = "positive finite" if positive else "finite"
        raise InputError(f"{name} must be one or more different {wanted} numbers, got {list(values)!r}.")
    return listed


def _require_seeds(seeds: Sequence[int]) -> list[int]:
    listed = [int(seed) if isinstance(seed, int | np.integer) else -1 for seed in seeds]
    if not listed or min(listed) < 0 or len(set(listed)) != len(listed):
        raise InputError(f"seeds must be one or more different integers of at least 0, got {list(seeds)!r}.")
    return listed


def _meaning(long_name: str, scale: str) -> dict[str, str]:
    return {"long_name": long_name, "scale": scale, "source": SOURCE}
