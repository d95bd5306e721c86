"""Oracle-robust SAIL: its decomposition, weak convexity, composite updates, and where they stop being exact.

1. Worst case: L_SAIL + rho E|h| against the largest loss over all teachers within rho of P*, searched by
   projected gradient ascent on the teacher. What the formula charges too much where P* is near 0 or 1.
2. Freezing: from which rho on the reference itself is a stationary point, and the minimum, of L_rho.
3. Weak convexity: the smallest m for which L_rho + m/2 |theta|^2 is convex on the ball.
4. Stationarity: samples until the gradient of the Moreau envelope is small, for the paper's composite update
   (gradient step, proximal map of the sampled rho |h|, projection), for the subgradient step, and for a
   composite update that forgets that theta draws the pairs of the penalty too.
5. Linearity: over several control steps h is quadratic in theta, and what that does to the proximal map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor

from benchmarks.record import arguments, write
from benchmarks.theory.ball import derivatives, minimise, points_in_ball, project
from benchmarks.theory.convergence import answer_chances, interval, line, log_policy
from benchmarks.theory.figures import BLACK, BLUE, GREEN, ORANGE, PINK, SKY, YELLOW, panels
from benchmarks.theory.gradient import Control, linear_policy, reference_parameters
from benchmarks.theory.landscape import maximise
from benchmarks.theory.problem import Problem, random_problem, stack
from sailctl.objectives import moreau_gradient, prox_abs, robust_cost
from sailctl.types import BoolArray, DoubleArray, IntArray, RunError

RADIUS = 4.0
PROBLEMS = 200
"""Random problems of the worst case, a random policy on each."""
RHOS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
FROZEN = 30
"""Random problems of part 2."""
BALLS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
SEGMENTS = 20_000
"""Random segments on which convexity is put to the test."""
STUDIED = 7
"""Seed of the problem of parts 3 and 4."""
KINKS = {0.03: "smooth minimum", 0.1: "minimum on an edge", 0.16: "minimum at the reference"}
"""rho, and where the minimum of L_rho lies among the kinks of |h|."""
VARIANTS = ("composite", "subgradient", "composite, sampling forgotten")
SEEDS = 20
HORIZONS = tuple(2**power for power in range(7, 17))
"""T, samples of a run: its step size is a constant over sqrt(T)."""
LOOKS = 16
"""Iterates of a run, evenly spread, at which the Moreau envelope is looked at."""
FINEST = 10
"""|h| is smoothed by 10^-1, 10^-2, ... down to 10^-FINEST on the way to a proximal point."""
NEAR = 1e-7
"""Scores that small are 0 at the proximal point."""
RESAMPLES = 500

Row = dict[str, object]


# 1. Worst case


def worst_teacher(problem: Problem, theta: Tensor, rho: float) -> Tensor:
    """(..., X, Y, Y) the teacher within rho of P* and within [0, 1] for which J is least.

    Projected gradient descent on the probabilities themselves, P(y2 > y1) = 1 - P(y1 > y2) kept, with steps
    that cross the set at once: J is linear in them, so the second step already changes nothing.
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

    ``exact`` is the paper's rho |h|, ``clipped`` keeps the adversary within [0, 1] around P*, and ``around
    labels`` is what ``worst_case: clipped`` does with labels that are drawn: it keeps it within [0, 1] around
    0 or 1, so that on average it charges rho P* where h > 0.
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


# 2. Freezing


def kink_slopes(problem: Problem) -> Tensor:
    """(X, Y, Y, d) gradients of h: beta (phi(x, y1) - phi(x, y2)), the same at every theta."""
    return problem.beta * (problem.phi[:, :, None, :] - problem.phi[:, None, :, :])


def freezing_rho(problem: Problem) -> float:
    """The smallest rho for which the reference is a stationary point of L_rho (derived).

    There h = 0 for every pair, and L_rho grows along v at the rate rho E|v . grad h| - v . grad J. So rho is
    the largest v . grad J / E|v . grad h| over all directions.
    """
    reference = reference_parameters(problem)
    slope = derivatives(problem.objective, reference[None])[1][0]
    bends, weight = kink_slopes(problem), problem.pairs(reference)

    def rate(directions: Tensor) -> Tensor:
        along = (bends @ directions.T).abs()
        return directions @ slope / (weight[..., None] * along).sum(dim=(0, 1, 2))

    found, _ = maximise(rate, points_in_ball(2000, problem.dimension, 1.0, seed=5), 1.0)
    return found


