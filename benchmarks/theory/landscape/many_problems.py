"""The same thresholds over many random problems, on grids of points."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.record import Row
from benchmarks.theory.ball import shell_points
from benchmarks.theory.landscape.curvature import Curvature, largest, smallest
from benchmarks.theory.landscape.thresholds import any_radius_threshold, working_range
from benchmarks.theory.problem import Problem, random_problem, reference_parameters

PROBLEMS = 50
"""Random problems over which shares are taken."""


def problem_rows() -> list[Row]:
    """Shares over random problems of three features, on grids of points."""
    rows: list[Row] = []
    for beta in (0.1, 1.0):
        problems = [random_problem(seed, beta=beta) for seed in range(PROBLEMS)]
        shapes = pd.DataFrame([shape for problem in problems for shape in ball_shapes(problem)])
        fails = [failure(problem, reference_parameters(problem), limit=4.0) for problem in problems]
        for radius, here in shapes.groupby("radius"):
            rows.append(
                {
                    "beta": beta,
                    "radius": radius,
                    "problems": PROBLEMS,
                    "J_not_concave": float((here["bend"] > 0).mean()),
                    "gamma_tight_median": float(here["tight"].median()),
                    "gamma_tight_max": float(here["tight"].max()),
                    "gamma_bound_median": float(here["bound"].median()),
                    "gamma_any_radius_median": float(here["anywhere"].median()),
                    "tight_over_any_radius_max": float((here["tight"] / here["anywhere"]).max()),
                    "kl_pi_ref_indefinite": float((here["pi_ref"] < 0).mean()),
                    "kl_pi_ref_no_gamma": float(here["low"].isna().mean()),
                    "kl_pi_ref_fails_at_distance_median": float(np.nanmedian([far for far, _ in fails])),
                    "kl_pi_ref_fails_at_nats_median": float(np.nanmedian([nats for _, nats in fails])),
                }
            )
    return rows


def ball_shapes(problem: Problem) -> list[dict[str, float]]:
    """The thresholds of nested balls, on one grid of points, without local search."""
    points = shell_points(problem.dimension, 4.0, directions=60, shells=16)
    whole = Curvature.at(problem, points)
    shapes = []
    for radius in (0.5, 1.0, 2.0, 4.0):
        here = whole.at_points(points.norm(dim=-1) < radius + 1e-9)
        bend = float(largest(here.objective).max())
        shapes.append(
            {
                "radius": radius,
                "bend": bend,
                "tight": float(here.penalised(0.0, "kl_ref_pi").max()),
                "bound": bend / float(smallest(here.fisher).min()),
                "anywhere": any_radius_threshold(problem),
                "pi_ref": float(smallest(here.pi_ref).min()),
                "low": working_range(here)[0],
            }
        )
    return shapes


def failure(problem: Problem, centre: Tensor, limit: float) -> tuple[float, float]:
    """Where the Hessian of KL(pi_theta || pi_ref) first has a negative eigenvalue as theta leaves ``centre``.

    Returns:
        The distance, and the least KL(pi_theta || pi_ref) in nats of all such points within ``limit``; NaN
        and NaN when there is none.
    """
    kl = partial(problem.kl, direction="kl_pi_ref")
    points = shell_points(problem.dimension, limit, directions=200, shells=50)
    bent = smallest(torch.func.vmap(torch.func.hessian(kl))(centre + points)) < 0
    if not bent.any():
        return math.nan, math.nan
    return float(points[bent].norm(dim=-1).min()), float(kl(centre + points[bent]).min())
