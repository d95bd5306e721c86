"""Tables, lists and figures of the page as HTML; text from runs is escaped."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from sailctl.analysis.report.tables import Cell, Row, Table
from sailctl.analysis.statistics import LEVEL

LARGE = 300_000
"""Size of an .svg figure in bytes above which the .png is embedded, if that is smaller."""
PIXELS_PER_REM = 24
"""Resolution of a .png, which limits the width of a figure on the page."""

# By name of a figure: description of its content, caption.
_PICTURES = {
    "intervals": (
        "Final score of each arm, difference from the baseline, and probability of improvement",
        "Points: estimates. Bars: {level} intervals. Filled markers: decided differences. Hollow markers: "
        "undecided differences.",
    ),
    "learning_curves": (
        "Learning curves: true return against env steps, labels used and wall-clock time, for each task",
        "Bold lines: mean over the finished seeds, with pointwise {level} interval. Faint lines: single "
        "seeds. Dotted lines that end in a cross: runs that did not finish, excluded from the means.",
    ),
    "stability": (
        "Stability of each arm: dispersion and risk within and across runs, and KL divergence from the "
        "reference",
        "Measures in units of score, over finished runs. The table above gives their values and says which "
        "direction is steadier.",
    ),
    "profiles": (
        "Performance profile: share of runs of each arm with a final score above a threshold",
        "Higher is better. If two profiles cross, neither arm is better at every threshold. Bands: pointwise "
        "{level} intervals.",
    ),
    "before_after": (
        "Distribution of episode returns before training and at its end, for each arm and task",
        "All episodes of the first and of the last evaluation. A second mode at the end is the share of "
        "episodes (or seeds) that fail.",
    ),
    "heat_map": (
        "Mean final score over the grid of the two swept settings",
        "Dashed frames: cells with runs that did not finish or collapsed.",
    ),
}


def escaped(words: str) -> str:
    return html.escape(words)


def itemised(items: Iterator[str] | Sequence[str]) -> str:
    """A list of HTML items; empty without items."""
    inside = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{inside}</ul>" if inside else ""


def details(summary: str, inside: str) -> str:
    return f"<details><summary>{escaped(summary)}</summary>{inside}</details>" if inside else ""


def tabled(table: Table, caution: str = "", titled: bool = True) -> str:
    """A table that scrolls if it is wider than the page; ``titled`` shows its title."""
    head = "".join(
        f'<th scope="col" class="{side}">{escaped(name)}</th>'
        for side, name in zip(table.align, table.head, strict=True)
    )
    bodies = []
    for group, rows in groupby(table.rows, key=lambda row: row.group):
        lines = [_line(row, table.align) for row in rows]
        if group:
            span = f'<th scope="rowgroup" colspan="{len(table.head)}"><span>{escaped(group)}</span></th>'
            lines.insert(0, f'<tr class="group">{span}</tr>')
        bodies.append(f"<tbody>{''.join(lines)}</tbody>\n")
    name = escaped(table.title)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{name}"><table>'
        f"<caption{'' if titled else ' class=unseen'}>{name}</caption>"
        f"<thead><tr>{head}</tr></thead>\n{''.join(bodies)}</table></div>"
        f'{cautioned(caution)}<p class="about">{escaped(table.caption)}</p>\n'
    )


def cautioned(words: str) -> str:
    return f'<p class="caution"><a href="#caveats">{escaped(words)}</a></p>' if words else ""


def _line(row: Row, align: str) -> str:
    name, *others = row.cells
    cells = "".join(
        f'<td class="{side}{_mark(cell.text)}">{_cell(cell)}</td>'
        for side, cell in zip(align[1:], others, strict=True)
    )
    return f'<tr><th scope="row" class="{align[0]}">{_cell(name)}</th>{cells}</tr>\n'


def _mark(words: str) -> str:
    return f" {words}" if words in ("better", "worse", "undecided") else ""


def _cell(cell: Cell) -> str:
    words = re.sub(r"(?<![\w-])-(?=[\d∞])", "&minus;", escaped(cell.text))
    return f"<strong>{words}</strong>" if cell.bold else words


def pictured(name: str, path: Path) -> str:
    content, caption = _PICTURES.get(name, (name.replace("_", " "), ""))
    caption = caption.format(level=f"{LEVEL:.0%}")
    png, svg = path.read_bytes(), path.with_suffix(".svg").read_bytes()
    kind, data = ("svg+xml", svg) if len(svg) < max(LARGE, len(png)) else ("png", png)
    width = int.from_bytes(png[16:20]) / PIXELS_PER_REM
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return (
        f'<figure id="picture-{escaped(name)}">'
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escaped(content)}">'
        f'<img style="--width: {width:g}rem" alt="{escaped(f"{content}. {caption}")}" src="{source}"></div>'
        f"<figcaption>{escaped(caption)}</figcaption></figure>\n"
    )
