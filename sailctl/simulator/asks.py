"""A control step as something that several runs can ask for at once: one batch of all their states."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sailctl.simulator.states import Simulator, States, Step
from sailctl.types import DoubleArray


@dataclass(frozen=True)
class ControlStep:
    """Asks for one control step of all ``states`` with ``action`` (N, A); the answer is a ``Step``."""

    simulator: Simulator
    states: States
    action: DoubleArray

    @property
    def kind(self) -> Hashable:
        """Steps of one simulator."""
        return "control step", id(self.simulator)

    def answer(self) -> Step:
        """The simulator's."""
        return self.simulator.step(self.states, self.action)

    def answer_all(self, asks: Sequence[ControlStep]) -> list[Step]:
        """Each its own rows of one step of all."""
        states = States.join([ask.states for ask in asks])
        step = self.simulator.step(states, np.concatenate([ask.action for ask in asks]))
        edges = np.cumsum([0, *(len(ask.states) for ask in asks)])
        return [_rows(step, slice(start, end)) for start, end in pairwise(edges)]


def _rows(step: Step, rows: slice) -> Step:
    success = None if step.success is None else step.success[rows]
    return Step(
        step.states.take(rows), step.reward[rows], step.terminated[rows], step.truncated[rows], success
    )
