"""PPO of Stable-Baselines3 (Schulman et al. 2017, arXiv 1707.06347), on the true reward or a learned one.

Its actor is the suite's own Gaussian policy: a tanh network whose standard deviation no state changes,
observations normalised by running statistics. ``to_policy`` and ``start_from`` carry it over exactly, so that
a baseline is evaluated, saved and used as a reference like any other run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sailctl.baselines.asking import Asker, LearnedReward
from sailctl.baselines.sb3 import (
    NEVER,
    copy_layers,
    keep_if_due,
    keep_numbers,
    learner_state,
    linear_layers,
    moments_state,
    recorded,
    refuse_non_finite,
    restore_learner,
    restore_moments,
)
from sailctl.checkpoint import load_policy, save_policy
from sailctl.config import PolicyConfig, PPORun, reference_place
from sailctl.evaluate import evaluate
from sailctl.logger import Logger
from sailctl.loop import Clock, Keep, evaluation_due, stoppable
from sailctl.policy import OBS_CLIP, VARIANCE_FLOOR, GaussianPolicy
from sailctl.recorder import open_run
from sailctl.simulator import open_simulator
from sailctl.state import State
from sailctl.types import EnvSpec, UserError
from sailctl.vecenv import SimulatorVecEnv

METRICS = {
    "policy_loss": "policy_gradient_loss",
    "value_loss": "value_loss",
    "approx_kl": "approx_kl",
    "clip_fraction": "clip_fraction",
    "explained_variance": "explained_variance",
    "std": "std",
    "lr": "learning_rate",
}
"""Columns of metrics.csv, and what Stable-Baselines3 calls them (below ``train/``)."""


def train_ppo(config: PPORun, overrides: list[str], keep: Keep | None = None) -> Path:
    """Train with PPO and return the run directory.

    ``keep`` is given the policy of each evaluation in this process.

    Raises:
        UserError: when another process works on the run, or the reference policy does not fit the task.
        RunError: when the run had to stop; its directory keeps all that came before.
        Interrupted: when it was told to stop, by SIGINT or SIGTERM; its checkpoint is of that iteration.
    """
    algo, share = config.algo, Share()
    simulator = open_simulator(config.env.id, config.threads)
    spec = simulator.spec
    asker = Asker(config, spec, algo.start) if algo.reward == "model" else None
    plain = SimulatorVecEnv(simulator, algo.envs, config.seed)
    rewarded = plain if asker is None else LearnedReward(plain, asker)
    env = VecNormalize(
        rewarded,
        norm_obs=config.policy.normalise,
        norm_reward=algo.normalise_reward,
        clip_obs=OBS_CLIP,
        gamma=algo.discount,
        epsilon=VARIANCE_FLOOR,
    )
    model = make_model(config, env, share)
    if (reference := reference_place(config)) is not None:
        start_from(load_policy(reference.parent), spec, model, env)

    run = open_run(config, ["sailctl", "train", *overrides])
    with Logger(run, config) as logger, stoppable() as stop:
        clock, env_steps, iteration = Clock(), 0, 0

        def evaluated(place: dict[str, int]) -> float:
            with clock.measure("evaluate_s"):
                policy = to_policy(model, env, config.policy, spec)
                result = evaluate(policy, simulator, config.evaluation.episodes, config.evaluation.seed)
            logger.evaluation(**place, returns=result.returns, lengths=result.lengths, success=result.success)
            if keep is not None:
                keep(place["env_steps"], result.mean, policy)
            return result.mean

        def known() -> State:
            return {
                "iteration": iteration,
                "score": score,
                "clock": clock.state(),
                "env": rewarded.state(),
                "normalisation": normalisation_state(env),
                "learner": learner_state(model, [model.policy.optimizer]),
            }

        if run.checkpoint is not None:
            iteration, score = run.checkpoint["iteration"], run.checkpoint["score"]
            clock.restore(run.checkpoint["clock"])
            rewarded.restore(run.checkpoint["env"])
            restore_normalisation(env, run.checkpoint["normalisation"])
            restore_learner(model, [model.policy.optimizer], run.checkpoint["learner"])
            env_steps = model.num_timesteps
        else:
            score = evaluated({"iteration": 0, "env_steps": 0, "labels": 0})
            if asker is not None:
                with clock.measure("collect_s"):
                    env_steps = model.num_timesteps = act_only(model, env, asker)
        while env_steps < config.env_steps:
            if asker is not None and asker.due(env_steps):
                with clock.measure("label_s"):
                    asker.ask(env_steps)
            share.left = 1.0 - env_steps / config.env_steps
            with clock.measure("update_s"):  # collecting is not told apart: one call does both
                model.learn(algo.envs * algo.steps, log_interval=NEVER, reset_num_timesteps=False)
            iteration += 1
            before, env_steps = env_steps, model.num_timesteps
            place = {
                "iteration": iteration,
                "env_steps": env_steps,
                "labels": 0 if asker is None else asker.labels,
            }
            metrics = recorded(model, METRICS)
            refuse_non_finite(model, iteration)
            if env_steps >= config.env_steps or evaluation_due(config, before, env_steps, iteration):
                score = evaluated(place)
            asked = {} if asker is None else asker.metrics()
            logger.log(place | metrics | asked | clock.read())
            if env_steps < config.env_steps:
                keep_if_due(run, stop, config.logger.checkpoint, known)
        save_policy(to_policy(model, env, config.policy, spec), run.path / "policy")
        logger.finish({**place, **clock.read(), "last_return": score})
    env.close()
    return run.path


@dataclass
class Share:
    """How much of a run is left, from 1 to 0: what a falling learning rate follows."""

    left: float = 1.0


def make_model(config: PPORun, env: VecNormalize, share: Share) -> PPO:
    """The learner, its networks drawn from the run's seed."""
    algo = config.algo
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=algo.steps,
        batch_size=algo.batch,
        n_epochs=algo.epochs,
        learning_rate=lambda _: algo.lr * (share.left if algo.anneal else 1.0),
        gamma=algo.discount,
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
        seed=config.seed,
        device="cpu",
    )
    keep_numbers(model)
    return model


