"""Elements common to several figures: mean with band, value with interval, legend of the arms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from scipy import special

from sailctl.analysis.evidence import Arm, Evidence, Trial
from sailctl.analysis.figures.styles import Style, legend_key
from sailctl.analysis.statistics import LEVEL, Estimate
from sailctl.core.types import DoubleArray

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

BAND_SEEDS = 3
"""Minimum number of finished seeds for the interval of a mean."""


def mean_line(panel: Axes, points: DoubleArray, curves: DoubleArray, style: Style) -> None:
    """Draw the mean of ``curves`` (n, E) at ``points`` (E,), with its t interval if n >= ``BAND_SEEDS``."""
    from matplotlib.patheffects import Normal, Stroke

    mean, n = curves.mean(axis=0), len(curves)
    gap = max(1, math.ceil(len(points) / 7))
    panel.plot(
        points,
        mean,
        color=style.colour,
        lw=1.7,
        ls=style.line,
        marker=style.marker,
        markevery=(int(style.shift * gap), gap),
        ms=4,
        mfc=style.fill,
        mew=0.7,
        path_effects=[Stroke(linewidth=2.5, foreground="white"), Normal()],
        zorder=3,
        label="mean",
    )
    if n >= BAND_SEEDS:
        quantile = float(special.stdtrit(n - 1, (1 + LEVEL) / 2))
        half = quantile * curves.std(axis=0, ddof=1) / math.sqrt(n)
        # The limits of a panel depend on the curves only, because intervals of few seeds are very wide.
        lines = panel.dataLim.frozen()
        panel.fill_between(
            points, mean - half, mean + half, color=style.colour, alpha=0.18, lw=0, zorder=1.2, label="band"
        )
        panel.dataLim.set(lines)


def error_bar(panel: Axes, estimate: Estimate, y: float, style: Style, filled: bool = True) -> None:
    """Draw a value at height ``y``, with its interval if defined."""
    if math.isfinite(estimate.low):
        panel.plot([estimate.low, estimate.high], [y, y], color=style.colour, lw=1.6, label="interval")
    panel.plot(
        estimate.value,
        y,
        color=style.colour,
        marker=style.marker,
        ms=5.5,
        mfc=style.colour if filled else "white",
        mec="white" if filled else style.colour,
        mew=0.5 if filled else 1.2,
        label="value",
    )


def arm_entries(evidence: Evidence, styles: Mapping[str, Style]) -> list[tuple[Artist, str]]:
    """One legend entry per arm, with its numbers of seeds and unfinished runs."""
    return [(legend_key(styles[arm.name]), _counted(arm, evidence.tasks)) for arm in evidence.arms]


def _counted(arm: Arm, tasks: Sequence[str]) -> str:
    """Name, number of seeds and number of unfinished runs of an arm."""
    by_task = {task: trials for task in tasks if (trials := arm.on(task))}
    sizes = sorted({len(trials) for trials in by_task.values()})
    seeds = " to ".join(dict.fromkeys((str(sizes[0]), str(sizes[-1]))))
    words = f"{seeds} seed" if sizes[-1] == 1 else f"{seeds} seeds"
    total = sum(map(len, by_task.values()))
    unfinished = sum(not trial.finished for trials in by_task.values() for trial in trials)
    if len(by_task) > 1:
        words += " per task"
    if unfinished:
        single_task = len(by_task) == 1
        count = f"{unfinished} not" if single_task else f"{unfinished} of {total} runs not"
        words += f", {count} finished"
    if len(by_task) < len(tasks):
        words += f", on {' and '.join(by_task)} only"
    return f"{arm.name} ({words})"


def shown_trials(evidence: Evidence) -> list[Trial]:
    """The runs of the evidence on the compared tasks; arms may have runs on other tasks."""
    return [trial for trial in evidence.trials if trial.task in evidence.tasks]
