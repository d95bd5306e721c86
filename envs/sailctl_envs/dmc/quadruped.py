"""quadruped_walk, quadruped_run: a four-legged walker that starts in any orientation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sailctl_envs.base import Array, Part, Physics, World, start
from sailctl_envs.dmc.base import SuiteTask, tolerance

if TYPE_CHECKING:
    import mujoco

SECONDS = 20.0  # the floor extends as far as the target speed leads in this time
LIFT = 0.01  # height step in the search for an initial state without contact (m)
NOT_HERE = ("wall_px", "wall_py", "wall_nx", "wall_ny", "terrain")  # geoms of other tasks
LEGS = ("front_left", "front_right", "back_right", "back_left")


class QuadrupedWalk(SuiteTask):
    """Walk forward from any orientation. Observation: legs, velocity, uprightness, acceleration, toes."""

    id: ClassVar[str] = "quadruped_walk"
    speed: ClassVar[float] = 0.5
    """Minimum forward speed (m/s) with full reward."""
    frame_skip: ClassVar[int] = 4
    timestep: ClassVar[float] = 0.005
    camera: ClassVar[dict[str, float]] = {"distance": 4.5, "elevation": -25.0, "height": 0.4}
    observation: ClassVar[tuple[Part, ...]] = (
        Part("angles of front left, front right, back right, back left: yaw, pitch, knee, ankle", 16, "rad"),
        Part("angular velocities, in the order of the angles", 16, "rad/s"),
        Part("activations of the actuators of each leg: yaw, lift, extend", 12, "1"),
        Part("velocity of the torso, in its own frame", 3, "m/s"),
        Part("cosine of the torso's lean", 1, "1"),
        Part("acceleration of the torso, gravity included, in its own frame", 3, "m/s^2"),
        Part("angular velocity of the torso, in its own frame", 3, "rad/s"),
        Part("arcsinh of the force on each toe", 12, "arcsinh N"),
        Part("arcsinh of the torque on each toe", 12, "arcsinh N m"),
    )
    reward_in_words: ClassVar[str] = "(1 + cosine of the torso's lean) / 2 [0.5 m/s forward or faster]"
    sensors: ClassVar[tuple[str, ...]] = (
        "velocimeter",
        "torso_up",
        "imu_accel",
        "imu_gyro",
        *(f"force_toe_{leg}" for leg in LEGS),
        *(f"torque_toe_{leg}" for leg in LEGS),
    )

    def edit(self, spec: mujoco.MjSpec) -> None:
        import mujoco

        spec.geom("floor").size[:2] = SECONDS * self.speed
        ranges = [s for s in spec.sensors if s.type == mujoco.mjtSensor.mjSENS_RANGEFINDER]
        for element in (*map(spec.geom, NOT_HERE), spec.body("ball"), spec.site("target"), *ranges):
            spec.delete(element)
        axis, body = mujoco.mjtSensor.mjSENS_FRAMEZAXIS, mujoco.mjtObj.mjOBJ_XBODY
        spec.add_sensor(name="torso_up", type=axis, objtype=body, objname="torso")

    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        qpos = np.tile(world.model.qpos0, (n, 1))
        qpos[:, :3] = 0.0
        quaternion = rng.standard_normal((n, 4))
        qpos[:, 3:7] = quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True)
        touching = np.arange(n)
        while len(touching := touching[world.contacts(qpos[touching]) > 0]):
            qpos[touching, 2] += LIFT
        return start(world, qpos, np.zeros((n, world.model.nv)))

    def observe(self, now: Physics) -> Array:
        read = now.read
        toes = [np.arcsinh(read[name]) for name in self.sensors[4:]]
        body = [read["velocimeter"], read["torso_up"][:, 2:], read["imu_accel"], read["imu_gyro"]]
        return np.concatenate([now.qpos[:, 7:], now.qvel[:, 6:], now.act, *body, *toes], axis=1)

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        forward, up = now.read["velocimeter"][:, 0], now.read["torso_up"][:, 2]
        moving = tolerance(forward, self.speed, margin=self.speed, value_at_margin=0.5, shape="linear")
        return tolerance(up, low=1.0, margin=2.0, value_at_margin=0.0, shape="linear") * moving


class QuadrupedRun(QuadrupedWalk):
    """Run forward from any orientation. Observation as ``QuadrupedWalk``."""

    id: ClassVar[str] = "quadruped_run"
    speed: ClassVar[float] = 5.0
    reward_in_words: ClassVar[str] = "(1 + cosine of the torso's lean) / 2 [5 m/s forward or faster]"
