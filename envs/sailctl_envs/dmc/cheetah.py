"""cheetah_run: a planar two-legged runner."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np

from sailctl_envs.base import Array, Part, Physics, World, start
from sailctl_envs.dmc.base import SuiteTask, random_joints, tolerance

RUN_SPEED = 10.0  # minimum forward speed (m/s) with full reward
SETTLING = 200  # physics sub-steps without control before an episode


class CheetahRun(SuiteTask):
    """Run forward. Observation: 8 joint positions (x left out), then 9 velocities."""

    id: ClassVar[str] = "cheetah_run"
    frame_skip: ClassVar[int] = 1
    timestep: ClassVar[float] = 0.01
    camera: ClassVar[dict[str, float]] = {"distance": 4.0, "elevation": -12.0, "height": 0.6}
    observation: ClassVar[tuple[Part, ...]] = (
        Part("height of the torso above its start", 1, "m"),
        Part("angles: torso, back thigh, shin and foot, front thigh, shin and foot", 7, "rad"),
        Part("velocity of the torso along x and z", 2, "m/s"),
        Part("angular velocities, in the order of the angles", 7, "rad/s"),
    )
    reward_in_words: ClassVar[str] = "forward speed of the centre of mass (m/s) / 10, within 0 and 1"

    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        qpos = random_joints(world, n, rng, turn=0.0)
        # After it sets the joints, the original makes the first step with the forces of the previous pose.
        push = world.settle(world.init, 1).qvel.repeat(n, axis=0)
        return world.settle(start(world, qpos + self.timestep * push, push), SETTLING - 1)

    def observe(self, now: Physics) -> Array:
        return np.concatenate([now.qpos[:, 1:], now.qvel], axis=1)

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        # A sensor of this velocity would cost another sub-step, a third of this task's time.
        along, up = self.levers
        angle, turning = from_the_world(now.qpos), from_the_world(now.qvel)
        swing = turning * (up * np.cos(angle) - along * np.sin(angle))
        speed = now.qvel[:, 0] + swing.sum(axis=1)
        return tolerance(speed, low=RUN_SPEED, margin=RUN_SPEED, value_at_margin=0.0, shape="linear")

    @cached_property
    def levers(self) -> tuple[Array, Array]:
        """(7,), (7,) share of each body with its descendants in the centre of mass, along x and z (m)."""
        model = self.make_model()
        moments = model.body_mass[:, None] * model.body_ipos
        for body in range(model.nbody - 1, 1, -1):
            moments[model.body_parentid[body]] += model.body_subtreemass[body] * model.body_pos[body]
        along, _, up = moments[1:].T / model.body_subtreemass[0]
        return along, up


def from_the_world(joints: Array) -> Array:
    """(N, 7) angles (or angular velocities) of the bodies in the world frame, from (N, 9) of the joints."""
    torso, back, front = joints[:, 2:3], joints[:, 3:6], joints[:, 6:9]
    return np.concatenate([torso, torso + np.cumsum(back, axis=1), torso + np.cumsum(front, axis=1)], axis=1)
