"""Statistics of a comparison: which arm is better, by how much, how surely, and how steadily.

Every arm is compared with one baseline, on each task and over all tasks. Scores are put on one scale for each
task: 0 is what random actions earn and 1 what the expert among the reference policies does, or, where a task
has none, the return before training and the best final score of any run, unless a scale is given. A run that
did not finish keeps its seat: its scores are those of the floor. ``docs/statistics.md`` defines each number.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from sailctl import statistics
from sailctl.config import show
from sailctl.evidence import FINAL_EVALUATIONS, Arm, Evidence, Trial
from sailctl.references import scale_of_references
from sailctl.statistics import Estimate, Resampled
from sailctl.types import DoubleArray, UserError

OVERALL = "all tasks"
"""Stands for the task in what was computed over all of them."""
ALPHA = 0.05
POWER = 0.8
COLLAPSE = 0.5
"""A finished run collapsed when it ends with less than this share of the best that it had gained."""
GAIN = 0.25
"""Only a run whose best gain was at least this much of the task's scale can collapse."""
PROFILE_POINTS = 101
NOTHING = Estimate(math.nan, math.nan, math.nan)
"""What is said of too few runs."""
BASELINES = ("sail", "sail_segments", "dpo_online", "dpo_online_segments")
"""Arms that are the baseline when none is named: the first of these that there is, else the first by name."""


Scores = Mapping[str, Mapping[str, Mapping[str, DoubleArray]]]
"""``[arm][task][measure]``: (n,) a number for each run."""


@dataclass(frozen=True)
class Measure:
    """A number of one finished run."""

    key: str
    name: str
    better: int
    """+1 when more is better, -1 when less is."""
    of: Callable[[Trial, DoubleArray], float]
    """Maps the run and its normalised returns (E,) to the number."""


FINAL = Measure(
    "final", "final score", +1, lambda run, y: float(y[run.iteration > 0][-FINAL_EVALUATIONS:].mean())
)
AUC = Measure(
    "auc", "area under the curve", +1, lambda run, y: statistics.area_under_curve(_progress(run), y)
)
STABILITY = (
    Measure("dispersion_within", "dispersion within a run", -1, lambda _, y: statistics.dispersion_within(y)),
    Measure("short_term_risk", "short-term risk", +1, lambda _, y: statistics.short_term_risk(y)),
    Measure("long_term_risk", "long-term risk", -1, lambda _, y: statistics.long_term_risk(y)),
    Measure("drawdown", "final drop from the best", -1, lambda _, y: float(statistics.drawdown(y)[-1])),
)
MEASURES = (FINAL, AUC, *STABILITY)
"""What is computed for every run and compared between arms."""


SCALES = {
    "runs": "0: before training, 1: the best run",
    "references": "0: random actions, 1: the expert reference",
    "file": "0 and 1: as given",
}
"""What scores 0 and 1 stand for, by where the scale is from."""


@dataclass(frozen=True)
class Options:
    """How to compare."""

    baseline: str | None = None
    """Name of the arm that the others are compared with; None chooses one (``BASELINES``)."""
    scale: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """``{task: (return of score 0, return of score 1)}`` in place of what the runs themselves show."""
    source: str = "runs"
    """Where the scale is from: a key of ``SCALES``."""
    threshold: float = 0.5
    """Score whose first reaching is the time to threshold."""
    draws: int = 10_000
    """Bootstrap resamples and random permutations."""
    seed: int = 0
    """Seed of the resampling."""


@dataclass(frozen=True)
class Scale:
    """The returns that count as scores 0 and 1 on a task, and its floor: the lowest of any evaluation."""

    zero: float
    one: float
    floor: float
    """Return that a run which did not finish is given."""

    def score(self, returns: DoubleArray) -> DoubleArray:
        """Normalised ``returns``."""
        return (returns - self.zero) / (self.one - self.zero)


