"""What a learned value adds to the judgement of a segment."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sailctl.config import RewardConfig
from sailctl.core.types import DoubleArray, Ends, EnvSpec, JudgedRewards, NonFiniteError, SegmentBatch
from sailctl.preferences.value import SegmentValue, lambda_returns
from sailctl.sweeps.compose import compose_jobs


def config_of(**changes: float) -> RewardConfig:
    return replace(compose_jobs(["reward=value"]).jobs[0].config.reward, **changes)


def spec_of(obs_dim: int, discount: float) -> EnvSpec:
    """A task whose control step is as long as makes the discount."""
    step = -config_of().value_horizon * math.log(discount)
    return EnvSpec("chain", obs_dim, 1, -np.ones(1), np.ones(1), 1000, step)


def mixture_of_n_step_returns(
    rewards: DoubleArray, values: DoubleArray, terminated: bool, discount: float, trace: float
) -> float:
    """G_0 of one segment from the definition: a mean of the n-step returns, the last with what is left."""
    steps = len(rewards)
    values = np.where(np.arange(steps) == steps - 1, values * (not terminated), values)
    n_step = [
        sum(discount**t * rewards[t] for t in range(n)) + discount**n * values[n - 1]
        for n in range(1, steps + 1)
    ]
    weights = [(1 - trace) * trace ** (n - 1) for n in range(1, steps)] + [trace ** (steps - 1)]
    return float(np.dot(weights, n_step))


@pytest.mark.parametrize("trace", [0.0, 0.7, 1.0])
def test_lambda_returns_are_the_mixture_of_all_n_step_returns(trace: float):
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
    lengths, terminated = np.array([5, 5, 3, 3, 1, 1]), np.array([False, True] * 3)
    mask = (np.arange(5) < lengths[:, None]).astype(np.float32)
    returns = lambda_returns(rewards, values, mask, terminated, 0.9, trace)
    for row, length in enumerate(lengths):
        for start in range(length):
            steps = slice(start, length)
            expected = mixture_of_n_step_returns(
                rewards[row, steps], values[row, steps], terminated[row], 0.9, trace
            )
            assert returns[row, start] == pytest.approx(expected, abs=1e-12)
        assert (returns[row, length:] == 0).all()


def batch_of(rng: np.random.Generator, place: DoubleArray, steps: int) -> tuple[SegmentBatch, Ends]:
    """Walkers on a line that move by 1 or not at all; at 10 they fall off."""
    obs = np.zeros((len(place), steps, 1), np.float32)
    mask = np.zeros((len(place), steps), np.float32)
    at, alive = place.copy(), np.full(len(place), True)
    for t in range(steps):
        obs[:, t, 0], mask[:, t] = at, alive
        at = at + alive * rng.integers(2, size=len(at))
        alive = alive & (at < 10)
    actions = np.zeros((len(place), steps, 1), np.float32)
    return SegmentBatch(obs, actions, mask, 1), Ends(at[:, None].astype(np.float32), ~alive)


def test_the_value_comes_to_what_the_chain_is_worth():
    """A reward of 1 a step: V(10) = 0, and V(x) = 1 + d (V(x) + V(x + 1)) / 2 before."""
    discount, rng = 0.9, np.random.default_rng(0)
    exact = np.zeros(11)
    for x in range(9, -1, -1):
        exact[x] = (1 + discount * exact[x + 1] / 2) / (1 - discount / 2)
    value = SegmentValue(config_of(lr=3e-3), spec_of(1, discount), np.random.default_rng(1))
    for _ in range(300):
        segments, ends = batch_of(rng, rng.integers(10, size=128).astype(np.float64), 4)
        value.judge(segments, ends, JudgedRewards(segments.mask.astype(np.float64), segments.mask))
    start = np.repeat(np.arange(10.0), 400)
    segments, ends = batch_of(rng, start, 4)
    worth = value.judge(segments, ends, JudgedRewards(segments.mask.astype(np.float64), segments.mask))
    found = worth.reshape(10, 400).mean(axis=1)
    np.testing.assert_allclose(found, exact[:10], atol=0.35)
    assert value.metrics()["value_explained"] > 0.7


def test_of_two_equal_beginnings_the_one_that_did_not_end_in_a_fall_is_worth_more():
    value = SegmentValue(config_of(), spec_of(2, 0.9), np.random.default_rng(0))
    rng = np.random.default_rng(1)
    obs = rng.normal(size=(64, 3, 2)).astype(np.float32)
    segments = SegmentBatch(obs, np.zeros((64, 3, 1), np.float32), np.ones((64, 3), np.float32), 2)
    fell = np.arange(64) % 2 == 1
    ends, rewards = Ends(obs[:, -1], fell), JudgedRewards(np.ones((64, 3)), segments.mask)
    for _ in range(20):
        worth = value.judge(segments, ends, rewards)
    assert (worth[~fell] > worth[fell]).all()


def test_the_same_seed_says_the_same():
    rng = np.random.default_rng(0)
    segments, ends = batch_of(rng, np.zeros(32), 6)
    rewards = JudgedRewards(rng.normal(size=(32, 6)) * segments.mask, segments.mask)
    two = [SegmentValue(config_of(), spec_of(1, 0.9), np.random.default_rng(3)) for _ in range(2)]
    for _ in range(3):
        one, other = (value.judge(segments, ends, rewards) for value in two)
        np.testing.assert_array_equal(one, other)


def test_a_single_step_can_be_learned_from():
    """Fewer steps than batches, and returns without any spread."""
    segments, ends = batch_of(np.random.default_rng(0), np.zeros(1), 1)
    value = SegmentValue(config_of(), spec_of(1, 0.9), np.random.default_rng(0))
    for _ in range(3):
        worth = value.judge(segments, ends, JudgedRewards(np.ones((1, 1)), segments.mask))
    assert np.isfinite(worth).all()
    assert math.isfinite(value.metrics()["value_explained"])


def test_a_reward_that_is_not_finite_is_refused():
    segments, ends = batch_of(np.random.default_rng(0), np.zeros(8), 2)
    value = SegmentValue(config_of(), spec_of(1, 0.9), np.random.default_rng(0))
    with pytest.raises(NonFiniteError, match=r"reward\.lr"):
        value.judge(segments, ends, JudgedRewards(np.full((8, 2), np.nan), segments.mask))
