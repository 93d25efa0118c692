"""Which folder data files are looked for in: the one named, else the one in the environment, else a cache."""

import os
from pathlib import Path

VARIABLE = "LEARNMECH_DATA"


def cache_folder() -> Path:
    """Name the folder that downloads are kept in when no other is named.

    Returns:
        The folder ``learnmech`` in the user's cache, as pooch chooses it for this operating system.
    """
    import pooch

    return Path(pooch.os_cache("learnmech"))


def named_folder(folder: str | Path | None) -> Path | None:
    """Find the data folder that the caller or the environment names.

    Args:
        folder: what the caller gave; it wins over the environment variable ``LEARNMECH_DATA``.

    Returns:
        An absolute path, or None if neither names a folder.
    """
    chosen = folder if folder is not None else os.environ.get(VARIABLE) or None
    return None if chosen is None else Path(chosen).expanduser().absolute()
