"""Figures of runs: learning curves, comparison of arms, stability, and final returns.

Every run is counted and shown. A run that failed, was interrupted or is still running is drawn dotted, or as
a cross, and excluded from means over runs; the legend and the table say so. An algorithm has the same colour
and marker in every figure. Figures have the width of a printed page, so that fonts keep their size.
"""

from __future__ import annotations

from pathlib import Path

from sailctl.analysis.compare import Comparison
from sailctl.analysis.figures.curves import learning_curves
from sailctl.analysis.figures.distributions import before_after
from sailctl.analysis.figures.maps import heat_map, swept
from sailctl.analysis.figures.marks import BAND_SEEDS
from sailctl.analysis.figures.runs import plot_runs, summary_table
from sailctl.analysis.figures.scores import intervals, profiles
from sailctl.analysis.figures.stability import stability
from sailctl.analysis.figures.styles import STYLES, Style, style_of, styles_of

__all__ = [
    "BAND_SEEDS",
    "STYLES",
    "Style",
    "all_figures",
    "before_after",
    "heat_map",
    "intervals",
    "learning_curves",
    "plot_runs",
    "profiles",
    "stability",
    "style_of",
    "styles_of",
    "summary_table",
    "swept",
]


def all_figures(comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Write every figure that applies to the comparison to ``folder``.

    Returns:
        ``{name: .png file}`` in reading order: ``intervals``, ``learning_curves``,
        ``stability``, ``profiles``, ``before_after`` and, if two numerical settings were swept, ``heat_map``.

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
