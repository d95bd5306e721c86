"""What is remembered: the answers and what they are about, and what the policy did lately."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from sailctl.core.types import EnvSpec, Pairs, Preferences, SegmentBatch, Transitions
from sailctl.data.answers import Answers
from sailctl.data.history import History
from sailctl.policies.policy import VARIANCE_FLOOR

OBS, ACT = 3, 2
SPEC = EnvSpec("toy-v0", OBS, ACT, -np.ones(ACT), np.ones(ACT), 20, 0.1)


# Answers


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
    known, calls = Answers(OBS, ACT), []
    for seed, steps in enumerate(lengths):
        calls.append(answered(seed, 10 + 3 * seed, steps))
        known.add(*calls[-1])
    assert len(known) == sum(len(answers) for _, answers in calls)
    named = [{*answers.pairs.first, *answers.pairs.second} for _, answers in calls]
    assert known.pairs.max() + 1 == sum(map(len, named))
    np.testing.assert_array_equal(known.label, np.concatenate([answers.label for _, answers in calls]))
    row = 0
    for segments, answers in calls:
        steps = segments.mask.shape[1]
        for first, second in zip(answers.pairs.first, answers.pairs.second, strict=True):
            kept = known.take(known.pairs[row])
            for place, asked in enumerate((first, second)):
                np.testing.assert_array_equal(kept.obs[place, :steps], segments.obs[asked])
                np.testing.assert_array_equal(kept.actions[place, :steps], segments.actions[asked])
                np.testing.assert_array_equal(kept.mask[place, :steps], segments.mask[asked])
                assert not kept.mask[place, steps:].any()
            row += 1


def test_moments_are_those_of_the_steps_taken():
    known, taken = Answers(OBS, ACT), []
    for seed, steps in enumerate((3, 6, 2)):
        segments, answers = answered(seed, 12, steps)
        known.add(segments, answers)
        named = np.unique([answers.pairs.first, answers.pairs.second])
        taken.append(segments.obs[named][segments.mask[named] > 0])
    every = np.concatenate(taken).astype(np.float64)
    mean, std = known.moments
    np.testing.assert_allclose(mean, every.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, np.sqrt(every.var(0) + VARIANCE_FLOOR), rtol=1e-12)


def test_without_an_answer_observations_stay_as_they_are():
    mean, std = Answers(OBS, ACT).moments
    np.testing.assert_array_equal(mean, np.zeros(OBS))
    np.testing.assert_allclose(std, np.ones(OBS), atol=1e-6)


@pytest.mark.parametrize("count", [3, 1000])
def test_the_latest_knowncome_with_their_segments(count: int):
    known = Answers(OBS, ACT)
    for seed in range(3):
        known.add(*answered(seed, 8, 4))
    segments, answers = known.latest(count)
    last = min(count, len(known))
    np.testing.assert_array_equal(answers.label, known.label[-last:])
    for place, rows in (
        (answers.pairs.first, known.pairs[-last:, 0]),
        (answers.pairs.second, known.pairs[-last:, 1]),
    ):
        np.testing.assert_array_equal(segments.obs[place], known.take(rows).obs)


def test_adding_copies_what_is_added_and_seldom_more():
    """The arrays are made anew each time that they are full, and are then twice as long."""
    known, made = Answers(OBS, ACT), set()
    for seed in range(200):
        known.add(*answered(seed, 10, 4))
        made.add(len(known._obs))
    assert len(made) < 12


# History


@pytest.mark.parametrize("rows", [12, 31, 100])
def test_windows_lie_inside_one_episode_and_are_what_happened(rows: int) -> None:
    """Against lists of episodes, kept by hand; it may have forgotten the oldest steps."""
    rng, envs, steps, total = np.random.default_rng(rows), 3, 5, 60
    history = History(rows, envs, SPEC)
    happened: list[list[tuple[float, bool, bool]]] = [[] for _ in range(envs)]
    for step in range(total):
        reward = step + 100.0 * np.arange(envs)
        ended, fell = rng.random(envs) < 0.15, rng.random(envs) < 0.5
        obs = np.repeat(reward[:, None], SPEC.obs_dim, axis=1).astype(np.float32)
        history.add(Transitions(obs, -obs[:, :2], obs + 1, ended & fell, ended), reward)
        for env in range(envs):
            happened[env].append((reward[env], bool(ended[env]), bool(fell[env])))

    expected: list[tuple[float, ...]] = []
    for story in (story[-rows:] for story in happened):
        for start in range(len(story)):
            window: list[float] = []
            for reward_of, ended_here, fell_here in story[start : start + steps]:
                window.append(reward_of)
                if ended_here:
                    whole = fell_here or len(window) == steps
                    break
            else:
                whole = len(window) == steps
            if whole:
                expected.append((*window, *[0.0] * (steps - len(window))))

    starts = history.starts(steps)
    segments, judged = history.windows(starts, steps)
    assert sorted(map(tuple, judged.rewards.tolist())) == sorted(expected)
    np.testing.assert_array_equal(segments.obs[..., 0], judged.rewards.astype(np.float32))
    np.testing.assert_array_equal(segments.actions[..., 1], -judged.rewards.astype(np.float32))
    assert (judged.rewards[:, 1:] > 0).sum() == (segments.mask[:, 1:] > 0).sum()


@pytest.mark.parametrize("rows", [40, 200])
def test_windows_of_the_latest_rows_are_those_of_all_that_start_there(rows: int) -> None:
    """Whether the oldest rows are forgotten or not; the windows themselves are the same."""
    rng = np.random.default_rng(1)
    history = History(rows, 3, SPEC)
    for _ in range(90):
        ended = rng.random(3) < 0.1
        obs = rng.normal(size=(3, OBS)).astype(np.float32)
        fell = ended & (rng.random(3) < 0.5)
        history.add(Transitions(obs, np.zeros((3, ACT), np.float32), obs, fell, ended), rng.normal(size=3))
    known, whole = min(rows, 90), history.starts(5)
    for latest in (5, 17, 1000):
        starts = history.starts(5, latest)
        np.testing.assert_array_equal(starts, whole[whole[:, 0] >= known - latest])
    assert 0 < len(history.starts(5, 17)) < len(whole)
    np.testing.assert_array_equal(history.starts(5, 1000), whole)


def test_steps_are_handed_out_as_they_were_and_the_oldest_are_forgotten() -> None:
    rng, rows, envs = np.random.default_rng(0), 5, 3
    history, done = History(rows, envs, SPEC), []
    assert len(history) == len(history.places()) == 0
    for step in range(8):
        obs, reached = rng.normal(size=(2, envs, OBS)).astype(np.float32)
        actions = rng.uniform(-1, 1, (envs, ACT)).astype(np.float32)
        ended = rng.random(envs) < 0.5
        done.append(Transitions(obs, actions, reached, ended & (rng.random(envs) < 0.5), ended))
        history.add(done[-1], np.zeros(envs))
        assert len(history) == len(history.places()) == envs * min(step + 1, rows)
    places = history.places()
    assert len({tuple(place) for place in places}) == rows * envs
    drawn = places[rng.permutation(len(places))[:7]]
    found = history.transitions(drawn)
    for name in ("obs", "actions", "next_obs", "terminated", "ended"):
        expected = [getattr(done[3 + row], name)[env] for row, env in drawn]
        np.testing.assert_array_equal(getattr(found, name), expected)


def test_a_reset_ends_the_episodes_of_a_history() -> None:
    history = History(4, 2, SPEC)
    step = Transitions(
        np.zeros((2, OBS), np.float32),
        np.zeros((2, ACT), np.float32),
        np.ones((2, OBS), np.float32),
        np.zeros(2, bool),
        np.zeros(2, bool),
    )
    history.end_episodes()
    for _ in range(3):
        history.add(step, np.zeros(2))
    history.end_episodes()
    history.add(step, np.zeros(2))
    kept = history.transitions(history.places())
    assert kept.ended.reshape(4, 2).all(axis=1).tolist() == [False, False, True, False]
    assert not kept.terminated.any()


def test_a_restored_history_goes_on_as_the_one_it_was() -> None:
    rng = np.random.default_rng(1)
    steps = [
        Transitions(
            rng.normal(size=(2, OBS)).astype(np.float32),
            rng.normal(size=(2, ACT)).astype(np.float32),
            rng.normal(size=(2, OBS)).astype(np.float32),
            np.zeros(2, bool),
            rng.random(2) < 0.3,
        )
        for _ in range(9)
    ]
    one, other = History(4, 2, SPEC), History(4, 2, SPEC)
    for number, step in enumerate(steps):
        one.add(step, np.full(2, number))
        if number == 5:
            other.restore(copy.deepcopy(one.state()))
        elif number > 5:
            other.add(step, np.full(2, number))
    places = one.places()
    np.testing.assert_array_equal(one.transitions(places).next_obs, other.transitions(places).next_obs)
    np.testing.assert_array_equal(one.starts(2), other.starts(2))
    for ours, theirs in zip(one.windows(one.starts(2), 2), other.windows(one.starts(2), 2), strict=True):
        np.testing.assert_array_equal(ours.mask, theirs.mask)
