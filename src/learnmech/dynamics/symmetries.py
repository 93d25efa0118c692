"""A symmetry of the loss, and the charge that gradient flow conserves because of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.dynamics.charge_views import View
from learnmech.errors import InputError

KINDS: dict[str, str] = {
    "translation": "the same number added to all of them changes nothing",
    "scale": "a positive factor on all of them changes nothing",
    "rescale": "a factor on what enters a unit and its inverse on what leaves it change nothing",
    "gl": "an invertible matrix between two linear maps and its inverse change nothing",
    "attention_qk": "an invertible matrix on the queries of a head and its inverse on the keys change nothing",
    "attention_vo": "an invertible matrix on the values of a head and its inverse on the output change nothing",
    "swiglu": "a factor on a unit's multiplier and its inverse on what leaves it change nothing",
}
"""The kinds of symmetry, and what leaves the loss as it is."""


@dataclass(frozen=True)
class Symmetry:
    r"""A continuous symmetry of the loss that is linear in the parameters, and its charge.

    The loss does not change under :math:`\delta\theta = T\theta` (or :math:`\delta\theta = b`, for a translation). So
    :math:`\langle g, T\theta\rangle = 0` for its gradient g everywhere, and under gradient flow the charge
    :math:`\langle\theta, T\theta\rangle` (or :math:`\langle b, \theta\rangle`) is conserved if T is symmetric. A generator
    acts on the units of every :class:`View` alike, but for its weight. So all charges of one item are

    .. math:: Q_{ij} = \sum_v w_v \sum_f \theta^{(v)}_{if}\,\theta^{(v)}_{jf},

    for i = j alone (``mixing`` False: each unit by itself), or for all i <= j (``mixing`` True: units mix, as between two
    linear maps). For a translation it is :math:`Q_i = \sum_f \theta_{if}`.

    Source: section "symmetries" of Kunin, Sagastuy-Brena, Ganguli, Yamins and Tanaka, "Neural mechanics" (arXiv 2012.04728),
    and Du, Hu and Lee (arXiv 1806.00900) for rescaling and GL; attention, SwiGLU and the general layout: derived here.

    Attributes:
        kind: one of :data:`KINDS`.
        views: the parameters, laid out.
        mixing: whether the generators are all symmetric matrices over the units, and not only diagonal ones.
        degree: for ``rescale``, the degree of homogeneity q of the activation: 1 for ReLU, 2 for a square.
        layers: names of the modules that it belongs to.
        broken_by: what breaks it slightly, such as a normalisation's epsilon; empty if it is exact.
        found_by: ``structure`` or ``numerics``.
    """

    kind: str
    views: tuple[View, ...]
    mixing: bool = False
    degree: float = 1.0
    layers: tuple[str, ...] = ()
    broken_by: str = ""
    found_by: str = "structure"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"unknown kind of symmetry {self.kind!r}: expected one of {', '.join(KINDS)}.")
        sizes = {view.size for view in self.views}
        if len(sizes) != 1:
            raise InputError(
                f"the views of a {self.kind} symmetry should have the same groups and units, but these came: "
                f"{sorted(sizes)}. Parameters that are conserved each by itself are symmetries of their own."
            )

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that it acts on, each once."""
        return tuple(dict.fromkeys(view.parameter for view in self.views))

    @property
    def count(self) -> int:
        """How many numbers are conserved."""
        groups, units = self.views[0].size
        return groups * (units * (units + 1) // 2 if self.mixing else units)

    @property
    def is_linear(self) -> bool:
        """Whether the charge is linear in the parameters (a translation), and not quadratic."""
        return self.kind == "translation"

    def terms(self, left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Float[Tensor, "views count"]:
        r"""Give what each view adds to :math:`\langle\text{left}, T\,\text{right}\rangle`, for every generator T.

        Args:
            left: tensors by name of parameter, such as gradients.
            right: tensors by name of parameter, such as the parameters.

        Returns:
            Float64, with the views' weights, symmetrised over the two units.

        Raises:
            InputError: for a translation, which has no such form, or tensors that are missing or do not fit.
        """
        if self.is_linear:
            raise InputError(
                "a translation's charge is linear: use charge(), which also gives <b, g> for a gradient g."
            )
        return torch.stack([self._contract(view, left, right) for view in self.views])

    def form(self, left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Float[Tensor, " count"]:
        r"""Give :math:`\langle\text{left}, T\,\text{right}\rangle` for every generator T.

        For a gradient and the parameters it is zero: that is what the symmetry says.

        Args:
            left: tensors by name of parameter.
            right: tensors by name of parameter.

        Returns:
            Float64, one number for every conserved number.
        """
        return self.terms(left, right).sum(0)

    def charge(self, values: Mapping[str, Tensor]) -> Float[Tensor, " count"]:
        r"""Give the charges :math:`\langle\theta, T\theta\rangle`; for a translation :math:`\langle b, \theta\rangle`.

        Args:
            values: the parameters by name (for a translation also gradients or velocities).

        Returns:
            Float64, one number for every conserved number.
        """
        if self.is_linear:
            return torch.stack([view.weight * view.lay_out(values).sum(-1).flatten() for view in self.views]).sum(0)
        return self.form(values, values)

    def violation(self, values: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> float:
        r"""Say how far the gradient is from obeying the symmetry.

        Args:
            values: the parameters by name.
            gradients: their gradients by name.

        Returns:
            The norm of :math:`\langle g, T\theta\rangle` over all generators, over that of its parts before they cancel: 0 for
            an exact symmetry, 1e-16 in float64 and 1e-7 in float32 from rounding, of order 1 for none. NaN where all parts are
            zero, as with a zero gradient.
        """
        if self.is_linear:
            total = self.charge(gradients).norm()
            scale = self.charge({name: gradients[name].abs() for name in self.parameters}).norm()
        else:
            total = self.form(gradients, values).norm()
            scale = torch.stack([self._scale(view, gradients, values) for view in self.views]).sum(0).norm()
        return float(total / scale)

    def _contract(self, view: View, left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Tensor:
        one, other = view.lay_out(left), view.lay_out(right)
        return view.weight * (self._pairs(one @ other.mT) if self.mixing else (one * other).sum(-1).flatten())

    def _scale(self, view: View, left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Tensor:
        one, other = view.lay_out(left).norm(dim=-1), view.lay_out(right).norm(dim=-1)
        products = one[:, :, None] * other[:, None, :]
        return abs(view.weight) * (self._pairs(products) if self.mixing else (one * other).flatten())

    @staticmethod
    def _pairs(products: Tensor) -> Tensor:
        """Take the entries on and above the diagonal of the symmetric parts."""
        rows, columns = torch.triu_indices(*products.shape[-2:])
        symmetric: Tensor = (products + products.mT) / 2
        return symmetric[:, rows, columns].flatten()
