"""The least cosine that a backward-to-feature kernel allows, from its condition number alone."""

import math

from learnmech.errors import InputError


def kantorovich_bound(condition: float) -> float:
    r"""Compute the least cosine that a kernel of condition number :math:`\kappa` allows: :math:`2\sqrt\kappa/(1+\kappa)`.

    For a positive definite K and any b, :math:`b^TKb/(\|b\|\,\|Kb\|) \ge 2\sqrt\kappa/(1+\kappa)`, with equality for one b
    on the two extreme eigenvectors. Source: Kantorovich's inequality, applied here to the kernel (derived here). It holds
    always, also after training, and says little where it is near 0; a typical b does much better, see
    :meth:`BackwardFeatureKernel.predicted_cosine`.

    Args:
        condition: largest over smallest eigenvalue, at least 1; infinite for a singular kernel.

    Returns:
        The bound, in [0, 1].

    Raises:
        InputError: for a number below 1 or NaN.

    Example:
        >>> kantorovich_bound(9.0), kantorovich_bound(1.0), kantorovich_bound(math.inf)
        (0.6, 1.0, 0.0)
    """
    if not condition >= 1:
        raise InputError(f"a condition number is at least 1, but {condition!r} came.")
    root = math.sqrt(condition)
    return 2.0 / (root + 1.0 / root)
