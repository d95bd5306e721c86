"""The benchmark of sweeps: its arithmetic, and that it measures what it says."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from benchmarks import sweeps
from benchmarks.sweeps import efficiency, identical, kept, main, runs_in

TINY = [
    "rollout.prompts=8",
    "rollout.segment_length=5",
    "rollout.label_horizon=5",
    "evaluation.episodes=1",
    "policy.hidden=[8]",
    "logger.wandb=disabled",
]


def test_efficiency_by_hand():
    assert efficiency([30.0, 30.0, 20.0, 20.0], used=2, wall=62.5) == pytest.approx(0.8)


def test_checkpoints_are_timed_and_the_run_is_as_it_was(tmp_path: Path):
    words = [*TINY, "algo=sail_segments", "env=hopper-v5", "logger.checkpoint=0"]
    true_keep = sweeps.Run.keep
    rows, cheap = kept("often", words, 4.0, tmp_path)
    assert sweeps.Run.keep is true_keep
    found = {str(row["what"]).partition(" kept")[0]: row["value"] for row in rows}
    assert int(str(found["checkpoints"])) > 1
    assert float(str(found["size of the last one"])) > 0
    assert cheap == (float(str(found["share of the run in checkpoints"])) < sweeps.CHECKPOINTS)


@pytest.mark.slow
def test_the_whole_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sweeps, "SEEDS", 1)
    monkeypatch.setattr(
        sweeps, "KEPT", {"often": ("algo=sail_segments", "env=hopper-v5", "logger.checkpoint=0")}
    )
    monkeypatch.chdir(tmp_path)
    asked = [
        "--env-steps",
        "2000",
        "--seconds",
        "4",
        "--repeats",
        "1",
        "--results",
        str(tmp_path / "results"),
    ]
    assert main([*asked, "--more", *TINY]) in (0, 1)  # nothing so short uses the cores well
    with (tmp_path / "results" / "sweeps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["what"] for row in rows if row["where"] == "joblib"][1] == "own time of its 4 runs"
    about = json.loads((tmp_path / "results" / "sweeps.json").read_text())
    assert about["seeds"] == [0]
    assert list((tmp_path / "runs" / "benchmarks").iterdir()) == []


def test_runs_that_differ_are_told(tmp_path: Path):
    for place, number in (("one", "1"), ("two", "1"), ("three", "2")):
        run = tmp_path / place / "task" / "sail" / "a-s0"
        (run / "policy").mkdir(parents=True)
        (run / "policy" / "policy.safetensors").write_text("weights")
        (run / "metrics.csv").write_text(f"iteration,loss,wall_s\n1,{number},{place}\n")
        (run / "evaluations.csv").write_text("return\n1\n")
    assert [path.name for path in runs_in(tmp_path / "one")] == ["a-s0"]
    assert identical(tmp_path / "one", tmp_path / "two") == 1
    assert identical(tmp_path / "one", tmp_path / "three") == 0
    assert identical(tmp_path / "one", tmp_path / "none") == 0
