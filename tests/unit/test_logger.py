"""The logger: rows reach the files, and no W&B whatever can hurt a run."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sailctl.config import Config, LoggerConfig, recorded
from sailctl.core.types import RunError, UserError
from sailctl.runs import logger, wandb_mirror
from sailctl.runs.logger import Logger, ProgressBar, check_mirrors
from sailctl.runs.recorder import Run, open_run
from sailctl.runs.results import load_run
from sailctl.runs.wandb_mirror import WandbMirror
from sailctl.sweeps.compose import compose_jobs

ROW = {"iteration": 1, "env_steps": 6400, "labels": 64, "loss": 0.5}
QUIET = LoggerConfig(
    wandb="disabled",
    project="p",
    tensorboard=False,
    progress=False,
    sweep=None,
    checkpoint=60.0,
    fresh=False,
    any_version=False,
)


@pytest.fixture(scope="module")
def shipped() -> Config:
    return compose_jobs(["env=hopper-v5", "algo=sail", "env_steps=12800"]).jobs[0].config


@pytest.fixture
def config(shipped: Config, tmp_path: Path) -> Config:
    return replace(shipped, out=str(tmp_path / "runs"), logger=QUIET)


def with_wandb(config: Config) -> Config:
    return replace(config, logger=replace(QUIET, wandb="offline"))


def train(config: Config, rows: int = 3) -> Run:
    """What the training loop does with a logger."""
    run = open_run(config, ["sailctl", "train"])
    with Logger(run, config) as log:
        for i in range(1, rows + 1):
            place = {"iteration": i, "env_steps": 6400 * i, "labels": 64 * i}
            if i == rows:
                log.evaluation(**place, returns=np.array([1.0, 2.0]), lengths=np.array([5, 6]))
            log.log({**place, "loss": np.float32(0.1 * i)})
        log.finish({"final_return": 1.5})
    return run


def break_off(run: Run, config: Config, error: BaseException) -> None:
    """A training loop that breaks after its first row."""
    with Logger(run, config) as log:
        log.log({**ROW, "loss": math.nan, "ratio": math.inf})
        raise error


def test_rows_reach_the_files(config: Config):
    record = load_run(train(config).path)
    assert record.state == "finished"
    assert record.status["final_return"] == 1.5
    assert list(record.metrics.columns) == ["iteration", "env_steps", "labels", "loss", "eval_return"]
    assert record.metrics["loss"].tolist() == [float(np.float32(0.1 * i)) for i in (1, 2, 3)]
    assert record.metrics["eval_return"].tolist()[2:] == [1.5]
    assert record.metrics["eval_return"].isna().tolist() == [True, True, False]
    assert record.evaluations.to_dict("list") == {
        "env_steps": [19200, 19200],
        "labels": [192, 192],
        "iteration": [3, 3],
        "episode": [0, 1],
        "return": [1.0, 2.0],
        "length": [5, 6],
    }


def test_an_evaluation_belongs_to_its_own_row_only(config: Config):
    with Logger(open_run(config, []), config) as log:
        log.evaluation(env_steps=0, labels=0, iteration=0, returns=[9.0], lengths=[1])
        log.log(ROW)
        log.log({**ROW, "iteration": 2, "env_steps": 12800})
    assert load_run(log._run.path).metrics["eval_return"].isna().tolist() == [True, True]


def test_wrong_rows_are_refused(config: Config):
    log = Logger(open_run(config, []), config)
    with pytest.raises(ValueError, match="computed by the logger"):
        log.log({**ROW, "eval_return": 1.0})
    with pytest.raises(ValueError, match="at least one episode"):
        log.evaluation(env_steps=1, labels=1, iteration=1, returns=[], lengths=[])
    with pytest.raises(ValueError, match="shorter"):
        log.evaluation(env_steps=1, labels=1, iteration=1, returns=[1.0, 2.0], lengths=[3])


@pytest.mark.parametrize(
    ("error", "state"), [(RunError("NaN"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_an_exception_is_recorded_and_passes(config: Config, error: BaseException, state: str):
    run = open_run(config, [])
    with pytest.raises(type(error)):
        break_off(run, config, error)
    assert load_run(run.path).state == state


def test_leaving_without_finish_finishes(config: Config):
    run = open_run(config, [])
    with Logger(run, config):
        pass
    assert load_run(run.path).state == "finished"


def test_a_mirror_that_cannot_start_fails_the_run(config: Config, monkeypatch: pytest.MonkeyPatch):
    def broken(folder: Path, along: str, resumed_from: int | None) -> None:
        raise OSError(f"cannot write {folder.name} along {along} from {resumed_from}")

    monkeypatch.setattr(logger, "TensorBoardMirror", broken)
    config = replace(config, logger=replace(QUIET, tensorboard=True))
    run = open_run(config, [])
    with pytest.raises(OSError, match="cannot write tensorboard"):
        Logger(run, config)
    assert load_run(run.path).status["error"] == "OSError: cannot write tensorboard along env_steps from None"


# TensorBoard and the progress bar


def stopped_after(rows: int, config: Config) -> None:
    """A run that keeps a checkpoint after its first row, goes on for some more, and is killed."""
    run = open_run(config, ["sailctl", "train"])
    log = Logger(run, config)
    for i in range(1, rows + 1):
        log.log({"iteration": i, "env_steps": 6400 * i, "labels": 64 * i, "loss": 10.0})
        if i == 1:
            run.keep({"iteration": 1})
    log.fail(KeyboardInterrupt())


def going_on(config: Config) -> Run:
    run = open_run(config, ["sailctl", "train"])
    with Logger(run, config) as log:
        for i in (2, 3):
            log.log({"iteration": i, "env_steps": 6400 * i, "labels": 64 * i, "loss": 0.5})
    return run


def test_tensorboard_shows_iterations_that_are_done_again_once(config: Config):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = replace(config, logger=replace(QUIET, tensorboard=True))
    stopped_after(2, config)
    events = EventAccumulator(str(going_on(config).path / "tensorboard"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(6400, 10.0), (12800, 0.5), (19200, 0.5)]


def test_a_missing_tensorboard_is_refused_in_time(monkeypatch: pytest.MonkeyPatch):
    asked = replace(QUIET, tensorboard=True)
    monkeypatch.setattr(logger, "find_spec", lambda name: None if name == "tensorboard" else object())
    with pytest.raises(UserError, match="pip install tensorboard"):
        check_mirrors(asked)
    check_mirrors(QUIET)


def test_tensorboard_files_hold_the_rows(config: Config):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = replace(config, logger=replace(QUIET, tensorboard=True))
    check_mirrors(config.logger)
    events = EventAccumulator(str(train(config).path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"labels", "loss", "eval_return"}
    loss = events.Scalars("loss")
    assert [event.step for event in loss] == [6400, 12800, 19200]
    assert [event.value for event in loss] == [float(np.float32(0.1 * i)) for i in (1, 2, 3)]
    assert [event.value for event in events.Scalars("eval_return")] == [1.5]


def test_the_progress_bar_shows_where_the_run_is(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "160")
    run = train(replace(config, env_steps=19200, logger=replace(QUIET, progress=True)))
    out, err = capsys.readouterr()
    last = err.rstrip().split("\r")[-1]
    assert out == ""
    assert f"hopper-v5/sail/{run.path.name}" in last
    for part in ("100%", "19.2k/19.2k", "env steps/s", "labels=192", "return=1.5"):
        assert part in last, (part, last)


def test_no_bar_where_nobody_watches(config: Config, capsys: pytest.CaptureFixture[str]):
    train(replace(config, logger=replace(QUIET, progress=True)))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("along", ["env_steps", "iteration"])
def test_the_bar_follows_what_moves(along: str):
    bar = ProgressBar(100, Path("a/b/c"), along)
    still = {"env_steps": 0, "iteration": 0}
    bar.log(still | {along: 10, "labels": 1})
    bar.log(still | {along: 40, "labels": 2})
    assert bar._bar.n == 40
    bar.close()


# W&B, as it should be


def records_of(file: Path) -> list[object]:
    """The records of an offline W&B file: protobuf messages in LevelDB's log format."""
    from wandb.proto import wandb_internal_pb2

    data, position, block, parts, found = file.read_bytes(), 7, 32768, b"", []
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        if block - position % block < 7:
            position += block - position % block
            continue
        size, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        parts += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            found.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return found


