"""The run record: what is in a run directory, how it is written, how it is read back.

A run directory holds

- ``config.yaml``: the resolved configuration;
- ``provenance.json``: versions, commit, CPU, command line, start time;
- ``status.json``: ``state`` (running | finished | failed | interrupted), ``error``, ``env_steps``,
  ``labels``, ``wall_s`` and the summary that the run ended with;
- ``metrics.csv``: one row per iteration; ``eval_return`` is empty where the policy was not evaluated;
- ``evaluations.csv``: one row per evaluation episode; two columns more for tasks that define success.
"""

from __future__ import annotations

import csv
import errno
import importlib.metadata
import io
import itertools
import json
import math
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sailctl import __version__
from sailctl.claims import Claim, queued_job
from sailctl.config import RunConfig, plain_name, run_id, to_yaml
from sailctl.files import write_atomically
from sailctl.types import BusyError, RunError, UserError

if TYPE_CHECKING:
    import pandas as pd

    from sailctl.state import State

CONFIG = "config.yaml"
PROVENANCE = "provenance.json"
STATUS = "status.json"
METRICS = "metrics.csv"
EVALUATIONS = "evaluations.csv"

STATES = ("running", "finished", "failed", "interrupted")
PLACE_COLUMNS = ("iteration", "env_steps", "labels")  # every row of metrics.csv has these
EVALUATION_COLUMNS = ("env_steps", "labels", "iteration", "episode", "return", "length")
SUCCESS_COLUMNS = ("success_max", "success_final")  # beside those, for tasks that define success

NOTHING: State = {"metrics": 0, "evaluations": 0, "wall_s": 0.0, "last": {"env_steps": 0, "labels": 0}}
"""What a checkpoint says of the tables, of a run that has none yet."""

SHARE = 0.01
"""Of a run's time that checkpoints may take."""

_PACKAGES = (
    "torch",
    "mujoco",
    "numpy",
    "gymnasium",
    "hydra-core",
    "omegaconf",
    "safetensors",
    "pandas",
    "pyarrow",
    "wandb",
    "stable-baselines3",
)


