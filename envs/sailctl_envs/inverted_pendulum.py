"""InvertedPendulum-v5: a pole balanced on a cart."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sailctl_envs.base import Array, Bools, Physics, Task, uniformly_around

RESET_NOISE = 0.01  # half width of the uniform noise on positions (m, rad) and velocities
UPRIGHT_ANGLE = 0.2  # the episode ends when the pole leans further than this (rad)


class InvertedPendulum(Task):
    """Keep the pole upright: 1 per step. Observation: cart position, pole angle, their velocities."""

    id: ClassVar[str] = "invertedpendulum-v5"
    gymnasium_id: ClassVar[str] = "InvertedPendulum-v5"
    xml: ClassVar[str] = "inverted_pendulum.xml"
    frame_skip: ClassVar[int] = 2
    horizon: ClassVar[int] = 1000
    timestep: ClassVar[float] = 0.02
    camera: ClassVar[dict[str, float]] = {"distance": 2.5, "elevation": -12.0, "height": 0.2}

    def reset(self, n: int, init: Physics, rng: np.random.Generator) -> Physics:
        return uniformly_around(init, n, RESET_NOISE, rng)

    def observe(self, now: Physics, seen: Array) -> Array:
        return np.concatenate([now.qpos, now.qvel], axis=1)

    def reward(self, before: Physics, now: Physics, seen: Array, action: Array) -> Array:
        return (~self.terminated(now)).astype(np.float64)

    def terminated(self, now: Physics) -> Bools:
        finite = np.isfinite(now.qpos).all(axis=1) & np.isfinite(now.qvel).all(axis=1)
        fallen: Bools = ~finite | (np.abs(now.qpos[:, 1]) > UPRIGHT_ANGLE)
        return fallen
