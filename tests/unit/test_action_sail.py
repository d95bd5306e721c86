"""SAIL on actions as an algorithm: what it does in an iteration, what it asks, and what it never sees."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sailctl.algorithms.actions import ActionSAIL, correlated
from sailctl.algorithms.protocol import Clock
from sailctl.config import ActionsRun
from sailctl.core.types import NonFiniteError
from sailctl.data.replay import Replay
from sailctl.simulator.registry import open_simulator
from sailctl.simulator.states import Simulator, Step
from sailctl.training.train import train
from tests.fixtures import actions_of

TASK = "reacher-v5"


def algorithm_of(tmp_path: Path, *words: str, simulator: Simulator | None = None) -> ActionSAIL:
    config = actions_of(tmp_path, f"env={TASK}", "algo=sail_revkl", *words)
    assert isinstance(config, ActionsRun)
    return ActionSAIL(config, simulator or open_simulator(TASK))


def iterated(algorithm: ActionSAIL, times: int) -> list[dict[str, float]]:
    clock = Clock()
    return [algorithm.iterate(clock, 1.0) for _ in range(times)]


def parameters(algorithm: ActionSAIL) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(algorithm.policy().parameters())


def test_questions_follow_the_schedule_until_the_budget_is_spent(tmp_path: Path):
    words = (
        "algo.learning_starts=40",
        "algo.query_interval=40",
        "algo.initial_queries=4",
        "algo.queries=3",
        "oracle.budget=9",
    )
    algorithm = algorithm_of(tmp_path, *words)
    labels = []
    for _ in range(5):
        iterated(algorithm, 1)
        labels.append(algorithm.labels)
    # The last one is what the budget still pays for, and the run goes on without new answers.
    assert labels == [4, 7, 9, 9, 9]
    assert not algorithm.exhausted
    assert algorithm.env_steps == 200


def test_before_the_start_nothing_is_learned_and_the_buffer_is_filled(tmp_path: Path):
    algorithm = algorithm_of(tmp_path, "algo.learning_starts=100")
    before = parameters(algorithm)
    rows = iterated(algorithm, 2)
    assert torch.equal(parameters(algorithm), before)
    assert algorithm.labels == 0
    assert all(math.isnan(row["critic_loss"]) and math.isnan(row["loss"]) for row in rows)
    (row,) = iterated(algorithm, 1)
    assert not torch.equal(parameters(algorithm), before)
    assert math.isfinite(row["critic_loss"])


def test_the_critic_warms_up_before_the_policy_moves(tmp_path: Path):
    """With a warm-up that no run of this length ends, every update would be one of it: there is none left."""
    words = ("algo.learning_starts=40", "algo.updates=0.5", "algo.delay=1")
    short, long = (algorithm_of(tmp_path, *words, f"algo.warmup={updates}") for updates in (0, 64))
    first, second = (iterated(algorithm, 1)[0] for algorithm in (short, long))
    assert long._critic.updates == short._critic.updates + 64
    assert long._actor.updates == short._actor.updates > 0
    assert second["critic_loss"] < first["critic_loss"]


def test_updates_keep_up_with_env_steps_whatever_the_ratio(tmp_path: Path):
    words = ("algo.learning_starts=40", "algo.warmup=0", "algo.delay=3", "algo.envs=4", "algo.interval=40")
    algorithm = algorithm_of(tmp_path, *words, "algo.updates=0.3")
    iterated(algorithm, 5)
    learned_for = 200 - 40 + 4  # the step that reaches the start is learned from already
    assert algorithm._critic.updates == int(0.3 * learned_for)
    assert algorithm._actor.updates == algorithm._critic.updates // 3


class Twisted:
    """The same task, with another true reward."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def __getattr__(self, name: str) -> object:
        return getattr(self._simulator, name)

    def step(self, states: object, action: object) -> Step:
        done = self._simulator.step(states, action)
        return Step(done.states, 5.0 * done.reward + 3.0, done.terminated, done.truncated, done.success)


