"""Common parts of the tasks of the DeepMind Control suite: models, tolerance, random joints."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from sailctl_envs.base import Array, Task, World

if TYPE_CHECKING:
    import mujoco


class SuiteMissingError(ImportError):
    """dm_control, which contains the models, is missing."""


class SuiteTask(Task):
    """A task of the DeepMind Control suite; ``id`` joins the original's domain and task: ``cheetah_run``.

    Actions are not scaled, episodes end only at the time limit, and the observation is the original's
    dictionary, flattened in its order. As in the original, positions and velocities belong to the state
    reached, forces and accelerations to the last sub-step before it.
    """

    horizon: ClassVar[int] = 1000

    def __init_subclass__(cls) -> None:
        if "id" in cls.__dict__:
            cls.original = f"dm_control {cls.domain()} {cls.id.removeprefix(cls.domain() + '_')}"

    @classmethod
    def domain(cls) -> str:
        """The original's domain, which is also the name of its model file."""
        return cls.id.partition("_")[0]

    def make_model(self) -> mujoco.MjModel:
        import mujoco

        spec = mujoco.MjSpec.from_file(str(suite_folder(self.id) / f"{self.domain()}.xml"))
        self.edit(spec)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deprecated")  # users cannot fix it
            return spec.compile()

    def edit(self, spec: mujoco.MjSpec) -> None:
        """Change the model as the original does, and add sensors for other values that it reads."""


def suite_folder(task: str) -> Path:
    """Folder of the suite's model files.

    dm_control itself is not imported, because this takes a second and requires OpenGL.

    Raises:
        SuiteMissingError: when dm_control is missing.
    """
    package = importlib.util.find_spec("dm_control")
    if package is None or package.origin is None:
        raise SuiteMissingError(f"{task} needs dm_control: pip install 'sailctl[dmc]'")
    return Path(package.origin).parent / "suite"


def tolerance(
    x: Array,
    low: float,
    high: float = np.inf,
    margin: float = 0.0,
    value_at_margin: float = 0.1,
    shape: Literal["gaussian", "linear", "quadratic"] = "gaussian",
) -> Array:
    """Degree to which each number in ``x`` is in [low, high], as in dm_control's ``rewards.tolerance``.

    1 inside. Outside it decreases with the distance d from the nearer bound, in units of ``margin``: gaussian
    exp(-(s d)^2 / 2), linear 1 - s d, quadratic 1 - (s d)^2, the last two clipped at 0. The factor s gives
    ``value_at_margin`` at d = 1. With ``margin`` 0 it is 0 outside.
    """
    inside = (low <= x) & (x <= high)
    if margin == 0.0:
        return np.where(inside, 1.0, 0.0)
    distance = np.where(x < low, low - x, x - high) / margin
    if shape == "gaussian":
        outside = np.exp(-0.5 * (distance * np.sqrt(-2.0 * np.log(value_at_margin))) ** 2)
    elif shape == "linear":
        scaled = distance * (1.0 - value_at_margin)
        outside = np.where(np.abs(scaled) < 1.0, 1.0 - scaled, 0.0)
    else:
        scaled = distance * np.sqrt(1.0 - value_at_margin)
        outside = np.where(np.abs(scaled) < 1.0, 1.0 - scaled**2, 0.0)
    return np.where(inside, 1.0, outside)


def random_joints(world: World, n: int, rng: np.random.Generator, turn: float = np.pi) -> Array:
    """(n, nq) joint positions: limited joints uniform in their range, other hinges within ``turn`` of 0.

    Slides without limits keep the model's initial position. All joints must be hinges or slides.
    """
    import mujoco

    model = world.model
    low, high = model.jnt_range.T.copy()
    for joint in np.flatnonzero(model.jnt_limited == 0):
        hinge = model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_HINGE
        low[joint], high[joint] = (-turn, turn) if hinge else 2 * (model.qpos0[joint],)
    return rng.uniform(low, high, (n, model.nq))
