"""How the jobs of a launch ended: each leaves a file in the launch's folder, which all processes share."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sailctl.core.files import write_atomically


@dataclass(frozen=True)
class Outcome:
    """How one job ended."""

    state: str
    """``done``, ``busy`` (another process works on it), ``refused`` (what the user asked for is impossible),
    ``failed``, ``interrupted``, or ``skipped`` (it never began)."""
    detail: str
    """Run directory, or the error in one line."""


def write_outcome(folder: Path, number: int, overrides: Sequence[str], outcome: Outcome) -> None:
    """Leave the outcome of job ``number`` in the folder of the launch."""
    record = json.dumps({"overrides": list(overrides), **asdict(outcome)})
    write_atomically(folder / f"{number}.json", record + "\n")


def read_outcome(folder: Path, number: int) -> Outcome | None:
    """The outcome of job ``number``; None where it has not ended."""
    file = folder / f"{number}.json"
    if not file.is_file():
        return None
    record = json.loads(file.read_text(encoding="utf-8"))
    return Outcome(record["state"], record["detail"])


def any_failed(folder: Path) -> bool:
    """Whether a job of the launch has failed so far."""
    numbers = (int(file.stem) for file in folder.glob("[0-9]*.json"))
    return any((found := read_outcome(folder, number)) and found.state == "failed" for number in numbers)


def tell(overrides: Sequence[str], outcome: Outcome) -> None:
    """One line about a job of a sweep that has ended."""
    prefix = f"{' '.join(overrides)}: " if overrides else ""
    if outcome.state == "done":
        print(f"{prefix}done", flush=True)
    else:
        print(f"sailctl: {prefix}{outcome.detail}", file=sys.stderr)
