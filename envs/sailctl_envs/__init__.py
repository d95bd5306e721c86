"""Tasks of sailctl: batched, forkable, each the same task as its original in Gymnasium or dm_control."""

from __future__ import annotations

from sailctl_envs.base import GymnasiumTask, Part, Physics, Task, World
from sailctl_envs.halfcheetah import HalfCheetah
from sailctl_envs.hopper import Hopper
from sailctl_envs.inverted_pendulum import InvertedPendulum
from sailctl_envs.reacher import Reacher
from sailctl_envs.swimmer import Swimmer
from sailctl_envs.walker2d import Walker2d

ALL_TASKS: dict[str, type[Task]] = {
    task.id: task for task in (HalfCheetah, Hopper, InvertedPendulum, Reacher, Swimmer, Walker2d)
}
"""Every task by id."""

__all__ = ["ALL_TASKS", "GymnasiumTask", "Part", "Physics", "Task", "World"]
