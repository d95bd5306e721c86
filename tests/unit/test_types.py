"""The data types check their own shapes, and nothing that a learner sees can hold a reward."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sailctl.core.types import (
    JudgedRewards,
    NonFiniteError,
    Pairs,
    PreferenceData,
    Preferences,
    Rankings,
    RunError,
    SegmentBatch,
    Transitions,
    UserError,
)

S, H, OBS, ACT = 6, 4, 3, 2


def segments(**changes: object) -> SegmentBatch:
    arrays: dict[str, object] = {
        "obs": np.zeros((S, H, OBS), np.float32),
        "actions": np.zeros((S, H, ACT), np.float32),
        "mask": np.ones((S, H), np.float32),
        "forks": 2,
    }
    return SegmentBatch(**(arrays | changes))


def pairs(*rows: tuple[int, int]) -> Pairs:
    first, second = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    return Pairs(first, second, np.arange(len(first)))


def test_segments_count_their_rows():
    assert segments().segments == S


@pytest.mark.parametrize(
    "changes",
    [
        {"obs": np.zeros((S, H + 1, OBS), np.float32)},
        {"obs": np.zeros((S - 1, H, OBS), np.float32)},
        {"actions": np.zeros((S, H - 1, ACT), np.float32)},
        {"mask": np.ones((S, H + 1), np.float32)},
    ],
)
def test_segments_of_unequal_shapes_are_refused(changes: dict[str, object]):
    with pytest.raises(ValueError, match="disagree"):
        segments(**changes)


@pytest.mark.parametrize("forks", [0, -2, 4, 7])
def test_segments_that_are_no_whole_number_of_prompts_are_refused(forks: int):
    with pytest.raises(ValueError, match="whole number of prompts"):
        segments(forks=forks)


def test_returns_are_undiscounted_sums():
    rewards = np.array([[1.0, -2.0, 0.5], [0.0, 0.0, 4.0]])
    judged = JudgedRewards(rewards, np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(judged.returns, [-0.5, 4.0])


def test_rewards_and_mask_of_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match="disagree"):
        JudgedRewards(np.zeros((2, 3)), np.ones((2, 4), np.float32))


def test_pairs_count_and_cut():
    four = pairs((0, 1), (2, 3), (4, 5), (0, 3))
    assert len(four) == 4
    two = four.head(2)
    assert (two.first.tolist(), two.second.tolist(), two.group.tolist()) == ([0, 2], [1, 3], [0, 1])
    assert len(four.head(0)) == 0
    assert len(four.head(9)) == 4


def test_pairs_of_unequal_shapes_are_refused():
    rows = np.arange(3)
    with pytest.raises(ValueError, match=r"must all be \(B,\)"):
        Pairs(rows, rows[:2], rows)
    with pytest.raises(ValueError, match=r"must all be \(B,\)"):
        Pairs(rows[:, None], rows[:, None], rows[:, None])


def test_preferences_take_the_three_labels_and_no_other():
    three = pairs((0, 1), (2, 3), (4, 5))
    assert len(Preferences(three, np.array([1, -1, 0], np.float32))) == 3
    for wrong in (0.5, 2.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="a label is"):
            Preferences(three, np.array([1, wrong, 0], np.float32))
    with pytest.raises(ValueError, match="3 pairs but labels"):
        Preferences(three, np.ones(2, np.float32))


def test_the_types_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        segments().forks = 3


def test_errors_are_told_apart():
    """``UserError`` ends with exit code 2 and ``RunError`` with 1, so neither may be the other."""
    assert not issubclass(UserError, RunError)
    assert not issubclass(RunError, UserError)
    error = NonFiniteError("stopped", {})
    assert isinstance(error, RunError)
    assert str(error) == "stopped"


def test_a_ranking_orders_two_segments_at_least():
    assert len(Rankings(np.array([[1, 0, 2]]))) == 1
    for order in (np.array([1, 0]), np.zeros((3, 1), np.int64)):
        with pytest.raises(ValueError, match="at least two segments"):
            Rankings(order)


def transitions(**changes: object) -> Transitions:
    arrays: dict[str, object] = {
        "obs": np.zeros((S, OBS), np.float32),
        "actions": np.zeros((S, ACT), np.float32),
        "next_obs": np.ones((S, OBS), np.float32),
        "terminated": np.arange(S) == 1,
        "ended": np.arange(S) < 2,
    }
    return Transitions(**(arrays | changes))


def test_transitions_are_of_as_many_steps_in_all_their_parts():
    assert len(transitions()) == S
    wrong = {
        "obs": np.zeros((S, OBS + 1), np.float32),
        "actions": np.zeros((S - 1, ACT), np.float32),
        "next_obs": np.zeros((S + 1, OBS), np.float32),
        "terminated": np.zeros(S - 1, bool),
        "ended": np.ones(S + 1, bool),
    }
    for name, array in wrong.items():
        with pytest.raises(ValueError, match="disagree"):
            transitions(**{name: array})
    with pytest.raises(ValueError, match="terminated steps must also be ended"):
        transitions(ended=np.zeros(S, bool))


def test_a_data_set_keeps_pairs_in_order_and_knows_its_steps():
    batch, answers = segments(), np.array([1.0, -1.0, 0.0], np.float32)
    ordered = Preferences(pairs((0, 1), (2, 3), (4, 5)), answers)
    data = PreferenceData("toy-v0", batch, ordered, 2)
    assert (len(data), data.first_steps().segments.mask.shape) == (3, (S, 2))
    chosen = data.take(np.array([2, 0, 2]))
    np.testing.assert_array_equal(chosen.preferences.label, [0.0, 1.0, 0.0])
    np.testing.assert_array_equal(chosen.preferences.pairs.group, [2, 0, 2])
    with pytest.raises(ValueError, match="2i and 2i"):
        PreferenceData("toy-v0", batch, Preferences(pairs((0, 1), (3, 2), (4, 5)), answers), 2)
    for steps in (0, H + 1):
        with pytest.raises(ValueError, match="the number of judged steps"):
            PreferenceData("toy-v0", batch, ordered, steps)
