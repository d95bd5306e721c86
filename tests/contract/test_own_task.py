"""The page about one's own task, followed to the letter by a stranger in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sailctl.runs.results import find_runs, load_run

PAGE = Path(__file__).parents[2] / "docs" / "own_task.md"


@pytest.mark.slow
def test_a_stranger_follows_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    files = re.findall(r"Save as `([\w.]+)`:\n\n```python\n(.*?)```", page, re.DOTALL)
    assert [name for name, _ in files] == ["crane.py", "start.py"]
    for name, content in files:
        (tmp_path / name).write_text(content, encoding="utf-8")
    consoles = "".join(re.findall(r"```console\n(.*?)```", page, re.DOTALL))
    commands = [line.removeprefix("$ ") for line in consoles.splitlines() if " -m " not in line]
    assert len(commands) == 6
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "PYTHONPATH": ".", "WANDB_MODE": "disabled"}
    started = time.monotonic()
    for command in commands:
        begun = time.monotonic()
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        with capsys.disabled():
            print(f"{time.monotonic() - begun:6.1f} s  {command[:90]}")
    with capsys.disabled():
        print(f"{time.monotonic() - started:6.1f} s  in all")
    assert (tmp_path / "crane.mp4").stat().st_size > 10_000
    assert "learning_curves" in (tmp_path / "report.html").read_text(encoding="utf-8")
    (run,) = (load_run(folder) for folder in find_runs(tmp_path / "runs"))
    means = run.evaluations.groupby("iteration")["return"].mean()
    assert means.iloc[-1] > means.iloc[0] + 20
    assert time.monotonic() - started < 600
