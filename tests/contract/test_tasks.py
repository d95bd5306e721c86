"""Every task is the same task as the original that it names, in Gymnasium or dm_control.

Both sides are set to the same physics state and take one control step. MuJoCo's warm start is no part of
that state, so the original starts its solver cold here, as the simulator always does; only the free-running
test lets the original keep its warm starts. Tasks are found in ``ALL_TASKS``: a new one is tested unnamed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import replace

import mujoco
import numpy as np
import pytest

from sailctl.core.types import RunError
from sailctl.simulator.batched import TaskSimulator
from sailctl.simulator.states import States, Step
from sailctl_envs import ALL_TASKS, Task
from sailctl_envs.dmc import SuiteTask
from tests.contract.originals import Original, open_original

ROWS = 12
SIZES = (0.5, 3.0, 15.0, 150.0)
"""How far a state is thrown from an episode start, in one coordinate."""
RESETS = (2000, 10_000)
"""Resets of the original, which makes them one by one, and of ours."""
FEW_RESETS = {"cheetah_run": (400, 1000), "quadruped_walk": (150, 1000), "quadruped_run": (150, 1000)}
"""The same for tasks that look for their starts by simulating."""
ENDING = sorted(name for name, task in ALL_TASKS.items() if task.terminated is not Task.terminated)


@pytest.fixture(params=sorted(ALL_TASKS))
def task(request: pytest.FixtureRequest) -> Task:
    task = ALL_TASKS[request.param]()
    if isinstance(task, SuiteTask) and importlib.util.find_spec("dm_control") is None:
        pytest.skip("dm_control is not installed")
    return task


@pytest.fixture
def simulator(task: Task) -> Iterator[TaskSimulator]:
    simulator = TaskSimulator(task)
    yield simulator
    simulator.close()


@pytest.fixture
def original(task: Task) -> Iterator[Original]:
    original = open_original(task)
    yield original
    original.close()


def assert_same_step(original: Original, states: States, actions: np.ndarray, ours: Step) -> dict[str, int]:
    """Compare each row with one step of the original; counts active contacts and joint limits."""
    seen = {"contact": 0, "limit": 0}
    data = original.data
    for row, action in enumerate(actions):
        original.place(states.physics[row], states.memory[row])
        theirs = original.step(action)
        assert_close(ours.states.obs[row], theirs.obs, original.obs_rounding)
        assert_close(ours.reward[row], theirs.reward, original.reward_rounding)
        assert_close(ours.states.memory[row], original.memory(), original.reward_rounding)
        assert ours.terminated[row] == theirs.terminated
        assert not theirs.truncated
        np.testing.assert_array_equal(ours.states.physics[row], original.physics())
        seen["contact"] += data.ncon > 0
        seen["limit"] += bool((data.efc_type == mujoco.mjtConstraint.mjCNSTR_LIMIT_JOINT).any())
    return seen


def assert_close(ours: np.ndarray, theirs: np.ndarray | float, rounding: float) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=rounding, atol=rounding)


def uniform(rng: np.random.Generator, low: np.ndarray, high: np.ndarray, _: int) -> np.ndarray:
    return rng.uniform(low, high, (ROWS, len(low)))


def bang_bang(rng: np.random.Generator, low: np.ndarray, high: np.ndarray, _: int) -> np.ndarray:
    return np.where(rng.random((ROWS, len(low))) < 0.5, low, high)


def beyond_bounds(_: np.random.Generator, low: np.ndarray, high: np.ndarray, time: int) -> np.ndarray:
    """Held for ten steps each, so that joints are driven into their limits."""
    held = np.random.default_rng(time // 10)
    return 3.0 * np.where(held.random((ROWS, len(low))) < 0.5, low, high)


@pytest.mark.parametrize("draw", [uniform, bang_bang, beyond_bounds])
def test_one_step_equals_the_original(
    task: Task, simulator: TaskSimulator, original: Original, draw: Callable[..., np.ndarray]
) -> None:
    """From starts, mid-episode and terminated states: half of the rows go on after a termination."""
    rng = np.random.default_rng(1)
    spec, model = simulator.spec, simulator.model
    states = simulator.reset(ROWS, rng)
    seen = {"contact": 0, "limit": 0, "end": 0, "after end": 0}
    over = np.zeros(ROWS, dtype=bool)
    for time in range(40):
        actions = draw(rng, spec.act_low, spec.act_high, time)
        step = simulator.step(states, actions)
        for name, count in assert_same_step(original, states, actions, step).items():
            seen[name] += count
        seen["end"] += int(step.terminated.sum())
        seen["after end"] += int(over.sum())
        fresh = np.flatnonzero(step.terminated & (np.arange(ROWS) % 2 == 0))
        states = step.states.put(fresh, simulator.reset(len(fresh), rng))
        over |= step.terminated
        over[fresh] = False
    if task.id in ENDING:
        assert seen["end"] > 10
        assert seen["after end"] > 10
    else:
        assert seen["end"] == 0
    if draw is beyond_bounds:
        if has_ground(model) and not model.opt.viscosity:
            assert seen["contact"] > 10
        hinges = model.jnt_type == mujoco.mjtJoint.mjJNT_HINGE  # the end of a rail may be too far away
        if model.jnt_limited[hinges].any():
            assert seen["limit"] > 10


def has_ground(model: mujoco.MjModel) -> bool:
    """Whether anything can touch a plane."""
    plane = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    meets = model.geom_contype[plane, None] & model.geom_conaffinity[~plane]
    met = model.geom_conaffinity[plane, None] & model.geom_contype[~plane]
    enabled = not model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CONTACT
    return enabled and bool((meets | met).any())


def thrown(simulator: TaskSimulator, rng: np.random.Generator, size: float) -> States:
    """One state per coordinate and sign: an episode start with that coordinate moved by ``size``."""
    coordinates = simulator.reset(1, rng).physics.shape[1] - 1
    states = simulator.reset(2 * coordinates, rng)
    states.physics[:coordinates, 1:] += size * np.eye(coordinates)
    states.physics[coordinates:, 1:] -= size * np.eye(coordinates)
    return states


def stable_rows(simulator: TaskSimulator, states: States, actions: np.ndarray) -> np.ndarray:
    """The rows from which MuJoCo can take a step; the simulator refuses the others, as it should."""
    stable = []
    for row in range(len(states)):
        try:
            simulator.step(states.take(np.array([row])), actions[row : row + 1])
        except RunError:
            continue
        stable.append(row)
    return np.array(stable)


@pytest.mark.parametrize("size", SIZES)
def test_one_step_from_extreme_states_equals_the_original(
    task: Task, simulator: TaskSimulator, original: Original, size: float
) -> None:
    rng = np.random.default_rng(2)
    states = thrown(simulator, rng, size)
    spec = simulator.spec
    actions = rng.uniform(spec.act_low, spec.act_high, (len(states), spec.act_dim))
    rows = stable_rows(simulator, states, actions)
    assert len(rows) > 0.25 * len(states)
    states, actions = states.take(rows), actions[rows]
    step = simulator.step(states, actions)
    assert_same_step(original, states, actions, step)
    assert step.terminated.any() == (task.id in ENDING)


@pytest.mark.parametrize("task", ENDING, indirect=True)
def test_episodes_end_at_the_same_edge(simulator: TaskSimulator, original: Original) -> None:
    """Bisect between a start that lives and one that dies: the original agrees on both sides of the edge."""
    rng = np.random.default_rng(3)
    extreme = States.join([thrown(simulator, rng, size) for size in SIZES])
    actions = np.zeros((len(extreme), simulator.spec.act_dim))
    rows = stable_rows(simulator, extreme, actions)
    extreme, actions = extreme.take(rows), actions[rows]
    dying = simulator.step(extreme, actions).terminated
    assert dying.sum() >= 10
    dead, alive = extreme.physics[dying], simulator.reset(int(dying.sum()), rng).physics
    actions = actions[dying]

    def states(physics: np.ndarray) -> States:
        return simulator.enter(physics)

    for _ in range(40):
        middle = 0.5 * (alive + dead)
        died = simulator.step(states(middle), actions).terminated
        alive = np.where(died[:, None], alive, middle)
        dead = np.where(died[:, None], middle, dead)
    assert np.all(np.abs(alive - dead) < 1e-9)
    for side in (alive, dead):
        step = simulator.step(states(side), actions)
        assert (step.terminated == (side is dead)).all()
        assert_same_step(original, states(side), actions, step)


@pytest.mark.parametrize("phase", range(4))
def test_free_running_trajectory_equals_the_original(
    simulator: TaskSimulator, original: Original, phase: int
) -> None:
    """50 steps side by side and never synchronised, with the original's own warm starts.

    A Gauss-Seidel solver (the humanoids') stops before it has converged, wherever it started: there the
    original starts cold, and its answers are the same.
    """
    original.reset(seed=phase)
    spec = simulator.spec
    states = simulator.enter(original.physics()[None], original.memory()[None])
    converges = simulator.model.opt.solver != mujoco.mjtSolver.mjSOL_PGS
    rounding = 1e-6 if converges else 1e-12
    wave = np.random.default_rng(phase).uniform(0, 2 * np.pi, spec.act_dim)
    for time in range(50):
        action = 0.2 * spec.act_high * np.sin(0.2 * time + wave)
        if not converges:
            original.data.qacc_warmstart[:] = 0.0
        theirs = original.step(action)
        step = simulator.step(states, action[None])
        states = step.states
        assert_close(states.obs[0], theirs.obs, rounding)
        assert_close(step.reward[0], theirs.reward, rounding)
        assert step.terminated[0] == theirs.terminated


def test_sizes_and_times_equal_the_original(task: Task, simulator: TaskSimulator, original: Original) -> None:
    spec = simulator.spec
    assert spec.id == task.id
    assert spec.obs_dim == original.obs_dim == sum(part.size for part in task.observation)
    np.testing.assert_array_equal(spec.act_low.astype(original.act_low.dtype), original.act_low)
    np.testing.assert_array_equal(spec.act_high.astype(original.act_high.dtype), original.act_high)
    assert task.frame_skip == original.frame_skip
    assert task.timestep == original.model.opt.timestep == simulator.model.opt.timestep
    assert spec.dt == task.dt == original.dt
    assert spec.horizon == task.horizon == original.horizon


def test_time_limit_falls_on_the_same_step(task: Task, simulator: TaskSimulator) -> None:
    """Held in its first state so that nothing ends the episode earlier."""
    original = open_original(task, limited=True)
    physics, memory = original.physics(), original.memory()
    action = np.zeros((task.horizon, simulator.spec.act_dim), dtype=np.float32)
    ended = []
    for row in action:
        original.place(physics, memory)
        theirs = original.step(row)
        ended.append((theirs.terminated, theirs.truncated))
    original.close()

    states = simulator.enter(physics[None], memory[None]).fork(task.horizon)
    step = simulator.step(replace(states, elapsed=np.arange(task.horizon)), action.astype(np.float64))
    np.testing.assert_array_equal(np.array(ended), np.stack([step.terminated, step.truncated], axis=1))
    assert list(step.truncated) == [False] * (task.horizon - 1) + [True]


def features(states: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """(N, F) scaled coordinates, and the differences of neighbours, which a noise they share would shrink."""
    scaled = (states - centre) / np.where(spread > 0, spread, 1.0)
    return np.concatenate([scaled, np.diff(scaled, axis=1)], axis=1)


def ks_statistics(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(F,) two-sample Kolmogorov-Smirnov statistics: the largest gap between two empirical distributions."""
    gaps = []
    for a, b in zip(one.T, other.T, strict=True):
        a, b = np.sort(a), np.sort(b)
        at = np.concatenate([a, b])
        below_a = np.searchsorted(a, at, side="right") / len(a)
        below_b = np.searchsorted(b, at, side="right") / len(b)
        gaps.append(np.abs(below_a - below_b).max())
    return np.array(gaps)


def ks_threshold(n: int, m: int, comparisons: int, level: float = 0.01) -> float:
    """Statistic that equal distributions exceed with probability level / comparisons (asymptotic)."""
    return float(np.sqrt(-0.5 * np.log(level / comparisons / 2) * (n + m) / (n * m)))


def test_reset_distribution_equals_the_original(
    task: Task, simulator: TaskSimulator, original: Original
) -> None:
    tested, drawn = FEW_RESETS.get(task.id, RESETS)
    original.reset(seed=0)
    obs, physics, memory = [], [], []
    for _ in range(tested):
        obs.append(original.reset())
        physics.append(original.physics())
        memory.append(original.memory())
    entered = simulator.enter(np.array(physics), np.array(memory))
    assert_close(entered.obs, np.array(obs), original.obs_rounding)
    assert_close(entered.memory, np.array(memory), original.reward_rounding)

    states = simulator.reset(drawn, np.random.default_rng(4))
    assert (states.elapsed == 0).all()
    np.testing.assert_array_equal(states.obs, simulator.enter(states.physics, states.memory).obs)
    # The first number is the time, which a task does not see.
    ours, reference = (np.concatenate([s.physics[:, 1:], s.memory], axis=1) for s in (states, entered))
    np.testing.assert_array_equal(ours.std(axis=0) > 0, reference.std(axis=0) > 0)

    centre, spread = ours.mean(axis=0), ours.std(axis=0)
    ours, reference = (features(x, centre, spread) for x in (ours, reference))
    threshold = ks_threshold(drawn, tested, comparisons=ours.shape[1] * len(ALL_TASKS))
    assert (ks_statistics(ours, reference) < threshold).all()

    # The same test would have told noise of another size, or of another centre, in any coordinate.
    noisy = np.flatnonzero(spread > 0)
    assert len(noisy) > 0
    detectable = 7.0 * threshold
    for wrong in ((1.0 + detectable) * ours, ours + detectable):
        assert (ks_statistics(wrong, reference)[noisy] > threshold).all()


class Replay:
    """dm_control's generator, for a task to draw joints with: one number for each that moves, in order."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.RandomState(seed)

    def uniform(self, low: np.ndarray, high: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        drawn, moving = np.tile(low, (size[0], 1)), low < high
        drawn[:, moving] = self.random.uniform(low[moving], high[moving], (size[0], moving.sum()))
        return drawn


@pytest.mark.parametrize("task", ["cheetah_run", "hopper_hop", "walker_run"], indirect=True)
def test_the_same_draws_lead_to_the_same_starts(simulator: TaskSimulator, original: Original) -> None:
    """Closer than distributions can tell: cheetah_run settles with the push that the original gives it."""
    first = original.reset(seed=3)
    theirs = [first, *(original.reset() for _ in range(19))]
    assert_close(simulator.reset(20, Replay(3)).obs, np.array(theirs), 1e-12)


def arrays_of(*parts: States | Step | np.ndarray) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    for part in parts:
        if isinstance(part, Step):
            found += [*arrays_of(part.states), part.reward, part.terminated, part.truncated]
        elif isinstance(part, States):
            found += [part.physics, part.memory, part.obs, part.elapsed]
        else:
            found.append(part)
    return found


def test_the_same_seed_gives_the_same_bits(task: Task, simulator: TaskSimulator) -> None:
    """Two simulators, one of them disturbed by other draws and steps in between."""
    other = TaskSimulator(task)
    spec = simulator.spec

    def run(simulator: TaskSimulator, disturb: bool) -> list[np.ndarray]:
        rng = np.random.default_rng(5)
        states = simulator.reset(4, rng)
        seen = arrays_of(states)
        for _ in range(5):
            if disturb:
                simulator.step(simulator.reset(3, np.random.default_rng(6)), np.ones((3, spec.act_dim)))
            actions = rng.uniform(spec.act_low, spec.act_high, (4, spec.act_dim))
            step = simulator.step(states, actions)
            states = step.states.put(np.array([1]), simulator.reset(1, rng))
            seen += arrays_of(step, states)
        return seen

    for one, two in zip(run(simulator, disturb=False), run(other, disturb=True), strict=True):
        np.testing.assert_array_equal(one, two, strict=True)
    other.close()


def test_resets_are_independent_draws(simulator: TaskSimulator) -> None:
    rng = np.random.default_rng(7)
    drawn = np.concatenate([simulator.reset(50, rng).physics for _ in range(2)])
    assert len(np.unique(drawn, axis=0)) == 100
    other = simulator.reset(50, np.random.default_rng(8)).physics
    assert not (other == drawn[:50]).all(axis=1).any()


def test_no_memory_is_shared_and_inputs_are_left_alone(simulator: TaskSimulator) -> None:
    rng = np.random.default_rng(9)
    spec = simulator.spec
    states = simulator.reset(4, rng)
    actions = rng.uniform(spec.act_low, spec.act_high, (4, spec.act_dim))
    inputs = arrays_of(states, actions)
    copies = [a.copy() for a in inputs]
    first = simulator.step(states, actions)
    second = simulator.step(first.states, actions)
    again = simulator.step(states, actions)
    fresh = simulator.reset(4, rng)
    for array, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(array, copy, strict=True)
    for one, two in zip(arrays_of(first), arrays_of(again), strict=True):
        np.testing.assert_array_equal(one, two, strict=True)
    held = [*inputs, *arrays_of(first, second, again, fresh)]
    for index, one in enumerate(held):
        for two in held[:index]:
            assert not np.shares_memory(one, two)
