"""Who is working in a folder: one process at a time, on one machine or on many that share the folder.

A claim is a file, ``claim.1``, ``claim.2``, ..., made only where there is none of its number; the highest
number is the owner's. Nobody renames a claim, so that of two that want the same one gets it. A claim whose
process is gone has no force: on this machine the process table tells, elsewhere the age of the file, which
its owner renews. Whoever takes over takes the next number; an owner that had only been asleep sees it.
A job of a cluster that was started again knows that its former process is gone, wherever that was.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import threading
from functools import cache
from pathlib import Path
from typing import Any

from sailctl.core.types import BusyError, RunError

RENEWED_S = 60.0
"""Seconds between two signs of life."""
EXPIRES_S = 600.0
"""Seconds without one after which a process on another machine is taken to be gone."""
_NAME = "claim."


class Claim:
    """The right to write in ``folder``, until ``release``.

    Raises:
        BusyError: when a living process has it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = _take(folder)
        self._released = threading.Event()
        threading.Thread(target=self._renew, name="claim", daemon=True).start()

    def check(self) -> None:
        """Raises:
        RunError: when another process has taken over: this one had given no sign of life for too long.
        """
        if not self._path.exists() or _claims(self._folder)[-1] != self._path:
            raise RunError(f"another process has taken over {self._folder}: this one was silent for too long")

    def release(self) -> None:
        """Let others have the folder."""
        self._released.set()
        self._path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._released.wait(RENEWED_S):
            try:
                os.utime(self._path)
            except OSError:
                return  # it was taken over, which ``check`` tells the run


def owner(folder: Path) -> str | None:
    """``process 123 on host`` of the living process that has ``folder``; None where there is none."""
    claims = _claims(folder)
    if not claims:
        return None
    try:
        about = json.loads(claims[-1].read_text(encoding="utf-8"))
        alive = _alive(about, claims[-1])
        return f"process {about['pid']} on {about['host']}" if alive else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # released this moment, or never written to its end


def claimed(folder: Path) -> bool:
    """Whether there is a claim on ``folder``, of a living process or of one that did not release it."""
    return bool(_claims(folder))


def _take(folder: Path) -> Path:
    while True:
        claims = _claims(folder)
        if (living := owner(folder)) is not None:
            raise BusyError(f"{folder} is being worked on by {living}")
        path = folder / f"{_NAME}{_number(claims[-1]) + 1 if claims else 1}"
        partial = folder / f".{path.name}.{secrets.token_hex(6)}"
        partial.write_text(json.dumps(_myself()) + "\n", encoding="utf-8")
        try:
            os.link(partial, path)  # unlike a rename it fails where there is one, and the content is whole
        except FileExistsError:
            continue
        finally:
            partial.unlink(missing_ok=True)
        # Between the look at the claims and this one a higher number may have come, and taken the lower away.
        if _claims(folder)[-1] != path:
            path.unlink(missing_ok=True)
            continue
        for old in claims:
            old.unlink(missing_ok=True)
        return path


def _claims(folder: Path) -> list[Path]:
    """Lowest number first."""
    return sorted((p for p in folder.glob(f"{_NAME}*") if p.suffix[1:].isdigit()), key=_number)


def _number(claim: Path) -> int:
    return int(claim.suffix[1:])


def _myself() -> dict[str, Any]:
    pid = os.getpid()
    place = {"host": socket.gethostname(), "pid": pid, "began": _began(pid), "place": _place()}
    return {**place, "job": queued_job(), "start": _start()}


def queued_job() -> str | None:
    """The job of a queue that this process is, the same each time that it is started; None outside of one.

    Its number, and a hash of the folder of its launch: queues use their numbers again.
    """
    folder = os.environ.get("SUBMITIT_FOLDER")
    slurm = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
    number = os.environ.get("SLURM_JOB_ID" if slurm else "SUBMITIT_LOCAL_JOB_ID")
    if folder is None or number is None:
        return None
    return f"{number} {hashlib.sha256(folder.encode()).hexdigest()[:8]}"


def _start() -> int:
    """How often the job of this process was started before."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def _alive(about: dict[str, Any], claim: Path) -> bool:
    if about["place"] is not None and about["place"] == _place():
        return bool(_began(int(about["pid"])) == about["began"])
    if about.get("job") is not None and about["job"] == queued_job() and about["start"] != _start():
        return False
    # The folder's own clock, whichever machine holds it: this machine's may be another one.
    probe = claim.with_name(f".{claim.name}.now.{os.getpid()}")
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink(missing_ok=True)
    return now - claim.stat().st_mtime < EXPIRES_S


@cache
def _place() -> str | None:
    """This start of this machine, and the part of its process table that this process sees."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _began(pid: int) -> str | None:
    """When the process began, by the clock of its machine's start; None where there is no such process.

    Numbers of processes are used again; with their beginning they are not.
    """
    try:
        about = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = about.rpartition(")")[2].split()
    return None if state in ("Z", "X") else rest[18]
