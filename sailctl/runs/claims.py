"""Lock of a folder: one process at a time, on one machine or on several machines that share the folder.

A claim is a file ``claim.1``, ``claim.2``, ... The process with the highest claim number owns the folder.
A claim is created only if its number does not exist, and is never renamed: of two competing processes only
one gets it. A claim of a dead process is void. On this machine the process table decides; on other machines
the age of the file, whose modification time the owner renews. A process that takes over creates the next
number, so that a suspended owner detects the change when it continues. A restarted job of a cluster knows
that its previous process is dead, on whichever machine it ran.
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
"""Seconds between two renewals of a claim."""
EXPIRES_S = 600.0
"""Seconds without renewal after which a process on another machine counts as dead."""
_NAME = "claim."


class Claim:
    """The right to write in ``folder``, until ``release``.

    Raises:
        BusyError: when a running process owns the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = _take(folder)
        self._released = threading.Event()
        threading.Thread(target=self._renew, name="claim", daemon=True).start()

    def check(self) -> None:
        """Verify that this process still owns the folder.

        Raises:
            RunError: when another process has taken over, because this one did not renew its claim.
        """
        if not self._path.exists() or _claims(self._folder)[-1] != self._path:
            raise RunError(f"another process has taken over {self._folder}: this one did not renew its claim")

    def release(self) -> None:
        """Give up the folder."""
        self._released.set()
        self._path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._released.wait(RENEWED_S):
            try:
                os.utime(self._path)
            except OSError:
                return  # another process has taken over; ``check`` raises


def owner(folder: Path) -> str | None:
    """``process 123 on host`` for the running process that owns ``folder``; None when there is none."""
    claims = _claims(folder)
    if not claims:
        return None
    try:
        about = json.loads(claims[-1].read_text(encoding="utf-8"))
        alive = _alive(about, claims[-1])
        return f"process {about['pid']} on {about['host']}" if alive else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # released meanwhile, or never completely written


def claimed(folder: Path) -> bool:
    """Whether ``folder`` has a claim, of a running process or of one that died without releasing it."""
    return bool(_claims(folder))


def _take(folder: Path) -> Path:
    while True:
        claims = _claims(folder)
        if (current := owner(folder)) is not None:
            raise BusyError(f"{folder} is in use by {current}")
        path = folder / f"{_NAME}{_number(claims[-1]) + 1 if claims else 1}"
        partial = folder / f".{path.name}.{secrets.token_hex(6)}"
        partial.write_text(json.dumps(_this_process()) + "\n", encoding="utf-8")
        try:
            os.link(partial, path)  # atomic, and unlike a rename it fails if the target exists
        except FileExistsError:
            continue
        finally:
            partial.unlink(missing_ok=True)
        # Another process may have created a higher number meanwhile and removed the lower ones.
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


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    process = {"host": socket.gethostname(), "pid": pid, "began": _start_time(pid), "place": _machine()}
    return {**process, "job": queued_job(), "start": _restart_count()}


def queued_job() -> str | None:
    """Id of the cluster job that runs this process, unchanged when the job restarts; None outside a job.

    The id includes a hash of the launch folder, because queues reuse job numbers.
    """
    folder = os.environ.get("SUBMITIT_FOLDER")
    slurm = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
    number = os.environ.get("SLURM_JOB_ID" if slurm else "SUBMITIT_LOCAL_JOB_ID")
    if folder is None or number is None:
        return None
    return f"{number} {hashlib.sha256(folder.encode()).hexdigest()[:8]}"


def _restart_count() -> int:
    """Number of earlier starts of the job that runs this process."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def _alive(about: dict[str, Any], claim: Path) -> bool:
    if about["place"] is not None and about["place"] == _machine():
        return bool(_start_time(int(about["pid"])) == about["began"])
    if about.get("job") is not None and about["job"] == queued_job() and about["start"] != _restart_count():
        return False
    # Take the time from the shared folder, because the clock of this machine may differ from it.
    probe = claim.with_name(f".{claim.name}.now.{os.getpid()}")
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink(missing_ok=True)
    return now - claim.stat().st_mtime < EXPIRES_S


@cache
def _machine() -> str | None:
    """Id of this boot of this machine and of this PID namespace; None without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _start_time(pid: int) -> str | None:
    """Start time of the process in clock ticks since boot; None when there is no such process.

    PIDs are reused; a PID together with its start time is unique.
    """
    try:
        about = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = about.rpartition(")")[2].split()
    return None if state in ("Z", "X") else rest[18]
