"""Paths of the user, the location of a saved policy, and atomic writes."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from sailctl.core.types import UserError

POLICY = "policy.json"
"""File that describes the policy of its folder, with a checksum."""

OUT_OF_REACH = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""Errors of the machine, not of this program, that prevent writing a file."""
NO_PLACE = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
"""Errors of a path that no file can have."""


def place(text: str | Path, base: Path | None = None) -> Path:
    """``text`` as a path, with ``~`` at its start expanded; a relative path is relative to ``base``.

    Raises:
        UserError: when the home folder is unknown.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"'{text}' names an unknown home folder") from error
    return path if base is None else base / path


def check_writable(folder: Path) -> None:
    """Check that files can be created in a folder, or in its nearest existing parent.

    Raises:
        UserError: when they cannot; the message gives the reason.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"cannot write into {existing}: {error.strerror}") from error


def find_policy(place: str | Path) -> Path | None:
    """``policy.json`` in a policy folder, or in the folder ``policy`` of a run directory; else None."""
    for file in (Path(place) / POLICY, Path(place) / "policy" / POLICY):
        if file.is_file():
            return file
    return None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) atomically: a crash leaves the old or the complete new file.

    Raises:
        OSError: when it cannot be written; the old file is then unchanged.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
