"""Any MuJoCo environment registered with Gymnasium, a user's own included, as a simulator.

There is one copy of the environment for each thread. For every row the whole state is written into a copy,
the copy steps, and the state is read back; so rows are independent of each other, and states can be forked.
What is written beside MuJoCo's own state: what MuJoCo computed from it, since an environment may read that
before it steps, and the plain attributes of the environment that were seen to change. Whether this is all
that the environment remembers is checked before anything is simulated with it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from sailctl.simulator.states import States, Step
from sailctl.tasks import horizon, registration
from sailctl.types import DoubleArray, EnvSpec, IntArray, RunError, UserError

FULL = mujoco.mjtState.mjSTATE_FULLPHYSICS
INPUTS = mujoco.mjtState.mjSTATE_USER
"""What an environment may set itself: controls, applied forces, mocap poses, active equalities."""

COMPUTED = (
    *("xpos", "xquat", "xmat", "xipos", "ximat", "xanchor", "xaxis"),
    *("geom_xpos", "geom_xmat", "site_xpos", "site_xmat", "cam_xpos", "cam_xmat"),
    *("subtree_com", "subtree_linvel", "subtree_angmom", "cinert", "cvel", "cacc", "cfrc_int", "cfrc_ext"),
    *("ten_length", "ten_velocity", "actuator_length", "actuator_velocity", "actuator_force"),
    *("qacc", "qfrc_bias", "qfrc_passive", "qfrc_actuator", "qfrc_constraint", "sensordata"),
)
"""Fields of ``MjData`` that MuJoCo computed for the step before: an environment may read them as they are."""

TRIALS, TRIAL_STEPS = 3, 40
"""Episodes, and control steps of each, along which restoring is checked."""

SUCCESS = ("success", "is_success")
"""Keys by which the ``info`` of a step says that the task is solved."""


@dataclass(frozen=True)
class Attribute:
    """A plain attribute of the environment, or of a wrapper around it, that changes in an episode."""

    layer: int
    """0 is the outermost wrapper."""
    name: str
    shape: tuple[int, ...] | None
    """Of an array; None for a number."""
    kind: Any
    """Data type of the array, or type of the number."""

    @property
    def size(self) -> int:
        """Count of numbers."""
        return 1 if self.shape is None else math.prod(self.shape)


class Copy:
    """One copy of the environment."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.layers = [env]
        while self.layers[-1] is not env.unwrapped:
            self.layers.append(self.layers[-1].env)
        self.model: mujoco.MjModel = env.unwrapped.model
        self.data: mujoco.MjData = env.unwrapped.data
        fields = [getattr(self.data, name) for name in COMPUTED]
        self.computed = [field.reshape(-1) for field in fields if field.size]
        """What MuJoCo computed, as flat views of its memory."""

    @property
    def drawn(self) -> str:
        """Where the environment's random generator stands."""
        return repr(self.env.unwrapped.np_random.bit_generator.state)


