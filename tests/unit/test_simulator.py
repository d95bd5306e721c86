"""The simulator's promises: exact repetition, forking, saving, honest endings, and no silent failure."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sailctl.core.types import RunError
from sailctl.simulator.batched import TaskSimulator
from sailctl.simulator.states import States, Step
from sailctl_envs import ALL_TASKS, Task
from sailctl_envs.inverted_pendulum import InvertedPendulum

TASKS = ["hopper-v5", "ant-v5", "pusher-v5", "reacher_easy", "quadruped_walk"]
"""One for each way of stepping: batched; by fields, with memory; sensors as they are left; a target drawn at
the start, with sensors looked at; activations. The contract tests run over all tasks."""
ENDING = ["hopper-v5", "invertedpendulum-v5", "inverteddoublependulum-v5"]
"""Of those that end, the ones that full control surely fells."""


@pytest.fixture
def build() -> Iterator[Callable[..., TaskSimulator]]:
    """Makes simulators and ends their threads afterwards."""
    made: list[TaskSimulator] = []

    def make(name: str | Task, threads: int = 1) -> TaskSimulator:
        task = name if isinstance(name, Task) else ALL_TASKS[name]()
        made.append(TaskSimulator(task, threads))
        return made[-1]

    yield make
    for simulator in made:
        simulator.close()


def arrays(step: Step) -> dict[str, np.ndarray]:
    outcome = {"reward": step.reward, "terminated": step.terminated, "truncated": step.truncated}
    return {**step.states.save(), **outcome}


def play(simulator: TaskSimulator, states: States, actions: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Steps through ``actions`` (T, N, A); every row goes on, whatever ended."""
    path = []
    for action in actions:
        step = simulator.step(states, action)
        states = step.states
        path.append(arrays(step))
    return path


def draw_actions(simulator: TaskSimulator, steps: int, rows: int, seed: int = 1) -> np.ndarray:
    """(T, N, A) uniform actions."""
    spec = simulator.spec
    return np.random.default_rng(seed).uniform(spec.act_low, spec.act_high, (steps, rows, spec.act_dim))


def mixed_states(simulator: TaskSimulator, rows: int, steps: int = 15) -> States:
    """States as different as ``steps`` random steps make them."""
    states = simulator.reset(rows, np.random.default_rng(0))
    for action in draw_actions(simulator, steps, rows, seed=2):
        states = simulator.step(states, action).states
    return states


def assert_same_path(
    one: list[dict[str, np.ndarray]], two: list[dict[str, np.ndarray]], rows: np.ndarray | None = None
) -> None:
    """Bit for bit, with ``rows`` of ``one`` against all of ``two``."""
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            left = a[name] if rows is None else a[name][rows]
            np.testing.assert_array_equal(left, b[name], err_msg=name, strict=True)


def states_equal(one: States, two: States) -> bool:
    saved, other = one.save(), two.save()
    return all(np.array_equal(saved[name], other[name]) for name in saved)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("rows", [1, 2, 23])
def test_threads_do_not_change_a_bit(build: Callable[..., TaskSimulator], name: str, rows: int) -> None:
    one, two = build(name, threads=1), build(name, threads=2)
    states, actions = mixed_states(one, rows), draw_actions(one, 5, rows)
    assert_same_path(play(one, states, actions), play(two, states, actions))


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("threads", [1, 2])
def test_order_of_the_batch_does_not_change_a_bit(
    build: Callable[..., TaskSimulator], name: str, threads: int
) -> None:
    simulator = build(name, threads)
    states, actions = mixed_states(simulator, 17), draw_actions(simulator, 5, 17)
    path = play(simulator, states, actions)
    for order in (np.arange(17)[::-1], np.random.default_rng(3).permutation(17)):
        assert_same_path(path, play(simulator, states.take(order), actions[:, order]), order)


@pytest.mark.parametrize("name", TASKS)
def test_a_row_alone_is_the_row_in_a_batch(build: Callable[..., TaskSimulator], name: str) -> None:
    simulator = build(name)
    states, actions = mixed_states(simulator, 6), draw_actions(simulator, 5, 6)
    path = play(simulator, states, actions)
    for row in range(6):
        rows = np.array([row])
        assert_same_path(path, play(simulator, states.take(rows), actions[:, rows]), rows)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("threads", [1, 2])
def test_forks_go_on_as_their_origin_does(
    build: Callable[..., TaskSimulator], name: str, threads: int
) -> None:
    simulator = build(name, threads)
    states, actions = mixed_states(simulator, 3), draw_actions(simulator, 10, 3)
    forked = states.fork(4)
    assert len(forked) == 12
    path = play(simulator, states, actions)
    forked_path = play(simulator, forked, np.repeat(actions, 4, axis=1))
    assert_same_path(path, forked_path, np.repeat(np.arange(3), 4))
    for one in states.save():
        assert not np.shares_memory(getattr(states, one), getattr(forked, one))


