"""reacher_easy: a planar two-link arm that brings its finger to a target."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sailctl_envs.base import Array, Part, Physics, World, start
from sailctl_envs.dmc.base import SuiteTask, random_joints, tolerance

LINK = 0.12  # length of both links (m)
TARGET_DISTANCE = (0.05, 0.2)  # targets are uniform in angle and in distance from the shoulder (m)
RADII = 0.05 + 0.01  # sum of the radii of target and finger (m)


class ReacherEasy(SuiteTask):
    """Reach the target. Observation: joint angles, vector from finger to target, joint velocities.

    ``memory`` (N, 2) is the target: x and y (m).
    """

    id: ClassVar[str] = "reacher_easy"
    frame_skip: ClassVar[int] = 1
    timestep: ClassVar[float] = 0.02
    camera: ClassVar[dict[str, float]] = {"distance": 0.9, "elevation": -75.0, "height": 0.0}
    observation: ClassVar[tuple[Part, ...]] = (
        Part("angles: shoulder, wrist", 2, "rad"),
        Part("vector from finger to target, along x and y", 2, "m"),
        Part("angular velocities: shoulder, wrist", 2, "rad/s"),
    )
    reward_in_words: ClassVar[str] = "1 while the finger touches the target, else 0"

    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        qpos = random_joints(world, n, rng)
        angle, distance = rng.uniform(0.0, 2.0 * np.pi, n), rng.uniform(*TARGET_DISTANCE, n)
        target = np.stack([distance * np.sin(angle), distance * np.cos(angle)], axis=1)
        return start(world, qpos, np.zeros_like(qpos), target)

    def observe(self, now: Physics) -> Array:
        return np.concatenate([now.qpos, finger_to_target(now), now.qvel], axis=1)

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        return tolerance(np.linalg.norm(finger_to_target(now), axis=1), 0.0, RADII)


def finger_to_target(now: Physics) -> Array:
    """(N, 2) vector from the finger to the target (m)."""
    angles = np.cumsum(now.qpos, axis=1)
    finger = LINK * np.stack([np.cos(angles).sum(axis=1), np.sin(angles).sum(axis=1)], axis=1)
    vector: Array = now.memory - finger
    return vector
