"""Euclidean projection of the parameters onto a ball: the constraint of SAIL-RevKL."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor


def project_ball(parameters: Iterable[Tensor], radius: float | None) -> float:
    """Project all parameters together, in place and without gradient, onto the ball ||theta|| <= radius.

    Wu et al., UAI 2026, arXiv 2606.31524: theta is projected after each step. Outside the ball every
    parameter is multiplied by radius / ||theta||; inside it, parameters do not change.

    Args:
        parameters: tensors of any shape; theta is their concatenation.
        radius: B >= 0; None or infinity for no constraint.

    Returns:
        ||theta|| before the projection, computed in float64. If it is NaN or infinite, the parameters do not
        change, and the caller has to report it.

    Raises:
        ValueError: when ``radius`` is negative or NaN.
    """
    bound = math.inf if radius is None else radius
    if not bound >= 0:
        raise ValueError(f"the radius of the ball must be >= 0, not {radius}")
    theta = list(parameters)
    with torch.no_grad():
        norm = math.sqrt(sum(parameter.double().square().sum() for parameter in theta))
        if bound < norm < math.inf:
            for parameter in theta:
                parameter.mul_(bound / norm)
    return norm