def freezing_rows() -> list[Row]:
    """``freezes_at``, and how far below L_rho(reference) the minimum in the ball lies just above it.

    ``half`` is max |P* - 1/2|: from there on a teacher that answers at random is in the set, and no policy
    predicts its answers better than the reference does. ``room`` is min(P*, 1 - P*), the largest rho for
    which the decomposition is exact.
    """
    rows: list[Row] = []
    for quality in (0.3, 0.7, 2.0):
        for seed in range(FROZEN):
            problem = random_problem(seed, quality=quality)
            different = ~torch.eye(problem.chance.shape[-1], dtype=torch.bool)
            chance = problem.chance[:, different]
            freezes, half = freezing_rho(problem), float((chance - 0.5).abs().max())
            rows.append(
                {
                    "quality": quality,
                    "problem": seed,
                    "room": float(torch.minimum(chance, 1 - chance).min()),
                    "freezes_at": freezes,
                    "half": half,
                    "below_reference_at_freezing": below_reference(problem, 1.001 * freezes),
                    "below_reference_at_half": below_reference(problem, half),
                }
            )
    return rows


def below_reference(problem: Problem, rho: float) -> float:
    """L_rho at the reference less its least value found in the ball, 0 when nothing better was found."""
    found = smoothed_minima(problem, rho, points_in_ball(24, problem.dimension, RADIUS, seed=6), finest=6)
    return max(0.0, math.log(2) + float(problem.robust(found, rho).max()))


# 3. Weak convexity


def loss(problem: Problem, rho: float, theta: Tensor) -> Tensor:
    """(N,) L_rho."""
    return -problem.robust(theta, rho)


def penalty(problem: Problem, theta: Tensor) -> Tensor:
    """(N,) E|h|."""
    return (problem.pairs(theta) * problem.score(theta).abs()).sum(dim=(-3, -2, -1))


