"""Two sets of teachers: P within rho of P*, and P* with a share rho of arbitrary answers. What each costs."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from benchmarks.record import Row
from sailctl.objectives import dpo_loss, plackett_luce, ranking_cost, robust_cost

RHO = 0.2
CHANCES = tuple(round(0.05 * k, 2) for k in range(21))
"""P*, the probability that the better-scored answer of a pair is preferred."""
SETS = ("exact", "clipped", "contaminated")
SIZES = (2, 3, 4, 5, 6)
"""K, segments of a ranking."""
RANKINGS = 500
"""Random scores for each K, with a ranking drawn from other random scores."""
SCORES = torch.linspace(-8.0, 8.0, 16_001, dtype=torch.float64)
"""Scores h among which the best one of a pair is searched."""


def teachers(name: str, chance: float, rho: float) -> Tensor:
    """The probabilities P that a set allows, its ends among them; ``exact`` may leave [0, 1]."""
    if name == "contaminated":
        return (1 - rho) * chance + rho * torch.linspace(0, 1, 101, dtype=torch.float64)
    shifted = chance + torch.linspace(-rho, rho, 101, dtype=torch.float64)
    return shifted if name == "exact" else shifted.clamp(0, 1)


def cost(name: str, h: Tensor, chance: float, rho: float) -> Tensor:
    """The cost (B,) of pairs with score h by its formula."""
    if name == "exact":
        return robust_cost(h, rho)
    return robust_cost(h, rho, torch.full_like(h, chance), contaminated=name == "contaminated")


def sets_rows() -> list[Row]:
    """For each P*: the formula of the cost, a search over the teachers of the set, and the best score.

    ``cost`` is per unit of h > 0. ``best`` is sigma(h) at the best score of the pair, searched on a grid, and
    ``predicted`` the formula: max(1/2, P* - rho) for ``exact`` and max(1/2, (1 - rho) P*) for
    ``contaminated``, if the answer is the better one (P* >= 1/2). A pair with ``best`` 1/2 teaches nothing.
    """
    rows: list[Row] = []
    one = torch.ones(1, dtype=torch.float64)
    for name in SETS:
        for chance in CHANCES:
            value = [float(-dpo_loss(one, (2 * p - 1) * one)) for p in teachers(name, chance, RHO)]
            truth = float(-dpo_loss(one, (2 * chance - 1) * one))
            robust = -dpo_loss(SCORES, torch.full_like(SCORES, 2 * chance - 1))
            robust = robust - cost(name, SCORES, chance, RHO)
            predicted = {
                "exact": max(0.5, chance - RHO),
                "clipped": max(0.5, chance - RHO),
                "contaminated": max(0.5, (1 - RHO) * chance),
            }[name]
            rows.append(
                {
                    "set": name,
                    "rho": RHO,
                    "chance": chance,
                    "cost": float(cost(name, one, chance, RHO)),
                    "searched": truth - min(value),
                    "best": float(SCORES[robust.argmax()].sigmoid()),
                    "predicted": predicted if chance >= 0.5 else math.nan,
                }
            )
    return rows


def rankings_rows() -> list[Row]:
    """For each K: the worst order of all K! against the scores in ascending order, and its mean cost."""
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for size in SIZES:
        score, quality = (torch.from_numpy(rng.normal(size=(RANKINGS, size))) for _ in range(2))
        gumbel = torch.from_numpy(rng.gumbel(size=(RANKINGS, size)))
        score = score.gather(1, (quality + gumbel).argsort(dim=1, descending=True))
        likelihood = plackett_luce(score)
        orders = torch.tensor(list(permutations(range(size))))
        least = plackett_luce(score[:, orders].flatten(0, 1)).view(RANKINGS, -1).amin(dim=1)
        charged, searched = ranking_cost(score, likelihood, RHO), RHO * (likelihood - least)
        rows.append(
            {
                "K": size,
                "rho": RHO,
                "rankings": RANKINGS,
                "orders": len(orders),
                "error_max": float((charged - searched).abs().max()),
                "cost_mean": float(charged.mean()),
            }
        )
    return rows
