"""Whether to stop: arms compared after every batch of seeds, with one family-wise error for all the looks.

AdaStop (Mathieu et al. 2023, arXiv 2306.10882): a group-sequential permutation test. It is stated before the
first run how many seeds a batch has and how many batches there may be. After each batch the sum so far of the
differences from the baseline is held against a boundary. The boundary comes from exchanging runs of the two
arms within batches and tasks: by the m-th of K looks at most a share m alpha / K of all exchanges has crossed
any boundary. The largest difference of all arms is looked at first; where it crosses, the arm is decided and
the others are looked at without it (step-down), so that the chance of any wrong decision is at most alpha,
over arms and looks together.
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
"""(batches, tasks, seeds of a batch): scores of an arm, in the order in which seeds were run."""


@dataclass(frozen=True)
class Plan:
    """What is stated before the first run."""

    batch: int = 5
    """Seeds of each arm on each task from one look to the next."""
    batches: int = 6
    """Most looks."""
    alpha: float = ALPHA
    """Chance of any wrong decision, over all arms and looks."""


@dataclass(frozen=True)
class Decision:
    """What is known of one arm beside the baseline."""

    verdict: str
    """``better``, ``worse`` or ``undecided``."""
    look: int
    """The look (from 1 on) at which it was decided, or the last one."""
    difference: float
    """Mean over tasks of the difference in score, of the batches until then."""


def decide(
    arms: Mapping[str, Batches], baseline: Batches, plan: Plan, rng: np.random.Generator, draws: int = 10_000
) -> dict[str, Decision]:
    """Look at each batch in turn, as if the later ones had not been run yet.

    Args:
        arms: scores by arm; an arm needs no more batches once it is decided.
        baseline: those of the arm that the others are compared with.
        plan: what was stated beforehand.
        rng: where the exchanges are drawn from.
        draws: exchanges; the runs as they are count as one more.

    Returns:
        A decision for each arm. Looking ends where an undecided arm lacks a batch.
    """
    sums = {name: _sums(own, baseline[: len(own)], rng_of, draws) for name, own, rng_of in _seeded(arms, rng)}
    found = {name: Decision("undecided", 0, float("nan")) for name in arms}
    undecided = list(arms)
    for look in range(1, min(plan.batches, len(baseline)) + 1):
        if not undecided or min(len(sums[name]) for name in undecided) < look:
            break
        for name in undecided:
            found[name] = Decision("undecided", look, float(sums[name][look - 1, 0]) / look)
        while undecided:
            largest = max(undecided, key=lambda name: abs(sums[name][look - 1, 0]))
            high = _boundary(np.stack([sums[name][:look] for name in undecided]), plan)
            if not abs(sums[largest][look - 1, 0]) > high * (1 + 1e-9):
                break
            difference = found[largest].difference
            found[largest] = Decision("better" if difference > 0 else "worse", look, difference)
            undecided.remove(largest)
    return found


def _seeded(
    arms: Mapping[str, Batches], rng: np.random.Generator
) -> list[tuple[str, Batches, np.random.Generator]]:
    """Each arm with the same generator anew: one exchange is the same for all comparisons."""
    seed = int(rng.integers(2**32))
    return [(name, own, np.random.default_rng(seed)) for name, own in arms.items()]


def _sums(ours: Batches, theirs: Batches, rng: np.random.Generator, draws: int) -> DoubleArray:
    """(batches, 1 + draws) differences summed up over batches: as they are, then for each exchange."""
    batches, tasks, seeds = ours.shape
    found = np.zeros((batches, 1 + draws))
    for b in range(batches):
        for k in range(tasks):
            pooled = np.concatenate([ours[b, k], theirs[b, k]])
            order = rng.permuted(np.broadcast_to(pooled, (draws, 2 * seeds)), axis=1)
            drawn = order[:, :seeds].mean(axis=1) - order[:, seeds:].mean(axis=1)
            found[b] += np.r_[ours[b, k].mean() - theirs[b, k].mean(), drawn] / tasks
    return np.cumsum(found, axis=0)


def _boundary(sums: DoubleArray, plan: Plan) -> float:
    """The boundary at the last look, from sums (arms, looks, exchanges) of the arms that are not decided.

    By the m-th look at most a share of m / batches of alpha has crossed any boundary.
    """
    largest = np.abs(sums).max(axis=0)
    inside = np.ones(largest.shape[1], dtype=bool)
    high = np.inf
    for look, size in enumerate(largest, start=1):
        crossed = int((~inside).sum())
        may_cross = int(look / plan.batches * plan.alpha * len(inside) + 1e-9) - crossed
        left = np.sort(size[inside])[::-1]
        high = float(left[may_cross]) if may_cross < len(left) else -np.inf
        inside &= size <= high * (1 + 1e-9)
    return high


def progress(comparison: Comparison, plan: Plan) -> list[str]:
    """What each arm is known to be, and which seeds to run next, in sentences.

    Batches are the baseline's seeds in their order. An arm has a batch when it has these seeds on every task.

    Raises:
        UserError: when several tasks are on a scale that is made of the runs themselves (it would change from
            look to look), or the plan makes no sense.
    """
    if plan.batch < 2 or plan.batches < 1:
        raise UserError("--batch must be at least 2 and --batches at least 1")
    evidence = comparison.evidence
    if len(evidence.tasks) > 1 and comparison.options.source == "runs":
        raise UserError(
            "--sequential over several tasks needs a scale that no later run can change: "
            "--scale references, or a file"
        )
    baseline = evidence.arm(comparison.baseline)
    seeds = sorted(set.intersection(*({t.seed for t in baseline.on(task)} for task in evidence.tasks)))
    batches = [seeds[i : i + plan.batch] for i in range(0, len(seeds), plan.batch)][: plan.batches]
    whole = [seeds for seeds in batches if len(seeds) == plan.batch]
    arms = {
        arm.name: _batches(comparison, arm.name, whole) for arm in evidence.arms if arm.name != baseline.name
    }
    rng = np.random.default_rng(comparison.options.seed)
    theirs = _batches(comparison, baseline.name, whole)
    found = decide(arms, theirs, plan, rng, comparison.options.draws)
    return [
        *(_told(name, baseline.name, one, plan) for name, one in found.items()),
        _next(found, seeds, plan),
    ]


def _batches(comparison: Comparison, arm: str, batches: list[list[int]]) -> Batches:
    """Scores of an arm, batch by batch, up to the first batch that it lacks a seed of."""
    evidence = comparison.evidence
    of = {
        task: dict(
            zip(
                (trial.seed for trial in evidence.arm(arm).on(task)),
                comparison.scores[arm][task][FINAL.key],
                strict=True,
            )
        )
        for task in evidence.tasks
    }
    found = []
    for seeds in batches:
        if not all(seed in own for own in of.values() for seed in seeds):
            break
        found.append([[own[seed] for seed in seeds] for own in of.values()])
    size = len(batches[0]) if batches else 1
    return np.array(found, dtype=np.float64).reshape(-1, len(evidence.tasks), size)


def _told(arm: str, baseline: str, found: Decision, plan: Plan) -> str:
    if found.look == 0:
        return f"{arm} beside {baseline}: no whole batch of {plan.batch} seeds yet."
    after = f"after {found.look} of {plan.batches} batches ({found.look * plan.batch} seeds)"
    score = f"{found.difference:+.2f} in {FINAL.name}"
    if found.verdict != "undecided":
        return f"{arm} is {found.verdict} than {baseline}: decided {after}, {score}."
    if found.look == plan.batches:
        return f"No difference shown between {arm} and {baseline} {after}, {score}."
    return f"{arm} beside {baseline}: undecided {after}, {score}."


def _next(found: Mapping[str, Decision], seeds: list[int], plan: Plan) -> str:
    """Whether to stop, and what to run where not."""
    error = f"the chance of any wrong decision is at most {plan.alpha:.0%}, over all arms and looks"
    waiting = [name for name, one in found.items() if one.verdict == "undecided" and one.look < plan.batches]
    if not waiting:
        return f"Stop: {error}."
    done = min(found[name].look for name in waiting)
    known = seeds[done * plan.batch : (done + 1) * plan.batch]
    more = (
        f"seeds {', '.join(map(str, known))}" if len(known) == plan.batch else f"the next {plan.batch} seeds"
    )
    return f"Go on: run {more} of {', '.join(waiting)} and of the baseline; {error}."
