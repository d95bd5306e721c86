"""Random parameters for the tests of the lab."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def random_parameters(count: int, dimension: int = 3, seed: int = 5, scale: float = 1.0) -> Tensor:
    """(count, dimension) normal numbers times ``scale``."""
    return torch.from_numpy(scale * np.random.default_rng(seed).normal(size=(count, dimension)))