def downward_curvature(function: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """(N,) minus the smallest eigenvalue of the Hessian of a smooth piece."""
    lowest: Tensor = torch.linalg.eigvalsh(derivatives(function, theta)[2])[:, 0]
    return -lowest


def modulus_bound(problem: Problem) -> float:
    """m for the penalty alone, for any radius (derived).

    With s the scores of the responses (phi less its mean), the Hessian of E|h| away from its kinks is
    E[|h| ((s1 + s2)(s1 + s2)^T - 2 Fisher)] + 2 beta E[sign(h) (s1 s1^T - s2 s2^T)], which is at least
    -(2 E|h| + 4 beta) Fisher, E|h| <= 2 beta (log Y + max log 1/pi_ref), and the Fisher information of a
    prompt is at most a quarter of the largest squared distance between features. Kinks only bend upwards.
    """
    spread = math.log(problem.phi.shape[-2]) + float(-problem.ref_logp.min())
    widest = float((kink_slopes(problem) / problem.beta).square().sum(dim=-1).max())
    return 4 * problem.beta * (1 + spread) * widest / 4


def midpoint_excess(function: Callable[[Tensor], Tensor], modulus: float, radius: float, seed: int) -> float:
    """Largest violation of convexity of function + modulus/2 |.|^2 at the middle of random segments.

    A quarter of the segments is as long as the ball allows, the others are up to 1000 times shorter.
    """
    one = points_in_ball(SEGMENTS, 3, radius, seed)
    other = points_in_ball(SEGMENTS, 3, radius, seed + 1)
    share = torch.logspace(-3, 0, 4, dtype=torch.float64).repeat(SEGMENTS // 4)[:, None]
    other = one + share * (other - one)
    middle = (one + other) / 2
    excess = function(middle) - (function(one) + function(other)) / 2
    # |middle|^2 less the mean of both ends' is minus a quarter of the squared distance.
    curve = (one - other).square().sum(dim=-1) / 8
    return float((excess - modulus * curve).max())


def convexity_rows() -> list[Row]:
    """m on balls of several radii for several rho, and segments that hold it to that."""
    problem = random_problem(STUDIED, quality=0.5)
    rows: list[Row] = []
    for rho in (0.0, *KINKS, 0.5):
        function = partial(loss, problem, rho)
        for radius in BALLS:
            points = points_in_ball(3000, problem.dimension, radius, seed=7)
            m, place = maximise(partial(downward_curvature, function), points, radius)
            alone, _ = maximise(partial(downward_curvature, partial(penalty, problem)), points, radius)
            rows.append(
                {
                    "rho": rho,
                    "radius": radius,
                    "m": m,
                    "m_of_penalty": alone,
                    "m_of_penalty_any_radius": modulus_bound(problem),
                    "worst_point_norm": float(place.norm()),
                    "excess_at_1.01_m": midpoint_excess(function, 1.01 * m, radius, seed=8),
                    "excess_without": midpoint_excess(function, 0.0, radius, seed=8),
                }
            )
    return rows


# 4. Stationarity


def smoothed_minima(
    problem: Problem, rho: float, start: Tensor, finest: int, prox: tuple[Tensor, float] | None = None
) -> Tensor:
    """(N, d) local minima over the ball of L_rho, or of L_rho + |x - centre|^2 / (2 size).

    |h| is smoothed to sqrt(h^2 + w^2) - w, with w smaller by ten from round to round, each round started
    where the one before ended.

    Args:
        problem: one problem.
        rho: of the penalty.
        start: (N, d).
        finest: the last w is 10^-finest.
        prox: (N, d) centres and the size; None leaves the quadratic out.
    """

    def smoothed(width: float, x: Tensor) -> Tensor:
        h = problem.score(x)
        cost = (problem.pairs(x) * (torch.sqrt(h * h + width * width) - width)).sum(dim=(-3, -2, -1))
        value = rho * cost - problem.objective(x)
        return value if prox is None else value + (x - prox[0]).square().sum(dim=-1) / (2 * prox[1])

    x = start
    for power in range(1, finest + 1):
        rough = 1e-12 if power == finest else 1e-6
        x, _ = minimise(partial(smoothed, 10.0**-power), x, RADIUS, steps=15, tolerance=rough)
    return x


def proximal_points(problem: Problem, rho: float, theta: Tensor, modulus: float) -> tuple[Tensor, Tensor]:
    """argmin_x L_rho(x) + modulus |x - theta|^2 over the ball, for L_rho + modulus/2 |.|^2 convex.

    The size of the Moreau envelope is 1 / (2 modulus) (Davis and Drusvyatskiy 2019), so that the objective is
    strongly convex with that modulus. Smoothed Newton finds the point; scores below ``NEAR`` are then set to
    0 by the shortest move, and a subgradient v at the result says how far the minimum can be at most.

    Returns:
        (N, d) points and (N,) the bounds |v| / modulus on their distance to the minimum.
    """
    size = 1 / (2 * modulus)
    x = smoothed_minima(problem, rho, theta, FINEST, (theta, size))
    h, bends = problem.score(x).flatten(1), kink_slopes(problem).flatten(0, 2)
    active = h.abs() < NEAR
    push = h / torch.sqrt(h * h + 10.0 ** (-2 * FINEST))
    rows = bends * active[..., None]
    x = x - (torch.linalg.pinv(rows, rtol=1e-6) @ (h * active)[..., None])[..., 0]
    # On active pairs any slope of |h| between -1 and 1 will do: the smoothed one is nearly the best.
    slopes = torch.where(active, push, h.sign())

    def linearised(leaf: Tensor) -> Tensor:
        signed = (problem.pairs(leaf) * problem.score(leaf)).flatten(1)
        value = rho * (signed * slopes).sum(dim=-1) - problem.objective(leaf)
        return value + (leaf - theta).square().sum(dim=-1) / (2 * size)

    leaf = x.clone().requires_grad_()
    (v,) = torch.autograd.grad(linearised(leaf).sum(), leaf)
    return x, (x - project(x - v, RADIUS)).norm(dim=-1) / modulus


def composite_runs(
    problem: Problem,
    start: DoubleArray,
    rho: float,
    length: DoubleArray,
    marks: Sequence[int],
    rng: np.random.Generator,
) -> DoubleArray:
    """R / 3 runs of each of the ``VARIANTS``, a sample (prompt, two responses, label) in each step.

    A step is that of ``sail_loss`` with c = 1 and no baseline, then ``prox_abs`` for the composite ones, then
    ``project_ball``; the tests hold it against them.

    Args:
        problem: one problem.
        start: (R, d), a third for each variant.
        rho: of the penalty.
        length: (R,) step sizes.
        marks: increasing step counts at which the parameters are kept.
        rng: draws everything.

    Returns:
        (len(marks), R, d) parameters.
    """
    third = len(start) // len(VARIANTS)
    direct = np.repeat([name == "subgradient" for name in VARIANTS], third)
    counted = np.repeat(["forgotten" not in name for name in VARIANTS], third)
    theta, kept = start.copy(), []
    for before, mark in pairwise([0, *marks]):
        for _ in range(before, mark):
            logp = log_policy(problem, theta)
            sample = draw_one(problem, logp, rng)
            theta = one_step(problem, theta, logp, sample, rho, length, direct, counted)
        kept.append(theta.copy())
    return np.stack(kept)


def draw_one(
    problem: Problem, logp: DoubleArray, rng: np.random.Generator
) -> tuple[IntArray, IntArray, IntArray]:
    """(R,) prompt, preferred and other response, one sample for each of R policies."""
    chances = answer_chances(problem, logp)
    heaped = chances.reshape(len(logp), -1).cumsum(axis=1)
    cell = (heaped < rng.random((len(logp), 1)) * heaped[:, -1:]).sum(axis=1)
    x, better, worse = np.unravel_index(cell, chances.shape[1:])
    return x, better, worse


def one_step(
    problem: Problem,
    theta: DoubleArray,
    logp: DoubleArray,
    sample: tuple[IntArray, IntArray, IntArray],
    rho: float,
    length: DoubleArray,
    direct: BoolArray,
    counted: BoolArray,
) -> DoubleArray:
    """(R, d) parameters after a step on one sample each.

    Args:
        problem: one problem.
        theta: (R, d).
        logp: (R, X, Y) log pi_theta.
        sample: as ``draw_one`` gives it.
        rho: of the penalty.
        length: (R,) step sizes.
        direct: (R,) whether the penalty is followed by its subgradient; otherwise by its proximal map.
        counted: (R,) whether its part in T2 is counted.
    """
    phi, ref_logp = problem.phi.numpy(), problem.ref_logp.numpy()
    x, better, worse = sample
    every = np.arange(len(theta))
    ratio = logp - ref_logp
    h = problem.beta * (ratio[every, x, better] - ratio[every, x, worse])
    value = np.minimum(h, 0.0) - np.log1p(np.exp(-np.abs(h)))
    bend = problem.beta * (phi[x, better] - phi[x, worse])
    mean = np.einsum("ry,ryd->rd", np.exp(logp[every, x]), phi[x])
    drawn = phi[x, better] + phi[x, worse] - 2 * mean
    pull = np.exp(value - h) - direct * rho * np.sign(h)
    ahead = pull[:, None] * bend + (value - counted * rho * np.abs(h))[:, None] * drawn
    moved = theta + length[:, None] * ahead
    # The proximal map of one pair: along the bend until the score is 0, by length * rho bends at most.
    square = np.maximum((bend * bend).sum(axis=1), np.finfo(float).tiny)
    score = h + ((moved - theta) * bend).sum(axis=1)
    reach = length * rho * ~direct
    moved -= np.clip(score / square, -reach, reach)[:, None] * bend
    norm = np.sqrt((moved * moved).sum(axis=1, keepdims=True))
    inside: DoubleArray = moved * np.minimum(1.0, RADIUS / np.maximum(norm, RADIUS))
    return inside
