"""The true return, against plain Gymnasium loops and Stable-Baselines3 from the same initial states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sailctl.config import PolicyConfig
from sailctl.core.seeding import generator
from sailctl.core.types import UserError
from sailctl.policies.policy import GaussianPolicy
from sailctl.runs.checkpoint import save_policy
from sailctl.simulator.batched import TaskSimulator
from sailctl.simulator.states import States
from sailctl.training.evaluate import evaluate, evaluate_run
from sailctl_envs import ALL_TASKS

EPISODES, SEED = 4, 12345


class FromStates(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A Gymnasium environment whose episodes begin in given simulator states, one after another."""

    def __init__(self, env: gymnasium.Env[Any, Any], states: States) -> None:
        super().__init__(env)
        self.physics = iter(states.physics)

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        self.env.reset(**options)
        inner, physics = self.env.unwrapped, next(self.physics, None)
        if physics is not None:
            nq, nv = inner.model.nq, inner.model.nv
            inner.set_state(physics[1 : 1 + nq], physics[1 + nq : 1 + nq + nv])
        return inner._get_obs(), {}


def actor(simulator: TaskSimulator, seed: int = 0) -> GaussianPolicy:
    """A policy whose actions depend on what it sees."""
    rng = np.random.default_rng(seed)
    policy = GaussianPolicy(PolicyConfig("mlp", [16], 0, 0.6, True, True), simulator.spec, rng)
    with torch.no_grad():
        policy.net[-1].weight.mul_(30.0)
    policy.observe(simulator.reset(100, rng).obs.astype(np.float32))
    return policy


@pytest.mark.parametrize("task", ["reacher-v5", "invertedpendulum-v5"])
def test_returns_are_those_of_a_gymnasium_loop(task: str):
    simulator = TaskSimulator(ALL_TASKS[task]())
    policy = actor(simulator)
    result = evaluate(policy, simulator, EPISODES, SEED)
    starts = simulator.reset(EPISODES, generator(SEED, "eval"))
    env = FromStates(gymnasium.make(ALL_TASKS[task].gymnasium_id), starts)
    for episode in range(EPISODES):
        obs, _ = env.reset()
        total, length, over = 0.0, 0, False
        while not over:
            action, _ = policy.predict(obs)
            obs, reward, terminated, truncated, _ = env.step(action)
            total, length, over = total + reward, length + 1, terminated or truncated
        assert result.lengths[episode] == length
        assert result.returns[episode] == pytest.approx(total, rel=1e-3)
    assert result.mean == pytest.approx(result.returns.mean())
    assert len(np.unique(result.returns)) > 1


def test_stable_baselines3_measures_the_same_return():
    simulator = TaskSimulator(ALL_TASKS["reacher-v5"]())
    policy = actor(simulator)
    result = evaluate(policy, simulator, EPISODES, SEED)
    starts = simulator.reset(EPISODES, generator(SEED, "eval"))
    env = Monitor(FromStates(gymnasium.make("Reacher-v5"), starts))
    returns, lengths = evaluate_policy(policy, env, n_eval_episodes=EPISODES, return_episode_rewards=True)
    np.testing.assert_allclose(result.returns, returns, rtol=1e-3)
    np.testing.assert_array_equal(result.lengths, lengths)


def test_stable_baselines3_takes_a_drawing_policy_too():
    policy = actor(TaskSimulator(ALL_TASKS["reacher-v5"]()))
    env = Monitor(gymnasium.make("Reacher-v5"))
    mean, deviation = evaluate_policy(policy, env, n_eval_episodes=2, deterministic=False)
    assert np.isfinite([mean, deviation]).all()


def test_one_seed_gives_one_result_and_another_seed_another():
    simulator = TaskSimulator(ALL_TASKS["reacher-v5"]())
    policy = actor(simulator)
    one, two, other = (evaluate(policy, simulator, EPISODES, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.returns, two.returns)
    assert not np.intersect1d(one.returns, other.returns).size


def test_evaluation_draws_from_nothing_and_changes_nothing():
    simulator = TaskSimulator(ALL_TASKS["invertedpendulum-v5"]())
    policy = actor(simulator)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    torch_state = torch.random.get_rng_state()
    evaluate(policy, simulator, EPISODES, SEED)
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())


def test_episodes_end_where_the_task_says():
    simulator = TaskSimulator(ALL_TASKS["invertedpendulum-v5"]())
    result = evaluate(actor(simulator), simulator, 20, SEED)
    assert (result.lengths < 1000).any()
    # A pendulum earns 1 in every step but the one in which it fell.
    fell = result.lengths < 1000
    np.testing.assert_array_equal(result.returns, result.lengths - fell)
    reacher = TaskSimulator(ALL_TASKS["reacher-v5"]())
    assert evaluate(actor(reacher), reacher, 3, SEED).lengths.tolist() == [50, 50, 50]


def test_the_path_is_that_of_the_first_episode():
    simulator = TaskSimulator(ALL_TASKS["invertedpendulum-v5"]())
    policy = actor(simulator)
    candidates = (evaluate(policy, simulator, 8, seed, keep_path=True) for seed in range(50))
    seed, result = next((i, e) for i, e in enumerate(candidates) if e.lengths[0] < e.lengths.max())
    assert evaluate(policy, simulator, 8, seed).path is None
    assert result.path is not None
    assert len(result.path) == result.lengths[0] + 1
    starts = simulator.reset(8, generator(seed, "eval"))
    np.testing.assert_array_equal(result.path[0], starts.physics[0])
    np.testing.assert_allclose(np.diff(result.path[:, 0]), simulator.task.dt)


def test_a_video_that_cannot_be_written_is_refused_before_an_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = TaskSimulator(ALL_TASKS["invertedpendulum-v5"]())
    policy = GaussianPolicy(PolicyConfig("mlp", [8], 0, 1.0, True, True), task.spec, generator(0, "init"))
    save_policy(policy, tmp_path / "policy")
    (tmp_path / "file").touch()
    monkeypatch.setattr("sailctl.training.evaluate.evaluate", None)  # what simulates
    with pytest.raises(UserError, match=r"cannot write into .*file"):
        evaluate_run(tmp_path / "policy", 1, 0, tmp_path / "file" / "film.mp4")
