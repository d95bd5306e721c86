"""The simulator of sailctl's own tasks: N MuJoCo states in flat arrays, stepped by C threads.

It is stateless: ``step`` maps ``States`` to ``States``. States are forked by repeating rows, saved by copying
them, and restored by passing the copy to ``step``.

Every step starts the constraint solver cold. MuJoCo's warm start is not part of the physics state; with it a
restored state would not continue as the original did.
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

FULL = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)  # an enum costs a microsecond more per call
CHUNKS = 8
"""Number of chunks of a batch for the thread pool: a compromise of overhead and load balance."""


class TaskSimulator:
    """Steps batches of states of one task with ``threads`` C threads; results do not depend on their number.

    Most tasks are stepped by ``mujoco.rollout``. A task that reads ``fields`` of ``MjData`` is stepped state
    by state, which costs a few microseconds per state, because no batched function returns these fields. The
    sensors of a sub-step belong to the state before it. A task with ``looks`` therefore costs one more
    sub-step, without contacts and actuation, for the sensors of positions and velocities.
    """

    forks_anywhere = True

    def __init__(self, task: Task, threads: int = 1) -> None:
        self.task = task
        self.model = task.make_model()
        # With nthread=0 the calling thread simulates, without the overhead of a pool.
        self._pool = mujoco_rollout.Rollout(nthread=threads if threads > 1 else 0)
        self._workers = ThreadPoolExecutor(threads) if task.fields and threads > 1 else None
        self._data = [mujoco.MjData(self.model) for _ in range(threads)]
        self._scratch = mujoco.MjData(self.model)
        self._threads = threads
        self._nstate = mujoco.mj_stateSize(self.model, FULL)
        ends = np.cumsum([1, self.model.nq, self.model.nv, self.model.na])
        self._qpos, self._qvel, self._act = (slice(ends[i], ends[i + 1]) for i in range(3))
        self._sensors = [self.model.sensor(name) for name in task.sensors]
        self._current_sensors = {s.name for s in self._sensors if task.looks and needs_look(self.model, s.id)}
        self._look_model = weightless_model(self.model) if self._current_sensors else self.model
        mujoco.mj_resetData(self.model, self._scratch)
        self.init = self._physics(self._state_of(self._scratch)[None], np.zeros((1, 0)))
        low, high = self.model.actuator_ctrlrange.T.copy()
        obs_dim = self.reset(1, np.random.default_rng(0)).obs.shape[1]
        self.spec = EnvSpec(task.id, obs_dim, self.model.nu, low, high, task.horizon, task.dt)

    @property
    def camera(self) -> dict[str, float]:
        """The task's camera settings."""
        return self.task.camera

    def reset(self, n: int, rng: np.random.Generator) -> States:
        """``n`` initial states drawn with ``rng``."""
        start = self.task.reset(n, self, rng)
        return self.enter(self._rows(start), start.memory)

    def enter(self, physics: DoubleArray, memory: DoubleArray | None = None) -> States:
        """The states ``physics`` (N, nstate) as initial states of episodes, with observations.

        ``memory`` (N, M) is required if the task draws state outside MuJoCo's, such as a target.
        """
        n = len(physics)
        memory = np.zeros((n, 0)) if memory is None else memory
        now = self._remember(self._physics(physics, memory, self._read_at_start(physics)))
        return States(physics, now.memory, self.task.observe(now), np.zeros(n, dtype=np.int64))

    def step(self, states: States, action: DoubleArray) -> Step:
        """One control step of every row.

        Args:
            states: N states.
            action: (N, A) controls in the units of the actuators; the caller clips them to the bounds.

        Raises:
            RunError: when an action is not finite, or a state becomes unstable or not finite.
        """
        # MuJoCo would replace such an action by zeros without an error.
        if not np.isfinite(action).all():
            bad = np.flatnonzero(~np.isfinite(action).all(axis=1))
            raise RunError(
                f"{self.task.id}: {len(bad)} of {len(action)} actions are not finite (first: row {bad[0]})"
            )
        if self.task.fields:
            reached, read = self._step_and_read(states.physics, action)
        else:
            control = np.repeat(action[:, None], self.task.frame_skip, axis=1)
            path, sensor_data = self._simulate(self.model, states.physics, control)
            reached = path[:, -1].copy()
            read = self._read_sensors(reached, sensor_data[:, -1])
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

    # Interface for tasks that draw initial states (``sailctl_envs.World``)

    def contacts(self, qpos: DoubleArray) -> IntArray:
        """(N,) number of contacts at joint positions (N, nq)."""
        model, data = self.model, self._scratch
        counts = np.empty(len(qpos), dtype=np.int64)
        for row, positions in enumerate(qpos):
            data.qpos[:] = positions
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_collision(model, data)
            counts[row] = data.ncon
        return counts

    def settle(self, start: Physics, substeps: int) -> Physics:
        """The states after ``substeps`` physics sub-steps without control."""
        control = np.zeros((len(start.qpos), substeps, self.model.nu))
        path, _ = self._simulate(self.model, self._rows(start), control)
        return self._physics(path[:, -1].copy(), start.memory)

    # Stepping

    def _simulate(
        self, model: mujoco.MjModel, physics: DoubleArray, control: DoubleArray
    ) -> tuple[DoubleArray, DoubleArray]:
        """States (N, steps, nstate) after, and sensors (N, steps, D) before, each sub-step of ``control``."""
        n, steps, _ = control.shape
        path, sensor_data = np.empty((n, steps, self._nstate)), np.empty((n, steps, model.nsensordata))
        if n:
            self._pool.rollout(
                [model] * n,
                self._data,
                np.ascontiguousarray(physics),
                np.ascontiguousarray(control, dtype=np.float64),
                skip_checks=True,
                nstep=steps,
                state=path,
                sensordata=sensor_data,
                chunk_size=max(1, n // CHUNKS) if self._threads > 1 else None,
            )
        return path, sensor_data

    def _step_and_read(
        self, physics: DoubleArray, action: DoubleArray
    ) -> tuple[DoubleArray, dict[str, DoubleArray]]:
        """States (N, nstate) and the task's fields (N, ...) after one control step."""
        n = len(physics)
        reached = np.empty((n, self._nstate))
        read = {name: np.empty((n, *getattr(self._scratch, name).shape)) for name in self.task.fields}

        def step_rows(data: mujoco.MjData, rows: slice) -> None:
            model, frame_skip = self.model, self.task.frame_skip
            ctrl, warmstart = data.ctrl, data.qacc_warmstart
            fields = [(getattr(data, name), values[rows]) for name, values in read.items()]
            parts = (physics[rows], action[rows], reached[rows])
            for row, (before, control, after) in enumerate(zip(*parts, strict=True)):
                mujoco.mj_setState(model, data, before, FULL)
                ctrl[:] = control
                warmstart.fill(0.0)
                mujoco.mj_step(model, data, frame_skip)
                if "cfrc_ext" in read:
                    mujoco.mj_rnePostConstraint(model, data)
                mujoco.mj_getState(model, data, after, FULL)
                for value, values in fields:
                    values[row] = value

        edges = [n * part // self._threads for part in range(self._threads + 1)]
        shares = [slice(*pair) for pair in pairwise(edges)]
        if self._workers is None:
            step_rows(self._data[0], shares[0])
        else:
            list(self._workers.map(step_rows, self._data, shares))
        return reached, read

    def _read_sensors(self, reached: DoubleArray, sensor_data: DoubleArray) -> dict[str, DoubleArray]:
        """The task's sensors (N, D) by name, from those of the last sub-step (N, nsensordata)."""
        current = sensor_data
        if self._current_sensors:
            idle = np.zeros((len(reached), 1, self.model.nu))
            current = self._simulate(self._look_model, reached, idle)[1][:, 0]
        read = {}
        for sensor in self._sensors:
            place = slice(sensor.adr[0], sensor.adr[0] + sensor.dim[0])
            read[sensor.name] = (current if sensor.name in self._current_sensors else sensor_data)[:, place]
        return read

    def _read_at_start(self, physics: DoubleArray) -> dict[str, DoubleArray]:
        """The task's fields and sensors in states (N, nstate), without actuation."""
        model, data = self.model, self._scratch
        fields = {name: getattr(data, name) for name in self.task.fields}
        sensors = {name: data.sensor(name).data for name in self.task.sensors}
        sources = fields | sensors
        read = {name: np.empty((len(physics), *source.shape)) for name, source in sources.items()}
        with without_actuation(model):
            for row in range(len(physics)) if sources else ():  # most tasks read nothing
                mujoco.mj_resetData(model, data)
                mujoco.mj_setState(model, data, physics[row], FULL)
                mujoco.mj_forward(model, data)
                for name, source in sources.items():
                    read[name][row] = source
        return read

    def _rows(self, start: Physics) -> DoubleArray:
        """(N, nstate) states of positions, velocities and activations."""
        physics = np.zeros((len(start.qpos), self._nstate))
        physics[:, 0] = 1.0  # not 0, to which MuJoCo resets unstable states
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
        # MuJoCo resets an unstable state, so that its clock does not advance by one step.
        advanced = np.abs(after[:, 0] - before[:, 0] - self.task.dt) < 0.25 * self.task.timestep
        if not (advanced.all() and np.isfinite(after).all()):
            bad = np.flatnonzero(~(advanced & np.isfinite(after).all(axis=1)))
            count = f"{len(bad)} of {len(after)} states"
            raise RunError(f"{self.task.id}: MuJoCo is unstable in {count} (first: row {bad[0]})")


def needs_look(model: mujoco.MjModel, sensor: int) -> bool:
    """Whether a sensor depends on positions and velocities only, and so on the state reached."""
    return bool(model.sensor_needstage[sensor] != mujoco.mjtStage.mjSTAGE_ACC)


def weightless_model(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy of ``model`` whose sub-steps compute little more than positions and velocities.

    MuJoCo's automatic reset of unstable states is off in it.
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
    """Disable the model's actuators within the block."""
    before = model.opt.disableflags
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_ACTUATION
    try:
        yield
    finally:
        model.opt.disableflags = before
