"""The tables of a comparison as text, formatted alike for terminal, Markdown, LaTeX and HTML."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sailctl.analysis.compare import Comparison
from sailctl.analysis.contrasts import ALPHA, POWER
from sailctl.analysis.evidence import FINAL_EVALUATIONS, Trial
from sailctl.analysis.report.numbers import NOTHING, counts, estimate, number, p_value, places, places_of
from sailctl.analysis.scores import AUC, FINAL, SCALES, STABILITY, collapsed
from sailctl.analysis.statistics import LEVEL, SEEDS_OF_A_MEAN, SEEDS_OF_A_SHARE, TOO_FEW
from sailctl.config import show


class Cell(NamedTuple):
    """A cell of a table."""

    text: str
    bold: bool = False


class Row(NamedTuple):
    """A row with the heading of its group; the heading is empty if the table has no groups."""

    group: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table of text, independent of the output format."""

    title: str
    said: tuple[tuple[str, str], ...]
    """(column, sentence) explaining its numbers; the column is empty if the sentence applies to all."""
    group: str
    """Meaning of the groups of rows, such as ``task``; empty without groups."""
    head: tuple[str, ...]
    """A name for each column; the first column names the rows."""
    align: str
    """``l`` or ``r`` for each column."""
    rows: tuple[Row, ...]

    def only(self, *names: str) -> Table:
        """The table with these columns only."""
        places = [self.head.index(name) for name in names]
        rows = tuple(Row(row.group, tuple(row.cells[i] for i in places)) for row in self.rows)
        align = "".join(self.align[i] for i in places)
        said = tuple((name, sentence) for name, sentence in self.said if name in ("", *names))
        return Table(self.title, said, self.group, names, align, rows)

    @property
    def caption(self) -> str:
        """Explanation of its numbers, in sentences."""
        return " ".join(sentence for _, sentence in self.said)


def performance_table(comparison: Comparison) -> Table:
    """Performance of each arm, over all tasks and on each task.

    The arm with the highest score is bold if its difference from the baseline is decided; the baseline, if
    all its differences are decided.
    """
    head = (
        "arm", "runs", "failed", "final return", "final score", "IQM", "area under the curve",
        "env steps to threshold", "reached it", "KL to reference",
    )  # fmt: skip
    best = {measure.key: _leaders(comparison, measure.key) for measure in (FINAL, AUC)}
    rows = []
    for scope in _scopes(comparison):
        found = [comparison.of(arm.name, scope) for arm in comparison.evidence.arms]
        returns, finals, areas = (
            places_of(getattr(own, name) for own in found) for name in ("final_return", "final", "auc")
        )
        divergence = places((own.kl for own in found), most=6)
        for own in found:
            cells = (
                Cell(_named(comparison, own.arm)),
                Cell(str(own.seeds)),
                Cell(f"{own.unfinished + own.collapsed}/{own.seeds}"),
                Cell(estimate(own.final_return, returns)),
                Cell(estimate(own.final, finals), (own.arm, scope) in best[FINAL.key]),
                Cell(number(own.iqm, finals)),
                Cell(estimate(own.auc, areas), (own.arm, scope) in best[AUC.key]),
                Cell(number(own.time_to_threshold, 0)),
                Cell(f"{own.reached}/{own.seeds}"),
                Cell(number(own.kl, divergence)),
            )
            rows.append(Row(scope, cells))
    return Table("Performance", _performance_said(comparison), "task", head, "lrrrrrrrrr", tuple(rows))


def contrasts_table(comparison: Comparison, stability: bool = False) -> Table:
    """Contrasts with the baseline in final score and area under the curve, or in ``stability``."""
    head = (
        "arm", "verdict", "difference", "P(improvement)", "Hedges' g", "p (Holm)", "p",
        "paired difference", "pairs", "runs",
    )  # fmt: skip
    rows = []
    for measure in STABILITY if stability else (FINAL, AUC):
        for scope in _scopes(comparison):
            found = [c for c in comparison.contrasts if (c.measure, c.task) == (measure.key, scope)]
            differences = places_of(c.difference for c in found)
            for c in found:
                ours, theirs = c.seeds
                cells = (
                    c.arm,
                    c.verdict,
                    estimate(c.difference, differences, "+"),
                    estimate(c.improvement, 2),
                    number(c.g, 2, "+"),
                    p_value(c.p_holm),
                    p_value(c.p),
                    estimate(c.paired, differences, "+"),
                    str(c.pairs),
                    str(ours) if ours == theirs else f"{ours} and {theirs}",
                )
                rows.append(Row(f"{measure.name}, {scope}", tuple(map(Cell, cells))))
    title = f"{'Stability' if stability else 'Scores'} beside {comparison.baseline}"
    return Table(
        title, _about(_contrasts_caption(comparison)), "measure and task", head, "llrrrrrrrr", tuple(rows)
    )


