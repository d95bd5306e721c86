"""Prompts and the segments forked from them: the only caller of the simulator during training.

A prompt is a simulator state. ``P`` prompts are either states along persistent on-policy chains or
episode starts; each is forked into ``K`` segments that the policy runs closed-loop for ``H`` control
steps, and then, when ``L > H``, onwards to ``L`` steps that only the teacher judges (with the policy's
noise, or with its mean action: noise after ``H`` says nothing about the actions that are learned from). A
segment never crosses a reset: it ends, and its mask with it, where its episode ends.

Chains cost nothing of their own: the chain of a prompt goes on from where the prompt's first fork stood
after ``H`` steps, and starts a new episode when that fork's episode ended. So that a batch holds every
phase of an episode, the chains' first episodes are cut short at phases spread over the time limit (and their
returns, where the limit ended them, scaled up to a whole one). With ``restart`` every chain begins anew by
chance, so that a few that are stuck, on their backs say, do not become all that is learned from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sailctl.config import RolloutConfig
from sailctl.core.seeding import Generators
from sailctl.core.state import State
from sailctl.core.types import BoolArray, DoubleArray, Ends, IntArray, JudgedRewards, Pairs, SegmentBatch
from sailctl.policies.policy import GaussianPolicy
from sailctl.simulator.states import Simulator, States


@dataclass(frozen=True)
class Collected:
    """One iteration's behaviour."""

    window: SegmentBatch
    """All L steps that the teacher judges: what a reward model sees of them."""
    segments: SegmentBatch
    """The first H of them: what the learner sees."""
    judged: JudgedRewards
    """What the teacher sees."""
    ends: Ends
    """Where the windows ended."""
    pairs: Pairs
    """Which segments are to be compared."""
    env_steps: int
    """Control steps that were simulated for it, continuations included."""
    episode_returns: DoubleArray
    """True returns of the episodes that ended in it: for the teacher, whose thresholds are shares of them."""


