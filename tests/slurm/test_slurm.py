"""Sweeps on a real SLURM, of one node; ``make slurm`` starts it, runs these, and stops it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from sailctl.runs.recorder import run_path
from sailctl.runs.results import load_run
from sailctl.sweeps.compose import compose_jobs

pytestmark = pytest.mark.slurm

SMALL = (
    "rollout.prompts=8",
    "rollout.segment_length=5",
    "rollout.label_horizon=5",
    "evaluation.episodes=2",
    "policy.hidden=[8]",
    "logger.wandb=disabled",
)
SWEEP = (*SMALL, "algo=sail_segments,sail_revkl_segments", "seed=0,1", "env=swimmer-v5", "env_steps=3000")
LONG = (*SMALL, "env=hopper-v5", "algo=sail_revkl_segments", "env_steps=25000", "evaluation.every=5000")
"""Long enough to be stopped on its way."""
SLURM = "hydra/launcher=slurm"


@pytest.fixture(autouse=True)
def cluster() -> None:
    if shutil.which("sinfo") is None or subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.fail("there is no SLURM here: `make slurm` starts one", pytrace=False)


def sailctl(*words: str) -> list[str]:
    return [sys.executable, "-m", "sailctl", *words]


def train(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(sailctl("train", "-m", *words), capture_output=True, text=True, timeout=600)


def runs_in(out: Path) -> list[Path]:
    return sorted(path.parent for path in out.glob("*/*/*/status.json"))


def assert_same_numbers(one: Path, two: Path) -> None:
    """The runs in ``one`` are those in ``two``, bit for bit but for the seconds."""
    assert [path.relative_to(one) for path in runs_in(one)] == [
        path.relative_to(two) for path in runs_in(two)
    ]
    for first, second in zip(runs_in(one), runs_in(two), strict=True):
        tables = [load_run(path).metrics for path in (first, second)]
        timeless = [name for name in tables[0] if not name.endswith("_s")]
        pd.testing.assert_frame_equal(tables[0][timeless], tables[1][timeless], check_exact=True)
        for file in ("evaluations.csv", "policy/policy.safetensors"):
            assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_a_sweep_gives_the_numbers_of_joblib(tmp_path: Path) -> None:
    """And the same command again trains nothing."""
    slurm, joblib = tmp_path / "slurm", tmp_path / "joblib"
    done = train(*SWEEP, SLURM, f"out={slurm}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 jobs: 4 done (" in done.stdout
    assert train(*SWEEP, f"out={joblib}").returncode == 0
    assert len(runs_in(slurm)) == 4
    assert_same_numbers(joblib, slurm)
    (launch,) = (slurm / ".sweeps").iterdir()
    assert len(list((launch / ".submitit").glob("*/*_log.out"))) == 4

    files = [file for path in runs_in(slurm) for file in path.rglob("*")]
    before = {file: file.stat().st_mtime_ns for file in files}
    again = train(*SWEEP, SLURM, f"out={slurm}")
    assert again.returncode == 0
    assert "4 jobs: 4 done (" in again.stdout
    assert before == {file: file.stat().st_mtime_ns for file in files}


def test_a_failing_job_is_shown_and_the_others_go_on(tmp_path: Path) -> None:
    """The same command, once the reason is gone, runs what is missing."""
    words = (*SMALL, "algo=sail_revkl_segments", "env=swimmer-v5", "env_steps=2000", "logger.checkpoint=0")
    (job,) = compose_jobs([*words, "seed=1", f"out={tmp_path}"]).jobs
    fault = run_path(job.config) / "checkpoints"  # a file where the run wants a folder
    fault.parent.mkdir(parents=True)
    fault.touch()
    done = train(*words, "seed=0,1,2", SLURM, f"out={tmp_path}")
    assert done.returncode == 1
    assert "3 jobs: 2 done, 1 failed (" in done.stdout
    (line,) = done.stderr.splitlines()
    assert "seed=1" in line
    assert ": cannot save a checkpoint in " in line
    status = subprocess.run(sailctl("status", str(tmp_path)), capture_output=True, text=True)
    assert status.returncode == 1
    assert "cannot save a checkpoint in " in status.stdout
    fault.unlink()
    again = train(*words, "seed=0,1,2", SLURM, f"out={tmp_path}")
    assert (again.returncode, again.stderr) == (0, "")
    assert [load_run(path).state for path in runs_in(tmp_path)] == ["finished"] * 3


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    assert train(*LONG, f"out={out}").returncode == 0
    return out


def on_its_way(out: Path, rows: int) -> Path:
    """The run in ``out``, once its table has so many rows and a process works on it."""
    end = time.monotonic() + 180
    while time.monotonic() < end:
        for table in out.glob("*/*/*/metrics.csv"):
            if table.read_text().count("\n") > rows and list(table.parent.glob("claim.*")):
                return table.parent
        time.sleep(0.05)
    raise AssertionError("no run is on its way")


def job_of(out: Path) -> str:
    (log,) = out.glob(".sweeps/*/.submitit/*/*_submitted.pkl")
    return log.parent.name


@pytest.mark.parametrize(("number", "kind"), [("TERM", "kept"), ("USR2", "kept"), ("TERM", "fresh")])
def test_a_job_that_is_preempted_goes_on(number: str, kind: str, undisturbed: Path, tmp_path: Path) -> None:
    """By SIGTERM, or the signal before the time limit: it is queued again, and ends with the same numbers."""
    words = [*LONG, SLURM, f"out={tmp_path}", "logger.checkpoint=1000000"]
    words += ["logger.fresh=true"] if kind == "fresh" else []
    with subprocess.Popen(
        sailctl("train", "-m", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        run = on_its_way(tmp_path, 3)
        subprocess.run(["scancel", f"--signal={number}", job_of(tmp_path)], check=True)
        said = process.communicate(timeout=300)
    assert (process.returncode, said[1]) == (0, "")
    assert "1 jobs: 1 done (" in said[0]
    (again,) = json.loads((run / "provenance.json").read_text())["resumed"]
    assert 3 <= again["iteration"] < load_run(run).metrics["iteration"].iloc[-1]
    assert_same_numbers(undisturbed, tmp_path)


def test_a_job_that_is_cancelled_has_failed_and_does_not_come_back(tmp_path: Path) -> None:
    words = [*LONG, SLURM, f"out={tmp_path}", "env_steps=100000000"]
    with subprocess.Popen(
        sailctl("train", "-m", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        run = on_its_way(tmp_path, 3)
        job = job_of(tmp_path)
        subprocess.run(["scancel", job], check=True)
        said, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "1 jobs: 1 failed (" in said
    (line,) = errors.splitlines()
    assert f": job {job} ended (CANCELLED) before its run finished: see " in line
    assert load_run(run).state == "interrupted"
    assert list((run / "checkpoints").iterdir())
