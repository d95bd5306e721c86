"""What the training loop knows of an algorithm, and what passes between the two."""

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
    """Seconds spent in each part of a run so far, and since it began."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._cpu_start = time.process_time()
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
        self._spent = defaultdict(float, state)
        self._start = time.perf_counter() - state["wall_s"]
        self._cpu_start = time.process_time() - state["cpu_s"]

    def read(self) -> dict[str, float]:
        """Seconds by part; ``wall_s`` is all of them and what lies between.

        ``cpu_s`` is the processor time of this process, of all its threads: other runs on the machine do not
        lengthen it as they do the time on the wall.
        """
        parts = {part: self._spent[part] for part in ("collect_s", "label_s", "update_s", "evaluate_s")}
        now, cpu = time.perf_counter(), time.process_time()
        return parts | {"wall_s": now - self._start, "cpu_s": cpu - self._cpu_start}


class Algorithm(Protocol):
    """One way to train a policy, from one iteration to the next.

    Between two iterations it is at rest: ``state`` then holds all that decides what follows, so that an
    algorithm made anew that is given it by ``restore`` goes on to the same numbers, bit for bit.

    A class below this one leaves out what it answers as this one does: where it asks no teacher, what it
    would say of labels.
    """

    @property
    def env_steps(self) -> int:
        """Control steps simulated for training so far."""

    @property
    def labels(self) -> int:
        """The teacher's answers so far, those that came with a data set included."""
        return 0

    @property
    def labels_left(self) -> float:
        """Share of the label budget that is left; 1 where spending it does not end the run."""
        return 1.0

    @property
    def exhausted(self) -> bool:
        """Whether nothing more can be learned: the budget is spent, and nobody else gives labels."""
        return False

    def begin(self, clock: Clock) -> None:
        """What comes after the first evaluation and before the first iteration; not for a run that goes on.

        Raises:
            NonFiniteError: when a number is NaN or infinite; it carries the tensors that show it.
        """

    def iterate(self, clock: Clock, left: float) -> Metrics:
        """Act, ask the teacher, and update the policy.

        Args:
            clock: to be told by ``measure`` what time goes into: ``collect_s``, ``label_s``, ``update_s``.
            left: share of the run that is left, from 1 to 0, which a learning rate may follow.

        Returns:
            Numbers to log, of the same names in each iteration.

        Raises:
            NonFiniteError: when a number is NaN or infinite; it carries the tensors that show it.
        """

    def policy(self) -> GaussianPolicy:
        """The policy as it is now, to be evaluated or saved; it may change in the next iteration."""

    def state(self) -> State:
        """All that decides the iterations to come."""

    def restore(self, state: State) -> None:
        """Load what ``state`` returned."""
