"""Meta-World's tasks through EnvPool: paired starts, living episodes, success by both definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sailctl.core.seeding import named_generators
from sailctl.core.tasks import METAWORLD
from sailctl.core.types import RunError, UserError
from sailctl.data.rollout import Collector
from sailctl.policies.policy import GaussianPolicy
from sailctl.runs.checkpoint import load_policy
from sailctl.runs.results import SUCCESS_COLUMNS, load_run
from sailctl.simulator.metaworld import MetaWorldSimulator
from sailctl.simulator.registry import open_simulator
from sailctl.simulator.states import States, Step
from sailctl.sweeps.compose import compose_jobs
from sailctl.training.evaluate import evaluate, evaluate_run
from sailctl.training.train import train

envpool = pytest.importorskip("envpool", reason="needs the extra metaworld")

TASK = "window-open-v3"


@pytest.fixture
def simulator() -> MetaWorldSimulator:
    return MetaWorldSimulator(TASK)


def starts(simulator: MetaWorldSimulator, n: int = 2, seed: int = 0) -> States:
    return simulator.reset(n, np.random.default_rng(seed))


def actions_for(steps: int, n: int, seed: int = 1) -> np.ndarray:
    drawn = np.random.default_rng(seed).uniform(-1.0, 1.0, (steps, n, 4))
    return drawn.astype(np.float32).astype(np.float64)


def run(simulator: MetaWorldSimulator, states: States, actions: np.ndarray) -> list[Step]:
    steps = []
    for action in actions:
        steps.append(simulator.step(states, action))
        states = steps[-1].states
    return steps


def numbers(steps: list[Step]) -> np.ndarray:
    """(steps, N, 2 + O) reward, success and observation of every step."""
    return np.stack([np.column_stack([step.reward, step.success, step.states.obs]) for step in steps])


@pytest.mark.parametrize("task", sorted(METAWORLD))
def test_an_episode_is_that_of_envpool_from_its_seed_to_its_time_limit(task: str) -> None:
    simulator = MetaWorldSimulator(task)
    states = starts(simulator, 1)
    pool = envpool.make_gymnasium(METAWORLD[task], num_envs=1, seed=[int(states.physics[0, 0])])
    assert np.array_equal(states.obs, pool.reset()[0])
    actions = actions_for(simulator.spec.horizon, 1)
    for number, (step, action) in enumerate(zip(run(simulator, states, actions), actions, strict=True), 1):
        obs, reward, terminated, truncated, info = pool.step(action.astype(np.float32))
        assert np.array_equal(step.states.obs, obs)
        assert (step.reward, step.terminated, step.truncated) == (reward, terminated, truncated)
        assert step.success is not None
        assert step.success == (info["success"] == 1.0)
        assert step.states.elapsed == info["elapsed_step"] == number
    assert step.truncated.all()


def test_forks_of_a_start_begin_in_the_same_state(simulator: MetaWorldSimulator) -> None:
    states = starts(simulator, 3)
    assert len(np.unique(states.obs, axis=0)) == 3
    together = run(simulator, states.fork(2), actions_for(8, 3).repeat(2, axis=1))
    found = numbers(together)
    assert np.array_equal(found[:, ::2], found[:, 1::2])
    assert np.array_equal(numbers(run(simulator, states, actions_for(8, 3))), found[:, ::2])  # once more
    apart = run(simulator, states.fork(2), actions_for(8, 6))
    assert not np.array_equal(numbers(apart)[-1, ::2], numbers(apart)[-1, 1::2])


def test_the_same_seed_gives_the_same_numbers_on_any_count_of_threads() -> None:
    one, two = MetaWorldSimulator(TASK, 1), MetaWorldSimulator(TASK, 2)
    mine, theirs = starts(one, 4, seed=5), starts(two, 4, seed=5)
    assert np.array_equal(mine.obs, theirs.obs)
    assert np.array_equal(
        numbers(run(one, mine, actions_for(8, 4))), numbers(run(two, theirs, actions_for(8, 4)))
    )


def test_rows_may_be_dropped_and_reordered_and_go_on_as_before(simulator: MetaWorldSimulator) -> None:
    states, actions = starts(simulator, 4), actions_for(8, 4)
    straight = numbers(run(simulator, states, actions))
    middle = run(simulator, states, actions[:4])[-1].states
    some = np.array([3, 1])
    rest = run(simulator, middle.take(some), actions[4:, some])
    assert np.array_equal(numbers(rest), straight[4:, some])


def test_a_living_batch_goes_on_after_an_evaluation(simulator: MetaWorldSimulator) -> None:
    states, actions = starts(simulator), actions_for(8, 2)
    straight = numbers(run(simulator, states, actions))
    middle = run(simulator, states, actions[:4])[-1].states
    run(simulator, starts(simulator, 3, seed=9), actions_for(4, 3))
    assert np.array_equal(numbers(run(simulator, middle, actions[4:])), straight[4:])


def test_a_state_beyond_the_start_is_stepped_once_and_in_one_fork(simulator: MetaWorldSimulator) -> None:
    action = actions_for(1, 2)[0]
    reached = simulator.step(starts(simulator), action).states
    with pytest.raises(RunError, match="EnvPool cannot restore a state"):
        simulator.step(reached.fork(2), action.repeat(2, axis=0))
    simulator.step(reached, action)
    with pytest.raises(RunError, match=r"cannot restore a state; fork episode starts .*start_fraction=1"):
        simulator.step(reached, action)


def test_only_the_last_batches_live(simulator: MetaWorldSimulator) -> None:
    action = actions_for(1, 2)[0]
    oldest = simulator.step(starts(simulator), action).states
    for _ in range(2):
        simulator.step(starts(simulator), action)
    with pytest.raises(RunError, match="cannot restore"):
        simulator.step(oldest, action)


def test_an_action_that_is_not_finite_stops_the_run(simulator: MetaWorldSimulator) -> None:
    with pytest.raises(RunError, match="not finite"):
        simulator.step(starts(simulator), np.full((2, 4), np.nan))


def test_prompts_are_paired_resets() -> None:
    words = [
        "experiment=metaworld",
        "algo=sail_segments",
        f"env={TASK}",
        "rollout.prompts=2",
        "algo.minibatches=1",
    ]
    (job,) = compose_jobs([*words, "env.label_horizon=30"]).jobs
    found = []
    for _ in range(2):
        simulator, generators = open_simulator(TASK), named_generators(0)
        policy = GaussianPolicy(job.config.policy, simulator.spec, generators.init)
        collector = Collector(simulator, job.config.rollout, 25, 30, generators)
        found.append([collector.collect(policy) for _ in range(2)])
    for first, second in zip(*found, strict=True):
        assert np.array_equal(first.judged.rewards, second.judged.rewards)
        assert np.array_equal(first.window.obs[::2, 0], first.window.obs[1::2, 0])
        assert first.env_steps == 4 * 30
    assert not np.array_equal(found[0][0].window.obs[:, 0], found[0][1].window.obs[:, 0])


def test_a_run_evaluates_from_fixed_starts_and_records_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "experiment=metaworld",
        "algo=sail_segments",
        f"env={TASK}",
        "rollout.prompts=2",
        "algo.minibatches=1",
        "env_steps=100",
    ]
    small = ["env.label_horizon=25", "evaluation.episodes=2", f"out={tmp_path}", "logger.wandb=disabled"]
    (job,) = compose_jobs([*words, *small, "logger.progress=false"]).jobs
    path = train(job.config, [])
    evaluations = load_run(path).evaluations
    result = evaluate(load_policy(path), open_simulator(TASK), 2, job.config.evaluation.seed)
    last = evaluations[evaluations.iteration == evaluations.iteration.max()]
    assert last["return"].tolist() == result.returns.tolist()
    assert last["length"].tolist() == [500, 500]
    assert result.success is not None
    assert last[list(SUCCESS_COLUMNS)].to_numpy().tolist() == result.success.astype(int).tolist()
    with pytest.raises(UserError, match=f"{TASK} cannot be rendered"):
        evaluate_run(path, 1, 0, tmp_path / "video.mp4")
    assert "true return" not in capsys.readouterr().out
