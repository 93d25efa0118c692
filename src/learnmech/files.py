"""Writing files so that an interruption never leaves half of one."""

import contextlib
import os
import secrets
from pathlib import Path

from learnmech.errors import StorageError


def write_atomically(path: str | Path, content: bytes | memoryview | str) -> Path:
    """Write ``content`` to ``path`` in one step: readers see the old file or the new one, never a part.

    The bytes go to a temporary file in the same folder, are flushed to disk, and take the place of ``path`` by a rename.

    Args:
        path: where the file shall stand; missing folders are made.
        content: bytes, or text that is encoded as UTF-8.

    Returns:
        The path written.

    Raises:
        StorageError: if the folder cannot be made or written, or the disk is full; an earlier file at ``path`` is intact
            and no temporary file is left.
    """
    path = Path(path)
    payload = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StorageError(
            f"could not write {path}: {error.strerror or error}. Nothing that stood there before was changed; "
            "free some space or name another folder."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def require_writable_folder(folder: str | Path) -> Path:
    """Make ``folder`` and check that files can be written in it, so that a long job fails before it starts.

    Args:
        folder: the folder that results will go to.

    Returns:
        The folder as a path.

    Raises:
        StorageError: if it cannot be made or written.
    """
    folder = Path(folder)
    probe = write_atomically(folder / f".writable-{secrets.token_hex(4)}", b"")
    probe.unlink(missing_ok=True)
    return folder
