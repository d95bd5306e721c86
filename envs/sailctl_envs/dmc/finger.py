"""finger_spin: a two-jointed finger that keeps a body spinning on its hinge."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sailctl_envs.base import Array, Part, Physics, World, start
from sailctl_envs.dmc.base import SuiteTask, random_joints

if TYPE_CHECKING:
    import mujoco

SPIN_SPEED = 15.0  # minimum backward angular velocity that is rewarded (rad/s)
HINGE_DAMPING = 0.03  # of the body's hinge (N m s/rad); replaces that of the model file
TIP = 0.13  # distance from the hinge to the tip of the body (m)


class FingerSpin(SuiteTask):
    """Keep the body spinning. Observation: joints, tip of the body, velocities, two touch sensors."""

    id: ClassVar[str] = "finger_spin"
    frame_skip: ClassVar[int] = 2
    timestep: ClassVar[float] = 0.01
    camera: ClassVar[dict[str, float]] = {"distance": 1.4, "elevation": -12.0, "height": 0.4}
    observation: ClassVar[tuple[Part, ...]] = (
        Part("angles: proximal, distal", 2, "rad"),
        Part("tip of the body from its hinge, along x and z", 2, "m"),
        Part("angular velocities: proximal, distal, body", 3, "rad/s"),
        Part("log(1 + force) at the top and bottom of the fingertip", 2, "log N"),
    )
    reward_in_words: ClassVar[str] = "1 while the body spins backwards at 15 rad/s or faster, else 0"
    sensors: ClassVar[tuple[str, ...]] = ("touchtop", "touchbottom")

    def edit(self, spec: mujoco.MjSpec) -> None:
        spec.joint("hinge").damping[0] = HINGE_DAMPING

    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        qpos = random_joints(world, n, rng)
        touching = np.arange(n)
        while len(touching := touching[world.contacts(qpos[touching]) > 0]):
            qpos[touching] = random_joints(world, len(touching), rng)
        return start(world, qpos, np.zeros_like(qpos))

    def observe(self, now: Physics) -> Array:
        hinge = now.qpos[:, 2:]
        touch = np.log1p(np.concatenate([now.read["touchtop"], now.read["touchbottom"]], axis=1))
        tip = np.concatenate([-TIP * np.sin(hinge), TIP * np.cos(hinge)], axis=1)
        return np.concatenate([now.qpos[:, :2], tip, now.qvel, touch], axis=1)

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        return (now.qvel[:, 2] <= -SPIN_SPEED).astype(np.float64)
