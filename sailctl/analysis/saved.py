"""Integrity of saved evidence: the count and a checksum of the rows of each run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sailctl.core.types import DoubleArray, UserError

NEEDED = ("iteration", "env_steps", "labels", "returns", "lengths")
"""Columns that must have a number in every row; the others may be empty."""
LATER = ("cpu_s",)
"""Columns that older files lack. The seal excludes them if they are empty, so that older seals are valid."""


def seal(curves: Mapping[str, DoubleArray]) -> dict[str, object]:
    """Count of rows and checksum of the curves (E,) of a run."""
    sealed = [v for name, v in curves.items() if name not in LATER or not np.isnan(v).all()]
    numbers = np.stack([np.asarray(values, dtype=np.float64) + 0.0 for values in sealed])
    numbers[np.isnan(numbers)] = np.nan
    digest = hashlib.sha256(np.ascontiguousarray(numbers, dtype="<f8").tobytes()).hexdigest()
    return {"rows": numbers.shape[1], "checksum": digest[:16]}


def whole(path: Path, run: Mapping[str, object], curves: Mapping[str, DoubleArray]) -> dict[str, DoubleArray]:
    """Verify the curves of one run, and sort them by iteration.

    Args:
        path: the file that contains the rows.
        run: the description of the run, with its ``seal`` (files of older versions have none).
        curves: (E,) values of each column, in any order of the rows.

    Returns:
        (E,) values of each column, sorted by iteration.

    Raises:
        UserError: when a row is missing, duplicated, incomplete or changed.
    """
    run_name = f"run {run['run']} ({run['algorithm']} on {run['task']}, seed {run['seed']})"
    order = np.argsort(curves["iteration"], kind="stable")
    curves = {name: values[order] for name, values in curves.items()}
    iterations = curves["iteration"]
    for name in NEEDED:
        if len(empty := np.flatnonzero(np.isnan(curves[name]))):
            raise _damaged(path, f"{run_name} has no number in a row (of iteration {iterations[empty[0]]:g})")
    if len(repeated := np.flatnonzero(np.diff(iterations) == 0)):
        raise _damaged(path, f"{run_name} has the row of iteration {iterations[repeated[0]]:g} twice")
    actual = seal(curves)
    if (rows := run.get("rows", actual["rows"])) != actual["rows"]:
        last = f", the last of iteration {iterations[-1]:g}" if len(iterations) else ""
        raise _damaged(path, f"{run_name} has {actual['rows']} rows{last}, and {rows} were saved")
    if run.get("checksum", actual["checksum"]) != actual["checksum"]:
        raise _damaged(path, f"{run_name} has other numbers in its rows than were saved")
    return curves


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged: {reason}; save it again, or restore the original file")
