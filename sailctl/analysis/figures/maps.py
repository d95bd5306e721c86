"""Final scores over the grid of two swept settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sailctl.analysis.compare import Comparison
from sailctl.analysis.contrasts import OVERALL
from sailctl.analysis.evidence import Evidence
from sailctl.analysis.figures.pages import WIDTH, grid_of, page
from sailctl.analysis.figures.styles import GREY
from sailctl.analysis.scores import FINAL
from sailctl.core.types import DoubleArray, UserError
from sailctl.core.words import show

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def swept(evidence: Evidence) -> tuple[str, str] | None:
    """The two numerical compared settings, if there are exactly two and their grid is at least half full."""
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
    # With fewer than four cells the arms are algorithms that differ in two numbers, not a sweep.
    return (numeric[0], numeric[1]) if len(cells) >= 4 and 2 * len(cells) >= size else None


def heat_map(comparison: Comparison, path: Path, x: str, y: str) -> None:
    """Draw the mean final score over a grid of two compared settings, over all tasks and on each task.

    A cell shows the score, its number of runs, and the number of runs that did not finish or collapsed; a
    dashed frame marks a cell with such runs. Arms with equal values of both settings share a cell.

    Args:
        comparison: the result to draw.
        path: the .png file; its folder is created, and an .svg file of the same name is written.
        x: setting along the horizontal axis, such as ``algo.gamma``.
        y: setting along the vertical axis.

    Raises:
        UserError: when ``path`` is not a .png file or cannot be written, or arms do not differ in ``x`` or
            ``y``.
    """
    evidence = comparison.evidence
    for key in (x, y):
        if key not in evidence.compared:
            keys = ", ".join(evidence.compared) or "none"
            raise UserError(f"arms do not differ in {show(key)}: the settings in which they do are {keys}")
    scopes = comparison.scopes
    maps = [_cells(comparison, scope, x, y) for scope in scopes]
    across, up = _values(evidence, x), _values(evidence, y)
    blocks, columns = grid_of(len(scopes), max(1, int(6.4 / (0.35 + 0.7 * len(across)))))
    scores = np.concatenate([score[np.isfinite(score)] for score, _, _ in maps])
    low, high = float(scores.min()), float(scores.max())
    width = max(4.0, min(WIDTH, 0.8 + columns * (0.35 + 0.85 * len(across))))
    height = 0.9 + blocks * (0.55 + 0.42 * len(up))
    with page(path, width, height) as figure:
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
        figure.suptitle(
            f"Mean final score over {x} and {y}\n(below each score: number of runs, or of failed runs)"
        )


def _values(evidence: Evidence, key: str) -> list[object]:
    """Values of a setting: numbers in ascending order, then other values."""

    def rank(value: object) -> tuple[bool, float, str]:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return not number, float(str(value)) if number else 0.0, show(value)

    return sorted(dict.fromkeys(evidence.compared[key].values()), key=rank)


def _cells(
    comparison: Comparison, scope: str, x: str, y: str
) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """(rows, columns) mean final score (NaN without a run), number of runs, and number of failed runs."""
    evidence = comparison.evidence
    across, up = _values(evidence, x), _values(evidence, y)
    tasks = evidence.tasks if scope == OVERALL else [scope]
    score = np.full((len(up), len(across)), np.nan)
    runs, failed = np.zeros_like(score), np.zeros_like(score)
    for row, column in np.ndindex(score.shape):
        names = [
            arm.name
            for arm in evidence.arms
            if (evidence.compared[x][arm.name], evidence.compared[y][arm.name]) == (across[column], up[row])
        ]
        if not names:
            continue
        by_task = [np.concatenate([comparison.scores[n][task][FINAL.key] for n in names]) for task in tasks]
        score[row, column] = np.mean([values.mean() for values in by_task])
        results = [comparison.of(name, scope) for name in names]
        runs[row, column] = sum(result.seeds for result in results)
        failed[row, column] = sum(result.unfinished + result.collapsed for result in results)
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
            panel.text(column, row, "no run", ha="center", va="center", fontsize=7, color=GREY)
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
