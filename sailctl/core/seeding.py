"""Independent random generators from one seed: draws from one never change the draws from another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Generators:
    """The named random generators of one run."""

    init: np.random.Generator
    """Initial parameters of the policy and its fixed features."""
    sim: np.random.Generator
    """Initial states of episodes."""
    policy: np.random.Generator
    """Noise of the actions."""
    prompts: np.random.Generator
    """Phases of the chains, and the choice of the prompts that are episode starts."""
    oracle: np.random.Generator
    """Answers of a stochastic teacher."""
    minibatch: np.random.Generator
    """Order of the pairs in each epoch."""
    labels: np.random.Generator
    """Labels drawn by the policy or by a reward model."""
    ensemble: np.random.Generator
    """Initial parameters and minibatches of the reward model."""
    value: np.random.Generator
    """Initial parameters and minibatches of the state-value function."""
    queries: np.random.Generator
    """Choice of the pairs that the teacher compares."""
    data: np.random.Generator
    """Choice of the pairs of a data set for each iteration."""
    actions: np.random.Generator
    """Actions that are compared or valued, but not executed."""

    def state(self) -> dict[str, Any]:
        """The state of each generator."""
        return {name: getattr(self, name).bit_generator.state for name in STREAMS}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state`` returned, in place, so that references to the generators stay valid."""
        for name in STREAMS:
            getattr(self, name).bit_generator.state = state[name]


STREAMS = tuple(field.name for field in fields(Generators))
"""Names of the generators."""


def named_generators(seed: int) -> Generators:
    """Independent generators for every name in ``STREAMS``, derived from ``seed`` and the name alone.

    Each stream depends on its own name only, so that a new name does not change the other streams.

    Raises:
        ValueError: when ``seed`` is negative.
    """
    return Generators(**{name: generator(seed, name) for name in STREAMS})


def seed_of_32_bits(seed: int) -> int:
    """A seed for libraries that accept 32 bits: ``seed`` if it fits, otherwise one derived from it."""
    return seed if seed < 2**32 else int(generator(seed, "narrow").integers(2**32))


def generator(seed: int, name: str) -> np.random.Generator:
    """The generator called ``name`` of ``seed``."""
    key = tuple(name.encode())
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))
