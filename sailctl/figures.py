"""Pictures of runs: learning curves, how arms compare, how steadily they learn, what they end with.

Every run that is asked for is counted and shown. One that failed, was interrupted or is still running is
drawn dotted, or as a cross, and left out of means over runs; the legend and the table say so. An algorithm
has the same colour and marker in every picture. Pages are as wide as printed ones: letters keep their size.
"""

from __future__ import annotations

import math
import textwrap
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from sailctl.compare import (
    ALPHA,
    FINAL,
    OVERALL,
    STABILITY,
    Comparison,
    Contrast,
    common_curves,
)
from sailctl.config import show
from sailctl.evidence import AXES, Arm, Evidence, Trial, gather, load_trials
from sailctl.files import write_atomically
from sailctl.statistics import LEVEL, Estimate
from sailctl.types import DoubleArray, UserError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

BAND_SEEDS = 3
"""Finished seeds from which on a mean is drawn with its interval."""

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
_GREY = "#606060"

_WIDTH = 7.2  # inches: the text of a printed page
_LETTER = 0.052  # inches: about the width of a letter
_FAINT = 100  # faint lines in a panel from which on the SVG holds them as pixels
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "figure.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.7,
    "grid.color": "#E0E0E0",
    "grid.linewidth": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "sailctl",
}


@dataclass(frozen=True)
class Look:
    """How an arm is drawn."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]
    fill: str
    """Colour of the inside of its marker in a line."""
    shift: float
    """Where its first marker stands, as a share of the way to the next: markers of arms do not coincide."""


# For the command line


def plot_runs(runs: Sequence[Path], out: Path) -> None:
    """Draw the learning curves of ``runs`` into ``out`` (and an .svg beside it); print where, and a table.

    Args:
        runs: run directories, or folders that are searched for runs.
        out: file to write, ``*.png``.

    Raises:
        UserError: when there is no run, one cannot be read, two are the same run, or ``out`` is no .png.
    """
    _check_png(out)
    evidence = _as_they_are(load_trials(runs))
    learning_curves(evidence, out)
    print(summary_table(evidence))
    print(f"figure: {out} (and {out.with_suffix('.svg').name})")


def summary_table(evidence: Evidence) -> str:
    """One line per task and arm: seeds, how they ended, mean and standard deviation of the final returns."""
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
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _as_they_are(trials: Sequence[Trial]) -> Evidence:
    """Any runs as evidence that compares nothing: with all tasks, and no curve cut to a common budget."""
    if not trials:
        raise UserError("no runs to plot")
    whole = {trial.place: trial for trial in trials}
    arms: dict[str, Arm] = {}
    for task in sorted({trial.task for trial in trials}):
        for arm in gather([trial for trial in trials if trial.task == task], force=True).arms:
            before = arms[arm.name].trials if arm.name in arms else ()
            arms[arm.name] = replace(arm, trials=(*before, *(whole[trial.place] for trial in arm.trials)))
    ordered = tuple(arms[name] for name in sorted(arms))
    return Evidence(ordered, tuple(sorted({trial.task for trial in trials})), {}, (), ())


# All of them


def all_figures(comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Draw every picture that the comparison has something for into ``folder``.

    Returns:
        ``{name: .png file}`` in the order in which they are read: ``intervals``, ``learning_curves``,
        ``stability``, ``profiles``, ``before_after`` and, where two numbers were swept, ``heat_map``.

    Raises:
        UserError: when a file cannot be written.
    """
    names = ["intervals", "learning_curves", "stability", "profiles", "before_after"]
    paths = {name: folder / f"{name}.png" for name in names}
    intervals(comparison, paths["intervals"])
    learning_curves(comparison.evidence, paths["learning_curves"])
    stability(comparison, paths["stability"])
    profiles(comparison, paths["profiles"])
    before_after(comparison.evidence, paths["before_after"])
    if settings := swept(comparison.evidence):
        paths["heat_map"] = folder / "heat_map.png"
        heat_map(comparison, paths["heat_map"], *settings)
    return paths


# Learning curves


