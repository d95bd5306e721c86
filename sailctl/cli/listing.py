"""``sailctl tasks``: prints a table of all tasks, or the page of one task."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby

import mujoco

from sailctl.core.tasks import METAWORLD, METAWORLD_HORIZON, known_tasks
from sailctl.core.types import UserError
from sailctl.simulator.registry import open_simulator
from sailctl.simulator.speed import measure
from sailctl_envs import ALL_TASKS, GymnasiumTask, Task
from sailctl_envs.dmc.base import SuiteMissingError

METAWORLD_SIZES = ("39", "4", str(METAWORLD_HORIZON), "0.0125")
"""obs, act, horizon and s/step of all Meta-World tasks."""
HEAD = ("task", "original", "obs", "act", "horizon", "s/step", "needs")
END = "an episode ends"
FOOT = """
obs, act: numbers in an observation and in an action; horizon: control steps in an episode; s/step: seconds.
sailctl tasks TASK describes one; sailctl tasks --measure measures all (about 2 s each).
Any other MuJoCo environment registered with Gymnasium works too: env=gymnasium env.id=...
"""


def print_tasks(measured: bool = False) -> None:
    """Print one row per task; with ``measured`` also its speed on this machine (about two seconds each)."""
    if not measured:
        print(columns([(*HEAD, END), *((*row(task), end(task)) for task in known_tasks())]), FOOT, sep="\n")
        return
    cores = len(os.sched_getaffinity(0))
    speeds = [f"steps/s, {n} thread{'s' * (n > 1)}" for n in sorted({1, cores})]
    head = (*HEAD, *(word for speed in speeds for word in (speed, "of mj_step")))
    rows = [(*row(task), *speed(task, sorted({1, cores}))) for task in known_tasks()]
    print(columns([head, *rows]))
    print(
        "\nof mj_step: speed relative to as many parallel loops of mj_step alone (noisy: half a second each)"
    )


def print_task(task_id: str) -> None:
    """Print one task's page.

    Raises:
        UserError: when there is no page for this id, or a package that the task needs is missing.
    """
    if task_id not in ALL_TASKS:
        raise UserError(f"no page for task {task_id!r}; there is one for {', '.join(ALL_TASKS)}")
    try:
        print(f"{task_id}: {page(ALL_TASKS[task_id]())}")
    except SuiteMissingError as error:
        raise UserError(str(error)) from error


def page(task: Task) -> str:
    """Markdown description of a task: observation, actions, reward, horizon, termination."""
    goal = (type(task).__doc__ or "").partition(". ")[0].partition(".\n")[0]
    parts = [(part.name, str(part.size), part.unit) for part in task.observation]
    total = sum(part.size for part in task.observation)
    length = f"{task.horizon} control steps of {task.dt:g} s, each {task.frame_skip} physics sub-steps"
    return "\n\n".join(
        [
            f"{goal} ({task.original}).",
            columns([(f"observation ({total})", "numbers", "unit"), *parts], markdown=True),
            columns([("action", "numbers", "from", "to"), *actions(task.make_model())], markdown=True),
            f"Reward of a step: {task.reward_in_words}.",
            f"Horizon: {length}. An episode ends {task.end_in_words}.",
        ]
    )


def actions(model: mujoco.MjModel) -> list[tuple[str, str, str, str]]:
    """Names, count and range of consecutive actuators with equal range; unnamed ones get the joint's name."""

    def name(actuator: int) -> str:
        return str(model.actuator(actuator).name or model.joint(model.actuator_trnid[actuator, 0]).name)

    ranges = groupby(range(model.nu), key=lambda actuator: tuple(model.actuator_ctrlrange[actuator]))
    rows = []
    for (low, high), group in ranges:
        names = [name(actuator) for actuator in group]
        rows.append((", ".join(names), str(len(names)), f"{low:g}", f"{high:g}"))
    return rows


def row(task_id: str) -> tuple[str, ...]:
    """The first columns: id, original, sizes, horizon, seconds per control step, extra needed."""
    if task_id in METAWORLD:
        return (task_id, f"{METAWORLD[task_id]} (EnvPool)", *METAWORLD_SIZES, "metaworld")
    task = ALL_TASKS[task_id]()
    obs = sum(part.size for part in task.observation)
    try:
        act = str(task.make_model().nu)
    except SuiteMissingError:
        act = "?"
    needs = "" if isinstance(task, GymnasiumTask) else "dmc"
    return task_id, task.original, str(obs), act, str(task.horizon), f"{task.dt:g}", needs


def end(task_id: str) -> str:
    """Termination of an episode of the task, in words."""
    return Task.end_in_words if task_id in METAWORLD else ALL_TASKS[task_id].end_in_words


def speed(task_id: str, threads: Sequence[int]) -> list[str]:
    """Control steps per second, and that relative to loops of mj_step, for each number of threads."""
    if task_id in METAWORLD:
        return ["", ""] * len(threads)
    try:
        open_simulator(task_id).close()
    except UserError:  # a package is missing; the column ``needs`` names it
        return ["", ""] * len(threads)
    cells = []
    for count in threads:
        rates = measure(task_id, count, seconds=0.3)
        cells += [f"{rates.simulator[0]:.0f}", f"{rates.simulator[0] / rates.together[0]:.2f}"]
    return cells


def columns(rows: Sequence[Sequence[str]], markdown: bool = False) -> str:
    """``rows`` as aligned text; the first row is the header, and columns of numbers are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [all(is_number(cell) for cell in column[1:]) for column in zip(*rows, strict=True)]
    lines = [
        [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(cells, widths, right, strict=True)]
        for cells in rows
    ]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in lines)
    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])


def is_number(cell: str) -> bool:
    """Whether a cell is a number or empty."""
    return not cell.strip("-0123456789.e?")
