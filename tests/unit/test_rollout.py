"""Collected segments against the simulator itself, stepped again by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sailctl.config import PolicyConfig, RolloutConfig
from sailctl.core.seeding import named_generators
from sailctl.core.types import DoubleArray
from sailctl.data.rollout import Collected, Collector, forked_pairs, unrelated_pairs
from sailctl.policies.policy import GaussianPolicy
from sailctl.simulator.batched import TaskSimulator
from sailctl.simulator.states import States, Step
from sailctl_envs import ALL_TASKS

CHEETAH, PENDULUM, REACHER = "halfcheetah-v5", "invertedpendulum-v5", "reacher-v5"


class Recorder(TaskSimulator):
    """A simulator that remembers every step it was asked for."""

    def __init__(self, task: str) -> None:
        super().__init__(ALL_TASKS[task]())
        self.calls: list[tuple[States, DoubleArray]] = []

    def step(self, states: States, action: DoubleArray) -> Step:
        self.calls.append((States.restore(states.save()), action.copy()))
        return super().step(states, action)


@dataclass
class Setup:
    simulator: Recorder
    collector: Collector
    policy: GaussianPolicy

    def collect(self) -> tuple[Collected, States]:
        """One iteration and the states of its segments at their start."""
        self.simulator.calls.clear()
        collected = self.collector.collect(self.policy)
        return collected, self.simulator.calls[0][0]


def setup(task: str, steps: int, judged: int | None = None, *, std: float = 0.6, seed: int = 0, **changes):
    values = {
        "prompts": 6,
        "forks": 2,
        "segment_length": None,
        "label_horizon": None,
        "start_fraction": 0.0,
        "restart": 0.0,
        "pairing": "forked",
    }
    simulator, rng = Recorder(task), named_generators(seed)
    policy = GaussianPolicy(PolicyConfig("mlp", [16], 0, std, True, False), simulator.spec, rng.init)
    with torch.no_grad():
        policy.net[-1].weight.mul_(50.0)  # so that the mean action depends on the state
    collector = Collector(simulator, RolloutConfig(**(values | changes)), steps, judged or steps, rng)
    return Setup(simulator, collector, policy)


def replay(
    simulator: TaskSimulator, start: States, controls: DoubleArray
) -> tuple[list[float], list[States], bool]:
    """Rewards and states of one row under ``controls`` (T, A), and whether its episode ended there."""
    rewards, states = [], [start]
    for control in controls:
        step = simulator.step(states[-1], control[None])
        rewards.append(float(step.reward[0]))
        states.append(step.states)
        if step.done[0]:
            return rewards, states, True
    return rewards, states, False


def controls_of(at: Setup, collected: Collected) -> DoubleArray:
    """(S, L, A) controls that each segment was stepped with; NaN where it was not."""
    mask = collected.judged.mask
    controls = np.full((*mask.shape, at.simulator.spec.act_dim), np.nan)
    for t, (_, action) in enumerate(at.simulator.calls):
        controls[np.flatnonzero(mask[:, t]), t] = action
    return controls


def fresh_clock(simulator: TaskSimulator) -> float:
    """MuJoCo's time at the start of an episode."""
    return float(simulator.reset(1, np.random.default_rng(0)).physics[0, 0])


@pytest.mark.parametrize("forks", [2, 3])
def test_forks_of_a_prompt_start_in_one_state(forks: int):
    at = setup(CHEETAH, 5, forks=forks, std=1.0)
    for _ in range(3):
        collected, start = at.collect()
        physics = start.physics.reshape(6, forks, -1)
        assert (physics == physics[:, :1]).all()
        assert len(np.unique(physics[:, 0], axis=0)) == 6
        obs = collected.segments.obs.reshape(6, forks, 5, -1)
        assert (obs[:, :, 0] == obs[:, :1, 0]).all()
        assert not (obs[:, 1:, 1] == obs[:, :1, 1]).all(axis=-1).any()


