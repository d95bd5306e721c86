"""Oracle-robust SAIL: the price of a teacher that may be any within bounds, and proximal steps on it.

Li et al. 2026, arXiv 2602.20457. The true preference may be any P with |P - P*| <= rho, pair by pair. Since
log sigma(h) - log sigma(-h) = h, moving rho of probability to the worse answer costs rho |h|, so that the
worst case of the objective is (their decomposition theorem; derived again and tested numerically here)

    L_rho(theta) = L_SAIL(theta) + rho * E |h_theta|.

It is exact where rho <= min(P*, 1 - P*). Elsewhere the adversary is stopped by 0 or 1 and the cost is less:
min(rho, P*) h where h > 0, min(rho, 1 - P*) |h| where h < 0.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sailctl.core.types import DoubleArray

FLATTEST = float(np.finfo(np.float64).tiny ** 0.5)
"""Smallest curvature that a dual step divides by: where all slopes are zero the step must stay finite."""


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


def prox_abs(theta: DoubleArray, slope: DoubleArray, offset: float, weight: float) -> DoubleArray:
    """The proximal map of one pair, in closed form.

    It is argmin_x weight * |slope . x + offset| + |x - theta|^2 / 2.

    Args:
        theta: (d,) the point.
        slope: (d,) gradient of the pair's score, not zero.
        offset: score of the pair at x = 0.
        weight: step size times rho, >= 0.

    Returns:
        (d,) the minimiser: theta moved along the slope until the score is 0, by ``weight`` slopes at most.
    """
    move = np.clip((slope @ theta + offset) / (slope @ slope), -weight, weight)
    moved: DoubleArray = theta - move * slope
    return moved


def prox_mean_abs(
    theta: DoubleArray,
    slopes: DoubleArray,
    offsets: DoubleArray,
    weight: float,
    tolerance: float = 1e-12,
    iterations: int = 20_000,
) -> tuple[DoubleArray, float]:
    """The proximal map of a minibatch of pairs.

    It is argmin_x weight * mean_i |slopes_i . x + offsets_i| + |x - theta|^2 / 2. Its dual is a quadratic on
    a box: x = theta - slopes^T u with |u_i| <= weight / B. It is solved by accelerated projected gradient
    with restarts (Beck and Teboulle 2009; O'Donoghue and Candes 2015) until the duality gap is at most
    ``tolerance`` times the scale of the problem, or ``iterations`` are used up.

    Args:
        theta: (d,) the point.
        slopes: (B, d) gradients of the pairs' scores.
        offsets: (B,) scores of the pairs at x = 0.
        weight: step size times rho, >= 0.
        tolerance: duality gap at which to stop, relative to weight * mean |score at theta|.
        iterations: largest number of dual steps.

    Returns:
        (d,) the minimiser, and the duality gap left: |x - x*|^2 / 2 is at most that.
    """
    bound = weight / len(offsets)
    score = slopes @ theta + offsets
    gram = slopes @ slopes.T
    step = 1.0 / max(float(np.linalg.eigvalsh(gram)[-1]), FLATTEST)
    enough = tolerance * _duality_gap(np.zeros_like(score), score, bound)
    u = ahead = np.zeros_like(score)
    left, momentum = score, 1.0
    for _ in range(iterations):
        if _duality_gap(u, left, bound) <= enough:
            break
        following = np.clip(ahead + step * (score - gram @ ahead), -bound, bound)
        if (following - ahead) @ (following - u) < 0:  # the momentum points uphill: start it anew
            momentum, ahead = 1.0, u
            following = np.clip(ahead + step * left, -bound, bound)
        grown = (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        ahead = following + (momentum - 1.0) / grown * (following - u)
        u, momentum = following, grown
        left = score - gram @ u
    minimiser: DoubleArray = theta - slopes.T @ u
    return minimiser, _duality_gap(u, left, bound)


def _duality_gap(u: DoubleArray, left: DoubleArray, bound: float) -> float:
    """Primal minus dual value of ``prox_mean_abs`` at a dual point that leaves the scores ``left``."""
    return float((bound * np.abs(left) - u * left).sum())


def moreau_gradient(theta: DoubleArray, prox: DoubleArray, size: float) -> DoubleArray:
    """Gradient of the Moreau envelope: (theta - prox) / size, with ``prox`` the proximal point of ``theta``.

    For a weakly convex objective phi (phi + |.|^2 / (2 size) convex) its norm measures stationarity: where it
    is small, theta is near a point at which phi has a small subgradient (Davis and Drusvyatskiy 2019).

    Args:
        theta: (d,) the point.
        prox: (d,) argmin_x phi(x) + |x - theta|^2 / (2 size), over the constraint set.
        size: lambda > 0.

    Returns:
        (d,) the gradient.
    """
    gradient: DoubleArray = (theta - prox) / size
    return gradient
