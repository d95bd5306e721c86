"""HalfCheetah-v5: a planar two-legged runner without termination."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sailctl_envs.base import Array, GymnasiumTask, Part, Physics, World, uniformly_around

FORWARD_WEIGHT = 1.0  # reward per (m/s) of forward speed
CONTROL_COST = 0.1  # reward lost per squared unit of control
RESET_NOISE = 0.1  # half width of the uniform noise on positions (m, rad); std of the velocities


class HalfCheetah(GymnasiumTask):
    """Run forward. Observation: 8 joint positions (x left out), then 9 velocities."""

    id: ClassVar[str] = "halfcheetah-v5"
    gymnasium_id: ClassVar[str] = "HalfCheetah-v5"
    xml: ClassVar[str] = "half_cheetah.xml"
    frame_skip: ClassVar[int] = 5
    horizon: ClassVar[int] = 1000
    timestep: ClassVar[float] = 0.01
    camera: ClassVar[dict[str, float]] = {"distance": 4.0, "elevation": -12.0, "height": 0.5}
    observation: ClassVar[tuple[Part, ...]] = (
        Part("height of the torso", 1, "m"),
        Part("angles: torso, back thigh, shin and foot, front thigh, shin and foot", 7, "rad"),
        Part("velocity of the torso along x and z", 2, "m/s"),
        Part("angular velocities, in the order of the angles", 7, "rad/s"),
    )
    reward_in_words: ClassVar[str] = "forward speed (m/s) - 0.1 |control|^2"

    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        return uniformly_around(world, n, RESET_NOISE, rng, normal_velocities=True)

    def observe(self, now: Physics) -> Array:
        return np.concatenate([now.qpos[:, 1:], now.qvel], axis=1)

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        speed = (now.qpos[:, 0] - before.qpos[:, 0]) / self.dt
        reward: Array = FORWARD_WEIGHT * speed - CONTROL_COST * np.square(action).sum(axis=1)
        return reward
