"""Formats output for the terminal."""

from __future__ import annotations

import io
import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Sequence

LEAST = 60
"""Minimum width of the output, in columns."""


def fit_encoding() -> None:
    """Print a replacement for each character that the encoding of the output lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def shortened(text: str, most: int = 100) -> str:
    """``text`` of at most ``most`` characters; the middle of a longer text is replaced by dots."""
    end = (most - 3) // 2
    return text if len(text) <= most else f"{text[: most - 3 - end]}...{text[-end:]}"


def columns() -> int | None:
    """Width of the terminal (or ``COLUMNS``) in columns; None if the output is not a terminal."""
    if not (sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal()):
        return None
    return max(shutil.get_terminal_size().columns, LEAST)


def in_columns(rows: Sequence[Sequence[str]], right: Collection[int] = (), most: int | None = None) -> str:
    """Format rows of cells as a table; the first row is the header.

    If a line is wider than ``most``, its last cell is wrapped below it. If that is not enough, the cells of
    the first column are shortened.

    Args:
        rows: cells, equally many in each row.
        right: indices of the right-aligned columns.
        most: maximum width; None for no limit.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    if most is not None:
        widths[0] = max(min(widths[0], most - sum(widths[1:]) - 2 * (len(widths) - 1)), 12)
    lines = []
    for first, *others in rows:
        cells = [shortened(first, widths[0]), *others[:-1]]
        line = "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        full_line = f"{line}  {others[-1]}".rstrip()
        if most is None or len(full_line) <= most:
            lines.append(full_line)
        else:
            wrapped = textwrap.wrap(others[-1], most - 4, break_on_hyphens=False)
            lines += [line.rstrip(), *(f"    {part}" for part in wrapped)]
    return "\n".join(lines)
