"""Runs as evidence: what each scored, which arm it belongs to, and proof that arms differ in nothing else.

A ``Trial`` is what a comparison needs of a run, from its directory or from a committed pair of files
(``NAME.csv`` with the curves, ``NAME.json`` with the configurations and where they come from). ``gather``
sorts trials into arms and refuses a comparison in which anything but the compared settings differs.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from sailctl import __version__
from sailctl.config import NUMBERLESS, show
from sailctl.files import write_atomically
from sailctl.results import EVALUATIONS, METRICS, RunRecord, find_runs, load_run
from sailctl.saved import seal, whole
from sailctl.types import DoubleArray, UserError

FINAL_EVALUATIONS = 3
"""The final score of a run is the mean return of its last three evaluations after training began."""

AXES = {
    "env_steps": "env steps",
    "labels": "labels used",
    "wall_s": "wall-clock (s)",
    "iteration": "iterations",
}
"""What a learning curve can be drawn along, and its name in figures."""

BUDGET = "oracle.budget"
"""Where it is what is compared, arms may use unlike numbers of labels."""

UNEQUAL = 0.05
"""Arms whose mean counts of labels or env steps differ by more than this share of the larger are unequal.

Below it lies one iteration at the end of a run, which the segments' lengths decide."""

_COLUMNS = ("iteration", "env_steps", "labels", "wall_s", "returns", "lengths", "kl")
_HEAD = (
    "run",
    "task",
    "algorithm",
    "seed",
    "iteration",
    "env_steps",
    "labels",
    "wall_s",
    "return",
    "length",
    "kl",
)
_VERSIONS = ("sailctl", "commit", "python", "torch", "mujoco", "numpy", "gymnasium")


@dataclass(frozen=True)
class Trial:
    """One run, as a comparison sees it. E evaluations, the first one before training (iteration 0)."""

    task: str
    """Id of the task."""
    algorithm: str
    """Name of the algorithm."""
    seed: int
    """Seed of the run."""
    state: str
    """One of ``results.STATES``."""
    error: str | None
    """Why it failed."""
    settings: Mapping[str, object]
    """``{"algo.beta": 0.1, ...}``: the configuration without ``config.NUMBERLESS``."""
    origin: Mapping[str, object]
    """Versions, ``commit``, ``dirty``, ``cpu``, ``started`` and ``command`` that it was made with."""
    place: str
    """Where it was read from."""
    iteration: DoubleArray
    """(E,) iterations done at each evaluation, rising from 0."""
    env_steps: DoubleArray
    """(E,) env steps simulated by then."""
    labels: DoubleArray
    """(E,) labels used by then."""
    wall_s: DoubleArray
    """(E,) seconds since the run began; 0 at iteration 0."""
    returns: DoubleArray
    """(E,) mean true return of the evaluation's episodes."""
    lengths: DoubleArray
    """(E,) mean length of the episodes in control steps."""
    kl: DoubleArray
    """(E,) mean KL(ref || pi) per state of the iterations since the evaluation before; NaN if unknown."""
    before: DoubleArray
    """(N,) returns of the episodes before training."""
    after: DoubleArray
    """(N,) returns of the episodes of the last evaluation."""

    @property
    def finished(self) -> bool:
        """Whether it did all that it was asked to do, and was evaluated after training began."""
        return self.state == "finished" and bool((self.iteration > 0).any())

    @property
    def simulates(self) -> bool:
        """Whether it simulated anything to learn from; without, its curve goes along iterations alone."""
        responses, w = self.settings.get("algo.responses", "segments"), self.settings.get("algo.w", 1.0)
        return responses != "data" and w != 0

    @property
    def asks(self) -> bool:
        """Whether a teacher is asked for labels: nobody is where the true reward is told."""
        return self.settings.get("algo.reward", "model") == "model"

    def has(self, key: str) -> bool:
        """Whether ``key`` is a setting of this run: recorded, and of a group that its algorithm reads."""
        unread = () if self.asks else ("oracle", "reward")
        learner = self.settings.get("algo.learner")
        if learner and not self.asks:
            unread = (*unread, "rollout")
        if learner == "sac":
            unread = (*unread, "policy")
        return key in self.settings and key.partition(".")[0] not in unread

    @property
    def final(self) -> float:
        """Mean return of the last ``FINAL_EVALUATIONS`` evaluations after training began; NaN without one."""
        returns = self.returns[self.iteration > 0]
        return float(returns[-FINAL_EVALUATIONS:].mean()) if len(returns) else float("nan")

    def along(self, axis: str) -> DoubleArray:
        """(E,) the values of one of ``AXES``."""
        values: DoubleArray = getattr(self, axis)
        return values


