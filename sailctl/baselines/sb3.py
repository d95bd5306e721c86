"""What the baselines need of Stable-Baselines3, whichever algorithm it is: numbers, a check, weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import KVWriter, Logger
from torch import nn

from sailctl.types import NonFiniteError

NEVER = 2**31
"""``log_interval`` of ``learn``: the numbers are read after it, not during it."""


class Numbers(KVWriter):
    """Keeps the numbers that Stable-Baselines3 recorded last."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Keep them."""
        self.values = {key: float(value) for key, value in key_values.items()}

    def close(self) -> None:
        """There is nothing to close."""


def keep_numbers(model: BaseAlgorithm) -> None:
    """Let ``recorded`` read what ``model`` records, and nothing else happen with it."""
    model.set_logger(Logger(None, [Numbers()]))


def recorded(model: BaseAlgorithm, names: Mapping[str, str]) -> dict[str, float]:
    """Numbers of the last update by our names, given what they are called below ``train/``; NaN before it."""
    model.logger.dump(model.num_timesteps)
    (numbers,) = model.logger.output_formats
    assert isinstance(numbers, Numbers)
    return {name: numbers.values.get(f"train/{theirs}", math.nan) for name, theirs in names.items()}


def refuse_non_finite(model: BaseAlgorithm, iteration: int) -> None:
    """Stop where a parameter is NaN or infinite.

    Raises:
        NonFiniteError: with the parameters.
    """
    parameters = {name: value.detach() for name, value in model.policy.named_parameters()}
    bad = [name for name, value in parameters.items() if not torch.isfinite(value).all()]
    if bad:
        kind = type(model).__name__
        raise NonFiniteError(f"{kind} is not finite in iteration {iteration}: {', '.join(bad)}", parameters)


def linear_layers(*networks: nn.Module) -> list[nn.Linear]:
    """The linear layers of networks, in order."""
    return [layer for network in networks for layer in network.modules() if isinstance(layer, nn.Linear)]


@torch.no_grad()
def copy_layers(sources: list[nn.Linear], targets: list[nn.Linear]) -> None:
    """Give ``targets`` the weights and biases of ``sources``, layer by layer."""
    for source, target in zip(sources, targets, strict=True):
        target.weight.copy_(source.weight)
        target.bias.copy_(source.bias)
