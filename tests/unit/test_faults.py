"""What goes wrong around a run: one clear line, nothing lost, and the run goes on once it is put right."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from sailctl.algorithms.learner import Learner
from sailctl.cli.main import main
from sailctl.core.types import UserError
from sailctl.policies.policy import GaussianPolicy
from sailctl.runs.recorder import open_run, run_path
from sailctl.runs.results import METRICS, load_run
from sailctl.simulator.batched import TaskSimulator
from sailctl.simulator.states import Step
from sailctl.sweeps.compose import compose_jobs
from sailctl.training.train import train

SMALL = (
    "algo=sail_revkl_segments",
    "env=invertedpendulum-v5",
    "rollout.prompts=8",
    "rollout.segment_length=5",
    "rollout.label_horizon=5",
    "env_steps=1000000",
    "algo.iterations=40",
    "algo.epochs=1",
    "evaluation.every=100000000",
    "evaluation.episodes=1",
    "policy.hidden=[8]",
    "logger.wandb=disabled",
    "logger.progress=false",
    "logger.checkpoint=0",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run to which nothing happened."""
    (job,) = compose_jobs([*SMALL, f"out={tmp_path_factory.mktemp('whole')}"]).jobs
    return train(job.config, [])


def sailctl(out: Path, *words: str, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """``sailctl train`` in a process of its own, whose files may have ``limit`` bytes at most."""

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "sailctl", "train", *SMALL, f"out={out}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limited)


def assert_goes_on(out: Path, whole: Path) -> None:
    """Asked for again, the run ends where one ends to which nothing happened."""
    done = sailctl(out)
    assert (done.returncode, done.stderr) == (0, "")
    one, two = load_run(whole), load_run(Path(done.stdout.strip()))
    for name in one.metrics:
        if not name.endswith("_s"):
            np.testing.assert_array_equal(one.metrics[name], two.metrics[name])


def assert_one_line(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("sailctl: ")
    assert all(part in line for part in parts), line


@pytest.mark.parametrize("limit", [4000, 9000])
def test_files_that_may_not_grow(limit: int, whole: Path, tmp_path: Path):
    """4,000 bytes are enough for the record and for no checkpoint; 9,000 for both, for a while."""
    done = sailctl(tmp_path, limit=limit)
    assert_one_line(done, "File too large")
    (path,) = tmp_path.glob("*/*/*")
    record = load_run(path)
    assert record.state == "failed"
    assert not record.metrics.isna().all(axis=1).any()
    assert (path / METRICS).read_bytes().endswith(b"\n")
    assert_goes_on(tmp_path, whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk(small_disk: Path, whole: Path):
    done = sailctl(small_disk)
    assert_one_line(done, "No space left on device")
    (path,) = small_disk.glob("*/*/*")
    assert (path / METRICS).read_bytes().endswith(b"\n")
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    assert_goes_on(small_disk, whole)


def test_a_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    done = sailctl(tmp_path / "file" / "below")
    assert done.returncode == 2
    assert done.stderr.startswith("sailctl: cannot make ")
    assert len(done.stderr.splitlines()) == 1


def nan_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    true = torch.autograd.backward

    def backward(loss: torch.Tensor) -> None:
        true(loss * float("nan"))

    monkeypatch.setattr(torch.autograd, "backward", backward)


def nan_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    true = TaskSimulator.step

    def step(self: TaskSimulator, *arguments: object) -> Step:
        found = true(self, *arguments)  # type: ignore[arg-type]
        found.reward[0] = np.nan
        return found

    monkeypatch.setattr(TaskSimulator, "step", step)


def nan_observations(monkeypatch: pytest.MonkeyPatch) -> None:
    true = GaussianPolicy.act

    def act(self: GaussianPolicy, obs: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        if noise is not None:
            obs[0] = np.nan
        return true(self, obs, noise)

    monkeypatch.setattr(GaussianPolicy, "act", act)


def test_a_folder_of_somebody_else(tmp_path: Path):
    config = compose_jobs([*SMALL, f"out={tmp_path}"]).jobs[0].config
    run_path(config)  # reads its code, which not every user may
    tmp_path.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write anywhere, nobody may not
    try:
        with pytest.raises(UserError, match=f"cannot make {tmp_path}/.*: Permission denied"):
            open_run(config, [])
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o755)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [nan_gradients, nan_rewards, nan_observations])
def test_numbers_that_are_none(
    wrong: object, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = [*SMALL, f"out={tmp_path}"]
    true_update, updates = Learner.update, []

    with pytest.MonkeyPatch.context() as patch:

        def update(self: Learner, *arguments: object) -> dict[str, float]:
            updates.append(1)
            if len(updates) == 10:
                wrong(patch)  # type: ignore[operator]
            return true_update(self, *arguments)  # type: ignore[arg-type]

        patch.setattr(Learner, "update", update)
        assert main(["train", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "not finite" in line
    (path,) = tmp_path.glob("*/*/*")
    record = load_run(path)
    assert record.state == "failed"
    assert "not finite" in record.status["error"]
    assert record.metrics["iteration"].tolist() == list(range(1, len(record.metrics) + 1))
    assert_goes_on(tmp_path, whole)


def test_a_clock_that_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The time of day, back and forth by a year: no checkpoint, claim or column of seconds follows it."""
    jumps = iter([3e7, -3e7] * 100_000)
    monkeypatch.setattr("time.time", lambda: 1.7e9 + next(jumps))
    (job,) = compose_jobs([*SMALL, f"out={tmp_path}"]).jobs
    record = load_run(train(job.config, []))
    assert 0 < record.status["wall_s"] < 600
    assert (record.metrics["wall_s"].diff().dropna() >= 0).all()
