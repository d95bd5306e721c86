"""Any Gymnasium environment by its id: forked like our own tasks, or refused with the reason."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sailctl.core.seeding import named_generators
from sailctl.core.types import RunError, UserError
from sailctl.data.rollout import Collector
from sailctl.policies.policy import GaussianPolicy
from sailctl.runs.checkpoint import load_policy
from sailctl.runs.logger import Logger
from sailctl.runs.recorder import open_run
from sailctl.runs.results import EVALUATION_COLUMNS, SUCCESS_COLUMNS, load_run
from sailctl.simulator.batched import TaskSimulator
from sailctl.simulator.by_id import EnvironmentSimulator
from sailctl.simulator.registry import open_simulator
from sailctl.simulator.states import States, Step
from sailctl.sweeps.compose import compose_jobs
from sailctl.training.evaluate import evaluate, evaluate_run
from sailctl.training.train import train
from sailctl_envs import ALL_TASKS

MODULE = "users_environments"
USERS = '''
import numpy as np
import gymnasium
from gymnasium import spaces
from gymnasium.envs.mujoco.inverted_pendulum_v5 import InvertedPendulumEnv
from gymnasium.envs.mujoco.reacher_v5 import ReacherEnv


class Cart(InvertedPendulumEnv):
    """A reward of its own: keep the cart near a place drawn at reset, and act smoothly."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.goal, self.last, self.solved = 0.0, np.zeros(1), 0

    def reset_model(self):
        self.goal, self.last, self.solved = self.np_random.uniform(-0.5, 0.5), np.zeros(1), 0
        return super().reset_model()

    def step(self, action):
        # Where the pole was, as the step before left it: MuJoCo's positions of bodies lag behind its state.
        before = self.data.body("pole").xpos[0]
        obs, _, terminated, truncated, info = super().step(action)
        near = abs(obs[0] - self.goal) < 0.2
        self.solved += int(near)
        reward = -((obs[0] - self.goal) ** 2) - 0.1 * float(np.sum((action - self.last) ** 2)) + before
        self.last = np.array(action, dtype=np.float64)
        return obs, reward + 0.01 * self.solved, terminated, truncated, {"success": near}


class Listed(Cart):
    def step(self, action):
        self.history = [*getattr(self, "history", []), float(action[0])][-3:]
        obs, reward, *rest = super().step(action)
        return obs, reward + self.history[0], *rest


class Tracker:
    count = 0


class Hidden(Cart):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.tracker = Tracker()

    def step(self, action):
        self.tracker.count += 1
        obs, reward, *rest = super().step(action)
        return obs, reward + self.tracker.count, *rest


class Noisy(Cart):
    def step(self, action):
        return super().step(action + self.np_random.normal(scale=0.01, size=1))


class Unseeded(Cart):
    def reset_model(self):
        self.set_state(np.random.uniform(-0.01, 0.01, 2), np.zeros(2))
        return self._get_obs()


class Remodelled(Cart):
    def reset_model(self):
        self.model.body_mass[1] = self.np_random.uniform(5.0, 10.0)
        return super().reset_model()


class Pictured(Cart):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.observation_space = spaces.Dict({"obs": self.observation_space})


class Whole(Cart):
    """Takes whole numbers, of which nothing between two is one."""

    def _set_action_space(self) -> gymnasium.spaces.Box:
        self.action_space = gymnasium.spaces.Box(-3, 3, (1,), np.int64)
        return self.action_space


class Broken(Cart):
    def __init__(self, **kwargs):
        raise RuntimeError("no such robot\\nanywhere")


class Squared(gymnasium.ObservationWrapper, gymnasium.utils.RecordConstructorArgs):
    def __init__(self, env):
        gymnasium.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)

    def observation(self, observation):
        return observation**2


for kind in (Cart, Listed, Hidden, Noisy, Unseeded, Remodelled, Pictured, Whole, Broken):
    gymnasium.register(f"{kind.__name__}-v0", entry_point=kind, max_episode_steps=30)
