"""A grid of panels in the style of ``analysis.figures``, for the figures of the lab."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Okabe and Ito's colours, which stay apart for colour-blind readers and in grey.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
YELLOW, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"
DIVERGING = "PuOr_r"
"""Colour map for signed values, orange above zero and purple below, for colour-blind readers too."""


@contextmanager
def panels(
    path: Path, rows: int, columns: int, size: tuple[float, float]
) -> Iterator[tuple[Figure, NDArray[Any]]]:
    """A figure and its (rows, columns) array of axes; on leaving, it is written to ``path``.

    Args:
        path: the .png file; its folder is made.
        rows: panels from top to bottom.
        columns: panels from left to right.
        size: width and height of one panel (inches).
    """
    with matplotlib.rc_context(
        {
            "font.size": 9,
            "axes.titlesize": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E0E0E0",
            "grid.linewidth": 0.6,
            "legend.frameon": False,
            "legend.fontsize": 8,
        }
    ):
        figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(rows, columns, squeeze=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=200)
        print(f"figure: {path}")
