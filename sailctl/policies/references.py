"""The reference policies that ship with the suite: how they were made, and what they earn.

For a task, ``weak``, ``medium`` and ``expert`` are policies of one training run on the true reward, chosen by
their share of what training gained: about 0.15, 0.5 and 1, where 0 is the return of uniformly random actions
and 1 that of the best policy of the run. They are where alignment starts (``algo.reference=medium``), and the
ends of the scale that scores are put on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sailctl.config import LEVELS, REFERENCES, plain_name

ABOUT = "reference.json"
"""File of a task's folder that says how its policies were made and what they earn."""


@cache
def read_references(folder: Path = REFERENCES) -> Mapping[str, Mapping[str, Any]]:
    """What ``reference.json`` says, by task, in alphabetical order."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob(f"*/{ABOUT}")]
    return {about["task"]: about for about in sorted(found, key=lambda about: str(about["task"]))}


def scale_of_references() -> dict[str, tuple[float, float]]:
    """Mean returns of random actions (score 0) and of the expert (score 1), by task."""
    return {
        task: (about["random"]["mean"], about["levels"]["expert"]["mean"])
        for task, about in read_references().items()
    }


def table() -> str:
    """The reference policies as a table for people: true returns with the mean action, mean and deviation."""
    rows = [("task", "random", *LEVELS, "with noise", "made by", "env steps")]
    for task, about in read_references().items():
        levels = [about["levels"][level] for level in LEVELS]
        rows.append(
            (
                task,
                f"{about['random']['mean']:.0f}",
                *(f"{one['mean']:.0f} +- {one['sd']:.0f} ({one['share']:.2f})" for one in levels),
                " / ".join(f"{one['noisy_mean']:.0f}" for one in levels),
                about["algorithm"],
                f"{about['env_steps']:,}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def folder_of(task: str, parent: Path) -> Path:
    """Where the policies of a task lie below ``parent``."""
    return parent / plain_name(task)