@dataclass(frozen=True)
class Performance:
    """One arm on one task, or over all of them."""

    arm: str
    task: str
    """Id of the task, or ``OVERALL``."""
    seeds: int
    """Runs, the failed ones included."""
    unfinished: int
    """Runs that did not finish."""
    collapsed: int
    """Finished runs that lost what they had gained (``COLLAPSE``)."""
    failed: Estimate
    """Share of runs that did not finish or collapsed."""
    final_return: Estimate
    """Mean final true return (in the task's own unit; NaN over all tasks)."""
    final: Estimate
    """Interquartile mean of the normalised final scores."""
    auc: Estimate
    """Interquartile mean of the normalised areas under the curve."""
    reached: int
    """Runs that reached the threshold."""
    time_to_threshold: Estimate
    """Median env steps until then, runs that never did being censored (NaN over all tasks)."""
    stability: Mapping[str, Estimate]
    """Mean of each of ``STABILITY`` over the finished runs, in units of score, by its key."""
    dispersion_across: float
    """IQR over finished runs at an evaluation, mean over evaluations (and tasks)."""
    risk_across: float
    """CVaR 5% over runs of the normalised final score (mean over tasks)."""
    kl: float
    """Mean KL(ref || pi) of the iterations before the last evaluations of the finished runs."""


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
    difference: Estimate
    """Arm minus baseline: of interquartile means for scores, of means for stability; in units of score."""
    improvement: Estimate
    """Probability that a run of the arm is better than one of the baseline."""
    paired: Estimate
    """Mean difference between runs of one seed."""
    pairs: int
    """Such pairs."""
    g: Estimate
    """Hedges' g, above 0 where the arm has more."""
    p: float
    """Two-sided permutation test of the means."""
    p_holm: float
    """The same, adjusted for the family of contrasts it belongs to."""
    family: int
    """Contrasts in that family: the arms, or arms times tasks."""
    power: float
    """Chance that so many seeds show an effect of the size found, at 5%."""
    seeds_needed: int | None
    """Seeds per arm (on each task) for a power of 80% at the size found; None above 1,000."""
    verdict: str
    """``better``, ``worse`` or ``undecided``."""
    sentence: str
    """What can be said."""


@dataclass(frozen=True)
class Comparison:
    """All that ``compare`` found."""

    evidence: Evidence
    options: Options
    baseline: str
    """Name of the baseline arm."""
    scales: Mapping[str, Scale]
    """By task."""
    scores: Scores
    """By seed; an unfinished run has the floor's."""
    performance: tuple[Performance, ...]
    """By arm, then task; ``OVERALL`` last where there are several tasks."""
    contrasts: tuple[Contrast, ...]
    """By measure, arm and task."""
    thresholds: DoubleArray
    """(T,) scores at which profiles are taken."""
    profiles: Mapping[str, DoubleArray]
    """(T, 3) by arm: share of runs whose final score is above, and its 95% band."""

    @property
    def scope(self) -> str:
        """``OVERALL``, or the only task."""
        tasks = self.evidence.tasks
        return OVERALL if len(tasks) > 1 else tasks[0]

    @property
    def headlines(self) -> list[Contrast]:
        """The contrasts in the final score over everything, one for each arm beside the baseline."""
        return [c for c in self.contrasts if c.measure == FINAL.key and c.task == self.scope]

    @property
    def verdict(self) -> list[str]:
        """The sentences to read first: one for each arm, then the caveats."""
        sentences = [contrast.sentence for contrast in self.headlines]
        if not sentences:
            sentences = ["One arm only: there is nothing to compare it with."]
        return [*sentences, *(f"Not a fair comparison: {caveat}." for caveat in self.evidence.caveats)]

    def of(self, arm: str, task: str) -> Performance:
        """The performance of an arm on a task (or ``OVERALL``)."""
        return next(row for row in self.performance if (row.arm, row.task) == (arm, task))


