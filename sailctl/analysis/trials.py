"""Reads trials from run directories, saved evidence and foreign curves, and writes saved evidence.

Saved evidence is a pair of files that can be committed: ``NAME.csv`` with the curves, and ``NAME.json`` with
the configurations and provenance.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sailctl import __version__
from sailctl.analysis.evidence import CURVES, Trial, flat_settings, shared_settings
from sailctl.analysis.foreign import Curve, is_foreign, read_curves
from sailctl.analysis.saved import seal, whole
from sailctl.config import present
from sailctl.core.files import write_atomically
from sailctl.core.types import DoubleArray, UserError
from sailctl.runs.results import EVALUATIONS, METRICS, RunRecord, find_runs, load_run

_CURVES = ("iteration", "env_steps", "labels", "wall_s", "return", "length", "kl", "cpu_s")
"""Columns of ``CURVES`` in saved evidence."""
_HEAD = ("run", "task", "algorithm", "seed", *_CURVES)


def load_trials(places: Sequence[str | Path]) -> list[Trial]:
    """The runs in run directories, in folders of them, in saved evidence and in foreign curves.

    Raises:
        UserError: when a place contains no run, or a run cannot be read.
    """
    directories: dict[Path, None] = {}
    trials = []
    for place in map(Path, places):
        if place.suffix == ".csv" and is_foreign(place):
            trials += [_foreign_trial(curve, place) for curve in read_curves(place)]
        elif place.suffix == ".csv":
            trials += _load_saved(place)
        else:
            directories |= dict.fromkeys(run.resolve() for run in find_runs(place))
    return [trial_of(load_run(directory)) for directory in directories] + trials


def _foreign_trial(curve: Curve, path: Path) -> Trial:
    """A trial of which only the env steps and returns are known."""
    unknown = np.full(len(curve.returns), np.nan)
    algorithm = f"{curve.algorithm} ({path.name})"
    return Trial(
        task=curve.task,
        algorithm=algorithm,
        seed=curve.seed,
        state="finished",
        error=None,
        settings={"algo.name": algorithm},
        origin={"foreign": path.name},
        place=f"{path}, {curve.algorithm} on {curve.task}, seed {curve.seed}",
        iteration=np.arange(len(curve.returns), dtype=np.float64) + (curve.env_steps[0] > 0),
        env_steps=curve.env_steps,
        labels=unknown,
        wall_s=unknown,
        returns=curve.returns,
        lengths=unknown,
        kl=unknown,
        before=curve.returns[:1],
        after=curve.returns[-1:],
        cpu_s=unknown,
    )


def trial_of(record: RunRecord) -> Trial:
    """The trial of a run directory."""
    evaluations = read_columns(
        record.path / EVALUATIONS, ("iteration", "env_steps", "labels", "return", "length")
    )
    metrics = read_columns(record.path / METRICS, ("iteration", "wall_s", "cpu_s", "kl_ref_pi"))
    iteration, first = np.unique(evaluations["iteration"], return_index=True)
    count = np.diff([*first, len(evaluations["iteration"])])

    def mean(name: str) -> DoubleArray:
        return np.add.reduceat(evaluations[name], first) / count if len(first) else np.zeros(0)

    returns = evaluations["return"]
    time_at = {
        name: dict(zip(metrics["iteration"], metrics[name], strict=True)) for name in ("wall_s", "cpu_s")
    }

    def at_evaluations(name: str) -> DoubleArray:
        return np.array([0.0 if i == 0 else time_at[name].get(i, np.nan) for i in iteration])

    provenance, git = record.provenance, record.provenance.get("git") or {}
    origin = {
        "id": record.path.name.partition("-")[0],
        "numbers": provenance.get("numbers"),
        "sailctl": provenance.get("sailctl"),
        "python": provenance.get("python"),
        **provenance.get("packages", {}),
        "commit": git.get("commit"),
        "dirty": git.get("dirty"),
        "cpu": provenance.get("cpu"),
        "started": provenance.get("started"),
        "command": " ".join(map(str, provenance.get("command", []))),
    }
    return Trial(
        task=record.task,
        algorithm=record.algorithm,
        seed=record.seed,
        state=record.state,
        error=record.status.get("error"),
        settings=present(flat_settings(record.config)),
        origin=origin,
        place=str(record.path),
        iteration=iteration,
        env_steps=evaluations["env_steps"][first],
        labels=evaluations["labels"][first],
        wall_s=at_evaluations("wall_s"),
        cpu_s=at_evaluations("cpu_s"),
        returns=mean("return"),
        lengths=mean("length"),
        kl=_means_between(iteration, metrics["iteration"], metrics["kl_ref_pi"]),
        before=returns[: count[0]] if len(first) else returns,
        after=returns[first[-1] :] if len(first) else returns,
    )


def save_trials(trials: Sequence[Trial], path: Path, about: Mapping[str, object] | None = None) -> None:
    """Write the curves to ``path`` (``*.csv``, one row per evaluation), and the rest to a ``.json`` file.

    ``about`` (JSON values) becomes part of the JSON file. Runs are identified by number, so that no path of
    the machine is written.

    Raises:
        UserError: when ``path`` is not a ``.csv`` file, cannot be written, or a run is foreign.
    """
    if any(trial.foreign for trial in trials):
        raise UserError("foreign curves are not saved as evidence: keep their original file")
    if path.suffix != ".csv":
        raise UserError(f"evidence is saved as a .csv file (with a .json beside it), got {path}")
    lines = [",".join(_HEAD)]
    for run, trial in enumerate(trials):
        columns = [getattr(trial, name) for name in CURVES]
        for values in zip(*columns, strict=True):
            cells = (run, trial.task, trial.algorithm, trial.seed, *map(_cell, values))
            lines.append(",".join(map(str, cells)))
    common = shared_settings(trials)
    runs = [
        {
            "run": run,
            "task": trial.task,
            "algorithm": trial.algorithm,
            "seed": trial.seed,
            "state": trial.state,
            "error": trial.error,
            "settings": {key: value for key, value in trial.settings.items() if key not in common},
            "origin": dict(trial.origin),
            "before": trial.before.tolist(),
            "after": trial.after.tolist(),
            **seal({name: getattr(trial, name) for name in CURVES}),
        }
        for run, trial in enumerate(trials)
    ]
    saved = datetime.now(UTC).isoformat(timespec="seconds")
    record = {**(about or {}), "sailctl": __version__, "saved": saved, "settings": common, "runs": runs}
    write_table(path, lines, record)


def write_table(path: Path, lines: Sequence[str], record: Mapping[str, object]) -> None:
    """Write CSV lines to ``path`` and ``record`` to the ``.json`` file of the same name; create the folder.

    Raises:
        UserError: when the files cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, "\n".join(lines) + "\n")
        write_atomically(path.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def read_about(path: Path) -> dict[str, Any]:
    """The content of the JSON file of saved evidence ``path``.

    Raises:
        UserError: when it is missing or not valid.
    """
    json_path = path.with_suffix(".json")
    for file in (path, json_path):
        if not file.is_file():
            raise UserError(f"no such file: {file} (saved evidence is a .csv and a .json of the same name)")
    try:
        about = json.loads(json_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{json_path} is not JSON: {error}") from error
    if not isinstance(about, dict) or "runs" not in about:
        raise UserError(f"{json_path} is not saved evidence: it lists no runs")
    return about


def _load_saved(path: Path) -> list[Trial]:
    about = read_about(path)
    table = read_columns(path, ("run", *_CURVES), ended=True)
    trials = []
    try:
        for run in about["runs"]:
            rows = table["run"] == run["run"]
            columns = {name: table[column][rows] for name, column in zip(CURVES, _CURVES, strict=True)}
            curves: dict[str, Any] = dict(whole(path, run, columns))
            trials.append(
                Trial(
                    task=run["task"],
                    algorithm=run["algorithm"],
                    seed=run["seed"],
                    state=run["state"],
                    error=run["error"],
                    settings=present({**about["settings"], **run["settings"]}),
                    origin=run["origin"],
                    place=f"{path}, run {run['run']}",
                    before=np.array(run["before"], dtype=np.float64),
                    after=np.array(run["after"], dtype=np.float64),
                    **curves,
                )
            )
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path.with_suffix('.json')} is not saved evidence of this version: {error!r}"
        ) from error
    if len(unknown := np.setdiff1d(table["run"], [run["run"] for run in about["runs"]])):
        raise UserError(f"{path} is damaged: it has rows of a run {unknown[0]:g}, which was not saved")
    return trials