def learning_curves(
    evidence: Evidence, path: Path, axes: Sequence[str] = ("env_steps", "labels", "wall_s")
) -> None:
    """Draw true return along each of ``axes`` (keys of ``evidence.AXES``), a column for each task.

    Each seed is a faint line. The mean over finished seeds is a bold one, with its pointwise 95% t interval
    from ``BAND_SEEDS`` seeds on. Where an algorithm learned from a data set alone, a row with iterations
    joins and has its curve; elsewhere, where it does not move, it is a level line at its mean final return.

    Args:
        evidence: the runs.
        path: the .png file; its folder is made, and an .svg is written beside it.
        axes: what to draw along, from top to bottom.

    Raises:
        UserError: when ``path`` is no .png or cannot be written.
    """
    rows = tuple(axes)
    if "iteration" not in rows and not all(trial.simulates for trial in _shown(evidence)):
        rows = (*rows, "iteration")
    looks = looks_of(evidence.arms)
    blocks, columns = _grid(len(evidence.tasks), 4)
    height = 1.8 if blocks == 1 else 1.55
    with _page(path, _width(columns), 0.9 + height * len(rows) * blocks + 0.12 * len(looks)) as figure:
        panels = figure.subplots(len(rows) * blocks, columns, squeeze=False)
        for place in range(blocks * columns):
            block, column = divmod(place, columns)
            stack = panels[block * len(rows) : (block + 1) * len(rows), column]
            if place >= len(evidence.tasks):
                for panel in stack:
                    panel.remove()
                continue
            stack[0].set_title(evidence.tasks[place])
            for panel, axis in zip(stack, rows, strict=True):
                if panel is not stack[0]:
                    panel.sharey(stack[0])
                for arm in evidence.arms:
                    _curves(panel, arm.on(evidence.tasks[place]), axis, looks[arm.name])
                panel.set_xlabel(AXES[axis])
                _plain_ticks(panel)
                if column == 0:
                    panel.set_ylabel("true return")
        figure.suptitle("Learning curves: true return of the deterministic policy")
        _legend(figure, [*_arm_entries(evidence, looks), *_line_entries(evidence)])


def _curves(panel: Axes, trials: Sequence[Trial], axis: str, look: Look) -> None:
    """The runs of an arm on one task along ``axis``."""
    finished = [trial for trial in trials if trial.finished]
    if axis != "iteration" and not all(trial.simulates for trial in trials):
        if finished:
            level = float(np.mean([trial.final for trial in finished]))
            panel.axhline(level, color=look.colour, lw=1.2, ls=(0, (2, 2)), label="level")
        return
    _faint(panel, [(trial.along(axis), trial.returns) for trial in finished], look, "seeds")
    others = [trial for trial in trials if not trial.finished and len(trial.returns)]
    if others:
        lines = [(trial.along(axis), trial.returns) for trial in others]
        _faint(panel, lines, look, "not finished", linestyles=":", alpha=0.8, linewidths=1.0)
        known = [(x[np.isfinite(x)][-1], y[np.isfinite(x)][-1]) for x, y in lines if np.isfinite(x).any()]
        panel.plot(*np.transpose(known), color=look.colour, marker="x", ms=4.5, ls="", zorder=3, label="ends")
    if timed := [trial for trial in finished if np.isfinite(trial.along(axis)).all()]:
        _mean(panel, *common_curves(timed, axis), look)


def _faint(
    panel: Axes, lines: Sequence[tuple[DoubleArray, DoubleArray]], look: Look, label: str, **how: Any
) -> None:
    from matplotlib.collections import LineCollection

    style = {"alpha": max(0.04, min(0.3, 8 / len(lines))) if lines else 1.0, "linewidths": 0.6, **how}
    faint = LineCollection(
        [np.column_stack(line) for line in lines],
        colors=look.colour,
        label=label,
        rasterized=len(lines) > _FAINT,
        zorder=1.1,
        **style,
    )
    panel.add_collection(faint)
    panel.autoscale_view()


def _mean(panel: Axes, points: DoubleArray, curves: DoubleArray, look: Look) -> None:
    """Mean of ``curves`` (n, E) at ``points`` (E,), and from ``BAND_SEEDS`` on its t interval."""
    from matplotlib.patheffects import Normal, Stroke

    mean, n = curves.mean(axis=0), len(curves)
    gap = max(1, math.ceil(len(points) / 7))
    panel.plot(
        points,
        mean,
        color=look.colour,
        lw=1.7,
        ls=look.line,
        marker=look.marker,
        markevery=(int(look.shift * gap), gap),
        ms=4,
        mfc=look.fill,
        mew=0.7,
        path_effects=[Stroke(linewidth=2.5, foreground="white"), Normal()],
        zorder=3,
        label="mean",
    )
    if n >= BAND_SEEDS:
        quantile = float(special.stdtrit(n - 1, (1 + LEVEL) / 2))
        half = quantile * curves.std(axis=0, ddof=1) / math.sqrt(n)
        panel.fill_between(
            points, mean - half, mean + half, color=look.colour, alpha=0.18, lw=0, zorder=1.2, label="band"
        )


def _arm_entries(evidence: Evidence, looks: Mapping[str, Look]) -> list[tuple[Artist, str]]:
    return [(_key(looks[arm.name]), _counted(arm, evidence.tasks)) for arm in evidence.arms]


