"""Oracle-robust SAIL: the worst-case cost of bounded errors of the teacher.

Li et al. 2026, arXiv 2602.20457. The true preference may be any P with |P - P*| <= rho, for each pair. Since
log sigma(h) - log sigma(-h) = h, a shift of P by rho towards the worse answer costs rho |h|, and the worst
case of the objective is (their decomposition theorem; derived again and tested numerically here)

    L_rho(theta) = L_SAIL(theta) + rho * E |h_theta|.

It is exact if rho <= min(P*, 1 - P*). Otherwise P stays within [0, 1] and the cost is smaller:
min(rho, P*) h for h > 0, min(rho, 1 - P*) |h| for h < 0.
"""

from __future__ import annotations

import torch
from torch import Tensor


def robust_cost(h: Tensor, rho: float, probability: Tensor | None = None) -> Tensor:
    """Largest loss of objective value of each pair that an adversary with bound rho can cause.

    Args:
        h: (B,) pair scores.
        rho: bound on |P - P*|, from 0 to 1.
        probability: (B,) P*(first preferred), to keep the adversary's P within [0, 1]; None for no such
            limit, which is the paper's rho |h|.

    Returns:
        (B,) costs, >= 0. The subgradient at h = 0 is 0.
    """
    if probability is None:
        return rho * h.abs()
    max_shift = torch.where(h > 0, probability, 1 - probability)
    return max_shift.clamp(max=rho) * h.abs()
