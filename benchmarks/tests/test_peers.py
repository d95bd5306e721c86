"""The runner of ``benchmarks.peers``: its arithmetic by hand, its turns, and peers that do not work."""

from __future__ import annotations

import ast
import json
import math
import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from benchmarks.peers import __main__ as peers
from benchmarks.peers.__main__ import (
    CONTENDERS,
    HERE,
    LIMIT,
    REFERENCE,
    Contender,
    Measurement,
    PeerError,
    estimate,
    groups,
    make_environment,
    make_environments,
    measure,
    pinned,
    rotated,
    run_worker,
    summary,
    turn_rows,
)

WORKERS = sorted(HERE.glob("worker_*.py"))
BY_NAME = {contender.name: contender for contender in CONTENDERS}
RATE = "env_steps_per_s"


def measured(name: str, turn: int, rate: float, cores: int = 1, **more: float) -> Measurement:
    return Measurement(BY_NAME[name], cores, turn, {RATE: rate, **more}, {"package": "1.0"})


def failed(name: str, turn: int, failure: str, cores: int = 1) -> Measurement:
    return Measurement(BY_NAME[name], cores, turn, failure=failure)


def row_of(rows: list[dict], contender: str, quantity: str = RATE, cores: int = 1) -> dict:
    (row,) = (
        row
        for row in rows
        if (row["contender"], row["quantity"], row["cores"]) == (contender, quantity, cores)
    )
    return row


# Arithmetic


def test_ratios_are_taken_within_turns():
    """The machine is ten times slower in turn 1: rates spread widely, ratios do not."""
    rates = {LIMIT: [200, 20, 160], "sailctl": [100, 10, 100], "envpool": [50, 4, 60]}
    measurements = [measured(name, turn, rates[name][turn]) for turn in range(3) for name in rates]
    rows = summary(measurements, "Hopper-v5")
    row = row_of(rows, "envpool")
    assert row["median"] == 50
    assert row["of_reference"] == pytest.approx(0.5)  # of 0.5, 0.4, 0.6
    assert row["of_limit"] == pytest.approx(0.25)  # of 0.25, 0.2, 0.375
    assert row["of_reference_low"] < 0.5 < row["of_reference_high"]
    assert (row["turns"], row["failed"], row["task"], row["versions"]) == (3, 0, "Hopper-v5", "package=1.0")
    assert [row_of(rows, "sailctl")[f"of_reference{end}"] for end in ("", "_low", "_high")] == [1, 1, 1]
    assert row_of(rows, LIMIT)["of_reference"] == pytest.approx(2.0)  # of 2, 2, 1.6


def test_ratios_use_the_turns_that_both_measured():
    measurements = [measured("sailctl", 0, 100), measured("sailctl", 1, 200), failed("sailctl", 2, "no")]
    measurements += [failed("envpool", 0, "no"), measured("envpool", 1, 50), measured("envpool", 2, 999)]
    row = row_of(summary(measurements, "t"), "envpool")
    assert row["of_reference"] == 0.25
    assert (row["turns"], row["failed"], row["reason"]) == (2, 1, "no")


def test_numbers_of_cores_are_not_mixed():
    measurements = [measured("sailctl", 0, 100), measured("sailctl", 0, 300, cores=2)]
    measurements += [measured("envpool", 0, 50), measured("envpool", 0, 60, cores=2)]
    rows = summary(measurements, "t")
    assert row_of(rows, "envpool")["of_reference"] == 0.5
    assert row_of(rows, "envpool", cores=2)["of_reference"] == pytest.approx(0.2)


def test_only_rates_have_ratios():
    more = {"labels_per_s": 8.0, "true_return": -5.0}
    measurements = [measured("sail_revkl_segments", 0, 10, 2, **more), measured("imitation", 0, 5, 2, **more)]
    rows = summary(measurements, "t")
    assert row_of(rows, "imitation", "labels_per_s", 2)["of_reference"] == 1.0
    returned = row_of(rows, "imitation", "true_return", 2)
    assert returned["median"] == -5.0
    assert math.isnan(returned["of_reference"])
    assert math.isnan(row_of(rows, "imitation", RATE, 2)["of_limit"])


def test_without_the_reference_there_is_no_ratio():
    row = row_of(summary([measured("envpool", 0, 50)], "t"), "envpool")
    assert row["median"] == 50
    assert math.isnan(row["of_reference"])


def test_a_median_stands_beside_the_range_of_the_turns():
    assert estimate("x", [6.0, 1.0, 2.0]) == {"x": 2.0, "x_low": 1.0, "x_high": 6.0}
    alone = estimate("x", [3.0])
    assert alone["x"] == 3.0
    assert math.isnan(alone["x_low"])
    assert math.isnan(alone["x_high"])


# Peers that do not work


def test_a_contender_that_never_measured_has_one_row_that_says_why():
    measurements = [measured("sailctl", turn, 10) for turn in range(2)]
    measurements += [failed("envpool", turn, f"reason {turn}") for turn in range(2)]
    rows = summary(measurements, "t")
    row = row_of(rows, "envpool", "")
    assert math.isnan(row["median"])
    assert (row["turns"], row["failed"], row["reason"], row["versions"]) == (0, 2, "reason 1", "")
    assert [row["failure"] for row in turn_rows(measurements[-1], "t")] == ["reason 1"]


WORKER = """
import json, os, sys
print("chatter")
print(json.dumps({"cores": len(os.sched_getaffinity(0)), "threads": os.environ["OMP_NUM_THREADS"]}))
"""


