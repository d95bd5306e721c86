"""The simulator of Meta-World's tasks, which uses EnvPool and so can neither read nor set a state.

The start of an episode depends on a seed only. So a start can be forked: each row gets an environment with
the seed of its start. After its first step a row is tied to that environment and cannot be forked.
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
"""Number of batches of environments kept open: one for training, one for an evaluation during training."""

SUBSTEPS, TIMESTEP = 5, 0.0025
"""Physics sub-steps in one control step, and seconds in one of them."""


@dataclass
class Batch:
    """Environments that were started together."""

    pool: Any
    """EnvPool's environments; environment ``i`` has the number ``first + i``."""
    first: int
    size: int
    elapsed: IntArray
    """(size,) control steps since the start of each environment."""


class MetaWorldSimulator:
    """One Meta-World task; ``States.physics`` (N, 2) identifies environments instead of physical states.

    The columns are the seed of the row's start and, after the first step, the number of its environment. A
    start can be stepped any number of times; a later state only once. Rows may be dropped. Only the last
    ``LIVING_BATCHES`` batches stay open.

    ``Step.success`` is Meta-World's definition: the task is solved in the state reached.

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
        pool_spec = self._envpool.make_spec(self._name)
        obs_dim, action = pool_spec.observation_space.shape[0], pool_spec.action_space
        low, high = action.low.astype(np.float64), action.high.astype(np.float64)
        self.spec = EnvSpec(task_id, obs_dim, len(low), low, high, METAWORLD_HORIZON, SUBSTEPS * TIMESTEP)

    @property
    def camera(self) -> dict[str, float]:
        """Empty: without a model there are no videos."""
        return {}

    def reset(self, n: int, rng: np.random.Generator) -> States:
        """``n`` initial states, with seeds drawn with ``rng``."""
        seeds = rng.integers(np.iinfo(np.int32).max, size=n)
        obs = np.zeros((n, self.spec.obs_dim))
        if n:
            pool = self._make([int(seed) for seed in seeds])
            obs[:] = pool.reset()[0]
            pool.close()
        physics = np.stack([seeds, np.full(n, -1)], axis=1).astype(np.float64)
        return States(physics, np.zeros((n, 0)), obs, np.zeros(n, dtype=np.int64))

    def step(self, states: States, action: DoubleArray) -> Step:
        """One control step of every row.

        Args:
            states: N states, each a start or the latest state of an open environment.
            action: (N, 4) displacement of the hand (3) and the gripper's effort, from -1 to 1.

        Raises:
            RunError: when an action is not finite, or a state is an earlier one, which cannot be restored.
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
        """Close the environments."""
        for batch in self._batches:
            batch.pool.close()
        self._batches.clear()

    def _start(self, seeds: DoubleArray) -> IntArray:
        """Start new environments with ``seeds``, and return their numbers."""
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
        """Close ``batch`` if all its episodes are over; otherwise mark it as the most recently used."""
        self._batches.remove(batch)
        if (batch.elapsed < METAWORLD_HORIZON).any():
            self._batches.append(batch)
        else:
            batch.pool.close()

    def _refuse_restored(self, numbers: IntArray, elapsed: IntArray) -> None:
        current: BoolArray = np.zeros(len(numbers), dtype=bool)
        for batch in self._batches:
            rows = np.flatnonzero((numbers >= batch.first) & (numbers < batch.first + batch.size))
            current[rows] = batch.elapsed[numbers[rows] - batch.first] == elapsed[rows]
        if not current.all() or len(np.unique(numbers)) < len(numbers):
            raise RunError(
                f"{self.spec.id}: EnvPool cannot restore a state; fork episode starts only "
                "(rollout.start_fraction=1)"
            )

    def _make(self, seeds: list[int]) -> Any:
        return self._envpool.make_gymnasium(
            self._name, num_envs=len(seeds), seed=seeds, num_threads=min(self._threads, len(seeds))
        )
