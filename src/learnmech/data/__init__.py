"""Data sets: embedded digits, readers of public files, checked downloads, tables, clusters, and the papers' noise.

Names are imported when they are first used, so that ``import learnmech.data`` costs next to nothing.
"""

from typing import TYPE_CHECKING

from learnmech.lazy import lazy_names

if TYPE_CHECKING:
    from learnmech.data.cifar import read_cifar10, read_cifar_batch
    from learnmech.data.class_number import class_number_regression
    from learnmech.data.dataset import Dataset
    from learnmech.data.downloading import download
    from learnmech.data.idx import read_idx
    from learnmech.data.loading import load
    from learnmech.data.noise import noisy_batch
    from learnmech.data.resizing import resize
    from learnmech.data.synthetic import gaussian_clusters
    from learnmech.data.tabular import load_csv
    from learnmech.data.teachers import bottleneck_task

# No module may share its name with a public function: importing the module would replace the function here.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Dataset": "dataset",
        "bottleneck_task": "teachers",
        "class_number_regression": "class_number",
        "download": "downloading",
        "gaussian_clusters": "synthetic",
        "load": "loading",
        "load_csv": "tabular",
        "noisy_batch": "noise",
        "read_cifar10": "cifar",
        "read_cifar_batch": "cifar",
        "read_idx": "idx",
        "resize": "resizing",
    },
)

__all__ = [
    "Dataset",
    "bottleneck_task",
    "class_number_regression",
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
