"""Stops the jobs of a sweep when the command that started them stops.

The command holds a claim on the folder of its launch and releases it on a signal. Jobs check the claim, in
whichever process a launcher runs them. When the claim or its process is gone, a running job finishes its
iteration, saves a checkpoint and stops, and no further job starts. So a signal to any of the processes stops
the sweep.
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
"""Seconds between two checks of the claim by a job."""

_started_here: dict[Path, Sweep] = {}
"""Sweeps that this process started, by the folder of the launch."""
_running: set[Path] = set()
"""Folders of launches with a job that runs in this process."""
_watched: set[Path] = set()


class Sweep(Stop):
    """Signal handler of the command of a sweep: records the signal and releases the claim."""

    def __init__(self, claim: Claim) -> None:
        super().__init__()
        self._claim = claim

    def __call__(self, number: int, frame: FrameType | None = None) -> None:
        """Record the first signal.

        Raises:
            Interrupted: at the second signal.
        """
        self._claim.release()
        super().__call__(number, frame)


@contextmanager
def standing(folder: Path) -> Iterator[Sweep]:
    """Allow the jobs of the launch in ``folder`` to run within the block, until a signal arrives."""
    folder, claim = folder.resolve(), Claim(folder)
    sweep = _started_here[folder] = Sweep(claim)
    try:
        with handled(sweep):
            yield sweep
    finally:
        del _started_here[folder]
        claim.release()


def stands(folder: Path) -> bool:
    """Whether jobs of the launch in ``folder`` may start."""
    return owner(folder) is not None


@contextmanager
def stopped_with(folder: Path) -> Iterator[None]:
    """Run a job of the launch in ``folder`` within the block; a signal or the end of the sweep stops it.

    Raises:
        Interrupted: when the job was stopped.
    """
    folder = folder.resolve()
    sweep = _started_here.get(folder)
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
            for number in SIGNALS:  # between jobs only the launcher handles signals
                signal.signal(number, signal.SIG_IGN)


def _raise(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)


def _watch(folder: Path) -> None:
    """In a thread, stop the running job when its sweep stops; end this process if the sweep was killed."""
    signalled = False
    while True:
        time.sleep(LOOKED_AT_S)
        if stands(folder):
            continue
        running = signal.getsignal(signal.SIGTERM)
        if folder not in _running:
            signalled = False
            if claimed(folder):  # by a dead process, so that no other process ends this one
                os._exit(128 + signal.SIGTERM)
        elif isinstance(running, Stop):
            running.signal = running.signal or signal.SIGTERM
        elif not signalled:
            signalled = True
            os.kill(os.getpid(), signal.SIGTERM)
