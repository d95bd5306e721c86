"""Sweeps through submitit, on this machine's own processes; tests/slurm has a real SLURM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from submitit.core.job_environment import JobEnvironment, SignalHandler
from submitit.core.utils import UncompletedJobError

from sailctl.cli.main import main
from sailctl.core.types import RunError, UserError
from sailctl.runs.recorder import run_path
from sailctl.runs.results import load_run
from sailctl.sweeps import cluster
from sailctl.sweeps.cluster import requeueing, states_of
from sailctl.sweeps.compose import compose_jobs
from sailctl.sweeps.outcomes import Outcome, any_failed, read_outcome, write_outcome
from sailctl.training.stopping import Interrupted, stoppable

TINY = (
    "algo=sail_revkl_segments",
    "env=invertedpendulum-v5",
    "rollout.prompts=8",
    "rollout.segment_length=5",
    "rollout.label_horizon=5",
    "evaluation.episodes=1",
    "policy.hidden=[8]",
    "logger.wandb=disabled",
)
LOCAL = "hydra/launcher=local"


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "sailctl", "train", "-m", *TINY, *words]


def assert_same_numbers(one: Path, two: Path) -> None:
    """Every run in ``one`` is in ``two``, and is the same but for the seconds."""
    paths = sorted(path.relative_to(one).parent for path in one.glob("*/*/*/policy"))
    assert paths
    assert paths == sorted(path.relative_to(two).parent for path in two.glob("*/*/*/policy"))
    for path in paths:
        first, second = load_run(one / path), load_run(two / path)
        timeless = [name for name in first.metrics if not name.endswith("_s")]
        pd.testing.assert_frame_equal(first.metrics[timeless], second.metrics[timeless], check_exact=True)
        for file in ("evaluations.csv", "policy/policy.safetensors"):
            assert (one / path / file).read_bytes() == (two / path / file).read_bytes(), file


# What is composed


@pytest.mark.parametrize("name", ["slurm", "local"])
def test_a_launcher_has_the_resources_of_a_run(name: str, recwarn: pytest.WarningsRecorder) -> None:
    (job,) = compose_jobs([f"hydra/launcher={name}"], multirun=True).jobs
    launcher = job.composed.hydra.launcher
    assert (launcher.cpus_per_task, launcher.mem_gb, launcher.max_num_timeout) == (1, 2, 20)
    assert str(launcher.submitit_folder).endswith("/.submitit/%j")
    assert not [str(warning.message) for warning in recwarn if "hydra" in str(warning.message)]


def test_a_user_can_build_on_it(tmp_path: Path) -> None:
    folder = tmp_path / "hydra" / "launcher"
    folder.mkdir(parents=True)
    (folder / "ours.yaml").write_text("defaults: [slurm, _self_]\npartition: short\n")
    (job,) = compose_jobs(["hydra/launcher=ours", "hydra.launcher.qos=low"], overlay=tmp_path).jobs
    launcher = job.composed.hydra.launcher
    assert (launcher.partition, launcher.qos, launcher.mem_gb) == ("short", "low", 2)


@pytest.mark.parametrize(
    ("old", "new"), [("submitit_slurm", "slurm"), ("submitit_local", "local"), ("ray", "ray_tasks")]
)
def test_an_old_name_is_refused_with_the_new_one(old: str, new: str, tmp_path: Path) -> None:
    line = f"hydra/launcher={old} is not supported: use hydra/launcher={new}"
    with pytest.raises(UserError, match=f"^{line}$"):
        compose_jobs([f"hydra/launcher={old}"])
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        f"# @package _global_\ndefaults:\n  - override /hydra/launcher: {old}\n"
    )
    with pytest.raises(UserError, match=f"^{line}$"):
        compose_jobs(["experiment=mine"], overlay=tmp_path)


def test_what_was_built_on_an_old_name_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "hydra" / "launcher"
    folder.mkdir(parents=True)
    for old, new in (("submitit_slurm", "slurm"), ("submitit_local", "local")):
        (folder / "ours.yaml").write_text(f"defaults: [{old}, _self_]\nname: mine\n")
        with pytest.raises(UserError, match=f"^hydra/launcher=ours is built on {old}: build it on {new}$"):
            compose_jobs(["hydra/launcher=ours"], overlay=tmp_path)


def test_a_setting_of_the_wrong_type_is_refused_at_once() -> None:
    with pytest.raises(
        UserError, match=r"hydra\.launcher\.timeout_min: Value 'soon' of type 'str' could not be"
    ):
        compose_jobs(["hydra/launcher=slurm", "hydra.launcher.timeout_min=soon"], multirun=True)
    with pytest.raises(UserError, match=r"Value 'many' of type 'str' could not be"):
        compose_jobs(["hydra.launcher.n_jobs=many"], multirun=True)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["hydra/launcher=slurm"], "this launcher needs submitit: pip install 'sailctl[slurm]'"),
        (["hydra/launcher=local"], "this launcher needs submitit: pip install 'sailctl[slurm]'"),
        (["hydra/launcher=ray_tasks"], "this launcher needs ray: pip install 'sailctl[ray]'"),
    ],
)
def test_a_launcher_that_is_not_installed(
    words: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda _: None)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", *TINY, *words]) == 2
    assert capsys.readouterr().err == f"sailctl: {line}\n"
    assert not list(tmp_path.iterdir())


def test_an_installation_without_the_launchers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None if name == cluster.OURS else name)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", *TINY, LOCAL]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sailctl: sailctl is installed without its launchers (hydra_plugins.sailctl_laun")


def test_a_machine_without_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", *TINY, "hydra/launcher=slurm"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sailctl: hydra/launcher=slurm needs SLURM, but sbatch is not installed here: ")
    assert not list(tmp_path.iterdir())


# What is Hydra's stays Hydra's


USE = """
import sys

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins


