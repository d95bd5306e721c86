"""What a task is: one class whose methods are vectorised numpy functions of batched MuJoCo states."""

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
    """Batched state of N simulations, and what a task reads beside it."""

    qpos: Array
    """(N, nq) joint positions (m, rad)."""
    qvel: Array
    """(N, nv) joint velocities (m/s, rad/s)."""
    act: Array
    """(N, na) activations of actuators with a state of their own; most tasks have none (N, 0)."""
    memory: Array
    """(N, M) what ``Task.remember`` carries along beside MuJoCo's state; most tasks need nothing (N, 0)."""
    read: Mapping[str, Array] = field(default_factory=dict)
    """``Task.fields`` (N, ...) and ``Task.sensors`` (N, D) by name, as the original finds them."""


class World(Protocol):
    """What a simulator offers to a task that draws initial states."""

    @property
    def model(self) -> mujoco.MjModel:
        """The task's model."""

    @property
    def init(self) -> Physics:
        """The model's own start, one row."""

    def contacts(self, qpos: Array) -> Ints:
        """(N,) number of contacts at joint positions (N, nq)."""

    def settle(self, start: Physics, substeps: int) -> Physics:
        """The states (``read`` left out) that ``substeps`` physics sub-steps without control lead to."""


@dataclass(frozen=True)
class Part:
    """One line in the table of what a policy observes."""

    what: str
    """In words, such as ``joint angles: hip, knee, ankle``."""
    size: int
    """Count of numbers."""
    unit: str
    """``m``, ``rad``, ``m/s``, ``rad/s``, ``N m`` ...; ``1`` for a number without a unit."""


class Task(ABC):
    """One control task, the same task as an original in Gymnasium or dm_control.

    Nothing here imports MuJoCo until ``make_model`` is called, so that sizes can be checked first.
    """

    id: ClassVar[str]
    """Name, with the original's version where it has one: ``hopper-v5``."""
    original: ClassVar[str]
    """The original's name where it lives: ``Gymnasium Hopper-v5``."""
    frame_skip: ClassVar[int]
    """Physics sub-steps in one control step."""
    horizon: ClassVar[int]
    """Control steps in an episode (the time limit)."""
    timestep: ClassVar[float]
    """Seconds in one physics sub-step (as the model file says; checked by a contract test)."""
    camera: ClassVar[dict[str, float]]
    """Free-camera settings for videos: distance (m), elevation (degrees), height of the look-at point (m)."""
    observation: ClassVar[tuple[Part, ...]]
    """What the policy observes, in order; a contract test compares the sizes."""
    reward_in_words: ClassVar[str]
    """The reward of one control step, as one sentence or formula."""
    end_in_words: ClassVar[str] = "only at the time limit"
    """When an episode ends."""
    fields: ClassVar[tuple[str, ...]] = ()
    """Fields of ``mujoco.MjData`` that the original reads after a step, as MuJoCo leaves them: with the
    Runge-Kutta integrator those of its last stage. Steps one state at a time; ``cfrc_ext`` is computed."""
    sensors: ClassVar[tuple[str, ...]] = ()
    """Sensors of the model that are read after a step: accelerations and forces of the last sub-step."""
    looks: ClassVar[bool] = True
    """Whether sensors of positions and velocities are those of the state reached, as dm_control has them, or
    those of the state before the last sub-step, where ``mj_step`` leaves them."""

    @property
    def dt(self) -> float:
        """Seconds in one control step."""
        return self.timestep * self.frame_skip

    @abstractmethod
    def make_model(self) -> mujoco.MjModel:
        """A fresh MuJoCo model, compiled from the file that ships with the original."""

    @abstractmethod
    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        """Initial states of ``n`` episodes (``read`` left out)."""

    def remember(self, now: Physics, world: World) -> Array:
        """(N, M) what the original carries on from ``now`` beside MuJoCo's state.

        ``now.memory`` is what was carried here, and goes on as it is unless a task says otherwise: a target
        drawn by ``reset`` stays. The other methods see the answer, as ``now.memory`` or ``before.memory``.
        """
        return now.memory

    @abstractmethod
    def observe(self, now: Physics) -> Array:
        """(N, O) observations of the states ``now``."""

    @abstractmethod
    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        """(N,) true reward of the control step ``action`` (N, A) that led from ``before`` to ``now``."""

    def terminated(self, now: Physics) -> Bools:
        """(N,) whether the episode ended in ``now`` for good (a time limit is not a termination)."""
        return np.zeros(len(now.qpos), dtype=bool)


class GymnasiumTask(Task):
    """A task of Gymnasium's MuJoCo suite, version 5."""

    gymnasium_id: ClassVar[str]
    """The original's id in Gymnasium."""
    xml: ClassVar[str]
    """File name of the model among Gymnasium's assets."""
    bodies: ClassVar[tuple[str, ...]] = ()
    """Bodies whose positions (``xpos``) the original reads as ``mj_step`` leaves them: sensors of their own
    here, since that is faster than ``fields``. Not with the Runge-Kutta integrator, which leaves others."""
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
        # The originals' model files use deprecated attributes; MuJoCo would say so, and log it into the
        # working folder, at every start. Whoever runs a task cannot mend it, so only other warnings pass.
        if "deprecated" not in message:
            warnings.warn(f"{self.xml}: {message}", stacklevel=2)


def flat(values: Array) -> Array:
    """(N, ...) as (N, K), for no rows too."""
    return values.reshape(len(values), math.prod(values.shape[1:]))


def start(world: World, qpos: Array, qvel: Array, memory: Array | None = None) -> Physics:
    """States (N, nq), (N, nv) with idle actuators; ``memory`` (N, M) is empty unless it is given."""
    n = len(qpos)
    idle = np.zeros((n, world.init.act.shape[1]))
    return Physics(qpos, qvel, idle, np.zeros((n, 0)) if memory is None else memory)


def uniformly_around(world: World, n: int, noise: float, rng: np.random.Generator) -> Physics:
    """``n`` states with uniform noise of half width ``noise`` on each position and velocity of the start."""
    init = world.init
    qpos = init.qpos + rng.uniform(-noise, noise, (n, init.qpos.shape[1]))
    qvel = init.qvel + rng.uniform(-noise, noise, (n, init.qvel.shape[1]))
    return start(world, qpos, qvel)
