"""The public image data sets: their files, SHA-256 checksums, mirrors, and the layout wanted on disk."""

from dataclasses import dataclass
from pathlib import Path

from learnmech.errors import InputError


@dataclass(frozen=True)
class PublicData:
    """What is known of one public data set.

    Args:
        name: the name that ``load`` takes.
        title: the name that people use.
        folder: the folder of the files below the data folder, in torchvision's layout; empty for the data folder itself.
        files: (file name, SHA-256 in hexadecimal) pairs.
        mirrors: web addresses, each ending in a slash, that hold these files.
        alternative: another accepted form on disk, in words.
    """

    name: str
    title: str
    folder: str
    files: tuple[tuple[str, str], ...]
    mirrors: tuple[str, ...]
    alternative: str

    def layout(self, root: Path) -> str:
        """Say which files are wanted below a data folder.

        Args:
            root: the data folder.

        Returns:
            A phrase with the full folder and every file name.
        """
        names = ", ".join(name for name, _ in self.files)
        return f"{root / self.folder} to hold {names} ({self.alternative})"

    def missing(self, root: Path, absent: list[str]) -> str:
        """Word the error for files that are not there.

        Args:
            root: the data folder that was searched.
            absent: the names of the files not found.

        Returns:
            What was expected, what is missing, and how to get it.
        """
        what = "all of them" if absent == [name for name, _ in self.files] else ", ".join(absent)
        return (
            f"{self.title} is not in the data folder {root}: expected {self.layout(root)}; missing: {what}. "
            f"Fetch it with learnmech.data.download({self.name!r}, folder={str(root)!r}); or name no folder and unset "
            "LEARNMECH_DATA, and load() downloads into its cache; 'digits' needs no files."
        )


_GZIPPED = "with or without .gz"

_PUBLIC = (
    PublicData(
        name="mnist",
        title="MNIST",
        folder="MNIST/raw",
        files=(
            ("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            ("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            ("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            ("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        alternative=_GZIPPED,
    ),
    PublicData(
        name="fashion_mnist",
        title="Fashion-MNIST",
        folder="FashionMNIST/raw",
        files=(
            ("train-images-idx3-ubyte.gz", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            ("train-labels-idx1-ubyte.gz", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            ("t10k-images-idx3-ubyte.gz", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            ("t10k-labels-idx1-ubyte.gz", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ),
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        alternative=_GZIPPED,
    ),
    PublicData(
        name="cifar10",
        title="CIFAR-10",
        folder="",
        files=(("cifar-10-python.tar.gz", "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"),),
        mirrors=("https://www.cs.toronto.edu/~kriz/",),
        alternative="or, unpacked, cifar-10-batches-py/data_batch_1 to data_batch_5 and test_batch",
    ),
)

PUBLIC_DATA = {entry.name: entry for entry in _PUBLIC}


def public_data(name: str) -> PublicData:
    """Look up a public data set by name.

    Args:
        name: ``"mnist"``, ``"fashion_mnist"`` or ``"cifar10"``.

    Returns:
        Its entry.

    Raises:
        InputError: if there is no such entry.

    Example:
        >>> public_data("fashion_mnist").title
        'Fashion-MNIST'
    """
    if name not in PUBLIC_DATA:
        raise InputError(
            f"expected one of the downloadable data sets {', '.join(map(repr, PUBLIC_DATA))}, got {name!r}."
        )
    return PUBLIC_DATA[name]
