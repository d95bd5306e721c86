"""What the critic learns from, against a plain loop over the episodes that were remembered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from sailctl.core.types import EnvSpec, Transitions
from sailctl.data.replay import Replay

SPEC = EnvSpec("toy-v0", 1, 1, -np.ones(1), np.ones(1), 100, 0.1)
ENVS, DISCOUNT = 3, 0.9


@dataclass(frozen=True)
class Step:
    """One step of one environment, as it was taken."""

    obs: float
    reward: float
    terminated: bool
    ended: bool
    after: float


def filled(rows: int, steps: int, seed: int = 0) -> tuple[Replay, list[list[Step]]]:
    """A buffer of so many rows after so many control steps, and what each environment did. Every observation
    is another number, which names the step."""
    rng = np.random.default_rng(seed)
    replay, done = Replay(rows, ENVS, SPEC), [[] for _ in range(ENVS)]
    for t in range(steps):
        obs = 1000.0 * np.arange(ENVS) + t
        terminated = rng.random(ENVS) < 0.15
        ended = terminated | (rng.random(ENVS) < 0.15)  # the others by the time limit
        rewards = rng.normal(size=ENVS)
        columns = (obs, rng.uniform(-1, 1, ENVS), obs + 0.5)
        arrays = (column.astype(np.float32)[:, None] for column in columns)
        replay.add(Transitions(*arrays, terminated, ended), 100.0 + rewards)
        replay.reward_latest(rewards.astype(np.float32))
        for env in range(ENVS):
            done[env].append(Step(obs[env], rewards[env], terminated[env], ended[env], obs[env] + 0.5))
    return replay, [episode[-rows:] for episode in done]


def by_hand(known: list[Step], start: int, steps: int) -> tuple[float, float, float]:
    """Return, last observation and weight of its value: one step after the other."""
    total, weight = 0.0, 1.0
    for step in known[start : start + steps]:
        total += weight * step.reward
        weight *= DISCOUNT
        if step.ended:
            return total, step.after, 0.0 if step.terminated else weight
    return total, step.after, weight


@pytest.mark.parametrize("steps", [1, 2, 5, 40])
@pytest.mark.parametrize(("rows", "taken"), [(30, 30), (30, 11), (20, 53)])
def test_what_follows_is_what_a_loop_over_the_episodes_finds(rows: int, taken: int, steps: int):
    """Terminations, time limits, the present, and a ring that was overwritten twice."""
    replay, known = filled(rows, taken)
    drawn = replay.sample(2000, steps, DISCOUNT, np.random.default_rng(1))
    seen, ends = set(), set()
    for i, obs in enumerate(drawn.obs[:, 0]):
        env = int(obs) // 1000
        start = next(n for n, step in enumerate(known[env]) if step.obs == obs)
        total, after, weight = by_hand(known[env], start, steps)
        assert drawn.returns[i] == pytest.approx(total, abs=1e-5)
        assert drawn.next_obs[i, 0] == pytest.approx(after)
        assert drawn.weight[i] == pytest.approx(weight, rel=1e-5)
        seen.add(float(obs))
        ends.add(weight == 0.0)
    assert len(seen) == ENVS * min(rows, taken), "every step that is remembered is drawn, and no other"
    assert ends == {False, True}


def test_steps_are_drawn_uniformly():
    replay, _ = filled(10, 25)
    drawn = replay.sample(30_000, 3, DISCOUNT, np.random.default_rng(2))
    _, counts = np.unique(drawn.obs, return_counts=True)
    assert len(counts) == 30
    assert abs(counts - 1000).max() < 5 * np.sqrt(1000)


def one_step_rewards(replay: Replay) -> dict[float, float]:
    drawn = replay.sample(2000, 1, DISCOUNT, np.random.default_rng(3))
    return dict(zip(drawn.obs[:, 0].tolist(), drawn.returns.tolist(), strict=True))


@pytest.mark.parametrize("taken", [6, 25])
def test_all_rewards_are_replaced_in_the_order_of_places(taken: int):
    replay, known = filled(10, taken)
    obs = replay.transitions(replay.places()).obs[:, 0]
    replay.reward_all(obs / 7)
    found = one_step_rewards(replay)
    assert found == {float(step.obs): np.float32(step.obs) / np.float32(7) for own in known for step in own}
    true = np.array([step.reward for row in zip(*known, strict=True) for step in row])
    np.testing.assert_allclose(replay.true_rewards(), 100.0 + true)


def test_the_latest_reward_belongs_to_the_step_that_was_added_last():
    replay, known = filled(10, 25)
    replay.reward_latest(np.array([7.0, 8.0, 9.0], np.float32))
    found = one_step_rewards(replay)
    assert [found[own[-1].obs] for own in known] == [7.0, 8.0, 9.0]
    assert found[known[0][-2].obs] == pytest.approx(known[0][-2].reward)


def test_a_step_has_no_reward_before_it_is_given_one():
    """Nor that of the step whose row it took."""
    replay, _ = filled(10, 25)
    new = np.full((ENVS, 1), 5000.0, np.float32)
    replay.add(Transitions(new, new, new, np.zeros(ENVS, bool), np.zeros(ENVS, bool)), np.ones(ENVS))
    assert one_step_rewards(replay)[5000.0] == 0.0


@pytest.mark.parametrize("taken", [6, 25])
def test_a_restored_buffer_hands_out_the_same(taken: int):
    replay, _ = filled(10, taken)
    other = Replay(10, ENVS, SPEC)
    other.restore(replay.state())
    one, two = (each.sample(200, 4, DISCOUNT, np.random.default_rng(4)) for each in (replay, other))
    for name in ("obs", "actions", "returns", "next_obs", "weight"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    np.testing.assert_array_equal(replay.true_rewards(), other.true_rewards())