def compare(evidence: Evidence, options: Options | None = None) -> Comparison:
    """Compare the arms of ``evidence`` on the tasks that they share.

    Raises:
        UserError: when the named baseline is no arm, or nothing was ever evaluated on a task.
    """
    options = options or Options()
    baseline = evidence.arm(options.baseline).name if options.baseline else _default_baseline(evidence)
    scales = {task: _scale_of(task, evidence, options.scale) for task in evidence.tasks}
    scores = {
        arm.name: {task: _scores_of(arm.on(task), scales[task]) for task in evidence.tasks}
        for arm in evidence.arms
    }
    lowest = min(0.0, *(float(s[FINAL.key].min()) for own in scores.values() for s in own.values()))
    highest = max(1.0, *(float(s[FINAL.key].max()) for own in scores.values() for s in own.values()))
    thresholds = np.linspace(lowest, highest, PROFILE_POINTS)
    profiles = {
        name: statistics.performance_profile(_strata(own, FINAL), thresholds, _generator(options))
        for name, own in scores.items()
    }
    resamples = _Resamples(scores, options)
    scopes = _scopes(evidence)
    performance = [
        _performance_on(arm, scope, scales, scores[arm.name], options, resamples)
        for arm in evidence.arms
        for scope in scopes
    ]
    contrasts = _contrasts(evidence, baseline, scores, options, resamples)
    return Comparison(
        evidence, options, baseline, scales, scores, tuple(performance), contrasts, thresholds, profiles
    )


def choose_scale(wanted: str | None, tasks: Sequence[str]) -> tuple[dict[str, tuple[float, float]], str]:
    """The scale from ``references`` or from the ``runs`` themselves, and which of them it is.

    ``wanted`` None takes the references where every one of ``tasks`` has them, else the runs.

    Raises:
        UserError: when references are wanted and a task has none.
    """
    if wanted == "runs":
        return {}, "runs"
    known = scale_of_references()
    if missing := [task for task in tasks if task not in known]:
        if wanted == "references":
            raise UserError(f"--scale references: there is no reference policy of {', '.join(missing)}")
        return {}, "runs"
    return {task: known[task] for task in tasks}, "references"


def read_scale(path: Path) -> dict[str, tuple[float, float]]:
    """A scale from a YAML file of lines such as ``hopper-v5: [20, 3000]``: the returns of scores 0 and 1.

    Raises:
        UserError: when it cannot be read, or a line is not such a pair of different numbers.
    """
    import yaml

    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read the scale {path}: {' '.join(str(error).split())}") from error
    if not isinstance(table, dict):
        raise UserError(f"the scale {path} must have lines such as 'hopper-v5: [20, 3000]'")
    for task, ends in table.items():
        numbers = isinstance(ends, list) and [
            e for e in ends if isinstance(e, int | float) and math.isfinite(e)
        ]
        if not isinstance(ends, list) or numbers != ends or len(ends) != 2 or ends[0] == ends[1]:
            raise UserError(
                f"the scale {path} must give {task} the returns of scores 0 and 1, two different numbers, "
                f"got {show(ends)}"
            )
    return {str(task): (float(ends[0]), float(ends[1])) for task, ends in table.items()}


# Scores


def _scopes(evidence: Evidence) -> list[list[str]]:
    """Each task alone, and all of them where there are several."""
    tasks = list(evidence.tasks)
    return [[task] for task in tasks] + ([tasks] if len(tasks) > 1 else [])


def _default_baseline(evidence: Evidence) -> str:
    names = [arm.name for arm in evidence.arms]
    preferred = [arm.name for known in BASELINES for arm in evidence.arms if arm.algorithm == known]
    return [*preferred, *names][0]


def _scale_of(task: str, evidence: Evidence, given: Mapping[str, tuple[float, float]]) -> Scale:
    trials = [trial for arm in evidence.arms for trial in arm.on(task)]
    returns = [trial.returns for trial in trials if len(trial.returns)]
    finals = [trial.final for trial in trials if trial.finished]
    if not returns:
        raise UserError(f"no run on {task} was ever evaluated")
    floor = float(min(curve.min() for curve in returns))
    if task in given:
        return Scale(*given[task], floor)
    zero = float(np.mean([curve[0] for curve in returns]))
    one = max([zero, *finals])
    return Scale(zero, one if one > zero else zero + 1.0, floor)


