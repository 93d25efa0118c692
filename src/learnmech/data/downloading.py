"""Downloads of public data: mirrors tried in turn, and a file is kept only if its SHA-256 is the published one."""

from pathlib import Path

from learnmech.data.catalog import public_data
from learnmech.data.folders import cache_folder
from learnmech.data.progress import download_bar
from learnmech.errors import DataError

_REASON_LENGTH = 160


def _retrieve(file_name: str, sha256: str, mirrors: tuple[str, ...], folder: Path) -> list[str]:
    # The answer lists why each mirror failed; it is empty on success.
    import pooch

    failures = []
    for mirror in mirrors:
        address = mirror + file_name
        bar = download_bar(file_name)
        try:
            pooch.retrieve(
                url=address,
                known_hash=f"sha256:{sha256}",
                fname=file_name,
                path=folder,
                downloader=pooch.HTTPDownloader(progressbar=bar),
            )
        except OSError as error:  # requests' own errors are OSErrors
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            failures.append(f"{address} ({reason[:_REASON_LENGTH]})")
        except ValueError:
            failures.append(f"{address} (refused and not kept: its SHA-256 is not {sha256})")
        else:
            return []
        finally:
            if bar:
                bar.close()
    return failures


def download(name: str, folder: str | Path | None = None) -> Path:
    """Fetch the files of a public data set, and check the SHA-256 of each.

    Mirrors are tried in turn. A file that is already there and has the right checksum is not fetched again. Nothing
    unpacks or runs what came. The files lie in torchvision's layout, such as ``FOLDER/MNIST/raw``.

    Args:
        name: ``"mnist"`` (11 MB), ``"fashion_mnist"`` (30 MB) or ``"cifar10"`` (170 MB).
        folder: the data folder to write to; None for the user's cache folder.

    Returns:
        The data folder, to give to ``load`` or to the environment variable ``LEARNMECH_DATA``.

    Raises:
        DataError: if no mirror gave the right file; the message lists what was tried and the layout wanted.
    """
    entry = public_data(name)
    root = cache_folder() if folder is None else Path(folder).expanduser().absolute()
    for file_name, sha256 in entry.files:
        failures = _retrieve(file_name, sha256, entry.mirrors, root / entry.folder)
        if failures:
            raise DataError(
                f"could not download {entry.title}; tried {'; '.join(failures)}. Without a network, copy the files by "
                f"hand: expected {entry.layout(root)}; or set LEARNMECH_DATA to a folder of that layout; 'digits' needs "
                "no download."
            )
    return root