def stability_table(comparison: Comparison) -> Table:
    """Stability measures of each arm, over all tasks and on each task."""
    head = (
        "arm", "dispersion across runs", *(measure.name for measure in STABILITY), "worst final scores",
        "did not finish", "collapsed", "share that failed",
    )  # fmt: skip
    rows = []
    for scope in _scopes(comparison):
        found = [comparison.of(arm.name, scope) for arm in comparison.evidence.arms]
        across, worst = (
            places(getattr(own, name) for own in found) for name in ("dispersion_across", "risk_across")
        )
        inside = [places_of(own.stability[measure.key] for own in found) for measure in STABILITY]
        for own in found:
            cells = (
                _named(comparison, own.arm),
                number(own.dispersion_across, across),
                *(
                    estimate(own.stability[measure.key], decimals)
                    for measure, decimals in zip(STABILITY, inside, strict=True)
                ),
                number(own.risk_across, worst),
                f"{own.unfinished}/{own.seeds}",
                f"{own.collapsed}/{own.seeds}",
                estimate(own.failed, 2),
            )
            rows.append(Row(scope, tuple(map(Cell, cells))))
    caption = (
        f"In units of score, of the runs that finished, with {LEVEL:.0%} t intervals. Steadier is lower in "
        "the dispersions, the long-term risk and the drop, and higher in the short-term risk and the worst "
        "final scores. The share that failed (did not finish, or collapsed) has Wilson's interval."
    )
    return Table("Stability", _about(caption), "task", head, "l" + "r" * (len(head) - 1), tuple(rows))


def power_table(comparison: Comparison) -> Table:
    """Power, and seeds needed to detect a difference in final score that was fixed in advance."""
    effect, rows = comparison.options.effect, []
    for scope in _scopes(comparison):
        for c in comparison.contrasts:
            if (c.measure, c.task) == (FINAL.key, scope):
                needed = "more than 1,000" if c.seeds_needed is None else number(c.seeds_needed, 0)
                cells = (
                    c.arm,
                    counts([min(c.seeds)]),
                    NOTHING if math.isnan(c.power) else f"{c.power:.0%}",
                    NOTHING if math.isnan(c.power) else needed,
                )
                rows.append(Row(scope, tuple(map(Cell, cells))))
    caption = (
        f"Power: the chance that a two-sided t test at {ALPHA:.0%} with so many seeds sees a difference of "
        f"{effect:g} in score, an effect stated beforehand (--effect). Seeds needed: per arm and task, for a "
        f"power of {POWER:.0%}. Both take the spread between runs as it was found."
    )
    head = ("arm", "seeds", "power", "seeds needed")
    title = f"Seeds needed to see a difference of {effect:g} from {comparison.baseline}"
    return Table(title, _about(caption), "task", head, "lrrr", tuple(rows))


def scales_table(comparison: Comparison) -> Table:
    """The returns of scores 0 and 1 on each task."""
    rows = []
    for task, scale in comparison.scales.items():
        ends = (scale.zero, scale.one, scale.floor)
        rows.append(Row("", (Cell(task), *(Cell(number(end, places([end]))) for end in ends))))
    return Table(
        "Scale of the scores",
        _about(
            "True returns that count as scores 0 and 1, and the one that a run which did not finish is "
            "given: the lowest of any evaluation."
        ),
        "",
        ("task", "score 0", "score 1", "not finished"),
        "lrrr",
        tuple(rows),
    )


def settings_table(comparison: Comparison) -> Table:
    """The settings in which the arms differ."""
    names = [arm.name for arm in comparison.evidence.arms]
    rows = tuple(
        Row("", (Cell(key), *(Cell(plain(values[name])) for name in names)))
        for key, values in comparison.evidence.compared.items()
    )
    caption = "Every setting in which arms differ; all others are the same in every arm on a task."
    return Table(
        "What differs between the arms",
        _about(caption),
        "",
        ("setting", *names),
        "l" * (1 + len(names)),
        rows,
    )


def lost_table(comparison: Comparison) -> Table:
    """The runs that failed, did not finish, or collapsed."""
    rows = []
    for arm in comparison.evidence.arms:
        for trial in arm.trials:
            if how := how_lost(comparison, trial):
                error = " ".join((trial.error or "").split()) or NOTHING
                cells = (str(trial.seed), how, error, place_of(trial))
                rows.append(Row(f"{arm.name} on {trial.task}", tuple(map(Cell, cells))))
    caption = (
        "They keep their seat in every score: a run that did not finish has the lowest return of its task."
    )
    head = ("seed", "what happened", "error", "place")
    return Table("Runs that failed", _about(caption), "arm and task", head, "rlll", tuple(rows))


