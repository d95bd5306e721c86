"""Comparisons: every run counts, the numbers are those of the statistics room, and sentences say no more."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sailctl.analysis import statistics
from sailctl.analysis.arms import gather
from sailctl.analysis.compare import Comparison, compare
from sailctl.analysis.contrasts import OVERALL, Options
from sailctl.analysis.evidence import Trial
from sailctl.analysis.report import latex, markdown, text
from sailctl.analysis.scores import STABILITY, common_curves, read_scale
from sailctl.core.types import UserError
from tests.trials import make_trial

QUICK = Options(draws=500)
TASKS = ("hopper-v5", "swimmer-v5")
SCALE = dict.fromkeys(TASKS, (0.0, 100.0))


def curve(level: float, seed: int = 0) -> list[float]:
    """From 0 to about ``level``, with noise that the seed decides."""
    noise = np.random.default_rng(seed).normal(0, 0.15 * abs(level), 6)
    return [0.0, *(level * np.array([0.2, 0.5, 0.8, 1.0, 1.0, 1.0]) + noise)]


def arms_of(levels: dict[str, float], seeds: int = 6, tasks: tuple[str, ...] = TASKS) -> list[Trial]:
    return [
        make_trial(curve(level, 1000 * i + 100 * len(task) + seed), task=task, algorithm=name, seed=seed)
        for i, (name, level) in enumerate(levels.items())
        for task in tasks
        for seed in range(seeds)
    ]


@pytest.fixture(scope="module")
def clear() -> Comparison:
    """An arm that is better, and one that is the baseline's equal."""
    return compare(gather(arms_of({"sail": 100.0, "sail_revkl": 160.0, "dpo_online": 100.0})), QUICK)


def test_scores_go_from_the_return_before_training_to_the_best_final_one():
    trials = [make_trial([10, 20, 30, 30, 30]), make_trial([30, 90, 120, 120, 120], algorithm="sail_revkl")]
    comparison = compare(gather(trials), QUICK)
    scale = comparison.scales["hopper-v5"]
    assert (scale.zero, scale.one, scale.floor) == (20.0, 120.0, 10.0)
    assert comparison.scores["sail"]["hopper-v5"]["final"].tolist() == pytest.approx([0.1])
    assert comparison.scores["sail_revkl"]["hopper-v5"]["final"].tolist() == [1.0]
    given = compare(gather(trials), Options(draws=500, scale={"hopper-v5": (0, 60)}))
    assert given.scores["sail"]["hopper-v5"]["final"].tolist() == [0.5]
    assert given.scores["sail_revkl"]["hopper-v5"]["final"].tolist() == [2.0]


def test_where_nothing_was_gained_the_unit_is_the_return_itself():
    comparison = compare(gather([make_trial([10, 5, 5, 5]), make_trial([10, 4, 4, 4], seed=1)]), QUICK)
    assert comparison.scores["sail"]["hopper-v5"]["final"].tolist() == [-5.0, -6.0]


def test_a_run_that_did_not_finish_has_the_score_of_the_floor_and_keeps_its_seat():
    good = [make_trial([0, 100, 100, 100, 100], seed=seed) for seed in range(3)]
    lost = make_trial([0, -100], seed=3, state="failed", error="NaN")
    comparison = compare(gather([*good, lost]), QUICK)
    assert comparison.scores["sail"]["hopper-v5"]["final"].tolist() == [1.0, 1.0, 1.0, -1.0]
    row = comparison.of("sail", "hopper-v5")
    assert (row.seeds, row.unfinished, row.collapsed) == (4, 1, 0)
    assert row.failed == statistics.proportion(1, 4)
    assert row.final_return.value == pytest.approx((3 * 100 - 100) / 4)
    assert row.risk_across == -1.0
    assert math.isnan(comparison.scores["sail"]["hopper-v5"]["drawdown"][3]), "a failed run has no stability"
    assert all(math.isfinite(row.stability[measure.key].value) for measure in STABILITY)


def test_a_run_that_loses_what_it_had_gained_has_collapsed():
    trials = [
        make_trial([0, 50, 100, 49, 49, 49], seed=0),  # ends below half of its best
        make_trial([0, 50, 100, 51, 51, 51], seed=1),
        make_trial([0, 50, 100, 100, 100, 100], seed=2),
        make_trial([0, 10, 20, 1, 1, 1], seed=3),  # never gained a quarter of the scale
        make_trial([0, -5, -5, -5, -5, -5], seed=4),
    ]
    row = compare(gather(trials), QUICK).of("sail", "hopper-v5")
    assert (row.unfinished, row.collapsed) == (0, 1)
    assert row.failed == statistics.proportion(1, 5)


