"""The tables of a comparison as text, formatted alike for terminal, Markdown, LaTeX and HTML."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from sailctl.analysis.arms import plain
from sailctl.analysis.compare import Comparison
from sailctl.analysis.contrasts import ALPHA, POWER
from sailctl.analysis.evidence import FINAL_EVALUATIONS, Trial
from sailctl.analysis.report.numbers import NOTHING, counts, estimate, number, p_value, places, places_of
from sailctl.analysis.scores import AUC, FINAL, SCALES, STABILITY, collapsed
from sailctl.analysis.statistics import LEVEL, SEEDS_OF_A_MEAN, SEEDS_OF_A_SHARE


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
    explanations: tuple[tuple[str, str], ...]
    """(column, sentences) for the caption; the column is empty if they apply to the whole table."""
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
        explanations = tuple((name, text) for name, text in self.explanations if name in ("", *names))
        return Table(self.title, explanations, self.group, names, align, rows)

    @property
    def caption(self) -> str:
        """All explanations."""
        return " ".join(text for _, text in self.explanations)


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
    for scope in comparison.scopes:
        results = [comparison.of(arm.name, scope) for arm in comparison.evidence.arms]
        returns, finals, areas = (
            places_of(getattr(r, name) for r in results) for name in ("final_return", "final", "auc")
        )
        divergence = places((r.kl for r in results), most=6)
        for r in results:
            cells = (
                Cell(_named(comparison, r.arm)),
                Cell(str(r.seeds)),
                Cell(f"{r.unfinished + r.collapsed}/{r.seeds}"),
                Cell(estimate(r.final_return, returns)),
                Cell(estimate(r.final, finals), (r.arm, scope) in best[FINAL.key]),
                Cell(number(r.iqm, finals)),
                Cell(estimate(r.auc, areas), (r.arm, scope) in best[AUC.key]),
                Cell(number(r.time_to_threshold, 0)),
                Cell(f"{r.reached}/{r.seeds}"),
                Cell(number(r.kl, divergence)),
            )
            rows.append(Row(scope, cells))
    return Table("Performance", _performance_caption(comparison), "task", head, "lrrrrrrrrr", tuple(rows))


def contrasts_table(comparison: Comparison, stability: bool = False) -> Table:
    """Contrasts with the baseline in final score and area under the curve, or in ``stability``."""
    head = (
        "arm", "verdict", "difference", "P(improvement)", "Hedges' g", "p (Holm)", "p",
        "paired difference", "pairs", "runs",
    )  # fmt: skip
    rows = []
    for measure in STABILITY if stability else (FINAL, AUC):
        for scope in comparison.scopes:
            contrasts = [c for c in comparison.contrasts if (c.measure, c.task) == (measure.key, scope)]
            differences = places_of(c.difference for c in contrasts)
            for c in contrasts:
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
    title = f"{'Stability' if stability else 'Scores'} compared with {comparison.baseline}"
    return Table(
        title, _about(_contrasts_caption(comparison)), "measure and task", head, "llrrrrrrrr", tuple(rows)
    )


def stability_table(comparison: Comparison) -> Table:
    """Stability measures of each arm, over all tasks and on each task."""
    head = (
        "arm", "dispersion across runs", *(measure.name for measure in STABILITY), "risk across runs",
        "did not finish", "collapsed", "share of failed runs",
    )  # fmt: skip
    rows = []
    for scope in comparison.scopes:
        results = [comparison.of(arm.name, scope) for arm in comparison.evidence.arms]
        across, worst = (
            places(getattr(r, name) for r in results) for name in ("dispersion_across", "risk_across")
        )
        within = [places_of(r.stability[measure.key] for r in results) for measure in STABILITY]
        for r in results:
            cells = (
                _named(comparison, r.arm),
                number(r.dispersion_across, across),
                *(
                    estimate(r.stability[measure.key], decimals)
                    for measure, decimals in zip(STABILITY, within, strict=True)
                ),
                number(r.risk_across, worst),
                f"{r.unfinished}/{r.seeds}",
                f"{r.collapsed}/{r.seeds}",
                estimate(r.failed, 2),
            )
            rows.append(Row(scope, tuple(map(Cell, cells))))
    caption = (
        f"In units of score, over finished runs, with {LEVEL:.0%} t intervals. Lower is steadier for the "
        "dispersions, the long-term risk and the final drop; higher is steadier for the short-term risk and "
        "the risk across runs. Share of failed runs (not finished, or collapsed): with Wilson interval."
    )
    return Table("Stability", _about(caption), "task", head, "l" + "r" * (len(head) - 1), tuple(rows))


def power_table(comparison: Comparison) -> Table:
    """Power, and seeds needed to detect a difference in final score that was fixed in advance."""
    effect, rows = comparison.options.effect, []
    for scope in comparison.scopes:
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
        f"Power: probability that a two-sided t test at the {ALPHA:.0%} level detects a difference of "
        f"{effect:g} in score, which was fixed in advance (--effect), with this number of seeds. Seeds "
        f"needed: per arm and task, for a power of {POWER:.0%}. Both assume the observed spread between runs."
    )
    head = ("arm", "seeds", "power", "seeds needed")
    title = f"Seeds needed to detect a difference of {effect:g} from {comparison.baseline}"
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
            "True returns of scores 0 and 1, and the return assigned to a run that did not finish: the "
            "lowest of all evaluations on the task."
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
    caption = "All settings in which arms differ. All other settings are equal for all arms on a task."
    return Table(
        "What differs between the arms",
        _about(caption),
        "",
        ("setting", *names),
        "l" * (1 + len(names)),
        rows,
    )


def failures_table(comparison: Comparison) -> Table:
    """The runs that failed, did not finish, or collapsed."""
    rows = []
    for arm in comparison.evidence.arms:
        for trial in arm.trials:
            if failure := failure_of(comparison, trial):
                error = " ".join((trial.error or "").split()) or NOTHING
                cells = (str(trial.seed), failure, error, trial.relative_place)
                rows.append(Row(f"{arm.name} on {trial.task}", tuple(map(Cell, cells))))
    caption = (
        "All scores include these runs; a run that did not finish is assigned the lowest return of its task."
    )
    head = ("seed", "what happened", "error", "place")
    return Table("Runs that failed", _about(caption), "arm and task", head, "rlll", tuple(rows))


def failure_of(comparison: Comparison, trial: Trial) -> str:
    """The failure of a run; empty if there is none."""
    if trial.finished:
        scale = comparison.scales.get(trial.task)
        return "collapsed" if scale and collapsed(trial, scale) else ""
    words = {"running": "still running, or killed", "finished": "finished, but was never evaluated"}
    return words.get(trial.state, trial.state)


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


def _named(comparison: Comparison, arm: str) -> str:
    alone = len(comparison.evidence.arms) == 1
    return f"{arm} (baseline)" if arm == comparison.baseline and not alone else arm


def _leaders(comparison: Comparison, measure: str) -> set[tuple[str, str]]:
    """(arm, task) for which the arm with the highest score is shown to differ."""
    leaders = set()
    for scope in comparison.scopes:
        verdicts = {c.arm: c.verdict for c in comparison.contrasts if (c.measure, c.task) == (measure, scope)}
        results = [comparison.of(arm.name, scope) for arm in comparison.evidence.arms]
        best = max(results, key=lambda r: r.final.value if measure == FINAL.key else r.auc.value).arm
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


def _performance_caption(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    options = comparison.options
    explanations = [
        ("", f"{seeds_of(comparison)} per arm and task. {_brackets(comparison)}"),
        (
            "final return",
            f"Final return: mean over seeds of the mean return at the last {FINAL_EVALUATIONS} evaluations "
            "of a window of env steps that is equal for all arms.",
        ),
        (
            "final score",
            f"Scores: mean over runs, then over tasks, with Student's t interval ({SCALES[options.source]}).",
        ),
        ("IQM", "IQM: interquartile mean of the final scores (descriptive, without interval)."),
        (
            "env steps to threshold",
            f"Threshold: a score of {options.threshold:g} after training began; median, without interval, "
            "with runs that never reached it censored.",
        ),
        (
            "failed",
            "Failed: did not finish (scored as the lowest return of the task), or collapsed.",
        ),
    ]
    if len(comparison.evidence.arms) > 1:
        decided = (
            "Bold: the highest score, if its difference from the baseline is decided (p < "
            f"{ALPHA:g} after Holm's correction, and the interval excludes 0)."
        )
        explanations.append(("final score", decided))
    return tuple(explanations)


def _brackets(comparison: Comparison) -> str:
    fewest = min(row.seeds for row in comparison.performance if row.task in comparison.evidence.tasks)
    text = f"Brackets: {LEVEL:.0%} intervals."
    if fewest < SEEDS_OF_A_MEAN:
        return f"{text} Missing intervals: too few seeds."
    if fewest < SEEDS_OF_A_SHARE:
        return f"{text} P(improvement): too few seeds for an interval."
    return text


def _contrasts_caption(comparison: Comparison) -> str:
    return (
        f"Difference: arm minus {comparison.baseline} in units of score, mean over runs, then over tasks; "
        f"{seeds_of(comparison)} per arm and task. {_brackets(comparison)} P(improvement): probability that "
        f"a run of the arm is better than a run of {comparison.baseline}. p: two-sided permutation test of "
        "the difference. p (Holm): adjusted over the arms (and, for single tasks, the tasks) of one measure. "
        f"Verdict: decided if p (Holm) < {ALPHA:g} and the interval excludes 0, otherwise undecided."
    )