def test_without_noise_the_forks_of_a_prompt_are_one_segment():
    at = setup(CHEETAH, 10, std=1.0)
    with torch.no_grad():
        at.policy.log_std.fill_(-math.inf)
    collected, _ = at.collect()
    for array in (collected.segments.obs, collected.segments.actions, collected.judged.rewards):
        # Not bit for bit: a matrix product may round the rows of one batch differently.
        np.testing.assert_allclose(array[0::2], array[1::2], rtol=1e-4, atol=1e-4)
        assert not np.allclose(array[0:2], array[2:4], rtol=1e-2, atol=1e-2)


def test_a_segment_stops_where_its_episode_ends():
    at = setup(PENDULUM, 30, std=1.0, prompts=8, forks=3)
    lengths = []
    for _ in range(4):
        collected, start = at.collect()
        mask = collected.segments.mask
        assert (np.diff(mask, axis=1) <= 0).all(), "a mask is ones and then zeros"
        for row, length in enumerate(mask.sum(axis=1).astype(int)):
            controls = at.policy.to_controls(collected.segments.actions[row, :length])
            rewards, states, ended = replay(at.simulator, start.take(np.array([row])), controls)
            np.testing.assert_array_equal(rewards, collected.judged.rewards[row, :length])
            seen = np.concatenate([s.obs for s in states[:-1]]).astype(np.float32)
            np.testing.assert_array_equal(seen, collected.segments.obs[row, :length])
            assert ended == (length < 30) or length == 30
            for array in (collected.segments.obs, collected.segments.actions, collected.judged.rewards):
                assert not array[row, length:].any()
            lengths.append(length)
    assert min(lengths) < 30 == max(lengths), "the example must hold segments of both kinds"


def test_a_time_limit_ends_a_segment():
    at = setup(REACHER, 20, 40, prompts=10)
    cut = 0
    for _ in range(4):
        collected, start = at.collect()
        expected = np.minimum(40, 50 - start.elapsed)
        np.testing.assert_array_equal(collected.judged.mask.sum(axis=1), expected)
        np.testing.assert_array_equal(collected.segments.mask.sum(axis=1), np.minimum(20, expected))
        cut += (expected < 20).sum()
    assert cut > 0


def test_the_continuation_is_judged_and_not_learned_from():
    at = setup(PENDULUM, 8, 40, std=1.0, prompts=8)
    collected, start = at.collect()
    assert collected.segments.obs.shape[:2] == collected.segments.mask.shape == (16, 8)
    assert collected.judged.rewards.shape == (16, 40)
    np.testing.assert_array_equal(collected.segments.mask, collected.judged.mask[:, :8])
    assert collected.judged.mask[:, 8:].sum() > 0
    controls = controls_of(at, collected)
    learned = at.policy.to_controls(collected.segments.actions)
    taken = collected.segments.mask > 0
    np.testing.assert_array_equal(controls[:, :8][taken], learned[taken])
    for row in range(16):
        length = int(collected.judged.mask[row].sum())
        rewards, _, ended = replay(at.simulator, start.take(np.array([row])), controls[row, :length])
        np.testing.assert_array_equal(rewards, collected.judged.rewards[row, :length])
        assert ended or length == 40
    np.testing.assert_array_equal(collected.judged.returns, collected.judged.rewards.sum(axis=1))


@pytest.mark.parametrize(
    ("task", "steps", "judged"), [(PENDULUM, 8, 40), (PENDULUM, 30, 30), (REACHER, 20, 40)]
)
def test_every_simulated_step_is_counted_once(task: str, steps: int, judged: int):
    at = setup(task, steps, judged, std=1.0, start_fraction=0.5)
    for _ in range(3):
        collected, _ = at.collect()
        simulated = sum(len(states) for states, _ in at.simulator.calls)
        assert collected.env_steps == simulated == int(collected.judged.mask.sum())