class EnvironmentSimulator:
    """Steps copies of a Gymnasium environment, one for each thread; the numbers do not depend on their count.

    ``States.physics`` is MuJoCo's ``mjSTATE_FULLPHYSICS``, ``States.memory`` what is written back beside it.
    As in every simulator here, a control step starts the constraint solver cold, and the time limit is that
    of the registration. ``Step.success`` is there where ``info`` has ``success`` or ``is_success``.

    Raises:
        UserError: when the environment is none of MuJoCo's, or it cannot be restored: the reason is given.
    """

    forks_anywhere = True

    def __init__(self, task_id: str, threads: int = 1) -> None:
        self._id = task_id
        steps = horizon(task_id)
        self._copies = [Copy(self._make()) for _ in range(threads)]
        self._workers = ThreadPoolExecutor(threads) if threads > 1 else None
        first = self._copies[0]
        self.model = first.model
        self._nstate, self._ninputs = (mujoco.mj_stateSize(self.model, what) for what in (FULL, INPUTS))
        self._ncomputed = sum(field.size for field in first.computed)
        self._attributes: tuple[Attribute, ...] = ()
        actions, observations = first.env.action_space, first.env.observation_space
        low, high = actions.low.astype(np.float64), actions.high.astype(np.float64)
        dt = self._seconds_in_a_step(first)
        self.spec = EnvSpec(task_id, observations.shape[0], len(low), low, high, steps, dt)
        self._success = self._try_out(first)

    @property
    def camera(self) -> dict[str, float]:
        """A view of the whole model."""
        stat = self.model.stat
        return {"distance": 1.5 * float(stat.extent), "elevation": -20.0, "height": float(stat.center[2])}

    def reset(self, n: int, rng: np.random.Generator) -> States:
        """``n`` fresh episode starts; the environment gets seeds that are drawn with ``rng``."""
        seeds = rng.integers(np.iinfo(np.int32).max, size=n)
        states = self._empty(n)

        def reset_rows(copy: Copy, rows: IntArray) -> None:
            for row in rows:
                states.obs[row] = copy.env.reset(seed=int(seeds[row]))[0]
                self._read(copy, states, row)

        self._in_parallel(reset_rows, n)
        return states

    def step(self, states: States, action: DoubleArray) -> Step:
        """One control step of every row.

        Args:
            states: N states.
            action: (N, A) actions as the environment takes them: clip them before.

        Raises:
            RunError: when an action is not finite, or MuJoCo found a state unstable or not finite.
        """
        n = len(states)
        if not np.isfinite(action).all():
            raise RunError(f"{self._id}: an action is not finite")
        reached = self._empty(n)
        reached.elapsed[:] = states.elapsed + 1
        reward, success = np.empty(n), np.zeros(n, dtype=bool)
        terminated, truncated = np.empty(n, dtype=bool), np.empty(n, dtype=bool)

        def step_rows(copy: Copy, rows: IntArray) -> None:
            for row in rows:
                self._write(copy, states, row)
                answer = self._step(copy, action[row])
                reached.obs[row], reward[row], terminated[row], truncated[row], info = answer
                if self._success is not None:
                    success[row] = bool(info[self._success])
                self._read(copy, reached, row)

        self._in_parallel(step_rows, n)
        return Step(
            states=reached,
            reward=reward,
            terminated=terminated,
            truncated=(truncated | (reached.elapsed >= self.spec.horizon)) & ~terminated,
            success=success if self._success is not None else None,
        )

    def close(self) -> None:
        """End the threads and the environments."""
        if self._workers is not None:
            self._workers.shutdown()
        for copy in self._copies:
            copy.env.close()

    # One environment

    def _make(self) -> Any:
        """A fresh copy without time limit, which is counted here; reset once.

        Raises:
            UserError: when it cannot be made, or is none that can be simulated here.
        """
        registration(self._id)
        try:
            env: Any = gymnasium.make(self._id, max_episode_steps=-1, disable_env_checker=True)
            env.reset(seed=0)
            env.step(env.action_space.sample())  # some attributes are there from the first step on
        except Exception as error:  # whatever the user's environment does when it is made
            reason = " ".join(str(error).split())
            raise UserError(f"env.id={self._id} cannot be made: {type(error).__name__}: {reason}") from error
        inner = env.unwrapped
        data, model = getattr(inner, "data", None), getattr(inner, "model", None)
        if not isinstance(data, mujoco.MjData) or not isinstance(model, mujoco.MjModel):
            raise self._refused("it is not a MuJoCo environment (no MjModel and MjData as model and data)")
        for what, space in (("observation", env.observation_space), ("action", env.action_space)):
            if isinstance(space, spaces.Dict):
                raise self._refused(f"its {what} is a dictionary; register it with a wrapper that flattens")
            if not isinstance(space, spaces.Box) or len(space.shape) != 1:
                raise self._refused(f"its {what} is not a vector of real numbers but {space}")
        if not (np.isfinite(env.action_space.low).all() and np.isfinite(env.action_space.high).all()):
            raise self._refused("its actions have no bounds")
        return env

    def _step(self, copy: Copy, action: DoubleArray) -> tuple[Any, ...]:
        """One step from where ``copy`` stands, the solver cold.

        Raises:
            RunError: when MuJoCo found the state unstable.
        """
        env, data = copy.env, copy.data
        data.qacc_warmstart[:] = 0.0
        answer: tuple[Any, ...] = env.step(action.astype(env.action_space.dtype))
        unstable = any(data.warning[kind].number for kind in UNSTABLE)
        if unstable or not (np.isfinite(answer[0]).all() and np.isfinite(answer[1])):
            mujoco.mj_resetData(self.model, data)  # which forgets the warning
            raise RunError(f"{self._id}: MuJoCo is unstable, or the observation or reward is not finite")
        return answer

    def _empty(self, n: int) -> States:
        size = self._ninputs + self._ncomputed + sum(kept.size for kept in self._attributes)
        obs, elapsed = np.empty((n, self.spec.obs_dim)), np.zeros(n, dtype=np.int64)
        return States(np.empty((n, self._nstate)), np.empty((n, size)), obs, elapsed)

    def _read(self, copy: Copy, states: States, row: int) -> None:
        """The state of ``copy`` into one row (its observation left out)."""
        data, memory = copy.data, states.memory[row]
        mujoco.mj_getState(self.model, data, states.physics[row], FULL)
        mujoco.mj_getState(self.model, data, memory[: self._ninputs], INPUTS)
        end = self._ninputs
        for field in copy.computed:
            memory[end : end + field.size] = field
            end += field.size
        for kept in self._attributes:
            value = vars(copy.layers[kept.layer]).get(kept.name)
            if not fits(kept, value):
                raise self._refused(f"its {kept.name!r} changes type or shape in an episode")
            memory[end : end + kept.size] = np.ravel(value)
            end += kept.size

    def _write(self, copy: Copy, states: States, row: int) -> None:
        """One row into ``copy``."""
        data, memory = copy.data, states.memory[row]
        mujoco.mj_setState(copy.model, data, states.physics[row], FULL)
        mujoco.mj_setState(copy.model, data, memory[: self._ninputs], INPUTS)
        end = self._ninputs
        for field in copy.computed:
            field[:] = memory[end : end + field.size]
            end += field.size
        for kept in self._attributes:
            value = memory[end : end + kept.size]
            plain = kept.kind(value[0]) if kept.shape is None else value.reshape(kept.shape).astype(kept.kind)
            setattr(copy.layers[kept.layer], kept.name, plain)
            end += kept.size

    def _in_parallel(self, work: Callable[[Copy, IntArray], None], n: int) -> None:
        """``work(copy, rows)`` for a share of the rows in each thread, with a copy of its own."""
        parts = np.array_split(np.arange(n), len(self._copies))
        if self._workers is None:
            work(self._copies[0], parts[0])
        else:
            list(self._workers.map(work, self._copies, parts))

    # Whether restoring restores

    def _seconds_in_a_step(self, copy: Copy) -> float:
        copy.env.reset(seed=0)
        before = float(copy.data.time)
        self._step(copy, np.zeros(copy.env.action_space.shape))
        dt = float(copy.data.time) - before
        if dt <= 0:
            raise self._refused("a step does not advance the clock of its MjData")
        return dt

    def _try_out(self, copy: Copy) -> str | None:
        """Find the attributes to keep and check that restoring restores; the key of success, if there is one.

        Raises:
            UserError: when the environment holds something that cannot be restored.
        """
        rng = np.random.default_rng(0)
        shape = (TRIALS, TRIAL_STEPS, self.spec.act_dim)
        actions = rng.uniform(self.spec.act_low, self.spec.act_high, shape)
        model = model_bytes(copy.model)
        self._attributes = self._changing(copy, actions)
        inner = copy.env.unwrapped
        if inner.data is not copy.data or inner.model is not copy.model or model_bytes(copy.model) != model:
            raise self._refused("it changes its MuJoCo model in an episode or at a reset")

        info: dict[str, Any] = {}
        rows: list[tuple[States, DoubleArray, States, tuple[Any, ...]]] = []
        for episode in range(TRIALS):
            state = self._reset_one(copy, episode)
            if not same(state, self._reset_one(copy, episode)):
                raise self._refused("a reset with the same seed does not lead to the same start")
            for action in actions[episode]:
                reached, verdict, info = self._step_one(copy, action)
                rows.append((state, action, reached, verdict))
                if verdict[1] or verdict[2]:
                    break
                state = reached
        for index in rng.permutation(2 * len(rows)) // 2:  # each of them twice, in no order
            state, action, reached, verdict = rows[index]
            self._write(copy, state, 0)
            again, verdict_again, _ = self._step_one(copy, action)
            if not same(reached, again) or verdict != verdict_again:
                what = "reward" if same(reached, again) else "state or observation"
                raise self._refused(
                    f"a restored state does not go on as the original did (another {what}); it keeps "
                    "something outside MuJoCo's state that is no number or array among its attributes"
                )
        return next((key for key in SUCCESS if key in info), None)

    def _reset_one(self, copy: Copy, seed: int) -> States:
        state = self._empty(1)
        state.obs[0] = copy.env.reset(seed=seed)[0]
        self._read(copy, state, 0)
        return state

    def _step_one(
        self, copy: Copy, action: DoubleArray
    ) -> tuple[States, tuple[float, bool, bool], dict[str, Any]]:
        """State reached, (reward, terminated, truncated) and info of one step from where ``copy`` stands."""
        obs, reward, terminated, truncated, info = self._step(copy, action)
        reached = self._empty(1)
        reached.obs[0] = obs
        self._read(copy, reached, 0)
        return reached, (float(reward), bool(terminated), bool(truncated)), info

    def _changing(self, copy: Copy, actions: DoubleArray) -> tuple[Attribute, ...]:
        """Attributes that changed along episodes with these actions.

        Raises:
            UserError: when one that is neither a number nor an array changed, or random numbers were drawn.
        """
        found: dict[tuple[int, str], Attribute] = {}
        before = dict(plain_attributes(copy))

        def compare() -> None:
            nonlocal before
            now = dict(plain_attributes(copy))
            for place in now:
                if place not in before or before[place] != now[place]:
                    found[place] = self._attribute(copy, *place)
            before = now

        for episode in range(TRIALS):
            copy.env.reset(seed=episode)
            compare()
            drawn = copy.drawn
            for action in actions[episode]:
                answer = self._step(copy, action)
                compare()
                if copy.drawn != drawn:
                    raise self._refused("it draws random numbers while it steps")
                if answer[2] or answer[3]:
                    break
        return tuple(found.values())

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


