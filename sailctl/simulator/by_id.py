"""The simulator of any MuJoCo environment registered with Gymnasium, including the user's own.

Each thread has one copy of the environment. For every row the complete state is written into a copy, the copy
steps, and the state is read back. So rows are independent, and states can be forked. The complete state is
MuJoCo's state, the values that MuJoCo computed from it (the environment may read them before it steps), and
those attributes of the environment that change. Whether this restores the environment is checked first.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from sailctl.core.tasks import horizon, registration
from sailctl.core.types import DoubleArray, EnvSpec, IntArray, RunError, UserError
from sailctl.simulator.answers import Answer, Answers
from sailctl.simulator.attributes import Attribute, fits, plain_attributes
from sailctl.simulator.states import States, Step

FULL = mujoco.mjtState.mjSTATE_FULLPHYSICS
INPUTS = mujoco.mjtState.mjSTATE_USER
"""Inputs that an environment may set: controls, applied forces, mocap poses, active equalities."""

COMPUTED = (
    *("xpos", "xquat", "xmat", "xipos", "ximat", "xanchor", "xaxis"),
    *("geom_xpos", "geom_xmat", "site_xpos", "site_xmat", "cam_xpos", "cam_xmat"),
    *("subtree_com", "subtree_linvel", "subtree_angmom", "cinert", "cvel", "cacc", "cfrc_int", "cfrc_ext"),
    *("ten_length", "ten_velocity", "actuator_length", "actuator_velocity", "actuator_force"),
    *("qacc", "qfrc_bias", "qfrc_passive", "qfrc_actuator", "qfrc_constraint", "sensordata"),
)
"""Fields of ``MjData`` computed by the previous step, which an environment may read before the next one."""

TRIALS, TRIAL_STEPS = 3, 40
"""Number of episodes for the check of restoring, and control steps of each."""


class Copy:
    """One copy of the environment."""

    def __init__(self, task_id: str, env: Any) -> None:
        self.env = env
        self.answers = Answers(task_id, env)
        """Resets and steps the environment."""
        self.layers = [env]
        while self.layers[-1] is not env.unwrapped:
            self.layers.append(self.layers[-1].env)
        self.model: mujoco.MjModel = env.unwrapped.model
        self.data: mujoco.MjData = env.unwrapped.data
        fields = [getattr(self.data, name) for name in COMPUTED]
        self.computed = [field.reshape(-1) for field in fields if field.size]
        """Flat views of the fields ``COMPUTED``."""

    @property
    def rng_state(self) -> str:
        """State of the environment's random generator."""
        return repr(self.env.unwrapped.np_random.bit_generator.state)


