"""What the baselines have in common, whichever algorithm of Stable-Baselines3 they are built on.

An iteration calls ``learn`` once. Between two calls a learner is at rest: a rollout is over, its updates are
done, and ``learn`` takes up where the last one ended. That is where checkpoints are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.random.mtrand import get_bit_generator
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from torch import nn
from torch.optim import Optimizer

from sailctl.algorithms.protocol import Algorithm
from sailctl.config import BaselineRun, segment_lengths
from sailctl.core.seeding import Generators
from sailctl.core.state import State, module_state, optimiser_state, restore_module, restore_optimiser
from sailctl.core.types import EnvSpec, FloatArray, NonFiniteError, Transitions
from sailctl.data.history import History
from sailctl.preferences.sessions import Schedule, Sessions
from sailctl.simulator.vecenv import SimulatorVecEnv

NEVER = 2**31
"""``log_interval`` of ``learn``: the numbers are read after it, not during it."""

KNOWN = (
    "num_timesteps",
    "_n_updates",
    "_episode_num",
    "_current_progress_remaining",
    "_last_obs",
    "_last_original_obs",
    "_last_episode_starts",
)
"""What a learner of Stable-Baselines3 remembers of one call of ``learn`` in the next one."""

EPISODES = 100
"""Episodes' worth of steps from which windows are drawn, the latest (B-Pref: ``max_size``)."""


class Baseline(Algorithm):
    """What the loop knows of a learner of Stable-Baselines3, on the true reward or a learned one."""

    _model: BaseAlgorithm
    _sessions: Sessions | None
    """What is asked and learned beside it; None on the true reward."""

    @property
    def env_steps(self) -> int:
        """Control steps of all environments so far."""
        return self._model.num_timesteps

    @property
    def labels(self) -> int:
        """The teacher's answers so far; 0 on the true reward."""
        return 0 if self._sessions is None else self._sessions.labels


