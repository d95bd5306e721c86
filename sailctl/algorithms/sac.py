"""SAC of Stable-Baselines3 (Haarnoja et al. 2018, arXiv 1812.05905), PEBBLE, and SAC with a KL penalty.

On the true reward it is SAC. On a learned reward it is PEBBLE (Lee et al. 2021, arXiv 2106.05091) as in
B-Pref's code: unsupervised exploration before the first session, relabelling of the replay buffer after each
session, and a reset of the critics after the first one. With ``algo.gamma`` the actor minimises also
gamma KL(reference || actor), as in the public control code of [RevKL].
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

from sailctl.algorithms.natural import NaturalGradient
from sailctl.algorithms.protocol import Clock
from sailctl.algorithms.sb3 import (
    NEVER,
    Baseline,
    copy_layers,
    latest_metrics,
    learner_state,
    linear_layers,
    make_env,
    moments_state,
    record_metrics,
    refuse_non_finite,
    restore_learner,
    restore_moments,
)
from sailctl.config import PolicyConfig, SACRun
from sailctl.core.seeding import named_generators, seed_of_32_bits
from sailctl.core.state import State, module_state, restore_module
from sailctl.core.types import EnvSpec, Metrics
from sailctl.objectives import kl_penalty
from sailctl.policies.policy import GaussianPolicy
from sailctl.preferences.sessions import Sessions
from sailctl.simulator.states import Simulator

METRICS = {
    "actor_loss": "actor_loss",
    "critic_loss": "critic_loss",
    "temperature": "ent_coef",
    "lr": "learning_rate",
}
"""Columns of metrics.csv, with their names in Stable-Baselines3 (below ``train/``)."""

NEIGHBOURS = 5
"""k of the novelty of a state, its distance to the k-th nearest neighbour (B-Pref: ``topK``)."""
RESET_UPDATES = 100
"""Gradient steps after the reset of the critics (B-Pref: ``reset_update``)."""
REPLAY_CAPACITY = 1_000_000
"""Maximum number of env steps in the replay buffer."""
REPLAY_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
"""Attributes of Stable-Baselines3's replay buffer that contain the transitions."""
RELABEL_BATCH = 32_768
"""Number of rewards computed at once when relabelling, which limits the memory."""
MIN_STD = 1e-3
"""Lower bound of the standard deviation of a saved policy, so that its logarithm is finite."""