def test_forks_part_under_different_actions(build: Callable[..., TaskSimulator]) -> None:
    simulator = build("hopper-v5")
    forked = simulator.reset(2, np.random.default_rng(0)).fork(2)
    reached = simulator.step(forked, draw_actions(simulator, 1, 4)[0]).states
    assert len(np.unique(reached.physics, axis=0)) == 4


@pytest.mark.parametrize("name", TASKS)
def test_saved_states_go_on_bit_for_bit(build: Callable[..., TaskSimulator], name: str) -> None:
    simulator = build(name)
    states, actions = mixed_states(simulator, 5), draw_actions(simulator, 20, 5)
    file = io.BytesIO()
    np.savez(file, **states.save())
    path = play(simulator, states, actions)
    file.seek(0)
    with np.load(file) as saved:
        restored = States.restore(dict(saved))
    assert states_equal(restored, states)
    assert_same_path(path, play(build(name), restored, actions))


def test_saved_and_restored_arrays_are_copies(build: Callable[..., TaskSimulator]) -> None:
    states = mixed_states(build("hopper-v5"), 3)
    saved = states.save()
    restored = States.restore(saved)
    for name, array in saved.items():
        assert not np.shares_memory(array, getattr(states, name))
        assert not np.shares_memory(array, getattr(restored, name))


def test_take_put_and_join(build: Callable[..., TaskSimulator]) -> None:
    simulator = build("walker2d-v5")
    states = mixed_states(simulator, 6)
    kept = states.save()
    other = simulator.reset(2, np.random.default_rng(9))
    rows = np.array([4, 1])

    put = states.put(rows, other)
    assert states_equal(put.take(rows), other)
    rest = np.array([0, 2, 3, 5])
    assert states_equal(put.take(rest), states.take(rest))
    assert put.elapsed.tolist() == [15, 0, 15, 15, 0, 15]

    mask = np.array([True, False, True, False, False, True])
    assert states_equal(states.take(mask), states.take(np.array([0, 2, 5])))
    joined = States.join([states.take(np.array([3])), other, states])
    assert len(joined) == 9
    assert states_equal(joined.take(np.array([1, 2])), other)
    assert states_equal(joined.take(np.arange(3, 9)), states)
    assert states_equal(states.put(np.array([], dtype=np.int64), other.take(np.array([], dtype=int))), states)

    for name, array in kept.items():
        np.testing.assert_array_equal(getattr(states, name), array)
        for made in (put, joined, states.take(mask), states.take(np.arange(6))):
            assert not np.shares_memory(getattr(made, name), getattr(states, name))
            assert not np.shares_memory(getattr(made, name), getattr(other, name))


def test_elapsed_counts_control_steps(build: Callable[..., TaskSimulator]) -> None:
    simulator = build("reacher-v5")
    states = simulator.reset(2, np.random.default_rng(0))
    assert states.elapsed.tolist() == [0, 0]
    for count in range(1, 4):
        states = simulator.step(states, np.zeros((2, 2))).states
        assert states.elapsed.tolist() == [count, count]
    mixed = states.put(np.array([0]), simulator.reset(1, np.random.default_rng(1)))
    assert simulator.step(mixed, np.zeros((2, 2))).states.elapsed.tolist() == [1, 4]


@pytest.mark.parametrize("name", TASKS)
def test_only_the_time_limit_truncates(build: Callable[..., TaskSimulator], name: str) -> None:
    """Three rows in one state, at different times: the limit falls on the horizon and not a step earlier."""
    simulator = build(name)
    horizon = simulator.spec.horizon
    start = simulator.reset(1, np.random.default_rng(0)).fork(3)
    states = replace(start, elapsed=np.array([0, horizon - 2, horizon - 1]))
    step = simulator.step(states, np.zeros((3, simulator.spec.act_dim)))
    assert step.terminated.tolist() == [False] * 3
    assert step.truncated.tolist() == [False, False, True]
    assert step.done.tolist() == [False, False, True]
    assert len(np.unique(step.reward)) == 1


def fallen(simulator: TaskSimulator, rows: int) -> States:
    """States one step after which every episode has terminated."""
    states = simulator.reset(rows, np.random.default_rng(0))
    actions = np.tile(simulator.spec.act_high, (rows, 1))
    for _ in range(500):
        states = simulator.step(states, actions).states
        if simulator.step(states, np.zeros_like(actions)).terminated.all():
            return states
    raise AssertionError("the rows did not fall")


@pytest.mark.parametrize("name", ENDING)
def test_a_termination_on_the_time_limit_is_no_truncation(
    build: Callable[..., TaskSimulator], name: str
) -> None:
    simulator = build(name)
    horizon = simulator.spec.horizon
    states = fallen(simulator, 3)
    states = replace(states, elapsed=np.array([0, horizon - 2, horizon - 1]))
    step = simulator.step(states, np.zeros((3, simulator.spec.act_dim)))
    assert step.terminated.tolist() == [True] * 3
    assert step.truncated.tolist() == [False] * 3
    assert step.done.tolist() == [True] * 3


