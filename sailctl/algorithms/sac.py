"""SAC of Stable-Baselines3 (Haarnoja et al. 2018, arXiv 1812.05905), and what PEBBLE and others put on it.

On the true reward it is SAC. On a learned one it is PEBBLE (Lee et al. 2021, arXiv 2106.05091) as B-Pref's
code runs it: states are explored before there is a reward, the reward of all that is remembered is computed
anew after each session with the teacher, and the critics start afresh after the first. With ``algo.gamma``
the actor pays gamma KL(reference || actor), as in the public control code of [RevKL].
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor
from torch.optim import Optimizer

from sailctl.algorithms.protocol import Clock
from sailctl.algorithms.sb3 import (
    NEVER,
    Baseline,
    LearnedReward,
    copy_layers,
    keep_numbers,
    learner_state,
    linear_layers,
    moments_state,
    recorded,
    refuse_non_finite,
    restore_learner,
    restore_moments,
    sessions_of,
)
from sailctl.config import PolicyConfig, SACRun
from sailctl.core.seeding import named_generators, seed_of_32_bits
from sailctl.core.state import State, module_state, restore_module
from sailctl.core.types import EnvSpec, Metrics
from sailctl.objectives import kl_penalty
from sailctl.policies.policy import GaussianPolicy
from sailctl.preferences.sessions import Sessions
from sailctl.simulator.states import Simulator
from sailctl.simulator.vecenv import SimulatorVecEnv

METRICS = {
    "actor_loss": "actor_loss",
    "critic_loss": "critic_loss",
    "temperature": "ent_coef",
    "lr": "learning_rate",
}
"""Columns of metrics.csv, and what Stable-Baselines3 calls them (below ``train/``)."""

NEIGHBOURS = 5
"""The novelty of a state is the distance to so many-th nearest one (B-Pref: ``topK``)."""
FRESH_UPDATES = 100
"""Gradient steps at once, after the critics have started afresh (B-Pref: ``reset_update``)."""
REMEMBERED = 1_000_000
"""Env steps in the replay buffer at most."""
REMEMBERS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
"""What Stable-Baselines3 calls the arrays of the replay buffer."""
RELABELLED = 32_768
"""Rewards that are computed at once, which bounds the memory that it takes."""
LEAST_STD = 1e-3
"""Least standard deviation of a saved policy, whose logarithm has to be finite."""


class SACBaseline(Baseline):
    """SAC, or PEBBLE, with or without a KL penalty: an ``Algorithm``."""

    def __init__(self, config: SACRun, simulator: Simulator) -> None:
        algo, self._spec = config.algo, simulator.spec
        self._config = config
        self._generators, self._sessions = named_generators(config.seed), None
        plain = SimulatorVecEnv(simulator, algo.envs, config.seed)
        self._env: SimulatorVecEnv | LearnedReward = plain
        if algo.reward == "model":
            first_at = algo.learning_starts + algo.pretrain
            self._sessions = sessions_of(config, self._spec, self._generators, first_at)
            self._env = LearnedReward(plain, self._sessions)
        self._model: SAC = make_model(config, self._env)
        replay_of(self._model).seeks_novelty = algo.pretrain > 0
        self._penalty = KLPenalty(self._model, algo.gamma) if algo.gamma > 0 else None

    def iterate(self, clock: Clock, left: float) -> Metrics:
        """Env steps and the updates that go with them, then a session with the teacher where one is due."""
        algo, before = self._config.algo, self.env_steps
        steps = min(algo.interval, self._config.env_steps - before)
        with clock.measure("update_s"):  # collecting is not told apart: one call does both
            self._model.learn(steps, log_interval=NEVER, reset_num_timesteps=False)
        metrics, asked = recorded(self._model, METRICS), {}
        if self._sessions is not None:
            if self._sessions.due(self.env_steps):
                with clock.measure("label_s"):
                    hold_session(self._sessions, self.env_steps, self._model, algo.relabel)
            asked = self._sessions.metrics()
        if self._penalty is not None:
            metrics["kl_ref_pi"] = self._penalty.last
            if (
                algo.reference_interval
                and self.env_steps // algo.reference_interval > before // algo.reference_interval
            ):
                self._penalty.refresh()
        refuse_non_finite(self._model)
        return metrics | asked

    def policy(self) -> GaussianPolicy:
        """The actor as a policy of the suite, in memory of its own."""
        return to_policy(self._model, self._config.policy.initial_std, self._spec)

    def state(self) -> State:
        """Environments, what is asked and learned beside them, penalty, learner and replay buffer."""
        return {
            "generators": self._generators.state(),
            "env": self._env.state(),
            "penalty": None if self._penalty is None else self._penalty.state(),
            "learner": learner_state(self._model, optimisers(self._model)),
            "log_temperature": log_temperature(self._model).detach(),
            "replay": replay_of(self._model).state(),
        }

    def restore(self, state: State) -> None:
        """Load what ``state`` returned."""
        self._generators.restore(state["generators"])
        self._env.restore(state["env"])
        if self._penalty is not None:
            self._penalty.restore(state["penalty"])
        restore_learner(self._model, optimisers(self._model), state["learner"])
        log_temperature(self._model).data.copy_(torch.as_tensor(state["log_temperature"]))
        replay_of(self._model).restore(state["replay"])


def make_model(config: SACRun, env: VecEnv) -> SAC:
    """The learner, its networks drawn from the run's seed."""
    algo = config.algo
    model = SAC(
        "MlpPolicy",
        env,
        learning_rate=algo.lr,
        buffer_size=min(config.env_steps + algo.envs, REMEMBERED),
        learning_starts=algo.learning_starts,
        batch_size=algo.batch,
        tau=algo.tau,
        gamma=config.env.discount,
        train_freq=1,
        gradient_steps=round(algo.envs * algo.updates),
        replay_buffer_class=Replay,
        ent_coef=f"auto_{algo.entropy}",
        target_update_interval=algo.target_every,
        policy_kwargs={"net_arch": algo.hidden, "optimizer_kwargs": {"fused": True}},
        seed=seed_of_32_bits(config.seed),
        device="cpu",
    )
    keep_numbers(model)
    return model


