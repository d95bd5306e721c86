"""Who can tell which of two forks turns out better? The judges of ``algo.labels``, put to the same forks.

A reference policy stands still and acts; a reward model and its value learn from it as in
``experiment=value``, without moving it. Then forks of H steps are drawn from fresh prompts, and each is
followed by the policy's mean action until the discount of ``reward.value_horizon`` is ``FORGOTTEN``:
the discounted true return of all that is the truth. For each judge the table has the share of pairs of forks
that it puts in the order of the truth, and the share weighted by how far apart the two truths lie. A half is
guessing.

- ``value``: learned reward within the segment, learned value of its end;
- ``learned reward``: within the segment alone;
- ``true reward, learned value``: what the first would say if its reward were perfect;
- ``true reward``: within the segment alone, a teacher with L = H;
- ``teacher``: the true return of the L steps that the task's settings have it judge, noise of the policy
  included: what the default settings learn from, for L / H times the env steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks import record
from sailctl.algorithms.start import first_policy
from sailctl.config import Config, segment_lengths
from sailctl.core.seeding import named_generators
from sailctl.core.types import BoolArray, DoubleArray, Ends, FloatArray, JudgedRewards, Pairs, SegmentBatch
from sailctl.data.rollout import Collector
from sailctl.policies.policy import GaussianPolicy
from sailctl.policies.references import read_references
from sailctl.preferences.labeller import Labeller
from sailctl.preferences.value import SegmentValue
from sailctl.simulator.registry import open_simulator
from sailctl.simulator.states import Simulator, States
from sailctl.sweeps.compose import compose_jobs

ITERATIONS = 40
"""Of learning, before the judges are asked."""
PROMPTS, FORKS = 32, 8
"""Of the questions."""
FORGOTTEN = 0.01
"""Discount after which nothing counts any more."""


def main() -> None:
    parser = record.arguments(__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(read_references()))
    parser.add_argument("--levels", nargs="+", default=["weak", "medium", "expert"])
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    rows = [
        row
        for task in asked.tasks
        for level in asked.levels
        for seed in range(asked.seeds)
        for row in measure(task, level, seed)
    ]
    about = {"iterations": ITERATIONS, "prompts": PROMPTS, "forks": FORKS, "forgotten": FORGOTTEN}
    record.write(asked.results, "judges", rows, about)


def measure(task: str, level: str, seed: int) -> list[dict[str, object]]:
    """One row for each judge, about one policy."""
    words = [
        "experiment=value",
        "algo=sail_revkl_segments",
        f"env={task}",
        f"algo.reference={level}",
        f"seed={seed}",
    ]
    config = compose_jobs(words).jobs[0].config
    assert isinstance(config, Config)
    simulator, generators = open_simulator(task, 1), named_generators(seed)
    policy = first_policy(config, simulator.spec, generators)
    steps, judged = segment_lengths(config)
    collector = Collector(simulator, config.rollout, steps, judged, generators)
    labeller = Labeller(config, simulator.spec, generators, None)
    informed = SegmentValue(config.reward, simulator.spec, np.random.default_rng(seed))
    for _ in range(ITERATIONS):
        collected = collector.collect(policy)
        labeller.label(collected, no_score)
        informed.judge(collected.segments, collected.ends, in_units(collected.judged))

    start = collector.chains.take(np.arange(PROMPTS) % len(collector.chains)).fork(FORKS)
    fork = roll(simulator, policy, start, steps, generators.policy)
    discount = math.exp(-simulator.spec.dt / config.reward.value_horizon)
    whole = math.ceil(math.log(FORGOTTEN) / math.log(discount))
    after = roll(simulator, policy, fork.reached, whole, None, fork.alive).rewards
    on = roll(
        simulator, policy, fork.reached, config.env.label_horizon - steps, generators.policy, fork.alive
    ).rewards
    simulator.close()

    truth = np.hstack([fork.rewards, after]) @ discount ** np.arange(steps + whole)
    model, value = labeller.model, labeller.value
    assert model is not None
    assert value is not None
    learned = model.judge(fork.segments)
    true = JudgedRewards(fork.rewards, fork.segments.mask)
    said = {
        "value": value.judge(fork.segments, fork.ends, learned),
        "learned reward": learned.returns,
        "true reward, learned value": informed.judge(fork.segments, fork.ends, in_units(true)),
        "true reward": true.returns,
        "teacher": true.returns + on.sum(axis=1),
    }
    return [
        {"task": task, "policy": level, "seed": seed, "judge": judge, "labels": labeller.labels}
        | agreement(worth, truth)
        for judge, worth in said.items()
    ]


@dataclass(frozen=True)
class Rolled:
    """What N states came to."""

    segments: SegmentBatch
    rewards: DoubleArray
    """(N, T) true rewards; 0 after the end of an episode."""
    ends: Ends
    reached: States
    alive: BoolArray
    """(N,) whether the episode goes on."""


def roll(
    simulator: Simulator,
    policy: GaussianPolicy,
    states: States,
    steps: int,
    rng: np.random.Generator | None,
    alive: BoolArray | None = None,
) -> Rolled:
    """T control steps of the policy from N states, those that are not ``alive`` left as they are.

    With ``rng`` the policy's noise is drawn, else it takes its mean action.
    """
    spec, count = simulator.spec, len(states)
    alive = np.full(count, True) if alive is None else alive.copy()
    obs = np.zeros((count, steps, spec.obs_dim), np.float32)
    actions, mask = np.zeros((count, steps, spec.act_dim), np.float32), np.zeros((count, steps), np.float32)
    rewards, fell = np.zeros((count, steps)), np.zeros(count, bool)
    for t in range(steps):
        rows = np.flatnonzero(alive)
        if len(rows) == 0:
            break
        now = states.take(rows)
        noise = None if rng is None else rng.standard_normal((len(rows), spec.act_dim), dtype=np.float32)
        action = policy.act(now.obs, noise)
        step = simulator.step(now, policy.to_controls(action))
        obs[rows, t], actions[rows, t], mask[rows, t] = now.obs, action, 1.0
        rewards[rows, t], fell[rows], alive[rows] = step.reward, step.terminated, ~step.done
        states = states.put(rows, step.states)
    segments = SegmentBatch(obs, actions, mask, FORKS)
    return Rolled(segments, rewards, Ends(states.obs.astype(np.float32), fell), states, alive)


def in_units(judged: JudgedRewards) -> JudgedRewards:
    """The same rewards with a standard deviation of 1 over the steps taken, which a value learns well."""
    spread = max(float(judged.rewards[judged.mask > 0].std()), 1e-6)
    return JudgedRewards(judged.rewards / spread, judged.mask)


def agreement(worth: DoubleArray, truth: DoubleArray) -> dict[str, float]:
    """Share of the pairs of forks of one prompt that are in the order of the truth, plain and weighted."""
    one, other = np.triu_indices(FORKS, 1)
    said, true = (of.reshape(-1, FORKS)[:, one] - of.reshape(-1, FORKS)[:, other] for of in (worth, truth))
    same, far = np.sign(said) == np.sign(true), np.abs(true)
    return {
        "agrees": round(float(same.mean()), 3),
        "weighted": round(float((same * far).sum() / far.sum()), 3),
    }


def no_score(_: SegmentBatch, pairs: Pairs) -> FloatArray:
    raise AssertionError(f"a truthful teacher needs no score of {len(pairs)} pairs")


if __name__ == "__main__":
    main()
