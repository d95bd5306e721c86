"""Tasks of the DeepMind Control suite."""

from __future__ import annotations

from sailctl_envs.base import Task
from sailctl_envs.dmc.base import SuiteMissingError, SuiteTask
from sailctl_envs.dmc.cartpole import CartpoleSwingup
from sailctl_envs.dmc.cheetah import CheetahRun
from sailctl_envs.dmc.finger import FingerSpin
from sailctl_envs.dmc.hopper import HopperHop, HopperStand
from sailctl_envs.dmc.quadruped import QuadrupedRun, QuadrupedWalk
from sailctl_envs.dmc.reacher import ReacherEasy
from sailctl_envs.dmc.walker import WalkerRun, WalkerStand, WalkerWalk

TASKS: tuple[type[Task], ...] = (
    CartpoleSwingup,
    CheetahRun,
    FingerSpin,
    HopperHop,
    HopperStand,
    QuadrupedRun,
    QuadrupedWalk,
    ReacherEasy,
    WalkerRun,
    WalkerStand,
    WalkerWalk,
)
"""The supported tasks of the suite."""

__all__ = ["TASKS", "SuiteMissingError", "SuiteTask"]
