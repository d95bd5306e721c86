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

# Name of a figure: (its content, how to read it).
_PICTURES = {
    "intervals": (
        "Final score of each arm, its difference from the baseline and its probability of improvement",
        "Points are estimates, bars {level} intervals. A filled marker is a difference that is decided, a "
        "hollow one is not.",
    ),
    "learning_curves": (
        "Learning curves: true return along env steps, labels used and wall-clock time, for each task",
        "Bold: mean over the finished seeds with its {level} interval at each point. Faint: single seeds. "
        "Dotted, with a cross at its end: a run that did not finish, which enters no mean.",
    ),
    "stability": (
        "Stability of each arm: dispersion and risk within and across runs, and the distance from the "
        "reference",
        "In units of score, of the finished runs. The table above has the numbers, and says which side is "
        "better.",
    ),
    "profiles": (
        "Performance profile: share of runs of each arm whose final score is above a threshold",
        "The higher a line, the more runs got that far; lines that cross mean that neither arm is better "
        "throughout. Bands are pointwise {level} intervals.",
    ),
    "before_after": (
        "Distribution of episode returns before training and at the end, for each arm and task",
        "Every episode of the first and of the last evaluation. A second hump at the end is a share of "
        "episodes (or seeds) that fail.",
    ),
    "heat_map": (
        "Mean final score over the two settings that were swept",
        "A dashed frame marks cells with runs that did not finish or collapsed.",
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
    shown, reading = _PICTURES.get(name, (name.replace("_", " "), ""))
    reading = reading.format(level=f"{LEVEL:.0%}")
    pixels, lines = path.read_bytes(), path.with_suffix(".svg").read_bytes()
    kind, data = ("svg+xml", lines) if len(lines) < max(LARGE, len(pixels)) else ("png", pixels)
    width = int.from_bytes(pixels[16:20]) / PIXELS_PER_REM
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return (
        f'<figure id="picture-{escaped(name)}">'
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escaped(shown)}">'
        f'<img style="--width: {width:g}rem" alt="{escaped(f"{shown}. {reading}")}" src="{source}"></div>'
        f"<figcaption>{escaped(reading)}</figcaption></figure>\n"
    )
