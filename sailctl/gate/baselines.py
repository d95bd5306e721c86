"""Baseline files of the gate: curves of many seeds, the protocol, and the reason of each update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sailctl.analysis.evidence import Trial
from sailctl.analysis.trials import load_trials, read_about
from sailctl.core.types import UserError

GOLDEN = "golden.csv"
"""File name of the golden trajectories in a folder of baselines."""


@dataclass(frozen=True)
class Protocol:
    """Settings of the runs of a baseline, and of the test of new runs."""

    name: str
    """Distinguishes protocols of the same task and algorithm."""
    overrides: list[str]
    """``key=value`` words of `sailctl train`, without seed and folder."""
    gate_seeds: list[int]
    """Seeds that the gate trains; disjoint from those of the baseline."""
    alpha: float
    """Significance level of the test."""


@dataclass(frozen=True)
class Baseline:
    """The content of the files of a baseline."""

    path: Path
    """Its CSV file."""
    protocol: Protocol
    trials: list[Trial]
    """One run per seed."""
    latest: dict[str, object]
    """``reason``, ``date``, ``commit`` and ``cpu`` of the last update."""
    history: list[dict[str, object]]
    """Entries of all updates, oldest first, with the same keys and ``dirty``."""


def find_baselines(places: Sequence[Path]) -> list[Path]:
    """The CSV files of baselines and golden trajectories; files within a folder are sorted by name.

    Raises:
        UserError: when a place does not exist or contains no baseline.
    """
    files: list[Path] = []
    for place in places:
        files_here = sorted(place.glob("*.csv")) if place.is_dir() else [place] if place.is_file() else []
        if not files_here:
            raise UserError(
                f"no baseline in {place}; make one with sailctl regress --update REASON --new NAME"
            )
        files += files_here
    return files


def load_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        UserError: when the files are not readable or not of this version.
    """
    about = read_about(path)
    try:
        protocol, history = Protocol(**about["protocol"]), list(about["history"])
        latest = {name: history[-1][name] for name in ("reason", "date", "commit", "cpu")}
        return Baseline(path, protocol, load_trials([path]), latest, history)
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"{path.with_suffix('.json')} is not a baseline of this version: {error!r}"
        ) from error
