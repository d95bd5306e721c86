"""The two forms of one gradient, against the derivative of J, and how noisy one sample of each is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from benchmarks.record import Row
from benchmarks.theory.critic.problem import STD, Problems, pair_nodes, per_state, random_problems

PROBLEMS = 20
TEMPERATURES = (0.3, 1.0, 3.0, 10.0)
"""tau of the labels; values differ by about 1."""
BETA = 0.3
NODES = 80
"""Quadrature nodes of each action: sharp labels need many."""


def objective(problems: Problems, mean: Tensor, beta: float, tau: float) -> Tensor:
    """(P, X) E[F] of each state for mean actions (P, X), written out without the project's objectives."""
    eps, weights = pair_nodes(NODES)
    actions = mean[..., None, None] + STD * eps
    reference = problems.mean(problems.reference)[..., None, None]
    ratio = ((actions - reference).square() - (actions - mean[..., None, None]).square()) / (2 * STD**2)
    h = beta * (ratio[..., 0] - ratio[..., 1])
    q = problems.value(actions)
    p = ((q[..., 0] - q[..., 1]) / tau).sigmoid()
    return ((p * logsigmoid(h) + (1 - p) * logsigmoid(-h)) * weights).sum(-1)


def derivative(problems: Problems, theta: Tensor, beta: float, tau: float) -> Tensor:
    """(P, X) derivative of J in the mean action of each state, by five-point differences."""
    mean, step = problems.mean(theta), 1e-3
    near = [objective(problems, mean + k * step, beta, tau) for k in (-2, -1, 1, 2)]
    return (8 * (near[2] - near[1]) - (near[3] - near[0])) / (12 * step)


def gradient_rows() -> list[Row]:
    """For each temperature and c: the largest difference of the forms, and of c = 1 from grad J; the noise.

    Differences are relative to the largest gradient of a problem. ``noise`` is the deviation of one sampled
    pair divided by the length of the gradient, medians over problems and states.
    """
    problems = random_problems(PROBLEMS)
    generator = torch.Generator().manual_seed(0)
    shift = torch.randn(problems.reference.shape, generator=generator, dtype=torch.float64)
    theta = problems.reference + 0.3 * shift
    rows: list[Row] = []
    for tau in TEMPERATURES:
        for c in (0.0, 0.3, 1.0):
            found = {
                form: per_state(problems, theta, form, beta=BETA, c=c, tau=tau, count=NODES)
                for form in ("pathwise", "score")
            }
            pathwise, noise = found["pathwise"]
            score, score_noise = found["score"]
            size = pathwise.abs().amax(dim=1, keepdim=True)
            truth = derivative(problems, theta, BETA, tau)
            rows.append(
                {
                    "tau": tau,
                    "c": c,
                    "forms_differ_max": float(((pathwise - score) / size).abs().max()),
                    "distance_to_grad_J_median": float(((pathwise - truth).abs() / size).median()),
                    "distance_to_grad_J_max": float(((pathwise - truth).abs() / size).max()),
                    "noise_pathwise": float((noise / pathwise.abs()).median()),
                    "noise_score": float((score_noise / pathwise.abs()).median()),
                }
            )
    return rows
