"""The simulator as a VecEnv: Stable-Baselines3's rules, and the simulator's own numbers underneath."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    is_vecenv_wrapped,
)

from sailctl.core.seeding import generator
from sailctl.simulator.batched import TaskSimulator
from sailctl.simulator.vecenv import SimulatorVecEnv
from sailctl_envs import ALL_TASKS
from sailctl_envs.halfcheetah import HalfCheetah
from sailctl_envs.hopper import Hopper

HORIZON = 12


class ShortHopper(Hopper):
    """Ends by the time limit as often as by a fall."""

    horizon = HORIZON


class ShortCheetah(HalfCheetah):
    """Ends by the time limit alone, all environments at once."""

    horizon = HORIZON


@pytest.fixture
def build() -> Iterator[Callable[..., SimulatorVecEnv]]:
    """Makes environments and ends their threads afterwards."""
    made: list[SimulatorVecEnv] = []

    def make(task: type = ShortHopper, count: int = 3, seed: int = 0, threads: int = 1) -> SimulatorVecEnv:
        made.append(SimulatorVecEnv(TaskSimulator(task(), threads), count, seed))
        return made[-1]

    yield make
    for envs in made:
        envs.close()


def draw_actions(envs: SimulatorVecEnv, steps: int, seed: int = 1) -> np.ndarray:
    """(T, N, A) uniform actions, a tenth beyond the bounds."""
    shape = (steps, envs.num_envs, *envs.action_space.shape)
    return np.random.default_rng(seed).uniform(-1.1, 1.1, shape).astype(np.float32)


def play(envs: SimulatorVecEnv, actions: np.ndarray) -> list[tuple]:
    """What ``reset`` and every step returned."""
    return [(envs.reset(), [{}] * envs.num_envs), *(envs.step(action) for action in actions)]


def assert_same(one: list[tuple], two: list[tuple]) -> None:
    """Bit for bit, infos included."""
    for left, right in zip(one, two, strict=True):
        for a, b in zip(left[:-1], right[:-1], strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
        for info, other in zip(left[-1], right[-1], strict=True):
            assert info.keys() == other.keys()
            assert all(np.array_equal(info[key], other[key]) for key in info)


class Single(gymnasium.Env):
    """One environment as Gymnasium has it, which is what Stable-Baselines3's checker takes."""

    def __init__(self, envs: SimulatorVecEnv) -> None:
        self.envs = envs
        self.observation_space, self.action_space = envs.observation_space, envs.action_space

    def reset(self, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        if seed is not None:
            self.envs.seed(seed)
        return self.envs.reset()[0], self.envs.reset_infos[0]

    def step(self, action: np.ndarray):
        obs, reward, done, (info,) = self.envs.step(action[None])
        truncated = info.get("TimeLimit.truncated", False)
        last = info.get("terminal_observation", obs[0])
        return last, float(reward[0]), bool(done[0]) and not truncated, truncated, info


# What comes back


@pytest.mark.parametrize("task", [Hopper, HalfCheetah, ShortCheetah])
@pytest.mark.filterwarnings("error:::stable_baselines3")
def test_stable_baselines3s_own_check_finds_nothing(task: type, build: Callable):
    check_env(Single(build(task, count=1)))


@pytest.mark.parametrize("task", sorted(ALL_TASKS))
def test_spaces_and_what_a_step_returns_are_what_stable_baselines3_asks_for(task: str, build: Callable):
    envs = build(ALL_TASKS[task])
    spec = envs.simulator.spec
    assert isinstance(envs.observation_space, gymnasium.spaces.Box)
    assert envs.observation_space.shape == (spec.obs_dim,)
    assert isinstance(envs.action_space, gymnasium.spaces.Box)
    np.testing.assert_array_equal(envs.action_space.low, -np.ones(spec.act_dim, np.float32), strict=True)
    np.testing.assert_array_equal(envs.action_space.high, np.ones(spec.act_dim, np.float32), strict=True)
    first = envs.reset()
    obs, reward, done, infos = envs.step(np.stack([envs.action_space.sample() for _ in range(3)]))
    for each in (*first, *obs):
        assert envs.observation_space.contains(each)
    assert first.shape == obs.shape == (3, spec.obs_dim)
    assert reward.shape == done.shape == (3,)
    assert reward.dtype == np.float32
    assert done.dtype == np.bool_
    assert [type(info) for info in infos] == [dict] * 3
    assert envs.reset_infos == [{}] * 3


def test_what_was_returned_is_not_changed_by_later_steps(build: Callable):
    envs = build()
    actions = draw_actions(envs, 30)
    kept = [envs.reset()]
    copies = [kept[0].copy()]
    for action in actions:
        returned = envs.step(action)[:3]
        kept += returned
        copies += [array.copy() for array in returned]
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_every_step_is_the_simulators_and_every_end_is_told_apart(build: Callable):
    """A simulator driven by hand: the same states, rewards, ends, last observations and fresh starts."""
    envs, by_hand, rng = build(count=5, seed=7), TaskSimulator(ShortHopper()), generator(7, "sim")
    by_hand.reset(5, rng)  # the constructor's own
    states = by_hand.reset(5, rng)
    np.testing.assert_array_equal(envs.reset(), states.obs.astype(np.float32), strict=True)
    spec, ends = by_hand.spec, {True: 0, False: 0}
    for action in draw_actions(envs, 60):
        unit = (np.clip(action, -1, 1).astype(np.float64) + 1) / 2
        step = by_hand.step(states, spec.act_low + unit * (spec.act_high - spec.act_low))
        obs, reward, done, infos = envs.step(action)
        np.testing.assert_array_equal(reward, step.reward.astype(np.float32), strict=True)
        np.testing.assert_array_equal(done, step.terminated | step.truncated, strict=True)
        for row, info in enumerate(infos):
            if not done[row]:
                assert info == {}
                continue
            assert info.keys() == {"terminal_observation", "TimeLimit.truncated"}
            assert info["TimeLimit.truncated"] is bool(step.truncated[row])
            assert info["TimeLimit.truncated"] is not bool(step.terminated[row])
            last = step.states.obs[row].astype(np.float32)
            np.testing.assert_array_equal(info["terminal_observation"], last, strict=True)
            ends[info["TimeLimit.truncated"]] += 1
        states = step.states
        ended = np.flatnonzero(done)
        if len(ended):
            states = states.put(ended, by_hand.reset(len(ended), rng))
        np.testing.assert_array_equal(obs, states.obs.astype(np.float32), strict=True)
    assert min(ends.values()) > 3
    by_hand.close()


def test_a_step_that_falls_at_the_time_limit_is_no_truncation(build: Callable):
    class OneStep(Hopper):
        """Falls at once, and the limit is there at once."""

        horizon = 1

        def terminated(self, now):
            return np.ones(len(now.qpos), dtype=bool)

    envs = build(OneStep)
    _, _, done, infos = envs.step(np.zeros((3, 3), np.float32))
    assert done.all()
    assert [info["TimeLimit.truncated"] for info in infos] == [False] * 3


@pytest.mark.parametrize("beyond", [1.5, 40.0, np.inf])
def test_actions_beyond_the_bounds_count_as_the_bounds(beyond: float, build: Callable):
    one, two = build(seed=3), build(seed=3)
    for sign in (-1, 1):
        clipped = np.full((3, 3), sign, dtype=np.float32)
        obs, reward, done, _ = one.step(clipped)
        other_obs, other_reward, other_done, _ = two.step(clipped * beyond)
        np.testing.assert_array_equal(obs, other_obs)
        np.testing.assert_array_equal(reward, other_reward)
        np.testing.assert_array_equal(done, other_done)


def test_success_is_told_where_the_task_defines_it(build: Callable, monkeypatch: pytest.MonkeyPatch):
    envs = build()
    step = envs.simulator.step
    success = np.array([True, False, True])
    monkeypatch.setattr(envs.simulator, "step", lambda *args: replace(step(*args), success=success))
    _, _, _, infos = envs.step(np.zeros((3, 3), np.float32))
    assert [info["is_success"] for info in infos] == [True, False, True]


# Seeds


def test_same_seed_same_numbers_whatever_the_threads(build: Callable):
    one, two, other = build(seed=5), build(seed=5, threads=2), build(seed=6)
    actions = draw_actions(one, 40)
    assert_same(play(one, actions), play(two, actions))
    assert not np.array_equal(one.reset(), other.reset())


def test_seed_waits_for_the_next_reset_and_is_used_once(build: Callable):
    one, two = build(seed=1), build(seed=2)
    actions = draw_actions(one, 20)
    before = one.states
    assert one.seed(9) == [9, 10, 11]
    assert one.states is before
    two.seed(9)
    assert_same(play(one, actions), play(two, actions))
    assert not np.array_equal(one.reset(), build(seed=9).reset())  # went on, did not begin again
    one.seed(4)
    first = one.reset()
    assert not np.array_equal(first, one.reset())


def test_reset_begins_new_episodes_everywhere(build: Callable):
    envs = build(ShortCheetah)
    for action in draw_actions(envs, 5):
        envs.step(action)
    first = envs.reset()
    assert envs.states.elapsed.tolist() == [0, 0, 0]
    done = [envs.step(action)[2] for action in draw_actions(envs, HORIZON)]
    assert [each.tolist() for each in done] == [[False] * 3] * (HORIZON - 1) + [[True] * 3]
    assert not np.array_equal(first, envs.reset())


# Attributes and methods


def test_questions_about_environments_are_answered_for_each_asked_about(build: Callable):
    envs = build()
    assert envs.get_attr("num_envs") == [3, 3, 3]
    assert envs.get_attr("render_mode", indices=[0, 2]) == [None, None]
    assert envs.get_attr("num_envs", indices=1) == [3]
    assert envs.env_is_wrapped(Monitor) == [False] * 3
    assert envs.env_is_wrapped(Monitor, indices=0) == [False]
    assert envs.env_method("has_attr", "simulator", indices=[1]) == [True]
    assert not envs.has_attr("no_such_thing")
    with pytest.raises(AttributeError):
        envs.get_attr("no_such_thing")
    assert envs.unwrapped is envs


def test_an_attribute_is_set_for_all_or_refused(build: Callable):
    envs = build()
    envs.set_attr("label", "a")
    assert envs.get_attr("label") == ["a"] * 3
    envs.set_attr("label", "b", indices=range(3))
    assert envs.get_attr("label") == ["b"] * 3
    with pytest.raises(ValueError, match="share"):
        envs.set_attr("label", "c", indices=[0])
    assert envs.get_attr("label") == ["b"] * 3


# Around it


def test_monitor_reports_episodes_as_they_were(build: Callable, tmp_path: Path):
    bare, envs = build(seed=8), VecMonitor(build(seed=8), str(tmp_path / "log"))
    actions = draw_actions(bare, 50)
    assert is_vecenv_wrapped(envs, VecMonitor)
    bare.reset()
    envs.reset()
    total, length, episodes = np.zeros(3), np.zeros(3, dtype=int), 0
    for action in actions:
        _, reward, done, _ = bare.step(action)
        _, _, _, infos = envs.step(action)
        total, length = total + reward, length + 1
        for row in np.flatnonzero(done):
            episode = infos[row]["episode"]
            assert episode["l"] == length[row]
            assert episode["r"] == pytest.approx(total[row], abs=1e-5)
            assert "terminal_observation" in infos[row]
            total[row] = length[row] = 0
            episodes += 1
    envs.close()
    assert episodes > 10
    assert len((tmp_path / "log.monitor.csv").read_text().splitlines()) == 2 + episodes


def test_normalisation_is_that_of_what_was_seen_and_survives_a_file(build: Callable, tmp_path: Path):
    envs, bare = VecNormalize(build(seed=2), clip_obs=np.inf, clip_reward=np.inf), build(seed=2)
    actions = draw_actions(bare, 30)
    seen = [bare.reset(), *(bare.step(action)[0] for action in actions)]
    normal = [envs.reset(), *(envs.step(action)[0] for action in actions)]
    seen = np.concatenate(seen).astype(np.float64)
    np.testing.assert_allclose(envs.obs_rms.mean, seen.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(envs.obs_rms.var, seen.var(axis=0), rtol=1e-3, atol=1e-4)
    scale = np.sqrt(envs.obs_rms.var + envs.epsilon)
    np.testing.assert_allclose(normal[-1], (seen[-3:] - envs.obs_rms.mean) / scale, rtol=1e-5, atol=1e-6)

    envs.save(str(tmp_path / "normal.pkl"))
    loaded = VecNormalize.load(str(tmp_path / "normal.pkl"), build(seed=2))
    loaded.training = False
    np.testing.assert_array_equal(loaded.normalize_obs(seen), envs.normalize_obs(seen))
    loaded.reset()
    for action in actions:
        obs = loaded.step(action)[0]
    np.testing.assert_allclose(obs, normal[-1], rtol=1e-5, atol=1e-6)


def test_the_last_observation_is_normalised_too(build: Callable):
    envs = VecNormalize(build(ShortCheetah), clip_obs=np.inf)
    envs.reset()
    for action in draw_actions(envs, HORIZON):
        _, _, done, infos = envs.step(action)
    assert done.all()
    raw = envs.unnormalize_obs(infos[0]["terminal_observation"])
    assert not np.allclose(raw, infos[0]["terminal_observation"], atol=1e-2)


def test_other_wrappers_hold_it(build: Callable):
    envs = VecFrameStack(VecCheckNan(build(), raise_exception=True), 4)
    assert envs.reset().shape == (3, 4 * envs.unwrapped.simulator.spec.obs_dim)
    obs, *_ = envs.step(draw_actions(envs, 1)[0])
    assert np.isfinite(obs).all()


# Algorithms


class Counts(BaseCallback):
    """What a callback sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []
        self.rollouts = 0
        self.episodes = 0

    def _on_step(self) -> bool:
        self.seen.append((self.n_calls, self.num_timesteps))
        self.episodes += sum("episode" in info for info in self.locals["infos"])
        return True

    def _on_rollout_end(self) -> None:
        self.rollouts += 1


ALGORITHMS: dict[str, Callable[..., BaseAlgorithm]] = {
    "ppo": lambda envs: PPO("MlpPolicy", envs, n_steps=32, batch_size=32, n_epochs=2, seed=0, device="cpu"),
    "sac": lambda envs: SAC(
        "MlpPolicy", envs, learning_starts=96, batch_size=32, seed=0, device="cpu", train_freq=4
    ),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_learns_and_its_callbacks_count_env_steps(name: str, build: Callable):
    envs = VecMonitor(build(ShortCheetah, count=4))
    model, counts = ALGORITHMS[name](envs), Counts()
    before = {key: value.clone() for key, value in model.policy.state_dict().items()}
    model.learn(384, callback=counts)
    assert counts.seen == [(call, 4 * call) for call in range(1, 97)]
    assert counts.episodes == 4 * (96 // HORIZON)
    assert counts.rollouts == {"ppo": 3, "sac": 24}[name]
    assert model.num_timesteps == 384
    assert any(not np.array_equal(value, before[key]) for key, value in model.policy.state_dict().items())
    assert [episode["l"] for episode in model.ep_info_buffer] == [HORIZON] * len(model.ep_info_buffer)


def test_training_repeats_bit_for_bit(build: Callable):
    def weights() -> list[np.ndarray]:
        model = ALGORITHMS["ppo"](build(seed=11))
        return [value.numpy() for value in model.learn(192).policy.state_dict().values()]

    for one, two in zip(weights(), weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_time_limit_is_no_end_for_an_algorithm(build: Callable):
    """SAC's replay buffer keeps such ends apart, and holds the last observation there, not the next first."""
    envs = build(ShortCheetah, count=2)
    model = ALGORITHMS["sac"](envs)
    model.learn(4 * HORIZON)
    buffer = model.replay_buffer
    assert buffer.dones[: 2 * HORIZON].sum() == buffer.timeouts[: 2 * HORIZON].sum() == 4
    assert buffer.timeouts[HORIZON - 1].all()
    last, first = buffer.next_observations[HORIZON - 1], buffer.observations[HORIZON]
    assert not np.allclose(last, first, atol=1e-3)
    np.testing.assert_array_equal(buffer.next_observations[0], buffer.observations[1])


def test_policies_are_evaluated_on_whole_episodes(build: Callable):
    envs = VecMonitor(build(ShortCheetah, count=4))
    model = ALGORITHMS["ppo"](VecMonitor(build(ShortCheetah)))
    returns, lengths = evaluate_policy(model, envs, 6, return_episode_rewards=True)
    assert lengths == [HORIZON] * 6
    assert len(set(returns)) == 6
    callback = EvalCallback(envs, n_eval_episodes=4, eval_freq=16, verbose=0)
    model.learn(96, callback=callback)
    assert np.isfinite(callback.best_mean_reward)
