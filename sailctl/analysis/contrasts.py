"""Contrasts between two arms: difference, confidence, test and verdict.

Interval, test and power of a contrast refer to one quantity, the difference of means over tasks
(``statistics.difference``). A verdict requires both the test and the interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sailctl.analysis import statistics
from sailctl.analysis.evidence import Arm, Evidence, Trial
from sailctl.analysis.scores import FINAL, MEASURES, Measure, Scores, strata_of
from sailctl.analysis.statistics import TOO_FEW, Estimate
from sailctl.core.types import DoubleArray

OVERALL = "all tasks"
"""Task name of results over all tasks."""
ALPHA, POWER = 0.05, 0.8
"""Level of all tests, and power for which the number of seeds needed is computed."""
NOTHING = Estimate(math.nan, math.nan, math.nan)
"""The estimate from too few runs."""


@dataclass(frozen=True)
class Options:
    """Options of a comparison."""

    baseline: str | None = None
    """Name of the baseline arm; None chooses one of ``compare.BASELINES``."""
    scale: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """``{task: (return of score 0, return of score 1)}``; other tasks are scaled by their runs."""
    source: str = "runs"
    """Source of the scale: a key of ``scores.SCALES``."""
    threshold: float = 0.5
    """Score that defines the time to threshold."""
    draws: int = 10_000
    """Number of random permutations of a test."""
    seed: int = 0
    """Seed of the permutations."""
    effect: float = 0.1
    """Difference in score for ``power`` and ``seeds_needed``; fixed before the runs are seen."""


@dataclass(frozen=True)
class Contrast:
    """One arm compared with the baseline, in one measure, on one task or over all tasks."""

    arm: str
    baseline: str
    task: str
    """Id of the task, or ``OVERALL``."""
    measure: str
    """Key of one of ``MEASURES``."""
    seeds: tuple[int, int]
    """Number of runs of the arm and of the baseline, on the task with the fewest."""
    difference: Estimate = NOTHING
    """Arm minus baseline: difference of the means over tasks, in units of score."""
    improvement: Estimate = NOTHING
    """Probability that a run of the arm is better than a run of the baseline."""
    paired: Estimate = NOTHING
    """Mean difference between runs with the same seed."""
    pairs: int = 0
    """Number of pairs of runs with the same seed."""
    g: float = math.nan
    """Hedges' g; positive if the arm has the larger mean."""
    p: float = 1.0
    """p-value of the two-sided permutation test of the difference."""
    p_holm: float = 1.0
    """p-value adjusted by Holm's method within its family of contrasts."""
    family: int = 1
    """Number of contrasts in the family: arms, or arms times tasks."""
    power: float = math.nan
    """Power of the test at the 5% level for ``Options.effect``, with these seeds and the observed spread."""
    seeds_needed: int | None = None
    """Seeds per arm and task for a power of 80%; None above 1,000, or if the spread is unknown."""
    verdict: str = "undecided"
    """``better``, ``worse`` or ``undecided``."""
    sentence: str = ""
    """The conclusion in words."""


def scopes_of(evidence: Evidence) -> list[list[str]]:
    """Each task alone, and all tasks together if there are several."""
    tasks = list(evidence.tasks)
    return [[task] for task in tasks] + ([tasks] if len(tasks) > 1 else [])


def contrasts(evidence: Evidence, baseline: str, scores: Scores, options: Options) -> tuple[Contrast, ...]:
    """Contrasts of every other arm with the baseline.

    The final score is compared on each task and over all tasks, the other measures only over all tasks.
    p-values are adjusted within each measure, over the arms, and for single tasks over arms and tasks.
    """
    others = [arm for arm in evidence.arms if arm.name != baseline]
    baseline_arm = evidence.arm(baseline)
    scopes = scopes_of(evidence)
    results: list[Contrast] = []
    for measure in MEASURES:
        for single in (True, False):
            scoped = [s for s in scopes if (len(s) == 1) == single and (measure is FINAL or s is scopes[-1])]
            family = [(arm, scope) for arm in others for scope in scoped]
            tests = [_tested(arm, baseline_arm, scope, measure, scores, options) for arm, scope in family]
            adjusted = statistics.holm(np.array([test.p for test in tests])) if tests else np.zeros(0)
            results += [
                _judged(test, measure, float(p_holm), len(family), options.effect)
                for test, p_holm in zip(tests, adjusted, strict=True)
            ]
    return tuple(results)