class EnvironmentSimulator:
    """Steps copies of a Gymnasium environment, one per thread; results do not depend on their number.

    ``States.physics`` is MuJoCo's ``mjSTATE_FULLPHYSICS``, ``States.memory`` the rest of the state. Each
    control step starts the constraint solver cold. The time limit is that of the registration.
    ``Step.success`` is present if the ``info`` of any row has ``success`` or ``is_success``, and false for
    rows without it.

    Raises:
        UserError: when the environment is not a MuJoCo environment, its state cannot be restored, or its
            results violate its spaces. Later results are checked too.
    """

    forks_anywhere = True

    def __init__(self, task_id: str, threads: int = 1) -> None:
        self._id = task_id
        steps = horizon(task_id)
        self._copies = [self._make() for _ in range(threads)]
        self._workers = ThreadPoolExecutor(threads) if threads > 1 else None
        first = self._copies[0]
        self.model = first.model
        self._nstate, self._ninputs = (mujoco.mj_stateSize(self.model, part) for part in (FULL, INPUTS))
        self._ncomputed = sum(field.size for field in first.computed)
        self._attributes: tuple[Attribute, ...] = ()
        actions, observations = first.env.action_space, first.env.observation_space
        low, high = actions.low.astype(np.float64), actions.high.astype(np.float64)
        dt = self._measured_dt(first)
        self.spec = EnvSpec(task_id, observations.shape[0], len(low), low, high, steps, dt)
        self._check_restoring(first)

    @property
    def camera(self) -> dict[str, float]:
        """A view of the whole model."""
        stat = self.model.stat
        return {"distance": 1.5 * float(stat.extent), "elevation": -20.0, "height": float(stat.center[2])}

    def reset(self, n: int, rng: np.random.Generator) -> States:
        """``n`` initial states; the seeds of the environment are drawn with ``rng``."""
        seeds = rng.integers(np.iinfo(np.int32).max, size=n)
        states = self._empty(n)

        def reset_rows(copy: Copy, rows: IntArray) -> None:
            for row in rows:
                states.obs[row] = copy.answers.reset(int(seeds[row]))
                self._read(copy, states, row)

        self._in_parallel(reset_rows, n)
        return states

    def step(self, states: States, action: DoubleArray) -> Step:
        """One control step of every row.

        Args:
            states: N states.
            action: (N, A) actions of the environment; the caller clips them to the bounds.

        Raises:
            RunError: when an action is not finite, or a state becomes unstable or not finite.
            UserError: when a result of the environment violates its spaces.
        """
        n = len(states)
        if not np.isfinite(action).all():
            raise RunError(f"{self._id}: an action is not finite")
        reached = self._empty(n)
        reached.elapsed[:] = states.elapsed + 1
        reward = np.empty(n)
        reported, success = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        terminated, truncated = np.empty(n, dtype=bool), np.empty(n, dtype=bool)

        def step_rows(copy: Copy, rows: IntArray) -> None:
            for row in rows:
                self._write(copy, states, row)
                answer = self._step(copy, action[row])
                reached.obs[row], reward[row] = answer.obs, answer.reward
                terminated[row], truncated[row] = answer.terminated, answer.truncated
                reported[row], success[row] = answer.success is not None, bool(answer.success)
                self._read(copy, reached, row)

        self._in_parallel(step_rows, n)
        return Step(
            states=reached,
            reward=reward,
            terminated=terminated,
            truncated=(truncated | (reached.elapsed >= self.spec.horizon)) & ~terminated,
            success=success if reported.any() else None,
        )

    def close(self) -> None:
        """End the threads and the environments."""
        if self._workers is not None:
            self._workers.shutdown()
        for copy in self._copies:
            copy.env.close()

    # One environment

    def _make(self) -> Copy:
        """A new copy, stepped once.

        Raises:
            UserError: when it cannot be created or is not supported.
        """
        registration(self._id)
        try:
            env: Any = gymnasium.make(self._id, disable_env_checker=True)
        except Exception as error:  # the user's environment may raise anything
            reason = " ".join(str(error).split())
            raise UserError(f"env.id={self._id} cannot be made: {type(error).__name__}: {reason}") from error
        inner = env.unwrapped
        data, model = getattr(inner, "data", None), getattr(inner, "model", None)
        if not isinstance(data, mujoco.MjData) or not isinstance(model, mujoco.MjModel):
            raise self._refused("it is not a MuJoCo environment (no MjModel and MjData as model and data)")
        for name, space in (("observation", env.observation_space), ("action", env.action_space)):
            if isinstance(space, spaces.Dict):
                raise self._refused(
                    f"its {name} is a dictionary; register it with a wrapper that flattens it"
                )
            if not isinstance(space, spaces.Box) or len(space.shape) != 1:
                raise self._refused(f"its {name} is not a vector of real numbers but {space}")
        if not np.issubdtype(env.action_space.dtype, np.floating):
            raise self._refused(f"its action is not a vector of real numbers but {env.action_space}")
        if not (np.isfinite(env.action_space.low).all() and np.isfinite(env.action_space.high).all()):
            raise self._refused("its actions have no bounds")
        for layer in (inner, env):  # inner first, because wrappers raise errors of their own
            answers = Answers(self._id, layer)
            answers.reset(0)
            answers.step(np.zeros(layer.action_space.shape))  # creates attributes that the reset does not
        return Copy(self._id, env)

    def _step(self, copy: Copy, action: DoubleArray) -> Answer:
        """One step of ``copy``, with a cold start of the solver.

        Raises:
            RunError: when the state becomes unstable.
        """
        data = copy.data
        data.qacc_warmstart[:] = 0.0
        answer = copy.answers.step(action)
        unstable = any(data.warning[kind].number for kind in UNSTABLE)
        if unstable or not (np.isfinite(answer.obs).all() and np.isfinite(answer.reward)):
            mujoco.mj_resetData(self.model, data)  # clears the warning
            raise RunError(f"{self._id}: MuJoCo is unstable, or the observation or reward is not finite")
        return answer

    def _empty(self, n: int) -> States:
        size = self._ninputs + self._ncomputed + sum(attribute.size for attribute in self._attributes)
        obs, elapsed = np.empty((n, self.spec.obs_dim)), np.zeros(n, dtype=np.int64)
        return States(np.empty((n, self._nstate)), np.empty((n, size)), obs, elapsed)

    def _read(self, copy: Copy, states: States, row: int) -> None:
        """Copy the state of ``copy``, except its observation, into one row."""
        data, memory = copy.data, states.memory[row]
        mujoco.mj_getState(self.model, data, states.physics[row], FULL)
        mujoco.mj_getState(self.model, data, memory[: self._ninputs], INPUTS)
        end = self._ninputs
        for field in copy.computed:
            memory[end : end + field.size] = field
            end += field.size
        for attribute in self._attributes:
            value = vars(copy.layers[attribute.layer]).get(attribute.name)
            if not fits(attribute, value):
                raise self._refused(f"its {attribute.name!r} changes type or shape in an episode")
            memory[end : end + attribute.size] = np.ravel(value)
            end += attribute.size

    def _write(self, copy: Copy, states: States, row: int) -> None:
        """Restore the state of one row in ``copy``."""
        data, memory = copy.data, states.memory[row]
        mujoco.mj_setState(copy.model, data, states.physics[row], FULL)
        mujoco.mj_setState(copy.model, data, memory[: self._ninputs], INPUTS)
        end = self._ninputs
        for field in copy.computed:
            field[:] = memory[end : end + field.size]
            end += field.size
        for attribute in self._attributes:
            numbers, shape, kind = memory[end : end + attribute.size], attribute.shape, attribute.kind
            value = kind(numbers[0]) if shape is None else numbers.reshape(shape).astype(kind)
            setattr(copy.layers[attribute.layer], attribute.name, value)
            end += attribute.size

    def _in_parallel(self, work: Callable[[Copy, IntArray], None], n: int) -> None:
        """Call ``work(copy, rows)`` in each thread, with its copy and its share of the rows."""
        parts = np.array_split(np.arange(n), len(self._copies))
        if self._workers is None:
            work(self._copies[0], parts[0])
        else:
            list(self._workers.map(work, self._copies, parts))

    # Check of restoring

    def _measured_dt(self, copy: Copy) -> float:
        copy.answers.reset(0)
        before = float(copy.data.time)
        self._step(copy, np.zeros(copy.env.action_space.shape))
        dt = float(copy.data.time) - before
        if dt <= 0:
            raise self._refused("a step does not advance the clock of its MjData")
        return dt

    def _check_restoring(self, copy: Copy) -> None:
        """Find the attributes that change; check that states can be restored and that a reset is complete.

        Raises:
            UserError: when a part of the state cannot be restored, or survives a reset.
        """
        rng = np.random.default_rng(0)
        shape = (TRIALS, TRIAL_STEPS, self.spec.act_dim)
        actions = rng.uniform(self.spec.act_low, self.spec.act_high, shape)
        model = model_bytes(copy.model)
        self._attributes = self._changing_attributes(copy, actions)
        inner = copy.env.unwrapped
        if inner.data is not copy.data or inner.model is not copy.model or model_bytes(copy.model) != model:
            raise self._refused("it changes its MuJoCo model in an episode or at a reset")

        rows: list[tuple[States, DoubleArray, States, Answer]] = []
        for episode in range(TRIALS):
            state = start = self._reset_one(copy, episode)
            if not same(start, self._reset_one(copy, episode)):
                raise self._refused("a reset with the same seed does not lead to the same start")
            before = dict(plain_attributes(copy.layers))
            for action in actions[episode]:
                reached, answer = self._step_one(copy, action)
                rows.append((state, action, reached, answer))
                if answer.terminated or answer.truncated:
                    break
                state = reached
            again = self._reset_one(copy, episode)
            now = dict(plain_attributes(copy.layers))
            if survivors := [
                name for (layer, name), value in now.items() if before.get((layer, name)) != value
            ]:
                raise self._refused(
                    f"its {survivors[0]!r} survives a reset, so episodes would depend on earlier ones; "
                    "set it in reset"
                )
            if not same(start, again):
                raise self._refused("a reset after an episode does not lead to the same start as before it")
        for index in rng.permutation(2 * len(rows)) // 2:  # each twice, in random order
            state, action, reached, answer = rows[index]
            self._write(copy, state, 0)
            again, answer_again = self._step_one(copy, action)
            if not same(reached, again) or answer.verdict != answer_again.verdict:
                difference = "reward" if same(reached, again) else "state or observation"
                raise self._refused(
                    f"a restored state does not continue as the original did (another {difference}); it "
                    "keeps state outside MuJoCo's that is not a number or an array among its attributes"
                )

    def _reset_one(self, copy: Copy, seed: int) -> States:
        state = self._empty(1)
        state.obs[0] = copy.answers.reset(seed)
        self._read(copy, state, 0)
        return state

    def _step_one(self, copy: Copy, action: DoubleArray) -> tuple[States, Answer]:
        """The state after one step of ``copy``, and its answer."""
        answer = self._step(copy, action)
        reached = self._empty(1)
        reached.obs[0] = answer.obs
        self._read(copy, reached, 0)
        return reached, answer

    def _changing_attributes(self, copy: Copy, actions: DoubleArray) -> tuple[Attribute, ...]:
        """Attributes that change in episodes with these actions.

        Raises:
            UserError: when another kind of attribute changes, or a step draws random numbers.
        """
        changed: dict[tuple[int, str], Attribute] = {}
        before = dict(plain_attributes(copy.layers))

        def compare() -> None:
            nonlocal before
            now = dict(plain_attributes(copy.layers))
            for place in now:
                if place not in before or before[place] != now[place]:
                    changed[place] = self._attribute(copy, *place)
            before = now

        for episode in range(TRIALS):
            copy.answers.reset(episode)
            compare()
            rng_state = copy.rng_state
            for action in actions[episode]:
                answer = self._step(copy, action)
                compare()
                if copy.rng_state != rng_state:
                    raise self._refused("it draws random numbers in step")
                if answer.terminated or answer.truncated:
                    break
        return tuple(changed.values())

    def _attribute(self, copy: Copy, layer: int, name: str) -> Attribute:
        value = vars(copy.layers[layer])[name]
        if isinstance(value, bool | int | float | np.number | np.bool_):
            return Attribute(layer, name, None, type(value))
        if isinstance(value, np.ndarray) and value.dtype.kind in "bif":
            return Attribute(layer, name, value.shape, value.dtype)
        raise self._refused(f"it keeps {name!r} (a {type(value).__name__}) outside MuJoCo's state")

    def _refused(self, reason: str) -> UserError:
        return UserError(f"env.id={self._id} cannot be simulated from saved states: {reason}")


UNSTABLE = (
    mujoco.mjtWarning.mjWARN_BADQPOS,
    mujoco.mjtWarning.mjWARN_BADQVEL,
    mujoco.mjtWarning.mjWARN_BADQACC,
)


def model_bytes(model: mujoco.MjModel) -> bytes:
    """The binary content of a model, for comparison."""
    buffer = np.empty(mujoco.mj_sizeModel(model), dtype=np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer.tobytes()


def same(one: States, other: States) -> bool:
    """Whether two states are bitwise equal, including the values that MuJoCo computed."""
    pairs = ((one.physics, other.physics), (one.memory, other.memory), (one.obs, other.obs))
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)
