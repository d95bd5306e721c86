"""The thresholds of one problem on one ball, searched precisely and tested at new points."""

from __future__ import annotations

import torch

from benchmarks.record import Row
from benchmarks.theory.ball import maximise, random_points, shell_points
from benchmarks.theory.landscape.curvature import Curvature, hessians_of_objective, largest, smallest
from benchmarks.theory.landscape.thresholds import any_radius_threshold, share_concave, working_range
from benchmarks.theory.problem import Problem

FRESH = 20_000
"""New random points at which a threshold is put to the test."""


def two_responses() -> Problem:
    """The smallest counterexample: two responses, one feature, a uniform reference, an undecided teacher."""
    half = torch.full((1, 2, 2), 0.5, dtype=torch.float64)
    return Problem(
        prompt=torch.ones(1, dtype=torch.float64),
        phi=torch.tensor([[[0.0], [1.0]]], dtype=torch.float64),
        ref_logp=half[:, 0].log(),
        chance=half,
        beta=1.0,
    )


def ball_row(name: str, problem: Problem, radius: float) -> Row:
    """Everything about one ball of one problem."""
    points = shell_points(problem.dimension, radius, directions=120, shells=20)
    bend, _ = maximise(lambda t: largest(hessians_of_objective(problem, t)), points, radius)
    least, _ = maximise(lambda t: -smallest(problem.fisher(t)), points, radius)
    tight, where = maximise(lambda t: Curvature.at(problem, t).penalised(0.0, "kl_ref_pi"), points, radius)
    fresh = Curvature.at(problem, random_points(problem.dimension, radius, FRESH, seed=1))
    there = Curvature.at(problem, where[None])
    bound, anywhere = bend / -least, any_radius_threshold(problem)
    low, high, worst = working_range(Curvature.at(problem, points))
    return {
        "problem": name,
        "radius": radius,
        "largest_eigenvalue_J": bend,
        "smallest_eigenvalue_fisher": -least,
        "gamma_bound": bound,
        "gamma_tight": tight,
        "gamma_any_radius": anywhere,
        "concave_at_bound": share_concave(fresh, max(bound, 0.0)),
        "concave_at_1.01_tight": share_concave(fresh, max(1.01 * tight, 0.0)),
        "bends_up_at_0.99_tight": bool(there.penalised(0.99 * tight, "kl_ref_pi") > 0),
        "concave_at_any_radius": share_concave(fresh, anywhere),
        "modulus_at_any_radius": float(smallest(anywhere * fresh.ref_pi - fresh.objective).min()),
        "fisher_identity_error": float((fresh.ref_pi - fresh.fisher).abs().max() / fresh.fisher.abs().max()),
        "smallest_eigenvalue_kl_pi_ref": float(smallest(fresh.pi_ref).min()),
        "kl_pi_ref_gamma_low": low,
        "kl_pi_ref_gamma_high": high,
        "kl_pi_ref_least_worst": worst,
    }