class Collector:
    """Keeps the chains of one run and collects one iteration after another.

    ``steps`` is H and ``judged`` is L, both in control steps.
    """

    def __init__(
        self, simulator: Simulator, config: RolloutConfig, steps: int, judged: int, generators: Generators
    ) -> None:
        self._simulator = simulator
        self._config = config
        self._steps, self._judged = steps, judged
        self._rng = generators
        chains = config.prompts - round(config.start_fraction * config.prompts)
        self.chains = self._spread_chains(chains)
        self._episode_return, self._episode_steps = np.zeros(chains), np.zeros(chains)

    def collect(self, policy: GaussianPolicy) -> Collected:
        """Roll the policy out from every prompt, and move the chains on."""
        forks, spec = self._config.forks, self._simulator.spec
        prompts = self._prompts()
        count = len(prompts) * forks
        obs = np.zeros((count, self._judged, spec.obs_dim), dtype=np.float32)
        actions = np.zeros((count, self._judged, spec.act_dim), dtype=np.float32)
        taken = np.zeros((count, self._judged), dtype=np.float32)
        rewards = np.zeros((count, self._judged))
        reached = np.zeros((count, spec.obs_dim), dtype=np.float32)
        ended, terminated = np.ones(count, dtype=bool), np.zeros(count, dtype=bool)

        states, rows, env_steps = prompts.fork(forks), np.arange(count), 0
        handed_on = states
        for t in range(self._judged):
            # For every row, so that one fork's end does not shift another fork's draws.
            noise = self._rng.policy.standard_normal((count, spec.act_dim), dtype=np.float32)
            action = policy.act(states.obs, noise[rows])
            step = self._simulator.step(states, policy.to_controls(action))
            obs[rows, t] = states.obs
            actions[rows, t] = action
            taken[rows, t] = 1.0
            rewards[rows, t] = step.reward
            env_steps += len(rows)
            terminated[rows] |= step.terminated
            reached[rows] = step.states.obs
            done = step.done
            states = step.states
            if done.any():
                states, rows = states.take(~done), rows[~done]
            if t == self._steps - 1:
                ended[rows] = False
                handed_on = handed_on.put(rows, states)
            if len(rows) == 0:
                break

        judged = JudgedRewards(rewards, taken)
        over = ended[forks * np.arange(len(self.chains))] | self._restarts()
        episode_returns = self._end_episodes(judged, over, terminated)
        self._move_chains(handed_on, over)
        window = SegmentBatch(obs, actions, taken, forks)
        return Collected(
            window=window,
            segments=window.head(self._steps),
            judged=judged,
            ends=Ends(reached, terminated),
            pairs=self._pairs(),
            env_steps=env_steps,
            episode_returns=episode_returns,
        )

    def state(self) -> State:
        """The chains' simulator states, and what their episodes have brought so far."""
        return {
            "chains": self.chains.save(),
            "episode_return": self._episode_return,
            "episode_steps": self._episode_steps,
        }

    def restore(self, state: State) -> None:
        """Load what ``state`` returned."""
        self.chains = States.restore(state["chains"])
        self._episode_return, self._episode_steps = state["episode_return"], state["episode_steps"]

    def _spread_chains(self, chains: int) -> States:
        states = self._simulator.reset(chains, self._rng.sim)
        phases = -(-self._simulator.spec.horizon // self._steps)
        elapsed = self._steps * self._rng.prompts.integers(0, phases, chains)
        return replace(states, elapsed=elapsed.astype(np.int64))

    def _prompts(self) -> States:
        """The chains' states, then as many episode starts as complete the batch."""
        starts = self._config.prompts - len(self.chains)
        return States.join([self.chains, self._simulator.reset(starts, self._rng.sim)])

    def _end_episodes(self, judged: JudgedRewards, over: BoolArray, terminated: BoolArray) -> DoubleArray:
        """Returns of the chains' episodes that ended here, and of starts that were judged to their end."""
        chains, horizon = len(self.chains), self._simulator.spec.horizon
        first_forks = self._config.forks * np.arange(self._config.prompts)
        lived, started = first_forks[:chains], first_forks[chains:]
        self._episode_return += judged.rewards[lived, : self._steps].sum(axis=1)
        self._episode_steps += judged.mask[lived, : self._steps].sum(axis=1)
        # A chain's first episode had a shorter limit, and a restart cuts one short: where an episode was
        # not terminated, its return stands for a part.
        whole = np.where(terminated[lived], 1.0, horizon / self._episode_steps.clip(min=1.0))
        returns = (self._episode_return * whole)[over]
        self._episode_return[over], self._episode_steps[over] = 0.0, 0.0
        if self._judged == horizon:
            returns = np.concatenate([returns, judged.returns[started]])
        return returns

    def _restarts(self) -> BoolArray:
        """Chains that begin a new episode now, wherever theirs stands."""
        if self._config.restart == 0:
            return np.zeros(len(self.chains), dtype=bool)
        return self._rng.prompts.random(len(self.chains)) < self._config.restart

    def _move_chains(self, reached: States, over: BoolArray) -> None:
        chains = reached.take(self._config.forks * np.arange(len(self.chains)))
        restart = np.flatnonzero(over)
        self.chains = chains.put(restart, self._simulator.reset(len(restart), self._rng.sim))

    def _pairs(self) -> Pairs:
        prompts, forks = self._config.prompts, self._config.forks
        if self._config.pairing == "unrelated":
            return unrelated_pairs(prompts, self._rng.prompts)
        return forked_pairs(prompts, forks)


def forked_pairs(prompts: int, forks: int) -> Pairs:
    """Every pair of forks of each prompt, K (K - 1) / 2 of them; the pairs of a prompt are one group."""
    first, second = np.triu_indices(forks, 1)
    base = forks * np.arange(prompts)
    group = np.repeat(np.arange(prompts), len(first))
    return Pairs((base[:, None] + first).ravel(), (base[:, None] + second).ravel(), group)


def unrelated_pairs(prompts: int, rng: np.random.Generator) -> Pairs:
    """One pair per prompt of two forks each: fork 0 of a prompt against fork 1 of another one.

    Segments of different states are what B-Pref asks about; the partition function of the reference then
    does not cancel from the pair score, which is why forked prompts are the default here.
    """
    one: IntArray = np.arange(prompts)
    other = (one + rng.integers(1, prompts)) % prompts
    return Pairs(2 * one, 2 * other + 1, one)
