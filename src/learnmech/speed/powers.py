"""Powers of the sizes of a network: the algebra in which scalings are derived."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Power:
    r"""An order of magnitude :math:`m^a L^b d^c k^e` of width m, depth L, inputs d and outputs k, without its constant.

    Products, quotients and powers of orders are orders again; a sum has the order of its largest term.

    Attributes:
        width: exponent a.
        depth: exponent b.
        inputs: exponent c.
        outputs: exponent e.

    Example:
        >>> (Power(width=1) * Power(depth=1) / Power(outputs=1)) ** 0.5
        Power(width=0.5, depth=0.5, inputs=0.0, outputs=-0.5)
    """

    width: float = 0.0
    depth: float = 0.0
    inputs: float = 0.0
    outputs: float = 0.0

    def __mul__(self, other: "Power") -> "Power":
        return Power(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __truediv__(self, other: "Power") -> "Power":
        return self * other**-1

    def __pow__(self, exponent: float) -> "Power":
        return Power(*(a * exponent + 0.0 for a in astuple(self)))  # + 0.0 turns -0.0 into 0.0

    def value(self, *, width: float, depth: float, inputs: float, outputs: float) -> float:
        """Put sizes in.

        Args:
            width: m.
            depth: L.
            inputs: d.
            outputs: k.

        Returns:
            The number.
        """
        return float(width**self.width * depth**self.depth * inputs**self.inputs * outputs**self.outputs)

    @property
    def free(self) -> bool:
        """Whether it depends neither on width nor on depth."""
        return self.width == 0 and self.depth == 0


def largest(terms: Iterable[Power]) -> Power:
    """Give the term that outgrows the others when width and depth grow together, the width first.

    Args:
        terms: at least one order.

    Returns:
        The order of their sum.
    """
    return max(terms, key=lambda term: (term.width, term.depth))