def plain_attributes(copy: Copy) -> Iterator[tuple[tuple[int, str], object]]:
    """(layer, name) and a value to compare by, for the attributes made of numbers, words and arrays."""
    for layer, holder in enumerate(copy.layers):
        for name, value in vars(holder).items():
            key = comparable(value)
            if key is not None and name != "_np_random_seed":  # Gymnasium's note of the last seed
                yield (layer, name), key


def comparable(value: object) -> object:
    """Something that is equal where plain ``value`` is the same bit for bit; None for what is not plain."""
    if isinstance(value, np.ndarray):
        return None if views_foreign_memory(value) else (value.shape, value.dtype.str, value.tobytes())
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        return (type(value), repr(value))
    if isinstance(value, dict):
        return comparable([*value, *value.values()])
    if isinstance(value, list | tuple | set | deque):
        return (type(value), tuple(map(comparable, value)))
    return None


def views_foreign_memory(array: np.ndarray[Any, Any]) -> bool:
    """Whether the numbers lie in MuJoCo's own memory, which is restored anyway."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.base is not None


def fits(kept: Attribute, value: object) -> bool:
    """Whether ``value`` still is of the type and shape that were seen."""
    if isinstance(value, np.ndarray):
        return bool(value.shape == kept.shape and value.dtype == kept.kind)
    return kept.shape is None and type(value) is kept.kind


def model_bytes(model: mujoco.MjModel) -> bytes:
    """The whole model, to compare."""
    buffer = np.empty(mujoco.mj_sizeModel(model), dtype=np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer.tobytes()


def same(one: States, other: States) -> bool:
    """Whether two states are the same bit for bit, what MuJoCo computed for them included."""
    pairs = ((one.physics, other.physics), (one.memory, other.memory), (one.obs, other.obs))
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)
