"""N MuJoCo simulations held in flat arrays and stepped by C threads.

The simulator has no state of its own: ``States`` goes in and ``States`` comes out, so that forking is
repeating rows, saving is copying, and restoring is passing the copy back.

Reset rules. Nothing resets by itself. ``step`` reports ``terminated`` (the task ended for good) and
``truncated`` (the time limit was reached first) apart, and the caller puts a fresh ``reset`` row where it
wants one; a row that is never replaced is never silently restarted.

Every step starts the constraint solver cold: MuJoCo's warm start is no part of the physics state, and
with it a restored state would not continue as the original did.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from mujoco import rollout as mujoco_rollout

from sailctl.types import DoubleArray, EnvSpec, IntArray, RunError
from sailctl_envs import Physics, Task

CHUNKS = 8
"""Pieces that a batch is cut into for the thread pool: few enough to cost little, enough to balance."""


@dataclass(frozen=True)
class States:
    """N simulator states; the rows are independent of each other."""

    physics: DoubleArray
    """(N, nstate) MuJoCo's ``mjSTATE_FULLPHYSICS``: time, positions, velocities."""
    obs: DoubleArray
    """(N, O) the observation in each state (part of the state: some tasks observe what led there)."""
    elapsed: IntArray
    """(N,) control steps since the episode began."""

    def __len__(self) -> int:
        return len(self.elapsed)

    def fork(self, forks: int) -> States:
        """Each row ``forks`` times, side by side: (N * forks) rows that share no memory with these."""
        return self.take(np.repeat(np.arange(len(self)), forks))

    def take(self, rows: IntArray | np.ndarray[tuple[int], np.dtype[np.bool_]]) -> States:
        """A copy of the chosen rows."""
        return States(self.physics[rows], self.obs[rows], self.elapsed[rows])

    def put(self, rows: IntArray, other: States) -> States:
        """A copy in which ``rows`` are replaced by the rows of ``other``."""
        new = self.save()
        for name, array in other.save().items():
            new[name][rows] = array
        return States.restore(new)

    def save(self) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
        """Copies of the arrays by name, ready to be written to a file."""
        return {"physics": self.physics.copy(), "obs": self.obs.copy(), "elapsed": self.elapsed.copy()}

    @staticmethod
    def restore(saved: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]) -> States:
        """The states that ``save`` wrote; they step on bit for bit as the originals do."""
        return States(
            np.array(saved["physics"], dtype=np.float64),
            np.array(saved["obs"], dtype=np.float64),
            np.array(saved["elapsed"], dtype=np.int64),
        )

    @staticmethod
    def join(parts: list[States]) -> States:
        """The rows of all ``parts``, in order."""
        return States(
            np.concatenate([p.physics for p in parts]),
            np.concatenate([p.obs for p in parts]),
            np.concatenate([p.elapsed for p in parts]),
        )


