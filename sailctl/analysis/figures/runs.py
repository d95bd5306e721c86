"""Learning curves and a table of any runs, comparable or not, for ``sailctl plot``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sailctl.analysis.arms import gather
from sailctl.analysis.evidence import Arm, Evidence, Trial
from sailctl.analysis.figures.curves import learning_curves
from sailctl.analysis.figures.pages import check_png
from sailctl.analysis.trials import load_trials
from sailctl.core.terminal import in_columns
from sailctl.core.types import UserError


def plot_runs(runs: Sequence[Path], out: Path) -> None:
    """Draw the learning curves of ``runs`` to ``out`` and an .svg file; print a table and the path.

    Args:
        runs: run directories, or folders that are searched for runs.
        out: file to write, ``*.png``.

    Raises:
        UserError: when there is no run, a run cannot be read or occurs twice, or ``out`` is not a .png file.
    """
    check_png(out)
    evidence = _evidence_of_any(load_trials(runs))
    learning_curves(evidence, out)
    print(summary_table(evidence))
    print(f"figure: {out} (and {out.with_suffix('.svg').name})")


def summary_table(evidence: Evidence) -> str:
    """One line per task and arm: runs by state, mean and standard deviation of the final returns."""
    rows = [["task", "algorithm", "seeds", "finished", "failed", "unfinished", "final return (mean ± sd)"]]
    for task in evidence.tasks:
        for arm in evidence.arms:
            trials = arm.on(task)
            if not trials:
                continue
            finals = [trial.final for trial in trials if trial.finished]
            score = "-"
            if len(finals) > 1:
                score = f"{np.mean(finals):.1f} ± {np.std(finals, ddof=1):.1f}"
            elif finals:
                score = f"{finals[0]:.1f}"
            states = [trial.state for trial in trials]
            counts = (states.count("finished"), states.count("failed"))
            numbers = (len(states), *counts, len(states) - sum(counts))
            rows.append([task, arm.name, *map(str, numbers), score])
    return in_columns(rows)


def _evidence_of_any(trials: Sequence[Trial]) -> Evidence:
    """Evidence of any runs for display only: with all tasks and complete curves."""
    if not trials:
        raise UserError("no runs to plot")
    complete = {trial.place: trial for trial in trials}
    arms: dict[str, Arm] = {}
    for task in sorted({trial.task for trial in trials}):
        for arm in gather([trial for trial in trials if trial.task == task], force=True).arms:
            others = arms[arm.name].trials if arm.name in arms else ()
            arms[arm.name] = replace(arm, trials=(*others, *(complete[trial.place] for trial in arm.trials)))
    ordered = tuple(arms[name] for name in sorted(arms))
    return Evidence(ordered, tuple(sorted({trial.task for trial in trials})), {}, (), ())
