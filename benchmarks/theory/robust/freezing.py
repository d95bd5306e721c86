"""Freezing: from which rho on the reference itself is stationary, so that the policy stays where it is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks.record import Row
from benchmarks.theory.ball import derivatives, maximise, points_in_ball
from benchmarks.theory.problem import Problem, random_problem, reference_parameters
from benchmarks.theory.robust.loss import RADIUS, kink_slopes
from benchmarks.theory.robust.proximal import smoothed_minima

FROZEN = 8
"""Random problems for each scale of the qualities."""


def freezing_rho(problem: Problem) -> float:
    """The smallest rho for which the reference is a stationary point of L_rho (derived).

    There h = 0 for every pair, and L_rho grows along v at the rate rho E|v . grad h| - v . grad J. So rho is
    the largest v . grad J / E|v . grad h| over all directions.
    """
    reference = reference_parameters(problem)
    slope = derivatives(problem.objective, reference[None])[1][0]
    bends, weight = kink_slopes(problem), problem.pairs(reference)

    def rate(directions: Tensor) -> Tensor:
        along = (bends @ directions.T).abs()
        return directions @ slope / (weight[..., None] * along).sum(dim=(0, 1, 2))

    found, _ = maximise(rate, points_in_ball(2000, problem.dimension, 1.0, seed=5), 1.0)
    return found


def freezing_rows() -> list[Row]:
    """``freezes_at``, and how far the minimum in the ball is below L_rho(reference) just above it.

    ``half`` is max |P* - 1/2|: for a larger rho the set contains a teacher that answers at random, and no
    policy predicts its answers better than the reference does. ``room`` is min(P*, 1 - P*), the largest rho
    for which the decomposition is exact.
    """
    rows: list[Row] = []
    for quality in (0.3, 0.7, 2.0):
        for seed in range(FROZEN):
            problem = random_problem(seed, quality=quality)
            different = ~torch.eye(problem.chance.shape[-1], dtype=torch.bool)
            chance = problem.chance[:, different]
            freezes, half = freezing_rho(problem), float((chance - 0.5).abs().max())
            rows.append(
                {
                    "quality": quality,
                    "problem": seed,
                    "room": float(torch.minimum(chance, 1 - chance).min()),
                    "freezes_at": freezes,
                    "half": half,
                    "below_reference_at_freezing": below_reference(problem, 1.001 * freezes),
                }
            )
    return rows


def below_reference(problem: Problem, rho: float) -> float:
    """L_rho at the reference minus its smallest value found in the ball, at least 0."""
    found = smoothed_minima(problem, rho, points_in_ball(20, problem.dimension, RADIUS, seed=6), finest=6)
    return max(0.0, math.log(2) + float(problem.robust(found, rho).max()))
