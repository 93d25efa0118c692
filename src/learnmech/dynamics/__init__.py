"""Learning dynamics: symmetries and conservation laws, tangent kernels, exact minimal models, saddles."""

from typing import TYPE_CHECKING

from learnmech.lazy import lazy_names

if TYPE_CHECKING:
    from learnmech.dynamics.charge_views import View
    from learnmech.dynamics.symmetries import Symmetry

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Symmetry": "symmetries",
        "View": "charge_views",
    },
)

__all__ = [
    "Symmetry",
    "View",
]
