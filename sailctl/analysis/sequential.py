"""Sequential comparison: a test after each batch of seeds, with one family-wise error over all looks.

AdaStop (Mathieu et al. 2023, arXiv 2306.10882) is a group-sequential permutation test. The number of seeds
per batch and the maximum number of batches are fixed before the first run. After each batch the cumulative
difference from the baseline is compared with a boundary. The boundary comes from exchanging runs of the two
arms within batches and tasks: by the m-th of K looks at most a share m alpha / K of all exchanges has crossed
any boundary. The arm with the largest difference is tested first. If it crosses, the arm is decided, and the
test continues with the other arms (step-down). The probability of any wrong decision, over all arms and
looks, is at most alpha.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sailctl.analysis.compare import Comparison
from sailctl.analysis.contrasts import ALPHA
from sailctl.analysis.scores import FINAL
from sailctl.core.types import DoubleArray, UserError

Batches = DoubleArray
"""(batches, tasks, seeds per batch) scores of an arm, in the order of its seeds."""


@dataclass(frozen=True)
class Plan:
    """The design of the test, fixed before the first run."""

    batch: int = 5
    """Seeds per batch, arm and task."""
    batches: int = 6
    """Maximum number of batches, and so of looks."""
    alpha: float = ALPHA
    """Family-wise error: probability of any wrong decision, over all arms and looks."""


@dataclass(frozen=True)
class Decision:
    """The decision on one arm compared with the baseline."""

    verdict: str
    """``better``, ``worse`` or ``undecided``."""
    look: int
    """The look, counted from 1, at which the arm was decided, or the last look; 0 before the first."""
    difference: float
    """Mean difference in score over tasks and the batches up to that look."""


def decide(
    arms: Mapping[str, Batches], baseline: Batches, plan: Plan, rng: np.random.Generator, draws: int = 10_000
) -> dict[str, Decision]:
    """Test after each batch in turn, without use of later batches.

    Args:
        arms: scores by arm; an arm needs no more batches once it is decided.
        baseline: scores of the baseline.
        plan: the design of the test.
        rng: source of the random exchanges.
        draws: number of random exchanges; the observed arrangement is added to them.

    Returns:
        A decision per arm. The test ends at the first batch that an undecided arm lacks.
    """
    seed = int(rng.integers(2**32))  # all arms use the same exchanges
    sums = {
        name: _sums(scores, baseline[: len(scores)], np.random.default_rng(seed), draws)
        for name, scores in arms.items()
    }
    decisions = {name: Decision("undecided", 0, float("nan")) for name in arms}
    undecided = list(arms)
    for look in range(1, min(plan.batches, len(baseline)) + 1):
        if not undecided or min(len(sums[name]) for name in undecided) < look:
            break
        for name in undecided:
            decisions[name] = Decision("undecided", look, float(sums[name][look - 1, 0]) / look)
        while undecided:
            largest = max(undecided, key=lambda name: abs(sums[name][look - 1, 0]))
            high = _boundary(np.stack([sums[name][:look] for name in undecided]), plan)
            if not abs(sums[largest][look - 1, 0]) > high * (1 + 1e-9):
                break
            difference = decisions[largest].difference
            decisions[largest] = Decision("better" if difference > 0 else "worse", look, difference)
            undecided.remove(largest)
    return decisions


def _sums(ours: Batches, theirs: Batches, rng: np.random.Generator, draws: int) -> DoubleArray:
    """(batches, 1 + draws) cumulative differences over batches: as observed, then for each exchange."""
    batches, tasks, seeds = ours.shape
    differences = np.zeros((batches, 1 + draws))
    for b in range(batches):
        for k in range(tasks):
            pooled = np.concatenate([ours[b, k], theirs[b, k]])
            order = rng.permuted(np.broadcast_to(pooled, (draws, 2 * seeds)), axis=1)
            drawn = order[:, :seeds].mean(axis=1) - order[:, seeds:].mean(axis=1)
            differences[b] += np.r_[ours[b, k].mean() - theirs[b, k].mean(), drawn] / tasks
    return np.cumsum(differences, axis=0)


def _boundary(sums: DoubleArray, plan: Plan) -> float:
    """The boundary at the last look, from the sums (arms, looks, exchanges) of the undecided arms.

    By the m-th look at most a share m alpha / batches of the exchanges has crossed any boundary.
    """
    largest = np.abs(sums).max(axis=0)
    inside = np.ones(largest.shape[1], dtype=bool)
    high = np.inf
    for look, size in enumerate(largest, start=1):
        crossed = int((~inside).sum())
        may_cross = int(look / plan.batches * plan.alpha * len(inside) + 1e-9) - crossed
        remaining = np.sort(size[inside])[::-1]
        high = float(remaining[may_cross]) if may_cross < len(remaining) else -np.inf
        inside &= size <= high * (1 + 1e-9)
    return high


def check_plan(plan: Plan) -> None:
    """Refuse a plan that cannot be carried out.

    Raises:
        UserError: when a batch has fewer than two seeds, or there is no batch.
    """
    if plan.batch < 2 or plan.batches < 1:
        raise UserError("--batch must be at least 2 and --batches at least 1")


def progress(comparison: Comparison, plan: Plan) -> tuple[dict[str, Decision], list[str]]:
    """The decision on each arm, and all decisions and the seeds to run next in sentences.

    Batches are formed from the baseline's seeds in ascending order. An arm has a batch if it has all these
    seeds on every task.

    Raises:
        UserError: when the scale of several tasks depends on the runs, and so would change between looks; or
            when the plan is invalid.
    """
    check_plan(plan)
    evidence = comparison.evidence
    if len(evidence.tasks) > 1 and comparison.options.source == "runs":
        raise UserError(
            "--sequential over several tasks needs a scale that no later run can change: "
            "--scale references, or a file"
        )
    baseline = evidence.arm(comparison.baseline)
    seeds = sorted(set.intersection(*({t.seed for t in baseline.on(task)} for task in evidence.tasks)))
    batches = [seeds[i : i + plan.batch] for i in range(0, len(seeds), plan.batch)][: plan.batches]
    complete = [seeds for seeds in batches if len(seeds) == plan.batch]
    arms = {
        arm.name: _batches(comparison, arm.name, complete)
        for arm in evidence.arms
        if arm.name != baseline.name
    }
    rng = np.random.default_rng(comparison.options.seed)
    baseline_batches = _batches(comparison, baseline.name, complete)
    decisions = decide(arms, baseline_batches, plan, rng, comparison.options.draws)
    sentences = [_sentence(name, baseline.name, decision, plan) for name, decision in decisions.items()]
    return decisions, [*sentences, _next(decisions, seeds, plan)]


def _batches(comparison: Comparison, arm: str, batches: list[list[int]]) -> Batches:
    """Scores of an arm by batch, up to the first batch of which it lacks a seed."""
    evidence = comparison.evidence
    by_task = {
        task: dict(
            zip(
                (trial.seed for trial in evidence.arm(arm).on(task)),
                comparison.scores[arm][task][FINAL.key],
                strict=True,
            )
        )
        for task in evidence.tasks
    }
    scores = []
    for seeds in batches:
        if not all(seed in by_seed for by_seed in by_task.values() for seed in seeds):
            break
        scores.append([[by_seed[seed] for seed in seeds] for by_seed in by_task.values()])
    size = len(batches[0]) if batches else 1
    return np.array(scores, dtype=np.float64).reshape(-1, len(evidence.tasks), size)


def _sentence(arm: str, baseline: str, decision: Decision, plan: Plan) -> str:
    if decision.look == 0:
        return f"{arm} versus {baseline}: no complete batch of {plan.batch} seeds yet."
    after = f"after {decision.look} of {plan.batches} batches ({decision.look * plan.batch} seeds)"
    score = f"{decision.difference:+.2f} in {FINAL.name}"
    if decision.verdict != "undecided":
        return f"{arm} is {decision.verdict} than {baseline}: decided {after}, {score}."
    if decision.look == plan.batches:
        return f"No difference shown between {arm} and {baseline} {after}, {score}."
    return f"{arm} versus {baseline}: undecided {after}, {score}."


def undecided_arms(decisions: Mapping[str, Decision], plan: Plan) -> list[str]:
    """Arms that are not decided and may have further batches."""
    return [
        name
        for name, decision in decisions.items()
        if decision.verdict == "undecided" and decision.look < plan.batches
    ]


def _next(decisions: Mapping[str, Decision], seeds: list[int], plan: Plan) -> str:
    """Whether to stop, and otherwise what to run next."""
    error = f"the probability of any wrong decision is at most {plan.alpha:.0%}, over all arms and looks"
    undecided = undecided_arms(decisions, plan)
    if not undecided:
        return f"Stop: {error}."
    done = min(decisions[name].look for name in undecided)
    batch = seeds[done * plan.batch : (done + 1) * plan.batch]
    if len(batch) < plan.batch:
        next_seeds = f"the next {plan.batch} seeds"
    else:
        next_seeds = f"seeds {', '.join(map(str, batch))}"
    return f"Continue: run {next_seeds} of {', '.join(undecided)} and of the baseline; {error}."
