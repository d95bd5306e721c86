"""A table of the jobs of a sweep: every job ever launched in a folder, its state, and the time left.

The run directories are authoritative. The table ``jobs.csv`` is rewritten from them whenever a job ends. Jobs
without a run directory are known from ``.sweeps/<time>/jobs.json``, which each launch writes.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
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
"""Subfolder of a folder of runs, in which every launch records its jobs."""
JOBS = "jobs.json"
STATES = ("finished", "running", "waiting", "interrupted", "lost", "failed")
"""``lost``: the status is ``running``, but its process is dead; the same command resumes the run."""


@dataclass(frozen=True)
class Job:
    """The current state of one run of a sweep."""

    run: str
    """Its directory, relative to the folder of the sweep."""
    differs: str
    """The words that differ from the other jobs of its launch; empty if unknown."""
    state: str
    """One of ``STATES``."""
    host: str
    """Process and machine that work on the run, or the machine that last did."""
    env_steps: int
    labels: int
    last_return: float | None
    """Mean true return of its last evaluation."""
    wall_s: float
    progress: float
    """Completed share of its env steps or iterations, from 0 to 1."""
    error: str


def root_of(config: RunConfig) -> Path:
    """The folder of the sweep that a run belongs to."""
    return run_path(config).parents[2]


def record_launch(folder: Path, configs: Sequence[RunConfig], words: Sequence[Sequence[str]]) -> None:
    """Write the runs of a launch, and the words by which they differ, into its ``folder``."""
    jobs = [
        {"run": os.path.relpath(run_path(config), root_of(configs[0])), "words": distinct}
        for config, distinct in zip(configs, differing(words), strict=True)
    ]
    write_atomically(folder / JOBS, json.dumps(jobs, indent=1) + "\n")


def differing(words: Sequence[Sequence[str]]) -> list[list[str]]:
    """The words of each job without those common to all jobs; all words if there is only one job."""
    common = set.intersection(*map(set, words)) if len(words) > 1 else set()
    return [[word for word in job if word not in common] for job in words]


def jobs_in(folder: Path, tell: Callable[[str], None] | None = None) -> list[Job]:
    """Every job in a folder of runs: launched jobs in the order of their launch, then other runs below it.

    Invalid files are ignored; ``tell`` is called with a line about each.

    Raises:
        UserError: when the folder does not exist or contains no run.
    """
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}")
    tell = tell or (lambda _: None)
    words: dict[str, str] = {}
    outcomes: dict[str, Outcome | None] = {}
    for launch in sorted((folder / LAUNCHES).glob(f"*/{JOBS}")):
        try:
            launched = {
                job["run"]: " ".join(job["words"]) for job in json.loads(launch.read_text(encoding="utf-8"))
            }
            outcomes |= {run: read_outcome(launch.parent, number) for number, run in enumerate(launched)}
        except (OSError, ValueError, KeyError, TypeError) as error:
            tell(f"ignored {launch}, which lists no jobs ({type(error).__name__})")
            continue
        words = {**launched, **words}
    for config in sorted(folder.rglob(CONFIG)):
        if is_run(config.parent) and (config.parent / PROVENANCE).is_file():
            words.setdefault(os.path.relpath(config.parent, folder), "")
    if not words:
        raise UserError(f"no run in {folder} or below it")
    jobs = []
    for run, distinct in words.items():
        try:
            jobs.append(_job(folder, run, distinct, outcomes.get(run)))
        except UserError as error:
            tell(f"ignored {error}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            tell(f"ignored {folder / run}, whose tables are not valid ({type(error).__name__})")
    return jobs


def write_table(folder: Path) -> None:
    """Write ``jobs.csv`` with the current state of every job, one row per job."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Job)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(job) for job in jobs_in(folder))
    write_atomically(folder / TABLE, text.getvalue())