class Replay(ReplayBuffer):
    """A replay buffer whose rewards may be computed anew, or be the novelty of states instead."""

    seeks_novelty = False
    """Whether samples are rewarded by the novelty of their states (PEBBLE's unsupervised pre-training)."""
    sampled: Tensor
    """(B, O) observations of the latest sample."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._scale = RunningMeanStd()

    def relabel(self, sessions: Sessions) -> None:
        """Put the reward that is known now in place of every reward in memory."""
        size = self.size() * self.n_envs
        obs = self.observations.reshape(-1, self.observations.shape[-1])
        actions = self.actions.reshape(len(obs), -1)
        rewards = self.rewards.reshape(-1)
        for start in range(0, size, RELABELLED):
            rows = slice(start, min(start + RELABELLED, size))
            rewards[rows] = sessions.rewards(obs[rows], actions[rows])

    def latest(self, count: int) -> NDArray[np.float32]:
        """(about ``count``, O) the observations that came last, or zeros (1, O) before the first."""
        rows = min(math.ceil(count / self.n_envs), self.size())
        last: NDArray[np.float32] = self.observations[(self.pos - 1 - np.arange(rows)) % self.buffer_size]
        return last.reshape(-1, last.shape[-1]) if rows else np.zeros((1, last.shape[-1]), np.float32)

    def state(self) -> State:
        """All that is remembered, without the room that is still empty, and the scale of novelty."""
        filled = {name: getattr(self, name)[: self.size()] for name in REMEMBERS}
        return {
            "pos": self.pos,
            "full": self.full,
            "seeks_novelty": self.seeks_novelty,
            "scale": moments_state(self._scale),
            **filled,
        }

    def restore(self, state: State) -> None:
        """Load what ``state`` returned."""
        self.pos, self.full, self.seeks_novelty = state["pos"], state["full"], state["seeks_novelty"]
        restore_moments(self._scale, state["scale"])
        for name in REMEMBERS:
            getattr(self, name)[: self.size()] = state[name]

    def _get_samples(self, batch_inds: NDArray[Any], env: VecNormalize | None = None) -> ReplayBufferSamples:
        samples = super()._get_samples(batch_inds, env)
        self.sampled = samples.observations
        if not self.seeks_novelty:
            return samples
        known = torch.from_numpy(self.observations[: self.size()]).flatten(0, 1)
        found = novelty(self.sampled, known, NEIGHBOURS)
        self._scale.update(found.double().numpy())
        return samples._replace(rewards=(found / math.sqrt(self._scale.var))[:, None])


def replay_of(model: SAC) -> Replay:
    """The replay buffer of ``model``."""
    assert isinstance(model.replay_buffer, Replay)
    return model.replay_buffer


def optimisers(model: SAC) -> list[Optimizer]:
    """Those of actor, critics and temperature."""
    assert model.ent_coef_optimizer is not None  # the temperature is learned
    return [model.actor.optimizer, model.critic.optimizer, model.ent_coef_optimizer]


def log_temperature(model: SAC) -> Tensor:
    """(1,) the logarithm of the weight of the entropy, which is no part of the networks."""
    assert model.log_ent_coef is not None
    return model.log_ent_coef


def novelty(obs: Tensor, known: Tensor, neighbours: int) -> Tensor:
    """(B,) distance from each of (B, O) observations to its ``neighbours``-th nearest of (N, O) known ones.

    The observations are among the known ones, so that the nearest is itself and not counted. The mean of its
    logarithm is, but for a constant, the particle estimate of the entropy of the states (PEBBLE, unsupervised
    exploration); B-Pref's code rewards the distance itself. With fewer known ones, the farthest counts.
    """
    rank = min(neighbours + 1, len(known))
    return torch.cdist(obs, known).kthvalue(rank, dim=1).values


def hold_session(sessions: Sessions, env_steps: int, model: SAC, relabel: bool) -> None:
    """Ask, and let memory follow the new reward; the first reward ends the search for novelty."""
    replay, first = replay_of(model), not sessions.learned
    sessions.hold(env_steps)
    if sessions.learned and (relabel or first):
        replay.relabel(sessions)
    if sessions.learned and replay.seeks_novelty:
        replay.seeks_novelty = False
        reset_critics(model)
        model.train(gradient_steps=FRESH_UPDATES, batch_size=model.batch_size)


def reset_critics(model: SAC) -> None:
    """New parameters for the critics: what they know of novelty says nothing about the reward."""
    for layer in linear_layers(model.critic):
        layer.reset_parameters()
    model.critic_target.load_state_dict(model.critic.state_dict())
    model.critic.optimizer.state.clear()


class KLPenalty:
    """Adds gamma times the mean KL(reference || actor) to what the actor minimises.

    The KL is that of the Gaussians before squashing, in closed form, over the states of the minibatch. The
    reference is the actor at the start, until ``refresh`` puts the present one in its place. The gradient is
    added to that of SAC's own loss before each step of the actor's optimiser.
    """

    def __init__(self, model: SAC, gamma: float) -> None:
        self._model, self._gamma = model, gamma
        self._reference = copy.deepcopy(model.actor).requires_grad_(False)
        self.last = math.nan
        """KL in the latest minibatch, in nats per state."""
        model.actor.optimizer.register_step_pre_hook(lambda *_: self._add_gradient())

    def refresh(self) -> None:
        """Make the actor as it is now the reference."""
        self._reference.load_state_dict(self._model.actor.state_dict())

    def state(self) -> State:
        """The reference, and the latest KL."""
        return {"reference": module_state(self._reference), "last": self.last}

    def restore(self, state: State) -> None:
        """Load what ``state`` returned."""
        restore_module(self._reference, state["reference"])
        self.last = state["last"]

    def _add_gradient(self) -> None:
        obs = replay_of(self._model).sampled
        mean, log_std, _ = self._model.actor.get_action_dist_params(obs)
        ref_mean, ref_log_std, _ = self._reference.get_action_dist_params(obs)
        kl = kl_penalty("kl_ref_pi", mean, log_std, ref_mean, ref_log_std).mean()
        torch.autograd.backward(self._gamma * kl)
        self.last = float(kl.detach())


def to_policy(model: SAC, initial_std: float, spec: EnvSpec) -> GaussianPolicy:
    """The actor as a policy of the suite, in memory of its own.

    Its mean is the deterministic action of SAC. Its deviation, which no state changes, is the mean one of the
    squashed action in the states of the latest episode or so.
    """
    kind = PolicyConfig("squashed", list(model.actor.net_arch), 0, initial_std, True, False)
    policy = GaussianPolicy(kind, spec, np.random.default_rng(0))
    copy_layers(linear_layers(model.actor.latent_pi, model.actor.mu), linear_layers(policy.net))
    with torch.no_grad():
        obs = torch.from_numpy(replay_of(model).latest(spec.horizon))
        mean, log_std, _ = model.actor.get_action_dist_params(obs)
        std = squashed_std(mean, log_std).mean(0)
    policy.log_std.data.copy_(std.clamp(min=LEAST_STD).log())
    return policy


def squashed_std(mean: Tensor, log_std: Tensor) -> Tensor:
    """(N, A) standard deviations of tanh(x), x normal with (N, A) means and log deviations; quadrature."""
    points, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(32))
    weights = weights / weights.sum()
    squashed = torch.tanh(mean[..., None].double() + log_std[..., None].double().exp() * points)
    centre = (squashed * weights).sum(-1, keepdim=True)
    return ((squashed - centre).square() * weights).sum(-1).sqrt().float()
