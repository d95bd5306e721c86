"""What a launch tells its jobs, and they tell it, by files in its folder: the one place that all share.

A job of a launcher trains a pack of runs, often of one; ``packs/<job>.json`` says which. Each run that has
ended leaves ``<run>.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sailctl.files import write_atomically

PACKS = "packs"
"""Folder in that of a launch: for each job of the launcher a file with the runs that it is to train."""


@dataclass(frozen=True)
class Outcome:
    """How one run of a launch ended."""

    state: str
    """``done``, ``busy`` (another process works on it), ``refused`` (what the user asked for is impossible),
    ``failed``, or ``skipped`` (``--fail-fast``)."""
    detail: str
    """Run directory, or the error in one line."""


def write_packs(folder: Path, packs: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Leave in a launch's folder, for each job, the ``number``, ``words`` and ``config`` of its runs."""
    (folder / PACKS).mkdir()
    for job, runs in enumerate(packs):
        write_atomically(folder / PACKS / f"{job}.json", json.dumps(runs, indent=1) + "\n")


def read_pack(folder: Path, job: int) -> list[dict[str, Any]]:
    """The runs that a job of the launcher is to train, as ``write_packs`` was given them."""
    runs: list[dict[str, Any]] = json.loads((folder / PACKS / f"{job}.json").read_text(encoding="utf-8"))
    return runs


def write_outcome(folder: Path, number: int, overrides: Sequence[str], outcome: Outcome) -> None:
    """Leave the outcome of run ``number`` in the folder of the launch."""
    record = json.dumps({"overrides": list(overrides), **asdict(outcome)})
    write_atomically(folder / f"{number}.json", record + "\n")


def read_outcome(folder: Path, number: int) -> Outcome | None:
    """The outcome of run ``number``; None where it has not ended."""
    file = folder / f"{number}.json"
    if not file.is_file():
        return None
    record = json.loads(file.read_text(encoding="utf-8"))
    return Outcome(record["state"], record["detail"])


def any_failed(folder: Path) -> bool:
    """Whether a run of the launch has failed so far."""
    numbers = (int(file.stem) for file in folder.glob("[0-9]*.json"))
    return any((found := read_outcome(folder, number)) and found.state == "failed" for number in numbers)


def tell(overrides: Sequence[str], outcome: Outcome) -> None:
    """One line about a run of a sweep that has ended."""
    prefix = f"{' '.join(overrides)}: " if overrides else ""
    if outcome.state == "done":
        print(f"{prefix}done", flush=True)
    else:
        print(f"sailctl: {prefix}{outcome.detail}", file=sys.stderr)