def test_a_row_holds_what_the_statistics_say_of_its_runs(clear: Comparison):
    for task in TASKS:
        scores = clear.scores["sail"][task]
        row = clear.of("sail", task)
        assert row.final == statistics.mean([scores["final"]])
        assert row.iqm == pytest.approx(statistics.iqm(scores["final"]))
        assert row.auc == statistics.mean([scores["auc"]])
        assert row.final.low < row.final.value < row.final.high
        assert row.stability["drawdown"].value == pytest.approx(scores["drawdown"].mean())
        assert row.risk_across == statistics.risk_across(scores["final"])
        runs = clear.evidence.arm("sail").on(task)
        assert row.final_return.value == pytest.approx(np.mean([run.final for run in runs]))
        _, curves = common_curves(runs)
        unit = clear.scales[task].one - clear.scales[task].zero
        assert row.dispersion_across == pytest.approx(statistics.dispersion_across(curves / unit))
    everything = [clear.scores["sail"][task]["final"] for task in TASKS]
    overall = clear.of("sail", OVERALL)
    assert overall.final == statistics.mean(everything)
    assert overall.iqm == pytest.approx(statistics.iqm(np.concatenate(everything)))
    assert overall.seeds == 12
    assert math.isnan(overall.final_return.value), "returns of different tasks have no mean"


def test_a_contrast_holds_what_the_statistics_say_of_its_two_arms(clear: Comparison):
    (contrast,) = [
        c for c in clear.contrasts if (c.arm, c.task, c.measure) == ("sail_revkl", TASKS[0], "final")
    ]
    ours, theirs = (clear.scores[arm][TASKS[0]]["final"] for arm in ("sail_revkl", "sail"))
    assert contrast.difference == statistics.difference([ours], [theirs])
    assert contrast.improvement.value == 1.0
    assert contrast.paired == statistics.mean([ours - theirs])
    assert (contrast.pairs, contrast.seeds) == (6, (6, 6))
    assert contrast.g == statistics.hedges_g([ours], [theirs])
    expected = statistics.permutation_test([ours], [theirs], np.random.default_rng(0), 500)
    assert contrast.p == pytest.approx(expected, abs=0.01)
    assert contrast.power == statistics.power(0.1, [ours], [theirs])
    assert contrast.seeds_needed == statistics.seeds_needed(0.1, [ours], [theirs])


def test_power_is_for_an_effect_stated_beforehand(clear: Comparison):
    larger = compare(clear.evidence, Options(draws=200, effect=0.3))
    for one, other in zip(clear.headlines, larger.headlines, strict=True):
        assert other.power > one.power
        assert (other.seeds_needed or 0) < (one.seeds_needed or 10_000)


def test_sail_is_the_baseline_unless_another_is_named(clear: Comparison):
    assert clear.baseline == "sail"
    assert [c.arm for c in clear.headlines] == ["dpo_online", "sail_revkl"]
    named = compare(clear.evidence, Options(baseline="sail_revkl", draws=500))
    assert [(c.arm, c.verdict) for c in named.headlines] == [("dpo_online", "worse"), ("sail", "worse")]
    with pytest.raises(UserError, match="no arm is called 'sial'"):
        compare(clear.evidence, Options(baseline="sial"))


def test_families_are_arms_over_all_tasks_and_arms_times_tasks_on_each(clear: Comparison):
    families = {(c.task == OVERALL, c.family) for c in clear.contrasts if c.measure == "final"}
    assert families == {(True, 2), (False, 4)}
    for overall in (True, False):
        members = [c for c in clear.contrasts if c.measure == "final" and (c.task == OVERALL) == overall]
        adjusted = statistics.holm(np.array([c.p for c in members]))
        assert [c.p_holm for c in members] == adjusted.tolist()
    assert {c.task for c in clear.contrasts if c.measure != "final"} == {OVERALL}


def test_sentences_say_what_was_found_and_no_more(clear: Comparison):
    equal, better = clear.headlines
    assert better.verdict == "better"
    assert better.sentence.startswith("sail_revkl is better than sail over all tasks: +0.")
    assert "6 seeds per arm" in better.sentence
    assert "(Holm over 2)" in better.sentence
    assert equal.verdict == "undecided"
    assert equal.sentence.startswith("No difference shown between dpo_online and sail over all tasks")
    assert "the power to detect a difference of 0.1 is" in equal.sentence
    finer, _ = compare(clear.evidence, Options(draws=200, effect=0.01)).headlines
    assert finer.sentence.startswith("Not enough seeds to distinguish dpo_online from sail over all tasks")
    assert "detecting a difference of 0.01 with 80% power needs" in finer.sentence
    assert clear.verdict == [equal.sentence, better.sentence]


