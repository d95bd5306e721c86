"""cartpole_swingup: a cart that swings its pole up and keeps it there."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sailctl_envs.base import Array, Part, Physics, World, start
from sailctl_envs.dmc.base import SuiteTask, tolerance

RESET_NOISE = 0.01  # standard deviation of the noise on positions (m, rad) and velocities
CENTRE_MARGIN = 2.0  # distance from the middle (m) at which centredness is 0.1
SPIN_MARGIN = 5.0  # angular velocity (rad/s) at which stillness is 0.1


class CartpoleSwingup(SuiteTask):
    """Swing the pole up. Observation: cart, cosine and sine of the pole's angle, velocities."""

    id: ClassVar[str] = "cartpole_swingup"
    frame_skip: ClassVar[int] = 1
    timestep: ClassVar[float] = 0.01
    camera: ClassVar[dict[str, float]] = {"distance": 4.5, "elevation": -5.0, "height": 1.0}
    observation: ClassVar[tuple[Part, ...]] = (
        Part("position of the cart", 1, "m"),
        Part("cosine and sine of the pole's angle, which is 0 upright", 2, "1"),
        Part("velocity of the cart", 1, "m/s"),
        Part("angular velocity of the pole", 1, "rad/s"),
    )
    reward_in_words: ClassVar[str] = (
        "(1 + cosine of the pole's angle) / 2 (1 + [near the middle]) / 2 "
        "(4 + max(0, 1 - control^2)) / 5 (1 + [little spin]) / 2"
    )

    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        qpos = np.array([0.0, np.pi]) + RESET_NOISE * rng.standard_normal((n, 2))
        return start(world, qpos, RESET_NOISE * rng.standard_normal((n, 2)))

    def observe(self, now: Physics) -> Array:
        cart, pole = now.qpos[:, :1], now.qpos[:, 1:]
        return np.concatenate([cart, np.cos(pole), np.sin(pole), now.qvel], axis=1)

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        upright = (1.0 + np.cos(now.qpos[:, 1])) / 2.0
        centred = (1.0 + tolerance(now.qpos[:, 0], 0.0, 0.0, margin=CENTRE_MARGIN)) / 2.0
        still = (1.0 + tolerance(now.qvel[:, 1], 0.0, 0.0, margin=SPIN_MARGIN)) / 2.0
        small = tolerance(action[:, 0], 0.0, 0.0, margin=1.0, value_at_margin=0.0, shape="quadratic")
        reward: Array = upright * ((4.0 + small) / 5.0) * still * centred
        return reward
