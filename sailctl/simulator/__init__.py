"""Simulators: batches of MuJoCo states that are stepped, forked, saved and restored."""

from __future__ import annotations

from sailctl.simulator.batched import TaskSimulator
from sailctl.simulator.states import Simulator, States, Step
from sailctl_envs import ALL_TASKS

__all__ = ["Simulator", "States", "Step", "TaskSimulator", "open_simulator"]


def open_simulator(task: str, threads: int = 1) -> Simulator:
    """The simulator of the task with this id, with ``threads`` threads of its own."""
    return TaskSimulator(ALL_TASKS[task](), threads)
