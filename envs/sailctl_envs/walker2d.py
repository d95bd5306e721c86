"""Walker2d-v5: a planar two-legged walker that falls."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sailctl_envs.base import Array, Bools, GymnasiumTask, Part, Physics, World, uniformly_around

FORWARD_WEIGHT = 1.0  # reward per (m/s) of forward speed
HEALTHY_REWARD = 1.0  # reward per control step in a healthy state
CONTROL_COST = 1e-3  # reward lost per squared unit of control
RESET_NOISE = 5e-3  # half width of the uniform noise on positions (m, rad) and velocities
VELOCITY_CLIP = 10.0  # bound of observed velocities (m/s, rad/s)
HEALTHY_HEIGHT = (0.8, 2.0)  # open range of the torso (m)
HEALTHY_ANGLE = 1.0  # bound of the torso angle (rad)


class Walker2d(GymnasiumTask):
    """Walk forward without falling. Observation: 8 joint positions (x left out), then 9 velocities."""

    id: ClassVar[str] = "walker2d-v5"
    gymnasium_id: ClassVar[str] = "Walker2d-v5"
    xml: ClassVar[str] = "walker2d_v5.xml"
    frame_skip: ClassVar[int] = 4
    horizon: ClassVar[int] = 1000
    timestep: ClassVar[float] = 0.002
    camera: ClassVar[dict[str, float]] = {"distance": 4.0, "elevation": -12.0, "height": 1.0}
    observation: ClassVar[tuple[Part, ...]] = (
        Part("height of the torso", 1, "m"),
        Part("angles: torso, right thigh, leg and foot, left thigh, leg and foot", 7, "rad"),
        Part("velocity of the torso along x and z, within +-10", 2, "m/s"),
        Part("angular velocities, in the order of the angles, within +-10", 7, "rad/s"),
    )
    reward_in_words: ClassVar[str] = "forward speed (m/s) + 1 while healthy - 0.001 |control|^2"
    end_in_words: ClassVar[str] = "when the torso leaves 0.8 to 2 m or leans by 1 rad or more"

    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        return uniformly_around(world, n, RESET_NOISE, rng)

    def observe(self, now: Physics) -> Array:
        velocity = np.clip(now.qvel, -VELOCITY_CLIP, VELOCITY_CLIP)
        return np.concatenate([now.qpos[:, 1:], velocity], axis=1)

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        speed = (now.qpos[:, 0] - before.qpos[:, 0]) / self.dt
        healthy = HEALTHY_REWARD * ~self.terminated(now)
        reward: Array = FORWARD_WEIGHT * speed + healthy - CONTROL_COST * np.square(action).sum(axis=1)
        return reward

    def terminated(self, now: Physics) -> Bools:
        height, angle = now.qpos[:, 1], now.qpos[:, 2]
        low, high = HEALTHY_HEIGHT
        healthy: Bools = (low < height) & (height < high) & (np.abs(angle) < HEALTHY_ANGLE)
        return ~healthy
