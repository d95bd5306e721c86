"""Outcomes of the jobs of a launch: one file per job in the shared folder of the launch."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sailctl.core.files import write_atomically

RESUMABLE = "run the same command again to resume"
"""What to do about a run that was stopped."""


@dataclass(frozen=True)
class Outcome:
    """How one job ended."""

    state: str
    """``done``, ``busy`` (another process works on the run), ``refused`` (invalid settings), ``failed``,
    ``interrupted``, or ``skipped`` (not started)."""
    detail: str
    """Run directory, or error message of one line."""


def write_outcome(folder: Path, number: int, overrides: Sequence[str], outcome: Outcome) -> None:
    """Write the outcome of job ``number`` into the folder of the launch."""
    record = json.dumps({"overrides": list(overrides), **asdict(outcome)})
    write_atomically(folder / f"{number}.json", record + "\n")


def read_outcome(folder: Path, number: int) -> Outcome | None:
    """The outcome of job ``number``; None if it has not ended."""
    file = folder / f"{number}.json"
    if not file.is_file():
        return None
    record = json.loads(file.read_text(encoding="utf-8"))
    return Outcome(record["state"], record["detail"])


def any_failed(folder: Path) -> bool:
    """Whether a job of the launch has failed so far."""
    numbers = (int(file.stem) for file in folder.glob("[0-9]*.json"))
    return any((outcome := read_outcome(folder, number)) and outcome.state == "failed" for number in numbers)


def tell(overrides: Sequence[str], outcome: Outcome) -> None:
    """Print one line about a job of a sweep that has ended."""
    prefix = f"{' '.join(overrides)}: " if overrides else ""
    if outcome.state == "done":
        print(f"{prefix}done", flush=True)
    else:
        print(f"sailctl: {prefix}{outcome.detail}", file=sys.stderr)
