"""Training small nets exactly: a plain loop, seeds kept apart by purpose, and checkpoints that resume bit for bit."""

from typing import TYPE_CHECKING

from learnmech.lazy import lazy_names

if TYPE_CHECKING:
    from learnmech.training.config import TrainConfig
    from learnmech.training.losses import make_loss
    from learnmech.training.result import TrainResult
    from learnmech.training.seeds import build_seeded, derive_seed
    from learnmech.training.stacked import train_members
    from learnmech.training.stacking_choice import StackingChoice, measure_stacking
    from learnmech.training.trainer import Trainer

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "StackingChoice": "stacking_choice",
        "TrainConfig": "config",
        "TrainResult": "result",
        "Trainer": "trainer",
        "build_seeded": "seeds",
        "derive_seed": "seeds",
        "make_loss": "losses",
        "measure_stacking": "stacking_choice",
        "train_members": "stacked",
    },
)

__all__ = [
    "StackingChoice",
    "TrainConfig",
    "TrainResult",
    "Trainer",
    "build_seeded",
    "derive_seed",
    "make_loss",
    "measure_stacking",
    "train_members",
]