@dataclass(frozen=True)
class Step:
    """What one control step brought."""

    states: States
    """The states reached."""
    reward: DoubleArray
    """(N,) true reward of the step."""
    terminated: np.ndarray[tuple[int], np.dtype[np.bool_]]
    """(N,) the episode ended for good."""
    truncated: np.ndarray[tuple[int], np.dtype[np.bool_]]
    """(N,) the time limit was reached and the episode did not end for good."""

    @property
    def done(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """(N,) either of the two."""
        return self.terminated | self.truncated


class Simulator:
    """Steps batches of one task's states; ``threads`` C threads, the same numbers for any count of them."""

    def __init__(self, task: Task, threads: int = 1) -> None:
        self.task = task
        self.model = task.make_model()
        # With one thread the calling thread simulates by itself, which saves the hand-over to a pool.
        self._pool = mujoco_rollout.Rollout(nthread=threads if threads > 1 else 0)
        self._data = [mujoco.MjData(self.model) for _ in range(threads)]
        self._threads = threads
        self._nq, self._nv = self.model.nq, self.model.nv
        self._nstate = mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        self._init = Physics(self._data[0].qpos[None].copy(), self._data[0].qvel[None].copy())
        self._probe = half_step_model(self.model) if task.fk_lag else None
        low, high = self.model.actuator_ctrlrange.T.copy()
        obs_dim = self.reset(1, np.random.default_rng(0)).obs.shape[1]
        self.spec = EnvSpec(task.id, obs_dim, self.model.nu, low, high, task.horizon, task.dt)

    def reset(self, n: int, rng: np.random.Generator) -> States:
        """``n`` fresh episode starts drawn with ``rng``."""
        start = self.task.reset(n, self._init, rng)
        physics = np.zeros((n, self._nstate))
        physics[:, 0] = 1.0  # MuJoCo resets unstable states to time 0: no episode may begin there
        physics[:, 1 : 1 + self._nq] = start.qpos
        physics[:, 1 + self._nq : 1 + self._nq + self._nv] = start.qvel
        return States(physics, self.task.observe(start, start.qpos), np.zeros(n, dtype=np.int64))

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
        control = np.repeat(action[:, None], self.task.frame_skip, axis=1)
        path = self._simulate(self.model, states.physics, control)
        reached = path[:, -1].copy()
        before, now = self._physics(states.physics), self._physics(reached)
        seen = now.qpos
        if self._probe is not None:
            last_start = path[:, -2] if self.task.frame_skip > 1 else states.physics
            seen = self._last_stage_positions(last_start, control[:, :1])
        terminated = self.task.terminated(now)
        elapsed = states.elapsed + 1
        return Step(
            states=States(reached, self.task.observe(now, seen), elapsed),
            reward=self.task.reward(before, now, seen, action),
            terminated=terminated,
            truncated=(elapsed >= self.task.horizon) & ~terminated,
        )

    def close(self) -> None:
        """End the threads."""
        self._pool.close()

    def _simulate(self, model: mujoco.MjModel, physics: DoubleArray, control: DoubleArray) -> DoubleArray:
        """(N, steps, nstate) states after each physics sub-step of ``control`` (N, steps, A)."""
        n, steps, _ = control.shape
        path = np.empty((n, steps, self._nstate))
        if n == 0:
            return path
        self._pool.rollout(
            [model] * n,
            self._data,
            np.ascontiguousarray(physics),
            np.ascontiguousarray(control, dtype=np.float64),
            skip_checks=True,
            nstep=steps,
            state=path,
            sensordata=np.empty((n, steps, model.nsensordata)),
            chunk_size=max(1, n // CHUNKS) if self._threads > 1 else None,
        )
        self._refuse_unstable(physics, path[:, -1], steps * model.opt.timestep)
        return path

    def _physics(self, physics: DoubleArray) -> Physics:
        return Physics(physics[:, 1 : 1 + self._nq], physics[:, 1 + self._nq : 1 + self._nq + self._nv])

    def _refuse_unstable(self, before: DoubleArray, after: DoubleArray, seconds: float) -> None:
        # MuJoCo answers an unstable state by resetting it, which its clock betrays.
        moved = np.abs(after[:, 0] - before[:, 0] - seconds) < 0.25 * self.task.timestep
        if not (moved.all() and np.isfinite(after).all()):
            bad = np.flatnonzero(~(moved & np.isfinite(after).all(axis=1)))
            found = f"{len(bad)} of {len(after)} states (first: row {bad[0]})"
            raise RunError(f"{self.task.id}: MuJoCo is unstable in {found}")

    def _last_stage_positions(self, physics: DoubleArray, control: DoubleArray) -> DoubleArray:
        """(N, nq) joint positions at which MuJoCo last placed the bodies in the sub-step from ``physics``.

        A fourth-order Runge-Kutta sub-step of length h evaluates the dynamics a last time at
        q0 + h (v0 + h/2 a1), with a1 the acceleration at its second stage; the body positions that the
        original task reads are left there, not at the state reached. Two explicit half steps give a0 and a1.
        """
        assert self._probe is not None
        h = self.task.timestep
        start = self._physics(physics)
        half = self._simulate(self._probe, physics, control)[:, 0]
        half[:, 1 : 1 + self._nq] = start.qpos + 0.5 * h * start.qvel
        velocity = self._physics(half).qvel
        later = self._physics(self._simulate(self._probe, half, control)[:, 0]).qvel
        positions: DoubleArray = start.qpos + h * (start.qvel + (later - velocity))
        return positions


def half_step_model(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy of ``model`` that takes explicit Euler steps of half its length: v + h/2 * acceleration."""
    import copy

    probe = copy.deepcopy(model)
    probe.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
    probe.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_EULERDAMP
    probe.opt.timestep = 0.5 * model.opt.timestep
    return probe
