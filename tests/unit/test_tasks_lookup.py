"""Looking a task up: its horizon, whether it forks anywhere, and one clear line where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

from sailctl.config import segment_lengths
from sailctl.core import tasks
from sailctl.core.types import UserError
from sailctl.simulator.registry import open_simulator
from sailctl.sweeps.compose import compose_jobs
from sailctl_envs import ALL_TASKS


def test_our_tasks_come_first_and_have_their_own_horizon() -> None:
    assert tasks.known_tasks()[: len(ALL_TASKS)] == tuple(ALL_TASKS)
    assert tasks.horizon("reacher-v5") == 50
    assert tasks.horizon("door-open-v3") == 500


@pytest.mark.parametrize("name", ["Hopper-v5", "Reacher-v5", "Pusher-v4"])
def test_the_horizon_of_any_other_task_is_that_of_its_registration(name: str) -> None:
    assert tasks.horizon(name) == gymnasium.spec(name).max_episode_steps


def test_only_metaworld_forks_at_starts_alone() -> None:
    assert [name for name in tasks.known_tasks() if not tasks.forks_anywhere(name)] == list(tasks.METAWORLD)
    assert tasks.forks_anywhere("Hopper-v5")


def test_looking_up_known_tasks_imports_neither_gymnasium_nor_mujoco() -> None:
    code = (
        "import sys; from sailctl.core import tasks\n"
        "for name in tasks.known_tasks(): tasks.horizon(name)\n"
        "print(*[name for name in ('gymnasium', 'mujoco', 'envpool', 'dm_control') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hoper-v5", "did you mean 'hopper-v5'?"),
        ("door-opn-v3", "did you mean 'door-open-v3'?"),
        ("Hoper-v5", "did you mean 'Hopper-v5'?"),
        ("CHEETAH_RUM", "did you mean 'cheetah_run'?"),
        ("no_such_module:Some-v0", "importing no_such_module fails"),
        ("gymnasium:Hoper-v5", "did you mean 'Hopper-v5'?"),
    ],
)
def test_an_unknown_task_is_refused_with_the_nearest_known_name(name: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        tasks.horizon(name)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_task_without_time_limit_is_refused() -> None:
    gymnasium.register("Endless-v0", entry_point="gymnasium.envs.mujoco.hopper_v5:HopperEnv")
    try:
        with pytest.raises(UserError, match=r"env\.id=Endless-v0 has no time limit: .*max_episode_steps"):
            tasks.horizon("Endless-v0")
    finally:
        del gymnasium.registry["Endless-v0"]


def test_the_group_gymnasium_takes_any_id_and_checks_lengths_against_its_horizon() -> None:
    (job,) = compose_jobs(["env=gymnasium", "env.id=Pusher-v5", "rollout.label_horizon=null"]).jobs
    assert segment_lengths(job.config) == (25, 100)
    assert compose_jobs(["env=gymnasium", "env.id=Reacher-v5"]).jobs, "without segments any horizon fits"
    with pytest.raises(UserError, match=r"env\.id has no value; set it with env\.id="):
        compose_jobs(["env=gymnasium"])
    with pytest.raises(
        UserError, match=r"rollout.label_horizon must be from 25 .* to 50 \(an episode of Reacher-v5\)"
    ):
        compose_jobs(["algo=sail_segments", "env=gymnasium", "env.id=Reacher-v5"])


@pytest.mark.parametrize("task", sorted(tasks.METAWORLD))
def test_metaworld_asks_for_prompts_that_are_starts(task: str) -> None:
    with pytest.raises(UserError, match=r"rollout\.start_fraction must be 1 with .*, got 0.5"):
        compose_jobs(["algo=sail_segments", f"env={task}"])
    words = ["algo=sail_segments", f"env={task}", "rollout.start_fraction=1", "rollout.label_horizon=null"]
    (job,) = compose_jobs(words).jobs
    assert segment_lengths(job.config) == (25, 500)
    (job,) = compose_jobs(["experiment=metaworld", f"env={task}"]).jobs
    assert (job.config.env.id, job.config.rollout.start_fraction) == (task, 1.0)


def test_baselines_that_fork_nothing_train_on_metaworld_as_it_is() -> None:
    (job,) = compose_jobs(["env=door-open-v3", "algo=ppo"]).jobs
    assert job.config.env.id == "door-open-v3"


@pytest.mark.parametrize(
    ("task", "package", "says"),
    [
        ("door-open-v3", "envpool", "door-open-v3 needs EnvPool: pip install 'sailctl[metaworld]'"),
        ("walker_walk", "dm_control", "walker_walk needs dm_control: pip install 'sailctl[dmc]'"),
    ],
)
def test_a_missing_extra_is_named(
    task: str, package: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [place for place in sys.path if not (Path(place) / package).exists()]
    monkeypatch.setattr(sys, "path", kept)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError) as error:
        open_simulator(task)
    assert str(error.value) == says