class SACBaseline(Baseline):
    """SAC or PEBBLE, with or without a KL penalty."""

    def __init__(self, config: SACRun, simulator: Simulator) -> None:
        algo, self._spec = config.algo, simulator.spec
        self._config, self._generators = config, named_generators(config.seed)
        first_session = algo.learning_starts + algo.pretrain
        self._env, self._sessions = make_env(config, simulator, self._generators, first_session)
        self._model: SAC = make_model(config, self._env)
        replay = replay_of(self._model)
        replay.rewards_novelty = algo.pretrain > 0
        if algo.natural_kl is not None:
            actor = self._model.actor
            actor.optimizer = NaturalGradient(actor, lambda: replay.sampled_obs, algo.natural_kl)
        self._penalty = KLPenalty(self._model, algo.gamma) if algo.gamma > 0 else None

    def iterate(self, clock: Clock, left: float) -> Metrics:
        """Env steps with their updates, then a session with the teacher if one is due."""
        algo, env_steps_before = self._config.algo, self.env_steps
        steps = min(algo.interval, self._config.env_steps - env_steps_before)
        with clock.measure("update_s"):  # includes collection: one call does both
            self._model.learn(steps, log_interval=NEVER, reset_num_timesteps=False)
        metrics = latest_metrics(self._model, METRICS)
        if self._sessions is not None and self._sessions.due(self.env_steps):
            with clock.measure("label_s"):
                hold_session(self._sessions, self.env_steps, self._model, algo.relabel)
        if self._penalty is not None:
            metrics["kl_ref_pi"] = self._penalty.kl
            interval = algo.reference_interval
            if interval and self.env_steps // interval > env_steps_before // interval:
                self._penalty.replace_reference()
        refuse_non_finite(self._model)
        return metrics if self._sessions is None else metrics | self._sessions.metrics()

    def policy(self) -> GaussianPolicy:
        """A copy of the actor as a ``GaussianPolicy``."""
        return to_policy(self._model, self._config.policy.initial_std, self._spec)

    def state(self) -> State:
        """State of generators, environments, sessions, penalty, learner and replay buffer."""
        return {
            "generators": self._generators.state(),
            "env": self._env.state(),
            "penalty": None if self._penalty is None else self._penalty.state(),
            "learner": learner_state(self._model, optimisers(self._model)),
            "log_temperature": log_temperature(self._model).detach(),
            "replay": replay_of(self._model).state(),
        }

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned."""
        self._generators.restore(state["generators"])
        self._env.restore(state["env"])
        if self._penalty is not None:
            self._penalty.restore(state["penalty"])
        restore_learner(self._model, optimisers(self._model), state["learner"])
        log_temperature(self._model).data.copy_(torch.as_tensor(state["log_temperature"]))
        replay_of(self._model).restore(state["replay"])


def make_model(config: SACRun, env: VecEnv) -> SAC:
    """The learner, with networks initialised from the run's seed."""
    algo = config.algo
    model = SAC(
        "MlpPolicy",
        env,
        learning_rate=algo.lr,
        buffer_size=min(config.env_steps + algo.envs, REPLAY_CAPACITY),
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
    record_metrics(model)
    return model


class Replay(ReplayBuffer):
    """A replay buffer that can be relabelled, or can give the novelty of states as reward."""

    rewards_novelty = False
    """Whether the reward of a sample is the novelty of its state (PEBBLE's unsupervised pre-training)."""
    sampled_obs: Tensor
    """(B, O) observations of the latest sample."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._novelty_moments = RunningMeanStd()

    def relabel(self, sessions: Sessions) -> None:
        """Replace all stored rewards by those of the current reward model."""
        size = self.size() * self.n_envs
        obs = self.observations.reshape(-1, self.observations.shape[-1])
        actions = self.actions.reshape(len(obs), -1)
        rewards = self.rewards.reshape(-1)
        for start in range(0, size, RELABEL_BATCH):
            rows = slice(start, min(start + RELABEL_BATCH, size))
            rewards[rows] = sessions.rewards(obs[rows], actions[rows])

    def latest(self, count: int) -> NDArray[np.float32]:
        """(about ``count``, O) the latest observations; zeros (1, O) before the first."""
        rows = min(math.ceil(count / self.n_envs), self.size())
        obs: NDArray[np.float32] = self.observations[(self.pos - 1 - np.arange(rows)) % self.buffer_size]
        return obs.reshape(-1, obs.shape[-1]) if rows else np.zeros((1, obs.shape[-1]), np.float32)

    def state(self) -> State:
        """The stored transitions, without unused rows, and the moments of the novelty."""
        filled = {name: getattr(self, name)[: self.size()] for name in REPLAY_ARRAYS}
        return {
            "pos": self.pos,
            "full": self.full,
            "seeks_novelty": self.rewards_novelty,
            "scale": moments_state(self._novelty_moments),
            **filled,
        }

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned."""
        self.pos, self.full, self.rewards_novelty = state["pos"], state["full"], state["seeks_novelty"]
        restore_moments(self._novelty_moments, state["scale"])
        for name in REPLAY_ARRAYS:
            getattr(self, name)[: self.size()] = state[name]

    def _get_samples(self, batch_inds: NDArray[Any], env: VecNormalize | None = None) -> ReplayBufferSamples:
        samples = super()._get_samples(batch_inds, env)
        self.sampled_obs = samples.observations
        if not self.rewards_novelty:
            return samples
        stored = torch.from_numpy(self.observations[: self.size()]).flatten(0, 1)
        distances = novelty(self.sampled_obs, stored, NEIGHBOURS)
        self._novelty_moments.update(distances.double().numpy())
        return samples._replace(rewards=(distances / math.sqrt(self._novelty_moments.var))[:, None])


def replay_of(model: SAC) -> Replay:
    """The replay buffer of ``model``."""
    assert isinstance(model.replay_buffer, Replay)
    return model.replay_buffer


def optimisers(model: SAC) -> list[Optimizer]:
    """The optimisers of actor, critics and temperature."""
    assert model.ent_coef_optimizer is not None  # the temperature is learned
    return [model.actor.optimizer, model.critic.optimizer, model.ent_coef_optimizer]


def log_temperature(model: SAC) -> Tensor:
    """(1,) the logarithm of the entropy weight, which is not a parameter of the networks."""
    assert model.log_ent_coef is not None
    return model.log_ent_coef


def novelty(obs: Tensor, stored: Tensor, neighbours: int) -> Tensor:
    """(B,) distance of each observation (B, O) to the k-th nearest stored one (N, O), k = ``neighbours``.

    The observations are among the stored ones, so the nearest one is the observation itself and is not
    counted. Up to a constant, the mean logarithm of the distance is the particle estimate of the entropy of
    the states (PEBBLE, unsupervised exploration). The reward in B-Pref's code is the distance. With fewer
    stored observations it is the largest distance.
    """
    rank = min(neighbours + 1, len(stored))
    return torch.cdist(obs, stored).kthvalue(rank, dim=1).values


def hold_session(sessions: Sessions, env_steps: int, model: SAC, relabel: bool) -> None:
    """Hold a session and relabel the replay buffer; the first reward ends the unsupervised pre-training."""
    replay, first = replay_of(model), not sessions.learned
    sessions.hold(env_steps)
    if sessions.learned and (relabel or first):
        replay.relabel(sessions)
    if sessions.learned and replay.rewards_novelty:
        replay.rewards_novelty = False
        reset_critics(model)
        model.train(gradient_steps=RESET_UPDATES, batch_size=model.batch_size)


def reset_critics(model: SAC) -> None:
    """Reinitialise the critics, whose values of novelty are useless for the learned reward."""
    for layer in linear_layers(model.critic):
        layer.reset_parameters()
    model.critic_target.load_state_dict(model.critic.state_dict())
    model.critic.optimizer.state.clear()


class KLPenalty:
    """Adds gamma times the mean KL(reference || actor) to the actor's loss.

    The KL is between the Gaussians before squashing, in closed form, averaged over the states of the
    minibatch. The reference is the initial actor until ``replace_reference``. A hook adds the gradient to
    that of SAC's loss before each step of the actor's optimiser.
    """

    def __init__(self, model: SAC, gamma: float) -> None:
        self._model, self._gamma = model, gamma
        self._reference = copy.deepcopy(model.actor).requires_grad_(False)
        self.kl = math.nan
        """KL of the latest minibatch, in nats per state."""
        model.actor.optimizer.register_step_pre_hook(lambda *_: self._add_gradient())

    def replace_reference(self) -> None:
        """Make the current actor the reference."""
        self._reference.load_state_dict(self._model.actor.state_dict())

    def state(self) -> State:
        """State of the reference, and the latest KL."""
        return {"reference": module_state(self._reference), "last": self.kl}

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned."""
        restore_module(self._reference, state["reference"])
        self.kl = state["last"]

    def _add_gradient(self) -> None:
        obs = replay_of(self._model).sampled_obs
        mean, log_std, _ = self._model.actor.get_action_dist_params(obs)
        ref_mean, ref_log_std, _ = self._reference.get_action_dist_params(obs)
        kl = kl_penalty("kl_ref_pi", mean, log_std, ref_mean, ref_log_std).mean()
        torch.autograd.backward(self._gamma * kl)
        self.kl = float(kl.detach())


def to_policy(model: SAC, initial_std: float, spec: EnvSpec) -> GaussianPolicy:
    """A copy of the actor as a ``GaussianPolicy``.

    Its mean is the deterministic action of SAC. Its state-independent standard deviation is the mean one of
    the squashed action, over about as many of the latest states as an episode has.
    """
    config = PolicyConfig("squashed", list(model.actor.net_arch), 0, initial_std, True, False)
    policy = GaussianPolicy(config, spec, np.random.default_rng(0))
    copy_layers(linear_layers(model.actor.latent_pi, model.actor.mu), linear_layers(policy.net))
    with torch.no_grad():
        obs = torch.from_numpy(replay_of(model).latest(spec.horizon))
        mean, log_std, _ = model.actor.get_action_dist_params(obs)
        std = squashed_std(mean, log_std).mean(0)
    policy.log_std.data.copy_(std.clamp(min=MIN_STD).log())
    return policy


def squashed_std(mean: Tensor, log_std: Tensor) -> Tensor:
    """(N, A) standard deviations of tanh(x), x normal with (N, A) means and log deviations, by quadrature."""
    points, weights = (torch.from_numpy(array) for array in np.polynomial.hermite_e.hermegauss(32))
    weights = weights / weights.sum()
    squashed = torch.tanh(mean[..., None].double() + log_std[..., None].double().exp() * points)
    squashed_mean = (squashed * weights).sum(-1, keepdim=True)
    return ((squashed - squashed_mean).square() * weights).sum(-1).sqrt().float()
