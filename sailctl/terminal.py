"""What is printed, fit for the terminal."""

from __future__ import annotations

import io
import sys


def fit_encoding() -> None:
    """From now on print a replacement for each letter that the output cannot show, where it would fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
