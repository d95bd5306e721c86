"""Simulator states as rows of flat arrays, and what one control step brings."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import mujoco
import numpy as np

from sailctl.core.types import BoolArray, DoubleArray, EnvSpec, IntArray


@dataclass(frozen=True)
class States:
    """N simulator states; the rows are independent of each other."""

    physics: DoubleArray
    """(N, nstate) MuJoCo's ``mjSTATE_FULLPHYSICS``: time, positions, velocities, activations."""
    memory: DoubleArray
    """(N, M) what the task carries along beside that, such as a target; often (N, 0)."""
    obs: DoubleArray
    """(N, O) the observation in each state (part of the state: some tasks observe what led there)."""
    elapsed: IntArray
    """(N,) control steps since the episode began."""

    def __len__(self) -> int:
        return len(self.elapsed)

    def fork(self, forks: int) -> States:
        """Each row ``forks`` times, side by side: (N * forks) rows that share no memory with these."""
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
        """Copies of the arrays by name, ready to be written to a file."""
        return {item.name: getattr(self, item.name).copy() for item in fields(self)}

    @staticmethod
    def restore(saved: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]) -> States:
        """The states that ``save`` wrote; they step on bit for bit as the originals do."""
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
    """What one control step brought."""

    states: States
    """The states reached."""
    reward: DoubleArray
    """(N,) true reward of the step."""
    terminated: BoolArray
    """(N,) the episode ended for good."""
    truncated: BoolArray
    """(N,) the time limit was reached and the episode did not end for good."""
    success: BoolArray | None = None
    """(N,) whether the state reached counts as success; None where no row says."""

    @property
    def done(self) -> BoolArray:
        """(N,) either of the two."""
        return self.terminated | self.truncated


class Simulator(Protocol):
    """Steps batches of one task's states; it has no state of its own that a caller could notice.

    Reset rules. Nothing resets by itself. ``step`` reports ``terminated`` (the task ended for good) and
    ``truncated`` (the time limit was reached first) apart, and the caller puts a fresh ``reset`` row where it
    wants one; a row that is never replaced is never silently restarted.
    """

    spec: EnvSpec

    @property
    def model(self) -> mujoco.MjModel | None:
        """The MuJoCo model that ``physics`` belongs to, for videos; None where there is none to be had."""

    @property
    def camera(self) -> dict[str, float]:
        """Free-camera settings for videos, as ``Task.camera``."""

    @property
    def forks_anywhere(self) -> bool:
        """Whether any state can be forked; False: only episode starts can, and those only once."""

    def reset(self, n: int, rng: np.random.Generator) -> States:
        """``n`` fresh episode starts drawn with ``rng``."""

    def step(self, states: States, action: DoubleArray) -> Step:
        """One control step of every row with actions (N, A) in the actuators' own units, clipped before.

        Raises:
            RunError: when an action is not finite, or a state cannot be stepped from.
        """

    def close(self) -> None:
        """End threads and free what is held."""
