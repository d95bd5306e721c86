"""What every training loop shares: the clock of a run, when its policy is evaluated, how it is stopped."""

from __future__ import annotations

import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sailctl.config import RunConfig
from sailctl.policy import GaussianPolicy
from sailctl.state import State

Keep = Callable[[int, float, GaussianPolicy], None]
"""Takes env steps, the mean return of an evaluation, and the policy that earned it, in memory of its own."""


class Clock:
    """Seconds spent in each part of a run so far, and since it began."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._spent: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time inside the block to ``part``."""
        start = time.perf_counter()
        yield
        self._spent[part] += time.perf_counter() - start

    def state(self) -> State:
        """Seconds so far."""
        return self.read()

    def restore(self, state: State) -> None:
        """Go on counting from what ``state`` handed out."""
        self._spent = defaultdict(float, {part: s for part, s in state.items() if part != "wall_s"})
        self._start = time.perf_counter() - state["wall_s"]

    def read(self) -> dict[str, float]:
        """Seconds by part; ``wall_s`` is all of them and what lies between."""
        parts = {part: self._spent[part] for part in ("collect_s", "label_s", "update_s", "evaluate_s")}
        return parts | {"wall_s": time.perf_counter() - self._start}


def evaluation_due(config: RunConfig, before: int, env_steps: int, iteration: int) -> bool:
    """Whether this iteration passed a multiple of ``evaluation.every`` (env steps) or ``.iterations``."""
    if config.algo.simulates:
        return env_steps // config.evaluation.every > before // config.evaluation.every
    return iteration % config.evaluation.iterations == 0


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