def _counted(arm: Arm, tasks: Sequence[str]) -> str:
    """Its name, seeds and unfinished runs."""
    here = {task: trials for task in tasks if (trials := arm.on(task))}
    sizes = sorted({len(trials) for trials in here.values()})
    seeds = " to ".join(dict.fromkeys((str(sizes[0]), str(sizes[-1]))))
    words = f"{seeds} seed" if sizes[-1] == 1 else f"{seeds} seeds"
    total = sum(map(len, here.values()))
    lost = sum(not trial.finished for trials in here.values() for trial in trials)
    if len(here) > 1:
        words += " per task"
    if lost:
        words += f", {lost} not finished" if len(here) == 1 else f", {lost} of {total} runs not finished"
    if len(here) < len(tasks):
        words += f", on {' and '.join(here)} only"
    return f"{arm.name} ({words})"


def _shown(evidence: Evidence) -> list[Trial]:
    """Its runs on the tasks that are compared; an arm may have others."""
    return [trial for trial in evidence.trials if trial.task in evidence.tasks]


def _line_entries(evidence: Evidence) -> Iterator[tuple[Artist, str]]:
    """What is not one arm's in learning curves."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    counts = [
        sum(trial.finished for trial in arm.on(task)) for arm in evidence.arms for task in evidence.tasks
    ]
    if max(counts) > 1:
        yield Line2D([], [], color=_GREY, lw=0.6, alpha=0.6), "one seed"
    if max(counts) >= BAND_SEEDS:
        yield Patch(color=_GREY, alpha=0.25, lw=0), "95% interval of the mean"
    if not all(trial.finished for trial in _shown(evidence)):
        yield Line2D([], [], color=_GREY, lw=1, ls=":", marker="x", ms=4.5), "a run that did not finish"
    if not all(trial.simulates for trial in _shown(evidence)):
        level = Line2D([], [], color=_GREY, lw=1.2, ls=(0, (2, 2)))
        yield level, "final return of learning from a data set alone"


# Which arm is better


def intervals(comparison: Comparison, path: Path) -> None:
    """Draw each arm's final score, its difference from the baseline and the probability of improvement.

    A row for each arm, over all tasks and on each one, with 95% intervals; the scores of single runs lie
    behind. Markers of a difference are filled where the comparison decides on it.

    Raises:
        UserError: when ``path`` is no .png or cannot be written.
    """
    evidence = comparison.evidence
    looks = looks_of(evidence.arms)
    scopes = [comparison.scope, *(task for task in evidence.tasks if task != comparison.scope)]
    labels, lines = _row_labels(evidence.arms)
    pitch = 0.06 + 0.12 * lines
    with _page(path, _WIDTH, 1.75 + len(scopes) * pitch * (1.2 + len(labels))) as figure:
        count = 3 if len(evidence.arms) > 1 else 1
        panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
        ticks: dict[float, str] = {}
        top = 0.0
        for number, scope in enumerate(scopes):
            ticks[top + 0.6] = scope
            end = top + 1.2 + len(labels)
            for panel in panels[: None if number % 2 == 0 else 0]:
                panel.axhspan(top, end, color="#F3F3F3", lw=0, zorder=0)
            for row, arm in enumerate(evidence.arms):
                ticks[top + 1.5 + row] = labels[row]
                _forest_row(panels, comparison, arm, scope, top + 1.5 + row, looks[arm.name])
            top = end
        panels[0].set_yticks(list(ticks), list(ticks.values()))
        panels[0].set_ylim(top, 0)
        for label in panels[0].get_yticklabels():
            label.set_fontweight("bold" if label.get_text() in scopes else "normal")
        _scale_label(panels[0], "final score", "interquartile mean")
        panels[0].update_datalim([(0, 1), (1, 1)])
        panels[0].autoscale_view(scaley=False)
        if count == 3:
            _scale_label(panels[1], "difference in final score", f"from {comparison.baseline}")
            _scale_label(panels[2], "probability of improvement", f"over {comparison.baseline}")
            panels[1].axvline(0, color=_GREY, lw=0.9)
            panels[2].axvline(0.5, color=_GREY, lw=0.9)
            panels[2].set_xlim(-0.03, 1.03)
        for panel in panels:
            _rows_only(panel)
        title = "Final scores and 95% intervals (0: before training, 1: the best run)"
        if comparison.options.scale:
            title = "Final scores and 95% intervals"
        if evidence.caveats:
            title += "\nNot a fair comparison: see its caveats"
        figure.suptitle(title)
        _legend(figure, list(_forest_entries(comparison)))


def _forest_row(
    panels: Sequence[Axes], comparison: Comparison, arm: Arm, scope: str, y: float, look: Look
) -> None:
    tasks = comparison.evidence.tasks if scope == OVERALL else [scope]
    trials = [trial for task in tasks for trial in arm.on(task)]
    scores = np.concatenate([comparison.scores[arm.name][task][FINAL.key] for task in tasks])
    finished = np.array([trial.finished for trial in trials])
    heights = y + 0.3 * np.linspace(-1, 1, len(scores)) * (len(scores) > 1)
    panels[0].plot(
        scores[finished], heights[finished], ".", color=look.colour, ms=3.5, mew=0, alpha=0.4, label="seeds"
    )
    panels[0].plot(
        scores[~finished], heights[~finished], "x", color=look.colour, ms=3.5, alpha=0.8, label="not finished"
    )
    _error_bar(panels[0], comparison.of(arm.name, scope).final, y, look)
    if len(panels) == 1:
        return
    if arm.name == comparison.baseline:
        panels[1].text(
            0.03, y, "baseline", transform=panels[1].get_yaxis_transform(), va="center", color=_GREY
        )
        return
    contrast = _final_contrast(comparison, arm.name, scope)
    decided = contrast.verdict != "undecided"
    _error_bar(panels[1], contrast.difference, y, look, decided)
    _error_bar(panels[2], contrast.improvement, y, look, decided)


def _final_contrast(comparison: Comparison, arm: str, task: str) -> Contrast:
    return next(c for c in comparison.contrasts if (c.arm, c.task, c.measure) == (arm, task, FINAL.key))


def _error_bar(panel: Axes, estimate: Estimate, y: float, look: Look, filled: bool = True) -> None:
    if math.isfinite(estimate.low):
        panel.plot([estimate.low, estimate.high], [y, y], color=look.colour, lw=1.6, label="interval")
    panel.plot(
        estimate.value,
        y,
        color=look.colour,
        marker=look.marker,
        ms=5.5,
        mfc=look.colour if filled else "white",
        mec="white" if filled else look.colour,
        mew=0.5 if filled else 1.2,
        label="value",
    )


def _scale_label(panel: Axes, what: str, more: str) -> None:
    panel.set_xlabel(f"{what}\n{_wrapped(more, 34)}")


def _forest_entries(comparison: Comparison) -> Iterator[tuple[Artist, str]]:
    from matplotlib.lines import Line2D

    evidence = comparison.evidence
    if any(trial.finished for trial in _shown(evidence)):
        yield Line2D([], [], color=_GREY, ls="", marker=".", ms=5, mew=0, alpha=0.6), "one run"
    if not all(trial.finished for trial in _shown(evidence)):
        cross = Line2D([], [], color=_GREY, ls="", marker="x", ms=4)
        yield cross, "a run that did not finish (lowest score of all)"
    if len(evidence.arms) > 1:
        yield (
            Line2D([], [], color=_GREY, marker="o", ms=5.5),
            f"difference decided (p < {ALPHA} after Holm's correction)",
        )
        yield Line2D([], [], color=_GREY, marker="o", ms=5.5, mfc="white"), "undecided"


def profiles(comparison: Comparison, path: Path) -> None:
    """Draw the share of an arm's runs that end above each score, with its pointwise 95% band.

    Raises:
        UserError: when ``path`` is no .png or cannot be written.
    """
    evidence = comparison.evidence
    looks = looks_of(evidence.arms)
    with _page(path, 5.2, 3.4 + 0.15 * len(evidence.arms)) as figure:
        panel = figure.subplots()
        for arm in evidence.arms:
            look, (share, low, high) = looks[arm.name], comparison.profiles[arm.name].T
            x = comparison.thresholds
            alpha = min(0.15, 0.8 / len(looks))
            panel.fill_between(x, low, high, step="post", color=look.colour, alpha=alpha, lw=0, label="band")
            panel.plot(
                x, share, drawstyle="steps-post", color=look.colour, lw=1.5, ls=look.line, marker=look.marker,
                markevery=(int(12 * look.shift), 12), ms=4, mfc=look.fill, mew=0.7, label="profile",
            )  # fmt: skip
        panel.set_xlabel("final score τ (0: before training, 1: the best run)")
        if comparison.options.scale:
            panel.set_xlabel("final score τ")
        panel.set_ylabel("share of runs that end above τ")
        panel.set_ylim(-0.03, 1.03)
        figure.suptitle("Performance profile and 95% bands")
        _legend(figure, _arm_entries(evidence, looks))


# How steadily


def stability(comparison: Comparison, path: Path) -> None:
    """Draw how steadily the arms learn: their stability, failed runs, and KL(ref || pi) as training goes on.

    Values are over all tasks with 95% intervals, and those of single tasks faint dots below. Of dispersion
    and risk across runs there is no interval. The KL is the mean over finished runs.

    Raises:
        UserError: when ``path`` is no .png or cannot be written.
    """
    evidence = comparison.evidence
    looks = looks_of(evidence.arms)
    labels, lines = _row_labels(evidence.arms)
    curves = _kl_curves(evidence)
    above = 2 * (0.75 + (0.06 + 0.12 * lines) * len(labels))
    blocks, columns = _grid(len(curves), 4)
    below = 0.45 + 1.75 * blocks + 0.14 * len(labels) if curves else 0.0
    with _page(path, _WIDTH, above + below + 0.3) as figure:
        heights = [above, below] if curves else [above]
        upper, *lower = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights).flat
        figure.suptitle("How steadily arms learn")
        _stability_panels(upper, comparison, looks, labels)
        for part in lower:
            panels = part.subplots(blocks, columns, squeeze=False)
            for panel in panels.flat[len(curves) :]:
                panel.remove()
            for number, (task, own) in enumerate(curves.items()):
                panel = panels.flat[number]
                for name, (points, kl) in own.items():
                    _mean(panel, points, kl[None], looks[name])
                panel.set_title(task)
                panel.set_ylim(bottom=0)
                panel.locator_params(axis="y", nbins=5)
                panel.set_xlabel(AXES[_kl_axis(evidence)])
                _plain_ticks(panel)
                if number % columns == 0:
                    panel.set_ylabel("KL(ref || π) per state (nats)")
            _legend(part, [(_key(looks[arm.name]), arm.name) for arm in evidence.arms])


def _stability_panels(
    part: SubFigure, comparison: Comparison, looks: Mapping[str, Look], labels: Sequence[str]
) -> None:
    arms = comparison.evidence.arms
    panels = part.subplots(2, 4, sharey=True)
    shown = [
        *((measure.name, measure.better, f"stability {measure.key}") for measure in STABILITY),
        ("dispersion across runs", -1, "dispersion_across"),
        ("risk across runs", +1, "risk_across"),
        ("share of failed runs", -1, "failed"),
    ]
    for panel, (name, better, key) in zip(panels.flat, shown, strict=False):
        for row, arm in enumerate(arms):
            look = looks[arm.name]
            if comparison.scope == OVERALL:
                own = [_stability_of(comparison, arm.name, task, key).value for task in comparison.scales]
                panel.plot(own, [row + 0.22] * len(own), ".", color=look.colour, ms=4.5, mew=0, alpha=0.6)
            _error_bar(panel, _stability_of(comparison, arm.name, comparison.scope, key), row, look)
        panel.set_title(name)
        panel.set_xlabel(
            "more is steadier →" if better > 0 else "← less is steadier", color=_GREY, fontsize=7
        )
        _rows_only(panel)
        panel.locator_params(axis="x", nbins=4)
        if key == "failed":
            panel.set_xlim(-0.03, 1.03)
        if not any(
            math.isfinite(_stability_of(comparison, arm.name, comparison.scope, key).value) for arm in arms
        ):
            panel.set_xticks([])
            panel.text(
                0.5, 0.5, "too few runs", transform=panel.transAxes, ha="center", va="center", color=_GREY
            )
    panels[0, 0].set_yticks(range(len(arms)), labels)
    panels[0, 0].set_ylim(len(arms) - 0.5, -0.5)
    panels[1, 3].axis("off")
    entries = list(_stability_entries(comparison))
    panels[1, 3].legend(*zip(*entries, strict=True), loc="center", handlelength=1.6, fontsize=7)


def _stability_of(comparison: Comparison, arm: str, task: str, key: str) -> Estimate:
    performance = comparison.of(arm, task)
    kind, _, measure = key.partition(" ")
    if measure:
        return performance.stability[measure]
    value = getattr(performance, kind)
    return value if isinstance(value, Estimate) else Estimate(value, math.nan, math.nan)


def _stability_entries(comparison: Comparison) -> Iterator[tuple[Artist, str]]:
    from matplotlib.lines import Line2D

    several = comparison.scope == OVERALL
    yield (
        Line2D([], [], color=_GREY, lw=1.6, marker="o", ms=5),
        f"{OVERALL if several else comparison.scope},\n95% interval",
    )
    if several:
        yield Line2D([], [], color=_GREY, ls="", marker=".", ms=6, mew=0, alpha=0.6), "one task"
    blank = Line2D([], [], ls="")
    yield blank, "in units of the score;\nfailed: not finished,\nor collapsed"


def _kl_axis(evidence: Evidence) -> str:
    return "env_steps" if all(trial.simulates for trial in _shown(evidence)) else "iteration"


def _kl_curves(evidence: Evidence) -> dict[str, dict[str, tuple[DoubleArray, DoubleArray]]]:
    """``{task: {arm: (points, mean KL over finished runs)}}`` of those that recorded one."""
    curves: dict[str, dict[str, tuple[DoubleArray, DoubleArray]]] = {}
    for task in evidence.tasks:
        for arm in evidence.arms:
            known = [_kl_as_returns(trial) for trial in arm.on(task) if trial.finished]
            known = [trial for trial in known if len(trial.returns)]
            if known:
                points, kl = common_curves(known, _kl_axis(evidence))
                curves.setdefault(task, {})[arm.name] = points, kl.mean(axis=0)
    return curves


def _kl_as_returns(trial: Trial) -> Trial:
    known = np.isfinite(trial.kl)
    return replace(
        trial,
        iteration=trial.iteration[known],
        env_steps=trial.env_steps[known],
        returns=trial.kl[known],
    )


# Before and after


def before_after(evidence: Evidence, path: Path) -> None:
    """Draw the distribution of episode returns before training (below the line) and at its end (above).

    Episodes of an arm's finished runs are pooled; the bar spans their quartiles, its mark is the median.
    Episodes of the last evaluation of runs that did not finish are crosses.

    Raises:
        UserError: when ``path`` is no .png or cannot be written.
    """
    looks = looks_of(evidence.arms)
    labels, _ = _row_labels(evidence.arms)
    blocks, columns = _grid(len(evidence.tasks), 3)
    with _page(path, _width(columns), 0.9 + blocks * (0.55 + 0.42 * len(labels))) as figure:
        panels = figure.subplots(blocks, columns, squeeze=False, sharey=True)
        for panel in panels.flat[len(evidence.tasks) :]:
            panel.axis("off")
        for panel, task in zip(panels.flat, evidence.tasks, strict=False):
            for row, arm in enumerate(evidence.arms):
                _two_distributions(panel, arm.on(task), row, looks[arm.name])
            panel.set_title(task)
            panel.set_xlabel("return of an episode")
            _rows_only(panel)
            _plain_ticks(panel)
        panels[0, 0].set_yticks(range(len(labels)), labels)
        panels[0, 0].set_ylim(len(labels) - 0.4, -0.6)
        figure.suptitle("Returns of episodes before training and at its end")
        _legend(figure, list(_distribution_entries(evidence)))


def _two_distributions(panel: Axes, trials: Sequence[Trial], row: int, look: Look) -> None:
    finished = [trial for trial in trials if trial.finished]
    for side, colour, parts in (
        (+1, "#9A9A9A", [trial.before for trial in trials]),
        (-1, look.colour, [trial.after for trial in finished]),
    ):
        values = np.concatenate([np.zeros(0), *parts])
        if not len(values):
            continue
        grid, density = _density(values)
        panel.fill_between(
            grid, row + side * 0.04, row + side * (0.04 + 0.36 * density), color=colour, alpha=0.45, lw=0,
            label="before" if side > 0 else "after",
        )  # fmt: skip
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        y = row + side * 0.09
        panel.plot([low, high], [y, y], color=colour, lw=1.8, label="quartiles")
        marker = "o" if side > 0 else look.marker
        panel.plot(middle, y, marker, color=colour, ms=4, mec="white", mew=0.5, label="median")
    lost = [trial.after for trial in trials if not trial.finished and (trial.iteration > 0).any()]
    if lost:
        panel.plot(
            np.concatenate(lost), [row - 0.25] * sum(map(len, lost)), "x", color=look.colour, ms=3,
            label="not finished",
        )  # fmt: skip


def _density(values: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Gaussian kernel density of values (n,) on a grid, Silverman's bandwidth; its highest value is 1."""
    high, low = np.percentile(values, [75, 25])
    spread = min(float(values.std()), float(high - low) / 1.34) or float(values.std())
    width = max(0.9 * spread * len(values) ** -0.2, 1e-3 * float(np.ptp(values)), 1e-9)
    grid = np.linspace(values.min() - 2.5 * width, values.max() + 2.5 * width, 200)
    density = np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2).sum(axis=1)
    return grid, density / density.max()


