"""Figure of the stability of learning, and of the KL divergence from the reference policy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sailctl.analysis.compare import Comparison
from sailctl.analysis.contrasts import OVERALL
from sailctl.analysis.evidence import AXES, Evidence, Trial
from sailctl.analysis.figures.marks import error_bar, mean_line, shown_trials
from sailctl.analysis.figures.pages import WIDTH, grid_of, legend, page, plain_ticks, row_labels, rows_only
from sailctl.analysis.figures.styles import GREY, Style, legend_key, styles_of
from sailctl.analysis.scores import STABILITY, common_curves
from sailctl.analysis.statistics import Estimate
from sailctl.core.types import DoubleArray

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import SubFigure


def stability(comparison: Comparison, path: Path) -> None:
    """Draw the stability measures of the arms, their failed runs, and KL(ref || pi) during training.

    Values are over all tasks, with 95% intervals; faint dots below are the values of single tasks. Dispersion
    and risk across runs have no interval. The KL is the mean over finished runs.

    Raises:
        UserError: when ``path`` is not a .png file or cannot be written.
    """
    evidence = comparison.evidence
    styles = styles_of(evidence.arms)
    labels, lines = row_labels(evidence.arms)
    curves = _kl_curves(evidence)
    above = 2 * (0.75 + (0.06 + 0.12 * lines) * len(labels))
    blocks, columns = grid_of(len(curves), 4)
    below = 0.45 + 1.75 * blocks + 0.14 * len(labels) if curves else 0.0
    with page(path, WIDTH, above + below + 0.3) as figure:
        heights = [above, below] if curves else [above]
        upper, *lower = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights).flat
        figure.suptitle("Stability of learning")
        _stability_panels(upper, comparison, styles, labels)
        for part in lower:
            panels = part.subplots(blocks, columns, squeeze=False)
            for panel in panels.flat[len(curves) :]:
                panel.remove()
            for number, (task, arm_curves) in enumerate(curves.items()):
                panel = panels.flat[number]
                for name, (points, kl) in arm_curves.items():
                    mean_line(panel, points, kl[None], styles[name])
                panel.set_title(task)
                panel.set_ylim(bottom=0)
                panel.locator_params(axis="y", nbins=5)
                panel.set_xlabel(AXES[_kl_axis(evidence)])
                plain_ticks(panel)
                if number % columns == 0:
                    panel.set_ylabel("KL(ref || π) per state (nats)")
            legend(part, [(legend_key(styles[arm.name]), arm.name) for arm in evidence.arms])


def _stability_panels(
    part: SubFigure, comparison: Comparison, styles: Mapping[str, Style], labels: Sequence[str]
) -> None:
    arms = comparison.evidence.arms
    panels = part.subplots(2, 4, sharey=True)
    measures = [
        *((measure.name, measure.better, f"stability {measure.key}") for measure in STABILITY),
        ("dispersion across runs", -1, "dispersion_across"),
        ("risk across runs", +1, "risk_across"),
        ("share of failed runs", -1, "failed"),
    ]
    for panel, (name, better, key) in zip(panels.flat, measures, strict=False):
        for row, arm in enumerate(arms):
            style = styles[arm.name]
            if comparison.scope == OVERALL:
                values = [_stability_of(comparison, arm.name, t, key).value for t in comparison.scales]
                panel.plot(
                    values, [row + 0.22] * len(values), ".", color=style.colour, ms=4.5, mew=0, alpha=0.6
                )
            error_bar(panel, _stability_of(comparison, arm.name, comparison.scope, key), row, style)
        panel.set_title(name)
        panel.set_xlabel(
            "higher is steadier →" if better > 0 else "← lower is steadier", color=GREY, fontsize=7
        )
        rows_only(panel)
        panel.locator_params(axis="x", nbins=4)
        if key == "failed":
            panel.set_xlim(-0.03, 1.03)
        if not any(
            math.isfinite(_stability_of(comparison, arm.name, comparison.scope, key).value) for arm in arms
        ):
            panel.set_xticks([])
            panel.text(
                0.5, 0.5, "too few runs", transform=panel.transAxes, ha="center", va="center", color=GREY
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
        Line2D([], [], color=GREY, lw=1.6, marker="o", ms=5),
        f"{OVERALL if several else comparison.scope},\n95% interval",
    )
    if several:
        yield Line2D([], [], color=GREY, ls="", marker=".", ms=6, mew=0, alpha=0.6), "one task"
    blank = Line2D([], [], ls="")
    yield blank, "in units of score;\nfailed: not finished,\nor collapsed"


def _kl_axis(evidence: Evidence) -> str:
    return "env_steps" if all(trial.simulates for trial in shown_trials(evidence)) else "iteration"


def _kl_curves(evidence: Evidence) -> dict[str, dict[str, tuple[DoubleArray, DoubleArray]]]:
    """``{task: {arm: (points, mean KL over finished runs)}}`` of the arms that recorded the KL."""
    curves: dict[str, dict[str, tuple[DoubleArray, DoubleArray]]] = {}
    for task in evidence.tasks:
        for arm in evidence.arms:
            finished = [_kl_as_returns(trial) for trial in arm.on(task) if trial.finished]
            recorded = [trial for trial in finished if len(trial.returns)]
            if recorded:
                points, kl = common_curves(recorded, _kl_axis(evidence))
                curves.setdefault(task, {})[arm.name] = points, kl.mean(axis=0)
    return curves


def _kl_as_returns(trial: Trial) -> Trial:
    recorded = np.isfinite(trial.kl)
    return replace(
        trial,
        iteration=trial.iteration[recorded],
        env_steps=trial.env_steps[recorded],
        returns=trial.kl[recorded],
    )
