"""Writes a run directory: created once, owned by one process, with tables flushed row by row."""

from __future__ import annotations

import csv
import errno
import io
import itertools
import json
import math
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sailctl.config import RunConfig, plain_name, run_id, to_yaml
from sailctl.core.files import write_atomically
from sailctl.core.types import BusyError, RunError, UserError
from sailctl.runs.claims import Claim, queued_job
from sailctl.runs.provenance import provenance, refuse_other_versions
from sailctl.runs.results import (
    CONFIG,
    EVALUATION_COLUMNS,
    EVALUATIONS,
    METRICS,
    PLACE_COLUMNS,
    PROVENANCE,
    STATUS,
    SUCCESS_COLUMNS,
    read_json,
)

if TYPE_CHECKING:
    from sailctl.core.state import State

NOTHING: State = {"metrics": 0, "evaluations": 0, "wall_s": 0.0, "last": {"env_steps": 0, "labels": 0}}
"""State of the tables of a run without a checkpoint."""

SHARE = 0.01
"""Largest share of a run's wall-clock time that writing checkpoints may take."""


class CsvWriter:
    """Appends rows of numbers to a file and flushes each row.

    Integers are written as integers, floats with all digits, so that ``pandas.read_csv`` restores them
    exactly, NaN as an empty cell, infinity as ``inf``.

    Args:
        path: file to create; it must exist if ``keep`` is positive, and must not exist otherwise.
        columns: the header; None takes the columns of the first row.
        keep: number of lines of the existing file to keep, header included; later lines are removed.

    Raises:
        FileExistsError: when the file exists and ``keep`` is 0.
        RunError: when the file has fewer than ``keep`` complete lines.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None = None, keep: int = 0) -> None:
        self._path = path
        self._columns: tuple[str, ...] | None = None
        if keep:
            lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
            complete = [line for line in lines if line.endswith(b"\n")]
            if len(complete) < keep:
                raise RunError(f"{path} has lost rows: {len(complete)} lines, {keep} at the last checkpoint")
            os.truncate(path, sum(map(len, complete[:keep])))
            self._columns = tuple(complete[0].decode().rstrip("\n").split(","))
        self._file = path.open("ab" if keep else "xb", buffering=0)  # so that a killed process loses no row
        self._lines, self._size = keep, path.stat().st_size
        if columns is not None and not keep:
            self._write_header(columns)

    def append(self, row: Mapping[str, float]) -> None:
        """Write one row; the order of its keys does not matter.

        Raises:
            ValueError: when its columns differ from those of the header.
            RunError: when the row cannot be written, for example to a full disk; no part of it is left.
        """
        columns = self._columns or self._write_header(tuple(row))
        if set(row) != set(columns):
            missing, unknown = sorted(set(columns) - set(row)), sorted(set(row) - set(columns))
            raise ValueError(f"{self._path.name}: row lacks {missing} and has unknown {unknown}")
        self._write([_cell(row[column]) for column in columns])

    def settle(self) -> int:
        """Sync the file to disk, so that rows survive a crash of the machine; returns the number of lines."""
        os.fsync(self._file.fileno())
        return self._lines

    def has(self, column: str) -> bool:
        """Whether the header contains this column."""
        return column in (self._columns or ())

    def widen(self, columns: Sequence[str]) -> None:
        """Add columns at the end, with 0 in the existing rows.

        Raises:
            OSError: when the file cannot be written; it then keeps its old content.
        """
        added = tuple(columns)
        header, *rows = self._path.read_bytes().splitlines()
        lines = [header + b"".join(b"," + name.encode() for name in added)]
        lines += [row + b",0" * len(added) for row in rows]
        self._file.close()
        write_atomically(self._path, b"".join(line + b"\n" for line in lines))
        self._columns = (*(self._columns or ()), *added)
        self._file = self._path.open("ab", buffering=0)
        self._size = self._path.stat().st_size

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # ``append`` has already raised for rows that could not be written
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
        self._lines += 1


class Run:
    """A run directory that this process writes; created by ``open_run``.

    Args:
        path: the run directory.
        claim: this process's claim on it.
        checkpoint: the state to resume from; None for a new run.
    """

    def __init__(self, path: Path, claim: Claim, checkpoint: State | None = None) -> None:
        self.path = path
        """The run directory."""
        self.checkpoint = checkpoint
        """The state that was passed to ``keep``, and the state of the tables; None for a new run."""
        self._claim = claim
        tables = NOTHING if checkpoint is None else checkpoint["tables"]
        self._start = time.monotonic() - tables["wall_s"]
        self._saved_at, self._save_s = time.monotonic(), 0.0
        self._progress: dict[str, object] = tables["last"]
        self._metrics = CsvWriter(path / METRICS, keep=tables["metrics"])
        self._evaluations = CsvWriter(path / EVALUATIONS, EVALUATION_COLUMNS, tables["evaluations"])
        self._write_status("running", None, {})

    @property
    def resumed_from(self) -> Mapping[str, int | None]:
        """``iteration`` and ``env_steps`` of the checkpoint that the run resumed from; None for a new run."""
        if self.checkpoint is None:
            return {"iteration": None, "env_steps": None}
        last = self.checkpoint["tables"]["last"]
        return {"iteration": self.checkpoint["iteration"], "env_steps": last["env_steps"]}

    def checkpoint_due(self, every: float) -> bool:
        """Whether ``every`` seconds have passed since the last checkpoint or the start of this process.

        If a checkpoint takes long to write, the interval grows so that checkpoints take at most ``SHARE`` of
        the time. With ``every`` 0 a checkpoint is always due.
        """
        wait = max(every, self._save_s / SHARE) if every else 0.0
        return time.monotonic() - self._saved_at >= wait

    def keep(self, state: State) -> None:
        """Save a checkpoint for ``open_run`` to resume from; ``state`` has the key ``iteration``.

        Raises:
            RunError: when it cannot be written, or another process has taken over the run.
        """
        from sailctl.runs.checkpoint import save_checkpoint

        self._claim.check()
        start = time.monotonic()
        try:
            tables = {
                "metrics": self._metrics.settle(),
                "evaluations": self._evaluations.settle(),
                "wall_s": time.monotonic() - self._start,
                "last": self._progress,
            }
            checkpoint = {"run": self.path.name.partition(".")[0], "tables": tables, **state}
            save_checkpoint(self.path, state["iteration"], checkpoint)
        except OSError as error:
            raise RunError(f"cannot save a checkpoint in {self.path}: {error.strerror}") from error
        self._saved_at = time.monotonic()
        self._save_s = self._saved_at - start

    def log(self, row: Mapping[str, float]) -> None:
        """Append one row of metrics.

        Raises:
            ValueError: when it lacks one of ``PLACE_COLUMNS``, or its columns differ from the first row's.
            RunError: when another process has taken over the run, or the row cannot be written.
        """
        self._claim.check()
        if missing := [column for column in PLACE_COLUMNS if column not in row]:
            raise ValueError(f"{METRICS}: row lacks {missing}")
        self._metrics.append(row)
        self._progress = {"env_steps": int(row["env_steps"]), "labels": int(row["labels"])}

    def evaluation(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Append the episodes of one evaluation, each with ``EVALUATION_COLUMNS``.

        For a task that defines success, rows also have ``SUCCESS_COLUMNS``. The first evaluation with these
        columns adds them to the table. Episodes without them are recorded as no success (0).

        Raises:
            ValueError: when the columns of a row differ.
            RunError: when a row cannot be written.
        """
        has_success = any(set(SUCCESS_COLUMNS) <= set(row) for row in rows)
        if has_success and not self._evaluations.has(SUCCESS_COLUMNS[0]):
            try:
                self._evaluations.widen(SUCCESS_COLUMNS)
            except OSError as error:
                raise RunError(f"cannot write {self.path / EVALUATIONS}: {error.strerror}") from error
        defaults = dict.fromkeys(SUCCESS_COLUMNS, 0) if self._evaluations.has(SUCCESS_COLUMNS[0]) else {}
        for row in rows:
            self._evaluations.append({**defaults, **row})

    def finish(self, summary: Mapping[str, object]) -> None:
        """Record that the run finished; ``summary`` (JSON values) becomes part of its status."""
        from sailctl.runs.checkpoint import remove_checkpoints

        self._end("finished", None, summary)
        remove_checkpoints(self.path)

    def fail(self, error: BaseException) -> None:
        """Record why the run stopped early: ``interrupted`` for a ``KeyboardInterrupt``, else ``failed``."""
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
        wall = round(time.monotonic() - self._start, 3)
        place = {**self._progress, "wall_s": wall, "host": socket.gethostname()}
        status = {"state": state, "error": error, **place, **summary}
        write_json(self.path / STATUS, status)


