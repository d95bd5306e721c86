"""HumanoidStandup-v5: the body of Humanoid-v5 gets up from its back."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sailctl_envs.base import Array, GymnasiumTask, Part, Physics, World, uniformly_around
from sailctl_envs.humanoid import OBSERVED, OBSERVED_FIELDS, observe_body

HEIGHT_WEIGHT = 1.0  # reward per metre of height and second of a physics sub-step
ALIVE_REWARD = 1.0  # reward per control step
CONTROL_COST = 0.1  # reward lost per squared unit of control
IMPACT_COST = 0.5e-6  # reward lost per squared unit of contact force
MOST_IMPACT_COST = 10.0  # maximum reward lost to contact in one control step
RESET_NOISE = 1e-2  # half width of the uniform noise on positions (m, rad) and velocities


class HumanoidStandup(GymnasiumTask):
    """Get up and stay up. Observation: that of Humanoid-v5."""

    id: ClassVar[str] = "humanoidstandup-v5"
    gymnasium_id: ClassVar[str] = "HumanoidStandup-v5"
    xml: ClassVar[str] = "humanoidstandup.xml"
    frame_skip: ClassVar[int] = 5
    horizon: ClassVar[int] = 1000
    timestep: ClassVar[float] = 0.003
    camera: ClassVar[dict[str, float]] = {"distance": 3.2, "elevation": -20.0, "height": 0.5}
    observation: ClassVar[tuple[Part, ...]] = OBSERVED
    reward_in_words: ClassVar[str] = (
        "height of the torso (m) / 0.003 + 1 - 0.1 |control|^2 - 5e-7 |contact forces|^2, the last at most 10"
    )
    fields: ClassVar[tuple[str, ...]] = OBSERVED_FIELDS

    def reset(self, n: int, world: World, rng: np.random.Generator) -> Physics:
        return uniformly_around(world, n, RESET_NOISE, rng)

    def observe(self, now: Physics) -> Array:
        return observe_body(now)

    def reward(self, before: Physics, now: Physics, action: Array) -> Array:
        up = HEIGHT_WEIGHT * now.qpos[:, 2] / self.timestep
        control = CONTROL_COST * np.square(action).sum(axis=1)
        impact = IMPACT_COST * np.square(now.read["cfrc_ext"]).sum(axis=(1, 2))
        reward: Array = up - control - np.minimum(impact, MOST_IMPACT_COST) + ALIVE_REWARD
        return reward
