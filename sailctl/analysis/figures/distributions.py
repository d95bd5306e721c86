"""Returns of single episodes before training and at its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sailctl.analysis.evidence import Evidence, Trial
from sailctl.analysis.figures.marks import shown_trials
from sailctl.analysis.figures.pages import (
    grid_of,
    legend,
    page,
    page_width,
    plain_ticks,
    row_labels,
    rows_only,
)
from sailctl.analysis.figures.styles import GREY, Style, style_of, styles_of
from sailctl.core.types import DoubleArray

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes


def before_after(evidence: Evidence, path: Path) -> None:
    """Draw the distributions of episode returns before training (below the line) and at its end (above).

    Episodes of an arm's finished runs are pooled. The bar spans their quartiles; its mark is the median.
    Episodes of the last evaluation of runs that did not finish are crosses.

    Raises:
        UserError: when ``path`` is not a .png file or cannot be written.
    """
    styles = styles_of(evidence.arms)
    labels, _ = row_labels(evidence.arms)
    blocks, columns = grid_of(len(evidence.tasks), 3)
    with page(path, page_width(columns), 0.9 + blocks * (0.55 + 0.42 * len(labels))) as figure:
        panels = figure.subplots(blocks, columns, squeeze=False, sharey=True)
        for panel in panels.flat[len(evidence.tasks) :]:
            panel.axis("off")
        for panel, task in zip(panels.flat, evidence.tasks, strict=False):
            for row, arm in enumerate(evidence.arms):
                _two_distributions(panel, arm.on(task), row, styles[arm.name])
            panel.set_title(task)
            panel.set_xlabel("return of an episode")
            rows_only(panel)
            plain_ticks(panel)
        panels[0, 0].set_yticks(range(len(labels)), labels)
        panels[0, 0].set_ylim(len(labels) - 0.4, -0.6)
        figure.suptitle("Returns of episodes before training and at its end")
        legend(figure, list(_distribution_entries(evidence)))


def _two_distributions(panel: Axes, trials: Sequence[Trial], row: int, style: Style) -> None:
    finished = [trial for trial in trials if trial.finished]
    for side, colour, parts in (
        (+1, "#9A9A9A", [trial.before for trial in trials]),
        (-1, style.colour, [trial.after for trial in finished]),
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
        marker = "o" if side > 0 else style.marker
        panel.plot(middle, y, marker, color=colour, ms=4, mec="white", mew=0.5, label="median")
    unfinished = [trial.after for trial in trials if not trial.finished and (trial.iteration > 0).any()]
    if unfinished:
        returns = np.concatenate(unfinished)
        panel.plot(
            returns, [row - 0.25] * len(returns), "x", color=style.colour, ms=3,
            label="not finished",
        )  # fmt: skip


def _density(values: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Gaussian kernel density of values (n,) on a grid (Silverman's bandwidth), scaled to a maximum of 1."""
    high, low = np.percentile(values, [75, 25])
    spread = min(float(values.std()), float(high - low) / 1.34) or float(values.std())
    width = max(0.9 * spread * len(values) ** -0.2, 1e-3 * float(np.ptp(values)), 1e-9)
    grid = np.linspace(values.min() - 2.5 * width, values.max() + 2.5 * width, 200)
    density = np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2).sum(axis=1)
    return grid, density / density.max()


def _distribution_entries(evidence: Evidence) -> Iterator[tuple[Artist, str]]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    yield Patch(color=style_of(evidence.arms[0].algorithm)[0], alpha=0.45, lw=0), "at the end (in colour)"
    yield Patch(color="#9A9A9A", alpha=0.45, lw=0), "before training (grey)"
    yield Line2D([], [], color=GREY, lw=1.8, marker="o", ms=4, mec="white"), "median and quartiles"
    if not all(trial.finished for trial in shown_trials(evidence)):
        yield (
            Line2D([], [], color=GREY, ls="", marker="x", ms=4),
            "last episodes of a run that did not finish",
        )
