"""Which gamma makes J - gamma KL concave: for any radius by a formula, on a set of points by looking."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.theory.landscape.curvature import Curvature, largest
from benchmarks.theory.problem import Problem


def any_radius_threshold(problem: Problem) -> float:
    """Above it, J - gamma KL(pi_ref || pi_theta) is concave at every theta, however large (derived).

    For one prompt, with s the scores of the responses, V = E_z log sigma(z h) and U = V + log 2 <= log 2,

        Hess J = E[U ((s1 + s2)(s1 + s2)^T - 2 Fisher)] + 4 beta E[V' s1 s1^T]
                 + beta^2 E[V'' (s1 - s2)(s1 - s2)^T],

    where V'' <= 0, |V'| <= 1 and -U <= |h|. So Hess J is at most 2 log 2 + 4 beta + 2 E|h| times the Fisher
    information, and E|h| <= 2 beta E|log pi/pi_ref| <= 2 beta (log Y + max log 1/pi_ref).
    """
    spread = math.log(problem.phi.shape[-2]) + float(-problem.ref_logp.min())
    return 2 * math.log(2) + 4 * problem.beta * (1 + spread)


def share_concave(curvature: Curvature, gamma: float) -> float:
    """Share of points at which J - gamma KL(pi_ref || pi_theta) is strictly concave."""
    return float((largest(curvature.objective - gamma * curvature.ref_pi) < 0).double().mean())


GAMMAS = np.concatenate([[0.0], np.geomspace(0.01, 1000, 80)])
"""Grid on which a gamma that works is sought."""


def working_range(curvature: Curvature) -> tuple[float, float, float]:
    """Which gamma make J - gamma KL(pi_theta || pi_ref) concave at all points.

    The largest eigenvalue over the points is a convex function of gamma, so these gamma form an interval.

    Returns:
        The ends of the interval on the grid ``GAMMAS`` (NaN and NaN when it is empty), and the lowest value
        that the largest relative eigenvalue takes.
    """
    worst = np.array([float(curvature.penalised(float(gamma), "kl_pi_ref").max()) for gamma in GAMMAS])
    works = GAMMAS[worst < 0]
    low, high = (works[0], works[-1]) if len(works) else (math.nan, math.nan)
    return float(low), float(high), float(worst.min())