def _distribution_entries(evidence: Evidence) -> Iterator[tuple[Artist, str]]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    yield Patch(color=look_of(evidence.arms[0].algorithm)[0], alpha=0.45, lw=0), "at the end (in colour)"
    yield Patch(color="#9A9A9A", alpha=0.45, lw=0), "before training (grey)"
    yield Line2D([], [], color=_GREY, lw=1.8, marker="o", ms=4, mec="white"), "median and quartiles"
    if not all(trial.finished for trial in _shown(evidence)):
        yield (
            Line2D([], [], color=_GREY, ls="", marker="x", ms=4),
            "last episodes of a run that did not finish",
        )


# Two swept settings


def swept(evidence: Evidence) -> tuple[str, str] | None:
    """The two compared settings that are numbers and span a grid, at least half full, if just two do."""
    numeric = [
        key
        for key, values in evidence.compared.items()
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values.values())
    ]
    if len(numeric) != 2:
        return None
    x, y = (evidence.compared[key] for key in numeric)
    cells = {(x[arm.name], y[arm.name]) for arm in evidence.arms}
    size = len(set(x.values())) * len(set(y.values()))
    # Fewer than four cells are a few algorithms that happen to differ in two numbers.
    return (numeric[0], numeric[1]) if len(cells) >= 4 and 2 * len(cells) >= size else None


