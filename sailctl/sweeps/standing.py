"""A job of a sweep goes on only while the command that asked for it stands.

The command holds a claim on the folder of its launch, and lets go of it when it is told to stop. Jobs look at
that claim, whatever process a launcher runs them in. Once it is gone, or its process is, a running job ends
its iteration, keeps a checkpoint and stops, and no other begins. So it does not matter which process a signal
reaches.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from sailctl.runs.claims import Claim, claimed, owner
from sailctl.training.stopping import SIGNALS, Interrupted, Stop, handled

LOOKED_AT_S = 0.5
"""Seconds between two looks of a job at the claim of its sweep."""

_own: dict[Path, Sweep] = {}
"""Sweeps that were asked for in this process, by the folder of the launch."""
_running: set[Path] = set()
"""Folders of launches of which a job runs in this process."""
_watched: set[Path] = set()


class Sweep(Stop):
    """Whether the command of a sweep has been told to stop; it then lets go of its claim."""

    def __init__(self, claim: Claim) -> None:
        super().__init__()
        self._claim = claim

    def __call__(self, number: int, frame: FrameType | None = None) -> None:
        """Take note of a signal; the second one ends the command at once."""
        self._claim.release()
        super().__call__(number, frame)


@contextmanager
def standing(folder: Path) -> Iterator[Sweep]:
    """Within the block the jobs of the launch in ``folder`` may go on, until a signal tells it to stop."""
    folder, claim = folder.resolve(), Claim(folder)
    sweep = _own[folder] = Sweep(claim)
    try:
        with handled(sweep):
            yield sweep
    finally:
        del _own[folder]
        claim.release()


def stands(folder: Path) -> bool:
    """Whether the jobs of the launch in ``folder`` may still begin."""
    return owner(folder) is not None


@contextmanager
def stopped_with(folder: Path) -> Iterator[None]:
    """A job of the launch in ``folder``: it stops when a signal reaches it, or its sweep stands no more.

    Raises:
        Interrupted: out of the block, when that happened.
    """
    folder = folder.resolve()
    sweep = _own.get(folder)
    if sweep is None and folder not in _watched:
        _watched.add(folder)
        threading.Thread(target=_watch, args=(folder,), name="standing", daemon=True).start()
    _running.add(folder)
    try:
        with handled(_raise):
            yield
    except Interrupted as stopped:
        if sweep is not None and sweep.signal is None:
            sweep(stopped.signal)
        raise
    finally:
        _running.discard(folder)
        if multiprocessing.current_process().name != "MainProcess":
            for number in SIGNALS:  # between jobs a signal is the launcher's to answer
                signal.signal(number, signal.SIG_IGN)


def _raise(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)


def _watch(folder: Path) -> None:
    """Thread: stop the running job once its sweep is gone, and end the process of a sweep that was killed."""
    told = False
    while True:
        time.sleep(LOOKED_AT_S)
        if stands(folder):
            continue
        running = signal.getsignal(signal.SIGTERM)
        if folder not in _running:
            told = False
            if claimed(folder):  # by a process that lives no more: nobody else will end this one
                os._exit(128 + signal.SIGTERM)
        elif isinstance(running, Stop):
            running.signal = running.signal or signal.SIGTERM
        elif not told:
            told = True
            os.kill(os.getpid(), signal.SIGTERM)
