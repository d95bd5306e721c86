"""The objectives that are followed, J with and without a KL penalty, and their maxima in the ball."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.theory.ball import minimise, points_in_ball
from benchmarks.theory.problem import Problem, reference_parameters
from sailctl.core.types import RunError

RADIUS = 6.0
GAMMA = 0.3
ARMS = (
    ("sail", 0.0),
    ("kl_ref_pi", GAMMA),
    ("kl_pi_ref", GAMMA),
    ("kl_ref_pi", 3.0),
    ("kl_pi_ref", 3.0),
    ("kl_ref_pi", 0.03),
)
"""Penalty and gamma of each objective that is followed exactly."""
SAMPLED = ARMS[:3]
"""The objectives that are also followed stochastically."""
PAPER = 1
"""Index of the paper's objective in ``ARMS``."""
STARTS = 120
"""Starts of each search for a global maximum."""


@dataclass(frozen=True)
class Objective:
    """J - ref_pi KL(pi_ref || pi) - pi_ref KL(pi || pi_ref), one pair of weights or one for each row."""

    problem: Problem
    ref_pi: Tensor
    """(N,) weights, or 0-d."""
    pi_ref: Tensor
    """(N,) weights, or 0-d."""

    def __call__(self, theta: Tensor) -> Tensor:
        """(N,) values at (N, d) parameters."""
        penalty = self.ref_pi * self.problem.kl(theta, "kl_ref_pi")
        return self.problem.objective(theta) - penalty - self.pi_ref * self.problem.kl(theta, "kl_pi_ref")

    def repeat(self, count: int) -> Objective:
        """Each row repeated ``count`` times."""
        return Objective(
            self.problem, self.ref_pi.repeat_interleave(count), self.pi_ref.repeat_interleave(count)
        )


def weights_of(arms: Sequence[tuple[str, float]]) -> Tensor:
    """(N, 2) weights of KL(pi_ref || pi) and of KL(pi || pi_ref)."""
    return torch.tensor(
        [[gamma * (name == direction) for direction in ("kl_ref_pi", "kl_pi_ref")] for name, gamma in arms],
        dtype=torch.float64,
    )


def objectives(problem: Problem, arms: Sequence[tuple[str, float]]) -> Objective:
    """One row for each arm."""
    return Objective(problem, *weights_of(arms).T)


def global_maxima(objective: Objective) -> tuple[Tensor, Tensor]:
    """The global maximum in the ball of each row: (N, d) points and (N,) values.

    The best result of Newton's method from many starts, improved by more steps.

    Raises:
        RunError: when a best point is not stationary.
    """
    count = len(objective.ref_pi)
    starts = points_in_ball(STARTS, objective.problem.dimension, RADIUS, seed=0)
    starts = torch.cat([starts, reference_parameters(objective.problem)[None]])
    many = objective.repeat(len(starts))
    found, _ = minimise(lambda theta: -many(theta), starts.repeat(count, 1), RADIUS, steps=40)
    best = many(found).reshape(count, -1).argmax(dim=1)
    chosen = found.reshape(count, len(starts), -1)[torch.arange(count), best]
    chosen, error = minimise(lambda theta: -objective(theta), chosen, RADIUS, steps=300)
    if error.max() > 1e-9:
        raise RunError(f"the maximum is only stationary to {error.max():.1e}")
    return chosen, objective(chosen)


def local_maxima(objective: Objective) -> list[int]:
    """How many different local maxima Newton's method finds in the ball, for each row."""
    count = len(objective.ref_pi)
    starts = points_in_ball(STARTS, objective.problem.dimension, RADIUS, seed=1)
    many = objective.repeat(len(starts))
    found, error = minimise(lambda theta: -many(theta), starts.repeat(count, 1), RADIUS, steps=60)
    values = many(found).reshape(count, -1)
    return [
        len(np.unique(np.round(row[settled].numpy(), 6)))
        for row, settled in zip(values, (error < 1e-8).reshape(count, -1), strict=True)
    ]
