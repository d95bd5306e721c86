"""walker_stand, walker_walk, walker_run: a planar two-legged walker that may fall and get up."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sailctl_envs.base import Array, Part, Physics, World, start
from sailctl_envs.dmc.base import SuiteTask, random_joints, tolerance

STAND_HEIGHT = 1.2  # minimum height of the torso (m) that counts as standing
TORSO_HEIGHT = 1.3  # height of the torso at joint position 0 (m)

STANDING = "(3 [torso at 1.2 m or higher] + (1 + cosine of the torso's lean) / 2) / 4"


class WalkerStand(SuiteTask):
    """Stand. Observation: orientations of 7 bodies, height, then 9 velocities."""

    id: ClassVar[str] = "walker_stand"
    frame_skip: ClassVar[int] = 10
    timestep: ClassVar[float] = 0.0025
    camera: ClassVar[dict[str, float]] = {"distance": 4.0, "elevation": -12.0, "height": 0.8}
    observation: ClassVar[tuple[Part, ...]] = (
        Part("cosine and sine of the lean: torso, right thigh, leg, foot, left thigh, leg, foot", 14, "1"),
        Part("height of the torso", 1, "m"),
        Part("velocity of the torso along z and x", 2, "m/s"),
        Part("angular velocities: torso, right hip, knee, ankle, left hip, knee, ankle", 7, "rad/s"),
    )
    reward_in_words: ClassVar[str] = STANDING

    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        qpos = random_joints(world, n, rng)
        return start(world, qpos, np.zeros_like(qpos))

    def observe(self, now: Physics) -> Array:
        lean = leans(now)
        orientations = np.stack([np.cos(lean), np.sin(lean)], axis=2).reshape(-1, 14)
        return np.concatenate([orientations, height(now)[:, None], now.qvel], axis=1)

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        standing = tolerance(height(now), low=STAND_HEIGHT, margin=STAND_HEIGHT / 2)
        upright = (1.0 + np.cos(now.qpos[:, 2])) / 2.0
        reward: Array = (3.0 * standing + upright) / 4.0
        return reward


class WalkerWalk(WalkerStand):
    """Walk forward. Observation as ``WalkerStand``."""

    id: ClassVar[str] = "walker_walk"
    speed: ClassVar[float] = 1.0
    """Minimum forward speed (m/s) with full reward."""
    reward_in_words: ClassVar[str] = f"walker_stand's, times (5 [1 m/s or faster] + 1) / 6; {STANDING}"
    sensors: ClassVar[tuple[str, ...]] = ("torso_subtreelinvel",)

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        velocity = now.read["torso_subtreelinvel"][:, 0]
        moving = tolerance(velocity, self.speed, margin=self.speed / 2, value_at_margin=0.5, shape="linear")
        return super().reward(before, now, action) * (5.0 * moving + 1.0) / 6.0


class WalkerRun(WalkerWalk):
    """Run forward. Observation as ``WalkerStand``."""

    id: ClassVar[str] = "walker_run"
    speed: ClassVar[float] = 8.0
    reward_in_words: ClassVar[str] = f"walker_stand's, times (5 [8 m/s or faster] + 1) / 6; {STANDING}"


def height(now: Physics) -> Array:
    """(N,) height of the torso (m)."""
    return TORSO_HEIGHT + now.qpos[:, 0]


def leans(now: Physics) -> Array:
    """(N, 7) angles of the bodies in the world frame (rad); leg joints rotate opposite to the torso's."""
    torso, right, left = now.qpos[:, 2:3], now.qpos[:, 3:6], now.qpos[:, 6:9]
    return np.concatenate([torso, torso - np.cumsum(right, axis=1), torso - np.cumsum(left, axis=1)], axis=1)
