"""Saved evidence is whole: each run's rows are counted and summed where they are described, and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sailctl.core.types import DoubleArray, UserError

NEEDED = ("iteration", "env_steps", "labels", "returns", "lengths")
"""Columns without which a row says nothing; the others may be empty."""


LATER = ("cpu_s",)
"""Columns that older files do not have: empty ones are not sealed, so that older seals hold."""


def seal(curves: Mapping[str, DoubleArray]) -> dict[str, object]:
    """What is kept of a run's curves to know them again: the count of rows and a checksum."""
    known = [v for name, v in curves.items() if name not in LATER or not np.isnan(v).all()]
    numbers = np.stack([np.asarray(values, dtype=np.float64) + 0.0 for values in known])
    numbers[np.isnan(numbers)] = np.nan
    digest = hashlib.sha256(np.ascontiguousarray(numbers, dtype="<f8").tobytes()).hexdigest()
    return {"rows": numbers.shape[1], "checksum": digest[:16]}


def whole(path: Path, run: Mapping[str, object], curves: Mapping[str, DoubleArray]) -> dict[str, DoubleArray]:
    """The curves of one run out of ``path``, its rows by iteration.

    Args:
        path: the file of rows.
        run: what is said of the run, with its ``seal`` (which files of older versions lack).
        curves: (E,) numbers of each column, in any order of the rows.

    Raises:
        UserError: when a row is missing, doubled, empty or another one than was saved.
    """
    who = f"run {run['run']} ({run['algorithm']} on {run['task']}, seed {run['seed']})"
    order = np.argsort(curves["iteration"], kind="stable")
    curves = {name: values[order] for name, values in curves.items()}
    iterations = curves["iteration"]
    for name in NEEDED:
        if len(empty := np.flatnonzero(np.isnan(curves[name]))):
            raise _damaged(path, f"{who} has no number in a row (of iteration {iterations[empty[0]]:g})")
    if len(twice := np.flatnonzero(np.diff(iterations) == 0)):
        raise _damaged(path, f"{who} has the row of iteration {iterations[twice[0]]:g} twice")
    found = seal(curves)
    if (rows := run.get("rows", found["rows"])) != found["rows"]:
        last = f", the last of iteration {iterations[-1]:g}" if len(iterations) else ""
        raise _damaged(path, f"{who} has {found['rows']} rows{last}, and {rows} were saved")
    if run.get("checksum", found["checksum"]) != found["checksum"]:
        raise _damaged(path, f"{who} has other numbers in its rows than were saved")
    return curves


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged: {reason}; save it anew, or take it from where it was copied")
