"""What is printed, fit for the terminal."""

from __future__ import annotations

import io
import sys


def fit_encoding() -> None:
    """From now on print a replacement for each letter that the output cannot show, where it would fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def shortened(text: str, most: int = 100) -> str:
    """``text`` with what is too much of its middle left out."""
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"
