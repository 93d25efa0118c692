r"""Orders of magnitude at the start of a ReLU network, from which every scaling of :func:`learnmech.speed.scaling` follows.

One sample x, pre-activations of mean square 1, hidden weights of variance 2/m. With :math:`\chi` the derivative of the loss
with respect to the k outputs, :math:`\|\chi\|^2 = \Theta(1/k)` (a mean over outputs of order-one errors), the backward pass
and the gradients of the layers are

.. math::
    \|b\| = \sqrt{m}\,\sigma_L\,\|\chi\| \text{ at every layer}, \qquad
    g_\mathrm{in} = b\,x^T, \quad g_\mathrm{hidden} = \beta\,b\,q^T, \quad g_\mathrm{out} = \chi\,q^T,
    \qquad \|q\|^2 = \Theta(m),

with :math:`\sigma_L` the standard deviation of the read-out's weights and :math:`\beta` the branch factor of a residual block
(1 in a plain net). A rule of updates turns the gradient of a layer into a loss decay :math:`C = \eta\,\|g\|_\ast`:

=======  ==================================  ======================================================================
rule     update u                            :math:`\|g\|_\ast = \langle g, u\rangle` for a gradient of rank one
=======  ==================================  ======================================================================
sgd      g                                   :math:`\|g\|_F^2`
adam     sign(g), the first step of Adam     :math:`\|g\|_1`, the product of the 1-norms of both factors
muon     polar factor of g, spectral norm 1  :math:`\|g\|_{nuclear}`, the product of the 2-norms of both factors
=======  ==================================  ======================================================================

With :math:`\cos\theta = \Theta(L^{-1/2})` in a plain ReLU net and :math:`\Theta(1)` in a residual net whose branch factor is
at most of order :math:`L^{-1/2}`, the feature speed formula gives the sensitivity of the last hidden feature,
:math:`S = 1/(\sqrt{m}\,\|b\|\cos\theta)`, and its speed :math:`S\,C`.

The feature speed formula and the order of the angle are those of Chizat and Netrapalli, arXiv 2311.18718. The orders of
gradients and rates are derived here.
"""

from dataclasses import dataclass
from typing import Literal

from learnmech.speed.powers import Power, largest

Rule = Literal["sgd", "adam", "muon"]
Inputs = Literal["dense", "sparse"]
ROLES = ("input", "hidden", "output")

ONE = Power()
WIDTH, DEPTH, INPUTS, OUTPUTS = Power(width=1), Power(depth=1), Power(inputs=1), Power(outputs=1)


@dataclass(frozen=True)
class Law:
    """What sets one scaling apart from another.

    Attributes:
        output_std: order of the standard deviation of the read-out's weights.
        branch: order of the branch factor of residual blocks; None for plain nets.
        balanced: whether rates are chosen so that every layer gives 1/L of a loss decay of order one; else they are one number.
        source: the works.
    """

    output_std: Power
    branch: Power | None
    balanced: bool
    source: str


LAWS = {
    "standard": Law(
        WIDTH**-0.5, None, False, "He et al., arXiv 1502.01852 (weights); one rate for all (common practice)"
    ),
    "ntk": Law(WIDTH**-0.5, None, True, "Jacot et al., arXiv 1806.07572; rates derived"),
    "mean_field": Law(
        OUTPUTS**0.5 / WIDTH, None, True, "Yang and Hu, arXiv 2011.14522 (width); rates with depth derived"
    ),
    "fsc": Law(
        (OUTPUTS * DEPTH) ** 0.5 / WIDTH,
        None,
        True,
        "Chizat and Netrapalli, arXiv 2311.18718 (the scaling); its powers derived",
    ),
    "depth_mup": Law(
        OUTPUTS**0.5 / WIDTH, DEPTH**-0.5, True, "Yang et al., arXiv 2310.02244 (branch 1/sqrt L); rates derived"
    ),
    "complete_p": Law(
        OUTPUTS**0.5 / WIDTH, DEPTH**-1, True, "Dey et al., arXiv 2505.01618 (branch 1/L); rates derived"
    ),
}
"""Name of a scaling to what sets it apart."""


@dataclass(frozen=True)
class Orders:
    """Orders of magnitude of a network at its start.

    Attributes:
        rates: role to learning rate.
        shares: role to the share of one layer of this role in the loss decay.
        loss_decay: loss decay of a step.
        sensitivity: speed of the last hidden feature for a loss decay of 1.
        speed: root mean square of the change of the last hidden feature in a step.
        inner_speed: the same of a feature inside a block of several layers, from the block's own weights; None in plain nets.
    """

    rates: dict[str, Power]
    shares: dict[str, Power]
    loss_decay: Power
    sensitivity: Power
    speed: Power
    inner_speed: Power | None


def derive_orders(law: Law, rule: Rule, inputs: Inputs, *, slowed: bool = False) -> Orders:
    """Derive all orders of a scaling.

    Args:
        law: the scaling.
        rule: the rule of updates.
        inputs: ``dense`` for an input of mean square 1, ``sparse`` for one with a single entry 1.
        slowed: whether rates are divided by the sensitivity, so that the speed is of order one instead of the loss decay.

    Returns:
        The orders.
    """
    branch = ONE if law.branch is None else law.branch
    cosine = DEPTH**-0.5 if law.branch is None else ONE
    error = OUTPUTS**-0.5
    backward = WIDTH**0.5 * law.output_std * error
    duals = _dual_norms(rule, inputs, backward, branch, error)
    sensitivity = ONE / (WIDTH**0.5 * backward * cosine)
    if law.balanced:
        wanted = DEPTH**-1 / sensitivity if slowed else DEPTH**-1
        rates = {role: wanted / duals[role] for role in ROLES}
    else:
        rates = dict.fromkeys(ROLES, ONE)
    decays = {role: rates[role] * duals[role] for role in ROLES}
    loss_decay = largest([decays["input"], decays["hidden"] * DEPTH, decays["output"]])
    return Orders(
        rates,
        {role: decays[role] / loss_decay for role in ROLES},
        loss_decay,
        sensitivity,
        sensitivity * loss_decay,
        None if law.branch is None else decays["hidden"] / (WIDTH**0.5 * branch * backward),
    )


def _dual_norms(rule: Rule, inputs: Inputs, backward: Power, branch: Power, error: Power) -> dict[str, Power]:
    """Give the order of the norm that turns a learning rate into a loss decay, by role."""
    dense = inputs == "dense"
    if rule == "adam":  # 1-norms: of a vector of n entries of like size it is sqrt(n) times the 2-norm
        back, out = WIDTH**0.5 * backward, OUTPUTS**0.5 * error
        size, features = INPUTS if dense else ONE, WIDTH
    else:
        back, out = backward, error
        size, features = INPUTS**0.5 if dense else ONE, WIDTH**0.5
    products = {"input": back * size, "hidden": branch * back * features, "output": out * features}
    return {role: norm**2 if rule == "sgd" else norm for role, norm in products.items()}
