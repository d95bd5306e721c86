"""How a run is told to stop, by a signal, and brings its iteration to an end first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A run stopped because it was told to, after it had kept a checkpoint."""

    def __init__(self, number: int) -> None:
        super().__init__(number)  # as it is, so that the exception can travel between processes
        self.signal = number
        """SIGINT or SIGTERM."""

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
    """Within the block SIGINT (Ctrl-C) and SIGTERM are noted, so that an iteration can be brought to its end.

    In a thread that is not the main one signals are left as they are: Python allows nothing else.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