def test_one_arm_or_one_seed_tells_nothing():
    alone = compare(gather(arms_of({"sail": 1.0})), QUICK)
    assert alone.verdict == ["There is only one arm, and so no comparison."]
    single = compare(gather(arms_of({"sail": 1.0, "sail_revkl": 9.0}, seeds=1)), QUICK)
    (sentence,) = single.verdict
    assert sentence.startswith("sail_revkl versus sail over all tasks: +")
    assert sentence.endswith("in final score, 1 seed per arm, too few seeds for an interval.")
    assert single.headlines[0].verdict == "undecided"


def test_two_seeds_are_never_enough_however_large_the_difference():
    comparison = compare(gather(arms_of({"sail": 1.0, "sail_revkl": 99.0}, seeds=2, tasks=TASKS[:1])), QUICK)
    assert comparison.headlines[0].p >= 1 / 3
    assert comparison.headlines[0].verdict == "undecided"
    both = compare(gather(arms_of({"sail": 1.0, "sail_revkl": 99.0}, seeds=2)), QUICK)
    assert both.headlines[0].sentence.endswith("2 seeds per arm, too few seeds for an interval.")
    assert math.isnan(both.of("sail", OVERALL).final.low)
    assert "Missing intervals: too few seeds." in " ".join(text(both).split())


def test_what_a_run_scored_before_training_does_not_reach_the_threshold():
    trials = [make_trial([80, 20, 60, 100, 100, 100], seed=s) for s in range(3)]
    row = compare(gather(trials), Options(draws=200, scale={"hopper-v5": (0, 100)})).of("sail", "hopper-v5")
    assert (row.reached, row.time_to_threshold) == (3, 2000.0)


def test_all_arms_end_in_one_window_of_env_steps():
    """One arm is evaluated after every 1,000 env steps; the iterations of the other take 2,400."""
    often = [make_trial(range(6), seed=s) for s in range(3)]
    at = np.array([0.0, 2400.0, 4800.0, 7200.0])
    seldom = [
        replace(
            make_trial(at / 1000, algorithm="sail_revkl", seed=s),
            env_steps=at,
            labels=np.arange(4.0) * 50 / 3,
        )
        for s in range(3)
    ]
    comparison = compare(
        gather([*often, *seldom], force=True), Options(draws=200, scale={"hopper-v5": (0, 1)})
    )
    assert {t.window for t in comparison.evidence.trials} == {(5000.0, 1000.0)}
    assert comparison.scores["sail"]["hopper-v5"]["final"].tolist() == pytest.approx([4.0] * 3)
    assert comparison.scores["sail_revkl"]["hopper-v5"]["final"].tolist() == pytest.approx([4.0] * 3)
    assert comparison.scores["sail_revkl"]["hopper-v5"]["auc"].tolist() == pytest.approx([2.5] * 3)
    assert [len(t.returns) for t in comparison.evidence.arm("sail_revkl").trials] == [4] * 3, "nothing is cut"


def test_what_is_unfair_is_said_in_the_verdict():
    trials = [
        *(make_trial(curve(100, s), seed=s) for s in range(3)),
        *(make_trial(curve(300, s), seed=s, algorithm="sail_dpr", labels_each=1) for s in range(3)),
    ]
    comparison = compare(gather(trials, force=True), QUICK)
    assert comparison.verdict[-1].startswith("Not a fair comparison: unequal labels used on hopper-v5")


def test_steadier_is_better_where_less_is_better():
    steady = [make_trial([0, 50, 100, 100, 100, 100 + s], seed=s) for s in range(6)]
    shaky = [make_trial([0, 60, 100, 80 - s, 110, 70 + s], seed=s, algorithm="sail_revkl") for s in range(6)]
    contrasts = {c.measure: c for c in compare(gather([*steady, *shaky]), QUICK).contrasts}
    for key, sign in (
        ("drawdown", 1),
        ("long_term_risk", 1),
        ("dispersion_within", 1),
        ("short_term_risk", -1),
    ):
        assert sign * contrasts[key].difference.value > 0
        assert contrasts[key].improvement.value < 0.5
        assert contrasts[key].verdict == "worse", key


