"""Stops a run by a signal, after the current iteration."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that stop a run: Ctrl-C, termination request, closed terminal."""


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run, after it had saved a checkpoint."""

    def __init__(self, number: int) -> None:
        super().__init__(number)  # pickling between processes needs the constructor's arguments
        self.signal = number
        """One of ``SIGNALS``."""

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signal).name}"


class Stop:
    """Signal handler that records a request to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Record the first signal.

        Raises:
            Interrupted: at the second signal, without waiting for the end of the iteration.
        """
        if self.signal is not None:
            raise Interrupted(number)
        self.signal = number


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Record ``SIGNALS`` within the block, so that the current iteration can finish."""
    stop = Stop()
    with handled(stop):
        yield stop


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Install ``handler`` for ``SIGNALS`` within the block; an ignored SIGHUP stays ignored (nohup).

    Outside the main thread nothing is installed, because Python allows signal handlers only there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous_handler in previous.items():
            signal.signal(number, signal.SIG_DFL if previous_handler is None else previous_handler)
