"""Learning curves of the arms on each task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sailctl.analysis.evidence import AXES, Evidence, Trial
from sailctl.analysis.figures.marks import BAND_SEEDS, arm_entries, mean_line, shown_trials
from sailctl.analysis.figures.pages import grid_of, legend, page, page_width, plain_ticks
from sailctl.analysis.figures.styles import GREY, Style, styles_of
from sailctl.analysis.scores import common_curves
from sailctl.core.types import DoubleArray
from sailctl.policies.references import scale_of_references

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_FAINT = 100  # minimum number of faint lines in a panel that the SVG rasterises


def learning_curves(
    evidence: Evidence, path: Path, axes: Sequence[str] = ("env_steps", "labels", "wall_s")
) -> None:
    """Draw the true return along each of ``axes`` (keys of ``evidence.AXES``), with one column per task.

    Each seed is a faint line. The mean over finished seeds is a bold line, with its pointwise 95% t interval
    if there are at least ``BAND_SEEDS``. If an algorithm learns only from a data set, a row along iterations
    is added for its curve; in the other rows it is a horizontal line at its mean final return.

    Args:
        evidence: the runs.
        path: the .png file; its folder is created, and an .svg file of the same name is written.
        axes: x axes, from top to bottom.

    Raises:
        UserError: when ``path`` is not a .png file or cannot be written.
    """
    rows = tuple(axes)
    if "iteration" not in rows and not all(trial.simulates for trial in shown_trials(evidence)):
        rows = (*rows, "iteration")
    styles, scales = styles_of(evidence.arms), scale_of_references()
    tasks = evidence.tasks
    blocks, columns = grid_of(len(tasks), 4)
    height = 1.8 if blocks == 1 else 1.55
    with page(path, page_width(columns), 0.9 + height * len(rows) * blocks + 0.12 * len(styles)) as figure:
        panels = figure.subplots(len(rows) * blocks, columns, squeeze=False)
        for place in range(blocks * columns):
            block, column = divmod(place, columns)
            stack = panels[block * len(rows) : (block + 1) * len(rows), column]
            if place >= len(tasks):
                for panel in stack:
                    panel.remove()
                continue
            task = tasks[place]
            stack[0].set_title(task)
            for panel, axis in zip(stack, rows, strict=True):
                if panel is not stack[0]:
                    panel.sharey(stack[0])
                for arm in evidence.arms:
                    _curves(panel, arm.on(task), axis, styles[arm.name])
                if task in scales:
                    panel.axhline(
                        scales[task][1], color=GREY, lw=0.8, ls=(0, (5, 3)), zorder=0, label="expert"
                    )
                panel.set_xlabel(AXES[axis])
                plain_ticks(panel)
                if column == 0:
                    panel.set_ylabel("true return")
        figure.suptitle("Learning curves: true return of the deterministic policy")
        legend(figure, [*arm_entries(evidence, styles), *_line_entries(evidence)])


def _curves(panel: Axes, trials: Sequence[Trial], axis: str, style: Style) -> None:
    """Draw the runs of an arm on one task along ``axis``."""
    finished = [trial for trial in trials if trial.finished]
    if axis != "iteration" and not all(trial.simulates for trial in trials):
        if finished:
            level = float(np.mean([trial.final for trial in finished]))
            panel.axhline(level, color=style.colour, lw=1.2, ls=(0, (2, 2)), label="level")
        return
    _faint(panel, [(trial.along(axis), trial.returns) for trial in finished], style, "seeds")
    others = [trial for trial in trials if not trial.finished and len(trial.returns)]
    if others:
        lines = [(trial.along(axis), trial.returns) for trial in others]
        _faint(panel, lines, style, "not finished", linestyles=":", alpha=0.8, linewidths=1.0)
        ends = [(x[np.isfinite(x)][-1], y[np.isfinite(x)][-1]) for x, y in lines if np.isfinite(x).any()]
        panel.plot(*np.transpose(ends), color=style.colour, marker="x", ms=4.5, ls="", zorder=3, label="ends")
    if timed := [trial for trial in finished if np.isfinite(trial.along(axis)).all()]:
        mean_line(panel, *common_curves(timed, axis), style)


def _faint(
    panel: Axes, lines: Sequence[tuple[DoubleArray, DoubleArray]], style: Style, label: str, **options: Any
) -> None:
    from matplotlib.collections import LineCollection

    alpha = max(0.04, min(0.3, 8 / len(lines))) if lines else 1.0
    faint = LineCollection(
        [np.column_stack(line) for line in lines],
        colors=style.colour,
        label=label,
        rasterized=len(lines) > _FAINT,
        zorder=1.1,
        **{"alpha": alpha, "linewidths": 0.6, **options},
    )
    panel.add_collection(faint)
    panel.autoscale_view()


def _line_entries(evidence: Evidence) -> Iterator[tuple[Artist, str]]:
    """Legend entries that do not belong to a single arm."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    counts = [
        sum(trial.finished for trial in arm.on(task)) for arm in evidence.arms for task in evidence.tasks
    ]
    if scale_of_references().keys() & set(evidence.tasks):
        yield Line2D([], [], color=GREY, lw=0.8, ls=(0, (5, 3))), "expert reference (true reward)"
    if max(counts) > 1:
        yield Line2D([], [], color=GREY, lw=0.6, alpha=0.6), "one seed"
    if max(counts) >= BAND_SEEDS:
        yield Patch(color=GREY, alpha=0.25, lw=0), "95% interval of the mean"
    if not all(trial.finished for trial in shown_trials(evidence)):
        yield Line2D([], [], color=GREY, lw=1, ls=":", marker="x", ms=4.5), "a run that did not finish"
    if not all(trial.simulates for trial in shown_trials(evidence)):
        level = Line2D([], [], color=GREY, lw=1.2, ls=(0, (2, 2)))
        yield level, "final return of training on a data set only"
