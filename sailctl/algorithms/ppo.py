"""PPO of Stable-Baselines3 (Schulman et al. 2017, arXiv 1707.06347), on the true reward or a learned one.

Its actor has the form of ``GaussianPolicy``: a tanh network, a state-independent standard deviation, and
observations normalised by running statistics. ``to_policy`` and ``initialise_from`` convert it exactly, so
that a baseline is evaluated, saved and used as a reference like any other run.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

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
from sailctl.config import PolicyConfig, PPORun, reference_place
from sailctl.core.seeding import named_generators, seed_of_32_bits
from sailctl.core.state import State
from sailctl.core.types import EnvSpec, Metrics, UserError
from sailctl.policies.policy import OBS_CLIP, VARIANCE_FLOOR, GaussianPolicy
from sailctl.preferences.sessions import Sessions
from sailctl.runs.checkpoint import load_policy
from sailctl.simulator.states import Simulator

METRICS = {
    "policy_loss": "policy_gradient_loss",
    "value_loss": "value_loss",
    "approx_kl": "approx_kl",
    "clip_fraction": "clip_fraction",
    "explained_variance": "explained_variance",
    "std": "std",
    "lr": "learning_rate",
}
"""Columns of metrics.csv, with their names in Stable-Baselines3 (below ``train/``)."""


class PPOBaseline(Baseline):
    """PPO on the true reward or on a learned one.

    Raises:
        UserError: when the reference policy cannot be read, or does not fit the task.
    """

    def __init__(self, config: PPORun, simulator: Simulator) -> None:
        algo, self._spec = config.algo, simulator.spec
        self._config, self._generators = config, named_generators(config.seed)
        first_session = algo.learning_starts if algo.reward == "model" else 0
        self._raw_env, self._sessions = make_env(config, simulator, self._generators, first_session)
        self._env = VecNormalize(
            self._raw_env,
            norm_obs=config.policy.normalise,
            norm_reward=algo.normalise_reward,
            clip_obs=OBS_CLIP,
            gamma=config.env.discount,
            epsilon=VARIANCE_FLOOR,
        )
        self._model: PPO = make_model(config, self._env)
        if (reference := reference_place(config)) is not None:
            initialise_from(load_policy(reference.parent), self._spec, self._model, self._env)

    def begin(self, clock: Clock) -> None:
        """Act without updates until the first session is due."""
        if self._sessions is not None:
            with clock.measure("collect_s"):
                self._model.num_timesteps = act_only(self._model, self._env, self._sessions)

    def iterate(self, clock: Clock, left: float) -> Metrics:
        """A session with the teacher if one is due, a rollout of all environments, and its updates."""
        algo = self._config.algo
        if self._sessions is not None and self._sessions.due(self.env_steps):
            with clock.measure("label_s"):
                self._sessions.hold(self.env_steps)
        if algo.anneal:
            self._model.lr_schedule = lambda _: algo.lr * left
        with clock.measure("update_s"):  # includes collection: one call does both
            self._model.learn(algo.envs * algo.steps, log_interval=NEVER, reset_num_timesteps=False)
        metrics = latest_metrics(self._model, METRICS)
        refuse_non_finite(self._model)
        return metrics if self._sessions is None else metrics | self._sessions.metrics()

    def policy(self) -> GaussianPolicy:
        """A copy of the actor with its observation statistics."""
        return to_policy(self._model, self._env, self._config.policy, self._spec)

    def state(self) -> State:
        """State of generators, environments, sessions, normalisation and learner."""
        return {
            "generators": self._generators.state(),
            "env": self._raw_env.state(),
            "normalisation": normalisation_state(self._env),
            "learner": learner_state(self._model, [self._model.policy.optimizer]),
        }

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned."""
        self._generators.restore(state["generators"])
        self._raw_env.restore(state["env"])
        restore_normalisation(self._env, state["normalisation"])
        restore_learner(self._model, [self._model.policy.optimizer], state["learner"])


