"""The configuration: every bad input is one clear line, and a run's name stands for its numbers."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sailctl.config import (
    ActionsRun,
    Config,
    conf_dir,
    leaf_types,
    recorded,
    run_id,
    segment_lengths,
    to_config,
    to_yaml,
    validate,
)
from sailctl.config.convert import NUMBERS
from sailctl.core.types import UserError
from sailctl.runs.recorder import open_run
from sailctl.sweeps.compose import compose_jobs, describe, quoted
from sailctl.sweeps.listing import jobs_in, record_launch
from sailctl_envs import ALL_TASKS


def composed(*overrides: str) -> Config:
    return compose_jobs(overrides).jobs[0].config


BAD = [
    # keys
    ("algo.gama=1", "unknown key 'algo.gama'; did you mean 'algo.gamma'?"),
    ("gamma=1", "unknown key 'gamma'; did you mean 'algo.gamma'?"),
    ("env_step=3", "did you mean 'env_steps'?"),
    ("zzz=3", "unknown key 'zzz'; sailctl train --cfg job lists all keys"),
    ("policy.hiden=3", "did you mean 'policy.hidden'?"),
    ("policy.hidden.1=3", "unknown key 'policy.hidden.1'; did you mean 'policy.hidden'?"),
    ("algo@other=sail", "unknown key 'algo@other'"),
    ("env/foo=3", "unknown key 'env/foo'"),
    ("=3", "unknown key ''"),
    ("hydra.foo=3", "unknown key 'hydra.foo'"),
    # options of a group
    (
        "algo=sial",
        "unknown algo 'sial'; did you mean 'sail'? (known: dpo_offline, dpo_online, dpo_online_segments",
    ),
    ("env=hoper-v5", "did you mean 'hopper-v5'?"),
    ("experiment=dmeo", "unknown experiment 'dmeo'; did you mean 'demo'?"),
    (
        "hydra/launcher=zz",
        "unknown hydra/launcher 'zz' (known: basic, joblib, local, ray_tasks, slurm)",
    ),
    ("algo=null", "algo takes the name of a file in conf/algo, got null"),
    ("algo=[sail]", "algo takes the name of a file"),
    ("algo={beta: 3}", "algo takes the name of a file"),
    # words that are not overrides of ours
    ("algo", "cannot read 'algo'; write key=value"),
    ("algo.gamma=[1", "cannot read 'algo.gamma=[1'"),
    ("out=a(b", """quote a value with special characters: "out='a(b'\""""),
    ("+algo.x=1", "'+algo.x=1' would add or delete a key"),
    ("++algo.beta=1", "would add or delete a key"),
    ("~algo.beta", "would add or delete a key"),
    ("~algo", "would add or delete a key"),
    ("seed=0,1", "'seed=0,1' holds several values; add -m to run one job for each"),
    ("policy.hidden=64,64", "or write policy.hidden=[...] for a list"),
    ("seed=range(3)", "holds several values"),
    ("hydra.searchpath=[x]", "hydra.searchpath is set by --config-dir FOLDER"),
    ("hydra.mode=FOO", "the configuration cannot be composed"),
    # types
    ("algo.gamma=abc", "algo.gamma must be a number, got 'abc'"),
    ("algo.beta=", "algo.beta must be a number, got ''"),
    ("algo.beta={a: 3}", "algo.beta must be a number"),
    ("seed=1.5", "seed must be a whole number, got 1.5"),
    ("env_steps=1.5e0", "env_steps must be a whole number, got 1.5"),
    ("algo=SAIL", "unknown algo 'SAIL'; did you mean 'sail'?"),
    ("env=gymnasium env.id=CHEETAH_RUN", "did you mean 'cheetah_run'?"),
    ("seed=true", "seed must be a whole number, got true"),
    ("seed=null", "seed must be a whole number, got null"),
    ("oracle.budget=many", "oracle.budget must be a whole number or null, got 'many'"),
    ("algo=sail algo.queries=many", "algo.queries must be a whole number, got 'many'"),
    ("policy.learn_std=perhaps", "policy.learn_std must be true or false, got 'perhaps'"),
    ("policy.hidden=3", "policy.hidden must be a list of whole numbers, such as [64, 64], got 3"),
    ("policy.hidden=[a]", "policy.hidden must be a list of whole numbers"),
    ("algo.name=null", "algo.name must be a word, got null"),
    ("algo.beta=???", "algo.beta has no value; set it with algo.beta=..."),
    ("algo.beta=${nope}", "algo.beta cannot be resolved: Interpolation key 'nope' not found"),
    ("algo.beta=${algo.beta}", "algo.beta cannot be resolved"),
    ("threads=${oc.env:SAILCTL_IS_NOT_SET}", "threads cannot be resolved"),
    # values
    ("env.id=hoper-v5", "got 'hoper-v5'; did you mean 'hopper-v5'?"),
    ("rollout.pairing=froked", "must be forked or unrelated or ranked, got 'froked'; did you mean 'forked'?"),
    ("algo=sail_segments algo.responses=model", "algo.responses must be segments or data, got 'model'"),
    ("algo=sail algo.responses=model", "algo.responses must be actions with algo=sail, got 'model'"),
    (
        "algo=sail algo.responses=segments",
        "algo.responses must be actions with algo=sail, got 'segments'; for segments use algo=sail_segments",
    ),
    ("algo.responses=segments", "for segments use algo=sail_revkl_segments"),
    (
        "algo=sail_segments algo.responses=actions",
        "algo.responses must be segments or data with algo=sail_segments, got 'actions'; "
        "for actions use algo=sail",
    ),
    (
        f"algo=sail_dpp algo.data={__file__} algo.responses=actions",
        "algo.responses must be segments or data with algo=sail_dpp, got 'actions'",
    ),
    # settings of another kind of run
    ("algo=sail algo.epochs=3", "algo.epochs is no setting of algo=sail; sail_segments has it: "),
    ("algo.minibatches=2", "algo.minibatches is no setting of algo=sail_revkl; sail_revkl_seg"),
    ("algo=dpo_online_segments algo.kappa=0", "of algo=dpo_online_segments; dpo_online has it: "),
    ("algo=ppo algo.kappa=0", "algo.kappa is no setting of algo=ppo: sailctl train --cfg job"),
    ("experiment=value", "of algo=sail_revkl; sail_revkl_segments has it: "),
    ("experiment=alignment algo=sail_segments", "of algo=sail_segments; sail has it: "),
    # values of SAIL on actions
    ("algo.gradient=both", "algo.gradient must be pathwise or score, got 'both'"),
    ("algo.comparison=triples", "algo.comparison must be pairs or ranking"),
    ("algo.reward='true'", "algo.reward must be model or teacher, got 'true'"),
    ("algo.actions=1", "algo.actions must be at least 2, got 1"),
    ("algo.kappa=0", "algo.kappa must be above 0 with algo.gradient=pathwise"),
    ("algo.kappa=-1 algo.gradient=score", "algo.kappa must be 0 or more"),
    ("algo.comparison=ranking", "algo.comparison must be pairs with algo.gradient=pathwise"),
    (
        "algo.comparison=ranking algo.gradient=score algo.rho=0.1",
        "algo.worst_case must be contaminated with algo.comparison=ranking",
    ),
    ("algo.recent=0", "algo.recent must be at least 1, got 0"),
    ("algo=sail_segments algo.observe=-1", "algo.observe must be 0 or more, got -1"),
    ("algo.window=1001", "algo.window must be at most 1000 (an episode)"),
    ("algo.hidden=[]", "algo.hidden must be at least one width"),
    ("algo.initial_queries=0", "algo.initial_queries must be at least 1 with algo.reward=model"),
    ("oracle.budget=100", "oracle.budget must be at least algo.initial_queries=200, got 100"),
    ("env.discount=1", "env.discount must be below 1"),
    ("algo.average=0", "algo.average must be above 0"),
    ("algo.least_std=0", "algo.least_std must be above 0"),
    (
        "algo=sail_segments algo.labels=god",
        "algo.labels must be teacher or reward_model or policy, got 'god'",
    ),
    ("algo.selection=best", "algo.selection must be uniform or disagreement"),
    ("algo.worst_case=worse", "algo.worst_case must be exact or clipped or contaminated"),
    ("algo=sail_segments algo.step=proximal", "algo.step is gone: all runs do what 'gradient' did"),
    ("policy.kind=cnn", "policy.kind must be mlp or relu or linear or squashed"),
    ("algo.kl=reverse", "algo.kl must be kl_ref_pi or kl_pi_ref"),
    ("algo.baseline=mean", "algo.baseline must be leave_one_out or none"),
    ("algo=sail_segments algo.optimiser=rmsprop", "algo.optimiser must be adam or sgd"),
    ("logger.wandb=on", "logger.wandb must be offline or online or disabled"),
    ("logger.project=", "logger.project must be a name"),
    ("algo.beta=-1", "algo.beta must be above 0, got -1.0"),
    ("algo.beta=0", "algo.beta must be above 0"),
    ("algo.lr=0", "algo.lr must be above 0"),
    ("algo.c=-0.1", "algo.c must be 0 or more"),
    ("algo.gamma=-0.1", "algo.gamma must be 0 or more"),
    ("algo.radius=0", "algo.radius must be above 0"),
    ("algo.max_grad_norm=-1", "algo.max_grad_norm must be above 0"),
    ("algo.reference_interval=-1", "algo.reference_interval must be 0 or more"),
    ("algo=sail_segments algo.epochs=0", "algo.epochs must be at least 1"),
    ("algo=sail_segments algo.minibatches=0", "algo.minibatches must be at least 1"),
    (
        "algo=sail_segments algo.minibatches=5",
        "algo.minibatches must be a divisor of rollout.prompts=64, got 5",
    ),
    ("algo.name=a/b", "algo.name must be a plain word"),
    ("algo.name=", "algo.name must be a plain word"),
    ("algo.reference=nowhere", "algo.reference must be initial, weak, medium, expert, or a run directory"),
    ("oracle.budget=0", "oracle.budget must be at least 1"),
    ("oracle.tie_margin=-1", "oracle.tie_margin must be 0 or more"),
    ("oracle.inverse_temperature=0", "oracle.inverse_temperature must be above 0"),
    ("oracle.discount=0", "oracle.discount must be above 0"),
    ("oracle.discount=1.1", "oracle.discount must be above 0 and at most 1, got 1.1"),
    ("oracle.mistake=2", "oracle.mistake must be from 0 to 1"),
    ("oracle.rho=-0.1", "oracle.rho must be from 0 to 1"),
    ("oracle.skip=-1", "oracle.skip must be 0 or more"),
    ("oracle.equal=-1", "oracle.equal must be 0 or more"),
    (
        "algo=sail_segments oracle=skip rollout.start_fraction=1",
        "rollout.start_fraction must be below 1 with oracle.skip or",
    ),
    ("algo=sail_segments algo.w=1.5", "algo.w must be from 0 to 1"),
    ("algo.rho=0.5", "algo.rho must be below 0.5"),
    ("algo.rho=-0.1", "algo.rho must be 0 or more"),
    ("algo.queries=-1", "algo.queries must be 0 or more"),
    ("algo=sail_segments algo.queries=0", "algo.queries must be above 0 with algo.labels=teacher"),
    (
        "algo=sail_segments algo.labels=reward_model algo.queries=0",
        "algo.queries must be above 0 without algo.data",
    ),
    ("algo=sail_segments algo.iterations=0", "algo.iterations must be at least 1"),
    ("evaluation.iterations=0", "evaluation.iterations must be at least 1"),
    (
        "algo=sail_ddp",
        "algo.data must be a data set of preferences with algo=",
    ),
    (
        "algo=sail_segments algo.w=0.5",
        "algo.data must be a data set of preferences with algo=",
    ),
    (
        "algo=sail_segments algo.responses=data",
        "algo.data must be a data set of preferences with algo=sail_segments",
    ),
    (
        "algo=sail_segments algo.w=0.5 algo.data=nowhere",
        "algo.data must be an existing file, as `sailctl collect` makes it",
    ),
    (
        f"algo=sail_segments algo.w=0 algo.data={__file__}",
        "algo.iterations must be a number: this run simulates nothing",
    ),
    (
        f"algo=sail_ddp algo.data={__file__} algo.labels=reward_model",
        "algo.responses must be segments with algo.labels=reward_model",
    ),
    (
        "algo=sail_segments rollout=ranked algo.labels=reward_model",
        "algo.labels must be teacher with rollout.pairing=ranked",
    ),
    (
        "algo=sail_segments rollout=ranked algo.rho=0.1",
        "algo.worst_case must be contaminated with rollout.pairing=ranked",
    ),
    (
        "algo=sail_segments rollout=ranked algo.queries=3 algo.selection=entropy",
        "algo.selection must be uniform with rollout",
    ),
    (
        "algo=sail_segments rollout=ranked oracle.mistake=0.1",
        "oracle.mistake must be 0 with rollout.pairing=ranked",
    ),
    (
        "algo=sail_segments rollout=ranked oracle.budget=2",
        "oracle.budget must be at least 3, what one ranking costs, got 2",
    ),
    (
        "algo=sail_segments rollout=ranked oracle=worst_case",
        "oracle.rho must be 0 with rollout.pairing=ranked",
    ),
    ("reward.members=0", "reward.members must be at least 1"),
    ("reward.epochs=0", "reward.epochs must be at least 1"),
    ("reward.batch=0", "reward.batch must be at least 1"),
    ("reward.lr=0", "reward.lr must be above 0"),
    ("reward.hidden=[]", "reward.hidden must be at least one width"),
    ("reward.hidden=[0]", "reward.hidden must be widths of at least 1"),
    ("rollout.prompts=0", "rollout.prompts must be at least 1"),
    ("rollout.forks=1", "rollout.forks must be at least 2"),
    (
        "algo=sail_segments rollout=unrelated rollout.forks=4",
        "rollout.forks must be 2 when rollout.pairing=unrelated",
    ),
    ("algo=sail_segments rollout=unrelated rollout.prompts=1", "rollout.prompts must be at least 2"),
    ("rollout.start_fraction=1.1", "rollout.start_fraction must be from 0 to 1"),
    ("rollout.restart=1.5", "rollout.restart must be from 0 to 1"),
    ("reward.steps=0", "reward.steps must be at least 1"),
    ("reward.start=-1", "reward.start must be 0 or more"),
    ("reward.value_horizon=-1", "reward.value_horizon must be 0 or more"),
    ("reward.gae_lambda=1.1", "reward.gae_lambda must be from 0 to 1"),
    ("reward.questions=all", "reward.questions must be forked or unrelated, got 'all'"),
    ("rollout.start_fraction=-0.1", "rollout.start_fraction must be from 0 to 1"),
    (
        "algo=sail_segments rollout.segment_length=0",
        "rollout.segment_length must be from 1 to 1000 (an episode of halfcheetah-v5), got 0",
    ),
    (
        "algo=sail_segments rollout.segment_length=1001 rollout.label_horizon=null",
        "rollout.segment_length must be from 1 to 1000",
    ),
    (
        "algo=sail_segments env=reacher-v5 rollout.segment_length=51",
        "rollout.segment_length must be from 1 to 50",
    ),
    (
        "algo=sail_segments rollout.segment_length=50 rollout.label_horizon=49",
        "rollout.label_horizon must be from 50 (rollout.segment_length) to 1000",
    ),
    (
        "algo=sail_segments rollout.segment_length=50 rollout.label_horizon=1001",
        "rollout.label_horizon must be from 50",
    ),
    ("policy.hidden=[]", "policy.hidden must be at least one width"),
    ("policy.hidden=[64,0]", "policy.hidden must be widths of at least 1"),
    ("policy.features=8", "policy.features must be 0 unless policy.kind=linear"),
    ("policy=linear policy.features=-1", "policy.features must be 0 or more"),
    ("policy.initial_std=0", "policy.initial_std must be above 0"),
    ("evaluation.every=0", "evaluation.every must be at least 1"),
    ("evaluation.episodes=0", "evaluation.episodes must be at least 1"),
    ("evaluation.seed=-1", "evaluation.seed must be 0 or more"),
    ("seed=-1", "seed must be 0 or more"),
    ("env_steps=0", "env_steps must be at least 1"),
    ("threads=0", "threads must be at least 1"),
    ("out=", "out must be a folder"),
    (
        "logger.project=a/b",
        "logger.project must be a name that W&B allows: at most 128 characters, and none of /",
    ),
    (f"logger.project={'p' * 129}", "logger.project must be a name that W&B allows: at most 128 characters"),
    ("algo=ppo algo.batch=1", "algo.batch must be at least 2 with PPO"),
    ("algo=rlhf_ppo algo.batch=1", "algo.batch must be at least 2 with PPO"),
    (
        "algo=sac env_steps=10000",
        "env_steps must be above algo.learning_starts=10000, before which nothing is learned, got 10000",
    ),
    ("algo=pebble env_steps=900", "env_steps must be above algo.learning_starts=1000"),
    ("algo.lr=nan", "algo.lr must be a finite number, got nan"),
    ("algo.gamma=inf", "algo.gamma must be a finite number, got inf"),
    ("algo.lr=1e39", "algo.lr must be a finite number, got 1e+39"),
    ("algo.beta=1e400", "algo.beta must be a finite number"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD, ids=[overrides for overrides, _ in BAD])
