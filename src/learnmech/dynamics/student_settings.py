"""How the student-teacher experiment is set up: sizes, rates, checkpoints, and the two ways to write the relative scale."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from learnmech.errors import InputError

RateLaw = Literal["inverse_square", "constant"]
Relative = Literal["delta", "alpha"]
Precision = Literal["float32", "float64"]


@dataclass(frozen=True, kw_only=True)
class StudentSettings:
    r"""Settings of :func:`learnmech.dynamics.student_teacher`; the defaults are those of the phase plot, with fewer steps.

    Source: Kunin, Raventós, Dominé, Chen, Klindt, Saxe and Ganguli, arXiv 2406.06158, student-teacher experiment: 100 inputs,
    50 students, 3 teachers, 1000 samples, 10 000 test samples, rate :math:`5 \cdot 10^{-3}/\tau^2`, :math:`10^5` to
    :math:`10^6` steps.

    Args:
        inputs: dimension d of the inputs, which lie on the unit sphere.
        neurons: hidden neurons m of the student; even if ``symmetrised``.
        teachers: hidden neurons of the teacher.
        samples: training samples n.
        test_samples: test samples.
        steps: steps of full-batch gradient descent.
        checkpoints: steps at which everything is measured; None for 0, 1, 3, 10, 30, ... and the last.
        learning_rate: rate of the mean squared error (mean over samples, no 1/2).
        rate_law: ``inverse_square`` divides the rate by :math:`\tau^2`, ``constant`` does not.
        relative: what the relative scale is: ``delta``, the conserved :math:`\delta = a^2 - \lVert w \rVert^2`, or
            ``alpha``, with :math:`\lVert w \rVert = \tau/\alpha, |a| = \tau\alpha`.
        symmetrised: whether neurons come in pairs that differ in the sign of a only, so that the student is zero at the start.
        kernel_samples: training samples on which kernels are compared, at most ``samples``.
        keep_neurons: whether to keep every neuron's :math:`|a| w` at every checkpoint.
        dtype: precision of the training; what is measured is measured in float64.
        device: where it runs.

    Raises:
        InputError: if a number is out of range.
    """

    inputs: int = 100
    neurons: int = 50
    teachers: int = 3
    samples: int = 1000
    test_samples: int = 10_000
    steps: int = 10_000
    checkpoints: tuple[int, ...] | None = None
    learning_rate: float = 5e-3
    rate_law: RateLaw = "inverse_square"
    relative: Relative = "delta"
    symmetrised: bool = True
    kernel_samples: int = 200
    keep_neurons: bool = False
    dtype: Precision = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        counts = {"inputs": 1, "neurons": 1, "teachers": 1, "samples": 1, "test_samples": 1, "steps": 0}
        for name, least in {**counts, "kernel_samples": 1}.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} must be an integer of at least {least}, got {value!r}.")
        if not (isinstance(self.learning_rate, int | float) and 0 < self.learning_rate < math.inf):
            raise InputError(f"learning_rate must be a positive finite number, got {self.learning_rate!r}.")
        choices = {"rate_law": get_args(RateLaw), "relative": get_args(Relative), "dtype": get_args(Precision)}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}.")
        if self.symmetrised and self.neurons % 2:
            raise InputError(f"neurons must be even, as they come in pairs, got {self.neurons}; or symmetrised=False.")
        if self.checkpoints is not None:
            object.__setattr__(self, "checkpoints", tuple(self.checkpoints))
            self._require_checkpoints(self.checkpoints)

    def _require_checkpoints(self, checkpoints: tuple[int, ...]) -> None:
        whole = all(isinstance(step, int) and 0 <= step <= self.steps for step in checkpoints)
        if not checkpoints or not whole or sorted(set(checkpoints)) != list(checkpoints):
            raise InputError(f"checkpoints must be rising integers from 0 to steps={self.steps}, got {checkpoints!r}.")

    def checkpoint_steps(self) -> tuple[int, ...]:
        """Give the steps at which everything is measured.

        Returns:
            Rising step numbers; 0 is always among them, as everything is compared with the start.

        Example:
            >>> StudentSettings(steps=250).checkpoint_steps()
            (0, 1, 3, 10, 30, 100, 250)
        """
        if self.checkpoints is not None:
            return tuple(sorted({0, *self.checkpoints}))
        powers = (factor * 10**power for power in range(19) for factor in (1, 3))
        return tuple(sorted({0, self.steps, *(step for step in powers if step < self.steps)}))


def alpha_of_delta(delta: float, overall_scale: float) -> float:
    r"""Compute the relative scale that belongs to a conserved quantity.

    .. math:: \alpha^2 = \tfrac{1}{2}\Bigl(\delta/\tau^2 + \sqrt{(\delta/\tau^2)^2 + 4}\Bigr), \quad
        \delta = a^2 - \lVert w \rVert^2 = \tau^2 (\alpha^2 - \alpha^{-2}),

    with :math:`|a| = \tau\alpha` and :math:`\lVert w \rVert = \tau/\alpha`. Large :math:`\alpha` (positive :math:`\delta`) means that
    the first layer moves faster.

    Source: arXiv 2406.06158, student-teacher experiment. Its caption has :math:`\delta` where its appendix prints
    :math:`\delta^2`, and the ``alpha`` of its public code is the inverse of the paper's; this is the paper's.

    Args:
        delta: :math:`\delta`, any finite number.
        overall_scale: :math:`\tau`, positive.

    Returns:
        :math:`\alpha`, positive.

    Raises:
        InputError: if a number is out of range.

    Example:
        >>> alpha_of_delta(0.0, 0.1)
        1.0
        >>> round(2.0**2 * (alpha_of_delta(-0.7, 2.0) ** 2 - alpha_of_delta(-0.7, 2.0) ** -2), 12)
        -0.7
    """
    tau, value = float(overall_scale), float(delta)
    if not (0 < tau < math.inf):
        raise InputError(f"overall_scale must be positive and finite, got {overall_scale!r}.")
    if not math.isfinite(value):
        raise InputError(f"delta must be finite, got {delta!r}.")
    ratio = abs(value) / tau**2
    square = (ratio + math.hypot(ratio, 2.0)) / 2  # of the larger of alpha and 1/alpha: nothing cancels
    return math.sqrt(square) if value >= 0 else 1 / math.sqrt(square)