def _scores_of(trials: Sequence[Trial], scale: Scale) -> dict[str, DoubleArray]:
    """(n,) each of ``MEASURES`` for every run; NaN where it says nothing (the stability of a failed run)."""
    floor = float(scale.score(np.array(scale.floor)))
    columns: dict[str, list[float]] = {measure.key: [] for measure in MEASURES}
    for trial in trials:
        for measure in MEASURES:
            if trial.finished:
                value = measure.of(trial, scale.score(trial.returns))
            else:
                value = floor if measure in (FINAL, AUC) else math.nan
            columns[measure.key].append(value)
    return {key: np.array(values, dtype=np.float64) for key, values in columns.items()}


def _progress(trial: Trial) -> DoubleArray:
    return trial.along("env_steps" if trial.simulates else "iteration")


def _strata(scores: Mapping[str, Mapping[str, DoubleArray]], measure: Measure) -> list[DoubleArray]:
    """The scores of an arm by task; a failed run has no stability, and is left out of that alone."""
    strata = [own[measure.key] for own in scores.values()]
    return [values[np.isfinite(values)] for values in strata]


def _generator(options: Options) -> np.random.Generator:
    return np.random.default_rng(options.seed)


class _Resamples:
    """Resampled scores of every arm, drawn once for all its contrasts; no two arms share their draws."""

    def __init__(self, scores: Scores, options: Options) -> None:
        self._scores = scores
        self._options = options
        self._drawn: dict[str, Resampled] = {}

    def of(self, arm: str, tasks: Sequence[str], measure: Measure) -> Resampled:
        """One measure of one arm over some tasks."""
        name = " ".join([measure.key, *tasks, arm])
        if name not in self._drawn:
            strata = _strata({task: self._scores[arm][task] for task in tasks}, measure)
            statistic = statistics.iqm if measure in (FINAL, AUC) else _means
            rng = np.random.default_rng([self._options.seed, zlib.crc32(name.encode())])
            self._drawn[name] = statistics.resample(strata, statistic, rng, self._options.draws)
        return self._drawn[name]


def collapsed(trial: Trial, scale: Scale) -> bool:
    """Whether a finished run ends with less than ``COLLAPSE`` of the best that it had gained."""
    curve = scale.score(trial.returns)
    gain = float(curve.max() - curve[0])
    return gain >= GAIN and float(scale.score(np.array(trial.final)) - curve[0]) < COLLAPSE * gain


# One arm


def _performance_on(
    arm: Arm,
    tasks: Sequence[str],
    scales: Mapping[str, Scale],
    scores: Mapping[str, Mapping[str, DoubleArray]],
    options: Options,
    resamples: _Resamples,
) -> Performance:
    by_task = {task: arm.on(task) for task in tasks}
    own = {task: scores[task] for task in tasks}
    trials = [trial for members in by_task.values() for trial in members]
    finished = [trial for trial in trials if trial.finished]
    lost = sum(collapsed(trial, scales[trial.task]) for trial in finished)
    unfinished = len(trials) - len(finished)
    alone = len(tasks) == 1
    reached, time = _time_to_threshold(trials, scales, options.threshold)
    return Performance(
        arm=arm.name,
        task=tasks[0] if alone else OVERALL,
        seeds=len(trials),
        unfinished=unfinished,
        collapsed=lost,
        failed=statistics.proportion(unfinished + lost, len(trials)),
        final_return=_final_return(by_task[tasks[0]], scales[tasks[0]]) if alone else NOTHING,
        final=statistics.interval(resamples.of(arm.name, tasks, FINAL)),
        auc=statistics.interval(resamples.of(arm.name, tasks, AUC)),
        reached=reached,
        time_to_threshold=time if alone else NOTHING,
        stability={measure.key: _mean_of(_strata(own, measure)) for measure in STABILITY},
        dispersion_across=float(np.mean([_dispersion_across(by_task[task], scales[task]) for task in tasks])),
        risk_across=float(np.mean([statistics.risk_across(own[task][FINAL.key]) for task in tasks])),
        kl=_mean([_mean(trial.kl[-3:]) for trial in finished]),
    )


