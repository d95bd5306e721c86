"""Sweeps that add seeds until a sequential test has decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import sailctl.cli.until
from sailctl.analysis.evidence import Trial
from sailctl.cli.main import main
from sailctl.runs.recorder import run_path
from sailctl.runs.results import find_runs
from sailctl.sweeps.compose import Plan
from tests.trials import make_trial

TINY = [
    "algo=ppo",
    "algo.envs=2",
    "algo.steps=8",
    "algo.batch=16",
    "algo.epochs=1",
    "policy.hidden=[4]",
    "algo.lr=0.0003,0.001",
    "env=invertedpendulum-v5",
    "env_steps=16",
    "evaluation.episodes=1",
    "hydra/launcher=basic",
    "logger.wandb=disabled",
]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, str, int]]]:
    """Replaces training by runs of known returns; gives the (task, algorithm, seed) of all runs so far."""
    runs: dict[str, Trial] = {}
    heights: dict[str, float] = {}

    def launch(plan: Plan, _fail_fast: bool) -> int:
        for job in plan.jobs:
            task, name, seed = job.config.env.id, job.config.algo.name, job.config.seed
            place = str(run_path(job.config).resolve())
            height = heights[name] + 0.01 * seed + 0.001 * len(name)
            runs[place] = replace(
                make_trial([0.0, *3 * [1000 * height]], task=task, algorithm=name, seed=seed), place=place
            )
        return 0

    def load(places: Sequence[Path]) -> list[Trial]:
        return [runs[str(place.resolve())] for place in places]

    monkeypatch.setattr(sailctl.cli.until, "launch_sweep", launch)
    monkeypatch.setattr(sailctl.cli.until, "load_trials", load)

    def train(heights_of_arms: dict[str, float], *words: str) -> list[tuple[str, str, int]]:
        heights.update(heights_of_arms)
        assert main(["train", "-m", f"algo={','.join(heights)}", "until=decided", *words]) == 0
        return [(trial.task, trial.algorithm, trial.seed) for trial in runs.values()]

    return train


def test_an_arm_that_is_decided_gets_no_more_seeds(
    trained: Callable[..., list[tuple[str, str, int]]], capsys: pytest.CaptureFixture[str]
) -> None:
    heights = {"sail": 1.0, "sail_revkl": 2.0, "dpo_online": 1.0}
    runs = trained(heights, "env=hopper-v5", "--batch", "5", "--batches", "2")
    seeds = {name: [seed for _, algorithm, seed in runs if algorithm == name] for name in heights}
    assert seeds == {"sail": [*range(10)], "sail_revkl": [*range(5)], "dpo_online": [*range(10)]}
    told = capsys.readouterr().out
    assert "sail_revkl is better than sail: decided after 1 of 2 batches" in told
    assert "No difference shown between dpo_online and sail after 2 of 2 batches" in told
    assert told.endswith("25 runs, of 30 at most: 17% saved\n")


def test_the_sweep_stops_with_the_last_decision(
    trained: Callable[..., list[tuple[str, str, int]]], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = trained({"sail": 1.0, "sail_revkl": 2.0}, "env=hopper-v5,ant-v5", "--baseline", "sail_revkl")
    assert len(runs) == 2 * 2 * 5
    told = capsys.readouterr().out
    assert "sail is worse than sail_revkl: decided after 1 of 6 batches" in told
    assert told.endswith("20 runs, of 120 at most: 83% saved\n")


def test_runs_are_trained_and_an_interrupted_sweep_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "-m", *TINY, f"out={tmp_path}", "until=decided", "--batch", "2", "--batches", "2"]
    assert main([*command[:-1], "1"]) == 0
    assert {path.name[-2:] for path in find_runs(tmp_path)} == {"s0", "s1"}
    first = {path: (path / "metrics.csv").stat().st_mtime_ns for path in find_runs(tmp_path)}
    assert len(first) == 4
    capsys.readouterr()
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "undecided after 1 of 2 batches" in told
    assert told.endswith("8 runs, of 8 at most: 0% saved\n")
    assert len(find_runs(tmp_path)) == 8
    assert {path: (path / "metrics.csv").stat().st_mtime_ns for path in first} == first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("until=decided algo=sail,sail_revkl", "until=decided compares the arms of a sweep: add -m"),
        ("-m until=decided algo=sail,sail_revkl seed=0,1", "chooses the seeds itself: leave out seed="),
        ("-m until=decided algo=sail,sail_revkl --fresh", "cannot be combined with --fresh"),
        ("-m until=decided algo=sail,sail_revkl --batch 1", "--batch must be at least 2"),
        ("-m until=decided algo=sail env=hopper-v5,ant-v5", "at least two arms on each task, and hopper-v5"),
        ("-m until=decided algo=sail,sail_revkl env=pusher-v5,reacher-v5", "needs reference policies of"),
        ("-m until=decided algo=sail,sail_revkl --baseline dpo", "dpo"),
        (
            "-m until=decided algo=sail oracle.mistake=0,0.2",
            "until=decided: oracle.mistake differs (0.0, 0.2); name the compared settings with --by",
        ),
        ("-m algo=sail,sail_revkl --batch 5", "--batch belongs to until=decided"),
        ("-m algo=sail,sail_revkl --batches=2", "--batches belongs to until=decided"),
        ("-m until=tired algo=sail,sail_revkl", "until takes one value, decided; got 'until=tired'"),
    ],
)
def test_what_cannot_be_decided_is_refused_before_training(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
