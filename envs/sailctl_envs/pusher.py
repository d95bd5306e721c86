"""Pusher-v5: a seven-jointed arm that pushes a cylinder to a goal."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sailctl_envs.base import Array, GymnasiumTask, Part, Physics, World, start

NEAR_WEIGHT = 0.5  # reward lost per metre between the arm's tips and the cylinder
DISTANCE_WEIGHT = 1.0  # reward lost per metre between cylinder and goal
CONTROL_COST = 0.1  # reward lost per squared unit of control
VELOCITY_NOISE = 0.005  # half width of the uniform noise on the arm's joint velocities (rad/s)
CYLINDER = (np.array([-0.3, -0.2]), np.array([0.0, 0.2]))  # corners of its initial positions (m)
CLEARANCE = 0.17  # minimum initial distance of the cylinder from the goal (m)
JOINTS = 7  # number of joints of the arm; two slides of the cylinder and two of the goal follow


class Pusher(GymnasiumTask):
    """Push the cylinder to the goal.

    Observation: 7 joint angles, their velocities, positions of the arm's tips, the cylinder and the goal.
    """

    id: ClassVar[str] = "pusher-v5"
    gymnasium_id: ClassVar[str] = "Pusher-v5"
    xml: ClassVar[str] = "pusher_v5.xml"
    frame_skip: ClassVar[int] = 5
    horizon: ClassVar[int] = 100
    timestep: ClassVar[float] = 0.01
    camera: ClassVar[dict[str, float]] = {"distance": 2.2, "elevation": -65.0, "height": 0.1}
    observation: ClassVar[tuple[Part, ...]] = (
        Part(
            "angles: shoulder pan and lift, upper arm roll, elbow, forearm roll, wrist flex and roll",
            7,
            "rad",
        ),
        Part("angular velocities, in the order of the angles", 7, "rad/s"),
        Part("position of the arm's tips", 3, "m"),
        Part("position of the cylinder", 3, "m"),
        Part("position of the goal", 3, "m"),
    )
    reward_in_words: ClassVar[str] = (
        "- distance from cylinder to goal (m) - 0.5 distance from tips to cylinder (m) - 0.1 |control|^2"
    )
    bodies: ClassVar[tuple[str, ...]] = ("tips_arm", "object", "goal")

    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        init = world.init
        qpos = np.tile(init.qpos, (n, 1))
        qpos[:, JOINTS : JOINTS + 2] = cylinders(n, rng)
        qvel = init.qvel + rng.uniform(-VELOCITY_NOISE, VELOCITY_NOISE, (n, init.qvel.shape[1]))
        qvel[:, JOINTS:] = 0.0
        return start(world, qpos, qvel)

    def observe(self, now: Physics) -> Array:
        positions = [now.read[body] for body in self.bodies]
        return np.concatenate([now.qpos[:, :JOINTS], now.qvel[:, :JOINTS], *positions], axis=1)

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        tips, cylinder, goal = (now.read[body] for body in self.bodies)
        far = DISTANCE_WEIGHT * np.linalg.norm(cylinder - goal, axis=1)
        near = NEAR_WEIGHT * np.linalg.norm(cylinder - tips, axis=1)
        reward: Array = -far - CONTROL_COST * np.square(action).sum(axis=1) - near
        return reward


def cylinders(n: int, rng: np.random.Generator) -> Array:
    """(n, 2) positions uniform in ``CYLINDER`` off the goal, by rejection sampling as in the original."""
    accepted = np.empty((0, 2))
    while len(accepted) < n:
        draw = rng.uniform(*CYLINDER, (n, 2))
        accepted = np.concatenate([accepted, draw[np.linalg.norm(draw, axis=1) > CLEARANCE]])
    return accepted[:n]
