"""Base classes of tasks. The methods of a task are vectorised numpy functions of batched MuJoCo states."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import mujoco

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Physics:
    """States of N simulations, and further values that a task reads."""

    qpos: Array
    """(N, nq) joint positions (m, rad)."""
    qvel: Array
    """(N, nv) joint velocities (m/s, rad/s)."""
    act: Array
    """(N, na) activations of stateful actuators; most tasks have none (N, 0)."""
    memory: Array
    """(N, M) state outside MuJoCo's, from ``Task.remember``; most tasks have none (N, 0)."""
    read: Mapping[str, Array] = field(default_factory=dict)
    """``Task.fields`` (N, ...) and ``Task.sensors`` (N, D) by name, with the original's values."""


class World(Protocol):
    """Functions of a simulator for tasks that draw initial states."""

    @property
    def model(self) -> mujoco.MjModel:
        """The task's model."""

    @property
    def init(self) -> Physics:
        """The initial state of the model file, one row."""

    def contacts(self, qpos: Array) -> Ints:
        """(N,) number of contacts at joint positions (N, nq)."""

    def settle(self, start: Physics, substeps: int) -> Physics:
        """The states (without ``read``) after ``substeps`` physics sub-steps without control."""


@dataclass(frozen=True)
class Part:
    """One row in the table of observations."""

    name: str
    """Description, such as ``joint angles: hip, knee, ankle``."""
    size: int
    """Number of values."""
    unit: str
    """``m``, ``rad``, ``m/s``, ``rad/s``, ``N m`` ...; ``1`` for a dimensionless number."""


class Task(ABC):
    """One control task, equivalent to an original in Gymnasium or dm_control.

    MuJoCo is imported by ``make_model`` only, so that sizes are available without it.
    """

    id: ClassVar[str]
    """Name, with the version of the original if it has one: ``hopper-v5``."""
    original: ClassVar[str]
    """Library and name of the original: ``Gymnasium Hopper-v5``."""
    frame_skip: ClassVar[int]
    """Physics sub-steps in one control step."""
    horizon: ClassVar[int]
    """Control steps in an episode (the time limit)."""
    timestep: ClassVar[float]
    """Seconds in one physics sub-step, as in the model file."""
    camera: ClassVar[dict[str, float]]
    """Free-camera settings for videos: distance (m), elevation (degrees), height of the look-at point (m)."""
    observation: ClassVar[tuple[Part, ...]]
    """Parts of the observation, in order."""
    reward_in_words: ClassVar[str]
    """The reward of one control step, as a sentence or formula."""
    end_in_words: ClassVar[str] = "only at the time limit"
    """When an episode ends."""
    fields: ClassVar[tuple[str, ...]] = ()
    """Fields of ``mujoco.MjData`` that the original reads after a step, with the values that MuJoCo leaves in
    them (those of the last stage of a Runge-Kutta integrator). States are then stepped one at a time.
    ``cfrc_ext`` is computed in addition."""
    sensors: ClassVar[tuple[str, ...]] = ()
    """Sensors of the model that are read after a step; accelerations and forces are of the last sub-step."""
    looks: ClassVar[bool] = True
    """Whether sensors of positions and velocities belong to the state reached, as in dm_control, or to the
    state before the last sub-step, as ``mj_step`` leaves them."""

    @property
    def dt(self) -> float:
        """Seconds in one control step."""
        return self.timestep * self.frame_skip

    @abstractmethod
    def make_model(self) -> mujoco.MjModel:
        """A new MuJoCo model, compiled from the model file of the original."""

    @abstractmethod
    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        """Initial states of ``n`` episodes (without ``read``)."""

    def remember(self, now: Physics, world: World) -> Array:
        """(N, M) state of the original in ``now``, outside MuJoCo's state.

        On entry ``now.memory`` is that of the previous step. By default it does not change: a target drawn by
        ``reset`` stays. The other methods get the result as ``now.memory`` or ``before.memory``.
        """
        return now.memory

    @abstractmethod
    def observe(self, now: Physics) -> Array:
        """(N, O) observations of the states ``now``."""

    @abstractmethod
    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        """(N,) true reward of the control step ``action`` (N, A) that led from ``before`` to ``now``."""

    def terminated(self, now: Physics) -> Bools:
        """(N,) whether the episode terminates in ``now``; the time limit is not a termination."""
        return np.zeros(len(now.qpos), dtype=bool)


class GymnasiumTask(Task):
    """A task of Gymnasium's MuJoCo suite, version 5."""

    gymnasium_id: ClassVar[str]
    """The original's id in Gymnasium."""
    xml: ClassVar[str]
    """File name of the model in Gymnasium's assets."""
    bodies: ClassVar[tuple[str, ...]] = ()
    """Bodies whose position (``xpos``) the original reads after ``mj_step``. They get position sensors, which
    are faster than ``fields``. Not for the Runge-Kutta integrator, which leaves other values."""
    looks: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        cls.original = f"Gymnasium {cls.gymnasium_id}"
        cls.sensors = cls.bodies

    def make_model(self) -> mujoco.MjModel:
        import gymnasium.envs.mujoco as gymnasium_mujoco
        import mujoco

        path = Path(gymnasium_mujoco.__file__).parent / "assets" / self.xml
        before = mujoco.get_mju_user_warning()
        mujoco.set_mju_user_warning(self._warn)
        try:
            if not self.bodies:
                return mujoco.MjModel.from_xml_path(str(path))
            spec = mujoco.MjSpec.from_file(str(path))
            place = {"type": mujoco.mjtSensor.mjSENS_FRAMEPOS, "objtype": mujoco.mjtObj.mjOBJ_XBODY}
            for body in self.bodies:
                spec.add_sensor(name=body, objname=body, **place)
            return spec.compile()
        finally:
            mujoco.set_mju_user_warning(before)

    def _warn(self, message: str) -> None:
        # The model files of the originals use deprecated attributes. MuJoCo would warn at every start, and
        # write a log into the working folder. Users cannot fix this, so only other warnings are shown.
        if "deprecated" not in message:
            warnings.warn(f"{self.xml}: {message}", stacklevel=2)


def flat(values: Array) -> Array:
    """``values`` (N, ...) as (N, K), also for N = 0."""
    return values.reshape(len(values), math.prod(values.shape[1:]))


def start(world: World, qpos: Array, qvel: Array, memory: Array | None = None) -> Physics:
    """States of positions (N, nq) and velocities (N, nv), with idle actuators and ``memory`` (N, M)."""
    n = len(qpos)
    idle = np.zeros((n, world.init.act.shape[1]))
    return Physics(qpos, qvel, idle, np.zeros((n, 0)) if memory is None else memory)


def uniformly_around(
    world: World, n: int, noise: float, rng: np.random.Generator, normal_velocities: bool = False
) -> Physics:
    """``n`` initial states with uniform noise of half width ``noise`` on positions and velocities.

    With ``normal_velocities`` the noise of the velocities is normal, with standard deviation ``noise``.
    """
    init = world.init
    qpos = init.qpos + rng.uniform(-noise, noise, (n, init.qpos.shape[1]))
    shape = (n, init.qvel.shape[1])
    shift = noise * rng.standard_normal(shape) if normal_velocities else rng.uniform(-noise, noise, shape)
    return start(world, qpos, init.qvel + shift)
