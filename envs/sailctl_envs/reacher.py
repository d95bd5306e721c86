"""Reacher-v5: a two-link arm that brings its fingertip to a target."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sailctl_envs.base import Array, GymnasiumTask, Part, Physics, World, start

DISTANCE_WEIGHT = 1.0  # reward lost per metre between fingertip and target
CONTROL_COST = 1.0  # reward lost per squared unit of control
ARM_NOISE = 0.1  # half width of the uniform noise on the joint angles (rad)
VELOCITY_NOISE = 0.005  # half width of the uniform noise on the joint velocities (rad/s)
FINGERTIP, TARGET = 3, 4  # bodies of the model
TARGET_RADIUS = 0.2  # targets are uniform in the disc of this radius (m)


class Reacher(GymnasiumTask):
    """Reach the target.

    Observation: cos and sin of both joints, target, joint velocities, vector from target to fingertip.
    """

    id: ClassVar[str] = "reacher-v5"
    gymnasium_id: ClassVar[str] = "Reacher-v5"
    xml: ClassVar[str] = "reacher.xml"
    frame_skip: ClassVar[int] = 2
    horizon: ClassVar[int] = 50
    timestep: ClassVar[float] = 0.01
    camera: ClassVar[dict[str, float]] = {"distance": 0.8, "elevation": -75.0, "height": 0.0}
    observation: ClassVar[tuple[Part, ...]] = (
        Part("cosine of both joint angles", 2, "1"),
        Part("sine of both joint angles", 2, "1"),
        Part("target, x and y", 2, "m"),
        Part("angular velocities of both joints", 2, "rad/s"),
        Part("vector from target to fingertip, x and y", 2, "m"),
    )
    reward_in_words: ClassVar[str] = "- distance from fingertip to target (m) - |control|^2"
    fields: ClassVar[tuple[str, ...]] = ("xpos",)

    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        init = world.init
        qpos = init.qpos + rng.uniform(-ARM_NOISE, ARM_NOISE, (n, init.qpos.shape[1]))
        qpos[:, 2:] = targets(n, rng)
        qvel = init.qvel + rng.uniform(-VELOCITY_NOISE, VELOCITY_NOISE, (n, init.qvel.shape[1]))
        qvel[:, 2:] = 0.0
        return start(world, qpos, qvel)

    def observe(self, now: Physics) -> Array:
        angles = now.qpos[:, :2]
        return np.concatenate(
            [np.cos(angles), np.sin(angles), now.qpos[:, 2:], now.qvel[:, :2], fingertip_to_target(now)],
            axis=1,
        )

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        distance = np.linalg.norm(fingertip_to_target(now), axis=1)
        reward: Array = -DISTANCE_WEIGHT * distance - CONTROL_COST * np.square(action).sum(axis=1)
        return reward


def targets(n: int, rng: np.random.Generator) -> Array:
    """(n, 2) points uniform in the disc of ``TARGET_RADIUS``, by rejection sampling as in the original."""
    accepted = np.empty((0, 2))
    while len(accepted) < n:
        draw = rng.uniform(-TARGET_RADIUS, TARGET_RADIUS, (n, 2))
        accepted = np.concatenate([accepted, draw[np.linalg.norm(draw, axis=1) < TARGET_RADIUS]])
    return accepted[:n]


def fingertip_to_target(now: Physics) -> Array:
    """(N, 2) vector from the target to the fingertip (m)."""
    bodies = now.read["xpos"]
    vector: Array = bodies[:, FINGERTIP, :2] - bodies[:, TARGET, :2]
    return vector
