"""Who is asked, what it costs, and which labels reach the learner."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sailctl.core.seeding import named_generators
from sailctl.core.types import (
    Ends,
    EnvSpec,
    FloatArray,
    JudgedRewards,
    Pairs,
    PreferenceData,
    Preferences,
    Rankings,
    SegmentBatch,
)
from sailctl.data.rollout import Collected, forked_pairs
from sailctl.preferences.asker import cut_short
from sailctl.preferences.labeller import Labeller, matched_at_random
from sailctl.preferences.oracle import Teacher
from sailctl.sweeps.compose import compose_jobs

SPEC = EnvSpec("halfcheetah-v5", 3, 2, -np.ones(2), np.ones(2), 1000, 0.05)
PROMPTS, STEPS = 12, 6


def collected_of(seed: int = 0, forks: int = 2) -> Collected:
    """Segments whose true reward is the first action, so that a reward model can learn it."""
    rng = np.random.default_rng(seed)
    rows = PROMPTS * forks
    obs = rng.normal(size=(rows, STEPS, 3)).astype(np.float32)
    actions = rng.normal(size=(rows, STEPS, 2)).clip(-1, 1).astype(np.float32)
    mask = np.ones((rows, STEPS), dtype=np.float32)
    window = SegmentBatch(obs, actions, mask, forks)
    return Collected(
        window=window,
        segments=window.head(STEPS // 2),
        judged=JudgedRewards(actions[..., 0].astype(np.float64), mask),
        ends=Ends(rng.normal(size=(rows, 3)).astype(np.float32), np.zeros(rows, bool)),
        pairs=forked_pairs(PROMPTS, forks),
        env_steps=rows * STEPS,
        episode_returns=np.zeros(0),
    )


def labeller_of(*overrides: str, data: PreferenceData | None = None) -> Labeller:
    config = compose_jobs(["algo=sail_revkl_segments", "env=halfcheetah-v5", *overrides]).jobs[0].config
    return Labeller(config, SPEC, named_generators(0), data)


def no_score(segments: SegmentBatch, pairs: Pairs) -> FloatArray:
    raise AssertionError(f"nobody needs the score of {len(pairs)} pairs of {segments.segments} segments")


def truth(collected: Collected, pairs: Pairs) -> np.ndarray:
    returns = collected.judged.returns
    return np.sign(returns[pairs.first] - returns[pairs.second])


def data_of(pairs: int) -> PreferenceData:
    rng = np.random.default_rng(9)
    actions = rng.normal(size=(2 * pairs, STEPS, 2)).clip(-1, 1).astype(np.float32)
    obs = rng.normal(size=(2 * pairs, STEPS, 3)).astype(np.float32)
    segments = SegmentBatch(obs, actions, np.ones((2 * pairs, STEPS), np.float32), 2)
    earned = actions[..., 0].sum(axis=1)
    label = np.sign(earned[0::2] - earned[1::2]).astype(np.float32)
    return PreferenceData(SPEC.id, segments, Preferences(forked_pairs(pairs, 2), label), STEPS // 2)


def test_a_teacher_is_asked_everything_and_counted():
    labeller, collected = labeller_of("oracle=stochastic"), collected_of(forks=3)
    answers = labeller.label(collected, no_score)
    alone = Teacher(
        compose_jobs(["oracle=stochastic"]).jobs[0].config.oracle, named_generators(0).oracle, 1000
    )
    expected = alone.answer(collected.pairs, collected.judged)
    assert isinstance(answers, Preferences)
    np.testing.assert_array_equal(answers.label, expected.label)
    assert labeller.labels == 3 * PROMPTS
    assert labeller.metrics() == {"skip_share": 0.0}


@pytest.mark.parametrize("rule", ["uniform", "kcenter", "disagreement", "kcenter_entropy"])
def test_only_the_chosen_pairs_are_asked_and_only_they_are_learned_from(rule: str):
    labeller = labeller_of("algo.queries=5", f"algo.selection={rule}")
    for iteration in range(3):
        collected = collected_of(iteration)
        answers = labeller.label(collected, no_score)
        assert isinstance(answers, Preferences)
        assert len(set(answers.pairs.group)) == len(answers) == 5
        np.testing.assert_array_equal(answers.label, truth(collected, answers.pairs))
    assert labeller.labels == 15
    assert ("reward_pairs" in labeller.metrics()) == (rule in ("disagreement", "kcenter_entropy"))


def test_a_reward_model_labels_all_pairs_from_the_few_that_the_teacher_answered():
    labeller = labeller_of(
        "algo.labels=reward_model",
        "algo.queries=6",
        "reward.inverse_temperature=null",
        "reward.steps=null",
        "reward.thin=1",
        "reward.epochs=40",
    )
    agreement = []
    for iteration in range(12):
        collected = collected_of(iteration)
        answers = labeller.label(collected, no_score)
        assert isinstance(answers, Preferences)
        assert len(answers) == PROMPTS
        agreement.append((answers.label == truth(collected, answers.pairs)).mean())
    assert labeller.labels == 12 * 6
    assert labeller.metrics()["reward_pairs"] == 12 * 6
    assert np.mean(agreement[-4:]) > 0.8, "chance is 0.5; 48 pairs, standard error 0.06"


def test_a_reward_model_learns_from_the_data_set_first():
    labeller = labeller_of(
        *("algo.labels=reward_model", "algo.queries=0", f"algo.data={__file__}"),
        *("reward.inverse_temperature=null", "reward.steps=null", "reward.thin=1", "reward.epochs=100"),
        data=data_of(200),
    )
    labeller.learn_from_data()
    collected = collected_of()
    answers = labeller.label(collected, no_score)
    assert isinstance(answers, Preferences)
    assert (answers.label == truth(collected, answers.pairs)).mean() > 0.8
    assert labeller.labels == 200, "the data set's answers, and none besides"


def test_questions_about_unrelated_pairs_teach_the_reward_model_and_reach_nobody_else():
    labeller = labeller_of(
        *("algo.labels=reward_model", "reward.questions=unrelated", "algo.queries=8"),
        *("reward.inverse_temperature=null", "reward.steps=null", "reward.thin=1", "reward.epochs=40"),
    )
    agreement = []
    for iteration in range(12):
        collected = collected_of(iteration)
        answers = labeller.label(collected, no_score)
        assert isinstance(answers, Preferences)
        np.testing.assert_array_equal(answers.pairs.first, collected.pairs.first)
        agreement.append((answers.label == truth(collected, answers.pairs)).mean())
    assert labeller.labels == 12 * 8
    assert np.mean(agreement[-4:]) > 0.8, "chance is 0.5; 48 pairs, standard error 0.06"


@pytest.mark.parametrize("level", [3.0, -3.0])
def test_questions_of_unlike_lengths_tell_what_a_step_is_worth(level: float):
    """The reward is the first action and a constant, which equal lengths leave open and a cut one tells."""
    found = {}
    for cut in (0.0, 0.5):
        labeller = labeller_of("experiment=value", "algo.queries=12", f"reward.cut={cut}")
        for iteration in range(60):
            collected = collected_of(iteration)
            judged = JudgedRewards(collected.judged.rewards + level, collected.judged.mask)
            labeller.label(replace(collected, judged=judged), no_score)
        assert labeller.model is not None
        rewards = labeller.model.judge(collected_of(99).window).rewards
        found[cut] = rewards.mean() / rewards.std()
    true = collected_of(99).judged.rewards
    wanted = (true + level).mean() / true.std()
    assert abs(found[0.0]) < 0.2 * abs(wanted)
    assert found[0.5] == pytest.approx(wanted, rel=0.4)


def test_a_share_of_the_windows_is_cut_for_teacher_and_model_alike():
    collected = collected_of(forks=4)
    whole = collected.window, collected.judged
    window, judged = cut_short(*whole, 0.5, np.random.default_rng(0))
    np.testing.assert_array_equal(window.mask, judged.mask)
    np.testing.assert_array_equal(judged.rewards, collected.judged.rewards * window.mask)
    lengths = window.mask.sum(axis=1)
    np.testing.assert_array_equal(window.mask, np.arange(STEPS) < lengths[:, None])
    assert set(lengths) == set(range(1, STEPS + 1))
    assert 0.25 < (lengths < STEPS).mean() < 0.75
    assert cut_short(*whole, 0.0, np.random.default_rng(0)) == whole
    assert (cut_short(*whole, 1.0, np.random.default_rng(0))[0].mask[:, -1] == 0).all()


def test_pairs_matched_at_random_use_each_segment_once():
    pairs = matched_at_random(9, np.random.default_rng(0))
    assert len(pairs) == 4
    assert len({*pairs.first, *pairs.second}) == 8


def test_with_a_value_the_labels_see_a_fall_at_the_end_of_a_segment():
    """Every step earns the same, so that the rewards of two forks never differ: only what follows does."""
    labeller = labeller_of("algo.labels=reward_model", "reward=value", "algo.queries=1", "reward.start=0")
    wrong = []
    for iteration in range(30):
        collected = collected_of(iteration)
        rows = collected.window.segments
        fell = np.arange(rows) % 2 == iteration % 2
        same = replace(
            collected,
            judged=JudgedRewards(np.ones((rows, STEPS)), collected.window.mask),
            ends=Ends(collected.ends.obs, fell),
        )
        labeller.model = SureOfOne()  # type: ignore[assignment]
        answers = labeller.label(same, no_score)
        assert isinstance(answers, Preferences)
        wrong.append((answers.label != np.where(fell[answers.pairs.first], -1.0, 1.0)).mean())
    assert np.mean(wrong[-10:]) == 0
    assert "value_explained" in labeller.metrics()


def test_a_model_that_only_chooses_questions_looks_no_further():
    labeller = labeller_of("reward=value", "algo.queries=5", "algo.selection=disagreement")
    labeller.label(collected_of(), no_score)
    assert labeller.value is None
    assert "reward_pairs" in labeller.metrics()
    assert "value_explained" not in labeller.metrics()


def test_a_model_learns_before_its_labels_move_anybody():
    labeller = labeller_of(
        "algo.labels=reward_model", "algo.queries=6", f"reward.start={5 * STEPS * PROMPTS}"
    )
    sizes = [len(labeller.label(collected_of(seed), no_score)) for seed in range(4)]
    assert sizes == [0, 0, PROMPTS, PROMPTS], "an iteration is 2 x STEPS x PROMPTS env steps"
    assert labeller.labels == labeller.metrics()["reward_pairs"] == 24


class SureOfOne:
    """A reward model that gives 1 for every step."""

    def learn(self, segments: SegmentBatch, preferences: Preferences) -> None:
        """Nothing is left to learn."""

    def judge(self, segments: SegmentBatch) -> JudgedRewards:
        return JudgedRewards(segments.mask.astype(np.float64), segments.mask)

    def metrics(self) -> dict[str, float]:
        return {}


def test_a_policy_that_labels_itself_costs_nothing():
    labeller, collected = labeller_of("algo.labels=policy"), collected_of()
    assert labeller.label(collected, no_score) is collected.pairs
    assert labeller.labels == 0


@pytest.mark.parametrize(("words", "rankings"), [((), PROMPTS), (("algo.queries=5",), 5)])
def test_rankings_cost_one_label_less_than_they_have_segments(words: tuple[str, ...], rankings: int):
    labeller, collected = labeller_of("rollout=ranked", *words), collected_of(forks=4)
    answers = labeller.label(collected, no_score)
    assert isinstance(answers, Rankings)
    assert labeller.labels == 3 * len(answers) == 3 * rankings
    assert (np.diff(collected.judged.returns[answers.order], axis=1) <= 0).all()
    assert (answers.order // 4 == answers.order[:, :1] // 4).all(), "segments of one prompt"


def test_the_worst_teacher_is_given_the_learners_score_of_the_pairs_asked():
    labeller = labeller_of("oracle.rho=1", "oracle.inverse_temperature=1e-9", "algo.queries=7")
    collected, given = collected_of(), []

    def score(segments: SegmentBatch, pairs: Pairs) -> FloatArray:
        assert segments is collected.segments
        given.append(np.where(pairs.group % 2, 1.0, -1.0).astype(np.float32))
        return given[-1]

    answers = labeller.label(collected, score)
    assert isinstance(answers, Preferences)
    np.testing.assert_array_equal(answers.label, -given[0])
    assert len(given[0]) == 7


@pytest.mark.parametrize("labels", ["teacher", "reward_model"])
def test_a_spent_budget_ends_a_run_unless_somebody_else_labels(labels: str):
    labeller = labeller_of(f"algo.labels={labels}", "oracle.budget=15")
    sizes = [len(labeller.label(collected_of(seed), no_score)) for seed in range(3)]
    assert labeller.labels == 15
    assert labeller.exhausted == (labels == "teacher")
    assert sizes == ([PROMPTS, 3, 0] if labels == "teacher" else [PROMPTS] * 3)


def test_the_share_of_skipped_questions_is_logged():
    labeller = labeller_of("oracle=skip", "oracle.skip=1")
    labeller.label(collected_of(), no_score)
    assert labeller.metrics()["skip_share"] == 0.0, "no episode has ended: no threshold"
    collected = collected_of()
    far = replace(collected, episode_returns=np.array([1e6]))
    assert len(labeller.label(far, no_score)) == 0
    assert labeller.metrics()["skip_share"] == 0.5
    assert labeller.labels == PROMPTS
