"""Two arms side by side: by how much they differ, how surely, and what may be said of it.

Interval, test and power of a contrast are all about one quantity, the difference of means over tasks
(``statistics.difference``). A verdict needs the test and the interval, which cannot disagree on the sign.
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
"""Stands for the task in what was computed over all of them."""
ALPHA = 0.05
POWER = 0.8
NOTHING = Estimate(math.nan, math.nan, math.nan)
"""What is said of too few runs."""


@dataclass(frozen=True)
class Options:
    """How to compare."""

    baseline: str | None = None
    """Name of the arm that the others are compared with; None chooses one (``compare.BASELINES``)."""
    scale: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """``{task: (return of score 0, return of score 1)}`` in place of what the runs themselves show."""
    source: str = "runs"
    """Where the scale is from: a key of ``scores.SCALES``."""
    threshold: float = 0.5
    """Score whose first reaching after training began is the time to threshold."""
    draws: int = 10_000
    """Random permutations of a test."""
    seed: int = 0
    """Seed of the permutations."""
    effect: float = 0.1
    """Difference in score that power and seeds needed are about: stated before the runs are seen."""


@dataclass(frozen=True)
class Contrast:
    """One arm beside the baseline, in one measure, on one task or over all of them."""

    arm: str
    baseline: str
    task: str
    """Id of the task, or ``OVERALL``."""
    measure: str
    """Key of one of ``MEASURES``."""
    seeds: tuple[int, int]
    """Runs of the arm and of the baseline (on the task that has fewest)."""
    difference: Estimate = NOTHING
    """Arm minus baseline, of means over tasks, in units of score."""
    improvement: Estimate = NOTHING
    """Probability that a run of the arm is better than one of the baseline."""
    paired: Estimate = NOTHING
    """Mean difference between runs of one seed."""
    pairs: int = 0
    """Such pairs."""
    g: float = math.nan
    """Hedges' g, above 0 where the arm has more."""
    p: float = 1.0
    """Two-sided permutation test of the difference."""
    p_holm: float = 1.0
    """The same, adjusted for the family of contrasts it belongs to."""
    family: int = 1
    """Contrasts in that family: the arms, or arms times tasks."""
    power: float = math.nan
    """Chance that so many seeds show a difference of ``Options.effect``, at 5%, with the spread found."""
    seeds_needed: int | None = None
    """Seeds per arm (on each task) for a power of 80%; None above 1,000, or where the spread is unknown."""
    verdict: str = "undecided"
    """``better``, ``worse`` or ``undecided``."""
    sentence: str = ""
    """What can be said."""


def scopes_of(evidence: Evidence) -> list[list[str]]:
    """Each task alone, and all of them where there are several."""
    tasks = list(evidence.tasks)
    return [[task] for task in tasks] + ([tasks] if len(tasks) > 1 else [])


def contrasts(evidence: Evidence, baseline: str, scores: Scores, options: Options) -> tuple[Contrast, ...]:
    """Every arm beside the baseline: in the final score on each task and over all, in the rest over all.

    p-values are adjusted over the arms (and over the tasks, for single tasks) of one measure.
    """
    others = [arm for arm in evidence.arms if arm.name != baseline]
    theirs = evidence.arm(baseline)
    scopes = scopes_of(evidence)
    found: list[Contrast] = []
    for measure in MEASURES:
        for single in (True, False):
            scoped = [s for s in scopes if (len(s) == 1) == single and (measure is FINAL or s is scopes[-1])]
            family = [(arm, scope) for arm in others for scope in scoped]
            tests = [_tested(arm, theirs, scope, measure, scores, options) for arm, scope in family]
            adjusted = statistics.holm(np.array([test.p for test in tests])) if tests else np.zeros(0)
            found += [
                _judged(test, measure, float(p_holm), len(family), options.effect)
                for test, p_holm in zip(tests, adjusted, strict=True)
            ]
    return tuple(found)


def _tested(
    arm: Arm, baseline: Arm, tasks: Sequence[str], measure: Measure, scores: Scores, options: Options
) -> Contrast:
    """A contrast whose family is not known yet."""
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
    """Differences between the runs of a seed that both have (and that have the measure)."""
    of_theirs = {trial.seed: score for trial, score in zip(theirs, their_scores, strict=True)}
    differences = np.array(
        [
            score - of_theirs[trial.seed]
            for trial, score in zip(ours, our_scores, strict=True)
            if trial.seed in of_theirs
        ]
    )
    known: DoubleArray = differences[np.isfinite(differences)]
    return known


def _judged(contrast: Contrast, measure: Measure, p_holm: float, family: int, effect: float) -> Contrast:
    """The contrast with its place in its family, and what can be said."""
    judged = replace(
        contrast,
        p_holm=p_holm,
        family=family,
        verdict=verdict_of(contrast.difference, p_holm, measure.better),
    )
    return replace(judged, sentence=_sentence(judged, measure, effect))


def verdict_of(difference: Estimate, p: float, better: int = 1) -> str:
    """``better`` or ``worse`` where p is below ``ALPHA`` and the interval leaves out 0, else ``undecided``.

    ``better`` is -1 where less is better. Without an interval nothing is decided.
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
        shown = f"{_signed(d.value)} in {measure.name}, " if math.isfinite(d.value) else ""
        per_arm = seeds.removesuffix("s") if ours == theirs == 1 else seeds
        return f"{c.arm} beside {c.baseline} {where}: {shown}{per_arm} per arm, {TOO_FEW}."
    likely = f"{chance.value:.2f}"
    if math.isfinite(chance.low):
        likely += f" [{chance.low:.2f}, {chance.high:.2f}]"
    numbers = (
        f"{_signed(d.value)} [{_signed(d.low)}, {_signed(d.high)}] in {measure.name}, {seeds} per arm, "
        f"probability of improvement {likely}, {_p_value(c)}"
    )
    if c.verdict != "undecided":
        return f"{c.arm} is {c.verdict} than {c.baseline} {where}: {numbers}."
    if not math.isfinite(c.power):
        more = "runs of an arm do not differ, so that its spread is unknown"
    elif c.power >= POWER:
        sure = f"{c.power:.0%}" if c.power < 0.995 else "more than 99%"
        more = f"a difference of {effect:g} would be seen with a chance of {sure}"
        return f"No difference shown between {c.arm} and {c.baseline} {where}: {numbers}; {more}."
    elif c.seeds_needed is None:
        more = f"more than 1,000 seeds per arm would be needed to see a difference of {effect:g}"
    else:
        more = f"a difference of {effect:g} would need {c.seeds_needed} seeds per arm for {POWER:.0%} power"
    return f"Not enough seeds to tell {c.arm} from {c.baseline} {where}: {numbers}; {more}."


def _p_value(c: Contrast) -> str:
    shown = f"p = {c.p_holm:.3f}" if c.p_holm >= 0.001 else "p < 0.001"
    return f"{shown} (Holm over {c.family})" if c.family > 1 else shown


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # adding 0 makes -0 a 0