def make_model(config: PPORun, env: VecNormalize) -> PPO:
    """The learner, with networks initialised from the run's seed."""
    algo = config.algo
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=algo.steps,
        batch_size=algo.batch,
        n_epochs=algo.epochs,
        learning_rate=algo.lr,
        gamma=config.env.discount,
        gae_lambda=algo.gae_lambda,
        clip_range=algo.clip,
        ent_coef=algo.entropy,
        vf_coef=algo.value,
        max_grad_norm=algo.max_grad_norm,
        policy_kwargs={
            "net_arch": {"pi": config.policy.hidden, "vf": config.policy.hidden},
            "activation_fn": nn.Tanh,
            "log_std_init": math.log(config.policy.initial_std),
        },
        seed=seed_of_32_bits(config.seed),
        device="cpu",
    )
    record_metrics(model)
    return model


def act_only(model: PPO, env: VecNormalize, sessions: Sessions) -> int:
    """Act without updates until the first session is due; returns the number of env steps.

    The reward of these steps is 0. They do not enter the normalisation statistics, because a constant reward
    has no scale.
    """
    obs, env_steps = env.venv.reset(), 0
    while not sessions.due(env_steps):
        actions, _ = model.predict(env.normalize_obs(np.asarray(obs)))
        obs, *_ = env.venv.step(actions)
        env_steps += env.num_envs
    return env_steps


def to_policy(model: PPO, env: VecNormalize, config: PolicyConfig, spec: EnvSpec) -> GaussianPolicy:
    """A copy of the actor of ``model``, with the observation statistics of ``env``."""
    policy = GaussianPolicy(config, spec, np.random.default_rng(0))
    copy_layers(actor_layers(model), linear_layers(policy.net))
    policy.log_std.data.copy_(model.policy.log_std.data)
    if config.normalise:
        moments = obs_moments(env)
        policy.obs_mean.copy_(torch.from_numpy(moments.mean))
        policy.obs_var.copy_(torch.from_numpy(moments.var))
        policy.obs_count.fill_(moments.count)
    return policy


def initialise_from(policy: GaussianPolicy, spec: EnvSpec, model: PPO, env: VecNormalize) -> None:
    """Copy the networks of ``policy`` to ``model``, and its observation statistics to ``env``.

    Raises:
        UserError: when the policy is for another task or has other layers.
    """
    layers = linear_layers(policy.net)
    shapes = [layer.weight.shape for layer in actor_layers(model)]
    fits = policy.spec.id == spec.id and policy.config.kind == "mlp"
    if not fits or [layer.weight.shape for layer in layers] != shapes:
        raise UserError(
            f"algo.reference is a policy for {policy.spec.id} (policy.kind={policy.config.kind}) with hidden "
            f"layers {policy.config.hidden}; "
            f"PPO needs a tanh network (policy.kind=mlp) for {spec.id} with the widths of policy.hidden"
        )
    copy_layers(layers, actor_layers(model))
    model.policy.log_std.data.copy_(policy.log_std.data)
    if policy.config.normalise and env.norm_obs:
        moments = obs_moments(env)
        moments.mean, moments.var = policy.obs_mean.numpy().copy(), policy.obs_var.numpy().copy()
        moments.count = max(float(policy.obs_count), moments.count)


def obs_moments(env: VecNormalize) -> RunningMeanStd:
    """The running moments of the observations."""
    assert isinstance(env.obs_rms, RunningMeanStd)  # a dictionary if the observations are dictionaries
    return env.obs_rms


def normalisation_state(env: VecNormalize) -> State:
    """Running moments of observations and discounted returns, and the current discounted returns."""
    obs = moments_state(obs_moments(env)) if env.norm_obs else None
    return {"obs": obs, "rewards": moments_state(env.ret_rms), "returns": env.returns}


def restore_normalisation(env: VecNormalize, state: State) -> None:
    """Restore what ``normalisation_state`` returned."""
    if env.norm_obs:
        restore_moments(obs_moments(env), state["obs"])
    restore_moments(env.ret_rms, state["rewards"])
    env.returns = state["returns"]


def actor_layers(model: PPO) -> list[nn.Linear]:
    """The linear layers of the actor, in order."""
    return linear_layers(model.policy.mlp_extractor.policy_net, model.policy.action_net)
