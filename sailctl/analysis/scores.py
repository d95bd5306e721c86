"""Scores of runs: the compared measures of each run, normalised per task.

Score 0 is the return of random actions, and score 1 that of the expert reference policy. For a task without
references they are the return before training and the best final return of any run, unless a scale is given.
A run that did not finish stays in the denominator, scored as the floor. ``docs/statistics.md`` defines each
number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sailctl.analysis import statistics
from sailctl.analysis.evidence import Evidence, Trial
from sailctl.core.types import DoubleArray, UserError
from sailctl.core.words import show
from sailctl.policies.references import scale_of_references

COLLAPSE = 0.5
"""A finished run has collapsed if its final gain is below this share of its best gain."""
GAIN = 0.25
"""Smallest best gain, in units of score, of a run that can count as collapsed."""

Scores = Mapping[str, Mapping[str, Mapping[str, DoubleArray]]]
"""``[arm][task][measure]``: (n,) one number per run."""


@dataclass(frozen=True)
class Measure:
    """A number computed from one finished run."""

    key: str
    name: str
    better: int
    """+1 if larger values are better, -1 if smaller values are."""
    of: Callable[[Trial, DoubleArray], float]
    """Maps the run and its normalised returns (E,) to the number."""


FINAL = Measure("final", "final score", +1, lambda run, y: run.at_the_end(y))
AUC = Measure("auc", "area under the curve", +1, lambda run, y: _area(run, y))
STABILITY = (
    Measure("dispersion_within", "dispersion within a run", -1, lambda _, y: statistics.dispersion_within(y)),
    Measure("short_term_risk", "short-term risk", +1, lambda _, y: statistics.short_term_risk(y)),
    Measure("long_term_risk", "long-term risk", -1, lambda _, y: statistics.long_term_risk(y)),
    Measure("drawdown", "final drop from the best", -1, lambda _, y: float(statistics.drawdown(y)[-1])),
)
MEASURES = (FINAL, AUC, *STABILITY)
"""All measures that are compared between arms."""

SCALES = {
    "runs": "0: before training, 1: the best run",
    "references": "0: random actions, 1: the expert reference",
    "file": "0 and 1: as given",
}
"""Meaning of scores 0 and 1, by source of the scale."""


@dataclass(frozen=True)
class Scale:
    """The returns of scores 0 and 1 on a task, and its floor: the lowest return of any evaluation."""

    zero: float
    one: float
    floor: float
    """Return assigned to a run that did not finish."""

    def score(self, returns: DoubleArray) -> DoubleArray:
        """Normalised ``returns``."""
        return (returns - self.zero) / (self.one - self.zero)


def choose_scale(source: str | None, tasks: Sequence[str]) -> tuple[dict[str, tuple[float, float]], str]:
    """The scale of the reference policies, or an empty one, which means that of the runs; and its source.

    Args:
        source: ``references``, ``runs``, or None for the references if all ``tasks`` have them.
        tasks: ids of the tasks.

    Returns:
        ``{task: (return of score 0, return of score 1)}``, and ``references`` or ``runs``.

    Raises:
        UserError: when ``source`` is ``references`` and a task has none.
    """
    if source == "runs":
        return {}, "runs"
    references = scale_of_references()
    if missing := [task for task in tasks if task not in references]:
        if source == "references":
            raise UserError(f"--scale references: there is no reference policy of {', '.join(missing)}")
        return {}, "runs"
    return {task: references[task] for task in tasks}, "references"


def read_scale(path: Path) -> dict[str, tuple[float, float]]:
    """A scale from a YAML file of lines such as ``hopper-v5: [20, 3000]``: the returns of scores 0 and 1.

    Raises:
        UserError: when the file cannot be read, or a line is not a pair of different numbers.
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


def scale_of(task: str, evidence: Evidence, scales: Mapping[str, tuple[float, float]]) -> Scale:
    """The scale of a task: from ``scales`` if it is there, otherwise from its runs.

    Raises:
        UserError: when no run on the task was evaluated.
    """
    trials = [trial for arm in evidence.arms for trial in arm.on(task)]
    returns = [trial.returns for trial in trials if len(trial.returns)]
    finals = [trial.final for trial in trials if trial.finished]
    if not returns:
        raise UserError(f"no run on {task} was ever evaluated")
    floor = float(min(curve.min() for curve in returns))
    if task in scales:
        return Scale(*scales[task], floor)
    untrained = [trial.returns[0] for trial in trials if len(trial.returns) and trial.iteration[0] == 0]
    zero = float(np.mean(untrained)) if untrained else floor
    one = max([zero, *finals])
    return Scale(zero, one if one > zero else zero + 1.0, floor)


def scores_of(trials: Sequence[Trial], scale: Scale) -> dict[str, DoubleArray]:
    """By key of ``MEASURES`` (n,): the measure of each run; NaN for the stability of a failed run."""
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


def _area(trial: Trial, y: DoubleArray) -> float:
    """Normalised area under the curve y (E,) up to the end of the common window."""
    x = trial.along("env_steps" if trial.simulates else "iteration")
    if trial.simulates and trial.window is not None and len(x) > 1:
        end = max(trial.window[0], float(x[0]))
        inside = x < end
        x, y = np.r_[x[inside], end], np.r_[y[inside], np.interp(end, x, y)]
    return statistics.area_under_curve(x, y)


def strata_of(scores: Mapping[str, Mapping[str, DoubleArray]], measure: Measure) -> list[DoubleArray]:
    """The finite values of one measure by task; only stability measures lack failed runs."""
    strata = [by_measure[measure.key] for by_measure in scores.values()]
    return [values[np.isfinite(values)] for values in strata]


def collapsed(trial: Trial, scale: Scale) -> bool:
    """Whether a finished run ends with less than ``COLLAPSE`` of its best gain."""
    curve = scale.score(trial.returns)
    gain = float(curve.max() - curve[0])
    return gain >= GAIN and float(scale.score(np.array(trial.final)) - curve[0]) < COLLAPSE * gain


def common_curves(trials: Sequence[Trial], axis: str | None = None) -> tuple[DoubleArray, DoubleArray]:
    """Curves of n runs at common points: (E,) points along ``axis`` and (n, E) returns at these points.

    The points are evenly spaced over the range that all runs cover; E is the mean number of evaluations.
    Returns are interpolated linearly. ``axis`` is one of ``evidence.AXES``; None uses env steps, or
    iterations if a run does not simulate.

    Raises:
        ValueError: when a run has no evaluation.
    """
    if axis is None:
        axis = "env_steps" if all(trial.simulates for trial in trials) else "iteration"
    along = [trial.along(axis) for trial in trials]
    low, high = max(x[0] for x in along), min(x[-1] for x in along)
    points = np.linspace(low, high, round(float(np.mean([len(x) for x in along]))))
    curves = [np.interp(points, x, trial.returns) for x, trial in zip(along, trials, strict=True)]
    return points, np.stack(curves)