def test_the_time_to_threshold_counts_runs_that_never_got_there():
    trials = [
        make_trial([0, 20, 60, 100, 100, 100], seed=0),  # half of the scale at 2,000 env steps
        make_trial([0, 10, 20, 60, 90, 90], seed=1),  # at 3,000
        make_trial([0, 1, 2, 3, 4, 5], seed=2),  # never
        make_trial([0, 1], seed=3, state="failed"),  # never, and seen until 1,000 only
        make_trial([], seed=4, state="failed"),
    ]
    row = compare(gather(trials), QUICK).of("sail", "hopper-v5")
    assert row.reached == 2
    times, reached = (
        np.array([2000.0, 3000.0, 5000.0, 1000.0, 0.0]),
        np.array([True, True, False, False, False]),
    )
    assert row.time_to_threshold == statistics.time_to_threshold(times, reached)


def test_pairs_are_runs_of_one_seed():
    ours = [make_trial(curve(100 + 10 * s), seed=s) for s in (0, 1, 2)]
    theirs = [make_trial(curve(90 + 10 * s), seed=s, algorithm="sail_revkl") for s in (2, 1, 7)]
    comparison = compare(gather([*ours, *theirs]), QUICK)
    (contrast,) = comparison.headlines
    assert contrast.pairs == 2
    unit = comparison.scales["hopper-v5"].one
    assert contrast.paired.value == pytest.approx(
        np.mean([t.final - o.final for o in ours for t in theirs if t.seed == o.seed]) / unit
    )


def test_the_order_of_the_runs_changes_nothing(clear: Comparison):
    trials = clear.evidence.trials
    again = compare(gather(trials[::-1]), QUICK)
    assert repr(again.performance) == repr(clear.performance), "repr, since nan is not nan"
    assert repr(again.contrasts) == repr(clear.contrasts)


def test_curves_are_put_on_points_that_all_runs_cover():
    short, long = make_trial([0, 1, 2, 3]), make_trial([0, 2, 4, 6, 8], seed=1)
    points, curves = common_curves([short, long])
    assert points[[0, -1]].tolist() == [0, 3000]
    np.testing.assert_allclose(curves, [points / 1000, points / 500])
    labels, _ = common_curves([short, long], "labels")
    assert labels[-1] == 30
    offline = make_trial([0, 1, 2], settings={"algo.responses": "data"})
    assert common_curves([short, offline])[0][-1] == 2, "iterations are all that an offline run has"


NUMBER = st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0])
TRIAL = st.builds(
    make_trial,
    st.lists(NUMBER, max_size=5),
    task=st.sampled_from(TASKS),
    algorithm=st.sampled_from(["sail", "sail_revkl", "dpo_online"]),
    seed=st.integers(0, 3),
    state=st.sampled_from(["finished", "finished", "failed", "running", "interrupted"]),
    labels_each=st.sampled_from([10, 10, 0]),
    settings=st.sampled_from([{}, {}, {"algo.gamma": 1.0}, {"algo.responses": "data"}, {"env_steps": 2000}]),
)


@given(st.lists(TRIAL, min_size=1, max_size=14))
@settings(max_examples=60)
def test_whatever_there_is_can_be_compared_and_said(trials: list[Trial]):
    """Any mixture of runs is compared, or refused in words; no score of a run is lost on the way."""
    try:
        comparison = compare(gather(trials, force=True), Options(draws=100))
    except UserError:
        return
    for arm in comparison.evidence.arms:
        for task in comparison.evidence.tasks:
            assert len(comparison.scores[arm.name][task]["final"]) == len(arm.on(task))
            assert np.isfinite(comparison.scores[arm.name][task]["final"]).all()
    for contrast in comparison.contrasts:
        assert 0 < contrast.p <= contrast.p_holm <= 1
        if math.isfinite(contrast.difference.low):
            assert contrast.difference.low <= contrast.difference.high
    for words in (text(comparison), markdown(comparison), latex(comparison)):
        assert all(arm.name.split()[0] in words.replace("\\_", "_") for arm in comparison.evidence.arms)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 1", "must have lines such as"),
        ("hopper-v5: 3", "must give hopper-v5 the returns of scores 0 and 1"),
        ("hopper-v5: [1, 1]", "two different numbers, got"),
        ("hopper-v5: [1, .nan]", "two different numbers"),
        ("hopper-v5: [1, true]", "two different numbers"),
        ("hopper-v5: [1, 2", "cannot read the scale"),
        (None, "cannot read the scale"),
    ],
)
def test_a_wrong_scale_is_refused_in_one_line(content: str | None, message: str, tmp_path: Path):
    file = tmp_path / "scale.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=message) as refusal:
        read_scale(file)
    assert "\n" not in str(refusal.value)


def test_a_scale_is_read(tmp_path: Path):
    file = tmp_path / "scale.yaml"
    file.write_text("hopper-v5: [20, 3000]\nreacher-v5: [-50, -4.5]\n")
    assert read_scale(file) == {"hopper-v5": (20.0, 3000.0), "reacher-v5": (-50.0, -4.5)}
