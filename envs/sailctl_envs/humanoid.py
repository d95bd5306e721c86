"""Humanoid-v5: a walker with arms and two legs in three dimensions that falls."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sailctl_envs.base import Array, Bools, GymnasiumTask, Part, Physics, World, flat, uniformly_around

FORWARD_WEIGHT = 1.25  # reward per (m/s) of forward speed
HEALTHY_REWARD = 5.0  # reward per control step in a healthy state
CONTROL_COST = 0.1  # reward lost per squared unit of control
CONTACT_COST = 5e-7  # reward lost per squared unit of contact force
MOST_CONTACT_COST = 10.0  # maximum reward lost to contact in one control step
RESET_NOISE = 1e-2  # half width of the uniform noise on positions (m, rad) and velocities
HEALTHY_HEIGHT = (1.0, 2.0)  # open range of the torso (m)
ROOT = 6  # number of velocities of the torso, which has no actuators

OBSERVED_FIELDS = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
OBSERVED = (
    Part("height of the torso", 1, "m"),
    Part("orientation of the torso, a quaternion", 4, "1"),
    Part(
        "angles: abdomen z, y, x; right hip x, z, y and knee; left hip x, z, y and knee; "
        "right shoulder 1, 2 and elbow; left shoulder 1, 2 and elbow",
        17,
        "rad",
    ),
    Part("velocity of the torso", 3, "m/s"),
    Part("angular velocity of the torso", 3, "rad/s"),
    Part("angular velocities, in the order of the angles", 17, "rad/s"),
    Part("inertia about the centre of mass, mass times offset, mass of each body", 130, "kg m^2, kg m, kg"),
    Part("angular and linear velocity of each body about the centre of mass", 78, "rad/s, m/s"),
    Part("actuator torques, in the order of the angles", 17, "N m"),
    Part("contact torque and force on each body", 78, "N m, N"),
)


class Humanoid(GymnasiumTask):
    """Walk forward without falling. Observation: ``observe_body``."""

    id: ClassVar[str] = "humanoid-v5"
    gymnasium_id: ClassVar[str] = "Humanoid-v5"
    xml: ClassVar[str] = "humanoid.xml"
    frame_skip: ClassVar[int] = 5
    horizon: ClassVar[int] = 1000
    timestep: ClassVar[float] = 0.003
    camera: ClassVar[dict[str, float]] = {"distance": 3.2, "elevation": -12.0, "height": 0.9}
    observation: ClassVar[tuple[Part, ...]] = OBSERVED
    reward_in_words: ClassVar[str] = (
        "1.25 forward speed of the centre of mass (m/s) + 5 while healthy - 0.1 |control|^2 "
        "- 5e-7 |contact forces|^2, the last at most 10"
    )
    end_in_words: ClassVar[str] = "when the torso leaves 1 to 2 m"
    fields: ClassVar[tuple[str, ...]] = ("xipos", *OBSERVED_FIELDS)

    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        return uniformly_around(world, n, RESET_NOISE, rng)

    def remember(self, now: Physics, world: World) -> Array:
        """x of the centre of mass in ``MjData`` (m), from which the next step's speed is computed."""
        mass: Array = world.model.body_mass
        centre: Array = np.einsum("b,nbj->nj", mass, now.read["xipos"])[:, :1] / mass.sum()
        return centre

    def observe(self, now: Physics) -> Array:
        return observe_body(now)

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        speed = (now.memory[:, 0] - before.memory[:, 0]) / self.dt
        healthy = HEALTHY_REWARD * ~self.terminated(now)
        control = CONTROL_COST * np.square(action).sum(axis=1)
        contact = CONTACT_COST * np.square(now.read["cfrc_ext"]).sum(axis=(1, 2))
        reward: Array = FORWARD_WEIGHT * speed + healthy - (control + np.minimum(contact, MOST_CONTACT_COST))
        return reward

    def terminated(self, now: Physics) -> Bools:
        low, high = HEALTHY_HEIGHT
        healthy: Bools = (low < now.qpos[:, 2]) & (now.qpos[:, 2] < high)
        return ~healthy


def observe_body(now: Physics) -> Array:
    """(N, 348) positions without x and y, velocities, and ``OBSERVED_FIELDS`` of all bodies but the world."""
    read = now.read
    return np.concatenate(
        [
            now.qpos[:, 2:],
            now.qvel,
            flat(read["cinert"][:, 1:]),
            flat(read["cvel"][:, 1:]),
            read["qfrc_actuator"][:, ROOT:],
            flat(read["cfrc_ext"][:, 1:]),
        ],
        axis=1,
    )