def test_a_worker_runs_pinned_with_one_thread_and_its_last_line_counts():
    before = os.sched_getaffinity(0)
    assert run_worker([sys.executable, "-c", WORKER], 1) == {"cores": 1, "threads": "1"}
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("raise ValueError('no such task')", "exit code 1: ValueError: no such task"),
        ("import sys; sys.exit(3)", "exit code 3: no message"),
        ("print('hello')", "not JSON"),
        ("", "not JSON"),
        ("import time; time.sleep(60)", "not done after 0.5 s"),
    ],
)
def test_a_worker_that_fails_says_why(script: str, why: str):
    with pytest.raises(PeerError, match=why):
        run_worker([sys.executable, "-c", script], 1, timeout=0.5 if "sleep" in script else 60)


def test_more_cores_than_there_are_is_a_failure():
    with pytest.raises(PeerError, match="10000 cores wanted"), pinned(10_000):
        pass


def test_a_failure_is_a_measurement_without_values():
    contender = Contender("gone", "stepping", "worker_that_is_not_there", "envpool")
    found = measure(contender, 1, 4, sys.executable, {})
    assert found.values == {}
    assert "No such file" in found.failure
    found = measure(contender, 1, 4, PeerError("not installed: no network"), {})
    assert (found.turn, found.failure) == (4, "not installed: no network")


def test_an_environment_that_cannot_be_made_is_a_reason_and_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(folder: Path, requirements: Path) -> str:
        if requirements == HERE / "sb3.txt":
            raise PeerError("not installed: no space")
        return f"{folder}/bin/python"

    monkeypatch.setattr(peers, "make_environment", refuse)
    pythons = make_environments({None, "sb3", "envpool"}, tmp_path)
    assert pythons[None] == sys.executable
    assert pythons["envpool"] == f"{tmp_path}/envpool/bin/python"
    assert str(pythons["sb3"]) == "not installed: no space"


def test_an_environment_is_made_once_for_the_same_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ran: list[list[str]] = []
    errors = {"stderr": "", "returncode": 0}

    def pretend(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        (tmp_path / "env").mkdir(exist_ok=True)
        return subprocess.CompletedProcess(command, errors["returncode"], "", errors["stderr"])

    monkeypatch.setattr(subprocess, "run", pretend)
    asked = tmp_path / "asked.txt"
    asked.write_text("package==1\n")
    python = make_environment(tmp_path / "env", asked)
    assert python == str(tmp_path / "env" / "bin" / "python")
    assert [command[1:3] for command in ran] == [["-m", "venv"], ["-m", "pip"]]
    assert make_environment(tmp_path / "env", asked) == python
    assert len(ran) == 2
    asked.write_text("package==2\n")
    errors |= {
        "returncode": 1,
        "stderr": "Collecting\nERROR: No matching distribution\n[notice] upgrade pip\n",
    }
    with pytest.raises(PeerError, match="not installed: ERROR: No matching distribution"):
        make_environment(tmp_path / "env", asked)


# Turns


def test_in_every_turn_each_is_measured_once_and_each_is_first_once():
    group = list(CONTENDERS[:4])
    turns = [rotated(group, turn) for turn in range(4)]
    assert [turn[0] for turn in turns] == group
    assert all(sorted(c.name for c in turn) == sorted(c.name for c in group) for turn in turns)
    assert rotated([], 3) == []


def test_what_is_compared_is_measured_together():
    found = [(cores, [c.name for c in group]) for cores, group in groups(CONTENDERS, [1, 2])]
    assert [cores for cores, _ in found] == [1, 2, 2, 2]
    assert found[0][1] == found[1][1] == [c.name for c in CONTENDERS if c.comparison == "stepping"]
    assert sum(len(names) for _, names in found[1:]) == len(CONTENDERS)


# Contenders and workers


def test_contenders_have_their_files_and_each_comparison_its_reference():
    assert len(BY_NAME) == len(CONTENDERS)
    for contender in CONTENDERS:
        assert (HERE / f"{contender.worker}.py").is_file()
        assert contender.requirements is None or (HERE / f"{contender.requirements}.txt").is_file()
    assert {name: BY_NAME[name].comparison for name in REFERENCE.values()} == {
        name: comparison for comparison, name in REFERENCE.items()
    }
    assert {contender.comparison for contender in CONTENDERS} == set(REFERENCE)
    assert {contender.worker for contender in CONTENDERS} == {worker.stem for worker in WORKERS}


def test_ppo_is_the_same_for_all():
    settings = [c.settings for c in CONTENDERS if c.comparison == "ppo"]
    assert len({json.dumps([s["envs"], s["ppo"]]) for s in settings}) == 1


@pytest.mark.parametrize("path", sorted(HERE.glob("*.txt")), ids=lambda path: path.stem)
def test_requirements_are_pinned(path: Path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert all(line.count("==") == 1 for line in lines)


@pytest.mark.parametrize("worker", [w for w in WORKERS if w.stem != "worker_sailctl"], ids=lambda w: w.stem)
def test_workers_of_peers_know_the_standard_library_and_their_peer_alone(worker: Path):
    """They parse, and import nothing that their requirements file does not name (numpy comes with all)."""
    imported = set()
    for node in ast.walk(ast.parse(worker.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add((node.module or "").partition(".")[0])
    (requirements,) = {c.requirements for c in CONTENDERS if c.worker == worker.stem}
    asked = (HERE / f"{requirements}.txt").read_text()
    known = packages_distributions()
    for module in imported - sys.stdlib_module_names:
        names = {name.lower().replace("_", "-") for name in known.get(module, [module])}
        assert any(f"{name}==" in asked or f"{name}[" in asked for name in names), module
