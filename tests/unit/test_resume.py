"""A run that was killed goes on to the numbers of one that was not, to the bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from stable_baselines3 import PPO, SAC

from sailctl.algorithms.actor import Actor
from sailctl.algorithms.learner import Learner
from sailctl.config import RunConfig
from sailctl.core.types import UserError
from sailctl.runs.results import load_run
from sailctl.training.collect import collect
from sailctl.training.train import train
from tests.fixtures import ACTIONS, KINDS, SMALL, actions_of, assert_same_run, composed, config_of

QUICK = ("revkl", "teacher", "ranked", "chosen", "dpr", "value")
"""Those that `make test` looks at; together they touch everything that is kept."""

TINY = (
    "env=reacher-v5",
    "rollout.segment_length=4",
    "rollout.label_horizon=4",
    "env_steps=320",
    "evaluation.every=100",
    "evaluation.episodes=1",
    "logger.wandb=disabled",
    "logger.progress=false",
    "logger.checkpoint=0",
)
TINY_PPO = ("policy.hidden=[8]", "algo.envs=4", "algo.steps=10", "algo.batch=20", "algo.epochs=2")
TINY_SAC = (
    "algo.hidden=[8]",
    "algo.learning_starts=60",
    "algo.interval=40",
    "algo.batch=8",
    "algo.updates=0.25",
    "algo.target_every=1",
)
TINY_MODEL = (
    "algo.initial_queries=6",
    "algo.queries=4",
    "algo.query_interval=80",
    "reward.hidden=[8]",
    "reward.steps=2",
)
TINY_TEACHER = ("oracle=stochastic", "oracle.normalise=true", "oracle.skip=40", "oracle.mistake=0.2")
TINY_PEBBLE = (*TINY_SAC, *TINY_MODEL, "algo.pretrain=80")
BASELINES = {
    "ppo": TINY_PPO,
    "sac": (*TINY_SAC, "env=hopper-v5"),
    "rlhf_ppo": (*TINY_PPO, *TINY_MODEL, *TINY_TEACHER, "algo.learning_starts=20", "env=hopper-v5"),
    "pebble": (*TINY_PEBBLE, "oracle.budget=14"),
    "sail_mujoco_parity": (*TINY_PEBBLE, "algo.gamma=0.001", "algo.reference_interval=120"),
    "sail_mujoco_parity natural": (*TINY_PEBBLE, "algo.gamma=0.001", "algo.natural_kl=0.01"),
}
ITERATIONS = 8
ACTION_ITERATIONS = 7


def baseline_of(out: Path, kind: str, *overrides: str) -> RunConfig:
    return composed(out, f"algo={kind.partition(' ')[0]}", *TINY, *BASELINES[kind], *overrides)


class Killed(BaseException):
    """The end of the process, as far as the run can tell."""


def killed_in(
    update: int,
    config: RunConfig,
    monkeypatch: pytest.MonkeyPatch,
    learner: type = Learner,
    method: str = "_means",
) -> None:
    """Train, and stop in the midst of the so many-th update of this process, after it has changed things."""
    done, true_update = 0, getattr(learner, method)

    def fatal(*arguments: object, **named: object) -> object:
        nonlocal done
        done += 1
        result = true_update(*arguments, **named)
        if done == update:
            raise Killed
        return result

    with monkeypatch.context() as patch:
        patch.setattr(learner, method, fatal)
        with pytest.raises(Killed):
            train(config, [])


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set for those that need one."""
    folder = tmp_path_factory.mktemp("answers")
    file = folder / "answers.parquet"
    collect(config_of(folder, "algo=sail_segments"), 40, file, [])
    return file


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_a_killed_run_ends_as_one_that_was_not(
    kind: str, answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = list(KINDS[kind])
    if kind in ("dpr", "dpp", "offline"):
        words.append(f"algo.data={answers}")
    whole = train(config_of(tmp_path / "whole", *words), [])
    config = config_of(tmp_path / "killed", *words)
    killed_in(1, config, monkeypatch)  # before there was any checkpoint
    killed_in(3, config, monkeypatch)
    killed_in(2, config, monkeypatch)
    assert_same_run(whole, train(config, []))


@pytest.mark.parametrize("kind", ACTIONS)
def test_a_run_on_actions_that_is_killed_ends_as_one_that_was_not(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Killed within an update; the memory is too small for the run and begins again in front."""
    monkeypatch.setattr("sailctl.algorithms.actions.REPLAY_CAPACITY", 160)
    whole = train(actions_of(tmp_path / "whole", *ACTIONS[kind]), [])
    record = load_run(whole)
    assert len(record.metrics) == ACTION_ITERATIONS
    assert record.metrics["grad_norm"].notna().sum() >= ACTION_ITERATIONS - 1
    config = actions_of(tmp_path / "killed", *ACTIONS[kind])
    killed = partial(killed_in, learner=Actor, method="update")
    killed(1, config, monkeypatch)
    killed(8, config, monkeypatch)
    killed(5, config, monkeypatch)
    killed(23, config, monkeypatch)
    assert_same_run(whole, train(config, []))


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind == "rlhf_ppo" or "parity" in kind else pytest.param(kind, marks=pytest.mark.slow)
        for kind in BASELINES
    ],
)
def test_a_baseline_that_is_killed_in_every_iteration_ends_as_one_that_was_not(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Both memories are too small for the run: they forget the oldest, and begin again in front."""
    monkeypatch.setattr("sailctl.algorithms.sac.REPLAY_CAPACITY", 120)
    monkeypatch.setattr("sailctl.algorithms.sb3.EPISODES", 2)
    monkeypatch.setattr("sailctl.algorithms.sac.RESET_UPDATES", 10)
    whole = train(baseline_of(tmp_path / "whole", kind), [])
    record = load_run(whole)
    assert len(record.metrics) == ITERATIONS
    assert (record.metrics["labels"].nunique() > 2) == ("algo.initial_queries=6" in BASELINES[kind])
    config = baseline_of(tmp_path / "killed", kind)
    killed = partial(killed_in, learner=PPO if "ppo" in kind else SAC, method="learn")
    killed(1, config, monkeypatch)  # before there was any checkpoint
    for _ in range(ITERATIONS - 1):
        killed(2, config, monkeypatch)
    assert_same_run(whole, train(config, []))


@pytest.mark.parametrize(
    ("kind", "learner"), [("ppo", PPO), pytest.param("pebble", SAC, marks=pytest.mark.slow)]
)
def test_a_signal_ends_the_iteration_of_a_baseline_and_keeps_it(
    kind: str, learner: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = baseline_of(tmp_path / "stopped", kind, "logger.checkpoint=1000000")
    true_learn = learner.learn

    def signalled(self: PPO | SAC, *arguments: object, **named: object) -> object:
        if self.num_timesteps >= 120:
            os.kill(os.getpid(), signal.SIGTERM)
        return true_learn(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(learner, "learn", signalled)
        with pytest.raises(KeyboardInterrupt, match="stopped by SIGTERM"):
            train(config, [])
    (path,) = (tmp_path / "stopped").glob("*/*/*")
    assert load_run(path).state == "interrupted"
    assert load_run(path).metrics["iteration"].tolist() == [1, 2, 3, 4]
    assert_same_run(train(baseline_of(tmp_path / "whole", kind), []), train(config, []))


def test_a_finished_run_is_not_trained_again(tmp_path: Path):
    config = config_of(tmp_path, "algo.iterations=1")
    path = train(config, [])
    before = {file.name: file.stat().st_mtime_ns for file in path.rglob("*")}
    assert train(config, []) == path
    assert {file.name: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def test_how_often_checkpoints_are_kept_changes_nothing(tmp_path: Path):
    often = train(config_of(tmp_path / "often"), [])
    never = train(config_of(tmp_path / "never", "logger.checkpoint=1000000"), [])
    assert_same_run(often, never)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_iteration_and_keeps_it(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = config_of(tmp_path / "stopped", "logger.checkpoint=1000000")
    true_update = Learner.update

    def signalled(self: Learner, *arguments: object) -> dict[str, float]:
        if self.updates == 3:
            os.kill(os.getpid(), number)
        return true_update(self, *arguments)  # type: ignore[arg-type]

    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", signalled)
        with pytest.raises(KeyboardInterrupt, match=f"stopped by {number.name}"):
            train(config, [])
    assert signal.getsignal(number) is handler
    (path,) = (tmp_path / "stopped").glob("*/*/*")
    record = load_run(path)
    assert record.state == "interrupted"
    assert record.metrics["iteration"].tolist() == [1, 2, 3, 4]
    assert_same_run(train(config_of(tmp_path / "whole"), []), train(config, []))


def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    config = config_of(tmp_path / "killed")
    killed_in(5, config, monkeypatch)
    (path,) = (tmp_path / "killed").glob("*/*/*")
    old, new = sorted((path / "checkpoints").iterdir())
    content = bytearray(new.read_bytes())
    content[-1] ^= 1  # in a tensor: a header that is damaged shows without a checksum
    new.write_bytes(bytes(content))
    assert_same_run(train(config_of(tmp_path / "whole"), []), train(config, []))
    assert f"sailctl: warning: {new} cannot be used: its checksum is wrong" in capsys.readouterr().err
    assert not old.exists()


def test_a_run_whose_checkpoints_are_all_damaged_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = config_of(tmp_path)
    killed_in(5, config, monkeypatch)
    (path,) = tmp_path.glob("*/*/*")
    before = (path / "metrics.csv").read_bytes()
    for file in (path / "checkpoints").iterdir():
        os.truncate(file, 1000)
    with pytest.raises(UserError, match=r"no checkpoint in .* is usable: remove that folder to restart"):
        train(config, [])
    assert (path / "metrics.csv").read_bytes() == before


def test_runs_in_threads_can_be_trained(tmp_path: Path):
    """Signals belong to the main thread; elsewhere training goes without them."""
    found: list[Path] = []
    config = config_of(tmp_path, "algo.iterations=1")
    thread = threading.Thread(target=lambda: found.append(train(config, [])))
    thread.start()
    thread.join()
    assert load_run(found[0]).state == "finished"


@pytest.mark.slow
def test_a_process_that_is_killed_again_and_again(tmp_path: Path):
    """By SIGKILL, whenever it comes: the checkpoint, the tables and the claim are those of a real crash."""
    words = [word for word in SMALL if not word.startswith("algo.iterations")]
    words = [*words, "algo.iterations=60", "evaluation.episodes=1"]
    command = [sys.executable, "-m", "sailctl", "train", *words]
    subprocess.run([*command, f"out={tmp_path / 'whole'}"], check=True, capture_output=True)
    rng, kills = random.Random(0), 0
    while True:
        with subprocess.Popen(
            [*command, f"out={tmp_path / 'killed'}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            try:
                _, said = process.communicate(timeout=2.0 + 2.0 * rng.random() if kills < 3 else None)
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
                continue
        assert (process.returncode, said) == (0, b"")
        break
    assert kills
    (whole,), (killed,) = ((tmp_path / name).glob("*/*/*") for name in ("whole", "killed"))
    assert_same_run(whole, killed)
