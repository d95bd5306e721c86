"""SAIL on single actions: off-policy training with a learned reward, a critic and pairs of actions.

SAIL's design DPR (Ding et al. 2024, arXiv 2406.15567: responses from the policy, labels from a reward model)
with one action as the response and Q(s, a) as the reward model. A teacher compares windows of past behaviour,
an ensemble learns a reward from the answers, a critic learns Q for this reward, and the policy learns from
preferences between actions that it samples. Every state in the replay buffer is a prompt, so comparisons
need no simulation.

With ``algo.reward=teacher`` the critic learns from the teacher's reward of each step instead. This is not
preference-based learning: it is the upper bound that a perfect reward model would reach.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import torch
from torch import Tensor

from sailctl.algorithms.actor import Actor
from sailctl.algorithms.critic import Critic
from sailctl.algorithms.protocol import Algorithm, Clock
from sailctl.algorithms.start import check_in_ball, first_policy
from sailctl.config import ActionsRun
from sailctl.core.seeding import named_generators
from sailctl.core.state import State
from sailctl.core.types import BoolArray, FloatArray, Metrics, Transitions
from sailctl.data.replay import Experience, Replay
from sailctl.policies.policy import GaussianPolicy
from sailctl.preferences.sessions import Schedule, Sessions
from sailctl.simulator.states import Simulator, States

REPLAY_CAPACITY = 1_000_000
"""Maximum number of env steps in the replay buffer."""
GROUP = 16
"""Updates whose targets are computed in one batch; the target networks hardly change in between."""
DIAGNOSTICS_INTERVAL = 10
"""Actor updates per update that computes diagnostics."""
METRICS = (
    "h_abs",
    "F",
    "accuracy",
    "label_entropy",
    "robust_cost",
    "t1_weight",
    "t2_weight",
    "kl_ref_pi",
    "kl_pi_ref",
    "loss",
    "grad_norm",
    "q",
    "critic_loss",
)
"""Columns that are means over the updates of an iteration with diagnostics; NaN without such an update."""
MIN_REWARD_STD = 1e-6
"""Rewards with a smaller standard deviation are not scaled up."""


class ActionSAIL(Algorithm):
    """SAIL, SAIL-RevKL, robust SAIL and online DPO on single actions.

    Raises:
        UserError: when the reference policy cannot be read, or does not fit the task.
    """

    def __init__(self, config: ActionsRun, simulator: Simulator) -> None:
        algo, spec = config.algo, simulator.spec
        self._algo, self._discount = algo, config.env.discount
        self._simulator = simulator
        self._rng = named_generators(config.seed)
        policy = first_policy(config, spec, self._rng)
        check_in_ball(policy, algo.radius, algo.reference)
        self._actor = Actor(policy, algo, self._rng.actions)
        features = policy.features(torch.zeros(1, spec.obs_dim)).shape[1]
        self._critic = Critic(features + spec.act_dim, algo.hidden, algo.critic_lr, algo.tau, self._rng.value)
        rows = math.ceil(min(config.env_steps + algo.interval, REPLAY_CAPACITY) / algo.envs)
        self._replay = Replay(rows, algo.envs, spec)
        self._sessions: Sessions | None = None
        if algo.reward == "model":
            self._sessions = Sessions(
                config.oracle,
                config.reward,
                Schedule(algo.learning_starts, algo.initial_queries, algo.query_interval, algo.queries),
                selection=algo.selection,
                window=algo.window,
                history=self._replay,
                spec=spec,
                generators=self._rng,
                bounded=config.reward.bounded,
                cut=config.reward.cut,
                recent=algo.recent,
            )
        self._states = simulator.reset(algo.envs, self._rng.sim)
        self._env_steps = 0
        self._pending_updates = 0.0
        """Fraction of an update that was not done yet."""
        self._scale = 1.0
        """Factor by which rewards are multiplied for the critic."""
        self._noise = self._rng.policy.standard_normal((algo.envs, spec.act_dim), dtype=np.float32)
        """(N, A) noise of the latest actions, with mean 0 and variance 1."""

    @property
    def env_steps(self) -> int:
        """Control steps of all environments."""
        return self._env_steps

    @property
    def labels(self) -> int:
        """Number of the teacher's answers so far; 0 when its reward is used instead."""
        return 0 if self._sessions is None else self._sessions.labels

    def iterate(self, clock: Clock, left: float) -> Metrics:
        """``algo.interval`` env steps, with the queries and updates that become due."""
        totals: defaultdict[str, list[Tensor]] = defaultdict(list)
        true_rewards = []
        self._actor.left = left
        for _ in range(math.ceil(self._algo.interval / self._algo.envs)):
            with clock.measure("collect_s"):
                true_rewards.append(self._act())
            if self._env_steps < self._algo.learning_starts:
                continue
            with clock.measure("label_s"):
                self._query_teacher()
            if self._sessions is None or self._sessions.learned:
                with clock.measure("update_s"):
                    self._update(totals)
        self._critic.refuse_non_finite()
        self._actor.refuse_non_finite()
        metrics = {
            name: float(torch.stack(totals[name]).mean()) if name in totals else math.nan for name in METRICS
        }
        if self._sessions is not None:
            metrics |= self._sessions.metrics()
        policy = self._actor.policy
        return metrics | {
            "entropy": policy.entropy(),
            "std": float(policy.log_std.detach().exp().mean()),
            "param_norm": policy.norm(),
            "reward_per_step": float(np.mean(true_rewards)),
        }

    def policy(self) -> GaussianPolicy:
        """The policy with averaged parameters."""
        return self._actor.average

    def state(self) -> State:
        """State of actor, critic, replay buffer, sessions, environments and random generators."""
        return {
            "env_steps": self._env_steps,
            "owed": self._pending_updates,
            "scale": self._scale,
            "noise": self._noise,
            "actor": self._actor.state(),
            "critic": self._critic.state(),
            "replay": self._replay.state(),
            "sessions": None if self._sessions is None else self._sessions.state(),
            "states": self._states.save(),
            "generators": self._rng.state(),
        }

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned."""
        self._env_steps, self._pending_updates = state["env_steps"], state["owed"]
        self._scale, self._noise = state["scale"], state["noise"]
        self._actor.restore(state["actor"])
        self._critic.restore(state["critic"])
        self._replay.restore(state["replay"])
        if self._sessions is not None:
            self._sessions.restore(state["sessions"])
        self._states = States.restore(state["states"])
        self._rng.restore(state["generators"])

    # Acting

    def _act(self) -> float:
        """Take one control step in all environments; return the mean true reward, which is only logged."""
        algo, policy, states = self._algo, self._actor.policy, self._states
        white_noise = self._rng.policy.standard_normal(self._noise.shape, dtype=np.float32)
        self._noise = correlated(self._noise, white_noise, self._exploration() * algo.early_correlation)
        noise = self._noise * self._noise_scale()
        # Some environments follow the mean action, which is the one that is evaluated. Otherwise training
        # would miss the states that it leads to, such as those where a robot stands still without noise.
        noiseless = round(algo.noiseless * algo.envs)
        noise[:noiseless] = 0.0
        actions = policy.act(states.obs, noise).clip(-1.0, 1.0)
        if not np.isfinite(actions).all():
            self._actor.refuse_non_finite()
        if algo.reference == "initial" and self._env_steps < algo.learning_starts:
            actions[noiseless:] = self._rng.policy.uniform(-1.0, 1.0, actions[noiseless:].shape)
        step = self._simulator.step(states, policy.to_controls(actions))
        obs, next_obs = states.obs.astype(np.float32), step.states.obs.astype(np.float32)
        ended = step.done | self._time_limits()
        transitions = Transitions(obs, actions, next_obs, step.terminated, ended)
        if self._sessions is None:
            self._replay.add(transitions, step.reward)
            rewards = step.reward.astype(np.float32)
        else:
            self._sessions.remember(transitions, step.reward)
            rewards = self._sessions.rewards(obs, actions)
        self._replay.reward_latest(rewards * np.float32(self._scale))
        if algo.observe is None or self._env_steps < algo.observe:
            self._actor.observe(obs)
        self._env_steps += algo.envs
        rows = np.flatnonzero(ended)
        initial_states = self._simulator.reset(len(rows), self._rng.sim)
        self._states = step.states.put(rows, initial_states) if len(rows) else step.states
        return float(step.reward.mean())

    def _noise_scale(self) -> FloatArray:
        """(A,) standard deviation of executed actions, divided by the policy's.

        It has a bound that does not fall with the policy's: a policy with little noise acts nearly as its
        mean, which is evaluated, but the critic and the reward model still see other actions.
        """
        least_std = self._explored(self._algo.least_std)
        std = self._actor.policy.log_std.detach().exp().numpy()
        return np.asarray(np.maximum(np.float32(1.0), np.float32(least_std) / std))

    def _explored(self, least_std: float) -> float:
        """A bound on a standard deviation, between ``algo.early_std`` and its value after ``algo.settle``."""
        return least_std + self._exploration() * (self._algo.early_std - least_std)

    def _exploration(self) -> float:
        """Weight of the extra exploration: falls linearly from 1 to 0 at ``algo.settle`` env steps."""
        return max(0.0, 1.0 - self._env_steps / self._algo.settle) if self._algo.settle else 0.0

    def _time_limits(self) -> BoolArray:
        """(N,) environments whose episode ends now, by a shorter time limit than the task's.

        The first time limits differ between environments. Otherwise all episodes of full length would end
        together, and the policy could forget the start of an episode before it sees the next one. For the
        same reason every second environment may have short episodes throughout (``algo.short_episodes``).
        """
        envs, horizon = self._algo.envs, self._simulator.spec.horizon
        control_steps, rows = self._env_steps // envs + 1, np.arange(envs)
        ended: BoolArray = (rows + 1) * horizon // envs == control_steps
        if self._algo.short_episodes < 1.0:
            window = self._algo.window if self._sessions is not None else 1  # a question needs a whole one
            limit = max(window, round(self._algo.short_episodes * horizon))
            ended |= (rows % 2 == 0) & ((control_steps + rows * limit // envs) % limit == 0)
        return ended

    # Rewards

    def _query_teacher(self) -> None:
        """Hold a session if one is due, and relabel the replay buffer with the new reward."""
        if self._sessions is not None:
            if self._sessions.due(self._env_steps):
                self._sessions.hold(self._env_steps)
                self._set_rewards(self._sessions.rewards_of_all())
        elif self._critic.updates == 0 or self._env_steps % self._algo.query_interval < self._algo.envs:
            self._set_rewards(self._replay.true_rewards().astype(np.float32))

    def _set_rewards(self, rewards: FloatArray) -> None:
        """Set the rewards (M,) of all stored steps, scaled such that values are of order 1."""
        std = float(rewards.std())
        self._scale = (1.0 - self._discount) / (std if std > MIN_REWARD_STD else 1.0)
        self._replay.reward_all(rewards * np.float32(self._scale))

    # Learning

    def _update(self, totals: defaultdict[str, list[Tensor]]) -> None:
        """``algo.updates`` updates per env step, after ``algo.warmup`` updates of the critic alone."""
        algo = self._algo
        least_std = algo.final_std + self._actor.left * (algo.least_std - algo.final_std)
        self._actor.least_std = self._explored(least_std)
        while self._critic.updates < algo.warmup:
            self.learn(min(GROUP, algo.warmup - self._critic.updates), totals, critic_only=True)
        self._pending_updates += algo.envs * algo.updates
        updates = int(self._pending_updates)
        self._pending_updates -= updates
        while updates > 0:
            self.learn(min(GROUP, updates), totals)
            updates -= GROUP

    def learn(self, count: int, totals: defaultdict[str, list[Tensor]], critic_only: bool = False) -> None:
        """``count`` updates of the critic, with an actor update after every ``algo.delay``-th of them.

        The targets of all ``count`` minibatches are computed in one batch. Metrics are appended to
        ``totals``.
        """
        algo = self._algo
        steps = self._replay.sample(count * algo.batch, algo.steps, self._discount, self._rng.minibatch)
        features, actions, targets = self._targets(steps)
        for first in range(0, len(targets), algo.batch):
            rows = slice(first, first + algo.batch)
            error = self._critic.update(features[rows], actions[rows], targets[rows])
            totals["critic_loss"].append(error)
            if not critic_only and self._critic.updates % algo.delay == 0:
                with_metrics = self._actor.updates % DIAGNOSTICS_INTERVAL == 0
                for name, value in self._actor.update(features[rows], self._critic, with_metrics).items():
                    totals[name].append(value)

    @torch.no_grad()
    def _targets(self, steps: Experience) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, F), actions (B, A) and targets (B,) of sampled steps."""
        policy = self._actor.policy
        features, next_features = (
            policy.features(torch.from_numpy(obs)) for obs in (steps.obs, steps.next_obs)
        )
        next_values = self._critic.target(next_features, self._actor.sample(next_features))
        targets = torch.from_numpy(steps.returns) + torch.from_numpy(steps.weight) * next_values
        return features, torch.from_numpy(steps.actions), targets


def correlated(previous: FloatArray, white_noise: FloatArray, correlation: float) -> FloatArray:
    """First-order autoregressive noise: variance 1, and this correlation between successive steps.

    The effects of white noise average out before a robot moves far, which limits exploration (Eberhard et al.
    2023, ICLR, on pink noise). The distribution of a single action does not change.

    Args:
        previous: (N, A) noise of the previous step.
        white_noise: (N, A) independent standard normal numbers.
        correlation: in [0, 1); 0 returns ``white_noise``, bit for bit.
    """
    return np.float32(correlation) * previous + np.float32(math.sqrt(1.0 - correlation**2)) * white_noise
