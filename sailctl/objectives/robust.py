"""Oracle-robust SAIL: the worst-case cost of bounded errors of the teacher.

Li et al. 2026, arXiv 2602.20457. The true preference may be any P with |P - P*| <= rho, for each pair. Since
log sigma(h) - log sigma(-h) = h, a shift of P by rho towards the worse answer costs rho |h|, and the worst
case of the objective is (their decomposition theorem; derived again and tested numerically here)

    L_rho(theta) = L_SAIL(theta) + rho * E |h_theta|.

It is exact if rho <= min(P*, 1 - P*). Otherwise P stays within [0, 1] and the cost is smaller:
min(rho, P*) h for h > 0, min(rho, 1 - P*) |h| for h < 0.

Wu et al. 2026, arXiv 2607.01715, use another set, total variation rho around each observed answer: their
loss is (1 - rho) times that of the observed ranking plus rho times that of the worst one (``ranking``).
Averaged over answers drawn from P*, a share rho of them is arbitrary: the preference is (1 - rho) P* + rho Q
with any Q. For pairs the worst case costs rho P* h for h > 0 and rho (1 - P*) |h| for h < 0 (derived). This
set lies within the other one, so its cost is never the larger of the two. With drawn labels it is
rho max(0, z h), an unbiased estimate because the cost is linear in P*.
"""

from __future__ import annotations

import torch
from torch import Tensor


def robust_cost(
    h: Tensor, rho: float, probability: Tensor | None = None, *, contaminated: bool = False
) -> Tensor:
    """Largest loss of objective value of each pair that an adversary with bound rho can cause.

    Args:
        h: (B,) pair scores.
        rho: bound on |P - P*|, from 0 to 1; with ``contaminated`` the share of arbitrary answers.
        probability: (B,) P*(first preferred), to keep the adversary's P within [0, 1]; None for no such
            limit, which is rho |h| of Li et al.
        contaminated: the set of Wu et al., which needs ``probability``.

    Returns:
        (B,) costs, >= 0. The subgradient at h = 0 is 0.

    Raises:
        ValueError: when ``contaminated`` has no ``probability``.
    """
    if probability is None:
        if contaminated:
            raise ValueError("the cost of contaminated answers needs their probability")
        return rho * h.abs()
    favoured = torch.where(h > 0, probability, 1 - probability)
    return (rho * favoured if contaminated else favoured.clamp(max=rho)) * h.abs()


def label_cost(h: Tensor, rho: float, label: Tensor, worst_case: str) -> Tensor:
    """``robust_cost`` with the label in place of the unknown P*.

    Args:
        h: (B,) pair scores.
        rho: bound of the adversary.
        label: (B,) z from -1 to 1; P*(first preferred) is taken to be (1 + z) / 2.
        worst_case: ``exact`` costs rho |h|; ``clipped`` keeps P within [0, 1]; with ``contaminated`` a share
            rho of the answers is arbitrary.

    Returns:
        (B,) costs, >= 0, differentiable in ``h`` and ``label``.

    Raises:
        ValueError: when ``worst_case`` is none of the three.
    """
    if worst_case == "exact":
        return robust_cost(h, rho)
    if worst_case in ("clipped", "contaminated"):
        return robust_cost(h, rho, (1 + label) / 2, contaminated=worst_case == "contaminated")
    raise ValueError(f"the worst case is exact, clipped or contaminated, not {worst_case!r}")
