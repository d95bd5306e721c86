"""The simulator as a vectorised environment for Stable-Baselines3, with the true reward.

It works with every algorithm of Stable-Baselines3 and sb3-contrib that accepts a ``VecEnv``, and with
``VecMonitor``, ``VecNormalize`` and callbacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from sailctl.core.seeding import generator
from sailctl.core.state import State
from sailctl.core.types import FloatArray
from sailctl.simulator.states import Simulator, States


class SimulatorVecEnv(VecEnv):
    """``count`` environments of one simulator, stepped as one batch; each is reset when its episode ends.

    Actions are in policy units: -1 and +1 are the bounds of the actuator. As Stable-Baselines3 requires, an
    environment is reset as soon as its episode ends; its last observation is then
    ``infos[i]["terminal_observation"]``, and ``infos[i]["TimeLimit.truncated"]`` is true if the time limit
    ended it. ``infos[i]["is_success"]`` is present if the task defines success.
    """

    def __init__(self, simulator: Simulator, count: int, seed: int) -> None:
        spec = simulator.spec
        observations = spaces.Box(-np.inf, np.inf, (spec.obs_dim,), np.float32)
        actions = spaces.Box(-1.0, 1.0, (spec.act_dim,), np.float32)
        self.simulator = simulator
        self.render_mode = None
        self._low, self._span = spec.act_low, 0.5 * (spec.act_high - spec.act_low)
        self._rng = generator(seed, "sim")
        self._actions = np.zeros((count, spec.act_dim))
        super().__init__(count, observations, actions)
        self.reset()

    def reset(self) -> VecEnvObs:
        """(N, O) first observations of new episodes in all environments.

        The first call after ``seed`` restarts the random generator with the new seed.
        """
        if self._seeds[0] is not None:
            self._rng = generator(self._seeds[0], "sim")
        self._reset_seeds()
        self.states = self.simulator.reset(self.num_envs, self._rng)
        return self._observations()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Set the (N, A) actions of the next step, clipped to -1 and +1."""
        clipped = np.clip(np.asarray(actions, dtype=np.float64), -1.0, 1.0)
        self._actions = self._low + self._span * (clipped + 1.0)

    def step_wait(self) -> VecEnvStepReturn:
        """(N, O) observations, (N,) true rewards, (N,) ends of episodes, and a dictionary per environment."""
        step = self.simulator.step(self.states, self._actions)
        self.states = step.states
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if step.success is not None:
            for info, success in zip(infos, step.success, strict=True):
                info["is_success"] = bool(success)
        ended = np.flatnonzero(step.done)
        if len(ended):
            for row in ended:
                infos[row]["terminal_observation"] = step.states.obs[row].astype(np.float32)
                infos[row]["TimeLimit.truncated"] = bool(step.truncated[row])
            self.states = self.states.put(ended, self.simulator.reset(len(ended), self._rng))
        return self._observations(), step.reward.astype(np.float32), step.done, infos

    def state(self) -> State:
        """The states of the environments and of the random generator."""
        return {
            "states": self.states.save(),
            "rng": self._rng.bit_generator.state,
            "seeds": list(self._seeds),
        }

    def restore(self, state: State) -> None:
        """Load what ``state`` returned; no reset is needed afterwards."""
        self.states = States.restore(state["states"])
        self._rng.bit_generator.state = state["rng"]
        self._seeds = list(state["seeds"])

    def close(self) -> None:
        """End the simulator's threads."""
        self.simulator.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute once per environment; all environments share it."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set the attribute for all environments.

        Raises:
            ValueError: when ``indices`` selects only some of them.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError("the environments of one simulator share their attributes: leave out indices")
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call the method once per environment; returns its results."""
        method = getattr(self, method_name)
        return [method(*method_args, **method_kwargs) for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """False per environment; only the whole batch can be wrapped (``VecMonitor``, ``VecNormalize``)."""
        return [False] * len(list(self._get_indices(indices)))

    def get_images(self) -> Sequence[None]:
        """None per environment; ``sailctl eval RUN --video`` renders videos."""
        return [None] * self.num_envs

    def _observations(self) -> FloatArray:
        return self.states.obs.astype(np.float32)
