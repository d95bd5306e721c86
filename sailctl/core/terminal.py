"""What is printed, fit for the terminal."""

from __future__ import annotations

import io
import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Sequence

LEAST = 60
"""Columns below which nothing is made narrower."""


def fit_encoding() -> None:
    """From now on print a replacement for each letter that the output cannot show, where it would fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def shortened(text: str, most: int = 100) -> str:
    """``text`` with what is too much of its middle left out."""
    end = (most - 3) // 2
    return text if len(text) <= most else f"{text[: most - 3 - end]}...{text[-end:]}"


def columns() -> int | None:
    """Columns of the terminal that is printed to (or ``COLUMNS``); None where it is none, such as a file."""
    if not (sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal()):
        return None
    return max(shutil.get_terminal_size().columns, LEAST)


def in_columns(rows: Sequence[Sequence[str]], right: Collection[int] = (), most: int | None = None) -> str:
    """Rows of cells as lines of a table, the first row being its head.

    Where a line would be wider than ``most``, its last cell goes below it, over as many lines as it takes.
    Where that is not enough, the middle of what is in the first column is left out.

    Args:
        rows: cells, as many in each row.
        right: numbers of the columns that are aligned to the right.
        most: width; None is any.
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
        whole = f"{line}  {others[-1]}".rstrip()
        if most is None or len(whole) <= most:
            lines.append(whole)
        else:
            below = textwrap.wrap(others[-1], most - 4, break_on_hyphens=False)
            lines += [line.rstrip(), *(f"    {part}" for part in below)]
    return "\n".join(lines)