def heat_map(comparison: Comparison, path: Path, x: str, y: str) -> None:
    """Draw the mean final score over the values of two compared settings, over all tasks and on each one.

    A cell holds the score, its number of runs, and how many of them did not finish or collapsed; a dashed
    frame marks a cell with such runs. Arms that share both values share a cell.

    Args:
        comparison: what was found.
        path: the .png file; its folder is made, and an .svg is written beside it.
        x: setting along the horizontal axis, such as ``algo.gamma``.
        y: setting along the vertical one.

    Raises:
        UserError: when ``path`` is no .png or cannot be written, or arms do not differ in ``x`` or ``y``.
    """
    evidence = comparison.evidence
    for key in (x, y):
        if key not in evidence.compared:
            known = ", ".join(evidence.compared) or "none"
            raise UserError(f"arms do not differ in {show(key)}: the settings in which they do are {known}")
    scopes = [comparison.scope, *(task for task in evidence.tasks if task != comparison.scope)]
    maps = [_cells(comparison, scope, x, y) for scope in scopes]
    across, up = _values(evidence, x), _values(evidence, y)
    blocks, columns = _grid(len(scopes), max(1, int(6.4 / (0.35 + 0.7 * len(across)))))
    scores = np.concatenate([score[np.isfinite(score)] for score, _, _ in maps])
    low, high = float(scores.min()), float(scores.max())
    width = max(4.0, min(_WIDTH, 0.8 + columns * (0.35 + 0.85 * len(across))))
    height = 0.9 + blocks * (0.55 + 0.42 * len(up))
    with _page(path, width, height) as figure:
        panels = figure.subplots(blocks, columns, squeeze=False)
        for panel in panels.flat[len(scopes) :]:
            panel.remove()
        for number, (scope, cells) in enumerate(zip(scopes, maps, strict=True)):
            panel = panels.flat[number]
            image = _heat_panel(panel, cells, low, high)
            panel.set_title(scope, fontweight="bold" if scope == OVERALL else "normal")
            panel.set_xticks(range(len(across)), [show(value) for value in across])
            panel.set_yticks(range(len(up)), [show(value) for value in up])
            panel.set_xlabel(x)
            if number % columns == 0:
                panel.set_ylabel(y)
        bar = figure.colorbar(image, ax=figure.axes, shrink=0.8, pad=0.02, aspect=6 * height)
        bar.set_label("mean final score")
        bar.outline.set_visible(False)
        figure.suptitle(f"Mean final score over {x} and {y}\n(below it: runs, and how many of them failed)")


