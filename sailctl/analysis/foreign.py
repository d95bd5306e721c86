"""Foreign learning curves, published or from other programs: a CSV file with one row per evaluation.

Its columns are ``task`` (an id as in ``sailctl tasks``), ``algorithm``, ``seed``, ``env_steps`` and
``return``, in any order. The settings and the code of the runs are unknown.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sailctl.core.types import DoubleArray, UserError

COLUMNS = ("task", "algorithm", "seed", "env_steps", "return")


@dataclass(frozen=True)
class Curve:
    """One run of E evaluations; the first one is before training if it is at 0 env steps."""

    task: str
    algorithm: str
    seed: int
    env_steps: DoubleArray
    """(E,) env steps at each evaluation, increasing."""
    returns: DoubleArray
    """(E,) mean true returns."""


def is_foreign(path: Path) -> bool:
    """Whether a CSV file has the columns of foreign curves, and no column ``run`` (saved evidence)."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return set(COLUMNS) <= set(head) and "run" not in head


def read_curves(path: Path) -> list[Curve]:
    """The curves of a file, sorted by task, algorithm and seed.

    Raises:
        UserError: for a cell that is not a finite number, or a duplicate evaluation (the message names the
            line), and for a file without an evaluation.
    """
    runs: dict[tuple[str, str, int], dict[float, float]] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            try:
                key = str(row["task"]), str(row["algorithm"]), int(row["seed"])
                at, value = float(row["env_steps"]), float(row["return"])
            except (TypeError, ValueError) as error:
                raise UserError(f"{where}: {error}") from error
            if not (np.isfinite([at, value]).all() and at >= 0):
                raise UserError(f"{where}: env_steps and return must be finite numbers, env_steps at least 0")
            if at in (curve := runs.setdefault(key, {})):
                raise UserError(f"{where}: {key[1]} on {key[0]}, seed {key[2]} has {at:g} env steps twice")
            curve[at] = value
    if not runs:
        raise UserError(f"{path} holds no evaluation")
    return [
        Curve(*key, np.array(sorted(values)), np.array([values[at] for at in sorted(values)]))
        for key, values in sorted(runs.items())
    ]
