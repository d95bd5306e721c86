"""What a task is: one class whose methods are vectorised numpy functions of batched MuJoCo states."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import mujoco

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Physics:
    """Batched generalised state of N simulations."""

    qpos: Array
    """(N, nq) joint positions (m, rad)."""
    qvel: Array
    """(N, nv) joint velocities (m/s, rad/s)."""


class Task(ABC):
    """One control task, the same task as the Gymnasium environment named by ``gymnasium_id``.

    Nothing here imports MuJoCo until ``make_model`` is called, so that sizes can be checked first.
    """

    id: ClassVar[str]
    """Name with version, such as ``hopper-v5``."""
    gymnasium_id: ClassVar[str]
    """The original's id in Gymnasium."""
    xml: ClassVar[str]
    """File name of the model among Gymnasium's assets."""
    frame_skip: ClassVar[int]
    """Physics sub-steps in one control step."""
    horizon: ClassVar[int]
    """Control steps in an episode (the time limit)."""
    timestep: ClassVar[float]
    """Seconds in one physics sub-step (as the model file says; checked by a contract test)."""
    camera: ClassVar[dict[str, float]]
    """Free-camera settings for videos: distance (m), elevation (degrees), height of the look-at point (m)."""
    fk_lag: ClassVar[bool] = False
    """True when the original reads body positions that MuJoCo computed before its last integration."""

    @property
    def dt(self) -> float:
        """Seconds in one control step."""
        return self.timestep * self.frame_skip

    def make_model(self) -> mujoco.MjModel:
        """A fresh MuJoCo model, compiled from the file that ships with Gymnasium."""
        import gymnasium.envs.mujoco as gymnasium_mujoco
        import mujoco

        path = Path(gymnasium_mujoco.__file__).parent / "assets" / self.xml
        before = mujoco.get_mju_user_warning()
        mujoco.set_mju_user_warning(self._warn)
        try:
            return mujoco.MjModel.from_xml_path(str(path))
        finally:
            mujoco.set_mju_user_warning(before)

    def _warn(self, message: str) -> None:
        # The originals' model files use deprecated attributes; MuJoCo would say so, and log it into the
        # working folder, at every start. Whoever runs a task cannot mend it, so only other warnings pass.
        if "deprecated" not in message:
            warnings.warn(f"{self.xml}: {message}", stacklevel=2)

    @abstractmethod
    def reset(self, n: int, init: Physics, rng: np.random.Generator) -> Physics:
        """Initial states of ``n`` episodes; ``init`` holds the model's own (1, nq) and (1, nv) start."""

    @abstractmethod
    def observe(self, now: Physics, seen: Array) -> Array:
        """(N, O) observations of the states ``now``.

        ``seen`` (N, nq) are the joint positions that body positions are computed from: equal to
        ``now.qpos``, except after a step of a task with ``fk_lag``.
        """

    @abstractmethod
    def reward(self, before: Physics, now: Physics, seen: Array, action: Array) -> Array:
        """(N,) true reward of the control step that led from ``before`` to ``now``."""

    def terminated(self, now: Physics) -> Bools:
        """(N,) whether the episode ended in ``now`` for good (a time limit is not a termination)."""
        return np.zeros(len(now.qpos), dtype=bool)


def uniformly_around(init: Physics, n: int, noise: float, rng: np.random.Generator) -> Physics:
    """``n`` states with uniform noise of half width ``noise`` on each position and velocity of ``init``."""
    qpos = init.qpos + rng.uniform(-noise, noise, (n, init.qpos.shape[1]))
    qvel = init.qvel + rng.uniform(-noise, noise, (n, init.qvel.shape[1]))
    return Physics(qpos, qvel)
