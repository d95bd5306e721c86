"""The robust loss L_rho = L_SAIL + rho E|h|, and the ball, problem and rho for which it is studied."""

from __future__ import annotations

from torch import Tensor

from benchmarks.theory.problem import Problem

RADIUS = 4.0
STUDIED = 7
"""Seed of the problem for weak convexity and stationarity."""
KINKS = {0.03: "smooth minimum", 0.1: "minimum on an edge", 0.16: "minimum at the reference"}
"""rho, and where the minimum of L_rho lies among the kinks of |h|."""


def loss(problem: Problem, rho: float, theta: Tensor) -> Tensor:
    """(N,) L_rho."""
    return -problem.robust(theta, rho)


def penalty(problem: Problem, theta: Tensor) -> Tensor:
    """(N,) E|h|."""
    return (problem.pairs(theta) * problem.score(theta).abs()).sum(dim=(-3, -2, -1))


def kink_slopes(problem: Problem) -> Tensor:
    """(X, Y, Y, d) gradients of h: beta (phi(x, y1) - phi(x, y2)), the same at every theta."""
    return problem.beta * (problem.phi[:, :, None, :] - problem.phi[:, None, :, :])