@dataclass(frozen=True)
class Arm:
    """The runs of one configuration, on every task and seed."""

    name: str
    """The algorithm, and what sets it apart from other arms of that algorithm."""
    algorithm: str
    """Name of the algorithm."""
    settings: Mapping[str, object]
    """Values of the settings in which arms differ."""
    trials: tuple[Trial, ...]
    """Its runs, by task and seed."""

    @property
    def asks(self) -> bool:
        """Whether its runs ask a teacher for labels."""
        return any(trial.asks for trial in self.trials)

    def has(self, key: str) -> bool:
        """Whether ``key`` is a setting of its runs: an arm cannot share one that its algorithm lacks."""
        return any(trial.has(key) for trial in self.trials)

    def on(self, task: str) -> list[Trial]:
        """Its runs on one task, by seed."""
        return [trial for trial in self.trials if trial.task == task]


@dataclass(frozen=True)
class Evidence:
    """Arms that may be compared, and what is to be said about that."""

    arms: tuple[Arm, ...]
    """By name."""
    tasks: tuple[str, ...]
    """Tasks that every arm has."""
    compared: Mapping[str, Mapping[str, object]]
    """``{setting: {arm: value}}`` of the settings in which arms may differ and do."""
    caveats: tuple[str, ...]
    """What else differs: the comparison was made all the same, because its user said so."""
    notes: tuple[str, ...]
    """What a reader should know and that makes no comparison unfair."""

    @property
    def trials(self) -> list[Trial]:
        """All runs."""
        return [trial for arm in self.arms for trial in arm.trials]

    def arm(self, name: str) -> Arm:
        """The arm of this name.

        Raises:
            UserError: when there is none.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        known = ", ".join(repr(arm.name) for arm in self.arms)
        raise UserError(f"no arm is called '{name}'; the arms are {known}")


# Reading and writing


def load_trials(places: Sequence[str | Path]) -> list[Trial]:
    """The runs of run directories, of folders searched for them, and of saved evidence (``*.csv``).

    Raises:
        UserError: when a place holds no run or one cannot be read.
    """
    directories: dict[Path, None] = {}
    trials = []
    for place in map(Path, places):
        if place.suffix == ".csv":
            trials += _load_saved(place)
        else:
            directories |= dict.fromkeys(found.resolve() for found in find_runs(place))
    return [trial_of(load_run(directory)) for directory in directories] + trials


def trial_of(record: RunRecord) -> Trial:
    """A run directory as a trial."""
    evaluations = read_columns(
        record.path / EVALUATIONS, ("iteration", "env_steps", "labels", "return", "length")
    )
    metrics = read_columns(record.path / METRICS, ("iteration", "wall_s", "kl_ref_pi"))
    iteration, first = np.unique(evaluations["iteration"], return_index=True)
    count = np.diff([*first, len(evaluations["iteration"])])

    def mean(name: str) -> DoubleArray:
        return np.add.reduceat(evaluations[name], first) / count if len(first) else np.zeros(0)

    returns = evaluations["return"]
    wall = dict(zip(metrics["iteration"], metrics["wall_s"], strict=True))
    provenance, git = record.provenance, record.provenance.get("git") or {}
    origin = {
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
        settings=flat_settings(record.config),
        origin=origin,
        place=str(record.path),
        iteration=iteration,
        env_steps=evaluations["env_steps"][first],
        labels=evaluations["labels"][first],
        wall_s=np.array([0.0 if i == 0 else wall.get(i, np.nan) for i in iteration]),
        returns=mean("return"),
        lengths=mean("length"),
        kl=_means_between(iteration, metrics["iteration"], metrics["kl_ref_pi"]),
        before=returns[: count[0]] if len(first) else returns,
        after=returns[first[-1] :] if len(first) else returns,
    )


def save_trials(trials: Sequence[Trial], path: Path, about: Mapping[str, object] | None = None) -> None:
    """Write the curves into ``path`` (``*.csv``, a row per evaluation), the rest into a ``.json`` beside it.

    ``about`` (JSON values) joins the JSON file. Runs are told by their number in it, so that no place of a
    machine is written.

    Raises:
        UserError: when ``path`` is no ``.csv``, or cannot be written.
    """
    if path.suffix != ".csv":
        raise UserError(f"evidence is saved as a .csv file (with a .json beside it), got {path}")
    lines = [",".join(_HEAD)]
    for run, trial in enumerate(trials):
        columns = [getattr(trial, name) for name in _COLUMNS]
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
            **seal({name: getattr(trial, name) for name in _COLUMNS}),
        }
        for run, trial in enumerate(trials)
    ]
    saved = datetime.now(UTC).isoformat(timespec="seconds")
    record = {**(about or {}), "sailctl": __version__, "saved": saved, "settings": common, "runs": runs}
    write_table(path, lines, record)


def write_table(path: Path, lines: Sequence[str], record: Mapping[str, object]) -> None:
    """Write lines of CSV into ``path``, and ``record`` into the ``.json`` beside it; the folder is made.

    Raises:
        UserError: when they cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, "\n".join(lines) + "\n")
        write_atomically(path.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def read_about(path: Path) -> dict[str, Any]:
    """The JSON file beside saved evidence ``path``.

    Raises:
        UserError: when it is missing or cannot be understood.
    """
    beside = path.with_suffix(".json")
    for file in (path, beside):
        if not file.is_file():
            raise UserError(f"no such file: {file} (saved evidence is a .csv and a .json of the same name)")
    try:
        about = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{beside} is not JSON: {error}") from error
    if not isinstance(about, dict) or "runs" not in about:
        raise UserError(f"{beside} is no saved evidence: it lists no runs")
    return about


def _load_saved(path: Path) -> list[Trial]:
    about = read_about(path)
    table = read_columns(
        path, ("run", "iteration", "env_steps", "labels", "wall_s", "return", "length", "kl"), ended=True
    )
    trials = []
    try:
        for run in about["runs"]:
            rows = table["run"] == run["run"]
            curves = {name: table[column][rows] for name, column in zip(_COLUMNS, _HEAD[4:], strict=True)}
            trials.append(
                Trial(
                    task=run["task"],
                    algorithm=run["algorithm"],
                    seed=run["seed"],
                    state=run["state"],
                    error=run["error"],
                    settings={**about["settings"], **run["settings"]},
                    origin=run["origin"],
                    place=f"{path}, run {run['run']}",
                    before=np.array(run["before"], dtype=np.float64),
                    after=np.array(run["after"], dtype=np.float64),
                    **whole(path, run, curves),
                )
            )
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path.with_suffix('.json')} is no saved evidence of this version: {error!r}"
        ) from error
    if len(strays := np.setdiff1d(table["run"], [run["run"] for run in about["runs"]])):
        raise UserError(f"{path} is damaged: it has rows of a run {strays[0]:g}, which was not saved")
    return trials


