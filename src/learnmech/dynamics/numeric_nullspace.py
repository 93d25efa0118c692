"""Symmetries of any model without a look inside: what random gradients have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from learnmech.dynamics.finding_inputs import prepare_inputs
from learnmech.dynamics.finding_loss import LossChoice, settle
from learnmech.dynamics.finding_verification import Arguments
from learnmech.dynamics.numeric_features import Generators, Side, features_of, sides_of
from learnmech.dynamics.numeric_gradients import random_gradients
from learnmech.errors import InputError
from learnmech.monitor.unwrap import unwrap

MOST_FEATURES = 2000
"""Above this the decomposition takes too long."""
SPARE = 20
"""How many draws more than features."""


@dataclass(frozen=True)
class NumericalSymmetries:
    """What the numerical search found.

    Attributes:
        generators: which generators were tried.
        sides: sides of the parameters, in order of the features.
        singular_values: of the matrix of features over draws, largest first, the largest being 1.
        null_dimension: how many are below the tolerance.
        trivial: null vectors that say nothing: a factor on all rows of a parameter equals one on all columns.
        gap: smallest singular value above the tolerance over the largest below it (or over 1e-16): the larger, the clearer.
        basis: an orthonormal basis of the null space.
        tolerance: below which a singular value counts as zero.
    """

    generators: Generators
    sides: tuple[Side, ...]
    singular_values: Float[Tensor, " features"]
    null_dimension: int
    trivial: int
    gap: float
    basis: Float[Tensor, "null features"]
    tolerance: float

    @property
    def count(self) -> int:
        """How many independent symmetries there are."""
        return self.null_dimension - self.trivial


def numerical_symmetries(
    model: nn.Module,
    inputs: Any = None,
    *,
    loss: LossChoice = None,
    generators: Generators = "diagonal",
    draws: int | None = None,
    tolerance: float = 1e-9,
    seed: int = 0,
) -> NumericalSymmetries:
    r"""Count the symmetries of a model's loss from gradients at random parameters alone.

    A linear symmetry demands :math:`\langle g, T\theta\rangle = 0` at all parameters, inputs and losses. So gradients g at
    random ones are stacked as rows of features, and null vectors of this matrix are symmetries. For each parameter W (of more
    than two dimensions: its first two, the others summed over) the features are the row and the column sums of
    :math:`W\circ g` (``diagonal``), the symmetric parts of :math:`gW^T` and :math:`W^Tg` (``symmetric``, off-diagonal ones
    counted twice), both matrices (``general``), or g itself (``translation``). A bias has rows only. Rows are normalised. One
    null vector of each matrix is trivial. Derived here. Only ``diagonal``, ``symmetric`` and ``translation`` give charges:
    antisymmetric generators conserve nothing under gradient flow.

    Args:
        model: a small module, left as it was; its train/eval flags matter. Computed in float64.
        inputs: a small batch, of which shapes are taken; None guesses.
        loss: as for :func:`learnmech.dynamics.finding.find_symmetries`; None uses random smooth losses of the outputs.
        generators: ``diagonal``, ``symmetric``, ``general`` or ``translation``.
        draws: random parameters; None takes 20 more than features.
        tolerance: singular values below it times the largest count as zero. 1e-9 misses what an epsilon breaks; 1e-3 finds it.
        seed: of the draws.

    Returns:
        Singular values, counts and null vectors. Read ``gap`` first: below about 1e3 the count is not to be trusted.

    Raises:
        InputError: for too few draws, a model with too many features, or one that does not run in float64.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False))
        >>> [numerical_symmetries(net, generators=g).count for g in ("diagonal", "symmetric", "general")]
        [3, 6, 9]
    """
    eager = unwrap(model)
    return search(
        eager,
        prepare_inputs(eager, inputs),
        settle(loss),
        generators=generators,
        draws=draws,
        tolerance=tolerance,
        seed=seed,
    )


def search(
    model: nn.Module,
    arguments: Arguments,
    loss: str | Callable[[Tensor], Tensor] | None,
    *,
    generators: Generators,
    draws: int | None = None,
    tolerance: float = 1e-9,
    seed: int = 0,
) -> NumericalSymmetries:
    """Do the work of :func:`numerical_symmetries` on prepared arguments.

    Args:
        model: the eager model.
        arguments: positional and keyword arguments.
        loss: as :func:`learnmech.dynamics.finding_loss.settle` gives it.
        generators: which.
        draws: how many.
        tolerance: relative.
        seed: of the draws.

    Returns:
        What was found.

    Raises:
        InputError: as there.
    """
    if generators not in get_args(Generators):
        raise InputError(f"generators should be one of {', '.join(get_args(Generators))}, got {generators!r}.")
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance should be between 0 and 1, got {tolerance!r}.")
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad and p.numel()}
    if not shapes:
        raise InputError("the model has no parameters that are trained: there is nothing to find.")
    sides = sides_of(shapes, generators)
    features = sides[-1].stop
    if features > MOST_FEATURES:
        raise InputError(
            f"{generators} generators of this model have {features} features; the numerical search takes at most "
            f'{MOST_FEATURES}: use method="structure", generators="diagonal", or a narrower model of the same kind.'
        )
    draws = features + SPARE if draws is None else draws
    if draws < features + 10:
        raise InputError(f"draws should be at least {features + 10} for {features} features, got {draws!r}.")
    rows = []
    for values, gradients in random_gradients(model, arguments, loss, draws, seed=seed):
        rows.append(
            torch.cat(
                [features_of(side, values[side.parameter], gradients[side.parameter], generators) for side in sides], 1
            )
        )
    matrix = torch.cat(rows)
    norms = matrix.norm(dim=1)
    if not bool(norms.isfinite().all()) or not bool((norms > 0).any()):
        raise InputError(
            "gradients on random parameters are zero or not finite: the search needs a smaller or smoother model."
        )
    matrix = matrix[norms > 0] / norms[norms > 0, None]
    _, singular, directions = torch.linalg.svd(matrix, full_matrices=True)
    singular = torch.nn.functional.pad(singular / singular[0], (0, features - len(singular)))
    null = int((singular < tolerance).sum())
    lowest = float(singular[features - null - 1])
    highest = float(singular[features - null]) if null else 0.0
    trivial = 0 if generators == "translation" else sum(side.axis == 1 for side in sides)
    return NumericalSymmetries(
        generators,
        tuple(sides),
        singular,
        null,
        trivial,
        lowest / max(highest, 1e-16),
        directions[features - null :],
        tolerance,
    )
