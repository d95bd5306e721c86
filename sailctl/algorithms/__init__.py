"""The algorithms: one class each, with the interface of ``protocol.Algorithm``.

An algorithm decides what an iteration simulates, queries and learns. The training loop (``training``) does
the rest for all of them: evaluation, logging, checkpoints and stopping.

May import every folder below this one.
"""

from __future__ import annotations

from importlib import import_module

from sailctl.algorithms.protocol import Algorithm
from sailctl.config import RunConfig
from sailctl.simulator.states import Simulator


def make_algorithm(config: RunConfig, simulator: Simulator) -> Algorithm:
    """A new instance of the algorithm of ``config``; evaluations may use the same simulator.

    Raises:
        UserError: when the policy or data set in ``config`` cannot be read, or does not fit the task.
    """
    module, name = config.algorithm.split(":")
    algorithm: Algorithm = getattr(import_module(module), name)(config, simulator)
    return algorithm
