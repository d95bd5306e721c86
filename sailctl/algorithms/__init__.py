"""Everything that can be trained, each a small class behind one protocol (``protocol``), made by its config.

What is simulated, asked and learned in an iteration is decided here. When the policy is evaluated, what is
logged, kept and stopped is not: ``training`` does that for all of them. An algorithm may import every folder
below this one, and never ``training``.
"""

from __future__ import annotations

from importlib import import_module

from sailctl.algorithms.protocol import Algorithm
from sailctl.config import RunConfig
from sailctl.simulator.states import Simulator


def make_algorithm(config: RunConfig, simulator: Simulator) -> Algorithm:
    """The algorithm that ``config`` names, at its start, on a simulator that evaluations may use too.

    Raises:
        UserError: when a policy or a data set that it names cannot be read, or does not fit the task.
    """
    module, name = config.algorithm.split(":")
    made: Algorithm = getattr(import_module(module), name)(config, simulator)
    return made
