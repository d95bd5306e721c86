"""Figures and tables of runs: the true return of the deterministic policy as training went on.

Every run that is asked for is counted and shown. A run that failed, was interrupted or is still running is
drawn dotted with a cross at its end, and left out of the means; the legend and the table say so.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sailctl.config import NUMBERLESS
from sailctl.results import RunRecord, find_runs, load_run
from sailctl.types import DoubleArray, UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FINAL_EVALUATIONS = 3
"""The final score of a run is the mean return of its last three evaluations after training began."""
BAND_SEEDS = 3
"""Finished seeds from which on a mean is drawn with its interval."""
BOOTSTRAPS = 2000

# Okabe and Ito's colours, which stay apart for colour-blind readers and in grey.
LOOKS = {
    "sail": ("#0072B2", "o"),
    "sail_revkl": ("#D55E00", "s"),
    "dpo_online": ("#009E73", "^"),
    "sail_robust": ("#CC79A7", "D"),
    "sail_dpr": ("#E69F00", "v"),
    "sail_dpp": ("#56B4E9", "P"),
    "sail_ddp": ("#000000", "*"),
    "dpo_offline": ("#7F7F7F", "X"),
}
"""Colour and marker of an algorithm."""
_OTHER_LOOKS = (("#8C510A", "h"), ("#5E3C99", "p"), ("#B2182B", "<"), ("#01665E", ">"))
_LINES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)))  # tell the settings of one algorithm apart
_AXES = {"env_steps": "env steps", "labels": "labels used", "iteration": "iterations"}
_PANEL = (3.6, 2.7)  # inches


@dataclass(frozen=True)
class Curve:
    """The evaluations of one run."""

    env_steps: DoubleArray
    """(E,) env steps at each evaluation, rising."""
    labels: DoubleArray
    """(E,) labels used by then."""
    iteration: DoubleArray
    """(E,) iterations done by then."""
    returns: DoubleArray
    """(E,) mean true return of the evaluation's episodes."""

    @property
    def offline(self) -> bool:
        """Whether nothing was simulated to learn from: the curve has iterations alone to go along."""
        return len(self.env_steps) > 0 and not self.env_steps.any()


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone."""

    task: str
    """Id of the task."""
    algorithm: str
    """Name of the algorithm."""
    settings: str
    """What sets this group apart from others of the same task and algorithm; empty when nothing does."""
    records: tuple[RunRecord, ...]
    """The runs, by seed."""

    @property
    def name(self) -> str:
        """Algorithm and settings."""
        return f"{self.algorithm} {self.settings}".strip()

    @property
    def finished(self) -> list[RunRecord]:
        """The runs that enter the mean: finished and evaluated."""
        return [r for r in self.records if r.state == "finished" and len(r.evaluations)]


def plot_runs(runs: Sequence[Path], out: Path) -> None:
    """Draw the learning curves of ``runs`` into ``out`` (and an .svg beside it); print where, and a table.

    Args:
        runs: run directories, or folders that are searched for runs.
        out: file to write, ``*.png``.

    Raises:
        UserError: when there is no run, one cannot be read, two are the same run, or ``out`` is no .png.
    """
    if out.suffix != ".png":
        raise UserError(f"the figure must be a .png file, got {out}")
    paths = dict.fromkeys(found.resolve() for given in runs for found in find_runs(given))
    records = [load_run(path) for path in paths]
    learning_curves(records, out)
    print(summary_table(records))
    print(f"figure: {out} (and {out.with_suffix('.svg').name})")


def learning_curves(records: Sequence[RunRecord], path: Path) -> None:
    """Draw true return against env steps (first row) and labels (second row), one column per task.

    Where an algorithm learned from a data set alone, a third row has iterations and its curve; its final mean
    is a level line in the other two, where it does not move.

    Each seed is a faint line and the mean over finished seeds a bold one, with a 95% bootstrap interval of
    the mean from ``BAND_SEEDS`` seeds on.

    Args:
        records: the runs.
        path: the .png file; its folder is made, and an .svg is written beside it.

    Raises:
        UserError: when ``records`` is empty or holds one run twice.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = group_runs(records)
    tasks = sorted({group.task for group in groups})
    with matplotlib.rc_context(
        {
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#E0E0E0",
            "grid.linewidth": 0.6,
            "svg.fonttype": "none",
            "svg.hashsalt": "sailctl",
        }
    ):
        offline = any(curve(record).offline for record in records)
        rows = tuple(_AXES) if offline else ("env_steps", "labels")
        figure = Figure(figsize=(_PANEL[0] * len(tasks), len(rows) * _PANEL[1]), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(rows), len(tasks), sharey="col", squeeze=False)
        for column, task in enumerate(tasks):
            here = [group for group in groups if group.task == task]
            for row, x in enumerate(rows):
                _panel(panels[row, column], here, x)
            panels[0, column].set_title(task)
            panels[-1, column].legend(
                loc="upper center", bbox_to_anchor=(0.5, -0.24), frameon=False, fontsize=8, ncols=1
            )
        for row in range(len(rows)):
            panels[row, 0].set_ylabel("true return")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=200)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def summary_table(records: Sequence[RunRecord]) -> str:
    """One line per group: seeds, how they ended, and mean and standard deviation of the final scores.

    Raises:
        UserError: when ``records`` is empty or holds one run twice.
    """
    head = ["task", "algorithm", "seeds", "finished", "failed", "unfinished", "final return (mean ± sd)"]
    rows = [head]
    for group in group_runs(records):
        states = [record.state for record in group.records]
        scores = [final_score(record) for record in group.finished]
        score = "-"
        if len(scores) > 1:
            score = f"{np.mean(scores):.1f} ± {np.std(scores, ddof=1):.1f}"
        elif scores:
            score = f"{scores[0]:.1f}"
        counts = (states.count("finished"), states.count("failed"))
        unfinished = len(states) - sum(counts)
        rows.append([group.task, group.name, *(str(n) for n in (len(states), *counts, unfinished)), score])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def final_score(record: RunRecord) -> float:
    """Mean return of the last ``FINAL_EVALUATIONS`` evaluations (of all, when there are fewer).

    Raises:
        ValueError: when the run was never evaluated after its first update.
    """
    evaluations = curve(record)
    returns = evaluations.returns[evaluations.iteration > 0]
    if len(returns) == 0:
        raise ValueError(f"{record.path} was never evaluated")
    return float(returns[-FINAL_EVALUATIONS:].mean())


