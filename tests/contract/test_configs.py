"""Contracts of ``conf/``: every option works with every task, every value is declared and explained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sailctl.config import GROUPS, RUNS, conf_dir, kind_of, leaf_types, meanings, read_option, recorded
from sailctl.config.options import defaults_of
from sailctl.core.tasks import forks_anywhere, known_tasks
from sailctl.core.types import UserError
from sailctl.gate import golden
from sailctl.policies.references import read_references
from sailctl.sweeps.compose import compose_jobs, describe

CONF = conf_dir()
FILES = sorted(CONF.rglob("*.yaml"))
OPTIONS = [
    f"{group}={file.stem}"
    for group in (*GROUPS, "experiment")
    for file in sorted((CONF / group).glob("*.yaml"))
    if group != "env"
]


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def values_of(file: Path) -> dict[str, Any]:
    """Values that a file sets; how it composes (``defaults``, ``hydra``) is not a value of a run."""
    tree = yaml.safe_load(file.read_text())
    return leaves({key: value for key, value in tree.items() if key not in ("defaults", "hydra")})


def name_of(file: Path) -> str:
    return str(file.relative_to(CONF))


def test_every_task_has_its_file_and_every_folder_is_a_group() -> None:
    assert {file.stem for file in (CONF / "env").glob("*.yaml")} == {*known_tasks(), "gymnasium"}
    assert {folder.name for folder in CONF.iterdir() if folder.is_dir()} == {*GROUPS, "experiment", "hydra"}


def needs_data(option: str) -> bool:
    """Whether an option is an algorithm that asks for a data set."""
    group, name = option.split("=")
    return group == "algo" and golden.needs_data(read_option(group, name, [CONF]))


def kind_of_file(file: Path) -> str:
    """What an algorithm is built on, which decides its keys: a key of RUNS."""
    values = read_option("algo", file.stem, [CONF])
    return kind_of(values.get("responses"), values.get("learner"))


ON_SEGMENTS = ("experiment=value", "experiment=alignment_segments")
"""Experiments with settings of the algorithms on segments; all layouts of segments are theirs too."""
FROM_REFERENCE = ("experiment=alignment", "experiment=alignment_segments", "experiment=demo")
"""Experiments that start from the medium reference policy of the task."""


def companions(option: str) -> list[str]:
    """The algorithm without which an option has no meaning."""
    needed = option in ON_SEGMENTS or option.startswith("rollout=")
    return ["algo=sail_revkl_segments"] if needed else []


@pytest.mark.parametrize("task", known_tasks())
def test_every_task_composes_and_validates(task: str) -> None:
    starts = [] if forks_anywhere(task) else ["rollout.start_fraction=1"]
    (job,) = compose_jobs([f"env={task}", *starts]).jobs
    assert job.config.env.id == task


# One long episode and one shorter than the default windows: options and tasks meet in the lengths alone.
@pytest.mark.parametrize("task", ["hopper-v5", "reacher-v5"])
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_validates_with_tasks(option: str, task: str) -> None:
    more = [f"algo.data={__file__}"] if needs_data(option) else []  # composing looks whether there is a file
    more += companions(option)
    if option in FROM_REFERENCE and task not in read_references():
        with pytest.raises(UserError, match=f"there is no medium reference policy of {task}"):
            compose_jobs([option, f"env={task}", *more])
        more += ["algo.reference=initial"]
    (job,) = compose_jobs([option, f"env={task}", *more]).jobs
    assert job.config.env.id == task
    group, name = option.split("=")
    if group == "algo":
        assert job.config.algo.name == name


def test_an_algorithm_that_learns_from_data_asks_for_them() -> None:
    asking = [option for option in OPTIONS if needs_data(option)]
    assert set(asking) == {"algo=dpo_offline", "algo=sail_ddp", "algo=sail_dpp", "algo=sail_dpr"}
    for option in asking:
        with pytest.raises(UserError, match=r"algo\.data must be a data set of preferences"):
            compose_jobs([option])


def test_baselines_are_told_from_the_algorithms_of_the_suite() -> None:
    found = {file.stem: kind_of_file(file) for file in (CONF / "algo").glob("*.yaml")}
    built_on = {name: kind for name, kind in found.items() if kind in ("ppo", "sac")}
    assert built_on == {
        "ppo": "ppo",
        "rlhf_ppo": "ppo",
        "sac": "sac",
        "pebble": "sac",
        "sail_mujoco_parity": "sac",
    }


def test_ppo_on_a_learned_reward_has_the_settings_of_ppo() -> None:
    plain, learned = (read_option("algo", name, [CONF]) for name in ("ppo", "rlhf_ppo"))
    own = {"name", "reward", "initial_queries", "queries", "query_interval", "selection", "learning_starts"}
    assert {key for key in learned if learned[key] != plain[key]} == own


def test_each_algorithm_on_actions_has_its_form_on_segments() -> None:
    found = {file.stem: kind_of_file(file) for file in (CONF / "algo").glob("*.yaml")}
    on_actions = {name for name, kind in found.items() if kind == "actions"}
    assert on_actions == {"sail", "sail_revkl", "sail_robust", "dpo_online"}
    assert all(found[f"{name}_segments"] == "segments" for name in on_actions)


@pytest.mark.parametrize(
    "option",
    [
        f"algo={file.stem}"
        for file in sorted((CONF / "algo").glob("*.yaml"))
        if kind_of_file(file) in ("segments", "actions")
    ],
)
def test_the_penalties_compose_with_every_algorithm(option: str) -> None:
    data = [f"algo.data={__file__}"] if needs_data(option) else []
    (job,) = compose_jobs([option, *data, "algo.gamma=0.5", "algo.radius=20", "algo.rho=0.1"]).jobs
    assert (job.config.algo.gamma, job.config.algo.rho) == (0.5, 0.1)


@pytest.mark.parametrize("kind", [*RUNS, *GROUPS[1:], "run"])
def test_every_setting_has_a_meaning(kind: str) -> None:
    group = "algo" if kind in RUNS else kind
    runs = (RUNS[kind],) if kind in RUNS else ()
    prefix = "" if kind == "run" else f"{group}."
    wanted = [key.removeprefix(prefix) for key in leaf_types(*runs) if key.rpartition(".")[0] == prefix[:-1]]
    assert sorted(meanings(kind)) == sorted(wanted)
    assert all(meanings(kind).values())


@pytest.mark.parametrize("file", [file for file in FILES if file.parent.name in GROUPS], ids=name_of)
def test_an_option_sets_what_makes_it_differ_and_nothing_else(file: Path) -> None:
    kind = kind_of_file(file) if file.parent.name == "algo" else file.parent.name
    defaults = defaults_of(kind)
    assert set(values_of(file)) <= set(defaults)
    repeated = {key for key, value in values_of(file).items() if value == defaults[key] and value != "???"}
    assert not repeated, f"{sorted(repeated)} are as in the dataclass"


def test_config_yaml_sets_exactly_the_top_level_fields() -> None:
    assert list(values_of(CONF / "config.yaml")) == [key for key in leaf_types() if "." not in key]


@pytest.mark.parametrize("file", sorted((CONF / "experiment").glob("*.yaml")), ids=name_of)
def test_an_experiment_only_sets_declared_keys(file: Path) -> None:
    assert set(values_of(file)) <= set(leaf_types())


def test_config_yaml_stays_short() -> None:
    assert len((CONF / "config.yaml").read_text().splitlines()) <= 20


@pytest.mark.parametrize(
    "overrides",
    [(), ("experiment=demo",), ("algo=ppo",), ("rollout=episodes", "policy=linear", "algo=sail_segments")],
)
def test_describe_is_yaml_with_a_comment_on_every_value(overrides: tuple[str, ...]) -> None:
    (job,) = compose_jobs(overrides).jobs
    text = describe(job.composed, job.composed.hydra.runtime.choices)
    shown = {key: value for key, value in recorded(job.config).items() if value != {}}
    assert yaml.safe_load(text) == shown
    lines = [
        line for line in text.splitlines() if re.fullmatch(r" *[\w]+: \S.*", line) and ":  # " not in line
    ]
    assert len(lines) == len(leaves(shown))
    assert not [line for line in lines if "  # " not in line]


def test_describe_names_what_was_chosen() -> None:
    (job,) = compose_jobs(["algo=sail", "experiment=demo"]).jobs
    text = describe(job.composed, job.composed.hydra.runtime.choices)
    assert text.startswith("# experiment=demo\n")
    assert "algo:  # algo=sail\n" in text
    assert re.search(r"^  lr: 0\.001 +# learning rate of the actor \(Adam\)$", text, re.MULTILINE)
    assert re.search(r"^seed: 0 +# every random draw of the run follows from this$", text, re.MULTILINE)
