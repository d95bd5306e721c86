"""Teachers: labels worked out by hand, Bradley-Terry frequencies, and an exact budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sailctl.config import OracleConfig, PolicyConfig, RolloutConfig
from sailctl.oracle import Teacher, bradley_terry
from sailctl.policy import GaussianPolicy
from sailctl.rollout import Collector
from sailctl.seeding import named_generators
from sailctl.simulator import Simulator
from sailctl.types import JudgedRewards, Pairs, RunError
from sailctl_envs import ALL_TASKS

ORACLE = OracleConfig("oracle", inverse_temperature=1.0, tie_margin=0.0, budget=None)
STOCHASTIC = replace(ORACLE, teacher="stochastic")


def judged(returns: list[float]) -> JudgedRewards:
    """Windows of three steps with these returns; the steps differ although the sums are simple."""
    total = np.array(returns)
    rewards = np.stack([total - 1.0, np.full(len(total), 3.0), np.full(len(total), -2.0)], axis=1)
    return JudgedRewards(rewards, np.ones(rewards.shape, np.float32))


def chain(count: int) -> Pairs:
    """Pairs (0, 1), (1, 2), ... of ``count + 1`` segments."""
    return Pairs(np.arange(count), np.arange(1, count + 1), np.arange(count))


def teacher(config: OracleConfig, seed: int = 0) -> Teacher:
    return Teacher(config, np.random.default_rng(seed))


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


@pytest.mark.parametrize("inverse_temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("difference", [-2.0, -0.4, 0.1, 1.0])
def test_stochastic_frequencies_are_bradley_terry(inverse_temperature: float, difference: float):
    n = 20_000
    pairs = Pairs(np.zeros(n, np.int64), np.ones(n, np.int64), np.arange(n))
    config = replace(STOCHASTIC, inverse_temperature=inverse_temperature)
    label = teacher(config, seed=4).answer(pairs, judged([difference, 0.0])).label
    assert set(np.unique(label)) <= {-1.0, 1.0}
    chance = 1.0 / (1.0 + np.exp(-inverse_temperature * difference))
    assert abs((label == 1).mean() - chance) < 5 * np.sqrt(chance * (1 - chance) / n)


def test_answers_to_one_question_are_independent_draws():
    n = 20_000
    pairs = Pairs(np.zeros(n, np.int64), np.ones(n, np.int64), np.arange(n))
    label = teacher(STOCHASTIC).answer(pairs, judged([0.2, 0.0])).label
    assert abs(np.corrcoef(label[:-1], label[1:])[0, 1]) < 5 / np.sqrt(n)


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


def test_without_a_budget_answers_are_counted_and_never_spent():
    asked = teacher(ORACLE)
    for _ in range(3):
        asked.answer(chain(5), judged([0.0] * 6))
    assert (asked.labels, asked.remaining, asked.spent) == (15, None, False)


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


def test_a_budget_that_ends_with_a_batch_is_spent():
    asked = teacher(replace(ORACLE, budget=5))
    assert len(asked.answer(chain(5), judged([0.0] * 6))) == 5
    assert asked.spent


def test_a_tie_costs_a_label():
    asked = teacher(replace(ORACLE, budget=2))
    assert asked.answer(chain(2), judged([1.0, 1.0, 1.0])).label.tolist() == [0.0, 0.0]
    assert asked.spent


@pytest.mark.parametrize("config", [ORACLE, STOCHASTIC])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_return_that_is_not_finite_stops_the_run(config: OracleConfig, bad: float):
    with pytest.raises(RunError, match="not finite"):
        teacher(config).answer(chain(2), judged([0.0, bad, 1.0]))


def test_the_teachers_draws_never_shift_the_policys():
    """The same run under a teacher that draws and one that does not: the same behaviour, step for step."""
    simulator = Simulator(ALL_TASKS["reacher-v5"]())
    seen = {}
    for name, config in {"oracle": ORACLE, "stochastic": STOCHASTIC}.items():
        rng = named_generators(5)
        rollout = RolloutConfig(4, 2, None, None, 0.5, "unrelated")
        collector = Collector(simulator, rollout, 5, 8, rng)
        policy_config = PolicyConfig("mlp", [8], 0, 0.6, True, False)
        policy = GaussianPolicy(policy_config, simulator.spec, rng.init)
        asked, batches = Teacher(config, rng.oracle), []
        for _ in range(3):
            collected = collector.collect(policy)
            asked.answer(collected.pairs, collected.judged)
            batches.append(collected)
        seen[name] = batches
    for one, two in zip(seen["oracle"], seen["stochastic"], strict=True):
        np.testing.assert_array_equal(one.segments.actions, two.segments.actions)
        np.testing.assert_array_equal(one.segments.obs, two.segments.obs)
        np.testing.assert_array_equal(one.judged.rewards, two.judged.rewards)
        np.testing.assert_array_equal(one.pairs.second, two.pairs.second)
    simulator.close()
