"""InvertedDoublePendulum-v5: two poles, one on the other, balanced on a cart."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sailctl_envs.base import Array, Bools, GymnasiumTask, Part, Physics, World, uniformly_around

HEALTHY_REWARD = 10.0  # reward per control step while the poles are up
SIDEWAYS_COST, DROP_COST = 0.01, 1.0  # reward lost per squared distance of the tip from x = 0, z = 2 (m^2)
SPIN_COSTS = (1e-3, 5e-3)  # reward lost per squared angular velocity of the two poles ((rad/s)^2)
TIP_HEIGHT = 2.0  # target height of the tip (m)
LOWEST_TIP = 1.0  # the episode ends when the tip is no higher than this (m)
OBSERVED_WITHIN = 10.0  # bound of observed velocities and force (m/s, rad/s, N)
RESET_NOISE = 0.1  # half width of the uniform noise on positions (m, rad); std of the velocities


class InvertedDoublePendulum(GymnasiumTask):
    """Keep both poles upright. Observation: cart, sines and cosines of the poles, velocities, a force."""

    id: ClassVar[str] = "inverteddoublependulum-v5"
    gymnasium_id: ClassVar[str] = "InvertedDoublePendulum-v5"
    xml: ClassVar[str] = "inverted_double_pendulum.xml"
    frame_skip: ClassVar[int] = 5
    horizon: ClassVar[int] = 1000
    timestep: ClassVar[float] = 0.01
    camera: ClassVar[dict[str, float]] = {"distance": 3.5, "elevation": -12.0, "height": 0.5}
    observation: ClassVar[tuple[Part, ...]] = (
        Part("position of the cart", 1, "m"),
        Part("sines of the angles of both poles", 2, "1"),
        Part("cosines of the angles of both poles", 2, "1"),
        Part("velocity of the cart, within +-10", 1, "m/s"),
        Part("angular velocities of both poles, within +-10", 2, "rad/s"),
        Part("force of the rail's ends on the cart, within +-10", 1, "N"),
    )
    reward_in_words: ClassVar[str] = (
        "10 while the tip is above 1 m - 0.01 x^2 - (z - 2)^2 of the tip (m) "
        "- 0.001 and 0.005 times the squared angular velocities of the poles"
    )
    end_in_words: ClassVar[str] = "when the tip is at 1 m or lower"
    fields: ClassVar[tuple[str, ...]] = ("site_xpos", "qfrc_constraint")

    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        return uniformly_around(world, n, RESET_NOISE, rng, normal_velocities=True)

    def observe(self, now: Physics) -> Array:
        cart, poles = now.qpos[:, :1], now.qpos[:, 1:]
        rest = np.concatenate([now.qvel, now.read["qfrc_constraint"][:, :1]], axis=1)
        clipped = np.clip(rest, -OBSERVED_WITHIN, OBSERVED_WITHIN)
        return np.concatenate([cart, np.sin(poles), np.cos(poles), clipped], axis=1)

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        x, z = tip(now)
        misplaced = SIDEWAYS_COST * x**2 + DROP_COST * (z - TIP_HEIGHT) ** 2
        spin = SPIN_COSTS[0] * now.qvel[:, 1] ** 2 + SPIN_COSTS[1] * now.qvel[:, 2] ** 2
        reward: Array = HEALTHY_REWARD * ~self.terminated(now) - misplaced - spin
        return reward

    def terminated(self, now: Physics) -> Bools:
        fallen: Bools = tip(now)[1] <= LOWEST_TIP
        return fallen


def tip(now: Physics) -> tuple[Array, Array]:
    """(N,), (N,) position of the upper pole's tip along x and z (m)."""
    position = now.read["site_xpos"][:, 0]
    return position[:, 0], position[:, 2]