def _values(evidence: Evidence, key: str) -> list[object]:
    """Values of a setting: numbers in order, then the others."""

    def rank(value: object) -> tuple[bool, float, str]:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return not number, float(str(value)) if number else 0.0, show(value)

    return sorted(dict.fromkeys(evidence.compared[key].values()), key=rank)


def _cells(
    comparison: Comparison, scope: str, x: str, y: str
) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """(rows, columns) mean final score (NaN without a run), runs and failed runs of every cell."""
    evidence = comparison.evidence
    across, up = _values(evidence, x), _values(evidence, y)
    tasks = evidence.tasks if scope == OVERALL else [scope]
    score = np.full((len(up), len(across)), np.nan)
    runs, failed = np.zeros_like(score), np.zeros_like(score)
    for row, column in np.ndindex(score.shape):
        here = [
            arm.name
            for arm in evidence.arms
            if (evidence.compared[x][arm.name], evidence.compared[y][arm.name]) == (across[column], up[row])
        ]
        if not here:
            continue
        by_task = [np.concatenate([comparison.scores[n][task][FINAL.key] for n in here]) for task in tasks]
        score[row, column] = np.mean([values.mean() for values in by_task])
        found = [comparison.of(name, scope) for name in here]
        runs[row, column] = sum(own.seeds for own in found)
        failed[row, column] = sum(own.unfinished + own.collapsed for own in found)
    return score, runs, failed


