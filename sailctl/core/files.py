"""Paths as people write them, where a saved policy is found, and files that are never half written."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from sailctl.core.types import UserError

POLICY = "policy.json"
"""Describes the policy in its folder, and holds a checksum of all of it."""


OUT_OF_REACH = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""Why a file cannot be written, through no fault of this program."""
NO_PLACE = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
"""Why there can be no file of the name that was asked for."""


def place(text: str | Path, base: Path | None = None) -> Path:
    """``text`` as a path: ``~`` at its start is the home folder; a relative path begins at ``base``.

    Raises:
        UserError: when there is no such home folder.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"'{text}' names no home folder that is known here") from error
    return path if base is None else base / path


def check_writable(folder: Path) -> None:
    """Refuse a folder, or one that is yet to be made, in which no file can be made.

    Raises:
        UserError: with the reason.
    """
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"cannot write into {there}: {error.strerror}") from error


def find_policy(place: str | Path) -> Path | None:
    """``policy.json`` of ``place``: of a policy folder, or of a run directory (in its folder ``policy``)."""
    for file in (Path(place) / POLICY, Path(place) / "policy" / POLICY):
        if file.is_file():
            return file
    return None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8): a reader, or a crash, finds the old file or the whole new one.

    Raises:
        OSError: when it cannot be written; the old file is then untouched.
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
