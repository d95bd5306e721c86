"""Simulator states as rows of arrays, the result of a control step, and the interface of simulators."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import mujoco
import numpy as np

from sailctl.core.types import BoolArray, DoubleArray, EnvSpec, IntArray


@dataclass(frozen=True)
class States:
    """N independent simulator states."""

    physics: DoubleArray
    """(N, nstate) MuJoCo's ``mjSTATE_FULLPHYSICS``: time, positions, velocities, activations."""
    memory: DoubleArray
    """(N, M) state of the task outside MuJoCo's state, such as a target; often (N, 0)."""
    obs: DoubleArray
    """(N, O) observation of each state, stored because it may depend on the step that led there."""
    elapsed: IntArray
    """(N,) control steps since the start of the episode."""

    def __len__(self) -> int:
        return len(self.elapsed)

    def fork(self, forks: int) -> States:
        """(N * forks) rows: consecutive copies of each row."""
        return self.take(np.repeat(np.arange(len(self)), forks))

    def take(self, rows: IntArray | np.ndarray[tuple[int], np.dtype[np.bool_]]) -> States:
        """A copy of the chosen rows."""
        return States(self.physics[rows], self.memory[rows], self.obs[rows], self.elapsed[rows])

    def put(self, rows: IntArray, other: States) -> States:
        """A copy in which ``rows`` are replaced by the rows of ``other``."""
        new = self.save()
        for name, array in other.save().items():
            new[name][rows] = array
        return States.restore(new)

    def save(self) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
        """Copies of the arrays, by name."""
        return {item.name: getattr(self, item.name).copy() for item in fields(self)}

    @staticmethod
    def restore(saved: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]) -> States:
        """The states that ``save`` returned; they continue bit for bit like the originals."""
        return States(
            np.array(saved["physics"], dtype=np.float64),
            np.array(saved["memory"], dtype=np.float64),
            np.array(saved["obs"], dtype=np.float64),
            np.array(saved["elapsed"], dtype=np.int64),
        )

    @staticmethod
    def join(parts: list[States]) -> States:
        """The rows of all ``parts``, in order."""
        names = [item.name for item in fields(States)]
        return States(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


@dataclass(frozen=True)
class Step:
    """Result of one control step."""

    states: States
    """The states after the step."""
    reward: DoubleArray
    """(N,) true reward of the step."""
    terminated: BoolArray
    """(N,) whether the episode terminated."""
    truncated: BoolArray
    """(N,) whether the time limit was reached without termination."""
    success: BoolArray | None = None
    """(N,) whether the task is solved in the state reached; None if no row reports it."""

    @property
    def done(self) -> BoolArray:
        """(N,) whether the episode ended, by termination or by the time limit."""
        return self.terminated | self.truncated


class Simulator(Protocol):
    """Steps batches of states of one task. It is stateless for the caller.

    There is no automatic reset. ``step`` reports ``terminated`` and ``truncated`` (time limit) separately;
    the caller replaces ended rows by rows of ``reset``.
    """

    spec: EnvSpec

    @property
    def model(self) -> mujoco.MjModel | None:
        """The MuJoCo model of ``physics``, for videos; None if it is not accessible."""

    @property
    def camera(self) -> dict[str, float]:
        """Free-camera settings for videos, as in ``Task.camera``."""

    @property
    def forks_anywhere(self) -> bool:
        """Whether any state can be forked; otherwise only the starts of episodes can."""

    def reset(self, n: int, rng: np.random.Generator) -> States:
        """``n`` initial states drawn with ``rng``."""

    def step(self, states: States, action: DoubleArray) -> Step:
        """One control step of every row with clipped actions (N, A) in the units of the actuators.

        Raises:
            RunError: when an action is not finite, or a state cannot be stepped.
        """

    def close(self) -> None:
        """End the threads and free all resources."""
