"""The bias of the penalty: what gamma takes from J at the maximum."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from benchmarks.record import Row
from benchmarks.theory.ball import derivatives
from benchmarks.theory.convergence.objectives import RADIUS, global_maxima, objectives
from benchmarks.theory.convergence.paths import Studied

GAMMAS = tuple(np.geomspace(1e-4, 3.0, 19).tolist())


def bias_rows(studied: Sequence[Studied]) -> list[Row]:
    """J(theta*) - J(theta_gamma) and |theta_gamma - theta*| at the global maxima in the ball.

    theta_gamma maximises J - gamma KL, where it is at least what it is at theta*. So J(theta*) -
    J(theta_gamma), the bias, is at most gamma (KL(theta*) - KL(theta_gamma)) <= gamma KL(theta*) (derived).
    ``distance_first_order`` is gamma |Hess J(theta*)^-1 grad KL(theta*)|, where theta* is inside the ball.
    """
    rows: list[Row] = []
    for known in (each for each in studied if each.case.name == "reference"):
        problem, best = known.case.problem, known.place[0]
        inside = bool(best.norm() < RADIUS * (1 - 1e-9))
        curvature = derivatives(problem.objective, best[None])[2][0]
        for direction in ("kl_ref_pi", "kl_pi_ref"):
            at_best = problem.kl(best, direction)
            pull = derivatives(partial(problem.kl, direction=direction), best[None])[1][0]
            shift = torch.linalg.solve(curvature, pull).norm()
            places, _ = global_maxima(objectives(problem, [(direction, gamma) for gamma in GAMMAS]))
            kl, value = problem.kl(places, direction), problem.objective(places)
            for index, gamma in enumerate(GAMMAS):
                rows.append(
                    {
                        "problem": known.case.seed,
                        "direction": direction,
                        "gamma": gamma,
                        "bias": float(problem.objective(best) - value[index]),
                        "tight_bound": float(gamma * (at_best - kl[index])),
                        "bound": float(gamma * at_best),
                        "distance": float((places[index] - best).norm()),
                        "distance_first_order": float(gamma * shift) if inside else float("nan"),
                    }
                )
    return rows
