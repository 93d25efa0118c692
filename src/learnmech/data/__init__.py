"""Data sets: embedded digits, readers of public files, checked downloads, tables, clusters, and the papers' noise.

Names are imported when they are first used, so that ``import learnmech.data`` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learnmech.data.cifar import read_cifar10, read_cifar_batch
    from learnmech.data.dataset import Dataset
    from learnmech.data.downloading import download
    from learnmech.data.idx import read_idx
    from learnmech.data.loading import load
    from learnmech.data.noise import noisy_batch
    from learnmech.data.resizing import resize
    from learnmech.data.synthetic import gaussian_clusters
    from learnmech.data.tabular import load_csv

# No module may share its name with a public function: importing the module would replace the function here.
_OBJECTS = {
    "Dataset": "learnmech.data.dataset",
    "download": "learnmech.data.downloading",
    "gaussian_clusters": "learnmech.data.synthetic",
    "load": "learnmech.data.loading",
    "load_csv": "learnmech.data.tabular",
    "noisy_batch": "learnmech.data.noise",
    "read_cifar10": "learnmech.data.cifar",
    "read_cifar_batch": "learnmech.data.cifar",
    "read_idx": "learnmech.data.idx",
    "resize": "learnmech.data.resizing",
}

__all__ = [
    "Dataset",
    "download",
    "gaussian_clusters",
    "load",
    "load_csv",
    "noisy_batch",
    "read_cifar10",
    "read_cifar_batch",
    "read_idx",
    "resize",
]


def __getattr__(name: str) -> Any:
    if name in _OBJECTS:
        return getattr(importlib.import_module(_OBJECTS[name]), name)
    raise AttributeError(f"module 'learnmech.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
