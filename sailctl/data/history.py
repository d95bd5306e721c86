"""Storage of the latest control steps of parallel environments, from which query windows are drawn.

True rewards are stored for the teacher only: ``windows`` returns them separately from the behaviour, and
``transitions``, for learners, does not return them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sailctl.core.state import State
from sailctl.core.types import DoubleArray, EnvSpec, IntArray, JudgedRewards, SegmentBatch, Transitions


class History:
    """Ring buffer of the latest T control steps (rows) of N environments.

    A place is the index of a row, counted from the oldest stored one, and of an environment. It refers to the
    same step until the next ``add``.

    Args:
        rows: maximum number of control steps of each environment.
        envs: N.
        spec: the task, which gives the sizes O and A.
    """

    def __init__(self, rows: int, envs: int, spec: EnvSpec) -> None:
        self._obs = np.zeros((rows, envs, spec.obs_dim), np.float32)
        self._actions = np.zeros((rows, envs, spec.act_dim), np.float32)
        self._next_obs = np.zeros((rows, envs, spec.obs_dim), np.float32)
        self._terminated = np.zeros((rows, envs), bool)
        self._ended = np.zeros((rows, envs), bool)
        self._rewards = np.zeros((rows, envs))
        self._count = 0

    def __len__(self) -> int:
        """M, the number of stored steps of all environments."""
        rows, envs = self._ended.shape
        return min(self._count, rows) * envs

    @property
    def envs(self) -> int:
        """N."""
        return int(self._ended.shape[1])

    def add(self, transitions: Transitions, rewards: DoubleArray) -> None:
        """Store one control step of all N environments, with its true rewards (N,)."""
        row = self._count % len(self._obs)
        self._obs[row], self._actions[row] = transitions.obs, transitions.actions
        self._next_obs[row] = transitions.next_obs
        self._terminated[row], self._ended[row] = transitions.terminated, transitions.ended
        self._rewards[row] = rewards
        self._count += 1

    def end_episodes(self) -> None:
        """Mark the latest step of each environment as the last of its episode, after a reset of all."""
        if self._count:
            self._ended[(self._count - 1) % len(self._obs)] = True

    def places(self) -> IntArray:
        """(M, 2) places of all stored steps, oldest first."""
        rows, envs = self._ended.shape
        return np.argwhere(np.ones((min(self._count, rows), envs), bool))

    def transitions(self, places: IntArray) -> Transitions:
        """A copy of the steps at these places (M, 2)."""
        index = self._order()[places[:, 0]], places[:, 1]
        return Transitions(
            self._obs[index],
            self._actions[index],
            self._next_obs[index],
            terminated=self._terminated[index],
            ended=self._ended[index],
        )

    def starts(self, steps: int, latest: int | None = None) -> IntArray:
        """(W, 2) places where a window of ``steps`` steps can start.

        A window lies within one episode. It may be shorter only if the episode terminates in it, as in a
        rollout, but not because of the time limit, a reset or the end of the history.

        Args:
            steps: length of a window.
            latest: number of latest rows in which windows start; None for all rows.
        """
        order = self._order()
        ends = self._ends(order)
        last = np.arange(len(order))[:, None] + steps - 1
        full_length = (last <= ends) & (last < len(order))
        end_rows = np.minimum(ends, len(order) - 1)
        terminated = np.take_along_axis(self._terminated[order], end_rows, axis=0)
        places = np.argwhere(full_length | ((ends < last) & (ends < len(order)) & terminated))
        return places if latest is None else places[places[:, 0] >= len(order) - latest]

    def windows(self, starts: IntArray, steps: int) -> tuple[SegmentBatch, JudgedRewards]:
        """The windows that start at ``starts`` (S, 2), and their true rewards; 0 after an episode's end."""
        order = self._order()
        row, env = starts.T
        rows = row[:, None] + np.arange(steps)
        mask = (rows <= self._ends(order)[row, env][:, None]).astype(np.float32)
        index = order[np.minimum(rows, len(order) - 1)], env[:, None]
        obs, actions = self._obs[index] * mask[..., None], self._actions[index] * mask[..., None]
        return SegmentBatch(obs, actions, mask, forks=1), JudgedRewards(self._rewards[index] * mask, mask)

    def state(self) -> State:
        """The stored rows, and the number of all rows so far."""
        filled = slice(min(self._count, len(self._obs)))
        return {"count": self._count, **{name: array[filled] for name, array in self._arrays().items()}}

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned."""
        self._count = state["count"]
        for name, array in self._arrays().items():
            array[: len(state[name])] = state[name]

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "obs": self._obs,
            "actions": self._actions,
            "next_obs": self._next_obs,
            "terminated": self._terminated,
            "ended": self._ended,
            "rewards": self._rewards,
        }

    def _order(self) -> IntArray:
        """(T,) indices of the rows in the arrays, oldest first."""
        return np.arange(max(0, self._count - len(self._obs)), self._count) % len(self._obs)

    def _ends(self, order: IntArray) -> IntArray:
        """(T, N) row of the last step of each step's episode; T if the episode continues."""
        rows = np.arange(len(order))[:, None]
        ends = np.where(self._ended[order], rows, len(order))
        return np.minimum.accumulate(ends[::-1], axis=0)[::-1]
