"""Interface between the training loop and an algorithm."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from sailctl.core.state import State
from sailctl.core.types import Metrics
from sailctl.policies.policy import GaussianPolicy


class Clock:
    """Measures the time of each part of a run, and of the whole run."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._cpu_start = time.process_time()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time of the block to ``part``."""
        start = time.perf_counter()
        yield
        self._seconds[part] += time.perf_counter() - start

    def state(self) -> State:
        """Seconds so far."""
        return self.read()

    def restore(self, state: State) -> None:
        """Continue from what ``state`` returned."""
        self._seconds = defaultdict(float, state)
        self._start = time.perf_counter() - state["wall_s"]
        self._cpu_start = time.process_time() - state["cpu_s"]

    def read(self) -> dict[str, float]:
        """Seconds of each part, and of the whole run in wall time (``wall_s``) and CPU time (``cpu_s``).

        ``cpu_s`` counts all threads of this process. Unlike ``wall_s``, other runs on the machine hardly
        change it.
        """
        parts = {part: self._seconds[part] for part in ("collect_s", "label_s", "update_s", "evaluate_s")}
        now, cpu = time.perf_counter(), time.process_time()
        return parts | {"wall_s": now - self._start, "cpu_s": cpu - self._cpu_start}


class Algorithm(Protocol):
    """An algorithm that trains a policy in iterations.

    Between two iterations, ``state`` contains everything that the next iterations depend on. A new instance
    continues from it with bit-identical numbers after ``restore``.

    Algorithms without a teacher inherit the properties of labels.
    """

    @property
    def env_steps(self) -> int:
        """Number of env steps of training so far."""

    @property
    def labels(self) -> int:
        """Number of labels so far: the teacher's and those in the data set."""
        return 0

    @property
    def labels_left(self) -> float:
        """Remaining share of the label budget; 1 if the run does not end with the budget."""
        return 1.0

    @property
    def exhausted(self) -> bool:
        """Whether no more labels will come: the budget is spent, and there is no other source of labels."""
        return False

    def begin(self, clock: Clock) -> None:
        """Prepare a new run, after its first evaluation. Not called when a run resumes.

        Raises:
            NonFiniteError: when a number is NaN or infinite; with the tensors concerned.
        """

    def iterate(self, clock: Clock, left: float) -> Metrics:
        """Act, query the teacher, and update the policy.

        Args:
            clock: measures ``collect_s``, ``label_s`` and ``update_s``.
            left: remaining share of the run, from 1 to 0, for the learning rate.

        Returns:
            Numbers to log, with the same names in each iteration.

        Raises:
            NonFiniteError: when a number is NaN or infinite; with the tensors concerned.
        """

    def policy(self) -> GaussianPolicy:
        """The current policy, to evaluate or save; the next iteration may change it in place."""

    def state(self) -> State:
        """Everything that the next iterations depend on."""

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned."""
