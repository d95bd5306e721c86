"""Everything that can be trained, each a small class behind one protocol (``protocol``), made by its config.

What is simulated, asked and learned in an iteration is decided here. When the policy is evaluated, what is
logged, kept and stopped is not: ``training`` does that for all of them. An algorithm may import every folder
below this one, and never ``training``.
"""

from __future__ import annotations

from sailctl.algorithms.protocol import Algorithm
from sailctl.config import ActionsRun, Config, PPORun, RunConfig, SACRun
from sailctl.simulator.states import Simulator


def make_algorithm(config: RunConfig, simulator: Simulator) -> Algorithm:
    """The algorithm that ``config`` names, at its start, on a simulator that evaluations may use too.

    Raises:
        UserError: when a policy or a data set that it names cannot be read, or does not fit the task.
        TypeError: when there is no algorithm for this kind of configuration.
    """
    # Each imports its own: Stable-Baselines3 is slow to load, and SAIL has no need of it.
    if isinstance(config, ActionsRun):
        from sailctl.algorithms.actions import ActionSAIL

        return ActionSAIL(config, simulator)
    if isinstance(config, Config):
        from sailctl.algorithms.segments import SegmentSAIL

        return SegmentSAIL(config, simulator)
    if isinstance(config, PPORun):
        from sailctl.algorithms.ppo import PPOBaseline

        return PPOBaseline(config, simulator)
    if isinstance(config, SACRun):
        from sailctl.algorithms.sac import SACBaseline

        return SACBaseline(config, simulator)
    raise TypeError(f"there is no algorithm for a {type(config).__name__}")