@pytest.mark.parametrize(("task", "steps", "judged"), [(CHEETAH, 6, 6), (CHEETAH, 6, 15), (PENDULUM, 12, 30)])
def test_a_chain_goes_on_from_its_first_fork(task: str, steps: int, judged: int):
    at = setup(task, steps, judged, std=1.0, forks=3)
    went_on = restarted = 0
    for _ in range(4):
        before = States.restore(at.collector.chains.save())
        collected, start = at.collect()
        np.testing.assert_array_equal(start.physics[::3], before.physics)
        after = at.collector.chains
        for chain in range(6):
            length = int(collected.segments.mask[3 * chain].sum())
            controls = at.policy.to_controls(collected.segments.actions[3 * chain, :length])
            _, states, ended = replay(at.simulator, before.take(np.array([chain])), controls)
            if ended:
                assert after.elapsed[chain] == 0
                assert after.physics[chain, 0] == fresh_clock(at.simulator)
                assert not np.array_equal(after.obs[chain], states[-1].obs[0])
                restarted += 1
            else:
                np.testing.assert_array_equal(after.physics[chain], states[-1].physics[0])
                np.testing.assert_array_equal(after.obs[chain], states[-1].obs[0])
                assert after.elapsed[chain] == before.elapsed[chain] + steps
                went_on += 1
    assert went_on > 0
    assert (restarted > 0) == (task == PENDULUM)


def test_a_chain_whose_episode_ends_with_its_segment_starts_anew():
    at = setup(REACHER, 25, 50, prompts=20)
    late = at.collector.chains.elapsed == 25
    assert late.any()
    assert (~late).any()
    at.collect()
    np.testing.assert_array_equal(at.collector.chains.elapsed, np.where(late, 0, 25))


@pytest.mark.parametrize("steps", [50, 300])
def test_the_chains_begin_at_phases_spread_over_the_episode(steps: int):
    chains = setup(CHEETAH, steps, prompts=500).collector.chains
    phases, counts = np.unique(chains.elapsed, return_counts=True)
    np.testing.assert_array_equal(phases, np.arange(0, 1000, steps))
    chance = 1 / len(phases)
    assert (np.abs(counts - 500 * chance) < 5 * np.sqrt(500 * chance * (1 - chance))).all()


@pytest.mark.parametrize(("fraction", "chains"), [(0.0, 6), (0.5, 3), (1.0, 0)])
def test_the_share_of_episode_starts(fraction: float, chains: int):
    at = setup(CHEETAH, 4, start_fraction=fraction)
    assert len(at.collector.chains) == chains
    at.collect()
    _, second = at.collect()
    _, third = at.collect()
    assert len(second) == len(third) == 12
    assert (second.elapsed[: 2 * chains] > 0).all()
    for start in (second, third):
        assert (start.elapsed[2 * chains :] == 0).all()
        assert (start.physics[2 * chains :, 0] == fresh_clock(at.simulator)).all()
    if chains < 6:
        fresh = np.concatenate([second.physics[2 * chains :: 2], third.physics[2 * chains :: 2]])
        assert len(np.unique(fresh, axis=0)) == 2 * (6 - chains)


def test_chains_that_restart_begin_a_new_episode_and_the_others_go_on():
    at = setup(CHEETAH, 4, prompts=40, restart=0.25)
    going = setup(CHEETAH, 4, prompts=40)
    for each in (at, going):
        each.collect()
    _, second = at.collect()
    _, unbroken = going.collect()
    new = second.elapsed[::2] == 0
    assert 3 <= new.sum() <= 20, "a quarter of 40, four standard deviations of 2.7"
    assert (second.physics[::2][new, 0] == fresh_clock(at.simulator)).all()
    assert len(np.unique(second.physics[::2][new], axis=0)) == new.sum()
    kept = np.repeat(~new, 2)
    np.testing.assert_array_equal(second.elapsed[kept], unbroken.elapsed[kept])


def test_a_chain_that_always_restarts_says_what_a_whole_episode_would_have_brought():
    """After one iteration of 10 steps: its return, as many times as 10 steps go into an episode."""
    at = setup(CHEETAH, 10, restart=1.0)
    collected, _ = at.collect()
    first = collected.judged.rewards[::2].sum(axis=1)
    np.testing.assert_allclose(collected.episode_returns, 100 * first, rtol=1e-12)


def test_a_fall_after_the_segment_does_not_end_the_episode_of_a_chain():
    at = setup(PENDULUM, 2, 30, std=1.5, prompts=12, restart=1.0)
    collected, _ = at.collect()
    steps = collected.judged.mask[::2].sum(axis=1)
    assert ((steps > 2) & collected.ends.terminated[::2]).any()
    first = collected.judged.rewards[::2, :2].sum(axis=1)
    scale = np.where(steps > 2, at.simulator.spec.horizon / 2, 1.0)
    np.testing.assert_allclose(collected.episode_returns, scale * first)


