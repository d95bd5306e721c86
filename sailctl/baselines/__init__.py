"""Baselines: Stable-Baselines3 on the same simulator, teacher, label budget, evaluation and record."""

from __future__ import annotations

from pathlib import Path

from sailctl.baselines.ppo import train_ppo
from sailctl.baselines.sac import train_sac
from sailctl.config import PPORun, RunConfig, SACRun
from sailctl.loop import Keep


def train_baseline(config: RunConfig, overrides: list[str], keep: Keep | None = None) -> Path:
    """Train the baseline that ``algo.learner`` names and return its run directory.

    A run that was stopped goes on from its last checkpoint, bit for bit. ``keep`` is given the policy of each
    evaluation in this process.

    Raises:
        UserError: when another process works on the run, or the reference policy does not fit the task.
        RunError: when the run had to stop; its directory keeps all that came before.
        Interrupted: when it was told to stop, by SIGINT or SIGTERM; its checkpoint is of that iteration.
        TypeError: when ``config`` is of no baseline.
    """
    if isinstance(config, PPORun):
        return train_ppo(config, overrides, keep)
    if isinstance(config, SACRun):
        return train_sac(config, overrides, keep)
    raise TypeError(f"{type(config).__name__} is no baseline")
