"""Teachers: labels and chances worked out by hand, the order of the steps, budgets and frequencies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sailctl.config import OracleConfig, PolicyConfig, RolloutConfig, conf_dir
from sailctl.core.seeding import named_generators
from sailctl.core.types import FloatArray, IntArray, JudgedRewards, Pairs, RunError
from sailctl.data.rollout import Collector
from sailctl.policies.policy import GaussianPolicy
from sailctl.preferences.oracle import Teacher, bradley_terry
from sailctl.simulator.batched import TaskSimulator
from sailctl.sweeps.compose import compose_jobs
from sailctl_envs import ALL_TASKS

ORACLE = OracleConfig(
    inverse_temperature=None,
    normalise=False,
    discount=1.0,
    mistake=0.0,
    skip=0.0,
    equal=0.0,
    tie_margin=0.0,
    rho=0.0,
    bpref_compat=False,
    budget=None,
)
STOCHASTIC = replace(ORACLE, inverse_temperature=1.0)

HORIZON = 100
EPISODE = 200.0
"""With windows of 4 steps an average window earns 200 * 4 / 100 = 8, and a share of 1/4 of that is 2."""

N = 20_000
"""Draws in a statistical test; its margin is five standard errors, exceeded by chance once in 1.7 million."""

ALWAYS, NEVER = 0.0, float(np.nextafter(1.0, 0.0))
"""The least and the largest number that a generator draws from [0, 1)."""


class Dice:
    """Draws what it is told: for each question, a number for the answer and one for a mistake."""

    def __init__(self, answer: float, mistake: float = NEVER) -> None:
        self._numbers = np.array([answer, mistake])

    def random(self, size: tuple[int, int]) -> np.ndarray:
        return np.broadcast_to(self._numbers, size)


def preset(*words: str) -> OracleConfig:
    return compose_jobs(list(words)).jobs[0].config.oracle


def teacher(config: OracleConfig, seed: int = 0) -> Teacher:
    return Teacher(config, np.random.default_rng(seed), HORIZON)


def experienced(config: OracleConfig, seed: int = 0, episode: float = EPISODE) -> Teacher:
    """A teacher that has seen an episode, so that it has thresholds."""
    asked = teacher(config, seed)
    asked.observe_episodes(np.array([episode]))
    return asked


def judged(returns: list[float]) -> JudgedRewards:
    """Windows of four steps with these returns; the steps differ although the sums are simple."""
    total = np.array(returns)
    others = np.broadcast_to([3.0, -2.0, -2.0], (len(total), 3))
    return windows(np.column_stack([total + 1.0, others]))


def windows(rewards: object) -> JudgedRewards:
    array = np.array(rewards, dtype=np.float64)
    return JudgedRewards(array, np.ones(array.shape, np.float32))


def chain(count: int) -> Pairs:
    """Pairs (0, 1), (1, 2), ... of ``count + 1`` segments."""
    return Pairs(np.arange(count), np.arange(1, count + 1), np.arange(count))


def couples(count: int) -> Pairs:
    """Pairs (0, 1), (2, 3), ... of ``2 * count`` segments."""
    return Pairs(2 * np.arange(count), 2 * np.arange(count) + 1, np.arange(count))


def repeated(first: int, second: int, count: int = N) -> Pairs:
    """The same question over and over."""
    return Pairs(np.full(count, first), np.full(count, second), np.arange(count))


def scores(values: list[float]) -> FloatArray:
    return np.array(values, dtype=np.float32)


def within_five_errors(frequency: float, chance: float, draws: int = N) -> bool:
    return abs(frequency - chance) <= 5 * np.sqrt(chance * (1 - chance) / draws)


def assert_chance(
    config: OracleConfig,
    returns: list[float],
    chance: float,
    score: float | None = None,
    *,
    first: list[float] | None = None,
) -> None:
    """P(first preferred), found exactly: a number drawn just below it answers +1, one just above it -1.

    ``first`` are returns of pairs that are asked about in a session before.
    """
    for number, expected in [(chance - 1e-12, 1.0), (chance + 1e-12, -1.0)]:
        asked = Teacher(config, Dice(number), HORIZON)
        if first is not None:
            asked.answer(couples(len(first) // 2), judged(first))
        label = asked.answer(chain(1), judged(returns), None if score is None else scores([score])).label
        assert label.tolist() == [expected], f"the chance is not {chance}"


# The plain teacher


@pytest.mark.parametrize(
    ("margin", "expected"),
    [
        # differences of neighbours:  -1,  +3,   0, -0.5,  +0.25
        (0.0, [-1, 1, 0, -1, 1]),
        (0.25, [-1, 1, 0, -1, 0]),
        (0.5, [-1, 1, 0, 0, 0]),
        (1.0, [0, 1, 0, 0, 0]),
        (2.99, [0, 1, 0, 0, 0]),
        (3.0, [0, 0, 0, 0, 0]),
    ],
)
def test_golden_labels_of_the_oracle(margin: float, expected: list[int]):
    returns = [1.0, 2.0, -1.0, -1.0, -0.5, -0.75]
    answers = teacher(replace(ORACLE, tie_margin=margin)).answer(chain(5), judged(returns))
    np.testing.assert_array_equal(answers.label, np.array(expected, np.float32))
    assert answers.label.dtype == np.float32


def test_plus_one_means_that_the_first_has_the_higher_return():
    answers = teacher(ORACLE).answer(
        Pairs(np.array([2, 0]), np.array([1, 2]), np.array([0, 0])), judged([0.0, 5.0, 9.0])
    )
    assert answers.label.tolist() == [1.0, -1.0]


def test_a_segment_that_ended_early_is_judged_by_what_it_earned():
    rewards = np.array([[2.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    mask = np.array([[1, 0, 0], [1, 1, 1]], np.float32)
    answers = teacher(ORACLE).answer(chain(1), JudgedRewards(rewards, mask))
    assert answers.label.tolist() == [1.0]


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8), st.floats(0, 1e6))
def test_the_plain_teacher_is_the_sign_of_the_difference(rewards: list[float], margin: float):
    returns = np.array(rewards)
    answers = teacher(replace(ORACLE, tie_margin=margin)).answer(
        chain(len(returns) - 1), windows(returns[:, None])
    )
    difference = returns[:-1] - returns[1:]
    np.testing.assert_array_equal(
        answers.label, np.where(np.abs(difference) <= margin, 0, np.sign(difference))
    )


@pytest.mark.parametrize("number", [ALWAYS, 0.5, NEVER])
@pytest.mark.parametrize("rho", [0.0, 1.0])
@pytest.mark.parametrize("mistake", [0.0, 1.0])
def test_no_draw_changes_an_answer_that_is_certain(number: float, rho: float, mistake: float):
    config = replace(ORACLE, rho=rho, mistake=mistake)
    asked = Teacher(config, Dice(number, mistake=number), HORIZON)
    label = asked.answer(chain(3), judged([1.0, 0.0, 0.5, 0.5]), scores([1.0, 1.0, 1.0])).label
    # With rho = 1 the adversary answers "the second" wherever the policy favours the first.
    answer = np.array([1, -1, 0] if rho == 0 else [-1, -1, 0])
    np.testing.assert_array_equal(label, answer if mistake == 0 else -answer)


# Stochastic answers


@pytest.mark.parametrize(
    ("inverse_temperature", "returns", "chance"),
    [
        # sigmoid(log 3) = 3/4, sigmoid(log 9) = 9/10
        (1.0, [np.log(3), 0.0], 0.75),
        (1.0, [0.0, np.log(3)], 0.25),
        (2.0, [5.0 + np.log(3), 5.0], 0.9),
        (0.5, [0.0, 2 * np.log(9)], 0.1),
    ],
)
def test_golden_chances_of_bradley_terry(inverse_temperature: float, returns: list[float], chance: float):
    assert_chance(replace(ORACLE, inverse_temperature=inverse_temperature), returns, chance)


@pytest.mark.parametrize("inverse_temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("difference", [-2.0, -0.4, 0.1, 1.0])
def test_stochastic_frequencies_are_bradley_terry(inverse_temperature: float, difference: float):
    config = replace(STOCHASTIC, inverse_temperature=inverse_temperature)
    label = teacher(config, seed=4).answer(repeated(0, 1), judged([difference, 0.0])).label
    assert set(np.unique(label)) <= {-1.0, 1.0}
    chance = 1.0 / (1.0 + np.exp(-inverse_temperature * difference))
    assert within_five_errors((label == 1).mean(), chance)


def test_answers_to_one_question_are_independent_draws():
    label = teacher(STOCHASTIC).answer(repeated(0, 1), judged([0.2, 0.0])).label
    assert abs(np.corrcoef(label[:-1], label[1:])[0, 1]) < 5 / np.sqrt(N)


def test_ties_within_the_margin_hold_for_the_stochastic_teacher_too():
    config = replace(STOCHASTIC, tie_margin=0.5)
    returns = [0.0, 0.5, 0.0, 0.0, 1000.0, 0.0]
    label = teacher(config).answer(chain(5), judged(returns)).label
    assert label.tolist() == [0.0, 0.0, 0.0, -1.0, 1.0]


@given(difference=st.floats(-1e308, 1e308), inverse_temperature=st.floats(1e-3, 1e6))
def test_bradley_terry_is_a_probability_and_antisymmetric(difference: float, inverse_temperature: float):
    with np.errstate(over="ignore"):  # the product may reach infinity, where the answer is exact
        one = bradley_terry(np.array([difference]), inverse_temperature)[0]
        other = bradley_terry(np.array([-difference]), inverse_temperature)[0]
    assert 0.0 <= one <= 1.0
    assert one + other == pytest.approx(1.0, abs=1e-12)
    assert one >= 0.5 if difference >= 0 else one <= 0.5


def test_extreme_differences_do_not_overflow():
    with np.errstate(all="raise"):
        assert bradley_terry(np.array([1e6, -1e6, 0.0]), 1.0).tolist() == [1.0, 0.0, 0.5]
        label = teacher(STOCHASTIC).answer(chain(2), judged([1e9, 0.0, 1e9])).label
    assert label.tolist() == [1.0, -1.0]


# Recency


MYOPIC_ROWS = [
    # return, and with weights 1/8, 1/4, 1/2, 1 (discount 1/2)
    [4.0, 0.0, 0.0, 0.0],  # 4, 0.5
    [0.0, 0.0, 0.0, 2.0],  # 2, 2
    [0.0, 0.0, 4.0, 0.0],  # 4, 2
    [0.0, 8.0, 0.0, 1.0],  # 9, 3
]


@pytest.mark.parametrize(
    ("first", "second", "undiscounted", "myopic"),
    [
        (0, 1, 1, -1),  # the sum says the first, the last steps say the second
        (0, 2, 0, -1),  # equal sums are no tie: what is compared differs
        (2, 1, 1, 0),  # equal once weighed: a tie
        (3, 0, 1, 1),
        (2, 3, -1, -1),
    ],
)
def test_golden_labels_of_the_myopic_teacher(first: int, second: int, undiscounted: int, myopic: int):
    pair = repeated(first, second, 1)
    for discount, expected in [(1.0, undiscounted), (0.5, myopic)]:
        answers = teacher(replace(ORACLE, discount=discount)).answer(pair, windows(MYOPIC_ROWS))
        assert answers.label.tolist() == [expected]


def test_the_tie_margin_is_about_the_returns_that_are_compared():
    config = replace(ORACLE, discount=0.5, tie_margin=1.0)
    pairs = Pairs(np.array([0, 3, 3]), np.array([2, 1, 0]), np.arange(3))
    # weighed differences: -1.5, +1, +2.5; the sums differ by 0, 7 and 5
    assert teacher(config).answer(pairs, windows(MYOPIC_ROWS)).label.tolist() == [-1.0, 0.0, 1.0]


def test_the_temperature_acts_on_weighed_returns():
    config = replace(STOCHASTIC, discount=0.5)
    rows = [[8 * np.log(3), 0, 0, 0], [0, 0, 0, 0]]  # weighed, the difference is log 3
    for number, expected in [(0.75 - 1e-6, 1.0), (0.75 + 1e-6, -1.0)]:
        assert Teacher(config, Dice(number), HORIZON).answer(chain(1), windows(rows)).label[0] == expected


# Thresholds: skipping and ties


def test_pairs_are_skipped_unless_the_better_return_is_above_the_threshold():
    # The threshold is 2. Better returns: 2 (skipped: not above), 2.25, 1.75 (skipped), 5
    asked = experienced(replace(ORACLE, skip=0.25))
    answers = asked.answer(couples(4), judged([2.0, 1.0, -3.0, 2.25, 1.75, 1.75, 5.0, 0.0]))
    assert answers.pairs.first.tolist() == [2, 6]
    assert answers.pairs.second.tolist() == [3, 7]
    assert answers.pairs.group.tolist() == [1, 3]
    assert answers.label.tolist() == [-1.0, 1.0]
    assert (asked.labels, asked.skipped) == (2, 2)


def test_returns_are_a_tie_where_they_differ_by_less_than_the_threshold():
    # The threshold is 2. Differences: 1.5 (tie), -1.5 (tie), 2 (not below it), -2, 0 (tie)
    asked = experienced(replace(ORACLE, equal=0.25))
    answers = asked.answer(couples(5), judged([1.5, 0.0, 0.0, 1.5, 2.0, 0.0, 0.0, 2.0, 3.0, 3.0]))
    assert answers.label.tolist() == [0.0, 0.0, 1.0, -1.0, 0.0]
    assert (asked.labels, asked.skipped) == (5, 0)


def test_thresholds_are_about_undiscounted_returns_and_the_comparison_about_weighed_ones():
    rows = [
        # return, and with discount 1/2; thresholds are 2
        [4.0, 0.0, 0.0, 0.0],  # 4, 0.5: asked although not above 2 once weighed
        [0.0, 0.0, 0.0, 2.5],  # 2.5, 2.5: 1.5 apart, a tie although weighed they are 2 apart
        [0.0, 0.0, 0.0, 0.5],  # 0.5, 0.5: 3.5 from the first, no tie although weighed they are equal...
        [0.0, 0.0, 0.0, 0.625],  # ...and 3.375 apart, no tie, and the second is better once weighed
    ]
    # bpref_compat, so that equal weighed returns are no tie for that reason alone
    pairs = Pairs(np.zeros(3, np.int64), np.array([1, 2, 3]), np.arange(3))
    config = replace(ORACLE, discount=0.5, skip=0.25, equal=0.25, bpref_compat=True)
    assert experienced(config).answer(pairs, windows(rows)).label.tolist() == [0.0, 1.0, -1.0]


def test_skipping_comes_before_ties_and_costs_nothing():
    # Thresholds are 2: the first pair is equal, and too bad to be looked at.
    asked = experienced(replace(ORACLE, skip=0.25, equal=0.25, tie_margin=1.0, budget=1))
    answers = asked.answer(couples(2), judged([1.0, 1.0, 3.0, 3.0]))
    assert (answers.pairs.first.tolist(), answers.label.tolist()) == ([2], [0.0])
    assert (asked.labels, asked.skipped, asked.remaining, asked.spent) == (1, 1, 0, True)


def test_all_pairs_may_be_skipped():
    asked = experienced(replace(ORACLE, skip=0.25))
    assert len(asked.answer(chain(2), judged([2.0, 1.0, 0.0]))) == 0
    assert (asked.labels, asked.skipped) == (0, 2)


@pytest.mark.parametrize("compat", [False, True])
def test_without_an_episode_nothing_is_skipped_or_a_tie(compat: bool):
    asked = teacher(replace(ORACLE, skip=1.0, equal=1.0, bpref_compat=compat))
    asked.observe_episodes(np.zeros(0))
    assert asked.answer(chain(2), judged([-2.0, -1.0, -3.0])).label.tolist() == [-1.0, 1.0]
    assert asked.rank(np.array([[0, 1, 2]]), judged([-2.0, -1.0, -3.0])).order.tolist() == [[1, 0, 2]]


@pytest.mark.parametrize("episode", [-EPISODE, 0.0])
def test_a_threshold_that_is_not_positive_is_none(episode: float):
    """The thresholds would be -2 or 0: returns below that are asked about all the same."""
    asked = experienced(replace(ORACLE, skip=0.25, equal=0.25), episode=episode)
    assert asked.answer(chain(2), judged([-5.0, -4.9, -7.0])).label.tolist() == [-1.0, 1.0]
    assert asked.skipped == 0


def test_the_threshold_follows_the_last_ten_episodes():
    config = replace(ORACLE, equal=0.25)
    asked = teacher(config)
    sizes = judged([0.0, 1.5, 0.0, 3.5, 0.0, 4.5])

    def ties() -> list[bool]:
        return (asked.answer(couples(3), sizes).label == 0).tolist()

    asked.observe_episodes(np.array([9_000.0, 9_000.0]))
    assert ties() == [True, True, True]  # 1/4 of 9000 * 4 / 100 is 90
    asked.observe_episodes(np.array([1300.0, 300.0, 300.0, 300.0]))
    asked.observe_episodes(np.full(6, 300.0))
    assert ties() == [True, True, False]  # (1300 + 9 * 300) / 10 = 400: 4, and of nine or eleven 3 or 11.5
    asked.observe_episodes(np.array([0.0, -500.0]))
    assert ties() == [True, False, False]  # (8 * 300 + 0 - 500) / 10 = 190: 1.9


@pytest.mark.parametrize(("steps", "tie"), [(1, False), (2, False), (4, True), (8, True)])
def test_the_threshold_grows_with_the_judged_window(steps: int, tie: bool):
    # 1/4 of 200 * steps / 100 is steps / 2: the difference of 1.5 is below 2 and 4, not below 0.5 and 1.
    rewards = np.zeros((2, steps))
    rewards[0, 0] = 1.5
    label = experienced(replace(ORACLE, equal=0.25)).answer(chain(1), windows(rewards)).label
    assert (label[0] == 0) == tie


# Mistakes and the adversary


def test_a_mistake_flips_an_answer_but_not_a_tie():
    config = replace(ORACLE, equal=0.25, tie_margin=0.5, mistake=1.0)
    # Differences 3, -3, 1.5 (below the threshold of 2), 0
    label = experienced(config).answer(couples(4), judged([3, 0, 0, 3, 1.5, 0, 0, 0])).label
    assert label.tolist() == [-1.0, 1.0, 0.0, 0.0]


def test_a_mistake_is_made_where_its_draw_is_below_the_share():
    config = replace(ORACLE, mistake=0.1)
    for number, expected in [(0.1 - 1e-9, -1.0), (0.1, 1.0)]:
        asked = Teacher(config, Dice(0.3, mistake=number), HORIZON)
        assert asked.answer(chain(1), judged([1.0, 0.0])).label.tolist() == [expected]


def test_mistakes_are_as_frequent_as_they_should_be_and_independent_of_the_answer():
    config = replace(STOCHASTIC, mistake=0.1)
    right = teacher(STOCHASTIC).answer(repeated(0, 1), judged([1.0, 0.0])).label
    wrong = teacher(config).answer(repeated(0, 1), judged([1.0, 0.0])).label
    flipped = wrong != right
    assert within_five_errors(flipped.mean(), 0.1)
    for answer in (-1.0, 1.0):
        given_it = flipped[right == answer]
        assert within_five_errors(given_it.mean(), 0.1, len(given_it))


@pytest.mark.parametrize(
    ("inverse_temperature", "difference", "rho", "score", "chance"),
    [
        # P* = 3/4 where Bradley-Terry sees log 3; the adversary works against the sign of h
        (1.0, np.log(3), 0.25, 2.0, 0.5),
        (1.0, np.log(3), 0.25, 1e-30, 0.5),
        (1.0, np.log(3), 0.125, -2.0, 0.875),
        (1.0, np.log(3), 0.25, 0.0, 0.75),
        (1.0, -np.log(3), 0.125, 2.0, 0.125),
        (1.0, -np.log(3), 0.25, -2.0, 0.5),
        # P* = 1 or 0: what is certain and agrees with the policy becomes doubtful, nothing passes 0 or 1
        (None, 1.0, 0.1, 2.0, 0.9),
        (None, -1.0, 0.25, -2.0, 0.25),
    ],
)
def test_golden_chances_of_the_worst_case(
    inverse_temperature: float | None, difference: float, rho: float, score: float, chance: float
):
    config = replace(ORACLE, inverse_temperature=inverse_temperature, rho=rho)
    assert_chance(config, [difference, 0.0], chance, score)


@pytest.mark.parametrize("number", [ALWAYS, NEVER])
@pytest.mark.parametrize(
    ("inverse_temperature", "difference", "score", "label"),
    [
        (None, 1.0, -1.0, 1.0),  # clip(1 + rho) = 1
        (None, -1.0, 1.0, -1.0),  # clip(0 - rho) = 0
        (1.0, np.log(9), -1.0, 1.0),  # clip(0.9 + 0.2) = 1
        (1.0, -np.log(9), 1.0, -1.0),  # clip(0.1 - 0.2) = 0
    ],
)
def test_the_worst_case_is_clipped_to_a_probability(
    number: float, inverse_temperature: float | None, difference: float, score: float, label: float
):
    config = replace(ORACLE, inverse_temperature=inverse_temperature, rho=0.2)
    answers = Teacher(config, Dice(number), HORIZON).answer(
        chain(1), judged([difference, 0.0]), scores([score])
    )
    assert answers.label.tolist() == [label]


@pytest.mark.parametrize(
    ("score", "chance"),
    [
        # P* = 3/4, moved by 0.1 against h, then flipped with probability 0.1: 0.9 P + 0.1 (1 - P)
        (1.0, 0.62),  # 0.9 * 0.65 + 0.1 * 0.35
        (0.0, 0.70),  # 0.9 * 0.75 + 0.1 * 0.25
        (-1.0, 0.78),  # 0.9 * 0.85 + 0.1 * 0.15
    ],
)
def test_mistakes_come_after_the_adversary(score: float, chance: float):
    config = replace(STOCHASTIC, rho=0.1, mistake=0.1)
    label = teacher(config).answer(repeated(0, 1), judged([np.log(3), 0.0]), scores([score] * N)).label
    assert within_five_errors((label == 1).mean(), chance)


def test_a_mistake_flips_what_is_left_after_clipping():
    """With rho = 1 the answer is certain (against h), and a mistake reverses it: it was not clipped after."""
    config = replace(ORACLE, rho=1.0, mistake=1.0)
    label = teacher(config).answer(couples(2), judged([1, 0, 1, 0]), scores([1.0, -1.0])).label
    assert label.tolist() == [1.0, -1.0]


def test_the_adversary_leaves_ties_and_reads_the_scores_of_the_pairs_that_are_not_skipped():
    config = replace(ORACLE, rho=1.0, skip=0.25, equal=0.25, budget=3)
    # Thresholds are 2: skipped, asked, tie, asked, beyond the budget
    returns = judged([1, 0, 5, 0, 5, 4, 5, 0, 5, 0])
    answers = experienced(config).answer(couples(5), returns, scores([-1.0, 1.0, 1.0, -1.0, 1.0]))
    assert answers.pairs.first.tolist() == [2, 4, 6]
    assert answers.label.tolist() == [-1.0, 0.0, 1.0]


def test_only_an_adversary_needs_a_score():
    worst = teacher(replace(ORACLE, rho=0.1))
    assert worst.needs_score
    with pytest.raises(ValueError, match="needs the score"):
        worst.answer(chain(1), judged([1.0, 0.0]))
    assert (worst.labels, worst.skipped) == (0, 0)
    asked = teacher(ORACLE)
    assert not asked.needs_score
    assert asked.answer(chain(1), judged([1.0, 0.0]), scores([1.0])).label.tolist() == [1.0]


# Normalisation


def test_golden_chances_with_normalised_differences():
    config = replace(ORACLE, inverse_temperature=float(np.log(3)), normalise=True)
    # A difference alone is its own standard deviation, whatever its size and sign: sigmoid(log 3)
    assert_chance(config, [7.0, 0.0], 0.75)
    assert_chance(config, [0.0, 0.001], 0.25)
    # Four differences of +-1 and then one of 4: the mean square is (4 + 16) / 5 = 4, and 4 / 2 = 2:
    # sigmoid(2 log 3) = 9/10. Without the pair that is asked about it would be sigmoid(4 log 3) = 81/82.
    assert_chance(config, [4.0, 0.0], 0.9, first=[1, 0, 0, 1, 6, 5, 0, 1])


def test_normalised_differences_are_weighed_and_those_of_answered_pairs():
    config = replace(STOCHASTIC, normalise=True, discount=0.5, skip=0.25, budget=2)
    config = replace(config, inverse_temperature=float(np.log(3)))
    rows = [
        # return, and with discount 1/2; the threshold is 2
        [24.0, 0.0, 0.0, 0.0],  # 24, 3
        [0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 2.0],  # skipped
        [0.0, 0.0, 0.0, 0.0],
        [8.0, 0.0, 0.0, 4.0],  # 12, 5
        [0.0, 0.0, 0.0, 4.0],  # 4, 4
        [99.0, 0.0, 0.0, 99.0],  # beyond the budget
        [0.0, 0.0, 0.0, 0.0],
    ]
    # Weighed differences 3 and 1: the mean square is 5, and 1 / sqrt(5) = 0.4472. sigmoid(0.4472 log 3)
    chance = 0.62041
    for number, expected in [(chance - 1e-4, 1.0), (chance + 1e-4, -1.0)]:
        asked = Teacher(config, Dice(number), HORIZON)
        asked.observe_episodes(np.array([EPISODE]))
        answers = asked.answer(couples(4), windows(rows))
        assert answers.pairs.first.tolist() == [0, 4]
        assert answers.label[1] == expected


def test_normalising_leaves_ties_thresholds_and_certain_answers():
    config = replace(ORACLE, normalise=True, equal=0.25, tie_margin=0.5, mistake=0.5)
    plain = replace(config, normalise=False)
    returns = judged([3, 0, 0, 3, 1.5, 0, 0, 0, 2000, 0])
    for temperature in (None, 1e9):
        labels = [
            experienced(replace(one, inverse_temperature=temperature)).answer(couples(5), returns).label
            for one in (config, plain)
        ]
        np.testing.assert_array_equal(*labels)


def test_normalising_survives_differences_that_are_all_zero():
    asked = teacher(replace(STOCHASTIC, normalise=True))
    assert len(asked.answer(repeated(0, 0, 0), judged([1.0, 1.0]))) == 0
    assert asked.answer(chain(1), judged([1.0, 1.0])).label.tolist() == [0.0]


# Draws


KNOBS = [
    ORACLE,
    STOCHASTIC,
    replace(STOCHASTIC, normalise=True),
    replace(ORACLE, mistake=1.0),
    replace(STOCHASTIC, skip=0.25, equal=0.25, tie_margin=0.1, discount=0.9),
    replace(ORACLE, skip=1e6),
    replace(ORACLE, rho=0.5),
    replace(STOCHASTIC, budget=2, bpref_compat=True),
]


@pytest.mark.parametrize("config", KNOBS)
def test_the_numbers_drawn_depend_on_the_questions_alone(config: OracleConfig):
    rng = np.random.default_rng(3)
    asked = Teacher(config, rng, HORIZON)
    asked.observe_episodes(np.array([EPISODE]))
    asked.answer(chain(5), judged([0.0, 0.0, 9.0, -9.0, 1.0, 2.0]), scores([1.0, -1.0, 0.0, 1.0, 1.0]))
    expected = np.random.default_rng(3)
    expected.random((5, 2))
    assert rng.bit_generator.state == expected.bit_generator.state

    if config.rho == 0:
        asked.rank(np.arange(6).reshape(2, 3), judged([0.0, 0.0, 9.0, -9.0, 1.0, 2.0]))
        expected.gumbel(size=6)
        assert rng.bit_generator.state == expected.bit_generator.state


def test_teachers_can_be_compared_question_by_question():
    """A teacher that skips, or draws ties, answers the other questions as one that does not."""
    returns = judged(np.random.default_rng(1).normal(2.0, 1.0, 2 * 500).tolist())
    plain = experienced(STOCHASTIC).answer(couples(500), returns)
    for config in (replace(STOCHASTIC, skip=0.25), replace(STOCHASTIC, equal=0.125)):
        answers = experienced(config).answer(couples(500), returns)
        same = plain.label[answers.pairs.group][answers.label != 0]
        assert 100 < len(same) < 400
        np.testing.assert_array_equal(answers.label[answers.label != 0], same)


# Budget


def test_without_a_budget_answers_are_counted_and_never_spent():
    asked = teacher(ORACLE)
    for _ in range(3):
        asked.answer(chain(5), judged([0.0] * 6))
    assert (asked.labels, asked.skipped, asked.remaining, asked.spent) == (15, 0, None, False)


@pytest.mark.parametrize("config", [ORACLE, STOCHASTIC])
def test_a_budget_is_kept_to_the_label(config: OracleConfig):
    asked = teacher(replace(config, budget=12))
    given_answers = []
    for _ in range(3):
        assert not asked.spent
        given_answers.append(asked.answer(chain(5), judged([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])))
        assert asked.labels + (asked.remaining or 0) == 12
    assert [len(answers) for answers in given_answers] == [5, 5, 2]
    last = given_answers[-1].pairs
    assert (last.first.tolist(), last.second.tolist()) == ([0, 1], [1, 2])
    assert (asked.labels, asked.remaining, asked.spent) == (12, 0, True)
    assert len(asked.answer(chain(5), judged([0.0] * 6))) == 0
    assert asked.skipped == 0


def test_a_budget_of_one_label_is_not_spent_before_it_is_used():
    asked = teacher(replace(ORACLE, budget=1))
    assert (asked.remaining, asked.spent) == (1, False)
    assert len(asked.answer(chain(2), judged([0.0, 1.0, 2.0]))) == 1
    assert (asked.remaining, asked.spent) == (0, True)


def test_a_budget_that_ends_with_a_batch_is_spent():
    asked = teacher(replace(ORACLE, budget=5))
    assert len(asked.answer(chain(5), judged([0.0] * 6))) == 5
    assert asked.spent


def test_a_tie_costs_a_label():
    asked = teacher(replace(ORACLE, budget=2))
    assert asked.answer(chain(2), judged([1.0, 1.0, 1.0])).label.tolist() == [0.0, 0.0]
    assert asked.spent


@pytest.mark.parametrize(
    ("budget", "answered", "skipped"),
    [
        # Questions 0, 2 and 5 are worth an answer. The one after the last label is not asked any more.
        (1, [0], 0),
        (2, [0, 2], 1),
        (3, [0, 2, 5], 3),
        (4, [0, 2, 5], 4),
    ],
)
def test_skipped_pairs_do_not_count_in_the_budget(budget: int, answered: list[int], skipped: int):
    asked = experienced(replace(ORACLE, skip=0.25, budget=budget))
    returns = [5, 0, 1, 0, 5, 0, 1, 0, 1, 0, 5, 0, 1, 0]
    answers = asked.answer(couples(7), judged([float(value) for value in returns]))
    assert answers.pairs.group.tolist() == answered
    assert (asked.labels, asked.skipped, asked.spent) == (len(answered), skipped, budget < 4)


def test_a_restored_teacher_goes_on_as_the_one_that_was_saved():
    config = replace(STOCHASTIC, normalise=True, skip=0.25, budget=2)
    saved = experienced(config)
    saved.answer(couples(4), judged([5.0, 0.0, 1.0, 0.0, 9.0, 0.0, 7.0, 0.0]))
    state = saved.state()
    new = teacher(config).state()
    assert all(state[name] != new[name] for name in new), "each part is another one than at the start"
    assert all(type(episode) is float for episode in state["episodes"])
    restored = teacher(config)
    restored.restore(state)
    assert restored.state() == state
    for each in (saved, restored):
        each.observe_episodes(np.arange(12.0))
    assert restored.state() == saved.state()
    assert saved.state()["episodes"] == list(np.arange(2.0, 12.0))


# Rankings


def groups(count: int, forks: int) -> IntArray:
    return np.arange(count * forks).reshape(count, forks)


def test_golden_rankings_of_the_oracle():
    returns = judged([1.0, 3.0, 2.0, -1.0, -5.0, 7.0])
    ranked = teacher(ORACLE).rank(groups(2, 3), returns)
    assert ranked.order.tolist() == [[1, 2, 0], [5, 3, 4]]
    ranked = teacher(ORACLE).rank(np.array([[5, 0, 2, 1]]), returns)
    assert ranked.order.tolist() == [[5, 1, 2, 0]]


def test_a_myopic_teacher_ranks_weighed_returns():
    # With discount 1/2: 0.5, 2, 2 and 3; the sums are 4, 2, 4, 9
    ranked = teacher(replace(ORACLE, discount=0.5)).rank(np.array([[0, 1, 3]]), windows(MYOPIC_ROWS))
    assert ranked.order.tolist() == [[3, 1, 0]]


@pytest.mark.parametrize("inverse_temperature", [0.5, 2.0])
def test_stochastic_rankings_are_plackett_luce(inverse_temperature: float):
    # Strengths 3, 2, 1. The best is chosen in proportion, then the better of the two that are left:
    chances = {
        (0, 1, 2): 3 / 6 * 2 / 3,
        (0, 2, 1): 3 / 6 * 1 / 3,
        (1, 0, 2): 2 / 6 * 3 / 4,
        (1, 2, 0): 2 / 6 * 1 / 4,
        (2, 0, 1): 1 / 6 * 3 / 5,
        (2, 1, 0): 1 / 6 * 2 / 5,
    }
    returns = judged([float(np.log(strength)) / inverse_temperature for strength in (3, 2, 1)])
    config = replace(ORACLE, inverse_temperature=inverse_temperature)
    order = teacher(config).rank(np.tile(np.arange(3), (N, 1)), returns).order
    for expected, chance in chances.items():
        assert within_five_errors((order == expected).all(axis=1).mean(), chance)


def test_a_ranking_of_two_is_an_answer_to_a_pair():
    returns = judged([float(np.log(3)), 0.0])
    order = teacher(STOCHASTIC).rank(np.tile([0, 1], (N, 1)), returns).order
    assert within_five_errors((order[:, 0] == 0).mean(), 0.75)


@pytest.mark.parametrize("config", [ORACLE, replace(ORACLE, bpref_compat=True)])
def test_equal_returns_are_ranked_in_random_order(config: OracleConfig):
    order = teacher(config).rank(np.tile(np.arange(4), (N, 1)), judged([1.0, 5.0, 1.0, 1.0])).order
    assert (order[:, 0] == 1).all()
    for place in (1, 2, 3):
        for row in (0, 2, 3):
            assert within_five_errors((order[:, place] == row).mean(), 1 / 3)


def test_rankings_with_normalised_differences():
    # Returns 5, 3, 3 differ by 2, 2 and 0: the mean square is 8/3. With inverse temperature
    # log(2) sqrt(8/3) / 2 the strengths are 2, 1, 1: the first is the best of three half of the time.
    temperature = float(np.log(2) * np.sqrt(8 / 3) / 2)
    config = replace(ORACLE, inverse_temperature=temperature, normalise=True)
    rows = np.tile(np.arange(3), (N, 1))
    order = teacher(config).rank(rows, judged([5.0, 3.0, 3.0])).order
    assert within_five_errors((order[:, 0] == 0).mean(), 0.5)
    # Differences a hundred times larger after it: the differences of both calls count, half of them each, and
    # 100 / sqrt((1 + 100^2) / 2) = sqrt(2) to four digits: strengths 2^1.4142 = 2.6651, 1, 1
    asked = teacher(config)
    asked.rank(rows, judged([5.0, 3.0, 3.0]))
    order = asked.rank(rows, judged([203.0, 3.0, 3.0])).order
    assert within_five_errors((order[:, 0] == 0).mean(), 0.5713)


def test_a_group_is_skipped_unless_its_best_return_is_above_the_threshold():
    # The threshold is 2; a ranking of three segments is two labels, given or skipped.
    asked = experienced(replace(ORACLE, skip=0.25, discount=0.5))
    returns = windows([[value, 0.0, 0.0, 0.0] for value in (2, 1, 0, 0, 2.25, 1, -1, -2, -3)])
    assert asked.rank(groups(3, 3), returns).order.tolist() == [[4, 5, 3]]
    assert (asked.labels, asked.skipped) == (2, 4)


def test_a_budget_pays_for_whole_rankings():
    asked = teacher(replace(ORACLE, budget=10))
    returns = judged([float(value) for value in range(8)])
    given_rankings = []
    for _ in range(2):
        assert not asked.spent
        given_rankings.append(asked.rank(groups(2, 4), returns))
    # Rankings of four cost three labels: two, then one more; the label left over buys none.
    assert [len(ranked) for ranked in given_rankings] == [2, 1]
    assert given_rankings[1].order.tolist() == [[3, 2, 1, 0]]
    assert (asked.labels, asked.remaining, asked.spent) == (9, 1, True)
    assert asked.rank(groups(2, 4), returns).order.shape == (0, 4)
    assert (asked.labels, asked.skipped) == (9, 0)


def test_a_budget_that_rankings_use_up_exactly_is_spent():
    asked = teacher(replace(ORACLE, budget=6))
    returns = judged([float(value) for value in range(8)])
    assert len(asked.rank(groups(1, 4), returns)) == 1
    assert (asked.remaining, asked.spent) == (3, False)
    assert len(asked.rank(groups(2, 4), returns)) == 1
    assert (asked.remaining, asked.spent) == (0, True)


def test_a_budget_too_small_for_one_ranking_is_spent_once_one_is_asked_for():
    asked = teacher(replace(ORACLE, budget=2))
    assert not asked.spent
    assert len(asked.rank(groups(1, 4), judged([0.0, 1.0, 2.0, 3.0]))) == 0
    assert (asked.labels, asked.remaining, asked.spent) == (0, 2, True)
    assert len(asked.answer(chain(3), judged([0.0, 1.0, 2.0, 3.0]))) == 2, "pairs are cheaper"


def test_skipped_rankings_do_not_count_in_the_budget():
    asked = experienced(replace(ORACLE, skip=0.25, budget=5))
    returns = judged([5.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 5.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 5.0])
    assert asked.rank(groups(5, 3), returns).order[:, 0].tolist() == [0, 7]
    assert (asked.labels, asked.skipped, asked.remaining, asked.spent) == (4, 2, 1, True)


# As the public code has it


def test_bpref_compat_squares_the_shares_after_the_first_session():
    # The share is 1/4, an average window earns 8: thresholds of 2 in the first session, of 1/2 after it.
    config = replace(ORACLE, skip=0.25, equal=0.25, bpref_compat=True)
    returns = judged([1.0, 0.0, 3.0, 2.0, 3.0, 0.0, 0.5, 0.0, 3.0, 2.625])
    sessions = {
        # better returns 1, 3, 3, 0.5, 3; differences 1, 1, 3, 0.5, 0.375
        False: [([1, 2, 4], [0.0, 1.0, 0.0])] * 3,
        True: [([1, 2, 4], [0.0, 1.0, 0.0]), *[([0, 1, 2, 4], [1.0, 1.0, 1.0, 0.0])] * 2],
    }
    for compat, expected in sessions.items():
        asked = experienced(replace(config, bpref_compat=compat))
        for answered, label in expected:
            answers = asked.answer(couples(5), returns)
            assert (answers.pairs.group.tolist(), answers.label.tolist()) == (answered, label)


def test_a_session_counts_from_the_first_threshold_on():
    config = replace(ORACLE, equal=0.25, bpref_compat=True)
    returns = judged([1.0, 0.0])
    asked = teacher(config)
    labels = [asked.answer(chain(1), returns).label[0] for _ in range(2)]
    asked.observe_episodes(np.array([EPISODE]))
    labels += [asked.answer(chain(1), returns).label[0] for _ in range(2)]
    asked.observe_episodes(np.array([9 * EPISODE]))  # the mean is 5 * 200, and 1/16 of 40 is 2.5
    labels += [asked.answer(chain(1), returns).label[0]]
    assert labels == [1.0, 1.0, 0.0, 1.0, 0.0]


def test_a_ranking_is_a_session_too():
    asked = experienced(replace(ORACLE, skip=0.25, bpref_compat=True))
    returns = judged([1.0, 0.0])
    assert len(asked.rank(groups(1, 2), returns)) == 0
    assert len(asked.rank(groups(1, 2), returns)) == 1
    assert len(asked.answer(chain(1), returns)) == 1


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"bpref_compat": False}, 0.0),
        ({}, 1.0),  # argmax names the first of equals
        ({"mistake": 1.0}, -1.0),
        ({"tie_margin": 0.5}, 0.0),  # a margin that was asked for holds
    ],
)
def test_bpref_compat_prefers_the_first_of_equals(changes: dict[str, float], label: float):
    config = replace(replace(ORACLE, bpref_compat=True), **changes)
    assert teacher(config).answer(chain(1), judged([2.0, 2.0])).label.tolist() == [label]


def test_bpref_compat_draws_between_equals_with_a_temperature():
    assert_chance(replace(STOCHASTIC, bpref_compat=True), [2.0, 2.0], 0.5)


def test_the_adversary_works_on_the_first_of_equals_too():
    assert_chance(replace(ORACLE, rho=0.25, bpref_compat=True), [2.0, 2.0], 0.75, score=1.0)


# Presets


SHARE_OF_FIRST = {
    # Windows of 2 steps, an average one earns 500 * 2 / 100 = 10: thresholds of 0.1 are 1. Three pairs:
    # [0, 3] and [1, 0], [0.5, 0] and [0, 0.25], [2, 0] and [0, 1.9]; with discount 0.9 the last two are
    # 0.45 and 0.25, 1.8 and 1.9. The policy favours the first, the second, the first.
    "oracle": [1.0, 1.0, 1.0],
    "stochastic": [0.880797, 0.562177, 0.524979],  # sigmoid of 2, 0.25, 0.1
    "myopic": [1.0, 1.0, 0.0],
    "mistake": [0.9, 0.9, 0.9],
    "skip": [1.0, None, 1.0],  # 0.5 is not above 1
    "equal": [1.0, 0.5, 0.5],  # 0.25 and 0.1 are below 1
    "worst_case": [0.9, 1.0, 0.9],
}
"""Mean of (1 + label) / 2 for each preset and pair; None is skipped."""


def test_every_preset_is_known():
    assert set(SHARE_OF_FIRST) == {path.stem for path in (conf_dir() / "oracle").glob("*.yaml")}


@pytest.mark.parametrize("name", SHARE_OF_FIRST)
def test_golden_shares_of_the_presets(name: str):
    asked = experienced(preset(f"oracle={name}"), episode=500.0)
    rewards = windows([[0, 3], [1, 0], [0.5, 0], [0, 0.25], [2, 0], [0, 1.9]])
    for question, share in enumerate(SHARE_OF_FIRST[name]):
        h = scores([-1.0 if question == 1 else 1.0] * N)
        label = asked.answer(repeated(2 * question, 2 * question + 1), rewards, h).label
        assert len(label) == (0 if share is None else N)
        if share is not None:
            assert (label == 0).all() == (share == 0.5)
            assert within_five_errors((1 + label.mean()) / 2, share)


def test_presets_compose():
    config = preset("oracle=skip", "oracle.equal=0.25", "oracle.mistake=1", "oracle.bpref_compat=true")
    # Thresholds 0.1 * 8 and 0.25 * 8: skipped, flipped, a tie
    answers = experienced(config).answer(couples(3), judged([0.5, 0.0, 5.0, 0.0, 1.0, 0.0]))
    assert (answers.pairs.group.tolist(), answers.label.tolist()) == ([1, 2], [-1.0, 0.0])


# Trouble


@pytest.mark.parametrize("config", [ORACLE, STOCHASTIC, replace(ORACLE, skip=1.0)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_return_that_is_not_finite_stops_the_run(config: OracleConfig, bad: float):
    asked = experienced(config)
    with pytest.raises(RunError, match="the true returns of 1 segments are not finite"):
        asked.answer(chain(2), judged([0.0, bad, 1.0]))
    with pytest.raises(RunError, match="the true returns of 2 segments are not finite"):
        asked.rank(groups(1, 3), judged([bad, bad, 1.0]))
    with pytest.raises(RunError, match="the true returns of 1 episodes are not finite"):
        asked.observe_episodes(np.array([1.0, bad]))
    assert (asked.labels, asked.skipped) == (0, 0)


def test_the_teachers_draws_never_shift_the_policys():
    """The same run under a teacher that draws and one that does not: the same behaviour, step for step."""
    simulator = TaskSimulator(ALL_TASKS["reacher-v5"]())
    seen = {}
    for name, config in {"oracle": ORACLE, "stochastic": STOCHASTIC}.items():
        rng = named_generators(5)
        rollout = RolloutConfig(4, 2, None, None, 0.5, 0.0, "unrelated")
        collector = Collector(simulator, rollout, 5, 8, rng)
        policy_config = PolicyConfig("mlp", [8], 0, 0.6, True, False)
        policy = GaussianPolicy(policy_config, simulator.spec, rng.init)
        asked, batches = Teacher(config, rng.oracle, simulator.spec.horizon), []
        for _ in range(3):
            collected = collector.collect(policy)
            asked.observe_episodes(collected.episode_returns)
            asked.answer(collected.pairs, collected.judged)
            batches.append(collected)
        seen[name] = batches
    for one, two in zip(seen["oracle"], seen["stochastic"], strict=True):
        np.testing.assert_array_equal(one.segments.actions, two.segments.actions)
        np.testing.assert_array_equal(one.segments.obs, two.segments.obs)
        np.testing.assert_array_equal(one.judged.rewards, two.judged.rewards)
        np.testing.assert_array_equal(one.pairs.second, two.pairs.second)
    simulator.close()


def test_skipped_questions_add_up_over_the_calls():
    asked = experienced(replace(ORACLE, skip=1e6))
    for calls in (1, 2, 3):
        assert len(asked.answer(couples(2), judged([1.0, 2.0, 3.0, 4.0]))) == 0
        assert asked.skipped == 2 * calls
    asked.rank(np.array([[0, 1, 2]]), judged([1.0, 2.0, 3.0]))
    assert asked.skipped == 6 + 2
    assert asked.labels == 0