def how_lost(comparison: Comparison, trial: Trial) -> str:
    """The failure of a run; empty if there is none."""
    if trial.finished:
        scale = comparison.scales.get(trial.task)
        return "collapsed" if scale and collapsed(trial, scale) else ""
    words = {"running": "still running, or killed", "finished": "finished, but was never evaluated"}
    return words.get(trial.state, trial.state)


def place_of(trial: Trial) -> str:
    """Path of a run, relative to the working directory if it is below it."""
    place = Path(trial.place)
    here = Path.cwd()
    return str(place.relative_to(here)) if place.is_relative_to(here) else trial.place


def caveat(comparison: Comparison) -> str:
    """One sentence with the caveats of the comparison; empty if it is fair."""
    caveats = comparison.evidence.caveats
    return f"Not a fair comparison: {'; '.join(caveats)}." if caveats else ""


def reminder(comparison: Comparison) -> str:
    """Reference to the caveats at the top, shown with each table of an unfair comparison."""
    count = len(comparison.evidence.caveats)
    return f"Not a fair comparison: see the caveat{'' if count == 1 else 's'} at the top." if count else ""


def _about(caption: str) -> tuple[tuple[str, str], ...]:
    return (("", caption),)


def plain(value: object) -> str:
    return value if isinstance(value, str) else show(value)


def _scopes(comparison: Comparison) -> list[str]:
    return list(dict.fromkeys([comparison.scope, *comparison.evidence.tasks]))


def _named(comparison: Comparison, arm: str) -> str:
    alone = len(comparison.evidence.arms) == 1
    return f"{arm} (baseline)" if arm == comparison.baseline and not alone else arm


def _leaders(comparison: Comparison, measure: str) -> set[tuple[str, str]]:
    """(arm, task) for which the arm with the highest score is shown to differ."""
    leaders = set()
    for scope in _scopes(comparison):
        verdicts = {c.arm: c.verdict for c in comparison.contrasts if (c.measure, c.task) == (measure, scope)}
        found = [comparison.of(arm.name, scope) for arm in comparison.evidence.arms]
        best = max(found, key=lambda own: own.final.value if measure == FINAL.key else own.auc.value).arm
        if best == comparison.baseline:
            decided = bool(verdicts) and set(verdicts.values()) == {"worse"}
        else:
            decided = verdicts.get(best) == "better"
        if decided:
            leaders.add((best, scope))
    return leaders


def seeds_of(comparison: Comparison) -> str:
    """Number of seeds of an arm on a task."""
    sizes = [row.seeds for row in comparison.performance if row.task in comparison.evidence.tasks]
    return f"{counts(sizes)} seed{'' if max(sizes) == 1 else 's'}"


def _performance_said(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    options = comparison.options
    said = [
        ("", f"{seeds_of(comparison)} per arm and task. {_brackets(comparison)}"),
        (
            "final return",
            f"Final return: mean at the last {FINAL_EVALUATIONS} evaluations of a window of env steps that "
            "is the same for all arms, mean over seeds.",
        ),
        (
            "final score",
            f"Scores: mean over runs, then over tasks, with Student's t interval; {SCALES[options.source]}.",
        ),
        (
            "IQM",
            "IQM: interquartile mean of the final scores, a description without an interval.",
        ),
        (
            "env steps to threshold",
            f"Threshold: a score of {options.threshold:g} after training began; median, without an "
            "interval, runs that never reached it censored.",
        ),
        (
            "failed",
            "Failed: did not finish (scored with the lowest return of the task), or lost what it had gained.",
        ),
    ]
    if len(comparison.evidence.arms) > 1:
        decided = (
            "Bold: the highest score, where its difference from the baseline is decided (p < "
            f"{ALPHA:g} after Holm, and an interval without 0); otherwise nothing is marked."
        )
        said.append(("final score", decided))
    return tuple(said)


def _brackets(comparison: Comparison) -> str:
    fewest = min(row.seeds for row in comparison.performance if row.task in comparison.evidence.tasks)
    said = f"Brackets hold {LEVEL:.0%} intervals."
    if fewest < SEEDS_OF_A_MEAN:
        return f"{said} Where there are none: {TOO_FEW}."
    if fewest < SEEDS_OF_A_SHARE:
        return f"{said} P(improvement): {TOO_FEW}."
    return said


def _contrasts_caption(comparison: Comparison) -> str:
    return (
        f"Arm minus {comparison.baseline}, {seeds_of(comparison)} per arm and task, in units of score: mean "
        f"over runs, then over tasks. {_brackets(comparison)} P(improvement): the probability that "
        f"a run of the arm is better than one of {comparison.baseline}. p: two-sided permutation test of the "
        "difference; Holm's correction is over the arms (and over the tasks, for single tasks) of one "
        f"measure. Decided: p < {ALPHA:g} after Holm, and an interval without 0; all else is undecided."
    )
