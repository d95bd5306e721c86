"""Meta-World's tasks, stepped by EnvPool, which can neither read nor set a state.

An episode's start follows from a seed alone, so a start can be forked: one environment is made for each row,
with the seed of its start. Beyond its start a row is one living environment, which goes on and nowhere else.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from sailctl.core.tasks import METAWORLD, METAWORLD_HORIZON
from sailctl.core.types import BoolArray, DoubleArray, EnvSpec, IntArray, RunError, UserError
from sailctl.simulator.states import States, Step

LIVING_BATCHES = 2
"""Batches of environments kept alive: that of the training, and that of an evaluation in its midst."""

SUBSTEPS, TIMESTEP = 5, 0.0025
"""Physics sub-steps in one control step, and seconds in one of them."""


@dataclass
class Batch:
    """Environments that started together."""

    pool: Any
    """EnvPool's environments; the row with number ``first + i`` is environment ``i``."""
    first: int
    size: int
    elapsed: IntArray
    """(size,) control steps that each environment has done."""


class MetaWorldSimulator:
    """One Meta-World task; ``States.physics`` (N, 2) holds tickets instead of physics.

    A ticket is the seed of the row's start and, once it moved, the number of its living environment. A row
    can be stepped at its start as often as wanted, and after that once from where it stands; rows may be
    dropped. Only the last ``LIVING_BATCHES`` batches of starts live on.

    ``Step.success`` is Meta-World's own: the task is solved in the state reached.

    Raises:
        UserError: when EnvPool is missing.
    """

    forks_anywhere = False
    model = None

    def __init__(self, task_id: str, threads: int = 1) -> None:
        self._threads = threads
        self._name = METAWORLD[task_id]
        self._batches: list[Batch] = []
        self._started = 0
        try:
            self._envpool = importlib.import_module("envpool")
        except ImportError as error:
            raise UserError(f"{task_id} needs EnvPool: pip install 'sailctl[metaworld]'") from error
        known = self._envpool.make_spec(self._name)
        obs_dim, action = known.observation_space.shape[0], known.action_space
        low, high = action.low.astype(np.float64), action.high.astype(np.float64)
        self.spec = EnvSpec(task_id, obs_dim, len(low), low, high, METAWORLD_HORIZON, SUBSTEPS * TIMESTEP)

    @property
    def camera(self) -> dict[str, float]:
        """None: without a model nothing can be filmed."""
        return {}

    def reset(self, n: int, rng: np.random.Generator) -> States:
        """``n`` fresh episode starts, whose seeds are drawn with ``rng``."""
        seeds = rng.integers(np.iinfo(np.int32).max, size=n)
        obs = np.zeros((n, self.spec.obs_dim))
        if n:
            pool = self._make([int(seed) for seed in seeds])
            obs[:] = pool.reset()[0]
            pool.close()
        tickets = np.stack([seeds, np.full(n, -1)], axis=1).astype(np.float64)
        return States(tickets, np.zeros((n, 0)), obs, np.zeros(n, dtype=np.int64))

    def step(self, states: States, action: DoubleArray) -> Step:
        """One control step of every row.

        Args:
            states: N states, each a start or the last state that a living environment reached.
            action: (N, 4) displacement of the hand (3) and the gripper's effort, from -1 to 1.

        Raises:
            RunError: when an action is not finite, or a state is another one: it cannot be restored.
        """
        if not np.isfinite(action).all():
            raise RunError(f"{self.spec.id}: an action is not finite")
        numbers = states.physics[:, 1].astype(np.int64)
        fresh = states.elapsed == 0
        numbers[fresh] = self._start(states.physics[fresh, 0])
        self._refuse_restored(numbers, states.elapsed)
        n = len(states)
        obs, reward = np.empty((n, self.spec.obs_dim)), np.empty(n)
        success, ended = np.empty(n, dtype=bool), np.empty(n, dtype=bool)
        for batch in list(self._batches):
            rows = np.flatnonzero((numbers >= batch.first) & (numbers < batch.first + batch.size))
            if not len(rows):
                continue
            environments = numbers[rows] - batch.first
            reached = batch.pool.step(action[rows].astype(np.float32), environments.astype(np.int32))
            obs[rows], reward[rows], ended[rows], _, info = reached
            success[rows] = info["success"] > 0.5
            batch.elapsed[environments] += 1
            self._keep(batch)
        elapsed = states.elapsed + 1
        return Step(
            states=States(
                np.stack([states.physics[:, 0], numbers], axis=1), states.memory.copy(), obs, elapsed
            ),
            reward=reward,
            terminated=ended,
            truncated=(elapsed >= METAWORLD_HORIZON) & ~ended,
            success=success,
        )

    def close(self) -> None:
        """End the environments."""
        for batch in self._batches:
            batch.pool.close()
        self._batches.clear()

    def _start(self, seeds: DoubleArray) -> IntArray:
        """Numbers of new environments that stand at the starts of ``seeds``."""
        if not len(seeds):
            return np.empty(0, dtype=np.int64)
        pool = self._make([int(seed) for seed in seeds])
        pool.reset()
        first = self._started
        self._started += len(seeds)
        self._batches.append(Batch(pool, first, len(seeds), np.zeros(len(seeds), dtype=np.int64)))
        for batch in self._batches[:-LIVING_BATCHES]:
            batch.pool.close()
        self._batches = self._batches[-LIVING_BATCHES:]
        return np.arange(first, self._started)

    def _keep(self, batch: Batch) -> None:
        """Make ``batch`` the last one to be ended, or end it if all its episodes are over."""
        self._batches.remove(batch)
        if (batch.elapsed < METAWORLD_HORIZON).any():
            self._batches.append(batch)
        else:
            batch.pool.close()

    def _refuse_restored(self, numbers: IntArray, elapsed: IntArray) -> None:
        living: BoolArray = np.zeros(len(numbers), dtype=bool)
        for batch in self._batches:
            mine = np.flatnonzero((numbers >= batch.first) & (numbers < batch.first + batch.size))
            living[mine] = batch.elapsed[numbers[mine] - batch.first] == elapsed[mine]
        if not living.all() or len(np.unique(numbers)) < len(numbers):
            raise RunError(
                f"{self.spec.id}: EnvPool cannot restore a state; fork episode starts alone "
                "(rollout.start_fraction=1)"
            )

    def _make(self, seeds: list[int]) -> Any:
        return self._envpool.make_gymnasium(
            self._name, num_envs=len(seeds), seed=seeds, num_threads=min(self._threads, len(seeds))
        )
