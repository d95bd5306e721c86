"""The latest control steps of environments that run side by side, and the windows of them to ask about.

True rewards are kept for the teacher alone: ``windows`` hands them out apart from what was done, and
``transitions``, for learners, not at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sailctl.core.state import State
from sailctl.core.types import DoubleArray, EnvSpec, IntArray, JudgedRewards, SegmentBatch, Transitions


class History:
    """The latest T rows of control steps of N environments, oldest forgotten first.

    A place is a row, counted from the oldest one that is remembered, and an environment. It stands for the
    same step until the next ``add``.

    Args:
        rows: control steps of each environment at most.
        envs: N.
        spec: the task, whose sizes O and A are those of a step.
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
        """Control steps that are remembered, of all environments."""
        rows, envs = self._ended.shape
        return min(self._count, rows) * envs

    @property
    def envs(self) -> int:
        """N."""
        return int(self._ended.shape[1])

    def add(self, transitions: Transitions, rewards: DoubleArray) -> None:
        """One control step of all N environments, and its true rewards (N,)."""
        row = self._count % len(self._obs)
        self._obs[row], self._actions[row] = transitions.obs, transitions.actions
        self._next_obs[row] = transitions.next_obs
        self._terminated[row], self._ended[row] = transitions.terminated, transitions.ended
        self._rewards[row] = rewards
        self._count += 1

    def end_episodes(self) -> None:
        """All environments are reset: the latest step of each was the last of its episode here."""
        if self._count:
            self._ended[(self._count - 1) % len(self._obs)] = True

    def places(self) -> IntArray:
        """(M, 2) places of all steps that are remembered, the oldest first."""
        rows, envs = self._ended.shape
        return np.argwhere(np.ones((min(self._count, rows), envs), bool))

    def transitions(self, places: IntArray) -> Transitions:
        """A copy of the steps in these places (M, 2)."""
        at = self._order()[places[:, 0]], places[:, 1]
        steps, ended = (self._obs[at], self._actions[at], self._next_obs[at]), self._ended[at]
        return Transitions(*steps, terminated=self._terminated[at], ended=ended)

    def starts(self, steps: int, latest: int | None = None) -> IntArray:
        """(W, 2) places where a window of ``steps`` may start: no reset lies inside it.

        With ``latest`` it starts in that many rows, the latest ones.

        One that ends early because the episode terminated is a window too, as it is in a rollout; one that
        the time limit, a reset or the present ends early is none.
        """
        order = self._order()
        ends = self._ends(order)
        last = np.arange(len(order))[:, None] + steps - 1
        whole = (last <= ends) & (last < len(order))
        over = np.minimum(ends, len(order) - 1)
        fell = (ends < last) & (ends < len(order)) & np.take_along_axis(self._terminated[order], over, axis=0)
        places = np.argwhere(whole | fell)
        return places if latest is None else places[places[:, 0] >= len(order) - latest]

    def windows(self, starts: IntArray, steps: int) -> tuple[SegmentBatch, JudgedRewards]:
        """What happened in the windows of ``starts`` (S, 2), and its true rewards; 0 after an episode."""
        order = self._order()
        row, env = starts.T
        rows = row[:, None] + np.arange(steps)
        mask = (rows <= self._ends(order)[row, env][:, None]).astype(np.float32)
        at = order[np.minimum(rows, len(order) - 1)], env[:, None]
        obs, actions = self._obs[at] * mask[..., None], self._actions[at] * mask[..., None]
        return SegmentBatch(obs, actions, mask, forks=1), JudgedRewards(self._rewards[at] * mask, mask)

    def state(self) -> State:
        """The rows that hold a step, and how many there have been."""
        filled = slice(min(self._count, len(self._obs)))
        return {"count": self._count, **{name: rows[filled] for name, rows in self._arrays().items()}}

    def restore(self, state: State) -> None:
        """Load what ``state`` returned."""
        self._count = state["count"]
        for name, rows in self._arrays().items():
            rows[: len(state[name])] = state[name]

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
        """(T,) where the rows lie in the arrays, the oldest first."""
        return np.arange(max(0, self._count - len(self._obs)), self._count) % len(self._obs)

    def _ends(self, order: IntArray) -> IntArray:
        """(T, N) the row in which the episode of each step ends; T where it goes on."""
        rows = np.arange(len(order))[:, None]
        ends = np.where(self._ended[order], rows, len(order))
        return np.minimum.accumulate(ends[::-1], axis=0)[::-1]
