"""Rollouts of forked segments: samples prompts, and runs the policy K times from each.

A prompt is a simulator state: either the current state of a chain, which is a persistent on-policy episode,
or the start of an episode. From each of P prompts, the policy runs K segments (forks) of H control steps, and
if L > H continues to L steps that only the teacher judges. A segment ends with its episode, and its mask with
it.

Chains need no extra simulation: a chain continues from the state of its prompt's first fork after H steps, or
with a new episode if that of the fork ended. The time limits of the chains' first episodes are shortened to
random phases, so that a batch contains all phases of an episode; the returns of such episodes are scaled to
full length, unless they terminated. With ``restart`` each chain starts a new episode with this probability in
every iteration, so that stuck chains, such as robots on their backs, do not dominate the batch.
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
    """The behaviour of one iteration."""

    window: SegmentBatch
    """All L steps that the teacher judges, as the reward model sees them."""
    segments: SegmentBatch
    """The first H steps, as the learner sees them."""
    judged: JudgedRewards
    """The true rewards of the windows, for the teacher."""
    ends: Ends
    """The last states of the windows."""
    pairs: Pairs
    """The pairs of segments to compare."""
    env_steps: int
    """Simulated control steps, including continuations."""
    episode_returns: DoubleArray
    """True returns of the episodes that ended in this iteration, for the thresholds of the teacher."""


class Collector:
    """Collects the segments of each iteration, and keeps the chains between iterations.

    Args:
        simulator: of the task.
        config: numbers of prompts and forks, and the choice of prompts and pairs.
        steps: H, in control steps.
        judged: L, in control steps.
        generators: of the run; their owner keeps their state.
    """

    def __init__(
        self, simulator: Simulator, config: RolloutConfig, steps: int, judged: int, generators: Generators
    ) -> None:
        self._simulator = simulator
        self._config = config
        self._steps, self._judged = steps, judged
        self._rng = generators
        chains = config.prompts - round(config.start_fraction * config.prompts)
        self.chains = self._initial_chains(chains)
        self._episode_return, self._episode_steps = np.zeros(chains), np.zeros(chains)

    def collect(self, policy: GaussianPolicy) -> Collected:
        """Run the policy from every prompt, and advance the chains."""
        forks, spec = self._config.forks, self._simulator.spec
        prompts = self._prompts()
        count = len(prompts) * forks
        obs = np.zeros((count, self._judged, spec.obs_dim), dtype=np.float32)
        actions = np.zeros((count, self._judged, spec.act_dim), dtype=np.float32)
        taken = np.zeros((count, self._judged), dtype=np.float32)
        rewards = np.zeros((count, self._judged))
        last_obs = np.zeros((count, spec.obs_dim), dtype=np.float32)
        ended, terminated = np.ones(count, dtype=bool), np.zeros(count, dtype=bool)

        states, rows, env_steps = prompts.fork(forks), np.arange(count), 0
        states_after_segments = states
        for t in range(self._judged):
            # Noise for all rows, so that the end of one fork does not change the noise of another.
            noise = self._rng.policy.standard_normal((count, spec.act_dim), dtype=np.float32)
            action = policy.act(states.obs, noise[rows])
            step = self._simulator.step(states, policy.to_controls(action))
            obs[rows, t] = states.obs
            actions[rows, t] = action
            taken[rows, t] = 1.0
            rewards[rows, t] = step.reward
            env_steps += len(rows)
            terminated[rows] |= step.terminated
            last_obs[rows] = step.states.obs
            states = step.states
            if step.done.any():
                states, rows = states.take(~step.done), rows[~step.done]
            if t == self._steps - 1:
                ended[rows] = False
                states_after_segments = states_after_segments.put(rows, states)
            if len(rows) == 0:
                break

        judged = JudgedRewards(rewards, taken)
        chain_ended = ended[forks * np.arange(len(self.chains))] | self._restarts()
        episode_returns = self._end_episodes(judged, chain_ended, terminated & ended)
        self._advance_chains(states_after_segments, chain_ended)
        window = SegmentBatch(obs, actions, taken, forks)
        return Collected(
            window=window,
            segments=window.head(self._steps),
            judged=judged,
            ends=Ends(last_obs, terminated),
            pairs=self._pairs(),
            env_steps=env_steps,
            episode_returns=episode_returns,
        )

    def state(self) -> State:
        """The chains' simulator states, and the returns and lengths of their episodes so far."""
        return {
            "chains": self.chains.save(),
            "episode_return": self._episode_return,
            "episode_steps": self._episode_steps,
        }

    def restore(self, state: State) -> None:
        """Restore what ``state`` returned."""
        self.chains = States.restore(state["chains"])
        self._episode_return, self._episode_steps = state["episode_return"], state["episode_steps"]

    def _initial_chains(self, chains: int) -> States:
        """Episode starts whose elapsed time is random, so that the time limits end them at random phases."""
        states = self._simulator.reset(chains, self._rng.sim)
        phases = -(-self._simulator.spec.horizon // self._steps)
        elapsed = self._steps * self._rng.prompts.integers(0, phases, chains)
        return replace(states, elapsed=elapsed.astype(np.int64))

    def _prompts(self) -> States:
        """The chains' states, followed by episode starts that complete the batch."""
        starts = self._config.prompts - len(self.chains)
        return States.join([self.chains, self._simulator.reset(starts, self._rng.sim)])

    def _end_episodes(
        self, judged: JudgedRewards, chain_ended: BoolArray, terminated: BoolArray
    ) -> DoubleArray:
        """Returns of the chains' ended episodes, and of whole episodes that were judged from their start."""
        chains, horizon = len(self.chains), self._simulator.spec.horizon
        first_forks = self._config.forks * np.arange(self._config.prompts)
        of_chains, of_starts = first_forks[:chains], first_forks[chains:]
        self._episode_return += judged.rewards[of_chains, : self._steps].sum(axis=1)
        self._episode_steps += judged.mask[of_chains, : self._steps].sum(axis=1)
        # A chain's first episode has a shorter time limit, and a restart truncates an episode. The return of
        # such an episode is scaled to full length, unless it terminated.
        scale = np.where(terminated[of_chains], 1.0, horizon / self._episode_steps.clip(min=1.0))
        returns = (self._episode_return * scale)[chain_ended]
        self._episode_return[chain_ended], self._episode_steps[chain_ended] = 0.0, 0.0
        if self._judged == horizon:
            returns = np.concatenate([returns, judged.returns[of_starts]])
        return returns

    def _restarts(self) -> BoolArray:
        """Whether each chain starts a new episode at random."""
        if self._config.restart == 0:
            return np.zeros(len(self.chains), dtype=bool)
        return self._rng.prompts.random(len(self.chains)) < self._config.restart

    def _advance_chains(self, states: States, chain_ended: BoolArray) -> None:
        """Continue each chain from its prompt's first fork, or with a new episode."""
        chains = states.take(self._config.forks * np.arange(len(self.chains)))
        rows = np.flatnonzero(chain_ended)
        self.chains = chains.put(rows, self._simulator.reset(len(rows), self._rng.sim))

    def _pairs(self) -> Pairs:
        prompts, forks = self._config.prompts, self._config.forks
        if self._config.pairing == "unrelated":
            return unrelated_pairs(prompts, self._rng.prompts)
        return forked_pairs(prompts, forks)


def forked_pairs(prompts: int, forks: int) -> Pairs:
    """All K (K - 1) / 2 pairs of forks of each prompt; the pairs of a prompt form a group."""
    first, second = np.triu_indices(forks, 1)
    base = forks * np.arange(prompts)
    group = np.repeat(np.arange(prompts), len(first))
    return Pairs((base[:, None] + first).ravel(), (base[:, None] + second).ravel(), group)


def unrelated_pairs(prompts: int, rng: np.random.Generator) -> Pairs:
    """One pair per prompt of two forks: fork 0 of the prompt against fork 1 of another prompt.

    B-Pref compares segments from different states. The partition function of the reference does not cancel in
    the score of such a pair, so forked pairs are the default here.
    """
    prompt: IntArray = np.arange(prompts)
    partner = (prompt + rng.integers(1, prompts)) % prompts
    return Pairs(2 * prompt, 2 * partner + 1, prompt)
