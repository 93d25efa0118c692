"""What the student-teacher experiment draws at random: inputs on the sphere, a teacher, and the directions of students."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.dynamics.student_settings import StudentSettings
from learnmech.training.seeds import make_generator


@dataclass(frozen=True, eq=False)
class SphereTask:
    """One seed's data, in float64.

    Attributes:
        inputs: training inputs (samples, d), on the unit sphere.
        targets: their targets (samples,).
        test_inputs: test inputs (test samples, d).
        test_targets: their targets.
        teacher: unit weight vectors of the teacher (teachers, d).
        teacher_signs: their output weights (teachers,), +1 or -1.
        directions: unit vectors along which the student's neurons start (neurons, d).
        signs: signs of their output weights (neurons,).
    """

    inputs: Float[Tensor, "samples inputs"]
    targets: Float[Tensor, " samples"]
    test_inputs: Float[Tensor, "tests inputs"]
    test_targets: Float[Tensor, " tests"]
    teacher: Float[Tensor, "teachers inputs"]
    teacher_signs: Float[Tensor, " teachers"]
    directions: Float[Tensor, "neurons inputs"]
    signs: Float[Tensor, " neurons"]


def draw_task(settings: StudentSettings, seed: int) -> SphereTask:
    r"""Draw the data of one seed.

    Targets are :math:`y = \sum_k a^*_k \max(w^*_k \cdot x, 0)` with :math:`w^*_k` uniform on the unit sphere and
    :math:`a^*_k = \pm 1`. Training inputs, test inputs, teacher and student have random streams of their own, and none depends
    on the scales: students of different scales start along the same directions.

    Args:
        settings: sizes.
        seed: the seed.

    Returns:
        The data, on the CPU.
    """
    inputs = _on_sphere(settings.samples, settings.inputs, seed, "inputs")
    test_inputs = _on_sphere(settings.test_samples, settings.inputs, seed, "test inputs")
    teacher = _on_sphere(settings.teachers, settings.inputs, seed, "teacher")
    teacher_signs = _signs(settings.teachers, seed, "teacher signs")
    drawn = settings.neurons // 2 if settings.symmetrised else settings.neurons
    directions = _on_sphere(drawn, settings.inputs, seed, "student")
    signs = _signs(drawn, seed, "student signs")
    if settings.symmetrised:
        directions, signs = torch.cat([directions, directions]), torch.cat([signs, -signs])
    return SphereTask(
        inputs,
        (inputs @ teacher.T).clamp(min=0) @ teacher_signs,
        test_inputs,
        (test_inputs @ teacher.T).clamp(min=0) @ teacher_signs,
        teacher,
        teacher_signs,
        directions,
        signs,
    )


def _on_sphere(count: int, dimension: int, seed: int, purpose: str) -> Tensor:
    drawn: Tensor = torch.randn(count, dimension, generator=make_generator(seed, purpose), dtype=torch.float64)
    length: Tensor = torch.linalg.vector_norm(drawn, dim=1, keepdim=True)
    return drawn / length


def _signs(count: int, seed: int, purpose: str) -> Tensor:
    drawn: Tensor = torch.randint(0, 2, (count,), generator=make_generator(seed, purpose)).double() * 2 - 1
    return drawn
