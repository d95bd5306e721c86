"""Swimmer-v5: a planar three-link swimmer in a viscous fluid."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sailctl_envs.base import Array, Physics, Task, uniformly_around

FORWARD_WEIGHT = 1.0  # reward per (m/s) of forward speed
CONTROL_COST = 1e-4  # reward lost per squared unit of control
RESET_NOISE = 0.1  # half width of the uniform noise on positions (m, rad) and velocities


class Swimmer(Task):
    """Swim forward. Observation: 3 joint positions (x, y left out), then 5 velocities."""

    id: ClassVar[str] = "swimmer-v5"
    gymnasium_id: ClassVar[str] = "Swimmer-v5"
    xml: ClassVar[str] = "swimmer.xml"
    frame_skip: ClassVar[int] = 4
    horizon: ClassVar[int] = 1000
    timestep: ClassVar[float] = 0.01
    camera: ClassVar[dict[str, float]] = {"distance": 6.0, "elevation": -60.0, "height": 0.0}

    def reset(self, n: int, init: Physics, rng: np.random.Generator) -> Physics:
        return uniformly_around(init, n, RESET_NOISE, rng)

    def observe(self, now: Physics, seen: Array) -> Array:
        return np.concatenate([now.qpos[:, 2:], now.qvel], axis=1)

    def reward(self, before: Physics, now: Physics, seen: Array, action: Array) -> Array:
        speed = (now.qpos[:, 0] - before.qpos[:, 0]) / self.dt
        reward: Array = FORWARD_WEIGHT * speed - CONTROL_COST * np.square(action).sum(axis=1)
        return reward
