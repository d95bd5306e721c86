"""Common parts of the baselines that use algorithms of Stable-Baselines3 (SB3).

An iteration calls SB3's ``learn`` once. Checkpoints are saved between two calls, when the rollout and its
updates are complete; the next call of ``learn`` continues from there.
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
from sailctl.simulator.states import Simulator
from sailctl.simulator.vecenv import SimulatorVecEnv

NEVER = 2**31
"""``log_interval`` of ``learn``: metrics are read after ``learn``, not during it."""

LEARNER_ATTRIBUTES = (
    "num_timesteps",
    "_n_updates",
    "_episode_num",
    "_current_progress_remaining",
    "_last_obs",
    "_last_original_obs",
    "_last_episode_starts",
)
"""Attributes of an SB3 algorithm that a call of ``learn`` passes on to the next one."""

EPISODES = 100
"""Windows are drawn from the latest steps, of this number of full-length episodes (B-Pref: ``max_size``)."""


class Baseline(Algorithm):
    """An SB3 algorithm on the true reward or on a learned one."""

    _model: BaseAlgorithm
    _sessions: Sessions | None
    """The teacher's sessions and the learned reward; None on the true reward."""

    @property
    def env_steps(self) -> int:
        """Number of env steps so far."""
        return self._model.num_timesteps

    @property
    def labels(self) -> int:
        """Number of the teacher's answers so far; 0 on the true reward."""
        return 0 if self._sessions is None else self._sessions.labels


def sessions_of(config: BaselineRun, spec: EnvSpec, generators: Generators, first_session: int) -> Sessions:
    """The teacher's sessions of a baseline on a learned reward, from ``first_session`` env steps on."""
    algo, window = config.algo, segment_lengths(config)[1]
    return Sessions(
        config.oracle,
        config.reward,
        Schedule(first_session, algo.initial_queries, algo.query_interval, algo.queries),
        selection=algo.selection,
        window=window,
        history=History(max(window, EPISODES * spec.horizon // algo.envs), algo.envs, spec),
        spec=spec,
        generators=generators,
        bounded=True,
    )


def make_env(
    config: BaselineRun, simulator: Simulator, generators: Generators, first_session: int
) -> tuple[SimulatorVecEnv | LearnedReward, Sessions | None]:
    """Environments with the true reward, or with a learned reward and the sessions that provide it."""
    env = SimulatorVecEnv(simulator, config.algo.envs, config.seed)
    if config.algo.reward != "model":
        return env, None
    sessions = sessions_of(config, simulator.spec, generators, first_session)
    return LearnedReward(env, sessions), sessions


class LearnedReward(VecEnvWrapper):
    """Replaces the true reward by the learned one; only the teacher's history receives the true reward."""

    def __init__(self, venv: SimulatorVecEnv, sessions: Sessions) -> None:
        super().__init__(venv)
        self._simulator_env, self._sessions = venv, sessions
        self._obs = np.zeros((venv.num_envs, *(venv.observation_space.shape or ())), np.float32)
        self._actions: FloatArray = np.zeros((venv.num_envs, *(venv.action_space.shape or ())), np.float32)

    def reset(self) -> VecEnvObs:
        """(N, O) first observations of new episodes."""
        self._sessions.end_episodes()
        obs = self.venv.reset()
        self._obs = np.array(obs)
        return obs

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Execute (N, A) actions, clipped to [-1, 1]."""
        self._actions = np.clip(actions, -1.0, 1.0)
        self.venv.step_async(self._actions)

    def step_wait(self) -> VecEnvStepReturn:
        """The step of the wrapped environments, with (N,) learned rewards."""
        obs, true_rewards, ended, infos = self.venv.step_wait()
        truncated = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        next_obs = np.array(obs)
        for row in np.flatnonzero(ended):
            next_obs[row] = infos[row]["terminal_observation"]
        transitions = Transitions(self._obs, self._actions, next_obs, ended & ~truncated, ended)
        self._sessions.remember(transitions, true_rewards.astype(np.float64))
        learned_rewards = self._sessions.rewards(self._obs, self._actions)
        self._obs = np.array(obs)
        return obs, learned_rewards, ended, infos

    def state(self) -> State:
        """State of the environments, the sessions and the history, and the latest observations."""
        return {
            "simulated": self._simulator_env.state(),
            "obs": self._obs,
            "sessions": self._sessions.state(),
            "history": self._sessions.history.state(),
        }

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned."""
        self._simulator_env.restore(state["simulated"])
        self._obs = state["obs"]
        self._sessions.restore(state["sessions"])
        self._sessions.history.restore(state["history"])


class MetricsWriter(KVWriter):
    """Stores the metrics that SB3 logged last."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Store the metrics."""
        self.values = {key: float(value) for key, value in key_values.items()}

    def close(self) -> None:
        """Do nothing."""


def record_metrics(model: BaseAlgorithm) -> None:
    """Store the metrics that ``model`` logs, for ``latest_metrics``."""
    model.set_logger(Logger(None, [MetricsWriter()]))


def latest_metrics(model: BaseAlgorithm, names: Mapping[str, str]) -> dict[str, float]:
    """Metrics of the last update, NaN before it; ``names`` maps our names to SB3's below ``train/``."""
    model.logger.dump(model.num_timesteps)
    (writer,) = model.logger.output_formats
    assert isinstance(writer, MetricsWriter)
    return {name: writer.values.get(f"train/{sb3_name}", math.nan) for name, sb3_name in names.items()}


def refuse_non_finite(model: BaseAlgorithm) -> None:
    """Check the parameters of ``model``.

    Raises:
        NonFiniteError: when one is NaN or infinite; with the parameters.
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
    """Copy the weights and biases of ``sources`` to ``targets``, layer by layer."""
    for source, target in zip(sources, targets, strict=True):
        target.weight.copy_(source.weight)
        target.bias.copy_(source.bias)


def learner_state(model: BaseAlgorithm, optimisers: Sequence[Optimizer]) -> State:
    """State of networks, optimisers, counters and the random generators of SB3.

    SB3 draws from the global generators of PyTorch and NumPy, and from that of the action space. SB3's
    statistics of episodes are not included, because nothing reads them.
    """
    return {
        "policy": module_state(model.policy),
        "optimisers": {str(number): optimiser_state(each) for number, each in enumerate(optimisers)},
        "known": {name: getattr(model, name) for name in LEARNER_ATTRIBUTES},
        "torch": torch.get_rng_state(),
        "numpy": get_bit_generator().state,
        "action_space": model.action_space.np_random.bit_generator.state,
    }


def restore_learner(model: BaseAlgorithm, optimisers: Sequence[Optimizer], state: State) -> None:
    """Restore what ``learner_state`` returned."""
    restore_module(model.policy, state["policy"])
    for number, optimiser in enumerate(optimisers):
        restore_optimiser(optimiser, state["optimisers"][str(number)])
    for name in LEARNER_ATTRIBUTES:
        setattr(model, name, state["known"][name])
    torch.set_rng_state(torch.as_tensor(state["torch"]))
    get_bit_generator().state = state["numpy"]
    model.action_space.np_random.bit_generator.state = state["action_space"]


def moments_state(moments: RunningMeanStd) -> State:
    """Running mean, variance and count."""
    return {"mean": np.asarray(moments.mean), "var": np.asarray(moments.var), "count": moments.count}


def restore_moments(moments: RunningMeanStd, state: State) -> None:
    """Restore what ``moments_state`` returned."""
    moments.mean, moments.var, moments.count = state["mean"], state["var"], state["count"]
