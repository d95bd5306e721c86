"""The originals that the tasks are compared with, of Gymnasium and dm_control, behind the same methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco import MujocoEnv

from sailctl_envs import GymnasiumTask, Task

FULL = mujoco.mjtState.mjSTATE_FULLPHYSICS


@dataclass(frozen=True)
class Outcome:
    """What the original answers to one action."""

    obs: np.ndarray
    reward: float
    terminated: bool
    truncated: bool


class Original(ABC):
    """One environment of another package; ``limited`` ones truncate at their time limit, others never do."""

    model: mujoco.MjModel
    data: mujoco.MjData
    obs_dim: int
    act_low: np.ndarray
    act_high: np.ndarray
    frame_skip: int
    dt: float
    horizon: int
    obs_rounding: float
    """Difference of observations that counts as none, beside and in proportion to a number."""
    reward_rounding: float
    """The same of rewards."""

    @abstractmethod
    def reset(self, seed: int | None = None) -> np.ndarray:
        """Draw an episode start, with a new generator where ``seed`` is given; the first observation."""

    @abstractmethod
    def place(self, physics: np.ndarray, memory: np.ndarray) -> None:
        """Go to a state (nstate,) with what is carried beside it (M,), and a cold constraint solver."""

    @abstractmethod
    def step(self, action: np.ndarray) -> Outcome:
        """One control step."""

    @abstractmethod
    def memory(self) -> np.ndarray:
        """(M,) what is carried beside MuJoCo's state."""

    @abstractmethod
    def close(self) -> None:
        """Free what is held."""

    def physics(self) -> np.ndarray:
        """(nstate,) MuJoCo's state."""
        state = np.empty(mujoco.mj_stateSize(self.model, FULL))
        mujoco.mj_getState(self.model, self.data, state, FULL)
        return state


class GymnasiumOriginal(Original):
    obs_rounding = 0.0
    reward_rounding = 1e-13  # a sum over a row and over a batch may be added up in another order

    def __init__(self, task: GymnasiumTask, limited: bool = False) -> None:
        self.task = task
        self.env = gymnasium.make(task.gymnasium_id)
        inner = self.env.unwrapped
        assert isinstance(inner, MujocoEnv)
        self.inner, self.model, self.data = inner, inner.model, inner.data
        self._step = self.env.step if limited else inner.step
        (self.obs_dim,) = self.env.observation_space.shape
        self.act_low, self.act_high = self.env.action_space.low, self.env.action_space.high
        self.frame_skip, self.dt = inner.frame_skip, inner.dt
        self.horizon = gymnasium.spec(task.gymnasium_id).max_episode_steps
        self.reset(0)

    def reset(self, seed: int | None = None) -> np.ndarray:
        obs, _ = self.env.reset(seed=seed)
        return obs

    def place(self, physics: np.ndarray, memory: np.ndarray) -> None:
        mujoco.mj_setState(self.model, self.data, physics, FULL)
        self.data.qacc_warmstart[:] = 0.0
        if self.task.id == "ant-v5":
            self.data.xpos[1, 0] = memory[0]
        if self.task.id == "humanoid-v5":
            self.data.xipos[:, 0] = memory[0]

    def step(self, action: np.ndarray) -> Outcome:
        obs, reward, terminated, truncated, _ = self._step(action)
        return Outcome(obs, float(reward), bool(terminated), bool(truncated))

    def memory(self) -> np.ndarray:
        if self.task.id == "ant-v5":
            return self.data.xpos[1, :1].copy()
        if self.task.id == "humanoid-v5":
            mass = self.model.body_mass
            return np.array([(mass * self.data.xipos[:, 0]).sum() / mass.sum()])
        return np.zeros(0)

    def close(self) -> None:
        self.env.close()


class SuiteOriginal(Original):
    obs_rounding = 1e-11  # sines and cosines stand for what MuJoCo finds through quaternions, at any angle
    reward_rounding = 1e-13

    def __init__(self, task: Task, limited: bool = False) -> None:
        self.task = task
        self.names = task.id.split("_")
        self.limit = {} if limited else {"time_limit": float("inf")}
        self._load(0)
        low, high = self.env.action_spec().minimum, self.env.action_spec().maximum
        self.act_low, self.act_high, self.obs_dim = low, high, len(self.reset())
        self.dt = self.env.control_timestep()
        self.frame_skip = round(self.dt / self.env.physics.timestep())
        self.horizon = 1000  # in seconds as the original has it; the test of the time limit steps through it

    def _load(self, seed: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MUJOCO_GL", "disable")  # nothing is rendered, and looking for a screen is loud
            from dm_control import suite
        self.env = suite.load(*self.names, task_kwargs={"random": seed, **self.limit})
        self.model, self.data = self.env.physics.model.ptr, self.env.physics.data.ptr

    def reset(self, seed: int | None = None) -> np.ndarray:
        if seed is not None:
            self._load(seed)
        return flat(self.env.reset().observation)

    def place(self, physics: np.ndarray, memory: np.ndarray) -> None:
        mujoco.mj_setState(self.model, self.data, physics, FULL)
        if self.task.id == "reacher_easy":
            self.env.physics.named.model.geom_pos["target", :2] = memory
        # Its steps begin with the second half of a step of MuJoCo, and end with the first half of the next.
        mujoco.mj_step1(self.model, self.data)
        self.data.qacc_warmstart[:] = 0.0

    def step(self, action: np.ndarray) -> Outcome:
        reached = self.env.step(action)
        terminated = reached.last() and reached.discount == 0.0
        return Outcome(
            flat(reached.observation), reached.reward, terminated, reached.last() and not terminated
        )

    def memory(self) -> np.ndarray:
        if self.task.id == "reacher_easy":
            return self.env.physics.named.model.geom_pos["target", :2].copy()
        return np.zeros(0)

    def close(self) -> None:
        self.env.close()


def flat(observation: dict[str, np.ndarray]) -> np.ndarray:
    """(O,) the entries in their order."""
    return np.concatenate([np.ravel(entry) for entry in observation.values()])


def open_original(task: Task, limited: bool = False) -> Original:
    """The environment that ``task`` says it is."""
    if isinstance(task, GymnasiumTask):
        return GymnasiumOriginal(task, limited)
    return SuiteOriginal(task, limited)
