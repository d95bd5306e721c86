"""Environments as users write them: answers that do not fit are refused in one line, success is told late."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from sailctl.cli.main import main
from sailctl.core.types import UserError
from sailctl.runs.logger import Logger
from sailctl.runs.recorder import open_run
from sailctl.runs.results import EVALUATION_COLUMNS, SUCCESS_COLUMNS, load_run
from sailctl.simulator.registry import open_simulator
from sailctl.sweeps.compose import compose_jobs
from sailctl.training.evaluate import play

MODULE = "odd_environments"
SOURCE = """
import gymnasium
import numpy as np
from gymnasium.envs.mujoco.inverted_pendulum_v5 import InvertedPendulumEnv as Pendulum
from gymnasium.envs.registration import WrapperSpec

SPOIL = {
    "FourValues": lambda obs, reward, ended, cut, info: (obs, reward, ended or cut, info),
    "ShortObs": lambda obs, *rest: (obs[:1], *rest),
    "WordObs": lambda obs, *rest: ("here", *rest),
    "NoObs": lambda obs, *rest: (None, *rest),
    "RewardArray": lambda obs, reward, *rest: (obs, np.array([reward]), *rest),
    "NoReward": lambda obs, reward, *rest: (obs, None, *rest),
    "NoInfo": lambda obs, reward, ended, cut, info: (obs, reward, ended, cut, None),
    "EndedNone": lambda obs, reward, ended, cut, info: (obs, reward, None, cut, info),
    "NanSuccess": lambda *step: (*step[:4], {"success": float("nan")}),
    "ArraySuccess": lambda *step: (*step[:4], {"is_success": np.array([True])}),
    "AtEnd": lambda *step: (*step[:4], {"success": True} if step[2] else {}),
    "NotAtEnd": lambda *step: (*step[:4], {} if step[2] else {"success": True}),
    "Plain": lambda *step: step,
}


class Odd(Pendulum):
    habit = "Plain"

    def step(self, action):
        return SPOIL[self.habit](*super().step(action))


class OldReset(Pendulum):
    def reset(self, **options):
        return super().reset(**options)[0]


class Curriculum(Pendulum):
    total = 0

    def step(self, action):
        self.total += 1
        obs, reward, *rest = super().step(action)
        return (obs, reward * min(1.0, self.total / 1000), *rest)


class Falls(Pendulum):
    def step(self, action):
        raise KeyError("motor")


for name in SPOIL:
    gymnasium.register(f"{name}-v0", entry_point=type(name, (Odd,), {"habit": name}), max_episode_steps=200)
for kind in (OldReset, Curriculum, Falls):
    gymnasium.register(f"{kind.__name__}-v0", entry_point=kind, max_episode_steps=200)
timed = WrapperSpec("TimeAwareObservation", "gymnasium.wrappers:TimeAwareObservation", {})
gymnasium.register("Timed-v0", entry_point=Pendulum, max_episode_steps=50, additional_wrappers=(timed,))
"""


@pytest.fixture(autouse=True)
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of a user's own, on the import path, whose environments are gone again afterwards."""
    (tmp_path / f"{MODULE}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(gymnasium.registry)
    yield
    sys.modules.pop(MODULE, None)
    gymnasium.registry.clear()
    gymnasium.registry.update(before)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "FourValues",
            "step must return observation, reward, terminated, truncated and info, and returns a tuple of 4",
        ),
        ("OldReset", "reset must return observation and info, and returns an array of shape (4,)"),
        ("ShortObs", "step must return an observation of 4 numbers"),
        ("WordObs", "step must return an observation of 4 numbers"),
        ("NoObs", "step must return an observation of 4 numbers"),
        ("RewardArray", "one number as reward, and returns an array of shape (1,)"),
        ("NoReward", "one number as reward, and returns None"),
        ("NoInfo", "a dictionary as info, and returns None"),
        ("EndedNone", "true or false as terminated, and returns None"),
        ("NanSuccess", "true or false as info['success'], and returns nan"),
        ("ArraySuccess", "true or false as info['is_success'], and returns an array of shape (1,)"),
        ("Curriculum", "its 'total' survives a reset"),
        ("Falls", "step fails: KeyError: 'motor'"),
    ],
)
def test_answers_that_do_not_fit_the_spaces_are_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(UserError) as error:
        open_simulator(f"{MODULE}:{name}-v0")
    assert reason in str(error.value)
    assert f"env.id={MODULE}:{name}-v0" in str(error.value)
    assert "\n" not in str(error.value)


def test_such_an_environment_ends_a_training_in_one_line_and_leaves_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "env=gymnasium",
        f"env.id={MODULE}:ShortObs-v0",
        "rollout.label_horizon=30",
        f"out={tmp_path / 'runs'}",
    ]
    assert main(["train", *words, "logger.wandb=disabled"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "an observation of 4 numbers" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("name", "ever", "last"), [("AtEnd", True, True), ("NotAtEnd", True, False)])
def test_success_is_what_the_steps_say_and_silence_is_none(name: str, ever: bool, last: bool) -> None:
    result = play(lambda obs: np.full((len(obs), 1), 3.0), open_simulator(f"{MODULE}:{name}-v0"), 3, 0)
    assert (result.lengths < 200).all()  # each ends by falling
    assert result.success is not None
    assert result.success.tolist() == [[ever, last]] * 3


def test_an_environment_that_never_speaks_of_success_has_none() -> None:
    result = play(lambda obs: np.full((len(obs), 1), 3.0), open_simulator(f"{MODULE}:Plain-v0"), 3, 0)
    assert result.success is None


def test_an_environment_may_observe_the_time_that_is_left() -> None:
    simulator = open_simulator(f"{MODULE}:Timed-v0")
    assert simulator.spec.horizon == 50
    states = simulator.reset(2, np.random.default_rng(0))
    first = simulator.step(states, np.zeros((2, 1)))
    again = simulator.step(states, np.zeros((2, 1)))
    second = simulator.step(first.states, np.zeros((2, 1)))
    assert np.array_equal(first.states.obs, again.states.obs)  # a fork goes on from its own time
    assert (second.states.obs - first.states.obs)[:, -1] == pytest.approx(1.0)


def test_success_that_is_told_later_gets_its_columns_then_and_they_outlast_a_checkpoint(
    tmp_path: Path,
) -> None:
    (job,) = compose_jobs(["logger.wandb=disabled", f"out={tmp_path}"]).jobs
    place = {"env_steps": 0, "labels": 0}
    state = {"score": 0.0, "clock": {}, "algorithm": {}}
    late = np.array([[True, False]])
    run = open_run(job.config, [])
    logger = Logger(run, job.config)
    logger.evaluation(**place, iteration=0, returns=[1.0], lengths=[5])
    logger.log({**place, "iteration": 1})
    run.keep({"iteration": 1, **state})
    logger.evaluation(**place, iteration=2, returns=[2.0], lengths=[5], success=late)
    logger.fail(KeyboardInterrupt())
    run = open_run(job.config, [])  # goes on from before the columns came
    with Logger(run, job.config) as logger:
        logger.evaluation(**place, iteration=2, returns=[2.0], lengths=[5], success=late)
        logger.evaluation(**place, iteration=3, returns=[3.0], lengths=[5])
        logger.finish({})
    table = load_run(run.path).evaluations
    assert tuple(table.columns) == EVALUATION_COLUMNS + SUCCESS_COLUMNS
    assert table[["iteration", *SUCCESS_COLUMNS]].to_numpy().tolist() == [[0, 0, 0], [2, 1, 0], [3, 0, 0]]
