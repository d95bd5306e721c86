"""InvertedPendulum-v5: a pole balanced on a cart."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sailctl_envs.base import Array, Bools, GymnasiumTask, Part, Physics, World, uniformly_around

RESET_NOISE = 0.01  # half width of the uniform noise on positions (m, rad) and velocities
UPRIGHT_ANGLE = 0.2  # the episode ends beyond this lean of the pole (rad)


class InvertedPendulum(GymnasiumTask):
    """Keep the pole upright: 1 per step. Observation: cart position, pole angle, their velocities."""

    id: ClassVar[str] = "invertedpendulum-v5"
    gymnasium_id: ClassVar[str] = "InvertedPendulum-v5"
    xml: ClassVar[str] = "inverted_pendulum.xml"
    frame_skip: ClassVar[int] = 2
    horizon: ClassVar[int] = 1000
    timestep: ClassVar[float] = 0.02
    camera: ClassVar[dict[str, float]] = {"distance": 2.5, "elevation": -12.0, "height": 0.2}
    observation: ClassVar[tuple[Part, ...]] = (
        Part("position of the cart", 1, "m"),
        Part("angle of the pole", 1, "rad"),
        Part("velocity of the cart", 1, "m/s"),
        Part("angular velocity of the pole", 1, "rad/s"),
    )
    reward_in_words: ClassVar[str] = "1 while the pole is up"
    end_in_words: ClassVar[str] = "when the pole leans by more than 0.2 rad"

    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        return uniformly_around(world, n, RESET_NOISE, rng)

    def observe(self, now: Physics) -> Array:
        return np.concatenate([now.qpos, now.qvel], axis=1)

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        return (~self.terminated(now)).astype(np.float64)

    def terminated(self, now: Physics) -> Bools:
        finite = np.isfinite(now.qpos).all(axis=1) & np.isfinite(now.qvel).all(axis=1)
        fallen: Bools = ~finite | (np.abs(now.qpos[:, 1]) > UPRIGHT_ANGLE)
        return fallen
