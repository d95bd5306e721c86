"""Reads run directories.

A run directory holds

- ``config.yaml``: the resolved configuration;
- ``provenance.json``: versions, commit, CPU, command line, start time;
- ``status.json``: ``state`` (running | finished | failed | interrupted), ``error``, ``env_steps``,
  ``labels``, ``wall_s`` and the summary of the finished run;
- ``metrics.csv``: one row per iteration; ``eval_return`` is empty if the policy was not evaluated;
- ``evaluations.csv``: one row per evaluation episode; two additional columns for tasks that define success.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sailctl.core.types import UserError

if TYPE_CHECKING:
    import pandas as pd

CONFIG = "config.yaml"
PROVENANCE = "provenance.json"
STATUS = "status.json"
METRICS = "metrics.csv"
EVALUATIONS = "evaluations.csv"

STATES = ("running", "finished", "failed", "interrupted")
PLACE_COLUMNS = ("iteration", "env_steps", "labels")  # every row of metrics.csv has these
EVALUATION_COLUMNS = ("env_steps", "labels", "iteration", "episode", "return", "length")
SUCCESS_COLUMNS = ("success_max", "success_final")  # additional columns, for tasks that define success


@dataclass(frozen=True)
class RunRecord:
    """The content of a run directory; created by ``load_run``."""

    path: Path
    """The run directory."""
    config: dict[str, Any]
    """The resolved configuration, nested as in ``config.yaml``."""
    provenance: dict[str, Any]
    """Versions, commit, CPU, command line and start time."""
    status: dict[str, Any]
    """``state`` (one of ``STATES``), ``error``, ``env_steps``, ``labels``, ``wall_s`` and the summary."""

    @property
    def state(self) -> str:
        """One of ``STATES``. A run whose process was killed stays ``running``."""
        return str(self.status["state"])

    @property
    def task(self) -> str:
        """Id of the task."""
        return str(self.config["env"]["id"])

    @property
    def algorithm(self) -> str:
        """Name of the algorithm."""
        return str(self.config["algo"]["name"])

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.config["seed"])

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per iteration; an empty table when the run stopped before its first iteration."""
        import pandas as pd

        path = self.path / METRICS
        if not path.stat().st_size:
            return pd.DataFrame()
        return _read_csv(path, PLACE_COLUMNS)

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """One row per evaluation episode, with ``EVALUATION_COLUMNS``."""
        return _read_csv(self.path / EVALUATIONS, EVALUATION_COLUMNS)


def is_run(path: Path) -> bool:
    """Whether ``path`` is a run directory."""
    return (path / CONFIG).is_file() and (path / METRICS).is_file()


def find_runs(path: Path) -> list[Path]:
    """``path`` itself if it is a run, otherwise every run below it, sorted.

    Raises:
        UserError: when the folder does not exist or contains no run.
    """
    if is_run(path):
        return [path]
    if not path.is_dir():
        raise UserError(f"no such folder: {path}")
    runs = sorted(config.parent for config in path.rglob(CONFIG) if is_run(config.parent))
    if not runs:
        raise UserError(f"no run in {path} or below it")
    return runs


def load_run(path: str | Path) -> RunRecord:
    """Read a run directory; its two tables are read on first access.

    Raises:
        UserError: when ``path`` is not a run, or one of its files is not readable.
    """
    import yaml

    path = Path(path)
    if not path.is_dir():
        raise UserError(f"no such run: {path}")
    if missing := [n for n in (CONFIG, PROVENANCE, STATUS, METRICS, EVALUATIONS) if not (path / n).is_file()]:
        raise UserError(f"{path} is not a run: it has no {missing[0]}")
    try:
        config = _read_config(path / CONFIG)
    except yaml.YAMLError as error:
        raise UserError(f"{path / CONFIG} is not YAML: {' '.join(str(error).split())}") from error
    record = RunRecord(path, config, read_json(path / PROVENANCE), read_json(path / STATUS))
    try:
        valid = record.state in STATES and bool(record.task and record.algorithm) and record.seed >= 0
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a run of this version: {error!r}") from error
    if not valid:
        raise UserError(f"{path} is not a run of this version: state {record.state!r}, seed {record.seed}")
    return record


def _read_config(path: Path) -> Any:
    """The content of a ``config.yaml``. Runs that differ only in their seed line share one parse."""
    text = path.read_text(encoding="utf-8")
    seed = re.search(r"^seed: (\d+)$", text, re.MULTILINE)
    if seed is None:
        return _parsed(text)
    config = _parsed(text[: seed.start()] + text[seed.end() :])
    if not isinstance(config, dict):
        return config
    groups = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    return {**groups, "seed": int(seed[1])}


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Any:
    import yaml

    # The C parser, if installed, is ten times as fast.
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UserError: when the file does not hold a JSON object.
        OSError: when the file cannot be read.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return value


def _read_csv(path: Path, required: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if missing := [column for column in required if column not in table]:
        raise UserError(f"{path} has no column {missing[0]}")
    return table
