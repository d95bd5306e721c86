"""Statistics of a comparison: performance, differences, confidence and stability of the arms.

Every arm is compared with one baseline, on each task and over all tasks, in scores normalised per task
(``scores``). ``docs/statistics.md`` defines each number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sailctl.analysis import statistics
from sailctl.analysis.contrasts import NOTHING, OVERALL, Contrast, Options, contrasts, scopes_of
from sailctl.analysis.evidence import Arm, Evidence, Trial
from sailctl.analysis.scores import (
    AUC,
    FINAL,
    STABILITY,
    Scale,
    Scores,
    collapsed,
    common_curves,
    scale_of,
    scores_of,
    strata_of,
)
from sailctl.analysis.statistics import Estimate
from sailctl.core.types import DoubleArray

PROFILE_POINTS = 101
BASELINES = ("sail", "sail_segments", "dpo_online", "dpo_online_segments")
"""Default baselines: the first of these algorithms that has an arm, otherwise the first arm by name."""


@dataclass(frozen=True)
class Performance:
    """One arm on one task, or over all of them."""

    arm: str
    task: str
    """Id of the task, or ``OVERALL``."""
    seeds: int
    """Number of runs, including failed ones."""
    unfinished: int
    """Number of runs that did not finish."""
    collapsed: int
    """Number of finished runs that lost their gain (``scores.COLLAPSE``)."""
    failed: Estimate
    """Share of runs that did not finish or collapsed."""
    final_return: Estimate
    """Mean final true return, in the unit of the task; NaN over all tasks."""
    final: Estimate
    """Mean over tasks of the mean normalised final score over seeds."""
    iqm: float
    """Interquartile mean of all normalised final scores, without an interval."""
    auc: Estimate
    """Mean of the normalised areas under the curve."""
    reached: int
    """Number of runs that reached the threshold after training began."""
    time_to_threshold: float
    """Median env steps to the threshold, with the other runs censored; NaN over all tasks."""
    stability: Mapping[str, Estimate]
    """By key of ``STABILITY``: mean over the finished runs, in units of score."""
    dispersion_across: float
    """Interquartile range over finished runs per evaluation, mean over evaluations and tasks."""
    risk_across: float
    """CVaR 5% of the normalised final score over runs, mean over tasks."""
    kl: float
    """Mean KL(ref || pi) in nats of the iterations before the last three evaluations of finished runs."""


@dataclass(frozen=True)
class Comparison:
    """The result of ``compare``."""

    evidence: Evidence
    options: Options
    baseline: str
    """Name of the baseline arm."""
    scales: Mapping[str, Scale]
    """By task."""
    scores: Scores
    """By arm, task and measure, one score per run; an unfinished run is scored as the floor."""
    performance: tuple[Performance, ...]
    """By arm, then task; ``OVERALL`` is last if there are several tasks."""
    contrasts: tuple[Contrast, ...]
    """By measure, arm and task."""
    thresholds: DoubleArray
    """(T,) scores at which the performance profiles are evaluated."""
    profiles: Mapping[str, DoubleArray]
    """By arm (T, 3): share of runs whose final score is above each threshold, and its 95% band."""

    @property
    def scope(self) -> str:
        """``OVERALL``; with a single task, that task."""
        tasks = self.evidence.tasks
        return OVERALL if len(tasks) > 1 else tasks[0]

    @property
    def scopes(self) -> list[str]:
        """``scope``, then each single task."""
        return list(dict.fromkeys([self.scope, *self.evidence.tasks]))

    @property
    def headlines(self) -> list[Contrast]:
        """The contrasts in the final score over all tasks, one per arm other than the baseline."""
        return [c for c in self.contrasts if c.measure == FINAL.key and c.task == self.scope]

    @property
    def verdict(self) -> list[str]:
        """The main conclusions: one sentence per arm, then the caveats."""
        sentences = [contrast.sentence for contrast in self.headlines]
        if not sentences:
            sentences = ["There is only one arm, and so no comparison."]
        return [*sentences, *self.caveats]

    @property
    def caveats(self) -> list[str]:
        """One sentence for each caveat of the evidence."""
        return [f"Not a fair comparison: {caveat}." for caveat in self.evidence.caveats]

    def of(self, arm: str, task: str) -> Performance:
        """The performance of an arm on a task (or ``OVERALL``)."""
        return next(row for row in self.performance if (row.arm, row.task) == (arm, task))


def compare(evidence: Evidence, options: Options | None = None) -> Comparison:
    """Compare the arms of ``evidence`` on the tasks that they share.

    Raises:
        UserError: when the named baseline is not an arm, or a task has no evaluation.
    """
    options = options or Options()
    baseline = evidence.arm(options.baseline).name if options.baseline else _default_baseline(evidence)
    scales = {task: scale_of(task, evidence, options.scale) for task in evidence.tasks}
    scores = {
        arm.name: {task: scores_of(arm.on(task), scales[task]) for task in evidence.tasks}
        for arm in evidence.arms
    }
    lowest = min(0.0, *(float(s[FINAL.key].min()) for by_task in scores.values() for s in by_task.values()))
    highest = max(1.0, *(float(s[FINAL.key].max()) for by_task in scores.values() for s in by_task.values()))
    thresholds = np.linspace(lowest, highest, PROFILE_POINTS)
    profiles = {
        name: statistics.performance_profile(strata_of(by_task, FINAL), thresholds)
        for name, by_task in scores.items()
    }
    scopes = scopes_of(evidence)
    performance = [
        _performance_on(arm, scope, scales, scores[arm.name], options)
        for arm in evidence.arms
        for scope in scopes
    ]
    compared = contrasts(evidence, baseline, scores, options)
    return Comparison(
        evidence, options, baseline, scales, scores, tuple(performance), compared, thresholds, profiles
    )


def _default_baseline(evidence: Evidence) -> str:
    names = [arm.name for arm in evidence.arms]
    preferred = [arm.name for name in BASELINES for arm in evidence.arms if arm.algorithm == name]
    return [*preferred, *names][0]


def _performance_on(
    arm: Arm,
    tasks: Sequence[str],
    scales: Mapping[str, Scale],
    scores: Mapping[str, Mapping[str, DoubleArray]],
    options: Options,
) -> Performance:
    by_task = {task: arm.on(task) for task in tasks}
    task_scores = {task: scores[task] for task in tasks}
    trials = [trial for members in by_task.values() for trial in members]
    finished = [trial for trial in trials if trial.finished]
    collapses = sum(collapsed(trial, scales[trial.task]) for trial in finished)
    unfinished = len(trials) - len(finished)
    single_task = len(tasks) == 1
    reached, time = _time_to_threshold(trials, scales, options.threshold)
    return Performance(
        arm=arm.name,
        task=tasks[0] if single_task else OVERALL,
        seeds=len(trials),
        unfinished=unfinished,
        collapsed=collapses,
        failed=statistics.proportion(unfinished + collapses, len(trials)),
        final_return=_final_return(by_task[tasks[0]], scales[tasks[0]]) if single_task else NOTHING,
        final=statistics.mean(strata_of(task_scores, FINAL)),
        iqm=float(statistics.iqm(np.concatenate(strata_of(task_scores, FINAL)))),
        auc=statistics.mean(strata_of(task_scores, AUC)),
        reached=reached,
        time_to_threshold=time if single_task else math.nan,
        stability={measure.key: _mean_of(strata_of(task_scores, measure)) for measure in STABILITY},
        dispersion_across=float(np.mean([_dispersion_across(by_task[task], scales[task]) for task in tasks])),
        risk_across=float(np.mean([statistics.risk_across(task_scores[task][FINAL.key]) for task in tasks])),
        kl=_mean([_mean(trial.kl[-3:]) for trial in finished]),
    )


def _final_return(trials: Sequence[Trial], scale: Scale) -> Estimate:
    return _mean_of([np.array([trial.final if trial.finished else scale.floor for trial in trials])])


def _mean_of(strata: Sequence[DoubleArray]) -> Estimate:
    """Mean over tasks of the mean over runs, with its t interval; NaN if a task has no value."""
    if not all(map(len, strata)):
        return NOTHING
    return statistics.mean(strata)


def _time_to_threshold(
    trials: Sequence[Trial], scales: Mapping[str, Scale], threshold: float
) -> tuple[int, float]:
    """Number of runs that reached the score, and the median env steps to the first evaluation that did.

    Evaluations before training do not count, because they do not depend on learning.
    """
    times, reached = [], []
    for trial in trials:
        scores = scales[trial.task].score(trial.returns)
        reaching = np.flatnonzero((scores >= threshold) & (trial.iteration > 0))
        reached.append(len(reaching) > 0)
        ends = trial.env_steps[reaching[:1] if len(reaching) else slice(-1, None)]
        times.append(float(ends[0]) if len(ends) else 0.0)
    return sum(reached), statistics.time_to_threshold(np.array(times), np.array(reached))


def _dispersion_across(trials: Sequence[Trial], scale: Scale) -> float:
    finished = [trial for trial in trials if trial.finished]
    if len(finished) < 2:
        return math.nan
    _, curves = common_curves(finished)
    return statistics.dispersion_across(scale.score(curves))


def _mean(values: Sequence[float] | DoubleArray) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan
