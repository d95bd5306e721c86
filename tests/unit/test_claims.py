"""Claims: one owner at a time, however it ended, and whoever else wants the folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sailctl.core.types import RunError, UserError
from sailctl.runs import claims
from sailctl.runs.claims import Claim, owner, queued_job


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def claim_of(folder: Path, number: int, **about: object) -> Path:
    """A claim as another process would have left it."""
    path = folder / f"claim.{number}"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "began": "0", "place": "elsewhere", **about}))
    return path


def test_a_folder_has_one_owner(tmp_path: Path):
    claim = Claim(tmp_path)
    claim.check()
    assert owner(tmp_path) == f"process {os.getpid()} on {os.uname().nodename}"
    with pytest.raises(UserError, match=f"in use by process {os.getpid()} "):
        Claim(tmp_path)
    claim.release()
    assert owner(tmp_path) is None
    assert files(tmp_path) == []
    Claim(tmp_path).release()


def test_the_claim_of_a_killed_process_has_no_force(tmp_path: Path):
    code = (
        "import sys, time, pathlib; from sailctl.runs.claims import Claim; Claim(pathlib.Path(sys.argv[1])); "
        "print('claimed', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"claimed\n"
        assert owner(tmp_path) is not None
        with pytest.raises(UserError, match=f"by process {process.pid} "):
            Claim(tmp_path)
        process.kill()
    assert owner(tmp_path) is None
    claim = Claim(tmp_path)
    assert files(tmp_path) == ["claim.2"]
    claim.release()


def test_a_process_number_that_was_used_again_is_another_process(tmp_path: Path):
    claim_of(tmp_path, 1, pid=os.getpid(), place=claims._machine(), began="1")
    assert owner(tmp_path) is None


@pytest.mark.parametrize(("age", "alive"), [(0, True), (590, True), (700, False)])
def test_on_another_machine_the_age_of_the_claim_decides(tmp_path: Path, age: float, alive: bool):
    path = claim_of(tmp_path, 4)
    now = path.stat().st_mtime
    os.utime(path, (now - age, now - age))
    assert (owner(tmp_path) is not None) == alive
    if not alive:
        Claim(tmp_path).release()


def test_an_owner_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(claims, "RENEWED_S", 0.01)
    claim = Claim(tmp_path)
    os.utime(tmp_path / "claim.1", (0, 0))
    for _ in range(500):
        if (tmp_path / "claim.1").stat().st_mtime > 0:
            break
        threading.Event().wait(0.01)
    else:
        pytest.fail("it was not renewed")
    claim.release()


def test_an_owner_that_was_taken_for_gone_sees_it(tmp_path: Path):
    claim = Claim(tmp_path)
    claim_of(tmp_path, 2)
    with pytest.raises(RunError, match="has taken over"):
        claim.check()
    (tmp_path / "claim.2").unlink()
    claim.check()
    (tmp_path / "claim.1").unlink()
    with pytest.raises(RunError, match="has taken over"):
        claim.check()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}'])
def test_a_claim_that_cannot_be_read_has_no_force(tmp_path: Path, content: str):
    (tmp_path / "claim.7").write_text(content)
    Claim(tmp_path).release()


def test_of_many_that_want_a_folder_one_gets_it(tmp_path: Path):
    """Whether it is free, or a stale claim is to be taken over: never two owners at once."""
    for turn in range(30):
        folder = tmp_path / str(turn)
        folder.mkdir()
        if turn % 2:
            old = claim_of(folder, 3)
            os.utime(old, (0, 0))
        start = threading.Barrier(8)

        def attempt(_: int, folder: Path = folder, start: threading.Barrier = start) -> Claim | None:
            start.wait()
            try:
                return Claim(folder)
            except UserError:
                return None

        with ThreadPoolExecutor(8) as pool:
            found = [claim for claim in pool.map(attempt, range(8)) if claim is not None]
        assert len(found) == 1
        found[0].check()
        found[0].release()


def test_a_job_that_was_started_again_takes_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On whichever machine: SLURM starts a job again when its former process is gone."""
    for name, value in {"EXECUTOR": "slurm", "FOLDER": "runs/.sweeps/1/.submitit/12_0"}.items():
        monkeypatch.setenv(f"SUBMITIT_{name}", value)
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    claim_of(tmp_path, 1, job=queued_job(), start=2)
    with pytest.raises(UserError, match="in use by process 1 on elsewhere"):
        Claim(tmp_path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    Claim(tmp_path).release()
    claim_of(tmp_path, 1, job=queued_job(), start=2)
    monkeypatch.setenv("SUBMITIT_FOLDER", "runs/.sweeps/2/.submitit/12_0")
    with pytest.raises(UserError, match="in use by process 1 on elsewhere"):
        Claim(tmp_path)