def offline_file(run: Run) -> Path:
    (file,) = (run.path / "wandb").glob("offline-run-*/run-*.wandb")
    return file


def rows_of(records: list[object]) -> list[dict[str, float]]:
    return [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]


def test_two_offline_runs_in_one_process(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """The real library: one W&B run for each job, all of it inside the run directory, and not a word."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    for name in [name for name in os.environ if name.startswith(("WANDB_", "XDG_"))]:
        monkeypatch.delenv(name)

    runs = [train(with_wandb(replace(config, seed=seed))) for seed in (0, 1)]

    assert capfd.readouterr() == ("", "")
    assert list(home.rglob("*")) == list(here.rglob("*")) == []
    assert offline_file(runs[0]).name != offline_file(runs[1]).name
    for seed, run in enumerate(runs):
        records = records_of(offline_file(run))
        (head,) = [r.run for r in records if r.WhichOneof("record_type") == "run"]
        sent = {item.key: json.loads(item.value_json) for item in head.config.update}
        expected = recorded(with_wandb(replace(config, seed=seed)))
        assert {key: sent[key] for key in expected} == expected
        group = f"hopper-v5/sail/{run.path.name.removesuffix(f'-s{seed}')}"
        assert (head.project, head.run_group, head.job_type) == ("p", group, "train")
        assert head.display_name == f"sail-{run.path.name}"
        assert list(head.tags) == ["hopper-v5", "sail"]
        rows = rows_of(records)
        # An evaluation and the row of the same iteration are one row there.
        assert [row["env_steps"] for row in rows] == [6400, 12800, 19200]
        assert [row["loss"] for row in rows if "loss" in row] == [
            float(np.float32(0.1 * i)) for i in (1, 2, 3)
        ]
        assert [row["eval_return"] for row in rows if "eval_return" in row] == [1.5]
        summary = {
            item.key: json.loads(item.value_json)
            for record in records
            if record.WhichOneof("record_type") == "summary"
            for item in record.summary.update
        }
        assert summary["final_return"] == 1.5
        (end,) = [r.exit for r in records if r.WhichOneof("record_type") == "exit"]
        assert end.exit_code == 0


def test_what_wandbs_own_variables_say_goes_before_what_is_made_up(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, value in (("NAME", "mine"), ("RUN_GROUP", "ours"), ("DIR", "kept"), ("TAGS", "a,b")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.chdir(tmp_path)
    train(with_wandb(config))
    (file,) = (tmp_path / "kept").rglob("*.wandb")
    (head,) = [r.run for r in records_of(file) if r.WhichOneof("record_type") == "run"]
    assert (head.display_name, head.run_group, list(head.tags)) == ("mine", "ours", ["a", "b"])


def test_the_tags_of_a_task_with_a_long_name_are_ones_that_wandb_takes(config: Config):
    """A user's task has its module in its id; with a longer tag W&B would refuse the run."""
    name = f"{'m' * 60}:Env-v0"
    run = train(with_wandb(replace(config, env=replace(config.env, id=name))))
    (head,) = [r.run for r in records_of(offline_file(run)) if r.WhichOneof("record_type") == "run"]
    assert list(head.tags) == [name[:64], "sail"]


def test_a_failed_run_fails_in_wandb_too(config: Config):
    config = with_wandb(config)
    run = open_run(config, [])
    with pytest.raises(RunError):
        break_off(run, config, RunError("NaN"))
    records = records_of(offline_file(run))
    (row,) = rows_of(records)
    assert math.isnan(row["loss"])
    assert row["ratio"] == math.inf
    (end,) = [r.exit for r in records if r.WhichOneof("record_type") == "exit"]
    assert end.exit_code == 1


def test_disabled_wandb_starts_nothing(config: Config, monkeypatch: pytest.MonkeyPatch):
    def refuse(*words: object, **options: object) -> None:
        raise AssertionError((words, options))

    monkeypatch.setattr(wandb_mirror, "WandbMirror", refuse)
    assert not (train(config).path / "wandb").exists()


# W&B, as it should not be

FAKE = """
import time
class Settings:
    def __init__(self, **options): pass
class Summary:
    def update(self, values): pass
class Run:
    summary = Summary()
    def define_metric(self, *names, **options): pass
    def log(self, row, step): {log}
    def finish(self, exit_code): {finish}
def init(**options):
    {init}
    return Run()
"""


@pytest.fixture
def fake_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a wandb that misbehaves in front of the real one."""

    def install(source: str | None = None, **bodies: str) -> None:
        folder = tmp_path / "fake"
        folder.mkdir()
        text = (
            source if source is not None else FAKE.format(**{"init": "0", "log": "0", "finish": "0"} | bodies)
        )
        (folder / "wandb.py").write_text(text)
        monkeypatch.syspath_prepend(str(folder))

    return install


def warnings_of(text: str) -> list[str]:
    lines = text.splitlines()
    assert all(line.startswith("sailctl: warning: W&B ") for line in lines), text
    return lines


def check_unhurt(run: Run) -> None:
    record = load_run(run.path)
    assert record.state == "finished"
    assert len(record.metrics) == 3
    assert len(record.evaluations) == 2


@pytest.mark.parametrize(
    ("bodies", "reason"),
    [
        ({"source": "raise ImportError('No module named wandb')"}, "ImportError: No module named wandb"),
        ({"source": "raise SystemExit(7)"}, "SystemExit: 7"),
        ({"init": "raise RuntimeError('no\\nnetwork')"}, "RuntimeError: no network"),
        ({"log": "raise OSError('disk full')"}, "OSError: disk full"),
        ({"finish": "raise TypeError('bad exit')"}, "TypeError: bad exit"),
    ],
)
def test_an_exception_in_wandb_costs_one_line(
    config: Config,
    fake_wandb: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
    bodies: dict[str, str],
    reason: str,
):
    fake_wandb(**bodies)
    run = train(with_wandb(config))
    out, err = capfd.readouterr()
    assert out == ""
    assert warnings_of(err) == [f"sailctl: warning: W&B is off for this run: {reason}"]
    check_unhurt(run)


@pytest.mark.parametrize("hung", ["source", "init", "log", "finish", "exit"])
def test_a_wandb_that_hangs_is_stopped(
    config: Config,
    fake_wandb: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    hung: str,
):
    monkeypatch.setattr(WandbMirror.__init__, "__defaults__", (wandb_mirror.WANDB_QUEUE, 1.5))
    if hung == "source":
        fake_wandb(source="import time\ntime.sleep(600)")
    elif hung == "exit":
        fake_wandb(finish="import atexit; atexit.register(time.sleep, 600)")
    else:
        fake_wandb(**{hung: "time.sleep(600)"})
    started = time.monotonic()
    run = train(with_wandb(config))
    assert time.monotonic() - started < 10
    (line,) = warnings_of(capfd.readouterr().err)
    assert "did not finish within 1.5 s and was stopped" in line
    check_unhurt(run)


@pytest.mark.parametrize(
    ("bodies", "message"),
    [
        ({"log": "import os; os.kill(os.getpid(), 9)"}, "exit code -9"),
        ({"init": "import os; os._exit(5)"}, "exit code 5"),
    ],
)
def test_a_wandb_that_dies_is_named(
    config: Config,
    fake_wandb: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
    bodies: dict[str, str],
    message: str,
):
    fake_wandb(**bodies)
    run = train(with_wandb(config))
    (line,) = warnings_of(capfd.readouterr().err)
    assert f"stopped unexpectedly with {message}" in line
    check_unhurt(run)


def test_a_wandb_that_is_killed_leaves_a_run_that_goes_on_unhurt(
    config: Config, fake_wandb: Callable[..., None], capfd: pytest.CaptureFixture[str]
):
    fake_wandb(log="import os; os.kill(os.getpid(), 9)")
    stopped_after(2, with_wandb(config))
    run = going_on(with_wandb(config))
    first, second = warnings_of(capfd.readouterr().err)
    assert "exit code -9" in first
    assert "exit code -9" in second
    record = load_run(run.path)
    assert record.state == "finished"
    assert record.metrics["loss"].tolist() == [10.0, 0.5, 0.5]


def test_a_wandb_that_prints_stays_silent(
    config: Config, fake_wandb: Callable[..., None], capfd: pytest.CaptureFixture[str]
):
    fake_wandb(init="import os, sys; print('noise'); os.system('echo more >&2'); sys.stderr.write('x')")
    check_unhurt(train(with_wandb(config)))
    assert capfd.readouterr() == ("", "")


def test_a_wandb_that_is_slow_loses_rows_and_says_so_once(
    fake_wandb: Callable[..., None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    fake_wandb(init="time.sleep(600)")
    mirror = WandbMirror({"mode": "offline"}, tmp_path, "env_steps", capacity=5, finish_s=0.5)
    row = {"env_steps": 1, **{f"metric_{i}": 0.123456789 for i in range(2000)}}  # larger than a pipe's buffer
    started = time.monotonic()
    for _ in range(50):
        mirror.log(row)
    assert time.monotonic() - started < 5
    mirror.close()
    full, stopped = warnings_of(capfd.readouterr().err)
    assert "too slow" in full
    assert "was stopped" in stopped


def test_without_processes_there_is_no_wandb(
    config: Config, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    def refuse(command: list[str], **options: object) -> None:
        raise BlockingIOError(11, f"Resource temporarily unavailable {command[0]} {options['cwd']}")

    run = open_run(with_wandb(config), [])
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with Logger(run, with_wandb(config)) as log:
        log.log(ROW)
    assert len(warnings_of(capfd.readouterr().err)) == 1
    assert load_run(run.path).state == "finished"


EXIT = """
import sys
from pathlib import Path
from sailctl.runs.wandb_mirror import WandbMirror
mirror = WandbMirror({"mode": "offline"}, Path(sys.argv[1]), "env_steps", finish_s=1.0)
mirror.log({"env_steps": 1, "loss": 2.0})
if sys.argv[2] == "close":
    mirror.close()
elif sys.argv[2] == "raise":
    raise RuntimeError("the run broke")
"""


@pytest.mark.parametrize(("ending", "code"), [("close", 0), ("leave", 0), ("raise", 1)])
@pytest.mark.parametrize("hung", ["init", "finish"])
def test_a_hung_wandb_does_not_hold_the_interpreter(
    fake_wandb: Callable[..., None], tmp_path: Path, hung: str, ending: str, code: int
):
    """Reading stderr to its end also shows that no process is left behind that holds it open."""
    fake_wandb(**{hung: "time.sleep(600)"})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", EXIT, str(tmp_path), ending],
        capture_output=True,
        text=True,
        env=environment,
        timeout=30,
        check=False,
    )
    assert time.monotonic() - started < 15
    assert done.returncode == code
    assert done.stdout == ""


def test_the_training_process_never_imports_wandb(config: Config):
    code = (
        "import sys; from sailctl.runs.logger import Logger; from sailctl.runs.recorder import open_run\n"
        "from sailctl.sweeps.compose import compose_jobs\n"
        f"config = compose_jobs(['out={config.out}', 'env=hopper-v5']).jobs[0].config\n"
        "with Logger(open_run(config, []), config) as log:\n"
        "    log.log({'iteration': 1, 'env_steps': 1, 'labels': 1})\n"
        "print('wandb' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
