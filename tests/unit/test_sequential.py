"""Sequential comparison: one error for all looks, and sentences that say what to run next."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from sailctl.analysis.arms import gather
from sailctl.analysis.compare import compare
from sailctl.analysis.contrasts import Options
from sailctl.analysis.evidence import Trial
from sailctl.analysis.sequential import Plan, decide, progress, undecided_arms
from sailctl.analysis.trials import save_trials
from sailctl.cli.main import main
from sailctl.core.types import UserError
from tests.trials import make_trial


def play(gaps: tuple[float, ...], samples: int, plan: Plan) -> list[list[str]]:
    """Verdicts of simulated experiments with normal scores."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(samples):
        shape = (plan.batches, 2, plan.batch)
        arms = {str(i): rng.normal(gap, 1, shape) for i, gap in enumerate(gaps)}
        decisions = decide(arms, rng.normal(size=shape), plan, rng, 400)
        found.append([one.verdict for one in decisions.values()])
    return found


def test_the_first_look_is_a_permutation_test_at_its_share_of_the_level():
    """The boundary lets the share alpha / batches of all exchanges cross, here by enumeration."""
    ours, theirs = np.array([5.0, 6, 7, 9]), np.array([1.0, 2, 3, 4.5])
    pooled = np.r_[ours, theirs]
    sizes = [abs(pooled[list(c)].mean() - np.delete(pooled, c).mean()) for c in combinations(range(8), 4)]
    p = np.mean(np.array(sizes) >= ours.mean() - theirs.mean() - 1e-9)
    assert p == 2 / 70
    for alpha, verdict in ((0.08, "better"), (0.05, "undecided")):
        plan = Plan(batch=4, batches=2, alpha=alpha)
        found = decide({"a": ours[None, None]}, theirs[None, None], plan, np.random.default_rng(0), 20_000)
        assert (found["a"].verdict, found["a"].look) == (verdict, 1)
        assert found["a"].difference == pytest.approx(ours.mean() - theirs.mean())


def test_any_wrong_decision_over_arms_and_looks_is_as_rare_as_stated():
    """Over 400 experiments of three arms and four looks one standard error is 0.011."""
    found = play((0.0, 0.0, 0.0), 400, Plan(batch=4, batches=4))
    assert np.mean([any(v != "undecided" for v in one) for one in found]) <= 0.072


def test_a_stated_effect_is_found_and_its_neighbours_are_not():
    found = play((1.5, 0.0), 100, Plan(batch=4, batches=4))
    assert np.mean([one[0] == "better" for one in found]) > 0.95
    assert np.mean([one[1] != "undecided" for one in found]) <= 0.1
    assert {one[0] for one in play((-1.5,), 50, Plan(batch=4, batches=4))} <= {"worse", "undecided"}


def test_looking_at_later_batches_does_not_change_what_was_decided():
    rng, plan = np.random.default_rng(1), Plan(batch=4, batches=4)
    ours, theirs = rng.normal(1.2, 1, (4, 1, 4)), rng.normal(size=(4, 1, 4))
    every = decide({"a": ours}, theirs, plan, np.random.default_rng(0), 500)["a"]
    for looks in range(1, 5):
        so_far = decide({"a": ours[:looks]}, theirs[:looks], plan, np.random.default_rng(0), 500)["a"]
        assert (so_far.verdict == "undecided") == (looks < every.look)
    assert every.verdict == "better"


def trials(
    gaps: dict[str, float], seeds: dict[str, int], tasks: tuple[str, ...] = ("hopper-v5",)
) -> list[Trial]:
    rng = np.random.default_rng(0)
    return [
        make_trial([0, 0, 0, *np.full(3, gap + rng.normal())], algorithm=name, seed=seed, task=task)
        for name, gap in gaps.items()
        for task in tasks
        for seed in range(seeds[name])
    ]


def test_it_is_said_what_to_run_next():
    """One arm is decided after its first batch and needs no second; the other goes on with the baseline."""
    gaps = {"sail": 0.0, "dpo_online": 9.0, "sail_revkl": 0.1}
    plan = Plan(batch=5, batches=2)
    first = compare(gather(trials(gaps, dict.fromkeys(gaps, 5))), Options(draws=2_000))
    decisions, (decided, open_, advice) = progress(first, plan)
    assert undecided_arms(decisions, plan) == ["sail_revkl"]
    assert decided.startswith("dpo_online is better than sail: decided after 1 of 2 batches (5 seeds), +")
    assert open_.startswith("sail_revkl versus sail: undecided after 1 of 2 batches (5 seeds), ")
    assert advice == (
        "Continue: run the next 5 seeds of sail_revkl and of the baseline; the probability of any wrong "
        "decision is at most 5%, over all arms and looks."
    )
    counts = {"sail": 10, "dpo_online": 5, "sail_revkl": 10}
    decisions, second = progress(compare(gather(trials(gaps, counts)), Options(draws=2_000)), plan)
    assert undecided_arms(decisions, plan) == []
    assert second[0].startswith("dpo_online is better than sail: decided after 1 of 2 batches (5 seeds)")
    assert second[1].startswith(
        "No difference shown between sail_revkl and sail after 2 of 2 batches (10 seeds)"
    )
    assert second[2].startswith("Stop: ")


def test_before_a_whole_batch_nothing_is_said():
    few = compare(gather(trials({"sail": 0.0, "sail_revkl": 9.0}, {"sail": 4, "sail_revkl": 5})), Options())
    _, (undecided, advice) = progress(few, Plan())
    assert undecided == "sail_revkl versus sail: no complete batch of 5 seeds yet."
    assert advice.startswith("Continue: run the next 5 seeds of sail_revkl")


def test_a_scale_that_later_runs_change_is_refused_over_several_tasks(
    capsys: pytest.CaptureFixture[str], tmp_path
):
    arms = trials({"sail": 0.0, "sail_revkl": 9.0}, {"sail": 5, "sail_revkl": 5}, ("hopper-v5", "swimmer-v5"))
    with pytest.raises(UserError, match="a scale that no later run can change"):
        progress(compare(gather(arms), Options(draws=100)), Plan())
    with pytest.raises(UserError, match="--batch must be at least 2"):
        progress(compare(gather(arms), Options(draws=100)), Plan(batch=1))
    save_trials(arms, tmp_path / "arms.csv")
    assert main(["compare", str(tmp_path / "arms.csv"), "--sequential", "--scale", "references"]) == 0
    assert "Stop" in capsys.readouterr().out
