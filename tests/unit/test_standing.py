"""Signals to a sweep: whichever process they reach, runs keep a checkpoint, and nothing goes on by itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sailctl.runs.claims import Claim
from sailctl.sweeps import standing
from sailctl.sweeps.listing import jobs_in
from sailctl.training.stopping import Interrupted, stoppable

WORDS = (
    "algo=sail_revkl_segments",
    "env=invertedpendulum-v5",
    "rollout.prompts=8",
    "rollout.segment_length=5",
    "rollout.label_horizon=5",
    "evaluation.episodes=1",
    "policy.hidden=[8]",
    "logger.wandb=disabled",
    "algo.iterations=1000000",
    "env_steps=1000000000",
    "hydra.launcher.n_jobs=2",
    "seed=0,1,2",
)


def until(true: Callable[[], object], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "too late"
        time.sleep(0.2)


def alive(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("number", "whom"),
    [
        (signal.SIGTERM, "parent"),
        pytest.param(signal.SIGINT, "group", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "group", marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, "parent", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, "parent", marks=pytest.mark.slow),
    ],
)
def test_a_sweep_that_is_stopped_keeps_its_runs_and_leaves_nothing_behind(
    number: signal.Signals, whom: str, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    with subprocess.Popen(
        [sys.executable, "-m", "sailctl", "train", "-m", *WORDS, f"out={runs}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        until(lambda: len([file for file in runs.rglob("metrics.csv") if file.stat().st_size > 500]) == 2)
        pids = [int(job.host.split()[1]) for job in jobs_in(runs) if job.state == "running"]
        (os.killpg if whom == "group" else os.kill)(process.pid, number)
        said, errors = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    until(lambda: not any(map(alive, pids)), 30.0)
    jobs = jobs_in(runs)
    assert [job.state for job in jobs] == ["interrupted", "interrupted", "waiting"]
    assert all(list((runs / job.run / "checkpoints").iterdir()) for job in jobs[:2])
    if number != signal.SIGKILL:
        assert "3 jobs: 2 interrupted, 1 skipped (" in said
        assert errors.splitlines()[-1] == f"sailctl: interrupted, stopped by {number.name}"


def test_a_job_stops_when_its_sweep_lets_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "LOOKED_AT_S", 0.01)
    claim = Claim(tmp_path)
    with standing.stopped_with(tmp_path), stoppable() as stop:
        assert standing.stands(tmp_path)
        claim.release()
        until(lambda: stop.signal is not None, 5.0)
    assert stop.signal == signal.SIGTERM
    with pytest.raises(Interrupted), standing.stopped_with(tmp_path):
        time.sleep(5.0)  # before its loop, or after it
    assert not standing.stands(tmp_path)


def leave_a_claim(folder: Path) -> None:
    Claim(folder)
    os._exit(0)


def work(folder: Path) -> None:
    with standing.stopped_with(folder), stoppable() as stop:
        until(lambda: stop.signal is not None, 10.0)
    time.sleep(30.0)


def test_the_process_of_a_sweep_that_was_killed_ends_by_itself(tmp_path: Path) -> None:
    for target in (leave_a_claim, work):
        process = multiprocessing.get_context("spawn").Process(target=target, args=(tmp_path,))
        process.start()
        process.join(25.0)
    assert process.exitcode == 128 + signal.SIGTERM


def test_the_command_lets_go_with_the_first_signal_and_ends_with_the_second(tmp_path: Path) -> None:
    with standing.standing(tmp_path) as sweep:
        assert standing.stands(tmp_path)
        signal.raise_signal(signal.SIGTERM)  # SIGHUP may be ignored by whoever started the tests
        assert sweep.signal == signal.SIGTERM
        assert not standing.stands(tmp_path)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
    assert not list(tmp_path.iterdir())
