"""A comparison as text for a terminal, as Markdown for a README, and as LaTeX for a paper."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from sailctl import __version__
from sailctl.analysis.compare import Comparison
from sailctl.analysis.report.tables import (
    Cell,
    Table,
    caveat,
    contrasts_table,
    failures_table,
    performance_table,
    power_table,
    reminder,
    scales_table,
    settings_table,
    stability_table,
)
from sailctl.core.terminal import columns

WIDTH = 100
"""Maximum width of a table in characters; a narrower terminal has fewer."""

# Columns that fit on the page of a paper.
_PERFORMANCE = ("arm", "runs", "failed", "final return", "final score", "area under the curve")
_CONTRASTS = ("arm", "difference", "P(improvement)", "Hedges' g", "p (Holm)", "verdict")
_FAILURES = ("seed", "what happened", "error")


def text(comparison: Comparison) -> str:
    """The comparison as text of at most ``WIDTH`` characters per line: the verdict, then tables and notes."""
    evidence = comparison.evidence
    blocks = [_list("VERDICT", comparison.verdict)]
    caution = reminder(comparison)
    blocks.append(_plain(performance_table(comparison), caution))
    if len(evidence.arms) > 1:
        blocks += [_plain(table, caution) for table in (contrasts_table(comparison), power_table(comparison))]
    stability = stability_table(comparison)
    overall = tuple(row for row in stability.rows if row.group == comparison.scope)
    blocks.append(_plain(replace(stability, rows=overall), caution))
    if len(evidence.arms) > 1:
        blocks.append(_plain(contrasts_table(comparison, stability=True), caution))
    blocks += [
        _plain(table)
        for table in (
            settings_table(comparison),
            failures_table(comparison).only(*_FAILURES),
            scales_table(comparison),
        )
        if table.rows
    ]
    if evidence.notes:
        blocks.append(_list("NOTES", evidence.notes))
    return "\n\n".join(blocks) + "\n"


def markdown(comparison: Comparison) -> str:
    """The tables of performance and of contrasts in GitHub's Markdown, with captions and caveats."""
    tables = [performance_table(comparison)]
    if len(comparison.evidence.arms) > 1:
        tables.append(contrasts_table(comparison))
    return "\n".join(_markdown(table, caveat(comparison)) for table in tables)


def latex(comparison: Comparison) -> str:
    """The same tables in LaTeX with the package booktabs, with the columns that fit on a page."""
    tables = [("performance", performance_table(comparison).only(*_PERFORMANCE))]
    if len(comparison.evidence.arms) > 1:
        tables.append(("contrasts", contrasts_table(comparison).only(*_CONTRASTS)))
    head = f"% made by sailctl {__version__}; needs \\usepackage{{booktabs}}\n"
    return head + "\n".join(_latex(table, label, caveat(comparison)) for label, table in tables)


def _width() -> int:
    return min(WIDTH, columns() or WIDTH)


def _list(title: str, sentences: Sequence[str]) -> str:
    return "\n".join(
        [title, *(textwrap.fill(s, _width(), initial_indent="- ", subsequent_indent="  ") for s in sentences)]
    )


def _plain(table: Table, caution: str = "") -> str:
    lines = [f"{table.title.upper()}{f' (by {table.group})' if table.group else ''}"]
    for part in _fitting(table):
        lines += [*_aligned(part), ""]
    paragraphs = [table.caption.replace("Bold:", "*:"), caution]
    return "\n".join([*lines, *(textwrap.fill(part, _width()) for part in paragraphs if part)])


def _fitting(table: Table) -> Iterator[Table]:
    """The table in parts that fit the terminal; each part repeats the first column."""
    names, *others = table.head
    part = [names]
    for name in others:
        if len(part) > 1 and max(map(len, _aligned(table.only(*part, name)))) > _width():
            yield table.only(*part)
            part = [names]
        part.append(name)
    yield table.only(*part)


def _aligned(table: Table) -> list[str]:
    """The lines of a table: cells in columns, rows indented below the name of their group."""
    indent = "  " if table.group else ""
    cells = [
        [_short(f"*{cell.text}" if cell.bold else cell.text) for cell in row.cells] for row in table.rows
    ]
    widths = [max(map(len, column)) for column in zip(table.head, *cells, strict=True)]

    def line(words: list[str]) -> str:
        padded = [
            word.rjust(width) if side == "r" else word.ljust(width)
            for word, width, side in zip(words, widths, table.align, strict=True)
        ]
        return (indent + "  ".join(padded)).rstrip()

    lines = [line(list(table.head))]
    for group, rows in groupby(zip(table.rows, cells, strict=True), key=lambda row: row[0].group):
        lines += [group] if group else []
        lines += [line(words) for _, words in rows]
    return lines


def _short(words: str) -> str:
    """Truncate text that is too long for a column."""
    return words if len(words) <= 60 else f"{words[:57]}..."


def _markdown(table: Table, caution: str) -> str:
    head = [table.group, *table.head] if table.group else list(table.head)
    sides = ("l" if table.group else "") + table.align
    lines = [f"**{_md(table.title)}**", ""]
    if caution:
        lines += [f"> **{_md(caution)}**", ""]
    lines.append(_md_line(head))
    lines.append(_md_line("---:" if side == "r" else ":---" for side in sides))
    for row in table.rows:
        cells = [f"**{_md(cell.text)}**" if cell.bold else _md(cell.text) for cell in row.cells]
        lines.append(_md_line([_md(row.group), *cells] if table.group else cells))
    return "\n".join([*lines, "", _md(table.caption), ""])


def _md_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _md(words: str) -> str:
    """``words`` with Markdown, HTML and column separators escaped."""
    plain = html.escape(words, quote=False)
    plain = re.sub(r"([\\`*|]|\](?=\())", r"\\\1", plain)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", plain)  # within a word it is not markup


def _latex(table: Table, label: str, caution: str) -> str:
    sides = ("l" if table.group else "") + table.align
    head = [table.group, *table.head] if table.group else list(table.head)
    caption = f"\\textbf{{{_tex(caution)}}} {_tex(table.caption)}" if caution else _tex(table.caption)
    lines = [
        r"\begin{table}[t]",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        f"\\caption{{{_tex(table.title)}. {caption}}}",
        f"\\label{{tab:{label}}}",
        f"\\begin{{tabular}}{{@{{}}{sides}@{{}}}}",
        r"\toprule",
        _tex_line(list(map(_tex, head))),
    ]
    for group, rows in groupby(table.rows, key=lambda row: row.group):
        lines.append(r"\midrule")
        for number, row in enumerate(rows):
            name = [_tex(group) if number == 0 else ""] if table.group else []
            lines.append(_tex_line([*name, *map(_tex_cell, row.cells)]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _tex_line(cells: list[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _tex_cell(cell: Cell) -> str:
    return f"\\textbf{{{_tex(cell.text)}}}" if cell.bold else _tex(cell.text)


_TEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "∞": r"$\infty$",
    **{sign: f"\\{sign}" for sign in "{}$&#%_"},
}


def _tex(words: str) -> str:
    """``words`` escaped for LaTeX, with a minus sign for negative numbers."""
    signed = re.split(r"(?<![\w-])(-)(?=[\d∞])", words)
    return "".join("$-$" if part == "-" else "".join(_TEX.get(c, c) for c in part) for part in signed)
