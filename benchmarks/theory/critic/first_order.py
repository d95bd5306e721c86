"""T1 to first order, the effective beta that follows from it, and how far from the reference it holds."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.record import Row
from benchmarks.theory.critic.problem import STD, Problems, ascent, random_problems, where_it_stops
from sailctl.objectives import effective_beta

PROBLEMS = 20
BETA = 0.3
GAMMAS = (0.03, 0.1, 0.3)
SCALES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Factors of h and of (Q_1 - Q_2) / tau at once."""
TEMPERATURES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def first_order(problems: Problems, theta: Tensor, beta: float, tau: float) -> Tensor:
    """(P, D) the first-order formula: (beta / 2) [grad E[Q] / tau - beta grad KL]."""
    theta = theta.clone().requires_grad_()
    objective = problems.expected_value(theta) / tau - beta * problems.kl(theta)
    (slope,) = torch.autograd.grad(objective.sum(), theta)
    return beta / 2 * slope


def first_order_rows() -> list[Row]:
    """The relative error of the formula where h and the differences of Q / tau are small, and where not."""
    problems = random_problems(PROBLEMS)
    generator = torch.Generator().manual_seed(0)
    shift = torch.randn(problems.reference.shape, generator=generator, dtype=torch.float64)
    rows: list[Row] = []
    for scale in SCALES:
        theta = problems.reference + scale * STD * shift
        exact = ascent(problems, theta, beta=BETA, tau=1 / scale)
        error = (exact - first_order(problems, theta, BETA, 1 / scale)).norm(dim=1) / exact.norm(dim=1)
        rows.append(
            {
                "scale": scale,
                "kl_median": float(problems.kl(theta).median()),
                "error_median": float(error.median()),
                "error_max": float(error.max()),
            }
        )
    return rows


def effective_rows() -> list[Row]:
    """SAIL-RevKL(beta, gamma) beside SAIL(beta_eff): the angle between their steps, and where both stop.

    The lower the temperature, the sharper the labels and the farther they lead from the reference. ``cosine``
    is that of the two gradients halfway to where SAIL-RevKL stops. ``kl`` is the distance from the reference
    in nats where each stops, and ``value`` what was gained by then, medians over problems.
    """
    problems = random_problems(PROBLEMS)
    rows: list[Row] = []
    for gamma in GAMMAS:
        equal = effective_beta(BETA, gamma)
        for tau in TEMPERATURES:
            penalised = where_it_stops(problems, beta=BETA, gamma=gamma, tau=tau)
            plain = where_it_stops(problems, beta=equal, tau=tau)
            halfway = problems.reference + 0.5 * (penalised - problems.reference)
            ours = ascent(problems, halfway, beta=BETA, gamma=gamma, tau=tau)
            theirs = ascent(problems, halfway, beta=equal, tau=tau)
            cosine = torch.nn.functional.cosine_similarity(ours, theirs, dim=1)
            value = {
                name: problems.expected_value(theta) - problems.expected_value(problems.reference)
                for name, theta in (("revkl", penalised), ("equal_beta", plain))
            }
            rows.append(
                {
                    "gamma": gamma,
                    "beta_eff": equal,
                    "tau": tau,
                    "cosine_median": float(cosine.median()),
                    "cosine_q05": float(cosine.quantile(0.05)),
                    "kl_revkl": float(problems.kl(penalised).median()),
                    "kl_equal_beta": float(problems.kl(plain).median()),
                    "value_revkl": float(value["revkl"].median()),
                    "value_equal_beta": float(value["equal_beta"].median()),
                }
            )
    return rows
