"""Exact projected gradient ascent: its path, and the Polyak-Lojasiewicz constant mu along it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.record import Row
from benchmarks.theory.ball import derivatives, points_in_ball, project
from benchmarks.theory.convergence.cases import Case
from benchmarks.theory.convergence.objectives import (
    ARMS,
    RADIUS,
    Objective,
    global_maxima,
    local_maxima,
    objectives,
    weights_of,
)
from benchmarks.theory.problem import stack
from benchmarks.theory.statistics import line
from sailctl.core.types import DoubleArray, IntArray

ITERATIONS = 4000
"""Longest exact path."""
RESOLVED = 1e-12
"""Smallest gap that is larger than the rounding of float64."""


# One path for each objective


@dataclass(frozen=True)
class Trace:
    """Exact projected gradient ascent of N objectives, K steps of length 1 / L."""

    gap: DoubleArray
    """(K, N) distance to the global maximum."""
    mapping: DoubleArray
    """(K, N) squared length of the gradient mapping G."""
    smoothness: DoubleArray
    """(N,) L, the largest curvature found in the ball."""
    end: Tensor
    """(N, d) the last point."""

    def constant(self) -> DoubleArray:
        """(N,) mu = min |G|^2 / (2 gap), where the gap is larger than rounding."""
        ratio = np.divide(self.mapping, 2 * self.gap, out=np.full_like(self.gap, np.inf), where=self.seen())
        smallest: DoubleArray = ratio.min(axis=0)
        return smallest

    def seen(self) -> NDArray[np.bool_]:
        """(K, N) where the gap is larger than rounding."""
        return self.gap > RESOLVED


def smoothness(objective: Objective, start: Tensor) -> Tensor:
    """(N,) largest |eigenvalue| of the Hessian of each row found in the ball and at the start (d,)."""
    points = torch.cat([points_in_ball(2000, objective.problem.dimension, RADIUS, seed=4), start[None]])
    count = len(objective.ref_pi)
    curvature = derivatives(objective.repeat(len(points)), points.repeat(count, 1))[2]
    largest: Tensor = torch.linalg.eigvalsh(curvature).abs().reshape(count, -1).amax(dim=1)
    return largest


def trace(objective: Objective, start: Tensor, best: Tensor, largest: Tensor) -> Trace:
    """Follow exact projected gradient ascent from (N, d) starts.

    Args:
        objective: N rows.
        start: (N, d).
        best: (N,) values of the global maxima.
        largest: (N,) L.
    """
    gaps, mappings, theta = [], [], start
    for _ in range(ITERATIONS):
        leaf = theta.detach().requires_grad_()
        value = objective(leaf)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
        following = project(theta + slope / largest[:, None], RADIUS)
        gaps.append((best - value).detach().numpy())
        mappings.append(((following - theta) * largest[:, None]).square().sum(dim=-1).numpy())
        theta = following
    return Trace(np.stack(gaps), np.stack(mappings), largest.numpy(), theta)


# Everything that is known exactly of a case


@dataclass(frozen=True)
class Studied:
    """A case with its exact maxima and its exact path, for each arm."""

    case: Case
    objective: Objective
    place: Tensor
    """(arms, d) global maxima in the ball."""
    best: Tensor
    """(arms,) their values."""
    curvature: DoubleArray
    """(arms,) mu*, the smallest curvature at each."""
    maxima: list[int]
    """How many local maxima were found."""
    trace: Trace


def study(found: Sequence[Case]) -> list[Studied]:
    """Maxima and exact paths of all cases. All paths are computed together."""
    known = {}
    for case in found:
        if case.seed not in known:
            objective = objectives(case.problem, ARMS)
            place, best = global_maxima(objective)
            bend = torch.linalg.eigvalsh(derivatives(objective, place)[2])[:, -1]
            largest = smoothness(objective, case.start)
            known[case.seed] = objective, place, best, -bend.numpy(), local_maxima(objective), largest
    arms, count = len(ARMS), len(found)
    together = Objective(
        stack([case.problem for case in found for _ in ARMS]),
        *weights_of(ARMS).T.repeat(1, count),
    )
    start = torch.stack([case.start for case in found]).repeat_interleave(arms, dim=0)
    best = torch.cat([known[case.seed][2] for case in found])
    whole = trace(together, start, best, torch.cat([known[case.seed][5] for case in found]))
    parts = [slice(arms * index, arms * (index + 1)) for index in range(count)]
    return [
        Studied(
            case,
            *known[case.seed][:5],
            Trace(whole.gap[:, part], whole.mapping[:, part], whole.smoothness[part], whole.end[part]),
        )
        for case, part in zip(found, parts, strict=True)
    ]


def gaps_of(known: Studied, arm: int, theta: DoubleArray) -> DoubleArray:
    """(...) exact distance of (..., d) parameters to the global maximum of an arm."""
    objective = Objective(known.case.problem, known.objective.ref_pi[arm], known.objective.pi_ref[arm])
    gap: DoubleArray = (known.best[arm] - objective(torch.from_numpy(theta))).numpy()
    return gap


# Records


def path_rows(studied: Sequence[Studied]) -> list[Row]:
    """mu, whether the path reaches the global maximum, and how straight log gap is against iterations.

    ``J_gap_end`` is the gap in J itself at the end of the path, whichever objective was followed.
    ``worst_over_bound`` is the largest gap_k / ((1 - mu / L)^k gap_0): at most 1 by the theorem.
    """
    rows: list[Row] = []
    for known in studied:
        constant, path = known.trace.constant(), known.trace
        behind = (known.best[0] - known.case.problem.objective(path.end)).numpy()
        for arm, (name, gamma) in enumerate(ARMS):
            gap, largest = path.gap[:, arm], path.smoothness[arm]
            steps = np.flatnonzero(path.seen()[:, arm])
            half = steps[len(steps) // 2 :]
            reached = bool(gap[-1] < RESOLVED)
            rate, straight = rate_of(gap, steps) if reached else (np.nan, np.nan)
            late_rate, late_straight = rate_of(gap, half) if reached else (np.nan, np.nan)
            bound = np.log1p(-constant[arm] / largest) * steps + np.log(gap[0])
            rows.append(
                {
                    **known.case.label,
                    "objective": name,
                    "gamma": gamma,
                    "local_maxima": known.maxima[arm],
                    "maximum_norm": float(known.place[arm].norm()),
                    "gap_start": float(gap[0]),
                    "gap_end": float(gap[-1]),
                    "J_gap_end": float(behind[arm]),
                    "reached": reached,
                    "iterations": len(steps),
                    "mu_path": float(constant[arm]),
                    "mu_at_maximum": float(known.curvature[arm]),
                    "L": float(largest),
                    "worst_over_bound": float(np.exp((np.log(gap[steps]) - bound).max())),
                    "rate": rate,
                    "r2": straight,
                    "late_rate": late_rate,
                    "late_r2": late_straight,
                }
            )
    return rows


def rate_of(gap: DoubleArray, steps: IntArray) -> tuple[float, float]:
    """How fast log gap falls at the given iterations (per iteration), and R^2 of the straight line."""
    slope, _, straight = line(steps.astype(float), np.log(gap[steps]))
    return -slope, straight
