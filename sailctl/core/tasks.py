"""Task ids and episode lengths, which are known before a simulator is built.

A task is one of sailctl's own, a Meta-World task (simulated by EnvPool), or any other MuJoCo environment
registered with Gymnasium, including the user's own: ``my_module:MyEnv-v0``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from sailctl.core.types import UserError
from sailctl.core.words import did_you_mean
from sailctl_envs import ALL_TASKS

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec

METAWORLD = {
    "button-press-v3": "MetaWorld/ButtonPress-v3",
    "door-open-v3": "MetaWorld/DoorOpen-v3",
    "drawer-open-v3": "MetaWorld/DrawerOpen-v3",
    "window-open-v3": "MetaWorld/WindowOpen-v3",
}
"""Meta-World tasks, with their ids in EnvPool."""

METAWORLD_HORIZON = 500
"""Control steps in an episode of every Meta-World task."""


def known_tasks() -> tuple[str, ...]:
    """Ids that need no registration: sailctl's own tasks, then Meta-World's."""
    return (*ALL_TASKS, *METAWORLD)


def horizon(task_id: str) -> int:
    """Control steps in an episode of the task.

    Raises:
        UserError: when the task is unknown, or is registered without a time limit.
    """
    if task_id in ALL_TASKS:
        return ALL_TASKS[task_id].horizon
    if task_id in METAWORLD:
        return METAWORLD_HORIZON
    limit = registration(task_id).max_episode_steps
    if limit is None:
        raise UserError(
            f"env.id={task_id} has no time limit: choose a later version if it is one of Gymnasium's own, or "
            "register it with max_episode_steps"
        )
    return limit


def forks_anywhere(task_id: str) -> bool:
    """Whether segments can begin at any state; in Meta-World they begin only at the start of an episode."""
    return task_id not in METAWORLD


def registration(task_id: str) -> EnvSpec:
    """The entry of ``task_id`` in Gymnasium's registry; the module before a colon is imported first.

    Raises:
        UserError: when there is no entry, or the module cannot be imported.
    """
    import gymnasium

    module, _, name = task_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except Exception as error:  # the user's module may raise anything
            raise UserError(
                f"env.id={task_id}: importing {module} fails ({type(error).__name__}: {error}); "
                "its folder must be on PYTHONPATH"
            ) from error
    if name not in gymnasium.registry:
        raise UserError(
            "env.id must be a known task (`sailctl tasks` lists them) or an environment registered with "
            f"Gymnasium, got {task_id!r}{did_you_mean(name, (*known_tasks(), *gymnasium.registry))}"
        )
    return gymnasium.registry[name]