@pytest.mark.parametrize("name", ENDING)
def test_nothing_resets_by_itself_after_a_termination(build: Callable[..., TaskSimulator], name: str) -> None:
    simulator = build(name)
    states = fallen(simulator, 1)
    for count in range(1, 4):
        step = simulator.step(states, np.zeros((1, simulator.spec.act_dim)))
        assert step.terminated.all()
        assert step.states.elapsed[0] == states.elapsed[0] + 1, count
        assert step.states.physics[0, 0] - states.physics[0, 0] == pytest.approx(simulator.spec.dt)
        states = step.states


@pytest.mark.parametrize("name", TASKS)
def test_nothing_resets_by_itself_after_the_time_limit(
    build: Callable[..., TaskSimulator], name: str
) -> None:
    simulator = build(name)
    horizon, zero = simulator.spec.horizon, np.zeros((1, simulator.spec.act_dim))
    start = simulator.reset(1, np.random.default_rng(0))
    early = simulator.step(start, zero)
    late = simulator.step(replace(start, elapsed=np.array([horizon - 1])), zero)
    assert late.truncated.all()
    np.testing.assert_array_equal(late.states.physics, early.states.physics)
    after = simulator.step(late.states, zero)
    assert after.states.elapsed.tolist() == [horizon + 1]
    np.testing.assert_array_equal(after.states.physics, simulator.step(early.states, zero).states.physics)


class EveryStep(InvertedPendulum):
    """One physics sub-step in a control step: nothing comes after a sub-step that could betray it."""

    frame_skip = 1


def with_value(states: States, column: int, value: float) -> States:
    """Row 2 with one number replaced."""
    physics = states.physics.copy()
    physics[2, column] = value
    return replace(states, physics=physics)


@pytest.mark.parametrize("name", [*TASKS, "every step"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("steps", [0, 3])
def test_unstable_states_are_refused(
    build: Callable[..., TaskSimulator],
    name: str,
    threads: int,
    steps: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MuJoCo itself would put its own start in their place and go on, at the start of an episode too."""
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log there
    simulator = build(EveryStep() if name == "every step" else name, threads)
    states = mixed_states(simulator, 4, steps)
    zero = np.zeros((4, simulator.spec.act_dim))
    position, velocity = 1, 1 + simulator.model.nq
    bad = [(column, value) for column in (position, velocity) for value in (np.nan, np.inf, -np.inf, 1e12)]
    for column, value in [*bad, (velocity + simulator.model.nv - 1, np.nan)]:
        with pytest.raises(
            RunError, match=rf"^{simulator.spec.id}: .*unstable in 1 of 4 states \(first: row 2\)$"
        ):
            simulator.step(with_value(states, column, value), zero)
    # Not out of range itself: the accelerations that follow from it are.
    fast = states.physics.copy()
    fast[2, velocity:] = 1e9
    with pytest.raises(RunError, match="1 of 4 states"):
        simulator.step(replace(states, physics=fast), zero)
    # The simulator itself is none the worse for it.
    fine, fresh = simulator.step(states, zero), build(simulator.task).step(states, zero)
    assert_same_path([arrays(fine)], [arrays(fresh)])


@pytest.mark.parametrize("name", [*TASKS, "every step"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_actions_that_are_not_finite_are_refused(
    build: Callable[..., TaskSimulator], name: str, value: float
) -> None:
    """MuJoCo itself would act as if they were zero."""
    simulator = build(EveryStep() if name == "every step" else name)
    states = simulator.reset(3, np.random.default_rng(0))
    action = np.zeros((3, simulator.spec.act_dim))
    action[1, -1] = value
    with pytest.raises(
        RunError, match=rf"{simulator.spec.id}: 1 of 3 actions are not finite \(first: row 1\)$"
    ):
        simulator.step(states, action)


@pytest.mark.parametrize("shape", [(4, 4), (4, 2), (3, 3), (5, 3)])
def test_actions_of_a_wrong_shape_are_refused(
    build: Callable[..., TaskSimulator], shape: tuple[int, int]
) -> None:
    simulator = build("hopper-v5")
    with pytest.raises((ValueError, IndexError)):
        simulator.step(simulator.reset(4, np.random.default_rng(0)), np.zeros(shape))


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("threads", [1, 2])
def test_batches_of_no_rows(build: Callable[..., TaskSimulator], name: str, threads: int) -> None:
    simulator = build(name, threads)
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    empty = simulator.reset(0, rng)
    assert rng.bit_generator.state == before
    spec = simulator.spec
    step = simulator.step(empty, np.zeros((0, spec.act_dim)))
    for states in (empty, step.states, empty.fork(3), States.join([empty, empty])):
        assert len(states) == 0
        assert states.obs.shape == (0, spec.obs_dim)
    assert step.reward.shape == step.terminated.shape == step.truncated.shape == step.done.shape == (0,)
    some = simulator.reset(2, rng)
    assert states_equal(States.join([empty, some]), some)
    assert states_equal(some.take(np.zeros(2, dtype=bool)), empty)