def sessions_of(config: BaselineRun, spec: EnvSpec, generators: Generators, first_at: int) -> Sessions:
    """What a baseline on a learned reward asks, from ``first_at`` env steps on."""
    algo, window = config.algo, segment_lengths(config)[1]
    return Sessions(
        config.oracle,
        config.reward,
        Schedule(first_at, algo.initial_queries, algo.query_interval, algo.queries),
        selection=algo.selection,
        window=window,
        history=History(max(window, EPISODES * spec.horizon // algo.envs), algo.envs, spec),
        spec=spec,
        generators=generators,
        bounded=True,
    )


class LearnedReward(VecEnvWrapper):
    """Hands out the learned reward in place of the true one, which goes to the teacher's history alone."""

    def __init__(self, venv: SimulatorVecEnv, sessions: Sessions) -> None:
        super().__init__(venv)
        self._simulated, self._sessions = venv, sessions
        self._obs = np.zeros((venv.num_envs, *(venv.observation_space.shape or ())), np.float32)
        self._actions: FloatArray = np.zeros((venv.num_envs, *(venv.action_space.shape or ())), np.float32)

    def reset(self) -> VecEnvObs:
        """(N, O) first observations of fresh episodes."""
        self._sessions.end_episodes()
        obs = self.venv.reset()
        self._obs = np.array(obs)
        return obs

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Take (N, A) actions; those beyond -1 and +1 are clipped."""
        self._actions = np.clip(actions, -1.0, 1.0)
        self.venv.step_async(self._actions)

    def step_wait(self) -> VecEnvStepReturn:
        """As the environments', but for (N,) rewards, which are the learned ones."""
        obs, true, ended, infos = self.venv.step_wait()
        truncated = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        reached = np.array(obs)
        for row in np.flatnonzero(ended):
            reached[row] = infos[row]["terminal_observation"]
        done = Transitions(self._obs, self._actions, reached, ended & ~truncated, ended)
        self._sessions.remember(done, true.astype(np.float64))
        learned = self._sessions.rewards(self._obs, self._actions)
        self._obs = np.array(obs)
        return obs, learned, ended, infos

    def state(self) -> State:
        """The environments, the latest observations, and what the sessions know."""
        return {
            "simulated": self._simulated.state(),
            "obs": self._obs,
            "sessions": self._sessions.state(),
            "history": self._sessions.history.state(),
        }

    def restore(self, state: State) -> None:
        """Load what ``state`` returned."""
        self._simulated.restore(state["simulated"])
        self._obs = state["obs"]
        self._sessions.restore(state["sessions"])
        self._sessions.history.restore(state["history"])


class Numbers(KVWriter):
    """Keeps the numbers that Stable-Baselines3 recorded last."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Keep them."""
        self.values = {key: float(value) for key, value in key_values.items()}

    def close(self) -> None:
        """There is nothing to close."""


def keep_numbers(model: BaseAlgorithm) -> None:
    """Let ``recorded`` read what ``model`` records, and nothing else happen with it."""
    model.set_logger(Logger(None, [Numbers()]))


def recorded(model: BaseAlgorithm, names: Mapping[str, str]) -> dict[str, float]:
    """Numbers of the last update by our names, given what they are called below ``train/``; NaN before it."""
    model.logger.dump(model.num_timesteps)
    (numbers,) = model.logger.output_formats
    assert isinstance(numbers, Numbers)
    return {name: numbers.values.get(f"train/{theirs}", math.nan) for name, theirs in names.items()}


def refuse_non_finite(model: BaseAlgorithm) -> None:
    """Stop where a parameter is NaN or infinite.

    Raises:
        NonFiniteError: with the parameters.
    """
    parameters = {name: value.detach() for name, value in model.policy.named_parameters()}
    bad = [name for name, value in parameters.items() if not torch.isfinite(value).all()]
    if bad:
        after = f"{type(model).__name__} is not finite after {model.num_timesteps} env steps"
        raise NonFiniteError(f"{after}: {', '.join(bad)}", parameters)


def linear_layers(*networks: nn.Module) -> list[nn.Linear]:
    """The linear layers of networks, in order."""
    return [layer for network in networks for layer in network.modules() if isinstance(layer, nn.Linear)]


@torch.no_grad()
def copy_layers(sources: list[nn.Linear], targets: list[nn.Linear]) -> None:
    """Give ``targets`` the weights and biases of ``sources``, layer by layer."""
    for source, target in zip(sources, targets, strict=True):
        target.weight.copy_(source.weight)
        target.bias.copy_(source.bias)


def learner_state(model: BaseAlgorithm, optimisers: Sequence[Optimizer]) -> State:
    """Networks, optimisers, counters, and where the generators stand that Stable-Baselines3 draws from.

    These are PyTorch's and NumPy's global ones, and that of the action space. Left out are statistics of
    episodes, which it collects and nobody reads.
    """
    return {
        "policy": module_state(model.policy),
        "optimisers": {str(number): optimiser_state(one) for number, one in enumerate(optimisers)},
        "known": {name: getattr(model, name) for name in KNOWN},
        "torch": torch.get_rng_state(),
        "numpy": get_bit_generator().state,
        "action_space": model.action_space.np_random.bit_generator.state,
    }


def restore_learner(model: BaseAlgorithm, optimisers: Sequence[Optimizer], state: State) -> None:
    """Load what ``learner_state`` returned."""
    restore_module(model.policy, state["policy"])
    for number, one in enumerate(optimisers):
        restore_optimiser(one, state["optimisers"][str(number)])
    for name in KNOWN:
        setattr(model, name, state["known"][name])
    torch.set_rng_state(torch.as_tensor(state["torch"]))
    get_bit_generator().state = state["numpy"]
    model.action_space.np_random.bit_generator.state = state["action_space"]


def moments_state(seen: RunningMeanStd) -> State:
    """Running mean, variance and count."""
    return {"mean": np.asarray(seen.mean), "var": np.asarray(seen.var), "count": seen.count}


def restore_moments(seen: RunningMeanStd, state: State) -> None:
    """Load what ``moments_state`` returned."""
    seen.mean, seen.var, seen.count = state["mean"], state["var"], state["count"]
