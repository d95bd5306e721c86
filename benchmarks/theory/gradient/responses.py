"""The bias of T1 + c T2 on random problems with a few responses."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmarks.record import Row
from benchmarks.theory.estimator import ascent, compare, expected_loss
from benchmarks.theory.problem import Problem, random_problem, stack

PROBLEMS = 1000
BETAS = (0.1, 0.3, 1.0, 3.0)
COEFFICIENTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)


def estimated(problem: Problem, theta: Tensor, c: float) -> Tensor:
    """(..., d) expectation of T1 + c T2."""
    return ascent(
        lambda leaf: expected_loss(problem, leaf, problem.pairs(leaf).detach(), problem.chance, c=c), theta
    )


def true_gradient(problem: Problem, theta: Tensor) -> Tensor:
    """(..., d) gradient of the enumerated J."""
    return ascent(lambda leaf: -problem.objective(leaf).sum(), theta)


def response_rows() -> list[Row]:
    """The bias of T1 + c T2 over random problems, each at a random theta."""
    rows: list[Row] = []
    for beta in BETAS:
        problem = stack([random_problem(seed, beta=beta) for seed in range(PROBLEMS)])
        theta = torch.from_numpy(np.random.default_rng(0).normal(size=(PROBLEMS, problem.dimension)))
        truth = true_gradient(problem, theta)
        for c in COEFFICIENTS:
            row = compare(estimated(problem, theta, c), truth)
            rows.append({"part": "responses", "setting": f"beta={beta}", "c": c, **row})
    return rows