def run_path(config: RunConfig) -> Path:
    """``<out>/<sweep>/<task>/<algorithm>/<run_id>-s<seed>``; without a sweep name that folder is left out."""
    parent = Path(config.out) / (config.logger.sweep or "") / plain_name(config.env.id) / config.algo.name
    return parent / f"{run_id(config)}-s{config.seed}"


def open_run(config: RunConfig, command: Sequence[str]) -> Run:
    """Create the run directory of ``config``, or resume it from its last checkpoint.

    With ``logger.fresh`` a new directory is always created; if the name exists, a number is appended.

    Args:
        config: the composed configuration.
        command: the command line, recorded verbatim.

    Raises:
        UserError: when the run is finished, another process works on it, the directory is not writable, or
            its checkpoint belongs to another run or to other versions of the numerical packages.
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
        return _open_claimed(path, claim, config, command)
    except BaseException:
        claim.release()
        raise


def finished_run(config: RunConfig) -> Path | None:
    """The directory of this run if it is finished and ``logger.fresh`` is not set, otherwise None."""
    path = run_path(config)
    return path if not config.logger.fresh and _state_of(path) == "finished" else None


def _open_claimed(path: Path, claim: Claim, config: RunConfig, command: Sequence[str]) -> Run:
    from sailctl.runs.checkpoint import load_checkpoint  # imports torch, which readers of runs do not need

    if _state_of(path) == "finished":
        raise BusyError(f"{path} has just been finished by another process")
    checkpoint = load_checkpoint(path)
    try:
        if checkpoint is None:
            _rename_tables(path)
            write_atomically(path / CONFIG, to_yaml(config))
            write_json(path / PROVENANCE, provenance(command))
            return Run(path, claim)
        if checkpoint["run"] != path.name.partition(".")[0]:
            raise UserError(
                f"the checkpoint in {path} belongs to another run, {checkpoint['run']}: remove it"
            )
        about = read_json(path / PROVENANCE)
        if not config.logger.any_version:
            refuse_other_versions(path, about, provenance(command))
        resumed = {**provenance(command), "iteration": checkpoint["iteration"]}
        write_json(path / PROVENANCE, {**about, "resumed": [*about.get("resumed", []), resumed]})
        return Run(path, claim, checkpoint)
    except OSError as error:
        raise UserError(f"cannot write in {path}: {error.strerror}") from error


def _rename_tables(path: Path) -> None:
    """Rename the tables and provenance of a run that restarts from the beginning, so that nothing is lost."""
    names = (METRICS, EVALUATIONS, PROVENANCE)
    number = next(n for n in itertools.count(1) if not any((path / f"{name}.{n}").exists() for name in names))
    for name in names:
        if (path / name).is_file():
            (path / name).rename(path / f"{name}.{number}")


def _unused(path: Path) -> Path:
    """``path``, or the first of ``path.2``, ``path.3``, ... that does not exist.

    A restarted cluster job gets the directory that it created at its earlier start.
    """
    candidates = itertools.chain([path], (Path(f"{path}.{number}") for number in itertools.count(2)))
    return next(new for new in candidates if not new.exists() or _made_by_this_job(new))


def _made_by_this_job(path: Path) -> bool:
    try:
        return queued_job() is not None and read_json(path / PROVENANCE).get("job") == queued_job()
    except (UserError, OSError):
        return False


def _state_of(path: Path) -> str:
    try:
        return str(read_json(path / STATUS).get("state"))
    except (UserError, OSError):
        return "no status"


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write ``value`` as JSON, atomically; NaN and infinity become null, because JSON has neither."""
    write_atomically(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def _cell(value: float) -> str:
    if isinstance(value, int | np.integer):
        return str(int(value))
    number = float(value)
    return "" if math.isnan(number) else repr(number)


def _finite(value: object) -> object:
    """``value`` with numpy numbers converted to Python numbers and non-finite numbers to None."""
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
