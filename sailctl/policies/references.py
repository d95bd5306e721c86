"""The reference policies included in sailctl: their origin and their returns.

For a task, ``weak``, ``medium`` and ``expert`` are snapshots of one training run on the true reward. Their
scores are about 0.15, 0.5 and 1, where 0 is the return of uniformly random actions and 1 that of the best
snapshot. They are initial policies of alignment (``algo.reference=medium``), and ``expert`` defines the scale
of the scores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sailctl.config import LEVELS, REFERENCES, plain_name
from sailctl.core.terminal import in_columns

ABOUT = "reference.json"
"""File in the folder of a task that describes the origin and the returns of its policies."""


@cache
def read_references(folder: Path = REFERENCES) -> Mapping[str, Mapping[str, Any]]:
    """The contents of each ``reference.json``, by task, in alphabetical order."""
    tasks = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob(f"*/{ABOUT}")]
    return {about["task"]: about for about in sorted(tasks, key=lambda about: str(about["task"]))}


def scale_of_references() -> dict[str, tuple[float, float]]:
    """Mean returns of random actions (score 0) and of the expert (score 1), by task."""
    return {
        task: (about["random"]["mean"], about["levels"]["expert"]["mean"])
        for task, about in read_references().items()
    }


def table() -> str:
    """The reference policies as a text table: mean and standard deviation of the true return."""
    rows = [("task", "random", *LEVELS, "with noise", "made by", "env steps")]
    for task, about in read_references().items():
        levels = [about["levels"][level] for level in LEVELS]
        rows.append(
            (
                task,
                f"{about['random']['mean']:.0f}",
                *(f"{level['mean']:.0f} +- {level['sd']:.0f} ({level['share']:.2f})" for level in levels),
                " / ".join(f"{level['noisy_mean']:.0f}" for level in levels),
                about["algorithm"],
                f"{about['env_steps']:,}",
            )
        )
    return in_columns(rows)


def folder_of(task: str, parent: Path) -> Path:
    """The folder of the policies of a task, below ``parent``."""
    return parent / plain_name(task)
