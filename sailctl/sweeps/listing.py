"""A sweep as a table: every job that was ever asked for in a folder, where it stands, and what is to come.

The truth is in the run directories; the table, ``jobs.csv``, is made from them anew each time that a job
ends. What was asked for and has no directory yet is in ``.sweeps/<time>/jobs.json``, which each
launch leaves behind.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sailctl.config import RunConfig
from sailctl.core.files import write_atomically
from sailctl.core.terminal import columns, in_columns
from sailctl.core.types import UserError
from sailctl.runs.claims import owner
from sailctl.runs.recorder import run_path
from sailctl.runs.results import CONFIG, EVALUATIONS, METRICS, PROVENANCE, STATUS, is_run, read_json
from sailctl.runs.results import STATES as RUN_STATES
from sailctl.sweeps.outcomes import Outcome, read_outcome

TABLE = "jobs.csv"
LAUNCHES = ".sweeps"
"""Folder of a folder of runs in which every launch of a sweep leaves what it asked for."""
JOBS = "jobs.json"
STATES = ("finished", "running", "waiting", "interrupted", "lost", "failed")
"""``lost``: it says that it runs, and no living process works on it; asked for again, it goes on."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep, as it stands."""

    run: str
    """Its directory, below the sweep's folder."""
    differs: str
    """The words by which it differs from the others that were launched with it; empty where nobody knows."""
    state: str
    """One of ``STATES``."""
    host: str
    """Process and machine that work on it, or the machine that did."""
    env_steps: int
    labels: int
    last_return: float | None
    """Mean true return of its last evaluation."""
    wall_s: float
    progress: float
    """Share of its env steps (or iterations) that is done, from 0 to 1."""
    error: str


def root_of(config: RunConfig) -> Path:
    """The folder of the sweep that a run belongs to."""
    return run_path(config).parents[2]


def record_launch(folder: Path, configs: Sequence[RunConfig], words: Sequence[Sequence[str]]) -> None:
    """Leave in ``folder`` (of a launch) which runs it asks for, and by which words they differ."""
    jobs = [
        {"run": os.path.relpath(run_path(config), root_of(configs[0])), "words": own}
        for config, own in zip(configs, differing(words), strict=True)
    ]
    write_atomically(folder / JOBS, json.dumps(jobs, indent=1) + "\n")


def differing(words: Sequence[Sequence[str]]) -> list[list[str]]:
    """The words of each job without those that all jobs have; all words of a job that is alone."""
    common = set.intersection(*map(set, words)) if len(words) > 1 else set()
    return [[word for word in own if word not in common] for own in words]


def jobs_in(folder: Path, tell: Callable[[str], None] | None = None) -> list[Job]:
    """Every job in a folder of runs: those that were launched, in that order, then other runs below it.

    What no run of ours would hold is passed over, and ``tell`` is given a line that names it.

    Raises:
        UserError: when there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}")
    tell = tell or (lambda _: None)
    words: dict[str, str] = {}
    outcomes: dict[str, Outcome | None] = {}
    for launch in sorted((folder / LAUNCHES).glob(f"*/{JOBS}")):
        try:
            asked = {
                job["run"]: " ".join(job["words"]) for job in json.loads(launch.read_text(encoding="utf-8"))
            }
            outcomes |= {run: read_outcome(launch.parent, number) for number, run in enumerate(asked)}
        except (OSError, ValueError, KeyError, TypeError) as error:
            tell(f"passed over {launch}, which lists no jobs ({type(error).__name__})")
            continue
        words = {**asked, **words}
    for config in sorted(folder.rglob(CONFIG)):
        if is_run(config.parent) and (config.parent / PROVENANCE).is_file():
            words.setdefault(os.path.relpath(config.parent, folder), "")
    if not words:
        raise UserError(f"no run in {folder} or below it")
    jobs = []
    for run, own in words.items():
        try:
            jobs.append(_job(folder, run, own, outcomes.get(run)))
        except UserError as error:
            tell(f"passed over {error}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            tell(f"passed over {folder / run}, whose tables are not those of a run ({type(error).__name__})")
    return jobs


def write_table(folder: Path) -> None:
    """Write ``jobs.csv``: one row for every job, as it stands now."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Job)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(job) for job in jobs_in(folder))
    write_atomically(folder / TABLE, text.getvalue())


def summary(jobs: Sequence[Job]) -> str:
    """``8 jobs: 3 finished, 2 running, 3 waiting; 45% done, about 12 min left``."""
    counts = [(state, sum(job.state == state for job in jobs)) for state in STATES]
    told = ", ".join(f"{count} {state}" for state, count in counts if count)
    left = seconds_left(jobs)
    rest = "" if left is None else f", about {duration(left)} left"
    done = sum(job.progress for job in jobs) / len(jobs)
    return f"{len(jobs)} jobs: {told}; {done:.0%} done{rest}"


