"""One round of the greedy training: neurons of most utility come in, neurons that add nothing go out."""

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.dynamics.agf.greedy_cost import Cost, best_outputs
from learnmech.dynamics.agf.greedy_utility import maximise_utility, pull

_NEGLIGIBLE = 1e-5
_SLACK = 1e-9


def grow(
    cost: Cost,
    weights: Float[Tensor, "neurons inputs"],
    outputs: Float[Tensor, "neurons outputs"],
    *,
    most: int,
    starts: int,
    seed: int,
) -> tuple[Float[Tensor, "grown inputs"], Float[Tensor, "grown outputs"], float]:
    r"""Add the neurons of most utility, each with the amplitude of an exact line search.

    With the pull g of a unit direction, :math:`|\sigma|^2` the mean square of its feature and the output weights along the pull,
    :math:`L(p) = L - p\,g + p^2|\sigma|^2/2` for the amplitude :math:`p = |w|^q|a|`, so :math:`p = g/|\sigma|^2`. For degree 1, weight
    decay of a balanced neuron adds :math:`\lambda p`, and :math:`p = (g-\lambda)/|\sigma|^2`; a neuron with :math:`g\le\lambda`
    is not added. For other degrees the amplitude is that without decay, and the neuron is added if the cost falls. A second neuron of the
    round is the best of the other directions found, on the residual that the first one leaves.

    Args:
        cost: of the network.
        weights: W.
        outputs: A.
        most: how many neurons to add.
        starts: of the search.
        seed: of its starts.

    Returns:
        W and A, as they were if no neuron pays, and the largest utility of a unit neuron.
    """
    activation, degree = cost.activation, cost.activation.degree
    value, threshold = cost.value(weights, outputs), cost.decay if degree == 1 else 0.0
    residual = cost.residual(weights, outputs)
    generator = torch.Generator().manual_seed(seed)
    found = maximise_utility(cost.inputs, residual, activation, starts=starts, generator=generator)
    utility = float(found.utilities[0])
    noise = 10 * torch.finfo(residual.dtype).eps * float(residual.square().mean().sqrt())
    for _ in range(most):
        sizes, aims = pull(cost.inputs, residual, found.directions, activation)
        place = int(sizes.argmax())
        direction, size = found.directions[place], float(sizes[place])
        square = float(activation.value(cost.inputs @ direction).square().mean())
        if square == 0 or size <= threshold + noise * square**0.5:
            break
        output = ((size - threshold) / square * degree ** (-degree / 2)) ** (1 / (degree + 1))
        tried = (
            torch.cat([weights, degree**0.5 * output * direction[None]]),
            torch.cat([outputs, output * aims[place][None]]),
        )
        reached = cost.value(*tried)
        if not reached < value:
            break
        (weights, outputs), value = tried, reached
        residual = cost.residual(weights, outputs)
    return weights, outputs, utility


def prune(
    cost: Cost,
    weights: Float[Tensor, "neurons inputs"],
    outputs: Float[Tensor, "neurons outputs"],
    value: float,
    none: float,
) -> tuple[Float[Tensor, "kept inputs"], Float[Tensor, "kept outputs"], float]:
    """Drop neurons that add less than 1e-5 of the targets' root mean square, unless that raises the cost.

    Args:
        cost: of the network.
        weights: W.
        outputs: A.
        value: the cost with all of them.
        none: the cost without neurons; a billionth of it is no rise.

    Returns:
        W, A and the cost.
    """
    features = cost.activation.value(cost.inputs @ weights.T)
    sizes = features.square().mean(0).sqrt() * outputs.norm(dim=1)
    alive = sizes > _NEGLIGIBLE * (2 * none) ** 0.5
    if bool(alive.all()):
        return weights, outputs, value
    kept = weights[alive]
    for kept_outputs in (outputs[alive], best_outputs(cost, kept)):
        reached = cost.value(kept, kept_outputs)
        if reached <= value + _SLACK * none:
            return kept, kept_outputs, reached
    return weights, outputs, value
