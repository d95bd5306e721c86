"""Newton's method on the ball ||x|| <= B, many starts at once: how the theory lab finds its exact answers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FLATTEST = 1e-9
"""Smallest curvature that a step divides by."""
REACH = 2.0
"""Longest step."""
BISECTIONS = 60
HALVINGS = 30
SLOPE = 1e-4
"""Share of the decrease promised by the slope that a step must bring (Armijo)."""


def project(x: Tensor, radius: float) -> Tensor:
    """(..., d) points, those outside the ball moved to its surface."""
    inside: Tensor = x * (radius / x.norm(dim=-1, keepdim=True).clamp(min=radius))
    return inside


def derivatives(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values (N,), gradients (N, d) and Hessians (N, d, d) of a function whose rows do not mix."""
    x = x.detach().requires_grad_()
    value = function(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    rows = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in slope.unbind(dim=-1)]
    curvature = torch.stack(rows, dim=-2)
    return value.detach(), slope.detach(), (curvature + curvature.mT) / 2


def stationarity(slope: Tensor, x: Tensor, radius: float) -> Tensor:
    """(...) length of x - P(x - slope): 0 where x cannot be improved to first order within the ball."""
    length: Tensor = (x - project(x - slope, radius)).norm(dim=-1)
    return length


def minimise(
    function: Callable[[Tensor], Tensor],
    start: Tensor,
    radius: float,
    steps: int = 100,
    tolerance: float = 1e-12,
) -> tuple[Tensor, Tensor]:
    """A local minimum within the ball for each start.

    Newton steps with the absolute values of the Hessian's eigenvalues, so that every step leads down and
    saddles repel; the quadratic model is minimised over the ball exactly, and a step is halved until the
    function has come down enough.

    Args:
        function: (N, d) points to (N,) values, each row for itself.
        start: (N, d) points of the ball.
        radius: B.
        steps: at most so many.
        tolerance: largest ``stationarity`` to stop at.

    Returns:
        (N, d) points and (N,) their ``stationarity``: a start that was not finished in time has a large one.
    """
    x = start
    for _ in range(steps):
        value, slope, curvature = derivatives(function, x)
        if stationarity(slope, x, radius).max() < tolerance:
            break
        step = _best_of_model(slope, curvature, x, radius) - x
        promised = SLOPE * (slope * step).sum(dim=-1)
        length = torch.ones_like(value)
        for _ in range(HALVINGS):
            # An allowance for rounding, where the function can hardly be told from its minimum any more.
            allowed = value + length * promised + 1e-15 * (1 + value.abs())
            too_long = function(x + length[:, None] * step) > allowed
            if not too_long.any():
                break
            length = torch.where(too_long, length / 2, length)
        x = x + length[:, None] * step
    return x, stationarity(derivatives(function, x)[1], x, radius)


def _best_of_model(slope: Tensor, curvature: Tensor, x: Tensor, radius: float) -> Tensor:
    """(N, d) minimiser over the ball of the quadratic model around x, its eigenvalues made positive."""
    values, vectors = torch.linalg.eigh(curvature)
    values = values.abs().clamp(min=FLATTEST)
    along = (vectors.mT @ slope[..., None])[..., 0]
    values = values * ((along / values).norm(dim=-1, keepdim=True) / REACH).clamp(min=1)
    pull = values * (vectors.mT @ x[..., None])[..., 0] - along
    # The multiplier of the ball: |pull / (values + multiplier)| = radius, or 0 where the ball does not bind.
    low = torch.zeros_like(pull[..., :1])
    high = pull.norm(dim=-1, keepdim=True) / radius
    binds = (pull / values).norm(dim=-1, keepdim=True) > radius
    for _ in range(BISECTIONS if binds.any() else 0):
        middle = (low + high) / 2
        outside = (pull / (values + middle)).norm(dim=-1, keepdim=True) > radius
        low, high = torch.where(outside, middle, low), torch.where(outside, high, middle)
    along = pull / (values + torch.where(binds, high, 0.0))
    best: Tensor = (vectors @ along[..., None])[..., 0]
    return best


def points_in_ball(count: int, dimension: int, radius: float, seed: int) -> Tensor:
    """(count, d) points drawn uniformly from the ball."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    distance = torch.rand(count, 1, generator=generator, dtype=torch.float64) ** (1 / dimension)
    points: Tensor = radius * distance * direction / direction.norm(dim=-1, keepdim=True)
    return points
