"""The ball ||x|| <= B: points in it, projection onto it, and minima and maxima of functions over it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
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


# Points


def points_in_ball(count: int, dimension: int, radius: float, seed: int) -> Tensor:
    """(count, d) points drawn uniformly from the ball."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    distance = torch.rand(count, 1, generator=generator, dtype=torch.float64) ** (1 / dimension)
    points: Tensor = radius * distance * direction / direction.norm(dim=-1, keepdim=True)
    return points


def shell_points(dimension: int, radius: float, directions: int, shells: int) -> Tensor:
    """(directions * shells, d) points: the same directions at evenly spaced distances up to the boundary."""
    if dimension == 2:
        angle = np.linspace(0, 2 * np.pi, directions, endpoint=False)
        unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    else:
        unit = np.random.default_rng(0).normal(size=(directions, dimension))
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    distance = np.linspace(radius / shells, radius, shells)
    return torch.from_numpy((distance[:, None, None] * unit).reshape(-1, dimension))


def random_points(dimension: int, radius: float, count: int, seed: int) -> Tensor:
    """(count, d) points, uniform in the ball, except for a quarter of them, which lie on its boundary."""
    rng = np.random.default_rng(seed)
    unit = rng.normal(size=(count, dimension))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    distance = radius * rng.random((count, 1)) ** (1 / dimension)
    distance[: count // 4] = radius
    return torch.from_numpy(distance * unit)


# A minimum, by Newton's method


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

    Newton steps with the absolute values of the Hessian's eigenvalues, so that every step goes down and
    saddles repel; the quadratic model is minimised over the ball exactly, and a step is halved until the
    function has come down enough.

    Args:
        function: (N, d) points to (N,) values; rows do not mix.
        start: (N, d) points of the ball.
        radius: B.
        steps: most steps that are taken.
        tolerance: largest ``stationarity`` to stop at.

    Returns:
        (N, d) points and (N,) their ``stationarity``: large where a start needed more steps.
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
            # An allowance for rounding: close to the minimum the decrease is smaller than that.
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


# A maximum, by random search


def maximise(
    value: Callable[[Tensor], Tensor], points: Tensor, radius: float, rounds: int = 40
) -> tuple[float, Tensor]:
    """Largest value over the ball, and where: the best of the given points, improved by local search.

    Each of the 16 best points tries 16 random moves in each round. Their scale shrinks from radius / 10 to
    radius / 10^7.
    """
    rng = np.random.default_rng(0)
    best, order = value(points).topk(16)
    place = points[order]
    for scale in radius * np.geomspace(0.1, 1e-7, rounds):
        noise = torch.from_numpy(rng.normal(size=(16, *place.shape)))
        trials = place + scale * noise
        trials = trials / (trials.norm(dim=-1, keepdim=True) / radius).clamp(min=1.0)
        found = value(trials.reshape(-1, place.shape[1])).reshape(16, 16)
        top, which = found.max(dim=0)
        better = top > best
        place = torch.where(better[:, None], trials[which, torch.arange(16)], place)
        best = torch.where(better, top, best)
    winner = int(best.argmax())
    return float(best[winner]), place[winner]
