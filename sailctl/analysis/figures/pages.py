"""Pages as wide as printed ones, so that letters keep their size; their panels, labels and legends."""

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
"""Inches: the text of a printed page."""
_LETTER = 0.052  # inches: about the width of a letter
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
    """A figure of so many inches; on leaving, it is written to ``path`` and as an .svg beside it."""
    check_png(path)
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's own settings would make other pictures
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    png, svg = BytesIO(), BytesIO()
    figure.savefig(png, format="png", dpi=200)
    figure.set_layout_engine("none")  # the layout is found; finding it again takes as long as drawing
    figure.savefig(svg, format="svg", metadata={"Date": None})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, png.getvalue())
        write_atomically(path.with_suffix(".svg"), svg.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def check_png(path: Path) -> None:
    """Refuse a ``path`` that is no .png: the .svg takes its name."""
    if path.suffix != ".png":
        raise UserError(f"the figure must be a .png file, got {path}")


def grid_of(panels: int, most: int) -> tuple[int, int]:
    """Rows and columns for so many panels, evenly filled, with at most ``most`` columns."""
    rows = max(1, math.ceil(panels / most))
    return rows, max(1, math.ceil(panels / rows))


def page_width(columns: int) -> float:
    """Inches for so many columns of panels: a single one needs no full page."""
    return 5.0 if columns == 1 else WIDTH


def legend(figure: Figure | SubFigure, entries: Sequence[tuple[Artist, str]]) -> None:
    """One legend below all panels, with as many columns as fit."""
    handles, names = zip(*entries, strict=True)
    labels = [wrapped(name, 56) for name in names]
    longest = max(len(line) for label in labels for line in label.splitlines())
    width = figure.bbox.width / figure.figure.dpi
    columns = max(1, min(len(labels), int(width / (0.6 + _LETTER * longest))))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.4, handlelength=3.4
    )


def row_labels(arms: Sequence[Arm]) -> tuple[list[str], int]:
    """Names of arms that stand left of rows, and the lines that the longest takes."""
    labels = [wrapped(arm.name, 24) for arm in arms]
    return labels, max(label.count("\n") + 1 for label in labels)


def wrapped(text: str, width: int) -> str:
    """``text`` in lines of at most ``width`` letters, broken between words only."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def rows_only(panel: Axes) -> None:
    """No lines at the names of rows."""
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)


def plain_ticks(panel: Axes) -> None:
    """Few ticks along x, as 100k."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    panel.margins(x=0.04)
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
