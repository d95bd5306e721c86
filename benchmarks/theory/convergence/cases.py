"""Where ascent starts in each problem: at the reference, near a saddle of J, and on a plateau of J."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.record import Row
from benchmarks.theory.ball import derivatives, points_in_ball, project
from benchmarks.theory.convergence.objectives import RADIUS
from benchmarks.theory.problem import Problem, random_problem, reference_parameters

PROBLEMS = (7, 4, 6)
"""Seeds of the problems; the first is the one in the figure's first panels."""


def saddle_of_j(problem: Problem) -> Tensor:
    """(d,) the stationary point of J nearest to the reference where J curves upwards in some direction.

    Levenberg-Marquardt steps on |grad J|^2 from many starts find stationary points of every kind.
    """
    theta = points_in_ball(400, problem.dimension, RADIUS, seed=2)
    damping = torch.full((len(theta), 1, 1), 1e-2, dtype=torch.float64)
    eye = torch.eye(problem.dimension, dtype=torch.float64)
    _, slope, curvature = derivatives(problem.objective, theta)
    for _ in range(60):
        step = torch.linalg.solve(curvature @ curvature + damping * eye, curvature @ slope[..., None])[..., 0]
        trial = project(theta - step, RADIUS)
        _, new_slope, new_curvature = derivatives(problem.objective, trial)
        better = new_slope.norm(dim=-1) < slope.norm(dim=-1)
        theta = torch.where(better[:, None], trial, theta)
        slope = torch.where(better[:, None], new_slope, slope)
        curvature = torch.where(better[:, None, None], new_curvature, curvature)
        damping = torch.where(better[:, None, None], damping / 4, damping * 4)
    bend = torch.linalg.eigvalsh(curvature)[:, -1]
    saddles = theta[(slope.norm(dim=-1) < 1e-10) & (bend > 1e-3) & (theta.norm(dim=-1) < 0.95 * RADIUS)]
    nearest: Tensor = saddles[(saddles - reference_parameters(problem)).norm(dim=-1).argmin()]
    return nearest


def plateau_of_j(problem: Problem) -> Tensor:
    """(d,) the flattest of many points near the boundary, where pi_theta is almost deterministic."""
    points = points_in_ball(4000, problem.dimension, RADIUS, seed=3)
    points = 0.95 * RADIUS * points / points.norm(dim=-1, keepdim=True)
    slope = derivatives(problem.objective, points)[1]
    flattest: Tensor = points[slope.norm(dim=-1).argmin()]
    return flattest


@dataclass(frozen=True)
class Case:
    """A problem and a start."""

    problem: Problem
    seed: int
    name: str
    start: Tensor

    @property
    def label(self) -> Row:
        """Its columns in the records."""
        return {"problem": self.seed, "start": self.name}


def cases() -> list[Case]:
    """Every problem with every kind of start."""
    found = []
    for seed in PROBLEMS:
        problem = random_problem(seed, quality=1.0)
        beside = 1e-3 * torch.ones(problem.dimension, dtype=torch.float64)
        starts = {
            "reference": reference_parameters(problem),
            "saddle": saddle_of_j(problem) + beside,
            "plateau": plateau_of_j(problem),
        }
        found += [Case(problem, seed, name, start) for name, start in starts.items()]
    return found