def curve(record: RunRecord) -> Curve:
    """The evaluations of a run, each the mean of its episodes."""
    table = record.evaluations.groupby("iteration", sort=True)[["env_steps", "labels", "return"]].mean()
    columns = (table["env_steps"], table["labels"], table.index.to_series(), table["return"])
    return Curve(*(column.to_numpy(dtype=np.float64) for column in columns))


def group_runs(records: Sequence[RunRecord]) -> list[Group]:
    """Runs of one task, algorithm and configuration together, in order of those names.

    Raises:
        UserError: when ``records`` is empty or holds one run twice.
    """
    if not records:
        raise UserError("no runs to report")
    settings = [_settings(record.config) for record in records]
    groups: dict[tuple[str, str, str], list[RunRecord]] = {}
    for record, own in zip(records, settings, strict=True):
        rivals = [
            other
            for other, theirs in zip(settings, records, strict=True)
            if (theirs.task, theirs.algorithm) == (record.task, record.algorithm)
        ]
        differing = [key for key in own if any(other.get(key) != own[key] for other in rivals)]
        name = " ".join(f"{key}={own[key]}" for key in differing)
        groups.setdefault((record.task, record.algorithm, name), []).append(record)
    for members in groups.values():
        members.sort(key=lambda record: record.seed)
        for one, other in pairwise(members):
            if one.seed == other.seed:
                raise UserError(f"the same run twice: {one.path} and {other.path}")
    return [Group(*key, tuple(members)) for key, members in sorted(groups.items())]


