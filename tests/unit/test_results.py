"""The run record: written once, never overwritten, read back bit for bit."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sailctl import __version__
from sailctl.config import Config, recorded, run_id
from sailctl.core.types import RunError, UserError
from sailctl.runs import provenance, recorder, results
from sailctl.runs.claims import owner
from sailctl.runs.recorder import CsvWriter, Run, open_run
from sailctl.runs.results import find_runs, load_run
from sailctl.sweeps.compose import compose_jobs

ROW = {"iteration": 1, "env_steps": 6400, "labels": 64, "loss": 0.1, "eval_return": math.nan}
EPISODE = {"env_steps": 6400, "labels": 64, "iteration": 1, "episode": 0, "return": -1.5, "length": 1000}


@pytest.fixture(scope="module")
def shipped() -> Config:
    return compose_jobs(["env=hopper-v5", "algo=sail"]).jobs[0].config


@pytest.fixture
def config(shipped: Config, tmp_path: Path) -> Config:
    return replace(shipped, seed=3, out=str(tmp_path / "runs"))


def fresh(config: Config) -> Config:
    return replace(config, logger=replace(config.logger, fresh=True))


def test_a_run_directory_has_its_place_and_its_files(config: Config):
    run = open_run(config, ["sailctl", "train", "seed=3"])
    assert run.path == Path(config.out) / "hopper-v5" / "sail" / f"{run_id(config)}-s3"
    assert yaml.safe_load((run.path / "config.yaml").read_text()) == recorded(config)
    made = json.loads((run.path / "provenance.json").read_text())
    assert made["sailctl"] == __version__
    assert made["command"] == ["sailctl", "train", "seed=3"]
    assert made["packages"]["numpy"] == np.__version__
    assert made["packages"]["pandas"] == pd.__version__
    assert made["cores"] == os.cpu_count()
    assert made["cpu"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", made["started"])
    assert os.uname().nodename not in json.dumps({**made, "command": None})
    record = load_run(run.path)
    assert (record.state, record.task, record.algorithm, record.seed) == ("running", "hopper-v5", "sail", 3)
    assert len(record.metrics) == len(record.evaluations) == 0
    assert list(record.evaluations.columns) == list(results.EVALUATION_COLUMNS)


def test_a_run_that_is_being_worked_on_is_left_alone(config: Config):
    run = open_run(config, [])
    run.log(ROW)
    before = {file.name: file.read_bytes() for file in run.path.iterdir()}
    with pytest.raises(UserError, match=f"^{re.escape(str(run.path))} is in use by process "):
        open_run(config, [])
    assert {file.name: file.read_bytes() for file in run.path.iterdir()} == before
    open_run(replace(config, seed=4), []).fail(KeyboardInterrupt())


def test_a_finished_run_is_left_alone(config: Config):
    run = open_run(config, [])
    run.log(ROW)
    assert recorder.finished_run(config) is None
    run.finish({})
    assert recorder.finished_run(config) == run.path
    before = {file.name: file.read_bytes() for file in run.path.iterdir()}
    with pytest.raises(UserError, match="has just been finished by another process"):
        open_run(config, [])
    assert {file.name: file.read_bytes() for file in run.path.iterdir()} == before


def test_a_fresh_run_is_a_new_one(config: Config):
    paths = []
    for _ in range(3):
        run = open_run(fresh(config), [])
        run.finish({})
        paths.append(run.path)
    assert [path.name for path in paths] == [f"{run_id(config)}-s3{end}" for end in ("", ".2", ".3")]
    assert recorder.finished_run(fresh(config)) is None
    assert recorder.finished_run(config) == paths[0]


def test_a_fresh_run_of_a_job_that_is_started_again_is_the_one_it_made(
    config: Config, monkeypatch: pytest.MonkeyPatch
):
    open_run(config, []).finish({})
    monkeypatch.setenv("SUBMITIT_FOLDER", "runs/.sweeps/1/.submitit/12_0")
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "12")
    first = open_run(fresh(config), [])
    first.fail(KeyboardInterrupt())
    assert first.path.name.endswith("-s3.2")
    again = open_run(fresh(config), [])
    again.fail(KeyboardInterrupt())
    assert again.path == first.path
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "13")
    assert open_run(fresh(config), []).path.name.endswith("-s3.3")


def test_without_a_checkpoint_a_run_begins_anew_and_loses_nothing(config: Config):
    for turn in range(3):
        run = open_run(config, [f"turn {turn}"])
        assert run.checkpoint is None
        run.log({**ROW, "loss": turn})
        run.fail(RunError("NaN in the loss"))
    assert [pd.read_csv(run.path / name)["loss"].item() for name in ("metrics.csv.1", "metrics.csv.2")] == [
        0,
        1,
    ]
    made = [json.loads((run.path / f"provenance.json.{number}").read_text()) for number in (1, 2)]
    assert [about["command"] for about in made] == [["turn 0"], ["turn 1"]]
    record = load_run(run.path)
    assert record.metrics["loss"].tolist() == [2]
    assert record.provenance["command"] == ["turn 2"]


def test_a_run_goes_on_from_its_checkpoint(config: Config):
    run = open_run(config, ["first"])
    run.log(ROW)
    run.evaluation([EPISODE])
    run.keep({"iteration": 1, "what": np.arange(3)})
    kept = {name: (run.path / name).read_bytes() for name in ("metrics.csv", "evaluations.csv")}
    run.log({**ROW, "iteration": 2, "env_steps": 12800})
    run.evaluation([{**EPISODE, "iteration": 2}])
    run.fail(KeyboardInterrupt())

    again = open_run(config, ["second"])
    assert again.checkpoint is not None
    assert again.checkpoint["iteration"] == 1
    np.testing.assert_array_equal(again.checkpoint["what"], np.arange(3))
    assert {name: (run.path / name).read_bytes() for name in kept} == kept
    record = load_run(run.path)
    assert (record.state, record.status["env_steps"]) == ("running", 6400)
    assert record.provenance["command"] == ["first"]
    assert [(one["command"], one["iteration"]) for one in record.provenance["resumed"]] == [(["second"], 1)]
    again.log({**ROW, "iteration": 2, "env_steps": 12800})
    again.finish({})
    assert load_run(run.path).metrics["iteration"].tolist() == [1, 2]
    assert not (run.path / "checkpoints").exists()


def test_a_run_goes_on_under_other_versions_only_where_that_is_asked_for(config: Config):
    run = open_run(config, ["first"])
    run.log(ROW)
    run.keep({"iteration": 1})
    run.fail(KeyboardInterrupt())
    about = json.loads((run.path / "provenance.json").read_text())
    about["packages"]["torch"] = "0.1"
    (run.path / "provenance.json").write_text(json.dumps(about))
    with pytest.raises(
        UserError, match=r"was started with torch 0\.1 \(now .*logger\.any_version=true"
    ) as refused:
        open_run(config, ["second"])
    assert "mujoco" not in str(refused.value)
    again = open_run(replace(config, logger=replace(config.logger, any_version=True)), ["third"])
    assert again.checkpoint is not None


@pytest.mark.parametrize(
    ("every", "cost", "ago", "due"),
    [(60, 0, 59, False), (60, 0, 61, True), (60, 1, 61, False), (60, 1, 101, True), (0, 1, 0, True)],
)
def test_checkpoints_that_take_long_come_less_often(
    config: Config, every: float, cost: float, ago: float, due: bool
):
    run = open_run(config, [])
    run._save_s, run._saved_at = cost, run._saved_at - ago
    assert run.checkpoint_due(every) == due
    run.fail(KeyboardInterrupt())


def test_a_checkpoint_of_another_run_is_refused(config: Config):
    run, other = open_run(config, []), open_run(replace(config, seed=4), [])
    for one in (run, other):
        one.log(ROW)
        one.keep({"iteration": 1})
        one.fail(KeyboardInterrupt())
    (file,) = (other.path / "checkpoints").iterdir()
    (run.path / "checkpoints" / "000000009.safetensors").write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=f"belongs to another run, {other.path.name}: remove it"):
        open_run(config, [])


def test_rows_that_are_missing_are_told(config: Config):
    run = open_run(config, [])
    run.log(ROW)
    run.keep({"iteration": 1})
    run.fail(KeyboardInterrupt())
    os.truncate(run.path / "metrics.csv", 20)
    with pytest.raises(RunError, match=r"metrics.csv has lost rows: 0 lines, \d+ at the last checkpoint"):
        open_run(config, [])
    assert owner(run.path) is None


def test_a_file_in_the_way_is_named(config: Config, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot make .*file"):
        open_run(replace(config, out=str(tmp_path / "file")), [])
    with pytest.raises(UserError, match=r"cannot make .*file"):
        open_run(replace(config, out=str(tmp_path / "file" / "below")), [])


def test_finish_keeps_the_summary_and_the_last_place(config: Config):
    run = open_run(config, [])
    run.log(ROW)
    run.log({**ROW, "iteration": 2, "env_steps": 12800, "labels": 128, "eval_return": 7.25})
    run.evaluation([EPISODE, {**EPISODE, "episode": 1, "return": 3.5}])
    run.finish({"final_return": np.float32(0.5), "episodes": np.int64(2), "worst": math.nan})
    record = load_run(run.path)
    wall = record.status.pop("wall_s")
    assert record.status.pop("host") == os.uname().nodename
    assert record.status == {
        "state": "finished",
        "error": None,
        "env_steps": 12800,
        "labels": 128,
        "final_return": 0.5,
        "episodes": 2,
        "worst": None,
    }
    assert 0 <= wall < 60
    assert record.metrics["eval_return"].isna().tolist() == [True, False]
    assert record.metrics["env_steps"].tolist() == [6400, 12800]
    assert record.evaluations["return"].tolist() == [-1.5, 3.5]
    assert sorted(file.name for file in run.path.iterdir()) == [
        "config.yaml",
        "evaluations.csv",
        "metrics.csv",
        "provenance.json",
        "status.json",
    ]


@pytest.mark.parametrize(
    ("error", "state", "text"),
    [
        (RunError("NaN in the loss"), "failed", "NaN in the loss"),
        (UserError("no such policy"), "failed", "no such policy"),
        (ZeroDivisionError("division by zero"), "failed", "ZeroDivisionError: division by zero"),
        (KeyboardInterrupt(), "interrupted", None),
    ],
)
def test_fail_says_why(config: Config, error: BaseException, state: str, text: str | None):
    run = open_run(config, [])
    run.log(ROW)
    run.fail(error)
    status = load_run(run.path).status
    assert (status["state"], status["error"], status["env_steps"], status["labels"]) == (
        state,
        text,
        6400,
        64,
    )


numbers = st.floats(allow_nan=True) | st.integers(-(2**53), 2**53)


@given(rows=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5))
def test_numbers_read_back_bit_for_bit(
    rows: list[tuple[float, float]], tmp_path_factory: pytest.TempPathFactory
):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    writer = CsvWriter(path)
    for x, y in rows:
        writer.append({"x": x, "y": y, "n": 1})
    table = pd.read_csv(path)
    for column, values in zip(("x", "y"), zip(*rows, strict=True), strict=True):
        np.testing.assert_array_equal(
            table[column].to_numpy(np.float64), np.array(values, dtype=np.float64), strict=True
        )
    writer.close()


def test_cells_of_a_csv(tmp_path: Path):
    writer = CsvWriter(tmp_path / "t.csv", ("a", "b", "c", "d", "e"))
    writer.append({"e": True, "b": np.int64(5), "c": np.float32(0.1), "d": math.nan, "a": np.float64(1e-300)})
    writer.append({"a": -math.inf, "b": 0, "c": np.float64(1.0), "d": 0.0, "e": False})
    text = (tmp_path / "t.csv").read_text()  # before the file is closed: each row is flushed
    assert text == "a,b,c,d,e\n1e-300,5,0.10000000149011612,,1\n-inf,0,1.0,0.0,0\n"
    writer.close()
    table = pd.read_csv(tmp_path / "t.csv")
    assert table.dtypes.astype(str).to_dict() == {
        "a": "float64",
        "b": "int64",
        "c": "float64",
        "d": "float64",
        "e": "int64",
    }


def test_the_header_is_fixed_by_the_first_row(tmp_path: Path):
    writer = CsvWriter(tmp_path / "t.csv")
    writer.append({"a": 1, "b": 2.0})
    with pytest.raises(ValueError, match=r"t.csv: row lacks \['b'\] and has unknown \['c'\]"):
        writer.append({"a": 1, "c": 2.0})
    with pytest.raises(ValueError, match=r"lacks \[\] and has unknown \['c'\]"):
        writer.append({"a": 1, "b": 2.0, "c": 2.0})
    writer.append({"b": 3.0, "a": 4})
    writer.close()
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,2.0\n4,3.0\n"
    with pytest.raises(FileExistsError):
        CsvWriter(tmp_path / "t.csv")


def test_a_row_of_metrics_has_a_place(config: Config):
    run = open_run(config, [])
    with pytest.raises(ValueError, match=r"row lacks \['labels'\]"):
        run.log({"iteration": 1, "env_steps": 5, "loss": 1.0})
    with pytest.raises(ValueError, match=r"evaluations\.csv"):
        run.evaluation([{"episode": 1, "return": 2.0}])


def finished_run(config: Config, seed: int = 0) -> Path:
    run: Run = open_run(replace(config, seed=seed), [])
    run.log(ROW)
    run.evaluation([EPISODE])
    run.finish({})
    return run.path


def test_what_is_not_a_run_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="no such run"):
        load_run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"is not a run: it has no config.yaml"):
        load_run(tmp_path / "empty")


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("config.yaml", "a: [", "is not YAML"),
        ("config.yaml", "a: 1", "not a run of this version"),
        ("config.yaml", "- 1", "not a run of this version"),
        ("status.json", "{", "is not JSON"),
        ("status.json", "[]", "does not hold a JSON object"),
        ("status.json", '{"state": "resting"}', "not a run of this version: state 'resting'"),
        ("status.json", "{}", "not a run of this version"),
    ],
)
def test_damaged_files_are_named(config: Config, file: str, text: str, complaint: str):
    path = finished_run(config)
    (path / file).write_text(text)
    with pytest.raises(UserError, match=complaint) as caught:
        load_run(path)
    assert "\n" not in str(caught.value)


def test_damaged_tables_are_named(config: Config):
    path = finished_run(config)
    (path / "metrics.csv").write_text("iteration,labels\n1,2\n")
    (path / "evaluations.csv").write_text('a,b\n"1')
    record = load_run(path)
    with pytest.raises(UserError, match=r"metrics\.csv has no column env_steps"):
        _ = record.metrics
    with pytest.raises(UserError, match=r"cannot read .*evaluations.csv"):
        _ = record.evaluations


def test_runs_are_found_below_a_folder(config: Config, tmp_path: Path):
    paths = [finished_run(config, seed) for seed in (0, 1)]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("")
    assert find_runs(tmp_path) == paths
    assert find_runs(paths[0]) == [paths[0]]
    with pytest.raises(UserError, match="no run in"):
        find_runs(tmp_path / "other")
    with pytest.raises(UserError, match="no such folder"):
        find_runs(tmp_path / "nowhere")


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "status.json"
    recorder.write_json(file, {"state": "running"})

    def disk_full(descriptor: int) -> None:
        raise OSError(28, f"No space left on device ({descriptor})")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        recorder.write_json(file, {"state": "finished"})
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
    assert json.loads(file.read_text()) == {"state": "running"}


def test_the_commit_of_a_checkout_is_recorded(tmp_path: Path):
    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert provenance._git_state(tmp_path) is None
    git("init")
    assert provenance._git_state(tmp_path) is None  # no commit yet
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "one")
    assert provenance._git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "file").write_text("2")
    assert provenance._git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": True}


def a_checkout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of git that takes itself for the code's, and for one that belongs to somebody else."""
    who = ["-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "begin"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    monkeypatch.setattr(provenance, "PACKAGE", folder / "sailctl")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    return folder


def test_the_commit_of_somebody_elses_checkout_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    a_checkout(tmp_path, monkeypatch)
    git = provenance.provenance([])["git"]
    assert isinstance(git, dict)
    assert re.fullmatch("[0-9a-f]{40}", git["commit"])
    assert git["dirty"] is False


def test_a_commit_that_is_not_known_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (a_checkout(tmp_path, monkeypatch) / ".git" / "HEAD").write_text("nonsense")
    assert provenance.provenance([])["git"] is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sailctl: warning: the commit of the code is unknown: fatal: ")
