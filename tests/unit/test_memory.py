"""What the answers so far are about: nothing is lost, and little is copied."""

from __future__ import annotations

import numpy as np
import pytest

from sailctl.memory import Memory
from sailctl.policy import VARIANCE_FLOOR
from sailctl.types import Pairs, Preferences, SegmentBatch

OBS, ACT = 3, 2


def answered(seed: int, segments: int, steps: int) -> tuple[SegmentBatch, Preferences]:
    """Segments of unlike lengths, and answers about some of them, in any order."""
    rng = np.random.default_rng(seed)
    mask = (np.arange(steps) < rng.integers(1, steps + 1, segments)[:, None]).astype(np.float32)
    obs = rng.normal(2.0, 3.0, (segments, steps, OBS)).astype(np.float32)
    actions = rng.normal(size=(segments, steps, ACT)).astype(np.float32)
    count = segments // 2
    pairs = Pairs(rng.integers(segments, size=count), rng.integers(segments, size=count), np.arange(count))
    label = rng.choice([-1.0, 0.0, 1.0], count).astype(np.float32)
    return SegmentBatch(obs, actions, mask, 1), Preferences(pairs, label)


@pytest.mark.parametrize("lengths", [(4, 4, 4, 4, 4, 4, 4), (2, 5, 3, 7, 1, 7, 2)])
def test_every_answer_keeps_its_segments(lengths: tuple[int, ...]):
    """Seven additions, past several times that the arrays are full, of lengths that come and go."""
    memory, calls = Memory(OBS, ACT), []
    for seed, steps in enumerate(lengths):
        calls.append(answered(seed, 10 + 3 * seed, steps))
        memory.add(*calls[-1])
    assert len(memory) == sum(len(answers) for _, answers in calls)
    named = [{*answers.pairs.first, *answers.pairs.second} for _, answers in calls]
    assert memory.pairs.max() + 1 == sum(map(len, named))
    np.testing.assert_array_equal(memory.label, np.concatenate([answers.label for _, answers in calls]))
    row = 0
    for segments, answers in calls:
        steps = segments.mask.shape[1]
        for first, second in zip(answers.pairs.first, answers.pairs.second, strict=True):
            kept = memory.take(memory.pairs[row])
            for place, asked in enumerate((first, second)):
                np.testing.assert_array_equal(kept.obs[place, :steps], segments.obs[asked])
                np.testing.assert_array_equal(kept.actions[place, :steps], segments.actions[asked])
                np.testing.assert_array_equal(kept.mask[place, :steps], segments.mask[asked])
                assert not kept.mask[place, steps:].any()
            row += 1


def test_moments_are_those_of_the_steps_taken():
    memory, taken = Memory(OBS, ACT), []
    for seed, steps in enumerate((3, 6, 2)):
        segments, answers = answered(seed, 12, steps)
        memory.add(segments, answers)
        named = np.unique([answers.pairs.first, answers.pairs.second])
        taken.append(segments.obs[named][segments.mask[named] > 0])
    every = np.concatenate(taken).astype(np.float64)
    mean, std = memory.moments
    np.testing.assert_allclose(mean, every.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, np.sqrt(every.var(0) + VARIANCE_FLOOR), rtol=1e-12)


def test_without_an_answer_observations_stay_as_they_are():
    mean, std = Memory(OBS, ACT).moments
    np.testing.assert_array_equal(mean, np.zeros(OBS))
    np.testing.assert_allclose(std, np.ones(OBS), atol=1e-6)


@pytest.mark.parametrize("count", [3, 1000])
def test_the_latest_answers_come_with_their_segments(count: int):
    memory = Memory(OBS, ACT)
    for seed in range(3):
        memory.add(*answered(seed, 8, 4))
    segments, answers = memory.latest(count)
    last = min(count, len(memory))
    np.testing.assert_array_equal(answers.label, memory.label[-last:])
    for place, rows in (
        (answers.pairs.first, memory.pairs[-last:, 0]),
        (answers.pairs.second, memory.pairs[-last:, 1]),
    ):
        np.testing.assert_array_equal(segments.obs[place], memory.take(rows).obs)


def test_adding_copies_what_is_added_and_seldom_more():
    """The arrays are made anew each time that they are full, and are then twice as long."""
    memory, made = Memory(OBS, ACT), set()
    for seed in range(200):
        memory.add(*answered(seed, 10, 4))
        made.add(len(memory._obs))
    assert len(made) < 12