def test_bad_input_is_one_line_that_names_key_and_value(overrides: str, message: str) -> None:
    # A brace needs its space, so only plain words are split.
    words = [overrides] if "{" in overrides else overrides.split()
    with pytest.raises(UserError) as caught:
        compose_jobs(words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_SWEEPS = [
    ("seed=0,1 algo.beta=0.1,-1", "algo.beta must be above 0, got -1.0"),
    ("algo=sail,sial", "unknown algo 'sial'"),
    ("seed=0,1,0", "the sweep contains the same run twice: 'seed=0' and 'seed=0'"),
    ("threads=1,2", "the sweep contains the same run twice: 'threads=1' and 'threads=2'"),
    ("seed=interval(0,1)", "this sweep cannot be enumerated"),
    ("seed=glob(*)", "the sweep is empty"),
    ("hydra.launcher.n_jobs=1,2", "Hydra's own options take one"),
    ("hydra/sweeper=foo", "unknown hydra/sweeper 'foo'"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD_SWEEPS, ids=[overrides for overrides, _ in BAD_SWEEPS])
def test_bad_sweep_is_refused_before_its_first_job(overrides: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        compose_jobs(overrides.split(), multirun=True)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("read", "unread"),
    [
        ("algo=ppo", "rollout.segment_length=5000"),
        ("algo=ppo", "reward.hidden=[]"),
        ("algo=sac", "policy.features=8 policy.hidden=[]"),
        ("algo=pebble oracle=mistake", "rollout=ranked"),
        ("algo=sail", "rollout=unrelated rollout.forks=4"),
        ("env=door-open-v3 oracle=skip", "experiment=metaworld"),
    ],
)
def test_what_a_run_does_not_read_need_not_fit(read: str, unread: str) -> None:
    assert run_id(composed(*read.split(), *unread.split())) == run_id(composed(*read.split()))


def test_out_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="out must be a folder, and there is a file of this name"):
        composed(f"out={tmp_path / 'file'}")


@pytest.mark.parametrize("place", ["policy.json", "policy/policy.json"])
def test_reference_is_a_policy_folder_or_a_run(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    assert composed(f"algo.reference={tmp_path}").algo.reference == str(tmp_path)


def test_run_id_knows_what_is_in_the_reference_and_not_where_it_lies(tmp_path: Path) -> None:
    for place, content in (("one", "a"), ("moved", "a"), ("other", "b")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "policy.json").write_text(content)
    one, moved, other = (
        run_id(composed(f"algo.reference={tmp_path / p}")) for p in ("one", "moved", "other")
    )
    assert one == moved
    assert len({one, other, run_id(composed())}) == 3


@pytest.mark.parametrize("field", ["algo.beta", "algo.radius", "rollout.start_fraction", "oracle.tie_margin"])
def test_validate_refuses_nan_in_objects_built_by_hand(field: str) -> None:
    group, name = field.split(".")
    config = composed()
    broken = dataclasses.replace(getattr(config, group), **{name: float("nan")})
    with pytest.raises(UserError, match=f"{field} must be a finite number, got nan"):
        validate(dataclasses.replace(config, **{group: broken}))


def test_sweep_is_expanded_as_hydra_does() -> None:
    plan = compose_jobs(
        ["algo=sail,sail_revkl", "seed=range(0,3)", "algo.gamma=choice(0.1,0.2)"], multirun=True
    )
    found = [(job.config.algo.name, job.config.seed, job.config.algo.gamma) for job in plan.jobs]
    expected = [
        (algo, seed, gamma) for algo in ("sail", "sail_revkl") for seed in range(3) for gamma in (0.1, 0.2)
    ]
    assert found == expected
    assert plan.jobs[1].overrides == ["algo=sail", "seed=0", "algo.gamma=0.2"]
    found = {job.config.env.id for job in compose_jobs(["env=glob(*-v5)"], multirun=True).jobs}
    assert found == {task for task in ALL_TASKS if task.endswith("-v5")}


def test_sweep_may_stand_in_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 3,4\n"
    )
    plan = compose_jobs(["experiment=mine", "algo=sail"], overlay=tmp_path)
    assert plan.multirun
    assert [job.config.seed for job in plan.jobs] == [3, 4]


def test_wandbs_own_variables_are_heard_where_the_configuration_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    assert (composed().logger.wandb, composed().logger.project) == ("offline", "sailctl")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    assert (composed().logger.wandb, composed().logger.project) == ("disabled", "theirs")
    told = composed("logger.wandb=offline", "logger.project=told")
    assert (told.logger.wandb, told.logger.project) == ("offline", "told")
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(
        UserError, match=r"logger\.wandb must be offline or online or disabled, got 'sometimes'"
    ):
        composed()


@pytest.mark.parametrize(
    "text", ["seed: 3\n", "\ufeff# @package _global_\nseed: 3\n"], ids=["no package", "bom"]
)
def test_an_experiment_whose_first_line_is_another_is_refused_with_that_line(
    text: str, tmp_path: Path
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match="must begin with the line '# @package _global_'"):
        compose_jobs(["experiment=mine"], overlay=tmp_path)


def test_an_experiment_may_choose_the_launcher_and_a_command_line_goes_before_it(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/launcher: basic\nseed: 3\n"
    )

    def launcher(*words: str) -> str:
        plan = compose_jobs(["algo=sail", *words], overlay=tmp_path, multirun=True)
        return str(plan.jobs[0].composed.hydra.launcher._target_).rpartition(".")[2]

    assert launcher() == launcher("experiment=mine", "hydra/launcher=joblib") == "JoblibLauncher"
    assert launcher("experiment=mine") == "BasicLauncher"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "hydra.sweep.dir=x",
            "hydra.sweep.dir is a new folder below out for each launch: set out=FOLDER instead",
        ),
        (
            "hydra.launcher.n_jobs=0",
            "hydra.launcher.n_jobs must be at least 1, or -1 for one job per core, got 0",
        ),
    ],
)
def test_settings_of_hydra_that_cannot_work_are_refused(word: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        compose_jobs(["algo=sail", "seed=0,1", word], multirun=True)


def test_whole_numbers_may_be_written_with_an_exponent() -> None:
    config = composed("algo=sail", "env_steps=1e6", "oracle.budget=1e3", "algo.gamma=1e0")
    assert (config.env_steps, config.oracle.budget, config.algo.gamma) == (1_000_000, 1000, 1.0)
    assert type(config.env_steps) is type(config.oracle.budget) is int


def test_the_same_run_in_two_sweeps_is_none_twice(tmp_path: Path) -> None:
    plan = compose_jobs(["algo=sail", "logger.sweep=x,y", f"out={tmp_path}"], multirun=True)
    configs = [job.config for job in plan.jobs]
    launch = tmp_path / "x" / ".sweeps" / "1"
    launch.mkdir(parents=True)
    record_launch(launch, configs, [job.overrides for job in plan.jobs])
    open_run(configs[1], []).finish({})
    assert [job.state for job in jobs_in(tmp_path / "x")] == ["waiting", "finished"]


def test_paths_may_begin_at_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pairs.parquet").touch()
    config = composed("algo=sail_ddp", "out=~/runs", "algo.data=~/pairs.parquet")
    assert (config.out, config.algo.data) == (f"{tmp_path}/runs", f"{tmp_path}/pairs.parquet")
    with pytest.raises(UserError, match="got '/nowhere/policy'"):
        composed("algo=sail", "algo.reference=/nowhere/policy")
    monkeypatch.setenv("HOME", "/nowhere")
    with pytest.raises(UserError, match="got '/nowhere/policy'"):
        composed("algo=sail", "algo.reference=~/policy")


def test_relative_paths_begin_where_they_were_asked_for(tmp_path: Path) -> None:
    (job,) = compose_jobs(["algo=sail", "out=mine", "algo.reference=initial"]).jobs
    assert to_config(job.composed).out == "mine"
    moved = to_config(job.composed, tmp_path)
    assert (moved.out, moved.algo.reference) == (f"{tmp_path}/mine", "initial")


def test_lengths_follow_the_task_and_null_is_an_episode() -> None:
    assert segment_lengths(composed("env=hopper-v5")) == (25, 250)
    assert segment_lengths(composed("env=reacher-v5", "rollout=episodes")) == (50, 50)
    assert segment_lengths(composed("rollout.segment_length=7", "rollout.label_horizon=null")) == (7, 1000)


def test_config_is_typed_and_frozen() -> None:
    config = composed("algo.gamma=1", "policy.hidden=[32]", "oracle.budget=1000")
    assert type(config.algo.gamma) is float
    assert config.policy.hidden == [32]
    assert type(config.policy.hidden) is list
    assert config.oracle.budget == 1000
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.algo.gamma = 2.0


@pytest.mark.parametrize("algo", ["sail", "sail_segments"])
def test_yaml_holds_what_is_recorded(algo: str) -> None:
    config = composed(f"algo={algo}", "algo.lr=1e-5", "oracle.budget=700", "policy.hidden=[8,8,8]")
    assert yaml.safe_load(to_yaml(config)) == recorded(config)


def changed(value: object) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    return [7] if isinstance(value, list) else 7


@pytest.mark.parametrize(
    ("algo", "key"),
    [
        (algo, key)
        for algo, kind in (("sail_revkl", ActionsRun), ("sail_revkl_segments", Config))
        for key in leaf_types(kind)
        if key != "algo.data"
    ],
)
def test_run_id_follows_all_that_changes_the_numbers_and_nothing_else(algo: str, key: str) -> None:
    config = composed(f"algo={algo}", "algo.beta=0.25")
    group, _, name = key.rpartition(".")
    if group:
        part = getattr(config, group)
        other = dataclasses.replace(
            config, **{group: dataclasses.replace(part, **{name: changed(getattr(part, name))})}
        )
    else:
        other = dataclasses.replace(config, **{name: changed(getattr(config, name))})
    assert other != config
    same = group == "logger" or key in ("out", "threads", "seed")
    same |= bool(group) and name not in recorded(config)[group]  # what is never read changes no number
    assert (run_id(other) == run_id(config)) is same


def test_run_id_follows_what_is_in_the_data_and_not_where_it_lies(tmp_path: Path) -> None:
    names = {}
    for name, content in {"one": b"1", "copy": b"1", "other": b"2"}.items():
        (tmp_path / name).write_bytes(content)
        names[name] = run_id(composed("algo=sail_dpp", f"algo.data={tmp_path / name}"))
    assert names["one"] == names["copy"] != names["other"]


def test_run_id_is_eight_hexadecimal_digits_and_knows_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed("algo.beta=0.25")
    before = run_id(config)
    assert len(before) == 8
    int(before, 16)
    assert before == run_id(composed("algo.beta=25e-2"))  # another spelling
    monkeypatch.setattr("sailctl.config.convert.NUMBERS", NUMBERS + 1)
    assert run_id(config) != before


def test_conf_dir_prefers_the_installed_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "sailctl"
    package.mkdir(parents=True)
    monkeypatch.setattr("sailctl.config.places.PACKAGE", package)
    with pytest.raises(UserError, match="the configuration folder is missing"):
        conf_dir()
    for folder in (package.parent / "conf", package / "conf"):
        folder.mkdir()
        (folder / "config.yaml").touch()
        assert conf_dir() == folder


def test_user_folder_adds_options_and_keeps_the_schema(tmp_path: Path) -> None:
    folder = tmp_path / "it's mine"  # a quote and a space, which Hydra must not read as grammar
    (folder / "algo").mkdir(parents=True)
    good, bad, broken = (folder / "algo" / name for name in ("good.yaml", "bad.yaml", "broken.yaml"))
    good.write_text("defaults:\n  - sail\nname: good\ngamma: 0.5\n")
    bad.write_text("defaults:\n  - sail\ngama: 0.5\n")
    broken.write_text("name: [\n")

    job = compose_jobs(["algo=good"], overlay=folder).jobs[0]
    assert (job.config.algo.name, job.config.algo.gamma, job.config.algo.c) == ("good", 0.5, 0.3)
    assert "# learning rate" in describe(job.composed, job.composed.hydra.runtime.choices)
    with pytest.raises(UserError, match=r"unknown key 'algo.gama'; did you mean 'algo.gamma'\?"):
        compose_jobs(["algo=bad"], overlay=folder)
    with pytest.raises(UserError, match=r"^[^\n]*broken.yaml[^\n]*$"):
        compose_jobs(["algo=broken"], overlay=folder)
    (folder / "algo" / "alone.yaml").write_text("name: mine\nresponses: actions\n")
    begin = r"begin it with 'defaults: \[/settings/actions@_here_, _self_\]'"
    with pytest.raises(UserError, match=rf"^the file of algo=mine chooses no policy; {begin}$"):
        compose_jobs(["algo=alone"], overlay=folder)
    with pytest.raises(
        UserError,
        match="known: alone, bad, broken, dpo_offline, dpo_online, dpo_online_segments, good, pebble",
    ):
        compose_jobs(["algo=nothing"], overlay=folder)
    with pytest.raises(UserError, match="--config-dir must be an existing folder"):
        compose_jobs([], overlay=tmp_path / "absent")


def test_checking_imports_neither_simulator_nor_network() -> None:
    heavy = ("torch", "mujoco", "wandb", "matplotlib", "pandas", "stable_baselines3", "gymnasium")
    script = (
        "import sys\n"
        "from sailctl.sweeps.compose import compose_jobs\n"
        "compose_jobs(['seed=0,1'], multirun=True)\n"
        f"print([name for name in {heavy} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_value_of_a_swept_group_goes_to_the_options_that_have_it() -> None:
    """The default algorithm has no such key, and need not: it is not in the sweep."""
    plan = compose_jobs(["algo=ppo,rlhf_ppo", "algo.envs=16", "policy.hidden=[8]", "seed=0,1"], multirun=True)
    assert [(job.config.algo.name, job.config.algo.envs) for job in plan.jobs] == [
        ("ppo", 16), ("ppo", 16), ("rlhf_ppo", 16), ("rlhf_ppo", 16),
    ]  # fmt: skip
    assert plan.arguments == ["algo=ppo,rlhf_ppo", "algo.envs=choice(16)", "policy.hidden=[8]", "seed=0,1"]
    with pytest.raises(UserError, match=r"algo\.envs is no setting of algo="):
        compose_jobs(["algo=ppo,sail_segments", "algo.envs=16"], multirun=True)
    with pytest.raises(UserError, match=r"algo\.envs is no setting of algo="):
        compose_jobs(["algo=sail_segments", "algo.envs=16"])


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("out=2026_11_28", "out", "2026_11_28"),
        ("out=1e5", "out", "1e5"),
        ("logger.sweep=1_1", "logger.sweep", "1_1"),
        ("logger.sweep=true", "logger.sweep", "true"),
        ("logger.project=007", "logger.project", "007"),
        ("logger.sweep=null", "logger.sweep", None),
        ("out='1e5'", "out", "1e5"),
    ],
)
def test_a_word_that_looks_like_a_number_stays_as_it_is_written(
    word: str, key: str, value: str | None
) -> None:
    config: object = composed(word)
    for name in key.split("."):
        config = getattr(config, name)
    assert config == value


def test_words_that_look_like_numbers_may_be_swept() -> None:
    plan = compose_jobs(["logger.sweep=1_1,0x10,b"], multirun=True)
    assert [job.config.logger.sweep for job in plan.jobs] == ["1_1", "0x10", "b"]
    assert plan.arguments == ["logger.sweep='1_1',0x10,b"]


def test_a_file_says_in_quotes_what_yaml_would_read_as_a_number(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "mine.yaml"
    file.write_text("# @package _global_\nlogger: {sweep: 1_1}\n")
    with pytest.raises(UserError, match=r"logger\.sweep must be a word \(in quotes, .*\), got 11"):
        compose_jobs(["experiment=mine"], overlay=tmp_path)
    file.write_text("# @package _global_\nlogger: {sweep: '1_1'}\n")
    assert compose_jobs(["experiment=mine"], overlay=tmp_path).jobs[0].config.logger.sweep == "1_1"


@pytest.mark.parametrize("name", ["a\\b", "a\\", "a'b", "a\\'b", "a\\\\b", "a b", "\\\\"])
def test_a_quoted_word_is_read_as_it_was(name: str) -> None:
    assert composed(f"out={quoted(name)}").out == name
