"""What networks of several folders share: their first parameters, and a check of what they learn from."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import nn

from sailctl.core.types import NonFiniteError, SegmentBatch


def initial_layers(
    members: int, widths: list[int], rng: np.random.Generator
) -> tuple[nn.ParameterList, nn.ParameterList]:
    """Weights (M, inputs, outputs) and biases (M, 1, outputs) of each layer, uniform on +-1/sqrt(inputs)."""
    seed = torch.Generator().manual_seed(int(rng.integers(2**62)))
    weights, biases = nn.ParameterList(), nn.ParameterList()
    for inputs, outputs in itertools.pairwise(widths):
        bound = 1.0 / math.sqrt(inputs)
        for parameters, rows in ((weights, inputs), (biases, 1)):
            parameters.append(nn.Parameter(torch.empty(members, rows, outputs)))
            nn.init.uniform_(parameters[-1], -bound, bound, generator=seed)
    return weights, biases


def check_finite(segments: SegmentBatch, learner: str) -> None:
    """Check the segments from which ``learner`` is to learn.

    Raises:
        NonFiniteError: when an observation or an action is NaN or infinite; with the segments.
    """
    if np.isfinite(segments.obs).all() and np.isfinite(segments.actions).all():
        return
    arrays = {"obs": segments.obs, "actions": segments.actions, "mask": segments.mask}
    batch = {name: torch.from_numpy(values) for name, values in arrays.items()}
    raise NonFiniteError(f"{learner} was given segments that are not finite", batch)
