"""Finding the symmetries of a model: from its forward pass, from random gradients, or both."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from learnmech.dynamics.finding_inputs import prepare_inputs
from learnmech.dynamics.finding_loss import LossChoice, ignores_shift, settle
from learnmech.dynamics.finding_verification import verify
from learnmech.dynamics.structure_items import symmetries_of
from learnmech.dynamics.structure_shifts import shifts_of
from learnmech.dynamics.structure_trace import trace
from learnmech.dynamics.symmetries import Symmetry
from learnmech.errors import InputError
from learnmech.monitor.unwrap import unwrap


def find_symmetries(
    model: nn.Module,
    inputs: Any = None,
    *,
    loss: LossChoice = None,
    method: Literal["structure", "numerics", "both"] = "structure",
) -> list[Symmetry]:
    r"""Find the continuous symmetries of a model's loss that are linear in the parameters, with their conserved charges.

    ``structure`` runs the model once on a small batch and follows, through every operation that really happens, the factor by
    which each number would grow if parameters were rescaled. Linear maps and convolutions make fresh unknown factors and can
    undo those that come in; activations of degree q (tried on random numbers) hand them on to the power q; sums demand that
    they are equal; normalisations undo them; whatever is not understood forbids them. What stays free is a symmetry:

    - ``rescale``: :math:`q|a_k|^2 - |w_k|^2 - b_k^2` of a unit or channel; also of the gains of a normalisation, and of
      a channel of a residual stream if all that writes and reads it can follow.
    - ``gl``: :math:`A^TA - WW^T - bb^T` between two linear maps.
    - ``attention_qk``, ``attention_vo``: the same for each head (or group of queries) of an attention. With rotary positions
      one number for each plane is left.
    - ``swiglu``: :math:`|d_k|^2 - |u_k|^2` of a unit that a gate multiplies.
    - ``scale``: :math:`|\theta_A|^2` of what enters a normalisation, for a channel, group or layer.
    - ``translation``: :math:`\sum_o W_{oj}` of a linear map before LayerNorm, or before a softmax or cross-entropy (its bias
      is an item of its own); each bias before the statistics of a batch.

    Sources: sections "symmetries" of Kunin, Sagastuy-Brena, Ganguli, Yamins and Tanaka, "Neural mechanics" (arXiv 2012.04728);
    Du, Hu and Lee (arXiv 1806.00900) for rescale and GL. Attention, SwiGLU, residual streams and how they are found: derived
    here. Each symmetry found is then tried on gradients in float64 at two random parameters near the model's, and left out
    with a warning if it does not hold.

    ``numerics`` does not look at the model's operations at all: see
    :func:`learnmech.dynamics.numeric_nullspace.numerical_symmetries`, which it calls for diagonal and for symmetric
    generators. It is for small models. ``both`` gives what structure finds, and what numerics finds beside it.

    Args:
        model: any module. It is left as it was. Its train/eval flags matter: BatchNorm is scale invariant only in training.
        inputs: a small batch: a tensor, a tuple of positional or a mapping of keyword arguments. None guesses one from the
            first layer.
        loss: ``"cross_entropy"`` (classes along the outputs' last axis), ``"mse"``, a loss of torch, or a function of the
            outputs alone that gives a scalar. None: the outputs themselves must not change.
        method: ``structure``, ``numerics`` or ``both``.

    Returns:
        Symmetries in order of the network; an empty list if there is none. Symmetries of parameters that are frozen are left
        out, as are those of parameters that are used twice in different roles. ``broken_by`` names an epsilon that breaks one
        slightly.

    Raises:
        InputError: if the model cannot run on the inputs, the loss is not understood, or a model is too large for numerics.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> print(describe_symmetries(find_symmetries(model, loss="cross_entropy")))
        kind         count  parameters
        rescale          3  0.weight, 0.bias, 2.weight
        translation      3  2.weight
        translation      1  2.bias
    """
    if method not in ("structure", "numerics", "both"):
        raise InputError(f'method should be "structure", "numerics" or "both", got {method!r}.')
    eager = unwrap(model)
    if any(isinstance(module, torch.jit.ScriptModule) for module in eager.modules()):
        raise InputError(
            "parts of this model are scripted and cannot be followed: give the modules they were made from."
        )
    settled = settle(loss)
    arguments = prepare_inputs(eager, inputs)
    found: list[Symmetry] = []
    if method != "numerics":
        flow, outputs, keys = trace(eager, arguments)
        single = outputs[0] if len(outputs) == 1 else None
        scalings = symmetries_of(flow)
        shifts = shifts_of(
            flow, keys, lambda key, axis: single is not None and ignores_shift(settled, single.detach(), axis)
        )
        found = verify([*scalings, *shifts], eager, arguments, settled)
    if method != "structure":
        from learnmech.dynamics.numeric_items import numerical_items

        found += [item for item in numerical_items(eager, arguments, settled) if not _known(item, found)]
    order = {name: place for place, (name, _) in enumerate(eager.named_parameters())}
    return sorted(found, key=lambda item: min(order[name] for name in item.parameters))


def describe_symmetries(symmetries: Sequence[Symmetry]) -> str:
    """Write a list of symmetries as a table.

    Args:
        symmetries: what :func:`find_symmetries` gave.

    Returns:
        Text: kind, how many numbers are conserved, parameters, and what breaks it.
    """
    if not symmetries:
        return "no continuous symmetry that is linear in the parameters"
    rows = [("kind", "count", "parameters")]
    for symmetry in symmetries:
        notes = [f"degree {symmetry.degree:g}"] if symmetry.degree != 1 else []
        notes += [f"broken by {symmetry.broken_by}"] if symmetry.broken_by else []
        rows.append(
            (
                symmetry.kind,
                str(symmetry.count),
                ", ".join(symmetry.parameters) + "".join(f" ({note})" for note in notes),
            )
        )
    wide, narrow = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{kind:<{wide}}  {count:>{narrow}}  {names}" for kind, count, names in rows)


def _known(item: Symmetry, found: Sequence[Symmetry]) -> bool:
    return any(set(item.parameters) == set(other.parameters) and item.count <= other.count for other in found)
