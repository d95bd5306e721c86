"""Replay buffer of the critic: stored steps with learned rewards, sampled as n-step returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sailctl.core.types import DoubleArray, EnvSpec, FloatArray, Transitions
from sailctl.data.history import History


@dataclass(frozen=True)
class Experience:
    """Sampled steps with their n-step returns."""

    obs: FloatArray
    """(B, O) observations before the step."""
    actions: FloatArray
    """(B, A) actions of the step, in policy units."""
    returns: FloatArray
    """(B,) sum of the discounted rewards of at most n steps."""
    next_obs: FloatArray
    """(B, O) observations after the last of these steps."""
    weight: FloatArray
    """(B,) weight of the value of ``next_obs``: discount^(number of steps), 0 if the episode terminated."""


class Replay(History):
    """A history with a second reward of each step, for the critic: a learned reward, or the true one.

    Args:
        rows: maximum number of control steps of each environment.
        envs: N.
        spec: the task, which gives the sizes O and A.
    """

    def __init__(self, rows: int, envs: int, spec: EnvSpec) -> None:
        super().__init__(rows, envs, spec)
        self._learned = np.zeros((rows, envs), np.float32)

    def add(self, transitions: Transitions, rewards: DoubleArray) -> None:
        """Store one control step of all N environments, with true rewards (N,); the second rewards are 0."""
        self._learned[self._count % len(self._learned)] = 0.0
        super().add(transitions, rewards)

    def reward_latest(self, rewards: FloatArray) -> None:
        """Set the second rewards (N,) of the latest step."""
        self._learned[(self._count - 1) % len(self._learned)] = rewards

    def reward_all(self, rewards: FloatArray) -> None:
        """Set the second rewards (M,) of all stored steps, in the order of ``places``."""
        self._learned[self._order()] = rewards.reshape(-1, self._learned.shape[1])

    def true_rewards(self) -> DoubleArray:
        """(M,) true rewards of all stored steps, in the order of ``places``; for the teacher only."""
        rewards: DoubleArray = self._rewards[self._order()].ravel()
        return rewards

    def sample(self, count: int, steps: int, discount: float, rng: np.random.Generator) -> Experience:
        """``count`` steps drawn uniformly, with the returns of up to ``steps`` steps.

        A return is shorter if the episode or the history ends. There is no off-policy correction for the
        later actions, which are those of older policies: the policy changes slowly, and one-step returns
        would propagate values much more slowly.
        """
        order = self._order()
        rows, envs = len(order), self._ended.shape[1]
        row, env = rng.integers(rows, size=count), rng.integers(envs, size=count)
        last = order[row]
        obs, actions = self._obs[last, env], self._actions[last, env]
        returns = self._learned[last, env].copy()
        continues, weight = ~self._ended[last, env], np.full(count, discount, np.float32)
        for step in range(1, steps):
            continues &= row + step < rows
            if not continues.any():
                break
            current = order[np.minimum(row + step, rows - 1)]
            returns += np.where(continues, weight * self._learned[current, env], np.float32(0.0))
            last = np.where(continues, current, last)
            weight = np.where(continues, weight * np.float32(discount), weight)
            continues &= ~self._ended[current, env]
        weight[self._terminated[last, env]] = 0.0
        return Experience(obs, actions, returns, self._next_obs[last, env], weight)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return super()._arrays() | {"learned": self._learned}
