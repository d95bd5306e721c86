"""Minima and proximal points of L_rho, by Newton's method on a smoothed |h|."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks.theory.ball import minimise, project
from benchmarks.theory.problem import Problem
from benchmarks.theory.robust.loss import RADIUS, kink_slopes

FINEST = 9
"""|h| is smoothed by 10^-1, 10^-2, ... down to 10^-FINEST on the way to a proximal point."""
NEAR = 1e-6
"""Scores that small are 0 at the proximal point."""


def smoothed_minima(
    problem: Problem, rho: float, start: Tensor, finest: int, prox: tuple[Tensor, float] | None = None
) -> Tensor:
    """(N, d) local minima over the ball of L_rho, or of L_rho + |x - centre|^2 / (2 size).

    |h| is smoothed to sqrt(h^2 + w^2) - w. Each round divides w by ten and starts where the one before ended.

    Args:
        problem: one problem.
        rho: weight of the penalty.
        start: (N, d).
        finest: the last w is 10^-finest.
        prox: (N, d) centres and the size; without it there is no quadratic.
    """

    def smoothed(width: float, x: Tensor) -> Tensor:
        h = problem.score(x)
        cost = (problem.pairs(x) * (torch.sqrt(h * h + width * width) - width)).sum(dim=(-3, -2, -1))
        value = rho * cost - problem.objective(x)
        return value if prox is None else value + (x - prox[0]).square().sum(dim=-1) / (2 * prox[1])

    x = start
    for power in range(1, finest + 1):
        x, _ = minimise(partial(smoothed, 10.0**-power), x, RADIUS, steps=15, tolerance=1e-7)
    return x


def proximal_points(problem: Problem, rho: float, theta: Tensor, modulus: float) -> tuple[Tensor, Tensor]:
    """argmin_x L_rho(x) + modulus |x - theta|^2 over the ball, for L_rho + modulus/2 |.|^2 convex.

    The size of the Moreau envelope is 1 / (2 modulus) (Davis and Drusvyatskiy 2019), so that the objective is
    strongly convex with that modulus. Smoothed Newton finds the point; scores below ``NEAR`` are then set to
    0 by the shortest move, and a subgradient v at the result bounds the distance to the minimum.

    Returns:
        (N, d) points and (N,) the bounds |v| / modulus on their distance to the minimum.
    """
    size = 1 / (2 * modulus)
    x = smoothed_minima(problem, rho, theta, FINEST, (theta, size))
    h, bends = problem.score(x).flatten(1), kink_slopes(problem).flatten(0, 2)
    active = h.abs() < NEAR
    push = h / torch.sqrt(h * h + 10.0 ** (-2 * FINEST))
    rows = bends * active[..., None]
    x = x - (torch.linalg.pinv(rows, rtol=1e-6) @ (h * active)[..., None])[..., 0]
    # On active pairs any slope of |h| between -1 and 1 is a subgradient: the smoothed one is nearly the best.
    slopes = torch.where(active, push, h.sign())

    def linearised(leaf: Tensor) -> Tensor:
        signed = (problem.pairs(leaf) * problem.score(leaf)).flatten(1)
        value = rho * (signed * slopes).sum(dim=-1) - problem.objective(leaf)
        return value + (leaf - theta).square().sum(dim=-1) / (2 * size)

    leaf = x.clone().requires_grad_()
    (v,) = torch.autograd.grad(linearised(leaf).sum(), leaf)
    return x, (x - project(x - v, RADIUS)).norm(dim=-1) / modulus
