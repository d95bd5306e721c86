"""The simulator as a vectorised environment of Stable-Baselines3, at the simulator's speed.

Any algorithm of Stable-Baselines3 or sb3-contrib that takes a ``VecEnv`` trains on it, on the true reward,
with ``VecMonitor``, ``VecNormalize`` and callbacks around it.
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
    """``count`` environments of one simulator, stepped as one batch and reset one by one as they end.

    Actions are in policy units, as everywhere in sailctl: -1 and +1 are the ends of the actuator's range.
    As Stable-Baselines3 has it, an environment that ended is reset at once; its last observation is
    ``infos[i]["terminal_observation"]`` and ``infos[i]["TimeLimit.truncated"]`` says whether the time limit
    ended it. ``infos[i]["is_success"]`` is there where the task defines success.
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
        """(N, O) first observations of fresh episodes in all environments.

        After ``seed`` the first call draws from the new seed; otherwise the draws go on.
        """
        if self._seeds[0] is not None:
            self._rng = generator(self._seeds[0], "sim")
        self._reset_seeds()
        self.states = self.simulator.reset(self.num_envs, self._rng)
        return self._observations()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take (N, A) actions; those beyond -1 and +1 are clipped."""
        clipped = np.clip(np.asarray(actions, dtype=np.float64), -1.0, 1.0)
        self._actions = self._low + self._span * (clipped + 1.0)

    def step_wait(self) -> VecEnvStepReturn:
        """(N, O) observations, (N,) true rewards, (N,) ends, and a dictionary for each environment."""
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
        """Where the environments stand, and where their next episodes are drawn from."""
        return {
            "states": self.states.save(),
            "rng": self._rng.bit_generator.state,
            "seeds": list(self._seeds),
        }

    def restore(self, state: State) -> None:
        """Load what ``state`` returned; there is no need to reset after it."""
        self.states = States.restore(state["states"])
        self._rng.bit_generator.state = state["rng"]
        self._seeds = list(state["seeds"])

    def close(self) -> None:
        """End the simulator's threads."""
        self.simulator.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute, the same for each environment: they share all but their state."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set the attribute for all environments.

        Raises:
            ValueError: when only some of them are meant.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError("the environments of one simulator share their attributes: leave out indices")
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """What the method returns, called once for each environment."""
        method = getattr(self, method_name)
        return [method(*method_args, **method_kwargs) for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """No environment is wrapped by itself; wrap the whole (``VecMonitor``, ``VecNormalize``)."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[None]:
        """Nothing is rendered; ``sailctl eval RUN --video`` films a policy."""
        return [None] * self.num_envs

    def _observations(self) -> FloatArray:
        return self.states.obs.astype(np.float32)