gymnasium.register(
    "Wrapped-v0", entry_point=Cart, max_episode_steps=30,
    additional_wrappers=(Squared.wrapper_spec(),),
)
'''


@pytest.fixture(autouse=True)
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of a user's own, on the import path, whose environments are gone again afterwards."""
    (tmp_path / f"{MODULE}.py").write_text(USERS)
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(gymnasium.registry)
    yield
    sys.modules.pop(MODULE, None)
    gymnasium.registry.clear()
    gymnasium.registry.update(before)


def actions_for(simulator: EnvironmentSimulator, steps: int, n: int, seed: int = 1) -> np.ndarray:
    """(steps, N, A) random actions that are exact in 32 bits, as Gymnasium's action spaces are."""
    spec = simulator.spec
    drawn = np.random.default_rng(seed).uniform(spec.act_low, spec.act_high, (steps, n, spec.act_dim))
    return drawn.astype(np.float32).astype(np.float64)


def run(simulator: EnvironmentSimulator, states: States, actions: np.ndarray) -> list[Step]:
    steps = []
    for action in actions:
        steps.append(simulator.step(states, action))
        states = steps[-1].states
    return steps


def assert_same(ours: list[Step], others: list[Step]) -> None:
    for one, other in zip(ours, others, strict=True):
        assert np.array_equal(one.reward, other.reward)
        assert np.array_equal(one.done, other.done)
        for name, array in one.states.save().items():
            assert np.array_equal(array, other.states.save()[name]), name


@pytest.mark.parametrize("name", ["Hopper-v5", "Reacher-v5"])
def test_the_same_states_give_the_numbers_of_our_own_task(name: str) -> None:
    by_id, ours = EnvironmentSimulator(name), TaskSimulator(ALL_TASKS[name.lower()]())
    for item in ("obs_dim", "act_dim", "horizon"):
        assert getattr(by_id.spec, item) == getattr(ours.spec, item)
    assert by_id.spec.dt == pytest.approx(ours.spec.dt, rel=1e-12)
    theirs = by_id.reset(8, np.random.default_rng(0))
    mine = ours.enter(theirs.physics.copy())
    assert np.array_equal(mine.obs, theirs.obs)
    for action in actions_for(by_id, 60, 8):
        one, two = by_id.step(theirs, action), ours.step(mine, action)
        theirs, mine = one.states, two.states
        assert np.array_equal(theirs.obs, mine.obs)
        assert np.array_equal(theirs.physics, mine.physics)
        np.testing.assert_allclose(one.reward, two.reward, rtol=0, atol=1e-6)  # theirs sums in 32 bits
        assert np.array_equal(one.terminated, two.terminated)
        assert np.array_equal(one.truncated, two.truncated)


def test_a_users_environment_continues_as_one_that_nobody_restores() -> None:
    simulator = EnvironmentSimulator(f"{MODULE}:Cart-v0")
    states = simulator.reset(1, np.random.default_rng(3))
    env = gymnasium.make("Cart-v0")
    seed = int(np.random.default_rng(3).integers(np.iinfo(np.int32).max, size=1)[0])
    obs, _ = env.reset(seed=seed)
    assert np.array_equal(states.obs[0], obs)
    for action in 0.1 * actions_for(simulator, 30, 1):
        env.unwrapped.data.qacc_warmstart[:] = 0.0
        step = simulator.step(states, action)
        obs, reward, terminated, truncated, info = env.step(action[0].astype(np.float32))
        states = step.states
        assert np.array_equal(states.obs[0], obs)
        assert (step.reward[0], step.terminated[0], step.truncated[0]) == (reward, terminated, truncated)
        assert step.success is not None
        assert step.success[0] == info["success"]
        if terminated:
            break
    assert truncated or terminated


@pytest.mark.parametrize("name", ["Hopper-v5", "Reacher-v5", f"{MODULE}:Cart-v0"])
def test_forks_order_threads_and_saving_change_no_number(name: str) -> None:
    one, two = EnvironmentSimulator(name, 1), EnvironmentSimulator(name, 2)
    starts = one.reset(5, np.random.default_rng(7))
    again = two.reset(5, np.random.default_rng(7))
    assert all(np.array_equal(array, again.save()[key]) for key, array in starts.save().items())
    middle = run(one, starts, actions_for(one, 6, 5))[-1].states
    actions = actions_for(one, 6, 5, seed=2)
    straight = run(one, middle, actions)
    run(one, starts, actions)  # something else in between
    assert_same(straight, run(two, States.restore(middle.save()), actions))
    backwards = run(two, middle.take(np.arange(5)[::-1]), actions[:, ::-1])
    assert np.array_equal(backwards[-1].reward[::-1], straight[-1].reward)
    forked = run(two, middle.fork(2), actions.repeat(2, axis=1))
    assert np.array_equal(forked[-1].states.obs[::2], straight[-1].states.obs)
    assert np.array_equal(forked[-1].states.obs[1::2], straight[-1].states.obs)


def test_the_time_limit_is_counted_once() -> None:
    simulator = EnvironmentSimulator("Reacher-v5")
    starts = simulator.reset(2, np.random.default_rng(0))
    steps = run(simulator, starts, actions_for(simulator, 50, 2))
    assert [step.truncated.all() for step in steps] == [False] * 49 + [True]


def test_wrappers_of_the_registration_are_honoured() -> None:
    plain, wrapped = EnvironmentSimulator(f"{MODULE}:Cart-v0"), EnvironmentSimulator(f"{MODULE}:Wrapped-v0")
    obs = plain.reset(4, np.random.default_rng(0)).obs
    assert np.array_equal(wrapped.reset(4, np.random.default_rng(0)).obs, obs**2)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("CartPole-v1", "it is not a MuJoCo environment"),
        (f"{MODULE}:Listed-v0", "it keeps 'history' (a list) outside MuJoCo's state"),
        (f"{MODULE}:Hidden-v0", "a restored state does not continue as the original did (another reward)"),
        (f"{MODULE}:Noisy-v0", "it draws random numbers in step"),
        (f"{MODULE}:Unseeded-v0", "a reset with the same seed does not lead to the same start"),
        (f"{MODULE}:Remodelled-v0", "it changes its MuJoCo model in an episode or at a reset"),
        (f"{MODULE}:Pictured-v0", "its observation is a dictionary"),
        (f"{MODULE}:Whole-v0", "its action is not a vector of real numbers but Box(-3, 3, (1,), int64)"),
        (f"{MODULE}:Broken-v0", "cannot be made: RuntimeError: no such robot anywhere"),
        ("Hoper-v5", "did you mean 'Hopper-v5'?"),
    ],
)
def test_what_cannot_be_forked_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(UserError) as error:
        open_simulator(name)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_what_cannot_be_stepped_stops_the_run() -> None:
    simulator = EnvironmentSimulator("Reacher-v5")
    states = simulator.reset(2, np.random.default_rng(0))
    with pytest.raises(RunError, match="an action is not finite"):
        simulator.step(states, np.array([[0.0, 0.0], [np.nan, 0.0]]))
    unstable = states.save()
    unstable["physics"][1, 1] = 1e12
    with pytest.raises(RunError, match="Reacher-v5: MuJoCo is unstable"):
        simulator.step(States.restore(unstable), np.zeros((2, 2)))
    simulator.step(states, np.zeros((2, 2)))  # the copy is fit for use again


def test_a_policy_collects_and_is_evaluated_on_it() -> None:
    words = ["env=gymnasium", f"env.id={MODULE}:Cart-v0", "rollout.label_horizon=30", "rollout.prompts=4"]
    (job,) = compose_jobs([*words, "algo=sail_segments", "algo.minibatches=1"]).jobs
    simulator = open_simulator(job.config.env.id)
    generators = named_generators(0)
    policy = GaussianPolicy(job.config.policy, simulator.spec, generators.init)
    collected = Collector(simulator, job.config.rollout, 25, 30, generators).collect(policy)
    assert collected.env_steps == collected.judged.mask.sum() > 0
    result = evaluate(policy, simulator, 3, 0)
    assert result.success is not None
    assert (result.success[:, 0] >= result.success[:, 1]).all()


def test_a_run_records_success_by_both_definitions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["env=gymnasium", f"env.id={MODULE}:Cart-v0", "rollout.label_horizon=30", "rollout.prompts=4"]
    small = ["algo=sail_segments", "algo.minibatches=1", "env_steps=300", f"out={tmp_path / 'runs'}"]
    small.append("evaluation.episodes=5")
    (job,) = compose_jobs([*words, *small, "logger.wandb=disabled", "logger.progress=false"]).jobs
    path = train(job.config, [])
    assert path.parent.parent.name == f"{MODULE}-Cart-v0"
    evaluations = load_run(path).evaluations
    assert tuple(evaluations.columns) == EVALUATION_COLUMNS + SUCCESS_COLUMNS
    last = evaluations[evaluations.iteration == evaluations.iteration.max()]
    simulator = open_simulator(job.config.env.id)
    result = evaluate(load_policy(path), simulator, 5, job.config.evaluation.seed)
    assert result.success is not None
    assert last[list(SUCCESS_COLUMNS)].to_numpy().tolist() == result.success.astype(int).tolist()
    evaluate_run(path, 5, job.config.evaluation.seed, None)
    ever, final = result.success.mean(axis=0)
    said = f"success      in {ever:.0%} of the episodes at some step, in {final:.0%} at the last step"
    assert said in capsys.readouterr().out


def test_mirrors_get_the_success_rates(tmp_path: Path) -> None:
    (job,) = compose_jobs(["logger.wandb=disabled", f"out={tmp_path}", "logger.tensorboard=true"]).jobs
    run = open_run(job.config, [])
    with Logger(run, job.config) as logger:
        place = {"iteration": 0, "env_steps": 0, "labels": 0}
        success = np.array([[True, True], [True, False], [False, False], [True, False]])
        logger.evaluation(**place, returns=[1.0, 2.0, 3.0, 4.0], lengths=[5, 5, 5, 5], success=success)
        logger.evaluation(**place, returns=[1.0], lengths=[5])  # in which nobody said anything: no success
    assert load_run(run.path).evaluations[list(SUCCESS_COLUMNS)].to_numpy()[-1].tolist() == [0, 0]
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    shown = {name: events.Scalars(name)[0].value for name in ("eval_return", *SUCCESS_COLUMNS)}
    assert shown == {"eval_return": 2.5, "success_max": 0.75, "success_final": 0.25}
