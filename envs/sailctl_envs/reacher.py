"""Reacher-v5: a two-link arm that brings its fingertip to a target."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sailctl_envs.base import Array, Physics, Task

DISTANCE_WEIGHT = 1.0  # reward lost per metre between fingertip and target
CONTROL_COST = 1.0  # reward lost per squared unit of control
LINK_1 = 0.1  # shoulder to elbow (m)
LINK_2 = 0.11  # elbow to fingertip (m)
ARM_NOISE = 0.1  # half width of the uniform noise on the joint angles (rad)
VELOCITY_NOISE = 0.005  # half width of the uniform noise on the joint velocities (rad/s)
TARGET_RADIUS = 0.2  # targets are uniform in the disc of this radius (m)


class Reacher(Task):
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
    fk_lag: ClassVar[bool] = True

    def reset(self, n: int, init: Physics, rng: np.random.Generator) -> Physics:
        qpos = init.qpos + rng.uniform(-ARM_NOISE, ARM_NOISE, (n, init.qpos.shape[1]))
        qpos[:, 2:] = targets(n, rng)
        qvel = init.qvel + rng.uniform(-VELOCITY_NOISE, VELOCITY_NOISE, (n, init.qvel.shape[1]))
        qvel[:, 2:] = 0.0
        return Physics(qpos, qvel)

    def observe(self, now: Physics, seen: Array) -> Array:
        angles = now.qpos[:, :2]
        return np.concatenate(
            [np.cos(angles), np.sin(angles), now.qpos[:, 2:], now.qvel[:, :2], fingertip_to_target(seen)],
            axis=1,
        )

    def reward(self, before: Physics, now: Physics, seen: Array, action: Array) -> Array:
        distance = np.linalg.norm(fingertip_to_target(seen), axis=1)
        reward: Array = -DISTANCE_WEIGHT * distance - CONTROL_COST * np.square(action).sum(axis=1)
        return reward


def targets(n: int, rng: np.random.Generator) -> Array:
    """(n, 2) points uniform in the disc of ``TARGET_RADIUS``, by rejection as the original draws them."""
    accepted = np.empty((0, 2))
    while len(accepted) < n:
        draw = rng.uniform(-TARGET_RADIUS, TARGET_RADIUS, (n, 2))
        accepted = np.concatenate([accepted, draw[np.linalg.norm(draw, axis=1) < TARGET_RADIUS]])
    return accepted[:n]


def fingertip_to_target(qpos: Array) -> Array:
    """(N, 2) vector from the target to the fingertip (m), by the arm's plane geometry."""
    shoulder = qpos[:, 0]
    elbow = shoulder + qpos[:, 1]
    x = LINK_1 * np.cos(shoulder) + LINK_2 * np.cos(elbow)
    y = LINK_1 * np.sin(shoulder) + LINK_2 * np.sin(elbow)
    return np.stack([x, y], axis=1) - qpos[:, 2:]
