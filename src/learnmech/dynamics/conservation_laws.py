r"""The exact discrete laws that charges follow under SGD with momentum, Nesterov momentum, dampening and weight decay.

A step of ``torch.optim.SGD`` is

.. math:: v_{k+1} = b v_k + d\,(g_k + \lambda\theta_k), \qquad \theta_{k+1} = \theta_k - \eta s_{k+1},

with d = 1 - dampening (1 at the first step), and s = v, or s = g + λθ + b v with Nesterov momentum. A symmetry of the loss says
:math:`\langle g_k, T\theta_k\rangle = 0`. So two numbers for every charge go on by themselves once the size of the step is known.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.dynamics.symmetries import Symmetry
from learnmech.errors import InputError

Numbers = Float[Tensor, " count"] | float


def step_quadratic_charge(
    charge: Numbers,
    momentum_charge: Numbers,
    step_form: Numbers,
    velocity_form: Numbers | None = None,
    *,
    rate: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
) -> tuple[Numbers, Numbers]:
    r"""Carry a quadratic charge over one step of SGD, exactly.

    With :math:`A=\langle\theta,T\theta\rangle`, :math:`B=\langle\theta,Tv\rangle` and :math:`p=bB+d\lambda A`,

    .. math::
        A' = A - 2\eta\,q + \eta^2\langle s,Ts\rangle, \qquad B' = p - \eta\langle s,Tv'\rangle,

    where q = p, or :math:`q=\lambda A+b\,p` with Nesterov momentum. Without momentum this is
    :math:`A'=(1-\eta\lambda)^2A+\eta^2\langle g,Tg\rangle`. Only the forms of the step have to be measured. Any schedule: use the
    settings of the step.

    Source: derived here, from the equations of the optimizer. The continuous counterpart is in Kunin et al., "Neural mechanics"
    (arXiv 2012.04728).

    Args:
        charge: A before the step.
        momentum_charge: B before the step; 0 before the first.
        step_form: :math:`\langle s,Ts\rangle`, s being the step's direction :math:`(\theta-\theta')/\eta`.
        velocity_form: :math:`\langle s,Tv'\rangle`; only Nesterov momentum needs it, else it is ``step_form``.
        rate: learning rate η.
        momentum: b.
        weight_decay: λ, coupled as in ``torch.optim.SGD``.
        dampening: 0 at the first step of a parameter, whatever the optimizer says: torch starts the velocity undamped.
        nesterov: whether momentum is Nesterov's.

    Returns:
        A and B after the step.

    Raises:
        InputError: if Nesterov momentum comes without ``velocity_form`` or with dampening.

    Example:
        A scale-invariant vector (1, 0) with gradient (0, 2), rate 0.5: it moves to (1, -1).

        >>> step_quadratic_charge(1.0, 0.0, 4.0, rate=0.5)
        (2.0, -2.0)
    """
    if nesterov and (velocity_form is None or dampening != 0):
        raise InputError("Nesterov momentum needs velocity_form, <s, T v'>, and has no dampening.")
    decay = weight_decay * charge
    carried = momentum * momentum_charge + (1 - dampening) * decay
    along = decay + momentum * carried if nesterov else carried
    crossed = step_form if velocity_form is None else velocity_form
    return charge - 2 * rate * along + rate**2 * step_form, carried - rate * crossed


def step_linear_charge(
    charge: Numbers,
    momentum_charge: Numbers,
    *,
    rate: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
) -> tuple[Numbers, Numbers]:
    r"""Carry the charge of a translation over one step of SGD, exactly and without measuring anything.

    With :math:`c=\langle b,\theta\rangle` and :math:`m=\langle b,v\rangle`: :math:`m'=b\,m+d\lambda c` and
    :math:`c'=c-\eta m'`, or :math:`c'=c-\eta(\lambda c+b\,m')` with Nesterov momentum. At a constant rate without dampening this is
    :math:`c_{k+1}=(1+b-\eta\lambda)c_k-b\,c_{k-1}`.

    Source: derived here, from the equations of the optimizer.

    Args:
        charge: c before the step.
        momentum_charge: m before the step; 0 before the first.
        rate: learning rate η.
        momentum: b.
        weight_decay: λ, coupled as in ``torch.optim.SGD``.
        dampening: 0 at the first step of a parameter, whatever the optimizer says.
        nesterov: whether momentum is Nesterov's.

    Returns:
        c and m after the step.

    Raises:
        InputError: if Nesterov momentum comes with dampening.

    Example:
        >>> step_linear_charge(2.0, 0.0, rate=0.5, weight_decay=0.5)
        (1.5, 1.0)
    """
    if nesterov and dampening != 0:
        raise InputError("Nesterov momentum has no dampening.")
    decay = weight_decay * charge
    carried = momentum * momentum_charge + (1 - dampening) * decay
    return charge - rate * (decay + momentum * carried if nesterov else carried), carried


def angular_momentum(
    symmetry: Symmetry, values: Mapping[str, Tensor], velocities: Mapping[str, Tensor]
) -> Float[Tensor, " pairs"]:
    r"""Give the conserved quantity that gradient flow does not have: the angular momentum of rotations between mixing units.

    Rotations of the units between two linear maps leave the loss as it is, too, but their generators are antisymmetric and give gradient
    flow no charge. With momentum b they do:

    .. math:: J_{ij} = \sum_v \tfrac12\left(v_i\cdot\theta_j - v_j\cdot\theta_i\right), \qquad J_{k+1} = b\,J_k.

    A velocity that starts at zero has J = 0 forever, with weight decay (the same for all parameters of the symmetry) and any schedule.

    Source: derived here. (An invariant of Noether's theorem for training with momentum.)

    Args:
        symmetry: one whose units mix, such as ``gl``.
        values: the parameters by name.
        velocities: their momentum buffers by name.

    Returns:
        J for all pairs of units i < j, group by group, float64. Compare it with ``|v| |theta|``: rounding if the law holds. Not for Nesterov
        momentum, nor for parameters with different learning rates.

    Raises:
        InputError: for a symmetry whose units do not mix.

    Example:
        >>> from learnmech.dynamics.charge_views import View
        >>> two = Symmetry("gl", (View("a", (1, 2), units=(1,)), View("w", (2, 1), weight=-1.0)), mixing=True)
        >>> values = {"a": torch.tensor([[1.0, 0.0]]), "w": torch.tensor([[0.0], [1.0]])}
        >>> pushed = {"a": torch.tensor([[0.0, 3.0]]), "w": torch.tensor([[3.0], [0.0]])}
        >>> angular_momentum(two, values, pushed).tolist()
        [0.0]
    """
    if not symmetry.mixing:
        raise InputError(f"the units of this {symmetry.kind} symmetry do not mix, so they have no rotations.")
    total: Tensor | None = None
    for view in symmetry.views:
        products = view.lay_out(velocities) @ view.lay_out(values).mT
        part = abs(view.weight) * (products - products.mT) / 2
        total = part if total is None else total + part
    assert total is not None
    units = total.shape[-1]
    rows, columns = torch.triu_indices(units, units, offset=1)
    return total[:, rows, columns].flatten()
