"""Baselines of the gate as files: the curves of many seeds, the protocol, and why each update was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sailctl.analysis.evidence import Trial
from sailctl.analysis.trials import load_trials, read_about
from sailctl.core.types import UserError

GOLDEN = "golden.csv"
"""Name of the golden trajectories in a folder of baselines."""


@dataclass(frozen=True)
class Protocol:
    """How the runs of a baseline are made, and how the gate judges new ones."""

    name: str
    """Told apart by this from other protocols of the same task and algorithm."""
    overrides: list[str]
    """``key=value`` words of `sailctl train`, seed and folder left out."""
    gate_seeds: list[int]
    """Seeds that the gate trains, none of them in the baseline."""
    alpha: float
    """Chance of a false alarm that the test allows."""


@dataclass(frozen=True)
class Baseline:
    """A baseline as it lies on the disk."""

    path: Path
    """Its CSV file."""
    protocol: Protocol
    trials: list[Trial]
    """One run per seed."""
    latest: dict[str, object]
    """``reason``, ``date``, ``commit`` and ``cpu`` of the last update."""
    history: list[dict[str, object]]
    """The same, and ``dirty``, of every update, the latest last."""


def find_baselines(places: Sequence[Path]) -> list[Path]:
    """The CSV files of baselines and of golden trajectories, those of a folder sorted by name.

    Raises:
        UserError: when a place does not exist or holds none.
    """
    files: list[Path] = []
    for place in places:
        found = sorted(place.glob("*.csv")) if place.is_dir() else [place] if place.is_file() else []
        if not found:
            raise UserError(
                f"no baseline in {place}; make one with sailctl regress --update REASON --new NAME"
            )
        files += found
    return files


def load_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        UserError: when it cannot be understood.
    """
    about = read_about(path)
    try:
        protocol, history = Protocol(**about["protocol"]), list(about["history"])
        latest = {name: history[-1][name] for name in ("reason", "date", "commit", "cpu")}
        return Baseline(path, protocol, load_trials([path]), latest, history)
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path.with_suffix('.json')} is no baseline of this version: {error!r}") from error