class CsvWriter:
    """Appends rows of numbers to a file, each flushed as it is written.

    Integers are written as integers, floats so that ``pandas.read_csv`` gives them back bit for bit, NaN as
    an empty cell, infinity as ``inf``.

    Args:
        path: file to make; one that exists is not touched.
        columns: the header; None takes the first row's columns.
        kept: bytes of a file that exists to go on after; what follows them is cut off.

    Raises:
        FileExistsError: when there is such a file, and nothing is said of what to keep.
        RunError: when the file is shorter than what is to be kept of it.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None = None, kept: int = 0) -> None:
        self._path = path
        self._columns: tuple[str, ...] | None = None
        if kept:
            size = path.stat().st_size if path.is_file() else 0
            if size < kept:
                raise RunError(f"{path} has lost rows: {size} bytes, {kept} at the last checkpoint")
            os.truncate(path, kept)
            with path.open(encoding="utf-8", newline="") as file:
                self._columns = tuple(next(csv.reader(file)))
        self._file = path.open("ab" if kept else "xb", buffering=0)  # what is written is in the file at once
        self._size = kept
        if columns is not None and not kept:
            self._write_header(columns)

    def append(self, row: Mapping[str, float]) -> None:
        """Write one row; the order of its keys does not matter.

        Raises:
            ValueError: when its columns are not those of the header.
            RunError: when it cannot be written (a full disk, say); no part of it is then left in the file.
        """
        columns = self._columns or self._write_header(tuple(row))
        if set(row) != set(columns):
            missing, unknown = sorted(set(columns) - set(row)), sorted(set(row) - set(columns))
            raise ValueError(f"{self._path.name}: row lacks {missing} and brings {unknown}")
        self._write([_cell(row[column]) for column in columns])

    def settle(self) -> int:
        """See to it that the rows so far outlast a crash of the machine; the bytes that they take."""
        os.fsync(self._file.fileno())
        return self._size

    def close(self) -> None:
        """Close the file; nothing can be appended after that."""
        with suppress(OSError):  # whatever could not be written was told when it was to be
            self._file.close()

    def _write_header(self, columns: Sequence[str]) -> tuple[str, ...]:
        self._columns = tuple(columns)
        self._write(self._columns)
        return self._columns

    def _write(self, cells: Sequence[str]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        line = text.getvalue().encode()
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with suppress(OSError):
                os.truncate(self._path, self._size)
            raise RunError(f"cannot write {self._path}: {error.strerror}") from error
        self._size += len(line)


class Run:
    """A run directory that this process is writing; made by ``open_run``.

    Args:
        path: the run directory.
        claim: the right to write in it.
        checkpoint: from which the run goes on; None at its beginning.
    """

    def __init__(self, path: Path, claim: Claim, checkpoint: State | None = None) -> None:
        self.path = path
        """The run directory."""
        self.checkpoint = checkpoint
        """What the run knew when it stopped, in the words of ``keep``'s caller; None at its beginning."""
        self._claim = claim
        kept = NOTHING if checkpoint is None else checkpoint["tables"]
        self._began = time.monotonic() - kept["wall_s"]
        self._kept_at, self._cost = time.monotonic(), 0.0
        self._last: dict[str, object] = kept["last"]
        self._metrics = CsvWriter(path / METRICS, kept=kept["metrics"])
        self._evaluations = CsvWriter(path / EVALUATIONS, EVALUATION_COLUMNS, kept["evaluations"])
        self._evaluated = bool(kept["evaluations"])
        self._write_status("running", None, {})

    def checkpoint_due(self, every: float) -> bool:
        """Whether the last checkpoint, or the start of this process, is so many seconds ago.

        With a large memory of answers a checkpoint takes its time: the next one then waits until it costs no
        more than ``SHARE`` of the run (where ``every`` is 0 it comes at once all the same).
        """
        wait = max(every, self._cost / SHARE) if every else 0.0
        return time.monotonic() - self._kept_at >= wait

    def keep(self, state: State) -> None:
        """Keep a checkpoint from which ``open_run`` goes on; ``state`` names its ``iteration``.

        Raises:
            RunError: when it cannot be written, or another process has taken the run over.
        """
        from sailctl.checkpoint import save_checkpoint

        self._claim.check()
        began = time.monotonic()
        try:
            tables = {
                "metrics": self._metrics.settle(),
                "evaluations": self._evaluations.settle(),
                "wall_s": time.monotonic() - self._began,
                "last": self._last,
            }
            whole = {"run": self.path.name.partition(".")[0], "tables": tables, **state}
            save_checkpoint(self.path, state["iteration"], whole)
        except OSError as error:
            raise RunError(f"cannot keep a checkpoint in {self.path}: {error.strerror}") from error
        self._kept_at = time.monotonic()
        self._cost = self._kept_at - began

    def log(self, row: Mapping[str, float]) -> None:
        """Append one row of metrics.

        Raises:
            ValueError: when it lacks one of ``PLACE_COLUMNS``, or has other columns than the first row had.
            RunError: when another process has taken the run over.
        """
        self._claim.check()
        if missing := [column for column in PLACE_COLUMNS if column not in row]:
            raise ValueError(f"{METRICS}: row lacks {missing}")
        self._metrics.append(row)
        self._last = {"env_steps": int(row["env_steps"]), "labels": int(row["labels"])}

    def evaluation(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Append the episodes of one evaluation, each with ``EVALUATION_COLUMNS``.

        For a task that defines success each has ``SUCCESS_COLUMNS`` too, from the first evaluation on.

        Raises:
            ValueError: when a row has other columns.
        """
        if not self._evaluated and rows and set(SUCCESS_COLUMNS) <= set(rows[0]):
            # Only the first evaluation tells that the task defines success: the header is written again.
            self._evaluations.close()
            (self.path / EVALUATIONS).unlink()
            self._evaluations = CsvWriter(self.path / EVALUATIONS, EVALUATION_COLUMNS + SUCCESS_COLUMNS)
        self._evaluated = True
        for row in rows:
            self._evaluations.append(row)

    def finish(self, summary: Mapping[str, object]) -> None:
        """The run did all that it was asked to do; ``summary`` (JSON values) joins its status."""
        from sailctl.checkpoint import remove_checkpoints

        self._end("finished", None, summary)
        remove_checkpoints(self.path)

    def fail(self, error: BaseException) -> None:
        """The run stopped early: ``interrupted`` for a ``KeyboardInterrupt``, else ``failed``."""
        if isinstance(error, KeyboardInterrupt):
            self._end("interrupted", None, {})
        elif isinstance(error, UserError | RunError):
            self._end("failed", str(error), {})
        else:
            self._end("failed", f"{type(error).__name__}: {error}", {})

    def _end(self, state: str, error: str | None, summary: Mapping[str, object]) -> None:
        self._metrics.close()
        self._evaluations.close()
        try:
            self._write_status(state, error, summary)
        except OSError as failure:
            path = self.path / STATUS
            print(f"sailctl: warning: cannot write {path}: {failure.strerror}", file=sys.stderr)
        self._claim.release()

    def _write_status(self, state: str, error: str | None, summary: Mapping[str, object]) -> None:
        wall = round(time.monotonic() - self._began, 3)
        place = {**self._last, "wall_s": wall, "host": socket.gethostname()}
        status = {"state": state, "error": error, **place, **summary}
        write_json(self.path / STATUS, status)


@dataclass(frozen=True)
class RunRecord:
    """A run directory as it was found; ``load_run`` makes it."""

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
        """One row per iteration; no row and no column when the run stopped before its first one."""
        import pandas as pd

        path = self.path / METRICS
        if not path.stat().st_size:
            return pd.DataFrame()
        return _read_csv(path, PLACE_COLUMNS)

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """One row per evaluation episode, with ``EVALUATION_COLUMNS``."""
        return _read_csv(self.path / EVALUATIONS, EVALUATION_COLUMNS)


def run_path(config: RunConfig) -> Path:
    """``<out>/<sweep>/<task>/<algorithm>/<run_id>-s<seed>``; no folder for a sweep without a name."""
    parent = Path(config.out) / (config.logger.sweep or "") / plain_name(config.env.id) / config.algo.name
    return parent / f"{run_id(config)}-s{config.seed}"


def open_run(config: RunConfig, command: Sequence[str]) -> Run:
    """The run directory of ``config``, made now, or gone on with from its last checkpoint.

    With ``logger.fresh`` it is always made, and where there is one a number is put behind its name.

    Args:
        config: the composed configuration.
        command: the command line, recorded as it is.

    Raises:
        UserError: when the run is finished, another process works on it, it cannot be written, or its
            checkpoint is of another run.
    """
    path = run_path(config)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if config.logger.fresh:
            path = _unused(path)
        path.mkdir(exist_ok=True)
        claim = Claim(path)
    except FileExistsError as error:
        raise UserError(f"cannot make {path}: {error.filename} is in the way") from error
    except OSError as error:
        raise UserError(f"cannot make {path}: {error.strerror}") from error
    try:
        return _opened(path, claim, config, command)
    except BaseException:
        claim.release()
        raise


def finished_run(config: RunConfig) -> Path | None:
    """The directory of this run where it has been finished before and no new one is asked for, else None."""
    path = run_path(config)
    return path if not config.logger.fresh and _state_of(path) == "finished" else None


def _opened(path: Path, claim: Claim, config: RunConfig, command: Sequence[str]) -> Run:
    from sailctl.checkpoint import load_checkpoint  # torch, which whoever reads runs has no need of

    if _state_of(path) == "finished":
        raise BusyError(f"{path} has been finished by another process in this moment")
    checkpoint = load_checkpoint(path)
    try:
        if checkpoint is None:
            _set_aside(path)
            write_atomically(path / CONFIG, to_yaml(config))
            write_json(path / PROVENANCE, provenance(command))
            return Run(path, claim)
        if checkpoint["run"] != path.name.partition(".")[0]:
            raise UserError(f"the checkpoint in {path} is of another run, {checkpoint['run']}: remove it")
        about = _read_json(path / PROVENANCE)
        again = {**provenance(command), "iteration": checkpoint["iteration"]}
        write_json(path / PROVENANCE, {**about, "resumed": [*about.get("resumed", []), again]})
        return Run(path, claim, checkpoint)
    except OSError as error:
        raise UserError(f"cannot write in {path}: {error.strerror}") from error


def _set_aside(path: Path) -> None:
    """Rename the tables of a run that begins anew, and how they came about: nothing of it is lost."""
    names = (METRICS, EVALUATIONS, PROVENANCE)
    number = next(n for n in itertools.count(1) if not any((path / f"{name}.{n}").exists() for name in names))
    for name in names:
        if (path / name).is_file():
            (path / name).rename(path / f"{name}.{number}")


def _unused(path: Path) -> Path:
    """``path``, or the first of ``path.2``, ``path.3``, ... that does not exist.

    A job of a queue that was started again gets the one that it had made.
    """
    named = itertools.chain([path], (Path(f"{path}.{number}") for number in itertools.count(2)))
    return next(new for new in named if not new.exists() or _made_by_this_job(new))


def _made_by_this_job(path: Path) -> bool:
    try:
        return queued_job() is not None and _read_json(path / PROVENANCE).get("job") == queued_job()
    except (UserError, OSError):
        return False


def is_run(path: Path) -> bool:
    """Whether ``path`` is a run directory."""
    return (path / CONFIG).is_file() and (path / METRICS).is_file()


def find_runs(path: Path) -> list[Path]:
    """``path`` itself when it is a run, else every run below it, sorted.

    Raises:
        UserError: when there is no run, or no such folder.
    """
    if is_run(path):
        return [path]
    if not path.is_dir():
        raise UserError(f"no such folder: {path}")
    found = sorted(config.parent for config in path.rglob(CONFIG) if is_run(config.parent))
    if not found:
        raise UserError(f"no run in {path} or below it")
    return found


def load_run(path: str | Path) -> RunRecord:
    """Read a run directory; its two tables are read when they are first asked for.

    Raises:
        UserError: when ``path`` is not a run, or one of its files cannot be understood.
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
    record = RunRecord(path, config, _read_json(path / PROVENANCE), _read_json(path / STATUS))
    try:
        known = record.state in STATES and bool(record.task and record.algorithm) and record.seed >= 0
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a run of this version: {error!r}") from error
    if not known:
        raise UserError(f"{path} is not a run of this version: state {record.state!r}, seed {record.seed}")
    return record


def provenance(command: Sequence[str]) -> dict[str, object]:
    """How a run came about: versions, commit of the source checkout (if any), CPU, command line, UTC time."""
    return {
        "sailctl": __version__,
        "git": _git_state(Path(__file__).resolve().parents[1]),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "command": list(command),
        "job": queued_job(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write ``value`` as JSON, atomically; NaN and infinity become null (JSON has neither)."""
    write_atomically(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def _cell(value: float) -> str:
    if isinstance(value, int | np.integer):
        return str(int(value))
    number = float(value)
    return "" if math.isnan(number) else repr(number)


def _finite(value: object) -> object:
    """``value`` with numpy numbers made plain and non-finite numbers made None."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def _read_config(path: Path) -> Any:
    """The content of a ``config.yaml``. Those of an arm differ in one line, and one of them is parsed."""
    text = path.read_text(encoding="utf-8")
    found = re.search(r"^seed: (\d+)$", text, re.MULTILINE)
    if found is None:
        return _parsed(text)
    config = _parsed(text[: found.start()] + text[found.end() :])
    if not isinstance(config, dict):
        return config
    groups = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    return {**groups, "seed": int(found[1])}


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Any:
    import yaml

    # The parser in C, where there is one, is ten times as fast.
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _read_json(path: Path) -> dict[str, Any]:
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


def _state_of(path: Path) -> str:
    try:
        return str(_read_json(path / STATUS).get("state"))
    except (UserError, OSError):
        return "no status"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state(root: Path) -> dict[str, object] | None:
    """Commit of the checkout at ``root`` and whether files (but results) differ from it; None without one."""
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--", ".", ":!results")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changed)}


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _cpu_model() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
