"""Ant-v5: a four-legged walker in three dimensions that observes contact forces."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sailctl_envs.base import (
    Array,
    Bools,
    GymnasiumTask,
    Part,
    Physics,
    World,
    flat,
    uniformly_around,
)

FORWARD_WEIGHT = 1.0  # reward per (m/s) of forward speed
HEALTHY_REWARD = 1.0  # reward per control step in a healthy state
CONTROL_COST = 0.5  # reward lost per squared unit of control
CONTACT_COST = 5e-4  # reward lost per squared unit of contact force
CONTACT_CLIP = 1.0  # bound of contact forces and torques (N, N m)
RESET_NOISE = 0.1  # half width of the uniform noise on positions (m, rad); std of the velocities
HEALTHY_HEIGHT = (0.2, 1.0)  # range of the torso (m)
TORSO = 1  # body of the model


class Ant(GymnasiumTask):
    """Walk forward without falling.

    Observation: 13 joint positions (x, y left out), 14 velocities, then the contact forces on 13 bodies.
    """

    id: ClassVar[str] = "ant-v5"
    gymnasium_id: ClassVar[str] = "Ant-v5"
    xml: ClassVar[str] = "ant.xml"
    frame_skip: ClassVar[int] = 5
    horizon: ClassVar[int] = 1000
    timestep: ClassVar[float] = 0.01
    camera: ClassVar[dict[str, float]] = {"distance": 3.5, "elevation": -25.0, "height": 0.4}
    observation: ClassVar[tuple[Part, ...]] = (
        Part("height of the torso", 1, "m"),
        Part("orientation of the torso, a quaternion", 4, "1"),
        Part("angles: hip and ankle of the front left, front right, back left, back right leg", 8, "rad"),
        Part("velocity of the torso", 3, "m/s"),
        Part("angular velocity of the torso", 3, "rad/s"),
        Part("angular velocities, in the order of the angles", 8, "rad/s"),
        Part("contact torque and force on each body, within +-1", 78, "N m, N"),
    )
    reward_in_words: ClassVar[str] = (
        "forward speed (m/s) + 1 while healthy - 0.5 |control|^2 - 0.0005 |contact forces, within +-1|^2"
    )
    end_in_words: ClassVar[str] = "when the torso leaves 0.2 to 1 m"
    fields: ClassVar[tuple[str, ...]] = ("xpos", "cfrc_ext")

    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        return uniformly_around(world, n, RESET_NOISE, rng, normal_velocities=True)

    def remember(self, now: Physics, world: World) -> Array:
        """x of the torso in ``MjData`` (m), from which the next step's speed is computed."""
        return now.read["xpos"][:, TORSO, :1]

    def observe(self, now: Physics) -> Array:
        return np.concatenate([now.qpos[:, 2:], now.qvel, flat(contact_forces(now)[:, 1:])], axis=1)

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        speed = (now.memory[:, 0] - before.memory[:, 0]) / self.dt
        healthy = HEALTHY_REWARD * ~self.terminated(now)
        control = CONTROL_COST * np.square(action).sum(axis=1)
        contact = CONTACT_COST * np.square(contact_forces(now)).sum(axis=(1, 2))
        reward: Array = FORWARD_WEIGHT * speed + healthy - (control + contact)
        return reward

    def terminated(self, now: Physics) -> Bools:
        finite = np.isfinite(now.qpos).all(axis=1) & np.isfinite(now.qvel).all(axis=1)
        low, high = HEALTHY_HEIGHT
        healthy: Bools = finite & (low <= now.qpos[:, 2]) & (now.qpos[:, 2] <= high)
        return ~healthy


def contact_forces(now: Physics) -> Array:
    """(N, B, 6) torque and force of contacts on each body, clipped to ``CONTACT_CLIP``."""
    return np.clip(now.read["cfrc_ext"], -CONTACT_CLIP, CONTACT_CLIP)