@pytest.mark.parametrize("task", [PENDULUM, CHEETAH])
def test_the_ends_are_the_observations_after_the_last_steps(task: str):
    at = setup(task, 12, 30, std=1.5, prompts=12)
    for _ in range(4):
        collected, start = at.collect()
    controls = controls_of(at, collected)
    fell = np.zeros(24, dtype=bool)
    for row in range(24):
        steps = int(collected.window.mask[row].sum())
        rewards, states, ended = replay(at.simulator, start.take(np.array([row])), controls[row, :steps])
        assert len(rewards) == steps
        np.testing.assert_allclose(collected.ends.obs[row], states[-1].obs[0].astype(np.float32), rtol=1e-5)
        fell[row] = ended and states[-1].elapsed[0] < at.simulator.spec.horizon
    np.testing.assert_array_equal(collected.ends.terminated, fell)
    assert fell.any() == (task == PENDULUM)


def test_whole_episodes():
    at = setup(REACHER, 50, start_fraction=1.0)
    collected, start = at.collect()
    assert (start.elapsed == 0).all()
    assert collected.segments.mask.all()
    assert collected.env_steps == 12 * 50
    rewards, _, ended = replay(
        at.simulator, start.take(np.array([4])), at.policy.to_controls(collected.segments.actions[4])
    )
    assert ended
    assert collected.judged.returns[4] == pytest.approx(sum(rewards), rel=1e-12)


def test_rewards_are_those_of_gymnasium():
    at = setup(CHEETAH, 5)
    at.collect()
    collected, start = at.collect()
    env = gymnasium.make("HalfCheetah-v5").unwrapped
    env.reset(seed=0)
    for row in range(12):
        physics = start.physics[row]
        env.set_state(
            physics[1 : 1 + env.model.nq], physics[1 + env.model.nq : 1 + env.model.nq + env.model.nv]
        )
        controls = at.policy.to_controls(collected.segments.actions[row])
        for t, control in enumerate(controls):
            obs, reward, *_ = env.step(control)
            assert collected.judged.rewards[row, t] == pytest.approx(reward, abs=2e-4)
            if t + 1 < 5:
                np.testing.assert_allclose(collected.segments.obs[row, t + 1], obs, atol=1e-3)


def test_the_end_of_one_fork_does_not_shift_the_noise_of_another(monkeypatch: pytest.MonkeyPatch):
    whole, cut = setup(CHEETAH, 12), setup(CHEETAH, 12)
    for at in (whole, cut):
        with torch.no_grad():
            for parameter in at.policy.net.parameters():
                parameter.zero_()  # the action is then the noise alone, whatever the state
    step, calls = cut.simulator.step, []

    def ends_row_three(states: States, action: DoubleArray) -> Step:
        calls.append(len(states))
        reached = step(states, action)
        ends = np.zeros(len(states), dtype=bool)
        ends[3] = len(calls) == 5
        return Step(reached.states, reached.reward, ends, reached.truncated)

    monkeypatch.setattr(cut.simulator, "step", ends_row_three)
    expected, found = whole.collect()[0].segments, cut.collector.collect(cut.policy).segments
    assert calls == [12] * 5 + [11] * 7
    others = np.arange(12) != 3
    np.testing.assert_array_equal(found.actions[others], expected.actions[others])
    np.testing.assert_array_equal(found.obs[others], expected.obs[others])
    assert found.mask[3].tolist() == [1] * 5 + [0] * 7


def test_collecting_twice_with_one_seed_is_the_same_and_with_another_is_not():
    one, two, other = (setup(PENDULUM, 10, 20, seed=seed, start_fraction=0.5) for seed in (1, 1, 2))
    for _ in range(3):
        first, second, third = (at.collect()[0] for at in (one, two, other))
        np.testing.assert_array_equal(first.segments.actions, second.segments.actions)
        np.testing.assert_array_equal(first.judged.rewards, second.judged.rewards)
        assert not np.array_equal(first.segments.actions, third.segments.actions)