def _final_return(trials: Sequence[Trial], scale: Scale) -> Estimate:
    return _mean_of([np.array([trial.final if trial.finished else scale.floor for trial in trials])])


def _mean_of(strata: Sequence[DoubleArray]) -> Estimate:
    """Mean over tasks of the mean over runs, with its t interval; NaN where a task has no such run."""
    if not all(map(len, strata)):
        return NOTHING
    return statistics.paired_difference(strata)


def _time_to_threshold(
    trials: Sequence[Trial], scales: Mapping[str, Scale], threshold: float
) -> tuple[int, Estimate]:
    """Runs that reached the score, and the median env steps until the first evaluation that did."""
    times, reached = [], []
    for trial in trials:
        if not len(trial.returns):
            times.append(0.0)
            reached.append(False)
            continue
        there = np.flatnonzero(scales[trial.task].score(trial.returns) >= threshold)
        reached.append(len(there) > 0)
        times.append(float(trial.env_steps[there[0] if len(there) else -1]))
    estimate = statistics.time_to_threshold(np.array(times), np.array(reached))
    return sum(reached), estimate


def _dispersion_across(trials: Sequence[Trial], scale: Scale) -> float:
    finished = [trial for trial in trials if trial.finished]
    if len(finished) < 2:
        return math.nan
    _, curves = common_curves(finished)
    return statistics.dispersion_across(scale.score(curves))


def common_curves(trials: Sequence[Trial], axis: str | None = None) -> tuple[DoubleArray, DoubleArray]:
    """Curves of several runs at the same points: (E,) points along ``axis`` and (n, E) returns there.

    Points are evenly spaced over the range that every run covers, as many as an average run has evaluations,
    and returns are interpolated. ``axis`` is one of ``evidence.AXES``; None takes env steps, and iterations
    where a run simulated nothing.

    Raises:
        ValueError: when a run was never evaluated.
    """
    if axis is None:
        axis = "env_steps" if all(trial.simulates for trial in trials) else "iteration"
    along = [trial.along(axis) for trial in trials]
    low, high = max(x[0] for x in along), min(x[-1] for x in along)
    points = np.linspace(low, high, round(float(np.mean([len(x) for x in along]))))
    curves = [np.interp(points, x, trial.returns) for x, trial in zip(along, trials, strict=True)]
    return points, np.stack(curves)


def _mean(values: Sequence[float] | DoubleArray) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


# Two arms


def _contrasts(
    evidence: Evidence,
    baseline: str,
    scores: Scores,
    options: Options,
    resamples: _Resamples,
) -> tuple[Contrast, ...]:
    others = [arm for arm in evidence.arms if arm.name != baseline]
    theirs = evidence.arm(baseline)
    scopes = _scopes(evidence)
    found: list[Contrast] = []
    for measure in MEASURES:
        for single in (True, False):
            scoped = [s for s in scopes if (len(s) == 1) == single and (measure is FINAL or s is scopes[-1])]
            family = [(arm, scope) for arm in others for scope in scoped]
            tests = [
                _tested(arm, theirs, scope, measure, scores, options, resamples) for arm, scope in family
            ]
            adjusted = statistics.holm(np.array([test.p for test in tests])) if tests else np.zeros(0)
            found += [
                _judged(test, measure, float(p_holm), len(family), len(scope))
                for test, p_holm, (_, scope) in zip(tests, adjusted, family, strict=True)
            ]
    return tuple(found)


