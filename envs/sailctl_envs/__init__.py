"""Batched tasks, each equivalent to its original in Gymnasium or dm_control."""

from __future__ import annotations

from sailctl_envs.ant import Ant
from sailctl_envs.base import GymnasiumTask, Part, Physics, Task, World
from sailctl_envs.dmc import TASKS as DMC_TASKS
from sailctl_envs.halfcheetah import HalfCheetah
from sailctl_envs.hopper import Hopper
from sailctl_envs.humanoid import Humanoid
from sailctl_envs.humanoid_standup import HumanoidStandup
from sailctl_envs.inverted_double_pendulum import InvertedDoublePendulum
from sailctl_envs.inverted_pendulum import InvertedPendulum
from sailctl_envs.pusher import Pusher
from sailctl_envs.reacher import Reacher
from sailctl_envs.swimmer import Swimmer
from sailctl_envs.walker2d import Walker2d

GYMNASIUM_TASKS: tuple[type[Task], ...] = (
    Ant,
    HalfCheetah,
    Hopper,
    Humanoid,
    HumanoidStandup,
    InvertedDoublePendulum,
    InvertedPendulum,
    Pusher,
    Reacher,
    Swimmer,
    Walker2d,
)
ALL_TASKS: dict[str, type[Task]] = {task.id: task for task in (*GYMNASIUM_TASKS, *DMC_TASKS)}
"""Every task by id: those of Gymnasium, then those of dm_control."""

__all__ = ["ALL_TASKS", "GymnasiumTask", "Part", "Physics", "Task", "World"]