@pytest.mark.parametrize(("reward", "same"), [("model", True), ("teacher", False)])
def test_true_rewards_reach_the_policy_through_answers_alone(tmp_path: Path, reward: str, same: bool):
    """Answers do not change when every reward is five times as much and three more, so nothing may.

    With ``reward=teacher`` the critic sees the reward itself, and it does. (Windows of one length: of unlike
    ones the longer would win by the three.)
    """
    words = (f"algo.reward={reward}", "reward.cut=0", "algo.learning_starts=40")
    plain = algorithm_of(tmp_path, *words)
    twisted = algorithm_of(tmp_path, *words, simulator=Twisted(open_simulator(TASK)))
    for algorithm in (plain, twisted):
        iterated(algorithm, 4)
    assert torch.equal(parameters(plain), parameters(twisted)) == same
    assert plain.labels == twisted.labels == (0 if reward == "teacher" else plain.labels)


def test_statistics_follow_as_long_as_they_are_told_to(tmp_path: Path):
    counts = {}
    for observe in ("null", "80", "0"):
        algorithm = algorithm_of(tmp_path, f"algo.observe={observe}")
        iterated(algorithm, 4)
        counts[observe] = float(algorithm.policy().obs_count)
    assert counts == {"null": 160.0, "80": 80.0, "0": 0.0}


def test_values_are_of_the_order_of_one_whatever_the_reward(tmp_path: Path):
    """Rewards are scaled by their spread, and by the horizon of the discount."""
    words = ("algo.reward=teacher", "algo.learning_starts=40")
    algorithm = algorithm_of(tmp_path, *words, simulator=Twisted(open_simulator(TASK)))
    iterated(algorithm, 3)
    rewards = algorithm._replay.sample(4096, 1, 0.99, np.random.default_rng(0)).returns
    assert rewards.std() == pytest.approx(1 - 0.99, rel=0.2)


def test_what_is_drawn_for_questions_shifts_nothing_that_is_acted(tmp_path: Path):
    """Until the first update two runs that ask differently do the same, to the bit."""
    asked, silent = (algorithm_of(tmp_path, f"algo.learning_starts={start}") for start in (80, 1000))
    for algorithm in (asked, silent):
        iterated(algorithm, 1)
    assert np.array_equal(asked._states.physics, silent._states.physics)


@pytest.mark.parametrize(
    ("words", "what", "names"),
    [
        (("algo.critic_lr=1e30",), "error of the critic", {"features", "actions", "targets"}),
        (
            ("policy=mlp", "policy.learn_std=false", "algo.lr=1e30"),
            "loss of the policy",
            {"features", "actions", "ref_mean", "values"},
        ),
    ],
)
def test_what_blows_up_stops_the_run_and_leaves_its_minibatch(
    tmp_path: Path, words: tuple[str, ...], what: str, names: set[str]
):
    config = actions_of(tmp_path, "algo=sail", *words)
    with pytest.raises(NonFiniteError, match=f"the {what} is not finite") as caught:
        train(config, [])
    (dump,) = tmp_path.rglob("nonfinite.safetensors")
    assert str(dump) in str(caught.value)
    shown = load_file(dump)
    assert names <= shown.keys()
    assert len(shown["features"]) == len(shown["actions"]) == config.algo.batch


def test_actions_that_are_no_numbers_are_told_by_the_policy_and_not_by_the_simulator(tmp_path: Path):
    algorithm = algorithm_of(tmp_path, "algo.learning_starts=40")
    iterated(algorithm, 2)
    with torch.no_grad():
        algorithm._actor.policy.log_std[0] = torch.nan
    with pytest.raises(NonFiniteError, match="the policy is not finite") as found:
        iterated(algorithm, 1)
    assert "features" in found.value.batch


