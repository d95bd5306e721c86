"""Oracle-robust SAIL: the cost of a teacher that may be any within bounds.

Li et al. 2026, arXiv 2602.20457. The true preference may be any P with |P - P*| <= rho, pair by pair. Since
log sigma(h) - log sigma(-h) = h, moving rho of probability to the worse answer costs rho |h|, so that the
worst case of the objective is (their decomposition theorem; derived again and tested numerically here)

    L_rho(theta) = L_SAIL(theta) + rho * E |h_theta|.

It is exact where rho <= min(P*, 1 - P*). Elsewhere the adversary is stopped by 0 or 1 and the cost is less:
min(rho, P*) h where h > 0, min(rho, 1 - P*) |h| where h < 0.
"""

from __future__ import annotations

import torch
from torch import Tensor


def robust_cost(h: Tensor, rho: float, chance: Tensor | None = None) -> Tensor:
    """What an adversary of size rho can take from each pair.

    Args:
        h: (B,) pair scores.
        rho: bound on |P - P*|, from 0 to 1.
        chance: (B,) P*(first preferred), to keep the adversary's P within [0, 1]; None lets it go beyond,
            which is the paper's rho |h|.

    Returns:
        (B,) costs, >= 0. At h = 0 the subgradient taken is 0.
    """
    if chance is None:
        return rho * h.abs()
    room = torch.where(h > 0, chance, 1 - chance)
    return room.clamp(max=rho) * h.abs()
