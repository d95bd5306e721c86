"""Weak convexity: the smallest m for which L_rho + m/2 |theta|^2 is convex on the ball."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.record import Row
from benchmarks.theory.ball import derivatives, maximise, points_in_ball, project
from benchmarks.theory.problem import Problem, random_problem
from benchmarks.theory.robust.loss import KINKS, STUDIED, kink_slopes, loss, penalty

BALLS = (0.5, 1.0, 2.0, 4.0, 8.0)
SEGMENTS = 20_000
"""Random segments on which convexity is tested."""


def downward_curvature(function: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """(N,) minus the smallest eigenvalue of the Hessian of a smooth piece."""
    lowest: Tensor = torch.linalg.eigvalsh(derivatives(function, theta)[2])[:, 0]
    return -lowest


def modulus(
    function: Callable[[Tensor], Tensor], radius: float, known: Sequence[Tensor]
) -> tuple[float, Tensor]:
    """m, the largest downward curvature in the ball, and where. Known points are tried too."""
    points = points_in_ball(1500, 3, radius, seed=7)
    rim = project(1e3 * points[:300], radius)
    return maximise(
        partial(downward_curvature, function), torch.cat([points, rim, *known]), radius, rounds=25
    )


def modulus_bound(problem: Problem) -> float:
    """m for the penalty alone, for any radius (derived).

    With s the scores of the responses (phi less its mean), the Hessian of E|h| away from its kinks is
    E[|h| ((s1 + s2)(s1 + s2)^T - 2 Fisher)] + 2 beta E[sign(h) (s1 s1^T - s2 s2^T)], which is at least
    -(2 E|h| + 4 beta) Fisher, E|h| <= 2 beta (log Y + max log 1/pi_ref), and the Fisher information of a
    prompt is at most a quarter of the largest squared distance between features. Kinks only bend upwards.
    """
    spread = math.log(problem.phi.shape[-2]) + float(-problem.ref_logp.min())
    widest = float((kink_slopes(problem) / problem.beta).square().sum(dim=-1).max())
    return 4 * problem.beta * (1 + spread) * widest / 4


def midpoint_excess(function: Callable[[Tensor], Tensor], modulus: float, radius: float, seed: int) -> float:
    """Largest violation of convexity of function + modulus/2 |.|^2 at the middle of random segments.

    A quarter of the segments is as long as the ball allows, the others are up to 1000 times shorter.
    """
    one = points_in_ball(SEGMENTS, 3, radius, seed)
    other = points_in_ball(SEGMENTS, 3, radius, seed + 1)
    share = torch.logspace(-3, 0, 4, dtype=torch.float64).repeat(SEGMENTS // 4)[:, None]
    other = one + share * (other - one)
    middle = (one + other) / 2
    excess = function(middle) - (function(one) + function(other)) / 2
    # |middle|^2 minus the mean of both ends' squares is minus a quarter of the squared distance.
    curve = (one - other).square().sum(dim=-1) / 8
    return float((excess - modulus * curve).max())


def convexity_rows() -> list[Row]:
    """m on balls of several radii for several rho, and a test of it on random segments."""
    problem = random_problem(STUDIED, quality=0.5)
    rows: list[Row] = []
    alone: list[float] = []
    for rho in (None, 0.0, *KINKS):
        function = partial(penalty, problem) if rho is None else partial(loss, problem, rho)
        known: list[Tensor] = []
        for index, radius in enumerate(BALLS):
            m, place = modulus(function, radius, known)
            known = [place[None]]
            if rho is None:
                alone.append(m)
                continue
            rows.append(
                {
                    "rho": rho,
                    "radius": radius,
                    "m": m,
                    "m_of_penalty": alone[index],
                    "m_of_penalty_any_radius": modulus_bound(problem),
                    "worst_point_norm": float(place.norm()),
                    "excess_at_1.01_m": midpoint_excess(function, 1.01 * m, radius, seed=8),
                    "excess_without": midpoint_excess(function, 0.0, radius, seed=8),
                }
            )
    return rows