def seconds_left(jobs: Sequence[Job]) -> float | None:
    """Seconds until those that run and those that wait are through, at the pace so far.

    As many go on side by side as run now. None where nothing runs, or there is no pace yet.
    """
    running = sum(job.state == "running" for job in jobs)
    done = sum(job.progress for job in jobs if job.state in ("finished", "running"))
    spent = sum(job.wall_s for job in jobs if job.state in ("finished", "running"))
    if not running or done <= 0 or spent <= 0:
        return None
    left = sum(1.0 - job.progress for job in jobs if job.state in ("running", "waiting"))
    return spent / done * left / running


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def table(jobs: Sequence[Job]) -> str:
    """The jobs for people: a line for each, the failed ones last, where they are seen."""
    rows = [("run", "state", "done", "env steps", "labels", "return", "time", "where, or what went wrong")]
    rows += [
        (
            job.run,
            job.state,
            f"{job.progress:.0%}",
            f"{job.env_steps:,}",
            f"{job.labels:,}",
            "" if job.last_return is None else f"{job.last_return:,.1f}",
            duration(job.wall_s),
            job.error or job.host,
        )
        for job in sorted(jobs, key=lambda job: STATES.index(job.state))
    ]
    return in_columns(rows, range(2, 7), columns())


def _job(folder: Path, run: str, words: str, outcome: Outcome | None) -> Job:
    path = folder / run
    status = _status(path)
    if not status:  # it has not begun; where it was refused, its last launch says so
        refused = outcome is not None and outcome.state in ("refused", "failed")
        state, error = ("failed", outcome.detail) if outcome is not None and refused else ("waiting", "")
        return Job(run, words, state, owner(path) or "", 0, 0, None, 0.0, 0.0, error)
    state, living = str(status.get("state")), owner(path)
    if state == "running" and living is None:
        state = "lost"
    last = _last_row(path / METRICS)
    env_steps = int(float(last.get("env_steps", status.get("env_steps", 0))))
    iteration = int(float(last.get("iteration", 0)))
    return Job(
        run=run,
        differs=words,
        state=state,
        host=living or str(status.get("host") or ""),
        env_steps=env_steps,
        labels=int(float(last.get("labels", status.get("labels", 0)))),
        last_return=_last_return(path / EVALUATIONS),
        wall_s=float(last.get("wall_s") or status.get("wall_s", 0.0)),
        progress=1.0 if state == "finished" else _progress(path, env_steps, iteration),
        error=str(status.get("error") or ""),
    )


def _status(path: Path) -> dict[str, Any]:
    """What ``status.json`` says; empty where there is none.

    Raises:
        UserError: when it says what no run does.
    """
    try:
        found = read_json(path / STATUS)
    except OSError:
        return {}
    if found.get("state") not in RUN_STATES:
        raise UserError(f"{path / STATUS}: its state is {found.get('state')!r}, which no run has")
    return found


def _progress(path: Path, env_steps: int, iteration: int) -> float:
    # By their lines: a table of a thousand runs is made each time that one of them ends.
    text = (path / CONFIG).read_text(encoding="utf-8")
    done = ((r"^env_steps: (\d+)$", env_steps), (r"^algo:\n(?:  .*\n)*?  iterations: (\d+)$", iteration))
    limits = [(re.search(pattern, text, re.MULTILINE), count) for pattern, count in done]
    return min(max((count / int(limit[1]) for limit, count in limits if limit), default=0.0), 1.0)


def _last_row(file: Path) -> dict[str, str]:
    """The last whole row of a table, by the names in its header; empty where there is none."""
    lines = _ends(file)
    if len(lines) < 2:
        return {}
    return dict(zip(*csv.reader([lines[0], lines[-1]]), strict=False))


def _last_return(file: Path) -> float | None:
    """Mean return of the episodes of the last evaluation."""
    lines = _ends(file)
    if len(lines) < 2:
        return None
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=False)) for line in lines[1:]]
    returns = [float(row["return"]) for row in rows if row["iteration"] == rows[-1]["iteration"]]
    return float(sum(returns) / len(returns))


def _ends(file: Path, size: int = 16_384) -> list[str]:
    """The header of a table and its last whole lines, without reading what is between."""
    try:
        with file.open("rb") as opened:
            header = opened.readline()
            start = max(len(header), opened.seek(0, os.SEEK_END) - size)
            opened.seek(start)
            rest = opened.read().decode(errors="replace")
    except OSError:
        return []
    lines = rest[: rest.rfind("\n") + 1].splitlines()
    return [header.decode().rstrip("\n"), *(lines[1:] if start > len(header) else lines)]


def watch(folder: Path, every: float) -> None:
    """Print where the jobs stand, again and again, until none runs or waits."""
    while True:
        jobs = jobs_in(folder)
        print(f"\n{time.strftime('%H:%M:%S')} {summary(jobs)}\n{table(jobs)}", flush=True)
        if not any(job.state == "running" for job in jobs):
            return
        time.sleep(every)


def as_json(jobs: Sequence[Job]) -> str:
    """The jobs as JSON, for programs."""
    rows: list[Mapping[str, Any]] = [asdict(job) for job in jobs]
    return json.dumps(rows, indent=2)