def _heat_panel(
    panel: Axes, cells: tuple[DoubleArray, DoubleArray, DoubleArray], low: float, high: float
) -> Any:
    from matplotlib.patches import Rectangle

    score, runs, failed = cells
    image = panel.imshow(
        np.ma.masked_invalid(score), cmap="viridis", vmin=low, vmax=high, origin="lower", aspect="auto"
    )
    panel.set_facecolor("#EDEDED")
    panel.grid(visible=False)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    for row, column in np.ndindex(score.shape):
        if not runs[row, column]:
            panel.text(column, row, "no run", ha="center", va="center", fontsize=7, color=_GREY)
            continue
        red, green, blue, _ = image.to_rgba(score[row, column])
        ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        words = f"{runs[row, column]:.0f} runs" if runs[row, column] > 1 else "1 run"
        if failed[row, column]:
            words = f"{failed[row, column]:.0f}/{runs[row, column]:.0f} failed"
            frame = Rectangle(
                (column - 0.45, row - 0.43), 0.9, 0.86, fill=False, ec=ink, lw=1.1, ls=(0, (3, 2))
            )
            panel.add_patch(frame)
        panel.text(column, row + 0.14, f"{score[row, column]:.2f}", ha="center", va="center", color=ink)
        panel.text(column, row - 0.2, words, ha="center", va="center", color=ink, fontsize=7)
    return image


