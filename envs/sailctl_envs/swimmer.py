"""Swimmer-v5: a planar three-link swimmer in a viscous fluid."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sailctl_envs.base import Array, GymnasiumTask, Part, Physics, World, uniformly_around

FORWARD_WEIGHT = 1.0  # reward per (m/s) of forward speed
CONTROL_COST = 1e-4  # reward lost per squared unit of control
RESET_NOISE = 0.1  # half width of the uniform noise on positions (m, rad) and velocities


class Swimmer(GymnasiumTask):
    """Swim forward. Observation: 3 joint positions (x, y left out), then 5 velocities."""

    id: ClassVar[str] = "swimmer-v5"
    gymnasium_id: ClassVar[str] = "Swimmer-v5"
    xml: ClassVar[str] = "swimmer.xml"
    frame_skip: ClassVar[int] = 4
    horizon: ClassVar[int] = 1000
    timestep: ClassVar[float] = 0.01
    camera: ClassVar[dict[str, float]] = {"distance": 6.0, "elevation": -60.0, "height": 0.0}
    observation: ClassVar[tuple[Part, ...]] = (
        Part("angles: front link, first and second rotor", 3, "rad"),
        Part("velocity of the front link along x and y", 2, "m/s"),
        Part("angular velocities, in the order of the angles", 3, "rad/s"),
    )
    reward_in_words: ClassVar[str] = "forward speed (m/s) - 0.0001 |control|^2"

    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        return uniformly_around(world, n, RESET_NOISE, rng)

    def observe(self, now: Physics) -> Array:
        return np.concatenate([now.qpos[:, 2:], now.qvel], axis=1)

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        speed = (now.qpos[:, 0] - before.qpos[:, 0]) / self.dt
        reward: Array = FORWARD_WEIGHT * speed - CONTROL_COST * np.square(action).sum(axis=1)
        return reward
