"""Opens the simulator of a task."""

from __future__ import annotations

from sailctl.core.tasks import METAWORLD
from sailctl.core.types import UserError
from sailctl.simulator.batched import TaskSimulator
from sailctl.simulator.states import Simulator
from sailctl_envs import ALL_TASKS
from sailctl_envs.dmc.base import SuiteMissingError


def open_simulator(task_id: str, threads: int = 1) -> Simulator:
    """A new simulator of the task with this id, with ``threads`` threads.

    Raises:
        UserError: when the task is unknown or not supported, or a package that it needs is missing.
    """
    if task_id in ALL_TASKS:
        try:
            return TaskSimulator(ALL_TASKS[task_id](), threads)
        except SuiteMissingError as error:
            raise UserError(str(error)) from error
    if task_id in METAWORLD:
        from sailctl.simulator.metaworld import MetaWorldSimulator

        return MetaWorldSimulator(task_id, threads)
    from sailctl.simulator.by_id import EnvironmentSimulator

    return EnvironmentSimulator(task_id, threads)
