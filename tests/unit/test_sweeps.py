"""A sweep's table: every job, where it stands, and what is left."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sailctl.cli.main import main
from sailctl.config import Config
from sailctl.core.types import RunError, UserError
from sailctl.runs.recorder import Run, open_run
from sailctl.runs.results import load_run
from sailctl.sweeps import listing as sweeps
from sailctl.sweeps.compose import as_sweeps, compose_jobs
from sailctl.sweeps.listing import (
    Job,
    duration,
    jobs_in,
    record_launch,
    root_of,
    seconds_left,
    summary,
    write_table,
)
from sailctl.sweeps.outcomes import Outcome, write_outcome

WORDS = ("algo=sail", "env=hopper-v5", "env_steps=1000", "logger.sweep=lengths")


def row(iteration: int, env_steps: int) -> dict[str, float]:
    place = {"iteration": iteration, "env_steps": env_steps, "labels": 4 * iteration}
    return {**place, "eval_return": math.nan, "wall_s": 0.5 * iteration}


def episode(iteration: int, score: float) -> dict[str, float]:
    place = {"iteration": iteration, "env_steps": 0, "labels": 0}
    return {**place, "episode": 0, "return": score, "length": 10}


@pytest.fixture
def configs(tmp_path: Path) -> list[Config]:
    (job,) = compose_jobs([*WORDS, f"out={tmp_path / 'runs'}"]).jobs
    return [replace(job.config, seed=seed) for seed in range(6)]


@pytest.fixture
def folder(configs: list[Config]) -> Path:
    """A sweep of which one job is in each state there is."""
    root = root_of(configs[0])
    launch = root / ".sweeps" / "20260101-000000"
    launch.mkdir(parents=True)
    record_launch(launch, configs, [[*WORDS, f"seed={config.seed}"] for config in configs])
    runs: list[Run] = []
    for config in configs[:5]:
        run = open_run(config, [])
        run.log(row(1, 300))
        run.evaluation([episode(1, 10.0)])
        run.log(row(2, 600))
        run.evaluation([episode(2, 20.0), episode(2, 30.0)])
        runs.append(run)
    running, finished, failed, interrupted, lost = runs
    del running
    finished.finish({})
    failed.fail(RunError("NaN in the loss"))
    interrupted.fail(KeyboardInterrupt())
    for claim in lost.path.glob("claim.*"):
        claim.unlink()
    return root


def test_every_job_is_listed_as_it_stands(folder: Path):
    jobs = jobs_in(folder)
    assert folder.name == "lengths"
    states = ["running", "finished", "failed", "interrupted", "lost", "waiting"]
    assert [job.state for job in jobs] == states
    assert set(states) == set(sweeps.STATES)
    assert [job.differs for job in jobs] == [f"seed={seed}" for seed in range(6)]
    assert all((folder / job.run).is_dir() for job in jobs[:5])
    assert [job.progress for job in jobs] == [0.6, 1.0, 0.6, 0.6, 0.6, 0.0]
    assert [job.env_steps for job in jobs] == [600] * 5 + [0]
    assert [job.labels for job in jobs] == [8] * 5 + [0]
    assert [job.last_return for job in jobs] == [25.0] * 5 + [None]
    assert [job.error for job in jobs] == ["", "", "NaN in the loss", "", "", ""]
    assert jobs[0].host.startswith("process ")
    assert jobs[1].host


def test_runs_that_nobody_recorded_are_listed_too(folder: Path, configs: list[Config]):
    other = open_run(replace(configs[0], seed=77), [])
    other.finish({})
    assert [(job.run, job.differs) for job in jobs_in(folder)][-1] == (
        str(other.path.relative_to(folder)),
        "",
    )


def test_files_of_others_are_no_runs_and_odd_ones_are_named(folder: Path, capsys: pytest.CaptureFixture[str]):
    before = jobs_in(folder)
    for place in (".hydra", "notes/old"):
        (folder / place).mkdir(parents=True)
        (folder / place / "config.yaml").write_text("seed: 1\n")
    assert jobs_in(folder) == before
    for number, text in enumerate(['{"state": "paused"}', "[]", "no JSON"]):
        (folder / before[number].run / "status.json").write_text(text)
    (folder / before[3].run / "metrics.csv").write_text("env_steps\nmany\n")
    (folder / ".sweeps" / "20250101-000000").mkdir()
    (folder / ".sweeps" / "20250101-000000" / "jobs.json").write_text("{")
    assert main(["status", str(folder)]) == 1  # one is lost
    told = capsys.readouterr()
    assert told.out.startswith("2 jobs: 1 waiting, 1 lost")
    named = ["20250101-000000/jobs.json", *(f"{before[number].run}" for number in range(4))]
    assert len(told.err.splitlines()) == 5
    for line, name in zip(told.err.splitlines(), named, strict=True):
        assert line.startswith("sailctl: warning: ignored ")
        assert name in line
    write_table(folder)  # the table is made all the same


def test_a_job_that_was_refused_before_it_began_waits_no_more(folder: Path):
    (launch,) = (folder / ".sweeps").iterdir()
    write_outcome(launch, 5, [], Outcome("refused", "its step fails"))
    assert [(job.state, job.error) for job in jobs_in(folder)][-1] == ("failed", "its step fails")
    write_outcome(launch, 5, [], Outcome("skipped", "the sweep was stopped before"))
    assert jobs_in(folder)[-1].state == "waiting"


def test_the_table_is_the_same_as_a_file(folder: Path):
    write_table(folder)
    with (folder / "jobs.csv").open() as file:
        rows = list(csv.DictReader(file))
    jobs = jobs_in(folder)
    assert [(r["run"], r["state"], float(r["progress"]), r["error"]) for r in rows] == [
        (job.run, job.state, job.progress, job.error) for job in jobs
    ]


def job(state: str, progress: float, wall_s: float) -> Job:
    return Job("run", "", state, "", 0, 0, None, wall_s, progress, "")


def test_what_is_left_goes_on_at_the_pace_so_far():
    jobs = [job("finished", 1.0, 100.0), job("running", 0.5, 50.0), job("running", 0.25, 25.0)]
    assert seconds_left(jobs) == pytest.approx(100 * 1.25 / 2)
    assert seconds_left([*jobs, job("waiting", 0.0, 0.0)]) == pytest.approx(100 * 2.25 / 2)
    assert seconds_left([*jobs, job("failed", 0.1, 900.0)]) == pytest.approx(100 * 1.25 / 2)
    assert seconds_left([job("finished", 1.0, 100.0)]) is None
    assert seconds_left([job("running", 0.0, 3.0)]) is None
    assert summary(jobs) == "3 jobs: 1 finished, 2 running; 58% done, about 1 min left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3599, "1 h 0 min"), (12_000, "3 h 20 min")],
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text


def test_a_row_that_is_being_written_is_not_read(folder: Path):
    (path,) = [folder / job.run for job in jobs_in(folder) if job.state == "running"]
    for name in ("metrics.csv", "evaluations.csv"):
        with (path / name).open("a") as file:
            file.write("3,9")
    (found,) = [job for job in jobs_in(folder) if job.state == "running"]
    assert (found.env_steps, found.last_return) == (600, 25.0)


def test_a_long_table_is_read_at_its_ends(folder: Path, configs: list[Config]):
    run = open_run(replace(configs[0], seed=50), [])
    for iteration in range(1, 3000):
        run.log(row(iteration, iteration))
    run.finish({})
    found = next(job for job in jobs_in(folder) if job.run.endswith("-s50"))
    assert (found.env_steps, found.labels) == (2999, 4 * 2999)


def test_status_says_it(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["status", str(folder)]) == 1  # one failed
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith(
        "6 jobs: 1 finished, 1 running, 1 waiting, 1 interrupted, 1 lost, 1 failed; 57% done, about "
    )
    assert told[1].split()[:3] == ["run", "state", "done"]
    assert told[-1].endswith("NaN in the loss")
    assert main(["status", str(folder), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)) == 6


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nowhere"], "no such folder: nowhere"),
        (["."], "no run in . or below it"),
        (["--watch", "0"], "--watch must be from 0.1 to 86400 seconds, got 0"),
        (["--watch", "nan"], "--watch must be from 0.1 to 86400 seconds, got nan"),
        (["--watch", "1", "--json"], "--watch and --json cannot be combined"),
    ],
)
def test_status_of_nothing(
    words: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    assert main(["status", *words]) == 2
    assert capsys.readouterr().err == f"sailctl: {line}\n"


def test_watching_ends_with_the_last_run(folder: Path, capsys: pytest.CaptureFixture[str]):
    for claim in folder.rglob("claim.*"):
        claim.unlink()
    sweeps.watch(folder, 60.0)
    assert "2 lost" in capsys.readouterr().out


def test_a_folder_that_is_none(tmp_path: Path):
    with pytest.raises(UserError, match="no such folder"):
        jobs_in(tmp_path / "none")


def test_two_processes_share_a_sweep(tmp_path: Path):
    """Neither trains what the other one trains, and both end well."""
    words = [
        "algo=sail_revkl_segments",
        "env=invertedpendulum-v5",
        "rollout.prompts=8",
        "rollout.segment_length=5",
        "rollout.label_horizon=5",
    ]
    words += ["algo.iterations=20", "evaluation.episodes=1", "policy.hidden=[8]", "logger.wandb=disabled"]
    words += ["seed=0,1,2,3", "hydra/launcher=basic", "logger.sweep=shared", f"out={tmp_path}"]
    command = [sys.executable, "-m", "sailctl", "train", "-m", *words]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "12"
    ]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    jobs = jobs_in(tmp_path / "shared")
    assert [job.state for job in jobs] == ["finished"] * 4
    for job in jobs:
        path = tmp_path / "shared" / job.run
        made = json.loads((path / "provenance.json").read_text())
        assert "resumed" not in made
        assert load_run(path).metrics["iteration"].tolist() == list(range(1, 21))
        assert not list(path.glob("*.1"))
        assert not list(path.glob("claim.*"))
    with (tmp_path / "shared" / "jobs.csv").open() as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["finished"] * 4
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "4 jobs: 4 done (" in again.stdout


def test_jobs_are_one_sweep_if_they_are_all_combinations_of_their_values():
    jobs = [[f"env={env}", f"algo.beta={beta}", "algo.hidden=[64,64]"] for env in "ab" for beta in (1, 2)]
    assert as_sweeps(jobs) == [["env=a,b", "algo.beta=1,2", "algo.hidden=[64,64]"]]
    assert as_sweeps(jobs[:1]) == jobs[:1]
    assert as_sweeps(jobs[:3]) == jobs[:3]