def _tested(
    arm: Arm, baseline: Arm, tasks: Sequence[str], measure: Measure, scores: Scores, options: Options
) -> Contrast:
    """A contrast without adjusted p-value, verdict and sentence."""
    ours, theirs = (
        strata_of({task: scores[side.name][task] for task in tasks}, measure) for side in (arm, baseline)
    )
    contrast = Contrast(
        arm=arm.name,
        baseline=baseline.name,
        task=tasks[0] if len(tasks) == 1 else OVERALL,
        measure=measure.key,
        seeds=(min(map(len, ours)), min(map(len, theirs))),
    )
    if min(contrast.seeds) == 0:
        return contrast
    pairs = [
        _paired(
            arm.on(task),
            baseline.on(task),
            *(scores[side.name][task][measure.key] for side in (arm, baseline)),
        )
        for task in tasks
    ]
    return replace(
        contrast,
        difference=statistics.difference(ours, theirs),
        improvement=statistics.probability_of_improvement(
            [measure.better * x for x in ours], [measure.better * x for x in theirs]
        ),
        paired=statistics.mean(pairs) if all(map(len, pairs)) else NOTHING,
        pairs=sum(map(len, pairs)),
        g=statistics.hedges_g(ours, theirs),
        p=statistics.permutation_test(ours, theirs, np.random.default_rng(options.seed), options.draws),
        power=statistics.power(options.effect, ours, theirs),
        seeds_needed=statistics.seeds_needed(options.effect, ours, theirs, POWER),
    )


def _paired(
    ours: Sequence[Trial], theirs: Sequence[Trial], our_scores: DoubleArray, their_scores: DoubleArray
) -> DoubleArray:
    """Differences between runs with the same seed, if both have the measure."""
    score_by_seed = {trial.seed: score for trial, score in zip(theirs, their_scores, strict=True)}
    differences = np.array(
        [
            score - score_by_seed[trial.seed]
            for trial, score in zip(ours, our_scores, strict=True)
            if trial.seed in score_by_seed
        ]
    )
    finite: DoubleArray = differences[np.isfinite(differences)]
    return finite


def _judged(contrast: Contrast, measure: Measure, p_holm: float, family: int, effect: float) -> Contrast:
    """The contrast with adjusted p-value, verdict and sentence."""
    verdict = verdict_of(contrast.difference, p_holm, measure.better)
    contrast = replace(contrast, p_holm=p_holm, family=family, verdict=verdict)
    return replace(contrast, sentence=_sentence(contrast, measure, effect))


def verdict_of(difference: Estimate, p: float, better: int = 1) -> str:
    """``better`` or ``worse`` if p is below ``ALPHA`` and the interval excludes 0, otherwise ``undecided``.

    ``better`` is +1 if larger values are better, -1 if smaller values are. Without an interval the verdict is
    ``undecided``.
    """
    if not p < ALPHA or not (difference.low > 0 or difference.high < 0):
        return "undecided"
    return "better" if difference.low * better > 0 else "worse"


def _sentence(c: Contrast, measure: Measure, effect: float) -> str:
    where = "over all tasks" if c.task == OVERALL else f"on {c.task}"
    ours, theirs = c.seeds
    seeds = f"{ours} seeds" if ours == theirs else f"{ours} and {theirs} seeds"
    d, chance = c.difference, c.improvement
    if not math.isfinite(d.low):
        value = f"{_signed(d.value)} in {measure.name}, " if math.isfinite(d.value) else ""
        per_arm = seeds.removesuffix("s") if ours == theirs == 1 else seeds
        return f"{c.arm} versus {c.baseline} {where}: {value}{per_arm} per arm, {TOO_FEW}."
    improvement = f"{chance.value:.2f}"
    if math.isfinite(chance.low):
        improvement += f" [{chance.low:.2f}, {chance.high:.2f}]"
    numbers = (
        f"{_signed(d.value)} [{_signed(d.low)}, {_signed(d.high)}] in {measure.name}, {seeds} per arm, "
        f"probability of improvement {improvement}, {_p_value(c)}"
    )
    if c.verdict != "undecided":
        return f"{c.arm} is {c.verdict} than {c.baseline} {where}: {numbers}."
    if not math.isfinite(c.power):
        reason = "the runs of an arm do not differ, so that its spread is unknown"
    elif c.power >= POWER:
        power = f"{c.power:.0%}" if c.power < 0.995 else "more than 99%"
        reason = f"the power to detect a difference of {effect:g} is {power}"
        return f"No difference shown between {c.arm} and {c.baseline} {where}: {numbers}; {reason}."
    elif c.seeds_needed is None:
        reason = f"detecting a difference of {effect:g} would need more than 1,000 seeds per arm"
    else:
        needed = f"{c.seeds_needed} seeds per arm"
        reason = f"detecting a difference of {effect:g} with {POWER:.0%} power needs {needed}"
    return f"Not enough seeds to distinguish {c.arm} from {c.baseline} {where}: {numbers}; {reason}."


def _p_value(c: Contrast) -> str:
    text = f"p = {c.p_holm:.3f}" if c.p_holm >= 0.001 else "p < 0.001"
    return f"{text} (Holm over {c.family})" if c.family > 1 else text


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # adding 0 turns -0 into 0