def act_only(model: PPO, env: VecNormalize, asker: Asker) -> int:
    """Let the policy act, without an update, until there is something to ask about; the env steps it took.

    The reward of these steps is 0. They enter no statistics: a reward that is always 0 has no scale.
    """
    obs, env_steps = env.venv.reset(), 0
    while not asker.due(env_steps):
        actions, _ = model.predict(env.normalize_obs(np.asarray(obs)))
        obs, *_ = env.venv.step(actions)
        env_steps += env.num_envs
    return env_steps


def to_policy(model: PPO, env: VecNormalize, config: PolicyConfig, spec: EnvSpec) -> GaussianPolicy:
    """The actor of ``model`` with the observation statistics of ``env``, in memory of its own."""
    policy = GaussianPolicy(config, spec, np.random.default_rng(0))
    copy_layers(actor_layers(model), linear_layers(policy.net))
    policy.log_std.data.copy_(model.policy.log_std.data)
    if config.normalise:
        seen = statistics(env)
        policy.obs_mean.copy_(torch.from_numpy(seen.mean))
        policy.obs_var.copy_(torch.from_numpy(seen.var))
        policy.obs_count.fill_(seen.count)
    return policy


def start_from(policy: GaussianPolicy, spec: EnvSpec, model: PPO, env: VecNormalize) -> None:
    """Give ``model`` the actor, and ``env`` the observation statistics, of a policy.

    Raises:
        UserError: when it is a policy of another task or of another shape.
    """
    layers = linear_layers(policy.net)
    shapes = [layer.weight.shape for layer in actor_layers(model)]
    fits = policy.spec.id == spec.id and policy.config.kind == "mlp"
    if not fits or [layer.weight.shape for layer in layers] != shapes:
        raise UserError(
            f"algo.reference is a policy of {policy.spec.id} (policy.kind={policy.config.kind}) with hidden "
            f"layers {policy.config.hidden}; "
            f"PPO needs a tanh network (policy.kind=mlp) of {spec.id} whose widths are those of policy.hidden"
        )
    copy_layers(layers, actor_layers(model))
    model.policy.log_std.data.copy_(policy.log_std.data)
    if policy.config.normalise and env.norm_obs:
        seen = statistics(env)
        seen.mean, seen.var = policy.obs_mean.numpy().copy(), policy.obs_var.numpy().copy()
        seen.count = max(float(policy.obs_count), seen.count)


def statistics(env: VecNormalize) -> RunningMeanStd:
    """The running statistics of the observations."""
    assert isinstance(env.obs_rms, RunningMeanStd)  # a dictionary where observations are one
    return env.obs_rms


def normalisation_state(env: VecNormalize) -> State:
    """The running statistics, and the discounted returns that those of the rewards are taken of."""
    obs = moments_state(statistics(env)) if env.norm_obs else None
    return {"obs": obs, "rewards": moments_state(env.ret_rms), "returns": env.returns}


def restore_normalisation(env: VecNormalize, state: State) -> None:
    """Take back what ``normalisation_state`` handed out."""
    if env.norm_obs:
        restore_moments(statistics(env), state["obs"])
    restore_moments(env.ret_rms, state["rewards"])
    env.returns = state["returns"]


def actor_layers(model: PPO) -> list[nn.Linear]:
    """The linear layers of a PPO actor, in order."""
    return linear_layers(model.policy.mlp_extractor.policy_net, model.policy.action_net)
