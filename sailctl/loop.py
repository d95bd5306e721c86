"""What every training loop shares: the clock of a run, and when its policy is evaluated."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sailctl.config import RunConfig
from sailctl.policy import GaussianPolicy

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

    def read(self) -> dict[str, float]:
        """Seconds by part; ``wall_s`` is all of them and what lies between."""
        parts = {part: self._spent[part] for part in ("collect_s", "label_s", "update_s", "evaluate_s")}
        return parts | {"wall_s": time.perf_counter() - self._start}


def evaluation_due(config: RunConfig, before: int, env_steps: int, iteration: int) -> bool:
    """Whether this iteration passed a multiple of ``evaluation.every`` (env steps) or ``.iterations``."""
    if config.algo.simulates:
        return env_steps // config.evaluation.every > before // config.evaluation.every
    return iteration % config.evaluation.iterations == 0