def entries(folder, prefix=""):
    for name, entry in folder.items():
        if isinstance(entry, dict):
            yield from entries(entry, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", entry.node


def what_is_there():
    classes = {name: found for name, found in Plugins.instance().class_name_to_class.items()}
    return classes, dict(entries(ConfigStore.instance().repo))


classes, stored = what_is_there()
from sailctl.cli.main import main

assert main(sys.argv[1:]) == 0
after = what_is_there()
print("replaced:", *[name for name, one in classes.items() if after[0].get(name) is not one])
print("missing:", *[name for name, node in stored.items() if after[1].get(name) != node])
"""


def test_hydra_keeps_its_classes_and_its_configurations(tmp_path: Path) -> None:
    """Other uses of Hydra in this process find what they would find without this package."""
    words = ["algo.iterations=1", "hydra/launcher=basic", f"out={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-c", USE, "train", "-m", *TINY, *words],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["replaced:", "missing:"]


# A sweep


def fault(out: Path, *words: str) -> Path:
    """Let the run of these words fail: what should be its folder of checkpoints is a file."""
    (job,) = compose_jobs([*TINY, *words, f"out={out}"]).jobs
    file = run_path(job.config) / "checkpoints"
    file.parent.mkdir(parents=True)
    file.touch()
    return file


def test_a_sweep_in_processes_of_submitit(tmp_path: Path) -> None:
    """One of two jobs fails; the same command again runs what is missing, and nothing else."""
    words = ["algo.iterations=3", "logger.checkpoint=0"]
    apart, here = tmp_path / "apart", tmp_path / "here"
    asked = command(*words, "seed=0,1", LOCAL, f"out={apart}")
    file = fault(apart, *words, "seed=1")
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    assert "2 jobs: 1 done, 1 failed (" in done.stdout
    (line,) = done.stderr.splitlines()
    assert "seed=1" in line
    assert ": cannot save a checkpoint in " in line
    (launch,) = (apart / ".sweeps").iterdir()
    assert len(list((launch / ".submitit").glob("*/*_log.err"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["apart"]

    file.unlink()
    (first,) = apart.rglob("policy.safetensors")
    before = first.stat().st_mtime_ns
    again = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (again.returncode, again.stderr) == (0, "")
    assert first.stat().st_mtime_ns == before
    subprocess.run(
        command(*words, "seed=0,1", "hydra/launcher=basic", f"out={here}"), capture_output=True, check=True
    )
    assert_same_numbers(here, apart)


def begun(out: Path, iterations: int = 3) -> tuple[Path, int]:
    """A run that has made its first iterations, and the process that works on it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for metrics in out.glob("*/*/*/metrics.csv"):
            claims = list(metrics.parent.glob("claim.*"))
            if claims and metrics.read_text().count("\n") > iterations:
                return metrics.parent, int(json.loads(claims[0].read_text())["pid"])
        time.sleep(0.02)
    raise AssertionError("no run has begun")


@pytest.mark.slow
def test_a_job_before_its_time_limit_is_started_again_and_goes_on(tmp_path: Path) -> None:
    words = ["algo.iterations=40", "logger.checkpoint=1000000"]
    with subprocess.Popen(
        command(*words, LOCAL, f"out={tmp_path / 'apart'}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        run, pid = begun(tmp_path / "apart")
        os.kill(pid, signal.SIGUSR2)
        said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "1 jobs: 1 done (" in said[0]
    assert len(json.loads((run / "provenance.json").read_text())["resumed"]) == 1
    subprocess.run(
        command(*words, "hydra/launcher=basic", f"out={tmp_path / 'here'}"), capture_output=True, check=True
    )
    assert_same_numbers(tmp_path / "here", tmp_path / "apart")


@pytest.mark.slow
def test_ctrl_c_stops_the_runs_and_keeps_them(tmp_path: Path) -> None:
    with subprocess.Popen(
        command("algo.iterations=1000000", "env_steps=1000000000", LOCAL, f"out={tmp_path}"),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        run, pid = begun(tmp_path)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "sailctl: interrupted, stopped by SIGINT"
    assert not Path(f"/proc/{pid}").exists()
    assert load_run(run).state == "interrupted"
    assert list((run / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_process_that_is_killed_is_a_failed_job(tmp_path: Path) -> None:
    with subprocess.Popen(
        command("algo.iterations=1000000", "env_steps=1000000000", LOCAL, f"out={tmp_path}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        _, pid = begun(tmp_path)
        os.kill(pid, signal.SIGKILL)
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "1 jobs: 1 failed (" in said
    (line,) = errors.splitlines()
    assert "before its run finished: see " in line
    assert Path(line.rpartition(" see ")[2]).is_file()


# What SLURM says


def squeue(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    file = folder / "squeue"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_states_of_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue(tmp_path, monkeypatch, "echo 12_0 RUNNING; echo 12_1 CANCELLED")
    assert states_of({"12_0", "12_1"}) == {"12_0": "RUNNING", "12_1": "CANCELLED"}
    squeue(tmp_path, monkeypatch, "echo slurm_load_jobs error: Invalid job id specified >&2; exit 1")
    assert states_of({"12"}) == {}
    squeue(tmp_path, monkeypatch, "echo Unable to contact slurm controller >&2; exit 1")
    assert states_of({"12"}) is None


# In a job


class Queue(JobEnvironment):
    """An environment of submitit's that notes what it is asked for."""

    def __init__(self, cluster: str = "local") -> None:
        super().__init__()
        self.requeued = 0
        self.cluster = cluster

    @classmethod
    def name(cls) -> str:
        return "local"

    @property
    def job_id(self) -> str:
        return "12_0"

    @property
    def global_rank(self) -> int:
        return 0

    def _requeue(self, countdown: int) -> None:
        self.requeued += 1


class Slurm(Queue):
    @classmethod
    def name(cls) -> str:
        return "slurm"


@pytest.fixture
def handlers() -> object:
    """Whatever a test sets up is taken down again."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGCONT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def in_job(queue: Queue, tmp_path: Path, timeouts: int = 20) -> None:
    """Make this process a job, as submitit does."""
    function = SimpleNamespace(checkpoint=lambda: None)
    delayed = SimpleNamespace(
        function=function,
        _timeout_min=1000,
        _timeout_countdown=timeouts,
        _checkpoint_function=lambda: SimpleNamespace(
            set_timeout=lambda *_: None, dump=lambda path: path.touch()
        ),
    )
    paths = SimpleNamespace(submitted_pickle=tmp_path / "job.pkl")
    handler = SignalHandler(queue, paths, delayed)  # type: ignore[arg-type]
    signal.signal(signal.SIGTERM, handler.bypass)
    signal.signal(signal.SIGUSR2, handler.checkpoint_and_try_requeue)


def stopped_by(*numbers: int) -> None:
    """A run that is told to stop, and does when its iteration is over."""
    with stoppable() as stop:
        for number in numbers:
            os.kill(os.getpid(), number)
        assert stop.signal is not None
        raise Interrupted(stop.signal)


def test_outside_of_a_job_nothing_is_changed() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)]
    with requeueing(20):
        inside = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)]
    assert inside == before


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(
    "numbers", [(signal.SIGUSR2,), (signal.SIGTERM,), (signal.SIGTERM, signal.SIGUSR2)], ids=str
)
def test_a_run_that_slurm_stops_is_queued_again(
    numbers: tuple[signal.Signals, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue(tmp_path, monkeypatch, "echo 12_0 RUNNING; echo 12_1 CANCELLED")
    queue = Slurm()
    in_job(queue, tmp_path)
    with pytest.raises(SystemExit), requeueing(20):
        stopped_by(*numbers)
    assert queue.requeued == 1


@pytest.mark.usefixtures("handlers")
def test_a_signal_before_the_run_has_begun_counts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue(tmp_path, monkeypatch, "echo 12_0 RUNNING")
    queue = Slurm()
    in_job(queue, tmp_path)
    with pytest.raises(SystemExit), requeueing(20):
        os.kill(os.getpid(), signal.SIGTERM)
    assert queue.requeued == 1


@pytest.mark.usefixtures("handlers")
def test_a_job_that_was_cancelled_does_not_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue(tmp_path, monkeypatch, "echo 12_0 CANCELLED; echo 12_1 RUNNING")
    queue = Slurm()
    in_job(queue, tmp_path)
    with pytest.raises(SystemExit) as ended, requeueing(20):
        stopped_by(signal.SIGTERM)
    assert (queue.requeued, ended.value.code) == (0, 143)


@pytest.mark.usefixtures("handlers")
def test_a_job_is_not_queued_again_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue(tmp_path, monkeypatch, "echo 12_0 RUNNING")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    queue = Slurm()
    in_job(queue, tmp_path)
    with pytest.raises(RunError, match="stopped by SIGTERM; it was requeued 3 times"), requeueing(3):
        stopped_by(signal.SIGTERM)
    assert queue.requeued == 0


@pytest.mark.usefixtures("handlers")
def test_a_queue_that_does_not_take_a_job_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise UncompletedJobError("Job not requeued because: timed-out too many times.")

    squeue(tmp_path, monkeypatch, "echo 12_0 RUNNING")
    queue = Slurm()
    monkeypatch.setattr(queue, "_requeue", refuse)
    in_job(queue, tmp_path)
    with pytest.raises(RunError, match="it cannot be requeued: Job not requeued because"), requeueing(20):
        stopped_by(signal.SIGUSR2)


@pytest.mark.usefixtures("handlers")
def test_on_this_machine_sigterm_is_the_end(tmp_path: Path) -> None:
    queue = Queue()
    in_job(queue, tmp_path)
    with (
        pytest.raises(RunError, match="stopped by SIGTERM; run the same command again to resume"),
        requeueing(20),
    ):
        stopped_by(signal.SIGTERM)
    assert queue.requeued == 0


# Outcomes


def test_outcomes_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_outcome(tmp_path, 0) is None
    write_outcome(tmp_path, 0, ["seed=0"], Outcome("done", "runs/a"))
    assert not any_failed(tmp_path)
    write_outcome(tmp_path, 1, ["seed=1"], Outcome("failed", "a bug"))
    assert any_failed(tmp_path)
    assert read_outcome(tmp_path, 0) == Outcome("done", "runs/a")
