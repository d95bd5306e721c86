"""How a run is told to stop, by a signal, and brings its iteration to an end first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that tell a run to stop: Ctrl-C, a polite end, and a terminal that was closed."""


class Interrupted(KeyboardInterrupt):
    """A run stopped because it was told to, after it had kept a checkpoint."""

    def __init__(self, number: int) -> None:
        super().__init__(number)  # as it is, so that the exception can travel between processes
        self.signal = number
        """One of ``SIGNALS``."""

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signal).name}"


class Stop:
    """Whether a run has been told to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal; the second one stops at once whatever is going on."""
        if self.signal is not None:
            raise Interrupted(number)
        self.signal = number


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Within the block ``SIGNALS`` are noted, so that an iteration can be brought to its end."""
    stop = Stop()
    with handled(stop):
        yield stop


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within the block ``handler`` answers ``SIGNALS``; SIGHUP is ignored where it was (nohup).

    In a thread that is not the main one signals are left as they are: Python allows nothing else.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, signal.SIG_DFL if former is None else former)
