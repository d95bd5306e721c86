"""Hopper-v5: a planar one-legged hopper that falls."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sailctl_envs.base import Array, Bools, GymnasiumTask, Part, Physics, World, uniformly_around

FORWARD_WEIGHT = 1.0  # reward per (m/s) of forward speed
HEALTHY_REWARD = 1.0  # reward per control step in a healthy state
CONTROL_COST = 1e-3  # reward lost per squared unit of control
RESET_NOISE = 5e-3  # half width of the uniform noise on positions (m, rad) and velocities
VELOCITY_CLIP = 10.0  # bound of observed velocities (m/s, rad/s)
HEALTHY_STATE = 100.0  # bound of the velocities, and of the positions except x and z
HEALTHY_HEIGHT = 0.7  # minimum height of the torso (m)
HEALTHY_ANGLE = 0.2  # bound of the torso angle (rad)


class Hopper(GymnasiumTask):
    """Hop forward without falling. Observation: 5 joint positions (x left out), then 6 velocities."""

    id: ClassVar[str] = "hopper-v5"
    gymnasium_id: ClassVar[str] = "Hopper-v5"
    xml: ClassVar[str] = "hopper.xml"
    frame_skip: ClassVar[int] = 4
    horizon: ClassVar[int] = 1000
    timestep: ClassVar[float] = 0.002
    camera: ClassVar[dict[str, float]] = {"distance": 3.0, "elevation": -12.0, "height": 1.0}
    observation: ClassVar[tuple[Part, ...]] = (
        Part("height of the torso", 1, "m"),
        Part("angles: torso, thigh, leg, foot", 4, "rad"),
        Part("velocity of the torso along x and z, within +-10", 2, "m/s"),
        Part("angular velocities, in the order of the angles, within +-10", 4, "rad/s"),
    )
    reward_in_words: ClassVar[str] = "forward speed (m/s) + 1 while healthy - 0.001 |control|^2"
    end_in_words: ClassVar[str] = (
        "when the torso is below 0.7 m or leans by 0.2 rad, or a state is beyond 100"
    )

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
        rest = np.concatenate([now.qpos[:, 2:], now.qvel], axis=1)
        healthy: Bools = (
            (np.abs(rest) < HEALTHY_STATE).all(axis=1)
            & (now.qpos[:, 1] > HEALTHY_HEIGHT)
            & (np.abs(now.qpos[:, 2]) < HEALTHY_ANGLE)
        )
        return ~healthy
