"""Figures of final scores with intervals, and of performance profiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sailctl.analysis.compare import Comparison
from sailctl.analysis.contrasts import ALPHA, OVERALL, Contrast
from sailctl.analysis.evidence import Arm
from sailctl.analysis.figures.marks import arm_entries, error_bar, shown_trials
from sailctl.analysis.figures.pages import WIDTH, legend, page, row_labels, rows_only, wrapped
from sailctl.analysis.figures.styles import GREY, Style, styles_of
from sailctl.analysis.scores import FINAL, SCALES
from sailctl.analysis.statistics import TOO_FEW

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes


def intervals(comparison: Comparison, path: Path) -> None:
    """Draw each arm's final score, its difference from the baseline and the probability of improvement.

    There is one row per arm, over all tasks and on each task, with 95% intervals and the scores of single
    runs. The marker of a difference is filled if the verdict is ``better`` or ``worse``.

    Raises:
        UserError: when ``path`` is not a .png file or cannot be written.
    """
    evidence = comparison.evidence
    styles = styles_of(evidence.arms)
    scopes = comparison.scopes
    labels, lines = row_labels(evidence.arms)
    pitch = 0.06 + 0.12 * lines
    with page(path, WIDTH, 1.75 + len(scopes) * pitch * (1.2 + len(labels))) as figure:
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
                _forest_row(panels, comparison, arm, scope, top + 1.5 + row, styles[arm.name])
            top = end
        panels[0].set_yticks(list(ticks), list(ticks.values()))
        panels[0].set_ylim(top, 0)
        for label in panels[0].get_yticklabels():
            label.set_fontweight("bold" if label.get_text() in scopes else "normal")
        _scale_label(panels[0], "final score", "mean over runs and tasks")
        panels[0].update_datalim([(0, 1), (1, 1)])
        panels[0].autoscale_view(scaley=False)
        if count == 3:
            _scale_label(panels[1], "difference in final score", f"from {comparison.baseline}")
            _scale_label(panels[2], "probability of improvement", f"over {comparison.baseline}")
            panels[1].axvline(0, color=GREY, lw=0.9)
            panels[2].axvline(0.5, color=GREY, lw=0.9)
            panels[2].set_xlim(-0.03, 1.03)
        for panel in panels:
            rows_only(panel)
        bounded = any(np.isfinite(row.final.low) for row in comparison.performance)
        title = f"Final scores{' and 95% intervals' if bounded else ''} ({SCALES[comparison.options.source]})"
        title += "" if bounded else f"\nNo intervals: {TOO_FEW}"
        if evidence.caveats:
            title += "\nNot a fair comparison: see the caveats"
        figure.suptitle(title)
        legend(figure, list(_forest_entries(comparison)))


def _forest_row(
    panels: Sequence[Axes], comparison: Comparison, arm: Arm, scope: str, y: float, style: Style
) -> None:
    tasks = comparison.evidence.tasks if scope == OVERALL else [scope]
    trials = [trial for task in tasks for trial in arm.on(task)]
    scores = np.concatenate([comparison.scores[arm.name][task][FINAL.key] for task in tasks])
    finished = np.array([trial.finished for trial in trials])
    heights = y + 0.3 * np.linspace(-1, 1, len(scores)) * (len(scores) > 1)
    panels[0].plot(
        scores[finished], heights[finished], ".", color=style.colour, ms=3.5, mew=0, alpha=0.4, label="seeds"
    )
    panels[0].plot(
        scores[~finished],
        heights[~finished],
        "x",
        color=style.colour,
        ms=3.5,
        alpha=0.8,
        label="not finished",
    )
    error_bar(panels[0], comparison.of(arm.name, scope).final, y, style)
    if len(panels) == 1:
        return
    if arm.name == comparison.baseline:
        panels[1].text(
            0.03, y, "baseline", transform=panels[1].get_yaxis_transform(), va="center", color=GREY
        )
        return
    contrast = _final_contrast(comparison, arm.name, scope)
    decided = contrast.verdict != "undecided"
    error_bar(panels[1], contrast.difference, y, style, decided)
    error_bar(panels[2], contrast.improvement, y, style, decided)


def _final_contrast(comparison: Comparison, arm: str, task: str) -> Contrast:
    return next(c for c in comparison.contrasts if (c.arm, c.task, c.measure) == (arm, task, FINAL.key))


def _scale_label(panel: Axes, name: str, explanation: str) -> None:
    panel.set_xlabel(f"{name}\n{wrapped(explanation, 34)}")


def _forest_entries(comparison: Comparison) -> Iterator[tuple[Artist, str]]:
    from matplotlib.lines import Line2D

    evidence = comparison.evidence
    if any(trial.finished for trial in shown_trials(evidence)):
        yield Line2D([], [], color=GREY, ls="", marker=".", ms=5, mew=0, alpha=0.6), "one run"
    if not all(trial.finished for trial in shown_trials(evidence)):
        cross = Line2D([], [], color=GREY, ls="", marker="x", ms=4)
        yield cross, "a run that did not finish (scored as the lowest return)"
    if len(evidence.arms) > 1:
        yield (
            Line2D([], [], color=GREY, marker="o", ms=5.5),
            f"decided difference (p < {ALPHA} after Holm's correction)",
        )
        yield Line2D([], [], color=GREY, marker="o", ms=5.5, mfc="white"), "undecided"


def profiles(comparison: Comparison, path: Path) -> None:
    """Draw the share of the runs of each arm with a final score above each threshold, with its 95% band.

    Raises:
        UserError: when ``path`` is not a .png file or cannot be written.
    """
    evidence = comparison.evidence
    styles = styles_of(evidence.arms)
    with page(path, 5.2, 3.4 + 0.15 * len(evidence.arms)) as figure:
        panel = figure.subplots()
        for arm in evidence.arms:
            style, (share, low, high) = styles[arm.name], comparison.profiles[arm.name].T
            x = comparison.thresholds
            alpha = min(0.15, 0.8 / len(styles))
            panel.fill_between(x, low, high, step="post", color=style.colour, alpha=alpha, lw=0, label="band")
            panel.plot(
                x, share, drawstyle="steps-post", color=style.colour, lw=1.5, ls=style.line, mew=0.7,
                marker=style.marker, markevery=(int(12 * style.shift), 12), ms=4, mfc=style.fill,
                label="profile",
            )  # fmt: skip
        panel.set_xlabel(f"final score τ ({SCALES[comparison.options.source]})")
        panel.set_ylabel("share of runs with a final score above τ")
        panel.set_ylim(-0.03, 1.03)
        bounded = any(np.isfinite(band).all() for band in comparison.profiles.values())
        figure.suptitle(
            "Performance profile and 95% bands" if bounded else f"Performance profile ({TOO_FEW})"
        )
        legend(figure, arm_entries(evidence, styles))
