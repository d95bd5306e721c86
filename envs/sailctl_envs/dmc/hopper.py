"""hopper_stand, hopper_hop: a planar one-legged hopper with touch sensors in toe and heel."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sailctl_envs.base import Array, Part, Physics, World, start
from sailctl_envs.dmc.base import SuiteTask, random_joints, tolerance

if TYPE_CHECKING:
    import mujoco

STAND_HEIGHT = (0.6, 2.0)  # height of the torso above the foot (m) that counts as standing
HOP_SPEED = 2.0  # minimum forward speed (m/s) with full reward


class HopperStand(SuiteTask):
    """Stand still. Observation: 6 joint positions (x left out), 7 velocities, two touch sensors."""

    id: ClassVar[str] = "hopper_stand"
    frame_skip: ClassVar[int] = 4
    timestep: ClassVar[float] = 0.005
    camera: ClassVar[dict[str, float]] = {"distance": 3.5, "elevation": -12.0, "height": 0.6}
    observation: ClassVar[tuple[Part, ...]] = (
        Part("height of the torso above its start", 1, "m"),
        Part("angles: torso, waist, hip, knee, ankle", 5, "rad"),
        Part("velocity of the torso along x and z", 2, "m/s"),
        Part("angular velocities, in the order of the angles", 5, "rad/s"),
        Part("log(1 + force) of toe and heel", 2, "log N"),
    )
    reward_in_words: ClassVar[str] = (
        "[torso 0.6 to 2 m above the foot] (4 + mean of (1 - control^2), each at least 0) / 5"
    )
    sensors: ClassVar[tuple[str, ...]] = ("touch_toe", "touch_heel", "torso_place", "foot_place")

    def edit(self, spec: mujoco.MjSpec) -> None:
        import mujoco

        frame, body = mujoco.mjtSensor.mjSENS_FRAMEPOS, mujoco.mjtObj.mjOBJ_BODY
        for name in ("torso", "foot"):
            spec.add_sensor(name=f"{name}_place", type=frame, objtype=body, objname=name)

    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        qpos = random_joints(world, n, rng)
        return start(world, qpos, np.zeros_like(qpos))

    def observe(self, now: Physics) -> Array:
        touch = np.log1p(np.concatenate([now.read["touch_toe"], now.read["touch_heel"]], axis=1))
        return np.concatenate([now.qpos[:, 1:], now.qvel, touch], axis=1)

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        small = tolerance(action, 0.0, 0.0, margin=1.0, value_at_margin=0.0, shape="quadratic").mean(axis=1)
        reward: Array = standing(now) * ((small + 4.0) / 5.0)
        return reward


class HopperHop(HopperStand):
    """Hop forward. Observation as ``HopperStand``."""

    id: ClassVar[str] = "hopper_hop"
    reward_in_words: ClassVar[str] = "[torso 0.6 to 2 m above the foot] [2 m/s or faster]"
    sensors: ClassVar[tuple[str, ...]] = (*HopperStand.sensors, "torso_subtreelinvel")

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        speed = now.read["torso_subtreelinvel"][:, 0]
        hopping = tolerance(speed, HOP_SPEED, margin=HOP_SPEED / 2, value_at_margin=0.5, shape="linear")
        return standing(now) * hopping


def standing(now: Physics) -> Array:
    """(N,) 1 if the torso is high enough above the foot, else 0."""
    return tolerance(now.read["torso_place"][:, 2] - now.read["foot_place"][:, 2], *STAND_HEIGHT)
