"""How near a net is to a critical point, and what lives there: momenta, the stationarity residual, and the collapse to zero."""

import torch
from torch import Tensor

from learnmech.leaky.hamiltonians import pre_hamiltonian
from learnmech.leaky.network import LeakyResNet
from learnmech.leaky.objective import StackedObjective

_IDLE = 0.5  # one direction that is kept over the whole depth needs weights of norm effective_depth


def momenta(net: LeakyResNet, inputs: Tensor, targets: Tensor) -> Tensor:
    r"""Compute the momenta of a net: the gradients of its data cost on its representations, over minus the penalty.

    .. math:: B_l = -\frac1\lambda \frac{\partial C}{\partial A_l}.

    At a critical point of the cost :math:`W_l = \tilde L\,B_l\,\sigma(A_{l-1})^T`, and A and B follow Hamilton's equations.

    Source: Jacot and Kaiser, arXiv 2405.17573, Hamiltonian reformulation.

    Args:
        net: the net; it is not changed.
        inputs: inputs (samples, d_in), all that it was trained on.
        targets: their targets, as for the net's cost.

    Returns:
        Momenta (layers + 1, width, samples) in float64. Raises what the net's cost raises.

    Example:
        >>> net = LeakyResNet(2, 2, width=4, effective_depth=2.0, layers=5)
        >>> momenta(net, torch.ones(3, 2), torch.zeros(3, 2)).shape
        torch.Size([6, 4, 3])
    """
    return path_and_momenta(net, inputs, targets)[1]


def path_and_momenta(net: LeakyResNet, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the representations and the momenta in one pass.

    Args:
        net: the net; it is not changed.
        inputs: inputs (samples, d_in).
        targets: their targets.

    Returns:
        Path and momenta, each (layers + 1, width, samples) in float64.
    """
    objective = StackedObjective([net], inputs, targets, dtype=torch.float64)
    gradients = objective.end_gradients(objective.values())
    return objective.path[:, 0].clone(), gradients[:, 0] / -net.penalty


def stationarity(net: LeakyResNet, inputs: Tensor, targets: Tensor) -> Tensor:
    r"""Measure how far each layer is from the critical point.

    .. math::
        r_l = \frac{\lVert W_l - \tilde L\,B_l\,\sigma(A_{l-1})^T \rVert_F}{\lVert W_l \rVert_F}
            = \frac{\tilde L}{\lambda \rho_l}\,\frac{\lVert \partial J/\partial W_l \rVert_F}{\lVert W_l \rVert_F}.

    Zero at a critical point. Near 1 a Hamiltonian or an effective dimension of the net means nothing. Trained ReLU nets often end
    on a kink, where entries of A are exactly zero and the residual stops at a few per cent.

    Source: learnmech; from the stationarity condition of Jacot and Kaiser, arXiv 2405.17573.

    Args:
        net: the net; it is not changed.
        inputs: inputs (samples, d_in), all that it was trained on.
        targets: their targets.

    Returns:
        Residuals (layers,) in float64; infinite for a layer without weights whose gradient is not zero, 0 if that is zero too.
        Raises what the net's cost raises.
    """
    objective = StackedObjective([net], inputs, targets, dtype=torch.float64)
    return stacked_stationarity(objective, objective.values())[0]


def stacked_stationarity(objective: StackedObjective, values: Tensor) -> Tensor:
    """Measure :func:`stationarity` of every member.

    Args:
        objective: the nets with their data, in float64.
        values: flat vectors (members, numbers).

    Returns:
        Residuals (members, layers).
    """
    _, gradient = objective.cost_and_gradient(values)
    slopes = torch.linalg.vector_norm(objective.weights_of(gradient), dim=(2, 3)) / objective.weight_scales
    norms = torch.linalg.vector_norm(objective.weights_of(values), dim=(2, 3))
    return torch.where(slopes == 0, torch.zeros_like(slopes), slopes / norms)


def step_gradients(net: LeakyResNet, inputs: Tensor, targets: Tensor) -> Tensor:
    r"""Compute the slope of the cost in each step size, for a diagnosis of the mesh.

    .. math::
        \frac{\partial J}{\partial \rho_l} = -\lambda P_l, \qquad
        P_l = \langle B_l, W_l \sigma(A_{l-1}) - \tilde L A_{l-1} \rangle - \frac{\lVert W_l \rVert^2}{2\tilde L},

    at any weights. Equal slopes would say that moving depth from one layer to another gains nothing to first order. **Do not
    descend along them:** coarse steps make the penalty of a discrete net cheaper, so that free step sizes pile up on few layers,
    which lowers the cost without a better mesh.

    Source: derived here (P is Pontryagin's Hamiltonian before its maximum over the weights).

    Args:
        net: the net; it is not changed.
        inputs: inputs (samples, d_in).
        targets: their targets.

    Returns:
        Slopes (layers,) in float64. Raises what the net's cost raises.
    """
    path, moments = path_and_momenta(net, inputs, targets)
    weights = net.weights.double()
    return -net.penalty * pre_hamiltonian(path[:-1], moments[1:], weights, net.effective_depth, bias=net.bias)


def find_collapsed(objective: StackedObjective, values: Tensor) -> list[bool]:
    r"""Find members that have trained to zero.

    A net is collapsed if its weights are too small to keep one direction over the depth,
    :math:`(\sum_l \rho_l \lVert W_l \rVert^2)^{1/2} < \tilde L / 2`, and its data cost is, within 1 %, that of no weights at all.

    Args:
        objective: the nets with their data.
        values: flat vectors (members, numbers).

    Returns:
        One answer a member.
    """
    empty = values.clone()
    objective.weights_of(empty).zero_()
    gains = 1 - objective.data_costs(values) / objective.data_costs(empty)
    squares = objective.weights_of(values).square().sum((2, 3), dtype=torch.float64)
    norms = (squares * objective.steps).sum(1).sqrt()
    return [bool(answer) for answer in (gains < 0.01) & (norms < _IDLE * objective.effective_depths.to(norms))]