def read_columns(path: Path, names: Sequence[str], ended: bool = False) -> dict[str, DoubleArray]:
    """(E,) columns of a CSV file of numbers, by name; an empty cell is NaN, a missing column all NaN.

    An incomplete last line, which a killed run leaves, is ignored unless the file is known to have ``ended``.
    Cells are separated by commas, or by semicolons if the header is.

    Raises:
        UserError: when the file cannot be read, or a cell is not a number.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n") and not ended:
            lines.pop()
        semicolons = bool(lines) and "," not in lines[0] and ";" in lines[0]
        reader = csv.reader(lines, delimiter=";" if semicolons else ",")
        head = next(reader, [])
        rows = list(reader)
        index = {name: head.index(name) for name in names if name in head}
        return {
            name: np.array([float(row[index[name]] or "nan") for row in rows], dtype=np.float64)
            if name in index
            else np.full(len(rows), np.nan)
            for name in names
        }
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def _means_between(iteration: DoubleArray, at: DoubleArray, values: DoubleArray) -> DoubleArray:
    """(E,) mean of ``values`` over the iterations since the previous evaluation; NaN without a value."""
    valid = np.isfinite(values) & (at <= iteration[-1] if len(iteration) else False)
    evaluation = np.searchsorted(iteration, at[valid])
    sums = np.bincount(evaluation, values[valid], len(iteration))
    counts = np.bincount(evaluation, minlength=len(iteration)).astype(np.float64)
    means: DoubleArray = np.divide(sums, counts, out=np.full(len(iteration), np.nan), where=counts > 0)
    return means


def _cell(value: float) -> str:
    return "" if np.isnan(value) else repr(int(value)) if float(value).is_integer() else repr(float(value))