def _tested(
    arm: Arm,
    baseline: Arm,
    tasks: Sequence[str],
    measure: Measure,
    scores: Scores,
    options: Options,
    resamples: _Resamples,
) -> Contrast:
    """A contrast whose family is not known yet."""
    ours, theirs = (
        _strata({task: scores[side.name][task] for task in tasks}, measure) for side in (arm, baseline)
    )
    contrast = Contrast(
        arm=arm.name,
        baseline=baseline.name,
        task=tasks[0] if len(tasks) == 1 else OVERALL,
        measure=measure.key,
        seeds=(min(map(len, ours)), min(map(len, theirs))),
        difference=NOTHING,
        improvement=NOTHING,
        paired=NOTHING,
        pairs=0,
        g=NOTHING,
        p=1.0,
        p_holm=1.0,
        family=1,
        power=math.nan,
        seeds_needed=None,
        verdict="undecided",
        sentence="",
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
    alone = len(tasks) == 1
    return replace(
        contrast,
        difference=statistics.difference_of(
            *(resamples.of(side.name, tasks, measure) for side in (arm, baseline))
        ),
        improvement=statistics.probability_of_improvement(
            [measure.better * x for x in ours], [measure.better * x for x in theirs]
        ),
        paired=statistics.paired_difference(pairs) if all(map(len, pairs)) else NOTHING,
        pairs=sum(map(len, pairs)),
        g=statistics.hedges_g(ours[0], theirs[0]) if alone else statistics.pooled_hedges_g(ours, theirs),
        p=statistics.permutation_test(ours, theirs, _generator(options), options.draws),
    )


def _means(scores: DoubleArray) -> DoubleArray:
    means: DoubleArray = scores.mean(axis=-1)
    return means


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


def _judged(contrast: Contrast, measure: Measure, p_holm: float, family: int, tasks: int) -> Contrast:
    """The contrast with its place in its family, its power, and what can be said."""
    interval, g, seeds = contrast.difference, contrast.g.value, min(contrast.seeds)
    known = math.isfinite(g)
    # Seeds of every task bear on an effect over all of them.
    total = statistics.seeds_needed(g, POWER) if known and g != 0 else None
    apart = p_holm < ALPHA and (interval.low > 0 or interval.high < 0)
    up = interval.value * measure.better > 0
    judged = replace(
        contrast,
        p_holm=p_holm,
        family=family,
        power=statistics.power(g, seeds * tasks) if known and seeds > 1 else math.nan,
        seeds_needed=None if total is None else math.ceil(total / tasks),
        verdict="undecided" if not apart else "better" if up else "worse",
    )
    return replace(judged, sentence=_sentence(judged, measure))


def _sentence(c: Contrast, measure: Measure) -> str:
    where = "over all tasks" if c.task == OVERALL else f"on {c.task}"
    ours, theirs = c.seeds
    seeds = f"{ours} seeds" if ours == theirs else f"{ours} and {theirs} seeds"
    d, chance = c.difference, c.improvement
    if not math.isfinite(d.low):
        return f"{c.arm} beside {c.baseline} {where}: one seed tells nothing about a difference."
    numbers = (
        f"{_signed(d.value)} [{_signed(d.low)}, {_signed(d.high)}] in {measure.name}, {seeds} per arm, "
        f"probability of improvement {chance.value:.2f} [{chance.low:.2f}, {chance.high:.2f}], {_p_value(c)}"
    )
    if c.verdict != "undecided":
        return f"{c.arm} is {c.verdict} than {c.baseline} {where}: {numbers}."
    if not math.isfinite(c.g.value):
        more = "runs of one arm do not differ, so that an effect has no size"
    elif c.seeds_needed is None:
        more = "more than 1,000 seeds per arm would be needed to see a difference of the size found"
    elif c.seeds_needed > min(c.seeds):
        more = (
            f"a difference of the size found would need {c.seeds_needed} seeds per arm for {POWER:.0%} power"
        )
    else:
        more = "the test and the interval do not agree"
    return f"Not enough seeds to tell {c.arm} from {c.baseline} {where}: {numbers}; {more}."


def _p_value(c: Contrast) -> str:
    shown = f"p = {c.p_holm:.3f}" if c.p_holm >= 0.001 else "p < 0.001"
    return f"{shown} (Holm over {c.family})" if c.family > 1 else shown


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # adding 0 makes -0 a 0