def read_columns(path: Path, names: Sequence[str], ended: bool = False) -> dict[str, DoubleArray]:
    """Columns of a CSV file of numbers by their names; an empty cell is NaN, a missing column all NaN.

    A last line without its end, as a killed run leaves it, is no row, unless the file is known to have
    ``ended``. Cells are parted by commas, or by semicolons where the header is.

    Raises:
        UserError: when the file cannot be read or holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n") and not ended:
            lines.pop()
        semicolons = bool(lines) and "," not in lines[0] and ";" in lines[0]
        reader = csv.reader(lines, delimiter=";" if semicolons else ",")
        head = next(reader, [])
        rows = list(reader)
        found = {name: head.index(name) for name in names if name in head}
        return {
            name: np.array([float(row[found[name]] or "nan") for row in rows], dtype=np.float64)
            if name in found
            else np.full(len(rows), np.nan)
            for name in names
        }
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def _means_between(iteration: DoubleArray, at: DoubleArray, values: DoubleArray) -> DoubleArray:
    """(E,) mean of ``values`` over the iterations after the evaluation before, up to this one."""
    known = np.isfinite(values) & (at <= iteration[-1] if len(iteration) else False)
    place = np.searchsorted(iteration, at[known])
    sums = np.bincount(place, values[known], len(iteration))
    counts = np.bincount(place, minlength=len(iteration)).astype(np.float64)
    means: DoubleArray = np.divide(sums, counts, out=np.full(len(iteration), np.nan), where=counts > 0)
    return means


def _cell(value: float) -> str:
    return "" if np.isnan(value) else repr(int(value)) if float(value).is_integer() else repr(float(value))


# Arms


def gather(trials: Sequence[Trial], compared: Sequence[str] = ("algo.*",), force: bool = False) -> Evidence:
    """Sort runs into arms, and prove that arms differ in the compared settings only.

    What an arm lacks (a setting, or labels, where it is told the true reward) it cannot share: the proof is
    about the arms that have it, and a note says which have not.

    Args:
        trials: the runs.
        compared: patterns of the settings that are compared, such as ``algo.*`` or ``algo.gamma``. (The
            name of the algorithm may always differ.)
        force: go on in spite of differences; they become the caveats of the evidence.

    Raises:
        UserError: when there is no run, an arm has a run twice, or (without ``force``) a run has not ended or
            something else differs: another setting, the version of the code or of what it stands on, the
            labels or env steps used, the tasks.
    """
    if not trials:
        raise UserError("no runs to compare")
    varying = varying_settings(trials)
    arms = _arms_of(trials, varying)
    for arm in arms:
        for one, other in pairwise(arm.trials):
            if (one.task, one.seed) == (other.task, other.seed):
                raise UserError(f"the same run twice: {one.place} and {other.place}")
    allowed = ("algo.name", *compared)
    # Where budgets of labels are what is compared, unequal numbers of them are what was asked for.
    budgets = BUDGET in varying and any(fnmatchcase(BUDGET, pattern) for pattern in compared)
    caveats = [
        *_other_settings([key for key in varying if not any(fnmatchcase(key, p) for p in allowed)], arms),
        *_other_versions(trials),
        *_unfinished(trials),
        *_missing_tasks(arms),
        *_unequal_budgets(arms, ("env_steps",) if budgets else ("labels", "env_steps")),
    ]
    if caveats and not force:
        more = f" (and {len(caveats) - 1} more)" if len(caveats) > 1 else ""
        raise UserError(
            f"these runs cannot be compared: {caveats[0]}{more}; "
            "choose other runs, name what is compared with --by, or go on all the same with --force"
        )
    tasks = sorted(set.intersection(*({trial.task for trial in arm.trials} for arm in arms)))
    if not tasks:
        raise UserError("these runs cannot be compared: no task was run by every arm")
    if caveats:
        arms = _within_budget(arms)
    differing = {key: {arm.name: arm.settings[key] for arm in arms} for key in varying}
    notes = (
        *_not_shared([key for key in varying if not key.startswith("algo.")], arms),
        *_notes(arms, tasks),
    )
    return Evidence(tuple(arms), tuple(tasks), differing, tuple(caveats), notes)


def flat_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """The nested configuration as ``{"algo.beta": 0.1, ...}``, without ``config.NUMBERLESS``."""
    flat: dict[str, object] = {}
    for key, value in config.items():
        if not prefix and key in NUMBERLESS:
            continue
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def shared_settings(trials: Sequence[Trial]) -> dict[str, object]:
    """The settings that every run has with the same value."""
    first, *others = trials
    return {
        key: value
        for key, value in first.settings.items()
        if all(key in other.settings and other.settings[key] == value for other in others)
    }


def varying_settings(trials: Sequence[Trial]) -> list[str]:
    """Settings with several values on one task, sorted. (What changes with the task belongs to the task.)"""
    first: dict[str, Mapping[str, object]] = {}
    varying: set[str] = set()
    for trial in trials:
        reference = first.setdefault(trial.task, trial.settings)
        if reference != trial.settings:
            keys = {*reference, *trial.settings} - varying
            varying |= {key for key in keys if reference.get(key) != trial.settings.get(key)}
    return sorted(varying)


def _arms_of(trials: Sequence[Trial], varying: Sequence[str]) -> list[Arm]:
    """Runs of one algorithm, apart where its own runs on one task are: what sets another algorithm apart, or
    goes with the task, is no second arm."""
    algorithms = sorted({trial.algorithm for trial in trials})
    apart = {name: varying_settings([t for t in trials if t.algorithm == name]) for name in algorithms}
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        own = {key: trial.settings.get(key) for key in apart[trial.algorithm]}
        groups.setdefault(json.dumps([trial.algorithm, own], sort_keys=True), []).append(trial)
    arms = []
    for members in groups.values():
        first = members[0]
        told = [f"{key}={_plain(first.settings.get(key))}" for key in apart[first.algorithm]]
        members.sort(key=lambda trial: (trial.task, trial.seed))
        settings = {
            key: _common([trial.settings[key] if trial.has(key) else None for trial in members])
            for key in varying
        }
        arms.append(Arm(" ".join([first.algorithm, *told]), first.algorithm, settings, tuple(members)))
    return sorted(arms, key=lambda arm: arm.name)


def _common(values: Sequence[object]) -> object:
    """The one value of a setting, or all of them in words, where it goes with the task."""
    told = dict.fromkeys(map(_plain, values))
    return values[0] if len(told) == 1 else ", ".join(told)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else show(value)


# What else differs


def _other_settings(keys: Sequence[str], arms: Sequence[Arm]) -> Iterator[str]:
    for key in keys:
        values = dict.fromkeys(_plain(arm.settings[key]) for arm in arms if arm.has(key))
        if len(values) > 1:
            yield f"{key} differs ({', '.join(values)})"


def _not_shared(keys: Sequence[str], arms: Sequence[Arm]) -> Iterator[str]:
    """Which of ``keys`` an arm lacks and another has; a group by its name, where the arm has none of it."""
    known = [key for key in keys if any(arm.has(key) for arm in arms)]
    for arm in arms:
        groups = {key.partition(".")[0] for key in arm.trials[0].settings if arm.has(key)}
        lacking = [key.partition(".") for key in known if not arm.has(key)]
        told = dict.fromkeys("".join(parts) if parts[0] in groups else f"{parts[0]}.*" for parts in lacking)
        if told:
            yield f"not shared: {arm.name} has no {', '.join(told)}"
        if not arm.asks and any(other.asks for other in arms):
            yield f"not shared: {arm.name} is told the true reward and asks for no labels"


def _other_versions(trials: Sequence[Trial]) -> Iterator[str]:
    for name in _VERSIONS:
        found = dict.fromkeys(str(trial.origin.get(name)) for trial in trials)
        if len(found) > 1:
            values = ", ".join(value[:10] for value in list(found)[:4])
            what = "the commit of the code" if name == "commit" else f"the version of {name}"
            yield f"{what} differs ({values}{', ...' if len(found) > 4 else ''})"


def _unfinished(trials: Sequence[Trial]) -> Iterator[str]:
    open_ends = [trial for trial in trials if trial.state in ("running", "interrupted")]
    if open_ends:
        states = Counter(trial.state for trial in open_ends)
        counts = " and ".join(f"{count} {state}" for state, count in sorted(states.items()))
        yield f"{counts} of {len(trials)} runs, such as {_relative(open_ends[0].place)}: they count as failed"


def _relative(place: str) -> str:
    """``place`` as seen from the working folder, where it lies below it."""
    path, here = Path(place), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else place


def _missing_tasks(arms: Sequence[Arm]) -> Iterator[str]:
    tasks = {trial.task for arm in arms for trial in arm.trials}
    for arm in arms:
        if missing := sorted(tasks - {trial.task for trial in arm.trials}):
            yield f"{arm.name} has no run on {', '.join(missing)}"


def _unequal_budgets(arms: Sequence[Arm], axes: Sequence[str]) -> Iterator[str]:
    """Finished runs on one task must have used as many labels and env steps, whatever was configured."""
    for task in sorted({trial.task for arm in arms for trial in arm.trials}):
        for axis in axes:
            used = {
                arm.name: float(np.mean([trial.along(axis)[-1] for trial in finished]))
                for arm in arms
                if (axis != "labels" or arm.asks)
                and (finished := [trial for trial in arm.on(task) if trial.finished])
            }
            if used and max(used.values()) - min(used.values()) > UNEQUAL * max(used.values()):
                values = ", ".join(f"{name} {count:,.0f}" for name, count in used.items())
                yield f"unequal {AXES[axis]} on {task} ({values})"


def _within_budget(arms: Sequence[Arm]) -> list[Arm]:
    """The arms with their curves cut where the smallest configured budget of env steps on a task ends.

    An evaluation belongs to the last multiple of ``evaluation.every`` that was passed before it.
    """
    limits: dict[str, float] = {}
    for trial in (trial for arm in arms for trial in arm.trials if trial.simulates):
        limits[trial.task] = min(limits.get(trial.task, np.inf), _number(trial, "env_steps", np.inf))

    def cut(trial: Trial) -> Trial:
        if not trial.simulates:
            return trial
        every = _number(trial, "evaluation.every", 1.0)
        keep = trial.env_steps // every * every <= limits[trial.task]
        return replace(trial, **{name: getattr(trial, name)[keep] for name in _COLUMNS})

    return [replace(arm, trials=tuple(cut(trial) for trial in arm.trials)) for arm in arms]


def _number(trial: Trial, key: str, otherwise: float) -> float:
    return float(str(trial.settings.get(key, otherwise)))


def _notes(arms: Sequence[Arm], tasks: Sequence[str]) -> Iterator[str]:
    trials = [trial for arm in arms for trial in arm.trials]
    for task in tasks:
        seeds = {arm.name: tuple(trial.seed for trial in arm.on(task)) for arm in arms}
        if len(set(seeds.values())) > 1:
            common = set.intersection(*(set(own) for own in seeds.values()))
            yield f"arms were not run with the same seeds on {task}: {len(common)} are common to all"
    if any(trial.origin.get("dirty") for trial in trials):
        yield "some runs were made by code that differs from its commit"
    cpus = sorted({str(trial.origin.get("cpu")) for trial in trials})
    if len(cpus) > 1:
        yield f"runs were made on several machines ({', '.join(cpus)}): wall-clock times do not compare"
