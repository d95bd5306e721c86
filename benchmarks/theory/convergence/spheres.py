"""mu and the modulus of concavity on whole spheres, inside and outside the ball."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.record import Row
from benchmarks.theory.ball import derivatives, points_in_ball
from benchmarks.theory.convergence.objectives import ARMS, GAMMA, Objective
from benchmarks.theory.convergence.paths import Studied

RADII = (2.0, 4.0, 8.0, 16.0, 32.0)
"""Radii of the spheres, some of them outside the ball."""
SPHERE = 2000
"""Points on each."""


def radius_rows(studied: Sequence[Studied]) -> list[Row]:
    """mu on whole spheres: the smallest |grad|^2 / (2 gap) at random points of each.

    ``modulus`` is the smallest eigenvalue of minus the Hessian there: strong concavity needs it positive.
    Only for gamma so large that the maximum is well inside the ball: then it is the maximum over all theta.
    """
    rows: list[Row] = []
    directions = points_in_ball(SPHERE, 3, 1.0, seed=12)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    for known in (each for each in studied if each.case.name == "reference"):
        for arm, (name, gamma) in enumerate(ARMS):
            if gamma < GAMMA:
                continue
            objective = Objective(
                known.case.problem, known.objective.ref_pi[arm], known.objective.pi_ref[arm]
            )
            for radius in RADII:
                value, slope, curvature = derivatives(objective, radius * directions)
                ratio = slope.square().sum(dim=-1) / (2 * (known.best[arm] - value))
                rows.append(
                    {
                        "problem": known.case.seed,
                        "objective": name,
                        "gamma": gamma,
                        "radius": radius,
                        "points": SPHERE,
                        "mu": float(ratio.min()),
                        "modulus": float(torch.linalg.eigvalsh(-curvature)[:, 0].min()),
                    }
                )
    return rows
