"""SAIL on single actions: act -> remember -> ask -> learn a reward, a value, and the policy.

SAIL's design DPR (Ding et al. 2024, arXiv 2406.15567: responses from the policy, labels from a reward model)
with one action as the response and a learned value as the reward model. A teacher answers questions about
windows of what the policy did, an ensemble learns a reward from them, a critic learns what follows an action
under that reward, and the policy learns from preferences between the actions that it would take. Every
remembered state is a prompt, and comparisons cost no simulation.

With ``algo.reward=teacher`` the critic is given the teacher's own reward of each step instead. That is no
learning from preferences, but the bound that a perfect reward model would reach.
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

REMEMBERED = 1_000_000
"""Env steps in the replay buffer at most."""
GROUP = 16
"""Updates for which targets are computed at once: the copies behind them hardly move meanwhile."""
MEASURED = 10
"""Actor updates of which one is measured."""
NUMBERS = (
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
"""Means over the updates of an iteration that were measured; NaN where there was none."""
LEAST_SPREAD = 1e-6
"""Where rewards vary less than this, they are not scaled up."""


class ActionSAIL(Algorithm):
    """SAIL, SAIL-RevKL, robust SAIL and online DPO on single actions: an ``Algorithm``.

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
        rows = math.ceil(min(config.env_steps + algo.interval, REMEMBERED) / algo.envs)
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
        self._env_steps, self._owed, self._scale = 0, 0.0, 1.0
        self._noise = self._rng.policy.standard_normal((algo.envs, spec.act_dim), dtype=np.float32)
        """Of the latest actions, of mean 0 and variance 1."""

    @property
    def env_steps(self) -> int:
        """Control steps of all environments."""
        return self._env_steps

    @property
    def labels(self) -> int:
        """The teacher's answers so far; none where its reward is used instead."""
        return 0 if self._sessions is None else self._sessions.labels

    def iterate(self, clock: Clock, left: float) -> Metrics:
        """``algo.interval`` env steps, with the questions and the updates that are due between them."""
        totals: defaultdict[str, list[Tensor]] = defaultdict(list)
        earned = []
        self._actor.left = left
        for _ in range(math.ceil(self._algo.interval / self._algo.envs)):
            with clock.measure("collect_s"):
                earned.append(self._act())
            if self._env_steps < self._algo.learning_starts:
                continue
            with clock.measure("label_s"):
                self._ask()
            if self._sessions is None or self._sessions.learned:
                with clock.measure("update_s"):
                    self._keep_up(totals)
        self._critic.refuse_non_finite()
        self._actor.refuse_non_finite()
        metrics = {
            name: float(torch.stack(totals[name]).mean()) if name in totals else math.nan for name in NUMBERS
        }
        asked = {} if self._sessions is None else self._sessions.metrics()
        policy = self._actor.policy
        return (
            metrics
            | asked
            | {
                "entropy": policy.entropy(),
                "std": float(policy.log_std.detach().exp().mean()),
                "param_norm": policy.norm(),
                "reward_per_step": float(np.mean(earned)),
            }
        )

    def policy(self) -> GaussianPolicy:
        """The running mean of the policy that acts."""
        return self._actor.average

    def state(self) -> State:
        """Actor, critic, buffer, what labels came from, the environments, and where all draws come from."""
        return {
            "env_steps": self._env_steps,
            "owed": self._owed,
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
        """Load what ``state`` returned."""
        self._env_steps, self._owed, self._scale = state["env_steps"], state["owed"], state["scale"]
        self._noise = state["noise"]
        self._actor.restore(state["actor"])
        self._critic.restore(state["critic"])
        self._replay.restore(state["replay"])
        if self._sessions is not None:
            self._sessions.restore(state["sessions"])
        self._states = States.restore(state["states"])
        self._rng.restore(state["generators"])

    # Acting

    def _act(self) -> float:
        """One control step of all environments; the mean of their true rewards, for the record."""
        algo, policy, states = self._algo, self._actor.policy, self._states
        drawn = self._rng.policy.standard_normal(self._noise.shape, dtype=np.float32)
        self._noise = correlated(self._noise, drawn, self._early() * algo.early_correlation)
        noise = self._noise.copy()
        # What the mean action leads to is else not seen before it is evaluated: states where noise is what
        # keeps a robot going, and the first steps of an episode.
        calm = round(algo.noiseless * algo.envs)
        noise[:calm] = 0.0
        actions = policy.act(states.obs, noise).clip(-1.0, 1.0)
        if not np.isfinite(actions).all():
            self._actor.refuse_non_finite()
        if algo.reference == "initial" and self._env_steps < algo.learning_starts:
            actions[calm:] = self._rng.policy.uniform(-1.0, 1.0, actions[calm:].shape)
        step = self._simulator.step(states, policy.to_controls(actions))
        obs, reached = states.obs.astype(np.float32), step.states.obs.astype(np.float32)
        over = step.done | self._sent_home()
        done = Transitions(obs, actions, reached, step.terminated, over)
        if self._sessions is None:
            self._replay.add(done, step.reward)
            rewards = step.reward.astype(np.float32)
        else:
            self._sessions.remember(done, step.reward)
            rewards = self._sessions.rewards(obs, actions)
        self._replay.reward_latest(rewards * np.float32(self._scale))
        if algo.observe is None or self._env_steps < algo.observe:
            self._actor.observe(obs)
        self._env_steps += algo.envs
        ended = np.flatnonzero(over)
        fresh = self._simulator.reset(len(ended), self._rng.sim)
        self._states = step.states.put(ended, fresh) if len(ended) else step.states
        return float(step.reward.mean())

    def _early(self) -> float:
        """1 at the start of the run, 0 from ``algo.settle`` env steps on: what exploration follows."""
        return max(0.0, 1.0 - self._env_steps / self._algo.settle) if self._algo.settle else 0.0

    def _sent_home(self) -> BoolArray:
        """(N,) environments whose first episode is cut here, as if by a time limit: one after the other.

        Episodes that began together would end together, and for most of a time limit no start of an episode
        would be seen: long enough for a policy to forget it.
        """
        envs, horizon = self._algo.envs, self._simulator.spec.horizon
        control_steps = self._env_steps // envs + 1
        cut: BoolArray = np.arange(1, envs + 1) * horizon // envs == control_steps
        return cut

    # Rewards

    def _ask(self) -> None:
        """Hold a session where one is due, and reward all that is remembered by what is known now."""
        if self._sessions is not None:
            if self._sessions.due(self._env_steps):
                self._sessions.hold(self._env_steps)
                self._reward(self._sessions.rewards_of_all())
        elif self._critic.updates == 0 or self._env_steps % self._algo.query_interval < self._algo.envs:
            self._reward(self._replay.true_rewards().astype(np.float32))

    def _reward(self, rewards: FloatArray) -> None:
        """Give every remembered step its reward (M,), on the scale on which values are of the order of 1."""
        spread = float(rewards.std())
        self._scale = (1.0 - self._discount) / (spread if spread > LEAST_SPREAD else 1.0)
        self._replay.reward_all(rewards * np.float32(self._scale))

    # Learning

    def _keep_up(self, totals: defaultdict[str, list[Tensor]]) -> None:
        """The updates that are owed for the env steps so far; before the first of the actor, its warm-up."""
        algo = self._algo
        self._actor.least_std = algo.least_std + self._early() * (algo.early_std - algo.least_std)
        while self._critic.updates < algo.warmup:
            self.learn(min(GROUP, algo.warmup - self._critic.updates), totals, warm=True)
        self._owed += algo.envs * algo.updates
        whole = int(self._owed)
        self._owed -= whole
        while whole > 0:
            self.learn(min(GROUP, whole), totals)
            whole -= GROUP

    def learn(self, count: int, totals: defaultdict[str, list[Tensor]], warm: bool = False) -> None:
        """So many updates of the critic, on targets that are computed for all of them at once, and each
        ``algo.delay``-th time one of the actor."""
        algo = self._algo
        drawn = self._replay.sample(count * algo.batch, algo.steps, self._discount, self._rng.minibatch)
        features, actions, wanted = self._prepare(drawn)
        for first in range(0, len(wanted), algo.batch):
            rows = slice(first, first + algo.batch)
            error = self._critic.update(features[rows], actions[rows], wanted[rows])
            totals["critic_loss"].append(error)
            if not warm and self._critic.updates % algo.delay == 0:
                measured = self._actor.updates % MEASURED == 0
                for name, value in self._actor.update(features[rows], self._critic, measured).items():
                    totals[name].append(value)

    @torch.no_grad()
    def _prepare(self, drawn: Experience) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, F), actions (B, A) and targets (B,) of what was drawn."""
        policy = self._actor.policy
        features, reached = (policy.features(torch.from_numpy(obs)) for obs in (drawn.obs, drawn.next_obs))
        followed = self._critic.target(reached, self._actor.draw(reached))
        wanted = torch.from_numpy(drawn.returns) + torch.from_numpy(drawn.weight) * followed
        return features, torch.from_numpy(drawn.actions), wanted


def correlated(before: FloatArray, drawn: FloatArray, correlation: float) -> FloatArray:
    """Noise of variance 1 of which neighbouring steps have this correlation: an autoregression of order one.

    Noise that is drawn anew in each step averages out before a robot has moved, and what is not tried is not
    learned (Eberhard et al. 2023, ICLR, on pink noise). A single action is as probable as without.

    Args:
        before: (N, A) noise of the step before.
        drawn: (N, A) standard normal numbers.
        correlation: from 0 to below 1; 0 is ``drawn``, bit for bit.
    """
    return np.float32(correlation) * before + np.float32(math.sqrt(1.0 - correlation**2)) * drawn