# Looks


def look_of(algorithm: str) -> tuple[str, str]:
    """Colour and marker of an algorithm, the same in every figure."""
    other = _OTHER_LOOKS[zlib.crc32(algorithm.encode()) % len(_OTHER_LOOKS)]
    return LOOKS.get(algorithm, other)


def looks_of(arms: Sequence[Arm]) -> dict[str, Look]:
    """How each arm is drawn: as its algorithm; settings of one differ in line, many in shade and filling."""
    looks: dict[str, Look] = {}
    for algorithm in dict.fromkeys(arm.algorithm for arm in arms):
        names = [arm.name for arm in arms if arm.algorithm == algorithm]
        colour, marker = look_of(algorithm)
        shades = np.linspace(-0.45, 0.45, len(names)) if len(names) > len(_LINES) else np.zeros(len(names))
        for number, (name, shade) in enumerate(zip(names, shades, strict=True)):
            shaded, hollow = _shaded(colour, float(shade)), number // len(_LINES) % 2
            line = _LINES[number % len(_LINES)]
            looks[name] = Look(shaded, marker, line, "white" if hollow else shaded, len(looks) / len(arms))
    return looks


def _shaded(colour: str, shade: float) -> str:
    """``colour`` mixed with black (shade -1) or white (+1)."""
    from matplotlib.colors import to_hex, to_rgb

    end = 1.0 if shade > 0 else 0.0
    red, green, blue = (part + abs(shade) * (end - part) for part in to_rgb(colour))
    return to_hex((red, green, blue))


def _key(look: Look) -> Artist:
    """The line of a legend that stands for an arm."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=look.colour, lw=1.7, ls=look.line, marker=look.marker, ms=4.5, mfc=look.fill)


# Pages


@contextmanager
def _page(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches; on leaving, it is written to ``path`` and as an .svg beside it."""
    _check_png(path)
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    png, svg = BytesIO(), BytesIO()
    figure.savefig(png, format="png", dpi=200)
    figure.set_layout_engine("none")  # the layout is found; finding it again takes as long as drawing
    figure.savefig(svg, format="svg", metadata={"Date": None})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, png.getvalue())
        write_atomically(path.with_suffix(".svg"), svg.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _check_png(path: Path) -> None:
    if path.suffix != ".png":
        raise UserError(f"the figure must be a .png file, got {path}")


def _grid(panels: int, most: int) -> tuple[int, int]:
    """Rows and columns for so many panels, evenly filled, with at most ``most`` columns."""
    rows = max(1, math.ceil(panels / most))
    return rows, max(1, math.ceil(panels / rows))


def _width(columns: int) -> float:
    return 5.0 if columns == 1 else _WIDTH


def _legend(figure: Figure | SubFigure, entries: Sequence[tuple[Artist, str]]) -> None:
    """One legend below all panels, with as many columns as fit."""
    handles, names = zip(*entries, strict=True)
    labels = [_wrapped(name, 56) for name in names]
    longest = max(len(line) for label in labels for line in label.splitlines())
    width = figure.bbox.width / figure.figure.dpi
    columns = max(1, min(len(labels), int(width / (0.6 + _LETTER * longest))))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.4, handlelength=3.4
    )


def _row_labels(arms: Sequence[Arm]) -> tuple[list[str], int]:
    """Names of arms that stand left of rows, and the lines that the longest takes."""
    labels = [_wrapped(arm.name, 24) for arm in arms]
    return labels, max(label.count("\n") + 1 for label in labels)


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _rows_only(panel: Axes) -> None:
    """No lines at the names of rows."""
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)


def _plain_ticks(panel: Axes) -> None:
    """Few ticks along x, as 100k."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    panel.margins(x=0.04)
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
