"""Whole short runs: reproducible to the bit, counted to the label, and clear about what went wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import sailctl.training.train
from sailctl.algorithms.learner import Learner
from sailctl.algorithms.start import first_policy
from sailctl.analysis.trials import trial_of
from sailctl.config import Config, conf_dir, read_option, segment_lengths
from sailctl.core.seeding import named_generators
from sailctl.core.types import NonFiniteError, Preferences, RunError, SegmentBatch, UserError
from sailctl.gate.golden import algorithms, needs_data
from sailctl.policies.policy import GaussianPolicy
from sailctl.runs.checkpoint import load_policy, save_policy
from sailctl.runs.results import load_run
from sailctl.simulator.batched import TaskSimulator
from sailctl.simulator.states import Step
from sailctl.sweeps.compose import compose_jobs
from sailctl.training.collect import collect
from sailctl.training.evaluate import evaluate
from sailctl.training.train import evaluation_due, train
from sailctl_envs import ALL_TASKS
from tests.fixtures import actions_of, composed

SMALL = (
    "algo=sail_revkl_segments",
    "env=reacher-v5",
    "rollout.prompts=8",
    "env_steps=2000",
    "evaluation.every=1000",
    "evaluation.episodes=3",
    "policy.hidden=[8]",
    "algo.epochs=2",
    "logger.wandb=disabled",
    "logger.progress=false",
)


def config_of(out: Path, *overrides: str) -> Config:
    chosen = {word.split("=", 1)[0]: word for word in (*SMALL, *overrides)}
    (job,) = compose_jobs([*chosen.values(), f"out={out}"]).jobs
    return job.config


def run(out: Path, *overrides: str) -> Path:
    return train(config_of(out, *overrides), ["sailctl", "train", *overrides])


def numbers(path: Path) -> pd.DataFrame:
    """The metrics without the columns that hold times."""
    metrics = load_run(path).metrics
    return metrics.drop(columns=[name for name in metrics if name.endswith("_s")])


def assert_same_run(one: Path, two: Path) -> None:
    pd.testing.assert_frame_equal(numbers(one), numbers(two), check_exact=True)
    assert (one / "evaluations.csv").read_text() == (two / "evaluations.csv").read_text()
    first, second = load_policy(one).state_dict(), load_policy(two).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the small configuration."""
    return run(tmp_path_factory.mktemp("finished"))


# Reproducible


def test_one_seed_is_one_run(finished: Path, tmp_path: Path):
    torch.manual_seed(123)  # torch's global generator has no part in it
    assert_same_run(finished, run(tmp_path))


def test_threads_of_the_simulator_change_no_number(finished: Path, tmp_path: Path):
    assert_same_run(finished, run(tmp_path, "threads=2"))


def test_another_seed_is_another_run(finished: Path, tmp_path: Path):
    other = run(tmp_path, "seed=1")
    assert not np.array_equal(numbers(finished)["loss"], numbers(other)["loss"])


def test_evaluating_more_often_changes_nothing_but_the_evaluations(finished: Path, tmp_path: Path):
    often = run(tmp_path, "evaluation.every=1", "evaluation.episodes=2", "evaluation.seed=7")
    ours, theirs = (numbers(path).drop(columns="eval_return") for path in (finished, often))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    assert numbers(often)["eval_return"].notna().all()


@pytest.mark.parametrize(
    ("words", "limit", "column"),
    [
        (["env_steps=2000"], 2000, "env_steps"),
        (["oracle.budget=36", "env_steps=1_000_000"], 36, "labels"),
        (["algo.iterations=5", "env_steps=1_000_000"], 5, "iteration"),
        (["algo.iterations=50", "oracle.budget=1000", "env_steps=2000"], 2000, "env_steps"),
    ],
)
def test_an_annealed_learning_rate_falls_to_the_runs_nearest_end(
    tmp_path: Path, words: list[str], limit: int, column: str
):
    table = numbers(
        run(
            tmp_path,
            "rollout.segment_length=10",
            "rollout.label_horizon=10",
            *words,
            "algo.lr=1e-3",
            "algo.target_kl=null",
            "algo.anneal=true",
        )
    )
    before = np.concatenate([[0], table[column].to_numpy()[:-1]])
    assert len(table) > 3
    np.testing.assert_allclose(table["lr"], 1e-3 * (1 - before / limit), rtol=1e-12)