def test_an_iteration_keeps_its_numbers_when_the_next_one_is_collected():
    at = setup(PENDULUM, 5, 10)
    collected, _ = at.collect()
    copies = [
        a.copy() for a in (collected.segments.obs, collected.segments.actions, collected.judged.rewards)
    ]
    at.collect()
    for copy, array in zip(
        copies, (collected.segments.obs, collected.segments.actions, collected.judged.rewards), strict=True
    ):
        np.testing.assert_array_equal(copy, array)


def test_three_forks_give_three_pairs_of_each_prompt():
    pairs = forked_pairs(2, 3)
    assert list(zip(pairs.first, pairs.second, pairs.group, strict=True)) == [
        (0, 1, 0),
        (0, 2, 0),
        (1, 2, 0),
        (3, 4, 1),
        (3, 5, 1),
        (4, 5, 1),
    ]


@given(prompts=st.integers(1, 12), forks=st.integers(2, 6))
def test_forked_pairs_are_every_pair_of_each_prompt_once(prompts: int, forks: int):
    pairs = forked_pairs(prompts, forks)
    assert len(pairs) == prompts * math.comb(forks, 2)
    assert len(set(zip(pairs.first, pairs.second, strict=True))) == len(pairs)
    assert (pairs.first < pairs.second).all()
    np.testing.assert_array_equal(pairs.first // forks, pairs.second // forks)
    np.testing.assert_array_equal(pairs.first // forks, pairs.group)


@given(prompts=st.integers(2, 40), seed=st.integers(0, 2**32))
def test_unrelated_pairs_are_of_two_prompts_and_use_a_segment_once(prompts: int, seed: int):
    pairs = unrelated_pairs(prompts, np.random.default_rng(seed))
    assert len(pairs) == prompts
    assert (pairs.first // 2 != pairs.second // 2).all()
    used = np.concatenate([pairs.first, pairs.second])
    assert sorted(used) == list(range(2 * prompts))
    assert len(set(pairs.group)) == prompts


def test_unrelated_partners_change_from_batch_to_batch():
    rng = np.random.default_rng(0)
    partners = {tuple(unrelated_pairs(8, rng).second) for _ in range(100)}
    assert len(partners) == 7


@pytest.mark.parametrize("pairing", ["forked", "unrelated"])
def test_the_collector_asks_for_the_pairing_of_its_configuration(pairing: str):
    pairs = setup(REACHER, 3, pairing=pairing).collect()[0].pairs
    same_prompt = pairs.first // 2 == pairs.second // 2
    assert same_prompt.all() if pairing == "forked" else not same_prompt.any()


# Returns of whole episodes, for the teacher's thresholds


def test_an_episode_cut_short_at_the_start_stands_for_a_whole_one():
    at = setup(CHEETAH, 500)
    elapsed = at.collector.chains.elapsed.copy()
    assert set(elapsed) == {0, 500}
    first, _ = at.collect()
    earned = first.judged.rewards[0::2].sum(axis=1)
    np.testing.assert_allclose(first.episode_returns, 2 * earned[elapsed == 500])
    second, _ = at.collect()
    both = earned + second.judged.rewards[0::2].sum(axis=1)
    np.testing.assert_allclose(second.episode_returns, both[elapsed == 0])


def test_an_episode_that_fell_counts_as_it_is():
    """The pendulum earns 1 for each step but the last, so that its return is its length less one."""
    at = setup(PENDULUM, 5, std=1.0, prompts=16)
    lengths = np.zeros(16, dtype=int)
    seen = 0
    for _ in range(20):
        collected, _ = at.collect()
        taken = collected.segments.mask[0::2].sum(axis=1).astype(int)
        lengths += taken
        fell = collected.judged.rewards[0::2].sum(axis=1) < taken
        np.testing.assert_array_equal(collected.episode_returns, lengths[fell] - 1)
        seen += int(fell.sum())
        lengths[fell] = 0
    assert seen > 16, "most chains must have fallen more than once"


def test_starts_that_are_judged_to_their_end_are_whole_episodes():
    at = setup("reacher-v5", 10, 50, start_fraction=0.5)
    collected, _ = at.collect()
    starts = collected.judged.returns[0::2][3:]
    np.testing.assert_allclose(collected.episode_returns[-3:], starts)
    short = setup("reacher-v5", 10, 20, start_fraction=1.0)
    assert len(short.collect()[0].episode_returns) == 0
