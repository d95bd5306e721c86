"""What several pictures draw: a mean with its band, a value with its interval, the legend of the arms."""

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
"""Finished seeds from which on a mean is drawn with its interval."""


def mean_line(panel: Axes, points: DoubleArray, curves: DoubleArray, style: Style) -> None:
    """Mean of ``curves`` (n, E) at ``points`` (E,), and from ``BAND_SEEDS`` on its t interval."""
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
        # Curves decide the limits of a panel: the interval of a few seeds would leave nothing to see.
        lines = panel.dataLim.frozen()
        panel.fill_between(
            points, mean - half, mean + half, color=style.colour, alpha=0.18, lw=0, zorder=1.2, label="band"
        )
        panel.dataLim.set(lines)


def error_bar(panel: Axes, estimate: Estimate, y: float, style: Style, filled: bool = True) -> None:
    """A value at height ``y`` with its interval, where it has one."""
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
    """A legend's entry for each arm, with its numbers of seeds and unfinished runs."""
    return [(legend_key(styles[arm.name]), _counted(arm, evidence.tasks)) for arm in evidence.arms]


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


def shown_trials(evidence: Evidence) -> list[Trial]:
    """Its runs on the tasks that are compared; an arm may have others."""
    return [trial for trial in evidence.trials if trial.task in evidence.tasks]