# Every algorithm


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of the task."""
    file = tmp_path_factory.mktemp("data") / "pairs.parquet"
    collect(config_of(file.parent, "rollout.segment_length=10"), 40, file, ["sailctl", "collect"])
    return file


def values_of(option: str) -> dict[str, Any]:
    """What an algorithm sets, with what it takes over."""
    return read_option("algo", option, [conf_dir()])


OPTIONS = algorithms()
ON_ACTIONS = [option for option in OPTIONS if values_of(option)["responses"] == "actions"]


def words_of(option: str, data: Path) -> list[str]:
    """Overrides that choose an algorithm, with a data set and few iterations where it needs them."""
    values = values_of(option)
    offline = [f"algo.data={data}"] if needs_data(values) else []
    return [f"algo={option}", *offline, *(["algo.iterations=4"] if values["iterations"] else [])]


@pytest.mark.parametrize("option", [option for option in OPTIONS if option not in ON_ACTIONS])
def test_every_algorithm_runs_and_one_seed_is_one_run(option: str, data: Path, tmp_path: Path):
    words = (*words_of(option, data), "evaluation.iterations=2", "algo.gamma=0.1", "algo.rho=0.1")
    one, two = (run(tmp_path / name, *words) for name in ("one", "two"))
    assert_same_run(one, two)
    metrics = numbers(one)
    holes = metrics.drop(columns=["eval_return", "reward_per_step"]).isna().any()
    assert not holes.any(), holes[holes].index.tolist()
    start = first_policy(
        config_of(tmp_path / "start", *words),
        TaskSimulator(ALL_TASKS["reacher-v5"]()).spec,
        named_generators(0),
    )
    assert not torch.equal(start.net[0].weight, load_policy(one).net[0].weight)


@pytest.mark.parametrize("option", ON_ACTIONS)
def test_every_algorithm_on_actions_runs_and_one_seed_is_one_run(option: str, tmp_path: Path):
    words = (f"algo={option}", "algo.gamma=0.1", "algo.rho=0.1", "evaluation.every=280")
    one, two, other = (
        train(actions_of(tmp_path / name, *words, f"seed={seed}"), [])
        for name, seed in (("one", 0), ("two", 0), ("other", 1))
    )
    assert_same_run(one, two)
    metrics = numbers(one)
    holes = metrics.iloc[-1].isna()
    assert not holes.any(), holes[holes].index.tolist()
    assert not np.array_equal(metrics["loss"].dropna(), numbers(other)["loss"].dropna())
    assert metrics["env_steps"].tolist() == [40 * i for i in metrics["iteration"]]
    assert metrics["labels"].tolist() == [4 + 2 * i for i in range(7)]
    start = first_policy(
        actions_of(tmp_path / "start", *words),
        TaskSimulator(ALL_TASKS["hopper-v5"]()).spec,
        named_generators(0),
    )
    assert not torch.equal(start.net[0].weight, load_policy(one).net[0].weight)


def test_a_run_that_simulates_nothing(data: Path, tmp_path: Path):
    words = ("algo=dpo_offline", f"algo.data={data}", "algo.iterations=5", "evaluation.iterations=2")
    record = load_run(run(tmp_path, *words))
    assert (record.metrics["env_steps"] == 0).all()
    assert (record.metrics["labels"] == 40).all(), "the data set's labels are what this policy cost"
    assert record.metrics["reward_per_step"].isna().all()
    assert sorted(set(record.evaluations["iteration"])) == [0, 2, 4, 5]
    assert record.metrics["iteration"][record.metrics["eval_return"].notna()].tolist() == [2, 4, 5]
    assert math.isfinite(trial_of(record).final)


@pytest.mark.parametrize("words", [("rollout=ranked", "rollout.forks=3"), ("algo.queries=3",)])
def test_labels_are_counted_as_they_were_given(words: tuple[str, ...], tmp_path: Path):
    metrics = numbers(run(tmp_path, *words))
    each = 8 * 2 if words[0] == "rollout=ranked" else 3
    assert metrics["labels"].tolist() == [each * i for i in metrics["iteration"]]


def test_data_of_another_task_are_refused_before_a_directory_is_made(data: Path, tmp_path: Path):
    with pytest.raises(UserError, match="for reacher-v5, not swimmer-v5"):
        run(tmp_path / "runs", "env=swimmer-v5", "algo=sail_dpp", f"algo.data={data}")
    assert not (tmp_path / "runs").exists()


# Counted


def test_the_record_of_a_run(finished: Path):
    record = load_run(finished)
    assert (record.state, record.task, record.algorithm, record.seed) == (
        "finished",
        "reacher-v5",
        "sail_revkl_segments",
        0,
    )
    metrics = numbers(finished)
    # Reacher never terminates: 16 segments, each judged for 50 steps or up to its episode's end.
    assert metrics["env_steps"].iloc[-1] >= 2000 > metrics["env_steps"].iloc[-2]
    assert (metrics["env_steps"].diff().dropna() <= 16 * 50).all()
    assert metrics["iteration"].tolist() == list(range(1, len(metrics) + 1))
    assert metrics["labels"].tolist() == [8 * i for i in metrics["iteration"]]
    status = json.loads((finished / "status.json").read_text())
    assert status["env_steps"] == metrics["env_steps"].iloc[-1]
    assert status["labels"] == metrics["labels"].iloc[-1]
    assert np.isfinite(metrics.drop(columns="eval_return").to_numpy()).all()
    times = record.metrics
    spent = times[["collect_s", "update_s", "evaluate_s"]].sum(axis=1)
    assert (spent <= times["wall_s"]).all()


def test_env_steps_are_all_that_training_simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    steps, evaluating = [0, 0], [False]
    step, measure = TaskSimulator.step, evaluate

    def counted(self: TaskSimulator, states: object, action: np.ndarray) -> Step:
        steps[evaluating[0]] += len(action)
        return step(self, states, action)

    def evaluated(*arguments: object) -> object:
        evaluating[0] = True
        result = measure(*arguments)
        evaluating[0] = False
        return result

    monkeypatch.setattr(TaskSimulator, "step", counted)
    monkeypatch.setattr(sailctl.training.train, "evaluate", evaluated)
    path = run(tmp_path, "env=invertedpendulum-v5")
    assert numbers(path)["env_steps"].iloc[-1] == steps[0]
    assert steps[1] == load_run(path).evaluations["length"].sum()


def test_evaluations_come_when_they_are_due_and_at_the_end(finished: Path):
    metrics = numbers(finished)
    table = load_run(finished).evaluations
    crossed = metrics["env_steps"] // 1000 > metrics["env_steps"].shift(fill_value=0) // 1000
    crossed.iloc[-1] = True
    np.testing.assert_array_equal(metrics["eval_return"].notna(), crossed)
    assert table["env_steps"].unique().tolist() == [0, *metrics["env_steps"][crossed]]
    means = table[table["env_steps"] > 0].groupby("env_steps")["return"].mean()
    np.testing.assert_allclose(means, metrics["eval_return"].dropna(), rtol=1e-12)


def test_the_first_evaluation_is_of_the_policy_before_its_first_update(finished: Path):
    config, simulator = config_of(finished), TaskSimulator(ALL_TASKS["reacher-v5"]())
    start = first_policy(config, simulator.spec, named_generators(config.seed))
    again = evaluate(start, simulator, config.evaluation.episodes, config.evaluation.seed)
    table = load_run(finished).evaluations
    np.testing.assert_array_equal(table["return"][table["iteration"] == 0], again.returns)


def test_the_saved_policy_is_the_one_that_was_evaluated_last(finished: Path):
    simulator = TaskSimulator(ALL_TASKS["reacher-v5"]())
    config = config_of(finished)
    again = evaluate(load_policy(finished), simulator, config.evaluation.episodes, config.evaluation.seed)
    table = load_run(finished).evaluations
    np.testing.assert_array_equal(table["return"].tail(3), again.returns)
    status = json.loads((finished / "status.json").read_text())
    assert status["last_return"] == pytest.approx(again.mean, rel=1e-12)


@pytest.mark.parametrize("budget", [1, 8, 19])
def test_the_label_budget_is_exact_and_ends_the_run(tmp_path: Path, budget: int):
    path = run(tmp_path, f"oracle.budget={budget}", "env_steps=1_000_000")
    metrics = numbers(path)
    assert metrics["labels"].tolist() == [*range(8, budget, 8), budget]
    assert load_run(path).state == "finished"
    assert metrics["eval_return"].notna().iloc[-1]


@pytest.mark.parametrize(
    "overrides",
    [
        ("algo=sail_segments", "policy=linear", "policy.features=6"),
        ("algo=dpo_online_segments", "oracle=stochastic"),
        ("rollout=unrelated",),
        ("rollout=episodes",),
        ("rollout.forks=3", "rollout.start_fraction=0.5", "algo.optimiser=sgd", "algo.reference_interval=0"),
        ("env=invertedpendulum-v5", "policy.normalise=false", "oracle.tie_margin=1"),
    ],
    ids=["sail-linear", "dpo-stochastic", "unrelated", "episodes", "three-forks", "pendulum"],
)
def test_other_configurations_run(tmp_path: Path, overrides: tuple[str, ...]):
    path = run(tmp_path, *overrides, "env_steps=500")
    assert load_run(path).state == "finished"
    config = config_of(tmp_path, *overrides)
    pairs = config.rollout.prompts * math.comb(config.rollout.forks, 2)
    assert numbers(path)["labels"].iloc[0] == pairs
    assert segment_lengths(config)[0] <= segment_lengths(config)[1]


# Refused


def test_a_run_goes_on_from_the_policy_of_another(finished: Path, tmp_path: Path):
    words = (f"algo.reference={finished}", "algo.reference_interval=0", "algo.observe=0", "env_steps=1")
    config = config_of(tmp_path, *words)
    started = first_policy(config, TaskSimulator(ALL_TASKS["reacher-v5"]()).spec, None)
    for name, tensor in load_policy(finished).state_dict().items():
        assert torch.equal(tensor, started.state_dict()[name])
    path = train(config, ["sailctl"])
    # One iteration only: the new policy is near the reference, and not equal to it.
    new, old = load_policy(path), load_policy(finished / "policy")
    distance = torch.nn.utils.parameters_to_vector(new.parameters()).detach()
    distance = (distance - torch.nn.utils.parameters_to_vector(old.parameters()).detach()).abs().max()
    assert 0 < float(distance) < 0.01
    assert float(new.obs_count) == float(old.obs_count) > 0, "a kept reference keeps its statistics"


@pytest.mark.parametrize("reference", ["walker_walk's expert", "initial"])
def test_a_start_outside_of_the_ball_is_refused(tmp_path: Path, reference: str):
    """The first projection would make another policy of it."""
    words = ["env=walker_walk", "algo.reference=expert"] if reference != "initial" else ["algo.radius=1"]
    with pytest.raises(UserError, match=r"algo.radius must be above .*, the norm of the parameters of the"):
        train(config_of(tmp_path, "algo=sail_revkl_segments", *words), ["sailctl"])
    assert not list(tmp_path.rglob("*")), "nothing is left behind"


def test_a_reference_for_another_task_is_refused(finished: Path, tmp_path: Path):
    with pytest.raises(UserError, match="is a policy for reacher-v5, not for invertedpendulum-v5"):
        run(tmp_path, f"algo.reference={finished}", "env=invertedpendulum-v5")
    assert not list(tmp_path.iterdir()), "nothing may be left behind"


def test_a_damaged_reference_is_refused(finished: Path, tmp_path: Path):
    save_policy(load_policy(finished), tmp_path / "policy")
    (tmp_path / "policy" / "policy.safetensors").write_bytes(b"not tensors")
    with pytest.raises(UserError, match="cannot be read"):
        run(tmp_path / "out", f"algo.reference={tmp_path}")
    assert not (tmp_path / "out").exists()


# Stopped


def only_run(out: Path) -> Path:
    (path,) = out.glob("*/*/*")
    return path


def test_numbers_that_are_not_finite_stop_the_run_and_leave_their_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    update = Learner.update

    def poisoned(
        self: Learner, segments: SegmentBatch, preferences: Preferences, left: float, env_steps: int
    ) -> dict[str, float]:
        if self.updates == 1:
            segments.actions[:, 0, 0] = math.nan
        return update(self, segments, preferences, left, env_steps)

    monkeypatch.setattr(Learner, "update", poisoned)
    with pytest.raises(NonFiniteError) as caught:
        run(tmp_path)
    path = only_run(tmp_path)
    dump = path / "nonfinite.safetensors"
    assert str(dump) in str(caught.value)
    batch = load_file(dump)
    assert torch.isnan(batch["actions"][:, 0, 0]).all()
    status = json.loads((path / "status.json").read_text())
    assert status["state"] == "failed"
    assert "not finite" in status["error"]
    assert len(numbers(path)) == 1, "what came before is kept"


def test_a_training_that_blows_up_is_told_apart_from_a_crash(tmp_path: Path):
    explosion = (
        "algo.optimiser=sgd",
        "algo.lr=1e38",
        "algo.max_grad_norm=null",
        "algo.radius=null",
        "algo.c=100",
    )
    with pytest.raises(RunError, match="not finite"):
        run(tmp_path, *explosion, "algo.baseline=none")
    path = only_run(tmp_path)
    assert load_run(path).state == "failed"
    assert (path / "nonfinite.safetensors").is_file()


@pytest.mark.parametrize(
    ("error", "state"), [(KeyboardInterrupt(), "interrupted"), (OSError("disk"), "failed")]
)
def test_a_run_that_is_stopped_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, state: str
):
    def stops(*_: object) -> None:
        raise error

    monkeypatch.setattr(GaussianPolicy, "observe", stops)
    with pytest.raises(type(error)):
        run(tmp_path)
    status = json.loads((only_run(tmp_path) / "status.json").read_text())
    assert status["state"] == state


@pytest.mark.parametrize("size", [300, 1000, 1024, 2400])
def test_an_evaluation_falls_on_the_first_iteration_end_at_or_after_each_multiple(size: int, tmp_path: Path):
    config = composed(tmp_path, *SMALL, "evaluation.every=1000")
    ends = range(size, 12_001, size)
    due = [end for i, end in enumerate(ends) if evaluation_due(config, end - size, end, i + 1)]
    first = {min(end for end in ends if end >= at) for at in range(1000, max(ends) + 1, 1000)}
    assert due == sorted(first)