def test_a_question_compares_the_latest_env_steps_with_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    oldest: dict[str, list[tuple[int, int]]] = {}
    windows = Replay.windows
    for recent in ("null", "40", "1000"):
        asked = oldest.setdefault(recent, [])

        def watched(
            self: Replay, starts: np.ndarray, steps: int, asked: list[tuple[int, int]] = asked
        ) -> object:
            ages = (len(self) // self.envs - starts.reshape(-1, 2, 2)[..., 0]) * self.envs
            asked.append((ages[:, 0].max(), ages[:, 1].max()))
            return windows(self, starts, steps)

        monkeypatch.setattr(Replay, "windows", watched)
        algorithm = algorithm_of(
            tmp_path, "algo.initial_queries=40", "algo.queries=40", f"algo.recent={recent}"
        )
        iterated(algorithm, 5)
    assert len(oldest["40"]) == len(oldest["null"]) > 3
    latest, all_of_it = zip(*oldest["40"], strict=True)
    assert max(latest) <= 40 < max(all_of_it)
    assert min(map(max, zip(*oldest["null"], strict=True))) > 40


def test_first_episodes_end_one_after_the_other_and_later_ones_at_the_time_limit(tmp_path: Path):
    algorithm = algorithm_of(
        tmp_path, "algo.envs=5", "algo.interval=5", "algo.learning_starts=9999", "env_steps=1000"
    )
    horizon = open_simulator(TASK).spec.horizon
    iterated(algorithm, 2 * horizon)
    steps = algorithm._replay.transitions(algorithm._replay.places())
    ended = steps.ended.reshape(-1, 5)
    assert len(ended) == 2 * horizon
    assert not steps.terminated.any()  # cut as by a time limit: what follows still counts
    for env in range(5):
        first = (env + 1) * horizon // 5
        expected = [first, first + horizon] if first + horizon <= 2 * horizon else [first]
        assert (np.flatnonzero(ended[:, env]) + 1).tolist() == expected


def test_every_second_environment_has_short_episodes_where_that_is_asked_for(tmp_path: Path):
    words = ("algo.envs=4", "algo.interval=4", "algo.learning_starts=9999", "env_steps=9999")
    algorithm = algorithm_of(tmp_path, *words, "algo.short_episodes=0.2")
    horizon = open_simulator(TASK).spec.horizon
    limit = horizon // 5
    iterated(algorithm, 2 * horizon)
    steps = algorithm._replay.transitions(algorithm._replay.places())
    assert not steps.terminated.any()
    ends = [np.flatnonzero(ended) + 1 for ended in steps.ended.reshape(-1, 4).T]
    for short, phase in ((0, 0), (2, limit // 2)):
        assert {*range(limit, 2 * horizon - limit, limit)} <= {int(end) + phase for end in ends[short]}
        assert np.diff(ends[short]).max() <= limit
    assert ends[1].tolist() == [horizon // 2, horizon // 2 + horizon]
    assert ends[3].tolist() == [horizon, 2 * horizon]


def test_short_episodes_hold_a_whole_question(tmp_path: Path):
    words = ("algo.envs=4", "algo.interval=4", "algo.learning_starts=9999", "env_steps=9999")
    algorithm = algorithm_of(tmp_path, *words, "algo.short_episodes=0.001", "algo.window=30")
    iterated(algorithm, 90)
    steps = algorithm._replay.transitions(algorithm._replay.places())
    first = 50 // 4  # is cut early, apart from that
    assert (np.flatnonzero(steps.ended.reshape(-1, 4)[:, 0]) + 1).tolist() == [first, 30, 60, 90]


@pytest.mark.parametrize("learning_starts", [0, 999])
def test_some_episodes_are_acted_by_the_mean_and_the_others_are_not(tmp_path: Path, learning_starts: int):
    starts = f"algo.learning_starts={learning_starts}"
    words = ("algo.envs=10", "algo.interval=10", starts, "algo.noiseless=0.2")
    algorithm = algorithm_of(tmp_path, *words)
    policy, states = algorithm._actor.policy, algorithm._states.obs.copy()
    mean = policy.act(states, None).clip(-1.0, 1.0)
    algorithm._act()
    acted = algorithm._replay.transitions(algorithm._replay.places()).actions
    np.testing.assert_array_equal(acted[:2], mean[:2])
    assert (acted[2:] != mean[2:]).all()


def test_noise_has_the_correlation_that_was_asked_for_and_variance_one():
    rng, correlation = np.random.default_rng(0), 0.8
    noise = [rng.standard_normal((400, 2), dtype=np.float32)]
    for _ in range(50):
        noise.append(correlated(noise[-1], rng.standard_normal((400, 2), dtype=np.float32), correlation))
    one, two, later = (np.stack(noise[first : 40 + first]).ravel() for first in (0, 1, 5))
    assert two.std() == pytest.approx(1.0, abs=0.02)
    assert np.corrcoef(one, two)[0, 1] == pytest.approx(0.8, abs=0.02)
    assert np.corrcoef(one, later)[0, 1] == pytest.approx(0.8**5, abs=0.03)
    drawn = rng.standard_normal((400, 2), dtype=np.float32)
    assert np.array_equal(correlated(noise[-1], drawn, 0.0), drawn)


@pytest.mark.parametrize(("settle", "expected"), [(10_000_000, 0.9), (0, 0.0)])
def test_actions_follow_the_noise_of_the_steps_before_until_the_run_has_settled(
    settle: int, expected: float, tmp_path: Path
):
    words = ("algo.envs=40", "algo.noiseless=0", "algo.learning_starts=0", "algo.early_correlation=0.9")
    algorithm = algorithm_of(tmp_path, *words, f"algo.settle={settle}", "policy.initial_std=0.2")
    noise = acted_noise(algorithm, 20)
    one, two = noise[:-1].ravel(), noise[1:].ravel()
    known = np.isfinite(one) & np.isfinite(two)
    assert np.corrcoef(one[known], two[known])[0, 1] == pytest.approx(expected, abs=0.06)


def acted_noise(algorithm: ActionSAIL, times: int) -> np.ndarray:
    """(times, N, A) executed actions less the policy's mean, for actions within the range."""
    noise = []
    for _ in range(times):
        mean = algorithm._actor.policy.act(algorithm._states.obs, None)
        algorithm._act()
        replay = algorithm._replay
        acted = replay.transitions(replay.places()).actions[-replay.envs :]
        noise.append(np.where(np.abs(acted) < 1, acted - mean, np.nan))
    return np.stack(noise)


@pytest.mark.parametrize(("settle", "expected"), [(0, 0.2), (10_000_000, 0.3)])
def test_noise_is_at_least_what_was_asked_for_though_the_policy_has_less(
    settle: int, expected: float, tmp_path: Path
):
    words = ("algo.envs=40", "algo.learning_starts=0", "policy.initial_std=0.02", f"algo.settle={settle}")
    noise = acted_noise(algorithm_of(tmp_path, *words), 40)
    assert np.nanstd(noise[:, 10:]) == pytest.approx(expected, rel=0.1)
    np.testing.assert_allclose(noise[:, :10], 0.0, atol=1e-6)
    more = acted_noise(algorithm_of(tmp_path, *words, "policy.initial_std=0.4"), 40)
    assert np.nanstd(more[:, 10:]) > 1.2 * expected


def test_the_least_deviation_falls_as_it_was_told_to(tmp_path: Path):
    common = ("algo.learning_starts=0", "algo.early_std=0.5", "algo.least_std=0.2")
    words = (*common, "algo.final_std=0.2", "algo.settle=400")
    algorithm = algorithm_of(tmp_path, *words, "policy.initial_std=0.01")
    (row,) = iterated(algorithm, 1)
    assert row["std"] == pytest.approx(0.5 - 0.3 * 40 / 400, abs=0.02)
    iterated(algorithm, 4)
    assert algorithm._actor.least_std == pytest.approx(0.5 - 0.3 * 200 / 400)
    iterated(algorithm, 6)
    assert algorithm._actor.least_std == pytest.approx(0.2)
    algorithm = algorithm_of(tmp_path, *common, "algo.final_std=0.1", "algo.settle=0")
    for left, least_std in ((1.0, 0.2), (0.5, 0.15), (0.0, 0.1)):
        algorithm.iterate(Clock(), left)
        assert algorithm._actor.least_std == pytest.approx(least_std)
