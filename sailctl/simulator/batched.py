"""The simulator of the suite's own tasks: N MuJoCo states in flat arrays, stepped by C threads.

It has no state of its own: ``States`` goes in and ``States`` comes out, so that forking is repeating rows,
saving is copying, and restoring is passing the copy back.

Every step starts the constraint solver cold: MuJoCo's warm start is no part of the physics state, and
with it a restored state would not continue as the original did.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import mujoco
import numpy as np
from mujoco import rollout as mujoco_rollout

from sailctl.core.types import DoubleArray, EnvSpec, IntArray, RunError
from sailctl.simulator.states import States, Step
from sailctl_envs import Physics, Task

FULL = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)  # as an enum it costs a microsecond more in every call
CHUNKS = 8
"""Pieces that a batch is cut into for the thread pool: few enough to cost little, enough to balance."""


class TaskSimulator:
    """Steps batches of one task's states; ``threads`` C threads, the same numbers for any count of them.

    Most tasks are stepped by ``mujoco.rollout``. A task that reads ``fields`` of ``MjData`` is stepped state
    by state, which costs a few microseconds more, because no batched call hands those fields out. A task that
    reads ``sensors`` and ``looks`` pays one more sub-step, in which nothing touches and nothing is actuated:
    the sensors of a sub-step belong to the state before it.
    """

    forks_anywhere = True

    def __init__(self, task: Task, threads: int = 1) -> None:
        self.task = task
        self.model = task.make_model()
        # With one thread the calling thread simulates by itself, which saves the hand-over to a pool.
        self._pool = mujoco_rollout.Rollout(nthread=threads if threads > 1 else 0)
        self._workers = ThreadPoolExecutor(threads) if task.fields and threads > 1 else None
        self._data = [mujoco.MjData(self.model) for _ in range(threads)]
        self._still = mujoco.MjData(self.model)
        self._threads = threads
        self._nstate = mujoco.mj_stateSize(self.model, FULL)
        ends = np.cumsum([1, self.model.nq, self.model.nv, self.model.na])
        self._qpos, self._qvel, self._act = (slice(ends[i], ends[i + 1]) for i in range(3))
        self._sensors = [self.model.sensor(name) for name in task.sensors]
        self._looked_at = {s.name for s in self._sensors if task.looks and needs_look(self.model, s.id)}
        self._look_model = weightless_model(self.model) if self._looked_at else self.model
        mujoco.mj_resetData(self.model, self._still)
        self.init = self._physics(self._state_of(self._still)[None], np.zeros((1, 0)))
        low, high = self.model.actuator_ctrlrange.T.copy()
        obs_dim = self.reset(1, np.random.default_rng(0)).obs.shape[1]
        self.spec = EnvSpec(task.id, obs_dim, self.model.nu, low, high, task.horizon, task.dt)

    @property
    def camera(self) -> dict[str, float]:
        """The task's."""
        return self.task.camera

    def reset(self, n: int, rng: np.random.Generator) -> States:
        """``n`` fresh episode starts drawn with ``rng``."""
        start = self.task.reset(n, self, rng)
        return self.enter(self._rows(start), start.memory)

    def enter(self, physics: DoubleArray, memory: DoubleArray | None = None) -> States:
        """The states ``physics`` (N, nstate) as episode starts, observed as no step led there.

        ``memory`` (N, M) may be left out where a task draws nothing beside MuJoCo's state.
        """
        n = len(physics)
        memory = np.zeros((n, 0)) if memory is None else memory
        now = self._remember(self._physics(physics, memory, self._read_at_start(physics)))
        return States(physics, now.memory, self.task.observe(now), np.zeros(n, dtype=np.int64))

    def step(self, states: States, action: DoubleArray) -> Step:
        """One control step of every row.

        Args:
            states: N states.
            action: (N, A) controls in the actuators' own units, taken as they are: clip them before.

        Raises:
            RunError: when an action is not finite, or MuJoCo found a state unstable or not finite.
        """
        # MuJoCo would put zeros in place of such an action and go on.
        if not np.isfinite(action).all():
            bad = np.flatnonzero(~np.isfinite(action).all(axis=1))
            raise RunError(
                f"{self.task.id}: {len(bad)} of {len(action)} actions are not finite (first: row {bad[0]})"
            )
        if self.task.fields:
            reached, read = self._step_and_read(states.physics, action)
        else:
            control = np.repeat(action[:, None], self.task.frame_skip, axis=1)
            path, sensed = self._simulate(self.model, states.physics, control)
            reached = path[:, -1].copy()
            read = self._read_sensors(reached, sensed[:, -1])
        self._refuse_unstable(states.physics, reached)
        before = self._physics(states.physics, states.memory)
        now = self._remember(self._physics(reached, states.memory, read))
        terminated = self.task.terminated(now)
        elapsed = states.elapsed + 1
        return Step(
            states=States(reached, now.memory, self.task.observe(now), elapsed),
            reward=self.task.reward(before, now, action),
            terminated=terminated,
            truncated=(elapsed >= self.task.horizon) & ~terminated,
        )

    def close(self) -> None:
        """End the threads."""
        self._pool.close()
        if self._workers is not None:
            self._workers.shutdown()

    # What a task may ask for while it draws initial states (``sailctl_envs.World``)

    def contacts(self, qpos: DoubleArray) -> IntArray:
        """(N,) number of contacts at joint positions (N, nq)."""
        model, data = self.model, self._still
        found = np.empty(len(qpos), dtype=np.int64)
        for row, positions in enumerate(qpos):
            data.qpos[:] = positions
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_collision(model, data)
            found[row] = data.ncon
        return found

    def settle(self, start: Physics, substeps: int) -> Physics:
        """The states that ``substeps`` physics sub-steps without control lead to.

        Raises:
            RunError: when MuJoCo found a state unstable on the way.
        """
        control = np.zeros((len(start.qpos), substeps, self.model.nu))
        path, _ = self._simulate(self.model, self._rows(start), control)
        return self._physics(path[:, -1].copy(), start.memory)

    # Stepping

    def _simulate(
        self, model: mujoco.MjModel, physics: DoubleArray, control: DoubleArray
    ) -> tuple[DoubleArray, DoubleArray]:
        """States (N, steps, nstate) after, and sensors (N, steps, D) before, each sub-step of ``control``."""
        n, steps, _ = control.shape
        path, sensed = np.empty((n, steps, self._nstate)), np.empty((n, steps, model.nsensordata))
        if n:
            self._pool.rollout(
                [model] * n,
                self._data,
                np.ascontiguousarray(physics),
                np.ascontiguousarray(control, dtype=np.float64),
                skip_checks=True,
                nstep=steps,
                state=path,
                sensordata=sensed,
                chunk_size=max(1, n // CHUNKS) if self._threads > 1 else None,
            )
        return path, sensed

    def _step_and_read(
        self, physics: DoubleArray, action: DoubleArray
    ) -> tuple[DoubleArray, dict[str, DoubleArray]]:
        """States (N, nstate) after one control step, and the task's fields (N, ...) as MuJoCo left them."""
        n = len(physics)
        reached = np.empty((n, self._nstate))
        read = {name: np.empty((n, *getattr(self._still, name).shape)) for name in self.task.fields}

        def step_rows(data: mujoco.MjData, rows: slice) -> None:
            model, frame_skip = self.model, self.task.frame_skip
            ctrl, warmstart = data.ctrl, data.qacc_warmstart
            kept = [(getattr(data, name), values[rows]) for name, values in read.items()]
            parts = (physics[rows], action[rows], reached[rows])
            for row, (before, control, after) in enumerate(zip(*parts, strict=True)):
                mujoco.mj_setState(model, data, before, FULL)
                ctrl[:] = control
                warmstart.fill(0.0)
                mujoco.mj_step(model, data, frame_skip)
                if "cfrc_ext" in read:
                    mujoco.mj_rnePostConstraint(model, data)
                mujoco.mj_getState(model, data, after, FULL)
                for value, values in kept:
                    values[row] = value

        edges = [n * part // self._threads for part in range(self._threads + 1)]
        shares = [slice(*pair) for pair in pairwise(edges)]
        if self._workers is None:
            step_rows(self._data[0], shares[0])
        else:
            list(self._workers.map(step_rows, self._data, shares))
        return reached, read

    def _read_sensors(self, reached: DoubleArray, sensed: DoubleArray) -> dict[str, DoubleArray]:
        """The task's sensors (N, D) by name; ``sensed`` are those of the last sub-step (N, nsensordata)."""
        looked = sensed
        if self._looked_at:
            idle = np.zeros((len(reached), 1, self.model.nu))
            looked = self._simulate(self._look_model, reached, idle)[1][:, 0]
        read = {}
        for sensor in self._sensors:
            place = slice(sensor.adr[0], sensor.adr[0] + sensor.dim[0])
            read[sensor.name] = (looked if sensor.name in self._looked_at else sensed)[:, place]
        return read

    def _read_at_start(self, physics: DoubleArray) -> dict[str, DoubleArray]:
        """The task's fields and sensors in states (N, nstate), without actuation."""
        model, data = self.model, self._still
        fields = {name: getattr(data, name) for name in self.task.fields}
        sensors = {name: data.sensor(name).data for name in self.task.sensors}
        sources = fields | sensors
        read = {name: np.empty((len(physics), *source.shape)) for name, source in sources.items()}
        with without_actuation(model):
            for row in range(len(physics)) if sources else ():  # most tasks read nothing, and pay nothing
                mujoco.mj_resetData(model, data)
                mujoco.mj_setState(model, data, physics[row], FULL)
                mujoco.mj_forward(model, data)
                for name, source in sources.items():
                    read[name][row] = source
        return read

    def _rows(self, start: Physics) -> DoubleArray:
        """(N, nstate) states of positions, velocities and activations."""
        physics = np.zeros((len(start.qpos), self._nstate))
        physics[:, 0] = 1.0  # MuJoCo resets unstable states to time 0: no episode may begin there
        physics[:, self._qpos], physics[:, self._qvel] = start.qpos, start.qvel
        physics[:, self._act] = start.act
        return physics

    def _physics(
        self, physics: DoubleArray, memory: DoubleArray, read: dict[str, DoubleArray] | None = None
    ) -> Physics:
        return Physics(
            physics[:, self._qpos], physics[:, self._qvel], physics[:, self._act], memory, read or {}
        )

    def _remember(self, now: Physics) -> Physics:
        return replace(now, memory=self.task.remember(now, self).copy())

    def _state_of(self, data: mujoco.MjData) -> DoubleArray:
        state = np.empty(self._nstate)
        mujoco.mj_getState(self.model, data, state, FULL)
        return state

    def _refuse_unstable(self, before: DoubleArray, after: DoubleArray) -> None:
        # MuJoCo answers an unstable state by resetting it, which its clock betrays.
        moved = np.abs(after[:, 0] - before[:, 0] - self.task.dt) < 0.25 * self.task.timestep
        if not (moved.all() and np.isfinite(after).all()):
            bad = np.flatnonzero(~(moved & np.isfinite(after).all(axis=1)))
            found = f"{len(bad)} of {len(after)} states (first: row {bad[0]})"
            raise RunError(f"{self.task.id}: MuJoCo is unstable in {found}")


def needs_look(model: mujoco.MjModel, sensor: int) -> bool:
    """Whether a sensor is one of positions or velocities: current in the state reached."""
    return bool(model.sensor_needstage[sensor] != mujoco.mjtStage.mjSTAGE_ACC)


def weightless_model(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy of ``model`` in which a sub-step computes positions and velocities and little else.

    It is never reset, however fast the state that is looked at moves.
    """
    twin = copy.deepcopy(model)
    off = mujoco.mjtDisableBit
    twin.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
    twin.opt.disableflags |= (
        off.mjDSBL_CONSTRAINT
        | off.mjDSBL_CONTACT
        | off.mjDSBL_ACTUATION
        | off.mjDSBL_EULERDAMP
        | off.mjDSBL_AUTORESET
    )
    return twin


@contextmanager
def without_actuation(model: mujoco.MjModel) -> Iterator[None]:
    """Inside the block the model's actuators do nothing."""
    before = model.opt.disableflags
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_ACTUATION
    try:
        yield
    finally:
        model.opt.disableflags = before