def mean_curve(curves: Sequence[Curve]) -> tuple[Curve, DoubleArray]:
    """The mean over runs, at every evaluation between the latest first one and the earliest last one.

    Returns:
        The mean, and the (E, 2) ends of the 95% percentile bootstrap interval of its returns, for which
        whole runs are drawn with replacement.
    """
    along = "iteration" if any(c.offline for c in curves) else "env_steps"
    low = max(getattr(c, along)[0] for c in curves)
    high = min(getattr(c, along)[-1] for c in curves)
    steps = np.unique(np.concatenate([getattr(c, along) for c in curves]))
    steps = steps[(steps >= low) & (steps <= high)]

    def interpolated(name: str) -> DoubleArray:
        return np.stack([np.interp(steps, getattr(c, along), getattr(c, name)) for c in curves])

    returns = interpolated("returns")
    drawn = np.random.default_rng(0).integers(len(curves), size=(BOOTSTRAPS, len(curves)))
    interval = np.quantile(returns[drawn].mean(axis=1), (0.025, 0.975), axis=0).T
    env_steps, labels, iteration = (interpolated(name).mean(axis=0) for name in _AXES)
    return Curve(env_steps, labels, iteration, returns.mean(axis=0)), interval


def look_of(algorithm: str) -> tuple[str, str]:
    """Colour and marker of an algorithm, the same in every figure."""
    other = _OTHER_LOOKS[zlib.crc32(algorithm.encode()) % len(_OTHER_LOOKS)]
    return LOOKS.get(algorithm, other)


def _panel(axes: Axes, groups: Sequence[Group], x: str) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    seen: Counter[str] = Counter()
    for group in groups:
        colour, marker = look_of(group.algorithm)
        line = _LINES[seen[group.algorithm] % len(_LINES)]
        seen[group.algorithm] += 1
        if x != "iteration" and any(curve(record).offline for record in group.finished):
            level = np.mean([final_score(record) for record in group.finished])
            axes.axhline(float(level), color=colour, lw=1.2, ls=(0, (2, 2)), label=_legend(group))
            continue
        for record in group.records:
            run = curve(record)
            if record.state == "finished":
                axes.plot(getattr(run, x), run.returns, color=colour, alpha=0.35, lw=0.8)
            elif len(run.returns):
                axes.plot(getattr(run, x), run.returns, color=colour, alpha=0.7, lw=1, ls=":")
                axes.plot(getattr(run, x)[-1], run.returns[-1], color=colour, marker="x", ms=5)
        curves = [curve(record) for record in group.finished]
        if not curves:
            axes.plot([], [], color=colour, lw=1, ls=":", marker="x", ms=5, label=_legend(group))
            continue
        mean, interval = mean_curve(curves)
        axes.plot(
            getattr(mean, x),
            mean.returns,
            color=colour,
            lw=1.8,
            ls=line,
            marker=marker,
            markevery=max(1, len(mean.returns) // 8),
            ms=4,
            label=_legend(group),
        )
        if len(curves) >= BAND_SEEDS:
            low, high = interval.T
            axes.fill_between(getattr(mean, x), low, high, color=colour, alpha=0.15, lw=0)
    axes.set_xlabel(_AXES[x])
    axes.margins(x=0.04)  # room for the last label, which would be cut at the edge of the figure
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _legend(group: Group) -> str:
    count, used = len(group.records), len(group.finished)
    seeds = f"{count} seed" if count == 1 else f"{count} seeds"
    if used < count:
        seeds += f", {count - used} not finished"
    if used >= BAND_SEEDS:
        seeds += ", 95% interval"
    return f"{group.name} ({seeds})"


def _settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """The nested configuration as ``{"algo.beta": 0.1, ...}``, without what does not set runs apart."""
    flat: dict[str, object] = {}
    for key, value in config.items():
        if not prefix and key in NUMBERLESS:
            continue
        if isinstance(value, Mapping):
            flat |= _settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