def summary(jobs: Sequence[Job]) -> str:
    """``8 jobs: 3 finished, 2 running, 3 waiting; 45% done, about 12 min left``."""
    counts = Counter(job.state for job in jobs)
    by_state = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    left = seconds_left(jobs)
    rest = "" if left is None else f", about {duration(left)} left"
    done = sum(job.progress for job in jobs) / len(jobs)
    return f"{len(jobs)} jobs: {by_state}; {done:.0%} done{rest}"


def seconds_left(jobs: Sequence[Job]) -> float | None:
    """Estimated seconds until all running and waiting jobs are finished, at the rate so far.

    The estimate assumes that as many jobs run in parallel as now. None if no job runs or has progressed.
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
    """The jobs as text, one line each; failed jobs are last, where a terminal shows them."""
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
    if not status:  # it has not started; a refusal is recorded in the outcome of its last launch
        refused = outcome is not None and outcome.state in ("refused", "failed")
        state, error = ("failed", outcome.detail) if outcome is not None and refused else ("waiting", "")
        return Job(run, words, state, owner(path) or "", 0, 0, None, 0.0, 0.0, error)
    state, process = str(status.get("state")), owner(path)
    if state == "running" and process is None:
        state = "lost"
    last = _last_row(path / METRICS)
    env_steps = int(float(last.get("env_steps", status.get("env_steps", 0))))
    iteration = int(float(last.get("iteration", 0)))
    return Job(
        run=run,
        differs=words,
        state=state,
        host=process or str(status.get("host") or ""),
        env_steps=env_steps,
        labels=int(float(last.get("labels", status.get("labels", 0)))),
        last_return=_last_return(path / EVALUATIONS),
        wall_s=float(last.get("wall_s") or status.get("wall_s", 0.0)),
        progress=1.0 if state == "finished" else _progress(path, env_steps, iteration),
        error=str(status.get("error") or ""),
    )


def _status(path: Path) -> dict[str, Any]:
    """The content of ``status.json``; empty if it does not exist.

    Raises:
        UserError: when it is not valid.
    """
    try:
        status = read_json(path / STATUS)
    except OSError:
        return {}
    if status.get("state") not in RUN_STATES:
        raise UserError(f"{path / STATUS}: unknown state {status.get('state')!r}")
    return status


def _progress(path: Path, env_steps: int, iteration: int) -> float:
    # Regular expressions, because parsing the YAML of a thousand runs whenever one ends takes too long.
    text = (path / CONFIG).read_text(encoding="utf-8")
    done = ((r"^env_steps: (\d+)$", env_steps), (r"^algo:\n(?:  .*\n)*?  iterations: (\d+)$", iteration))
    limits = [(re.search(pattern, text, re.MULTILINE), count) for pattern, count in done]
    return min(max((count / int(limit[1]) for limit, count in limits if limit), default=0.0), 1.0)


def _last_row(file: Path) -> dict[str, str]:
    """The last complete row of a table, by column name; empty if there is none."""
    lines = _ends(file)
    if len(lines) < 2:
        return {}
    return dict(zip(*csv.reader([lines[0], lines[-1]]), strict=False))


def _last_return(file: Path) -> float | None:
    """Mean return of the last evaluation; None if there is none."""
    lines = _ends(file)
    if len(lines) < 2:
        return None
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=False)) for line in lines[1:]]
    returns = [float(row["return"]) for row in rows if row["iteration"] == rows[-1]["iteration"]]
    return float(sum(returns) / len(returns))


def _ends(file: Path, size: int = 16_384) -> list[str]:
    """The header and the last complete lines of a table, from its last ``size`` bytes."""
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
    """Print the states of the jobs every ``every`` seconds, until none is running."""
    while True:
        jobs = jobs_in(folder)
        print(f"\n{time.strftime('%H:%M:%S')} {summary(jobs)}\n{table(jobs)}", flush=True)
        if not any(job.state == "running" for job in jobs):
            return
        time.sleep(every)


def as_json(jobs: Sequence[Job]) -> str:
    """The jobs as a JSON list."""
    return json.dumps([asdict(job) for job in jobs], indent=2)
