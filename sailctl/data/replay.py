"""What a critic learns from: remembered steps, each with the reward that is to be maximised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sailctl.core.types import DoubleArray, EnvSpec, FloatArray, Transitions
from sailctl.data.history import History


@dataclass(frozen=True)
class Experience:
    """Steps with what followed them, for targets of several steps."""

    obs: FloatArray
    """(B, O) observations before the step."""
    actions: FloatArray
    """(B, A) actions of the step, in policy units."""
    returns: FloatArray
    """(B,) discounted rewards of the step and of those that follow, n of them at most."""
    next_obs: FloatArray
    """(B, O) observations after the last of them."""
    weight: FloatArray
    """(B,) what the value of ``next_obs`` counts: the discount to the power of their number, 0 where the
    episode was terminated."""


class Replay(History):
    """A history whose steps carry a reward beside the true one: learned, or the teacher's own.

    Args:
        rows: control steps of each environment at most.
        envs: N.
        spec: the task, whose sizes O and A are those of a step.
    """

    def __init__(self, rows: int, envs: int, spec: EnvSpec) -> None:
        super().__init__(rows, envs, spec)
        self._learned = np.zeros((rows, envs), np.float32)

    def add(self, transitions: Transitions, rewards: DoubleArray) -> None:
        """One control step of all N environments, and its true rewards (N,); the other reward is 0 so far."""
        self._learned[self._count % len(self._learned)] = 0.0
        super().add(transitions, rewards)

    def reward_latest(self, rewards: FloatArray) -> None:
        """Rewards (N,) of the step that was added last."""
        self._learned[(self._count - 1) % len(self._learned)] = rewards

    def reward_all(self, rewards: FloatArray) -> None:
        """Rewards (M,) of all steps that are remembered, in the order of ``places``."""
        self._learned[self._order()] = rewards.reshape(-1, self._learned.shape[1])

    def true_rewards(self) -> DoubleArray:
        """(M,) true rewards of all steps, as ``places`` orders them: for the teacher alone."""
        true: DoubleArray = self._rewards[self._order()].ravel()
        return true

    def sample(self, count: int, steps: int, discount: float, rng: np.random.Generator) -> Experience:
        """``count`` steps drawn uniformly, with what followed each of them.

        What follows is added up over ``steps`` steps, or fewer where the episode ends or the present comes
        first. The actions that follow are those of an older policy, and nothing corrects for that: with small
        moves of the policy it is the lesser evil beside a value that travels one step at a time.
        """
        order = self._order()
        rows, envs = len(order), self._ended.shape[1]
        row, env = rng.integers(rows, size=count), rng.integers(envs, size=count)
        place = order[row]
        obs, actions = self._obs[place, env], self._actions[place, env]
        returns = self._learned[place, env].copy()
        going, weight = ~self._ended[place, env], np.full(count, discount, np.float32)
        for step in range(1, steps):
            going &= row + step < rows
            if not going.any():
                break
            here = order[np.minimum(row + step, rows - 1)]
            returns += np.where(going, weight * self._learned[here, env], np.float32(0.0))
            place = np.where(going, here, place)
            weight = np.where(going, weight * np.float32(discount), weight)
            going &= ~self._ended[here, env]
        weight[self._terminated[place, env]] = 0.0
        return Experience(obs, actions, returns, self._next_obs[place, env], weight)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return super()._arrays() | {"learned": self._learned}
