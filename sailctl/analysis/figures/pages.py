"""Figures with the width of a printed page, so that fonts keep their size; panels, labels and legends."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sailctl.analysis.evidence import Arm
from sailctl.core.files import write_atomically
from sailctl.core.types import UserError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

WIDTH = 7.2
"""Width of the text of a printed page, in inches."""
_LETTER = 0.052  # approximate width of a letter, in inches
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


@contextmanager
def page(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure of ``width`` by ``height`` inches, written to ``path`` and an .svg file at the end.

    Raises:
        UserError: when ``path`` is not a .png file or cannot be written.
    """
    check_png(path)
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # ignore the user's settings, so that figures are reproducible
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    png, svg = BytesIO(), BytesIO()
    figure.savefig(png, format="png", dpi=200)
    figure.set_layout_engine("none")  # reuse the layout, because computing it takes as long as drawing
    figure.savefig(svg, format="svg", metadata={"Date": None})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, png.getvalue())
        write_atomically(path.with_suffix(".svg"), svg.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def check_png(path: Path) -> None:
    """Raise ``UserError`` if ``path`` is not a .png file; the .svg file gets the same name."""
    if path.suffix != ".png":
        raise UserError(f"the figure must be a .png file, got {path}")


def grid_of(panels: int, most: int) -> tuple[int, int]:
    """Numbers of rows and columns for ``panels``, evenly filled, with at most ``most`` columns."""
    rows = max(1, math.ceil(panels / most))
    return rows, max(1, math.ceil(panels / rows))


def page_width(columns: int) -> float:
    """Width in inches of a figure with ``columns`` of panels; narrower for a single column."""
    return 5.0 if columns == 1 else WIDTH


def legend(figure: Figure | SubFigure, entries: Sequence[tuple[Artist, str]]) -> None:
    """Draw one legend below all panels, with as many columns as fit."""
    handles, names = zip(*entries, strict=True)
    labels = [wrapped(name, 56) for name in names]
    longest = max(len(line) for label in labels for line in label.splitlines())
    width = figure.bbox.width / figure.figure.dpi
    columns = max(1, min(len(labels), int(width / (0.6 + _LETTER * longest))))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.4, handlelength=3.4
    )


def row_labels(arms: Sequence[Arm]) -> tuple[list[str], int]:
    """Row labels with the names of arms, and the number of lines of the longest."""
    labels = [wrapped(arm.name, 24) for arm in arms]
    return labels, max(label.count("\n") + 1 for label in labels)


def wrapped(text: str, width: int) -> str:
    """``text`` wrapped at ``width`` characters, between words only."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def rows_only(panel: Axes) -> None:
    """Hide the grid lines and ticks of the row labels."""
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)


def plain_ticks(panel: Axes) -> None:
    """Use few ticks on the x axis, formatted as 100k."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    panel.margins(x=0.04)
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
