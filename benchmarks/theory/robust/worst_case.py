"""The decomposition: formulas for the cost of the worst teacher, against a search for that teacher."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.record import Row
from benchmarks.theory.problem import Problem, random_problem, stack
from sailctl.core.types import RunError
from sailctl.objectives import robust_cost

PROBLEMS = 200
"""Random problems of the worst case, a random policy on each."""
RHOS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)


def worst_teacher(problem: Problem, theta: Tensor, rho: float) -> Tensor:
    """(..., X, Y, Y) the teacher within rho of P* and within [0, 1] for which J is least.

    Projected gradient descent on the probabilities themselves, P(y2 > y1) = 1 - P(y1 > y2) kept, with steps
    long enough to cross the set at once. J is linear in the probabilities: the second step changes nothing.
    """
    low, high = (problem.chance - rho).clamp(min=0), (problem.chance + rho).clamp(max=1)
    upper = torch.ones_like(problem.chance).triu(1)
    free = problem.chance * upper
    for _ in range(100):
        leaf = free.clone().requires_grad_()
        chance = leaf * upper + (1 - leaf.mT) * upper.mT + 0.5 * (1 - upper - upper.mT)
        value = replace(problem, chance=chance).objective(theta).sum()
        (slope,) = torch.autograd.grad(value, leaf)
        following = torch.clamp(free - 1e12 * slope, low, high) * upper
        if torch.equal(following, free):
            return chance.detach()
        free = following
    raise RunError("the search for the worst teacher does not come to an end")


def worst_case_rows() -> list[Row]:
    """Three formulas for the cost of the worst teacher, against the search.

    ``exact`` is the paper's rho |h|. ``clipped`` keeps the worst teacher within [0, 1], with P* given.
    ``around labels`` is what ``worst_case: clipped`` computes from drawn labels: it takes each label, 0 or 1,
    for P*, so that its mean cost is rho P* where h > 0.
    """
    rows: list[Row] = []
    for quality in (0.3, 2.0):
        problem = stack([random_problem(seed, quality=quality) for seed in range(PROBLEMS)])
        theta = torch.from_numpy(np.random.default_rng(0).normal(size=(PROBLEMS, problem.dimension)))
        different = ~torch.eye(problem.chance.shape[-1], dtype=torch.bool)
        room = torch.minimum(problem.chance, 1 - problem.chance)[..., different]
        h, pairs, chance = problem.score(theta), problem.pairs(theta), problem.chance
        for rho in RHOS:
            worst = replace(problem, chance=worst_teacher(problem, theta, rho)).objective(theta)
            cost = problem.objective(theta) - worst
            drawn = chance * robust_cost(h, rho, torch.ones_like(h))
            drawn = drawn + (1 - chance) * robust_cost(h, rho, torch.zeros_like(h))
            charged = {
                "exact": problem.objective(theta) - problem.robust(theta, rho),
                "clipped": problem.objective(theta) - problem.robust(theta, rho, clipped=True),
                "around labels": (pairs * drawn).sum(dim=(-3, -2, -1)),
            }
            regular = (room >= rho).flatten(1).all(dim=1)
            for formula, price in charged.items():
                error = (price - cost).abs()
                rows.append(
                    {
                        "quality": quality,
                        "rho": rho,
                        "formula": formula,
                        "problems": PROBLEMS,
                        "share_degenerate_pairs": float((room < rho).double().mean()),
                        "non_degenerate_problems": int(regular.sum()),
                        "error_max": float(error.max()),
                        "error_max_non_degenerate": float(error[regular].max())
                        if regular.any()
                        else float("nan"),
                        "charged_over_true_median": float((price / cost).median()),
                        "charged_over_true_min": float((price / cost).min()),
                        "charged_over_true_max": float((price / cost).max()),
                    }
                )
    return rows
