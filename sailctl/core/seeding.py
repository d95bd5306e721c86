"""One seed, many named generators: what one part draws never shifts what another one draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

STREAMS = (
    "init",
    "sim",
    "policy",
    "prompts",
    "oracle",
    "minibatch",
    "labels",
    "ensemble",
    "value",
    "queries",
    "data",
    "actions",
)


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
    """Phases of the chains, and which prompts are episode starts."""
    oracle: np.random.Generator
    """Answers of a stochastic teacher."""
    minibatch: np.random.Generator
    """Order of the pairs in each epoch."""
    labels: np.random.Generator
    """Labels that the policy or a reward model gives."""
    ensemble: np.random.Generator
    """Initial parameters and minibatches of the reward model."""
    value: np.random.Generator
    """Initial parameters and minibatches of the value of states."""
    queries: np.random.Generator
    """Which pairs are put to the teacher."""
    data: np.random.Generator
    """Which pairs of a data set an iteration learns from."""
    actions: np.random.Generator
    """Actions that are compared with each other, or valued, and never taken."""

    def state(self) -> dict[str, Any]:
        """Where each generator stands."""
        return {name: getattr(self, name).bit_generator.state for name in STREAMS}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the generators to where they stood, in place: whoever holds one goes on drawing from there."""
        for name in STREAMS:
            getattr(self, name).bit_generator.state = state[name]


def named_generators(seed: int) -> Generators:
    """Independent generators for every name in ``STREAMS``, derived from ``seed`` and the name alone.

    A name added later leaves the others' draws as they were, because each stream is keyed by its own name.

    Raises:
        ValueError: when ``seed`` is negative.
    """
    return Generators(**{name: generator(seed, name) for name in STREAMS})


def seed_of_32_bits(seed: int) -> int:
    """The seed for a library that takes 32 bits: ``seed`` itself where it fits, else one drawn with it."""
    return seed if seed < 2**32 else int(generator(seed, "narrow").integers(2**32))


def generator(seed: int, name: str) -> np.random.Generator:
    """The generator called ``name`` of ``seed``."""
    key = tuple(name.encode())
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))
